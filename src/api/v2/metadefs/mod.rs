//! `/v2/metadefs/…`: metadata definitions. Everyone may look at what is public or their project's;
//! administrators change it. What is protected is not deleted, nor is anything in it.

pub(in crate::api) mod associations;
pub(in crate::api) mod namespaces;
pub(in crate::api) mod objects;
pub(in crate::api) mod properties;
pub(in crate::api) mod tags;

use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::not_found;
use crate::api::error::Failure;
use crate::api::schema;
use crate::auth::Context;
use crate::auth::policy::{self, Owned, Verdict};
use crate::catalog::metadefs::{Found, namespaces as rows};
use crate::catalog::{self, Tx};

/// A rule about a namespace.
type Rule = fn(&Context, Owned<'_>) -> Verdict;

/// The namespace, if the caller may know of it, or 404.
async fn namespace(tx: &mut Tx, ctx: &Context, name: &str) -> Result<Found, Failure> {
    visible(tx, ctx, name).await?.ok_or_else(|| {
        not_found(format!(
            "Metadata definition namespace={name} was not found."
        ))
    })
}

async fn visible(tx: &mut Tx, ctx: &Context, name: &str) -> Result<Option<Found>, Failure> {
    let found = rows::find(tx, name).await?;
    Ok(found.filter(|f| policy::metadef_visible(ctx, &f.namespace)))
}

/// The namespace, to look at it or at something in it.
async fn readable(tx: &mut Tx, ctx: &Context, name: &str, rule: Rule) -> Result<Found, Failure> {
    let found = namespace(tx, ctx, name).await?;
    rule(ctx, Owned::namespace(&found.namespace))?;
    Ok(found)
}

/// The namespace, to change something in it.
async fn writable(tx: &mut Tx, ctx: &Context, name: &str, rule: Rule) -> Result<Found, Failure> {
    let found = namespace(tx, ctx, name).await?;
    rule(ctx, Owned::namespace(&found.namespace))?;
    Ok(found)
}

/// The namespace, to delete something in it: `what` says what.
async fn deletable(
    tx: &mut Tx,
    ctx: &Context,
    name: &str,
    rule: Rule,
    what: impl FnOnce() -> String,
) -> Result<Found, Failure> {
    let found = writable(tx, ctx, name, rule).await?;
    if found.namespace.protected {
        return Err(Failure::new(
            StatusCode::FORBIDDEN,
            format!(
                "Namespace {name} is protected: {} cannot be deleted.",
                what()
            ),
        ));
    }
    Ok(found)
}

/// A body, held against the rules and the schema.
fn object(body: Value, read_only: &[&str], schema: &Value) -> Result<Map<String, Value>, Failure> {
    let Value::Object(body) = body else {
        return Err(Failure::bad("Request body must be a JSON object."));
    };
    if let Some(key) = read_only.iter().find(|key| body.contains_key(**key)) {
        return Err(Failure::new(
            StatusCode::FORBIDDEN,
            format!("Attribute '{key}' is read-only."),
        ));
    }
    schema::validate(schema, &body).map_err(Failure::bad)?;
    Ok(body)
}

/// The same, as a type of ours.
fn parse<T: DeserializeOwned>(
    body: Value,
    read_only: &[&str],
    schema: &Value,
) -> Result<T, Failure> {
    let body = object(body, read_only, schema)?;
    serde_json::from_value(body.into()).map_err(|e| Failure::bad(e.to_string()))
}

/// 409 with a sentence where there is one of this name already.
fn duplicate(error: catalog::Error, sentence: impl FnOnce() -> String) -> Failure {
    match error {
        catalog::Error::Conflict(_) => Failure::new(StatusCode::CONFLICT, sentence()),
        other => other.into(),
    }
}
