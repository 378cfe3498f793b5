//! What no vendor file may do, whatever senders and vendors write.

use std::sync::Arc;

use hongyan_core::port::{CallbackRequest, Channel, OpenCredential, Vendor};
use hongyan_core::{AppId, CredentialName, Secret};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{all, fixture};
use crate::http::Answer;

/// JSON of some depth whose keys are often ones that vendors know.
fn any_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("message".to_owned()),
        Just("android".to_owned()),
        Just("notification".to_owned()),
        Just("data".to_owned()),
        Just("payload".to_owned()),
        Just("extra".to_owned()),
        Just("aps".to_owned()),
        Just("alert".to_owned()),
        Just("token".to_owned()),
        Just("target".to_owned()),
        Just("topic".to_owned()),
        Just("registration_id".to_owned()),
        Just("hy_id".to_owned()),
        Just("clickAction".to_owned()),
        Just("code".to_owned()),
        Just("error".to_owned()),
        Just("details".to_owned()),
        Just("msg".to_owned()),
        "[a-z_]{0,8}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..5)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn any_object() -> impl Strategy<Value = Map<String, Value>> {
    any_json().prop_filter_map("an object", |v| v.as_object().cloned())
}

fn config(name: &str) -> Value {
    let rsa = fixture::RSA_PEM;
    match name {
        "apns" => {
            json!({"key_id": "ABCDE12345", "team_id": "TEAM567890", "bundle_id": "b", "private_key": fixture::ec_pem()})
        }
        "fcm" => json!({"project_id": "p", "client_email": "e", "private_key": rsa}),
        "huawei" => json!({"app_id": "1", "client_secret": "s"}),
        "harmony" => {
            json!({"project_id": "7", "key_id": "k", "sub_account": "s", "private_key": rsa})
        }
        "oppo" => json!({"app_key": "k", "master_secret": "s"}),
        "vivo" => json!({"app_id": 1, "app_key": "k", "app_secret": "s"}),
        "honor" => json!({"app_id": "1", "client_id": "c", "client_secret": "s"}),
        "meizu" => json!({"app_id": "1", "app_secret": "s", "pass_through": true}),
        "webpush" => {
            json!({"private_key": fixture::ec_pem(), "subject": "mailto:a@b"})
        }
        "jpush" => json!({"app_key": "k", "master_secret": "s", "vip": true}),
        "getui" => json!({"app_id": "a", "app_key": "k", "master_secret": "s"}),
        "umeng" => json!({"app_key": "k", "master_secret": "s"}),
        "tpns" => json!({"access_id": "1", "secret_key": "s"}),
        "aliyun" => {
            json!({"access_key_id": "i", "access_key_secret": "s", "app_key": "1"})
        }
        "sms" => {
            json!({"provider": "aliyun_sms", "access_key_id": "i", "access_key_secret": "s", "sign_name": "n",
                        "templates": {"default": {"id": "SMS_1", "params": {"text": "{body}"}}}})
        }
        _ => json!({"app_secret": "s", "package": "p", "channels": {"marketing": "200001"}}),
    }
}

fn open(vendor: &Arc<dyn Vendor>) -> Arc<dyn Channel> {
    vendor
        .open(OpenCredential {
            app: AppId::parse("demo").unwrap(),
            name: CredentialName::parse("default").unwrap(),
            config: Secret::new(config(vendor.id().as_str()).to_string()),
            endpoint: None,
            callback: None,
        })
        .unwrap()
}

