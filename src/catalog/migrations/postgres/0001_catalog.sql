-- Times are microseconds since 1970 UTC, flags 0 or 1, sizes bytes.
CREATE TABLE images (
    id               TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name             TEXT COLLATE "C",
    status           TEXT COLLATE "C" NOT NULL,
    visibility       TEXT COLLATE "C" NOT NULL,
    protected        BIGINT           NOT NULL,
    hidden           BIGINT           NOT NULL,
    owner            TEXT COLLATE "C",
    container_format TEXT COLLATE "C",
    disk_format      TEXT COLLATE "C",
    min_ram          BIGINT           NOT NULL,
    min_disk         BIGINT           NOT NULL,
    size             BIGINT,
    virtual_size     BIGINT,
    checksum         TEXT COLLATE "C",
    hash_algo        TEXT COLLATE "C",
    hash_value       TEXT COLLATE "C",
    created_at       BIGINT           NOT NULL,
    updated_at       BIGINT           NOT NULL,
    -- A deleted image keeps its row: its id is never given out again.
    deleted_at       BIGINT
);
CREATE INDEX images_created ON images (created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_owner ON images (owner, created_at, id) WHERE deleted_at IS NULL;

CREATE TABLE image_tags (
    image_id TEXT COLLATE "C" NOT NULL REFERENCES images (id),
    tag      TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (image_id, tag)
);
CREATE INDEX image_tags_tag ON image_tags (tag, image_id);

CREATE TABLE image_properties (
    image_id TEXT COLLATE "C" NOT NULL REFERENCES images (id),
    name     TEXT COLLATE "C" NOT NULL,
    value    TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (image_id, name)
);
CREATE INDEX image_properties_name ON image_properties (name, left(value, 255), image_id);

-- Intent before bytes: a row is pending while its bytes are written, and whatever dies between
-- leaves the row that tells what to sweep.
CREATE TABLE image_locations (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    image_id    TEXT COLLATE "C" NOT NULL REFERENCES images (id),
    store       TEXT COLLATE "C" NOT NULL,
    url         TEXT COLLATE "C" NOT NULL,
    state       TEXT COLLATE "C" NOT NULL,
    lease_until BIGINT           NOT NULL,
    created_at  BIGINT           NOT NULL
);
CREATE INDEX image_locations_image ON image_locations (image_id);
CREATE INDEX image_locations_state ON image_locations (state, lease_until);

-- Bytes staged for an import: written while `complete` is 0, hashed as they came.
CREATE TABLE staged (
    image_id    TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES images (id),
    complete    BIGINT           NOT NULL,
    size        BIGINT           NOT NULL,
    checksum    TEXT COLLATE "C",
    hash_algo   TEXT COLLATE "C",
    hash_value  TEXT COLLATE "C",
    lease_until BIGINT           NOT NULL
);

CREATE TABLE tasks (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    kind       TEXT COLLATE "C" NOT NULL,
    status     TEXT COLLATE "C" NOT NULL,
    owner      TEXT COLLATE "C",
    image_id   TEXT COLLATE "C" NOT NULL,
    request_id TEXT COLLATE "C" NOT NULL,
    user_id    TEXT COLLATE "C",
    input      TEXT COLLATE "C" NOT NULL,
    result     TEXT COLLATE "C",
    message    TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT,
    created_at BIGINT           NOT NULL,
    updated_at BIGINT           NOT NULL
);
CREATE INDEX tasks_image ON tasks (image_id, created_at);

-- The durable queue. `fence` grows with every claim: a worker that lost its lease cannot finish.
CREATE TABLE jobs (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    kind        TEXT COLLATE "C" NOT NULL,
    payload     TEXT COLLATE "C" NOT NULL,
    priority    BIGINT           NOT NULL,
    run_at      BIGINT           NOT NULL,
    lease_until BIGINT,
    fence       BIGINT           NOT NULL,
    attempts    BIGINT           NOT NULL,
    last_error  TEXT COLLATE "C",
    created_at  BIGINT           NOT NULL
);
CREATE INDEX jobs_ready ON jobs (run_at, priority);
