//! Vectors written from the two standards, and properties over all packets.

use proptest::prelude::*;

use super::*;

const V3: Option<Version> = Some(Version::V311);
const V5: Option<Version> = Some(Version::V5);
const CLIENT: Sender = Sender::Client;
const SERVER: Sender = Sender::Server;
const MALFORMED: u8 = 0x81;
const PROTOCOL: u8 = 0x82;

/// Bytes from hexadecimal digits; `'text'` stands for a string with its length in front.
fn hex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (n, part) in text.split('\'').enumerate() {
        if n % 2 == 1 {
            bytes.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
            bytes.extend(part.as_bytes());
            continue;
        }
        let digits: String = part.split_whitespace().collect();
        assert!(digits.len().is_multiple_of(2), "{text}");
        for at in (0..digits.len()).step_by(2) {
            bytes.push(u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
        }
    }
    bytes
}

/// A packet of this type with its length put in.
fn packet(first: u8, body: &str) -> Vec<u8> {
    let body = hex(body);
    let mut bytes = vec![first];
    wire::put_varint(&mut bytes, u32::try_from(body.len()).unwrap());
    bytes.extend(body);
    bytes
}

fn read(
    bytes: &[u8],
    from: Sender,
    version: Option<Version>,
) -> Result<Option<(Packet<'_>, usize)>, DecodeError> {
    decode(bytes, from, version, &Limits::DEFAULT)
}

#[track_caller]
fn refused(bytes: &[u8], from: Sender, version: Option<Version>, reason: u8) {
    match read(bytes, from, version) {
        Err(error) => assert_eq!(error.reason.0, reason, "{bytes:02x?}: {error}"),
        Ok(taken) => panic!("{bytes:02x?} {version:?} was taken: {taken:?}"),
    }
}

#[track_caller]
fn taken(bytes: &[u8], from: Sender, version: Option<Version>) -> Packet<'_> {
    match read(bytes, from, version) {
        Ok(Some((packet, used))) => {
            assert_eq!(used, bytes.len(), "{bytes:02x?}");
            packet
        }
        other => panic!("{bytes:02x?} {version:?} was not taken: {other:?}"),
    }
}

#[test]
fn mq_1_wrong_flags_are_refused() {
    for version in [V3, V5] {
        for (kind, good) in [
            (4_u8, 0_u8),
            (5, 0),
            (6, 2),
            (7, 0),
            (8, 2),
            (10, 2),
            (12, 0),
            (14, 0),
        ] {
            for flags in (0..16).filter(|flags| *flags != good) {
                // Told from the first byte alone.
                refused(&[kind << 4 | flags], CLIENT, version, MALFORMED);
            }
        }
        // [3.3.1-2], [3.3.1-4]
        for flags in [0x06, 0x07, 0x0E, 0x0F, 0x08, 0x09] {
            refused(&[0x30 | flags], CLIENT, version, MALFORMED);
        }
        refused(&[0x00, 0x00], CLIENT, version, MALFORMED);
    }
    for flags in 1..16 {
        refused(&[0x10 | flags], CLIENT, None, MALFORMED);
        refused(&[0xF0 | flags], CLIENT, V5, MALFORMED);
    }
    refused(&[0xF0, 0x00], CLIENT, V3, MALFORMED);
}

#[test]
fn mq_1_bytes_after_the_last_field_are_refused() {
    for (first, body) in [
        (0x40, "0001 00"),
        (0x50, "0001 00"),
        (0x62, "0001 00"),
        (0x70, "0001 00"),
        (0xC0, "00"),
        (0xE0, "00"),
    ] {
        refused(&packet(first, body), CLIENT, V3, MALFORMED);
    }
    for (first, body) in [
        (0x40, "0001 00 00 00"),
        (0x50, "0001 00 00 00"),
        (0x62, "0001 00 00 00"),
        (0x70, "0001 00 00 00"),
        (0xC0, "00"),
        (0xE0, "00 00 00"),
        (0xF0, "18 00 00"),
    ] {
        refused(&packet(first, body), CLIENT, V5, MALFORMED);
    }
    refused(
        &packet(0x10, "'MQTT' 04 02 003c 'c' 00"),
        CLIENT,
        None,
        MALFORMED,
    );
    refused(
        &packet(0x10, "'MQTT' 05 02 003c 00 'c' 00"),
        CLIENT,
        None,
        MALFORMED,
    );
    refused(&packet(0x20, "00 00 00"), SERVER, V3, MALFORMED);
    refused(&packet(0xB0, "0001 00"), SERVER, V3, MALFORMED);
}

