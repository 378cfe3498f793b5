use serde_json::json;

use super::*;
use crate::vendor::fixture::{self, NOW};

const VECTOR: &str = "BSzsvm0X6SO+L2znY7PLHvtrFSiHDl4QlsWJwzSkpBQ=";
const ID: &str = "018f0000-0000-7000-8000-000000000001";

fn receipts(config: &Value) -> Receipts {
    let mut fields = Fields::new(config);
    let receipts = Receipts::read(&mut fields);
    assert!(fields.finish_strict().is_empty());
    receipts
}

fn signing() -> Receipts {
    receipts(&json!({"receipt_user": "push", "receipt_key": "a2V5"}))
}

/// The header as Huawei makes it.
fn header(key: &[u8], timestamp: i64, nonce: &str, user: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let value = hmac::sign(&key, format!("{timestamp}{nonce}{user}").as_bytes());
    let value = STANDARD.encode(value.as_ref());
    format!("timestamp={timestamp}; nonce={nonce}; value={value}")
}

fn call(receipts: &Receipts, header: Option<&str>, body: &str) -> Result<Callback, CallbackError> {
    let headers: Vec<(String, String)> = header
        .map(|value| (HEADER.to_owned(), value.to_owned()))
        .into_iter()
        .collect();
    receipts.callback(&CallbackRequest {
        method: "POST",
        url: "https://push.example/v1/callbacks/demo/huawei?key=k",
        headers: &headers,
        body: body.as_bytes(),
        now: NOW,
    })
}

fn v1(status: impl Into<Value>) -> String {
    json!({"statuses": [{"biTag": ID, "appid": "1001", "token": "t1", "status": status.into(),
                         "timestamp": 1_700_000_000_000_i64, "requestId": "r1"}]})
    .to_string()
}

#[test]
fn both_versions_say_the_same() {
    let v2 = |part: &str| {
        json!({"statuses": [{"biTag": ID, "pushType": 0, "appPackageName": "com.example", "token": "t1",
                             "requestId": "r1", part: {"result": 0, "timestamp": 1_700_000_000_000_i64}}]})
        .to_string()
    };
    let receipts = receipts(&json!({}));
    let want = Receipt {
        kind: ReceiptKind::Delivered,
        message: callback::message(ID),
        vendor_id: Some("r1".to_owned()),
        token: Some(Secret::new("t1")),
        at: Some(Timestamp(1_700_000_000_000)),
        detail: "result 0".to_owned(),
    };
    for body in [v1(0), v1("0"), v2("deliveryStatus"), v2("formStatus")] {
        let callback = call(&receipts, None, &body).unwrap();
        assert_eq!(callback.receipts, std::slice::from_ref(&want), "{body}");
        assert!(!callback.signed);
        for key in ["code", "message", "errno", "errmsg"] {
            assert!(callback.body.contains(&format!("\"{key}\"")));
        }
    }
}

#[test]
fn every_result_has_its_meaning() {
    use ReceiptKind as K;
    let rows = [
        (0, K::Delivered),
        (2, K::TokenInvalid),
        (5, K::TokenInvalid),
        (6, K::PermissionOff),
        (10, K::Failed(Reason::NoChannel)),
        (14, K::Failed(Reason::VendorUnavailable)),
        (15, K::Failed(Reason::Collapsed)),
        (22, K::Failed(Reason::UserLoggedOut)),
        (27, K::Other),
        (31, K::Failed(Reason::PayloadRejected)),
        (51, K::Other),
        (102, K::Failed(Reason::QuotaExhausted)),
        (144, K::Failed(Reason::UserLoggedOut)),
        (151, K::Failed(Reason::PayloadRejected)),
        (155, K::Failed(Reason::PayloadRejected)),
        (156, K::Failed(Reason::Collapsed)),
        (158, K::Failed(Reason::Duplicate)),
        (188, K::Failed(Reason::VendorUnavailable)),
        (191, K::Other),
        (201, K::Failed(Reason::QuotaExhausted)),
        (256, K::Failed(Reason::QuotaExhausted)),
        (259, K::Failed(Reason::PayloadRejected)),
        (261, K::Failed(Reason::PayloadRejected)),
        (262, K::Failed(Reason::QuotaExhausted)),
        (264, K::Failed(Reason::PreferenceMuted)),
        (265, K::Failed(Reason::QuotaExhausted)),
        (268, K::Failed(Reason::PayloadRejected)),
        (269, K::Failed(Reason::Duplicate)),
        (4711, K::Other),
    ];
    let receipts = receipts(&json!({}));
    for (result, want) in rows {
        let read = call(&receipts, None, &v1(result)).unwrap().receipts;
        assert_eq!(read[0].kind, want, "{result}");
    }
    let odd = call(&receipts, None, &v1("soon")).unwrap().receipts;
    assert_eq!(odd[0].kind, K::Other);
}

