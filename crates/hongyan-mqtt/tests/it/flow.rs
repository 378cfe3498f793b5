//! Flow control: MQ-8, MQ-9, and clients that do not read.

use hongyan_mqtt::packet::{Connect, Property};

use crate::play::{BOTH, Play, V5, V311, connect, list, message};

#[test]
fn mq_8_never_more_is_under_way_than_the_client_takes() {
    for most in [1, 2] {
        let mut play = Play::new();
        let publisher = play.clean(V5, "p");
        let longer = list(&[Property::ReceiveMaximum(most), Property::SessionExpiry(60)]);
        let asked = Connect {
            clean_start: false,
            properties: longer.as_properties(),
            ..connect(V5, "r")
        };
        let reader = play.connect(&asked);
        play.subscribe(reader, "t", 2);
        for n in 1..=5 {
            play.publish(
                publisher,
                message("t", &n.to_string(), 1 + (n % 2) as u8, n),
            );
        }
        let first = play.read(reader);
        assert_eq!(first.len(), usize::from(most));
        assert_eq!(first[0], "publish t qos2 #1: 1");
        // PUBREC alone makes no room: only PUBCOMP does [3.3.4-9].
        play.pubrec(reader, 1);
        assert_eq!(play.read(reader), ["pubrel #1 0x00"]);
        play.pubcomp(reader, 1);
        let level = 1 + (most + 1) % 2;
        let number = most + 1;
        let next = format!("publish t qos{level} #{number}: {number}");
        assert_eq!(play.read(reader), [next]);
        // A resumed session keeps to the number of its new connection.
        play.cut(reader);
        let (_, said) = play.try_connect(&asked);
        assert_eq!(said.len(), 1 + usize::from(most), "{said:?}");
    }
}

#[test]
fn what_does_not_fit_under_way_waits_in_order() {
    for version in BOTH {
        let mut play = Play::new();
        let publisher = play.clean(version, "p");
        let (reader, _) = play.kept(version, "r");
        play.subscribe(reader, "t", 1);
        for n in 1..=250 {
            play.publish(publisher, message("t", &n.to_string(), 1, n));
        }
        let mut got = Vec::new();
        loop {
            let said = play.read(reader);
            if said.is_empty() {
                break;
            }
            assert!(said.len() <= 100);
            for one in &said {
                let number = one.split(['#', ':']).nth(1).unwrap();
                play.puback(reader, number.parse().unwrap());
                got.push(one.rsplit(": ").next().unwrap().to_owned());
            }
        }
        let all: Vec<_> = (1..=250).map(|n| n.to_string()).collect();
        assert_eq!(got, all);
    }
}

#[test]
fn mq_8_a_client_that_sends_more_than_the_server_takes_is_closed() {
    let mut play = Play::new();
    let client = play.clean(V5, "c");
    for n in 1..=100 {
        play.publish(client, message("t", "x", 2, n));
    }
    assert_eq!(play.read(client).len(), 100);
    // One that is known is no further one.
    play.publish(client, message("t", "x", 2, 100));
    assert_eq!(play.read(client), ["pubrec #100 0x00"]);
    play.publish(client, message("t", "x", 2, 101));
    assert_eq!(play.read(client), ["disconnect 0x93", "closed"]);
}

