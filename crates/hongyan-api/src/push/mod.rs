//! The sender's side of web push (RFC 8030, RFC 8292) and of UnifiedPush: whoever has the address of an endpoint may post to its
//! device. These addresses are no part of the API: their errors are what push libraries expect.
//!
//! Bodies are opaque: they are never looked into, and neither they nor whole addresses are logged.

mod answer;
mod headers;
mod matrix;
mod vapid;

use std::collections::HashSet;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts as _, RawPathParams, Request};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONNECTION,
    CONTENT_TYPE, HeaderValue, LINK, LOCATION, RETRY_AFTER, UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderMap, Method, StatusCode};

use hongyan_core::port::{Post, PushState, Pushes};
use hongyan_core::push::{PUSH_AESGCM_BYTES_MAX, PUSH_BODY_BYTES_MAX, PushEncoding};
use hongyan_core::{MessageId, PushEndpoint};

use crate::api::{Api, Cache};
use crate::body::collect;
use crate::limiter::{Limiter, Rate};
use crate::options::BUCKETS_MAX;
use crate::problem::{Code, Problem};
use crate::route::{Peer, not_allowed};
use crate::services::From;

use answer::Refusal;
use headers::Form;
pub use matrix::judge as judge_matrix;
pub use vapid::{judge as judge_vapid, key_hash as vapid_key_hash};

/// A declared body above this is refused before any of it is read, bytes.
const REFUSED_UNREAD: usize = 8 * 1024;
/// Headers that were checked and are remembered until their token ends.
const PROVED_MAX: usize = 16_384;
/// Notifications of Matrix that are remembered for each of their devices: some 1 MB.
const HANDED_ON_MAX: usize = 16_384;
/// Longest answer to a question after a receipt, before the sender has to ask again: below what proxies cut at.
const RECEIPT_WAIT: Duration = Duration::from_secs(25);

/// Settings of push endpoints.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// Messages to one endpoint.
    pub endpoint_rate: Rate,
    /// Messages with one VAPID key.
    pub key_rate: Rate,
    /// Requests from one address.
    pub peer_rate: Rate,
    /// Whether `/up/` takes bodies that say nothing of their encryption.
    pub opaque: bool,
    /// Whether homeservers of Matrix may post notifications for UnifiedPush addresses of this server; needs `opaque`.
    pub matrix: bool,
    /// SHA-256 of VAPID keys from which nothing is taken.
    pub barred: HashSet<[u8; 32]>,
    /// Time for a body.
    pub body_timeout: Duration,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self {
            endpoint_rate: Rate {
                per_s: 10,
                burst: 100,
            },
            key_rate: Rate {
                per_s: 500,
                burst: 5_000,
            },
            peer_rate: Rate {
                per_s: 500,
                burst: 5_000,
            },
            opaque: true,
            matrix: true,
            barred: HashSet::new(),
            body_timeout: Duration::from_secs(10),
        }
    }
}

/// What senders are counted and remembered by.
#[derive(Debug)]
pub(crate) struct Desk {
    options: PushOptions,
    pushes: Arc<dyn Pushes>,
    origin: String,
    by_endpoint: Limiter<[u8; 32]>,
    by_key: Limiter<[u8; 32]>,
    by_peer: Limiter<IpAddr>,
    proved: Cache<[u8; 32], [u8; 32]>,
    /// What of Matrix's notifications was handed on, so that a repeat of one is not.
    handed_on: Cache<[u8; 32], ()>,
}

impl Desk {
    pub(crate) fn new(options: PushOptions, pushes: Arc<dyn Pushes>) -> Self {
        Self {
            origin: vapid::origin_of(pushes.root()).unwrap_or_default(),
            pushes,
            by_endpoint: Limiter::new(options.endpoint_rate, BUCKETS_MAX),
            by_key: Limiter::new(options.key_rate, BUCKETS_MAX),
            by_peer: Limiter::new(options.peer_rate, BUCKETS_MAX),
            proved: Cache::new(PROVED_MAX),
            handed_on: Cache::new(HANDED_ON_MAX),
            options,
        }
    }
}

/// A request on its way to its handler.
struct Call {
    api: Api,
    head: Parts,
    body: Body,
    /// The last part of the path.
    last: String,
    peer: SocketAddr,
    upgrade: Option<hyper::upgrade::OnUpgrade>,
}

