//! MQTT for devices (clauses MQ-n of the protocol notes), over real sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hongyan_core::port::{Owner, Presence as _};
use hongyan_core::{AppId, MessageId, StoreError, Topic};
use hongyan_gateway::{Mqtt, Publish, PublishError, Socket};
use hongyan_mqtt::packet::{
    Ack, Connect, Disconnect, FilterList, Limits, Packet, Properties, Property, PropertyList,
    Publish as Publication, QoS, ReasonCode, Sender, Subscribe, SubscribeOptions, Version, Will,
    decode,
};
use serde_json::Value;

use crate::rig::{FAR, Rig};
use crate::store::{app, device, user};

#[derive(Debug, Default)]
pub(crate) struct Press(Mutex<Vec<(AppId, Topic)>>);

#[async_trait]
impl Publish for Press {
    async fn publish(
        &self,
        app: &AppId,
        topic: Topic,
        payload: &[u8],
        _ttl_s: Option<u32>,
    ) -> Result<MessageId, PublishError> {
        if !payload.starts_with(b"{") {
            return Err(PublishError::Invalid("not an object".to_owned()));
        }
        if topic.to_string() == "away" {
            return Err(StoreError::Busy { retry_after_ms: 1 }.into());
        }
        let mut printed = self.0.lock().unwrap();
        printed.push((app.clone(), topic));
        Ok(MessageId(uuid::Uuid::from_u128(7)))
    }
}

/// A rig that speaks MQTT.
pub(crate) struct Post {
    pub(crate) rig: Rig,
    mqtt: Mqtt,
    press: Arc<Press>,
}

pub(crate) fn post() -> Post {
    let rig = Rig::new();
    let press = Arc::new(Press::default());
    let mqtt = Mqtt::new(rig.handle.clone(), Arc::clone(&press) as _);
    Post { rig, mqtt, press }
}

/// A packet that was heard, as far as tests look at it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Heard {
    ConnAck {
        present: bool,
        reason: u8,
        keep_alive: Option<u16>,
        client_id: Option<String>,
    },
    Publish {
        dup: bool,
        qos: u8,
        topic: String,
        id: u16,
        body: String,
        payload: Vec<u8>,
        /// User properties.
        said: Vec<(String, String)>,
        expiry: Option<u32>,
        ids: Vec<u32>,
    },
    PubAck(u16, u8),
    SubAck(Vec<u8>),
    UnsubAck(Vec<u8>),
    PingResp,
    Disconnect(u8),
    End,
}

pub(crate) struct Phone {
    pub(crate) stream: TcpStream,
    version: Version,
    bytes: Vec<u8>,
}

impl Post {
    pub(crate) fn phone(&self, version: Version) -> Phone {
        let (client, server) = self.rig.pair();
        let ip = server.peer_addr().unwrap().ip();
        let permit = self.rig.handle.admit(ip).unwrap();
        self.mqtt.adopt(Socket::Plain(server), permit).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        Phone {
            stream: client,
            version,
            bytes: Vec::new(),
        }
    }

    /// Connects as the device `d` of the user `u`.
    pub(crate) fn device(&self, version: Version, clean: bool, expiry_s: u32) -> (Phone, bool) {
        let mut phone = self.phone(version);
        let mut list = PropertyList::new();
        if version == Version::V5 && expiry_s > 0 {
            list.push(Property::SessionExpiry(expiry_s)).unwrap();
        }
        phone.say(&Packet::Connect(Connect {
            clean_start: clean,
            properties: list.as_properties(),
            ..connect(version)
        }));
        match phone.hear() {
            Heard::ConnAck {
                present, reason: 0, ..
            } => (phone, present),
            other => panic!("{other:?}"),
        }
    }

    /// The same, subscribed to all of its inbox.
    pub(crate) fn subscribed(&self, version: Version) -> Phone {
        let (mut phone, _) = self.device(version, false, 600);
        phone.subscribe(&["hy/me/inbox"], QoS::AtLeastOnce);
        assert_eq!(phone.hear(), Heard::SubAck(vec![1]));
        phone
    }
}

pub(crate) fn connect(version: Version) -> Connect<'static> {
    Connect {
        version,
        clean_start: true,
        keep_alive: 60,
        properties: Properties::NONE,
        client_id: "d",
        will: None,
        user_name: Some("u"),
        password: Some(b"token-d"),
    }
}

