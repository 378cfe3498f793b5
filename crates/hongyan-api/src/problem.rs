//! Errors as the caller sees them: RFC 9457 problem documents with stable codes.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use schemars::JsonSchema;
use serde::Serialize;

use hongyan_core::StoreError;
use hongyan_core::draft::Fault;

use crate::services::ServiceError;

/// Faults that one answer lists; the rest is only counted.
const FAULTS_LEN_MAX: usize = 100;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:ident, $title:literal;)*) => {
        /// The stable word for what went wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name),* }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The public word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status),* }
            }

            /// One line for people.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),* }
            }
        }
    };
}

codes! {
    /// The body is not JSON.
    BadJson = "bad_json", BAD_REQUEST, "The body is not well-formed JSON";
    /// The body is not UTF-8.
    BadUtf8 = "bad_utf8", BAD_REQUEST, "The body is not valid UTF-8";
    /// Fields are unknown, missing or of the wrong type.
    InvalidRequest = "invalid_request", BAD_REQUEST, "The request cannot be read as what this address takes";
    /// A cursor that is not ours.
    BadCursor = "bad_cursor", BAD_REQUEST, "The cursor is malformed";
    /// No key, or an unknown one.
    Unauthorized = "unauthorized", UNAUTHORIZED, "A valid key is needed";
    /// The key may not do this.
    Forbidden = "forbidden", FORBIDDEN, "The key may not do this";
    /// The app wants its server's signature for a login.
    UserTokenRequired = "user_token_required", FORBIDDEN, "This app's logins need a user_token";
    /// The signature is wrong or old.
    UserTokenInvalid = "user_token_invalid", FORBIDDEN, "The user_token is not valid";
    /// A browser page that the app does not name.
    OriginForbidden = "origin_forbidden", FORBIDDEN, "This origin may not connect";
    /// The app's server sent the device away.
    Kicked = "kicked", FORBIDDEN, "The device was sent away";
    /// It is not there, or belongs to another app.
    NotFound = "not_found", NOT_FOUND, "There is no such thing";
    /// The device that waits was deleted, or its token replaced.
    DeviceGone = "device_gone", GONE, "The device is there no more";
    /// The address is known, the method is not.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "This address does not take this method";
    /// The body came too slowly.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "The request took too long to arrive";
    /// It changed meanwhile.
    Conflict = "conflict", CONFLICT, "It changed meanwhile";
    /// It exists.
    AlreadyExists = "already_exists", CONFLICT, "It exists already";
    /// It is needed.
    InUse = "in_use", CONFLICT, "It is in use";
    /// The key was used with another body.
    IdempotencyKeyReused = "idempotency_key_reused", CONFLICT, "The Idempotency-Key was used with another body";
    /// The body is over the limit.
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "The body is too large";
    /// Not the content type that the address takes.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The content type is not supported here";
    /// The request can be read, but its values break rules.
    Invalid = "invalid", UNPROCESSABLE_ENTITY, "Some values break rules";
    /// The server takes only channels that are bound to a key.
    VapidRequired = "vapid_required", UNPROCESSABLE_ENTITY, "A channel needs a VAPID key here";
    /// The feature does not exist in this version.
    NotAvailable = "not_available", UNPROCESSABLE_ENTITY, "This feature is not available";
    /// The credential cannot be used.
    CredentialUnusable = "credential_unusable", UNPROCESSABLE_ENTITY, "The credential cannot be used";
    /// The vendor was asked and says no.
    VendorRefused = "vendor_refused", UNPROCESSABLE_ENTITY, "The vendor refuses it";
    /// Not a WebSocket request of a version that is spoken.
    UpgradeRequired = "upgrade_required", UPGRADE_REQUIRED, "This address speaks WebSocket version 13";
    /// Too many requests with this key or from this address.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests";
    /// Our fault.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something broke in the server";
    /// The store is full of work.
    Busy = "busy", SERVICE_UNAVAILABLE, "The server is busy";
    /// The disk is nearly full.
    DiskFull = "disk_full", SERVICE_UNAVAILABLE, "The server's disk is nearly full";
    /// Something that the server needs is away.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "The server cannot do this now";
}

