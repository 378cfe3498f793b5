//! Answers: what goes out, and how it is documented.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

/// A JSON answer with its status.
#[derive(Debug)]
pub(crate) struct Reply<T, const STATUS: u16 = 200> {
    value: T,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl<T, const STATUS: u16> Reply<T, STATUS> {
    pub(crate) const fn new(value: T) -> Self {
        Self {
            value,
            headers: Vec::new(),
        }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// Done; there is nothing to say (204).
#[derive(Debug)]
pub(crate) struct Done;

/// A body that is made piece by piece, or not JSON.
#[derive(Debug)]
pub(crate) struct Raw(pub(crate) Response);

impl Raw {
    pub(crate) fn text(content_type: &'static str, body: impl Into<Body>) -> Self {
        let mut response = Response::new(body.into());
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self(response)
    }
}

/// What a handler may answer.
pub(crate) trait IntoReply {
    /// The response.
    fn into_reply(self) -> Response;
    /// Its status and schema; no schema for bodies that are not one JSON document.
    fn document(generator: &mut SchemaGenerator) -> (u16, Option<Schema>);
    /// When it is answered with 204 and nothing instead, in words.
    fn or_nothing() -> Option<&'static str> {
        None
    }
}

impl<T: Serialize + JsonSchema, const STATUS: u16> IntoReply for Reply<T, STATUS> {
    fn into_reply(self) -> Response {
        let Ok(body) = serde_json::to_vec(&self.value) else {
            tracing::error!("an answer could not be written as JSON");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(STATUS).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }

    fn document(generator: &mut SchemaGenerator) -> (u16, Option<Schema>) {
        (STATUS, Some(generator.subschema_for::<T>()))
    }
}

impl IntoReply for Done {
    fn into_reply(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }

    fn document(_: &mut SchemaGenerator) -> (u16, Option<Schema>) {
        (204, None)
    }
}

impl IntoReply for Raw {
    fn into_reply(self) -> Response {
        self.0
    }

    fn document(_: &mut SchemaGenerator) -> (u16, Option<Schema>) {
        (200, None)
    }
}
