//! What sessions speak. Each protocol translates between its own bytes and the one session model
//! of [`crate::session`]: presence, takeover, replay, acks, drain and limits are the reactor's and
//! the same for all. A protocol sees its peer and a [`Desk`]; it knows no socket and no engine.
//!
//! To add one: a module here that implements [`Protocol`], its [`Kind`] and its [`Speech`].

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use hongyan_core::port::Reader;
use hongyan_core::session::AppState;
use hongyan_core::{
    AppId, Cursor, DeviceId, Message, MessageId, Secret, SessionId, Timestamp, Topic,
};

use crate::gateway::Socket;
use crate::options::Options;
use crate::wheel::Tick;

pub mod autopush;
pub mod hongyan;
pub mod mqtt;
pub mod poll;
pub mod sse;
pub mod websocket;
pub mod xmpp;

pub(crate) use crate::backend::Unanswered;
pub(crate) use crate::reactor::Desk;
pub use hongyan::Encoding;

/// The protocols that sessions speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// hongyan's own, over WebSocket.
    WebSocket,
    /// Server-sent events.
    Sse,
    /// Short and long polls.
    Poll,
    /// XMPP.
    Xmpp,
    /// Mozilla's, for browsers.
    Autopush,
    /// MQTT.
    Mqtt,
}

impl Kind {
    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::Poll => "poll",
            Self::Xmpp => "xmpp",
            Self::Autopush => "autopush",
            Self::Mqtt => "mqtt",
        }
    }
}

/// What came from the peer.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    /// Any piece of the stream (raw transports): the protocol keeps what is incomplete.
    Bytes(&'a [u8]),
    /// One whole WebSocket text message, valid UTF-8.
    Text(&'a [u8]),
    /// One whole WebSocket binary message.
    Binary(&'a [u8]),
}

/// Who a peer says to be.
#[derive(Debug)]
pub(crate) enum Proof {
    /// A device token, or a ticket.
    Secret(Secret),
    /// Proven by the protocol itself against what the registry holds of the device; worth nothing when the device's
    /// token changed since.
    Device {
        /// Its app.
        app: AppId,
        /// Itself.
        device: DeviceId,
        /// Hash of the token that the device had then.
        secret_hash: [u8; 32],
    },
}

/// Asks the gateway to make a session of a connection.
#[derive(Debug)]
pub(crate) struct Hello {
    /// Who it is.
    pub proof: Proof,
    /// The place that the client stored.
    pub cursor: Option<Cursor>,
    /// Most unacknowledged messages; the gateway's setting when absent.
    pub inflight: Option<u16>,
    /// Whether its app is in front.
    pub state: AppState,
}

/// The session begins: what stands in `Desk::parked` is from the device's former connection.
#[derive(Debug)]
pub(crate) struct Welcome<'a> {
    /// Its id.
    pub session: SessionId,
    /// Whose inbox it delivers.
    pub reader: &'a Arc<Reader>,
    /// The newest place.
    pub head: Cursor,
    /// Whether the client's cursor belonged to this inbox.
    pub resumed: bool,
    /// Most unacknowledged messages.
    pub inflight: u16,
}

/// One entry of the inbox on its way out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    /// The message.
    pub message: &'a Arc<Message>,
    /// Its place.
    pub place: Cursor,
    /// Whether this device may have been sent it before.
    pub dup: bool,
}

/// What a protocol made of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is in the queue.
    Sent,
    /// There is no room now; [`Desk::want`] asks for it again.
    Full,
    /// The client does not take any now; only [`Desk::want`] asks for it again.
    Later,
    /// This connection can never carry it (too large for the client, not subscribed): it counts as in flight no longer
    /// and stays unacknowledged unless `rejected`, which acknowledges it with a failed status.
    Skipped {
        /// Acknowledge it with a failed status.
        rejected: bool,
    },
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Farewell<'a> {
    /// One of [`websocket::close`]: the vocabulary that all protocols share and translate.
    pub code: u16,
    /// A stable word for programs.
    pub word: &'a str,
    /// What happened and what to do, for people.
    pub detail: &'a str,
    /// Whether the peer has to be told an error; otherwise the code says all.
    pub error: bool,
}

