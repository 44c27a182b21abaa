-- Many images asked for at once. `plan` is the body without its sources, which are the items: each has an
-- image and a task, and stands where its task does. `cancelled`: its end was asked for. No more than
-- `concurrency` jobs of a batch are worked on at once.
CREATE TABLE batches (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    owner       TEXT COLLATE "C",
    user_id     TEXT COLLATE "C",
    plan        TEXT COLLATE "C" NOT NULL,
    concurrency BIGINT NOT NULL,
    created_at  BIGINT NOT NULL
);
CREATE INDEX batches_owner ON batches (owner, created_at);
CREATE TABLE batch_items (
    batch_id  TEXT COLLATE "C" NOT NULL,
    n         BIGINT NOT NULL,
    source    TEXT COLLATE "C" NOT NULL,
    name      TEXT COLLATE "C",
    image_id  TEXT COLLATE "C" NOT NULL,
    task_id   TEXT COLLATE "C" NOT NULL,
    cancelled BIGINT NOT NULL,
    PRIMARY KEY (batch_id, n)
);
CREATE INDEX batch_items_task ON batch_items (task_id);
ALTER TABLE jobs ADD COLUMN batch TEXT COLLATE "C";
CREATE INDEX jobs_batch ON jobs (batch, lease_until);
