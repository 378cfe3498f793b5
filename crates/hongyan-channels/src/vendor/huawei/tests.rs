use hongyan_core::Class;

use super::message::Encoded;
use super::*;
use crate::payload;
use crate::vendor::fixture;

fn oauth() -> Value {
    json!({"app_id": "1001", "client_secret": "s3cr3t"})
}

fn encoded_with(config: &Value, outbound: &Outbound) -> Result<Value, (Reason, String)> {
    let encoded = encode(&Config::read(config).unwrap(), outbound)?;
    let mut sent: Value = serde_json::from_slice(&encoded.with_tokens(&["a", "b\""])).unwrap();
    let tokens = sent["message"].as_object_mut().unwrap().remove("token");
    assert_eq!(tokens, Some(json!(["a", "b\""])));
    assert_eq!(sent, encoded.body, "what is shown is what is sent");
    Ok(sent)
}

fn encoded(outbound: &Outbound) -> Result<Value, (Reason, String)> {
    encoded_with(&oauth(), outbound)
}

#[test]
fn golden_notification() {
    let body = encoded(&fixture::outbound()).unwrap();
    let data: Value = serde_json::from_str(body["message"]["data"].as_str().unwrap()).unwrap();
    assert_eq!(data["hy_id"], "018f0000-0000-7000-8000-000000000001");
    assert_eq!(data["hy_data"], "{\"order\":42}");
    assert_eq!(
        body["message"]["android"],
        json!({
            "category": "EXPRESS", "ttl": "3600s", "bi_tag": "018f0000-0000-7000-8000-000000000001",
            "notification": {
                "title": "Order 42", "body": "is on its way", "importance": "NORMAL",
                "click_action": {"type": 3}, "group": "orders",
                "notify_id": payload::number_of("018f0000-0000-7000-8000-000000000001"),
            },
        })
    );
    assert_eq!(body["validate_only"], false);
}

#[test]
fn golden_data_message() {
    let body = encoded(&fixture::data_only()).unwrap();
    let android = &body["message"]["android"];
    assert!(android.get("notification").is_none() && android.get("category").is_none());
    assert_eq!(android["urgency"], "NORMAL");
    assert!(body["message"]["data"].as_str().unwrap().contains("hy_id"));
}

#[test]
fn options_of_the_credential_shape_the_message() {
    let config = json!({
        "app_id": "1001", "client_secret": "s", "badge_class": "com.example.Main", "test": true, "receipt_id": "r1",
        "click_intent": "intent://x/y#Intent;scheme=app;S.hy_id={hy_id};S.hy_url={hy_url};end",
        "categories": ["IM"],
    });
    let body = encoded_with(&config, &fixture::outbound()).unwrap();
    let android = &body["message"]["android"];
    assert_eq!(android["category"], "MARKETING", "not granted");
    assert_eq!(android["notification"]["importance"], "LOW");
    assert_eq!(android["target_user_type"], 1);
    assert_eq!(android["receipt_id"], "r1");
    assert_eq!(
        android["notification"]["badge"],
        json!({"set_num": 3, "class": "com.example.Main"})
    );
    assert_eq!(
        android["notification"]["click_action"],
        json!({"type": 1, "intent": "intent://x/y#Intent;scheme=app;S.hy_id=018f0000-0000-7000-8000-000000000001;S.hy_url=app%3A%2F%2Forder%2F42;end"})
    );
}

