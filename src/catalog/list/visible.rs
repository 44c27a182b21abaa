//! What a viewer may see and asked for (`image-api.md` 3.5). An image without an owner is visible to
//! all.

use super::Condition;
use crate::catalog::{ListQuery, MemberFilter, VisibilityFilter};
use crate::domain::Visibility;

const ALL: [Visibility; 4] = [
    Visibility::Public,
    Visibility::Private,
    Visibility::Shared,
    Visibility::Community,
];

/// The visible images as classes that together are all of them. Each is a range of an index: one
/// owner's, or those of one visibility. An image may be in several.
pub(super) fn classes(query: &ListQuery) -> Vec<Condition> {
    let project = query.viewer.project.as_deref();
    let mut classes = Vec::new();
    let asked = |v: Visibility| match query.visibility {
        VisibilityFilter::Only(only) => v == only,
        VisibilityFilter::All => true,
        VisibilityFilter::Default => v != Visibility::Community,
    };
    for v in ALL.into_iter().filter(|v| asked(*v)) {
        if query.viewer.is_admin || matches!(v, Visibility::Public | Visibility::Community) {
            classes.push(of(v));
        }
    }
    if let Some(project) = project {
        let own = Condition::new("owner = ?", vec![project.into()]);
        match query.visibility {
            VisibilityFilter::Default if query.viewer.is_admin => {
                classes.push(own.and(&of(Visibility::Community)));
            }
            _ if query.viewer.is_admin => {}
            // These two are classes already, whoever owns them.
            VisibilityFilter::Only(Visibility::Public | Visibility::Community) => {}
            VisibilityFilter::Only(v) => classes.push(own.and(&of(v))),
            VisibilityFilter::Default | VisibilityFilter::All => classes.push(own),
        }
        if !query.viewer.is_admin && asked(Visibility::Shared) {
            classes.push(of(Visibility::Shared).and(&member(query.members, project)));
        }
    }
    if !query.viewer.is_admin {
        let ownerless = Condition::new("owner IS NULL", vec![]);
        for v in [Visibility::Private, Visibility::Shared] {
            if asked(v) {
                classes.push(ownerless.and(&of(v)));
            }
        }
    }
    classes
}

/// The same as one condition: for where the filters leave few images and nothing is walked.
pub(super) fn whole(query: &ListQuery) -> Condition {
    let classes = classes(query);
    let any: Vec<_> = classes.iter().map(|c| format!("({})", c.text)).collect();
    let args = classes.into_iter().flat_map(|c| c.args).collect();
    Condition::new(format!("({})", any.join(" OR ")), args)
}

/// Images whose member the project is.
fn member(members: MemberFilter, project: &str) -> Condition {
    let said = match members {
        MemberFilter::All => String::new(),
        MemberFilter::Only(status) => format!(" AND status = '{}'", status.name()),
    };
    Condition::new(
        format!("id IN (SELECT image_id FROM image_members WHERE member = ?{said})"),
        vec![project.into()],
    )
}

/// Names of ours: no value of a client's. Written out, so that a planner sees how many there are.
fn of(v: Visibility) -> Condition {
    Condition::new(format!("visibility = '{}'", v.name()), vec![])
}
