-- Many images asked for at once. `plan` is the body without its sources, which are the items: each has an
-- image and a task, and stands where its task does. `cancelled`: its end was asked for. No more than
-- `concurrency` jobs of a batch are worked on at once.
CREATE TABLE batches (
    id          TEXT NOT NULL PRIMARY KEY,
    owner       TEXT,
    user_id     TEXT,
    plan        TEXT NOT NULL,
    concurrency BIGINT NOT NULL,
    created_at  BIGINT NOT NULL
);
CREATE INDEX batches_owner ON batches (owner, created_at);
CREATE TABLE batch_items (
    batch_id  TEXT NOT NULL,
    n         BIGINT NOT NULL,
    source    TEXT NOT NULL,
    name      TEXT,
    image_id  TEXT NOT NULL,
    task_id   TEXT NOT NULL,
    cancelled BIGINT NOT NULL,
    PRIMARY KEY (batch_id, n)
);
CREATE INDEX batch_items_task ON batch_items (task_id);
ALTER TABLE jobs ADD COLUMN batch TEXT;
CREATE INDEX jobs_batch ON jobs (batch, lease_until);
