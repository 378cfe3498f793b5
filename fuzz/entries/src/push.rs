//! What senders and browsers say.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{Entry, texts};

/// The proof of a sender: `Authorization` and, in its old form, `Crypto-Key`.
pub(crate) const VAPID: Entry = Entry {
    name: "vapid",
    run: |bytes| {
        let mut lines = bytes.splitn(2, |b| *b == b'\n');
        let authorization = lines.next().unwrap_or_default();
        let proved = hongyan_api::judge_vapid(authorization, lines.next().unwrap_or_default());
        assert!(!proved, "nobody here has a key");
    },
    seeds: || {
        let token = "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZSIsImV4cCI6MTcwMDAwMDA2MH0.i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA";
        let key = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";
        vec![
            format!("vapid t={token}, k={key}").into_bytes(),
            format!("WebPush {token}\ndh=abc;p256ecdsa={key}").into_bytes(),
            format!("Bearer {token}\np256ecdsa=\"{key}=\"").into_bytes(),
        ]
    },
};

/// The other headers of a post: one in each line.
pub(crate) const PUSH_HEADERS: Entry = Entry {
    name: "push_headers",
    run: |bytes| {
        let mut headers = HeaderMap::new();
        for line in bytes.split(|b| *b == b'\n').take(64) {
            let mut parts = line.splitn(2, |b| *b == b':');
            let (name, value) = (parts.next(), parts.next());
            if let (Some(name), Some(value)) = (name, value)
                && let Ok(name) = HeaderName::from_bytes(name)
                && let Ok(value) = HeaderValue::from_bytes(value)
            {
                headers.append(name, value);
            }
        }
        let _ = hongyan_api::judge_headers(&headers, bytes.len());
    },
    seeds: || {
        texts(&[
            "ttl:60\nurgency:very-low\ntopic:news\ncontent-encoding:aes128gcm\nprefer:respond-async",
            "ttl:999999999999\ncontent-encoding:aesgcm\nencryption:keyid=a;salt=\"c2FsdA==\";rs=24\ncrypto-key:keyid=a;dh=abc,p256ecdsa=x",
        ])
    },
};

/// Notifications of Matrix homeservers.
pub(crate) const MATRIX_NOTIFICATIONS: Entry = Entry {
    name: "matrix_notifications",
    run: |bytes| {
        let _ = hongyan_api::judge_matrix(bytes);
    },
    seeds: || {
        texts(&[
            r#"{"notification":{"event_id":"$1","prio":"low","counts":{"unread":2},"devices":[{"app_id":"a","pushkey":"https://push.example/up/abc","data":{}}]}}"#,
        ])
    },
};

/// Messages of browsers.
pub(crate) const AUTOPUSH_MESSAGES: Entry = Entry {
    name: "autopush_messages",
    run: |bytes| {
        let _ = hongyan_gateway::protocol::autopush::judge(bytes);
    },
    seeds: || {
        texts(&[
            r#"{"messageType":"hello","use_webpush":true,"uaid":"0123456789abcdef0123456789abcdef","broadcasts":{"a/b":"v1"}}"#,
            r#"{"messageType":"register","channelID":"6f6b3d5e-0000-4000-8000-000000000001","key":"BA1H"}"#,
            r#"{"messageType":"unregister","channelID":"6f6b3d5e-0000-4000-8000-000000000001","code":200}"#,
            r#"{"messageType":"ack","updates":[{"channelID":"c","version":"01890a5d-ac96-774b-bcce-b302099a8057","code":101}]}"#,
            r#"{"messageType":"nack","version":"x","code":301}"#,
            "{}",
        ])
    },
};
