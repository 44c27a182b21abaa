//! Metadata definitions. A whole namespace is also what files of definitions hold.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::metadef::{
    Association, Contents, Namespace, Object, Property, ResourceType, Tag,
};
use crate::domain::{Timestamp, Visibility};

/// Characters of a name at most.
const MAX_NAME: usize = 80;

/// What a path cannot hold as it is. Colons stay: every name of a namespace has some.
const IN_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// Where a namespace is.
pub(in crate::api) fn namespace_path(name: &str) -> String {
    format!(
        "/v2/metadefs/namespaces/{}",
        utf8_percent_encode(name, IN_PATH)
    )
}

/// Where something in a namespace is: `kind` is the last part but one.
pub(in crate::api) fn part_path(namespace: &str, kind: &str, name: &str) -> String {
    format!(
        "{}/{kind}/{}",
        namespace_path(namespace),
        utf8_percent_encode(name, IN_PATH)
    )
}

// -- what comes in ------------------------------------------------------------------------------

/// A namespace as clients and files give it. The schema has been held against it before.
#[derive(Deserialize)]
pub(in crate::api) struct NamespaceBody {
    namespace: String,
    display_name: Option<String>,
    description: Option<String>,
    pub(in crate::api) visibility: Option<String>,
    pub(in crate::api) protected: Option<bool>,
    owner: Option<String>,
    #[serde(default)]
    resource_type_associations: Vec<AssociationBody>,
    #[serde(default)]
    properties: Map<String, Value>,
    #[serde(default)]
    objects: Vec<ObjectBody>,
    #[serde(default)]
    tags: Vec<TagBody>,
}

/// An object as clients give it.
#[derive(Deserialize)]
pub(in crate::api) struct ObjectBody {
    name: String,
    description: Option<String>,
    #[serde(default)]
    required: Vec<String>,
    #[serde(default)]
    properties: Map<String, Value>,
}

/// A tag as clients give it.
#[derive(Deserialize)]
pub(in crate::api) struct TagBody {
    name: String,
}

/// An association as clients give it.
#[derive(Deserialize)]
pub(in crate::api) struct AssociationBody {
    name: String,
    prefix: Option<String>,
    properties_target: Option<String>,
}

impl NamespaceBody {
    /// The namespace and what is in it. Private and not protected unless it says so, and of
    /// `owner` unless it names another.
    ///
    /// # Errors
    /// The sentence of a 400.
    pub(in crate::api) fn read(
        self,
        owner: Option<String>,
        now: Timestamp,
    ) -> Result<(Namespace, Contents), String> {
        let visibility = match self.visibility.as_deref() {
            None => Visibility::Private,
            Some(name) => name
                .parse()
                .map_err(|()| format!("Invalid visibility value: {name}"))?,
        };
        let contents = Contents {
            associations: self
                .resource_type_associations
                .into_iter()
                .map(|a| a.read(now))
                .collect::<Result<_, _>>()?,
            properties: properties(self.properties)?,
            objects: self
                .objects
                .into_iter()
                .map(|o| o.read(now))
                .collect::<Result<_, _>>()?,
            tags: self
                .tags
                .into_iter()
                .map(|t| t.read(now))
                .collect::<Result<_, _>>()?,
        };
        let namespace = Namespace {
            name: name(self.namespace)?,
            display_name: self.display_name,
            description: self.description,
            visibility,
            protected: self.protected.unwrap_or(false),
            owner: self.owner.or(owner),
            created_at: now,
            updated_at: now,
        };
        Ok((namespace, contents))
    }
}

impl ObjectBody {
    /// The object.
    ///
    /// # Errors
    /// The sentence of a 400.
    pub(in crate::api) fn read(self, now: Timestamp) -> Result<Object, String> {
        Ok(Object {
            name: name(self.name)?,
            description: self.description,
            required: self.required,
            properties: properties(self.properties)?,
            created_at: now,
            updated_at: now,
        })
    }
}

