//! What comes in. A schema has been held against it before.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::api::properties::has_astral;
use crate::domain::metadef::{Association, Contents, Namespace, Object, Property, Tag};
use crate::domain::{Timestamp, Visibility};

/// Characters of a name at most.
const MAX_NAME: usize = 80;

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
    if has_astral(&text) {
        return Err("Name can't contain 4 byte unicode characters.".into());
    }
    Ok(text)
}
