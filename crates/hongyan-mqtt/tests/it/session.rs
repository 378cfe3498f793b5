//! Sessions: MQ-4, MQ-5, MQ-6, MQ-13 as far as they are the broker's.

use hongyan_mqtt::packet::{Connect, Disconnect, Packet, Property, ReasonCode};

use crate::play::{BOTH, Play, V5, V311, connect, list, message};

#[test]
fn mq_4_and_mqtt_4_4_0_1_what_was_not_acknowledged_comes_again_in_order() {
    for version in BOTH {
        let mut play = Play::new();
        let publisher = play.clean(version, "p");
        let (reader, said) = play.kept(version, "r");
        assert!(!said[0].contains("present"));
        play.subscribe(reader, "t", 2);
        for (n, level) in [(1, 1), (2, 2), (3, 1), (4, 2)] {
            play.publish(publisher, message("t", &n.to_string(), level, n));
        }
        let first = [
            "publish t qos1 #1: 1",
            "publish t qos2 #2: 2",
            "publish t qos1 #3: 3",
            "publish t qos2 #4: 4",
        ];
        assert_eq!(play.read(reader), first);
        play.puback(reader, 3);
        play.pubrec(reader, 2);
        play.cut(reader);
        play.publish(publisher, message("t", "5", 1, 5));
        play.publish(publisher, message("t", "lost", 0, 0));
        let (reader, said) = play.kept(version, "r");
        assert!(said[0].starts_with("connack 0x00 present"), "{said:?}");
        let again = [
            "publish t qos1 #1 dup: 1",
            "pubrel #2 0x00",
            "publish t qos2 #4 dup: 4",
            "publish t qos1 #5: 5",
        ];
        assert_eq!(said[1..], again);
        // [4.4.0-1]: never again within the connection.
        play.seconds(50);
        assert!(play.read(reader).is_empty());
        // MQ-5: what is acknowledged does not come.
        play.puback(reader, 1);
        play.pubcomp(reader, 2);
        play.pubrec(reader, 4);
        play.pubcomp(reader, 4);
        play.puback(reader, 5);
        play.cut(reader);
        let (_, said) = play.kept(version, "r");
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(play.broker.stats().queued_bytes, 0);
    }
}

#[test]
fn a_resumed_session_remembers_qos_2_messages_of_the_client() {
    for version in BOTH {
        let mut play = Play::new();
        let reader = play.clean(version, "r");
        play.subscribe(reader, "t", 0);
        let (publisher, _) = play.kept(version, "p");
        play.publish(publisher, message("t", "x", 2, 7));
        play.cut(publisher);
        let (publisher, _) = play.kept(version, "p");
        play.publish(publisher, message("t", "x", 2, 7));
        play.pubrel(publisher, 7);
        assert_eq!(play.read(publisher), ["pubrec #7 0x00", "pubcomp #7 0x00"]);
        assert_eq!(play.read(reader).len(), 1);
    }
}

#[test]
fn mq_6_a_clean_session_leaves_nothing() {
    for version in BOTH {
        let mut play = Play::new();
        let publisher = play.clean(version, "p");
        let (reader, _) = play.kept(version, "r");
        play.subscribe(reader, "t", 1);
        play.publish(publisher, message("t", "1", 1, 1));
        play.cut(reader);
        let reader = play.clean(version, "r");
        play.publish(publisher, message("t", "2", 1, 2));
        assert!(play.read(reader).is_empty());
        play.bye(reader);
        let (_, said) = play.kept(version, "r");
        assert!(!said[0].contains("present"), "it ended with its connection");
        let stats = play.broker.stats();
        assert_eq!((stats.subscriptions, stats.queued_bytes), (0, 0));
    }
}

#[test]
fn mq_6_a_session_ends_when_it_expires() {
    let mut play = Play::new();
    let properties = list(&[Property::SessionExpiry(10)]);
    let asked = Connect {
        clean_start: false,
        properties: properties.as_properties(),
        ..connect(V5, "c")
    };
    let client = play.connect(&asked);
    play.subscribe(client, "t", 1);
    play.seconds(20);
    play.cut(client);
    play.seconds(9);
    let (client, said) = play.try_connect(&asked);
    assert!(said[0].starts_with("connack 0x00 present"), "{said:?}");
    play.cut(client);
    play.seconds(11);
    assert_eq!(play.broker.stats().sessions, 0);
    assert_eq!(play.broker.stats().subscriptions, 0);
    let (_, said) = play.try_connect(&asked);
    assert!(!said[0].contains("present"), "{said:?}");
}

