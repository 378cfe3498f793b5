use super::*;
use crate::vendor::fixture;

fn config() -> Value {
    json!({
        "app_secret": "s3cr3t==", "package": "com.example.app", "callback": "https://push.example/cb",
        "channels": {
            "im": "100001",
            "transaction": {"channel_id": "100002", "template_id": "P10002",
                            "template_param": {"order": "{title}", "state": "{body}"}},
            "subscription": {"channel_id": "200002", "public": true},
            "marketing": "200001",
        },
    })
}

fn encoded(outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
    encode(&Config::read(&config()).unwrap(), outbound)
}

#[test]
fn golden_notification() {
    let encoded = encoded(&fixture::outbound()).unwrap();
    let id = "018f0000-0000-7000-8000-000000000001";
    let keys = payload::text_keys(&fixture::message());
    assert_eq!(
        encoded.shown(),
        json!({
            "restricted_package_name": "com.example.app",
            "payload": Value::Object(keys.clone()).to_string(),
            "time_to_live": "3600000", "pass_through": "0", "title": "Order 42", "description": "is on its way",
            "notify_id": payload::number_of(id).to_string(), "notify_type": "-1",
            "extra.jobkey": payload::short_hash(id, 10),
            "extra.hy_id": id, "extra.hy_url": "app://order/42", "extra.hy_user": keys["hy_user"],
            "extra.callback": "https://push.example/cb", "extra.callback.param": id, "extra.callback.type": "243",
            "extra.channel_id": "100002", "extra.template_id": "P10002",
            "extra.template_param": "{\"order\":\"Order 42\",\"state\":\"is on its way\"}",
        })
    );
    let sent = String::from_utf8(encoded.with_tokens(&["a+/=", "b"]).to_vec()).unwrap();
    assert!(sent.ends_with("&registration_id=a%2B%2F%3D%2Cb"), "{sent}");
    assert!(sent.contains("description=is%20on%20its%20way&"), "{sent}");
    assert_eq!(encoded.form["extra.jobkey"].len(), 20);
}

#[test]
fn golden_pass_through() {
    let form = encoded(&fixture::data_only()).unwrap().form;
    assert_eq!(form["pass_through"], "1");
    assert!(!form.contains_key("title") && form["payload"].contains("hy_data"));
}

#[test]
fn each_class_has_its_channel_and_life() {
    for (class, channel, ttl_h, notify) in [
        (Class::Im, "100001", 240, "-1"),
        (Class::Transaction, "100002", 240, "-1"),
        (Class::Subscription, "200002", 24, "-1"),
        (Class::Marketing, "200001", 24, "0"),
    ] {
        let mut message = fixture::message();
        message.class = class;
        message.expires_at = fixture::NOW.plus(Duration::from_secs(30 * 86_400));
        let form = encoded(&fixture::of(message)).unwrap().form;
        assert_eq!(form["extra.channel_id"], channel);
        assert_eq!(form["time_to_live"], (ttl_h * 3_600_000).to_string());
        assert_eq!(form["notify_type"], notify);
    }
}

#[test]
fn a_newer_message_takes_the_place_of_an_older_one() {
    let form_of = |id: &str| {
        let mut message = fixture::message();
        message.id = hongyan_core::MessageId::parse(id).unwrap();
        message.options.collapse_key = Some("chat-42".to_owned());
        let mut outbound = fixture::of(message);
        outbound.dedup_key = "chat-42".to_owned();
        encoded(&outbound).unwrap().form
    };
    let older = form_of("018f0000-0000-7000-8000-000000000001");
    let newer = form_of("018f0000-0000-7000-8000-000000000002");
    assert_eq!(older["notify_id"], newer["notify_id"]);
    assert_ne!(older["extra.jobkey"], newer["extra.jobkey"]);
}

