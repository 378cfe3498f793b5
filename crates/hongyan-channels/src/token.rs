//! Access tokens that a vendor's token endpoint hands out: one request for them at a time, however many calls wait.
//!
//! A token is renewed five minutes before it expires, by one caller, while the others go on with the old one; that caller waits
//! two seconds at most, and after a failure nobody tries again for half a minute. A refused token is replaced once, whoever
//! notices it first.

use std::fmt;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hongyan_core::verdict::Unsure;
use hongyan_core::{Reason, Timestamp, Verdict};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;
use tokio::time::Instant;

use crate::answer::retry_after;
use crate::egress::{CallError, Origin};
use crate::http::{Answer, Call};
use crate::texts::detail;

/// How long before its end a token is renewed.
const RENEW_BEFORE: Duration = Duration::from_secs(300);
/// How long a call waits for a new token while the old one still serves.
const RENEW_PATIENCE: Duration = Duration::from_secs(2);
/// How long the old token serves after it could not be renewed: vendors do not want to be asked with each message.
const RENEW_PAUSE: Duration = Duration::from_secs(30);

/// A token as the endpoint handed it out.
pub(crate) struct Fetched {
    /// The token.
    pub(crate) text: String,
    /// How long it lives.
    pub(crate) lives: Duration,
}

/// A token ready for use.
#[derive(Clone)]
pub(crate) struct AccessToken {
    /// `Bearer …`.
    pub(crate) header: HeaderValue,
    generation: u64,
    renew_at: Timestamp,
    expires_at: Timestamp,
}

impl AccessToken {
    /// The token alone, for vendors that take it in a field or header of their own.
    pub(crate) fn text(&self) -> &str {
        let text = self.header.to_str().unwrap_or_default();
        text.strip_prefix("Bearer ").unwrap_or(text)
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("generation", &self.generation)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// No token could be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// The endpoint refused the credential.
    #[error("the token endpoint refused the credential: {0}")]
    Refused(String),
    /// The endpoint is away or busy.
    #[error("no access token: {detail}")]
    Unavailable {
        /// What happened.
        detail: String,
        /// When to try again, if the endpoint said so.
        after: Option<Duration>,
    },
}

impl From<CallError> for TokenError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Address { .. } | CallError::Forbidden { .. } => {
                Self::Refused(error.to_string())
            }
            _ => Self::Unavailable {
                detail: error.to_string(),
                after: None,
            },
        }
    }
}

impl TokenError {
    /// The same, in the words of a vendor's answer.
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::Refused(_) => Verdict::CredentialBad {
                detail: self.to_string(),
            },
            Self::Unavailable { after, .. } => Verdict::Retry {
                reason: Reason::VendorUnavailable,
                after: *after,
                detail: self.to_string(),
                certainty: Unsure::NotTaken,
            },
        }
    }
}

/// Reads the answer of an OAuth 2.0 token endpoint (RFC 6749 section 5).
pub(crate) fn read(answer: &Answer, now: Timestamp) -> Result<Fetched, TokenError> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |name: &str| match body.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let status = answer.status;
    match (status, body.get("access_token").and_then(Value::as_str)) {
        (200, Some(token)) => Ok(Fetched {
            text: token.to_owned(),
            lives: Duration::from_secs(
                body.get("expires_in")
                    .and_then(Value::as_u64)
                    .unwrap_or(3600)
                    .clamp(1, 86_400),
            ),
        }),
        (400 | 401, _) if !text("error").is_empty() => Err(TokenError::Refused(detail(&format!(
            "{} {}",
            text("error"),
            text("error_description")
        )))),
        _ => Err(TokenError::Unavailable {
            detail: format!("the token endpoint answered status {status}"),
            after: retry_after(&answer.headers, now),
        }),
    }
}

/// A form for a token endpoint.
pub(crate) fn form_call(form: String) -> Call {
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    Call {
        method: Method::POST,
        path: String::new(),
        headers,
        body: form.into(),
    }
}

/// The token endpoint, moved to the credential's own endpoint when it has one: then all of the vendor is there.
pub(crate) fn moved(url: &str, endpoint: Option<&str>) -> Result<String, CallError> {
    let (origin, path) = Origin::split(url)?;
    let origin = endpoint.map_or(Ok(origin), Origin::parse)?;
    Ok(format!("{origin}{path}"))
}

