//! hongyan's own protocol, `hongyan.v1`, over WebSocket: JSON or CBOR.

use hongyan_core::{Cursor, MessageId, Topic};

use self::incoming::ClientMessage;
use self::outgoing::{Place, Replay, ServerMessage};
use super::websocket::close;
use super::{
    Desk, Farewell, Hello, Input, Kind, Outgoing, Proof, Protocol, Silence, Taken, Welcome,
};
use crate::options::{Options, ticks};

pub mod incoming;
pub mod outgoing;

/// How hongyan's own protocol is written on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `hongyan.v1+json`: one JSON object per text message.
    Json,
    /// `hongyan.v1+cbor`: one CBOR map per binary message.
    Cbor,
}

impl Encoding {
    /// The encoding that a WebSocket subprotocol names, if it is one of ours.
    #[must_use]
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        match name {
            "hongyan.v1+json" => Some(Self::Json),
            "hongyan.v1+cbor" => Some(Self::Cbor),
            _ => None,
        }
    }

    /// The WebSocket subprotocol of this encoding.
    #[must_use]
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "hongyan.v1+json",
            Self::Cbor => "hongyan.v1+cbor",
        }
    }
}

/// One connection that speaks it.
#[derive(Debug)]
pub(crate) struct Hongyan {
    encoding: Encoding,
    /// Said hello.
    greeted: bool,
}

impl Hongyan {
    pub(crate) fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            greeted: false,
        }
    }

    fn say(&self, message: &ServerMessage<'_>, desk: &mut Desk<'_>) {
        desk.frame(|out| outgoing::encode(self.encoding, message, out));
    }

    fn say_error(&self, code: &str, msg: &str, topic: Option<&Topic>, desk: &mut Desk<'_>) {
        let error = ServerMessage::Error {
            code,
            msg,
            fatal: false,
            topic,
        };
        self.say(&error, desk);
    }

    fn hello(&mut self, hello: incoming::Hello, desk: &mut Desk<'_>) {
        if std::mem::replace(&mut self.greeted, true) {
            desk.refuse(
                close::BAD_MESSAGE,
                "bad_order",
                "hello is said exactly once",
            );
            return;
        }
        desk.hello(Hello {
            proof: Proof::Secret(hello.token),
            cursor: hello.cursor,
            inflight: hello.inflight,
            state: hello.state,
        });
    }

    fn act(&mut self, message: ClientMessage, desk: &mut Desk<'_>) {
        match message {
            ClientMessage::AckUpto(place) => desk.ack_upto(place),
            ClientMessage::AckIds(ids) => desk.ack_ids(ids),
            ClientMessage::Nack {
                id: Some(id),
                retry: true,
            } => desk.retry(id),
            ClientMessage::Nack {
                id: Some(id),
                retry: false,
            } => desk.reject(id),
            ClientMessage::Event {
                id: Some(message),
                stage,
                at,
            } => desk.event(message, stage, at),
            ClientMessage::Nack { id: None, .. } | ClientMessage::Event { id: None, .. } => {}
            ClientMessage::State(state) => desk.state(state),
            ClientMessage::Subscribe(topic) => self.follow(topic, true, desk),
            ClientMessage::Unsubscribe(topic) => self.follow(topic, false, desk),
            ClientMessage::Ping(n) => {
                if let Some(head) = desk.head() {
                    let head = Place(head);
                    self.say(&ServerMessage::Pong { n, head }, desk);
                }
                desk.want();
            }
            ClientMessage::Bye => desk.goodbye("bye"),
            ClientMessage::Hello(hello) => self.hello(hello, desk),
        }
    }

    fn follow(&self, topic: Topic, follow: bool, desk: &mut Desk<'_>) {
        if !desk.follow(&topic, follow) {
            self.say_error(
                "busy",
                "the gateway is busy; try again later",
                Some(&topic),
                desk,
            );
        }
    }

    fn read(&mut self, bytes: &[u8], desk: &mut Desk<'_>) {
        match incoming::parse(self.encoding, bytes) {
            Ok(ClientMessage::Hello(hello)) => self.hello(hello, desk),
            Ok(message) if desk.is_live() => self.act(message, desk),
            Ok(_) => desk.refuse(
                close::BAD_MESSAGE,
                "bad_order",
                "hello comes first, then welcome",
            ),
            Err(error) => match error.close {
                Some(code) => desk.refuse(code, error.code, error.detail),
                None if !desk.is_live() => {
                    desk.refuse(close::BAD_MESSAGE, "bad_order", "hello comes first");
                }
                None => self.say_error(error.code, error.detail, None, desk),
            },
        }
    }
}

