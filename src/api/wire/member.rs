//! Members.

use serde::Serialize;

use crate::domain::{ImageId, Member};

/// A member of an image.
#[derive(Serialize)]
pub(in crate::api) struct MemberView<'a> {
    member_id: &'a str,
    image_id: &'a str,
    status: &'static str,
    created_at: String,
    updated_at: String,
    schema: &'static str,
}

impl<'a> MemberView<'a> {
    pub(in crate::api) fn new(image: &'a ImageId, member: &'a Member) -> Self {
        Self {
            member_id: &member.project,
            image_id: image.as_str(),
            status: member.status.name(),
            created_at: member.created_at.to_string(),
            updated_at: member.updated_at.to_string(),
            schema: "/v2/schemas/member",
        }
    }
}

/// All of them.
#[derive(Serialize)]
pub(in crate::api) struct MemberList<'a> {
    pub(in crate::api) members: Vec<MemberView<'a>>,
    pub(in crate::api) schema: &'static str,
}
