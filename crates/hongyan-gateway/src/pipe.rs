//! A way out that is not a socket: the body of an HTTP answer. The reactor writes into it as into a socket, the HTTP
//! server's task reads.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use hongyan_core::SessionId;

use crate::hub::Hub;
use crate::mailbox::Command;

/// Bytes that wait in a pipe before it takes no more: about what a socket's buffer holds.
const PIPE_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, Default)]
struct State {
    waiting: BytesMut,
    reader: Option<Waker>,
    /// Which connection writes, once a reactor has taken it.
    writer: Option<SessionId>,
    /// The writer found it full.
    wanted: bool,
    finished: bool,
    abandoned: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    hub: Hub,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reactor's end.
#[derive(Debug)]
pub(crate) struct Pipe(Arc<Shared>);

/// The HTTP server's end: the bytes of a body, as they come. Dropping it ends the connection.
#[derive(Debug)]
pub struct Stream(Arc<Shared>);

/// Both ends of a new pipe.
pub(crate) fn pipe(hub: Hub) -> (Pipe, Stream) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State::default()),
        hub,
    });
    (Pipe(Arc::clone(&shared)), Stream(shared))
}

impl Pipe {
    /// Tells it whose it is. False when nobody reads it any more.
    pub(crate) fn begin(&self, writer: SessionId) -> bool {
        let mut state = self.0.lock();
        state.writer = Some(writer);
        !state.abandoned
    }

    pub(crate) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.abandoned {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut room = PIPE_BYTES_MAX.saturating_sub(state.waiting.len());
        if room == 0 {
            state.wanted = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut written = 0;
        for slice in slices {
            let take = slice.len().min(room);
            state.waiting.extend_from_slice(&slice[..take]);
            written += take;
            room -= take;
            if room == 0 {
                break;
            }
        }
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(written)
    }

    pub(crate) fn finish(&mut self) {
        let mut state = self.0.lock();
        state.finished = true;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.finish();
    }
}

impl futures_util::Stream for Stream {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.0.lock();
        if state.waiting.is_empty() {
            if state.finished {
                return Poll::Ready(None);
            }
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        // An idle pipe holds no buffer.
        let bytes = std::mem::take(&mut state.waiting).freeze();
        let writer = state.writer.filter(|_| std::mem::take(&mut state.wanted));
        drop(state);
        if let Some(session) = writer {
            self.0.hub.mailbox(session).push(Command::Writable(session));
        }
        Poll::Ready(Some(bytes))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.abandoned = true;
        let writer = state.writer.filter(|_| !state.finished);
        drop(state);
        if let Some(session) = writer {
            self.0.hub.mailbox(session).push(Command::Gone(session));
        }
    }
}