#[test]
fn mq_1_what_the_other_side_may_not_send_is_refused() {
    for version in [V3, V5] {
        for first in [0x20, 0x90, 0xB0, 0xD0] {
            refused(&[first], CLIENT, version, PROTOCOL);
        }
        for first in [0x10, 0x82, 0xA2, 0xC0] {
            refused(&[first], SERVER, version, PROTOCOL);
        }
    }
    refused(&[0xE0], SERVER, V3, PROTOCOL);
    taken(&packet(0xE0, "8B"), SERVER, V5);
    // [3.1.0-1] and [3.1.0-2]
    refused(&[0xC0], CLIENT, None, PROTOCOL);
    refused(&[0x10], CLIENT, V3, PROTOCOL);
    refused(&[0x10], CLIENT, V5, PROTOCOL);
}

#[test]
fn mq_1_packet_identifiers_are_not_zero() {
    for (first, body_3, body_5) in [
        (0x32, "'t' 0000", "'t' 0000 00"),
        (0x34, "'t' 0000", "'t' 0000 00"),
        (0x40, "0000", "0000"),
        (0x50, "0000", "0000"),
        (0x62, "0000", "0000"),
        (0x70, "0000", "0000"),
        (0x82, "0000 't' 00", "0000 00 't' 00"),
        (0xA2, "0000 't'", "0000 00 't'"),
    ] {
        refused(&packet(first, body_3), CLIENT, V3, PROTOCOL);
        refused(&packet(first, body_5), CLIENT, V5, PROTOCOL);
    }
}

#[test]
fn mq_1_topics_of_messages_have_no_wildcard_and_are_not_empty() {
    for topic in ["+", "a/#", "a/+/b", "#"] {
        refused(
            &packet(0x30, &format!("'{topic}' 61")),
            CLIENT,
            V3,
            MALFORMED,
        );
        refused(
            &packet(0x30, &format!("'{topic}' 00 61")),
            CLIENT,
            V5,
            MALFORMED,
        );
    }
    refused(&packet(0x30, "'' 61"), CLIENT, V3, PROTOCOL);
    refused(&packet(0x30, "'' 00 61"), CLIENT, V5, PROTOCOL);
    let aliased = packet(0x30, "'' 03 23 0001 61");
    let Packet::Publish(publish) = taken(&aliased, CLIENT, V5) else {
        panic!("another packet")
    };
    assert_eq!(publish.properties.topic_alias(), Some(1));
    assert_eq!((publish.topic, publish.payload), ("", &b"a"[..]));
    refused(&packet(0x30, "'t' 03 23 0000"), CLIENT, V5, 0x94);
}

#[test]
fn mq_1_lists_of_filters_and_their_options() {
    refused(&packet(0x82, "0001"), CLIENT, V3, PROTOCOL);
    refused(&packet(0x82, "0001 00"), CLIENT, V5, PROTOCOL);
    refused(&packet(0xA2, "0001"), CLIENT, V3, PROTOCOL);
    refused(&packet(0xA2, "0001 00"), CLIENT, V5, PROTOCOL);
    for filter in ["", "a#", "a/#/b", "a+", "+a"] {
        refused(
            &packet(0x82, &format!("0001 '{filter}' 00")),
            CLIENT,
            V3,
            MALFORMED,
        );
        refused(
            &packet(0x82, &format!("0001 00 '{filter}' 00")),
            CLIENT,
            V5,
            MALFORMED,
        );
        refused(
            &packet(0xA2, &format!("0001 '{filter}'")),
            CLIENT,
            V3,
            MALFORMED,
        );
        refused(
            &packet(0xA2, &format!("0001 00 '{filter}'")),
            CLIENT,
            V5,
            MALFORMED,
        );
    }
    for bits in [0x04, 0x08, 0x10, 0x20, 0x40, 0x80] {
        refused(
            &packet(0x82, &format!("0001 't' {bits:02x}")),
            CLIENT,
            V3,
            MALFORMED,
        );
    }
    for bits in [0x40, 0x80, 0xC0] {
        refused(
            &packet(0x82, &format!("0001 00 't' {bits:02x}")),
            CLIENT,
            V5,
            MALFORMED,
        );
    }
    refused(&packet(0x82, "0001 't' 03"), CLIENT, V3, PROTOCOL);
    refused(&packet(0x82, "0001 00 't' 03"), CLIENT, V5, PROTOCOL);
    refused(&packet(0x82, "0001 00 't' 30"), CLIENT, V5, PROTOCOL);
    // The filter's options are missing.
    refused(&packet(0x82, "0001 't'"), CLIENT, V3, MALFORMED);
    // [3.8.3-4], [4.8.2-1], [4.8.2-2]
    refused(
        &packet(0x82, "0001 00 '$share/g/t' 04"),
        CLIENT,
        V5,
        PROTOCOL,
    );
    refused(
        &packet(0x82, "0001 00 '$share/g' 00"),
        CLIENT,
        V5,
        MALFORMED,
    );
    refused(
        &packet(0x82, "0001 00 '$share//t' 00"),
        CLIENT,
        V5,
        MALFORMED,
    );
    taken(&packet(0x82, "0001 00 '$share/g/t' 01"), CLIENT, V5);
    taken(&packet(0x82, "0001 '$share/g' 00"), CLIENT, V3);
    // [3.8.2.1.2]: a subscription identifier is not 0 and comes once.
    refused(&packet(0x82, "0001 02 0b00 't' 00"), CLIENT, V5, PROTOCOL);
    refused(
        &packet(0x82, "0001 04 0b010b02 't' 00"),
        CLIENT,
        V5,
        PROTOCOL,
    );
    let good = packet(0x82, "0001 02 0b07 'a/#' 2e 'b' 01");
    let Packet::Subscribe(subscribe) = taken(&good, CLIENT, V5) else {
        panic!("another packet")
    };
    assert_eq!(subscribe.properties.subscription_id(), Some(7));
    let filters: Vec<_> = subscribe.filters.iter().collect();
    assert_eq!((filters[0].filter, filters[1].filter), ("a/#", "b"));
    let options = SubscribeOptions {
        qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::Never,
    };
    assert_eq!(filters[0].options, options);
    assert_eq!(filters[1].options, SubscribeOptions::new(QoS::AtLeastOnce));
    let many = "'t' 00".repeat(101);
    refused(&packet(0x82, &format!("0001 00 {many}")), CLIENT, V5, 0x97);
}

