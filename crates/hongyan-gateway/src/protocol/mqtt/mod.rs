//! MQTT 3.1.1 and 5.0 for devices: a client logs in with its device token and is sent its inbox with QoS 1; app servers
//! publish to topics of their app. It is a restricted server: topics outside of `hy/` do not exist here (the open
//! publish/subscribe space is a listener of its own, in `hongyan-mqtt`).
//!
//! The clauses in comments are those of the two standards.

use std::any::Any;
use std::sync::Arc;

use hongyan_core::app::{Key, KeyKind, Scope};
use hongyan_core::port::Reader;
use hongyan_core::session::AppState;
use hongyan_core::{AppId, Cursor, Device, MessageId, StoreError, Timestamp, Topic};
use hongyan_mqtt::packet::{
    Ack, ConnAck, Connect, DecodeError, Disconnect, Limits, Packet, Property, PropertyList,
    Publish as Publication, QoS, ReasonCode, Sender, SubAck, Subscribe, UnsubAck, Unsubscribe,
    Version, decode,
};

use self::flight::Flights;
use self::subscriptions::{Subscriptions, Wish};
use super::hongyan::incoming::{self, ClientMessage};
use super::hongyan::{Encoding, outgoing};
use super::websocket::close;
use super::{
    Desk, Farewell, Hello, Input, Kind, Outgoing, Parked, Proof, Protocol, Silence, Speaker, Taken,
    Unanswered, Welcome,
};
use crate::gate::Permit;
use crate::gateway::{AdoptError, GatewayHandle, Ports, Socket};
use crate::options::{Options, TICK_MS};
use crate::wheel::Tick;

mod flight;
mod publish;
mod serve;
mod subscriptions;

pub use publish::{Publish, PublishError};

/// User name of an app's server; its password is a server key with the scope `send`.
const SERVER: &str = "server";
/// QoS 1 publications of one client that wait for their acknowledgement: what CONNACK says.
const RECEIVE_MAX: u16 = 20;
/// Entries in flight towards a 5.0 client, whatever it allows; and towards a 3.1.1 client, which cannot say.
const INFLIGHT_MAX: u16 = 100;
const INFLIGHT_V3: u16 = 20;
/// Topic aliases that a client may make.
const ALIASES_MAX: u16 = 10;
/// Longest time between two packets of a client, seconds; longer ones are shortened in 5.0.
const KEEP_ALIVE_S_MAX: u16 = 1200;
/// Silence of a 3.1.1 client that asked for none, seconds.
const SILENCE_S_MAX: u32 = 1800;
/// Publications to foreign topics after which a 3.1.1 client, which cannot be told, is closed [3.3.5-2].
const FOREIGN_MAX: u8 = 10;
/// Longest topic name, bytes and levels.
const TOPIC_BYTES_MAX: usize = 512;
const TOPIC_LEVELS_MAX: usize = 16;

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

/// What CONNECT said, until it is answered.
#[derive(Debug)]
struct Greeting {
    client_id: Box<str>,
    user: Box<str>,
    clean: bool,
    /// The keep alive that the client asked for.
    asked_s: u16,
}

/// What of a session outlives its connection.
#[derive(Debug)]
struct Kept {
    subscriptions: Subscriptions,
    flights: Flights,
    /// When it is over.
    until: Timestamp,
}

/// A SUBSCRIBE or UNSUBSCRIBE that waits for the registry.
#[derive(Debug)]
struct Waiting {
    packet_id: u16,
    unsubscribe: bool,
    codes: Vec<u8>,
    /// Topics that are not answered yet, with their places in `codes`.
    open: Vec<(Topic, usize, Wish)>,
}

/// What few connections need.
#[derive(Debug, Default)]
struct Rare {
    /// Until the registry has answered.
    waiting: Vec<Waiting>,
    /// Topic aliases of the client, at most [`ALIASES_MAX`].
    aliases: Vec<(u16, Box<str>)>,
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
}

/// Answers of the store.
enum Found {
    Device(Box<Device>),
    Server(AppId),
    Nobody,
    Away(StoreError),
}

/// An answer of the intake to a publication.
struct Published {
    packet_id: u16,
    result: Result<MessageId, PublishError>,
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
        if !rest.is_empty() && !desk.is_ending() {
            self.partial = rest.to_vec();
        }
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

