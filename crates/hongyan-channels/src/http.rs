//! HTTP as the vendors speak it: calls and answers, over pooled HTTP/1.1 or multiplexed HTTP/2 connections.

pub mod h1;
pub mod h2;

use bytes::Bytes;
use http::{HeaderMap, Method};

/// Largest answer that is read from a vendor, bytes: their answers are a few hundred.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// How often a call is repeated that certainly had no effect (the connection was closing).
pub(crate) const FRESH_TRIES_MAX: usize = 4;

/// One request, without where it goes.
#[derive(Debug, Clone)]
pub struct Call {
    /// Method.
    pub method: Method,
    /// Path with query.
    pub path: String,
    /// Headers, without `host` and `content-length`.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}
