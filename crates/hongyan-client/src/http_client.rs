//! HTTP calls: a small pool, a deadline each, bounded answers, retries only where they are safe.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::backoff::Dice;
use crate::error::{BoxError, Error, Problem};
use crate::net::{Base, Connect, PoolConnector, Tls};
use crate::secret::Secret;

/// Longest answer that is kept in memory, in bytes; longer ones are streams.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Longest error answer that is read, in bytes.
const PROBLEM_BYTES_MAX: usize = 256 * 1024;
/// How often a safe call is tried.
const TRIES_MAX: u32 = 3;
/// Longest `Retry-After` that is waited for within a call.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);
/// Idle connections that are kept.
const POOL_IDLE_MAX: usize = 16;
/// How long an idle connection is kept: shorter than servers keep theirs.
const POOL_IDLE_TIME: Duration = Duration::from_secs(50);

pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Whether a call may be made twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Twice is as good as once.
    Safe,
    /// Only when it certainly did not arrive.
    Unsafe,
    /// The caller decides.
    Never,
}

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    method: Method,
    path: String,
    headers: Vec<(header::HeaderName, String)>,
    body: Option<Bytes>,
    content_type: &'static str,
    repeat: Repeat,
    invalid: Option<Error>,
}

impl Call {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        let repeat = if method == Method::POST || method == Method::PATCH {
            Repeat::Unsafe
        } else {
            Repeat::Safe
        };
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: None,
            content_type: "application/json",
            repeat,
            invalid: None,
        }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn post(path: impl Into<String>, body: &impl Serialize) -> Self {
        Self::new(Method::POST, path).json(body)
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(bytes) => self.body = Some(Bytes::from(bytes)),
            Err(e) => {
                self.invalid = Some(Error::Invalid {
                    what: "body",
                    why: e.to_string(),
                })
            }
        }
        self
    }

    pub(crate) fn header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn repeatable(mut self) -> Self {
        self.repeat = Repeat::Safe;
        self
    }

    /// Makes it one try, whatever comes of it.
    pub(crate) fn once(mut self) -> Self {
        self.repeat = Repeat::Never;
        self
    }
}

/// A client of one server with one key.
#[derive(Clone)]
pub(crate) struct Http {
    base: Base,
    key: Option<Secret>,
    /// The app that an admin key acts in.
    app: Option<String>,
    timeout: Duration,
    pool: legacy::Client<PoolConnector, Body>,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl Http {
    pub(crate) fn new(
        base: Base,
        key: Option<Secret>,
        tls: Tls,
        connector: Arc<dyn Connect>,
        timeout: Duration,
    ) -> Self {
        let connector = PoolConnector {
            base: base.clone(),
            tls,
            connector,
        };
        let pool = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(POOL_IDLE_MAX)
            .pool_idle_timeout(POOL_IDLE_TIME)
            .build(connector);
        Self {
            base,
            key,
            app: None,
            timeout,
            pool,
        }
    }

    pub(crate) fn base(&self) -> &Base {
        &self.base
    }

    pub(crate) fn with_key(&self, key: Secret) -> Self {
        Self {
            key: Some(key),
            ..self.clone()
        }
    }

    pub(crate) fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            timeout,
            ..self.clone()
        }
    }

    pub(crate) fn with_app(&self, app: &str) -> Self {
        Self {
            app: Some(app.to_owned()),
            ..self.clone()
        }
    }

    /// Makes the call and reads the answer as JSON; no content reads as `null`.
    pub(crate) async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        let what = format!("{} {}", call.method, call.path);
        let bytes = self.bytes(call).await?;
        let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(text).map_err(|e| Error::Malformed {
            what,
            source: Box::new(e),
        })
    }

    /// Makes the call and gives the answer's body.
    pub(crate) async fn bytes(&self, mut call: Call) -> Result<Bytes, Error> {
        if let Some(invalid) = call.invalid.take() {
            return Err(invalid);
        }
        let mut dice = Dice::new(None);
        let mut tries = 1;
        loop {
            let outcome = self.once(&call).await;
            let Err(error) = &outcome else { return outcome };
            let Some(wait) = again(error, call.repeat, tries, &mut dice) else {
                return outcome;
            };
            tracing::debug!(%error, ?wait, tries, "calling again");
            tokio::time::sleep(wait).await;
            tries += 1;
        }
    }

    async fn once(&self, call: &Call) -> Result<Bytes, Error> {
        let body = Full::new(call.body.clone().unwrap_or_default())
            .map_err(|never| match never {})
            .boxed_unsync();
        let work = async {
            let (_, body) = self.open(call, body).await?;
            collect(body, ANSWER_BYTES_MAX)
                .await
                .map_err(|source| self.broken(source))
        };
        tokio::time::timeout(self.timeout, work)
            .await
            .unwrap_or_else(|_| Err(self.late()))
    }

    /// Makes the call with a body that is told piece by piece, and gives the answer as a stream.
    /// Only the time to the answer's head is bounded.
    pub(crate) async fn stream(
        &self,
        call: &Call,
        body: Option<Body>,
        head_within: Duration,
    ) -> Result<(HeaderMap, StatusCode, Incoming), Error> {
        let body = body.unwrap_or_else(|| {
            let bytes = call.body.clone().unwrap_or_default();
            Full::new(bytes)
                .map_err(|never| match never {})
                .boxed_unsync()
        });
        let (parts, body) = tokio::time::timeout(head_within, self.open(call, body))
            .await
            .map_err(|_| Error::Timeout {
                base: self.base.to_string(),
                after: head_within,
            })??;
        Ok((parts.headers, parts.status, body))
    }

    async fn open(
        &self,
        call: &Call,
        body: Body,
    ) -> Result<(http::response::Parts, Incoming), Error> {
        let invalid = |e: http::Error| Error::Invalid {
            what: "request",
            why: e.to_string(),
        };
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(self.base.http_url(&call.path))
            .header(
                header::USER_AGENT,
                concat!("hongyan-client/", env!("CARGO_PKG_VERSION")),
            );
        if !call.headers.iter().any(|(name, _)| *name == header::ACCEPT) {
            request = request.header(
                header::ACCEPT,
                "application/json, application/problem+json, */*;q=0.1",
            );
        }
        if call.body.is_some() || call.content_type != "application/json" {
            request = request.header(header::CONTENT_TYPE, call.content_type);
        }
        if let Some(key) = &self.key {
            let mut value = http::HeaderValue::try_from(format!("Bearer {}", key.expose()))
                .map_err(|_| Error::Invalid {
                    what: "key",
                    why: "it holds characters that no header can carry".to_owned(),
                })?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if let Some(app) = &self.app {
            request = request.header("hongyan-app", app);
        }
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        let request = request.body(body).map_err(invalid)?;
        let response = self.pool.request(request).await.map_err(|e| {
            let base = self.base.to_string();
            if e.is_connect() {
                Error::Unreachable {
                    base,
                    source: root(e),
                }
            } else {
                Error::Broken {
                    base,
                    source: root(e),
                }
            }
        })?;
        let (parts, body) = response.into_parts();
        if parts.status.is_success() {
            return Ok((parts, body));
        }
        let retry_after = retry_after(&parts.headers);
        let text = collect(body, PROBLEM_BYTES_MAX).await.unwrap_or_default();
        let problem = Problem::read(parts.status.as_u16(), &text, retry_after);
        Err(Error::Problem(Box::new(problem)))
    }

    pub(crate) fn broken(&self, source: BoxError) -> Error {
        Error::Broken {
            base: self.base.to_string(),
            source,
        }
    }

    fn late(&self) -> Error {
        Error::Timeout {
            base: self.base.to_string(),
            after: self.timeout,
        }
    }

    /// A call whose body is NDJSON.
    pub(crate) fn ndjson(path: impl Into<String>) -> Call {
        let mut call = Call::new(Method::POST, path);
        call.content_type = "application/x-ndjson";
        call
    }
}