#[test]
fn a_signature_holds_with_either_kind_of_key_and_for_one_post() {
    let now = NOW.millis();
    // The same text as base64 of "key" and as it is.
    for (nonce, key) in [("n1", b"key".as_slice()), ("n2", b"a2V5")] {
        let receipts = signing();
        let good = header(key, now, nonce, "push");
        let first = call(&receipts, Some(&good), &v1(0)).unwrap();
        assert!(first.signed);
        assert_eq!(
            call(&receipts, Some(&good), &v1(2)),
            Err(CallbackError::Replayed)
        );
        let again = call(&receipts, Some(&good), &v1(0));
        assert_eq!(again, Ok(first), "it could not be stored, maybe");
    }
    // Made with another tool: openssl dgst -sha256 -hmac key -binary | base64 over "1767229200000n3push".
    let known = "timestamp=1767229200000;nonce=n3;value=VECTOR";
    let known = known.replace("VECTOR", VECTOR);
    assert!(call(&signing(), Some(&known), &v1(0)).unwrap().signed);
}

#[test]
fn a_signature_that_does_not_hold_is_refused() {
    let now = NOW.millis();
    let rows = [
        header(b"other", now, "n", "push"),
        header(b"key", now, "n", "other"),
        header(b"key", now - 300_001, "n", "push"),
        header(b"key", now + 300_001, "n", "push"),
        header(b"key", i64::MIN, "n", "push"),
        header(b"key", now, "n", "push").replace("nonce=n", "nonce=m"),
        "timestamp=soon; nonce=n; value=".to_owned(),
        "value=AAAA".to_owned(),
        String::new(),
    ];
    let receipts = signing();
    for row in rows {
        let told = call(&receipts, Some(&row), &v1(0));
        assert!(
            matches!(told, Err(CallbackError::Signature(_))),
            "{row}: {told:?}"
        );
    }
    // What was refused did not use the nonce up.
    let good = header(b"key", now, "n", "push");
    assert!(call(&receipts, Some(&good), &v1(0)).unwrap().signed);
}

#[test]
fn a_post_without_its_header_is_refused_when_posts_are_signed() {
    let receipts = signing();
    let good = header(b"key", NOW.millis(), "n", "push");
    assert!(call(&receipts, Some(&good), &v1(0)).unwrap().signed);
    let told = call(&receipts, None, &v1(0));
    let Err(CallbackError::Signature(why)) = told else {
        panic!("a captured post without its header: {told:?}");
    };
    assert!(why.contains(HEADER) && why.contains("receipt_key"), "{why}");
    let probe = call(&receipts, None, "{\"statuses\": []}").unwrap();
    assert!(!probe.signed, "the console's test call");
}

#[test]
fn a_signed_post_that_cannot_be_read_does_not_use_its_nonce_up() {
    let receipts = signing();
    let good = header(b"key", NOW.millis(), "n", "push");
    for body in ["{", "{}"] {
        let told = call(&receipts, Some(&good), body);
        let Err(CallbackError::SignedMalformed(why)) = told else {
            panic!("{body}: {told:?}");
        };
        assert!(why.contains("signature holds"), "{why}");
    }
    assert!(call(&receipts, Some(&good), &v1(0)).unwrap().signed);
    assert_eq!(
        call(&receipts, Some(&good), &v1(2)),
        Err(CallbackError::Replayed)
    );
}

#[test]
fn without_a_key_nothing_is_signed() {
    let good = header(b"key", NOW.millis(), "n", "push");
    assert!(
        !call(&receipts(&json!({})), Some(&good), &v1(0))
            .unwrap()
            .signed
    );
}

#[test]
fn what_is_no_post_of_receipts_is_refused() {
    let receipts = receipts(&json!({}));
    for body in ["", "{", "[]", "{\"statuses\": 1}"] {
        let told = call(&receipts, None, body);
        assert!(matches!(told, Err(CallbackError::Malformed(_))), "{body}");
    }
    let odd = json!({"statuses": [1, null, {}, {"deliveryStatus": []}]}).to_string();
    let read = call(&receipts, None, &odd).unwrap().receipts;
    assert!(
        read.iter()
            .all(|r| r.kind == ReceiptKind::Other && r.message.is_none())
    );
}

#[test]
fn a_user_needs_a_key() {
    for (config, missing) in [
        (json!({"receipt_user": "u"}), "receipt_key"),
        (json!({"receipt_key": "k"}), "receipt_user"),
    ] {
        let mut fields = Fields::new(&config);
        let shown = format!("{:?}", Receipts::read(&mut fields));
        assert_eq!(fixture::paths(&fields.finish()), [missing]);
        assert!(!shown.contains("\"u\""));
    }
}

#[test]
fn keys_are_never_shown() {
    assert!(!format!("{:?}", signing()).contains("a2V5"));
}
