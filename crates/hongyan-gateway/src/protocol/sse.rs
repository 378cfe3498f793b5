//! Server-sent events: `GET /v1/stream`. A session whose way out is the body of an HTTP answer; acknowledgements come over
//! `POST /v1/acks`, or (`ack=resume`) with the next request.

use hongyan_core::session::AppState;
use hongyan_core::{Cursor, MessageId};
use tokio::sync::oneshot;

use super::hongyan::Encoding;
use super::hongyan::outgoing::{self, Place, Replay, ServerMessage};
use super::websocket::close;
use super::{
    Desk, Farewell, Hello, Input, Kind, Outgoing, Proof, Protocol, Silence, Speaker, Taken, Welcome,
};
use crate::gate::Permit;
use crate::gateway::GatewayHandle;
use crate::options::{Options, ticks};
use crate::pipe::Stream;
use crate::wheel::Tick;

/// A comment after so much silence: many proxies cut after 60 s.
const BEAT_MS: u64 = 15_000;
/// A stream ends after this, ±10 %, so that load spreads and tokens are looked at again.
const LIFE_MS: u64 = 3_600_000;
/// Entries in flight of a stream that acknowledges only by coming back; then it is asked to.
const RESUME_INFLIGHT: u16 = 256;
/// Waits before a client comes back, milliseconds: different for each, so that a restart does not bring everyone at once.
const RETRY_MS: std::ops::Range<u64> = 1000..5000;
/// The same for a stream that is only renewed.
const RENEW_MS: u64 = 100;

/// How a stream's messages are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckMode {
    /// By `POST /v1/acks`: at most so many are in flight.
    #[default]
    Explicit,
    /// By coming back with the last id.
    Resume,
}

/// What a stream is asked for with.
#[derive(Debug)]
pub struct Request {
    /// Who it is.
    pub caller: Caller,
    /// The last place that the client has.
    pub cursor: Option<Cursor>,
    /// Most unacknowledged messages, 1 to 256.
    pub inflight: Option<u16>,
    /// How they are acknowledged.
    pub ack: AckMode,
}

/// Who asks for a stream or a poll.
#[derive(Debug)]
pub enum Caller {
    /// A device that showed its token with this request.
    Device {
        /// Its app.
        app: hongyan_core::AppId,
        /// Itself.
        device: hongyan_core::DeviceId,
        /// Hash of the token.
        secret_hash: [u8; 32],
    },
    /// Whoever holds this ticket.
    Ticket(hongyan_core::Secret),
}

impl From<Caller> for Proof {
    fn from(caller: Caller) -> Self {
        match caller {
            Caller::Device {
                app,
                device,
                secret_hash,
            } => Self::Device {
                app,
                device,
                secret_hash,
            },
            Caller::Ticket(ticket) => Self::Secret(ticket),
        }
    }
}

/// Why a stream or a poll was not taken, or ended: one of [`close`], a word, and a text for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Turned {
    /// One of [`close`].
    pub code: u16,
    /// For programs.
    pub word: &'static str,
    /// For people.
    pub detail: &'static str,
}

impl Turned {
    /// The gateway did not answer at all.
    pub(crate) const AWAY: Self = Self {
        code: close::TRY_AGAIN,
        word: "unavailable",
        detail: "the gateway is busy or stops; try again later",
    };
}

impl GatewayHandle {
    /// Opens a stream: its body begins with the `welcome` event.
    ///
    /// # Errors
    /// [`Turned`] when the device is unknown, may not connect from there, or the gateway is busy.
    pub async fn open_stream(&self, request: Request, permit: Permit) -> Result<Stream, Turned> {
        let (answer, opened) = oneshot::channel();
        let protocol = Sse {
            request: Some(request),
            answer: Some(answer),
            has: None,
            resume: false,
            beat: 0,
            ends: Tick::MAX,
        };
        let stream = self.stream(Speaker::Other(Box::new(protocol)), permit);
        opened.await.unwrap_or(Err(Turned::AWAY))?;
        Ok(stream)
    }
}

