use hongyan_core::Class;

use super::*;
use crate::vendor::fixture;

fn config() -> Value {
    json!({"project_id": "7", "key_id": "k", "sub_account": "s", "private_key": fixture::RSA_PEM, "client_id": "1001"})
}

fn encoded(outbound: &Outbound) -> Result<(String, Value), (Reason, String)> {
    let encoded = encode(&Config::read(&config()).unwrap(), outbound)?;
    let mut sent: Value = serde_json::from_slice(&encoded.with_tokens(&["a\""])).unwrap();
    let target = sent.as_object_mut().unwrap().remove("target");
    assert_eq!(target, Some(json!({"token": ["a\""]})));
    assert_eq!(
        sent,
        Value::Object(encoded.body),
        "what is shown is what is sent"
    );
    Ok((encoded.push_type, sent))
}

#[test]
fn golden_notification() {
    let (push_type, body) = encoded(&fixture::outbound()).unwrap();
    let id = "018f0000-0000-7000-8000-000000000001";
    assert_eq!(push_type, "0");
    assert_eq!(
        body,
        json!({
            "payload": {"notification": {
                "category": "EXPRESS", "title": "Order 42", "body": "is on its way",
                "clickAction": {"actionType": 0, "data": payload::text_keys(&fixture::message())},
                "notifyId": payload::number_of(id), "appMessageId": id, "badge": {"setNum": 3},
            }},
            "pushOptions": {"ttl": 3600, "biTag": id},
        })
    );
    assert_eq!(
        body["payload"]["notification"]["clickAction"]["data"]["hy_id"],
        id
    );
}

#[test]
fn golden_background_message() {
    let (push_type, body) = encoded(&fixture::data_only()).unwrap();
    assert_eq!(push_type, "6");
    let extra: Value =
        serde_json::from_str(body["payload"]["extraData"].as_str().unwrap()).unwrap();
    assert_eq!(extra["hy_data"], "{\"order\":42}");
}

#[test]
fn scenes_are_chosen_by_the_sender() {
    let live = json!({"push_type": 7, "payload": {"activityId": 1, "operation": 1}, "target": {"token": ["x"]}});
    let (push_type, body) = encoded(&fixture::with_vendor(NAME, &live)).unwrap();
    assert_eq!(push_type, "7");
    assert_eq!(body["payload"], json!({"activityId": 1, "operation": 1}));
    assert!(encoded(&fixture::with_vendor(NAME, &json!({"push_type": 5}))).is_err());
    let (_, body) = encoded(&fixture::with_vendor(NAME, &json!({"push_type": "2"}))).unwrap();
    assert_eq!(body["payload"]["notification"]["category"], "PLAY_VOICE");
}

#[test]
fn marketing_is_never_upgraded_by_the_sender() {
    let extra = json!({"payload": {"notification": {"category": "IM"}}});
    let mut outbound = fixture::with_vendor(NAME, &extra);
    let mut message = (*outbound.message).clone();
    message.class = Class::Marketing;
    outbound.message = Arc::new(message);
    let (_, body) = encoded(&outbound).unwrap();
    assert_eq!(body["payload"]["notification"]["category"], "MARKETING");
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
fn the_key_file_is_read_as_downloaded_or_wrapped() {
    let vendor = Harmony::new(&fixture::egress());
    let shown = vendor.check_config(&config()).unwrap();
    assert_eq!(
        Value::Object(shown),
        json!({"project_id": "7", "client_id": "1001"})
    );
    let mut whole = config();
    for name in [
        "auth_uri",
        "token_uri",
        "auth_provider_cert_uri",
        "client_cert_uri",
    ] {
        whole[name] = "https://login.example/x".into();
    }
    assert!(vendor.check_config(&whole).is_ok(), "as downloaded");
    let mut wrapped = json!({"service_account": whole});
    assert!(vendor.check_config(&wrapped).is_ok());
    wrapped["receipt_usr"] = "u".into();
    let faults = vendor.check_config(&wrapped).unwrap_err();
    assert_eq!(fixture::paths(&faults), ["receipt_usr"]);
    let faults = vendor
        .check_config(&json!({"client_id": "a/b"}))
        .unwrap_err();
    assert_eq!(
        fixture::paths(&faults),
        [
            "client_id",
            "project_id",
            "key_id",
            "sub_account",
            "private_key"
        ]
    );
}

fn encoded_as(change: Value, outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
    let mut config = config();
    let fields = change.as_object().unwrap().clone();
    config.as_object_mut().unwrap().extend(fields);
    encode(&Config::read(&config).unwrap(), outbound)
}

#[test]
fn what_is_not_granted_is_told_or_refused() {
    let outbound = fixture::outbound();
    let few = encoded_as(json!({"granted": ["im"]}), &outbound)
        .ok()
        .unwrap();
    assert_eq!(few.body["payload"]["notification"]["category"], "MARKETING");
    assert!(few.downgraded.unwrap().contains("transaction.order"));
    let strict = json!({"granted": [], "strict_classes": true});
    assert_eq!(
        encoded_as(strict, &outbound).err().unwrap().0,
        Reason::ClassNotGranted
    );
    let silent = encoded_as(json!({"granted": []}), &fixture::data_only())
        .ok()
        .unwrap();
    assert_eq!(
        silent.downgraded, None,
        "a background message has no category"
    );
}

#[test]
fn marketing_is_no_call() {
    for push_type in [2, 10] {
        let outbound = fixture::with_vendor(NAME, &json!({"push_type": push_type}));
        assert!(encoded_as(json!({}), &outbound).is_ok());
        let refused = encoded_as(json!({"granted": []}), &outbound).err().unwrap();
        assert_eq!(refused.0, Reason::PayloadRejected);
        let allowed = json!({"granted": [], "class_override": true});
        assert!(encoded_as(allowed, &outbound).is_ok());
    }
}

#[test]
fn receipts_always_name_our_message() {
    let extra = json!({"pushOptions": {"biTag": "x", "ttl": 60}});
    let (_, body) = encoded(&fixture::with_vendor(NAME, &extra)).unwrap();
    let id = "018f0000-0000-7000-8000-000000000001";
    assert_eq!(body["pushOptions"], json!({"biTag": id, "ttl": 60}));
    let (_, body) = encoded(&fixture::with_vendor(NAME, &json!({"pushOptions": null}))).unwrap();
    assert_eq!(body["pushOptions"], json!({"biTag": id}));
}

#[test]
fn a_typing_error_beside_the_key_file_is_told() {
    let vendor = Harmony::new(&fixture::egress());
    let mut file = config();
    file["auth_uri"] = "https://a.example".into();
    assert!(vendor.check_config(&file).is_ok(), "the file has its own");
    let wrapped = json!({"service_account": file, "client_id": "1001"});
    assert!(vendor.check_config(&wrapped).is_ok());
    let typo = json!({"service_account": file, "recept_id": "R"});
    let faults = vendor.check_config(&typo).unwrap_err();
    assert_eq!(fixture::paths(&faults), ["recept_id"]);
}
