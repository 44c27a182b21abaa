//! What a list of images is asked for, without any SQL in it.

use crate::domain::{Image, MemberStatus, Task, TaskStatus, Timestamp, Visibility};

/// A question for a page of images.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Who asks: nothing invisible to them is ever listed.
    pub viewer: Viewer,
    /// Which visibilities.
    pub visibility: VisibilityFilter,
    /// Which images shared with the viewer count as theirs to list.
    pub members: MemberFilter,
    /// `os_hidden`: hidden images alone, or the others alone.
    pub hidden: bool,
    /// All of these must hold.
    pub filters: Vec<Filter>,
    /// Sort keys in order; `created_at` and `id` are appended as tie-breakers.
    pub sort: Vec<(SortKey, Direction)>,
    /// The last image of the page before.
    pub marker: Option<Image>,
    /// Images a page holds at most.
    pub limit: u32,
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Viewer {
    /// Their project.
    pub project: Option<String>,
    /// Administrators see everything.
    pub is_admin: bool,
}

/// The `visibility` parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VisibilityFilter {
    /// No parameter: what is the viewer's, public, or shared with them; no community images of
    /// others.
    Default,
    /// `all`: community images of others too.
    All,
    /// One visibility.
    Only(Visibility),
}

/// The `member_status` parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberFilter {
    /// Whatever the viewer says to the membership.
    All,
    /// Memberships of one status.
    Only(MemberStatus),
}

/// A question for a page of tasks.
#[derive(Clone, Debug)]
pub struct TaskQuery {
    /// Of this status alone.
    pub status: Option<TaskStatus>,
    /// Of this kind alone.
    pub kind: Option<String>,
    /// What they are sorted by; the id breaks ties.
    pub sort: (TaskKey, Direction),
    /// The last task of the page before.
    pub marker: Option<Task>,
    /// Tasks a page holds at most.
    pub limit: u32,
}

/// What lists of tasks can be sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]

pub enum TaskKey {
    Id,
    Type,
    Status,
    CreatedAt,
    UpdatedAt,
    ExpiresAt,
}

/// One condition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Filter {
    /// The column equals one of the values.
    In(Column, Vec<String>),
    /// The number equals, or is at least or at most, the value.
    Number(NumberColumn, Op, i64),
    /// The time compares so.
    Time(TimeColumn, Op, Timestamp),
    /// `protected`.
    Protected(bool),
    /// Carries the tag.
    Tag(String),
    /// The custom property has the value.
    Property(String, String),
    /// Nothing matches (a value no image can have).
    Nothing,
}

/// A comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Equal.
    Eq,
    /// Not equal.
    Neq,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
}

/// Text columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]

pub enum Column {
    Id,
    Name,
    Status,
    Owner,
    ContainerFormat,
    DiskFormat,
    Checksum,
    HashAlgo,
    HashValue,
}

/// Number columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]

pub enum NumberColumn {
    Size,
    VirtualSize,
    MinRam,
    MinDisk,
}

/// Time columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]

pub enum TimeColumn {
    CreatedAt,
    UpdatedAt,
}

/// What lists can be sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]

pub enum SortKey {
    Name,
    Status,
    ContainerFormat,
    DiskFormat,
    Size,
    Id,
    CreatedAt,
    UpdatedAt,
}

/// Ascending or descending. NULL comes first ascending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]

pub enum Direction {
    Asc,
    Desc,
}
