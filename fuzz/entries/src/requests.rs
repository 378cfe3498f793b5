//! What comes in requests, and what operators hand in.

use std::sync::Arc;

use hongyan_channels::egress::{Egress, Options, Origin};
use hongyan_channels::vendor;
use hongyan_core::port::{Clock, Vendor};
use hongyan_core::{AppId, CredentialName, DeviceId, MessageId, Timestamp, Topic, UserId};

use crate::{Entry, texts};

/// Keys and device tokens.
pub(crate) const KEYS: Entry = Entry {
    name: "keys",
    run: |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes)
            && hongyan_api::key::kind_of(text).is_some()
        {
            assert!(text.is_ascii(), "a key is plain text");
            let _ = hongyan_api::key::hash(text);
        }
    },
    seeds: || {
        let random = "0123456789abcdefghijABCDEFGHIJ0123456789abc";
        let key = |kind: &str| format!("hy_{kind}_{random}").into_bytes();
        ["admin", "sk", "pk", "dt"].map(key).to_vec()
    },
};

/// Ids in paths and bodies: what is an id stays it.
pub(crate) const IDS: Entry = Entry {
    name: "ids",
    run: |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Ok(app) = AppId::parse(text) {
            assert_eq!(app.as_str(), text);
        }
        if let Ok(user) = UserId::parse(text) {
            assert!(!user.as_str().contains('\0'), "keys are built from ids");
        }
        if let Ok(device) = DeviceId::parse(text) {
            assert!(device.as_str().is_ascii());
        }
        if let Ok(topic) = Topic::parse(text) {
            assert!(topic.as_str().len() <= Topic::BYTES_MAX);
        }
        let _ = CredentialName::parse(text);
        if let Ok(id) = MessageId::parse(text) {
            assert_eq!(MessageId::parse(&id.to_string()), Ok(id));
        }
    },
    seeds: || {
        texts(&[
            "demo",
            "张三@example",
            "d-1.2:3",
            "news/today",
            "01890a5d-ac96-774b-bcce-b302099a8057",
        ])
    },
};

#[derive(Debug)]
struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp(1_790_000_000_000)
    }
}

pub(crate) fn vendors() -> Vec<Arc<dyn Vendor>> {
    Egress::new(&Options::default(), Arc::new(Fixed))
        .map(|egress| vendor::all(&egress))
        .unwrap_or_default()
}

/// Vendor credentials, keys and certificates included: what is shown never holds a secret field.
pub(crate) const CREDENTIALS: Entry = Entry {
    name: "credentials",
    run: |bytes| {
        thread_local!(static VENDORS: Vec<Arc<dyn Vendor>> = vendors());
        let Ok(config) = serde_json::from_slice::<serde_json::Value>(bytes) else {
            return;
        };
        VENDORS.with(|vendors| {
            for vendor in vendors {
                if let Ok(shown) = vendor.check_config(&config) {
                    for secret in ["private_key", "key", "app_secret", "client_secret", "p8"] {
                        assert!(
                            !shown.contains_key(secret),
                            "{} shows {secret}",
                            vendor.id()
                        );
                    }
                }
            }
        });
    },
    seeds: || {
        texts(&[
            r#"{"team_id":"ABCDE12345","key_id":"ABC123DEFG","key":"-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----","bundle_id":"com.example"}"#,
            r#"{"type":"service_account","project_id":"p","private_key_id":"x","private_key":"-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n","client_email":"a@p.iam.gserviceaccount.com","token_uri":"https://oauth2.googleapis.com/token"}"#,
            r#"{"app_id":"1","app_secret":"s","package":"com.example","client_id":"1","client_secret":"s","project_id":"1"}"#,
        ])
    },
};

/// Addresses that are given to us to call.
pub(crate) const ADDRESSES: Entry = Entry {
    name: "addresses",
    run: |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes)
            && let Ok((origin, path)) = Origin::split(text)
        {
            assert!(path.starts_with('/'), "{path:?}");
            assert!(!origin.host().is_empty(), "a host is named");
            assert!(
                !origin.host().contains(['@', '/', ' ']),
                "{:?}",
                origin.host()
            );
        }
    },
    seeds: || {
        texts(&[
            "https://api.push.apple.com",
            "https://[::1]:7501/a/b?c=d",
            "https://user@host:443/",
            "https://127.0.0.1:99999/",
        ])
    },
};

