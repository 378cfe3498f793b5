use proptest::prelude::*;

use super::*;

const MAX: usize = 64 * 1024;

/// A client's frame: masked, with the parts that a test wants to bend.
fn client(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x11, 0x22, 0x33, 0x44];
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(
        payload
            .iter()
            .enumerate()
            .map(|(i, byte)| byte ^ mask[i % 4]),
    );
    out
}

/// Decodes in chunks of `chunk` bytes; one word a thing, the fault at the end.
fn decode(bytes: &[u8], chunk: usize) -> (Vec<String>, Option<Fault>) {
    let mut decoder = Decoder::default();
    let mut said = Vec::new();
    for part in bytes.chunks(chunk.max(1)) {
        let mut part = part.to_vec();
        let mut at = 0;
        loop {
            match decoder.decode(&mut part, &mut at, MAX) {
                Ok(Some(incoming)) => said.push(match incoming {
                    Incoming::Text(text) => format!("text:{}", show(text)),
                    Incoming::Binary(bytes) => format!("binary:{}", show(bytes)),
                    Incoming::Ping(bytes) => format!("ping:{}", show(bytes)),
                    Incoming::Pong(bytes) => format!("pong:{}", show(bytes)),
                    Incoming::Close(code, reason) => format!("close:{code:?}:{}", show(reason)),
                }),
                Ok(None) => break,
                Err(fault) => return (said, Some(fault)),
            }
        }
        assert_eq!(at, part.len(), "everything is taken");
    }
    (said, None)
}

fn show(bytes: &[u8]) -> String {
    if bytes.len() > 40 {
        format!("{} bytes", bytes.len())
    } else {
        String::from_utf8_lossy(bytes).into_owned()
    }
}

fn check(bytes: &[u8], want: &str) {
    for chunk in [1, 2, 3, 7, bytes.len()] {
        let (said, fault) = decode(bytes, chunk);
        let mut got = said.join(" ");
        if let Some(fault) = fault {
            got = format!("{got} {}", fault.code()).trim().to_owned();
        }
        assert_eq!(got, want, "in chunks of {chunk}");
    }
}

#[test]
fn whole_messages() {
    check(&client(0x81, b"hello"), "text:hello");
    check(&client(0x82, b"hello"), "binary:hello");
    check(&client(0x81, b""), "text:");
    check(&client(0x89, b"p"), "ping:p");
    check(&client(0x8a, b""), "pong:");
    let many = [client(0x81, b"a"), client(0x89, b"b"), client(0x82, b"c")].concat();
    check(&many, "text:a ping:b binary:c");
}

#[test]
fn fragments_with_a_ping_between() {
    let bytes = [
        client(0x01, "gé".as_bytes()),
        client(0x89, b"now"),
        client(0x00, b"e"),
        client(0x80, b"se"),
    ]
    .concat();
    check(&bytes, "ping:now text:géese");
    check(
        &[client(0x01, b""), client(0x00, b""), client(0x80, b"")].concat(),
        "text:",
    );
}

#[test]
fn framing_faults() {
    check(&[0x81, 0x01, b'a'], "1002"); // not masked
    for rsv in [0x40, 0x20, 0x10] {
        check(&client(0x81 | rsv, b"a"), "1002");
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        check(&client(0x80 | opcode, b""), "1002");
    }
    check(&client(0x09, b""), "1002"); // fragmented ping
    check(&client(0x89, &[0; 126]), "1002"); // long ping
    check(&client(0x80, b"a"), "1002"); // continuation of nothing
    check(&[client(0x01, b"a"), client(0x81, b"b")].concat(), "1002");
    check(&[0x82, 0xfe, 0, 125, 0, 0, 0, 0], "1002"); // not the shortest form
    check(
        &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0],
        "1002",
    );
    check(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], "1002");
}

#[test]
fn text_is_checked_as_it_arrives() {
    check(&client(0x81, "漢字🪿".as_bytes()), "text:漢字🪿");
    check(&client(0x81, b"\xff"), "1007");
    check(&client(0x81, b"\xe6\xbc"), "1007"); // ends inside a character
    check(&client(0x01, b"\xed\xa0"), "1007"); // a surrogate, before the message ends
    check(
        &[client(0x01, b"\xe6"), client(0x00, b"\xbc\xa2\xf4\x90")].concat(),
        "1007",
    );
    let split = [
        client(0x01, b"\xf0\x9f"),
        client(0x89, b""),
        client(0x80, b"\xaa\xbf"),
    ]
    .concat();
    check(&split, "ping: text:🪿");
    // The state of one message does not leak into the next.
    check(
        &[client(0x82, b"\xf0"), client(0x81, b"ok")].concat(),
        "binary:\u{fffd} text:ok",
    );
}

