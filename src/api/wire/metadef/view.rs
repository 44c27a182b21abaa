//! What goes out.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{namespace_path, part_path};
use crate::domain::metadef::{
    Association, Contents, Namespace, Object, Property, ResourceType, Tag,
};

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
