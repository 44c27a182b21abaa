-- Projects a shared image is shared with.
CREATE TABLE image_members (
    image_id   TEXT   NOT NULL REFERENCES images (id),
    member     TEXT   NOT NULL,
    status     TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (image_id, member)
);
CREATE INDEX image_members_member ON image_members (member, status, image_id);

-- What a client noted beside a location of theirs, as JSON.
ALTER TABLE image_locations ADD COLUMN metadata TEXT;

CREATE INDEX tasks_created ON tasks (created_at, id);
