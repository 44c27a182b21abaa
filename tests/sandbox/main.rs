//! The sandbox: what the confined can no longer do, what a kernel without it means, and that
//! every way to convert works inside.
//!
//! Nothing of a kernel is imitated: where one is to lack a fence, a seccomp filter lets its calls
//! fail as that kernel would.

mod cli;
mod fences;
mod lacking;
