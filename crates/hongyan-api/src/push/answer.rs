//! What senders are answered: the errors have numbers that libraries know from other push services.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};

use hongyan_core::StoreError;

/// Why nothing was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    errno: u16,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    fn new(status: StatusCode, errno: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            errno,
            message: message.into(),
            headers: Vec::new(),
        }
    }

    fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// No such endpoint or message: the sender must forget it. One text for all that is not there.
    pub(crate) fn unknown() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            102,
            "there is no such endpoint or message; forget its address",
        )
    }

    /// The endpoint was closed.
    pub(crate) fn gone() -> Self {
        Self::new(
            StatusCode::GONE,
            103,
            "the endpoint was closed; forget its address",
        )
        .header(CACHE_CONTROL, HeaderValue::from_static("max-age=86400"))
    }

    /// The message ended and was not acknowledged.
    pub(crate) fn expired() -> Self {
        Self::new(
            StatusCode::GONE,
            105,
            "the message ended before the device acknowledged it",
        )
    }

    /// The sender did not prove who it is.
    pub(crate) fn unproved(why: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, 109, why)
            .header(WWW_AUTHENTICATE, HeaderValue::from_static("vapid"))
    }

    /// The sender proved who it is, and is not let in.
    pub(crate) fn barred() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            109,
            "the operator of this server takes nothing from this VAPID key",
        )
    }

    /// The headers of the encryption are wrong.
    pub(crate) fn encryption(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, 110, why)
    }

    pub(crate) fn no_ttl() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            111,
            "the header TTL must be a number of seconds, 0 or more",
        )
    }

    pub(crate) fn negative_ttl() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            112,
            "the header TTL must not be negative",
        )
    }

    pub(crate) fn topic() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            113,
            "the header Topic must be 1 to 32 characters of A-Z, a-z, 0-9, '-' and '_'",
        )
    }

    pub(crate) fn urgency() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            999,
            "the header Urgency must be very-low, low, normal or high",
        )
    }

    pub(crate) fn too_large(most: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            104,
            format!("at most {most} bytes of body are taken"),
        )
    }

    pub(crate) fn broken_body(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, 999, why)
    }

    pub(crate) fn too_slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            999,
            "the body took too long to arrive",
        )
    }

    pub(crate) fn too_many(wait: Duration) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            201,
            "too many messages; Retry-After says how long to wait",
        )
        .retry_after(wait)
    }

    pub(crate) fn busy() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            201,
            "the server is busy; try again later",
        )
        .retry_after(Duration::from_secs(5))
    }

    /// The WebSocket request was refused.
    pub(crate) fn upgrade(
        status: StatusCode,
        why: String,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Self {
        Self {
            headers,
            ..Self::new(status, 999, why)
        }
    }

    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            999,
            "something broke in the server",
        )
    }

    fn retry_after(self, wait: Duration) -> Self {
        // Whole seconds, rounded up: earlier would be in vain.
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        let value = u64::try_from(seconds).unwrap_or(u64::MAX);
        self.header(RETRY_AFTER, HeaderValue::from(value))
    }

    pub(crate) fn into_response(self) -> Response {
        let body = serde_json::json!({
            "code": self.status.as_u16(),
            "errno": self.errno,
            "error": self.status.canonical_reason().unwrap_or_default(),
            "message": self.message,
        });
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(self.headers);
        response
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let wait = match &error {
            StoreError::NotFound { .. } => return Self::unknown(),
            StoreError::Busy { retry_after_ms } => Duration::from_millis(*retry_after_ms),
            StoreError::DiskFull => Duration::from_secs(60),
            StoreError::Corrupt { .. } => {
                tracing::error!(%error, "a record of an endpoint cannot be read");
                return Self::internal();
            }
            StoreError::Conflict { .. } | StoreError::Unavailable { .. } => {
                tracing::warn!(%error, "a push could not be stored");
                Duration::from_secs(1)
            }
        };
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            201,
            "the message could not be stored; try again later",
        )
        .retry_after(wait)
    }
}
