use hongyan_core::{AppId, CredentialName};

use super::*;
use crate::vendor::fixture;

fn config() -> Value {
    json!({"access_key_id": "testid", "access_key_secret": "testsecret", "app_key": "23267207"})
}

fn open(config: &Value) -> Arc<dyn Channel> {
    Aliyun::new(&fixture::egress())
        .open(OpenCredential {
            app: AppId::parse("demo").unwrap(),
            name: CredentialName::parse("default").unwrap(),
            config: Secret::new(config.to_string()),
            endpoint: None,
            callback: None,
        })
        .unwrap()
}

#[test]
fn the_golden_push() {
    let parcel = open(&config()).preview(&fixture::outbound()).unwrap();
    assert_eq!(
        parcel.body,
        json!({
            "AppKey": "23267207", "Target": "DEVICE", "DeviceType": "ALL", "PushType": "NOTICE",
            "Title": "Order 42", "Body": "is on its way", "Trim": "true", "StoreOffline": "true",
            "JobKey": "018f0000-0000-7000-8000-000000000001", "ExpireTime": "2026-01-01T02:00:00Z",
            "AndroidExtParameters": parcel.body["AndroidExtParameters"],
            "AndroidNotifyType": "BOTH", "AndroidOpenType": "APPLICATION",
            "AndroidNotificationNotifyId": payload::number_of("018f0000-0000-7000-8000-000000000001").to_string(),
            "AndroidNotificationGroup": "orders", "AndroidBadgeSetNum": "3",
            "AndroidMessageHuaweiCategory": "EXPRESS", "AndroidNotificationHuaweiChannel": "NORMAL",
            "AndroidNotificationHonorChannel": "NORMAL", "AndroidMessageOppoCategory": "ORDER",
            "AndroidMessageOppoNotifyLevel": "2", "AndroidMessageVivoCategory": "ORDER",
            "AndroidNotificationVivoChannel": "1", "AndroidMeizuNoticeMsgType": "1",
        })
    );
    let extras: Value =
        serde_json::from_str(parcel.body["AndroidExtParameters"].as_str().unwrap()).unwrap();
    assert_eq!(extras["hy_data"], "{\"order\":42}");
}

#[test]
fn platforms_and_classes_have_their_own_fields() {
    let with = |name: &str, value: Value| {
        let mut config = config();
        config[name] = value;
        config
    };
    let ios = open(&with("platform", "ios".into()))
        .preview(&fixture::outbound())
        .unwrap();
    assert_eq!(ios.body["iOSInterruptionLevel"], "active");
    assert_eq!(ios.body["iOSApnsEnv"], "PRODUCT");
    assert!(ios.body.get("AndroidMessageHuaweiCategory").is_none());
    let harmony = open(&with("platform", "harmony".into()))
        .preview(&fixture::outbound())
        .unwrap();
    assert_eq!(harmony.body["HarmonyCategory"], "EXPRESS");
    let lowered = open(&with("granted", json!(["im"])))
        .preview(&fixture::outbound())
        .unwrap();
    assert!(lowered.downgraded.is_some());
    assert_eq!(lowered.body["AndroidMessageOppoCategory"], "MARKETING");
    let data = open(&config()).preview(&fixture::data_only()).unwrap();
    assert_eq!(data.body["PushType"], "MESSAGE");
    let channel = open(&with("xiaomi_channels", json!({"transaction": "100002"})));
    let parcel = channel.preview(&fixture::outbound()).unwrap();
    assert_eq!(parcel.body["AndroidNotificationXiaomiChannel"], "100002");
}

#[test]
fn long_words_are_cut_and_marketing_keeps_its_marks() {
    let mut message = fixture::message();
    message.notification.as_mut().unwrap().body = "字".repeat(1000);
    let parcel = open(&config()).preview(&fixture::of(message)).unwrap();
    assert_eq!(parcel.truncated[0].from, 3000);
    let sum: usize = ["Title", "Body", "AndroidExtParameters"]
        .iter()
        .map(|name| parcel.body[*name].as_str().unwrap().len())
        .sum();
    assert!((1795..=1800).contains(&sum), "{sum}");
    let fields =
        json!({"AndroidMessageHuaweiCategory": "IM", "TargetValue": "x", "AndroidMusic": "goose"});
    let mut outbound = fixture::with_vendor("aliyun", &fields);
    let parcel = open(&config()).preview(&outbound).unwrap();
    assert_eq!(parcel.body["AndroidMessageHuaweiCategory"], "IM");
    assert_eq!(parcel.body["AndroidMusic"], "goose");
    assert!(parcel.body.get("TargetValue").is_none());
    let mut marketing = (*outbound.message).clone();
    marketing.class = Class::Marketing;
    outbound.message = Arc::new(marketing);
    let parcel = open(&config()).preview(&outbound).unwrap();
    assert_eq!(parcel.body["AndroidMessageHuaweiCategory"], "MARKETING");
}

