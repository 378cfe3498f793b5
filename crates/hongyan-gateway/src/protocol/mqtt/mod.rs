//! MQTT 3.1.1 and 5.0 for devices: a client logs in with its device token and is sent its inbox with QoS 1; app servers
//! publish to topics of their app. It is a restricted server: topics outside of `hy/` do not exist here (the open
//! publish/subscribe space is a listener of its own, in `hongyan-mqtt`).
//!
//! The clauses in comments are those of the two standards.

use std::any::Any;
use std::sync::Arc;

use hongyan_core::port::Reader;
use hongyan_core::{AppId, Cursor, MessageId, Timestamp, Topic};
use hongyan_mqtt::packet::{
    ConnAck, DecodeError, Disconnect, Limits, Packet, ReasonCode, Sender, Version, decode,
};

use self::connect::{Found, Greeting};
use self::flight::Flights;
use self::incoming::Published;
use self::subscribe::Waiting;
use self::subscriptions::Subscriptions;
use super::websocket::close;
use super::{
    Desk, Farewell, Input, Kind, Outgoing, Parked, Protocol, Silence, Speaker, Taken, Unanswered,
    Welcome,
};
use crate::gate::Permit;
use crate::gateway::{AdoptError, GatewayHandle, Socket};
use crate::options::{Options, TICK_MS};
use crate::wheel::Tick;

mod connect;
mod deliver;
mod flight;
mod incoming;
mod publish;
mod serve;
mod subscribe;
mod subscriptions;

pub use publish::{Publish, PublishError};

/// QoS 1 publications of one client that wait for their acknowledgement: what CONNACK says.
const RECEIVE_MAX: u16 = 20;
/// Topic aliases that a client may make.
const ALIASES_MAX: u16 = 10;
/// Acknowledged entries that are remembered of a client that has entries read again.
const LANDED_MAX: usize = 256;
/// Silence of a 3.1.1 client that asked for none, seconds.
const SILENCE_S_MAX: u32 = 1800;

/// The MQTT side of a gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mqtt {
    handle: GatewayHandle,
    server: Arc<Server>,
}

/// What all MQTT connections share.
#[derive(Debug)]
pub(crate) struct Server {
    publisher: Arc<dyn Publish>,
}

impl Server {
    pub(crate) fn speaker(self: &Arc<Self>) -> Speaker {
        Speaker::Other(Box::new(Client::new(Arc::clone(self))))
    }
}

impl Mqtt {
    /// Lets a gateway speak MQTT: on sockets that [`Mqtt::adopt`] is given, and behind the WebSocket door `/mqtt`.
    #[must_use]
    pub fn new(handle: GatewayHandle, publisher: Arc<dyn Publish>) -> Self {
        let server = Arc::new(Server { publisher });
        let _ = handle.spoken().mqtt.set(Arc::clone(&server));
        Self { handle, server }
    }

    /// Takes over a connection of an MQTT listener, past its TLS handshake.
    ///
    /// # Errors
    /// [`AdoptError`] when the socket cannot be used; it is dropped then.
    pub fn adopt(&self, socket: Socket, permit: Permit) -> Result<(), AdoptError> {
        let speaker = (self.server.speaker(), false);
        self.handle
            .adopt_speaker(socket, bytes::Bytes::new(), speaker, permit)
    }
}

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// CONNECT is awaited.
    New,
    /// The store was asked who it is.
    Asked,
    /// CONNACK was said: a device.
    Device,
    /// CONNACK was said: an app's server.
    Server,
}

/// What of a session outlives its connection.
#[derive(Debug)]
struct Kept {
    subscriptions: Subscriptions,
    flights: Flights,
    /// When it is over.
    until: Timestamp,
}

/// What few connections need.
#[derive(Debug, Default)]
struct Rare {
    /// Until the registry has answered.
    waiting: Vec<Waiting>,
    /// Topic aliases of the client, at most [`ALIASES_MAX`].
    aliases: Vec<(u16, Box<str>)>,
    /// What was acknowledged last, at most [`LANDED_MAX`], of a client that has entries read again: the store may not know it yet.
    landed: Vec<MessageId>,
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.aliases.is_empty() && self.landed.is_empty()
    }
}

