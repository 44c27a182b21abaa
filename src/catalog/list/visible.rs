//! What a viewer may see and asked for (`image-api.md` 3.5). An image without an owner is visible to
//! all.

use super::{Condition, Family, Few};
use crate::catalog::conn::{Tx, args};
use crate::catalog::{ListQuery, MemberFilter, Result, VisibilityFilter};
use crate::domain::Visibility;

const ALL: [Visibility; 4] = [
    Visibility::Public,
    Visibility::Private,
    Visibility::Shared,
    Visibility::Community,
];

/// Some of the visible images.
pub(super) struct Class {
    /// Which.
    pub(super) condition: Condition,
    /// The indexes in which they are one range; none where they are looked up by their ids.
    pub(super) family: Option<Family>,
}

/// The visible images as classes that together are all of them. An image may be in several.
pub(super) async fn classes(tx: &mut Tx, query: &ListQuery) -> Result<Vec<Class>> {
    let project = query.viewer.project.as_deref();
    let mut classes = Vec::new();
    let asked = |v: Visibility| match query.visibility {
        VisibilityFilter::Only(only) => v == only,
        VisibilityFilter::All => true,
        VisibilityFilter::Default => v != Visibility::Community,
    };
    let mut push = |family, condition| classes.push(Class { condition, family });
    for v in ALL.into_iter().filter(|v| asked(*v)) {
        if query.viewer.is_admin || matches!(v, Visibility::Public | Visibility::Community) {
            push(Some(Family::Visible), of(v));
        }
    }
    if let Some(project) = project {
        let own = Condition::new("owner = ?", vec![project.into()]);
        let owned = Some(Family::Owned);
        match query.visibility {
            VisibilityFilter::Default if query.viewer.is_admin => {
                push(owned, own.and(&of(Visibility::Community)));
            }
            _ if query.viewer.is_admin => {}
            // These two are classes already, whoever owns them.
            VisibilityFilter::Only(Visibility::Public | Visibility::Community) => {}
            VisibilityFilter::Only(v) => push(owned, own.and(&of(v))),
            VisibilityFilter::Default | VisibilityFilter::All => push(owned, own),
        }
        if !query.viewer.is_admin && asked(Visibility::Shared) {
            let memberships = Memberships::of(query.members, project);
            let shared = of(Visibility::Shared);
            // Most projects have none, or a handful.
            match memberships.count(tx).await? {
                0 => {}
                n if n <= Few::MAX => push(None, shared.and(&memberships.listed())),
                _ => push(Some(Family::Visible), shared.and(&memberships.met())),
            }
        }
    }
    if !query.viewer.is_admin {
        let ownerless = Condition::new("owner IS NULL", vec![]);
        for v in [Visibility::Private, Visibility::Shared] {
            if asked(v) {
                push(Some(Family::Owned), ownerless.and(&of(v)));
            }
        }
    }
    Ok(classes)
}

/// The classes as one condition: for where something else leaves few images and nothing is walked.
pub(super) fn whole(classes: &[Class]) -> Condition {
    let any: Vec<_> = classes
        .iter()
        .map(|class| format!("({})", class.condition.text))
        .collect();
    let args = classes
        .iter()
        .flat_map(|class| class.condition.args.iter().cloned());
    if any.is_empty() {
        return Condition::new("1 = 0", vec![]);
    }
    Condition::new(format!("({})", any.join(" OR ")), args.collect())
}

/// The memberships of a project that count.
struct Memberships<'a> {
    project: &'a str,
    said: String,
}

impl<'a> Memberships<'a> {
    fn of(members: MemberFilter, project: &'a str) -> Self {
        let said = match members {
            MemberFilter::All => String::new(),
            MemberFilter::Only(status) => format!(" AND status = '{}'", status.name()),
        };
        Self { project, said }
    }

    /// How many, or one more than are few.
    async fn count(&self, tx: &mut Tx) -> Result<i64> {
        let has = format!("member = ?{}", self.said);
        let has = Condition::new(has, args![self.project]);
        Few::count(tx, "image_members", &has).await
    }

    /// Images among them, which are looked up.
    fn listed(&self) -> Condition {
        let said = &self.said;
        Condition::new(
            format!("id IN (SELECT image_id FROM image_members WHERE member = ?{said})"),
            args![self.project],
        )
    }

    /// Images that have one, as they are met on a walk.
    fn met(&self) -> Condition {
        let has = format!("member = ?{}", self.said);
        Condition::new(has, args![self.project]).met("image_members")
    }
}

/// Names of ours: no value of a client's. Written out, so that a planner sees how many there are.
fn of(v: Visibility) -> Condition {
    Condition::new(format!("visibility = '{}'", v.name()), vec![])
}