    /// Any further packet says that what was sent with QoS 0 has left.
    fn heard(&mut self, desk: &mut Desk<'_>) {
        let ids = self.flights.take_unacknowledgeable();
        if !ids.is_empty() {
            desk.ack_ids(ids);
        }
    }

    fn connect(&mut self, connect: &Connect<'_>, desk: &mut Desk<'_>) {
        self.version = connect.version;
        self.stage = Stage::Asked;
        let properties = connect.properties;
        if properties.auth_method().is_some() {
            self.fail(ReasonCode::BAD_AUTHENTICATION_METHOD, "bad_auth", desk);
            return;
        }
        if let Some(will) = &connect.will {
            let refused = match will.topic {
                _ if will.retain => Some(ReasonCode::RETAIN_NOT_SUPPORTED),
                _ if will.qos == QoS::ExactlyOnce => Some(ReasonCode::QOS_NOT_SUPPORTED),
                "hy/me/status" => None,
                _ => Some(ReasonCode::NOT_AUTHORIZED),
            };
            if let Some(reason) = refused {
                self.fail(reason, "bad_will", desk);
                return;
            }
        }
        let (Some(user), Some(password)) = (connect.user_name, connect.password) else {
            self.fail(ReasonCode::BAD_USER_NAME_OR_PASSWORD, "unauthorized", desk);
            return;
        };
        self.expiry_s = match self.version {
            // 3.1.1 has no expiry: the session is kept or not.
            Version::V311 => {
                if connect.clean_start {
                    0
                } else {
                    u32::MAX
                }
            }
            Version::V5 => properties.session_expiry().unwrap_or(0),
        };
        self.packet_bytes_max = properties.maximum_packet_size().unwrap_or(u32::MAX);
        let receive_max = match self.version {
            Version::V311 => INFLIGHT_V3,
            Version::V5 => properties.receive_maximum().unwrap_or(u16::MAX),
        };
        self.flights.limit(receive_max.min(INFLIGHT_MAX));
        self.greeting = Some(Box::new(Greeting {
            client_id: connect.client_id.into(),
            user: user.into(),
            clean: connect.clean_start,
            asked_s: connect.keep_alive,
        }));
        let hash = ring::digest::digest(&ring::digest::SHA256, password);
        let hash: [u8; 32] = hash.as_ref().try_into().unwrap_or_default();
        let server = user == SERVER;
        let asked = desk.ask(move |ports| async move { who(&ports, server, hash).await });
        if !asked {
            self.fail(ReasonCode::SERVER_BUSY, "busy", desk);
        }
    }

    fn found(&mut self, found: Found, desk: &mut Desk<'_>) {
        let Some(greeting) = &self.greeting else {
            return;
        };
        match found {
            Found::Device(device) => {
                let client_id = greeting.client_id.as_ref();
                if !client_id.is_empty() && client_id != device.id.as_str() {
                    self.fail(ReasonCode::CLIENT_ID_NOT_VALID, "bad_client_id", desk);
                    return;
                }
                if !is_user(&greeting.user, &device) {
                    self.fail(ReasonCode::BAD_USER_NAME_OR_PASSWORD, "unauthorized", desk);
                    return;
                }
                desk.hello(Hello {
                    proof: Proof::Device {
                        app: device.app,
                        device: device.id,
                        secret_hash: device.secret_hash,
                    },
                    cursor: None,
                    inflight: Some(self.flights.limit_of()),
                    state: AppState::Foreground,
                });
            }
            Found::Server(app) => {
                self.stage = Stage::Server;
                self.app = Some(Box::new(app));
                self.expiry_s = 0;
                desk.stay();
                self.connack(false, None, desk);
            }
            Found::Nobody => {
                self.fail(ReasonCode::BAD_USER_NAME_OR_PASSWORD, "unauthorized", desk);
            }
            Found::Away(error) => {
                tracing::warn!(%error, "an MQTT client could not be looked up");
                self.fail(ReasonCode::SERVER_UNAVAILABLE, "unavailable", desk);
            }
        }
    }