#[test]
fn each_class_has_its_category() {
    use hongyan_core::ClassDetail as D;
    for (class, detail, category) in [
        (Class::Im, None, "IM"),
        (Class::Subscription, None, "SUBSCRIPTION"),
        (Class::Marketing, None, "MARKETING"),
        (Class::Transaction, Some(D::Order), "EXPRESS"),
        (Class::Transaction, Some(D::Account), "ACCOUNT"),
        (Class::Transaction, Some(D::Finance), "FINANCE"),
        (Class::Transaction, Some(D::Schedule), "WORK"),
        (Class::Transaction, Some(D::Device), "DEVICE_REMINDER"),
        (Class::Transaction, Some(D::Work), "WORK"),
        (Class::Transaction, Some(D::Travel), "TRAVEL"),
        (Class::Transaction, Some(D::Health), "HEALTH"),
    ] {
        let mut message = fixture::message();
        (message.class, message.class_detail) = (class, detail);
        let body = encoded(&fixture::of(message)).unwrap();
        assert_eq!(
            body["message"]["android"]["category"], category,
            "{class:?} {detail:?}"
        );
    }
}

#[test]
fn marketing_is_never_upgraded_by_the_sender() {
    let extra = json!({"android": {"category": "IM", "notification": {"importance": "NORMAL"}}, "topic": "x", "data": "{}"});
    let mut outbound = fixture::with_vendor(NAME, &extra);
    let mut message = (*outbound.message).clone();
    message.class = Class::Marketing;
    outbound.message = Arc::new(message);
    let body = encoded(&outbound).unwrap();
    assert_eq!(body["message"]["android"]["category"], "MARKETING");
    assert_eq!(
        body["message"]["android"]["notification"]["importance"],
        "LOW"
    );
    assert!(body["message"].get("topic").is_none());
    assert!(body["message"]["data"].as_str().unwrap().contains("hy_id"));
    let allowed = json!({"app_id": "1001", "client_secret": "s", "class_override": true});
    let body = encoded_with(&allowed, &outbound).unwrap();
    assert_eq!(body["message"]["android"]["category"], "IM");
}

#[test]
fn too_large_is_never_sent() {
    let mut message = fixture::message();
    message.data = json!({"x": "y".repeat(4096)}).as_object().cloned();
    assert_eq!(
        encoded(&fixture::of(message)).unwrap_err().0,
        Reason::PayloadTooLarge
    );
}

#[test]
fn verdict_table() {
    let check = |status: u16, code: &str, want: &str| {
        let body = json!({"code": code, "msg": "m", "requestId": "r"}).to_string();
        let decoded = decode(&fixture::answer(status, &body), fixture::NOW);
        assert_eq!(fixture::words(&decoded.rest), want, "{status} {code}");
    };
    check(200, "80000000", "accepted");
    for code in ["80000001", "81000001", "80600003"] {
        check(500, code, "retry vendor_unavailable not_taken");
    }
    for code in [
        "80100001", "80100002", "80100003", "80100004", "80100013", "80100016", "80100018",
        "80100020", "80100022", "80300010", "80300011", "80300013", "80300017", "80300028",
        "80300030", "80300032", "82000001", "82000007", "82000010", "99999999",
    ] {
        check(400, code, "refused payload_rejected");
        check(200, code, "refused payload_rejected");
    }
    for code in ["80100017", "80300029"] {
        check(200, code, "retry vendor_rate_limited not_taken");
    }
    for code in [
        "80200001", "80200006", "80200099", "80300002", "80300036", "80300037", "82000012",
        "82000013",
    ] {
        check(401, code, "credential_bad");
    }
    for code in ["80200003", "80200005"] {
        check(401, code, "retry vendor_unavailable not_taken");
    }
    check(200, "80300007", "token_dead token_invalid");
    check(200, "80300008", "refused payload_too_large");
    let plain = |status, body, want: &str| {
        let decoded = decode(&fixture::answer(status, body), fixture::NOW);
        assert_eq!(fixture::words(&decoded.rest), want, "{status} {body}");
    };
    plain(503, "", "retry vendor_rate_limited not_taken");
    plain(502, "<html>", "retry vendor_unavailable not_taken");
    plain(500, "", "retry vendor_unavailable not_taken");
    plain(404, "", "credential_bad");
    plain(401, "", "credential_bad");
    plain(400, "", "refused payload_rejected");
    plain(200, "<html>", "retry vendor_unavailable maybe_taken");
}