#[test]
fn lengths_have_four_bytes_at_most_and_the_shortest_form() {
    for version in [V3, V5] {
        refused(&hex("c0 80 80 80 80"), CLIENT, version, MALFORMED);
        refused(&hex("c0 80 80 80 80 01"), CLIENT, version, MALFORMED);
        refused(&hex("c0 80 00"), CLIENT, version, MALFORMED);
        refused(&hex("30 83 00 00 01 61"), CLIENT, version, MALFORMED);
        assert_eq!(read(&hex("c0 80 80 80"), CLIENT, version), Ok(None));
    }
    for (value, bytes) in [
        (0, "00"),
        (127, "7f"),
        (128, "80 01"),
        (16_383, "ff 7f"),
        (16_384, "80 80 01"),
        (2_097_151, "ff ff 7f"),
        (2_097_152, "80 80 80 01"),
        (VARINT_MAX, "ff ff ff 7f"),
    ] {
        let mut written = Vec::new();
        wire::put_varint(&mut written, value);
        assert_eq!(written, hex(bytes));
        assert_eq!(wire::varint(&written), Ok(Some((value, written.len()))));
        assert_eq!(wire::varint_len(value as usize), written.len());
    }
    // A property's length, and a subscription identifier, are such integers too.
    refused(&packet(0x30, "'t' 8000"), CLIENT, V5, MALFORMED);
    refused(
        &packet(0x82, "0001 03 0b8100 't' 00"),
        CLIENT,
        V5,
        MALFORMED,
    );
}

#[test]
fn strings_are_well_formed_utf_8_without_control_characters() {
    for bytes in [
        "80",
        "c0 80",
        "ed a0 80",
        "ed bf bf",
        "f4 90 80 80",
        "ff",
        "e2 82",
        "00",
        "01",
        "1f",
        "7f",
        "c2 80",
        "c2 9f",
        "ef bf be",
        "ef bf bf",
        "ef b7 90",
        "f0 9f bf be",
    ] {
        let length = hex(bytes).len();
        refused(
            &packet(0x30, &format!("{length:04x} {bytes}")),
            CLIENT,
            V3,
            MALFORMED,
        );
        refused(
            &packet(0x30, &format!("{length:04x} {bytes} 00")),
            CLIENT,
            V5,
            MALFORMED,
        );
        let connect = format!("'MQTT' 04 02 0000 {length:04x} {bytes}");
        refused(&packet(0x10, &connect), CLIENT, None, MALFORMED);
        let name = format!("'MQTT' 04 82 0000 'c' {length:04x} {bytes}");
        refused(&packet(0x10, &name), CLIENT, None, MALFORMED);
        let user = format!("'t' {:02x} 26 'a' {length:04x} {bytes}", length + 6);
        refused(&packet(0x30, &user), CLIENT, V5, MALFORMED);
    }
    // [1.5.4-3]: U+FEFF stays.
    let kept = packet(0x30, "'\u{feff}a' 61");
    let Packet::Publish(publish) = taken(&kept, CLIENT, V3) else {
        panic!("another packet")
    };
    assert_eq!(publish.topic, "\u{feff}a");
    // A string that is longer than its packet.
    refused(&packet(0x30, "0005 61"), CLIENT, V3, MALFORMED);
}