    fn connack(&mut self, session_present: bool, device: Option<&str>, desk: &mut Desk<'_>) {
        let Some(greeting) = self.greeting.take() else {
            return;
        };
        let too_long = greeting.asked_s == 0 || greeting.asked_s > KEEP_ALIVE_S_MAX;
        let mut list = PropertyList::new();
        if self.is_v5() {
            let assigned = device.filter(|_| greeting.client_id.is_empty());
            let properties = [
                Some(Property::ReceiveMaximum(RECEIVE_MAX)),
                Some(Property::MaximumQos(1)),
                Some(Property::RetainAvailable(false)),
                Some(Property::MaximumPacketSize(
                    Limits::DEFAULT.packet_bytes_max,
                )),
                Some(Property::TopicAliasMaximum(ALIASES_MAX)),
                Some(Property::SharedAvailable(false)),
                too_long.then_some(Property::ServerKeepAlive(KEEP_ALIVE_S_MAX)),
                assigned.map(Property::AssignedClientId),
            ];
            for property in properties.into_iter().flatten() {
                // Short texts: they fit.
                let _ = list.push(property);
            }
            self.keep_alive_s = u32::from(if too_long {
                KEEP_ALIVE_S_MAX
            } else {
                greeting.asked_s
            });
        } else {
            self.keep_alive_s = u32::from(greeting.asked_s);
        }
        let answer = ConnAck {
            session_present,
            reason: ReasonCode::SUCCESS,
            properties: list.as_properties(),
        };
        self.say(&Packet::ConnAck(answer), desk);
        desk.rearm();
        let sent_on = std::mem::take(&mut self.partial);
        self.take(&sent_on, desk);
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

    fn puback(&mut self, ack: &Ack<'_>, desk: &mut Desk<'_>) {
        self.heard(desk);
        let Some(id) = self.flights.acked(ack.packet_id) else {
            return;
        };
        if ack.reason.is_error() {
            desk.reject(id);
        } else {
            desk.ack_ids(vec![id]);
        }
    }

    fn subscribe(&mut self, subscribe: &Subscribe<'_>, desk: &mut Desk<'_>) {
        self.heard(desk);
        let id = subscribe.properties.subscription_ids().next();
        let mut waiting = Waiting {
            packet_id: subscribe.packet_id,
            unsubscribe: false,
            codes: Vec::new(),
            open: Vec::new(),
        };
        let mut read_again = false;
        for filter in subscribe.filters.iter() {
            let wish = Wish {
                qos: filter.options.qos.min(QoS::AtLeastOnce),
                id,
            };
            let place = waiting.codes.len();
            let code = match subscriptions::place(filter.filter) {
                _ if self.stage == Stage::Server => ReasonCode::NOT_AUTHORIZED.0,
                Err(reason) => reason.0,
                Ok(_) if self.subscriptions.is_full() => ReasonCode::QUOTA_EXCEEDED.0,
                Ok(subscriptions::Place::Topic(topic)) => {
                    if desk.follow(&topic, true) {
                        waiting.open.push((topic, place, wish));
                        wish.qos as u8
                    } else {
                        ReasonCode::SERVER_BUSY.0
                    }
                }
                Ok(subscriptions::Place::Inbox) => {
                    self.subscriptions.add(filter.filter, wish);
                    read_again = true;
                    wish.qos as u8
                }
            };
            waiting.codes.push(code);
        }
        self.answer_or_wait(waiting, desk);
        if read_again {
            self.read_again(desk);
        }
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>, desk: &mut Desk<'_>) {
        self.heard(desk);
        let mut waiting = Waiting {
            packet_id: unsubscribe.packet_id,
            unsubscribe: true,
            codes: Vec::new(),
            open: Vec::new(),
        };
        for filter in unsubscribe.filters.iter() {
            let known = self.subscriptions.remove(filter);
            let place = waiting.codes.len();
            if known && let Ok(subscriptions::Place::Topic(topic)) = subscriptions::place(filter) {
                let wish = Wish {
                    qos: QoS::AtMostOnce,
                    id: None,
                };
                if desk.follow(&topic, false) {
                    waiting.open.push((topic, place, wish));
                }
            }
            waiting.codes.push(if known {
                ReasonCode::SUCCESS.0
            } else {
                ReasonCode::NO_SUBSCRIPTION_EXISTED.0
            });
        }
        self.answer_or_wait(waiting, desk);
    }

    fn answer_or_wait(&mut self, waiting: Waiting, desk: &mut Desk<'_>) {
        if waiting.open.is_empty() {
            self.answer_wish(&waiting, desk);
        } else {
            self.rare.get_or_insert_default().waiting.push(waiting);
        }
    }

    fn answer_wish(&self, waiting: &Waiting, desk: &mut Desk<'_>) {
        let (packet_id, codes) = (waiting.packet_id, waiting.codes.as_slice());
        let properties = Default::default();
        let packet = if waiting.unsubscribe {
            Packet::UnsubAck(UnsubAck {
                packet_id,
                properties,
                codes,
            })
        } else {
            Packet::SubAck(SubAck {
                packet_id,
                properties,
                codes,
            })
        };
        self.say(&packet, desk);
    }

    /// What was passed over may be wanted now.
    fn read_again(&mut self, desk: &mut Desk<'_>) {
        if std::mem::take(&mut self.passed_over) {
            desk.restart(self.begins);
        } else {
            desk.want();
        }
    }

    fn published(&mut self, publication: &Publication<'_>, desk: &mut Desk<'_>) {
        self.heard(desk);
        if publication.retain && self.is_v5() {
            self.fail(ReasonCode::RETAIN_NOT_SUPPORTED, "bad_publish", desk);
            return;
        }
        if publication.qos == QoS::ExactlyOnce {
            self.fail(ReasonCode::QOS_NOT_SUPPORTED, "bad_publish", desk);
            return;
        }
        let topic = match self.real_topic(publication) {
            Ok(topic) => topic,
            Err(reason) => {
                self.fail(reason, "bad_topic", desk);
                return;
            }
        };
        let reason = match (self.stage, topic.as_ref()) {
            (Stage::Server, topic) => match topic.strip_prefix("hy/t/").map(Topic::parse) {
                Some(Ok(topic)) => {
                    self.publish(topic, publication, desk);
                    return;
                }
                Some(Err(_)) => ReasonCode::TOPIC_NAME_INVALID,
                None => ReasonCode::NOT_AUTHORIZED,
            },
            (_, "hy/me/ack") => self.client_message("ack", publication.payload, desk),
            (_, "hy/me/event") => self.client_message("event", publication.payload, desk),
            (_, "hy/me/status") => ReasonCode::SUCCESS,
            _ => ReasonCode::NOT_AUTHORIZED,
        };
        if reason == ReasonCode::NOT_AUTHORIZED && !self.is_v5() {
            self.foreign += 1;
            if self.foreign >= FOREIGN_MAX {
                self.fail(reason, "foreign_topic", desk);
                return;
            }
        }
        self.puback_with(publication.packet_id, reason, desk);
    }

    fn puback_with(&self, packet_id: u16, reason: ReasonCode, desk: &mut Desk<'_>) {
        if packet_id != 0 {
            self.say(&Packet::PubAck(Ack::new(packet_id, reason)), desk);
        }
    }

    /// The topic that is meant, by name or alias.
    fn real_topic(&mut self, publication: &Publication<'_>) -> Result<Box<str>, ReasonCode> {
        let topic = publication.topic;
        if topic.len() > TOPIC_BYTES_MAX || topic.split('/').count() > TOPIC_LEVELS_MAX {
            return Err(ReasonCode::TOPIC_NAME_INVALID);
        }
        let Some(alias) = publication.properties.topic_alias() else {
            return Ok(topic.into());
        };
        if alias == 0 || alias > ALIASES_MAX {
            return Err(ReasonCode::TOPIC_ALIAS_INVALID);
        }
        let aliases = &mut self.rare.get_or_insert_default().aliases;
        if !topic.is_empty() {
            aliases.retain(|(known, _)| *known != alias);
            aliases.push((alias, topic.into()));
        }
        let known = aliases.iter().find(|(known, _)| *known == alias);
        known
            .map(|(_, topic)| topic.clone())
            .ok_or(ReasonCode::PROTOCOL_ERROR)
    }

    /// A client message as it is said over WebSocket, without its type.
    fn client_message(&mut self, t: &str, payload: &[u8], desk: &mut Desk<'_>) -> ReasonCode {
        let Some(rest) = payload.trim_ascii_start().strip_prefix(b"{") else {
            return ReasonCode::PAYLOAD_FORMAT_INVALID;
        };
        let mut whole = format!("{{\"t\":\"{t}\",").into_bytes();
        whole.extend_from_slice(rest);
        match incoming::parse(Encoding::Json, &whole) {
            Ok(ClientMessage::AckUpto(place)) => desk.ack_upto(place),
            Ok(ClientMessage::AckIds(ids)) => {
                self.flights.forget_ids(&ids);
                desk.ack_ids(ids);
            }
            Ok(ClientMessage::Event {
                id: Some(message),
                stage,
                at,
            }) => desk.event(message, stage, at),
            Ok(ClientMessage::Event { id: None, .. }) => {}
            _ => return ReasonCode::PAYLOAD_FORMAT_INVALID,
        }
        ReasonCode::SUCCESS
    }

    /// A server publishes to a topic of its app.
    fn publish(&mut self, topic: Topic, publication: &Publication<'_>, desk: &mut Desk<'_>) {
        let Some(app) = self.app.as_deref().cloned() else {
            return;
        };
        if self.pending >= RECEIVE_MAX {
            self.fail(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED, "too_many", desk);
            return;
        }
        let packet_id = publication.packet_id;
        let ttl_s = publication.properties.message_expiry();
        let payload = publication.payload.to_vec();
        let publisher = Arc::clone(&self.server.publisher);
        let asked = desk.ask(move |_| async move {
            let result = publisher.publish(&app, topic, &payload, ttl_s).await;
            Published { packet_id, result }
        });
        if asked {
            self.pending += 1;
        } else {
            self.puback_with(packet_id, ReasonCode::QUOTA_EXCEEDED, desk);
        }
    }

    fn publish_done(&mut self, done: Published, desk: &mut Desk<'_>) {
        self.pending = self.pending.saturating_sub(1);
        match done.result {
            Ok(_) => self.puback_with(done.packet_id, ReasonCode::SUCCESS, desk),
            Err(PublishError::Invalid(why)) => {
                tracing::debug!(%why, "a publication over MQTT is no message");
                if self.is_v5() {
                    self.puback_with(done.packet_id, ReasonCode::PAYLOAD_FORMAT_INVALID, desk);
                } else {
                    self.fail(ReasonCode::PAYLOAD_FORMAT_INVALID, "bad_publish", desk);
                }
            }
            // Unacknowledged: the client sends it again when it comes back [4.4.0-1].
            Err(PublishError::Store(error)) => {
                tracing::warn!(%error, "a publication over MQTT was not stored");
                self.fail(ReasonCode::SERVER_BUSY, "unavailable", desk);
            }
        }
    }
}

/// Whose password it is.
async fn who(ports: &Ports, server: bool, hash: [u8; 32]) -> Found {
    if server {
        return match ports.registry.key_by_hash(&hash).await {
            Ok(Some(Key {
                kind: KeyKind::Server,
                app: Some(app),
                scopes,
                ..
            })) if scopes.contains(&Scope::Send) => Found::Server(app),
            Ok(_) => Found::Nobody,
            Err(error) => Found::Away(error),
        };
    }
    match ports.registry.device_by_secret(&hash).await {
        Ok(Some(device)) => Found::Device(Box::new(device)),
        Ok(None) => Found::Nobody,
        Err(error) => Found::Away(error),
    }
}

/// Whether a user name is the device's: its user (`user` or `user@app`), or its own id while it has none.
fn is_user(name: &str, device: &Device) -> bool {
    let id = device
        .user
        .as_ref()
        .map_or(device.id.as_str(), |user| user.as_str());
    name == id
        || name
            .rsplit_once('@')
            .is_some_and(|(user, app)| user == id && app == device.app.as_str())
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
        self.stage = Stage::Device;
        let clean = self.greeting.as_ref().is_none_or(|greeting| greeting.clean);
        let now = desk.clock();
        let kept = desk
            .parked()
            .and_then(|parked| parked.downcast::<Kept>().ok())
            .filter(|kept| !clean && kept.until > now);
        let present = kept.is_some();
        if let Some(kept) = kept {
            let Kept {
                subscriptions,
                flights,
                ..
            } = *kept;
            self.subscriptions = subscriptions;
            self.flights.resume(flights);
        }
        if clean {
            // What waits is for the device's other ways.
            self.begins = Some(welcome.head);
            desk.restart(self.begins);
        }
        let device = welcome.reader.device.clone();
        self.connack(present, Some(device.as_str()), desk);
    }