#[test]
fn a_partial_failure_names_its_tokens() {
    let of = |msg: Value| {
        let body =
            json!({"code": "80100000", "msg": msg.to_string(), "requestId": "r"}).to_string();
        decode(&fixture::answer(200, &body), fixture::NOW)
    };
    let v1 = of(json!({"success": 1, "failure": 1, "illegal_tokens": ["b"]}));
    assert_eq!(fixture::words(&v1.rest), "accepted");
    assert_eq!(fixture::words(&v1.named["b"]), "token_dead token_invalid");
    let v3 = of(json!({"illegalTokens": {
        "tokenFormatError": ["a"], "tokenPlatformNotSupport": ["b"], "noRight": ["c"], "noPushTypeRight": ["d"],
        "notSupportPlayVoice": ["e"], "noRightToSendThisLiveNotificationEvent": ["f"],
        "atomicUnableSendUnsubscribedMsg": ["g"], "differentImgVerifyPolicy": ["h"], "countryNotSupport": ["i"],
        "disableSendHuaweiMsgBecauseOfPenalty": ["j"], "appinfoError": ["k"],
    }}));
    for token in ["a", "b", "c"] {
        assert_eq!(
            fixture::words(&v3.named[token]),
            "token_dead token_invalid",
            "{token}"
        );
    }
    for token in ["d", "e", "f", "g", "h", "i"] {
        assert_eq!(
            fixture::words(&v3.named[token]),
            "refused payload_rejected",
            "{token}"
        );
    }
    assert_eq!(fixture::words(&v3.named["j"]), "credential_bad");
    assert_eq!(
        fixture::words(&v3.named["k"]),
        "retry vendor_unavailable not_taken"
    );
}

#[test]
fn a_batch_of_foreign_tokens_kills_none() {
    let body = json!({"code": "80300007", "msg": "All the tokens are invalid."}).to_string();
    let verdict = decode(&fixture::answer(200, &body), fixture::NOW).rest;
    let few = vendor::spare_tokens(vec![verdict.clone(); 9], wrong_app);
    assert_eq!(fixture::words(&few[0]), "token_dead token_invalid");
    let many = vendor::spare_tokens(vec![verdict; 10], wrong_app);
    assert_eq!(fixture::words(&many[0]), "refused token_environment");
}

#[test]
fn both_ways_of_authentication_are_read() {
    let vendor = Huawei::new(&fixture::egress());
    let shown = vendor.check_config(&oauth()).unwrap();
    assert_eq!(
        Value::Object(shown),
        json!({"auth": "oauth", "app_id": "1001"})
    );
    assert_eq!(
        Config::read(&oauth()).unwrap().path,
        "/v1/1001/messages:send"
    );
    let account = json!({
        "app_id": "1001", "project_id": "7", "key_id": "k", "sub_account": "s",
        "private_key": fixture::RSA_PEM,
    });
    assert_eq!(Config::read(&account).unwrap().path, "/v2/7/messages:send");
    let shown = vendor.check_config(&account).unwrap();
    assert_eq!(
        Value::Object(shown),
        json!({"auth": "service_account", "app_id": "1001", "project_id": "7"})
    );
    let wrapped = json!({"app_id": "1001", "service_account": account, "api": "v1"});
    assert_eq!(
        Config::read(&wrapped).unwrap().path,
        "/v1/1001/messages:send"
    );
    let faults = vendor
        .check_config(
            &json!({"app_id": "a/b", "categories": ["X"], "api": "v9", "receipt_user": "u"}),
        )
        .unwrap_err();
    assert_eq!(
        fixture::paths(&faults),
        [
            "app_id",
            "categories/0",
            "receipt_key",
            "client_secret",
            "api"
        ]
    );
}