/// What a CONNECT is answered with: the bytes of the CONNACK, or nothing.
#[track_caller]
fn answer(body: &str) -> String {
    let bytes = packet(0x10, body);
    let error = read(&bytes, CLIENT, None).unwrap_err();
    let mut out = Vec::new();
    assert_eq!(error.answer_connect(&mut out), !out.is_empty());
    out.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn mq_3_each_bad_connect_has_its_answer() {
    // [3.1.2-1]
    assert_eq!(answer("'MQTX' 04 02 0000 'c'"), "");
    assert_eq!(answer("'mqtt' 05 02 0000 00 'c'"), "");
    assert_eq!(answer("'MQIsdp' 03 02 0000 'c'"), "");
    // [3.1.2-2]
    assert_eq!(answer("'MQTT' 03 02 0000 'c'"), "20020001");
    assert_eq!(answer("'MQTT' 06 02 0000 00 'c'"), "2003008400");
    // [3.1.2-3]: the reserved flag.
    assert_eq!(answer("'MQTT' 04 03 0000 'c'"), "");
    assert_eq!(answer("'MQTT' 05 03 0000 00 'c'"), "2003008100");
    // [3.1.2-11], [3.1.2-13], [3.1.2-15]: flags of a will without one; [3.1.2-12]: QoS 3.
    for flags in ["0a", "12", "22", "1e"] {
        assert_eq!(answer(&format!("'MQTT' 04 {flags} 0000 'c' 't' 0000")), "");
        assert_eq!(
            answer(&format!("'MQTT' 05 {flags} 0000 00 'c' 00 't' 0000")),
            "2003008100"
        );
    }
    // [3.1.1 3.1.2-22]
    assert_eq!(answer("'MQTT' 04 42 0000 'c' 'p'"), "");
    taken(&packet(0x10, "'MQTT' 05 42 0000 00 'c' 'p'"), CLIENT, None);
    // [3.1.1 3.1.3-8]
    assert_eq!(answer("'MQTT' 04 00 0000 ''"), "20020002");
    taken(&packet(0x10, "'MQTT' 04 02 0000 ''"), CLIENT, None);
    taken(&packet(0x10, "'MQTT' 05 00 0000 00 ''"), CLIENT, None);
    // Limits.
    let long = "c".repeat(129);
    assert_eq!(answer(&format!("'MQTT' 04 02 0000 '{long}'")), "20020002");
    assert_eq!(
        answer(&format!("'MQTT' 05 02 0000 00 '{long}'")),
        "2003008500"
    );
    let long = "u".repeat(257);
    assert_eq!(
        answer(&format!("'MQTT' 04 82 0000 'c' '{long}'")),
        "20020004"
    );
    assert_eq!(
        answer(&format!("'MQTT' 05 82 0000 00 'c' '{long}'")),
        "2003008600"
    );
    // A bad will.
    assert_eq!(
        answer("'MQTT' 05 06 0000 00 'c' 00 'a/#' 0000"),
        "2003008100"
    );
    assert_eq!(answer("'MQTT' 04 06 0000 'c' '' 0000"), "");
    // Too large, told before it is there.
    let mut out = Vec::new();
    for (level, expected) in [(4, ""), (5, "2003009500")] {
        let bytes = packet(0x10, &format!("'MQTT' {level:02x} 02"));
        let mut bytes = [&hex("10 81 40"), &bytes[2..]].concat();
        let error = read(&bytes, CLIENT, None).unwrap_err();
        out.clear();
        error.answer_connect(&mut out);
        assert_eq!(out, hex(expected));
        bytes.truncate(9);
        assert_eq!(read(&bytes, CLIENT, None), Ok(None));
    }
}

#[test]
fn mq_3_connect_properties() {
    let connect = |properties: &str| {
        let length = hex(properties).len();
        packet(
            0x10,
            &format!("'MQTT' 05 02 0000 {length:02x} {properties} 'c'"),
        )
    };
    let all = connect(
        "11 0000000a 21 0014 27 00001000 22 000a 19 01 17 00 26 'a''b' 26 'a''c' 15 'm' 16 'd'",
    );
    let Packet::Connect(read) = taken(&all, CLIENT, None) else {
        panic!("another packet")
    };
    let properties = read.properties;
    assert_eq!(properties.session_expiry(), Some(10));
    assert_eq!(properties.receive_maximum(), Some(20));
    assert_eq!(properties.maximum_packet_size(), Some(4096));
    assert_eq!(properties.topic_alias_maximum(), Some(10));
    assert_eq!(properties.request_response_info(), Some(true));
    assert_eq!(properties.request_problem_info(), Some(false));
    assert_eq!(properties.auth_method(), Some("m"));
    assert_eq!(properties.auth_data(), Some(&b"d"[..]));
    let user: Vec<_> = properties.user_properties().collect();
    assert_eq!(user, [("a", "b"), ("a", "c")]);
    assert!(!format!("{read:?}").contains("[100]"), "{read:?}");
    for repeated in [
        "11 00000000",
        "21 0001",
        "27 00000001",
        "22 0000",
        "19 00",
        "17 00",
        "15 'm'",
    ] {
        refused(
            &connect(&format!("{repeated} {repeated}")),
            CLIENT,
            None,
            PROTOCOL,
        );
        taken(&connect(repeated), CLIENT, None);
    }
    for wrong in ["21 0000", "27 00000000", "19 02", "17 02", "16 'd'"] {
        refused(&connect(wrong), CLIENT, None, PROTOCOL);
    }
    for foreign in [
        "01 00",
        "02 00000001",
        "03 'a'",
        "08 'a'",
        "09 'a'",
        "0b 01",
        "12 'a'",
        "13 0001",
        "18 00000001",
        "1a 'a'",
        "1c 'a'",
        "1f 'a'",
        "23 0001",
        "24 00",
        "25 00",
        "28 00",
        "29 00",
        "2a 00",
        "00",
        "04 00",
        "7f 00",
        "8001 00",
    ] {
        refused(&connect(foreign), CLIENT, None, MALFORMED);
    }
}

#[test]
fn user_properties_are_counted() {
    let of = |count: usize| {
        let properties = hex(&"26 '''' ".repeat(count));
        let mut body = hex("'t'");
        wire::put_varint(&mut body, u32::try_from(properties.len()).unwrap());
        body.extend(properties);
        let mut bytes = vec![0x30];
        wire::put_varint(&mut bytes, u32::try_from(body.len()).unwrap());
        bytes.extend(body);
        bytes
    };
    taken(&of(20), CLIENT, V5);
    refused(&of(21), CLIENT, V5, 0x97);
}

#[test]
fn properties_of_messages_and_wills() {
    let good = "01 01 02 00000005 03 'text/plain' 08 'r' 09 'c' 23 0002 26 'a''b'";
    let length = hex(good).len();
    let bytes = packet(0x33, &format!("'t' 0007 {length:02x} {good} 6869"));
    let Packet::Publish(publish) = taken(&bytes, CLIENT, V5) else {
        panic!("another packet")
    };
    assert_eq!(publish.properties.payload_format(), Some(1));
    assert_eq!(publish.properties.message_expiry(), Some(5));
    assert_eq!(publish.properties.content_type(), Some("text/plain"));
    assert_eq!(publish.properties.response_topic(), Some("r"));
    assert_eq!(publish.properties.correlation_data(), Some(&b"c"[..]));
    assert_eq!(
        (publish.packet_id, publish.retain, publish.dup),
        (7, true, false)
    );
    assert_eq!(publish.qos, QoS::AtLeastOnce);
    // [3.3.2-14], [3.3.4-6]
    refused(&packet(0x30, "'t' 06 08 'a/#' "), CLIENT, V5, MALFORMED);
    refused(&packet(0x30, "'t' 02 0b 01"), CLIENT, V5, PROTOCOL);
    taken(&packet(0x30, "'t' 04 0b01 0b02"), SERVER, V5);
    refused(&packet(0x30, "'t' 02 01 02"), CLIENT, V5, PROTOCOL);
    refused(&packet(0x30, "'t' 05 11 00000001"), CLIENT, V5, MALFORMED);
    // The list is longer than the packet.
    refused(&packet(0x30, "'t' 05 01 01"), CLIENT, V5, MALFORMED);
    let will = "18 00000003 01 00 02 00000001";
    let connect = packet(0x10, &format!("'MQTT' 05 36 0000 00 'c' 0c {will} 't' 'p'"));
    let Packet::Connect(connect) = taken(&connect, CLIENT, None) else {
        panic!("another packet")
    };
    let will = connect.will.unwrap();
    assert_eq!(will.properties.will_delay(), Some(3));
    assert_eq!((will.topic, will.payload), ("t", &b"p"[..]));
    assert_eq!((will.qos, will.retain), (QoS::ExactlyOnce, true));
}

#[test]
fn reasons_are_those_of_their_packet() {
    taken(&packet(0x40, "0001"), CLIENT, V5);
    taken(&packet(0x40, "0001 10"), CLIENT, V5);
    taken(&packet(0x50, "0001 97 00"), CLIENT, V5);
    taken(&packet(0x62, "0001 92"), CLIENT, V5);
    refused(&packet(0x40, "0001 01"), CLIENT, V5, PROTOCOL);
    refused(&packet(0x62, "0001 10"), CLIENT, V5, PROTOCOL);
    taken(&packet(0xE0, "04"), CLIENT, V5);
    taken(&packet(0xE0, "00 05 11 00000000"), CLIENT, V5);
    refused(&packet(0xE0, "8e"), CLIENT, V5, PROTOCOL);
    // [3.14.2-2]: a server says nothing of expiry; a client names no other server.
    refused(&packet(0xE0, "00 05 11 00000000"), SERVER, V5, MALFORMED);
    refused(&packet(0xE0, "00 04 1c 'a'"), CLIENT, V5, MALFORMED);
    taken(&packet(0xF0, ""), CLIENT, V5);
    taken(&packet(0xF0, "18 04 15 'a'"), CLIENT, V5);
    refused(&packet(0xF0, "18"), CLIENT, V5, MALFORMED);
    refused(&packet(0xF0, "01 00"), CLIENT, V5, PROTOCOL);
    // [3.2.2-6]: no session with a refusal.
    refused(&packet(0x20, "01 85 00"), SERVER, V5, PROTOCOL);
    refused(&packet(0x20, "01 05"), SERVER, V3, PROTOCOL);
    refused(&packet(0x20, "00 06"), SERVER, V3, PROTOCOL);
    refused(&packet(0x20, "02 00"), SERVER, V3, MALFORMED);
    refused(&packet(0x90, "0001"), SERVER, V3, PROTOCOL);
    refused(&packet(0x90, "0001 87"), SERVER, V3, PROTOCOL);
}

#[test]
fn mq_9_a_packet_that_is_too_large_is_told_from_its_header() {
    let limits = Limits {
        packet_bytes_max: 10,
        ..Limits::DEFAULT
    };
    let bytes = packet(0x30, "'t' 0102030405");
    assert_eq!(bytes.len(), 10);
    assert!(decode(&bytes, CLIENT, V3, &limits).unwrap().is_some());
    let error = decode(&hex("30 09"), CLIENT, V3, &limits).unwrap_err();
    assert_eq!(error.reason, ReasonCode::PACKET_TOO_LARGE);
    assert_eq!(frame(&hex("30 08"), CLIENT, V3, &limits), Ok(Some(10)));
}

/// Makes choices from bytes, so that a property test's input becomes any packet.
struct Dice<'a>(&'a [u8]);

