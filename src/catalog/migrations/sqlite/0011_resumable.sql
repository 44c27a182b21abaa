-- Uploads that go on where they were broken off (tus): what a client was told is durable, `received`
-- bytes of `size`, lies in a file named for the row. `part`: whole, part (of one to be put together), or
-- joined from `parts`. Kept until `expires_at`, also those that are `done`, for clients that missed the answer.
CREATE TABLE resumable_uploads (
    id         TEXT NOT NULL PRIMARY KEY,
    image_id   TEXT NOT NULL,
    owner      TEXT,
    host       TEXT,
    store      TEXT NOT NULL,
    part       TEXT NOT NULL,
    size       BIGINT NOT NULL,
    received   BIGINT NOT NULL,
    done       BIGINT NOT NULL,
    metadata   TEXT NOT NULL,
    expected   TEXT,
    parts      TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX resumable_uploads_image ON resumable_uploads (image_id);
CREATE INDEX resumable_uploads_expiry ON resumable_uploads (expires_at);
