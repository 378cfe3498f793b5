use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

fn words(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Unreadable> {
    let mut words = Vec::new();
    decoder.decode(block, |field, _| {
        words.push(match field {
            Field::Status(status) => format!("status {}", String::from_utf8_lossy(status)),
            Field::Header(name, value) => format!("{name} {}", value.to_str().unwrap_or("?")),
            Field::Malformed => "malformed".to_owned(),
        });
    })?;
    Ok(words)
}

/// RFC 7541 appendix C.6, with a table of 256 bytes.
#[test]
fn the_answers_of_the_paper_are_read() {
    let mut decoder = Decoder::default();
    let mut first = vec![0x3f, 0xe1, 0x01];
    first.extend(hex(
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
    ));
    let got = words(&mut decoder, &first).unwrap();
    assert_eq!(
        got,
        [
            "status 302",
            "cache-control private",
            "date Mon, 21 Oct 2013 20:13:21 GMT",
            "location https://www.example.com",
        ]
    );
    assert_eq!((decoder.size, decoder.table.len()), (222, 4));
    let got = words(&mut decoder, &hex("4883 640e ffc1 c0bf")).unwrap();
    assert_eq!(got[0], "status 307");
    assert_eq!(got[3], "location https://www.example.com");
    let third = "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07";
    let got = words(&mut decoder, &hex(third)).unwrap();
    assert_eq!(got[0], "status 200");
    assert_eq!(
        got[5],
        "set-cookie foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
    );
    assert_eq!((decoder.size, decoder.table.len()), (215, 3));
}

#[test]
fn blocks_that_break_the_rules_are_refused() {
    for (what, block) in [
        ("place 0", vec![0x80]),
        ("a place that is empty", vec![0xbe]),
        (
            "a name at a place that is empty",
            vec![0x7f, 0x00, 0x01, b'a'],
        ),
        ("a size above ours", vec![0x3f, 0xe2, 0x1f]),
        ("a size behind a field", vec![0x88, 0x20]),
        ("a text that ends early", vec![0x00, 0x05, b'a']),
        (
            "a number without end",
            vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        ("a number that ends early", vec![0x7f]),
    ] {
        assert_eq!(
            words(&mut Decoder::default(), &block),
            Err(Unreadable),
            "{what}"
        );
    }
    let capital = [0x00, 0x01, b'A', 0x01, b'b'];
    assert_eq!(
        words(&mut Decoder::default(), &capital).unwrap(),
        ["malformed"]
    );
    let path = [0x84];
    assert_eq!(
        words(&mut Decoder::default(), &path).unwrap(),
        ["malformed"]
    );
}

fn block(encoder: &mut Encoder, fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    for (at, (name, value)) in fields.iter().enumerate() {
        encoder.field(&mut out, at, name, value);
    }
    out
}

#[test]
fn what_stays_the_same_is_one_byte_and_what_changes_stays_out_of_the_table() {
    let mut encoder = Encoder::default();
    let ids: Vec<String> = (0..300).map(|n| format!("{n:036}")).collect();
    let sizes: Vec<usize> = ids
        .iter()
        .map(|id| {
            let fields: [(&str, &[u8]); 4] = [
                ("apns-topic", b"com.example.app"),
                ("authorization", b"bearer aaaaaaaaaaaaaaaaaaaaaaaaa"),
                ("apns-collapse-id", id.as_bytes()),
                ("content-type", b"application/json"),
            ];
            block(&mut encoder, &fields).len()
        })
        .collect();
    // Three places, then the name's place in two bytes, the length and the text.
    assert!(
        sizes[3..].iter().all(|size| *size == 3 + 2 + 1 + 36),
        "{sizes:?}"
    );
    assert_eq!(encoder.table.len(), 4);
}

#[test]
fn the_peer_is_told_how_its_table_shrank() {
    let mut encoder = Encoder::default();
    block(&mut encoder, &[("a", b"1"), ("b", b"2")]);
    encoder.resize(0);
    encoder.resize(100);
    let out = block(&mut encoder, &[]);
    assert_eq!(out, [0x20, 0x3f, 100 - 31]);
    assert!(block(&mut encoder, &[]).is_empty());
    assert_eq!(encoder.table.len(), 0);
    encoder.resize(1 << 20);
    assert_eq!(block(&mut encoder, &[]), [0x3f, 0xe1, 0x1f]);
}

fn fields() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let name = prop_oneof![
        "[a-e]",
        "apns-[a-c]",
        Just("authorization".to_owned()),
        "[a-z]{1,40}"
    ];
    let value = prop_oneof![
        Just(b"the same".to_vec()),
        prop::collection::vec(0x20..0x7f_u8, 0..60),
        prop::collection::vec(0x20..0x7f_u8, 1000..3000),
    ];
    prop::collection::vec((name, value), 0..8)
}

proptest! {
    #[test]
    fn whatever_is_written_is_read_again(
        blocks in prop::collection::vec((fields(), prop::option::of(0..6000_usize)), 1..20)
    ) {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for (fields, resize) in blocks {
            if let Some(size) = resize {
                encoder.resize(size);
            }
            let given: Vec<(&str, &[u8])> =
                fields.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
            let bytes = block(&mut encoder, &given);
            let mut got = Vec::new();
            let read = decoder.decode(&bytes, |field, _| {
                if let Field::Header(name, value) = field {
                    got.push((name.as_str().to_owned(), value.as_bytes().to_vec()));
                }
            });
            prop_assert_eq!(read, Ok(()));
            prop_assert_eq!(got, fields);
            prop_assert_eq!((encoder.size, encoder.size_max), (decoder.size, decoder.size_max));
        }
    }

    #[test]
    fn no_block_is_too_strange(blocks: Vec<Vec<u8>>) {
        let mut decoder = Decoder::default();
        for block in blocks {
            let _ = decoder.decode(&block, |_, _| {});
            prop_assert!(decoder.size <= TABLE_BYTES_MAX);
        }
    }
}