/// One stream.
#[derive(Debug)]
struct Sse {
    request: Option<Request>,
    answer: Option<oneshot::Sender<Result<(), Turned>>>,
    /// What the client came back with.
    has: Option<Cursor>,
    /// Acknowledges by coming back.
    resume: bool,
    /// When the next comment is due.
    beat: Tick,
    /// When the stream ends by itself.
    ends: Tick,
}

impl Sse {
    fn event(&mut self, name: &str, message: &ServerMessage<'_>, desk: &mut Desk<'_>) {
        let data = outgoing::json(message);
        self.beat = desk.now() + ticks(BEAT_MS);
        desk.frame(|out| write_event(None, name, &[&data], out));
    }
}

/// One event. The data is one line of JSON, as no other text may stand where a line break ends it.
fn write_event(id: Option<&Cursor>, name: &str, data: &[&[u8]], out: &mut Vec<u8>) {
    if let Some(id) = id {
        out.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    for part in data {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\n\n");
}

fn write_retry(ms: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("retry: {ms}\n").as_bytes());
}

/// Spreads streams: a number that differs between sessions.
fn spread(desk: &Desk<'_>) -> u64 {
    let id = desk.session().map_or(0, |session| session.0);
    // Fibonacci hashing of the id and the time, so that the same place of the slab differs between restarts.
    let mixed = id ^ desk.clock().millis().unsigned_abs();
    mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

fn retry_ms(desk: &Desk<'_>) -> u64 {
    RETRY_MS.start + spread(desk) % (RETRY_MS.end - RETRY_MS.start)
}

impl Protocol for Sse {
    fn kind(&self) -> Kind {
        Kind::Sse
    }

    fn is_acked_over_http(&self) -> bool {
        true
    }

    fn begin(&mut self, desk: &mut Desk<'_>) {
        let Some(request) = self.request.take() else {
            return;
        };
        self.resume = request.ack == AckMode::Resume;
        let inflight = if self.resume {
            Some(RESUME_INFLIGHT)
        } else {
            request.inflight
        };
        desk.hello(Hello {
            proof: request.caller.into(),
            cursor: request.cursor,
            inflight,
            state: AppState::Foreground,
        });
        // Its place is acknowledged once it is known to be of its own inbox.
        self.has = request.cursor.filter(|_| self.resume);
    }

    fn hear(&mut self, _input: Input<'_>, _desk: &mut Desk<'_>) {}

    fn welcome(&mut self, welcome: &Welcome<'_>, desk: &mut Desk<'_>) {
        let said = ServerMessage::Welcome {
            session: &format!("{:016x}", welcome.session.0),
            device: welcome.reader.device.as_str(),
            head: Place(welcome.head),
            hb: BEAT_MS / 1000,
            inflight: welcome.inflight,
            replay: if welcome.resumed {
                Replay::Resume
            } else {
                Replay::Full
            },
            now: desk.clock(),
        };
        let retry = retry_ms(desk);
        desk.frame(|out| {
            // Something at once, so that proxies see an open stream.
            out.extend_from_slice(b": hongyan\n\n");
            write_retry(retry, out);
        });
        self.event("welcome", &said, desk);
        self.ends = desk.now() + ticks(LIFE_MS / 100 * (90 + spread(desk) % 21));
        desk.rearm();
        if let Some(place) = self.has.take() {
            desk.ack_upto(place);
            desk.restart(Some(place));
        }
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(Ok(()));
        }
    }

    fn send(&mut self, one: &Outgoing<'_>, desk: &mut Desk<'_>) -> Taken {
        let shared = desk.encoded(Encoding::Json, one.message);
        if !desk.has_room(shared.len()) {
            return Taken::Full;
        }
        let own = outgoing::msg_begin(Encoding::Json, &shared, one.place, one.dup);
        let rest = &shared[1.min(shared.len())..];
        desk.frame(|out| write_event(Some(&one.place), "msg", &[&own, rest], out));
        self.beat = desk.now() + ticks(BEAT_MS);
        Taken::Sent
    }

    fn sent(&mut self, _count: usize, _more: bool, desk: &mut Desk<'_>) {
        if self.resume && desk.inflight() >= usize::from(RESUME_INFLIGHT) {
            // Coming back is how it acknowledges.
            desk.frame(|out| {
                write_retry(RENEW_MS, out);
                out.push(b'\n');
            });
            desk.close(close::NORMAL, "renew", "come back with the last id");
        }
    }

    fn gap(&mut self, lost: u64, desk: &mut Desk<'_>) {
        self.event("gap", &ServerMessage::Gap { lost }, desk);
    }

    fn recall(&mut self, id: MessageId, desk: &mut Desk<'_>) {
        // Who reads too slowly is told by the mark alone.
        if desk.has_room(outgoing::MARK_BYTES_MAX) {
            self.event("recall", &ServerMessage::recall(id), desk);
        }
    }

    fn mark(&mut self, recalled: MessageId, one: &Outgoing<'_>, desk: &mut Desk<'_>) -> Taken {
        if !desk.has_room(outgoing::MARK_BYTES_MAX) {
            return Taken::Full;
        }
        let data = outgoing::json(&ServerMessage::mark(recalled, one.place, one.message.id));
        desk.frame(|out| write_event(Some(&one.place), "recall", &[&data], out));
        self.beat = desk.now() + ticks(BEAT_MS);
        Taken::Sent
    }

    fn idle(&mut self, head: Cursor, desk: &mut Desk<'_>) {
        self.event("idle", &ServerMessage::Idle { head: Place(head) }, desk);
    }

    fn drain(&mut self, after_ms: u64, desk: &mut Desk<'_>) {
        let retry = retry_ms(desk);
        desk.frame(|out| write_retry(retry, out));
        self.event("drain", &ServerMessage::Drain { after_ms }, desk);
    }

    fn close(&mut self, farewell: &Farewell<'_>, desk: &mut Desk<'_>) -> u16 {
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(Err(turned(farewell)));
            return farewell.code;
        }
        if farewell.code == close::TAKEN_OVER {
            desk.frame(|out| write_event(None, "taken", &[b"{\"t\":\"taken\"}"], out));
        } else if farewell.error {
            let error = ServerMessage::Error {
                code: farewell.word,
                msg: farewell.detail,
                fatal: true,
                topic: None,
            };
            self.event("error", &error, desk);
        }
        farewell.code
    }

    fn due(&self) -> Option<Tick> {
        Some(self.beat.min(self.ends))
    }

    fn fire(&mut self, desk: &mut Desk<'_>) {
        if desk.now() >= self.ends {
            let retry = retry_ms(desk);
            desk.frame(|out| {
                write_retry(retry, out);
                out.push(b'\n');
            });
            desk.close(close::NORMAL, "renew", "the stream has lived long enough");
            return;
        }
        desk.frame(|out| out.extend_from_slice(b": hb\n\n"));
        self.beat = desk.now() + ticks(BEAT_MS);
        desk.rearm();
    }

    fn silence(&self, _spread: u64, _options: &Options) -> Silence {
        // Nothing is ever heard: a reader that left is told by the HTTP server.
        Silence {
            ping_after: None,
            dead_after: None,
        }
    }
}

pub(super) fn turned(farewell: &Farewell<'_>) -> Turned {
    // The words of the gateway are few and known; only their texts are borrowed here.
    let (word, detail) = match farewell.code {
        close::UNAUTHORIZED => (
            "unauthorized",
            "the device token or ticket is unknown, used up or was revoked",
        ),
        close::FORBIDDEN if farewell.word == close::KICKED => (
            close::KICKED,
            "the app's server sent this device away; connect again after the next login",
        ),
        close::FORBIDDEN => (
            "origin_forbidden",
            "the device's app does not name this page's origin",
        ),
        close::DEVICE_GONE => (
            "device_deleted",
            "the device was deleted or its token revoked; register it again",
        ),
        close::RESTART => (
            "binding_changed",
            "the device's user changed meanwhile; connect again",
        ),
        close::TAKEN_OVER => ("taken", "taken over by a newer connection of this device"),
        _ => (
            "unavailable",
            "the gateway is busy or stops; try again later",
        ),
    };
    Turned {
        code: farewell.code,
        word,
        detail,
    }
}
