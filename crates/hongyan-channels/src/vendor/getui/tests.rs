use hongyan_core::Class;
use hongyan_core::port::ReceiptKind;

use super::*;
use crate::token::TokenError;
use crate::vendor::fixture;

const ID: &str = "018f0000-0000-7000-8000-000000000001";

fn config() -> Value {
    json!({
        "app_id": "app1", "app_key": "key1", "master_secret": "s3cr3t", "custom_callback": true,
        "xiaomi_channels": {"transaction": {"channel_id": "100002", "template_id": "P2", "template_param": {"a": "{title}"}}},
        "badge_class": "com.example.Main",
    })
}

fn encoded(outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
    encode(&Config::read(&config()).unwrap(), outbound)
}

fn body(outbound: &Outbound) -> Value {
    Value::Object(encoded(outbound).unwrap().body)
}

#[test]
fn golden_notification() {
    let hidden = Value::Object(payload::text_keys(&fixture::message())).to_string();
    let number = payload::number_of(ID);
    let plain = json!({"title": "Order 42", "body": "is on its way", "notify_id": number,
                       "click_type": "payload", "payload": hidden});
    let mut own = plain.clone();
    own["channel_level"] = 3.into();
    own["thread_id"] = "orders".into();
    assert_eq!(
        body(&fixture::outbound()),
        json!({
            "settings": {"ttl": 3_600_000, "strategy": {"default": 1, "ios": 4}, "custom_callback": ID},
            "push_message": {"notification": own},
            "push_channel": {
                "android": {"ups": {"notification": plain, "options": {
                    "HW": {
                        "/message/android/category": "EXPRESS",
                        "/message/android/notification/importance": "NORMAL",
                        "/message/android/notification/badge/class": "com.example.Main",
                        "/message/android/notification/badge/set_num": 3,
                    },
                    "HO": {
                        "/android/notification/importance": "NORMAL",
                        "/android/notification/badge/badgeClass": "com.example.Main",
                        "/android/notification/badge/setNum": 3,
                    },
                    "OP": {"/category": "ORDER", "/notify_level": 2},
                    "VV": {"/category": "ORDER", "/classification": 1},
                    "MZ": {"/noticeMsgType": 1},
                    "XM": {"/extra.channel_id": "100002", "/extra.template_id": "P2",
                           "/extra.template_param": "{\"a\":\"Order 42\"}"},
                }}},
                "ios": {
                    "type": "notify", "payload": hidden, "auto_badge": "3", "apns-collapse-id": ID,
                    "aps": {"alert": {"title": "Order 42", "body": "is on its way"}, "content-available": 0,
                            "sound": "default", "thread-id": "orders"},
                },
                "harmony": {"notification": {
                    "title": "Order 42", "body": "is on its way", "category": "EXPRESS", "notify_id": number,
                    "click_type": "payload", "payload": hidden,
                }},
            },
        })
    );
    let encoded = encoded(&fixture::outbound()).unwrap();
    let audience = json!({"cid": ["c"]});
    let sent = encoded.with("r".repeat(32), Some(audience.clone()));
    let sent: Value = serde_json::from_slice(&sent).unwrap();
    assert_eq!(
        (&sent["audience"], &sent["request_id"]),
        (&audience, &json!("r".repeat(32)))
    );
}

#[test]
fn golden_data_message() {
    let body = body(&fixture::data_only());
    let hidden = body["push_message"]["transmission"].as_str().unwrap();
    assert!(hidden.contains(ID));
    assert_eq!(
        body["push_channel"]["android"]["ups"]["transmission"],
        hidden
    );
    assert_eq!(body["push_channel"]["ios"]["aps"]["content-available"], 1);
}

#[test]
fn each_class_has_its_marks() {
    for (class, huawei, oppo, vivo, meizu, level) in [
        (Class::Im, "IM", 2, 1, 1, 4),
        (Class::Transaction, "EXPRESS", 2, 1, 1, 3),
        (Class::Subscription, "SUBSCRIPTION", 2, 1, 1, 3),
        (Class::Marketing, "MARKETING", 1, 0, 0, 2),
    ] {
        let mut message = fixture::message();
        message.class = class;
        let body = body(&fixture::of(message));
        let options = &body["push_channel"]["android"]["ups"]["options"];
        assert_eq!(options["HW"]["/message/android/category"], huawei);
        assert_eq!(options["OP"]["/notify_level"], oppo);
        assert_eq!(options["VV"]["/classification"], vivo);
        assert_eq!(options["MZ"]["/noticeMsgType"], meizu);
        assert_eq!(body["push_message"]["notification"]["channel_level"], level);
    }
}

