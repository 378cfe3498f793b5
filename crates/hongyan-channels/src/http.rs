//! HTTP as the vendors speak it: calls and answers, over pooled HTTP/1.1 or multiplexed HTTP/2 connections.

pub mod h1;
pub mod h2;

mod hpack;
mod library;
mod machine;
mod wire;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// Largest answer that is read from a vendor, bytes. Theirs are a few hundred, but for a list of 10,000 broadcast channels.
pub const ANSWER_BYTES_MAX: usize = 512 * 1024;
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

/// The same with what calls have in common shared, for senders of many.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Method.
    pub method: Method,
    /// Path with query.
    pub path: Bytes,
    /// Headers, without `host` and `content-length`: a list, as it is only walked through.
    pub headers: Arc<Vec<(HeaderName, HeaderValue)>>,
    /// Body.
    pub body: Bytes,
}

impl From<Call> for Ask {
    fn from(call: Call) -> Self {
        Self {
            method: call.method,
            path: call.path.into(),
            headers: Arc::new(listed(&call.headers)),
            body: call.body,
        }
    }
}

/// Headers as an [`Ask`] has them.
pub(crate) fn listed(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let mut list = Vec::with_capacity(headers.len() + 1);
    list.extend(headers.iter().map(|(n, v)| (n.clone(), v.clone())));
    list
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

/// Takes any bytes as those of a server, cut in two at some place: on an HTTP/2 connection with requests under way, and as an answer
/// over HTTP/1.1. For those who feed it bytes.
///
/// # Panics
/// When a request is answered more than once.
pub fn swallow(bytes: &[u8], cut: usize) {
    let (first, second) = bytes.split_at(cut.min(bytes.len()));
    h1::swallow(first, second);
    let mut machine = machine::Machine::new("a.example");
    let ask = Ask {
        method: Method::POST,
        path: Bytes::from_static(b"/"),
        headers: Arc::default(),
        body: Bytes::from_static(&[b'x'; 300]),
    };
    for id in [1, 3, 5] {
        machine.submit(id, ask.clone(), id);
    }
    machine.pump();
    for piece in [first, second] {
        if let Err(fault) = machine.receive(piece) {
            machine.fail(fault.problem);
            break;
        }
        machine.pump();
    }
    assert!(
        machine.finished.len() <= 3,
        "a request was answered more than once"
    );
}
