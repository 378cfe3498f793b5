//! One connection in a reactor's slab. Idle, it owns its socket, its session and nothing else.

use hongyan_core::{Cursor, SessionId};

use crate::gate::Permit;
use crate::options::{Options, TICK_MS};
use crate::protocol::websocket::frame::Decoder;
use crate::protocol::{Silence, Speaker};
use crate::seat::Seat;
use crate::session::Session;
use crate::wheel::Tick;
use crate::writer::{Output, Way};

/// Share of the queue bound above which no further entry is asked for.
const CREDIT_DIVISOR: usize = 4;

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// `hello` is awaited.
    Opening,
    /// The store was asked who it is.
    Greeting,
    /// Said welcome.
    Live,
    /// Known, but not a device: it has no session.
    Guest,
    /// Our close frame is on its way; the peer's close is awaited.
    Closing,
    /// The same, after bytes that made no sense: what comes is thrown away.
    Broken,
    /// Both said close: ends when everything is written.
    Ending,
}

/// How bytes are cut into what a protocol hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Not at all: a stream.
    Raw,
    /// Into WebSocket messages.
    WebSocket,
    /// Nothing comes in; what goes out is the body of an HTTP answer.
    Pipe,
}

/// What only a connection that has not been welcomed needs.
#[derive(Debug)]
pub(super) struct Opening {
    /// Held for its end, which lets the next stranger in.
    pub(super) permit: Permit,
    pub(super) cursor: Option<Cursor>,
    pub(super) inflight: u16,
    /// Something came while it was greeted, maybe after its first page was read.
    pub(super) wanted: bool,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) io: Way,
    pub(super) speaker: Speaker,
    /// Exists while a frame or a message is incomplete.
    pub(super) decoder: Option<Box<Decoder>>,
    /// Exists while something waits to be written.
    pub(super) output: Option<Box<Output>>,
    pub(super) opening: Option<Box<Opening>>,
    pub(super) session: Option<Session>,
    /// Tells this connection from earlier ones at the same place of the slab.
    pub(super) generation: u32,
    /// When bytes last came.
    pub(super) heard: Tick,
    /// When the wheel wakes it next.
    pub(super) timer: Tick,
    /// In `Opening`, `Greeting` and the closing phases their end; in `Live` when a failed read is
    /// made again, or 0.
    pub(super) deadline: Tick,
    /// When `tokens` was right.
    pub(super) tokens_at: Tick,
    /// Messages that the client may send now.
    pub(super) tokens: u16,
    pub(super) framing: Framing,
    pub(super) phase: Phase,
    /// A ping was sent and nothing was heard since.
    pub(super) pinged: bool,
    /// Is in the list of those that want to read their inbox.
    pub(super) queued: bool,
    /// The peer said goodbye.
    pub(super) clean: bool,
    /// Is in the list of those to be flushed.
    pub(super) dirty: bool,
}

impl Connection {
    pub(super) fn new(
        io: Way,
        speaker: Speaker,
        framing: Framing,
        permit: Permit,
        generation: u32,
        now: Tick,
        options: &Options,
    ) -> Self {
        let opening = Opening {
            permit,
            cursor: None,
            inflight: options.inflight,
            wanted: false,
        };
        let protocol = speaker.protocol();
        let opening_ms = protocol.map_or(0, |protocol| protocol.opening_ms(options));
        Self {
            io,
            speaker,
            decoder: None,
            output: None,
            opening: Some(Box::new(opening)),
            session: None,
            generation,
            heard: now,
            timer: Tick::MAX,
            deadline: now + crate::options::ticks(opening_ms),
            tokens_at: now,
            tokens: options.messages_burst,
            framing,
            phase: Phase::Opening,
            pinged: false,
            clean: false,
            queued: false,
            dirty: false,
        }
    }

    /// Whether entries may be sent to it now: a failed read waits for its time, a full queue for its end.
    pub(super) fn takes(&self, options: &Options) -> bool {
        let bytes_max = options.queue_bytes_max / CREDIT_DIVISOR;
        let len_max = options.queue_len_max / CREDIT_DIVISOR;
        let waiting = self.output.as_ref();
        let full = waiting.is_some_and(|o| o.bytes() > bytes_max || o.frames() > len_max);
        let takes = self.speaker.protocol().is_some_and(|p| p.takes());
        self.phase == Phase::Live && takes && !full && self.deadline == 0
    }