#[test]
fn marketing_is_never_lifted_by_the_sender() {
    let extra = json!({
        "audience": "all", "request_id": "x", "taskid": "t", "settings": {"speed": 5, "custom_callback": "forged"},
        "push_message": {"notification": {"payload": "forged", "ring_name": "bell"}},
        "push_channel": {"android": {"ups": {"options": {"HW": {"/message/android/category": "IM"}}}},
                         "harmony": {"notification": {"category": "IM"}}, "ios": null},
    });
    let mut outbound = fixture::with_vendor(NAME, &extra);
    // Without the iOS part the keys would be lost there: the sender's fields are left out.
    let whole = body(&outbound);
    assert!(whole["settings"].get("speed").is_none());
    let mut message = (*outbound.message).clone();
    let mut extra = extra;
    extra["push_channel"].as_object_mut().unwrap().remove("ios");
    let fields = extra.as_object().unwrap().clone();
    message
        .options
        .vendor
        .insert(ChannelId::parse(NAME).unwrap(), fields);
    message.class = Class::Marketing;
    outbound.message = Arc::new(message);
    let body = body(&outbound);
    assert_eq!(body["settings"]["speed"], 5);
    assert_eq!(body["settings"]["custom_callback"], ID);
    assert!(body.get("audience").is_none() && body.get("taskid").is_none());
    let own = &body["push_message"]["notification"];
    assert_eq!(own["ring_name"], "bell");
    assert!(own["payload"].as_str().unwrap().contains(ID));
    let options = &body["push_channel"]["android"]["ups"]["options"];
    assert_eq!(options["HW"]["/message/android/category"], "MARKETING");
    assert_eq!(
        body["push_channel"]["harmony"]["notification"]["category"],
        "MARKETING"
    );
}

#[test]
fn long_texts_are_shortened_and_told() {
    let mut message = fixture::message();
    let shown = message.notification.as_mut().unwrap();
    (shown.title, shown.body) = ("鸿".repeat(60), "雁".repeat(300));
    let encoded = encoded(&fixture::of(message)).unwrap();
    let title = &encoded.body["push_message"]["notification"]["title"];
    assert_eq!(title.as_str().unwrap().chars().count(), 50);
    let cut = encoded.truncated.iter().map(|t| (t.field, t.from, t.to));
    assert_eq!(
        cut.collect::<Vec<_>>(),
        [("title", 60, 50), ("body", 300, 256)]
    );
    let mut message = fixture::message();
    message.data = json!({"x": "y".repeat(3072)}).as_object().cloned();
    let refused = super::encode(&Config::read(&config()).unwrap(), &fixture::of(message));
    assert_eq!(refused.err().unwrap().0, Reason::PayloadTooLarge);
}

#[test]
fn the_same_message_has_the_same_task_for_a_part_of_its_life() {
    let mut later = fixture::outbound();
    let first = encoded(&later).unwrap().key();
    later.now = later.now.plus(Duration::from_secs(60));
    assert_eq!(encoded(&later).unwrap().key(), first);
    let mut much_later = later.clone();
    much_later.now = much_later.now.plus(Duration::from_secs(1_800));
    assert_ne!(encoded(&much_later).unwrap().key(), first);
    later.title = Some("another".to_owned());
    assert_ne!(encoded(&later).unwrap().key(), first);
}

#[test]
fn tasks_are_kept_until_they_end() {
    let tasks = Tasks::default();
    tasks.keep("k", "t", Timestamp(10));
    assert_eq!(tasks.of("k", Timestamp(9)).as_deref(), Some("t"));
    assert_eq!(tasks.of("k", Timestamp(10)), None);
    tasks.forget("t");
    assert_eq!(tasks.of("k", Timestamp(9)), None);
}