/// Why a request was not done.
#[derive(Debug)]
pub struct Problem {
    code: Code,
    status: StatusCode,
    detail: String,
    faults: Vec<Fault>,
    retry_after: Option<Duration>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The document as it goes out.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(crate) struct Document {
    /// Where the code is explained, relative to the server.
    r#type: String,
    /// One line for people; the same for every problem of this code.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// The stable word to decide by.
    code: &'static str,
    /// What happened this time, and what to do.
    detail: String,
    /// What is wrong where, in the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FaultDocument>,
}

/// One fault in a request.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Fault")]
pub(crate) struct FaultDocument {
    /// Path in the request, such as `options.ttl` or `messages[3].to`.
    path: String,
    /// What is wrong and what would be right.
    problem: String,
}

impl From<Fault> for FaultDocument {
    fn from(fault: Fault) -> Self {
        Self {
            path: fault.path,
            problem: fault.problem,
        }
    }
}

impl Problem {
    /// A problem of this code; `detail` says what happened this time.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            status: code.status(),
            detail: detail.into(),
            faults: Vec::new(),
            retry_after: None,
            headers: Vec::new(),
        }
    }

    /// A problem with one place in the request.
    #[must_use]
    pub fn at(code: Code, path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::faults(
            code,
            vec![Fault {
                path: path.into(),
                problem: problem.into(),
            }],
        )
    }

    /// A problem with several places in the request.
    #[must_use]
    pub fn faults(code: Code, mut faults: Vec<Fault>) -> Self {
        let detail = match faults.as_slice() {
            [only] if only.path.is_empty() => only.problem.clone(),
            [only] => format!("{}: {}", only.path, only.problem),
            many => format!("{} values are wrong; see errors", many.len()),
        };
        faults.truncate(FAULTS_LEN_MAX);
        faults.shrink_to_fit();
        Self {
            faults,
            ..Self::new(code, detail)
        }
    }

    /// With no more faults than there is room for, which it takes its own from; `detail` still says how many there were.
    #[must_use]
    pub(crate) fn within(mut self, room: &mut usize) -> Self {
        self.faults.truncate(*room);
        self.faults.shrink_to_fit();
        *room -= self.faults.len();
        self
    }

    /// There is no such thing (or not for this caller).
    #[must_use]
    pub fn not_found(entity: &str) -> Self {
        Self::new(Code::NotFound, format!("{entity} not found"))
    }

    /// With the time after which it is worth trying again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// With a header.
    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// With another status of the same class.
    #[must_use]
    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// Each fault as (path, problem); the whole as one when there are none.
    pub(crate) fn into_faults(self) -> Vec<(String, String)> {
        if self.faults.is_empty() {
            return vec![(String::new(), self.detail)];
        }
        self.faults
            .into_iter()
            .map(|f| (f.path, f.problem))
            .collect()
    }

    /// What happened this time.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The document; also used for the items of a batch.
    pub(crate) fn document(self) -> Document {
        Document {
            r#type: format!("/docs#{}", self.code.as_str()),
            title: self.code.title(),
            status: self.status.as_u16(),
            code: self.code.as_str(),
            detail: self.detail,
            errors: self.faults.into_iter().map(FaultDocument::from).collect(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        let (status, headers) = (self.status, std::mem::take(&mut self.headers));
        let retry_after = self.retry_after;
        let body = serde_json::to_vec(&self.document()).unwrap_or_default();
        let mut response = (status, body).into_response();
        response.headers_mut().extend(headers);
        response.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(after) = retry_after {
            // Whole seconds, rounded up: earlier would be in vain.
            let seconds = after.as_millis().div_ceil(1000).max(1);
            if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
                response.headers_mut().insert(RETRY_AFTER, value);
            }
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { entity } => Self::not_found(entity),
            StoreError::Conflict { .. } => Self::new(
                Code::Conflict,
                format!("{error}; read it again and repeat the change"),
            ),
            StoreError::Busy { retry_after_ms } => Self::new(
                Code::Busy,
                "the store has more work than it can take; wait and repeat",
            )
            .retry_after(Duration::from_millis(retry_after_ms)),
            StoreError::DiskFull => Self::new(
                Code::DiskFull,
                "nothing more is accepted until its operator frees some space",
            )
            .retry_after(Duration::from_secs(60)),
            StoreError::Unavailable { .. } => {
                tracing::warn!(error = %chain(&error), "store unavailable");
                Self::new(
                    Code::Unavailable,
                    "the store did not answer; repeat with the same Idempotency-Key, or after reading what happened",
                )
                .retry_after(Duration::from_secs(1))
            }
            StoreError::Corrupt { entity, .. } => {
                tracing::error!(error = %chain(&error), "stored record cannot be read");
                Self::new(
                    Code::Internal,
                    format!("a stored {entity} cannot be read; the server's log says more"),
                )
            }
        }
    }
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Invalid(items) => Self::faults(
                Code::Invalid,
                items.into_iter().flat_map(|(_, faults)| faults).collect(),
            ),
            ServiceError::KeyReused => Self::new(
                Code::IdempotencyKeyReused,
                "send the same body, or a new key for a new request",
            ),
            ServiceError::NotFound { entity } => Self::not_found(entity),
            ServiceError::UnknownChannel(_) => Self::new(
                Code::NotFound,
                format!("{error}; see the documentation for the channels of this version"),
            ),
            ServiceError::Config(faults) => Self::faults(
                Code::Invalid,
                faults
                    .into_iter()
                    .map(|f| Fault {
                        path: format!("config.{}", f.path.replace('/', ".")),
                        problem: f.problem,
                    })
                    .collect(),
            ),
            ServiceError::Credential(detail) => Self::new(Code::CredentialUnusable, detail),
            ServiceError::Forbidden(detail) => Self::new(Code::Forbidden, detail),
            ServiceError::Repeated(detail) => Self::new(Code::Conflict, detail),
            ServiceError::Malformed(detail) => Self::new(Code::InvalidRequest, detail),
            ServiceError::Store(error) => error.into(),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
