//! What a connection is doing, so that one that does nothing, or begins a request and never ends it, is closed in time.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Version;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Pulse {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Requests whose answers are not out yet.
    under_way: usize,
    /// When the first byte of a request's head came.
    head_since: Option<Instant>,
    /// Since when nothing is under way.
    idle_since: Instant,
    /// Whether HTTP/2 is spoken: then bytes between requests need not be a head.
    multiplexed: bool,
}

/// By when something must have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// Requests are under way.
    None,
    /// A request's head must be complete.
    Head(Instant),
    /// Another request must have begun.
    Idle(Instant),
}

impl Pulse {
    /// A fresh connection owes its first request's head.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            state: Mutex::new(State {
                under_way: 0,
                head_since: Some(now),
                idle_since: now,
                multiplexed: false,
            }),
        }
    }

    pub(crate) fn bytes_came(&self) {
        let mut state = self.lock();
        if state.under_way == 0 && !state.multiplexed && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    pub(crate) fn deadline(&self, head: Duration, idle: Duration) -> Deadline {
        let state = self.lock();
        match state.head_since {
            _ if state.under_way > 0 => Deadline::None,
            Some(since) => Deadline::Head(since + head),
            None => Deadline::Idle(state.idle_since + idle),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is under way, until its answer is out.
#[derive(Debug)]
pub(crate) struct Beat(Arc<Pulse>);

impl Beat {
    pub(crate) fn begin(pulse: &Arc<Pulse>, version: Version) -> Self {
        let mut state = pulse.lock();
        state.under_way += 1;
        state.head_since = None;
        state.multiplexed = version == Version::HTTP_2;
        drop(state);
        Self(Arc::clone(pulse))
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.under_way = state.under_way.saturating_sub(1);
        state.idle_since = Instant::now();
    }
}

/// A body that keeps its request under way until it is out.
#[derive(Debug)]
pub(crate) struct Beating {
    pub(crate) body: Body,
    pub(crate) _beat: Beat,
}

impl http_body::Body for Beating {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);

    #[tokio::test(start_paused = true)]
    async fn heads_and_pauses_have_deadlines() {
        let pulse = Arc::new(Pulse::new());
        let start = Instant::now();
        assert_eq!(pulse.deadline(HEAD, IDLE), Deadline::Head(start + HEAD));
        let beat = Beat::begin(&pulse, Version::HTTP_11);
        assert_eq!(pulse.deadline(HEAD, IDLE), Deadline::None);
        pulse.bytes_came();
        tokio::time::advance(IDLE).await;
        drop(beat);
        let ended = Instant::now();
        assert_eq!(pulse.deadline(HEAD, IDLE), Deadline::Idle(ended + IDLE));
        tokio::time::advance(HEAD).await;
        pulse.bytes_came();
        tokio::time::advance(HEAD / 2).await;
        pulse.bytes_came();
        let first_byte = ended + HEAD;
        assert_eq!(
            pulse.deadline(HEAD, IDLE),
            Deadline::Head(first_byte + HEAD)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn control_frames_are_no_heads() {
        let pulse = Arc::new(Pulse::new());
        drop(Beat::begin(&pulse, Version::HTTP_2));
        pulse.bytes_came();
        assert!(matches!(pulse.deadline(HEAD, IDLE), Deadline::Idle(_)));
    }
}