#[test]
fn close_payloads() {
    let close = |payload: &[u8]| client(0x88, payload);
    check(&close(b""), "close:None:");
    check(&close(b"\x03"), "1002");
    check(&close(b"\x03\xe8bye"), "close:Some(1000):bye");
    check(&close(b"\x03\xe8\xff"), "1007");
    check(
        &close(&[&[3, 0xe8][..], &[b'x'; 123]].concat()),
        "close:Some(1000):123 bytes",
    );
    for code in (0..=5000u16).chain([u16::MAX]) {
        let legal = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let want = if legal {
            format!("close:Some({code}):")
        } else {
            "1002".to_owned()
        };
        check(&close(&code.to_be_bytes()), &want);
    }
}

#[test]
fn size_is_judged_by_the_declared_length() {
    let declared = |length: u64| [&[0x82, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
    let (said, fault) = decode(&declared(MAX as u64 + 1), 14);
    assert_eq!((said.len(), fault), (0, Some(Fault::TooBig)));
    assert_eq!(decode(&declared(MAX as u64), 14).1, None);
    let fragments = [client(0x02, &[0; MAX]), client(0x80, b"x")].concat();
    assert_eq!(decode(&fragments, 4096).1, Some(Fault::TooBig));
}

#[test]
fn lengths_in_both_directions() {
    for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
        let payload = vec![7; length];
        let (said, fault) = decode(&client(0x82, &payload), 1000);
        assert_eq!((said.len(), fault), (1, None), "{length}");
        let mut out = Vec::new();
        encode(Opcode::Binary, &payload, &mut out);
        let header_len = match length {
            0..=125 => 2,
            126..=65_535 => 4,
            _ => 10,
        };
        assert_eq!(out.len(), header_len + length);
        assert_eq!(out[1] & 0x80, 0, "a server never masks");
    }
}

#[test]
fn an_idle_decoder_holds_nothing() {
    let mut decoder = Decoder::default();
    let mut bytes = client(0x81, b"hello");
    let mut at = 0;
    assert!(decoder.decode(&mut bytes, &mut at, MAX).unwrap().is_some());
    assert!(decoder.decode(&mut bytes, &mut at, MAX).unwrap().is_none());
    assert!(decoder.is_idle());
    assert_eq!(decoder.held_bytes(), 0);
    let mut part = client(0x81, b"hello")[..7].to_vec();
    assert!(decoder.decode(&mut part, &mut 0, MAX).unwrap().is_none());
    assert!(!decoder.is_idle());
}

#[test]
fn a_close_reason_is_cut_at_a_character() {
    let mut out = Vec::new();
    encode_close(4400, &"é".repeat(100), &mut out);
    assert_eq!(out.len(), 2 + 2 + 122);
    assert!(std::str::from_utf8(&out[4..]).is_ok());
}

proptest! {
    #[test]
    fn random_bytes_never_panic_and_chunks_do_not_matter(
        bytes in proptest::collection::vec(any::<u8>(), 0..400), chunk in 1usize..50,
    ) {
        prop_assert_eq!(decode(&bytes, chunk), decode(&bytes, bytes.len()));
    }

    #[test]
    fn messages_round_trip(
        messages in proptest::collection::vec(
            (any::<bool>(), "\\PC{0,80}", 0usize..5), 1..8),
        chunk in 1usize..300,
    ) {
        let mut bytes = Vec::new();
        let mut want = Vec::new();
        for (binary, text, cuts) in &messages {
            let opcode = if *binary { 2 } else { 1 };
            let size = (text.len() / (cuts + 1)).max(1);
            let parts: Vec<&[u8]> = if text.is_empty() { vec![&[]] } else { text.as_bytes().chunks(size).collect() };
            for (i, part) in parts.iter().enumerate() {
                let fin = if i + 1 == parts.len() { 0x80 } else { 0 };
                bytes.extend(client(fin | if i == 0 { opcode } else { 0 }, part));
            }
            want.push(format!("{}:{}", if *binary { "binary" } else { "text" }, show(text.as_bytes())));
        }
        prop_assert_eq!(decode(&bytes, chunk), (want, None));
    }

    #[test]
    fn text_is_judged_like_the_standard_library(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
        let (_, fault) = decode(&client(0x81, &bytes), 1);
        prop_assert_eq!(fault.is_none(), std::str::from_utf8(&bytes).is_ok());
    }
}
