-- Times are microseconds since 1970 UTC, flags 0 or 1, sizes bytes.
CREATE TABLE images (
    id               TEXT   NOT NULL PRIMARY KEY,
    name             TEXT,
    status           TEXT   NOT NULL,
    visibility       TEXT   NOT NULL,
    protected        BIGINT NOT NULL,
    hidden           BIGINT NOT NULL,
    owner            TEXT,
    container_format TEXT,
    disk_format      TEXT,
    min_ram          BIGINT NOT NULL,
    min_disk         BIGINT NOT NULL,
    size             BIGINT,
    virtual_size     BIGINT,
    checksum         TEXT,
    hash_algo        TEXT,
    hash_value       TEXT,
    created_at       BIGINT NOT NULL,
    updated_at       BIGINT NOT NULL,
    -- A deleted image keeps its row: its id is never given out again.
    deleted_at       BIGINT
);
CREATE INDEX images_created ON images (created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_owner ON images (owner, created_at, id) WHERE deleted_at IS NULL;

CREATE TABLE image_tags (
    image_id TEXT NOT NULL REFERENCES images (id),
    tag      TEXT NOT NULL,
    PRIMARY KEY (image_id, tag)
);
CREATE INDEX image_tags_tag ON image_tags (tag, image_id);

CREATE TABLE image_properties (
    image_id TEXT NOT NULL REFERENCES images (id),
    name     TEXT NOT NULL,
    value    TEXT NOT NULL,
    PRIMARY KEY (image_id, name)
);
CREATE INDEX image_properties_name ON image_properties (name, value, image_id);

-- Intent before bytes: a row is pending while its bytes are written, and whatever dies between
-- leaves the row that tells what to sweep.
CREATE TABLE image_locations (
    id          TEXT   NOT NULL PRIMARY KEY,
    image_id    TEXT   NOT NULL REFERENCES images (id),
    store       TEXT   NOT NULL,
    url         TEXT   NOT NULL,
    state       TEXT   NOT NULL,
    lease_until BIGINT NOT NULL,
    created_at  BIGINT NOT NULL
);
CREATE INDEX image_locations_image ON image_locations (image_id);
CREATE INDEX image_locations_state ON image_locations (state, lease_until);

-- Bytes staged for an import: written while `complete` is 0, hashed as they came.
CREATE TABLE staged (
    image_id    TEXT   NOT NULL PRIMARY KEY REFERENCES images (id),
    complete    BIGINT NOT NULL,
    size        BIGINT NOT NULL,
    checksum    TEXT,
    hash_algo   TEXT,
    hash_value  TEXT,
    lease_until BIGINT NOT NULL
);

CREATE TABLE tasks (
    id         TEXT   NOT NULL PRIMARY KEY,
    kind       TEXT   NOT NULL,
    status     TEXT   NOT NULL,
    owner      TEXT,
    image_id   TEXT   NOT NULL,
    request_id TEXT   NOT NULL,
    user_id    TEXT,
    input      TEXT   NOT NULL,
    result     TEXT,
    message    TEXT   NOT NULL,
    expires_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX tasks_image ON tasks (image_id, created_at);

-- The durable queue. `fence` grows with every claim: a worker that lost its lease cannot finish.
CREATE TABLE jobs (
    id          TEXT   NOT NULL PRIMARY KEY,
    kind        TEXT   NOT NULL,
    payload     TEXT   NOT NULL,
    priority    BIGINT NOT NULL,
    run_at      BIGINT NOT NULL,
    lease_until BIGINT,
    fence       BIGINT NOT NULL,
    attempts    BIGINT NOT NULL,
    last_error  TEXT,
    created_at  BIGINT NOT NULL
);
CREATE INDEX jobs_ready ON jobs (run_at, priority);
