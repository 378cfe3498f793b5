//! HTTP as the vendors speak it: calls and answers, over pooled HTTP/1.1 or multiplexed HTTP/2 connections.

pub mod h1;
pub mod h2;

mod hpack;
mod library;
mod machine;
mod wire;

use std::sync::Arc;

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

/// The same with what calls have in common shared, for senders of many.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Method.
    pub method: Method,
    /// Path with query.
    pub path: Bytes,
    /// Headers, without `host` and `content-length`.
    pub headers: Arc<HeaderMap>,
    /// Body.
    pub body: Bytes,
}

impl From<Call> for Ask {
    fn from(call: Call) -> Self {
        Self {
            method: call.method,
            path: call.path.into(),
            headers: Arc::new(call.headers),
            body: call.body,
        }
    }
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

/// Lets a connection that has requests under way take any bytes as its peer's, cut in two at some place. For those who feed it
/// bytes.
pub fn swallow(bytes: &[u8], cut: usize) {
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
    let (first, second) = bytes.split_at(cut.min(bytes.len()));
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