impl<'a> Dice<'a> {
    fn roll(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn flag(&mut self) -> bool {
        self.roll() & 1 == 1
    }

    fn number(&mut self) -> u16 {
        u16::from(self.roll()) << 8 | u16::from(self.roll())
    }

    fn id(&mut self) -> u16 {
        self.number().max(1)
    }

    fn word(&mut self) -> &'static str {
        const WORDS: [&str; 8] = [
            "a",
            "a/b",
            "鸿雁",
            "x y",
            "/",
            "\u{feff}",
            "$SYS/a",
            "longer/name",
        ];
        WORDS[usize::from(self.roll()) % WORDS.len()]
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.roll()).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn of(&mut self, codes: &[u8]) -> ReasonCode {
        ReasonCode(codes[usize::from(self.roll()) % codes.len()])
    }

    fn some(&mut self, list: &mut PropertyList, choices: &[Property<'_>]) {
        for choice in choices {
            if self.flag() {
                list.push(*choice).unwrap();
            }
        }
        for _ in 0..self.roll() % 3 {
            let pair = Property::UserProperty(self.word(), self.word());
            list.push(pair).unwrap();
        }
    }
}

/// Makes a packet of both versions and hands it on, with its sender.
fn any_packet(dice: &mut Dice<'_>, version: Version, with: &mut dyn FnMut(Packet<'_>, Sender)) {
    let mut list = PropertyList::new();
    let five = version == Version::V5;
    let qos = QoS::from_bits(dice.roll() % 3).unwrap();
    let message = [
        Property::PayloadFormat(dice.roll() & 1),
        Property::MessageExpiry(dice.number().into()),
        Property::ContentType(dice.word()),
        Property::ResponseTopic(dice.word()),
        Property::CorrelationData(dice.bytes()),
    ];
    let ack = |dice: &mut Dice<'_>, codes: &[u8]| {
        let reason = if five {
            dice.of(codes)
        } else {
            ReasonCode::SUCCESS
        };
        (dice.id(), reason)
    };
    match dice.roll() % 15 {
        0 => {
            if five {
                let choices = [
                    Property::SessionExpiry(dice.number().into()),
                    Property::ReceiveMaximum(dice.id()),
                    Property::MaximumPacketSize(dice.id().into()),
                    Property::TopicAliasMaximum(dice.number()),
                    Property::RequestProblemInfo(dice.flag()),
                    Property::RequestResponseInfo(dice.flag()),
                    Property::AuthMethod(dice.word()),
                ];
                dice.some(&mut list, &choices);
            }
            let mut of_will = PropertyList::new();
            if five {
                dice.some(&mut of_will, &message);
            }
            let will = dice.flag().then(|| Will {
                topic: dice.word(),
                payload: dice.bytes(),
                qos,
                retain: dice.flag(),
                properties: of_will.as_properties(),
            });
            let user_name = dice.flag().then(|| dice.word());
            let password = (dice.flag() && (five || user_name.is_some())).then(|| dice.bytes());
            let connect = Connect {
                version,
                clean_start: dice.flag(),
                keep_alive: dice.number(),
                properties: list.as_properties(),
                client_id: dice.word(),
                will,
                user_name,
                password,
            };
            with(Packet::Connect(connect), CLIENT);
        }
        1 => {
            let reason = if five {
                dice.of(&[0, 0x81, 0x9F])
            } else {
                dice.of(&[0, 0x84, 0x87])
            };
            if five {
                let choices = [
                    Property::MaximumQos(dice.roll() & 1),
                    Property::RetainAvailable(dice.flag()),
                    Property::AssignedClientId(dice.word()),
                    Property::WildcardAvailable(dice.flag()),
                    Property::SubscriptionIdsAvailable(dice.flag()),
                    Property::SharedAvailable(dice.flag()),
                    Property::ServerKeepAlive(dice.number()),
                    Property::ResponseInfo(dice.word()),
                    Property::ServerReference(dice.word()),
                    Property::ReasonString(dice.word()),
                ];
                dice.some(&mut list, &choices);
            }
            let connack = ConnAck {
                session_present: reason == ReasonCode::SUCCESS && dice.flag(),
                reason,
                properties: list.as_properties(),
            };
            with(Packet::ConnAck(connack), SERVER);
        }
        2 => {
            if five {
                dice.some(&mut list, &message);
            }
            let publish = Publish {
                dup: qos != QoS::AtMostOnce && dice.flag(),
                qos,
                retain: dice.flag(),
                topic: dice.word(),
                packet_id: if qos == QoS::AtMostOnce { 0 } else { dice.id() },
                properties: list.as_properties(),
                payload: dice.bytes(),
            };
            let from = if dice.flag() { CLIENT } else { SERVER };
            with(Packet::Publish(publish), from);
        }
        kind @ 3..=6 => {
            let codes: &[u8] = if kind < 5 {
                &[0, 0x10, 0x80, 0x97]
            } else {
                &[0, 0x92]
            };
            let (packet_id, reason) = ack(dice, codes);
            if five {
                let choice = [Property::ReasonString(dice.word())];
                dice.some(&mut list, &choice);
            }
            let ack = Ack {
                packet_id,
                reason,
                properties: list.as_properties(),
            };
            let packet = match kind {
                3 => Packet::PubAck(ack),
                4 => Packet::PubRec(ack),
                5 => Packet::PubRel(ack),
                _ => Packet::PubComp(ack),
            };
            with(packet, if dice.flag() { CLIENT } else { SERVER });
        }
        7 => {
            if five {
                let choice = [Property::SubscriptionId(dice.id().into())];
                dice.some(&mut list, &choice);
            }
            let mut filters = FilterList::new();
            for _ in 0..=dice.roll() % 4 {
                let options = if five {
                    SubscribeOptions {
                        qos,
                        no_local: dice.flag(),
                        retain_as_published: dice.flag(),
                        retain_handling: RetainHandling::New,
                    }
                } else {
                    SubscribeOptions::new(qos)
                };
                filters.push(dice.word(), options).unwrap();
            }
            let subscribe = Subscribe {
                packet_id: dice.id(),
                properties: list.as_properties(),
                filters: filters.as_filters(),
            };
            with(Packet::Subscribe(subscribe), CLIENT);
        }
        8 => {
            let codes: &[u8] = if five { &[0, 1, 2, 0x87] } else { &[2, 0x80] };
            let packet_id = dice.id();
            let properties = list.as_properties();
            with(
                Packet::SubAck(SubAck {
                    packet_id,
                    properties,
                    codes,
                }),
                SERVER,
            );
        }
        9 => {
            let mut filters = TopicList::new();
            for _ in 0..=dice.roll() % 4 {
                filters.push(dice.word()).unwrap();
            }
            let unsubscribe = Unsubscribe {
                packet_id: dice.id(),
                properties: list.as_properties(),
                filters: filters.as_topics(),
            };
            with(Packet::Unsubscribe(unsubscribe), CLIENT);
        }
        10 => {
            let codes: &[u8] = if five { &[0, 0x11] } else { &[] };
            let packet_id = dice.id();
            let properties = list.as_properties();
            with(
                Packet::UnsubAck(UnsubAck {
                    packet_id,
                    properties,
                    codes,
                }),
                SERVER,
            );
        }
        11 => with(Packet::PingReq, CLIENT),
        12 => with(Packet::PingResp, SERVER),
        13 => {
            let from = if five && dice.flag() { SERVER } else { CLIENT };
            let reason = if five {
                dice.of(&[0, 0x81, 0x98])
            } else {
                ReasonCode::SUCCESS
            };
            if five {
                let choice = [Property::ReasonString(dice.word())];
                dice.some(&mut list, &choice);
            }
            let properties = list.as_properties();
            with(Packet::Disconnect(Disconnect { reason, properties }), from);
        }
        _ => {
            if five {
                list.push(Property::AuthMethod(dice.word())).unwrap();
                let choice = [Property::AuthData(dice.bytes())];
                dice.some(&mut list, &choice);
                let auth = Auth {
                    reason: dice.of(&[0, 0x18, 0x19]),
                    properties: list.as_properties(),
                };
                with(
                    Packet::Auth(auth),
                    if dice.flag() { CLIENT } else { SERVER },
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_packet_survives_the_wire(dice in prop::collection::vec(any::<u8>(), 0..200), five: bool) {
        let version = if five { Version::V5 } else { Version::V311 };
        any_packet(&mut Dice(&dice), version, &mut |packet, from| {
            let mut bytes = vec![0xAA];
            packet.encode(version, &mut bytes).unwrap();
            let bytes = &bytes[1..];
            assert_eq!(packet.encoded_len(version), bytes.len());
            let known = match packet {
                Packet::Connect(_) => None,
                _ => Some(version),
            };
            assert_eq!(taken(bytes, from, known), packet);
            // MQ-2: cut anywhere it is incomplete, and what follows is left alone.
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut], from, known), Ok(None), "cut at {cut}");
            }
            let two = [bytes, &[0xC0]].concat();
            assert_eq!(read(&two, from, known), Ok(Some((packet, bytes.len()))));
        });
    }

    #[test]
    fn no_bytes_fell_the_parser_and_what_it_takes_it_can_write(
        first: u8,
        body in prop::collection::vec(any::<u8>(), 0..100),
        case in 0..6_u8,
    ) {
        let (from, version) = match case {
            0 => (CLIENT, None),
            1 => (CLIENT, V3),
            2 => (SERVER, V3),
            3 => (SERVER, V5),
            _ => (CLIENT, V5),
        };
        let mut bytes = vec![first];
        wire::put_varint(&mut bytes, u32::try_from(body.len()).unwrap());
        bytes.extend(body);
        if let Ok(Some((packet, _))) = read(&bytes, from, version) {
            let version = match packet {
                Packet::Connect(connect) => connect.version,
                _ => version.unwrap(),
            };
            let mut again = Vec::new();
            packet.encode(version, &mut again).unwrap();
            let known = version_for(&packet, version);
            assert_eq!(taken(&again, from, known), packet);
        }
    }

    #[test]
    fn raw_bytes_fell_nothing(bytes in prop::collection::vec(any::<u8>(), 0..50), five: bool) {
        let _ = read(&bytes, CLIENT, None);
        let _ = read(&bytes, CLIENT, if five { V5 } else { V3 });
        let _ = read(&bytes, SERVER, if five { V5 } else { V3 });
    }
}

