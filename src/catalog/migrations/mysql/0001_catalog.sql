-- Times are microseconds since 1970 UTC, flags 0 or 1, sizes bytes.
CREATE TABLE images (
    id               VARCHAR(36) NOT NULL PRIMARY KEY,
    name             VARCHAR(255),
    status           VARCHAR(64) NOT NULL,
    visibility       VARCHAR(64) NOT NULL,
    protected        BIGINT      NOT NULL,
    hidden           BIGINT      NOT NULL,
    owner            VARCHAR(255),
    container_format VARCHAR(64),
    disk_format      VARCHAR(64),
    min_ram          BIGINT      NOT NULL,
    min_disk         BIGINT      NOT NULL,
    size             BIGINT,
    virtual_size     BIGINT,
    checksum         VARCHAR(255),
    hash_algo        VARCHAR(64),
    hash_value       VARCHAR(255),
    created_at       BIGINT      NOT NULL,
    updated_at       BIGINT      NOT NULL,
    -- A deleted image keeps its row: its id is never given out again.
    deleted_at       BIGINT
) ENGINE = InnoDB;
CREATE INDEX images_created ON images (deleted_at, created_at, id);
CREATE INDEX images_owner ON images (deleted_at, owner, created_at, id);

CREATE TABLE image_tags (
    image_id VARCHAR(36)  NOT NULL,
    tag      VARCHAR(255) NOT NULL,
    PRIMARY KEY (image_id, tag),
    FOREIGN KEY (image_id) REFERENCES images (id)
) ENGINE = InnoDB;
CREATE INDEX image_tags_tag ON image_tags (tag, image_id);

CREATE TABLE image_properties (
    image_id VARCHAR(36)  NOT NULL,
    name     VARCHAR(255) NOT NULL,
    value    MEDIUMTEXT   NOT NULL,
    PRIMARY KEY (image_id, name),
    FOREIGN KEY (image_id) REFERENCES images (id)
) ENGINE = InnoDB;
CREATE INDEX image_properties_name ON image_properties (name, value(255), image_id);

-- Intent before bytes: a row is pending while its bytes are written, and whatever dies between
-- leaves the row that tells what to sweep.
CREATE TABLE image_locations (
    id          VARCHAR(64)  NOT NULL PRIMARY KEY,
    image_id    VARCHAR(36)  NOT NULL,
    store       VARCHAR(255) NOT NULL,
    url         TEXT         NOT NULL,
    state       VARCHAR(64)  NOT NULL,
    lease_until BIGINT       NOT NULL,
    created_at  BIGINT       NOT NULL,
    FOREIGN KEY (image_id) REFERENCES images (id)
) ENGINE = InnoDB;
CREATE INDEX image_locations_image ON image_locations (image_id);
CREATE INDEX image_locations_state ON image_locations (state, lease_until);

-- Bytes staged for an import: written while `complete` is 0, hashed as they came.
CREATE TABLE staged (
    image_id    VARCHAR(36) NOT NULL PRIMARY KEY,
    complete    BIGINT      NOT NULL,
    size        BIGINT      NOT NULL,
    checksum    VARCHAR(255),
    hash_algo   VARCHAR(64),
    hash_value  VARCHAR(255),
    lease_until BIGINT      NOT NULL,
    FOREIGN KEY (image_id) REFERENCES images (id)
) ENGINE = InnoDB;

CREATE TABLE tasks (
    id         VARCHAR(64)  NOT NULL PRIMARY KEY,
    kind       VARCHAR(64)  NOT NULL,
    status     VARCHAR(64)  NOT NULL,
    owner      VARCHAR(255),
    image_id   VARCHAR(36)  NOT NULL,
    request_id VARCHAR(255) NOT NULL,
    user_id    VARCHAR(255),
    input      MEDIUMTEXT   NOT NULL,
    result     MEDIUMTEXT,
    message    MEDIUMTEXT   NOT NULL,
    expires_at BIGINT,
    created_at BIGINT       NOT NULL,
    updated_at BIGINT       NOT NULL
) ENGINE = InnoDB;
CREATE INDEX tasks_image ON tasks (image_id, created_at);

-- The durable queue. `fence` grows with every claim: a worker that lost its lease cannot finish.
CREATE TABLE jobs (
    id          VARCHAR(64) NOT NULL PRIMARY KEY,
    kind        VARCHAR(64) NOT NULL,
    payload     MEDIUMTEXT  NOT NULL,
    priority    BIGINT      NOT NULL,
    run_at      BIGINT      NOT NULL,
    lease_until BIGINT,
    fence       BIGINT      NOT NULL,
    attempts    BIGINT      NOT NULL,
    last_error  MEDIUMTEXT,
    created_at  BIGINT      NOT NULL
) ENGINE = InnoDB;
CREATE INDEX jobs_ready ON jobs (run_at, priority);
