-- Uploads that go on where they were broken off (tus): what a client was told is durable, `received`
-- bytes of `size`, lies in a file named for the row. `part`: whole, part (of one to be put together), or
-- joined from `parts`. Kept until `expires_at`, also those that are `done`, for clients that missed the answer.
CREATE TABLE resumable_uploads (
    id         VARCHAR(64) NOT NULL PRIMARY KEY,
    image_id   VARCHAR(36) NOT NULL,
    owner      VARCHAR(255),
    host       VARCHAR(64),
    store      VARCHAR(255) NOT NULL,
    part       VARCHAR(64) NOT NULL,
    size       BIGINT NOT NULL,
    received   BIGINT NOT NULL,
    done       BIGINT NOT NULL,
    metadata   MEDIUMTEXT NOT NULL,
    expected   MEDIUMTEXT,
    parts      MEDIUMTEXT NOT NULL,
    expires_at BIGINT NOT NULL
) ENGINE = InnoDB;
CREATE INDEX resumable_uploads_image ON resumable_uploads (image_id);
CREATE INDEX resumable_uploads_expiry ON resumable_uploads (expires_at);