#[test]
fn long_texts_are_shortened_and_told() {
    let mut message = fixture::message();
    let shown = message.notification.as_mut().unwrap();
    shown.title = "鸿".repeat(60);
    shown.body = "雁".repeat(128);
    let encoded = encoded(&fixture::of(message)).unwrap();
    assert_eq!(encoded.form["title"].chars().count(), 49);
    assert_eq!(encoded.form["description"].chars().count(), 127);
    let cut: Vec<_> = encoded
        .truncated
        .iter()
        .map(|t| (t.field, t.from, t.to))
        .collect();
    assert_eq!(cut, [("title", 60, 49), ("body", 128, 127)]);
}

#[test]
fn a_text_without_a_title_gets_one() {
    let mut outbound = fixture::outbound();
    outbound.title = Some(" ".to_owned());
    let form = encoded(&outbound).unwrap().form;
    assert_eq!(
        (form["title"].as_str(), form["description"].as_str()),
        ("New message", "is on its way")
    );
}

#[test]
fn the_senders_fields_are_merged_last() {
    let extra = json!({
        "notify_type": 2, "registration_id": "x", "topic": "all", "notify_id": null,
        "extra": {"sound_uri": "android.resource://x/raw/y", "hy_id": "forged", "channel_id": "9"},
    });
    let mut outbound = fixture::with_vendor(NAME, &extra);
    let form = encoded(&outbound).unwrap().form;
    assert_eq!(form["notify_type"], "2");
    assert_eq!(form["extra.sound_uri"], "android.resource://x/raw/y");
    assert_eq!(form["extra.channel_id"], "9");
    assert_eq!(form["extra.hy_id"], "018f0000-0000-7000-8000-000000000001");
    for absent in ["registration_id", "topic", "notify_id"] {
        assert!(!form.contains_key(absent), "{absent}");
    }
    let mut message = (*outbound.message).clone();
    message.class = Class::Marketing;
    outbound.message = Arc::new(message);
    assert_eq!(
        encoded(&outbound).unwrap().form["extra.channel_id"],
        "200001"
    );
}

#[test]
fn too_large_is_never_sent() {
    let mut message = fixture::message();
    message.data = json!({"x": "y".repeat(4096)}).as_object().cloned();
    assert_eq!(
        encoded(&fixture::of(message)).err().unwrap().0,
        Reason::PayloadTooLarge
    );
}

#[test]
fn verdict_table() {
    let check = |codes: &[i64], want: &str| {
        for code in codes {
            let body = json!({"result": "error", "code": code, "reason": "r"}).to_string();
            let verdict = decode(&fixture::answer(200, &body), fixture::NOW);
            assert_eq!(fixture::words(&verdict), want, "{code}");
        }
    };
    check(&[0], "accepted");
    check(
        &[
            -1, 1, 10001, 10002, 10003, 10009, 10010, 10011, 10037, 20215, 20216, 20301, 20315,
            20607, 22102, 26003, 65029, 65040, 299_999,
        ],
        "retry vendor_unavailable not_taken",
    );
    check(
        &[
            100, 10007, 10008, 10012, 10016, 10017, 10025, 10035, 20209, 21305, 22100, 22103,
            65008, 65010, 65011, 65012, 65013, 65014, 65015, 65016, 65017, 65028, 65030, 65035,
            65036, 65037, 65038, 65041,
        ],
        "refused payload_rejected",
    );
    check(&[10018, 65009], "refused payload_too_large");
    check(&[10029, 65003, 65007], "token_dead token_invalid");
    check(
        &[
            10022, 10023, 10024, 10027, 10028, 10030, 10032, 10039, 22101, 26004, 26005, 65006,
        ],
        "retry vendor_rate_limited not_taken",
    );
    check(&[10034, 200_001], "quota");
    check(
        &[
            10004, 10005, 10006, 10013, 10014, 10020, 10021, 10026, 10031, 10033, 10036, 10038,
            21301, 21302, 21303, 22000, 22001, 22002, 22003, 22004, 22005, 22006, 22007, 22008,
            22020, 22021, 22022, 26006, 27001, 66108,
        ],
        "credential_bad",
    );
    let plain = |status, body, want: &str| {
        let verdict = decode(&fixture::answer(status, body), fixture::NOW);
        assert_eq!(fixture::words(&verdict), want, "{status} {body}");
    };
    plain(502, "", "retry vendor_unavailable not_taken");
    plain(429, "", "retry vendor_rate_limited not_taken");
    plain(401, "", "credential_bad");
    plain(404, "", "credential_bad");
    plain(413, "", "refused payload_rejected");
    plain(200, "<html>", "retry vendor_unavailable maybe_taken");
}

