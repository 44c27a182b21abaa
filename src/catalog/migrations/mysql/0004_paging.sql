-- A page of images is read off indexes. What a viewer may see is a handful of ranges, those of one
-- visibility and those of one owner; in each the images lie in the order of every sort key, with the
-- tie-breakers behind it. Filters are looked up on the way, or have an index of their own below.
CREATE INDEX images_visible_name ON images
    (deleted_at, visibility, hidden, name, created_at, id);
CREATE INDEX images_visible_status ON images
    (deleted_at, visibility, hidden, status, created_at, id);
CREATE INDEX images_visible_container_format ON images
    (deleted_at, visibility, hidden, container_format, created_at, id);
CREATE INDEX images_visible_disk_format ON images
    (deleted_at, visibility, hidden, disk_format, created_at, id);
CREATE INDEX images_visible_size ON images
    (deleted_at, visibility, hidden, size, created_at, id);
CREATE INDEX images_visible_id ON images
    (deleted_at, visibility, hidden, id);
CREATE INDEX images_visible_created_at ON images
    (deleted_at, visibility, hidden, created_at, id);
CREATE INDEX images_visible_updated_at ON images
    (deleted_at, visibility, hidden, updated_at, created_at, id);

CREATE INDEX images_owned_name ON images
    (deleted_at, owner, hidden, name, created_at, id);
CREATE INDEX images_owned_status ON images
    (deleted_at, owner, hidden, status, created_at, id);
CREATE INDEX images_owned_container_format ON images
    (deleted_at, owner, hidden, container_format, created_at, id);
CREATE INDEX images_owned_disk_format ON images
    (deleted_at, owner, hidden, disk_format, created_at, id);
CREATE INDEX images_owned_size ON images
    (deleted_at, owner, hidden, size, created_at, id);
CREATE INDEX images_owned_id ON images
    (deleted_at, owner, hidden, id);
CREATE INDEX images_owned_created_at ON images
    (deleted_at, owner, hidden, created_at, id);
CREATE INDEX images_owned_updated_at ON images
    (deleted_at, owner, hidden, updated_at, created_at, id);

-- Filters that may match few images, or none.
CREATE INDEX images_min_ram ON images (deleted_at, min_ram, created_at, id);
CREATE INDEX images_min_disk ON images (deleted_at, min_disk, created_at, id);
CREATE INDEX images_virtual_size ON images (deleted_at, virtual_size, created_at, id);
CREATE INDEX images_checksum ON images (deleted_at, checksum, created_at, id);
CREATE INDEX images_hash_value ON images (deleted_at, hash_value, created_at, id);
CREATE INDEX images_protected ON images (deleted_at, protected, created_at, id);

-- For the sweep, and for what forgets images deleted long ago.
CREATE INDEX images_status ON images (deleted_at, status, id);
CREATE INDEX images_deleted ON images (deleted_at, id);

-- The ranges above begin alike.
DROP INDEX images_created ON images;
DROP INDEX images_owner ON images;
