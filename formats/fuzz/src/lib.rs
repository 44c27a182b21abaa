//! The fuzz targets. What they do is in the test suite, whose mutations do the same.
#![allow(dead_code, reason = "the tests use the rest")]

#[path = "../../tests/support/build.rs"]
mod build;
#[path = "../../tests/support/exercise.rs"]
mod exercise;
#[path = "../../tests/support/mend.rs"]
mod mend;
#[path = "../../tests/support/random.rs"]
mod random;
#[path = "../../tests/support/sparse.rs"]
mod sparse;
#[path = "../../tests/support/targets.rs"]
mod targets;

/// Gives `data` to the target of that name.
///
/// # Panics
/// When there is no such target, and when something does not hold.
pub fn run(name: &str, data: &[u8]) {
    let target = targets::ALL.iter().find(|(known, _)| *known == name);
    target.expect("a target").1(data);
}
