use bytes::BytesMut;
use hongyan_core::port::ReceiptKind;
use rusmpp_core::CommandStatus;
use rusmpp_core::command::owned::Command;
use rusmpp_core::decode::owned::DecodeWithLength as _;
use rusmpp_core::encode::owned::Encode as _;
use rusmpp_core::pdus::owned::{DeliverSm, Pdu};
use serde_json::json;

use super::*;
use crate::vendor::fixture;

const RECEIPT: &str = "000000a70000000500000000000000070001013836313338303031333830303000050041434d45000400000000000000006369643a3236207375623a30303120646c7672643a303031207375626d697420646174653a3234303130323033303420646f6e6520646174653a3234303130323033303520737461743a44454c49565244206572723a30303020746578743a48656c6c6f001e00093030303030303141000427000102";

fn config(fields: &Value) -> Config {
    let mut config =
        json!({"host": "127.0.0.1", "system_id": "test", "password": "secret", "source": "ACME"});
    for (name, value) in fields.as_object().unwrap() {
        config[name] = value.clone();
    }
    let mut fields = Fields::new(&config);
    let read = Config::read(&mut fields);
    assert_eq!(fields.finish_strict(), []);
    read
}

fn sender(fields: &Value) -> Sender {
    Sender::open(config(fields), &fixture::egress())
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap())
        .collect()
}

fn deliver(hex: &str) -> DeliverSm {
    let mut rest = BytesMut::from(&bytes(hex)[4..]);
    let length = rest.len();
    let (command, _) = Command::decode(&mut rest, length).unwrap();
    match command.pdu() {
        Some(Pdu::DeliverSm(pdu)) => pdu.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pdus_are_the_worked_examples() {
    assert_eq!(
        hex(&config(&json!({})).bind(1)),
        "000000210000000900000000000000017465737400736563726574000034000000"
    );
    let sender = sender(&json!({}));
    let plan = segments::plan("Hello", Header::Short);
    let part = &parts(&sender.config, &plan, 7)[0];
    let shown = json!({"source_addr": "ACME", "source_addr_ton": 5, "source_addr_npi": 0});
    let pdu = sender.pdu(&shown, part, "+8613800138000").unwrap();
    let mut got = BytesMut::new();
    Command::new(CommandStatus::EsmeRok, 2, pdu).encode(&mut got);
    assert_eq!(
        format!("{:08x}{}", got.len() + 4, hex(&got)),
        "0000003700000004000000000000000200050041434d4500010138363133383030313338303030000000000000010000000548656c6c6f"
    );
    assert_eq!(
        hex(&session::framed(0x8000_0015, 0, 3, &[])),
        "00000010800000150000000000000003"
    );
}

#[test]
fn long_texts_are_joined_as_the_centre_wants() {
    let text = "a".repeat(200);
    let of = |fields: Value| {
        let config = config(&fields);
        let plan = segments::plan(&text, config.header());
        parts(&config, &plan, 0x0001_0203)
    };
    let short = of(json!({}));
    assert_eq!(short.len(), 2);
    assert_eq!(short[1].short_message[..6], [5, 0, 3, 3, 2, 2]);
    assert_eq!(
        (short[0].esm_class, short[0].short_message.len()),
        (0x40, 159)
    );
    let long = of(json!({"concatenation": "udh16"}));
    assert_eq!(long[0].short_message[..7], [6, 8, 4, 2, 3, 2, 1]);
    let sar = of(json!({"concatenation": "sar"}));
    let want = Extra::Sar {
        reference: 0x0203,
        total: 2,
        number: 2,
    };
    assert_eq!((sar[1].esm_class, &sar[1].extra), (0, &want));
    let whole = of(json!({"concatenation": "payload"}));
    assert_eq!(whole.len(), 1);
    assert_eq!(whole[0].extra, Extra::Payload(vec![b'a'; 200]));
    let packed = of(json!({"gsm7_packed": true}));
    assert_eq!(packed[0].short_message.len(), 140);
    let ucs2 = parts(
        &config(&json!({})),
        &segments::plan("鸿雁", Header::Short),
        1,
    );
    assert_eq!((ucs2[0].data_coding, ucs2[0].short_message.len()), (8, 4));
    let binary = to_port(&[1; 22], 16_000);
    assert_eq!(binary.short_message[..7], [6, 5, 4, 0x3E, 0x80, 0x3E, 0x80]);
    assert_eq!((binary.esm_class, binary.data_coding), (0x40, 4));
}

#[test]
fn senders_have_their_type() {
    let check = |source: &str, want: (u8, u8)| assert_eq!(kind_of_sender(source), want, "{source}");
    check("+14158675309", (1, 1));
    check("14158675309", (1, 1));
    check("10690", (3, 0));
    check("ACME", (5, 0));
    assert_eq!(relative(Duration::from_secs(3600)), "000000010000000R");
    assert_eq!(
        relative(Duration::from_secs(2 * 86_400)),
        "000002000000000R"
    );
}

#[test]
fn receipts_find_their_text_whatever_the_id_looks_like() {
    let outbound = fixture::outbound();
    let group = |number: &str, parts| Arc::new(Group::new(outbound.message.id, number, parts));
    // The TLV says 0000001A, the text 26: the TLV wins.
    let news = News::new(false);
    let text = group("+8613800138000", 1);
    news.accepted("0000001A", &text);
    assert_eq!(news.arrived(&deliver(RECEIPT)), receipt::Arrived::Taken);
    let told = news.take();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].kind, ReceiptKind::Delivered);
    assert_eq!(told[0].message, Some(outbound.message.id));
    assert_eq!(told[0].vendor_id.as_deref(), Some("0000001A"));
    assert_eq!(news.arrived(&deliver(RECEIPT)), receipt::Arrived::Taken);
    assert_eq!(news.take(), [], "a repeated receipt is told once");
    // Fields that no list has are skipped.
    let more = format!(
        "{:08x}{}15010003010203",
        RECEIPT.len() / 2 + 7,
        &RECEIPT[8..]
    );
    let news = News::new(false);
    news.accepted("0000001A", &group("+8613800138000", 1));
    news.arrived(&deliver(&more));
    assert_eq!(news.take().len(), 1);
    // Without TLVs: decimal in the text, hex in the answer; and the receipt comes first.
    let end = RECEIPT.find("001e0009").unwrap();
    let bare = format!("{:08x}{}", end / 2, &RECEIPT[8..end]);
    for (exact, id, want) in [
        (false, "1A", 1),
        (false, "26", 1),
        (false, "0026", 1),
        (true, "1A", 0),
        (false, "27", 0),
    ] {
        let news = News::new(exact);
        assert_eq!(news.arrived(&deliver(&bare)), receipt::Arrived::Taken);
        news.accepted(id, &group("+8613800138000", 1));
        assert_eq!(news.take().len(), want, "{exact} {id}");
    }
    let news = News::new(false);
    news.accepted("1A", &group("+8613900139000", 1));
    news.arrived(&deliver(&bare));
    assert_eq!(news.take(), [], "another number's text");
    // Two parts: delivered when both are.
    let news = News::new(false);
    let both = group("+8613800138000", 2);
    news.accepted("26", &both);
    news.accepted("27", &both);
    news.arrived(&deliver(&bare));
    assert_eq!(news.take(), []);
    news.arrived(&deliver(&bare.replace("69643a3236", "69643a3237")));
    assert_eq!(news.take().len(), 1);
}

