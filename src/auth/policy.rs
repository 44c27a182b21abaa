//! Who may do what to images: the defaults of Glance's secure RBAC (`image-states.md` 9), one
//! function a rule, named as the rule is.
//!
//! What a caller may not *see* is no matter of these rules: [`visible`] says it, and the answer is
//! 404 before any rule is asked.

use super::{Context, Role};
use crate::domain::{Image, Visibility};

/// The rule that said no: 403.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Denied(pub &'static str);

type Verdict = Result<(), Denied>;

fn allow(rule: &'static str, allowed: bool) -> Verdict {
    if allowed { Ok(()) } else { Err(Denied(rule)) }
}

/// An administrator, or somebody who may write in the project that owns the image.
fn owner_member(ctx: &Context, owner: Option<&str>) -> bool {
    ctx.is_admin || (!ctx.read_only && ctx.has(Role::Member) && ctx.owns(owner))
}

/// Whether the caller can know that the image exists.
#[must_use]
pub fn visible(ctx: &Context, image: &Image) -> bool {
    ctx.is_admin
        || image.owner.is_none()
        || ctx.owns(image.owner.as_deref())
        || matches!(image.visibility, Visibility::Public | Visibility::Community)
}

/// `get_images`: list.
///
/// # Errors
/// [`Denied`]
pub fn get_images(ctx: &Context) -> Verdict {
    allow("get_images", ctx.has(Role::Reader))
}

/// `get_image`: show what is visible.
///
/// # Errors
/// [`Denied`]
pub fn get_image(ctx: &Context) -> Verdict {
    allow("get_image", ctx.has(Role::Reader))
}

/// `add_image`: create for `owner`.
///
/// # Errors
/// [`Denied`]
pub fn add_image(ctx: &Context, owner: Option<&str>) -> Verdict {
    allow("add_image", owner_member(ctx, owner))
}

/// `modify_image`: metadata, tags, staging, import.
///
/// # Errors
/// [`Denied`]
pub fn modify_image(ctx: &Context, image: &Image) -> Verdict {
    allow("modify_image", owner_member(ctx, image.owner.as_deref()))
}

/// `upload_image`: give an image its data.
///
/// # Errors
/// [`Denied`]
pub fn upload_image(ctx: &Context, image: &Image) -> Verdict {
    allow("upload_image", owner_member(ctx, image.owner.as_deref()))
}

/// `delete_image`.
///
/// # Errors
/// [`Denied`]
pub fn delete_image(ctx: &Context, image: &Image) -> Verdict {
    allow("delete_image", owner_member(ctx, image.owner.as_deref()))
}

/// `publicize_image` and `communitize_image`: make an image of `owner` seen by others.
///
/// # Errors
/// [`Denied`]
pub fn publish(ctx: &Context, owner: Option<&str>, visibility: Visibility) -> Verdict {
    match visibility {
        Visibility::Public => allow("publicize_image", ctx.is_admin),
        Visibility::Community => allow("communitize_image", owner_member(ctx, owner)),
        Visibility::Private | Visibility::Shared => Ok(()),
    }
}

/// `download_image`: a reader may look at an image, but not take its data.
///
/// # Errors
/// [`Denied`]
pub fn download_image(ctx: &Context) -> Verdict {
    allow("download_image", ctx.has(Role::Member))
}

/// `deactivate`.
///
/// # Errors
/// [`Denied`]
pub fn deactivate(ctx: &Context, image: &Image) -> Verdict {
    allow("deactivate", owner_member(ctx, image.owner.as_deref()))
}

/// `reactivate`.
///
/// # Errors
/// [`Denied`]
pub fn reactivate(ctx: &Context, image: &Image) -> Verdict {
    allow("reactivate", owner_member(ctx, image.owner.as_deref()))
}

/// `stores_info_detail`: where stores keep their bytes.
///
/// # Errors
/// [`Denied`]
pub fn stores_info_detail(ctx: &Context) -> Verdict {
    allow("stores_info_detail", ctx.is_admin)
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

    /// Admin, member of the owner, reader of the owner, member of another project, nobody.
    fn personas() -> [Context; 5] {
        [
            Context::administrator("root", "x"),
            Context::with_roles("u1", "a", &["member"]),
            Context::with_roles("u2", "a", &["reader"]),
            Context::with_roles("u3", "b", &["member"]),
            Context::default(),
        ]
    }

    #[test]
    fn the_table_of_rules() {
        type Asked = fn(&Context, &Image) -> bool;
        let private = image(Some("a"), Visibility::Private);
        let table: [(&str, Asked, [u8; 5]); 8] = [
            ("visible", visible, [1, 1, 1, 0, 0]),
            ("get_image", |c, _| get_image(c).is_ok(), [1, 1, 1, 1, 0]),
            (
                "add_image",
                |c, i| add_image(c, i.owner.as_deref()).is_ok(),
                [1, 1, 0, 0, 0],
            ),
            (
                "modify_image",
                |c, i| modify_image(c, i).is_ok(),
                [1, 1, 0, 0, 0],
            ),
            (
                "delete_image",
                |c, i| delete_image(c, i).is_ok(),
                [1, 1, 0, 0, 0],
            ),
            (
                "publicize_image",
                |c, i| publish(c, i.owner.as_deref(), Visibility::Public).is_ok(),
                [1, 0, 0, 0, 0],
            ),
            (
                "communitize_image",
                |c, i| publish(c, i.owner.as_deref(), Visibility::Community).is_ok(),
                [1, 1, 0, 0, 0],
            ),
            (
                "download_image",
                |c, _| download_image(c).is_ok(),
                [1, 1, 0, 1, 0],
            ),
        ];
        for (rule, allowed, want) in table {
            let got = personas().map(|p| u8::from(allowed(&p, &private)));
            assert_eq!(got, want, "{rule}");
        }
    }

    #[test]
    fn visibility_decides_who_sees() {
        let cases = [
            (Visibility::Public, [1, 1, 1, 1, 1]),
            (Visibility::Community, [1, 1, 1, 1, 1]),
            (Visibility::Shared, [1, 1, 1, 0, 0]),
            (Visibility::Private, [1, 1, 1, 0, 0]),
        ];
        for (visibility, want) in cases {
            let image = image(Some("a"), visibility);
            let got = personas().map(|p| u8::from(visible(&p, &image)));
            assert_eq!(got, want, "{visibility:?}");
        }
        let ownerless = image(None, Visibility::Private);
        assert!(personas().iter().all(|p| visible(p, &ownerless)));
    }
}
