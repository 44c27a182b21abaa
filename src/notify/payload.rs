//! What events tell, with the names and shapes that consumers of the reference know.

use serde_json::{Map, Value, json};

use crate::domain::metadef::{Association, Namespace, Object, Property, Tag};
use crate::domain::{Image, ImageId, Member, Status, Task, Timestamp, Visibility};

/// Properties of ours, which are told apart from others or not at all.
const INTERNAL: &str = "os_glance_";

/// An image, at `image.create`, `image.update` and `image.activate`.
#[must_use]
pub fn image(image: &Image) -> Value {
    Value::Object(image_fields(image))
}

/// An image that was deleted: its status is `to` now.
#[must_use]
pub fn deleted_image(image: &Image, to: Status, now: Timestamp) -> Value {
    let mut fields = image_fields(image);
    fields.insert("status".into(), to.name().into());
    fields.insert("deleted".into(), true.into());
    fields.insert("deleted_at".into(), now.to_string().into());
    fields.into()
}

/// An image whose data is about to be written, or was: where to, and which stores are to come
/// and have failed.
#[must_use]
pub fn image_data(image: &Image, backend: Option<&str>) -> Value {
    let mut fields = image_fields(image);
    for name in ["os_glance_importing_to_stores", "os_glance_failed_import"] {
        let list = image.properties.get(name).map_or("", String::as_str);
        let stores: Vec<_> = list.split(',').filter(|s| !s.is_empty()).collect();
        fields.insert(name.into(), stores.into());
    }
    fields.insert("backend".into(), backend.into());
    fields.into()
}

fn image_fields(image: &Image) -> Map<String, Value> {
    let hash = image.hashes.as_ref();
    let properties: Map<String, Value> = image
        .properties
        .iter()
        .filter(|(name, _)| !name.starts_with(INTERNAL))
        .map(|(name, value)| (name.clone(), value.as_str().into()))
        .collect();
    object(json!({
        "id": image.id.as_str(),
        "name": image.name,
        "status": image.status.name(),
        "created_at": image.created_at.to_string(),
        "updated_at": image.updated_at.to_string(),
        "min_disk": image.min_disk,
        "min_ram": image.min_ram,
        "protected": image.protected,
        "checksum": hash.and_then(|h| h.checksum.as_ref()),
        "owner": image.owner,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "size": image.size,
        "virtual_size": image.virtual_size,
        "is_public": image.visibility == Visibility::Public,
        "visibility": image.visibility.name(),
        "properties": properties,
        "tags": image.tags,
        "deleted": false,
        "deleted_at": null,
    }))
}

/// A download that ended.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// The image.
    pub image: &'a str,
    /// Its owner.
    pub owner: Option<&'a str>,
    /// Who took it.
    pub user: Option<&'a str>,
    /// For which project.
    pub project: Option<&'a str>,
    /// From where they asked.
    pub address: Option<&'a str>,
    /// Bytes that really went out.
    pub bytes: u64,
}

/// `image.send`
#[must_use]
pub fn sent(sent: &Sent<'_>) -> Value {
    json!({
        "bytes_sent": sent.bytes,
        "image_id": sent.image,
        "owner_id": sent.owner,
        "receiver_tenant_id": sent.project,
        "receiver_user_id": sent.user,
        "destination_ip": sent.address,
    })
}

/// A project an image is shared with.
#[must_use]
pub fn member(image: &ImageId, member: &Member) -> Value {
    json!({
        "image_id": image.as_str(),
        "member_id": member.project,
        "status": member.status.name(),
        "created_at": member.created_at.to_string(),
        "updated_at": member.updated_at.to_string(),
        "deleted": false,
        "deleted_at": null,
    })
}

/// A task.
#[must_use]
pub fn task(task: &Task) -> Value {
    json!({
        "id": task.id,
        "type": task.kind,
        "status": task.status.name(),
        "input": task.input,
        "result": task.result,
        "owner": task.owner,
        "message": task.message,
        "expires_at": task.expires_at.map(|t| t.to_string()),
        "created_at": task.created_at.to_string(),
        "updated_at": task.updated_at.to_string(),
        "deleted": false,
        "deleted_at": null,
    })
}