#[test]
fn every_status_has_its_verdict() {
    let rows = [
        (0x01, "refused payload_too_large"),
        (0x04, "retry vendor_unavailable not_taken"),
        (0x08, "retry vendor_unavailable not_taken"),
        (0x0A, "credential_bad"),
        (0x0B, "token_dead token_invalid"),
        (0x0D, "credential_bad"),
        (0x0E, "credential_bad"),
        (0x0F, "credential_bad"),
        (0x14, "retry vendor_rate_limited 1s not_taken"),
        (0x45, "retry vendor_unavailable not_taken"),
        (0x48, "credential_bad"),
        (0x58, "retry vendor_rate_limited 1s not_taken"),
        (0x61, "refused payload_rejected"),
        (0xC3, "credential_bad"),
        (0xFE, "refused payload_rejected"),
        (0xFF, "retry vendor_unavailable not_taken"),
        (0x401, "refused payload_rejected"),
    ];
    for (status, want) in rows {
        assert_eq!(
            fixture::words(&session::verdict(status)),
            want,
            "{status:#x}"
        );
    }
}

#[test]
fn strangers_receipts_do_not_keep_ours_out() {
    let end = RECEIPT.find("001e0009").unwrap();
    let strangers = deliver(&format!("{:08x}{}", end / 2, &RECEIPT[8..end]));
    let ours = format!("{:08x}{}", end / 2, &RECEIPT[8..end]).replace("69643a3236", "69643a3237");
    let news = News::new(false);
    let message = fixture::outbound().message.id;
    news.accepted("27", &Arc::new(Group::new(message, "+8613800138000", 1)));
    for _ in 0..4_100 {
        assert_eq!(news.arrived(&strangers), receipt::Arrived::Taken);
    }
    assert_eq!(news.arrived(&deliver(&ours)), receipt::Arrived::Taken);
    let told = news.take();
    let known: Vec<_> = told.iter().filter_map(|r| r.message).collect();
    assert_eq!(known, [message]);
    assert_eq!(
        told.len(),
        4 + 1,
        "the oldest strangers are told as unknown"
    );
}
