//! What no vendor file may do, whatever senders and vendors write.

use hongyan_core::port::OpenCredential;
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
        "honor" => json!({"app_id": "1", "client_id": "c", "client_secret": "s"}),
        "meizu" => json!({"app_id": "1", "app_secret": "s", "pass_through": true}),
        _ => json!({"app_secret": "s", "package": "p", "channels": {"marketing": "200001"}}),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_senders_own_fields_never_move_the_target_or_hide_the_message(fields in any_object()) {
        for vendor in all(&fixture::egress()) {
            let name = vendor.id().to_string();
            let channel = vendor
                .open(OpenCredential {
                    app: AppId::parse("demo").unwrap(),
                    name: CredentialName::parse("default").unwrap(),
                    config: Secret::new(config(&name).to_string()),
                    endpoint: None,
                    callback: None,
                })
                .unwrap();
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
                "xiaomi" => &["/registration_id", "/topic", "/alias", "/user_account"],
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
                super::honor::decode(&answer, fixture::NOW).rest,
                super::meizu::decode(&answer, fixture::NOW).rest,
            ] {
                prop_assert!(verdict.detail().len() <= hongyan_core::limits::DETAIL_BYTES_MAX);
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