/// One connection.
#[derive(Debug)]
struct Client {
    server: Arc<Server>,
    /// Bytes of a packet that is not whole yet.
    partial: Vec<u8>,
    stage: Stage,
    version: Version,
    /// What this side says last, when it is more than the close code tells.
    last: Option<ReasonCode>,
    keep_alive_s: u32,
    expiry_s: u32,
    packet_bytes_max: u32,
    foreign: u8,
    /// Publications of a server that the intake has not answered.
    pending: u16,
    greeting: Option<Box<Greeting>>,
    subscriptions: Subscriptions,
    flights: Flights,
    rare: Option<Box<Rare>>,
    /// The app, for a server.
    app: Option<Box<AppId>>,
    /// Where a clean session began: nothing before it is its own.
    begins: Option<Cursor>,
    /// Entries were not sent because nothing subscribed to them.
    passed_over: bool,
    /// That was so once: entries may be read again.
    rereads: bool,
}

impl Client {
    fn new(server: Arc<Server>) -> Self {
        Self {
            server,
            partial: Vec::new(),
            stage: Stage::New,
            version: Version::V311,
            last: None,
            keep_alive_s: 0,
            expiry_s: 0,
            packet_bytes_max: u32::MAX,
            foreign: 0,
            pending: 0,
            greeting: None,
            subscriptions: Subscriptions::default(),
            flights: Flights::default(),
            rare: None,
            app: None,
            begins: None,
            passed_over: false,
            rereads: false,
        }
    }

    fn is_v5(&self) -> bool {
        self.version == Version::V5
    }

    fn say(&self, packet: &Packet<'_>, desk: &mut Desk<'_>) {
        desk.binary(|out| {
            // What this side sends is short: only a payload could be too long, and its length is checked before.
            let _ = packet.encode(self.version, out);
        });
    }

    /// Ends the connection with a reason of its own.
    fn fail(&mut self, reason: ReasonCode, word: &'static str, desk: &mut Desk<'_>) {
        self.last.get_or_insert(reason);
        desk.refuse(close::PROTOCOL, word, reason.text());
    }

    fn take(&mut self, bytes: &[u8], desk: &mut Desk<'_>) {
        if self.stage == Stage::Asked {
            // A client need not wait for CONNACK; what it sends on is looked at behind it [3.1.4-5].
            if self.partial.len() + bytes.len() > Limits::DEFAULT.connect_bytes_max as usize {
                self.fail(ReasonCode::PACKET_TOO_LARGE, "too_much", desk);
            } else {
                self.partial.extend_from_slice(bytes);
            }
            return;
        }
        // Most reads hold whole packets: they are looked at where they are.
        let mut held = std::mem::take(&mut self.partial);
        let mut rest = if held.is_empty() {
            bytes
        } else {
            held.extend_from_slice(bytes);
            &held
        };
        let limits = Limits::DEFAULT;
        while !rest.is_empty() && !desk.is_ending() && self.stage != Stage::Asked {
            let version = (self.stage != Stage::New).then_some(self.version);
            match decode(rest, Sender::Client, version, &limits) {
                Ok(Some((packet, used))) => {
                    self.packet(&packet, desk);
                    rest = &rest[used..];
                }
                Ok(None) => break,
                Err(error) => {
                    self.malformed(&error, desk);
                    return;
                }
            }
        }
        if rest.is_empty() || desk.is_ending() {
            return;
        }
        // A packet that comes in many pieces is not copied for each of them.
        self.partial = if rest.len() == held.len() {
            held
        } else {
            rest.to_vec()
        };
    }

    fn malformed(&mut self, error: &DecodeError, desk: &mut Desk<'_>) {
        if self.stage == Stage::New {
            desk.binary(|out| {
                error.answer_connect(out);
            });
            // The answer is said already, or none may be.
            self.stage = Stage::Asked;
            self.last = Some(ReasonCode::SUCCESS);
            desk.close(close::PROTOCOL, "malformed", error.what);
        } else {
            self.fail(error.reason, error.what, desk);
        }
    }