/// The token of one credential.
#[derive(Debug, Default)]
pub(crate) struct TokenCache {
    state: Mutex<State>,
    flight: tokio::sync::Mutex<()>,
    pace: Pace,
}

/// How often a vendor wants to be asked for a token.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    /// The age at which a token is renewed while it still serves; absent: shortly before its end.
    pub(crate) renew_after: Option<Duration>,
    /// The least time between two requests for one.
    pub(crate) pause: Duration,
}

#[derive(Debug, Default)]
struct State {
    token: Option<AccessToken>,
    generation: u64,
    failures: u64,
    error: Option<TokenError>,
    asked: Option<Instant>,
}

impl TokenCache {
    /// A cache without a token that asks at this pace.
    pub(crate) fn with_pace(pace: Pace) -> Self {
        Self {
            pace,
            ..Self::default()
        }
    }

    /// The token; `fetch` is called when there is none, or when it is time to renew it and nobody else does.
    /// Dropping the future hands the flight to the next who waits.
    pub(crate) async fn get<F, T>(
        &self,
        now: Timestamp,
        fetch: F,
    ) -> Result<AccessToken, TokenError>
    where
        F: FnOnce() -> T,
        T: Future<Output = Result<Fetched, TokenError>>,
    {
        let (usable, failures_seen) = self.look(now);
        if let Some(token) = usable {
            if now < token.renew_at {
                return Ok(token);
            }
            let Ok(_flight) = self.flight.try_lock() else {
                return Ok(token);
            };
            if self.look(now).0.is_some_and(|t| now < t.renew_at) || self.too_soon().is_some() {
                return Ok(token);
            }
            self.asks();
            let fetched = tokio::time::timeout(RENEW_PATIENCE, fetch()).await;
            let fetched = fetched.unwrap_or_else(|_| {
                Err(TokenError::Unavailable {
                    detail: "the token endpoint did not answer in time".to_owned(),
                    after: None,
                })
            });
            return Ok(self.store(now, fetched).unwrap_or_else(|_| {
                self.put_off(&token, now.plus(RENEW_PAUSE));
                token
            }));
        }
        let _flight = self.flight.lock().await;
        let (usable, failures_now) = self.look(now);
        if let Some(token) = usable {
            return Ok(token);
        }
        if failures_now != failures_seen
            && let Some(error) = self.error()
        {
            return Err(error);
        }
        if let Some(wait) = self.too_soon() {
            // What the last answer was a moment ago, it still is; a token that did not serve deserves another.
            if let Some(error) = self.error() {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
        }
        self.asks();
        self.store(now, fetch().await)
    }

    /// The same, waiting for others no longer than `until`.
    pub(crate) async fn get_until<F, T>(
        &self,
        now: Timestamp,
        until: Instant,
        fetch: F,
    ) -> Result<AccessToken, Verdict>
    where
        F: FnOnce() -> T,
        T: Future<Output = Result<Fetched, TokenError>>,
    {
        let got = tokio::time::timeout_at(until, self.get(now, fetch));
        let late = |_| Verdict::Retry {
            reason: Reason::VendorUnavailable,
            after: None,
            detail: "no access token came in time; nothing was sent".to_owned(),
            certainty: Unsure::NotTaken,
        };
        got.await.map_err(late)?.map_err(|e| e.verdict())
    }

    /// How long until the vendor may be asked again.
    fn too_soon(&self) -> Option<Duration> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let left = self.pace.pause.checked_sub(state.asked?.elapsed())?;
        (!left.is_zero()).then_some(left)
    }

    fn asks(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked = Some(Instant::now());
    }

