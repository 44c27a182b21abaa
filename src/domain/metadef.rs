//! Metadata definitions: the catalogue of properties that images, volumes, flavors and the like
//! may carry, so that people are offered names and values instead of having to know them.
//!
//! A namespace holds properties, objects (groups of properties), tags and the resource types its
//! properties are for.

use serde_json::{Map, Value};

use super::{Timestamp, Visibility};

/// A namespace, without what it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Namespace {
    /// Its name, which is what clients call it by.
    pub name: String,
    /// A name for people.
    pub display_name: Option<String>,
    /// What it is about.
    pub description: Option<String>,
    /// [`Visibility::Public`] or [`Visibility::Private`].
    pub visibility: Visibility,
    /// Whether deleting it, or anything in it, is refused.
    pub protected: bool,
    /// The project it belongs to.
    pub owner: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A property: its name, and what values it takes in the words of JSON schema.
#[derive(Clone, PartialEq, Debug)]
pub struct Property {
    /// Unique in its namespace, or in its object.
    pub name: String,
    /// `type`, `title` and whatever else is said of it, in the order of [`KEYWORDS`].
    pub definition: Map<String, Value>,
}

/// What can be said of a property, in the order the API shows it.
pub const KEYWORDS: [&str; 19] = [
    "type",
    "title",
    "description",
    "operators",
    "default",
    "readonly",
    "minimum",
    "maximum",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "confidential",
    "required",
    "items",
    "uniqueItems",
    "minItems",
    "maxItems",
    "additionalItems",
];

impl Property {
    /// A property of these keywords; `name` among them is left out.
    ///
    /// # Errors
    /// The first keyword that is none of [`KEYWORDS`].
    pub fn new(name: String, mut keywords: Map<String, Value>) -> Result<Self, String> {
        keywords.shift_remove("name");
        let definition = KEYWORDS
            .iter()
            .filter_map(|k| keywords.shift_remove_entry(*k))
            .collect();
        match keywords.into_iter().next() {
            Some((unknown, _)) => Err(unknown),
            None => Ok(Self { name, definition }),
        }
    }
}

/// A group of properties.
#[derive(Clone, PartialEq, Debug)]
pub struct Object {
    /// Unique in its namespace.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// Names of properties that must be given.
    pub required: Vec<String>,
    /// Its properties.
    pub properties: Vec<Property>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A tag.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tag {
    /// Unique in its namespace.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A type of things that carry properties: `OS::Glance::Image`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResourceType {
    /// Unique among all.
    pub name: String,
    /// When it was first heard of.
    pub created_at: Timestamp,
    /// Absent where it came with the schema.
    pub updated_at: Option<Timestamp>,
}

/// That a namespace's properties are for a resource type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Association {
    /// The resource type.
    pub resource_type: String,
    /// What the properties' names begin with there.
    pub prefix: Option<String>,
    /// Which of several maps of the type the properties go to.
    pub properties_target: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// All that a namespace holds.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Contents {
    /// What its properties are for.
    pub associations: Vec<Association>,
    /// Properties of its own.
    pub properties: Vec<Property>,
    /// Groups of properties.
    pub objects: Vec<Object>,
    /// Tags.
    pub tags: Vec<Tag>,
}

impl Contents {
    /// Puts `prefix` before the name of every property, as a resource type knows them.
    pub fn prefix(&mut self, prefix: &str) {
        let put = |name: &mut String| name.insert_str(0, prefix);
        self.properties.iter_mut().for_each(|p| put(&mut p.name));
        for object in &mut self.objects {
            object.required.iter_mut().for_each(put);
            object.properties.iter_mut().for_each(|p| put(&mut p.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keywords(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    #[test]
    fn keywords_are_put_in_order_and_unknown_ones_named() {
        let given = json!({"enum": ["a"], "name": "x", "title": "X", "type": "string"});
        let property = Property::new("x".into(), keywords(given)).unwrap();
        let order: Vec<_> = property.definition.keys().map(String::as_str).collect();
        assert_eq!(order, ["type", "title", "enum"]);
        let unknown = Property::new("x".into(), keywords(json!({"tpye": "string"})));
        assert_eq!(unknown.unwrap_err(), "tpye");
    }

    #[test]
    fn a_prefix_goes_before_all_that_names_a_property() {
        let property = |name: &str| Property::new(name.into(), Map::new()).unwrap();
        let mut contents = Contents {
            properties: vec![property("a")],
            objects: vec![Object {
                name: "box".into(),
                description: None,
                required: vec!["b".into()],
                properties: vec![property("b")],
                created_at: Timestamp(0),
                updated_at: Timestamp(0),
            }],
            ..Contents::default()
        };
        contents.prefix("hw_");
        assert_eq!(contents.properties[0].name, "hw_a");
        assert_eq!(contents.objects[0].required, ["hw_b"]);
        assert_eq!(contents.objects[0].properties[0].name, "hw_b");
        assert_eq!(contents.objects[0].name, "box");
    }
}
