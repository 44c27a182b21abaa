-- Metadata definitions. Times are microseconds since 1970 UTC, flags 0 or 1. Rows are numbered in
-- the order they are made, which is the order they are shown in.
CREATE TABLE metadef_namespaces (
    id           BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name         VARCHAR(255) NOT NULL UNIQUE,
    display_name VARCHAR(255),
    description  MEDIUMTEXT,
    visibility   VARCHAR(255) NOT NULL,
    protected    BIGINT       NOT NULL,
    owner        VARCHAR(255),
    created_at   BIGINT       NOT NULL,
    updated_at   BIGINT       NOT NULL
) ENGINE = InnoDB;
CREATE INDEX metadef_namespaces_created ON metadef_namespaces (created_at, id);

-- `definition`: a JSON object, the keywords of the property.
CREATE TABLE metadef_properties (
    id           BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    namespace_id BIGINT       NOT NULL,
    name         VARCHAR(255) NOT NULL,
    definition   MEDIUMTEXT   NOT NULL,
    created_at   BIGINT       NOT NULL,
    updated_at   BIGINT       NOT NULL,
    UNIQUE (namespace_id, name),
    FOREIGN KEY (namespace_id) REFERENCES metadef_namespaces (id)
) ENGINE = InnoDB;

-- `required`: a JSON array of names; `properties`: a JSON object of definitions by name.
CREATE TABLE metadef_objects (
    id           BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    namespace_id BIGINT       NOT NULL,
    name         VARCHAR(255) NOT NULL,
    description  MEDIUMTEXT,
    required     MEDIUMTEXT   NOT NULL,
    properties   MEDIUMTEXT   NOT NULL,
    created_at   BIGINT       NOT NULL,
    updated_at   BIGINT       NOT NULL,
    UNIQUE (namespace_id, name),
    FOREIGN KEY (namespace_id) REFERENCES metadef_namespaces (id)
) ENGINE = InnoDB;

CREATE TABLE metadef_tags (
    id           BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    namespace_id BIGINT       NOT NULL,
    name         VARCHAR(255) NOT NULL,
    created_at   BIGINT       NOT NULL,
    updated_at   BIGINT       NOT NULL,
    UNIQUE (namespace_id, name),
    FOREIGN KEY (namespace_id) REFERENCES metadef_namespaces (id)
) ENGINE = InnoDB;

-- A type that came with the schema was never changed.
CREATE TABLE metadef_resource_types (
    id         BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name       VARCHAR(255) NOT NULL UNIQUE,
    created_at BIGINT       NOT NULL,
    updated_at BIGINT
) ENGINE = InnoDB;
INSERT INTO metadef_resource_types (name, created_at) VALUES
    ('OS::Glance::Image',   UNIX_TIMESTAMP() * 1000000),
    ('OS::Cinder::Volume',  UNIX_TIMESTAMP() * 1000000),
    ('OS::Nova::Server',    UNIX_TIMESTAMP() * 1000000),
    ('OS::Nova::Aggregate', UNIX_TIMESTAMP() * 1000000),
    ('OS::Nova::Flavor',    UNIX_TIMESTAMP() * 1000000),
    ('OS::Trove::Instance', UNIX_TIMESTAMP() * 1000000);

CREATE TABLE metadef_associations (
    id                BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    namespace_id      BIGINT       NOT NULL,
    resource_type_id  BIGINT       NOT NULL,
    prefix            VARCHAR(255),
    properties_target VARCHAR(255),
    created_at        BIGINT       NOT NULL,
    updated_at        BIGINT       NOT NULL,
    UNIQUE (namespace_id, resource_type_id),
    FOREIGN KEY (namespace_id) REFERENCES metadef_namespaces (id),
    FOREIGN KEY (resource_type_id) REFERENCES metadef_resource_types (id)
) ENGINE = InnoDB;
CREATE INDEX metadef_associations_type ON metadef_associations (resource_type_id);