/// Silence, in ticks of [`crate::options::TICK_MS`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silence {
    /// Nothing heard for so long: [`Protocol::ping`] is called once.
    pub ping_after: Option<Tick>,
    /// Nothing heard for so long: the connection is dead and is closed.
    pub dead_after: Option<Tick>,
}

/// What a connection's protocol keeps for the device's next connection of the same protocol.
pub(crate) type Parked = Box<dyn Any + Send>;

/// One connection's protocol. Every method runs on the reactor's thread: it never blocks, and panics cost the
/// connection only.
pub(crate) trait Protocol: fmt::Debug + Send {
    /// What it is called in presence, metrics and traces.
    fn kind(&self) -> Kind;

    /// The connection was taken in: the moment for a protocol that knows its peer already.
    fn begin(&mut self, _desk: &mut Desk<'_>) {}

    /// Something came from the peer.
    fn hear(&mut self, input: Input<'_>, desk: &mut Desk<'_>);

    /// The session is up; the first page follows.
    fn welcome(&mut self, welcome: &Welcome<'_>, desk: &mut Desk<'_>);

    /// Puts an entry into the queue. Also what is not stored comes this way, to be given once: acknowledging it, or not,
    /// changes nothing.
    fn send(&mut self, one: &Outgoing<'_>, desk: &mut Desk<'_>) -> Taken;

    /// A page was worked off: so many of its entries were sent, and whether the store has more of them. The moment to ask
    /// for an acknowledgement.
    fn sent(&mut self, _count: usize, _more: bool, _desk: &mut Desk<'_>) {}

    /// So many older entries left the ring before this device fetched them.
    fn gap(&mut self, _lost: u64, _desk: &mut Desk<'_>) {}

    /// A message is to be removed from sight, and its mark was not sent yet.
    fn recall(&mut self, _id: MessageId, _desk: &mut Desk<'_>) {}

    /// Puts the mark of a recall into the queue, as an entry at its place. It takes no room of messages, and is settled by what is acknowledged of
    /// those after it.
    fn mark(&mut self, _recalled: MessageId, _one: &Outgoing<'_>, _desk: &mut Desk<'_>) -> Taken {
        Taken::Skipped { rejected: false }
    }

    /// [`Protocol::send`] or [`Protocol::mark`], as the entry is.
    fn give(&mut self, one: &Outgoing<'_>, desk: &mut Desk<'_>) -> Taken {
        match one.message.recalls {
            Some(recalled) => self.mark(recalled, one, desk),
            None => self.send(one, desk),
        }
    }

    /// Everything stored was sent; said once.
    fn idle(&mut self, _head: Cursor, _desk: &mut Desk<'_>) {}

    /// [`Desk::follow`] was carried out or refused (word and detail).
    fn followed(
        &mut self,
        _topic: &Topic,
        _result: Result<(), (&'static str, &'static str)>,
        _desk: &mut Desk<'_>,
    ) {
    }

    /// An answer to [`Desk::ask`], or what [`crate::GatewayHandle::tell`] was given.
    fn told(&mut self, _what: Box<dyn Any + Send>, _desk: &mut Desk<'_>) {}

    /// Nothing was heard for long: say something that a living peer answers.
    fn ping(&mut self, _desk: &mut Desk<'_>) {}

    /// The node goes away in at most so long.
    fn drain(&mut self, _after_ms: u64, _desk: &mut Desk<'_>) {}

    /// The device's user changed: what comes now belongs to the new reader.
    fn rebound(&mut self, _reader: &Arc<Reader>, _desk: &mut Desk<'_>) {}

    /// Last words, when the connection is closed from this side. Answers the close code if the transport is WebSocket.
    fn close(&mut self, farewell: &Farewell<'_>, desk: &mut Desk<'_>) -> u16;

    /// The connection is over, however it ended (`clean`: the peer said goodbye). What it answers is given to the device's next connection of the
    /// same protocol.
    fn park(&mut self, _clean: bool, _now: Timestamp) -> Option<Parked> {
        None
    }

    /// Until when the device counts as connected although its connection is over; asked after [`Protocol::park`] kept
    /// something.
    fn lingers(&self, _now: Timestamp) -> Option<Timestamp> {
        None
    }

    /// When it wants to be woken, if ever.
    fn due(&self) -> Option<Tick> {
        None
    }

    /// `due` has come.
    fn fire(&mut self, _desk: &mut Desk<'_>) {}

    /// Time until a stranger must have said who it is.
    fn opening_ms(&self, options: &Options) -> u64 {
        options.hello_timeout_ms
    }

    /// Longest message on WebSocket transports.
    fn message_bytes_max(&self, live: bool, options: &Options) -> usize {
        if live {
            options.message_bytes_max
        } else {
            options.hello_bytes_max
        }
    }

    /// What silence means. `spread` differs between connections: 90 to 110 percent.
    fn silence(&self, spread: u64, options: &Options) -> Silence;

    /// Whether entries can be taken at all now; if not, nothing is read until [`Desk::want`].
    fn takes(&self) -> bool {
        true
    }

    /// Whether its acknowledgements come by calls over HTTP: then one of them proves, as those on a connection do, that what was
    /// sent before is there, too.
    fn is_acked_over_http(&self) -> bool {
        false
    }

    /// Whether unacknowledged messages are sent again on the same connection.
    fn redelivers(&self) -> bool {
        false
    }
}

/// What a connection that comes in speaks: chosen by listener, path and subprotocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Speech {
    /// hongyan's own protocol, over WebSocket.
    Hongyan(Encoding),
    /// XMPP over WebSocket (RFC 7395), where it is spoken: see [`xmpp::Xmpp::new`].
    Xmpp,
    /// Mozilla's autopush protocol, over WebSocket, with the client key of its path.
    Autopush(Option<Secret>),
    /// MQTT over WebSocket.
    Mqtt,
}

impl From<Encoding> for Speech {
    fn from(encoding: Encoding) -> Self {
        Self::Hongyan(encoding)
    }
}

impl Speech {
    /// The same, when it came in by this path, which may say more.
    #[must_use]
    pub fn at(self, path: &str) -> Self {
        match self {
            Self::Autopush(_) => {
                let last = path.trim_end_matches('/').rsplit('/').next();
                let key = last.filter(|last| *last != "autopush");
                Self::Autopush(key.map(Secret::new))
            }
            other => other,
        }
    }

    /// The protocol, and whether it is spoken in WebSocket messages; nothing when this gateway does not speak it.
    pub(crate) fn speaker(self, spoken: &Spoken, socket: &Socket) -> Option<(Speaker, bool)> {
        let speaker = match self {
            Self::Hongyan(encoding) => Speaker::Own(Some(hongyan::Hongyan::new(encoding))),
            Self::Xmpp => spoken.xmpp.get()?.over_websocket(socket),
            Self::Autopush(enrolment) => {
                let setup = Arc::clone(spoken.autopush.get()?);
                Speaker::Other(Box::new(autopush::Autopush::new(setup, enrolment)))
            }
            Self::Mqtt => spoken.mqtt.get()?.speaker(),
        };
        Some((speaker, true))
    }
}

/// Protocols that are spoken only where they were turned on, with what they need.
#[derive(Debug, Default)]
pub(crate) struct Spoken {
    pub(crate) xmpp: OnceLock<Arc<xmpp::Server>>,
    pub(crate) autopush: OnceLock<Arc<autopush::Setup>>,
    pub(crate) mqtt: OnceLock<Arc<mqtt::Server>>,
}

/// A connection's protocol: hongyan's own needs no allocation.
#[derive(Debug)]
pub(crate) enum Speaker {
    /// hongyan's own; `None` while the connection's protocol, whichever it is, is at work. (One variant for both: so the
    /// pointer of the other says which it is, and two words are enough.)
    Own(Option<hongyan::Hongyan>),
    Other(Box<dyn Protocol>),
}

impl Speaker {
    /// The protocol, unless it is at work.
    pub(crate) fn protocol(&self) -> Option<&dyn Protocol> {
        match self {
            Self::Own(own) => own.as_ref().map(|own| own as _),
            Self::Other(other) => Some(other.as_ref()),
        }
    }

    /// The same, to do something with it.
    pub(crate) fn protocol_mut(&mut self) -> Option<&mut dyn Protocol> {
        match self {
            Self::Own(own) => own.as_mut().map(|own| own as _),
            Self::Other(other) => Some(other.as_mut()),
        }
    }

    /// Takes it out to work.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Own(None))
    }
}
