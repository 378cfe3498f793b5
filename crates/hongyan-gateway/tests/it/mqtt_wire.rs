//! Clauses MQ-1, MQ-3 and MQ-12 for devices, byte by byte as the notes list them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::Duration;

use hongyan_mqtt::packet::{Packet, Property, PropertyList, Publish, QoS, Version};

use crate::mqtt::{BOTH, Heard, Phone, connect, post};

const V5: Version = Version::V5;

/// A packet from its first byte and the parts behind its length.
fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = vec![first, u8::try_from(body.len()).unwrap()];
    assert!(body.len() < 128, "one byte of length");
    out.extend_from_slice(&body);
    out
}

/// Everything that a connected client must not send.
fn refused(version: Version) -> Vec<(&'static str, Vec<u8>)> {
    // No properties, where a packet has any.
    let none: &[u8] = if version == V5 { &[0] } else { &[] };
    let (id, zero, filter) = (&[0, 9][..], &[0, 0][..], &b"\0\x0bhy/me/inbox"[..]);
    // An acknowledgement with a byte too many; 5.0 has two more fields.
    let long_ack: &[u8] = match version {
        Version::V311 => &[0, 1, 0],
        V5 => &[0, 1, 0, 0, 9],
    };
    let long_end: &[u8] = match version {
        Version::V311 => &[0],
        V5 => &[0, 0, 9],
    };
    vec![
        (
            "flags of SUBSCRIBE",
            packet(0x80, &[id, none, filter, &[1]]),
        ),
        ("flags of UNSUBSCRIBE", packet(0xa0, &[id, none, filter])),
        ("flags of PUBACK", packet(0x41, &[id])),
        ("flags of PUBREC", packet(0x52, &[id])),
        ("flags of PUBREL", packet(0x60, &[id])),
        ("flags of PUBCOMP", packet(0x71, &[id])),
        ("flags of PINGREQ", packet(0xc1, &[])),
        ("flags of DISCONNECT", packet(0xe2, &[])),
        ("QoS 3", packet(0x36, &[b"\0\x01a", id, none])),
        ("DUP with QoS 0", packet(0x38, &[b"\0\x01a", none])),
        (
            "a byte behind SUBSCRIBE",
            packet(0x82, &[id, none, filter, &[1, 7]]),
        ),
        (
            "a byte behind UNSUBSCRIBE",
            packet(0xa2, &[id, none, filter, &[7]]),
        ),
        ("a byte behind PUBACK", packet(0x40, &[long_ack])),
        ("a byte behind PUBREC", packet(0x50, &[long_ack])),
        ("a byte behind PUBREL", packet(0x62, &[long_ack])),
        ("a byte behind PUBCOMP", packet(0x70, &[long_ack])),
        ("a byte behind PINGREQ", packet(0xc0, &[&[0]])),
        ("a byte behind DISCONNECT", packet(0xe0, &[long_end])),
        ("CONNACK", packet(0x20, &[&[0, 0], none])),
        ("SUBACK", packet(0x90, &[id, none, &[0]])),
        ("UNSUBACK", packet(0xb0, &[id, none, none])),
        ("PINGRESP", packet(0xd0, &[])),
        ("AUTH without a method", packet(0xf0, &[])),
        ("a type that is none", packet(0x00, &[])),
        ("PUBLISH with id 0", packet(0x32, &[b"\0\x01a", zero, none])),
        (
            "SUBSCRIBE with id 0",
            packet(0x82, &[zero, none, filter, &[1]]),
        ),
        ("UNSUBSCRIBE with id 0", packet(0xa2, &[zero, none, filter])),
        ("PUBACK with id 0", packet(0x40, &[zero])),
        ("a topic with +", packet(0x30, &[b"\0\x03a/+", none])),
        ("a topic with #", packet(0x30, &[b"\0\x01#", none])),
        ("no topic", packet(0x30, &[zero, none])),
        ("a topic with U+0000", packet(0x30, &[b"\0\x02a\0", none])),
        (
            "a topic that is no UTF-8",
            packet(0x30, &[b"\0\x02\xc0\xaf", none]),
        ),
        (
            "a topic with half a character",
            packet(0x30, &[b"\0\x03\xed\xa0\x80", none]),
        ),
        ("SUBSCRIBE to nothing", packet(0x82, &[id, none])),
        ("UNSUBSCRIBE from nothing", packet(0xa2, &[id, none])),
        ("an empty filter", packet(0x82, &[id, none, zero, &[1]])),
        ("an empty filter to leave", packet(0xa2, &[id, none, zero])),
        (
            "reserved bits of a subscription",
            packet(0x82, &[id, none, filter, &[0xc1]]),
        ),
        (
            "QoS 3 of a subscription",
            packet(0x82, &[id, none, filter, &[3]]),
        ),
        (
            "a length of five bytes",
            vec![0xc0, 0x80, 0x80, 0x80, 0x80, 1],
        ),
    ]
}

