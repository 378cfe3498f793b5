//! The push services of browsers: what they check, and what arrives in the browser.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hongyan_sandbox::{Channel, Fault, FaultKind, NewPhone, PatchPhone, TokenState};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use ring::{aead, agreement, hmac};
use serde_json::{Value, json};

use crate::stage::{Answer, Stage, now_s};

/// A subscription as a sender takes it apart.
struct Subscription {
    path: String,
    p256dh: Vec<u8>,
    auth: Vec<u8>,
}

impl Subscription {
    fn read(stage: &Stage, token: &str) -> Self {
        let value: Value = serde_json::from_str(token).unwrap();
        let endpoint = value["endpoint"].as_str().unwrap();
        let text = |name: &str| value["keys"][name].as_str().unwrap().to_owned();
        Self {
            path: endpoint
                .strip_prefix(&stage.handle.vendors_url())
                .unwrap()
                .to_owned(),
            p256dh: URL_SAFE_NO_PAD.decode(text("p256dh")).unwrap(),
            auth: URL_SAFE_NO_PAD.decode(text("auth")).unwrap(),
        }
    }

    /// RFC 8291, step by step.
    fn seal(&self, plaintext: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let curve = &agreement::ECDH_P256;
        let private = agreement::EphemeralPrivateKey::generate(curve, &random).unwrap();
        let public = private.compute_public_key().unwrap();
        let theirs = agreement::UnparsedPublicKey::new(curve, &self.p256dh);
        let secret = agreement::agree_ephemeral(private, &theirs, <[u8]>::to_vec).unwrap();
        let mac = |key: &[u8], data: &[u8]| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
                .as_ref()
                .to_vec()
        };
        let info = [
            b"WebPush: info\0",
            self.p256dh.as_slice(),
            public.as_ref(),
            &[1],
        ]
        .concat();
        let ikm = mac(&mac(&self.auth, &secret), &info);
        let salt = [7; 16];
        let prk = mac(&salt, &ikm);
        let cek = mac(&prk, b"Content-Encoding: aes128gcm\0\x01");
        let nonce = mac(&prk, b"Content-Encoding: nonce\0\x01");
        let key = aead::UnboundKey::new(&aead::AES_128_GCM, &cek[..16]).unwrap();
        let mut record = [plaintext, &[2, 0, 0]].concat();
        aead::LessSafeKey::new(key)
            .seal_in_place_append_tag(
                aead::Nonce::try_assume_unique_for_key(&nonce[..12]).unwrap(),
                aead::Aad::empty(),
                &mut record,
            )
            .unwrap();
        [&salt, &[0, 0, 16, 0, 65][..], public.as_ref(), &record].concat()
    }
}

/// What a sender says of itself; fields that are given stand in for the right ones.
fn vapid(stage: &Stage, claims: Value) -> String {
    let account = stage.handle.credential(Channel::Webpush).unwrap();
    let bytes = |name: &str| {
        URL_SAFE_NO_PAD
            .decode(account[name].as_str().unwrap())
            .unwrap()
    };
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_private_key_and_public_key(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        &bytes("private_key"),
        &bytes("public_key"),
        &random,
    )
    .unwrap();
    let mut all = json!({
        "aud": stage.handle.vendors_url(), "exp": now_s() + 3600, "sub": "mailto:a@example.org",
    });
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = json!({"typ": "JWT", "alg": "ES256"});
    let signed = format!("{}.{}", part(&head), part(&all));
    let signature = key.sign(&random, signed.as_bytes()).unwrap();
    let signature = URL_SAFE_NO_PAD.encode(signature.as_ref());
    format!(
        "vapid t={signed}.{signature}, k={}",
        account["public_key"].as_str().unwrap()
    )
}

/// One subscription of each of the four services: Mozilla, Google, Apple, Microsoft.
fn one_of_each(stage: &Stage, state: TokenState) -> Vec<Subscription> {
    let tokens = stage
        .handle
        .issue_tokens(Channel::Webpush, 200, state)
        .unwrap();
    let all: Vec<Subscription> = tokens
        .iter()
        .map(|t| Subscription::read(stage, t))
        .collect();
    ["/wpush/", "/wp/", "/apple/", "/w/?token="]
        .iter()
        .map(|start| {
            let found = all.iter().find(|s| s.path.starts_with(start)).unwrap();
            Subscription {
                path: found.path.clone(),
                p256dh: found.p256dh.clone(),
                auth: found.auth.clone(),
            }
        })
        .collect()
}

async fn post(stage: &Stage, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    stage.call("POST", path, headers, body).await
}