#[test]
fn the_quota_opens_again_at_midnight_in_beijing() {
    let body = json!({"code": 200_001, "reason": "exceed quota"}).to_string();
    let Verdict::QuotaExhausted { until, .. } = decode(&fixture::answer(200, &body), fixture::NOW)
    else {
        panic!("a quota verdict is wanted")
    };
    // NOW is 09:00 in Beijing.
    assert_eq!(until, Some(Duration::from_secs(15 * 3600)));
}

#[test]
fn configurations_are_checked_and_shown_without_secrets() {
    let vendor = Xiaomi::new(&fixture::egress());
    let shown = vendor.check_config(&config()).unwrap();
    assert_eq!(shown["package"], "com.example.app");
    assert_eq!(shown["region"], "china");
    assert!(!Value::Object(shown).to_string().contains("s3cr3t"));
    let bad = json!({
        "package": "a b", "region": "moon", "typo": 1, "callback": "http://x",
        "channels": {"news": "1", "im": 2, "transaction": {"template_id": "P", "x": 1}},
    });
    let faults = vendor.check_config(&bad).unwrap_err();
    assert_eq!(
        fixture::paths(&faults),
        [
            "app_secret",
            "package",
            "region",
            "callback",
            "channels/im",
            "channels/news",
            "channels/transaction/channel_id",
            "channels/transaction/x",
            "typo"
        ]
    );
}

fn with(change: Value) -> Value {
    let mut all = config();
    let fields = change.as_object().unwrap().clone();
    all.as_object_mut().unwrap().extend(fields);
    all
}

fn encoded_as(change: Value, class: Class) -> Result<Encoded, (Reason, String)> {
    let mut message = fixture::message();
    message.class = class;
    message.notification.as_mut().unwrap().title = "x".repeat(9);
    encode(&Config::read(&with(change)).unwrap(), &fixture::of(message))
}

#[test]
fn a_class_without_a_channel_goes_out_as_marketing_and_says_so() {
    let channel = |encoded: &Encoded| encoded.form.get("extra.channel_id").cloned();
    let rows = [
        (
            json!({"marketing": "200001"}),
            Class::Im,
            Some("200001"),
            "im has no channel: sent through",
        ),
        (
            json!({"im": "100001"}),
            Class::Transaction,
            None,
            "transaction.order has no channel: sent as",
        ),
        (
            json!({"im": "100001"}),
            Class::Marketing,
            None,
            "marketing has no channel",
        ),
    ];
    for (channels, class, want, why) in rows {
        let encoded = encoded_as(json!({"channels": channels}), class)
            .ok()
            .unwrap();
        assert_eq!(channel(&encoded).as_deref(), want);
        assert!(encoded.downgraded.unwrap().contains(why), "{why}");
        assert_eq!(encoded.form["notify_type"], "0", "as silent as marketing");
        assert_eq!(encoded.form["time_to_live"], "3600000");
    }
    // Without any channel there are Xiaomi's older rules, and nothing to be told.
    let none = encoded_as(json!({"channels": {}}), Class::Im).ok().unwrap();
    assert_eq!((channel(&none), none.downgraded), (None, None));
    let own = encoded_as(json!({}), Class::Im).ok().unwrap();
    assert_eq!(own.downgraded, None);
    let granted = encoded_as(json!({"granted": ["transaction"]}), Class::Im)
        .ok()
        .unwrap();
    assert_eq!(channel(&granted).as_deref(), Some("200001"));
    assert!(granted.downgraded.unwrap().contains("im is not granted"));
    for change in [
        json!({"strict_classes": true, "channels": {"im": "100001"}}),
        json!({"strict_classes": true, "granted": []}),
    ] {
        let refused = encoded_as(change, Class::Subscription).err().unwrap();
        assert_eq!(refused.0, Reason::ClassNotGranted);
    }
}