impl Protocol for Hongyan {
    fn kind(&self) -> Kind {
        Kind::WebSocket
    }

    fn hear(&mut self, input: Input<'_>, desk: &mut Desk<'_>) {
        match (input, self.encoding) {
            (Input::Text(bytes), Encoding::Json) | (Input::Binary(bytes), Encoding::Cbor) => {
                self.read(bytes, desk);
            }
            (_, Encoding::Json) => desk.close(
                close::UNSUPPORTED,
                "unsupported",
                "this subprotocol speaks text messages",
            ),
            (_, Encoding::Cbor) => desk.close(
                close::UNSUPPORTED,
                "unsupported",
                "this subprotocol speaks binary messages",
            ),
        }
    }

    fn welcome(&mut self, welcome: &Welcome<'_>, desk: &mut Desk<'_>) {
        let said = ServerMessage::Welcome {
            session: &format!("{:016x}", welcome.session.0),
            device: welcome.reader.device.as_str(),
            head: Place(welcome.head),
            hb: desk.options().heartbeat_ms.div_ceil(1000),
            inflight: welcome.inflight,
            replay: if welcome.resumed {
                Replay::Resume
            } else {
                Replay::Full
            },
            now: desk.clock(),
        };
        self.say(&said, desk);
    }

    fn send(&mut self, one: &Outgoing<'_>, desk: &mut Desk<'_>) -> Taken {
        let shared = desk.encoded(self.encoding, one.message);
        if !desk.has_room(shared.len()) {
            return Taken::Full;
        }
        let rest = shared.slice(1.min(shared.len())..);
        desk.shared_frame(
            |out| outgoing::open_msg(self.encoding, &shared, one.place, one.dup, out),
            rest,
        );
        Taken::Sent
    }

    fn gap(&mut self, lost: u64, desk: &mut Desk<'_>) {
        self.say(&ServerMessage::Gap { lost }, desk);
    }

    fn recall(&mut self, id: MessageId, desk: &mut Desk<'_>) {
        // Who reads too slowly is told by the mark alone.
        if desk.has_room(outgoing::MARK_BYTES_MAX) {
            self.say(&ServerMessage::recall(id), desk);
        }
    }

    fn mark(&mut self, recalled: MessageId, one: &Outgoing<'_>, desk: &mut Desk<'_>) -> Taken {
        if !desk.has_room(outgoing::MARK_BYTES_MAX) {
            return Taken::Full;
        }
        let mark = ServerMessage::mark(recalled, one.place, one.message.id);
        self.say(&mark, desk);
        Taken::Sent
    }

    fn idle(&mut self, head: Cursor, desk: &mut Desk<'_>) {
        self.say(&ServerMessage::Idle { head: Place(head) }, desk);
    }

    fn followed(
        &mut self,
        topic: &Topic,
        result: Result<(), (&'static str, &'static str)>,
        desk: &mut Desk<'_>,
    ) {
        match result {
            Ok(()) => {
                self.say(&ServerMessage::SubOk { topic }, desk);
                desk.want();
            }
            Err((code, detail)) => self.say_error(code, detail, Some(topic), desk),
        }
    }

    fn ping(&mut self, desk: &mut Desk<'_>) {
        desk.websocket_ping();
    }

    fn drain(&mut self, after_ms: u64, desk: &mut Desk<'_>) {
        self.say(&ServerMessage::Drain { after_ms }, desk);
    }

    fn close(&mut self, farewell: &Farewell<'_>, desk: &mut Desk<'_>) -> u16 {
        if farewell.error {
            let error = ServerMessage::Error {
                code: farewell.word,
                msg: farewell.detail,
                fatal: true,
                topic: None,
            };
            self.say(&error, desk);
        }
        farewell.code
    }

    fn silence(&self, spread: u64, options: &Options) -> Silence {
        let ping = ticks(options.heartbeat_ms * spread / 100);
        Silence {
            ping_after: Some(ping),
            dead_after: Some(ping + ticks(options.heartbeat_grace_ms)),
        }
    }

    fn redelivers(&self) -> bool {
        true
    }
}
