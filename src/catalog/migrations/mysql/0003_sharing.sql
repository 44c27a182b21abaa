-- Projects a shared image is shared with.
CREATE TABLE image_members (
    image_id   VARCHAR(36)  NOT NULL,
    member     VARCHAR(255) NOT NULL,
    status     VARCHAR(64)  NOT NULL,
    created_at BIGINT       NOT NULL,
    updated_at BIGINT       NOT NULL,
    PRIMARY KEY (image_id, member),
    FOREIGN KEY (image_id) REFERENCES images (id)
) ENGINE = InnoDB;
CREATE INDEX image_members_member ON image_members (member, status, image_id);

-- What a client noted beside a location of theirs, as JSON.
ALTER TABLE image_locations ADD COLUMN metadata MEDIUMTEXT;

CREATE INDEX tasks_created ON tasks (created_at, id);