/// The addresses of senders.
pub(crate) fn router(api: &Api) -> Router {
    let opaque = api.push().options.opaque;
    let endpoint = |form: Form| {
        methods(api, "POST, GET, HEAD, OPTIONS")
            .on(
                MethodFilter::POST,
                handler(api, move |call| post(call, form)),
            )
            .on(MethodFilter::GET, handler(api, check))
    };
    let browsers = || on(MethodFilter::GET, handler(api, autopush)).fallback(refusing("GET, HEAD"));
    let up = Form::UnifiedPush { opaque };
    let matrix = if opaque && api.push().options.matrix {
        Router::new().route(
            "/_matrix/push/v1/notify",
            methods(api, "POST, GET, HEAD, OPTIONS")
                .on(
                    MethodFilter::GET,
                    handler(api, |_| async { Ok(matrix::discovery()) }),
                )
                .on(MethodFilter::POST, handler(api, matrix::notify)),
        )
    } else {
        Router::new()
    };
    matrix
        .route("/wpush/v1/{token}", endpoint(Form::WebPush))
        .route("/wpush/v2/{token}", endpoint(Form::WebPush))
        .route("/up/{token}", endpoint(up))
        .route(
            "/up",
            methods(api, "GET, HEAD, OPTIONS").on(
                MethodFilter::GET,
                handler(api, |_| async { Ok(discovery()) }),
            ),
        )
        .route("/autopush", browsers())
        .route("/autopush/", browsers())
        .route("/autopush/{key}", browsers())
        .route("/autopush/{key}/", browsers())
        .route(
            "/m/{message}",
            methods(api, "DELETE, OPTIONS").on(MethodFilter::DELETE, handler(api, withdraw)),
        )
        .route(
            "/r/{message}",
            methods(api, "GET, HEAD, OPTIONS").on(MethodFilter::GET, handler(api, receipt)),
        )
}

/// Opens a browser's connection, when the gateway serves browsers. Any origin will do: a browser itself connects, not a page.
async fn autopush(call: Call) -> Result<Response, Refusal> {
    let connect = &call.api.ports().connect;
    let (head, path) = (&call.head, call.head.uri.path());
    let accepted = connect.check(
        path,
        &head.method,
        head.version,
        &head.headers,
        &[],
        From {
            peer: call.peer,
            scheme: head.extensions.get().unwrap_or(&Scheme::HTTP),
        },
    );
    let accepted = accepted.map_err(|refused| match refused.status {
        StatusCode::NOT_FOUND => Refusal::unknown(),
        status => Refusal::upgrade(status, refused.detail, refused.headers),
    })?;
    let Some(upgrade) = call.upgrade else {
        return Err(Refusal::unknown());
    };
    crate::upgrade::hand_over(&call.api, upgrade, call.peer, accepted.place);
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.extend(accepted.headers);
    Ok(response)
}

/// What a browser asks before it posts is answered to everybody: the address is the whole secret.
fn methods(api: &Api, allowed: &'static str) -> MethodRouter {
    on(
        MethodFilter::OPTIONS,
        handler(api, move |_| async move {
            let mut response = empty(StatusCode::NO_CONTENT);
            let headers = response.headers_mut();
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
            headers.insert(
                ACCESS_CONTROL_ALLOW_METHODS,
                HeaderValue::from_static("POST, DELETE, GET"),
            );
            headers.insert(
                ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static(
                    "Authorization, Content-Encoding, Content-Type, Crypto-Key, Encryption, Prefer, TTL, Topic, Urgency",
                ),
            );
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
            Ok(response)
        }),
    )
    .fallback(refusing(allowed))
}

/// Answers methods that are not taken as every other address does.
fn refusing(
    allowed: &'static str,
) -> impl Fn(Method) -> std::future::Ready<Problem> + Clone + Send + Sync + 'static {
    move |method| {
        let allow = HeaderValue::from_static(allowed);
        std::future::ready(not_allowed(&method, Some(allow)))
    }
}

type Served = std::pin::Pin<Box<dyn Future<Output = Response> + Send>>;

