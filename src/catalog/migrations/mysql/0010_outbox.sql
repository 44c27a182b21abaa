-- Events that wait for a broker, in the order they happened; `size_bytes` is that of the payload.
CREATE TABLE outbox (
    id         BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    message_id VARCHAR(64) NOT NULL,
    event_type VARCHAR(255) NOT NULL,
    priority   VARCHAR(64) NOT NULL,
    payload    MEDIUMTEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    created_at BIGINT NOT NULL
) ENGINE = InnoDB;
CREATE INDEX outbox_created ON outbox (created_at);

-- Who sends them: one process at a time, or an image's events could overtake each other.
CREATE TABLE outbox_sender (
    id          BIGINT NOT NULL PRIMARY KEY,
    holder      VARCHAR(64) NOT NULL,
    lease_until BIGINT NOT NULL
) ENGINE = InnoDB;
INSERT INTO outbox_sender (id, holder, lease_until) VALUES (1, '', 0);