impl Phone {
    pub(crate) fn say(&mut self, packet: &Packet<'_>) {
        let mut out = Vec::new();
        packet.encode(self.version, &mut out).unwrap();
        self.stream.write_all(&out).unwrap();
    }

    pub(crate) fn subscribe(&mut self, filters: &[&str], qos: QoS) {
        let mut list = FilterList::default();
        for filter in filters {
            list.push(filter, SubscribeOptions::new(qos)).unwrap();
        }
        self.say(&Packet::Subscribe(Subscribe {
            packet_id: 9,
            properties: Properties::NONE,
            filters: list.as_filters(),
        }));
    }

    fn publish(&mut self, topic: &str, id: u16, payload: &[u8]) {
        self.say(&Packet::Publish(publication(topic, id, payload)));
    }

    pub(crate) fn ack(&mut self, id: u16) {
        self.say(&Packet::PubAck(Ack::new(id, ReasonCode::SUCCESS)));
    }

    pub(crate) fn hear(&mut self) -> Heard {
        self.look(heard).unwrap_or(Heard::End)
    }

    /// Looks at the next packet; nothing at the end of the connection.
    pub(crate) fn look<T>(&mut self, at: impl Fn(&Packet<'_>) -> T) -> Option<T> {
        loop {
            let limits = Limits::DEFAULT;
            let whole = decode(&self.bytes, Sender::Server, Some(self.version), &limits).unwrap();
            if let Some((packet, used)) = whole {
                let seen = at(&packet);
                self.bytes.drain(..used);
                return Some(seen);
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(n) => self.bytes.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Hears a delivered entry: its packet id, whether it is marked as a repetition, and its text.
    fn entry(&mut self) -> (u16, bool, String) {
        match self.hear() {
            Heard::Publish {
                id, dup, body, qos, ..
            } => {
                assert_eq!(qos, 1);
                (id, dup, body)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Says a ping and expects nothing but its answer.
    pub(crate) fn silent(&mut self) {
        self.say(&Packet::PingReq);
        assert_eq!(self.hear(), Heard::PingResp);
    }
}

fn publication<'a>(topic: &'a str, id: u16, payload: &'a [u8]) -> Publication<'a> {
    Publication {
        dup: false,
        qos: if id == 0 {
            QoS::AtMostOnce
        } else {
            QoS::AtLeastOnce
        },
        retain: false,
        topic,
        packet_id: id,
        properties: Properties::NONE,
        payload,
    }
}

fn heard(packet: &Packet<'_>) -> Heard {
    match packet {
        Packet::ConnAck(ack) => Heard::ConnAck {
            present: ack.session_present,
            reason: ack.reason.0,
            keep_alive: ack.properties.server_keep_alive(),
            client_id: ack.properties.assigned_client_id().map(str::to_owned),
        },
        Packet::Publish(one) => {
            let value: Value = serde_json::from_slice(one.payload).unwrap_or_default();
            let said = one.properties.user_properties();
            Heard::Publish {
                dup: one.dup,
                qos: one.qos as u8,
                topic: one.topic.to_owned(),
                id: one.packet_id,
                body: value["notification"]["body"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                payload: one.payload.to_vec(),
                said: said
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
                expiry: one.properties.message_expiry(),
                ids: one.properties.subscription_ids().collect(),
            }
        }
        Packet::PubAck(ack) => Heard::PubAck(ack.packet_id, ack.reason.0),
        Packet::SubAck(ack) => Heard::SubAck(ack.codes.to_vec()),
        Packet::UnsubAck(ack) => Heard::UnsubAck(ack.codes.to_vec()),
        Packet::PingResp => Heard::PingResp,
        Packet::Disconnect(end) => Heard::Disconnect(end.reason.0),
        other => panic!("{other:?}"),
    }
}

pub(crate) const BOTH: [Version; 2] = [Version::V311, Version::V5];

#[test]
fn mq_1_what_must_be_refused_ends_the_connection() {
    let post = post();
    let bad: [&[u8]; 6] = [
        &[0x90, 3, 0, 9, 0],          // SUBACK from a client
        &[0x82, 2, 0, 9],             // SUBSCRIBE without filters
        &[0x32, 5, 0, 1, b'a', 0, 0], // PUBLISH QoS 1 with id 0
        &[0x30, 3, 0, 1, b'#'],       // PUBLISH to a wildcard
        &[0xc1, 0],                   // wrong flags
        &[0x36, 5, 0, 1, b'a', 0, 1], // QoS 3
    ];
    for version in BOTH {
        for bytes in bad {
            let (mut phone, _) = post.device(version, true, 0);
            phone.stream.write_all(bytes).unwrap();
            let heard = phone.hear();
            match version {
                Version::V311 => assert_eq!(heard, Heard::End, "{bytes:x?}"),
                Version::V5 => {
                    assert!(
                        matches!(heard, Heard::Disconnect(0x81 | 0x82)),
                        "{bytes:x?}: {heard:?}"
                    );
                    assert_eq!(phone.hear(), Heard::End);
                }
            }
        }
        // Before CONNECT nothing is said.
        let mut phone = post.phone(version);
        phone.stream.write_all(&[0xc0, 0]).unwrap();
        assert_eq!(phone.hear(), Heard::End);
    }
}

#[test]
fn mq_2_packets_in_any_pieces() {
    let post = post();
    let mut whole = Vec::new();
    Packet::Connect(connect(Version::V5))
        .encode(Version::V5, &mut whole)
        .unwrap();
    for cut in 1..whole.len() {
        let mut phone = post.phone(Version::V5);
        phone.stream.write_all(&whole[..cut]).unwrap();
        phone.stream.flush().unwrap();
        phone.stream.write_all(&whole[cut..]).unwrap();
        assert!(matches!(phone.hear(), Heard::ConnAck { reason: 0, .. }));
    }
    let mut phone = post.phone(Version::V311);
    for byte in {
        let mut bytes = Vec::new();
        let packet = Packet::Connect(connect(Version::V311));
        packet.encode(Version::V311, &mut bytes).unwrap();
        bytes
    } {
        phone.stream.write_all(&[byte]).unwrap();
    }
    assert!(matches!(phone.hear(), Heard::ConnAck { reason: 0, .. }));
    phone
        .stream
        .write_all(&[0xc0, 0, 0xc0, 0, 0xc0, 0])
        .unwrap();
    for _ in 0..3 {
        assert_eq!(phone.hear(), Heard::PingResp);
    }
}

#[test]
fn mq_3_who_may_connect() {
    let post = post();
    let answer = |version, change: &dyn Fn(&mut Connect<'static>)| {
        let mut connect = connect(version);
        change(&mut connect);
        let mut phone = post.phone(version);
        phone.say(&Packet::Connect(connect));
        phone.hear()
    };
    let reason = |heard: Heard| match heard {
        Heard::ConnAck { reason, .. } => reason,
        other => panic!("{other:?}"),
    };
    for version in BOTH {
        assert_eq!(reason(answer(version, &|_| {})), 0);
        let bad = 0x86;
        assert_eq!(
            reason(answer(version, &|c| c.password = Some(b"forged"))),
            bad
        );
        assert_eq!(reason(answer(version, &|c| c.user_name = Some("v"))), bad);
        assert_eq!(
            reason(answer(version, &|c| c.user_name = Some("u@other"))),
            bad
        );
        assert_eq!(
            reason(answer(version, &|c| c.user_name = Some("u@demo"))),
            0
        );
        assert_eq!(reason(answer(version, &|c| c.client_id = "e")), 0x85);
        let anonymous = answer(version, &|c| {
            c.user_name = None;
            c.password = None;
        });
        assert_eq!(reason(anonymous), bad);
    }
    let will = |topic| Will {
        topic,
        payload: b"gone",
        qos: QoS::AtMostOnce,
        retain: false,
        properties: Properties::NONE,
    };
    let v5 = Version::V5;
    assert_eq!(
        reason(answer(v5, &|c| c.will = Some(will("hy/me/status")))),
        0
    );
    assert_eq!(reason(answer(v5, &|c| c.will = Some(will("a")))), 0x87);
    let assigned = answer(v5, &|c| {
        c.client_id = "";
        c.keep_alive = 0;
    });
    let Heard::ConnAck {
        client_id,
        keep_alive,
        ..
    } = assigned
    else {
        panic!("{assigned:?}")
    };
    assert_eq!((client_id.as_deref(), keep_alive), (Some("d"), Some(1200)));
    let presence = post.rig.hub.sessions(&app(), &[device("d")]);
    assert!(
        presence[0]
            .as_ref()
            .is_none_or(|info| info.protocol == "mqtt")
    );
}

#[test]
fn mq_4_what_was_not_acknowledged_comes_again() {
    let post = post();
    for version in BOTH {
        let mut phone = post.subscribed(version);
        for n in 0..3 {
            post.rig.publish("u", &n.to_string());
        }
        let first: Vec<_> = (0..3).map(|_| phone.entry()).collect();
        assert!(first.iter().all(|(_, dup, _)| !dup));
        phone.ack(first[1].0);
        post.rig.until("acknowledged", || {
            post.rig.store.unread("d", Some("u")) == 2
        });
        drop(phone);
        post.rig
            .until("gone", || post.rig.hub.stats().sessions == 0);
        let (mut phone, present) = post.device(version, false, 600);
        assert!(present);
        let again = [phone.entry(), phone.entry()];
        for (again, first) in again.iter().zip([&first[0], &first[2]]) {
            assert_eq!((again.0, again.1, &again.2), (first.0, true, &first.2));
        }
        post.rig.publish("u", "new");
        let new = phone.entry();
        assert_eq!((new.1, new.2.as_str()), (false, "new"));
        for id in [again[0].0, again[1].0, new.0] {
            phone.ack(id);
        }
        post.rig
            .until("all", || post.rig.store.unread("d", Some("u")) == 0);
    }
}

#[test]
fn mq_5_what_was_acknowledged_does_not() {
    let post = post();
    for version in BOTH {
        let mut phone = post.subscribed(version);
        post.rig.publish("u", "one");
        let (id, ..) = phone.entry();
        phone.ack(id);
        post.rig.until("acknowledged", || {
            post.rig.store.unread("d", Some("u")) == 0
        });
        drop(phone);
        post.rig
            .until("gone", || post.rig.hub.stats().sessions == 0);
        let (mut phone, present) = post.device(version, false, 600);
        assert!(present);
        phone.silent();
    }
}

#[test]
fn mq_6_sessions_begin_and_end() {
    let post = post();
    for version in BOTH {
        let (phone, present) = post.device(version, true, 0);
        assert!(!present);
        drop(phone);
        post.rig
            .until("gone", || post.rig.hub.stats().sessions == 0);
        let (phone, present) = post.device(version, false, 600);
        assert!(!present, "a clean session left nothing");
        drop(phone);
        post.rig
            .until("gone", || post.rig.hub.stats().sessions == 0);
        let (phone, present) = post.device(version, false, 600);
        assert!(present);
        drop(phone);
        post.rig
            .until("gone", || post.rig.hub.stats().sessions == 0);
        // A clean one begins at the head: what waited is for others.
        post.rig.publish("u", "old");
        let (mut phone, present) = post.device(version, true, 0);
        assert!(!present);
        phone.subscribe(&["hy/me/inbox/#"], QoS::AtLeastOnce);
        assert_eq!(phone.hear(), Heard::SubAck(vec![1]));
        drop(phone);
        post.rig
            .until("gone", || post.rig.hub.stats().sessions == 0);
    }
    let (phone, _) = post.device(Version::V5, false, 10);
    drop(phone);
    post.rig
        .until("gone", || post.rig.hub.stats().sessions == 0);
    post.rig.advance(Duration::from_secs(11));
    let (_, present) = post.device(Version::V5, false, 10);
    assert!(!present, "it has expired");
}

#[test]
fn mq_7_a_newer_connection_takes_over() {
    let post = post();
    let mut older = post.subscribed(Version::V5);
    post.rig.publish("u", "one");
    older.entry();
    let (mut newer, present) = post.device(Version::V5, false, 600);
    assert!(present);
    assert_eq!(older.hear(), Heard::Disconnect(0x8e));
    assert_eq!(older.hear(), Heard::End);
    let (id, dup, body) = newer.entry();
    assert_eq!((dup, body.as_str()), (true, "one"));
    newer.ack(id);
    post.rig.until("acknowledged", || {
        post.rig.store.unread("d", Some("u")) == 0
    });
}

#[test]
fn mq_8_never_more_in_flight_than_the_client_takes() {
    let post = post();
    for most in [1, 2] {
        let mut phone = post.phone(Version::V5);
        let mut list = PropertyList::new();
        list.push(Property::ReceiveMaximum(most)).unwrap();
        phone.say(&Packet::Connect(Connect {
            properties: list.as_properties(),
            ..connect(Version::V5)
        }));
        phone.hear();
        phone.subscribe(&["hy/me/inbox"], QoS::AtLeastOnce);
        phone.hear();
        for n in 0..6 {
            post.rig.publish("u", &n.to_string());
        }
        let mut seen = 0;
        while seen < 6 {
            let ids: Vec<u16> = (0..most.min(6 - seen)).map(|_| phone.entry().0).collect();
            phone.silent();
            seen += ids.len() as u16;
            for id in ids {
                phone.ack(id);
            }
        }
        drop(phone);
        post.rig
            .until("gone", || post.rig.hub.stats().sessions == 0);
    }
}

#[test]
fn mq_9_packets_are_not_larger_than_either_side_takes() {
    let post = post();
    let mut phone = post.phone(Version::V5);
    let mut list = PropertyList::new();
    list.push(Property::MaximumPacketSize(600)).unwrap();
    phone.say(&Packet::Connect(Connect {
        properties: list.as_properties(),
        ..connect(Version::V5)
    }));
    phone.hear();
    phone.subscribe(&["hy/me/inbox"], QoS::AtLeastOnce);
    phone.hear();
    post.rig.publish("u", &"x".repeat(1000));
    post.rig.publish("u", "small");
    assert_eq!(phone.entry().2, "small");
    post.rig.until("the large one is done with", || {
        post.rig.store.unread("d", Some("u")) == 1
    });
    phone.stream.write_all(&[0x30, 0xff, 0xff, 0x7f]).unwrap();
    assert_eq!(phone.hear(), Heard::Disconnect(0x95));
}

#[test]
fn mq_10_a_silent_client_is_closed_after_one_and_a_half_times() {
    let post = post();
    for version in BOTH {
        let mut phone = post.phone(version);
        phone.say(&Packet::Connect(Connect {
            keep_alive: 2,
            ..connect(version)
        }));
        phone.hear();
        for _ in 0..3 {
            post.rig.advance(Duration::from_millis(2000));
            phone.silent();
        }
        post.rig.advance(Duration::from_millis(2500));
        assert_eq!(post.rig.hub.stats().sessions, 1);
        post.rig.advance(Duration::from_millis(1500));
        if version == Version::V5 {
            assert_eq!(phone.hear(), Heard::Disconnect(0x8d));
        }
        assert_eq!(phone.hear(), Heard::End);
        post.rig
            .until("gone", || post.rig.hub.stats().sessions == 0);
    }
}

#[test]
fn mq_11_expiry_shrinks_and_the_expired_never_come() {
    let post = post();
    let now = 1_000_000;
    post.rig
        .store
        .append(Owner::User(user("u")), "short", now + 5_000);
    post.rig
        .store
        .append(Owner::User(user("u")), "long", now + 60_000);
    post.rig.advance(Duration::from_millis(10_500));
    let (mut phone, _) = post.device(Version::V5, false, 600);
    phone.subscribe(&["hy/me/inbox"], QoS::AtLeastOnce);
    phone.hear();
    let Heard::Publish { body, expiry, .. } = phone.hear() else {
        panic!()
    };
    assert_eq!((body.as_str(), expiry), ("long", Some(50)), "rounded up");
}

#[test]
fn mq_14_nothing_of_others_can_be_had_or_said() {
    let post = post();
    post.rig.store.add_device("e", Some("v"));
    for version in BOTH {
        let (mut phone, _) = post.device(version, true, 0);
        phone.subscribe(
            &["#", "hy/me/inbox", "hy/v/inbox", "$share/g/hy/me/inbox"],
            QoS::ExactlyOnce,
        );
        let codes = match version {
            Version::V311 => vec![0x80, 1, 0x80, 0x80],
            Version::V5 => vec![0x87, 1, 0x87, 0x9e],
        };
        assert_eq!(phone.hear(), Heard::SubAck(codes));
        phone.publish("hy/t/news", 7, b"{}");
        let refused = match version {
            Version::V311 => Heard::PubAck(7, 0),
            Version::V5 => Heard::PubAck(7, 0x87),
        };
        assert_eq!(phone.hear(), refused);
        post.rig.publish("v", "secret");
        phone.silent();
        if version == Version::V311 {
            // It cannot be told, so it is closed when it does not stop.
            for _ in 0..9 {
                phone.publish("a", 7, b"x");
            }
            while phone.hear() != Heard::End {}
        }
    }
    assert!(post.press.0.lock().unwrap().is_empty());
}

#[test]
fn mq_15_over_websocket_text_closes() {
    let post = post();
    let (client, server) = post.rig.pair();
    let permit = post.rig.handle.admit([127, 0, 0, 1].into()).unwrap();
    post.rig
        .handle
        .adopt(
            Socket::Plain(server),
            bytes::Bytes::new(),
            hongyan_gateway::Speech::Mqtt,
            permit,
        )
        .unwrap();
    let mut client = crate::client::Client::new(client, hongyan_gateway::Encoding::Cbor);
    let mut packet = Vec::new();
    Packet::Connect(connect(Version::V5))
        .encode(Version::V5, &mut packet)
        .unwrap();
    // A packet may span messages, and a message may hold several.
    client.raw(&crate::client::frame(0x82, &packet[..5]));
    let mut rest = packet[5..].to_vec();
    rest.extend_from_slice(&[0xc0, 0]);
    client.raw(&crate::client::frame(0x82, &rest));
    let connack = client.frame().unwrap();
    assert_eq!((connack.opcode, connack.payload[0]), (2, 0x20));
    assert_eq!(client.frame().unwrap().payload, [0xd0, 0]);
    client.raw(&crate::client::frame(0x81, b"text"));
    assert_eq!(client.closed(), 1003);
}

#[test]
fn mq_16_an_ack_is_one_over_all_protocols() {
    let post = post();
    let mut phone = post.subscribed(Version::V5);
    for n in 0..3 {
        post.rig.publish("u", &n.to_string());
    }
    let ids: Vec<u16> = (0..3).map(|_| phone.entry().0).collect();
    phone.ack(ids[0]);
    post.rig.until("acknowledged", || {
        post.rig.store.unread("d", Some("u")) == 2
    });
    let mut client = post.rig.live("d");
    assert_eq!(phone.hear(), Heard::Disconnect(0x8e));
    let rest = client.until_idle();
    assert_eq!(crate::client::bodies(&rest), ["1", "2"]);
    client.say(serde_json::json!({"t": "ack", "upto": rest[0]["cursor"]}));
    post.rig.until("acknowledged", || {
        post.rig.store.unread("d", Some("u")) == 1
    });
    let (mut phone, present) = post.device(Version::V5, false, 600);
    assert!(
        present,
        "the session waited while the device came another way"
    );
    phone.subscribe(&["hy/me/inbox"], QoS::AtLeastOnce);
    let mut heard = phone.hear();
    while !matches!(heard, Heard::Publish { .. }) {
        heard = phone.hear();
    }
    assert!(matches!(heard, Heard::Publish { body, .. } if body == "2"));
}

#[test]
fn topics_of_the_app_come_under_their_names() {
    let post = post();
    let (mut phone, _) = post.device(Version::V5, false, 600);
    phone.subscribe(&["hy/t/news", "hy/me/inbox/#"], QoS::AtLeastOnce);
    assert_eq!(phone.hear(), Heard::SubAck(vec![1, 1]));
    post.rig.store.append(Rig::topic("news"), "extra", FAR);
    post.rig.hint(Rig::topic("news"));
    let Heard::Publish {
        topic, body, id, ..
    } = phone.hear()
    else {
        panic!()
    };
    assert_eq!((topic.as_str(), body.as_str()), ("hy/t/news", "extra"));
    phone.ack(id);
    post.rig.publish("u", "mine");
    let Heard::Publish { topic, .. } = phone.hear() else {
        panic!()
    };
    assert_eq!(topic, "hy/me/inbox");
}

#[test]
fn a_further_subscription_repeats_nothing_and_brings_what_was_passed_over() {
    let post = post();
    let (mut phone, _) = post.device(Version::V311, false, 0);
    phone.subscribe(&["hy/t/news"], QoS::AtLeastOnce);
    assert_eq!(phone.hear(), Heard::SubAck(vec![1]));
    post.rig.publish("u", "mine");
    post.rig.store.append(Rig::topic("news"), "extra", FAR);
    post.rig.hint(Rig::topic("news"));
    let (id, _, body) = phone.entry();
    assert_eq!(body, "extra");
    phone.subscribe(&["hy/me/inbox"], QoS::AtLeastOnce);
    assert_eq!(phone.hear(), Heard::SubAck(vec![1]));
    let (other, dup, body) = phone.entry();
    assert_eq!((dup, body.as_str()), (false, "mine"));
    phone.silent();
    phone.ack(id);
    phone.ack(other);
    post.rig
        .until("both", || post.rig.store.unread("d", Some("u")) == 0);
}

#[test]
fn a_further_subscription_of_a_clean_session_repeats_nothing_either() {
    let post = post();
    post.rig.publish("u", "before");
    let (mut phone, _) = post.device(Version::V311, true, 0);
    phone.subscribe(&["hy/t/news"], QoS::AtLeastOnce);
    assert_eq!(phone.hear(), Heard::SubAck(vec![1]));
    for body in ["first", "second"] {
        post.rig.store.append(Rig::topic("news"), body, FAR);
        post.rig.hint(Rig::topic("news"));
        let (id, _, came) = phone.entry();
        assert_eq!(came, body);
        phone.ack(id);
    }
    post.rig.publish("u", "mine");
    post.rig
        .until("only these", || post.rig.store.unread("d", Some("u")) == 2);
    phone.subscribe(&["hy/me/inbox"], QoS::AtLeastOnce);
    assert_eq!(phone.hear(), Heard::SubAck(vec![1]));
    let (id, dup, body) = phone.entry();
    assert_eq!((dup, body.as_str()), (false, "mine"));
    phone.silent();
    phone.ack(id);
    // What waited before the session is for the device's other ways.
    post.rig
        .until("the one", || post.rig.store.unread("d", Some("u")) == 1);
    phone.silent();
}

#[test]
fn what_came_with_qos_0_comes_once_whatever_is_read_again() {
    for clean in [true, false] {
        let post = post();
        let (mut phone, _) = post.device(Version::V311, clean, 0);
        phone.subscribe(&["hy/t/news"], QoS::AtMostOnce);
        assert_eq!(phone.hear(), Heard::SubAck(vec![0]));
        post.rig.publish("u", "mine");
        let news: Vec<String> = (0..5).map(|n| format!("news {n}")).collect();
        for body in &news {
            post.rig.store.append(Rig::topic("news"), body, FAR);
            post.rig.hint(Rig::topic("news"));
            let came = phone.hear();
            assert!(
                matches!(&came, Heard::Publish { qos: 0, body: came, .. } if came == body),
                "{body}: {came:?}"
            );
        }
        // Says that the five have left, and asks for what was passed over, in one packet.
        phone.subscribe(&["hy/me/inbox"], QoS::AtLeastOnce);
        assert_eq!(phone.hear(), Heard::SubAck(vec![1]));
        let (id, dup, body) = phone.entry();
        assert_eq!((dup, body.as_str()), (false, "mine"));
        phone.ack(id);
        post.rig
            .until("all", || post.rig.store.unread("d", Some("u")) == 0);
        phone.silent();
    }
}

/// The device's next user finds no session of the one before.
#[test]
fn a_session_that_was_left_ends_with_its_user() {
    let post = post();
    drop(post.subscribed(Version::V5));
    post.rig.until("it is away", || post.rig.hub.is_empty());
    let (d, v) = (crate::store::device("d"), crate::store::user("v"));
    post.rig.store.bind("d", Some("v"));
    post.rig
        .runtime
        .block_on(post.rig.hub.rebind(&crate::store::app(), &d, Some(v)));
    let mut next = post.phone(Version::V5);
    next.say(&Packet::Connect(Connect {
        clean_start: false,
        user_name: Some("v"),
        ..connect(Version::V5)
    }));
    let heard = next.hear();
    let is_new = matches!(
        heard,
        Heard::ConnAck {
            present: false,
            reason: 0,
            ..
        }
    );
    assert!(is_new, "{heard:?}");
}

#[test]
fn client_messages_go_by_topics() {
    let post = post();
    let mut phone = post.subscribed(Version::V5);
    let id = post.rig.publish("u", "one");
    phone.entry();
    let ack = format!("{{\"ids\":[\"{id}\"]}}");
    phone.publish("hy/me/ack", 1, ack.as_bytes());
    assert_eq!(phone.hear(), Heard::PubAck(1, 0));
    post.rig.until("acknowledged", || {
        post.rig.store.unread("d", Some("u")) == 0
    });
    let event = format!("{{\"id\":\"{id}\",\"kind\":\"clicked\"}}");
    phone.publish("hy/me/event", 2, event.as_bytes());
    assert_eq!(phone.hear(), Heard::PubAck(2, 0));
    post.rig.until("told", || {
        let said = post.rig.sink.said();
        said.iter()
            .any(|said| matches!(said, hongyan_core::session::SessionSaid::Client { message, .. } if *message == id))
    });
    phone.publish("hy/me/event", 3, b"nonsense");
    assert_eq!(phone.hear(), Heard::PubAck(3, 0x99));
    phone.say(&Packet::Publish(Publication {
        qos: QoS::ExactlyOnce,
        ..publication("hy/me/status", 4, b"x")
    }));
    assert_eq!(phone.hear(), Heard::Disconnect(0x9b));
}

#[test]
fn a_server_publishes_to_topics_of_its_app() {
    let post = post();
    post.rig.store.add_server_key("key");
    let mut server = post.phone(Version::V5);
    server.say(&Packet::Connect(Connect {
        user_name: Some("server"),
        password: Some(b"key"),
        client_id: "backend",
        ..connect(Version::V5)
    }));
    assert!(matches!(server.hear(), Heard::ConnAck { reason: 0, .. }));
    server.publish("hy/t/news", 1, b"{\"data\":{\"a\":1}}");
    assert_eq!(server.hear(), Heard::PubAck(1, 0));
    server.publish("hy/t/news", 2, b"text");
    assert_eq!(server.hear(), Heard::PubAck(2, 0x99));
    server.publish("hy/me/inbox", 3, b"{}");
    assert_eq!(server.hear(), Heard::PubAck(3, 0x87));
    server.subscribe(&["hy/t/news"], QoS::AtLeastOnce);
    assert_eq!(server.hear(), Heard::SubAck(vec![0x87]));
    let printed = post.press.0.lock().unwrap().clone();
    assert_eq!(printed.len(), 1);
    assert_eq!(
        (printed[0].0.clone(), printed[0].1.to_string()),
        (app(), "news".to_owned())
    );
    // What the store did not take is not acknowledged: the client sends it again.
    server.publish("hy/t/away", 4, b"{}");
    assert_eq!(server.hear(), Heard::Disconnect(0x89));
    assert_eq!(server.hear(), Heard::End);
    drop(server);
    post.rig.until("gone", || post.rig.hub.stats().sockets == 0);
}

#[test]
fn a_goodbye_may_end_the_session() {
    let post = post();
    let mut phone = post.subscribed(Version::V5);
    let mut list = PropertyList::new();
    list.push(Property::SessionExpiry(0)).unwrap();
    phone.say(&Packet::Disconnect(Disconnect {
        reason: ReasonCode::NORMAL_DISCONNECTION,
        properties: list.as_properties(),
    }));
    assert_eq!(phone.hear(), Heard::End);
    let (mut phone, present) = post.device(Version::V5, false, 0);
    assert!(!present);
    let mut list = PropertyList::new();
    list.push(Property::SessionExpiry(5)).unwrap();
    phone.say(&Packet::Disconnect(Disconnect {
        reason: ReasonCode::NORMAL_DISCONNECTION,
        properties: list.as_properties(),
    }));
    assert_eq!(phone.hear(), Heard::Disconnect(0x82), "from none to some");
}
