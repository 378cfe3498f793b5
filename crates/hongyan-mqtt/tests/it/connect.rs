//! CONNECT, identity, takeover, silence: MQ-1, MQ-3, MQ-6, MQ-7, MQ-10.

use std::time::Duration;

use hongyan_mqtt::broker::Access;
use hongyan_mqtt::packet::{Auth, Connect, Packet, Property, ReasonCode};

use crate::play::{BOTH, Play, V5, V311, connect, list, will};

const FACTS: &str = " ReceiveMaximum(100) MaximumPacketSize(262144) TopicAliasMaximum(10)";

#[test]
fn mq_3_a_good_connect_is_accepted_with_what_the_server_takes() {
    let mut play = Play::new();
    let (_, said) = play.try_connect(&connect(V311, "c"));
    assert_eq!(said, ["connack 0x00"]);
    let (_, said) = play.try_connect(&connect(V5, "c5"));
    assert_eq!(said, [format!("connack 0x00{FACTS}")]);
}

#[test]
fn mq_3_bad_connects_are_answered_and_closed() {
    for (bytes, answer) in [
        (&b"\x10\x0d\0\x04MQTX\x04\x02\0\x3c\0\x01c"[..], &[][..]),
        (b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x3c\0\x01c", &[]),
        (b"\x10\x0d\0\x04MQTT\x03\x02\0\x3c\0\x01c", &[0x20, 2, 0, 1]),
        (
            b"\x10\x0d\0\x04MQTT\x07\x02\0\x3c\0\x01c",
            &[0x20, 3, 0, 0x84, 0],
        ),
        (b"\x10\x0d\0\x04MQTT\x04\x03\0\x3c\0\x01c", &[]),
        (
            b"\x10\x0e\0\x04MQTT\x05\x03\0\x3c\0\0\x01c",
            &[0x20, 3, 0, 0x81, 0],
        ),
        (b"\x10\x0c\0\x04MQTT\x04\0\0\x3c\0\0", &[0x20, 2, 0, 2]),
        // No CONNECT at all.
        (b"\xc0\0", &[]),
        (b"\xe0\0", &[]),
        (b"\x30\x04\0\x01ta", &[]),
    ] {
        let mut play = Play::new();
        let client = play.open(V311);
        play.bytes(client, bytes);
        let mut out = Vec::new();
        let flow = play.broker.take_output(play.now, client.id, &mut out);
        assert_eq!(out, answer, "{bytes:02x?}");
        assert_eq!(flow, hongyan_mqtt::broker::Flow::Close, "{bytes:02x?}");
        assert_eq!(play.broker.stats().sessions, 0);
    }
}

#[test]
fn mqtt_3_1_0_2_a_second_connect_ends_the_connection() {
    for version in BOTH {
        let mut play = Play::new();
        let client = play.clean(version, "c");
        play.send(client, &Packet::Connect(connect(version, "c")));
        let expected: &[&str] = match version {
            V311 => &["closed"],
            V5 => &["disconnect 0x82", "closed"],
        };
        assert_eq!(play.read(client), expected);
    }
}

#[test]
fn mqtt_3_1_3_6_an_empty_client_id_gets_one() {
    let mut play = Play::new();
    for _ in 0..2 {
        let (_, said) = play.try_connect(&connect(V311, ""));
        assert_eq!(said, ["connack 0x00"]);
    }
    let (_, one) = play.try_connect(&connect(V5, ""));
    let (_, other) = play.try_connect(&Connect {
        clean_start: false,
        ..connect(V5, "")
    });
    assert!(one[0].contains("AssignedClientId"), "{one:?}");
    assert_ne!(one, other);
    assert_eq!(play.broker.stats().sessions, 4);
}

#[test]
fn a_password_is_asked_for() {
    let mut play = Play::with(|options| {
        options.access = Access::Password {
            user: "ann".to_owned(),
            password: b"secret".to_vec(),
        };
    });
    assert!(
        !format!("{:?}", play.broker.options()).contains("115"),
        "no secret is shown"
    );
    for (version, refused) in [(V311, "connack 0x86"), (V5, "connack 0x86")] {
        for (user_name, password) in [
            (None, None),
            (Some("ann"), None),
            (Some("ann"), Some(&b"secre"[..])),
            (Some("ann"), Some(b"secrets")),
            (Some("bob"), Some(b"secret")),
            (Some(""), Some(b"")),
        ] {
            let (_, said) = play.try_connect(&Connect {
                user_name,
                password,
                ..connect(version, "c")
            });
            assert_eq!(said, [refused, "closed"]);
        }
        play.connect(&Connect {
            user_name: Some("ann"),
            password: Some(b"secret"),
            ..connect(version, "c")
        });
    }
}

#[test]
fn enhanced_authentication_is_refused() {
    let mut play = Play::new();
    let properties = list(&[Property::AuthMethod("SCRAM-SHA-256")]);
    let (_, said) = play.try_connect(&Connect {
        properties: properties.as_properties(),
        ..connect(V5, "c")
    });
    assert_eq!(said, ["connack 0x8c", "closed"]);
    // [4.12.0-6]
    let client = play.clean(V5, "c");
    let properties = list(&[Property::AuthMethod("a")]);
    let auth = Auth {
        reason: ReasonCode::REAUTHENTICATE,
        properties: properties.as_properties(),
    };
    play.send(client, &Packet::Auth(auth));
    assert_eq!(play.read(client), ["disconnect 0x82", "closed"]);
}

#[test]
fn mq_7_a_new_connection_takes_the_session_over() {
    for version in BOTH {
        let mut play = Play::new();
        let watcher = play.clean(V5, "watcher");
        play.subscribe(watcher, "w", 0);
        let properties = list(&[Property::SessionExpiry(60)]);
        let old = play.connect(&Connect {
            clean_start: false,
            will: Some(will("w", "gone")),
            properties: properties.as_properties(),
            ..connect(version, "c")
        });
        play.subscribe(old, "t", 1);
        let publisher = play.clean(V5, "p");
        play.publish(publisher, crate::play::message("t", "1", 1, 1));
        assert_eq!(play.read(old), ["publish t qos1 #1: 1"]);

        let (new, said) = play.kept(version, "c");
        assert!(said[0].starts_with("connack 0x00 present"), "{said:?}");
        assert_eq!(said[1..], ["publish t qos1 #1 dup: 1"]);
        let expected: &[&str] = match version {
            V311 => &["closed"],
            V5 => &["disconnect 0x8e", "closed"],
        };
        assert_eq!(play.read(old), expected);
        // The old connection was lost, so its will is published.
        assert_eq!(play.read(watcher), ["publish w qos0: gone"]);
        // What comes on it still, or its end, changes nothing.
        play.bytes(old, b"\xc0\0");
        play.cut(old);
        play.puback(new, 1);
        play.publish(publisher, crate::play::message("t", "2", 1, 2));
        assert_eq!(play.read(new), ["publish t qos1 #2: 2"]);
    }
}

#[test]
fn mq_10_keep_alive_is_one_and_a_half_times_what_was_asked() {
    for version in BOTH {
        let mut play = Play::new();
        let client = play.connect(&Connect {
            keep_alive: 2,
            ..connect(version, "c")
        });
        for _ in 0..5 {
            play.seconds(2);
            play.bytes(client, b"\xc0\0");
            assert_eq!(play.read(client), ["pingresp"]);
        }
        play.pass(Duration::from_millis(2_900));
        assert!(play.read(client).is_empty());
        // Half a packet is no sign of life.
        play.bytes(client, b"\xc0");
        play.pass(Duration::from_millis(200));
        let expected: &[&str] = match version {
            V311 => &["closed"],
            V5 => &["disconnect 0x8d", "closed"],
        };
        assert_eq!(play.read(client), expected);
    }
}

#[test]
fn mqtt_3_1_2_21_the_server_sets_a_keep_alive_where_there_is_none() {
    let mut play = Play::new();
    for asked in [0, 1_201] {
        let (client, said) = play.try_connect(&Connect {
            keep_alive: asked,
            ..connect(V5, "c")
        });
        assert!(said[0].ends_with("ServerKeepAlive(1200)"), "{said:?}");
        play.seconds(1_799);
        assert!(play.read(client).is_empty());
        play.seconds(2);
        assert_eq!(play.read(client), ["disconnect 0x8d", "closed"]);
    }
    let client = play.connect(&Connect {
        keep_alive: 0,
        ..connect(V311, "c")
    });
    play.seconds(1_799);
    assert!(play.read(client).is_empty());
    play.seconds(2);
    assert_eq!(play.read(client), ["closed"]);
}

#[test]
fn who_does_not_connect_in_time_is_closed() {
    let mut play = Play::new();
    let client = play.open(V5);
    play.bytes(client, b"\x10\x0d\0\x04MQ");
    play.seconds(9);
    assert!(play.read(client).is_empty());
    play.seconds(2);
    assert_eq!(play.read(client), ["closed"]);
}

#[test]
fn mq_2_packets_come_in_any_pieces() {
    for version in BOTH {
        let mut bytes = Vec::new();
        let packets = [
            Packet::Connect(connect(version, "c")),
            Packet::PingReq,
            Packet::Publish(crate::play::message("a/b", "hello", 1, 7)),
            Packet::PingReq,
        ];
        for packet in &packets {
            packet.encode(version, &mut bytes).unwrap();
        }
        let ack = match version {
            V311 => "puback #7 0x00",
            V5 => "puback #7 0x10",
        };
        for piece in 1..=bytes.len() {
            let mut play = Play::new();
            let client = play.open(version);
            for bytes in bytes.chunks(piece) {
                play.bytes(client, bytes);
            }
            let said = play.read(client);
            assert!(said[0].starts_with("connack 0x00"), "{said:?}");
            assert_eq!(
                said[1..],
                ["pingresp", ack, "pingresp"],
                "pieces of {piece}"
            );
        }
    }
}

#[test]
fn mq_1_bad_packets_end_the_connection() {
    let bad: [&[u8]; 12] = [
        b"\x36\x06\0\x01t\0\x01a",
        b"\x38\x04\0\x01ta",
        b"\x32\x05\0\x01t\0\0",
        b"\x30\x04\0\x01+a",
        b"\x30\x03\0\0a",
        b"\x82\x02\0\x01",
        b"\x80\x06\0\x01\0\x01t\0",
        b"\x20\x02\0\0",
        b"\x90\x03\0\x01\0",
        b"\xd0\0",
        b"\xc0\x01\0",
        b"\xc0\x80\x80\x80\x80\x01",
    ];
    for version in BOTH {
        for bytes in bad {
            let mut play = Play::new();
            let client = play.clean(version, "c");
            let other = play.clean(version, "other");
            play.bytes(client, bytes);
            let said = play.read(client);
            match version {
                V311 => assert_eq!(said, ["closed"], "{bytes:02x?}"),
                V5 => {
                    let told = ["disconnect 0x81", "disconnect 0x82"].contains(&said[0].as_str());
                    assert!(told && said[1] == "closed", "{bytes:02x?} {said:?}");
                }
            }
            play.bytes(other, b"\xc0\0");
            assert_eq!(play.read(other), ["pingresp"], "nobody else notices");
        }
    }
}

#[test]
fn reason_strings_are_left_out_when_they_are_not_wanted() {
    for asked in [true, false] {
        let mut play = Play::new();
        let properties = list(&[Property::RequestProblemInfo(asked)]);
        let client = play.connect(&Connect {
            properties: properties.as_properties(),
            ..connect(V5, "c")
        });
        play.bytes(client, b"\xd0\0");
        let mut out = Vec::new();
        play.broker.take_output(play.now, client.id, &mut out);
        assert_eq!((out[0], out[2]), (0xE0, 0x82));
        assert_eq!(out.len() > 3, asked, "{out:02x?}");
    }
}

#[test]
fn response_information_is_given_when_it_is_asked_for() {
    let mut play = Play::new();
    let properties = list(&[Property::RequestResponseInfo(true)]);
    let (_, said) = play.try_connect(&Connect {
        properties: properties.as_properties(),
        ..connect(V5, "c")
    });
    assert!(
        said[0].ends_with("ResponseInfo(\"response/c\")"),
        "{said:?}"
    );
}

#[test]
fn a_server_that_stops_says_so() {
    let mut play = Play::new();
    let (three, five) = (play.clean(V311, "3"), play.clean(V5, "5"));
    let half_open = play.open(V5);
    play.broker.shut_down(play.now);
    assert_eq!(play.read(three), ["closed"]);
    assert_eq!(play.read(five), ["disconnect 0x8b", "closed"]);
    assert_eq!(play.read(half_open), ["closed"]);
    assert_eq!(play.broker.stats().sessions, 0);
}
