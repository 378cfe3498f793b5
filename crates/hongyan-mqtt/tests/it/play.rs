//! A broker with clients at hand and a clock that the test turns. What clients get is compared as text.

use std::fmt::Write as _;
use std::time::Duration;

use hongyan_mqtt::broker::{Broker, ConnectionId, Flow, Options};
use hongyan_mqtt::packet::{
    Ack, Connect, Disconnect, FilterList, Limits, Packet, Properties, Property, PropertyList,
    Publish, QoS, ReasonCode, Sender, Subscribe, SubscribeOptions, TopicList, Unsubscribe, Version,
    Will, decode,
};

pub(crate) use Version::{V5, V311};

pub(crate) const BOTH: [Version; 2] = [V311, V5];

pub(crate) struct Play {
    pub(crate) broker: Broker,
    pub(crate) now: Duration,
}

/// A client's side of one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    pub(crate) id: ConnectionId,
    pub(crate) version: Version,
}

pub(crate) fn list(properties: &[Property<'_>]) -> PropertyList {
    let mut list = PropertyList::new();
    for property in properties {
        list.push(*property).unwrap();
    }
    list
}

pub(crate) fn qos(level: u8) -> QoS {
    QoS::from_bits(level).unwrap()
}

pub(crate) fn asked(level: u8) -> SubscribeOptions {
    SubscribeOptions::new(qos(level))
}

pub(crate) fn connect(version: Version, client_id: &str) -> Connect<'_> {
    Connect {
        version,
        clean_start: true,
        keep_alive: 60,
        properties: Properties::NONE,
        client_id,
        will: None,
        user_name: None,
        password: None,
    }
}

pub(crate) fn message<'a>(
    topic: &'a str,
    payload: &'a str,
    level: u8,
    packet_id: u16,
) -> Publish<'a> {
    Publish {
        dup: false,
        qos: qos(level),
        retain: false,
        topic,
        packet_id,
        properties: Properties::NONE,
        payload: payload.as_bytes(),
    }
}

pub(crate) fn will<'a>(topic: &'a str, payload: &'a str) -> Will<'a> {
    Will {
        topic,
        payload: payload.as_bytes(),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Properties::NONE,
    }
}