impl TagBody {
    /// The tag.
    ///
    /// # Errors
    /// The sentence of a 400.
    pub(in crate::api) fn read(self, now: Timestamp) -> Result<Tag, String> {
        tag(self.name, now)
    }
}

impl AssociationBody {
    /// The association.
    ///
    /// # Errors
    /// The sentence of a 400.
    pub(in crate::api) fn read(self, now: Timestamp) -> Result<Association, String> {
        Ok(Association {
            resource_type: name(self.name)?,
            prefix: self.prefix.map(bounded).transpose()?,
            properties_target: self.properties_target.map(bounded).transpose()?,
            created_at: now,
            updated_at: now,
        })
    }
}

/// A tag of this name.
///
/// # Errors
/// The sentence of a 400.
pub(in crate::api) fn tag(tag: String, now: Timestamp) -> Result<Tag, String> {
    Ok(Tag {
        name: name(tag)?,
        created_at: now,
        updated_at: now,
    })
}

/// A property from its keywords, `name` among them.
///
/// # Errors
/// The sentence of a 400.
pub(in crate::api) fn property(mut keywords: Map<String, Value>) -> Result<Property, String> {
    match keywords.shift_remove("name") {
        Some(Value::String(name)) => named_property(name, keywords),
        _ => Err("A property has no name.".into()),
    }
}

fn properties(map: Map<String, Value>) -> Result<Vec<Property>, String> {
    map.into_iter()
        .map(|(name, keywords)| match keywords {
            Value::Object(keywords) => named_property(name, keywords),
            _ => Err(format!("Property {name} is not an object.")),
        })
        .collect()
}

fn named_property(text: String, keywords: Map<String, Value>) -> Result<Property, String> {
    Property::new(name(text)?, keywords)
        .map_err(|unknown| format!("Unknown attribute of a property: {unknown}"))
}

fn name(text: String) -> Result<String, String> {
    if text.is_empty() {
        return Err("A name is empty.".into());
    }
    bounded(text)
}

fn bounded(text: String) -> Result<String, String> {
    if text.chars().count() > MAX_NAME {
        return Err(format!(
            "A name is at most {MAX_NAME} characters long: {text}"
        ));
    }
    Ok(text)
}

// -- what goes out ------------------------------------------------------------------------------

/// A namespace, with what is in it where `contents` says so.
#[derive(Serialize)]
pub(in crate::api) struct NamespaceView<'a> {
    namespace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    visibility: &'static str,
    protected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resource_type_associations: Vec<AssociationView<'a>>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    properties: Map<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    objects: Vec<ObjectView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<TagName<'a>>,
    #[serde(rename = "self", skip_serializing_if = "Option::is_none")]
    this: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<&'static str>,
}

impl<'a> NamespaceView<'a> {
    /// As it is shown.
    pub(in crate::api) fn new(namespace: &'a Namespace, contents: &'a Contents) -> Self {
        Self {
            resource_type_associations: contents
                .associations
                .iter()
                .map(AssociationView::from)
                .collect(),
            objects: contents
                .objects
                .iter()
                .map(|o| ObjectView::new(&namespace.name, o))
                .collect(),
            created_at: Some(namespace.created_at.to_string()),
            updated_at: Some(namespace.updated_at.to_string()),
            this: Some(namespace_path(&namespace.name)),
            schema: Some("/v2/schemas/metadefs/namespace"),
            ..Self::bare(namespace, contents)
        }
    }

    /// As it is shown when it was made: what is in it has no times then
    /// (17-metadefs.http, "with everything in it").
    pub(in crate::api) fn created(namespace: &'a Namespace, contents: &'a Contents) -> Self {
        let bare = Self::bare(namespace, contents);
        Self {
            resource_type_associations: bare.resource_type_associations,
            objects: bare.objects,
            ..Self::new(namespace, contents)
        }
    }

