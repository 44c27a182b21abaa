//! The rules: their defaults, which are Glance's secure RBAC, and one function a rule, named as
//! the rule is.

use std::borrow::Cow;

use super::{Denied, Target, Verdict};
use crate::auth::Context;
use crate::domain::metadef::Namespace;
use crate::domain::{Image, Visibility};

const ADMIN: &str = "rule:context_is_admin";
const ANYONE: &str = "";
const PROJECT_READER: &str = "rule:context_is_admin or (role:reader and project_id:%(project_id)s)";
const PROJECT_MEMBER: &str = "rule:context_is_admin or (role:member and project_id:%(project_id)s)";
const SHOWN: &str = "rule:context_is_admin or (role:reader and (project_id:%(project_id)s or \
     project_id:%(member_id)s or 'community':%(visibility)s or 'public':%(visibility)s or \
     'shared':%(visibility)s))";
const TAKEN: &str = "rule:context_is_admin or (role:member and (project_id:%(project_id)s or \
     project_id:%(member_id)s or 'community':%(visibility)s or 'public':%(visibility)s or \
     'shared':%(visibility)s))";
const SHARED_READER: &str = "rule:context_is_admin or (role:reader and \
     (project_id:%(project_id)s or project_id:%(member_id)s))";
const SERVICE_OR_MEMBER: &str = "rule:service_api or (role:member and project_id:%(project_id)s)";
const METADEF_READER: &str = "rule:context_is_admin or (role:reader and \
     (project_id:%(project_id)s or 'public':%(visibility)s))";
const METADEF_ADMIN: &str = "rule:metadef_admin";

/// Every rule that is asked, and what holds unless a policy file says otherwise.
pub(super) const DEFAULTS: &[(&str, &str)] = &[
    ("default", ANYONE),
    ("context_is_admin", "role:admin"),
    ("service_api", "role:service or role:admin"),
    ("add_image", PROJECT_MEMBER),
    ("get_images", PROJECT_READER),
    ("get_image", SHOWN),
    ("modify_image", PROJECT_MEMBER),
    ("delete_image", PROJECT_MEMBER),
    ("upload_image", PROJECT_MEMBER),
    ("publicize_image", ADMIN),
    ("communitize_image", PROJECT_MEMBER),
    ("download_image", TAKEN),
    ("download_from_store", TAKEN),
    ("deactivate", PROJECT_MEMBER),
    ("reactivate", PROJECT_MEMBER),
    ("copy_image", ADMIN),
    ("add_member", PROJECT_MEMBER),
    ("delete_member", PROJECT_MEMBER),
    ("get_member", SHARED_READER),
    ("get_members", SHARED_READER),
    (
        "modify_member",
        "rule:context_is_admin or (role:member and project_id:%(member_id)s)",
    ),
    ("get_image_location", PROJECT_READER),
    ("set_image_location", PROJECT_MEMBER),
    ("delete_image_location", ADMIN),
    ("add_image_location", SERVICE_OR_MEMBER),
    ("fetch_image_location", "rule:service_api"),
    ("manage_image_cache", ADMIN),
    ("cache_image", ADMIN),
    ("cache_list", ADMIN),
    ("cache_delete", ADMIN),
    ("cache_clean", ADMIN),
    ("cache_prune", ADMIN),
    ("list_cached_nodes", ADMIN),
    (
        "stores_info_detail",
        "rule:context_is_admin or role:service",
    ),
    ("get_task", ANYONE),
    ("get_tasks", ANYONE),
    ("add_task", ANYONE),
    ("modify_task", ANYONE),
    ("tasks_api_access", ADMIN),
    ("metadef_default", ANYONE),
    ("metadef_admin", ADMIN),
    ("get_metadef_namespace", METADEF_READER),
    ("get_metadef_namespaces", METADEF_READER),
    ("add_metadef_namespace", METADEF_ADMIN),
    ("modify_metadef_namespace", METADEF_ADMIN),
    ("delete_metadef_namespace", METADEF_ADMIN),
    ("get_metadef_object", METADEF_READER),
    ("get_metadef_objects", METADEF_READER),
    ("add_metadef_object", METADEF_ADMIN),
    ("modify_metadef_object", METADEF_ADMIN),
    ("delete_metadef_object", METADEF_ADMIN),
    ("get_metadef_property", METADEF_READER),
    ("get_metadef_properties", METADEF_READER),
    ("add_metadef_property", METADEF_ADMIN),
    ("modify_metadef_property", METADEF_ADMIN),
    ("remove_metadef_property", METADEF_ADMIN),
    ("get_metadef_resource_type", METADEF_READER),
    ("list_metadef_resource_types", METADEF_READER),
    ("add_metadef_resource_type_association", METADEF_ADMIN),
    ("remove_metadef_resource_type_association", METADEF_ADMIN),
    ("get_metadef_tag", METADEF_READER),
    ("get_metadef_tags", METADEF_READER),
    ("add_metadef_tag", METADEF_ADMIN),
    ("add_metadef_tags", METADEF_ADMIN),
    ("modify_metadef_tag", METADEF_ADMIN),
    ("delete_metadef_tag", METADEF_ADMIN),
    ("delete_metadef_tags", METADEF_ADMIN),
];

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