    /// The vendor refused this token: it is forgotten, unless it was replaced meanwhile.
    pub(crate) fn refused(&self, token: &AccessToken) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.generation == token.generation {
            state.token = None;
        }
    }

    /// This token is not renewed before then.
    fn put_off(&self, token: &AccessToken, until: Timestamp) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = state.token.as_mut();
        if let Some(kept) = kept.filter(|kept| kept.generation == token.generation) {
            kept.renew_at = until;
        }
    }

    fn look(&self, now: Timestamp) -> (Option<AccessToken>, u64) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let usable = state.token.clone().filter(|t| now < t.expires_at);
        (usable, state.failures)
    }

    fn error(&self) -> Option<TokenError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.error.clone()
    }

    fn store(
        &self,
        now: Timestamp,
        fetched: Result<Fetched, TokenError>,
    ) -> Result<AccessToken, TokenError> {
        let header = fetched.and_then(|f| {
            let mut header =
                HeaderValue::from_str(&format!("Bearer {}", f.text)).map_err(|_| {
                    TokenError::Unavailable {
                        detail: "the token endpoint answered a token with strange characters"
                            .to_owned(),
                        after: None,
                    }
                })?;
            header.set_sensitive(true);
            Ok((header, f.lives))
        });
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match header {
            Ok((header, lives)) => {
                state.generation += 1;
                let token = AccessToken {
                    header,
                    generation: state.generation,
                    renew_at: now.plus(match self.pace.renew_after {
                        Some(age) => age.min(lives),
                        None => lives.saturating_sub(RENEW_BEFORE).max(lives / 2),
                    }),
                    expires_at: now.plus(lives),
                };
                state.token = Some(token.clone());
                state.error = None;
                Ok(token)
            }
            Err(error) => {
                state.failures += 1;
                state.error = Some(error.clone());
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn fetched(text: &str) -> Result<Fetched, TokenError> {
        Ok(Fetched {
            text: text.to_owned(),
            lives: Duration::from_secs(3600),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_token_beyond_its_own_deadline() {
        let cache = Arc::new(TokenCache::default());
        let slow = cache.clone();
        let first = tokio::spawn(async move {
            let fetch = || async {
                tokio::time::sleep(Duration::from_secs(60)).await;
                fetched("a")
            };
            slow.get(Timestamp(0), fetch).await
        });
        tokio::task::yield_now().await;
        let begun = Instant::now();
        let until = begun + Duration::from_secs(2);
        let waited = cache.get_until(Timestamp(0), until, || async { fetched("b") });
        let late = waited.await.unwrap_err();
        assert!(
            matches!(
                &late,
                Verdict::Retry {
                    certainty: Unsure::NotTaken,
                    ..
                }
            ),
            "{late:?}"
        );
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
        assert!(first.await.unwrap().is_ok());
    }

    fn down() -> TokenError {
        TokenError::Unavailable {
            detail: "down".to_owned(),
            after: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_callers_cause_one_fetch() {
        let cache = Arc::new(TokenCache::default());
        let fetches = Arc::new(AtomicUsize::new(0));
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let (cache, fetches) = (cache.clone(), fetches.clone());
                tokio::spawn(async move {
                    cache
                        .get(Timestamp(0), || async move {
                            fetches.fetch_add(1, Ordering::SeqCst);
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            fetched("t")
                        })
                        .await
                        .unwrap()
                })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap().header, "Bearer t");
        }
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_by_those_who_waited_for_it() {
        let cache = Arc::new(TokenCache::default());
        let fetches = Arc::new(AtomicUsize::new(0));
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let (cache, fetches) = (cache.clone(), fetches.clone());
                tokio::spawn(async move {
                    cache
                        .get(Timestamp(0), || async move {
                            fetches.fetch_add(1, Ordering::SeqCst);
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            Err(down())
                        })
                        .await
                })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap_err(), down());
        }
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
        let later = cache.get(Timestamp(0), || async { fetched("t") }).await;
        assert!(later.is_ok(), "a failure is not remembered");
    }

    #[tokio::test]
    async fn the_old_token_serves_while_it_is_renewed_and_when_that_fails() {
        let cache = TokenCache::default();
        let first = cache.get(Timestamp(0), || async { fetched("a") }).await;
        assert_eq!(first.unwrap().header, "Bearer a");
        let late = Timestamp(0).plus(Duration::from_secs(3400));
        let held = cache.flight.lock().await;
        let meanwhile = cache.get(late, || async { fetched("x") }).await;
        assert_eq!(meanwhile.unwrap().header, "Bearer a");
        drop(held);
        let failing = cache.get(late, || async { Err(down()) }).await;
        assert_eq!(failing.unwrap().header, "Bearer a");
        let soon = late.plus(RENEW_PAUSE / 2);
        let soon = cache.get(soon, || async { fetched("b") }).await;
        assert_eq!(soon.unwrap().header, "Bearer a", "not with each message");
        let later = late.plus(RENEW_PAUSE);
        let renewed = cache.get(later, || async { fetched("b") }).await;
        assert_eq!(renewed.unwrap().header, "Bearer b");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long_for_a_new_token_while_the_old_one_serves() {
        let cache = TokenCache::default();
        let first = cache.get(Timestamp(0), || async { fetched("a") }).await;
        assert!(first.is_ok());
        let late = Timestamp(0).plus(Duration::from_secs(3400));
        let (begun, until) = (Instant::now(), Instant::now() + Duration::from_secs(15));
        let hanging = cache.get_until(late, until, std::future::pending).await;
        assert_eq!(hanging.unwrap().header, "Bearer a");
        assert_eq!(begun.elapsed(), RENEW_PATIENCE);
        let next = cache.get_until(late, until, std::future::pending).await;
        assert_eq!(next.unwrap().header, "Bearer a");
        assert_eq!(begun.elapsed(), RENEW_PATIENCE, "at once");
    }

    #[tokio::test]
    async fn a_refused_token_is_replaced_once() {
        let cache = TokenCache::default();
        let a = cache
            .get(Timestamp(0), || async { fetched("a") })
            .await
            .unwrap();
        cache.refused(&a);
        let b = cache
            .get(Timestamp(0), || async { fetched("b") })
            .await
            .unwrap();
        cache.refused(&a);
        let still = cache
            .get(Timestamp(0), || async { fetched("c") })
            .await
            .unwrap();
        assert_eq!(
            (still.header, b.header.to_str().unwrap()),
            (b.header.clone(), "Bearer b")
        );
        assert!(
            !format!("{cache:?}").contains("Bearer"),
            "tokens are never shown"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_vendor_that_wants_peace_is_asked_seldom() {
        let pace = Pace {
            renew_after: Some(Duration::from_secs(600)),
            pause: Duration::from_secs(1),
        };
        let cache = TokenCache::with_pace(pace);
        let failed = cache.get(Timestamp(0), || async { Err(down()) }).await;
        assert_eq!(failed.unwrap_err(), down());
        let again = cache.get(Timestamp(0), || async { fetched("x") }).await;
        assert_eq!(again.unwrap_err(), down(), "not asked again at once");
        tokio::time::advance(pace.pause).await;
        let a = cache.get(Timestamp(0), || async { fetched("a") }).await;
        let a = a.unwrap();
        assert_eq!(a.text(), "a");
        // Refused at once: the next one waits its turn.
        let before = Instant::now();
        cache.refused(&a);
        let b = cache.get(Timestamp(0), || async { fetched("b") }).await;
        assert_eq!(b.unwrap().text(), "b");
        assert!(before.elapsed() >= pace.pause);
        // Renewed while it still serves.
        tokio::time::advance(pace.pause).await;
        let later = Timestamp(0).plus(Duration::from_secs(601));
        let c = cache.get(later, || async { fetched("c") }).await;
        assert_eq!(c.unwrap().text(), "c");
    }

    #[test]
    fn token_answers_are_read() {
        let check = |status: u16, body: &str, want: &str| {
            let answer = crate::vendor::fixture::answer(status, body);
            let got = match read(&answer, Timestamp(0)) {
                Ok(fetched) => format!("{} {}s", fetched.text, fetched.lives.as_secs()),
                Err(TokenError::Refused(_)) => "refused".to_owned(),
                Err(TokenError::Unavailable { .. }) => "unavailable".to_owned(),
            };
            assert_eq!(got, want, "{status} {body}");
        };
        check(
            200,
            r#"{"access_token":"a\/b","expires_in":3599}"#,
            "a/b 3599s",
        );
        check(200, r#"{"access_token":"t"}"#, "t 3600s");
        check(200, "<html>", "unavailable");
        check(
            400,
            r#"{"error":"invalid_grant","error_description":"clock"}"#,
            "refused",
        );
        check(401, r#"{"error":1101,"sub_error":20001}"#, "refused");
        check(
            403,
            r#"{"error":1104,"error_description":"too many"}"#,
            "unavailable",
        );
        check(400, "", "unavailable");
        check(500, r#"{"error":"x"}"#, "unavailable");
        check(503, "", "unavailable");
        let here = moved(
            "https://a.example/oauth2/token",
            Some("https://127.0.0.1:7501/x"),
        );
        assert_eq!(here.unwrap(), "https://127.0.0.1:7501/oauth2/token");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_flight_is_taken_over() {
        let cache = Arc::new(TokenCache::default());
        let leader = tokio::spawn({
            let cache = cache.clone();
            async move { cache.get(Timestamp(0), std::future::pending).await }
        });
        tokio::task::yield_now().await;
        leader.abort();
        let taken = cache.get(Timestamp(0), || async { fetched("t") }).await;
        assert!(taken.is_ok());
    }
}
