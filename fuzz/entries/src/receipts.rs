//! What vendors tell of themselves: posts to our address, and the session of a message centre.

use std::sync::Arc;

use hongyan_channels::vendor::sms;
use hongyan_core::port::{CallbackRequest, Channel, OpenCredential};
use hongyan_core::{AppId, CredentialName, Secret, Timestamp};
use serde_json::{Value, json};

use crate::Entry;
use crate::requests::vendors;

/// The channels that read posts, each with a credential that makes it do so.
fn credentials() -> Vec<(&'static str, Value)> {
    let sid = format!("AC{}", "0".repeat(32));
    vec![
        (
            "huawei",
            json!({"app_id": "1", "client_secret": "s", "receipt_user": "u", "receipt_key": "k"}),
        ),
        ("huawei", json!({"app_id": "1", "client_secret": "s"})),
        (
            "xiaomi",
            json!({"app_secret": "s", "package": "com.example", "channels": {"marketing": "1"}}),
        ),
        (
            "honor",
            json!({"app_id": "1", "client_id": "c", "client_secret": "s"}),
        ),
        ("oppo", json!({"app_key": "k", "master_secret": "s"})),
        (
            "vivo",
            json!({"app_id": "1", "app_key": "k", "app_secret": "s"}),
        ),
        (
            "meizu",
            json!({"app_id": "1", "app_secret": "s", "receipt_token": "t"}),
        ),
        (
            "jpush",
            json!({"app_key": "0".repeat(24), "master_secret": "0".repeat(24)}),
        ),
        (
            "getui",
            json!({"app_id": "a", "app_key": "k", "master_secret": "s"}),
        ),
        ("umeng", json!({"app_key": "k", "master_secret": "s"})),
        (
            "sms",
            json!({"provider": "twilio", "account_sid": sid, "auth_token": "t", "from": "+15005550006"}),
        ),
        (
            "sms",
            json!({"provider": "tencent_sms", "secret_id": "i", "secret_key": "k", "sdk_app_id": "1400006666",
            "sign_name": "S", "templates": {"default": {"id": "1", "params": ["{body}"]}}}),
        ),
        (
            "sms",
            json!({"provider": "aliyun_sms", "access_key_id": "i", "access_key_secret": "k", "sign_name": "S",
            "templates": {"default": {"id": "SMS_1", "params": {"text": "{body}"}}}}),
        ),
    ]
}

/// Opens them all; one that cannot be opened is a fault of this list.
#[allow(clippy::panic, reason = "a fuzz target fails by panicking")]
fn channels() -> Vec<Arc<dyn Channel>> {
    let vendors = vendors();
    let open = |(name, config): (&str, Value)| {
        let vendor = vendors.iter().find(|vendor| vendor.id().as_str() == name)?;
        let credential = OpenCredential {
            app: AppId::parse("demo").ok()?,
            name: CredentialName::parse("default").ok()?,
            config: Secret::new(config.to_string()),
            endpoint: None,
            callback: Some("https://push.example/cb?k=s".to_owned()),
        };
        vendor.open(credential).ok()
    };
    credentials()
        .into_iter()
        .map(|(name, config)| {
            open((name, config)).unwrap_or_else(|| panic!("{name} does not open"))
        })
        .collect()
}