    /// As files hold it.
    pub(in crate::api) fn bare(namespace: &'a Namespace, contents: &'a Contents) -> Self {
        Self {
            namespace: &namespace.name,
            display_name: namespace.display_name.as_deref(),
            description: namespace.description.as_deref(),
            visibility: namespace.visibility.name(),
            protected: namespace.protected,
            owner: namespace.owner.as_deref(),
            created_at: None,
            updated_at: None,
            resource_type_associations: contents
                .associations
                .iter()
                .map(AssociationView::bare)
                .collect(),
            properties: map(&contents.properties),
            objects: contents.objects.iter().map(ObjectView::bare).collect(),
            tags: contents
                .tags
                .iter()
                .map(|t| TagName { name: &t.name })
                .collect(),
            this: None,
            schema: None,
        }
    }
}

/// A page of namespaces.
#[derive(Serialize)]
pub(in crate::api) struct NamespaceList<'a> {
    pub(in crate::api) namespaces: Vec<NamespaceView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) next: Option<String>,
    pub(in crate::api) schema: &'static str,
    pub(in crate::api) first: String,
}

/// An object.
#[derive(Serialize)]
pub(in crate::api) struct ObjectView<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    required: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    properties: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<String>,
    #[serde(rename = "self", skip_serializing_if = "Option::is_none")]
    this: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<&'static str>,
}

impl<'a> ObjectView<'a> {
    /// As it is shown, in the namespace of this name.
    pub(in crate::api) fn new(namespace: &str, object: &'a Object) -> Self {
        Self {
            created_at: Some(object.created_at.to_string()),
            updated_at: Some(object.updated_at.to_string()),
            this: Some(part_path(namespace, "objects", &object.name)),
            schema: Some("/v2/schemas/metadefs/object"),
            ..Self::bare(object)
        }
    }

    fn bare(object: &'a Object) -> Self {
        Self {
            name: &object.name,
            required: &object.required,
            description: object.description.as_deref(),
            properties: map(&object.properties),
            created_at: None,
            updated_at: None,
            this: None,
            schema: None,
        }
    }
}

/// All objects of a namespace.
#[derive(Serialize)]
pub(in crate::api) struct ObjectList<'a> {
    pub(in crate::api) objects: Vec<ObjectView<'a>>,
    /// Without a slash before it, as the reference has it (17-metadefs.http, "objects").
    pub(in crate::api) schema: &'static str,
}

/// A property by itself: its name is the first of its keywords.
pub(in crate::api) fn property_view(property: &Property) -> Value {
    let name = ("name".to_owned(), Value::from(property.name.as_str()));
    std::iter::once(name)
        .chain(property.definition.clone())
        .collect::<Map<_, _>>()
        .into()
}

/// Properties by name.
fn map(properties: &[Property]) -> Map<String, Value> {
    properties
        .iter()
        .map(|p| (p.name.clone(), p.definition.clone().into()))
        .collect()
}

/// All properties of a namespace.
#[derive(Serialize)]
pub(in crate::api) struct PropertyList {
    properties: Map<String, Value>,
}

impl From<&[Property]> for PropertyList {
    fn from(properties: &[Property]) -> Self {
        Self {
            properties: properties
                .iter()
                .map(|p| (p.name.clone(), property_view(p)))
                .collect(),
        }
    }
}

/// A tag where nothing but its name is told.
#[derive(Serialize)]
pub(in crate::api) struct TagName<'a> {
    name: &'a str,
}

/// A tag.
#[derive(Serialize)]
pub(in crate::api) struct TagView<'a> {
    name: &'a str,
    created_at: String,
    updated_at: String,
}

impl<'a> From<&'a Tag> for TagView<'a> {
    fn from(tag: &'a Tag) -> Self {
        Self {
            name: &tag.name,
            created_at: tag.created_at.to_string(),
            updated_at: tag.updated_at.to_string(),
        }
    }
}

/// Tags. There are no links: who wants the next page says its marker (17-metadefs.http, "tags").
#[derive(Serialize)]
pub(in crate::api) struct TagList<'a> {
    tags: Vec<TagName<'a>>,
}