/// Whether and when to call again.
fn again(error: &Error, repeat: Repeat, tries: u32, dice: &mut Dice) -> Option<Duration> {
    if tries >= TRIES_MAX || repeat == Repeat::Never {
        return None;
    }
    let jitter = dice.upto(Duration::from_millis(200) * 2_u32.pow(tries.min(8)));
    match error {
        // Nothing arrived.
        Error::Unreachable { .. } => Some(jitter),
        Error::Broken { .. } if repeat == Repeat::Safe => Some(jitter),
        Error::Problem(problem) => {
            let wait = problem.retry_after.unwrap_or_default();
            let passing = match problem.status {
                429 => true,
                502..=504 => repeat == Repeat::Safe,
                _ => false,
            };
            (passing && wait <= RETRY_AFTER_MAX).then_some(wait + jitter)
        }
        _ => None,
    }
}

/// Reads a body that must not be longer than `max`.
pub(crate) async fn collect(mut body: Incoming, max: usize) -> Result<Bytes, BoxError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if bytes.len() + data.len() > max {
                return Err(format!("the answer is longer than {max} bytes").into());
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.freeze())
}

/// Reads `Retry-After` in seconds; the date form is rare and reads as nothing.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// The innermost cause, which is the one that tells something.
fn root(error: legacy::Error) -> BoxError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text.into()
}

/// What an answer without a promised shape is read as.
pub(crate) type Answer = Result<Value, Error>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_calls_are_repeated() {
        let problem = |status, after: Option<u64>| {
            let after = after.map(Duration::from_secs);
            Error::Problem(Box::new(Problem::read(status, b"", after)))
        };
        let broken = || Error::Broken {
            base: String::new(),
            source: "x".into(),
        };
        let unreachable = || Error::Unreachable {
            base: String::new(),
            source: "x".into(),
        };
        let check = |error: Error, repeat, tries, want: bool| {
            let got = again(&error, repeat, tries, &mut Dice::new(Some(1))).is_some();
            assert_eq!(got, want, "{error} {repeat:?} {tries}");
        };
        check(unreachable(), Repeat::Unsafe, 1, true);
        check(unreachable(), Repeat::Unsafe, 3, false);
        check(broken(), Repeat::Unsafe, 1, false);
        check(broken(), Repeat::Safe, 1, true);
        check(problem(503, None), Repeat::Unsafe, 1, false);
        check(problem(503, None), Repeat::Safe, 2, true);
        check(problem(429, Some(2)), Repeat::Unsafe, 1, true);
        check(problem(429, Some(3600)), Repeat::Safe, 1, false);
        check(problem(404, None), Repeat::Safe, 1, false);
        check(unreachable(), Repeat::Never, 1, false);
    }
}