#[test]
fn mq_6_session_present_crosses_the_versions() {
    let mut play = Play::new();
    let (client, _) = play.kept(V311, "c");
    play.subscribe(client, "t", 1);
    play.bye(client);
    let (client, said) = play.kept(V5, "c");
    assert!(said[0].starts_with("connack 0x00 present"));
    play.publish(client, message("t", "x", 0, 0));
    assert_eq!(play.read(client), ["publish t qos0: x"]);
}

#[test]
fn too_long_an_expiry_is_shortened_and_said() {
    let mut play = Play::new();
    for (seconds, told) in [
        (u32::MAX, true),
        (604_801, true),
        (604_800, false),
        (0, false),
    ] {
        let properties = list(&[Property::SessionExpiry(seconds)]);
        let (_, said) = play.try_connect(&Connect {
            properties: properties.as_properties(),
            ..connect(V5, "c")
        });
        assert_eq!(said[0].contains("SessionExpiry(604800)"), told, "{said:?}");
    }
    // 3.1.1's for ever is as long.
    let (client, _) = play.kept(V311, "old");
    play.bye(client);
    play.seconds(604_801);
    assert_eq!(play.broker.stats().sessions, 0);
}

#[test]
fn mqtt_3_14_2_2_disconnect_may_change_the_expiry_but_not_from_zero() {
    let mut play = Play::new();
    let later = list(&[Property::SessionExpiry(100)]);
    let goodbye = |properties| {
        Packet::Disconnect(Disconnect {
            reason: ReasonCode::NORMAL_DISCONNECTION,
            properties,
        })
    };
    let client = play.clean(V5, "c");
    play.send(client, &goodbye(later.as_properties()));
    assert_eq!(play.read(client), ["disconnect 0x82", "closed"]);
    let (client, _) = play.kept(V5, "c");
    play.send(client, &goodbye(later.as_properties()));
    assert_eq!(play.read(client), ["closed"]);
    play.seconds(101);
    assert_eq!(play.broker.stats().sessions, 0);
    let (client, _) = play.kept(V5, "c");
    let now = list(&[Property::SessionExpiry(0)]);
    play.send(client, &goodbye(now.as_properties()));
    assert_eq!(play.broker.stats().sessions, 0);
}

#[test]
fn mq_13_identifiers_wrap_around_and_leave_out_those_in_use() {
    let mut play = Play::with(|options| {
        options.packets_per_s = 1_000_000;
        options.packets_burst = 1_000_000;
    });
    let publisher = play.clean(V5, "p");
    let (reader, _) = play.kept(V5, "r");
    play.subscribe(reader, "t", 1);
    let mut next = 0_u16;
    let mut turn = |play: &mut Play| {
        next = next % 60_000 + 1;
        play.publish(publisher, message("t", "", 1, next));
        play.read(publisher);
        let said = play.read(reader);
        assert_eq!(said.len(), 1, "{said:?}");
        let number = said[0]
            .split('#')
            .nth(1)
            .unwrap()
            .split(':')
            .next()
            .unwrap();
        number.parse::<u16>().unwrap()
    };
    let mut unacknowledged = Vec::new();
    for n in 1..=u16::MAX {
        let id = turn(&mut play);
        assert_eq!(id, n);
        if [1, 2, 5, 65_535].contains(&id) {
            unacknowledged.push(id);
        } else {
            play.puback(reader, id);
        }
    }
    for expected in [3, 4, 6, 7] {
        assert_eq!(turn(&mut play), expected);
        play.puback(reader, expected);
    }
    play.cut(reader);
    let (_, said) = play.kept(V5, "r");
    let again = unacknowledged
        .iter()
        .map(|id| format!("publish t qos1 #{id} dup: "));
    assert_eq!(said[1..], again.collect::<Vec<_>>());
}
