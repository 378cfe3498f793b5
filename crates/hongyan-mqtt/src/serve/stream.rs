//! A connection whose first bytes were read already.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hongyan_listener::{Transport, writes_through};
use tokio::io::{AsyncRead, ReadBuf};

/// A stream whose first bytes were read to see what it is.
#[derive(Debug)]
pub(super) struct Prefixed {
    first: Vec<u8>,
    at: usize,
    stream: Transport,
}

impl Prefixed {
    pub(super) fn new(first: Vec<u8>, stream: Transport) -> Self {
        Self {
            first,
            at: 0,
            stream,
        }
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let left = this.first.get(this.at..).unwrap_or_default();
        if left.is_empty() {
            this.first = Vec::new();
            this.at = 0;
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let some = left.get(..buffer.remaining()).unwrap_or(left);
        buffer.put_slice(some);
        this.at += some.len();
        Poll::Ready(Ok(()))
    }
}

writes_through!(Prefixed, stream);
