//! What rules are asked about, by the names that policies compare.

use std::borrow::Cow;

use super::Target;
use crate::auth::Context;
use crate::domain::Image;
use crate::domain::metadef::Namespace;

impl Target for Image {
    fn attribute(&self, name: &str) -> Option<Cow<'_, str>> {
        let flag = |flag| Some(Cow::Borrowed(if flag { "True" } else { "False" }));
        let text = |text: &'_ Option<String>| text.clone().map(Cow::Owned);
        match name {
            "id" | "image_id" => Some(self.id.as_str().into()),
            "owner" | "project_id" | "tenant" => self.owner.as_deref().map(Cow::Borrowed),
            "visibility" => Some(self.visibility.name().into()),
            "status" => Some(self.status.name().into()),
            "name" => text(&self.name),
            "disk_format" => text(&self.disk_format),
            "container_format" => text(&self.container_format),
            "protected" => flag(self.protected),
            "os_hidden" => flag(self.hidden),
            "min_disk" => Some(self.min_disk.to_string().into()),
            "min_ram" => Some(self.min_ram.to_string().into()),
            "size" => self.size.map(|n| n.to_string().into()),
            // A membership is no attribute of the image: see `Membership`.
            "member_id" => None,
            custom => self.properties.get(custom).map(|v| v.as_str().into()),
        }
    }
}

/// An image and one project it is shared with.
#[derive(Clone, Copy, Debug)]
pub struct Membership<'a> {
    /// The image.
    pub image: &'a Image,
    /// The project, if there is one.
    pub member: Option<&'a str>,
}

impl Target for Membership<'_> {
    fn attribute(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            "member_id" | "member" => self.member.map(Cow::Borrowed),
            other => self.image.attribute(other),
        }
    }
}

/// Something that belongs to a project and is seen by others or not: a namespace of metadata
/// definitions, an image before it exists, the caller's own list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owned<'a> {
    /// The project.
    pub owner: Option<&'a str>,
    /// `public` or `private`; nothing where that does not apply.
    pub visibility: Option<&'a str>,
}

impl<'a> Owned<'a> {
    /// A namespace of metadata definitions.
    #[must_use]
    pub fn namespace(namespace: &'a Namespace) -> Self {
        Self {
            owner: namespace.owner.as_deref(),
            visibility: Some(namespace.visibility.name()),
        }
    }

    /// What is the caller's own.
    #[must_use]
    pub fn by(ctx: &'a Context) -> Self {
        Self {
            owner: ctx.project.as_deref(),
            visibility: None,
        }
    }
}

impl Target for Owned<'_> {
    fn attribute(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            "owner" | "project_id" | "tenant" => self.owner.map(Cow::Borrowed),
            "visibility" => self.visibility.map(Cow::Borrowed),
            _ => None,
        }
    }
}
