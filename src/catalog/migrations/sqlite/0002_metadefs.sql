-- Metadata definitions. Times are microseconds since 1970 UTC, flags 0 or 1. Rows are numbered in
-- the order they are made, which is the order they are shown in.
CREATE TABLE metadef_namespaces (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT    NOT NULL UNIQUE,
    display_name TEXT,
    description  TEXT,
    visibility   TEXT    NOT NULL,
    protected    BIGINT  NOT NULL,
    owner        TEXT,
    created_at   BIGINT  NOT NULL,
    updated_at   BIGINT  NOT NULL
);
CREATE INDEX metadef_namespaces_created ON metadef_namespaces (created_at, id);

-- `definition`: a JSON object, the keywords of the property.
CREATE TABLE metadef_properties (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace_id BIGINT  NOT NULL REFERENCES metadef_namespaces (id),
    name         TEXT    NOT NULL,
    definition   TEXT    NOT NULL,
    created_at   BIGINT  NOT NULL,
    updated_at   BIGINT  NOT NULL,
    UNIQUE (namespace_id, name)
);

-- `required`: a JSON array of names; `properties`: a JSON object of definitions by name.
CREATE TABLE metadef_objects (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace_id BIGINT  NOT NULL REFERENCES metadef_namespaces (id),
    name         TEXT    NOT NULL,
    description  TEXT,
    required     TEXT    NOT NULL,
    properties   TEXT    NOT NULL,
    created_at   BIGINT  NOT NULL,
    updated_at   BIGINT  NOT NULL,
    UNIQUE (namespace_id, name)
);

CREATE TABLE metadef_tags (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace_id BIGINT  NOT NULL REFERENCES metadef_namespaces (id),
    name         TEXT    NOT NULL,
    created_at   BIGINT  NOT NULL,
    updated_at   BIGINT  NOT NULL,
    UNIQUE (namespace_id, name)
);

-- A type that came with the schema was never changed.
CREATE TABLE metadef_resource_types (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL UNIQUE,
    created_at BIGINT  NOT NULL,
    updated_at BIGINT
);
INSERT INTO metadef_resource_types (name, created_at) VALUES
    ('OS::Glance::Image',   CAST(strftime('%s', 'now') AS BIGINT) * 1000000),
    ('OS::Cinder::Volume',  CAST(strftime('%s', 'now') AS BIGINT) * 1000000),
    ('OS::Nova::Server',    CAST(strftime('%s', 'now') AS BIGINT) * 1000000),
    ('OS::Nova::Aggregate', CAST(strftime('%s', 'now') AS BIGINT) * 1000000),
    ('OS::Nova::Flavor',    CAST(strftime('%s', 'now') AS BIGINT) * 1000000),
    ('OS::Trove::Instance', CAST(strftime('%s', 'now') AS BIGINT) * 1000000);

CREATE TABLE metadef_associations (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace_id      BIGINT  NOT NULL REFERENCES metadef_namespaces (id),
    resource_type_id  BIGINT  NOT NULL REFERENCES metadef_resource_types (id),
    prefix            TEXT,
    properties_target TEXT,
    created_at        BIGINT  NOT NULL,
    updated_at        BIGINT  NOT NULL,
    UNIQUE (namespace_id, resource_type_id)
);
CREATE INDEX metadef_associations_type ON metadef_associations (resource_type_id);
