//! glint: an image service that ingests, checks, converts and serves disk images.

pub mod api;
pub mod appliance;
pub mod auth;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod convert;
pub mod derive;
pub mod domain;
pub mod fetch;
mod folder;
pub mod glance;
pub mod ingest;
pub mod jobs;
pub mod metadefs;
pub mod notify;
pub mod quota;
pub mod server;
pub mod service;
pub mod stores;
pub mod telemetry;
