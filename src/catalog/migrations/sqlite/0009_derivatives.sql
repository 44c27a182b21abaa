-- Images in another form than they are stored in, kept while there is room: pending, active or doomed like
-- locations, of which they are none. `target` is the digest of what was asked for, of which bytes.
CREATE TABLE derivatives (
    id          TEXT   NOT NULL PRIMARY KEY,
    image_id    TEXT   NOT NULL REFERENCES images (id),
    target      TEXT   NOT NULL,
    store       TEXT   NOT NULL,
    url         TEXT   NOT NULL,
    state       TEXT   NOT NULL,
    size        BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    used_at     BIGINT NOT NULL
);
CREATE INDEX derivatives_image ON derivatives (image_id, target);
CREATE INDEX derivatives_state ON derivatives (state, used_at);