#[test]
fn mq_1_each_row_ends_the_connection_of_a_device_and_no_other() {
    let post = post();
    post.rig.store.add_device("witness", Some("v"));
    let mut witness = post.rig.live("witness");
    witness.expect("idle");
    for version in BOTH {
        for (row, bytes) in refused(version) {
            let (mut phone, _) = post.device(version, true, 0);
            phone.stream.write_all(&bytes).unwrap();
            let heard = phone.hear();
            match version {
                Version::V311 => assert_eq!(heard, Heard::End, "{row}"),
                V5 => {
                    let told = matches!(heard, Heard::Disconnect(0x81 | 0x82));
                    assert!(told, "{row}: {heard:?}");
                    assert_eq!(phone.hear(), Heard::End, "{row}");
                }
            }
        }
    }
    post.rig.until("only the witness is left", || {
        post.rig.hub.stats().sockets == 1
    });
    witness.say(serde_json::json!({"t": "ping", "n": 1}));
    assert_eq!(witness.expect("pong")["n"], 1);
}

/// All that comes until the end.
fn rest(phone: &mut Phone) -> Vec<u8> {
    let mut all = Vec::new();
    match phone.stream.read_to_end(&mut all) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => all,
    }
}

#[test]
fn mq_3_each_row_of_connect_has_its_answer() {
    let post = post();
    let v311 = |flags: u8| packet(0x10, &[b"\0\x04MQTT\x04", &[flags], b"\0\x3c\0\x01d"]);
    let v5 = |flags: u8| packet(0x10, &[b"\0\x04MQTT\x05", &[flags], b"\0\x3c\0\0\x01d"]);
    let will = b"\0\x01t\0\0";
    let rows: &[(&str, Vec<u8>, &[u8])] = &[
        (
            "another name",
            packet(0x10, &[b"\0\x04MQTX\x04\x02\0\x3c\0\x01d"]),
            &[],
        ),
        (
            "the name of old",
            packet(0x10, &[b"\0\x06MQIsdp\x03\x02\0\x3c\0\x01d"]),
            &[],
        ),
        (
            "level 3",
            packet(0x10, &[b"\0\x04MQTT\x03\x02\0\x3c\0\x01d"]),
            &[0x20, 2, 0, 1],
        ),
        (
            "level 6",
            packet(0x10, &[b"\0\x04MQTT\x06\x02\0\x3c\0\0\x01d"]),
            &[0x20, 3, 0, 0x84, 0],
        ),
        ("the reserved flag", v311(0x03), &[]),
        ("the reserved flag, 5.0", v5(0x03), &[0x20, 3, 0, 0x81, 0]),
        ("QoS of no will", v311(0x0a), &[]),
        ("QoS of no will, 5.0", v5(0x0a), &[0x20, 3, 0, 0x81, 0]),
        ("retain of no will", v311(0x22), &[]),
        ("retain of no will, 5.0", v5(0x22), &[0x20, 3, 0, 0x81, 0]),
        (
            "a will with QoS 3",
            packet(0x10, &[&v311(0x1e)[2..], will]),
            &[],
        ),
        (
            "a will with QoS 3, 5.0",
            packet(0x10, &[&v5(0x1e)[2..], b"\0", will]),
            &[0x20, 3, 0, 0x81, 0],
        ),
        (
            "a password without a name",
            packet(0x10, &[&v311(0x42)[2..], b"\0\x01p"]),
            &[],
        ),
        (
            "a password without a name, 5.0: it may be, but here a name is asked for",
            packet(0x10, &[&v5(0x42)[2..], b"\0\x01p"]),
            &[0x20, 3, 0, 0x86, 0],
        ),
        (
            "no client id and a session",
            packet(0x10, &[b"\0\x04MQTT\x04\0\0\x3c\0\0"]),
            &[0x20, 2, 0, 2],
        ),
        ("PINGREQ first", vec![0xc0, 0], &[]),
        ("DISCONNECT first", vec![0xe0, 0], &[]),
        ("PUBLISH first", packet(0x30, &[b"\0\x01ax"]), &[]),
        ("HTTP first", b"GET / HTTP/1.1\r\n\r\n".to_vec(), &[]),
    ];
    for (row, bytes, answer) in rows {
        let mut phone = post.phone(V5);
        phone.stream.write_all(bytes).unwrap();
        assert_eq!(rest(&mut phone), *answer, "{row}");
    }
    for version in BOTH {
        let (mut phone, _) = post.device(version, true, 0);
        phone.say(&Packet::Connect(connect(version)));
        match version {
            Version::V311 => assert_eq!(phone.hear(), Heard::End),
            V5 => assert_eq!(phone.hear(), Heard::Disconnect(0x82)),
        }
    }
    post.rig
        .until("all are gone", || post.rig.hub.stats().sockets == 0);
    let mut half = post.phone(V5);
    half.stream.write_all(b"\x10\x0d\0\x04MQ").unwrap();
    // A connection's time begins when its reactor has it.
    post.rig
        .until("who does not connect in time is closed", || {
            post.rig.advance(Duration::from_secs(1));
            post.rig.hub.stats().sockets == 0
        });
    assert_eq!(rest(&mut half), b"");
}