#[test]
fn fields_that_nobody_knows_are_refused() {
    let vendor = Huawei::new(&fixture::egress());
    let refused = |mut config: Value| {
        for name in ["receipt_usr", "unknown"] {
            config[name] = "x".into();
        }
        let faults = vendor.check_config(&config).unwrap_err();
        assert_eq!(fixture::paths(&faults), ["receipt_usr", "unknown"]);
        assert!(faults[0].to_string().contains("receipt_user"));
    };
    refused(oauth());
    let file = json!({
        "project_id": "7", "key_id": "k", "sub_account": "s", "private_key": fixture::RSA_PEM,
        "auth_uri": "https://login.example/a", "token_uri": "https://login.example/t",
        "auth_provider_cert_uri": "https://login.example/c", "client_cert_uri": "https://login.example/x",
    });
    let mut bare = file.clone();
    bare["app_id"] = "1001".into();
    assert!(vendor.check_config(&bare).is_ok(), "the file as downloaded");
    refused(bare);
    // A file within may have what it likes.
    let mut newer = file;
    newer["of_tomorrow"] = 1.into();
    let wrapped = json!({"app_id": "1001", "project_id": "7", "service_account": newer});
    assert!(vendor.check_config(&wrapped).is_ok());
    refused(wrapped);
}

#[test]
fn what_is_not_granted_is_told_or_refused() {
    let with = |change: Value| {
        let mut config = oauth();
        config
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        encode(&Config::read(&config).unwrap(), &fixture::outbound())
    };
    let category = |encoded: &Encoded| encoded.body["message"]["android"]["category"].clone();
    for (change, told) in [
        (
            json!({"granted": ["im"]}),
            "transaction.order is not granted",
        ),
        (json!({"categories": ["IM"]}), "EXPRESS is not among"),
        (
            json!({"granted": ["transaction"], "categories": ["IM"]}),
            "EXPRESS is not among",
        ),
    ] {
        let encoded = with(change.clone()).ok().unwrap();
        assert_eq!(category(&encoded), "MARKETING", "{change}");
        assert!(encoded.downgraded.unwrap().contains(told), "{change}");
        let mut strict = change;
        strict["strict_classes"] = true.into();
        assert_eq!(with(strict).err().unwrap().0, Reason::ClassNotGranted);
    }
    for change in [
        json!({}),
        json!({"granted": ["transaction.order"]}),
        json!({"granted": ["transaction"], "categories": ["EXPRESS"], "strict_classes": true}),
    ] {
        let encoded = with(change).ok().unwrap();
        assert_eq!(
            (category(&encoded), encoded.downgraded),
            (json!("EXPRESS"), None)
        );
    }
}

#[test]
fn a_downgraded_message_is_never_upgraded_by_the_sender() {
    let config = json!({"app_id": "1001", "client_secret": "s", "granted": []});
    let extra = json!({"android": {"category": "IM", "bi_tag": "x", "notification": {"importance": "NORMAL"}}});
    let body = encoded_with(&config, &fixture::with_vendor(NAME, &extra)).unwrap();
    let android = &body["message"]["android"];
    assert_eq!(android["category"], "MARKETING");
    assert_eq!(android["notification"]["importance"], "LOW");
    assert_eq!(android["bi_tag"], "018f0000-0000-7000-8000-000000000001");
}

#[test]
fn a_category_that_was_not_granted_counts_as_marketing() {
    let counted = |change: Value| {
        let mut config = oauth();
        let config = {
            config
                .as_object_mut()
                .unwrap()
                .extend(change.as_object().unwrap().clone());
            Config::read(&config).unwrap()
        };
        Class::ALL.map(|class| config.rights.counted(class, None).as_str())
    };
    let (service, marketing) = ("service", "marketing");
    assert_eq!(counted(json!({})), [service, service, service, marketing]);
    assert_eq!(
        counted(json!({"categories": ["IM", "EXPRESS"]})),
        [service, service, marketing, marketing]
    );
    assert_eq!(
        counted(json!({"granted": ["transaction"], "categories": ["IM", "EXPRESS"]})),
        [marketing, service, marketing, marketing]
    );
}
