use serde_json::json;

use super::*;
use crate::vendor::fixture;

const ID: &str = "018f0000-0000-7000-8000-000000000001";

fn post(data: &Value) -> Vec<u8> {
    let data = data.to_string();
    texts::form([("data", data.as_str())]).into_bytes()
}

fn kinds(receipts: &[Receipt]) -> Vec<ReceiptKind> {
    receipts.iter().map(|r| r.kind).collect()
}

#[test]
fn a_post_has_many_messages_and_targets() {
    let body = post(&json!({
        "scm1": {"param": ID, "type": 1, "targets": "a+/=, b,", "jobkey": "j", "barStatus": "Enable",
                 "timestamp": 1_700_000_000_000_i64},
        "scm2": {"param": "other", "type": "128", "targets": "c", "timestamp": "1700000000001",
                 "extra": {"ack": "1", "quota": "1"}},
        "scm3": {"type": 16, "targets": "d", "errorCode": 1},
    }));
    let read = read(&body, false).unwrap();
    assert_eq!(
        kinds(&read),
        [
            ReceiptKind::Delivered,
            ReceiptKind::Delivered,
            ReceiptKind::Failed(Reason::QuotaExhausted),
            ReceiptKind::TokenInvalid,
        ]
    );
    let tokens: Vec<_> = read.iter().map(|r| r.token.clone().unwrap()).collect();
    assert_eq!(tokens, ["a+/=", "b", "c", "d"].map(Secret::new));
    assert_eq!(read[0].message, callback::message(ID));
    assert_eq!(read[2].message, None);
    assert_eq!(read[0].vendor_id.as_deref(), Some("scm1"));
    assert_eq!(read[0].at, Some(Timestamp(1_700_000_000_000)));
    assert_eq!(read[2].at, Some(Timestamp(1_700_000_000_001)));
    assert_eq!(read[3].detail, "type 16 errorCode 1");
}

#[test]
fn every_event_has_its_meaning() {
    for (kind, want) in [
        (1, ReceiptKind::Delivered),
        (2, ReceiptKind::Clicked),
        (16, ReceiptKind::TokenInvalid),
        (32, ReceiptKind::PermissionOff),
        (64, ReceiptKind::Failed(Reason::PayloadRejected)),
        (128, ReceiptKind::Failed(Reason::QuotaExhausted)),
        (1024, ReceiptKind::Failed(Reason::Expired)),
        (4, ReceiptKind::Other),
    ] {
        let body = post(&json!({"scm1": {"type": kind, "targets": "a"}}));
        assert_eq!(kinds(&read(&body, false).unwrap()), [want], "{kind}");
    }
    assert_eq!(WANTED, 243);
}

#[test]
fn a_quota_is_the_channels_or_one_devices() {
    let (channels, devices) = (
        ReceiptKind::OverQuota,
        ReceiptKind::Failed(Reason::QuotaExhausted),
    );
    for (extra, want) in [
        (json!({"ack": "10000", "quota": "10000"}), channels),
        (json!({"ack": 10_001, "quota": 10_000}), channels),
        (json!({"ack": "9999", "quota": "10000"}), devices),
        (json!({"ack": "8", "quota": "8"}), devices),
        (json!({"ack": "0", "quota": "0"}), devices),
        (json!({"ack": "10000"}), devices),
        (json!(null), devices),
    ] {
        let body = post(&json!({"scm1": {"type": 128, "targets": "a", "extra": extra}}));
        assert_eq!(kinds(&read(&body, false).unwrap()), [want], "{extra}");
    }
    let body =
        post(&json!({"scm1": {"type": 128, "targets": "a", "extra": {"ack": "9", "quota": "9"}}}));
    let detail = read(&body, false).unwrap().remove(0).detail;
    assert_eq!(detail, "type 128 ack 9 quota 9");
}

#[test]
fn a_notification_bar_that_is_off_is_news_of_its_own() {
    let body =
        post(&json!({"scm1": {"param": ID, "type": 1, "targets": "a", "barStatus": "Disable"}}));
    let both = [ReceiptKind::Delivered, ReceiptKind::PermissionOff];
    assert_eq!(kinds(&read(&body, false).unwrap()), both);
    assert_eq!(kinds(&read(&body, true).unwrap()), [ReceiptKind::Delivered]);
}

#[test]
fn what_is_no_post_of_receipts_is_refused() {
    for body in [
        &b""[..],
        b"data",
        b"data=[]",
        b"data=%7B",
        b"other=%7B%7D",
        b"{\"scm1\":{}}",
    ] {
        let told = read(body, false);
        assert!(matches!(told, Err(CallbackError::Malformed(_))), "{body:?}");
    }
    let odd = post(&json!({"scm1": 5, "scm2": {"targets": ["a"]}, "": {"targets": "x"}}));
    let odd = read(&odd, false).unwrap();
    assert_eq!(kinds(&odd), [ReceiptKind::Other]);
    assert_eq!(odd[0].vendor_id, None);
}

#[test]
fn the_list_of_invalid_regids_is_read() {
    let check = |status: u16, body: &str, want: Option<&[&str]>| {
        let read = invalid(&fixture::answer(status, body));
        let tokens = read.ok().map(|receipts| {
            assert!(receipts.iter().all(|r| r.kind == ReceiptKind::TokenInvalid));
            let tokens = receipts.iter().map(|r| r.token.clone().unwrap());
            tokens.collect::<Vec<_>>()
        });
        let want = want.map(|w| w.iter().map(|t| Secret::new(*t)).collect::<Vec<_>>());
        assert_eq!(tokens, want, "{status} {body}");
    };
    check(
        200,
        r#"{"result":"ok","code":0,"data":{"list":["a","b"]}}"#,
        Some(&["a", "b"]),
    );
    check(
        200,
        r#"{"result":"ok","code":"0","data":["a",1,""]}"#,
        Some(&["a"]),
    );
    check(
        200,
        r#"{"result":"ok","code":0,"data":{"list":[]}}"#,
        Some(&[]),
    );
    check(200, r#"{"result":"ok","code":0}"#, Some(&[]));
    check(
        200,
        r#"{"result":"error","code":10030,"reason":"too often"}"#,
        Some(&[]),
    );
    check(200, r#"{"result":"error","code":10035}"#, Some(&[]));
    check(200, r#"{"result":"error","code":21301,"reason":"r"}"#, None);
    check(502, "", None);
    check(200, "<html>", None);
}

#[test]
fn the_tracers_answers_are_read_in_every_shape() {
    let counts = |delivered, clicked| {
        Traced::Counts(Counts {
            delivered,
            clicked,
            ..Counts::default()
        })
    };
    let check = |status: u16, body: &str, want: Traced| {
        assert_eq!(traced(&fixture::answer(status, body)), want, "{body}");
    };
    check(
        200,
        r#"{"code":0,"data":{"data":{"id":"a","delivered":"2","click":"1"}}}"#,
        counts(2, 1),
    );
    check(
        200,
        r#"{"code":0,"data":{"data":[{"id":"a","delivered":3}]}}"#,
        counts(3, 0),
    );
    check(200, r#"{"code":0,"data":{"delivered":1}}"#, counts(1, 0));
    check(200, r#"{"code":0,"data":{"data":{}}}"#, Traced::Nothing);
    check(200, r#"{"code":65028}"#, Traced::Nothing);
    check(502, "<html>", Traced::Nothing);
    for code in [10038, 10039, 21301] {
        check(200, &format!(r#"{{"code":{code}}}"#), Traced::Refused);
    }
}
