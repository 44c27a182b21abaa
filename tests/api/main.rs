//! The image API: the golden samples of the reference replayed, and what they do not show.

mod appliances;
mod batches;
mod derived;
mod forms;
mod house;
mod imports;
mod inputs;
mod members;
mod metadefs;
mod ours;
mod progress;
mod rbac;
mod replay;
mod sample;
mod stories;
#[path = "../support/mod.rs"]
mod support;
mod uploads;
mod web;