/// Bodies of `POST /v1/messages`. What is taken must pass the checks without a panic.
pub(crate) const MESSAGES: Entry = Entry {
    name: "messages",
    run: |bytes| {
        if let Ok(draft) = hongyan_api::read_message(bytes) {
            let _ = draft.check(hongyan_core::Timestamp(1_772_366_400_000));
        }
    },
    seeds: || {
        [
            r#"{"to":{"user":"u1"},"class":"im","notification":{"title":"a","body":"b","click":{"url":"app://x"}}}"#,
            r#"{"to":{"devices":["a","b"]},"data":{"x":[1,{"y":null}]},"options":{"ttl":60,"collapse_key":"k","delivery":"both"}}"#,
            r#"{"to":{"all":true},"notification":{"body":"b"},"options":{"send_at":"2026-01-01T09:00:00+08:00","vendor":{"apns":{"a":1}}}}"#,
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
};

/// Bodies of `POST /v1/devices`.
pub(crate) const REGISTRATIONS: Entry = Entry {
    name: "registrations",
    run: |bytes| {
        let _ = hongyan_api::read_registration(bytes);
    },
    seeds: || {
        [
            r#"{"device_id":"d","platform":"ios","brand":"apple","permission":"granted","tags":["a"]}"#,
            r#"{"platform":"android","tokens":[{"channel":"fcm","token":"t"}]}"#,
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
};

/// Answers of vendors: the first byte chooses the channel, the next two the status, the rest is the body.
pub(crate) const ANSWERS: Entry = Entry {
    name: "answers",
    run: |bytes| {
        let [which, high, low, body @ ..] = bytes else {
            return;
        };
        let channels = [
            "apns", "fcm", "huawei", "harmony", "xiaomi", "oppo", "vivo", "honor", "meizu",
            "webpush", "jpush", "getui", "umeng", "tpns", "aliyun", "sms",
        ];
        let answer = hongyan_channels::http::Answer {
            status: 100 + u16::from_be_bytes([*high, *low]) % 500,
            headers: http::HeaderMap::new(),
            body: body.to_vec().into(),
        };
        let now = hongyan_core::Timestamp(1_772_366_400_000);
        let channel = channels[usize::from(*which) % channels.len()];
        let verdict = hongyan_channels::vendor::judge(channel, &answer, now);
        assert!(verdict.is_some(), "{channel} has a word for every answer");
    },
    seeds: || {
        [
            (0u8, 310u16, r#"{"reason":"Unregistered","timestamp":1767229200123}"#),
            (1, 304, r#"{"error":{"code":404,"status":"NOT_FOUND","details":[{"errorCode":"UNREGISTERED"}]}}"#),
            (2, 100, r#"{"code":"80100000","msg":"{\"success\":1,\"failure\":1,\"illegal_tokens\":[\"t\"]}","requestId":"r"}"#),
            (9, 310, r#"{"code":410,"errno":106,"message":"Invalid subscription"}"#),
            (4, 100, r#"{"result":"error","code":20301,"reason":"No valid targets!"}"#),
        ]
        .map(|(which, status, body)| {
            let mut seed = vec![which];
            seed.extend_from_slice(&status.to_be_bytes());
            seed.extend_from_slice(body.as_bytes());
            seed
        })
        .to_vec()
    },
};

/// What a vendor's server says on a connection, over HTTP/1.1 and HTTP/2.
pub(crate) const SERVERS: Entry = Entry {
    name: "servers",
    run: |bytes| {
        if let [cut, rest @ ..] = bytes {
            hongyan_channels::http::swallow(rest, usize::from(*cut));
        }
    },
    seeds: || {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let ok = [0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88];
        let data = [0, 0, 2, 0, 1, 0, 0, 0, 3, b'o', b'k'];
        let away = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        vec![
            [&[5][..], &settings, &ok, &data, &away].concat(),
            b"\x09HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec(),
            b"\x30HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
                .to_vec(),
        ]
    },
};
