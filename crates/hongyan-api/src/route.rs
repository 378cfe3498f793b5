//! Routes as data: one table says who may call an address, what it takes and answers, and who does the work.
//! The router and the OpenAPI document are both made of it, so neither can know a route that the other does not.

use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use futures_util::FutureExt as _;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, HeaderName, HeaderValue, ORIGIN, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::uri::Scheme;
use http::{HeaderMap, Method, StatusCode, Uri, Version};
use schemars::{Schema, SchemaGenerator};

use hongyan_core::{AppId, DeviceId};

use crate::api::Api;
use crate::auth::{self, Caller, Who};
use crate::body::{FromBody, FromQuery};
use crate::key;
use crate::options::BODY_BYTES_MAX;
use crate::problem::{Code, Problem};
use crate::reply::IntoReply;

/// Names a request in logs and problems; the caller's own is kept.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request that was let in and read.
#[derive(Debug)]
pub(crate) struct Call<Q = (), B = ()> {
    pub(crate) api: Api,
    pub(crate) caller: Caller,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) query: Q,
    pub(crate) body: B,
    pub(crate) parts: Parts,
}

/// The rest of the request's head.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) peer: SocketAddr,
    pub(crate) scheme: Scheme,
    pub(crate) body_bytes_max: usize,
    pub(crate) upgrade: Option<hyper::upgrade::OnUpgrade>,
}

impl<Q, B> Call<Q, B> {
    /// The app that the caller acts in.
    pub(crate) fn app(&self) -> Result<AppId, Problem> {
        self.caller.app().cloned()
    }

    /// A part of the path, as an id of its kind. An id that cannot be is an id that is not there.
    pub(crate) fn id<T>(&self, name: &str) -> Result<T, Problem>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        let text = self
            .params
            .iter()
            .find(|(n, _)| n == name)
            .map_or("", |(_, v)| v.as_str());
        text.parse::<T>()
            .map_err(|e| Problem::at(Code::InvalidRequest, name, e.to_string()))
    }

    /// The device in the path.
    pub(crate) fn device_id(&self) -> Result<DeviceId, Problem> {
        self.id("device")
    }
}

type Work = Arc<
    dyn Fn(Call<Uri, Body>) -> Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send>>
        + Send
        + Sync,