fn check(rule: &'static str, ctx: &Context, target: &dyn Target) -> Verdict {
    if ctx.rules.allows(rule, ctx, target) {
        Ok(())
    } else {
        Err(Denied {
            rule,
            hidden: false,
        })
    }
}

/// The same, where who may not do something may not know of its object either when `seen` says no.
fn check_seen(
    rule: &'static str,
    seen: &'static str,
    ctx: &Context,
    target: &dyn Target,
) -> Verdict {
    check(rule, ctx, target).map_err(|denied| Denied {
        hidden: rule == seen || !ctx.rules.allows(seen, ctx, target),
        ..denied
    })
}

/// Whatever the rules say: what belongs to a project is changed by nobody but that project and
/// administrators.
fn check_mutable(rule: &'static str, ctx: &Context, image: &Image) -> Verdict {
    check_seen(rule, "get_image", ctx, image)?;
    if ctx.is_admin || (!ctx.read_only && ctx.owns(image.owner.as_deref())) {
        return Ok(());
    }
    Err(Denied {
        rule,
        hidden: false,
    })
}

/// Whether the caller can know that the image exists.
#[must_use]
pub fn visible(ctx: &Context, image: &Image) -> bool {
    ctx.is_admin
        || image.owner.is_none()
        || ctx.owns(image.owner.as_deref())
        || matches!(image.visibility, Visibility::Public | Visibility::Community)
}

/// Whether the caller can know that the namespace of metadata definitions exists.
#[must_use]
pub fn metadef_visible(ctx: &Context, namespace: &Namespace) -> bool {
    ctx.is_admin
        || namespace.owner.is_none()
        || ctx.owns(namespace.owner.as_deref())
        || namespace.visibility == Visibility::Public
}

/// Rules about no object but the caller's project.
macro_rules! own {
    ($($doc:literal $name:ident)*) => {$(
        #[doc = concat!("`", stringify!($name), "`: ", $doc, ".")]
        ///
        /// # Errors
        /// [`Denied`]
        pub fn $name(ctx: &Context) -> Verdict {
            check(stringify!($name), ctx, &Owned::by(ctx))
        }
    )*};
}

own! {
    "list images" get_images
    "what services alone may do" service_api
    "where stores keep their bytes" stores_info_detail
    "the whole of `/v2/tasks`" tasks_api_access
    "show a task" get_task
    "list tasks" get_tasks
    "create a task" add_task
    "change a task" modify_task
    "the cache, by its older routes" manage_image_cache
    "have an image cached" cache_image
    "list what is cached" cache_list
    "drop from the cache" cache_delete
    "drop what is invalid from the cache" cache_clean
    "make the cache small again" cache_prune
    "which nodes have an image cached" list_cached_nodes
}

/// Rules about an image. Who is denied one and `get_image` too may not know that there is one.
macro_rules! image {
    ($check:ident: $($doc:literal $name:ident)*) => {$(
        #[doc = concat!("`", stringify!($name), "`: ", $doc, ".")]
        ///
        /// # Errors
        /// [`Denied`]
        pub fn $name(ctx: &Context, image: &Image) -> Verdict {
            $check(stringify!($name), ctx, image)
        }
    )*};
}

