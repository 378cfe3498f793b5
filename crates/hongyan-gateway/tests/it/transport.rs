//! Clauses WS-2 to WS-9: frames over a socket. WS-1 is tested beside the handshake.

use bytes::Bytes;
use hongyan_gateway::Encoding;
use serde_json::json;

use crate::client::{Frame, frame};
use crate::rig::Rig;

#[test]
fn ws_2_framing_faults_close_1002() {
    let rig = Rig::new();
    let cases: &[&[u8]] = &[
        &[0x81, 0x01, b'a'],
        &frame(0xc1, b"a"),
        &frame(0xa1, b"a"),
        &frame(0x91, b"a"),
        &frame(0x83, b""),
        &frame(0x8b, b""),
        &frame(0x09, b"a"),
        &frame(0x89, &[0; 126]),
    ];
    for case in cases {
        let mut client = rig.connect();
        client.raw(case);
        assert_eq!(client.closed(), 1002, "{case:?}");
    }
}

#[test]
fn ws_3_ping_between_fragments_is_answered_first() {
    let rig = Rig::new();
    let mut client = rig.live("d");
    client.expect("idle");
    client.raw(&frame(0x01, br#"{"t":"pi"#));
    client.raw(&frame(0x89, b"now"));
    assert_eq!(
        client.frame(),
        Some(Frame {
            opcode: 10,
            payload: b"now".to_vec()
        })
    );
    client.raw(&frame(0x80, br#"ng","n":3}"#));
    assert_eq!(client.expect("pong")["n"], 3);
}

#[test]
fn ws_4_bad_utf8_in_the_middle_fragment_closes_1007() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.raw(&frame(0x01, b"{"));
    client.raw(&frame(0x00, b"\xc0\xaf"));
    assert_eq!(client.closed(), 1007);
}

#[test]
fn ws_5_close_codes() {
    let rig = Rig::new();
    for code in [1000u16, 1001, 1003, 1007, 1011, 1014, 3000, 4999] {
        let mut client = rig.connect();
        client.raw(&frame(0x88, &[&code.to_be_bytes()[..], b"bye"].concat()));
        assert_eq!(client.close_code(), code, "answered with the same code");
        assert_eq!(client.frame(), None);
    }
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
        let mut client = rig.connect();
        client.raw(&frame(0x88, &code.to_be_bytes()));
        assert_eq!(client.closed(), 1002, "{code}");
    }
    let mut client = rig.connect();
    client.raw(&frame(0x88, b"x"));
    assert_eq!(client.closed(), 1002);
    let mut client = rig.connect();
    client.raw(&frame(0x88, &[&[3, 0xe8][..], &[b'r'; 124]].concat()));
    assert_eq!(client.closed(), 1002, "a reason of 124 bytes does not fit");
    let mut client = rig.connect();
    client.raw(&frame(0x88, b""));
    assert_eq!(client.close_code(), 1000);
}

#[test]
fn ws_6_too_big_at_the_declared_length() {
    let rig = Rig::new();
    let mut client = rig.live("d");
    client.expect("idle");
    // Only the header of 64 KiB + 1 is sent.
    client.raw(&[0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4]);
    assert_eq!(client.closed(), 1009);
    // Before welcome the limit is 4 KiB.
    let mut client = rig.connect();
    client.raw(&frame(0x81, &[b' '; 4097])[..8]);
    assert_eq!(client.closed(), 1009);
}

#[test]
fn ws_7_lengths_in_both_directions() {
    let rig = Rig::new();
    let mut client = rig.live("d");
    client.expect("idle");
    for length in [125, 126, 65_535, 65_536] {
        let body = format!(r#"{{"t":"ping","n":{length},"pad":""}}"#);
        let pad = "x".repeat(length - body.len());
        let body = body.replace(r#""pad":"""#, &format!(r#""pad":"{pad}""#));
        assert_eq!(body.len(), length);
        client.raw(&frame(0x81, body.as_bytes()));
        assert_eq!(client.expect("pong")["n"], length);
        // The same lengths from the gateway: the client checks the form of each.
        rig.publish("u", &pad);
        let message = client.expect("msg");
        assert_eq!(
            message["notification"]["body"].as_str().unwrap().len(),
            pad.len()
        );
        client.say(json!({"t": "ack", "upto": message["cursor"]}));
    }
    client.raw(&frame(0x89, b""));
    assert_eq!(
        client.frame(),
        Some(Frame {
            opcode: 10,
            payload: vec![]
        })
    );
}

#[test]
fn ws_8_byte_by_byte_and_many_at_once() {
    let rig = Rig::new();
    let mut client = rig.connect();
    let hello = json!({"t": "hello", "v": 1, "auth": {"token": "token-d"}});
    for byte in client.message(&hello) {
        client.raw(&[byte]);
    }
    client.expect("welcome");
    client.expect("idle");
    let many: Vec<u8> = (0..100)
        .flat_map(|n| client.message(&json!({"t": "ping", "n": n})))
        .collect();
    client.raw(&many);
    for n in 0..100 {
        assert_eq!(client.expect("pong")["n"], n);
    }
}

#[test]
fn ws_9_no_data_after_close() {
    let rig = Rig::new();
    let mut client = rig.live("d");
    client.expect("idle");
    client.say(json!({"t": "bye"}));
    rig.publish("u", "late");
    assert_eq!(client.closed(), 1000);
}

#[test]
fn bytes_that_came_with_the_request_are_read() {
    let rig = Rig::new();
    let hello = br#"{"t":"hello","v":1,"auth":{"token":"token-d"}}"#;
    let mut client = rig.connect_as(Encoding::Json, Bytes::from(frame(0x81, hello)));
    client.expect("welcome");
}

#[test]
fn the_other_kind_of_message_closes_1003() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.raw(&frame(0x82, b"{}"));
    assert_eq!(client.closed(), 1003);
    let mut client = rig.connect_as(Encoding::Cbor, Bytes::new());
    client.raw(&frame(0x81, b"{}"));
    assert_eq!(client.closed(), 1003);
}

#[test]
fn a_cut_without_close_ends_the_session() {
    let rig = Rig::new();
    let client = rig.live("d");
    assert_eq!(rig.hub.stats().sessions, 1);
    drop(client);
    rig.until("the session is gone", || rig.hub.stats().sessions == 0);
    rig.until("the socket is gone", || rig.hub.stats().sockets == 0);
}

#[test]
fn noise_harms_nobody() {
    let rig = Rig::new();
    let mut witness = rig.live("d");
    witness.expect("idle");
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut noise = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..200 {
        let encoding = if round % 2 == 0 {
            Encoding::Json
        } else {
            Encoding::Cbor
        };
        let mut client = rig.connect_as(encoding, Bytes::new());
        let length = noise() as usize % 300;
        let bytes: Vec<u8> = (0..length).map(|_| noise() as u8).collect();
        // As it is, or as the payload of a frame that is well formed.
        let bytes = match round % 4 {
            0 | 1 => bytes,
            2 => frame(0x81, &bytes),
            _ => frame(0x82, &bytes),
        };
        client.raw(&bytes);
    }
    rig.until("all are gone", || rig.hub.stats().sockets == 1);
    witness.say(json!({"t": "ping", "n": 1}));
    assert_eq!(witness.expect("pong")["n"], 1);
}