impl<'a> From<&'a [Tag]> for TagList<'a> {
    fn from(tags: &'a [Tag]) -> Self {
        Self {
            tags: tags.iter().map(|t| TagName { name: &t.name }).collect(),
        }
    }
}

/// An association of a namespace.
#[derive(Serialize)]
pub(in crate::api) struct AssociationView<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties_target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<String>,
}

impl<'a> AssociationView<'a> {
    fn bare(association: &'a Association) -> Self {
        Self {
            name: &association.resource_type,
            prefix: association.prefix.as_deref(),
            properties_target: association.properties_target.as_deref(),
            created_at: None,
            updated_at: None,
        }
    }
}

impl<'a> From<&'a Association> for AssociationView<'a> {
    fn from(association: &'a Association) -> Self {
        Self {
            created_at: Some(association.created_at.to_string()),
            updated_at: Some(association.updated_at.to_string()),
            ..Self::bare(association)
        }
    }
}

/// All associations of a namespace.
#[derive(Serialize)]
pub(in crate::api) struct AssociationList<'a> {
    pub(in crate::api) resource_type_associations: Vec<AssociationView<'a>>,
}

/// A resource type.
#[derive(Serialize)]
pub(in crate::api) struct ResourceTypeView<'a> {
    name: &'a str,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<String>,
}

/// All resource types.
#[derive(Serialize)]
pub(in crate::api) struct ResourceTypeList<'a> {
    resource_types: Vec<ResourceTypeView<'a>>,
}

impl<'a> From<&'a [ResourceType]> for ResourceTypeList<'a> {
    fn from(types: &'a [ResourceType]) -> Self {
        let view = |t: &'a ResourceType| ResourceTypeView {
            name: &t.name,
            created_at: t.created_at.to_string(),
            updated_at: t.updated_at.map(|t| t.to_string()),
        };
        Self {
            resource_types: types.iter().map(view).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> Result<(Namespace, Contents), String> {
        serde_json::from_value::<NamespaceBody>(body)
            .unwrap()
            .read(None, Timestamp(0))
    }

    #[test]
    fn names_are_bounded_wherever_they_stand() {
        let long = "x".repeat(81);
        for body in [
            json!({"namespace": ""}),
            json!({"namespace": "n", "tags": [{"name": long}]}),
            json!({"namespace": "n", "objects": [{"name": long}]}),
            json!({"namespace": "n", "resource_type_associations": [{"name": long}]}),
            json!({"namespace": "n", "resource_type_associations": [
                {"name": "x", "prefix": long},
            ]}),
            json!({"namespace": "n", "properties": {long: {}}}),
        ] {
            assert!(read(body.clone()).is_err(), "{body}");
        }
        assert!(read(json!({"namespace": "x".repeat(80)})).is_ok());
    }

    #[test]
    fn a_file_reads_as_it_was_written() {
        let body = json!({
            "namespace": "N::S", "display_name": "N", "visibility": "public", "protected": true,
            "owner": "admin",
            "resource_type_associations": [{"name": "OS::Glance::Image", "prefix": "hw_"}],
            "properties": {"a": {"type": "string", "title": "A", "enum": ["x"]}},
            "objects": [{"name": "o", "required": ["b"], "properties": {
                "b": {"type": "integer", "title": "B", "minimum": 1},
            }}],
            "tags": [{"name": "t"}],
        });
        let (namespace, contents) = read(body.clone()).unwrap();
        let view = NamespaceView::bare(&namespace, &contents);
        assert_eq!(serde_json::to_value(&view).unwrap(), body);
    }

    #[test]
    fn paths_keep_colons_and_nothing_that_parts_them() {
        assert_eq!(
            part_path("OS::A b", "objects", "50%/x?"),
            "/v2/metadefs/namespaces/OS::A%20b/objects/50%25%2Fx%3F"
        );
    }
}
