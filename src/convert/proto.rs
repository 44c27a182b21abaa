//! What service and worker say to each other. The worker's standard input is the source file, its
//! standard output the file to write, its standard error carries [`Line`]s. It is handed no names.

use serde::{Deserialize, Serialize};

use super::sandbox::Policy;

/// What to do, as the worker's one argument.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Whether to write what a compressed file holds as it is, and convert nothing.
    #[serde(default)]
    pub unpack: bool,
    /// Format to read; `None` for an archive.
    pub input: Option<String>,
    /// Member of the archive to read.
    pub disk: Option<String>,
    /// Format to write.
    pub output: String,
    /// Its options.
    pub options: Vec<(String, String)>,
    /// Whether it is compressed.
    pub compress: bool,
    /// Whether it is written in order, since the output may be a pipe, and without how many of
    /// its first bytes.
    #[serde(default)]
    pub in_order: Option<u64>,
    /// Whether the archive was judged already, and nothing but the one disk is looked at.
    #[serde(default)]
    pub is_judged: bool,
    /// Bytes its guest must see, where that is known.
    #[serde(default)]
    pub virtual_size: Option<u64>,
    /// Whether it confines itself.
    pub sandbox: Policy,
    /// Bytes of address space allowed.
    pub memory: u64,
    /// Seconds of processor time allowed.
    pub cpu_seconds: u64,
    /// Bytes of the largest virtual disk accepted.
    pub max_virtual_size: u64,
    /// Bytes a decompressed wrapper may have.
    pub max_inflated: u64,
    /// Bytes the output may have.
    pub max_output: u64,
}

/// How far a worker is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Bytes of the input gone through: those its guest sees, or those of the file that is unpacked.
    pub done: u64,
    /// Those to go through.
    pub total: u64,
    /// Bytes at the beginning of the output that stay as they are: 0 where the beginning is written
    /// last.
    pub settled: u64,
}

/// A line of the worker's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// It goes on without these fences.
    Unfenced(String),
    /// How far it is.
    Progress(Step),
    /// It is done, not yet durable.
    Done {
        /// Bytes the guest sees.
        virtual_size: u64,
    },
    /// The image is at fault.
    Image(String),
    /// We are.
    Ours(String),
}