>;
type BodyDocument = fn(&mut SchemaGenerator) -> Option<(&'static str, Schema)>;
type QueryDocument = fn(&mut SchemaGenerator) -> Option<Schema>;
type ReplyDocument = fn(&mut SchemaGenerator) -> (u16, Option<Schema>);

/// One method of one address.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) who: Who,
    /// Section of the documentation.
    pub(crate) section: &'static str,
    /// One line: what it does.
    pub(crate) summary: &'static str,
    /// More, when one line is not enough.
    pub(crate) more: &'static str,
    pub(crate) body_bytes_max: usize,
    /// Content type of answers that are not one JSON document.
    pub(crate) streams: Option<&'static str>,
    /// A GET that takes a device's session over, so that a HEAD is not taken for it.
    pub(crate) connects: bool,
    pub(crate) body: BodyDocument,
    pub(crate) query: QueryDocument,
    pub(crate) reply: ReplyDocument,
    /// When the answer is 204 instead, in words.
    pub(crate) or_nothing: Option<&'static str>,
    pub(crate) work: Work,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

impl Route {
    /// A route whose types are those of its handler.
    pub(crate) fn new<Q, B, R, F, Fut>(
        method: Method,
        path: &'static str,
        who: Who,
        summary: &'static str,
        handler: F,
    ) -> Self
    where
        Q: FromQuery,
        B: FromBody,
        R: IntoReply,
        F: Fn(Call<Q, B>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Problem>> + Send + 'static,
    {
        Self {
            method,
            path,
            who,
            section: "",
            summary,
            more: "",
            body_bytes_max: BODY_BYTES_MAX,
            streams: None,
            connects: false,
            body: B::document,
            query: Q::document,
            reply: R::document,
            or_nothing: R::or_nothing(),
            work: Arc::new(move |call: Call<Uri, Body>| {
                let handler = handler.clone();
                Box::pin(async move {
                    let Call {
                        api,
                        caller,
                        params,
                        query,
                        body,
                        parts,
                    } = call;
                    let query = Q::read(&query)?;
                    let time = api.options().body_timeout;
                    let body = B::read(&parts.headers, body, parts.body_bytes_max, time).await?;
                    let call = Call {
                        api,
                        caller,
                        params,
                        query,
                        body,
                        parts,
                    };
                    handler(call).await.map(IntoReply::into_reply)
                })
            }),
        }
    }

    /// With more words in the documentation.
    pub(crate) const fn more(mut self, more: &'static str) -> Self {
        self.more = more;
        self
    }

    /// With another limit for its body.
    pub(crate) const fn body_bytes_max(mut self, bytes: usize) -> Self {
        self.body_bytes_max = bytes;
        self
    }

    /// With an answer that is not one JSON document.
    pub(crate) const fn streams(mut self, content_type: &'static str) -> Self {
        self.streams = Some(content_type);
        self
    }

    /// A GET that takes a device's session over.
    pub(crate) const fn connects(mut self) -> Self {
        self.connects = true;
        self
    }

    /// Whether pages of browsers may call it, if the app names their origin.
    const fn for_browsers(&self) -> bool {
        matches!(
            self.who,
            Who::Registrar | Who::DeviceOr(_) | Who::Device | Who::Itself
        )
    }
}

/// The client's address; put into a request's extensions by the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Makes the router of the table.
pub(crate) fn router(api: &Api, routes: &[Route]) -> Router {
    let mut by_path: Vec<(&'static str, MethodRouter, bool)> = Vec::new();
    let allowed = |path: &str| {
        let here = || routes.iter().filter(|route| route.path == path);
        let mut allowed: Vec<&str> = Vec::new();
        for route in here() {
            allowed.push(route.method.as_str());
            if route.method == Method::GET && !route.connects {
                allowed.push("HEAD");
            }
        }
        if here().any(Route::for_browsers) {
            allowed.push("OPTIONS");
        }
        HeaderValue::from_str(&allowed.join(", ")).ok()
    };
    for route in routes {
        let Ok(filter) = MethodFilter::try_from(route.method.clone()) else {
            continue;
        };
        let (api, one) = (api.clone(), route.clone());
        let serve = move |request: Request| serve(api.clone(), one.clone(), request);
        let browsers = route.for_browsers();
        match by_path.iter_mut().find(|(path, ..)| *path == route.path) {
            Some((_, methods, any)) => {
                *methods = std::mem::take(methods).on(filter, serve);
                *any |= browsers;
            }
            None => by_path.push((route.path, on(filter, serve), browsers)),
        }
    }
    let mut router = Router::new();
    for (path, mut methods, browsers) in by_path {
        if browsers {
            let api = api.clone();
            methods = methods.on(MethodFilter::OPTIONS, move |request: Request| {
                preflight(api.clone(), request)
            });
        }
        let allow = allowed(path);
        let refuse = move |request: Request| {
            let refused = not_allowed(request.method(), allow);
            async move { refused }
        };
        if routes.iter().any(|r| r.path == path && r.connects) {
            methods = methods.on(MethodFilter::HEAD, refuse.clone());
        }
        router = router.route(path, methods.fallback(refuse));
    }
    router
        .fallback(|| async {
            let detail = "nothing is at this address; /openapi.json lists what there is";
            Problem::new(Code::NotFound, detail)
        })
        .method_not_allowed_fallback(|request: Request| async move {
            not_allowed(request.method(), None)
        })
}

/// The answer to a method that an address does not take.
pub(crate) fn not_allowed(method: &Method, allow: Option<HeaderValue>) -> Problem {
    let detail = format!("{method} is not taken here; the Allow header lists what is");
    let problem = Problem::new(Code::MethodNotAllowed, detail);
    match allow {
        Some(allow) => problem.header(ALLOW, allow),
        None => problem,
    }
}

async fn serve(api: Api, route: Route, mut request: Request) -> Response {
    let id = request_id(&api, request.headers());
    let origin = request.headers().get(ORIGIN).cloned();
    let upgrade = request
        .headers()
        .contains_key(http::header::UPGRADE)
        .then(|| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    let params = RawPathParams::from_request_parts(&mut parts, &()).await;
    let peer = parts
        .extensions
        .get::<Peer>()
        .map_or(SocketAddr::from(([0, 0, 0, 0], 0)), |peer| peer.0);
    let scheme = parts.extensions.remove::<Scheme>();
    let head = Parts {
        scheme: scheme.unwrap_or(Scheme::HTTP),
        method: parts.method,
        version: parts.version,
        uri: parts.uri.clone(),
        headers: parts.headers,
        peer,
        body_bytes_max: route.body_bytes_max,
        upgrade,
    };
    let mut app = None;
    let answered = AssertUnwindSafe(async {
        let params = params
            .map_err(|_| Problem::at(Code::InvalidRequest, "path", "is not valid UTF-8"))?
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect::<Vec<_>>();
        let device = params
            .iter()
            .find(|(name, _)| name == "device")
            .map(|(_, v)| v.as_str());
        let caller = auth::check(&api, route.who, &head.headers, peer.ip(), device).await?;
        app = caller.app().ok().cloned();
        let call = Call {
            api: api.clone(),
            caller,
            params,
            query: parts.uri,
            body,
            parts: head,
        };
        (route.work)(call).await
    })
    .catch_unwind()
    .await;
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(problem)) => {
            tracing::debug!(code = problem.code().as_str(), request = %id.1, route = ?route, "request refused");
            problem.into_response()
        }
        Err(_) => {
            tracing::error!(request = %id.1, route = ?route, "a request handler panicked");
            metrics::counter!("hongyan_api_panics_total").increment(1);
            Problem::new(
                Code::Internal,
                format!("the server's log says more under request {}", id.1),
            )
            .into_response()
        }
    };
    if route.for_browsers()
        && let (Some(origin), Some(app)) = (origin, app)
    {
        allow_origin(&api, &app, origin, response.headers_mut()).await;
    }
    finish(&route, &mut response, id.0);
    response
}

fn finish(route: &Route, response: &mut Response, id: HeaderValue) {
    metrics::counter!(
        "hongyan_api_requests_total",
        "route" => route.path,
        "method" => route.method.to_string(),
        "status" => response.status().as_u16().to_string()
    )
    .increment(1);
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

/// The caller's id when it is short and printable, else one of ours.
fn request_id(api: &Api, headers: &HeaderMap) -> (HeaderValue, String) {
    let given = headers.get(&REQUEST_ID).filter(|value| {
        (1..=64).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
    });
    if let Some(value) = given
        && let Ok(text) = value.to_str()
    {
        return (value.clone(), text.to_owned());
    }
    let text = key::handle(&*api.ports().dice, 20);
    let value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unknown"));
    (value, text)
}

/// Lets a page of this origin read the answer, if the app names the origin.
async fn allow_origin(api: &Api, app: &AppId, origin: HeaderValue, headers: &mut HeaderMap) {
    headers.append(VARY, HeaderValue::from_static("Origin"));
    let Ok(Some(app)) = api.app(app).await else {
        return;
    };
    if app
        .policy
        .origins
        .iter()
        .any(|one| one.as_bytes() == origin.as_bytes())
    {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
}

/// Answers what a browser asks before it calls. The app is not known yet, so any app's origin will do;
/// the call itself is then answered for the app's own origins only.
async fn preflight(api: Api, request: Request) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = request.headers().get(ORIGIN) else {
        return response;
    };
    let Ok(origins) = api.origins().await else {
        return response;
    };
    if origins
        .iter()
        .any(|one| one.as_bytes() == origin.as_bytes())
    {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE"),
        );
        headers.insert(
            ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("Authorization, Content-Type, X-Request-Id"),
        );
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    response
}
