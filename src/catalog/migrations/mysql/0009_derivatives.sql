-- Images in another form than they are stored in, kept while there is room: pending, active or doomed like
-- locations, of which they are none. `target` is the digest of what was asked for, of which bytes.
CREATE TABLE derivatives (
    id          VARCHAR(64)  NOT NULL PRIMARY KEY,
    image_id    VARCHAR(36)  NOT NULL,
    target      VARCHAR(64)  NOT NULL,
    store       VARCHAR(255) NOT NULL,
    url         TEXT         NOT NULL,
    state       VARCHAR(64)  NOT NULL,
    size        BIGINT       NOT NULL,
    lease_until BIGINT       NOT NULL,
    used_at     BIGINT       NOT NULL,
    FOREIGN KEY (image_id) REFERENCES images (id)
) ENGINE = InnoDB;
CREATE INDEX derivatives_image ON derivatives (image_id, target);
CREATE INDEX derivatives_state ON derivatives (state, used_at);