    fn packet(&mut self, packet: &Packet<'_>, desk: &mut Desk<'_>) {
        if !desk.spend() {
            return;
        }
        match (self.stage, packet) {
            (Stage::New, Packet::Connect(connect)) => self.connect(connect, desk),
            (Stage::New | Stage::Asked, _) => {
                self.fail(ReasonCode::PROTOCOL_ERROR, "bad_order", desk);
            }
            (_, Packet::Connect(_)) => self.fail(ReasonCode::PROTOCOL_ERROR, "bad_order", desk),
            (_, Packet::PingReq) => {
                self.heard(desk);
                self.say(&Packet::PingResp, desk);
            }
            (_, Packet::Disconnect(goodbye)) => self.goodbye(goodbye, desk),
            (_, Packet::Auth(_)) => self.fail(ReasonCode::PROTOCOL_ERROR, "bad_order", desk),
            (_, Packet::Publish(publication)) => self.published(publication, desk),
            (Stage::Device, Packet::PubAck(ack)) => self.puback(ack, desk),
            (_, Packet::Subscribe(subscribe)) => self.subscribe(subscribe, desk),
            (_, Packet::Unsubscribe(unsubscribe)) => self.unsubscribe(unsubscribe, desk),
            // Acknowledgements of what was never sent: ids that are not known are ignored.
            _ => {}
        }
    }

    fn goodbye(&mut self, goodbye: &Disconnect<'_>, desk: &mut Desk<'_>) {
        if let Some(expiry_s) = goodbye.properties.session_expiry() {
            // From none to some is not allowed [3.14.2-2].
            if self.expiry_s == 0 && expiry_s != 0 {
                self.fail(ReasonCode::PROTOCOL_ERROR, "bad_expiry", desk);
                return;
            }
            self.expiry_s = expiry_s;
        }
        self.heard(desk);
        desk.goodbye("disconnect");
    }
}

impl Protocol for Client {
    fn kind(&self) -> Kind {
        Kind::Mqtt
    }

    fn hear(&mut self, input: Input<'_>, desk: &mut Desk<'_>) {
        match input {
            Input::Bytes(bytes) | Input::Binary(bytes) => self.take(bytes, desk),
            // [6.0.0-1]
            Input::Text(_) => desk.close(
                close::UNSUPPORTED,
                "unsupported",
                "MQTT is spoken in binary messages",
            ),
        }
    }

    fn welcome(&mut self, welcome: &Welcome<'_>, desk: &mut Desk<'_>) {
        self.welcomed(welcome, desk);
    }

    fn takes(&self) -> bool {
        !self.subscriptions.is_empty() && !self.flights.is_full()
    }

    fn send(&mut self, one: &Outgoing<'_>, desk: &mut Desk<'_>) -> Taken {
        self.deliver(one, desk)
    }

    fn recall(&mut self, id: MessageId, _desk: &mut Desk<'_>) {
        // It is told by its mark; the message only must not come again.
        self.flights.retire(&[id]);
    }

    fn mark(&mut self, recalled: MessageId, one: &Outgoing<'_>, desk: &mut Desk<'_>) -> Taken {
        self.flights.retire(&[recalled]);
        self.deliver(one, desk)
    }

    fn followed(
        &mut self,
        topic: &Topic,
        result: Result<(), (&'static str, &'static str)>,
        desk: &mut Desk<'_>,
    ) {
        self.followed_topic(topic, result, desk);
    }

    fn told(&mut self, what: Box<dyn Any + Send>, desk: &mut Desk<'_>) {
        let what = match what.downcast::<Found>() {
            Ok(found) => return self.found(*found, desk),
            Err(other) => other,
        };
        let what = match what.downcast::<subscribe::ReadFrom>() {
            Ok(from) => return self.reads_from(&from, desk),
            Err(other) => other,
        };
        match what.downcast::<Published>() {
            Ok(done) => self.publish_done(*done, desk),
            Err(other) if other.is::<Unanswered>() => {
                self.fail(ReasonCode::SERVER_BUSY, "unavailable", desk);
            }
            Err(_) => {}
        }
    }

