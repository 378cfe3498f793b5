use hongyan_core::{AppId, CredentialName};

use super::*;
use crate::vendor::fixture;

fn config() -> Value {
    json!({"access_id": "1500001048", "secret_key": "1452fcebae9f3115ba794fb0fff2fd73"})
}

fn open(config: &Value) -> Arc<dyn Channel> {
    Tpns::new(&fixture::egress())
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
fn only_android_replaces_a_push_by_its_repeat() {
    assert_eq!(open(&config()).repeats(), Some(true));
    let mut ios = config();
    ios["platform"] = "ios".into();
    assert_eq!(open(&ios).repeats(), Some(false));
}

#[test]
fn the_signature_is_the_worked_example() {
    let body = r#"{"audience_type": "account","platform": "android","message": {"title": "test title","content": "test content","android": { "action": {"action_type": 3,"intent": "xgscheme://com.xg.push/notify_detail?param1=xg"}}},"message_type": "notify","account_list": ["5822f0eee44c3625ef0000bb"] }"#;
    assert_eq!(
        sign(
            "1452fcebae9f3115ba794fb0fff2fd73",
            "1565314789",
            "1500001048",
            body.as_bytes()
        ),
        "Y2QyMDc3NDY4MmJmNzhiZmRiNDNlMTdkMWQ1ZDU2YjNlNWI3ODlhMTY3MGZjMTUyN2VmNTRjNjVkMmQ3Yjc2ZA=="
    );
}

#[test]
fn the_golden_push() {
    let parcel = open(&config()).preview(&fixture::outbound()).unwrap();
    let id = "018f0000-0000-7000-8000-000000000001";
    assert_eq!(
        parcel.body,
        json!({
            "audience_type": "token_list", "message_type": "notify", "environment": "product",
            "expire_time": 3600, "trace_id": id,
            "message": {
                "title": "Order 42", "content": "is on its way", "thread_id": "orders",
                "android": {
                    "n_id": payload::number_of(id), "ring": 1, "vibrate": 1, "action": {"action_type": 1},
                    "badge_type": 3, "hw_importance": 2, "hw_category": "EXPRESS", "vivo_ch_id": "1",
                    "custom_content": parcel.body["message"]["android"]["custom_content"],
                },
            },
        })
    );
    let mut ios = config();
    ios["platform"] = "ios".into();
    ios["environment"] = "development".into();
    let parcel = open(&ios).preview(&fixture::data_only()).unwrap();
    assert_eq!(parcel.body["message_type"], "message");
    assert_eq!(parcel.body["environment"], "dev");
    assert_eq!(parcel.body["message"]["ios"]["aps"]["content-available"], 1);
}

#[test]
fn a_high_badge_is_the_highest_of_an_android_device() {
    let mut ios = config();
    ios["platform"] = "ios".into();
    for (badge, android) in [(0, 0), (99, 99), (100, 99), (u32::MAX, 99)] {
        let mut outbound = fixture::outbound();
        outbound.badge = Some(badge);
        let parcel = open(&config()).preview(&outbound).unwrap();
        assert_eq!(parcel.body["message"]["android"]["badge_type"], android);
        let parcel = open(&ios).preview(&outbound).unwrap();
        assert_eq!(parcel.body["message"]["ios"]["aps"]["badge_type"], badge);
    }
}

#[test]
fn an_iphone_makes_no_sound_for_marketing_unless_asked() {
    let mut ios = config();
    ios["platform"] = "ios".into();
    for (class, named, want) in [
        (Class::Im, None, json!("default")),
        (Class::Marketing, None, json!(null)),
        (Class::Marketing, Some("ding.caf"), json!("ding.caf")),
    ] {
        let mut message = fixture::message();
        message.class = class;
        message.notification.as_mut().unwrap().sound = named.map(str::to_owned);
        let parcel = open(&ios).preview(&fixture::of(message)).unwrap();
        let aps = &parcel.body["message"]["ios"]["aps"];
        assert_eq!(aps["sound"], want, "{class:?} {named:?}");
    }
    // What is sent as marketing is as quiet as marketing.
    ios["granted"] = json!([]);
    let parcel = open(&ios).preview(&fixture::outbound()).unwrap();
    assert_eq!(
        parcel.body["message"]["ios"]["aps"].get("sound"),
        None,
        "{:?}",
        parcel.downgraded
    );
}

#[test]
fn classes_choose_the_makers_channels() {
    let mut config = config();
    config["channels"] = json!({"marketing": {"xm_ch_id": "200001"}, "transaction": {"xm_ch_id": "100002", "oppo_ch_id": "o"}});
    let parcel = open(&config).preview(&fixture::outbound()).unwrap();
    assert_eq!(parcel.body["message"]["android"]["xm_ch_id"], "100002");
    let fields = json!({"message": {"android": {"xm_ch_id": "1", "ring": 0}}, "token_list": ["x"], "plan_id": "p"});
    let mut outbound = fixture::with_vendor("tpns", &fields);
    let mut marketing = (*outbound.message).clone();
    marketing.class = Class::Marketing;
    outbound.message = Arc::new(marketing);
    let parcel = open(&config).preview(&outbound).unwrap();
    let android = &parcel.body["message"]["android"];
    assert_eq!(
        (&android["xm_ch_id"], &android["hw_importance"]),
        (&json!("200001"), &json!(1))
    );
    assert_eq!(
        (&android["ring"], &parcel.body["plan_id"]),
        (&json!(0), &json!("p"))
    );
    assert!(parcel.body.get("token_list").is_none());
    config["granted"] = json!([]);
    let parcel = open(&config).preview(&fixture::outbound()).unwrap();
    assert!(parcel.downgraded.is_some());
    assert_eq!(parcel.body["message"]["android"]["xm_ch_id"], "200001");
}

#[test]
fn answers_are_read_in_all_their_shapes() {
    let check = |status: u16, body: &str, want: &str| {
        let got = decode(&fixture::answer(status, body), fixture::NOW);
        assert_eq!(fixture::words(&got), want, "{status} {body}");
    };
    for (code, want) in [
        (1_008_001, "refused payload_rejected"),
        (1_008_003, "credential_bad"),
        (1_008_004, "retry vendor_unavailable not_taken"),
        (1_008_006, "token_dead token_invalid"),
        (1_008_007, "refused payload_rejected"),
        (1_008_019, "refused payload_rejected"),
        (1_008_023, "credential_bad"),
        (1_008_028, "retry vendor_rate_limited 1s not_taken"),
        (1_008_029, "token_dead token_invalid"),
        (1_008_031, "credential_bad"),
        (10_110_008, "token_dead token_invalid"),
        (10_010_005, "retry vendor_unavailable not_taken"),
        (10_010_031, "retry vendor_unavailable not_taken"),
        (10100, "retry vendor_unavailable not_taken"),
        (10104, "credential_bad"),
        (10117, "refused payload_too_large"),
    ] {
        check(
            200,
            &json!({"ret_code": code, "err_msg": "m"}).to_string(),
            want,
        );
    }
    check(403, "", "credential_bad");
    check(200, "{\"seq\":0,", "retry vendor_unavailable maybe_taken");
    check(502, "<html>", "retry vendor_unavailable not_taken");
    for (push_id, want) in [
        (json!("1329"), "1329"),
        (json!(["1329", "2"]), "1329"),
        (json!(7), "7"),
    ] {
        let body =
            json!({"ret_code": 0, "push_id": push_id, "invalid_targe_list": ["dead"]}).to_string();
        let got = read(&fixture::answer(200, &body), fixture::NOW);
        assert_eq!(got.rest, accepted(Some(want)));
        assert_eq!(
            fixture::words(&got.named["dead"]),
            "token_dead token_invalid"
        );
    }
}

#[test]
fn faults_are_told_with_their_paths() {
    let faults = |config: &Value| {
        let faults = Tpns::new(&fixture::egress())
            .check_config(config)
            .unwrap_err();
        fixture::paths(&faults)
            .iter()
            .map(|p| (*p).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(faults(&json!({})), ["access_id", "secret_key"]);
    assert_eq!(
        faults(
            &json!({"access_id": "1", "secret_key": "s", "region": "mars", "platform": "tv", "auth": "x",
                       "channels": {"news": {}, "im": {"typo": 1}}})
        ),
        [
            "region",
            "platform",
            "auth",
            "channels/im/typo",
            "channels/news"
        ]
    );
}
