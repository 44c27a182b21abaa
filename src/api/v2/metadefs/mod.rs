//! `/v2/metadefs/…`: metadata definitions. Everyone may look at what is public or their project's;
//! administrators change it. What is protected is not deleted, nor is anything in it.

pub(in crate::api) mod associations;
pub(in crate::api) mod namespaces;
pub(in crate::api) mod objects;
pub(in crate::api) mod properties;
pub(in crate::api) mod tags;

use axum::http::StatusCode;
use axum::response::Response;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{empty, not_found};
use crate::api::error::Failure;
use crate::api::schema;
use crate::auth::Context;
use crate::auth::policy::{self, Owned, Verdict};
use crate::catalog::metadefs::{Found, NamespaceId, namespaces as rows};
use crate::catalog::{self, Tx};
use crate::service::Service;

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

/// The namespace, if the rule lets the caller do what they mean to do in it.
async fn allowed(tx: &mut Tx, ctx: &Context, name: &str, rule: Rule) -> Result<Found, Failure> {
    let found = namespace(tx, ctx, name).await?;
    rule(ctx, Owned::namespace(&found.namespace))?;
    Ok(found)
}

/// The same, and 403 where the namespace is protected: `what` in it is to be deleted.
async fn deletable(
    tx: &mut Tx,
    ctx: &Context,
    name: &str,
    rule: Rule,
    what: &str,
) -> Result<Found, Failure> {
    let found = allowed(tx, ctx, name, rule).await?;
    if found.namespace.protected {
        return Err(Failure::new(
            StatusCode::FORBIDDEN,
            format!("Namespace {name} is protected: {what} cannot be deleted."),
        ));
    }
    Ok(found)
}

/// Begins to look at something in a namespace: a transaction, and the namespace's id.
async fn reading(
    svc: &Service,
    ctx: &Context,
    namespace: &str,
    rule: Rule,
) -> Result<(Tx, NamespaceId), Failure> {
    let mut tx = svc.catalog.read().await?;
    let found = allowed(&mut tx, ctx, namespace, rule).await?;
    Ok((tx, found.id))
}

/// Begins to change something in a namespace.
async fn writing(
    svc: &Service,
    ctx: &Context,
    namespace: &str,
    rule: Rule,
) -> Result<(Tx, NamespaceId), Failure> {
    let mut tx = svc.catalog.write().await?;
    let found = allowed(&mut tx, ctx, namespace, rule).await?;
    Ok((tx, found.id))
}

/// Begins to delete `what` in a namespace.
async fn deleting(
    svc: &Service,
    ctx: &Context,
    namespace: &str,
    rule: Rule,
    what: &str,
) -> Result<(Tx, Found), Failure> {
    let mut tx = svc.catalog.write().await?;
    let found = deletable(&mut tx, ctx, namespace, rule, what).await?;
    Ok((tx, found))
}

/// Answers that something is deleted.
async fn deleted(tx: Tx) -> Result<Response, Failure> {
    tx.commit().await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// A kind of thing in a namespace, by the word of the reference's sentences.
struct Kind(&'static str);

impl Kind {
    /// 404.
    fn missing(&self, namespace: &str, name: &str) -> Failure {
        let Self(kind) = self;
        not_found(format!(
            "No metadata definition {kind} with name={name} was found in namespace={namespace}."
        ))
    }

    /// 409.
    fn exists(&self, namespace: &str, name: &str) -> String {
        let Self(kind) = self;
        format!(
            "A metadata definition {kind} with name={name} already exists in \
             namespace={namespace}."
        )
    }
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
