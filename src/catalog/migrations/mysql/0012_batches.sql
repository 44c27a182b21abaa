-- Many images asked for at once. `plan` is the body without its sources, which are the items: each has an
-- image and a task, and stands where its task does. `cancelled`: its end was asked for. No more than
-- `concurrency` jobs of a batch are worked on at once.
CREATE TABLE batches (
    id          VARCHAR(64) NOT NULL PRIMARY KEY,
    owner       VARCHAR(255),
    user_id     VARCHAR(255),
    plan        MEDIUMTEXT NOT NULL,
    concurrency BIGINT NOT NULL,
    created_at  BIGINT NOT NULL
) ENGINE = InnoDB;
CREATE INDEX batches_owner ON batches (owner, created_at);
CREATE TABLE batch_items (
    batch_id  VARCHAR(64) NOT NULL,
    n         BIGINT NOT NULL,
    source    MEDIUMTEXT NOT NULL,
    name      MEDIUMTEXT,
    image_id  VARCHAR(36) NOT NULL,
    task_id   VARCHAR(64) NOT NULL,
    cancelled BIGINT NOT NULL,
    PRIMARY KEY (batch_id, n)
) ENGINE = InnoDB;
CREATE INDEX batch_items_task ON batch_items (task_id);
ALTER TABLE jobs ADD COLUMN batch VARCHAR(64);
CREATE INDEX jobs_batch ON jobs (batch, lease_until);