/// Posts of vendors: the first byte chooses the channel; then come, each to the end of its line, the query and a header's
/// value, and the rest is the body.
pub(crate) const CALLBACKS: Entry = Entry {
    name: "callbacks",
    run: |bytes| {
        thread_local!(static CHANNELS: Vec<Arc<dyn Channel>> = channels());
        let [which, rest @ ..] = bytes else {
            return;
        };
        let mut lines = rest.splitn(3, |byte| *byte == b'\n');
        let mut text = || String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
        let (query, value) = (text(), text());
        let body = lines.next().unwrap_or_default();
        // Wherever a vendor puts its proof, this is it.
        let names = [
            "authorization",
            "content-type",
            "x-huawei-callback-id",
            "x-twilio-signature",
            "x-signature",
            "sign",
        ];
        let headers = names.map(|name| (name.to_owned(), value.clone()));
        let request = CallbackRequest {
            method: "POST",
            url: &format!("https://push.example/cb?{query}"),
            headers: &headers,
            body,
            now: Timestamp(1_790_000_000_000),
        };
        CHANNELS.with(|channels| {
            let place = usize::from(*which) % channels.len().max(1);
            let heard = channels
                .get(place)
                .map(|channel| channel.callback(&request));
            assert!(
                matches!(heard, Some(Some(_))),
                "channel {place} reads posts"
            );
        });
    },
    seeds: || {
        let rows = [
            (
                0,
                "",
                "timestamp=1563105451261; nonce=a; value=E4Yekgd1NLxXh3SgUkf/+Fse9Ng=",
                r#"{"statuses":[{"biTag":"b","appid":"1","token":"t","status":0,"timestamp":1563105451261,"requestId":"r"}]}"#,
            ),
            (
                1,
                "",
                "",
                r#"{"statuses":[{"pushType":0,"token":"t","requestId":"r","deliveryStatus":{"result":0,"timestamp":1563105451261}}]}"#,
            ),
            (
                2,
                "k=s",
                "application/x-www-form-urlencoded",
                "data=%7B%22m1%22%3A%7B%22param%22%3A%22p%22%2C%22type%22%3A1%2C%22targets%22%3A%22a%2Cb%22%7D%7D",
            ),
            (
                3,
                "",
                "",
                r#"{"statuses":[{"biTag":"b1","appid":"1","token":"t","status":0,"timestamp":1700000000000,"requestId":"r"}]}"#,
            ),
            (
                4,
                "",
                "",
                r#"[{"messageId":"m","appId":"1","taskId":"t","registrationIds":"a,b","eventType":"push_arrive","eventTime":"2026-01-01"}]"#,
            ),
            (
                5,
                "",
                "",
                r#"{"m":{"param":"p","targets":"a,b","ackType":"0"}}"#,
            ),
            (
                6,
                "",
                "",
                "cb=%7B%22m%22%3A%7B%22param%22%3A%22p%22%2C%22type%22%3A1%2C%22targets%22%3A%5B%22a%22%5D%7D%7D&access_token=t",
            ),
            (
                7,
                "",
                "Basic AAAA",
                r#"[{"msg_id":"1","sent_time":1700000000,"rid":"r","params":{"a":"b"},"kafka_ack":1}]"#,
            ),
            (
                8,
                "",
                "",
                r#"{"sign":"00","appid":"a","msgid":"m","taskid":"t","cid":"c","desc":"ok","code":"200","recvtime":1700000000000,"actionid":"0"}"#,
            ),
            (
                9,
                "",
                "",
                r#"{"uu1":{"param":"p","type":1,"targets":"a,b","ts":1700000000000}}"#,
            ),
            (
                10,
                "hy=1",
                "c2ln",
                "MessageSid=SM1&MessageStatus=delivered&To=%2B8613800138000&ErrorCode=30003",
            ),
            (
                11,
                "",
                "",
                r#"[{"user_receive_time":"2026-01-01 08:00:00","nationcode":"86","mobile":"13800138000","report_status":"SUCCESS","errmsg":"DELIVRD","sid":"s"}]"#,
            ),
            (
                12,
                "",
                "",
                r#"[{"phone_number":"13800138000","success":true,"report_time":"2026-01-01 08:00:00","err_code":"DELIVERED","biz_id":"b","out_id":"o"}]"#,
            ),
        ];
        rows.map(|(which, query, value, body): (u8, _, _, _)| {
            let mut seed = vec![which];
            seed.extend_from_slice(format!("{query}\n{value}\n{body}").as_bytes());
            seed
        })
        .to_vec()
    },
};

/// What a message centre says over a bound session.
pub(crate) const SMPP: Entry = Entry {
    name: "smpp",
    run: |bytes| {
        let (heard, receipts) = sms::hear_smpp(bytes);
        assert!(heard <= bytes.len() / 16, "a PDU has a header");
        assert!(receipts.len() <= heard, "a PDU has one receipt at most");
    },
    seeds: || {
        // A bind's answer, a submission's, and a question whether we are there.
        let answers = [
            (0x8000_0009_u32, &b"SMSC\0"[..]),
            (0x8000_0004, b"1a2b\0"),
            (0x15, b""),
        ];
        let mut session = Vec::new();
        for (id, body) in answers {
            session.extend(pdu(id, body));
        }
        vec![
            session,
            pdu(5, DELIVERED),
            [pdu(5, DELIVERED), pdu(5, DELIVERED)].concat(),
        ]
    },
};

/// The body of a `deliver_sm` with a receipt, its id as a TLV too.
const DELIVERED: &[u8] = b"\0\x01\x018613800138000\0\x05\0ACME\0\x04\0\0\0\0\0\0\0\0\x64\
    id:26 sub:001 dlvrd:001 submit date:2401020304 done date:2401020305 stat:DELIVRD err:000 text:Hello    \
    \0\x1e\0\x0300\0\x04\x27\0\x01\x02";

fn pdu(id: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap_or_default();
    let mut pdu = Vec::new();
    for word in [length, id, 0, 7] {
        pdu.extend(word.to_be_bytes());
    }
    pdu.extend(body);
    pdu
}