/// The properties of the next message, in their order.
fn properties(phone: &mut Phone) -> Vec<String> {
    let seen = phone.look(|packet| match packet {
        Packet::Publish(one) => one.properties.iter().map(|p| format!("{p:?}")).collect(),
        other => panic!("{other:?}"),
    });
    seen.unwrap()
}

#[test]
fn mq_12_a_message_says_what_it_is() {
    let post = post();
    let (mut phone, _) = post.device(V5, true, 0);
    phone.subscribe(&["hy/me/inbox"], QoS::AtLeastOnce);
    assert_eq!(phone.hear(), Heard::SubAck(vec![1]));
    for body in ["one", "鸿雁"] {
        let id = post.rig.publish("u", body);
        let seen = properties(&mut phone);
        let id = format!("UserProperty(\"id\", \"{id}\")");
        for want in ["PayloadFormat(1)", "ContentType(\"application/json\")", &id] {
            assert_eq!(
                seen.iter().filter(|one| *one == want).count(),
                1,
                "{seen:?}"
            );
        }
    }
    // 3.1.1 has none, and the same message.
    drop(phone);
    post.rig
        .until("gone", || post.rig.hub.stats().sessions == 0);
    let (mut phone, _) = post.device(Version::V311, true, 0);
    phone.subscribe(&["hy/me/inbox"], QoS::AtLeastOnce);
    assert_eq!(phone.hear(), Heard::SubAck(vec![1]));
    post.rig.publish("u", "one");
    assert_eq!(properties(&mut phone), [""; 0]);
}

#[test]
fn mq_12_properties_of_a_publication_are_taken_and_end_here() {
    let post = post();
    post.rig.store.add_server_key("key");
    let mut server = post.phone(V5);
    server.say(&Packet::Connect(hongyan_mqtt::packet::Connect {
        user_name: Some("server"),
        password: Some(b"key"),
        client_id: "backend",
        ..connect(V5)
    }));
    assert!(matches!(server.hear(), Heard::ConnAck { reason: 0, .. }));
    let mut list = PropertyList::new();
    for property in [
        Property::UserProperty("b", "1"),
        Property::ContentType("application/json"),
        Property::UserProperty("a", "2"),
        Property::PayloadFormat(1),
    ] {
        list.push(property).unwrap();
    }
    server.say(&Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "hy/t/news",
        packet_id: 1,
        properties: list.as_properties(),
        payload: b"{\"data\":{}}",
    }));
    // A message of the app is what its JSON says, over every protocol; there is no place for more.
    assert_eq!(server.hear(), Heard::PubAck(1, 0));
}
