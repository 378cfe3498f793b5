//! The control interface over HTTP (design, section 5.4) and the page for people.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::channel::Channel;
use crate::error::SandboxError;
use crate::faults::Fault;
use crate::limits;
use crate::phone::{NewPhone, PatchPhone, TrayEntry};
use crate::receipts::ReceiptAddress;
use crate::requests::Record;
use crate::sandbox::{Handle, stopped};
use crate::tokens::TokenState;

const PAGE: &str = include_str!("page.html");
/// Where the page takes its first picture.
const PAGE_PICTURE: &str = "/* what the server knows now */ null";
/// The page brings everything with it and talks to its own server only.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
     script-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'";
/// Tray entries per phone that the page gets.
const PAGE_TRAY: usize = 12;
/// Least time between two pictures for one page.
const PAGE_PAUSE: Duration = Duration::from_millis(120);

pub(crate) async fn run(listener: TcpListener, handle: Handle, mut stop: watch::Receiver<bool>) {
    let app = router(handle, stop.clone());
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
        let () = stopped(&mut stop).await;
    });
    if let Err(error) = serving.await {
        tracing::warn!(%error, "the sandbox's control interface ended");
    }
}

fn router(handle: Handle, stop: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/phones") }))
        .route("/healthz", get(|| async { "ok" }))
        .route("/accounts", get(accounts))
        .route(
            "/ca.pem",
            get(|State(handle): State<Handle>| async move { handle.ca_pem().to_owned() }),
        )
        .route("/attach", post(attach))
        .route("/clock", post(clock))
        .route("/phones", get(phones).post(add_phone))
        .route(
            "/phones/events",
            get(move |state: State<Handle>| async move { events(state, stop.clone()) }),
        )
        .route(
            "/phones/{id}",
            get(phone).patch(patch_phone).delete(remove_phone),
        )
        .route("/phones/{id}/tokens", get(phone_tokens))
        .route("/phones/{id}/tray", get(tray).delete(clear_tray))
        .route("/phones/{id}/tray/{n}/click", post(click))
        .route("/vendors", get(vendors))
        .route("/vendors/limits", put(set_limits))
        .route(
            "/vendors/{channel}/requests",
            get(requests).delete(clear_requests),
        )
        .route(
            "/vendors/{channel}/faults",
            get(faults).post(inject).delete(clear_faults),
        )
        .route("/vendors/{channel}/credential", get(credential))
        .route("/vendors/{channel}/tokens", post(issue_tokens))
        .route("/vendors/{channel}/tokens/{token}", put(set_token))
        .route(
            "/vendors/{channel}/receipts",
            put(set_receipts).delete(clear_receipts),
        )
        .route("/vendors/xiaomi/quotas/{id}", put(set_quota))
        .route("/vendors/xiaomi/rules", put(set_rules))
        .route("/vendors/{channel}/rules", put(set_vendor_rules))
        .fallback(|| async {
            Problem(
                StatusCode::NOT_FOUND,
                "no such path; see /phones".to_owned(),
            )
        })
        .method_not_allowed_fallback(|| async {
            Problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path does not take this method; Allow says which it takes".to_owned(),
            )
        })
        .layer(DefaultBodyLimit::max(limits::CONTROL_BODY_BYTES_MAX))
        .with_state(handle)
}

/// An error answer, RFC 9457.
struct Problem(StatusCode, String);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.0.canonical_reason().unwrap_or("Error");
        let body = json!({"status": self.0.as_u16(), "title": title, "detail": self.1});
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        (self.0, kind, body.to_string()).into_response()
    }
}

