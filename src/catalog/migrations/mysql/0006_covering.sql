-- A walk over images in the order of a sort key now meets in the index all that is filtered by and
-- short: what does not match is passed by without a look at its row. The indexes are those of 0004
-- with more behind the tie-breakers.
-- One is at the limit of what a key may hold, and does without the container format.
DROP INDEX images_visible_name ON images;
CREATE INDEX images_visible_name ON images
    (deleted_at, visibility, hidden, name, created_at, id, status, container_format, disk_format,
     protected, min_ram, min_disk, size, virtual_size, updated_at);
DROP INDEX images_visible_status ON images;
CREATE INDEX images_visible_status ON images
    (deleted_at, visibility, hidden, status, created_at, id, container_format, disk_format,
     protected, min_ram, min_disk, size, virtual_size, updated_at);
DROP INDEX images_visible_container_format ON images;
CREATE INDEX images_visible_container_format ON images
    (deleted_at, visibility, hidden, container_format, created_at, id, status, disk_format,
     protected, min_ram, min_disk, size, virtual_size, updated_at);
DROP INDEX images_visible_disk_format ON images;
CREATE INDEX images_visible_disk_format ON images
    (deleted_at, visibility, hidden, disk_format, created_at, id, status, container_format,
     protected, min_ram, min_disk, size, virtual_size, updated_at);
DROP INDEX images_visible_size ON images;
CREATE INDEX images_visible_size ON images
    (deleted_at, visibility, hidden, size, created_at, id, status, container_format, disk_format,
     protected, min_ram, min_disk, virtual_size, updated_at);
DROP INDEX images_visible_id ON images;
CREATE INDEX images_visible_id ON images
    (deleted_at, visibility, hidden, id, created_at, status, container_format, disk_format,
     protected, min_ram, min_disk, size, virtual_size, updated_at);
DROP INDEX images_visible_created_at ON images;
CREATE INDEX images_visible_created_at ON images
    (deleted_at, visibility, hidden, created_at, id, status, container_format, disk_format,
     protected, min_ram, min_disk, size, virtual_size, updated_at);
DROP INDEX images_visible_updated_at ON images;
CREATE INDEX images_visible_updated_at ON images
    (deleted_at, visibility, hidden, updated_at, created_at, id, status, container_format,
     disk_format, protected, min_ram, min_disk, size, virtual_size);

DROP INDEX images_owned_name ON images;
CREATE INDEX images_owned_name ON images
    (deleted_at, owner, hidden, name, created_at, id, visibility, status, disk_format, protected,
     min_ram, min_disk, size, virtual_size, updated_at);
DROP INDEX images_owned_status ON images;
CREATE INDEX images_owned_status ON images
    (deleted_at, owner, hidden, status, created_at, id, visibility, container_format, disk_format,
     protected, min_ram, min_disk, size, virtual_size, updated_at);
DROP INDEX images_owned_container_format ON images;
CREATE INDEX images_owned_container_format ON images
    (deleted_at, owner, hidden, container_format, created_at, id, visibility, status, disk_format,
     protected, min_ram, min_disk, size, virtual_size, updated_at);
DROP INDEX images_owned_disk_format ON images;
CREATE INDEX images_owned_disk_format ON images
    (deleted_at, owner, hidden, disk_format, created_at, id, visibility, status, container_format,
     protected, min_ram, min_disk, size, virtual_size, updated_at);
DROP INDEX images_owned_size ON images;
CREATE INDEX images_owned_size ON images
    (deleted_at, owner, hidden, size, created_at, id, visibility, status, container_format,
     disk_format, protected, min_ram, min_disk, virtual_size, updated_at);
DROP INDEX images_owned_id ON images;
CREATE INDEX images_owned_id ON images
    (deleted_at, owner, hidden, id, created_at, visibility, status, container_format, disk_format,
     protected, min_ram, min_disk, size, virtual_size, updated_at);
DROP INDEX images_owned_created_at ON images;
CREATE INDEX images_owned_created_at ON images
    (deleted_at, owner, hidden, created_at, id, visibility, status, container_format, disk_format,
     protected, min_ram, min_disk, size, virtual_size, updated_at);
DROP INDEX images_owned_updated_at ON images;
CREATE INDEX images_owned_updated_at ON images
    (deleted_at, owner, hidden, updated_at, created_at, id, visibility, status, container_format,
     disk_format, protected, min_ram, min_disk, size, virtual_size);

-- A filter that may match few images, or none.
CREATE INDEX images_hash_algo ON images (deleted_at, hash_algo, created_at, id);
