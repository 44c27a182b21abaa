//! What an image *is*: its status and the way it may change, its visibility, its facts. No SQL,
//! no HTTP, no I/O; everyone may use it.

pub mod batch;
pub mod endings;
pub mod expected;
pub mod hash;
pub mod image;
pub mod location;
pub mod member;
pub mod metadef;
pub mod resumable;
pub mod status;
pub mod task;
pub mod timestamp;

pub use expected::{Expected, Measured};
pub use hash::{HashAlgo, Hashes};
pub use image::{FormatsUnset, Image, ImageId, Visibility};
pub use location::{Location, LocationState};
pub use member::{Member, MemberStatus};
pub use resumable::{Part, Resumable};
pub use status::{Event, Illegal, Status};
pub use task::{Task, TaskStatus};
pub use timestamp::Timestamp;