#[test]
fn a_downgraded_message_is_never_upgraded_by_the_sender() {
    let extra = json!({"extra": {"channel_id": "100001", "template_id": "P"}});
    let config = Config::read(&with(json!({"granted": ["im"]}))).unwrap();
    let form = encode(&config, &fixture::with_vendor(NAME, &extra))
        .ok()
        .unwrap()
        .form;
    assert_eq!(form["extra.channel_id"], "200001");
    assert!(!form.contains_key("extra.template_id"));
}

#[test]
fn receipts_go_to_the_credentials_address_or_the_servers() {
    let of = |own: Value, offered: Option<&str>| {
        let vendor = Xiaomi::new(&fixture::egress());
        let channel = vendor
            .open(OpenCredential {
                app: hongyan_core::AppId::parse("demo").unwrap(),
                name: hongyan_core::CredentialName::parse("default").unwrap(),
                config: Secret::new(with(json!({"callback": own})).to_string()),
                endpoint: None,
                callback: offered.map(str::to_owned),
            })
            .unwrap();
        let extra = json!({"extra": {"callback": "https://other.example", "callback.param": "x", "callback.type": 1}});
        let body = channel
            .preview(&fixture::with_vendor(NAME, &extra))
            .unwrap()
            .body;
        let field = |name: &str| body[name].as_str().map(str::to_owned);
        (
            field("extra.callback"),
            field("extra.callback.param"),
            field("extra.callback.type"),
        )
    };
    let id = Some("018f0000-0000-7000-8000-000000000001".to_owned());
    let ours = |url: &str| (Some(url.to_owned()), id.clone(), Some("243".to_owned()));
    let own = json!("https://push.example/cb");
    let server = "https://server.example/v1/callbacks/demo/xiaomi?key=k";
    assert_eq!(of(own, Some(server)), ours("https://push.example/cb"));
    let shown = ours("https://server.example/v1/callbacks/demo/xiaomi?…");
    assert_eq!(
        of(json!(null), Some(server)),
        shown,
        "the secret stays here"
    );
    let long = format!("{server}{}", "x".repeat(128));
    let senders = (
        Some("https://other.example".to_owned()),
        Some("x".to_owned()),
        Some("1".to_owned()),
    );
    assert_eq!(of(json!(null), Some(&long)), senders, "too long for Xiaomi");
    assert_eq!(of(json!(null), None), senders);
}

#[test]
fn template_variables_have_no_symbols_and_are_never_blank() {
    let mut message = fixture::message();
    let shown = message.notification.as_mut().unwrap();
    shown.title = "😀 42 ✅".to_owned();
    shown.body = "🎉🎉".to_owned();
    let encoded = encoded(&fixture::of(message)).unwrap();
    assert_eq!(
        encoded.form["extra.template_param"],
        "{\"order\":\"42\",\"state\":\"…\"}"
    );
    assert_eq!(
        encoded.form["title"], "😀 42 ✅",
        "the text itself may have them"
    );
}

#[test]
fn what_template_variables_lose_is_told() {
    let lost = |title: &str, body: &str| {
        let mut message = fixture::message();
        let shown = message.notification.as_mut().unwrap();
        (shown.title, shown.body) = (title.to_owned(), body.to_owned());
        let truncated = encoded(&fixture::of(message)).unwrap().truncated;
        let of_template = truncated
            .into_iter()
            .filter(|t| t.field == "template_param");
        let sizes: Vec<_> = of_template.map(|t| (t.from, t.to)).collect();
        sizes
    };
    assert_eq!(lost("Order 42", " on its way "), []);
    assert_eq!(lost("Order 42 ✅", "🎉🎉"), [(10, 8), (2, 0)]);
    let max = "雁".repeat(128);
    assert_eq!(lost("x", &max), []);
    assert_eq!(lost("x", &format!("{max}雁")), [(129, 128)]);
}