/// Lets a request in: counts it, reads its path, and keeps a panic to itself.
fn handler<F, Fut>(api: &Api, work: F) -> impl Fn(Request) -> Served + Clone + Send + Sync + 'static
where
    F: Fn(Call) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response, Refusal>> + Send + 'static,
{
    let api = api.clone();
    move |mut request: Request| {
        let (api, work) = (api.clone(), work.clone());
        Box::pin(async move {
            let upgrade = request
                .headers()
                .contains_key(http::header::UPGRADE)
                .then(|| hyper::upgrade::on(&mut request));
            let (mut head, body) = request.into_parts();
            let params = RawPathParams::from_request_parts(&mut head, &()).await;
            let last = params
                .ok()
                .and_then(|all| all.iter().next().map(|(_, value)| value.to_owned()));
            let peer = head.extensions.get::<Peer>();
            let peer = peer.map_or(SocketAddr::from(([0, 0, 0, 0], 0)), |peer| peer.0);
            let call = Call {
                last: last.unwrap_or_default(),
                peer,
                upgrade,
                head,
                body,
                api: api.clone(),
            };
            let answered = AssertUnwindSafe(async {
                let desk = api.push();
                desk.by_peer
                    .take(call.peer.ip(), api.now())
                    .map_err(Refusal::too_many)?;
                work(call).await
            })
            .catch_unwind()
            .await;
            let response = match answered {
                Ok(Ok(response)) => response,
                Ok(Err(refusal)) => refusal.into_response(),
                Err(_) => {
                    tracing::error!("a handler of a push address panicked");
                    metrics::counter!("hongyan_api_panics_total").increment(1);
                    Refusal::internal().into_response()
                }
            };
            finish(response)
        })
    }
}

