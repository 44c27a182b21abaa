-- A walk over images in the order of a sort key now meets in the index all that is filtered by and
-- short: what does not match is passed by without a look at its row. The indexes are those of 0004
-- with more behind the tie-breakers.
DROP INDEX images_visible_name;
CREATE INDEX images_visible_name ON images
    (visibility, hidden, name NULLS FIRST, created_at, id, status, container_format, disk_format,
     protected, min_ram, min_disk, size, virtual_size, updated_at)
    WHERE deleted_at IS NULL;
DROP INDEX images_visible_status;
CREATE INDEX images_visible_status ON images
    (visibility, hidden, status, created_at, id, container_format, disk_format, protected, min_ram,
     min_disk, size, virtual_size, updated_at)
    WHERE deleted_at IS NULL;
DROP INDEX images_visible_container_format;
CREATE INDEX images_visible_container_format ON images
    (visibility, hidden, container_format NULLS FIRST, created_at, id, status, disk_format,
     protected, min_ram, min_disk, size, virtual_size, updated_at)
    WHERE deleted_at IS NULL;
DROP INDEX images_visible_disk_format;
CREATE INDEX images_visible_disk_format ON images
    (visibility, hidden, disk_format NULLS FIRST, created_at, id, status, container_format,
     protected, min_ram, min_disk, size, virtual_size, updated_at)
    WHERE deleted_at IS NULL;
DROP INDEX images_visible_size;
CREATE INDEX images_visible_size ON images
    (visibility, hidden, size NULLS FIRST, created_at, id, status, container_format, disk_format,
     protected, min_ram, min_disk, virtual_size, updated_at)
    WHERE deleted_at IS NULL;
DROP INDEX images_visible_id;
CREATE INDEX images_visible_id ON images
    (visibility, hidden, id, created_at, status, container_format, disk_format, protected, min_ram,
     min_disk, size, virtual_size, updated_at)
    WHERE deleted_at IS NULL;
DROP INDEX images_visible_created_at;
CREATE INDEX images_visible_created_at ON images
    (visibility, hidden, created_at, id, status, container_format, disk_format, protected, min_ram,
     min_disk, size, virtual_size, updated_at)
    WHERE deleted_at IS NULL;
DROP INDEX images_visible_updated_at;
CREATE INDEX images_visible_updated_at ON images
    (visibility, hidden, updated_at, created_at, id, status, container_format, disk_format,
     protected, min_ram, min_disk, size, virtual_size)
    WHERE deleted_at IS NULL;

DROP INDEX images_owned_name;
CREATE INDEX images_owned_name ON images
    (owner, hidden, name NULLS FIRST, created_at, id, visibility, status, container_format,
     disk_format, protected, min_ram, min_disk, size, virtual_size, updated_at)
    WHERE deleted_at IS NULL;
DROP INDEX images_owned_status;
CREATE INDEX images_owned_status ON images
    (owner, hidden, status, created_at, id, visibility, container_format, disk_format, protected,
     min_ram, min_disk, size, virtual_size, updated_at)
    WHERE deleted_at IS NULL;
DROP INDEX images_owned_container_format;
CREATE INDEX images_owned_container_format ON images
    (owner, hidden, container_format NULLS FIRST, created_at, id, visibility, status, disk_format,
     protected, min_ram, min_disk, size, virtual_size, updated_at)
    WHERE deleted_at IS NULL;
DROP INDEX images_owned_disk_format;
CREATE INDEX images_owned_disk_format ON images
    (owner, hidden, disk_format NULLS FIRST, created_at, id, visibility, status, container_format,
     protected, min_ram, min_disk, size, virtual_size, updated_at)
    WHERE deleted_at IS NULL;
DROP INDEX images_owned_size;
CREATE INDEX images_owned_size ON images
    (owner, hidden, size NULLS FIRST, created_at, id, visibility, status, container_format,
     disk_format, protected, min_ram, min_disk, virtual_size, updated_at)
    WHERE deleted_at IS NULL;
DROP INDEX images_owned_id;
CREATE INDEX images_owned_id ON images
    (owner, hidden, id, created_at, visibility, status, container_format, disk_format, protected,
     min_ram, min_disk, size, virtual_size, updated_at)
    WHERE deleted_at IS NULL;
DROP INDEX images_owned_created_at;
CREATE INDEX images_owned_created_at ON images
    (owner, hidden, created_at, id, visibility, status, container_format, disk_format, protected,
     min_ram, min_disk, size, virtual_size, updated_at)
    WHERE deleted_at IS NULL;
DROP INDEX images_owned_updated_at;
CREATE INDEX images_owned_updated_at ON images
    (owner, hidden, updated_at, created_at, id, visibility, status, container_format, disk_format,
     protected, min_ram, min_disk, size, virtual_size)
    WHERE deleted_at IS NULL;

-- A filter that may match few images, or none.
CREATE INDEX images_hash_algo ON images (hash_algo, created_at, id) WHERE deleted_at IS NULL;