#[test]
fn verdict_table() {
    let check = |status: u16, body: &str, want: &str| {
        let decoded = decode(&fixture::answer(status, body), fixture::NOW);
        assert_eq!(fixture::words(&decoded.rest), want, "{status} {body}");
    };
    let code = |status: u16, code: i64, want: &str| {
        check(status, &json!({"code": code, "msg": "m"}).to_string(), want);
    };
    check(200, r#"{"code":0,"data":{"taskid":"RASL_1"}}"#, "accepted");
    check(
        400,
        r#"{"code":20001,"msg":"target user is invalid"}"#,
        "token_dead token_invalid",
    );
    code(400, 20001, "refused payload_rejected");
    code(200, 1, "refused payload_rejected");
    code(405, 405, "refused payload_rejected");
    code(401, 10004, "refused payload_rejected");
    code(200, 2, "retry vendor_unavailable not_taken");
    code(200, 301, "credential_bad");
    code(404, 404, "credential_bad");
    code(401, 10001, "credential_bad");
    code(401, 10002, "credential_bad");
    let next_minute = "retry vendor_rate_limited 60s not_taken";
    code(401, 10003, next_minute);
    code(401, 10005, next_minute);
    code(429, 4711, next_minute);
    check(429, "", next_minute);
    code(403, 30000, "quota");
    code(403, 4711, "quota");
    code(500, 4711, "retry vendor_unavailable not_taken");
    check(500, "", "retry vendor_unavailable not_taken");
    check(404, "", "credential_bad");
    check(200, "<html>", "retry vendor_unavailable maybe_taken");
}

#[test]
fn each_cid_has_its_own_verdict() {
    let body = json!({"code": 0, "data": {"RASL_0109_x": {
        "a": "successed_online", "b": "successed_offline", "c": "successed_ignore", "d": "failed"}}});
    let decoded = decode(&fixture::answer(200, &body.to_string()), fixture::NOW);
    let words = |cid: &str| fixture::words(&decoded.named[cid]);
    assert_eq!(words("a"), "accepted");
    assert_eq!(decoded.named["b"], accepted(Some("RASL_0109_x")));
    assert_eq!(words("c"), "token_dead token_invalid");
    assert_eq!(words("d"), "refused payload_rejected");
    assert_eq!(decoded.rest, unnamed());
}

#[test]
fn the_token_request_is_signed() {
    // printf %s key11767229200000s3cr3t | sha256sum
    assert_eq!(
        auth::sign("key1", "1767229200000", b"s3cr3t"),
        "9dbc9d4cb27094fa26800de0425903ef1e34315c293b40b8d9714a3360d67641"
    );
    let read = |status: u16, body: Value| {
        let answer = fixture::answer(status, &body.to_string());
        match auth::read(&answer, fixture::NOW) {
            Ok(fetched) => format!("{} {}s", fetched.text, fetched.lives.as_secs()),
            Err(TokenError::Refused(_)) => "refused".to_owned(),
            Err(TokenError::Unavailable { .. }) => "unavailable".to_owned(),
        }
    };
    let day = (fixture::NOW.millis() + 86_400_000).to_string();
    let data = json!({"token": "t", "expire_time": day});
    assert_eq!(read(200, json!({"code": 0, "data": data})), "t 82800s");
    assert_eq!(
        read(200, json!({"code": 0, "data": {"token": "t"}})),
        "t 3600s"
    );
    assert_eq!(
        read(400, json!({"code": 20001, "msg": "sign is invalid"})),
        "refused"
    );
    assert_eq!(read(401, json!({"code": 10003})), "unavailable");
    assert_eq!(read(200, json!({"code": 2})), "unavailable");
    assert_eq!(read(200, json!({"code": 0})), "unavailable");
    assert_eq!(read(404, json!("x")), "refused");
    assert_eq!(read(502, json!("x")), "unavailable");
}

fn line(action: &str, code: &str) -> Value {
    // printf %s app1c1t1m1s3cr3t | md5sum
    json!({"appid": "app1", "cid": "c1", "taskid": "t1", "msgid": "m1", "code": code, "desc": "d", "actionid": action,
           "recvtime": 1_767_229_200_000_i64, "custom_callback": ID, "sign": "aa0dfc62ed11c6a895d3ef0fd9cac080"})
}

fn post(body: &str) -> Result<Callback, CallbackError> {
    let request = CallbackRequest {
        method: "POST",
        url: "https://push.example/cb",
        headers: &[],
        body: body.as_bytes(),
        now: fixture::NOW,
    };
    callback::read(&Config::read(&config()).unwrap(), &request)
}

#[test]
fn receipts_are_read_line_by_line() {
    let lines = [
        line("0", "200"),
        line("60001", "200"),
        line("60002", "200"),
        line("0", "402"),
        line("0", "400"),
    ];
    let body = lines.map(|line| line.to_string()).join("\n");
    let read = post(&body).unwrap();
    assert!(
        !read.signed,
        "the signature covers neither what happened nor when"
    );
    let kinds: Vec<ReceiptKind> = read.receipts.iter().map(|r| r.kind).collect();
    assert_eq!(
        kinds,
        [
            ReceiptKind::Delivered,
            ReceiptKind::Displayed,
            ReceiptKind::Clicked,
            ReceiptKind::TokenInvalid,
            ReceiptKind::Failed(Reason::VendorUnavailable),
        ]
    );
    let first = &read.receipts[0];
    assert_eq!(first.message.unwrap().to_string(), ID);
    assert_eq!(
        (first.vendor_id.as_deref(), first.at),
        (Some("t1"), Some(fixture::NOW))
    );
    let mut forged = line("0", "200");
    forged["cid"] = "c2".into();
    let forged = format!("{}\n{forged}", line("0", "200"));
    assert!(
        matches!(post(&forged), Err(CallbackError::Signature(_))),
        "one wrong line refuses all"
    );
    for body in ["", "\n", "7x", "{"] {
        assert!(
            matches!(post(body), Err(CallbackError::Malformed(_))),
            "{body}"
        );
    }
}

#[test]
fn configurations_are_checked_and_shown_without_secrets() {
    let vendor = Getui::new(&fixture::egress());
    let shown = vendor.check_config(&config()).unwrap();
    assert_eq!(shown["app_id"], "app1");
    assert!(!Value::Object(shown).to_string().contains("s3cr3t"));
    let bad = json!({"app_id": "a/b", "app_key": "k", "strategy": 5, "receipt_actions": {"0": "seen"}, "typo": 1});
    let faults = vendor.check_config(&bad).unwrap_err();
    let want = [
        "app_id",
        "master_secret",
        "strategy",
        "receipt_actions/0",
        "typo",
    ];
    assert_eq!(fixture::paths(&faults), want);
}
