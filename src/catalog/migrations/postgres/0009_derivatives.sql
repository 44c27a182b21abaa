-- Images in another form than they are stored in, kept while there is room: pending, active or doomed like
-- locations, of which they are none. `target` is the digest of what was asked for, of which bytes.
CREATE TABLE derivatives (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    image_id    TEXT COLLATE "C" NOT NULL REFERENCES images (id),
    target      TEXT COLLATE "C" NOT NULL,
    store       TEXT COLLATE "C" NOT NULL,
    url         TEXT COLLATE "C" NOT NULL,
    state       TEXT COLLATE "C" NOT NULL,
    size        BIGINT           NOT NULL,
    lease_until BIGINT           NOT NULL,
    used_at     BIGINT           NOT NULL
);
CREATE INDEX derivatives_image ON derivatives (image_id, target);
CREATE INDEX derivatives_state ON derivatives (state, used_at);
