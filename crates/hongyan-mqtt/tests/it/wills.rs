//! Wills: section 7 of the notes, 3.1.2-7 to 3.1.2-10 and 3.1.3-9 of the standard.

use hongyan_mqtt::packet::{Connect, Disconnect, Packet, Property, ReasonCode, Will};

use crate::play::{BOTH, Client, Play, V5, V311, connect, list, will};

fn with_watcher() -> (Play, Client) {
    let mut play = Play::new();
    let watcher = play.clean(V5, "watcher");
    play.subscribe(watcher, "w", 2);
    (play, watcher)
}

#[test]
fn a_will_is_published_when_the_connection_is_lost() {
    for version in BOTH {
        let (mut play, watcher) = with_watcher();
        let asked = Connect {
            will: Some(will("w", "gone")),
            keep_alive: 10,
            ..connect(version, "c")
        };
        let client = play.connect(&asked);
        play.cut(client);
        let gone = |n: u16| [format!("publish w qos1 #{n}: gone")];
        assert_eq!(play.read(watcher), gone(1));
        // Silence, a broken rule, and the other half closed.
        play.connect(&asked);
        play.seconds(16);
        assert_eq!(play.read(watcher), gone(2));
        let client = play.connect(&asked);
        play.bytes(client, b"\xd0\0");
        assert_eq!(play.read(watcher), gone(3));
        let client = play.connect(&asked);
        play.broker.hang_up(play.now, client.id);
        assert_eq!(play.read(watcher), gone(4));
        // [3.1.2-10]: not after a goodbye, and not twice.
        let client = play.connect(&asked);
        play.bye(client);
        assert!(play.read(watcher).is_empty());
    }
}

#[test]
fn mqtt_3_14_4_3_a_goodbye_with_will_publishes_it() {
    let (mut play, watcher) = with_watcher();
    for (n, reason) in [(1, 0x04), (2, 0x80)] {
        let client = play.connect(&Connect {
            will: Some(will("w", "gone")),
            ..connect(V5, "c")
        });
        let reason = ReasonCode(reason);
        play.send(client, &Packet::Disconnect(Disconnect::new(reason)));
        assert_eq!(play.read(watcher), [format!("publish w qos1 #{n}: gone")]);
    }
}

#[test]
fn mqtt_3_1_3_9_a_will_waits_for_its_delay() {
    let (mut play, watcher) = with_watcher();
    let (delay, expiry) = (
        list(&[Property::WillDelay(10), Property::UserProperty("a", "b")]),
        list(&[Property::SessionExpiry(100)]),
    );
    let asked = Connect {
        clean_start: false,
        properties: expiry.as_properties(),
        will: Some(Will {
            properties: delay.as_properties(),
            ..will("w", "gone")
        }),
        ..connect(V5, "c")
    };
    let client = play.connect(&asked);
    play.cut(client);
    play.seconds(9);
    assert!(play.read(watcher).is_empty());
    // Back in time: it is not published, and the new connection's counts from then on.
    let client = play.connect(&asked);
    play.seconds(20);
    assert!(play.read(watcher).is_empty());
    play.cut(client);
    play.seconds(11);
    let gone = "publish w qos1 #1 UserProperty(\"a\", \"b\"): gone";
    assert_eq!(play.read(watcher), [gone]);
    play.seconds(40);
    assert!(play.read(watcher).is_empty(), "once");
    assert_eq!(play.broker.stats().sessions, 2);
}

#[test]
fn a_will_does_not_wait_longer_than_its_session() {
    let (mut play, watcher) = with_watcher();
    let (delay, expiry) = (
        list(&[Property::WillDelay(100)]),
        list(&[Property::SessionExpiry(5)]),
    );
    let asked = Connect {
        properties: expiry.as_properties(),
        will: Some(Will {
            properties: delay.as_properties(),
            ..will("w", "gone")
        }),
        ..connect(V5, "c")
    };
    let client = play.connect(&asked);
    play.cut(client);
    play.seconds(4);
    assert!(play.read(watcher).is_empty());
    play.seconds(2);
    assert_eq!(play.read(watcher).len(), 1);
    // A clean start ends the session, and so its will's delay.
    let client = play.connect(&asked);
    play.cut(client);
    play.clean(V5, "c");
    assert_eq!(play.read(watcher).len(), 1);
    // Taken over by a clean start: the same.
    play.connect(&asked);
    play.clean(V5, "c");
    assert_eq!(play.read(watcher).len(), 1);
}

#[test]
fn a_will_is_retained_when_it_asks_for_it() {
    let (mut play, _) = with_watcher();
    let client = play.connect(&Connect {
        will: Some(Will {
            retain: true,
            ..will("w", "gone")
        }),
        ..connect(V311, "c")
    });
    play.cut(client);
    let late = play.clean(V5, "late");
    let got = play.subscribe_with(late, "w", crate::play::asked(0), &[]);
    assert_eq!(got[1], "publish w qos0 retain: gone");
}

#[test]
fn wills_that_could_not_be_published_are_refused() {
    let mut play = Play::new();
    let long = "a/".repeat(20);
    for (topic, code) in [(long.as_str(), "connack 0x90"), ("$SYS/a", "connack 0x87")] {
        let (_, said) = play.try_connect(&Connect {
            will: Some(will(topic, "x")),
            ..connect(V5, "c")
        });
        assert_eq!(said, [code, "closed"]);
    }
    let text = list(&[Property::PayloadFormat(1)]);
    let (_, said) = play.try_connect(&Connect {
        will: Some(Will {
            payload: b"\xff",
            properties: text.as_properties(),
            ..will("w", "")
        }),
        ..connect(V5, "c")
    });
    assert_eq!(said, ["connack 0x99", "closed"]);
}