    /// Whether its session's first page is on its way, or about to be asked for.
    pub(super) fn begins(&self, options: &Options) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| {
            session.sent().is_none()
                && (session.reads() || session.wants_read() && self.takes(options))
        })
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing | Phase::Broken | Phase::Ending)
    }

    /// Longest message that the peer may send now.
    pub(super) fn message_bytes_max(&self, options: &Options) -> usize {
        let live = !matches!(self.phase, Phase::Opening | Phase::Greeting);
        let protocol = self.speaker.protocol();
        protocol.map_or(0, |protocol| protocol.message_bytes_max(live, options))
    }

    /// Takes one message from the client's allowance; false when there is none.
    pub(super) fn take_token(&mut self, now: Tick, options: &Options) -> bool {
        let millis = u64::from(now.saturating_sub(self.tokens_at)) * TICK_MS;
        let earned = millis * u64::from(options.messages_per_s) / 1000;
        if earned > 0 {
            let tokens = u64::from(self.tokens) + earned;
            self.tokens = tokens.min(u64::from(options.messages_burst)) as u16;
            self.tokens_at = now;
        }
        match self.tokens.checked_sub(1) {
            Some(tokens) => {
                self.tokens = tokens;
                true
            }
            None => false,
        }
    }

    /// What silence of this connection means: ±10 %, different for each.
    pub(super) fn silence(&self, options: &Options) -> Silence {
        let percent = 90 + u64::from(self.generation.wrapping_mul(0x9e37_79b9) >> 16) % 21;
        match self.speaker.protocol() {
            Some(protocol) => protocol.silence(percent, options),
            None => Silence {
                ping_after: None,
                dead_after: None,
            },
        }
    }

    /// When its protocol wants to be woken.
    pub(super) fn due(&self) -> Option<Tick> {
        self.speaker.protocol()?.due()
    }

    /// When this connection must be looked at without being asked.
    pub(super) fn next_deadline(&self, options: &Options) -> Tick {
        match self.phase {
            Phase::Live | Phase::Guest => {}
            Phase::Opening => {
                return self
                    .due()
                    .map_or(self.deadline, |due| due.min(self.deadline));
            }
            _ => return self.deadline,
        }
        let silence = self.silence(options);
        let wait = if self.pinged {
            silence.dead_after
        } else {
            silence.ping_after.or(silence.dead_after)
        };
        let mut next = wait.map_or(Tick::MAX, |wait| self.heard.saturating_add(wait));
        if let Some(due) = self.due() {
            next = next.min(due);
        }
        if self.deadline != 0 {
            next = next.min(self.deadline);
        }
        if let Some(due) = self.session.as_ref().and_then(Session::next_due) {
            next = next.min(due);
        }
        if let Some(since) = self.output.as_ref().and_then(|output| output.blocked_since) {
            next = next.min(since + crate::options::ticks(options.slow_timeout_ms));
        }
        next
    }

    pub(super) fn seat(&self) -> Option<&Seat> {
        self.session.as_ref().map(Session::seat)
    }
}

/// A session's id says where it is: reactor, place in the slab, generation.
pub(super) fn session_id(reactor: u8, key: usize, generation: u32) -> SessionId {
    SessionId(u64::from(reactor) << 56 | (key as u64 & 0xff_ffff) << 32 | u64::from(generation))
}

/// The slab place and generation in a session's id.
pub(super) fn place_of(session: SessionId) -> (usize, u32) {
    ((session.0 >> 32 & 0xff_ffff) as usize, session.0 as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_say_where_a_session_is() {
        let id = session_id(200, 0xab_cdef, u32::MAX - 1);
        assert_eq!(place_of(id), (0xab_cdef, u32::MAX - 1));
        assert_eq!(id.0 >> 56, 200);
    }

    #[test]
    fn an_idle_connection_is_small() {
        // Idle, it owns nothing but its socket and its seat, as the types say: all boxes are optional and empty then. A
        // build with debug assertions has a word more in each socket.
        let debug = if cfg!(debug_assertions) { 16 } else { 0 };
        assert!(std::mem::size_of::<Session>() <= 64);
        assert!(std::mem::size_of::<Speaker>() <= 16);
        assert!(std::mem::size_of::<Way>() <= 16 + debug);
        let connection = std::mem::size_of::<Connection>();
        assert!(connection <= 152 + debug, "{connection}");
        // In the slab it needs no word more.
        assert_eq!(std::mem::size_of::<Option<Connection>>(), connection);
    }
}