#[test]
fn mq_9_a_message_that_is_too_large_for_a_client_is_left_out() {
    let mut play = Play::new();
    let publisher = play.clean(V5, "p");
    let properties = list(&[Property::MaximumPacketSize(40), Property::SessionExpiry(60)]);
    let small = play.connect(&Connect {
        clean_start: false,
        properties: properties.as_properties(),
        ..connect(V5, "small")
    });
    play.subscribe(small, "t", 1);
    let large = "x".repeat(33);
    let fits = "x".repeat(32);
    play.publish(publisher, message("t", &large, 1, 1));
    play.publish(publisher, message("t", &fits, 1, 2));
    let said = play.read(small);
    assert_eq!(said.len(), 1);
    assert!(said[0].ends_with(&fits));
    play.puback(small, 2);
    assert_eq!(
        play.broker.stats().queued_bytes,
        0,
        "the large one waits no longer"
    );
    // Also when it was sent before, in a connection that took it.
    play.cut(small);
    let (wide, _) = play.kept(V5, "small");
    play.publish(publisher, message("t", &large, 1, 3));
    assert_eq!(play.read(wide).len(), 1);
    play.cut(wide);
    let (_, said) = play.try_connect(&Connect {
        clean_start: false,
        properties: properties.as_properties(),
        ..connect(V5, "small")
    });
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(play.broker.stats().queued_bytes, 0);
}

#[test]
fn mq_9_a_packet_that_is_too_large_for_the_server_ends_the_connection() {
    let mut play = Play::new();
    let (five, three) = (play.clean(V5, "5"), play.clean(V311, "3"));
    let header = b"\x30\x80\x80\x10";
    play.bytes(five, header);
    assert_eq!(play.read(five), ["disconnect 0x95", "closed"]);
    play.bytes(three, header);
    assert_eq!(play.read(three), ["closed"]);
    let five = play.clean(V5, "5");
    let most = "x".repeat(262_144 - 8);
    play.publish(five, message("t", &most, 0, 0));
    assert!(play.read(five).is_empty(), "exactly as large is good");
}

#[test]
fn a_client_that_does_not_read_is_not_read_from_and_holds_nobody_up() {
    let mut play = Play::with(|options| options.output_bytes = 1_000);
    let (publisher, slow) = (play.clean(V5, "p"), play.clean(V311, "slow"));
    let quick = play.clean(V5, "quick");
    play.subscribe(slow, "t", 0);
    play.subscribe(quick, "t", 0);
    for n in 1..=100 {
        play.publish(publisher, message("t", &"x".repeat(100), 1, n));
        assert_eq!(play.read(quick).len(), 1);
        assert_eq!(play.read(publisher), [format!("puback #{n} 0x00")]);
    }
    assert!(!play.broker.wants_input(slow.id));
    // What it sends meanwhile waits with it.
    play.bytes(slow, b"\xc0\0");
    let waiting = play.broker.stats().queued_bytes;
    assert!(waiting > 90 * 100, "{waiting}");
    let said = play.read(slow);
    assert_eq!(said.len(), 101);
    assert!(said.contains(&"pingresp".to_owned()));
    assert!(play.broker.wants_input(slow.id));
    assert_eq!(play.broker.stats().queued_bytes, 0);
}

#[test]
fn answers_alone_do_not_grow_without_end() {
    let mut play = Play::with(|options| {
        options.output_bytes = 1_000;
        options.packets_per_s = 1_000_000;
        options.packets_burst = 1_000_000;
    });
    let client = play.clean(V311, "c");
    let pings = b"\xc0\0".repeat(10_000);
    play.bytes(client, &pings);
    let mut out = Vec::new();
    play.broker.take_output(play.now, client.id, &mut out);
    assert!(out.len() <= 1_002, "{}", out.len());
    let mut all = out.len();
    all += play.read(client).len() * 2;
    assert_eq!(all, 20_000, "but none is lost");
}

#[test]
fn too_many_packets_in_a_second_end_the_connection() {
    let mut play = Play::with(|options| {
        options.packets_per_s = 10;
        options.packets_burst = 20;
    });
    let client = play.clean(V5, "c");
    for _ in 0..19 {
        play.bytes(client, b"\xc0\0");
    }
    assert_eq!(play.read(client).len(), 19);
    play.seconds(1);
    for _ in 0..11 {
        play.bytes(client, b"\xc0\0");
    }
    let said = play.read(client);
    assert_eq!(said[9], "pingresp");
    assert_eq!(said[10..], ["disconnect 0x96", "closed"]);
}
