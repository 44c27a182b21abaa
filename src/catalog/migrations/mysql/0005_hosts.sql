-- On a catalog that several processes share: whose staging area the bytes are in, and who alone can
-- do the job for that reason. NULL: anybody's.
ALTER TABLE staged ADD COLUMN host VARCHAR(64);
ALTER TABLE jobs ADD COLUMN host VARCHAR(64);