    fn takes(&self) -> bool {
        !self.subscriptions.is_empty()
    }

    fn send(&mut self, one: &Outgoing<'_>, desk: &mut Desk<'_>) -> Taken {
        if self.subscriptions.is_empty() {
            return Taken::Later;
        }
        let Some(found) = self.subscriptions.find(one.message) else {
            self.passed_over = true;
            return Taken::Skipped { rejected: false };
        };
        if self.flights.flies(one.message.id) {
            // Read again because of another subscription; it is repeated after a reconnect only [4.4.0-1].
            return Taken::Sent;
        }
        let raw = found.raw(one.message);
        // A push that goes out under its channel's name is the bytes that were posted.
        let shared = match raw {
            Some(push) => push.body.clone(),
            None => desk.encoded(Encoding::Json, one.message),
        };
        if !desk.has_room(shared.len() + 512) {
            return Taken::Full;
        }
        let id = one.message.id;
        let Some((packet_id, again)) = self.flights.take_off(id, found.qos) else {
            return Taken::Full;
        };
        let payload = match raw {
            Some(_) => shared,
            None => {
                let own = outgoing::msg_begin(Encoding::Json, &shared, one.place, one.dup);
                [own.as_slice(), &shared[1.min(shared.len())..]]
                    .concat()
                    .into()
            }
        };
        let mut list = PropertyList::new();
        if self.is_v5() {
            let left_ms = one.message.expires_at.millis() - desk.clock().millis();
            let left_s = u64::try_from(left_ms).unwrap_or(0).div_ceil(1000).max(1);
            let id_text = id.to_string();
            let properties = [
                Property::MessageExpiry(u32::try_from(left_s).unwrap_or(u32::MAX)),
                Property::UserProperty("id", &id_text),
            ];
            let what: &[Property<'_>] = match raw {
                Some(_) => &[],
                None => &[
                    Property::PayloadFormat(1),
                    Property::ContentType("application/json"),
                ],
            };
            let push = raw.map(subscriptions::properties).unwrap_or_default();
            let ids = found.ids.iter().map(|id| Property::SubscriptionId(*id));
            let all = properties.into_iter().chain(what.iter().copied());
            for property in all.chain(push).chain(ids) {
                let _ = list.push(property);
            }
        }
        let publication = Packet::Publish(Publication {
            dup: again,
            qos: found.qos,
            retain: false,
            topic: &found.topic,
            packet_id,
            properties: list.as_properties(),
            payload: &payload,
        });
        if publication.encoded_len(self.version) > self.packet_bytes_max as usize {
            // [3.1.2-24]: it is not sent, and counts as done with [3.1.2-25].
            self.flights.forget_ids(&[id]);
            return Taken::Skipped { rejected: true };
        }
        self.say(&publication, desk);
        Taken::Sent
    }

