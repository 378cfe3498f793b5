//! For operators and machines: health, metrics, the description of the API.

use axum::response::IntoResponse as _;

use schemars::JsonSchema;
use serde::Serialize;

use crate::problem::{Code, Problem};
use crate::reply::{Raw, Reply};
use crate::route::Call;
use crate::{docs, openapi};

/// The process is up.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Health {
    /// `ok`.
    status: &'static str,
    /// The server's version.
    version: &'static str,
}

pub(crate) async fn healthz(_: Call) -> Result<Reply<Health>, Problem> {
    Ok(Reply::new(Health {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
    }))
}

/// Ready means: the node takes traffic and its store answers.
pub(crate) async fn readyz(call: Call) -> Result<Reply<Health>, Problem> {
    if !call.api.is_ready() {
        return Err(Problem::new(Code::Unavailable, "the node starts or stops")
            .retry_after(std::time::Duration::from_secs(1)));
    }
    call.api.registry().apps(None, 1).await?;
    Ok(Reply::new(Health {
        status: "ready",
        version: env!("CARGO_PKG_VERSION"),
    }))
}

pub(crate) async fn metrics(call: Call) -> Result<Raw, Problem> {
    Ok(Raw::text(
        "text/plain; version=0.0.4",
        call.api.ports().metrics.render(),
    ))
}

pub(crate) async fn openapi(_: Call) -> Result<Raw, Problem> {
    Ok(Raw::text("application/json", openapi::text()))
}

pub(crate) async fn docs(_: Call) -> Result<Raw, Problem> {
    let mut raw = Raw::text("text/html; charset=utf-8", docs::page());
    raw.0.headers_mut().insert(
        http::header::CONTENT_SECURITY_POLICY,
        http::HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
    );
    Ok(Raw(raw.0.into_response()))
}