fn version_for(packet: &Packet<'_>, version: Version) -> Option<Version> {
    match packet {
        Packet::Connect(_) => None,
        _ => Some(version),
    }
}

#[test]
fn what_is_too_long_is_not_written() {
    let long = "a".repeat(65_536);
    let mut list = PropertyList::new();
    let error = list.push(Property::UserProperty("a", &long)).unwrap_err();
    assert_eq!(error, EncodeError::FieldTooLong { bytes: 65_536 });
    assert!(list.as_properties().is_empty());
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: &long,
        packet_id: 0,
        properties: Properties::NONE,
        payload: b"",
    };
    let mut out = vec![1];
    assert!(
        Packet::Publish(publish)
            .encode(Version::V5, &mut out)
            .is_err()
    );
    assert_eq!(out, [1]);
}

#[test]
fn three_says_its_refusals_in_its_own_codes() {
    for (reason, code) in [
        (ReasonCode::SUCCESS, 0),
        (ReasonCode::UNSUPPORTED_VERSION, 1),
        (ReasonCode::CLIENT_ID_NOT_VALID, 2),
        (ReasonCode::SERVER_BUSY, 3),
        (ReasonCode::BAD_USER_NAME_OR_PASSWORD, 4),
        (ReasonCode::NOT_AUTHORIZED, 5),
    ] {
        let mut out = Vec::new();
        let connack = ConnAck {
            session_present: false,
            reason,
            properties: Properties::NONE,
        };
        Packet::ConnAck(connack)
            .encode(Version::V311, &mut out)
            .unwrap();
        assert_eq!(out, [0x20, 0x02, 0x00, code]);
    }
    let mut out = Vec::new();
    let suback = SubAck {
        packet_id: 1,
        properties: Properties::NONE,
        codes: &[0, 2, 0x87],
    };
    Packet::SubAck(suback)
        .encode(Version::V311, &mut out)
        .unwrap();
    assert_eq!(out, [0x90, 0x05, 0x00, 0x01, 0, 2, 0x80]);
}
