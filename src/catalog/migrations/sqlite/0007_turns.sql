-- Projects take turns in the queue: `turn` grows with every job that one of them has waiting.
-- `cancelled` asks whoever has the job, or claims it, to end it.
ALTER TABLE jobs ADD COLUMN owner TEXT;
ALTER TABLE jobs ADD COLUMN turn BIGINT NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN cancelled BIGINT NOT NULL DEFAULT 0;
CREATE INDEX jobs_turn ON jobs (priority, turn, created_at);
CREATE INDEX jobs_owner ON jobs (owner, turn);