impl Play {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::default();
        change(&mut options);
        Self {
            broker: Broker::new(options),
            now: Duration::from_secs(1_000),
        }
    }

    pub(crate) fn open(&mut self, version: Version) -> Client {
        let id = self.broker.accept(self.now).unwrap();
        Client { id, version }
    }

    pub(crate) fn bytes(&mut self, client: Client, bytes: &[u8]) {
        self.broker.received(self.now, client.id, bytes);
    }

    pub(crate) fn send(&mut self, client: Client, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(client.version, &mut bytes).unwrap();
        self.bytes(client, &bytes);
    }

    /// Connects and answers the CONNACK as text.
    pub(crate) fn try_connect(&mut self, connect: &Connect<'_>) -> (Client, Vec<String>) {
        let client = self.open(connect.version);
        self.send(client, &Packet::Connect(*connect));
        let said = self.read(client);
        (client, said)
    }

    #[track_caller]
    pub(crate) fn connect(&mut self, connect: &Connect<'_>) -> Client {
        let (client, said) = self.try_connect(connect);
        assert!(said[0].starts_with("connack 0x00"), "{said:?}");
        client
    }

    /// A client that cleans its session.
    #[track_caller]
    pub(crate) fn clean(&mut self, version: Version, client_id: &str) -> Client {
        self.connect(&connect(version, client_id))
    }

    /// A client that keeps its session for an hour, or in 3.1.1 for as long as it may; and all that it got
    /// at once.
    #[track_caller]
    pub(crate) fn kept(&mut self, version: Version, client_id: &str) -> (Client, Vec<String>) {
        let properties = list(&[Property::SessionExpiry(3_600)]);
        let (client, said) = self.try_connect(&Connect {
            clean_start: false,
            properties: properties.as_properties(),
            ..connect(version, client_id)
        });
        assert!(said[0].starts_with("connack 0x00"), "{said:?}");
        (client, said)
    }

    #[track_caller]
    pub(crate) fn subscribe(&mut self, client: Client, filter: &str, level: u8) {
        let got = self.subscribe_with(client, filter, asked(level), &[]);
        assert_eq!(got[0], format!("suback #9 [{level:02x}]"), "{got:?}");
        assert_eq!(got.len(), 1, "{got:?}");
    }

    /// Subscribes and answers everything that came then.
    pub(crate) fn subscribe_with(
        &mut self,
        client: Client,
        filter: &str,
        options: SubscribeOptions,
        properties: &[Property<'_>],
    ) -> Vec<String> {
        let mut filters = FilterList::new();
        filters.push(filter, options).unwrap();
        let properties = list(properties);
        let packet = Packet::Subscribe(Subscribe {
            packet_id: 9,
            properties: properties.as_properties(),
            filters: filters.as_filters(),
        });
        self.send(client, &packet);
        self.read(client)
    }

    pub(crate) fn unsubscribe(&mut self, client: Client, filter: &str) -> Vec<String> {
        let mut filters = TopicList::new();
        filters.push(filter).unwrap();
        let packet = Packet::Unsubscribe(Unsubscribe {
            packet_id: 8,
            properties: Properties::NONE,
            filters: filters.as_topics(),
        });
        self.send(client, &packet);
        self.read(client)
    }

    pub(crate) fn publish(&mut self, client: Client, publish: Publish<'_>) {
        self.send(client, &Packet::Publish(publish));
    }

    pub(crate) fn retain(&mut self, client: Client, topic: &str, payload: &str) {
        let publish = Publish {
            retain: true,
            ..message(topic, payload, 0, 0)
        };
        self.publish(client, publish);
    }

    pub(crate) fn puback(&mut self, client: Client, id: u16) {
        self.send(client, &Packet::PubAck(Ack::new(id, ReasonCode::SUCCESS)));
    }

    pub(crate) fn pubrec(&mut self, client: Client, id: u16) {
        self.send(client, &Packet::PubRec(Ack::new(id, ReasonCode::SUCCESS)));
    }

    pub(crate) fn pubrel(&mut self, client: Client, id: u16) {
        self.send(client, &Packet::PubRel(Ack::new(id, ReasonCode::SUCCESS)));
    }

    pub(crate) fn pubcomp(&mut self, client: Client, id: u16) {
        self.send(client, &Packet::PubComp(Ack::new(id, ReasonCode::SUCCESS)));
    }

    /// Says goodbye.
    pub(crate) fn bye(&mut self, client: Client) {
        let reason = ReasonCode::NORMAL_DISCONNECTION;
        self.send(client, &Packet::Disconnect(Disconnect::new(reason)));
        assert_eq!(self.read(client), ["closed"]);
        self.cut(client);
    }

    /// The network goes.
    pub(crate) fn cut(&mut self, client: Client) {
        self.broker.closed(self.now, client.id);
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.broker.tick(self.now);
    }

    pub(crate) fn seconds(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    /// Everything that a client has got since, and `closed` at the end when it is closed.
    #[track_caller]
    pub(crate) fn read(&mut self, client: Client) -> Vec<String> {
        let mut all = Vec::new();
        let mut closed = false;
        loop {
            let mut bytes = Vec::new();
            closed |= self.broker.take_output(self.now, client.id, &mut bytes) == Flow::Close;
            if bytes.is_empty() {
                break;
            }
            all.extend(bytes);
        }
        let mut said = Vec::new();
        let mut rest = all.as_slice();
        let limits = Limits {
            packet_bytes_max: u32::MAX,
            user_properties_max: 1_000,
            ..Limits::DEFAULT
        };
        while !rest.is_empty() {
            let (packet, used) = decode(rest, Sender::Server, Some(client.version), &limits)
                .unwrap()
                .unwrap();
            said.push(text(&packet));
            rest = &rest[used..];
        }
        if closed {
            said.push("closed".to_owned());
        }
        said
    }
}

fn properties(properties: Properties<'_>) -> String {
    let all: Vec<_> = properties
        .iter()
        // For people: its words are nobody's contract.
        .filter(|property| !matches!(property, Property::ReasonString(_)))
        .map(|property| format!(" {property:?}"))
        .collect();
    all.concat()
}

fn text(packet: &Packet<'_>) -> String {
    let ack =
        |name: &str, ack: &Ack<'_>| format!("{name} #{} {:#04x}", ack.packet_id, ack.reason.0);
    let codes = |codes: &[u8]| {
        let codes: Vec<_> = codes.iter().map(|code| format!("{code:02x}")).collect();
        codes.join(" ")
    };
    match packet {
        Packet::ConnAck(connack) => {
            let present = if connack.session_present {
                " present"
            } else {
                ""
            };
            let code = connack.reason.0;
            format!(
                "connack {code:#04x}{present}{}",
                properties(connack.properties)
            )
        }
        Packet::Publish(publish) => {
            let mut text = format!("publish {} qos{}", publish.topic, publish.qos as u8);
            if publish.qos != QoS::AtMostOnce {
                let _ = write!(text, " #{}", publish.packet_id);
            }
            text += if publish.dup { " dup" } else { "" };
            text += if publish.retain { " retain" } else { "" };
            text += &properties(publish.properties);
            text + ": " + &String::from_utf8_lossy(publish.payload)
        }
        Packet::PubAck(it) => ack("puback", it),
        Packet::PubRec(it) => ack("pubrec", it),
        Packet::PubRel(it) => ack("pubrel", it),
        Packet::PubComp(it) => ack("pubcomp", it),
        Packet::SubAck(it) => format!("suback #{} [{}]", it.packet_id, codes(it.codes)),
        Packet::UnsubAck(it) => format!("unsuback #{} [{}]", it.packet_id, codes(it.codes)),
        Packet::PingResp => "pingresp".to_owned(),
        Packet::Disconnect(it) => {
            format!(
                "disconnect {:#04x}{}",
                it.reason.0,
                properties(it.properties)
            )
        }
        other => format!("{other:?}"),
    }
}