impl From<SandboxError> for Problem {
    fn from(error: SandboxError) -> Self {
        let status = match &error {
            SandboxError::NoPhone(_) | SandboxError::NoTrayEntry { .. } => StatusCode::NOT_FOUND,
            SandboxError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            SandboxError::Full { .. } => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

type Answer<T> = Result<T, Problem>;
type Body<T> = Result<Json<T>, JsonRejection>;

fn channel(name: &str) -> Answer<Channel> {
    name.parse()
        .map_err(|error: crate::channel::UnknownChannel| {
            Problem(StatusCode::NOT_FOUND, error.to_string())
        })
}

async fn accounts(State(handle): State<Handle>) -> Json<Value> {
    let mut body = serde_json::to_value(handle.accounts()).unwrap_or_default();
    body["endpoint"] = json!(handle.vendors_url());
    body["ca_pem"] = json!(handle.ca_pem());
    Json(body)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attach {
    api: String,
    client_key: String,
}

async fn attach(State(handle): State<Handle>, body: Body<Attach>) -> Answer<StatusCode> {
    let Json(body) = body?;
    handle
        .attach(&body.api, &body.client_key)
        .map_err(|error| Problem(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_s: u32,
}

async fn clock(State(handle): State<Handle>, body: Body<Advance>) -> Answer<StatusCode> {
    let Json(body) = body?;
    handle.advance(Duration::from_secs(u64::from(body.advance_s)));
    Ok(StatusCode::NO_CONTENT)
}

/// A page for people; JSON for programs that ask for it.
async fn phones(State(handle): State<Handle>, headers: HeaderMap) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|it| it.to_str().ok())
        .unwrap_or_default();
    let vary = [
        (header::VARY, "Accept"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
    ];
    if wants_page(accept) {
        // The page comes with its first picture, so that nobody looks at an empty one.
        let now = picture(&handle).to_string().replace('<', "\\u003c");
        (vary, Html(PAGE.replacen(PAGE_PICTURE, &now, 1))).into_response()
    } else {
        (vary, Json(handle.phones())).into_response()
    }
}

/// Whoever names JSON gets it, unless HTML is named before.
fn wants_page(accept: &str) -> bool {
    match (accept.find("text/html"), accept.find("application/json")) {
        (_, None) => true,
        (html, Some(json)) => html.is_some_and(|html| html < json),
    }
}

async fn add_phone(
    State(handle): State<Handle>,
    body: Body<NewPhone>,
) -> Answer<(StatusCode, Json<Value>)> {
    let Json(body) = body?;
    let phone = handle.add_phone(body).await?;
    Ok((StatusCode::CREATED, Json(json!(phone))))
}

async fn phone(State(handle): State<Handle>, Path(id): Path<String>) -> Answer<Json<Value>> {
    Ok(Json(json!(handle.phone(&id)?)))
}

async fn patch_phone(
    State(handle): State<Handle>,
    Path(id): Path<String>,
    body: Body<PatchPhone>,
) -> Answer<Json<Value>> {
    let Json(body) = body?;
    Ok(Json(json!(handle.patch_phone(&id, body).await?)))
}

async fn remove_phone(State(handle): State<Handle>, Path(id): Path<String>) -> Answer<StatusCode> {
    handle.remove_phone(&id)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn phone_tokens(State(handle): State<Handle>, Path(id): Path<String>) -> Answer<Json<Value>> {
    Ok(Json(json!(handle.phone_tokens(&id)?)))
}

async fn tray(
    State(handle): State<Handle>,
    Path(id): Path<String>,
) -> Answer<Json<Vec<TrayEntry>>> {
    Ok(Json(handle.tray(&id)?))
}

async fn clear_tray(State(handle): State<Handle>, Path(id): Path<String>) -> Answer<StatusCode> {
    handle.clear_tray(&id)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn click(
    State(handle): State<Handle>,
    place: Result<Path<(String, u64)>, PathRejection>,
) -> Answer<Json<TrayEntry>> {
    let Path((id, n)) = place?;
    Ok(Json(handle.click(&id, n).await?))
}

async fn vendors(State(handle): State<Handle>) -> Json<Value> {
    Json(Value::Array(
        Channel::ALL
            .into_iter()
            .map(|channel| summary(&handle, channel))
            .collect(),
    ))
}

fn summary(handle: &Handle, channel: Channel) -> Value {
    json!({"channel": channel, "endpoint": handle.vendors_url(), "faults": handle.faults(channel)})
}

#[derive(Deserialize)]
struct Newer {
    /// Leaves out requests up to this number.
    #[serde(default)]
    after: u64,
}

async fn requests(
    State(handle): State<Handle>,
    Path(name): Path<String>,
    newer: Result<Query<Newer>, QueryRejection>,
) -> Answer<Json<Vec<Record>>> {
    let Query(newer) =
        newer.map_err(|rejection| Problem(rejection.status(), rejection.body_text()))?;
    Ok(Json(handle.requests_after(channel(&name)?, newer.after)))
}

async fn clear_requests(
    State(handle): State<Handle>,
    Path(name): Path<String>,
) -> Answer<StatusCode> {
    handle.clear_requests(channel(&name)?);
    Ok(StatusCode::NO_CONTENT)
}

async fn faults(
    State(handle): State<Handle>,
    Path(name): Path<String>,
) -> Answer<Json<Vec<Fault>>> {
    Ok(Json(handle.faults(channel(&name)?)))
}

async fn inject(
    State(handle): State<Handle>,
    Path(name): Path<String>,
    body: Body<Fault>,
) -> Answer<(StatusCode, Json<Fault>)> {
    let channel = channel(&name)?;
    let Json(fault) = body?;
    handle.inject(channel, fault.clone())?;
    Ok((StatusCode::CREATED, Json(fault)))
}

async fn clear_faults(
    State(handle): State<Handle>,
    Path(name): Path<String>,
) -> Answer<StatusCode> {
    handle.clear_faults(channel(&name)?);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IssueTokens {
    #[serde(default = "one")]
    count: usize,
    #[serde(default)]
    state: StateName,
}

const fn one() -> usize {
    1
}

/// A token state without its time, which is now.
#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum StateName {
    #[default]
    Valid,
    Dead,
    OtherEnvironment,
    OtherApp,
    Expired,
}

impl StateName {
    fn now(self) -> TokenState {
        let since_ms = crate::clock::Clock::default().now_ms();
        match self {
            Self::Valid => TokenState::Valid,
            Self::Dead => TokenState::Dead { since_ms },
            Self::OtherEnvironment => TokenState::OtherEnvironment,
            Self::OtherApp => TokenState::OtherApp,
            Self::Expired => TokenState::Expired { since_ms },
        }
    }
}

async fn issue_tokens(
    State(handle): State<Handle>,
    Path(name): Path<String>,
    body: Body<IssueTokens>,
) -> Answer<(StatusCode, Json<Value>)> {
    let channel = channel(&name)?;
    let Json(body) = body?;
    let tokens = handle.issue_tokens(channel, body.count, body.state.now())?;
    Ok((StatusCode::CREATED, Json(json!({"tokens": tokens}))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetToken {
    state: StateName,
}

async fn set_token(
    State(handle): State<Handle>,
    Path((name, token)): Path<(String, String)>,
    body: Body<SetToken>,
) -> Answer<StatusCode> {
    let Json(body) = body?;
    handle.set_token_state(channel(&name)?, &token, body.state.now())?;
    Ok(StatusCode::NO_CONTENT)
}

async fn set_receipts(
    State(handle): State<Handle>,
    Path(name): Path<String>,
    body: Body<ReceiptAddress>,
) -> Answer<StatusCode> {
    let Json(body) = body?;
    handle.set_receipts(channel(&name)?, Some(body));
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_receipts(
    State(handle): State<Handle>,
    Path(name): Path<String>,
) -> Answer<StatusCode> {
    handle.set_receipts(channel(&name)?, None);
    Ok(StatusCode::NO_CONTENT)
}

/// The credential for hongyan, as a person would copy it from the vendor's console.
async fn credential(State(handle): State<Handle>, Path(name): Path<String>) -> Answer<Json<Value>> {
    let channel = channel(&name)?;
    let config = handle.credential(channel).ok_or_else(|| {
        SandboxError::Invalid(format!(
            "{channel} is reached through its providers' credentials"
        ))
    })?;
    let (of, as_name) = handle.credential_place(channel).unwrap_or_default();
    Ok(Json(
        json!({"channel": of, "name": as_name, "config": config, "endpoint": handle.vendors_url()}),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Quota {
    per_day: Option<u64>,
}

async fn set_quota(
    State(handle): State<Handle>,
    Path(id): Path<String>,
    body: Body<Quota>,
) -> Answer<StatusCode> {
    let Json(body) = body?;
    handle.set_xiaomi_quota(&id, body.per_day);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    #[serde(default)]
    channel_required: bool,
    #[serde(default)]
    template_required: bool,
}

async fn set_rules(State(handle): State<Handle>, body: Body<Rules>) -> Answer<StatusCode> {
    let Json(body) = body?;
    handle.set_xiaomi_rules(body.channel_required, body.template_required);
    Ok(StatusCode::NO_CONTENT)
}

async fn set_vendor_rules(
    State(handle): State<Handle>,
    Path(name): Path<String>,
    body: Body<Value>,
) -> Answer<StatusCode> {
    let Json(rules) = body?;
    handle.set_rules(channel(&name)?, &rules)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    per_device: bool,
}

async fn set_limits(State(handle): State<Handle>, body: Body<Limits>) -> Answer<StatusCode> {
    let Json(body) = body?;
    handle.set_device_limits(body.per_device);
    Ok(StatusCode::NO_CONTENT)
}

/// Pictures of all phones, one at once and one after each burst of changes.
fn events(
    State(handle): State<Handle>,
    stop: watch::Receiver<bool>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = handle.watch_phones();
    let pictures = stream::unfold(
        (handle, changes, stop, true),
        |(handle, mut changes, mut stop, first)| async move {
            if !first {
                tokio::select! {
                    changed = changes.changed() => changed.ok()?,
                    () = stopped(&mut stop) => return None,
                }
                tokio::time::sleep(PAGE_PAUSE).await;
            }
            changes.borrow_and_update();
            let event = Event::default()
                .event("phones")
                .data(picture(&handle).to_string());
            Some((Ok(event), (handle, changes, stop, false)))
        },
    );
    Sse::new(pictures).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

fn picture(handle: &Handle) -> Value {
    let phones: Vec<Value> = handle
        .phones()
        .into_iter()
        .map(|phone| {
            let tray = handle.tray(&phone.id).unwrap_or_default();
            let from = tray.len().saturating_sub(PAGE_TRAY);
            let mut view = json!(phone);
            view["tray"] = json!(tray.get(from..).unwrap_or_default());
            view
        })
        .collect();
    let vendors: Vec<Value> = Channel::ALL
        .into_iter()
        .map(|channel| summary(handle, channel))
        .collect();
    json!({"phones": phones, "vendors": vendors})
}
