//! `[batches]`

use std::path::PathBuf;

use serde::Deserialize;

/// Many images asked for at once.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Batches {
    /// Items of a batch at most.
    pub items: usize,
    /// Batches of a project that have not ended, at most.
    pub open: u64,
    /// Items of a batch worked on at once, where it does not say.
    pub concurrency: u32,
    /// Folders whose files batches may name, for callers whom the rule `add_batch_files` allows; on
    /// every machine that does jobs, where staging is shared.
    pub source_dirs: Vec<PathBuf>,
}

impl Default for Batches {
    fn default() -> Self {
        Self {
            items: 1000,
            open: 10,
            concurrency: 4,
            source_dirs: Vec::new(),
        }
    }
}

/// Items that `[batches] items` may allow: all of a batch is accepted in one transaction.
const MOST: usize = 10_000;

impl Batches {
    pub(super) fn validate(&self, faults: &mut Vec<String>) {
        if self.items > MOST {
            faults.push(format!(
                "batches.items is {}, allowed 0 to {MOST}",
                self.items
            ));
        }
        if self.concurrency == 0 {
            faults.push("batches.concurrency is 0, allowed 1 and above".into());
        }
        for dir in &self.source_dirs {
            if !dir.is_absolute() {
                let shown = dir.display();
                faults.push(format!("batches.source_dirs: {shown} is not absolute"));
            }
        }
    }
}