#[tokio::test]
async fn each_service_takes_a_message_and_says_so_in_its_way() {
    let stage = Stage::open().await;
    let key = vapid(&stage, json!({}));
    for to in one_of_each(&stage, TokenState::Valid) {
        let headers = [
            ("authorization", key.as_str()),
            ("ttl", "9999999"),
            ("urgency", "low"),
            ("topic", "a-B_9"),
            ("content-encoding", "aes128gcm"),
        ];
        let body = to.seal(br#"{"hy_id":"m1","notification":{"title":"t","body":"b"}}"#);
        let answer = post(&stage, &to.path, &headers, body).await;
        assert_eq!(answer.status, 201, "{} {}", to.path, answer.text);
        assert_eq!(answer.headers["ttl"], "2592000");
        let named = ["location", "apns-id", "x-wns-msg-id"];
        assert!(named.iter().any(|name| answer.headers.contains_key(*name)));
        let record = stage.handle.requests(Channel::Webpush).pop().unwrap();
        assert!(record.verdict.contains("\"hy_id\":\"m1\""), "{record:?}");
    }
}

#[tokio::test]
async fn senders_who_do_not_name_themselves_are_refused() {
    let stage = Stage::open().await;
    let account = stage.handle.credential(Channel::Webpush).unwrap();
    let good = vapid(&stage, json!({}));
    let wrong = [
        (String::new(), [401, 401, 403, 401]),
        ("Bearer x".to_owned(), [401, 401, 403, 401]),
        ("vapid t=x".to_owned(), [401, 401, 403, 401]),
        (good.replace("t=", "t=x"), [401, 403, 403, 403]),
        (
            format!(
                "{}A",
                good.replace(account["public_key"].as_str().unwrap(), "AAA")
            ),
            [401, 403, 403, 403],
        ),
        (
            vapid(&stage, json!({"aud": "https://elsewhere.example"})),
            [401, 403, 403, 403],
        ),
        (
            vapid(&stage, json!({"exp": now_s() - 1})),
            [401, 403, 403, 403],
        ),
        (
            vapid(&stage, json!({"exp": now_s() + 86_500})),
            [401, 403, 403, 403],
        ),
        (vapid(&stage, json!({"exp": null})), [401, 403, 403, 403]),
        (vapid(&stage, json!({"sub": "me"})), [401, 403, 403, 403]),
    ];
    let subscriptions = one_of_each(&stage, TokenState::Valid);
    for (authorization, want) in wrong {
        for (to, want) in subscriptions.iter().zip(want) {
            let headers = [("authorization", authorization.as_str()), ("ttl", "1")];
            let headers = &headers[usize::from(authorization.is_empty())..];
            let answer = post(&stage, &to.path, headers, Vec::new()).await;
            assert_eq!(answer.status, want, "{} {authorization}", to.path);
        }
    }
    // A subscription that was made with another key.
    let others = one_of_each(&stage, TokenState::OtherApp);
    for (to, want) in others.iter().zip([401, 403, 400, 403]) {
        let headers = [("authorization", good.as_str()), ("ttl", "1")];
        let answer = post(&stage, &to.path, &headers, Vec::new()).await;
        assert_eq!(answer.status, want, "{}", answer.text);
    }
}

#[tokio::test]
async fn headers_and_bodies_are_held_against_the_rules() {
    let stage = Stage::open().await;
    let key = vapid(&stage, json!({}));
    let long_topic = "x".repeat(33);
    let coding = ("content-encoding", "aes128gcm");
    for to in one_of_each(&stage, TokenState::Valid) {
        let good = to.seal(b"x");
        let mut spoilt = good.clone();
        *spoilt.last_mut().unwrap() ^= 1;
        let largest = to.seal(&vec![b'x'; 3991]);
        assert_eq!(largest.len(), 4096);
        let too_large = to.seal(&vec![b'x'; 3992]);
        type Row<'a> = (&'a [(&'a str, &'a str)], &'a [u8], u16);
        let rows: &[Row<'_>] = &[
            (&[("ttl", "60")], b"", 201),
            (&[("ttl", "60"), coding], &good, 201),
            (&[("ttl", "60"), coding], &largest, 201),
            (&[("ttl", "60"), coding], &too_large, 413),
            (&[("ttl", "60"), coding], &spoilt, 400),
            (&[("ttl", "60"), coding], &good[..80], 400),
            (&[("ttl", "60")], &good, 400),
            (&[("ttl", "60"), ("content-encoding", "aesgcm")], &good, 400),
            (&[coding], &good, 400),
            (&[("ttl", "-1")], b"", 400),
            (&[("ttl", "soon")], b"", 400),
            (&[("ttl", "1"), ("urgency", "now")], b"", 400),
            (&[("ttl", "1"), ("topic", "a b")], b"", 400),
            (&[("ttl", "1"), ("topic", &long_topic)], b"", 400),
        ];
        for (headers, body, want) in rows {
            let mut headers = headers.to_vec();
            headers.push(("authorization", &key));
            let answer = post(&stage, &to.path, &headers, body.to_vec()).await;
            assert_eq!(
                answer.status, *want,
                "{} {headers:?} {}",
                to.path, answer.text
            );
        }
        let answer = stage.call("GET", &to.path, &[], Vec::new()).await;
        assert_eq!(answer.status, 405);
        // Microsoft wants to hear that "now or never" is not to be kept.
        let windows = to.path.starts_with("/w/");
        let headers = [("ttl", "0"), ("authorization", key.as_str())];
        let answer = post(&stage, &to.path, &headers, Vec::new()).await;
        assert_eq!(answer.status, if windows { 400 } else { 201 });
        let more = [headers[0], headers[1], ("x-wns-cache-policy", "no-cache")];
        let answer = post(&stage, &to.path, &more, Vec::new()).await;
        assert_eq!(answer.status, 201);
    }
}

#[tokio::test]
async fn dead_and_unknown_subscriptions_and_faults_have_each_services_words() {
    let stage = Stage::open().await;
    let key = vapid(&stage, json!({}));
    let headers = [("ttl", "60"), ("authorization", key.as_str())];
    let dead = one_of_each(&stage, TokenState::Dead { since_ms: 1 });
    let unknown = one_of_each(&stage, TokenState::OtherEnvironment);
    for (list, want) in [(dead, [410; 4]), (unknown, [404, 410, 404, 404])] {
        for (to, want) in list.iter().zip(want) {
            let answer = post(&stage, &to.path, &headers, Vec::new()).await;
            assert_eq!(answer.status, want, "{}", to.path);
        }
    }
    let good = one_of_each(&stage, TokenState::Valid);
    for (kind, want, after) in [
        (FaultKind::Unavailable, [503; 4], Some("120")),
        (FaultKind::RateLimited, [429, 429, 429, 406], Some("60")),
        (FaultKind::TokenInvalid, [410; 4], None),
        (FaultKind::AuthExpired, [401, 403, 403, 403], None),
    ] {
        let channel = Channel::Webpush;
        stage.handle.inject(channel, Fault::always(kind)).unwrap();
        for (to, want) in good.iter().zip(want) {
            let answer = post(&stage, &to.path, &headers, Vec::new()).await;
            assert_eq!(answer.status, want, "{kind:?} {}", to.path);
            let waits = answer.headers.get("retry-after");
            assert_eq!(waits.map(|v| v.to_str().unwrap()), after);
        }
        stage.handle.clear_faults(channel);
    }
    let answer = post(&stage, &good[0].path, &headers, Vec::new()).await;
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn a_browser_shows_what_it_decrypted_and_a_topic_replaces_what_waits() {
    let stage = Stage::open().await;
    let phone = NewPhone::of("web", "firefox", "Firefox", "alice");
    let phone = stage.handle.add_phone(phone).await.unwrap();
    let token = stage.handle.phone_tokens(&phone.id).unwrap()[&Channel::Webpush].clone();
    let to = Subscription::read(&stage, &token);
    let key = vapid(&stage, json!({}));
    let send = async |topic: &str, ttl: &str, title: &str| {
        let headers = [
            ("ttl", ttl),
            ("topic", topic),
            ("authorization", key.as_str()),
            ("x-wns-cache-policy", "no-cache"),
            ("content-encoding", "aes128gcm"),
        ];
        let said = json!({"hy_id": title, "notification": {"title": title, "body": "b"}});
        let body = to.seal(said.to_string().as_bytes());
        assert_eq!(post(&stage, &to.path, &headers, body).await.status, 201);
    };
    let network = async |on: &str| {
        let patch = PatchPhone {
            network: Some(on.to_owned()),
            ..PatchPhone::default()
        };
        stage.handle.patch_phone(&phone.id, patch).await.unwrap();
    };
    let titles = || -> Vec<String> {
        let tray = stage.handle.tray(&phone.id).unwrap();
        tray.into_iter().map(|entry| entry.title).collect()
    };
    send("a", "60", "first").await;
    assert_eq!(titles(), ["first"]);
    network("off").await;
    send("a", "60", "old").await;
    send("b", "60", "other").await;
    send("a", "60", "new").await;
    send("c", "0", "now or never").await;
    network("on").await;
    crate::stage::until("the browser catches up", || titles().len() == 3).await;
    assert_eq!(titles(), ["first", "other", "new"]);
}