fn check_image(rule: &'static str, ctx: &Context, image: &Image) -> Verdict {
    check_seen(rule, "get_image", ctx, image)
}

image! { check_image:
    "show what is visible" get_image
    "take its data; a reader may look but not take" download_image
    "say which copy of its data to take" download_from_store
    "have its data copied to more stores" copy_image
    "see its locations inside the image" get_image_location
    "list its locations" fetch_image_location
    "give it a location" add_image_location
}

image! { check_mutable:
    "metadata, tags, staging, import" modify_image
    "delete it" delete_image
    "give it its data" upload_image
    "block its data" deactivate
    "free its data again" reactivate
    "set its locations inside the image" set_image_location
    "remove a location, or its data from one store" delete_image_location
    "share it" add_member
    "no longer share it" delete_member
}

/// `add_image`: create for `owner`.
///
/// # Errors
/// [`Denied`]
pub fn add_image(ctx: &Context, owner: Option<&str>) -> Verdict {
    let target = Owned {
        owner,
        visibility: None,
    };
    check("add_image", ctx, &target)
}

/// `publicize_image` and `communitize_image`: make an image seen by others, as its visibility now
/// says.
///
/// # Errors
/// [`Denied`]
pub fn publish(ctx: &Context, image: &Image) -> Verdict {
    match image.visibility {
        Visibility::Public => check("publicize_image", ctx, image),
        Visibility::Community => check("communitize_image", ctx, image),
        Visibility::Private | Visibility::Shared => Ok(()),
    }
}

/// `get_members`: list whom an image is shared with. `own` is the caller's project when it is one
/// of them.
///
/// # Errors
/// [`Denied`]
pub fn get_members(ctx: &Context, image: &Image, own: Option<&str>) -> Verdict {
    let target = Membership { image, member: own };
    check_seen("get_members", "get_image", ctx, &target)
}

/// `get_member`: show one membership.
///
/// # Errors
/// [`Denied`]
pub fn get_member(ctx: &Context, image: &Image, member: &str) -> Verdict {
    let member = Some(member);
    check_seen(
        "get_member",
        "get_image",
        ctx,
        &Membership { image, member },
    )
}

/// `modify_member`: accept or reject what is shared with `member`.
///
/// # Errors
/// [`Denied`]
pub fn modify_member(ctx: &Context, image: &Image, member: &str) -> Verdict {
    let member = Some(member);
    check_seen(
        "modify_member",
        "get_image",
        ctx,
        &Membership { image, member },
    )
}

/// Rules about a namespace of metadata definitions and what is in it. Who is denied one and
/// `get_metadef_namespace` too may not know that there is one.
macro_rules! metadef {
    ($($doc:literal $name:ident)*) => {$(
        #[doc = concat!("`", stringify!($name), "`: ", $doc, ".")]
        ///
        /// # Errors
        /// [`Denied`]
        pub fn $name(ctx: &Context, namespace: Owned<'_>) -> Verdict {
            check_seen(stringify!($name), "get_metadef_namespace", ctx, &namespace)
        }
    )*};
}

metadef! {
    "show a namespace" get_metadef_namespace
    "change a namespace" modify_metadef_namespace
    "delete a namespace" delete_metadef_namespace
    "show an object" get_metadef_object
    "list objects" get_metadef_objects
    "add an object" add_metadef_object
    "change an object" modify_metadef_object
    "delete an object" delete_metadef_object
    "show a property" get_metadef_property
    "list properties" get_metadef_properties
    "add a property" add_metadef_property
    "change a property" modify_metadef_property
    "remove a property" remove_metadef_property
    "list the resource types of a namespace" get_metadef_resource_type
    "associate a resource type" add_metadef_resource_type_association
    "end an association" remove_metadef_resource_type_association
    "show a tag" get_metadef_tag
    "list tags" get_metadef_tags
    "add a tag" add_metadef_tag
    "add several tags" add_metadef_tags
    "rename a tag" modify_metadef_tag
    "delete a tag" delete_metadef_tag
    "delete all tags" delete_metadef_tags
}

own! {
    "list namespaces" get_metadef_namespaces
    "add a namespace" add_metadef_namespace
    "list all resource types" list_metadef_resource_types
}