#[test]
fn the_apps_own_pairs_share_their_room() {
    let mut message = fixture::message();
    let url = format!("app://{}", "x".repeat(1000));
    message
        .notification
        .as_mut()
        .unwrap()
        .click
        .as_mut()
        .unwrap()
        .url = url.clone();
    let form = encoded(&fixture::of(message)).unwrap().form;
    assert!(form.contains_key("extra.hy_id") && form.contains_key("extra.hy_user"));
    assert!(!form.contains_key("extra.hy_url") && form["payload"].contains(&url));
}

#[test]
fn the_daily_limit_is_read_from_every_answer() {
    let check = |body: &str, want: Option<(i64, Option<i64>)>| {
        let answer = fixture::answer(200, body);
        assert_eq!(verdicts::day_limit(&answer), want, "{body}");
    };
    check(r#"{"code":0,"data":{"id":"x"}}"#, None);
    check(
        r#"{"code":0,"data":{"id":"x","day_quota":"10000","day_acked":"7"}}"#,
        Some((10_000, Some(7))),
    );
    check(r#"{"code":0,"data":{"day_quota":5}}"#, Some((5, None)));
    check(
        r#"{"code":200001,"reason":"exceed quota, quota: 20, have acked: 21"}"#,
        Some((20, Some(21))),
    );
    check(r#"{"code":200001,"reason":"over quota"}"#, None);
    check("<html>", None);
}

#[test]
fn what_goes_through_a_public_channel_counts_as_marketing() {
    let counted = |channels: Value| {
        let mut config = config();
        config["channels"] = channels;
        let config = Config::read(&config).unwrap();
        Class::ALL.map(|class| config.counted(class, None).as_str())
    };
    let (service, marketing) = ("service", "marketing");
    let both = json!({"im": "1", "transaction": "2", "subscription": "3", "marketing": "4"});
    assert_eq!(counted(both), [service, service, service, marketing]);
    let public = config()["channels"].clone();
    assert_eq!(counted(public), [service, service, marketing, marketing]);
    // Who has no channel of its own goes through that of marketing.
    assert_eq!(
        counted(json!({"im": "1", "marketing": "4"})),
        [service, marketing, marketing, marketing]
    );
    // Without any there is one limit for all, and its reserve keeps the urgent ones going.
    assert_eq!(counted(json!({})), [service, service, service, marketing]);
}

#[test]
fn a_limit_is_that_of_the_public_channels_or_of_everything() {
    let heard = |channels: Value, class: Class| {
        let mut config = config();
        config["channels"] = channels;
        let egress = fixture::egress();
        let read = Config::read(&config).unwrap();
        let origin = || Origin::parse("https://xiaomi.example").unwrap();
        let sender = Sender {
            pool: h1::Pool::new(&egress, origin()),
            feedback: h1::Pool::new(&egress, origin()),
            egress,
            config: read,
            callback_too_long: false,
            counted: Counted::new(POLL_EVERY, TRACES_LEN),
            limits: Limits::default(),
            feedback_due: Mutex::new(Timestamp(0)),
        };
        let mut message = fixture::message();
        message.class = class;
        let encoded = encode(&sender.config, &fixture::of(message)).unwrap();
        let answer = r#"{"code":0,"data":{"id":"x","day_quota":"9","day_acked":"7"}}"#;
        sender.hear_limit(&encoded, &fixture::answer(200, answer), fixture::NOW);
        sender.limits.all().into_iter().map(|l| l.of).next()
    };
    let channels = || config()["channels"].clone();
    assert_eq!(heard(channels(), Class::Im), None);
    assert_eq!(
        heard(channels(), Class::Marketing),
        Some(LimitOf::Marketing)
    );
    assert_eq!(
        heard(channels(), Class::Subscription),
        Some(LimitOf::Marketing)
    );
    assert_eq!(heard(json!({}), Class::Im), Some(LimitOf::All));
}