/// A namespace. Where it was renamed, `before` is its old name.
#[must_use]
pub fn namespace(namespace: &Namespace, before: Option<&str>) -> Value {
    let mut fields = object(json!({
        "namespace": namespace.name,
        "display_name": namespace.display_name,
        "protected": namespace.protected,
        "visibility": namespace.visibility.name(),
        "owner": namespace.owner,
        "description": namespace.description,
        "created_at": namespace.created_at.to_string(),
        "updated_at": namespace.updated_at.to_string(),
        "deleted": false,
        "deleted_at": null,
    }));
    if let Some(before) = before {
        fields.insert("namespace_old".into(), before.into());
    }
    fields.into()
}

/// An object of a namespace.
#[must_use]
pub fn metadef_object(namespace: &str, metadef: &Object, before: Option<&str>) -> Value {
    let properties: Vec<_> = metadef.properties.iter().map(property_fields).collect();
    let fields = object(json!({
        "namespace": namespace,
        "name": metadef.name,
        "description": metadef.description,
        "properties": properties,
        "required": metadef.required,
        "created_at": metadef.created_at.to_string(),
        "updated_at": metadef.updated_at.to_string(),
        "deleted": false,
        "deleted_at": null,
    }));
    renamed(fields, before)
}

/// A property of a namespace.
#[must_use]
pub fn metadef_property(namespace: &str, property: &Property, before: Option<&str>) -> Value {
    let mut fields = property_fields(property);
    fields.insert("namespace".into(), namespace.into());
    fields.insert("deleted".into(), false.into());
    fields.insert("deleted_at".into(), Value::Null);
    renamed(fields, before)
}

fn property_fields(property: &Property) -> Map<String, Value> {
    let name = ("name".to_owned(), Value::from(property.name.as_str()));
    std::iter::once(name)
        .chain(property.definition.clone())
        .collect()
}

/// A tag of a namespace.
#[must_use]
pub fn metadef_tag(namespace: &str, tag: &Tag, before: Option<&str>) -> Value {
    let fields = object(json!({
        "namespace": namespace,
        "name": tag.name,
        "created_at": tag.created_at.to_string(),
        "updated_at": tag.updated_at.to_string(),
        "deleted": false,
        "deleted_at": null,
    }));
    renamed(fields, before)
}

/// An association of a namespace with a resource type.
#[must_use]
pub fn metadef_association(namespace: &str, association: &Association) -> Value {
    json!({
        "namespace": namespace,
        "name": association.resource_type,
        "prefix": association.prefix,
        "properties_target": association.properties_target,
        "created_at": association.created_at.to_string(),
        "updated_at": association.updated_at.to_string(),
        "deleted": false,
        "deleted_at": null,
    })
}

/// The payload of what was deleted: the same, and when.
#[must_use]
pub fn deleted(mut payload: Value, now: Timestamp) -> Value {
    payload["deleted"] = true.into();
    payload["deleted_at"] = now.to_string().into();
    payload
}

fn renamed(mut fields: Map<String, Value>, before: Option<&str>) -> Value {
    if let Some(before) = before {
        fields.insert("name_old".into(), before.into());
    }
    fields.into()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_of_ours_are_no_properties_of_the_image() {
        let mut it = Image::new(ImageId::random(), Some("p".into()), Timestamp(0));
        it.properties.insert("os_distro".into(), "debian".into());
        it.properties
            .insert("os_glance_importing_to_stores".into(), "a,b".into());
        let told = image_data(&it, Some("a"));
        assert_eq!(told["properties"], json!({"os_distro": "debian"}));
        assert_eq!(told["os_glance_importing_to_stores"], json!(["a", "b"]));
        assert_eq!(told["os_glance_failed_import"], json!([]));
        assert_eq!(told["backend"], "a");
        assert_eq!(told["is_public"], false);
    }

    #[test]
    fn what_was_deleted_says_when() {
        let it = Image::new(ImageId::random(), None, Timestamp(0));
        let told = deleted_image(&it, Status::Deleted, Timestamp(0));
        assert_eq!(
            (told["deleted"].clone(), told["status"].clone()),
            (true.into(), "deleted".into())
        );
        assert_eq!(told["deleted_at"], "1970-01-01T00:00:00Z");
    }
}