    fn recall(&mut self, id: MessageId, _desk: &mut Desk<'_>) {
        // There is no word for it; it only must not come again.
        self.flights.forget_ids(&[id]);
    }

    fn followed(
        &mut self,
        topic: &Topic,
        result: Result<(), (&'static str, &'static str)>,
        desk: &mut Desk<'_>,
    ) {
        let Some(rare) = &mut self.rare else { return };
        let all = &mut rare.waiting;
        let found = all.iter_mut().enumerate().find_map(|(at, waiting)| {
            let open = waiting.open.iter().position(|(one, ..)| one == topic)?;
            Some((at, waiting.open.remove(open)))
        });
        let Some((at, (topic, place, wish))) = found else {
            return;
        };
        let waiting = &mut all[at];
        match result {
            Ok(()) if !waiting.unsubscribe => {
                self.subscriptions.add(&format!("hy/t/{topic}"), wish);
            }
            Ok(()) => {}
            Err((word, _)) => {
                waiting.codes[place] = match word {
                    "too_many_topics" => ReasonCode::QUOTA_EXCEEDED.0,
                    _ => ReasonCode::UNSPECIFIED.0,
                };
            }
        }
        if waiting.open.is_empty() {
            let done = all.remove(at);
            if all.is_empty() && rare.aliases.is_empty() {
                self.rare = None;
            }
            self.answer_wish(&done, desk);
            if !done.unsubscribe {
                self.read_again(desk);
            }
        }
    }

    fn told(&mut self, what: Box<dyn Any + Send>, desk: &mut Desk<'_>) {
        let what = match what.downcast::<Found>() {
            Ok(found) => return self.found(*found, desk),
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
    }

    fn close(&mut self, farewell: &Farewell<'_>, desk: &mut Desk<'_>) -> u16 {
        let reason = self.last.unwrap_or(match (farewell.code, farewell.word) {
            (close::GOING_AWAY | close::RESTART, _) => ReasonCode::SERVER_SHUTTING_DOWN,
            (close::TRY_AGAIN, _) => ReasonCode::SERVER_UNAVAILABLE,
            (close::UNAUTHORIZED, _) => ReasonCode::BAD_USER_NAME_OR_PASSWORD,
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
            close::PROTOCOL | close::UNSUPPORTED | close::NORMAL | close::GOING_AWAY => {
                farewell.code
            }
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