    fn rebound(&mut self, _reader: &Arc<Reader>, _desk: &mut Desk<'_>) {
        self.flights.forget();
        self.begins = None;
        if let Some(rare) = &mut self.rare {
            rare.landed.clear();
        }
    }

    fn close(&mut self, farewell: &Farewell<'_>, desk: &mut Desk<'_>) -> u16 {
        let reason = self.last.unwrap_or(match (farewell.code, farewell.word) {
            (close::GOING_AWAY | close::RESTART, _) => ReasonCode::SERVER_SHUTTING_DOWN,
            (close::TRY_AGAIN, _) => ReasonCode::SERVER_UNAVAILABLE,
            (close::UNAUTHORIZED, _) => ReasonCode::BAD_USER_NAME_OR_PASSWORD,
            (close::FORBIDDEN, close::KICKED) => ReasonCode::ADMINISTRATIVE_ACTION,
            (close::FORBIDDEN | close::DEVICE_GONE, _) => ReasonCode::NOT_AUTHORIZED,
            (close::TOO_SLOW, "silent") => ReasonCode::KEEP_ALIVE_TIMEOUT,
            (close::TOO_SLOW, _) => ReasonCode::QUOTA_EXCEEDED,
            (close::TAKEN_OVER, _) => ReasonCode::SESSION_TAKEN_OVER,
            (close::RATE_LIMITED, _) => ReasonCode::MESSAGE_RATE_TOO_HIGH,
            (close::TOO_BIG, _) => ReasonCode::PACKET_TOO_LARGE,
            (close::NORMAL, _) => ReasonCode::SUCCESS,
            _ => ReasonCode::UNSPECIFIED,
        });
        if reason.is_error() {
            match self.stage {
                Stage::New => {}
                Stage::Asked => {
                    // 3.1.1 closes without a word where it has none for the reason.
                    if self.is_v5() || reason.return_code().is_some() {
                        let answer = ConnAck {
                            session_present: false,
                            reason,
                            properties: Default::default(),
                        };
                        self.say(&Packet::ConnAck(answer), desk);
                    }
                }
                Stage::Device | Stage::Server if self.is_v5() => {
                    self.say(&Packet::Disconnect(Disconnect::new(reason)), desk);
                }
                Stage::Device | Stage::Server => {}
            }
        }
        match farewell.code {
            close::PROTOCOL
            | close::UNSUPPORTED
            | close::TOO_BIG
            | close::NORMAL
            | close::GOING_AWAY => farewell.code,
            _ => close::NORMAL,
        }
    }

    fn park(&mut self, _clean: bool, now: Timestamp) -> Option<Parked> {
        if self.stage != Stage::Device || self.expiry_s == 0 {
            return None;
        }
        let kept = Kept {
            subscriptions: std::mem::take(&mut self.subscriptions),
            flights: std::mem::take(&mut self.flights),
            until: Timestamp(now.millis().saturating_add(i64::from(self.expiry_s) * 1000)),
        };
        Some(Box::new(kept))
    }

    fn message_bytes_max(&self, live: bool, _options: &Options) -> usize {
        // A WebSocket message may hold several packets, or a part of one.
        if live {
            Limits::DEFAULT.packet_bytes_max as usize
        } else {
            Limits::DEFAULT.connect_bytes_max as usize
        }
    }

    fn silence(&self, _spread: u64, _options: &Options) -> Silence {
        let seconds = if self.keep_alive_s == 0 {
            SILENCE_S_MAX
        } else {
            // One and a half times [3.1.2-22].
            self.keep_alive_s + self.keep_alive_s.div_ceil(2)
        };
        let ticks = u64::from(seconds) * 1000 / TICK_MS;
        Silence {
            ping_after: None,
            dead_after: Some(Tick::try_from(ticks).unwrap_or(Tick::MAX / 4)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_client_is_small() {
        // One for each MQTT connection, beside the connection's own 224 bytes: three empty lists of 24 bytes (bytes of a
        // packet, flights now and before), the place where a clean session began (40), and words.
        let bytes = std::mem::size_of::<Client>();
        assert!(bytes <= 216, "{bytes}");
    }
}
