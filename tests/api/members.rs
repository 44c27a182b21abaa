//! Members of shared images, and that nothing of another project is ever shown.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::house::{
    ADMIN, House, MEMBER, OTHER, PROJECT_A, PROJECT_B, PROJECT_C, READER, STRANGER,
};

async fn add(h: &House, token: &str, id: &str, project: &str) -> u16 {
    let body = json!({"member": project}).to_string().into_bytes();
    let target = format!("/v2/images/{id}/members");
    let reply = h.send(token, "POST", &target, &[], Some(body)).await;
    reply.status.as_u16()
}

async fn say(h: &House, token: &str, id: &str, project: &str, status: &str) -> u16 {
    let body = json!({"status": status}).to_string().into_bytes();
    let target = format!("/v2/images/{id}/members/{project}");
    let reply = h.send(token, "PUT", &target, &[], Some(body)).await;
    reply.status.as_u16()
}

async fn listed(h: &House, token: &str, query: &str) -> Vec<String> {
    let reply = h.get(token, &format!("/v2/images?{query}")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let names = reply.json();
    let names = names["images"].as_array().unwrap().iter();
    let mut names: Vec<_> = names
        .map(|i| i["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_member_lists_what_it_accepted() {
    let h = House::build().await;
    let id = h.create(MEMBER, &json!({"name": "s"})).await;
    let image = format!("/v2/images/{id}");
    assert_eq!(h.get(STRANGER, &image).await.status, 404);
    assert_eq!(add(&h, READER, &id, PROJECT_B).await, 403);
    assert_eq!(add(&h, STRANGER, &id, PROJECT_B).await, 404);
    assert_eq!(add(&h, MEMBER, &id, PROJECT_B).await, 200);
    assert_eq!(h.get(STRANGER, &image).await.status, 200);
    for (status, by_default) in [
        ("pending", vec![]),
        ("accepted", vec!["s"]),
        ("rejected", vec![]),
        ("pending", vec![]),
    ] {
        assert_eq!(say(&h, STRANGER, &id, PROJECT_B, status).await, 200);
        assert_eq!(listed(&h, STRANGER, "").await, by_default, "{status}");
        let of_status = format!("member_status={status}");
        assert_eq!(listed(&h, STRANGER, &of_status).await, ["s"]);
        assert_eq!(listed(&h, STRANGER, "member_status=all").await, ["s"]);
        assert_eq!(listed(&h, OTHER, "member_status=all").await, [""; 0]);
    }
    let members = h.get(MEMBER, &format!("{image}/members")).await.json();
    assert_eq!(members["members"][0]["status"], "pending");

    // A private image keeps its members and ignores them.
    let v21 = (
        "Content-Type",
        "application/openstack-images-v2.1-json-patch",
    );
    for (visibility, seen) in [("private", 404), ("shared", 200)] {
        let change = json!([{"op": "replace", "path": "/visibility", "value": visibility}]);
        let change = Some(change.to_string().into_bytes());
        let reply = h.send(MEMBER, "PATCH", &image, &[v21], change).await;
        assert_eq!(reply.status, 200);
        assert_eq!(h.get(STRANGER, &image).await.status, seen, "{visibility}");
    }
    let member = format!("{image}/members/{PROJECT_B}");
    assert_eq!(
        h.send(STRANGER, "DELETE", &member, &[], None).await.status,
        403
    );
    assert_eq!(
        h.send(MEMBER, "DELETE", &member, &[], None).await.status,
        204
    );
    assert_eq!(h.get(STRANGER, &image).await.status, 404);
    assert_eq!(add(&h, MEMBER, &id, PROJECT_B).await, 200);
    let again = h.get(MEMBER, &member).await.json();
    assert_eq!(again["status"], "pending", "added again, it starts again");
}

#[tokio::test]
async fn members_see_themselves_alone() {
    let h = House::build().await;
    let id = h.create(MEMBER, &json!({})).await;
    for project in [PROJECT_B, PROJECT_C] {
        assert_eq!(add(&h, MEMBER, &id, project).await, 200);
    }
    let members = format!("/v2/images/{id}/members");
    let seen = |list: Value| -> Vec<String> {
        let list = list["members"].as_array().unwrap().iter();
        list.map(|m| m["member_id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(seen(h.get(MEMBER, &members).await.json()).len(), 2);
    assert_eq!(seen(h.get(ADMIN, &members).await.json()).len(), 2);
    assert_eq!(seen(h.get(OTHER, &members).await.json()), [PROJECT_C]);
    let of_b = format!("{members}/{PROJECT_B}");
    assert_eq!(h.get(STRANGER, &of_b).await.status, 200);
    assert_eq!(h.get(OTHER, &of_b).await.status, 404);
    assert_eq!(say(&h, OTHER, &id, PROJECT_B, "accepted").await, 403);
    assert_eq!(say(&h, ADMIN, &id, PROJECT_B, "accepted").await, 200);
    assert_eq!(say(&h, MEMBER, &id, PROJECT_A, "accepted").await, 404);
}

#[tokio::test]
async fn only_shared_images_have_members_and_not_too_many() {
    let h = House::with(|config| config.quota.members = 2).await;
    let public = h.create(ADMIN, &json!({"visibility": "public"})).await;
    let members = format!("/v2/images/{public}/members");
    assert_eq!(h.get(ADMIN, &members).await.status, 403);
    assert_eq!(h.get(STRANGER, &members).await.status, 403);
    assert_eq!(add(&h, ADMIN, &public, PROJECT_B).await, 403);
    let id = h.create(MEMBER, &json!({})).await;
    assert_eq!(add(&h, MEMBER, &id, "one").await, 200);
    assert_eq!(add(&h, MEMBER, &id, "two").await, 200);
    assert_eq!(add(&h, MEMBER, &id, "three").await, 413);
    // What is deleted has no members, and its id cannot be made to have any.
    let image = format!("/v2/images/{id}");
    assert_eq!(
        h.send(MEMBER, "DELETE", &image, &[], None).await.status,
        204
    );
    assert_eq!(add(&h, MEMBER, &id, "three").await, 404);
}

/// An image as the oracle knows it: project of the owner, visibility, and what B and C say to
/// being members.
type Spec = (usize, &'static str, [Option<&'static str>; 2]);

const PROJECTS: [&str; 3] = [PROJECT_A, PROJECT_B, PROJECT_C];
const PEOPLE: [&str; 3] = [MEMBER, STRANGER, OTHER];

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let visibility = prop_oneof![
        Just("public"),
        Just("private"),
        Just("community"),
        Just("shared"),
        Just("shared"),
    ];
    let said = || {
        proptest::option::of(prop_oneof![
            Just("pending"),
            Just("accepted"),
            Just("rejected")
        ])
    };
    let spec = (0..3usize, visibility, [said(), said()]);
    proptest::collection::vec(spec, 1..8)
}

/// What the project's members say to an image, `None` where they are none.
fn membership(spec: &Spec, viewer: usize) -> Option<&'static str> {
    (viewer > 0 && spec.1 == "shared")
        .then(|| spec.2[viewer - 1])
        .flatten()
}

fn may_see(spec: &Spec, viewer: usize) -> bool {
    spec.0 == viewer
        || ["public", "community"].contains(&spec.1)
        || membership(spec, viewer).is_some()
}

fn may_list(spec: &Spec, viewer: usize, visibility: &str, member_status: &str) -> bool {
    let is_own = spec.0 == viewer;
    let by_visibility = match visibility {
        "" => spec.1 != "community" || is_own,
        "all" => true,
        only => spec.1 == only,
    };
    let by_membership = match member_status {
        "all" => true,
        "" => membership(spec, viewer) == Some("accepted"),
        status => membership(spec, viewer) == Some(status),
    };
    let is_member = membership(spec, viewer).is_some() && by_membership;
    by_visibility && (is_own || ["public", "community"].contains(&spec.1) || is_member)
}

#[test]
fn nothing_of_another_project_is_ever_shown() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config {
        cases: 24,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let check = |specs: Vec<Spec>| {
        runtime.block_on(as_the_oracle_says(&specs));
        Ok(())
    };
    runner.run(&specs(), check).unwrap();
}

async fn as_the_oracle_says(specs: &[Spec]) {
    let h = House::build().await;
    let mut ids = Vec::new();
    for (n, spec) in specs.iter().enumerate() {
        let (owner, visibility, said) = spec;
        // Members are added while it is shared; they stay when it no longer is.
        let body = json!({"name": n.to_string(), "owner": PROJECTS[*owner]});
        let id = h.create(ADMIN, &body).await;
        for (m, status) in said.iter().enumerate() {
            if let Some(status) = status {
                assert_eq!(add(&h, ADMIN, &id, PROJECTS[m + 1]).await, 200);
                assert_eq!(say(&h, ADMIN, &id, PROJECTS[m + 1], status).await, 200);
            }
        }
        let change = json!([{"replace": "/visibility", "value": visibility}]);
        let v20 = (
            "Content-Type",
            "application/openstack-images-v2.0-json-patch",
        );
        let target = format!("/v2/images/{id}");
        let change = Some(change.to_string().into_bytes());
        let reply = h.send(ADMIN, "PATCH", &target, &[v20], change).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        ids.push(id);
    }
    for (viewer, token) in PEOPLE.into_iter().enumerate() {
        for (spec, id) in specs.iter().zip(&ids) {
            let seen = if may_see(spec, viewer) { 200 } else { 404 };
            for target in ["", "/tasks", "/members", "/file", "/members/nobody"] {
                let reply = h.get(token, &format!("/v2/images/{id}{target}")).await;
                let status = reply.status.as_u16();
                if target.is_empty() || seen == 404 {
                    assert_eq!(status, seen, "{spec:?} {target} by {viewer}");
                }
            }
            for (method, target) in [("DELETE", ""), ("PUT", "/tags/t"), ("PUT", "/file")] {
                if spec.0 == viewer {
                    continue;
                }
                let target = format!("/v2/images/{id}{target}");
                let octets = [("Content-Type", "application/octet-stream")];
                let reply = h.send(token, method, &target, &octets, None).await;
                let refused = if seen == 200 { 403 } else { 404 };
                assert_eq!(reply.status, refused, "{method} {target} {spec:?}");
            }
        }
        for visibility in ["", "all", "public", "private", "community", "shared"] {
            for member_status in ["", "all", "pending", "accepted", "rejected"] {
                let want: Vec<_> = (0..specs.len())
                    .filter(|n| may_list(&specs[*n], viewer, visibility, member_status))
                    .map(|n| n.to_string())
                    .collect();
                let mut query = format!("visibility={visibility}&member_status={member_status}");
                query = query.replace("visibility=&", "");
                query = query.trim_end_matches("member_status=").to_owned();
                let got = listed(&h, token, &query).await;
                assert_eq!(got, want, "{specs:?} by {viewer}: {query}");
            }
        }
    }
}
