//! Confinement of our own process, before a byte of an image is looked at.
//!
//! Two fences of the kernel's, each good for what the other cannot do:
//!
//! | fence | what it leaves |
//! | --- | --- |
//! | Landlock | the names granted, and no TCP, no signals or abstract sockets outside |
//! | seccomp | the system calls of reading, copying and computing ([`calls`]); no sockets, no `exec` |
//!
//! What is open already stays open. There is no way back, and threads inherit both: so this comes
//! before the first thread. A kernel that lacks one of them still gives the other; what is
//! missing is told to the caller, who says it aloud.

mod calls;

use std::fmt;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};

/// Whether to confine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Wholly, or not go on.
    On,
    /// As far as the kernel can, and say what is missing.
    #[default]
    Auto,
    /// Not at all.
    Off,
}

/// What the confined may still do by name.
#[derive(Clone, Default, Debug)]
pub struct Grants<'a> {
    /// Files to open for reading. What is not there is left out, here and below.
    pub files: Vec<&'a Path>,
    /// Folders with all that is in them, likewise.
    pub folders: Vec<&'a Path>,
    /// The folder to make, read, write and remove files in.
    pub write: Option<&'a Path>,
}

/// A fence that could not be put up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missing {
    fence: &'static str,
    reason: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no {} ({})", self.fence, self.reason)
    }
}

/// Confines this process for good, as `policy` says; to be called before there are other
/// threads. Answers what is missing, as one sentence, where that is to be said.
///
/// # Errors
/// What is missing, where `policy` is to go on with nothing missing only.
pub fn confine(policy: Policy, grants: &Grants<'_>) -> Result<Option<String>, String> {
    if policy == Policy::Off {
        return Ok(None);
    }
    let missing: Vec<_> = put_up(grants).iter().map(ToString::to_string).collect();
    match (policy, missing.is_empty()) {
        (_, true) => Ok(None),
        (Policy::On, _) => Err(missing.join(", ")),
        _ => Ok(Some(missing.join(", "))),
    }
}

/// Puts up both fences as far as the kernel can; answers those that are missing.
fn put_up(grants: &Grants<'_>) -> Vec<Missing> {
    let missing =
        |fence, outcome: Result<(), String>| outcome.err().map(|reason| Missing { fence, reason });
    // In this order: seccomp leaves no way to the calls of Landlock.
    let landlock = missing("Landlock", restrict(grants));
    let seccomp = missing("seccomp", calls::filter(grants));
    landlock.into_iter().chain(seccomp).collect()
}

/// What we ask about ourselves: how many processors may be used, and which signals are ignored.
const OURSELVES: [&str; 3] = ["/proc/self/cgroup", "/sys/fs/cgroup", "/proc/self/status"];

fn restrict(grants: &Grants<'_>) -> Result<(), String> {
    let status = ruleset(grants).map_err(|e| e.to_string())?;
    // Older kernels know less of it, and what they do not know seccomp keeps out.
    match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced, _) => Ok(()),
        (_, LandlockStatus::NotEnabled) => Err("switched off in this kernel".into()),
        _ => Err("not in this kernel".into()),
    }
}

fn ruleset(grants: &Grants<'_>) -> Result<landlock::RestrictionStatus, RulesetError> {
    let read = AccessFs::ReadFile;
    // A vdi names its parent by UUID: it is looked for.
    let listed = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::ReadFile
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::RemoveFile;
    let ourselves = OURSELVES.iter().map(Path::new);
    // A folder where a file was meant: found to be one, and nothing in it.
    let (mistaken, files): (Vec<_>, Vec<_>) =
        grants.files.iter().copied().partition(|path| path.is_dir());
    Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::from_all(ABI::V5))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .add_rules(path_beneath_rules(ourselves, read))?
        .add_rules(path_beneath_rules(files, read))?
        .add_rules(path_beneath_rules(mistaken, AccessFs::ReadDir))?
        .add_rules(path_beneath_rules(&grants.folders, listed))?
        .add_rules(path_beneath_rules(grants.write, write))?
        .restrict_self()
}

/// Seconds between the signal that says that the time is over and the one that ends it.
const CPU_GRACE: u64 = 5;

/// Bounds of the kernel's on what this process may use; it cannot lift them again.
#[derive(Clone, Copy, Default, Debug)]
pub struct Bounds {
    /// Bytes of address space.
    pub address_space: Option<u64>,
    /// Bytes of private memory that can be written to.
    pub data: Option<u64>,
    /// Bytes of a file it writes.
    pub file_size: Option<u64>,
    /// Seconds of processor time.
    pub cpu_seconds: Option<u64>,
    /// Files open at once.
    pub open_files: Option<u64>,
}

impl Bounds {
    /// Takes them upon this process. There is no core dump either: it would hold the disk.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take(&self) -> std::io::Result<()> {
        for (resource, bound) in [
            (Resource::As, self.address_space),
            (Resource::Data, self.data),
            (Resource::Fsize, self.file_size),
            (Resource::Cpu, self.cpu_seconds),
            (Resource::Nofile, self.open_files),
            (Resource::Core, Some(0)),
        ] {
            let Some(bound) = bound else { continue };
            // At the harder bound of time the kernel kills without saying why.
            let hard = match resource {
                Resource::Cpu => bound.saturating_add(CPU_GRACE),
                _ => bound,
            };
            // Who is bounded already stays so.
            let least = |old: Option<u64>, new| Some(old.map_or(new, |old| old.min(new)));
            let old = rustix::process::getrlimit(resource);
            let new = Rlimit {
                current: least(old.current, bound),
                maximum: least(old.maximum, hard),
            };
            rustix::process::setrlimit(resource, new)?;
        }
        Ok(())
    }
}
