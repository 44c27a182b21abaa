-- Events that wait for a broker, in the order they happened; `size_bytes` is that of the payload.
CREATE TABLE outbox (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    priority   TEXT NOT NULL,
    payload    TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX outbox_created ON outbox (created_at);

-- Who sends them: one process at a time, or an image's events could overtake each other.
CREATE TABLE outbox_sender (
    id          BIGINT NOT NULL PRIMARY KEY,
    holder      TEXT NOT NULL,
    lease_until BIGINT NOT NULL
);
INSERT INTO outbox_sender (id, holder, lease_until) VALUES (1, '', 0);
