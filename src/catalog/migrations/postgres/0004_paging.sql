-- A page of images is read off indexes. What a viewer may see is a handful of ranges, those of one
-- visibility and those of one owner; in each the images lie in the order of every sort key, with the
-- tie-breakers behind it. Filters are looked up on the way, or have an index of their own below.
CREATE INDEX images_visible_name ON images
    (visibility, hidden, name NULLS FIRST, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_visible_status ON images
    (visibility, hidden, status, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_visible_container_format ON images
    (visibility, hidden, container_format NULLS FIRST, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_visible_disk_format ON images
    (visibility, hidden, disk_format NULLS FIRST, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_visible_size ON images
    (visibility, hidden, size NULLS FIRST, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_visible_id ON images
    (visibility, hidden, id) WHERE deleted_at IS NULL;
CREATE INDEX images_visible_created_at ON images
    (visibility, hidden, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_visible_updated_at ON images
    (visibility, hidden, updated_at, created_at, id) WHERE deleted_at IS NULL;

CREATE INDEX images_owned_name ON images
    (owner, hidden, name NULLS FIRST, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_owned_status ON images
    (owner, hidden, status, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_owned_container_format ON images
    (owner, hidden, container_format NULLS FIRST, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_owned_disk_format ON images
    (owner, hidden, disk_format NULLS FIRST, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_owned_size ON images
    (owner, hidden, size NULLS FIRST, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_owned_id ON images
    (owner, hidden, id) WHERE deleted_at IS NULL;
CREATE INDEX images_owned_created_at ON images
    (owner, hidden, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_owned_updated_at ON images
    (owner, hidden, updated_at, created_at, id) WHERE deleted_at IS NULL;

-- Filters that may match few images, or none.
CREATE INDEX images_min_ram ON images (min_ram, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_min_disk ON images (min_disk, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_virtual_size ON images (virtual_size, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_checksum ON images (checksum, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_hash_value ON images (hash_value, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX images_protected ON images (created_at, id)
    WHERE deleted_at IS NULL AND protected = 1;

-- For the sweep, and for what forgets images deleted long ago.
CREATE INDEX images_status ON images (status, id) WHERE deleted_at IS NULL;
CREATE INDEX images_deleted ON images (deleted_at, id) WHERE deleted_at IS NOT NULL;

-- The ranges above begin alike.
DROP INDEX images_created;
DROP INDEX images_owner;