fn finish(mut response: Response) -> Response {
    metrics::counter!(
        "hongyan_push_requests_total",
        "status" => response.status().as_u16().to_string()
    )
    .increment(1);
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Location, TTL, Retry-After, Link"),
    );
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn discovery() -> Response {
    json(r#"{"unifiedpush":{"version":1}}"#)
}

fn json(text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The endpoint of the path, while it is open.
async fn endpoint(api: &Api, token: &str) -> Result<PushEndpoint, Refusal> {
    match api.push().pushes.find(token).await? {
        Some(endpoint) if endpoint.gone_since.is_none() => Ok(endpoint),
        Some(_) => Err(Refusal::gone()),
        None => Err(Refusal::unknown()),
    }
}

/// Senders check an address with this before they store it.
async fn check(call: Call) -> Result<Response, Refusal> {
    endpoint(&call.api, &call.last).await.map(|_| discovery())
}

/// Who posts, if the sender says so; on a bound endpoint it must be the one that the device named.
fn prove(
    api: &Api,
    headers: &HeaderMap,
    endpoint: &PushEndpoint,
) -> Result<Option<[u8; 32]>, Refusal> {
    let (desk, now) = (api.push(), api.now());
    let Some(hash) = vapid::header_hash(headers) else {
        return match endpoint.vapid {
            None => Ok(None),
            Some(_) => Err(Refusal::unproved(
                "this endpoint is bound to a VAPID key: send Authorization: vapid t=…, k=…",
            )),
        };
    };
    let key = match desk.proved.get(&hash, now) {
        Some(key) => key,
        None => {
            let proved = vapid::read(headers)
                .and_then(|presented| presented.check(&desk.origin, now))
                .map_err(Refusal::unproved)?;
            desk.proved.put(hash, proved.key, proved.until, now);
            proved.key
        }
    };
    if let Some(bound) = &endpoint.vapid
        && !same(bound, &key)
    {
        return Err(Refusal::unproved(
            "this endpoint is bound to another VAPID key",
        ));
    }
    if desk.options.barred.contains(&key) {
        return Err(Refusal::barred());
    }
    Ok(Some(key))
}

/// Compares hashes; takes the same time wherever they differ.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0u8, |all, (a, b)| all | (a ^ b)) == 0
}

async fn post(call: Call, form: Form) -> Result<Response, Refusal> {
    let endpoint = endpoint(&call.api, &call.last).await?;
    let headers = &call.head.headers;
    let ttl_s = headers::ttl(headers, form)?;
    let urgency = headers::urgency(headers)?;
    let topic = headers::topic(headers)?;
    let key = prove(&call.api, headers, &endpoint)?;
    let (desk, now) = (call.api.push(), call.api.now());
    desk.by_endpoint
        .take(endpoint.hash, now)
        .map_err(Refusal::too_many)?;
    if let Some(key) = key {
        desk.by_key.take(key, now).map_err(Refusal::too_many)?;
    }
    let time = desk.options.body_timeout;
    let body = collect(headers, call.body, REFUSED_UNREAD, time).await;
    let body = body.map_err(|problem| match problem.code() {
        Code::PayloadTooLarge => Refusal::too_large(PUSH_BODY_BYTES_MAX),
        Code::RequestTimeout => Refusal::too_slow(),
        _ => Refusal::broken_body(problem.detail()),
    })?;
    let encoding = headers::encoding(headers, form, body.len())?;
    let most = match encoding {
        PushEncoding::Aesgcm { .. } => PUSH_AESGCM_BYTES_MAX,
        PushEncoding::Aes128gcm | PushEncoding::Opaque => PUSH_BODY_BYTES_MAX,
    };
    if body.len() > most {
        return Err(Refusal::too_large(most));
    }
    let wants_receipt = headers::wants_receipt(headers);
    let id = desk
        .pushes
        .post(
            &endpoint,
            Post {
                ttl_s,
                urgency,
                topic,
                encoding,
                body,
            },
        )
        .await?;
    accepted(desk, &endpoint, id, ttl_s, wants_receipt)
}

fn accepted(
    desk: &Desk,
    endpoint: &PushEndpoint,
    id: MessageId,
    ttl_s: u32,
    wants_receipt: bool,
) -> Result<Response, Refusal> {
    let (root, name) = (desk.pushes.root(), resource(&endpoint.hash, id));
    let value = |text: String| HeaderValue::from_str(&text).map_err(|_| Refusal::internal());
    let mut response = empty(if wants_receipt {
        StatusCode::ACCEPTED
    } else {
        StatusCode::CREATED
    });
    let headers = response.headers_mut();
    headers.insert(LOCATION, value(format!("{root}/m/{name}"))?);
    headers.insert("ttl", HeaderValue::from(ttl_s));
    if wants_receipt {
        let link = format!("<{root}/r/{name}>; rel=\"urn:ietf:params:push:receipt\"");
        headers.insert(LINK, value(link)?);
    }
    Ok(response)
}

/// The name of a message's address: whoever got it knew the endpoint, and nobody else can make it up.
fn resource(hash: &[u8; 32], id: MessageId) -> String {
    let mut name = hash.to_vec();
    name.extend_from_slice(id.0.as_bytes());
    URL_SAFE_NO_PAD.encode(name)
}

fn parse_resource(name: &str) -> Option<([u8; 32], MessageId)> {
    let bytes: [u8; 48] = URL_SAFE_NO_PAD.decode(name).ok()?.try_into().ok()?;
    let (hash, id) = bytes.split_first_chunk::<32>()?;
    Some((*hash, MessageId(uuid::Uuid::from_slice(id).ok()?)))
}

async fn withdraw(call: Call) -> Result<Response, Refusal> {
    let (hash, id) = parse_resource(&call.last).ok_or_else(Refusal::unknown)?;
    if call.api.push().pushes.withdraw(&hash, id).await? {
        Ok(empty(StatusCode::NO_CONTENT))
    } else {
        Err(Refusal::unknown())
    }
}

/// Answers when the device has acknowledged the message, or when it ended; after a while with 202: ask again.
async fn receipt(call: Call) -> Result<Response, Refusal> {
    let (hash, id) = parse_resource(&call.last).ok_or_else(Refusal::unknown)?;
    let Ok(_place) = call.api.tails().try_acquire_owned() else {
        return Err(Refusal::busy());
    };
    let ledger = Arc::clone(&call.api.ports().ledger);
    let mut closing = call.api.closing();
    let end = tokio::time::Instant::now() + RECEIPT_WAIT;
    loop {
        // The place first: what comes after it wakes us.
        let seen = ledger.head().await?;
        match call.api.push().pushes.state(&hash, id).await? {
            None => return Err(Refusal::unknown()),
            Some(PushState::Acked) => return Ok(empty(StatusCode::NO_CONTENT)),
            Some(PushState::Lost) => return Err(Refusal::expired()),
            Some(PushState::Open) => {}
        }
        let is_over = tokio::select! {
            () = ledger.wait_after(seen) => false,
            // An expiry is no event of its own.
            () = tokio::time::sleep(Duration::from_secs(1)) => false,
            () = tokio::time::sleep_until(end) => true,
            _ = closing.changed() => true,
        };
        if is_over {
            let mut response = empty(StatusCode::ACCEPTED);
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("1"));
            return Ok(response);
        }
    }
}

/// Reads the headers of a post, as a sender's. For those who feed it bytes.
#[must_use]
pub fn judge_headers(headers: &HeaderMap, body_bytes: usize) -> bool {
    let form = Form::UnifiedPush { opaque: false };
    headers::ttl(headers, form).is_ok()
        && headers::urgency(headers).is_ok()
        && headers::topic(headers).is_ok()
        && headers::encoding(headers, Form::WebPush, body_bytes).is_ok()
}