/// What vendors post: an event, or several of them in a list or by name.
fn any_callback() -> impl Strategy<Value = Value> {
    let field = prop_oneof![
        Just("param"),
        Just("targets"),
        Just("ackTime"),
        Just("ackType"),
        Just("subErrorCode"),
        Just("registrationIds"),
        Just("eventType"),
        Just("eventTime"),
        Just("messageId"),
        Just("msgid"),
        Just("msg_id"),
        Just("device_token"),
        Just("callback_params"),
        Just("type"),
        Just("ts"),
        Just("sent_time"),
    ];
    let value = prop_oneof![
        "[a-z0-9, _]{0,24}".prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any_json(),
    ];
    let event = prop::collection::btree_map(field, value, 0..6).prop_map(|m| {
        m.into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect::<Map<_, _>>()
    });
    prop_oneof![
        any_json(),
        event.clone().prop_map(Value::Object),
        prop::collection::vec(event.clone(), 0..4)
            .prop_map(|e| e.into_iter().map(Value::Object).collect()),
        event.prop_map(|e| json!({"700000000000000001": e})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_senders_own_fields_never_move_the_target_or_hide_the_message(fields in any_object()) {
        for vendor in all(&fixture::egress()) {
            let name = vendor.id().to_string();
            let channel = open(&vendor);
            let outbound = fixture::with_vendor(&name, &Value::Object(fields.clone()));
            let Ok(parcel) = channel.preview(&outbound) else { continue };
            let id = outbound.message.id.to_string();
            prop_assert!(parcel.body.to_string().contains(&id), "{name}: {}", parcel.body);
            let targets: &[&str] = match name.as_str() {
                "fcm" => &["/message/token", "/message/fid", "/message/topic", "/message/condition"],
                "huawei" => &["/message/token", "/message/topic", "/message/condition"],
                "harmony" => &["/target"],
                "honor" => &["/token"],
                "meizu" => &["/pushIds", "/alias"],
                "tpns" => &["/token_list", "/account_list", "/tag_list", "/upload_id"],
                "aliyun" => &["/TargetValue"],
                "sms" => &["/PhoneNumbers", "/PhoneNumberJson"],
                "xiaomi" => &["/registration_id", "/topic", "/alias", "/user_account"],
                "oppo" => &["/target_value", "/notification/target_value", "/notification/registration_id"],
                "vivo" => &["/regId", "/alias", "/regIds", "/aliases", "/tagExpression"],
                "jpush" | "getui" => &["/audience"],
                "umeng" => &["/device_tokens", "/alias", "/file_id", "/filter"],
                _ => &[],
            };
            for target in targets {
                prop_assert!(parcel.body.pointer(target).is_none(), "{name}{target}: {}", parcel.body);
            }
        }
    }

    #[test]
    fn any_answer_has_a_verdict(status in 100u16..600, body in any_json(), noise in prop::collection::vec(any::<u8>(), 0..64)) {
        for body in [body.to_string().into_bytes(), noise] {
            let answer = Answer { status, headers: http::HeaderMap::new(), body: body.into() };
            for verdict in [
                super::apns::decode(&answer, fixture::NOW),
                super::fcm::decode(&answer, fixture::NOW),
                super::huawei::decode(&answer, fixture::NOW).rest,
                super::xiaomi::decode(&answer, fixture::NOW),
                super::oppo::decode(&answer, fixture::NOW, &[]).rest,
                super::vivo::decode(&answer, fixture::NOW, false).rest,
                super::honor::decode(&answer, fixture::NOW).rest,
                super::meizu::decode(&answer, fixture::NOW).rest,
                super::webpush::decode(&answer, fixture::NOW),
                super::jpush::decode(&answer, fixture::NOW),
                super::getui::decode(&answer, fixture::NOW).rest,
                super::umeng::decode(&answer, fixture::NOW),
                super::tpns::decode(&answer, fixture::NOW),
                super::aliyun::decode(&answer, fixture::NOW),
                super::sms::decode(&answer, fixture::NOW),
            ] {
                prop_assert!(verdict.detail().len() <= hongyan_core::limits::DETAIL_BYTES_MAX);
            }
        }
    }

    #[test]
    fn any_callback_is_read_or_refused(body in any_callback(), noise in prop::collection::vec(any::<u8>(), 0..64)) {
        for vendor in all(&fixture::egress()) {
            let channel = open(&vendor);
            for body in [body.to_string().into_bytes(), noise.clone()] {
                let request = CallbackRequest {
                    method: "POST",
                    url: "https://push.example/cb?k=1",
                    headers: &[],
                    body: &body,
                    now: fixture::NOW,
                };
                let Some(Ok(callback)) = channel.callback(&request) else { continue };
                prop_assert!(!callback.signed, "{} signed nothing", vendor.id());
                for receipt in callback.receipts {
                    prop_assert!(receipt.detail.len() <= hongyan_core::limits::DETAIL_BYTES_MAX);
                }
            }
        }
    }

    #[test]
    fn any_configuration_is_read_or_refused(config in any_json()) {
        for vendor in all(&fixture::egress()) {
            let _ = vendor.check_config(&config);
        }
    }
}
