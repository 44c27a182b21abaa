//! The rules: one function a rule, named as the rule is.

use super::targets::{Membership, Owned};
use super::{Denied, Target, Verdict};
use crate::auth::Context;
use crate::domain::metadef::Namespace;
use crate::domain::{Image, Visibility};

fn check(rule: &'static str, ctx: &Context, target: &dyn Target) -> Verdict {
    debug_assert!(ctx.rules.knows(rule), "{rule} has a default");
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
    check_own(rule, ctx, image.owner.as_deref())
}

fn check_own(rule: &'static str, ctx: &Context, owner: Option<&str>) -> Verdict {
    if ctx.is_admin || (!ctx.read_only && ctx.owns(owner)) {
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

own! {
    "list batches" get_batches
    "ask for a batch" add_batch
    "take files of the server's own into a batch" add_batch_files
}

/// Rules about a batch that `owner` has. Who is denied one and `get_batch` too may not know that there
/// is one; whatever the rules say, nobody but that project and administrators changes it.
macro_rules! batch {
    ($($doc:literal $name:ident)*) => {$(
        #[doc = concat!("`", stringify!($name), "`: ", $doc, ".")]
        ///
        /// # Errors
        /// [`Denied`]
        pub fn $name(ctx: &Context, owner: Option<&str>) -> Verdict {
            let target = Owned { owner, visibility: None };
            check_seen(stringify!($name), "get_batch", ctx, &target)?;
            check_own(stringify!($name), ctx, owner)
        }
    )*};
}

batch! {
    "end it, and begin again with what failed" modify_batch
    "forget it" delete_batch
}

/// `get_batch`: show it.
///
/// # Errors
/// [`Denied`]
pub fn get_batch(ctx: &Context, owner: Option<&str>) -> Verdict {
    let target = Owned {
        owner,
        visibility: None,
    };
    check_seen("get_batch", "get_batch", ctx, &target)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ImageId, Timestamp};

    fn image(owner: Option<&str>, visibility: Visibility) -> Image {
        let owner = owner.map(str::to_owned);
        let mut image = Image::new(ImageId::random(), owner, Timestamp(0));
        image.visibility = visibility;
        image
    }

    /// An administrator of project x; member and reader of a; member and reader of b; a service;
    /// somebody of a without a role; nobody at all.
    fn personas() -> [Context; 8] {
        [
            Context::administrator("root", "x"),
            Context::with_roles("am", "a", &["member"]),
            Context::with_roles("ar", "a", &["reader"]),
            Context::with_roles("bm", "b", &["member"]),
            Context::with_roles("br", "b", &["reader"]),
            Context::with_roles("nova", "s", &["service"]),
            Context::with_roles("a0", "a", &[]),
            Context::default(),
        ]
    }

    /// Allowed, forbidden, or not even known of, persona by persona.
    fn row(asked: impl Fn(&Context) -> Verdict) -> String {
        let cell = |ctx: &Context| match asked(ctx) {
            Ok(()) => 'y',
            Err(Denied { hidden: false, .. }) => 'f',
            Err(Denied { hidden: true, .. }) => 'h',
        };
        personas().iter().map(cell).collect()
    }

    type OfImage = fn(&Context, &Image) -> Verdict;

    #[test]
    fn the_table_of_image_rules() {
        // Of images of project a: private; shared, community or public.
        let table: [(&str, OfImage, [&str; 2]); 19] = [
            ("get_image", get_image, ["yyyhhhhh", "yyyyyhhh"]),
            ("download_image", download_image, ["yyfhhhhh", "yyfyfhhh"]),
            ("modify_image", modify_image, ["yyfhhhhh", "yyfffhhh"]),
            ("delete_image", delete_image, ["yyfhhhhh", "yyfffhhh"]),
            ("upload_image", upload_image, ["yyfhhhhh", "yyfffhhh"]),
            ("deactivate", deactivate, ["yyfhhhhh", "yyfffhhh"]),
            ("reactivate", reactivate, ["yyfhhhhh", "yyfffhhh"]),
            ("copy_image", copy_image, ["yffhhhhh", "yffffhhh"]),
            ("add_member", add_member, ["yyfhhhhh", "yyfffhhh"]),
            ("delete_member", delete_member, ["yyfhhhhh", "yyfffhhh"]),
            (
                "get_members",
                |c, i| get_members(c, i, None),
                ["yyyhhhhh", "yyyffhhh"],
            ),
            (
                "get_members, as member b",
                |c, i| get_members(c, i, Some("b")),
                ["yyyyyhhh", "yyyyyhhh"],
            ),
            (
                "get_member b",
                |c, i| get_member(c, i, "b"),
                ["yyyyyhhh", "yyyyyhhh"],
            ),
            (
                "modify_member b",
                |c, i| modify_member(c, i, "b"),
                ["yffyfhhh", "yffyfhhh"],
            ),
            (
                "get_image_location",
                get_image_location,
                ["yyyhhhhh", "yyyffhhh"],
            ),
            (
                "set_image_location",
                set_image_location,
                ["yyfhhhhh", "yyfffhhh"],
            ),
            (
                "delete_image_location",
                delete_image_location,
                ["yffhhhhh", "yffffhhh"],
            ),
            (
                "add_image_location",
                add_image_location,
                ["yyfhhyhh", "yyfffyhh"],
            ),
            (
                "fetch_image_location",
                fetch_image_location,
                ["yffhhyhh", "yffffyhh"],
            ),
        ];
        for (rule, asked, want) in table {
            for (visibility, want) in [
                (Visibility::Private, want[0]),
                (Visibility::Shared, want[1]),
                (Visibility::Community, want[1]),
                (Visibility::Public, want[1]),
            ] {
                let image = image(Some("a"), visibility);
                let got = row(|ctx| asked(ctx, &image));
                assert_eq!(got, want, "{rule} of a {visibility:?} image");
            }
        }
    }

    #[test]
    fn the_table_of_making_and_publishing() {
        assert_eq!(row(|c| add_image(c, Some("a"))), "yyffffff");
        assert_eq!(row(|c| add_image(c, c.project.as_deref())), "yyfyffff");
        assert_eq!(row(|c| add_image(c, None)), "yfffffff");
        for (visibility, want) in [
            (Visibility::Public, "yfffffff"),
            (Visibility::Community, "yyffffff"),
            (Visibility::Shared, "yyyyyyyy"),
            (Visibility::Private, "yyyyyyyy"),
        ] {
            let image = image(Some("a"), visibility);
            assert_eq!(row(|c| publish(c, &image)), want, "{visibility:?}");
        }
    }

    #[test]
    fn the_table_of_what_is_no_image() {
        type Asked = fn(&Context) -> Verdict;
        let table: [(&str, Asked, &str); 22] = [
            ("get_images", get_images, "yyyyyfff"),
            ("get_batches", get_batches, "yyyyyfff"),
            ("add_batch", add_batch, "yyfyffff"),
            ("add_batch_files", add_batch_files, "yfffffff"),
            ("get_batch", |c| get_batch(c, Some("a")), "yyyhhhhh"),
            ("modify_batch", |c| modify_batch(c, Some("a")), "yyfhhhhh"),
            ("delete_batch", |c| delete_batch(c, Some("a")), "yyfhhhhh"),
            ("stores_info_detail", stores_info_detail, "yffffyff"),
            ("tasks_api_access", tasks_api_access, "yfffffff"),
            ("get_task", get_task, "yyyyyyyy"),
            ("get_tasks", get_tasks, "yyyyyyyy"),
            ("add_task", add_task, "yyyyyyyy"),
            ("manage_image_cache", manage_image_cache, "yfffffff"),
            ("cache_image", cache_image, "yfffffff"),
            ("cache_list", cache_list, "yfffffff"),
            ("cache_delete", cache_delete, "yfffffff"),
            ("cache_clean", cache_clean, "yfffffff"),
            ("cache_prune", cache_prune, "yfffffff"),
            ("list_cached_nodes", list_cached_nodes, "yfffffff"),
            ("get_metadef_namespaces", get_metadef_namespaces, "yyyyyfff"),
            ("add_metadef_namespace", add_metadef_namespace, "yfffffff"),
            (
                "list_metadef_resource_types",
                list_metadef_resource_types,
                "yyyyyfff",
            ),
        ];
        for (rule, asked, want) in table {
            assert_eq!(row(asked), want, "{rule}");
        }
    }

    #[test]
    fn the_table_of_metadata_definitions() {
        type Asked = fn(&Context, Owned<'_>) -> Verdict;
        let looks: [Asked; 9] = [
            get_metadef_namespace,
            get_metadef_object,
            get_metadef_objects,
            get_metadef_property,
            get_metadef_properties,
            get_metadef_resource_type,
            get_metadef_tag,
            get_metadef_tags,
            |c, n| get_metadef_namespace(c, n),
        ];
        let changes: [Asked; 15] = [
            modify_metadef_namespace,
            delete_metadef_namespace,
            add_metadef_object,
            modify_metadef_object,
            delete_metadef_object,
            add_metadef_property,
            modify_metadef_property,
            remove_metadef_property,
            add_metadef_resource_type_association,
            remove_metadef_resource_type_association,
            add_metadef_tag,
            add_metadef_tags,
            modify_metadef_tag,
            delete_metadef_tag,
            delete_metadef_tags,
        ];
        for (visibility, look, change) in [
            ("private", "yyyhhhhh", "yffhhhhh"),
            ("public", "yyyyyhhh", "yffffhhh"),
        ] {
            let namespace = Owned {
                owner: Some("a"),
                visibility: Some(visibility),
            };
            for asked in looks {
                assert_eq!(row(|c| asked(c, namespace)), look, "{visibility}");
            }
            for asked in changes {
                assert_eq!(row(|c| asked(c, namespace)), change, "{visibility}");
            }
        }
    }

    #[test]
    fn a_lax_policy_does_not_let_others_change_what_is_not_theirs() {
        let file = [("modify_image".to_owned(), "@".into())].into();
        let (rules, _) = crate::auth::policy::RuleSet::with(&file, true, &[]).unwrap();
        let stranger = Context::with_roles("u", "b", &["member"]).under(rules.into());
        let public = image(Some("a"), Visibility::Public);
        assert!(modify_image(&stranger, &public).is_err());
        assert!(modify_image(&stranger, &image(Some("b"), Visibility::Private)).is_ok());
    }

    #[test]
    fn visibility_decides_who_sees() {
        let cases = [
            (Visibility::Public, "yyyyyyyy"),
            (Visibility::Community, "yyyyyyyy"),
            (Visibility::Shared, "yyy...y."),
            (Visibility::Private, "yyy...y."),
        ];
        for (visibility, want) in cases {
            let image = image(Some("a"), visibility);
            let got = personas().map(|p| if visible(&p, &image) { 'y' } else { '.' });
            assert_eq!(got.iter().collect::<String>(), want, "{visibility:?}");
        }
        let ownerless = image(None, Visibility::Private);
        assert!(personas().iter().all(|p| visible(p, &ownerless)));
    }
}