/// OPPO counts a message with a private template as one of the class that the template was granted for.
#[test]
fn marketing_gets_no_private_template_of_oppo() {
    const PRIVATE: [&str; 3] = [
        "AndroidOppoPrivateMsgTemplateId",
        "AndroidOppoPrivateTitleParameters",
        "AndroidOppoPrivateContentParameters",
    ];
    let mut fields = json!({"AndroidMusic": "goose"});
    for name in PRIVATE {
        fields[name] = "{}".into();
    }
    let of_class = |config: &Value, class: Class| {
        let mut outbound = fixture::with_vendor("aliyun", &fields);
        let mut message = (*outbound.message).clone();
        message.class = class;
        outbound.message = Arc::new(message);
        open(config).preview(&outbound).unwrap().body
    };
    let marketing = of_class(&config(), Class::Marketing);
    let service = of_class(&config(), Class::Transaction);
    let mut free = config();
    free["class_override"] = true.into();
    let overridden = of_class(&free, Class::Marketing);
    for name in PRIVATE {
        assert!(marketing.get(name).is_none(), "{name}");
        assert!(service.get(name).is_some(), "{name}");
        assert!(overridden.get(name).is_some(), "{name}");
    }
    assert_eq!(marketing["AndroidMusic"], "goose");
}

#[test]
fn every_code_has_its_verdict() {
    let check = |status: u16, code: &str, want: &str| {
        let body = json!({"RequestId": "r", "Code": code, "Message": "m"}).to_string();
        let got = decode(&fixture::answer(status, &body), fixture::NOW);
        assert_eq!(fixture::words(&got), want, "{status} {code}");
    };
    check(404, "InvalidProduct.NotFound", "credential_bad");
    check(404, "InvalidAccessKeyId.NotFound", "credential_bad");
    check(403, "InvalidSecurityToken.Expired", "credential_bad");
    check(400, "SignatureDoesNotMatch", "credential_bad");
    check(403, "Forbidden.RAM", "credential_bad");
    check(400, "InvalidTimeStamp.Expired", "credential_bad");
    check(400, "MissingAppKey", "refused payload_rejected");
    check(400, "InvalidParameter", "refused payload_rejected");
    check(
        400,
        "Throttling.User",
        "retry vendor_rate_limited not_taken",
    );
    check(500, "InternalError", "retry vendor_unavailable not_taken");
    check(
        503,
        "ServiceUnavailable",
        "retry vendor_unavailable not_taken",
    );
    check(500, "SomethingNew", "retry vendor_unavailable not_taken");
    let verdict = decode(
        &fixture::answer(200, "{\"MessageId\":\"501029\"}"),
        fixture::NOW,
    );
    assert_eq!(verdict, accepted(Some("501029")));
    let verdict = decode(&fixture::answer(200, "<html>"), fixture::NOW);
    assert_eq!(
        fixture::words(&verdict),
        "retry vendor_unavailable maybe_taken"
    );
}

#[test]
fn faults_are_told_with_their_paths() {
    let faults = |config: &Value| {
        let faults = Aliyun::new(&fixture::egress())
            .check_config(config)
            .unwrap_err();
        fixture::paths(&faults)
            .iter()
            .map(|p| (*p).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        faults(&json!({})),
        ["access_key_id", "access_key_secret", "app_key"]
    );
    assert_eq!(
        faults(
            &json!({"access_key_id": "a", "access_key_secret": "b", "app_key": "x", "platform": "tv",
                       "environment": "x", "xiaomi_channels": {"news": "1"}, "typo": 1})
        ),
        [
            "app_key",
            "platform",
            "environment",
            "xiaomi_channels/news",
            "typo"
        ]
    );
}
