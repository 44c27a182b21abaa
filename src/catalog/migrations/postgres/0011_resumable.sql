-- Uploads that go on where they were broken off (tus): what a client was told is durable, `received`
-- bytes of `size`, lies in a file named for the row. `part`: whole, part (of one to be put together), or
-- joined from `parts`. Kept until `expires_at`, also those that are `done`, for clients that missed the answer.
CREATE TABLE resumable_uploads (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    image_id   TEXT COLLATE "C" NOT NULL,
    owner      TEXT COLLATE "C",
    host       TEXT COLLATE "C",
    store      TEXT COLLATE "C" NOT NULL,
    part       TEXT COLLATE "C" NOT NULL,
    size       BIGINT NOT NULL,
    received   BIGINT NOT NULL,
    done       BIGINT NOT NULL,
    metadata   TEXT COLLATE "C" NOT NULL,
    expected   TEXT COLLATE "C",
    parts      TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX resumable_uploads_image ON resumable_uploads (image_id);
CREATE INDEX resumable_uploads_expiry ON resumable_uploads (expires_at);
