//! The sender's side of web push and UnifiedPush, clause by clause.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hongyan_api::{Options, PushOptions, Rate};
use hongyan_core::port::{Ack, InboxPage, Reader};
use hongyan_core::push::{PUSH_BODY_BYTES_MAX, PushEncoding, Urgency};
use hongyan_core::{DeviceId, Push};
use http::Method;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::http_client::{Answer, call};
use crate::world::{NOON, ROOT, World, world_with};

const TTL: (&str, &str) = ("ttl", "60");
const GCM: (&str, &str) = ("content-encoding", "aes128gcm");

/// A sender with a VAPID key.
struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Self {
        let (random, kind) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let der = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(kind, der.as_ref(), &random).unwrap())
    }

    fn key(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.public_key())
    }

    fn token_with(&self, head: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(head), part(claims));
        let signature = self
            .0
            .sign(&SystemRandom::new(), signed.as_bytes())
            .unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn token(&self, aud: &str, expires_in: i64) -> String {
        let exp = NOON.seconds() + expires_in;
        let claims = json!({"aud": aud, "exp": exp, "sub": "mailto:a@push.example"});
        self.token_with(&json!({"typ": "JWT", "alg": "ES256"}), &claims)
    }

    fn header(&self) -> String {
        format!("vapid t={}, k={}", self.token(ROOT, 3_600), self.key())
    }
}

/// A device `d1` and what it opened.
struct Phone {
    w: World,
    token: String,
}

impl Phone {
    async fn new() -> Self {
        Self::with(PushOptions::default()).await
    }

    async fn with(push: PushOptions) -> Self {
        let options = Options {
            push,
            autopush: true,
            ..Options::default()
        };
        let w = world_with(options, None).await;
        let token = w.register("d1").await;
        Self { w, token }
    }

    async fn open(&self, body: Value) -> (String, String) {
        let opened = self
            .w
            .post("/v1/devices/d1/channels", &self.token, body)
            .await
            .expect(201);
        let url = opened["endpoint"].as_str().unwrap();
        assert!(url.len() <= 1_000);
        let path = url.strip_prefix(ROOT).unwrap().to_owned();
        (opened["channel"].as_str().unwrap().to_owned(), path)
    }

    /// The path of a new endpoint that anybody may post to, as web push libraries write it.
    async fn endpoint(&self) -> String {
        let (_, path) = self.open(json!({})).await;
        path.replace("/up/", "/wpush/v1/")
    }

    async fn send(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        call(self.w.address, Method::POST, path, "", headers, body).await
    }

    async fn close(&self, channel: &str) -> Answer {
        let path = format!("/v1/devices/d1/channels/{channel}");
        self.w
            .call(Method::DELETE, &path, &self.token, Value::Null)
            .await
    }

    fn reader(&self) -> Reader {
        Reader {
            app: self.w.app(),
            device: DeviceId::parse("d1").unwrap(),
            user: None,
        }
    }

    async fn page(&self) -> InboxPage {
        let (inbox, now) = (self.w.engine.inbox(), self.now());
        inbox.read(&self.reader(), None, 200, now).await.unwrap()
    }

    fn now(&self) -> hongyan_core::Timestamp {
        use hongyan_core::port::Clock as _;
        self.w.clock.now()
    }

    /// What waits for the device, in order.
    async fn waiting(&self) -> Vec<Push> {
        let page = self.page().await;
        let entries = page.entries.into_iter();
        entries
            .map(|e| e.message.push.as_deref().unwrap().clone())
            .collect()
    }

    async fn bodies(&self) -> Vec<Vec<u8>> {
        let waiting = self.waiting().await.into_iter();
        waiting.map(|p| p.body.to_vec()).collect()
    }

    async fn ack_all(&self) {
        let page = self.page().await;
        let ids = page.entries.iter().map(|e| e.message.id).collect();
        let inbox = self.w.engine.inbox();
        inbox
            .ack(&self.reader(), Ack::Ids(ids), self.now())
            .await
            .unwrap();
    }
}

/// Expects an error of this status and number, as push libraries read it.
fn refused(answer: Answer, status: u16, errno: u16) -> Answer {
    assert_eq!(answer.status, status, "{:?}", answer.body);
    assert_eq!(answer.header("content-type"), "application/json");
    let body = answer.json();
    assert_eq!(body["code"], status);
    assert_eq!(body["errno"], errno, "{body}");
    assert!(body["error"].is_string() && body["message"].is_string());
    answer
}

fn accepted(answer: Answer) -> Answer {
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    assert!(answer.header("location").starts_with(ROOT));
    answer
}

#[tokio::test]
async fn up_01_every_status_has_its_headers_and_its_body() {
    let phone = Phone::new().await;
    let (channel, path) = phone.open(json!({})).await;
    let answer = accepted(phone.send(&path, &[TTL, GCM], "x").await);
    assert_eq!(answer.header("ttl"), "60");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert!(
        answer
            .header("access-control-expose-headers")
            .contains("Location")
    );
    let asked = [TTL, GCM, ("prefer", "respond-async")];
    let answer = phone.send(&path, &asked, "x").await;
    assert_eq!(answer.status, 202);
    assert!(
        answer
            .header("link")
            .ends_with("; rel=\"urn:ietf:params:push:receipt\"")
    );
    assert!(answer.header("location").contains("/m/"));
    refused(
        phone
            .send(&path, &[TTL, GCM, ("urgency", "now")], "x")
            .await,
        400,
        999,
    );
    refused(
        phone.send("/wpush/v1/nobody", &[TTL, GCM], "x").await,
        404,
        102,
    );
    let (_, bound) = phone.open(json!({"vapid": Signer::new().key()})).await;
    let unproved = refused(phone.send(&bound, &[TTL, GCM], "x").await, 401, 109);
    assert_eq!(unproved.header("www-authenticate"), "vapid");
    refused(
        phone.send(&path, &[TTL, GCM], vec![0; 4_097]).await,
        413,
        104,
    );
    phone.close(&channel).await.expect(204);
    let gone = refused(phone.send(&path, &[TTL, GCM], "x").await, 410, 103);
    assert_eq!(gone.header("cache-control"), "max-age=86400");
    let path = phone.endpoint().await;
    let mut answers = Vec::new();
    for _ in 0..101 {
        answers.push(phone.send(&path, &[TTL, GCM], "x").await);
    }
    let last = refused(answers.pop().unwrap(), 429, 201);
    assert_eq!(last.header("retry-after"), "1");
    answers.into_iter().for_each(|a| drop(accepted(a)));
    phone.w.clock.advance(Duration::from_secs(1));
    accepted(phone.send(&path, &[TTL, GCM], "x").await);
    phone.w.engine.close().await;
    let down = refused(phone.send(&path, &[TTL, GCM], "x").await, 503, 201);
    assert!(!down.header("retry-after").is_empty());
}

#[tokio::test]
async fn up_01_browsers_may_ask_before_they_post() {
    let phone = Phone::new().await;
    let path = phone.endpoint().await;
    let headers = [("origin", "https://any.example")];
    let answer = call(phone.w.address, Method::OPTIONS, &path, "", &headers, "").await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert!(
        answer
            .header("access-control-allow-methods")
            .contains("POST")
    );
    assert!(
        answer
            .header("access-control-allow-methods")
            .contains("DELETE")
    );
    for name in [
        "TTL",
        "Urgency",
        "Topic",
        "Content-Encoding",
        "Authorization",
    ] {
        assert!(
            answer.header("access-control-allow-headers").contains(name),
            "{name}"
        );
    }
    for (path, allowed) in [
        (path.as_str(), "POST, GET, HEAD, OPTIONS"),
        ("/m/nothing", "DELETE, OPTIONS"),
        ("/autopush", "GET, HEAD"),
    ] {
        let answer = call(phone.w.address, Method::PUT, path, "", &[], "").await;
        assert_eq!(answer.header("allow"), allowed, "{path}");
        answer.problem(405, "method_not_allowed");
    }
}

#[tokio::test]
async fn up_02_bodies_of_every_length_that_is_allowed() {
    let phone = Phone::new().await;
    let path = phone.endpoint().await;
    for len in [0, 1, 4_096] {
        accepted(phone.send(&path, &[TTL, GCM], vec![7; len]).await);
    }
    refused(
        phone.send(&path, &[TTL, GCM], vec![7; 4_097]).await,
        413,
        104,
    );
    refused(
        phone.send(&path, &[TTL, GCM], vec![7; 100_000]).await,
        413,
        104,
    );
    let lens: Vec<_> = phone.bodies().await.iter().map(Vec::len).collect();
    assert_eq!(lens, [0, 1, 4_096]);
    // Nothing at all: no length, no encoding.
    accepted(phone.send(&path, &[TTL], "").await);
    let chunked = |len: usize| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nTTL: 60\r\nContent-Encoding: aes128gcm\r\n\
             Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{len:x}\r\n"
        );
        let mut raw = head.into_bytes();
        raw.extend(vec![b'c'; len]);
        raw.extend_from_slice(b"\r\n0\r\n\r\n");
        raw
    };
    assert!(
        raw(&phone.w, &chunked(4_096))
            .await
            .starts_with("HTTP/1.1 201")
    );
    assert!(
        raw(&phone.w, &chunked(4_097))
            .await
            .starts_with("HTTP/1.1 413")
    );
    assert_eq!(phone.bodies().await.last().unwrap(), &vec![b'c'; 4_096]);
}

/// Writes bytes and reads the answer to its end.
async fn raw(w: &World, bytes: &[u8]) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(w.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn up_03_a_ttl_is_kept_to_the_second() {
    let phone = Phone::new().await;
    let path = phone.endpoint().await;
    let with = |ttl: &'static str| [("ttl", ttl), GCM];
    refused(phone.send(&path, &[GCM], "x").await, 400, 111);
    refused(phone.send(&path, &with("soon"), "x").await, 400, 111);
    refused(phone.send(&path, &with("-1"), "x").await, 400, 112);
    let longest = accepted(phone.send(&path, &with("1000000000000"), "long").await);
    assert_eq!(longest.header("ttl"), "2592000");
    accepted(phone.send(&path, &with("1"), "short").await);
    assert_eq!(phone.bodies().await, [b"long".to_vec(), b"short".to_vec()]);
    phone.w.clock.advance(Duration::from_secs(1));
    assert_eq!(phone.bodies().await, [b"long".to_vec()]);
    phone.w.clock.advance(Duration::from_secs(2_591_998));
    assert_eq!(phone.bodies().await.len(), 1);
    phone.w.clock.advance(Duration::from_secs(1));
    assert!(phone.bodies().await.is_empty());
    let old = path.replace("/wpush/v1/", "/up/");
    let answer = accepted(phone.send(&old, &[], "old").await);
    assert_eq!(answer.header("ttl"), "86400");
}

#[tokio::test]
async fn up_03_a_ttl_of_zero_is_for_who_is_connected_and_never_stored() {
    let phone = Phone::new().await;
    let path = phone.endpoint().await;
    let now = [("ttl", "0"), GCM];
    accepted(phone.send(&path, &now, "nobody hears").await);
    assert!(phone.w.presence.handed().is_empty());
    let (app, device) = (phone.w.app(), DeviceId::parse("d1").unwrap());
    phone.w.presence.connect(&app, &device);
    let answer = accepted(phone.send(&path, &now, "heard").await);
    assert_eq!(answer.header("ttl"), "0");
    let handed = phone.w.presence.handed();
    assert_eq!(handed.len(), 1);
    assert_eq!(handed[0].push.as_ref().unwrap().body, "heard");
    assert!(phone.bodies().await.is_empty(), "it is not stored");
}

#[tokio::test]
async fn up_04_a_topic_replaces_what_is_undelivered() {
    let phone = Phone::new().await;
    let path = phone.endpoint().await;
    let other = phone.endpoint().await;
    let about = [("ttl", "60"), GCM, ("topic", "news")];
    accepted(phone.send(&path, &about, "one").await);
    accepted(phone.send(&other, &about, "on another channel").await);
    let replaced = [("ttl", "90"), GCM, ("topic", "news"), ("urgency", "high")];
    accepted(phone.send(&path, &replaced, "two").await);
    let waiting = phone.waiting().await;
    let bodies: Vec<_> = waiting.iter().map(|p| &p.body[..]).collect();
    assert_eq!(bodies, [&b"on another channel"[..], b"two"]);
    assert_eq!(waiting[1].urgency, Urgency::High);
    phone.ack_all().await;
    accepted(phone.send(&path, &about, "three").await);
    assert_eq!(phone.bodies().await, [b"three".to_vec()]);
    let long = "t".repeat(33);
    for bad in ["", "a b", "a+b", &long] {
        let headers = [TTL, GCM, ("topic", bad)];
        refused(phone.send(&path, &headers, "x").await, 400, 113);
    }
    let longest = "t".repeat(32);
    accepted(
        phone
            .send(&path, &[TTL, GCM, ("topic", &longest)], "x")
            .await,
    );
}

#[tokio::test]
async fn up_05_urgency_comes_along_and_order_is_that_of_acceptance() {
    let phone = Phone::new().await;
    let path = phone.endpoint().await;
    for urgency in ["low", "high", "very-low", "normal"] {
        accepted(
            phone
                .send(&path, &[TTL, GCM, ("urgency", urgency)], urgency)
                .await,
        );
    }
    accepted(phone.send(&path, &[TTL, GCM], "none").await);
    let waiting = phone.waiting().await;
    let said: Vec<_> = waiting.iter().map(|p| p.urgency.as_str()).collect();
    assert_eq!(said, ["low", "high", "very-low", "normal", "normal"]);
}

#[tokio::test]
async fn up_06_a_bound_endpoint_takes_its_key_only() {
    let phone = Phone::new().await;
    let (own, other) = (Signer::new(), Signer::new());
    let (_, path) = phone.open(json!({"vapid": own.key()})).await;
    assert!(path.starts_with("/wpush/v2/"));
    let as_sender = |header: String| {
        let (phone, path) = (&phone, path.as_str());
        async move {
            phone
                .send(path, &[TTL, GCM, ("authorization", &header)], "x")
                .await
        }
    };
    accepted(as_sender(own.header()).await);
    let (token, key) = (own.token(ROOT, 60), own.key());
    accepted(as_sender(format!("VAPID k={key}=,t={token}")).await);
    for scheme in ["WebPush", "Bearer"] {
        let authorization = format!("{scheme} {token}");
        let crypto_key = format!("p256ecdsa={key}");
        let headers = [
            TTL,
            GCM,
            ("authorization", authorization.as_str()),
            ("crypto-key", crypto_key.as_str()),
        ];
        accepted(phone.send(&path, &headers, "x").await);
    }
    let of = |token: String| format!("vapid t={token}, k={key}");
    let exp = NOON.seconds() + 60;
    let es256 = json!({"alg": "ES256"});
    for (why, header) in [
        ("another key", other.header()),
        ("another's signature", of(other.token(ROOT, 60))),
        (
            "another audience",
            of(own.token("https://other.example", 60)),
        ),
        (
            "a port in the audience",
            of(own.token("https://push.example:8443", 60)),
        ),
        ("expired", of(own.token(ROOT, 0))),
        ("25 hours", of(own.token(ROOT, 25 * 3_600))),
        ("no exp", of(own.token_with(&es256, &json!({"aud": ROOT})))),
        (
            "another alg",
            of(own.token_with(&json!({"alg": "none"}), &json!({"aud": ROOT, "exp": exp}))),
        ),
        ("no token", format!("vapid k={key}")),
        ("no VAPID", "Basic abc".to_owned()),
    ] {
        let answer = refused(as_sender(header).await, 401, 109);
        assert_eq!(answer.header("www-authenticate"), "vapid", "{why}");
    }
    refused(phone.send(&path, &[TTL, GCM], "x").await, 401, 109);
    // Also under the names that are not said to be bound.
    for name in ["/wpush/v1/", "/up/"] {
        let same = path.replace("/wpush/v2/", name);
        refused(phone.send(&same, &[TTL, GCM], "x").await, 401, 109);
    }
    let (_, open) = phone.open(json!({})).await;
    accepted(
        phone
            .send(&open, &[TTL, GCM, ("authorization", &own.header())], "x")
            .await,
    );
    let wrong = own.token("https://other.example", 60);
    let wrong = format!("vapid t={wrong}, k={key}");
    let headers = [TTL, GCM, ("authorization", wrong.as_str())];
    refused(phone.send(&open, &headers, "x").await, 401, 109);
}

#[tokio::test]
async fn up_06_a_header_that_was_good_is_not_good_for_ever() {
    let phone = Phone::new().await;
    let own = Signer::new();
    let (_, path) = phone.open(json!({"vapid": own.key()})).await;
    let header = own.header();
    let headers = [TTL, GCM, ("authorization", header.as_str())];
    accepted(phone.send(&path, &headers, "x").await);
    phone.w.clock.advance(Duration::from_secs(3_599));
    accepted(phone.send(&path, &headers, "x").await);
    phone.w.clock.advance(Duration::from_secs(1));
    refused(phone.send(&path, &headers, "x").await, 401, 109);
}

#[tokio::test]
async fn up_07_an_address_can_be_checked_before_it_is_stored() {
    let phone = Phone::new().await;
    let (_, path) = phone.open(json!({})).await;
    let said = json!({"unifiedpush": {"version": 1}});
    for path in ["/up", &path, &path.replace("/up/", "/wpush/v1/")] {
        let answer = phone.w.get(path, "").await;
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.expect(200), said);
        let head = phone.w.call(Method::HEAD, path, "", Value::Null).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    }
    refused(phone.w.get("/up/unknown", "").await, 404, 102);
    assert!(phone.bodies().await.is_empty(), "asking has no effect");
}

fn path_of(url: &str) -> String {
    url.strip_prefix(ROOT).unwrap().to_owned()
}

#[tokio::test]
async fn up_08_a_message_can_be_taken_back() {
    let phone = Phone::new().await;
    let path = phone.endpoint().await;
    let delete = |location: String| {
        let w = &phone.w;
        async move {
            w.call(Method::DELETE, &path_of(&location), "", Value::Null)
                .await
        }
    };
    let sent = accepted(phone.send(&path, &[TTL, GCM], "regretted").await);
    accepted(phone.send(&path, &[TTL, GCM], "kept").await);
    let location = sent.header("location").to_owned();
    assert_eq!(delete(location.clone()).await.status, 204);
    assert_eq!(phone.bodies().await, [b"kept".to_vec()]);
    assert_eq!(delete(location.clone()).await.status, 204, "already gone");
    phone.ack_all().await;
    let delivered = accepted(phone.send(&path, &[TTL, GCM], "delivered").await);
    phone.ack_all().await;
    assert_eq!(
        delete(delivered.header("location").to_owned()).await.status,
        204
    );
    let unstored = accepted(phone.send(&path, &[("ttl", "0"), GCM], "x").await);
    assert_eq!(
        delete(unstored.header("location").to_owned()).await.status,
        204
    );
    let mut forged = location;
    forged.replace_range(ROOT.len() + 3..ROOT.len() + 7, "AAAA");
    refused(delete(forged).await, 404, 102);
    refused(delete(format!("{ROOT}/m/x")).await, 404, 102);
}

#[tokio::test]
async fn up_09_a_closed_endpoint_is_gone_then_forgotten() {
    let phone = Phone::new().await;
    let (channel, path) = phone.open(json!({})).await;
    phone.close(&channel).await.expect(204);
    phone.close(&channel).await.problem(404, "not_found");
    for _ in 0..2 {
        let gone = refused(phone.send(&path, &[TTL], "x").await, 410, 103);
        assert_eq!(gone.header("cache-control"), "max-age=86400");
        refused(phone.w.get(&path, "").await, 410, 103);
        phone.w.clock.advance(Duration::from_secs(89 * 86_400));
        phone.w.engine.maintain(phone.now()).await.unwrap();
    }
    phone.w.engine.maintain(phone.now()).await.unwrap();
    refused(phone.send(&path, &[TTL], "x").await, 404, 102);
}

#[tokio::test]
async fn up_09_endpoints_of_a_device_that_is_gone_or_silent_are_gone() {
    let phone = Phone::new().await;
    let (_, path) = phone.open(json!({})).await;
    phone.w.clock.advance(Duration::from_secs(60 * 86_400));
    accepted(phone.send(&path, &[TTL], "x").await);
    phone.w.clock.advance(Duration::from_secs(1));
    refused(phone.send(&path, &[TTL], "x").await, 410, 103);
    let seen = phone.w.engine.registry();
    let device = DeviceId::parse("d1").unwrap();
    seen.touch_device(&phone.w.app(), &device, phone.now())
        .await
        .unwrap();
    accepted(phone.send(&path, &[TTL], "x").await);
    seen.delete_device(&phone.w.app(), &device).await.unwrap();
    refused(phone.send(&path, &[TTL], "x").await, 410, 103);
}

#[tokio::test]
async fn up_11_bytes_arrive_unchanged() {
    let phone = Phone::new().await;
    let path = phone.endpoint().await;
    let all: Vec<u8> = (0..=255).cycle().take(4_096).collect();
    accepted(phone.send(&path, &[TTL, GCM], all.clone()).await);
    accepted(
        phone
            .send(&path.replace("/wpush/v1/", "/up/"), &[TTL], all.clone())
            .await,
    );
    let waiting = phone.waiting().await;
    assert_eq!(waiting[0].body, all);
    assert_eq!(waiting[0].encoding, PushEncoding::Aes128gcm);
    assert_eq!(waiting[1].body, all);
    assert_eq!(waiting[1].encoding, PushEncoding::Opaque);
    refused(phone.send(&path, &[TTL], "plain").await, 400, 110);
    let old = [
        TTL,
        ("content-encoding", "aesgcm"),
        ("encryption", "salt=\"c2FsdHNhbHRzYWx0c2FsdA==\""),
        ("crypto-key", "dh=BA1Hxzyi1RUM"),
    ];
    accepted(phone.send(&path, &old, vec![1; 4_300]).await);
    refused(phone.send(&path, &old, vec![1; 4_301]).await, 413, 104);
    assert_eq!(
        phone.waiting().await[2].encoding,
        PushEncoding::Aesgcm {
            encryption: "salt=c2FsdHNhbHRzYWx0c2FsdA".to_owned(),
            crypto_key: "dh=BA1Hxzyi1RUM".to_owned(),
        }
    );
}

#[tokio::test]
async fn up_15_what_is_not_there_is_told_in_one_way() {
    let phone = Phone::new().await;
    let token = "A".repeat(43);
    let long = "A".repeat(3_000);
    let mut bodies = Vec::new();
    for name in [token.as_str(), "x", "%00%ff", long.as_str(), "a.b-c"] {
        for form in ["/wpush/v1/", "/wpush/v2/", "/up/"] {
            let path = format!("{form}{name}");
            let answer = refused(phone.send(&path, &[TTL, GCM], "x").await, 404, 102);
            bodies.push((answer.body, answer.headers.len()));
        }
    }
    assert!(bodies.iter().all(|b| *b == bodies[0]));
}

#[tokio::test]
async fn a_receipt_is_answered_when_the_message_ended() {
    let phone = Phone::new().await;
    let path = phone.endpoint().await;
    let asked = [("ttl", "1"), GCM, ("prefer", "respond-async")];
    let answer = phone.send(&path, &asked, "x").await;
    let link = answer.header("link").to_owned();
    let receipt = link.trim_start_matches('<').split('>').next().unwrap();
    let receipt = path_of(receipt);
    phone.w.clock.advance(Duration::from_secs(1));
    refused(phone.w.get(&receipt, "").await, 410, 105);
    refused(phone.w.get("/r/unknown", "").await, 404, 102);
}

#[tokio::test]
async fn channels_are_opened_listed_and_closed() {
    let phone = Phone::new().await;
    let channels = "/v1/devices/d1/channels";
    let key = Signer::new().key();
    let wanted = json!({"token_hash": "h-1", "vapid": key, "description": "chat"});
    let first = phone.open(wanted.clone()).await;
    assert_eq!(phone.open(wanted).await, first, "the same again");
    let padded = json!({"token_hash": "h-1", "vapid": format!("{key}=")});
    assert_eq!(phone.open(padded).await, first);
    let rebound = json!({"token_hash": "h-1", "vapid": Signer::new().key()});
    let second = phone.open(rebound).await;
    assert_eq!(second.0, first.0, "the channel stays");
    assert_ne!(second.1, first.1, "its address does not");
    refused(phone.w.get(&first.1, "").await, 410, 103);
    let own = json!({"channel": "6f6b3d5e-0000-4000-8000-000000000001"});
    let third = phone.open(own.clone()).await;
    assert_eq!(phone.open(own).await, third);
    assert!(third.1.starts_with("/up/"));
    let listed = phone.w.get(channels, &phone.token).await.expect(200);
    let items = listed["items"].as_array().unwrap();
    let mut open: Vec<_> = items
        .iter()
        .map(|i| {
            (
                i["channel"].as_str().unwrap(),
                path_of(i["endpoint"].as_str().unwrap()),
            )
        })
        .collect();
    open.sort();
    let mut wanted = [(second.0.as_str(), second.1), (third.0.as_str(), third.1)];
    wanted.sort();
    assert_eq!(open, wanted);
    let bad = json!({"vapid": "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPw"});
    let post = |body: Value, token: &'static str| {
        let (w, token) = (
            &phone.w,
            if token.is_empty() {
                phone.token.as_str()
            } else {
                token
            },
        );
        async move { w.post(channels, token, body).await }
    };
    post(bad, "").await.fault(422, "invalid", "vapid");
    let long = json!({"token_hash": "x".repeat(101)});
    post(long, "").await.fault(422, "invalid", "token_hash");
    post(json!({"channel": "a b"}), "")
        .await
        .problem(400, "invalid_request");
    let stranger = phone.w.register("d2").await;
    let answer = phone.w.post(channels, &stranger, json!({})).await;
    answer.problem(403, "forbidden");
    let answer = phone
        .w
        .post("/v1/devices/none/channels", &phone.w.server, json!({}))
        .await;
    answer.problem(404, "not_found");
}

#[tokio::test]
async fn up_01_a_barred_sender_is_told_so_once_it_has_proved_itself() {
    let (barred, welcome) = (Signer::new(), Signer::new());
    let phone = Phone::with(PushOptions {
        barred: hongyan_api::vapid_key_hash(&barred.key())
            .into_iter()
            .collect(),
        ..PushOptions::default()
    })
    .await;
    let path = phone.endpoint().await;
    let signed = |by: &Signer| by.header();
    let (bad, good) = (signed(&barred), signed(&welcome));
    for _ in 0..2 {
        let headers = [TTL, GCM, ("authorization", bad.as_str())];
        refused(phone.send(&path, &headers, "x").await, 403, 109);
    }
    accepted(
        phone
            .send(&path, &[TTL, GCM, ("authorization", &good)], "x")
            .await,
    );
    // Whoever does not prove the key is told nothing of it.
    let forged = format!("vapid t={}, k={}", welcome.token(ROOT, 60), barred.key());
    refused(
        phone
            .send(&path, &[TTL, GCM, ("authorization", &forged)], "x")
            .await,
        401,
        109,
    );
    assert_eq!(phone.bodies().await.len(), 1);
}

#[tokio::test]
async fn up_02_a_body_that_is_declared_too_long_is_refused_unread() {
    let phone = Phone::new().await;
    let path = phone.endpoint().await;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nTTL: 60\r\nContent-Encoding: aes128gcm\r\n\
         Content-Length: 8193\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    );
    let answer = raw(&phone.w, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn up_07_the_gateway_for_matrix_says_so_and_hands_on_notifications() {
    const NOTIFY: &str = "/_matrix/push/v1/notify";
    let phone = Phone::new().await;
    let said = call(phone.w.address, Method::GET, NOTIFY, "", &[], "").await;
    assert_eq!(
        said.expect(200),
        json!({"unifiedpush": {"gateway": "matrix"}})
    );
    let (_, path) = phone.open(json!({})).await;
    let (_, bound) = phone.open(json!({"vapid": Signer::new().key()})).await;
    let (channel, closed) = phone.open(json!({})).await;
    phone.close(&channel).await.expect(204);
    let notify = async |keys: &[String], prio: &str| {
        let devices: Vec<_> = keys
            .iter()
            .map(|k| json!({"app_id": "a", "pushkey": k}))
            .collect();
        let event = format!("$of-{prio}");
        let body = json!({"notification": {"event_id": event, "prio": prio, "devices": devices}});
        let answer = phone.send(NOTIFY, &[], body.to_string()).await;
        (answer, body)
    };
    let own = format!("{ROOT}{path}");
    let (answer, whole) = notify(std::slice::from_ref(&own), "high").await;
    assert_eq!(answer.expect(200), json!({"rejected": []}));
    let foreign = [
        "https://elsewhere.example/up/abc".to_owned(),
        format!("{ROOT}{bound}"),
        format!("{ROOT}{closed}"),
        format!("{ROOT}/up/nobody"),
    ];
    let mut keys = foreign.to_vec();
    keys.push(own.clone());
    let (answer, _) = notify(&keys, "low").await;
    assert_eq!(answer.expect(200), json!({ "rejected": foreign }));
    let waiting = phone.waiting().await;
    assert_eq!(waiting.len(), 2);
    let body = |at: usize| serde_json::from_slice::<Value>(&waiting[at].body).unwrap();
    assert_eq!((body(0), waiting[0].urgency), (whole, Urgency::High));
    let told = body(1);
    assert_eq!(waiting[1].urgency, Urgency::Low);
    assert_eq!(
        told["notification"]["devices"],
        json!([{"app_id": "a", "pushkey": own}]),
        "nobody is told the addresses of others"
    );
    refused(phone.send(NOTIFY, &[], "{}").await, 400, 999);
    let long =
        json!({"notification": {"devices": [{"pushkey": own}], "content": "x".repeat(4_096)}});
    refused(phone.send(NOTIFY, &[], long.to_string()).await, 413, 104);
    let off = Phone::with(PushOptions {
        matrix: false,
        ..PushOptions::default()
    })
    .await;
    let said = call(off.w.address, Method::GET, NOTIFY, "", &[], "").await;
    assert_eq!(said.status, 404);
}

/// A homeserver repeats what was not answered with 200, as a whole.
#[tokio::test]
async fn up_07_a_notification_that_comes_again_reaches_no_device_twice() {
    const NOTIFY: &str = "/_matrix/push/v1/notify";
    let phone = Phone::with(PushOptions {
        endpoint_rate: Rate { per_s: 1, burst: 2 },
        ..PushOptions::default()
    })
    .await;
    let (_, one) = phone.open(json!({})).await;
    let (_, busy) = phone.open(json!({})).await;
    let device = |path: &str| json!({"app_id": "a", "pushkey": format!("{ROOT}{path}")});
    let notify = async |event: Option<&str>, devices: Value| {
        let mut said = json!({"devices": devices, "counts": {"unread": 1}});
        if let Some(event) = event {
            said["event_id"] = event.into();
        }
        let body = json!({ "notification": said }).to_string();
        phone.send(NOTIFY, &[], body).await
    };
    let waiting = async || phone.waiting().await.len();
    for _ in 0..2 {
        accepted(phone.send(&busy, &[TTL], "x").await);
    }
    let both = || json!([device(&one), device(&busy)]);
    refused(notify(Some("$1"), both()).await, 429, 201);
    assert_eq!(waiting().await, 2, "nobody was told before all can be");
    phone.w.clock.advance(Duration::from_secs(2));
    for _ in 0..3 {
        let answer = notify(Some("$1"), both()).await;
        assert_eq!(answer.expect(200), json!({"rejected": []}));
        assert_eq!(waiting().await, 4);
    }
    notify(Some("$2"), both()).await.expect(200);
    assert_eq!(waiting().await, 6);
    // What is about no event may be said twice.
    phone.w.clock.advance(Duration::from_secs(4));
    for more in 1..=2 {
        notify(None, json!([device(&one)])).await.expect(200);
        assert_eq!(waiting().await, 6 + more);
    }
    // One that is too long for one device is for none.
    phone.w.clock.advance(Duration::from_secs(4));
    let mut long = both();
    long[1]["data"] = "x".repeat(PUSH_BODY_BYTES_MAX).into();
    refused(notify(Some("$3"), long).await, 413, 104);
    assert_eq!(waiting().await, 8);
}

/// Devices of a notification that could not be handed on whole are not told again when it comes again, and are when it comes
/// once more, if it may be said twice.
#[tokio::test]
async fn up_07_a_notification_that_failed_half_way_is_finished() {
    const NOTIFY: &str = "/_matrix/push/v1/notify";
    let phone = Phone::new().await;
    let (_, one) = phone.open(json!({})).await;
    let (_, other) = phone.open(json!({})).await;
    let device = |path: &str| json!({"app_id": "a", "pushkey": format!("{ROOT}{path}")});
    let mut before = 0;
    for (event, again) in [(json!("$1"), 0), (Value::Null, 2)] {
        let mut said = json!({"devices": [device(&one), device(&other)], "counts": {"unread": 1}});
        if event.is_string() {
            said["event_id"] = event;
        }
        let body = json!({ "notification": said }).to_string();
        let notify = async || phone.send(NOTIFY, &[], body.clone()).await;
        phone.w.posted.full_after(1);
        assert_eq!(notify().await.status, 503);
        assert_eq!(phone.waiting().await.len(), before + 1);
        notify().await.expect(200);
        assert_eq!(phone.waiting().await.len(), before + 2);
        notify().await.expect(200);
        assert_eq!(phone.waiting().await.len(), before + 2 + again);
        before = phone.waiting().await.len();
    }
}

#[tokio::test]
async fn ap_04_a_bound_endpoint_of_a_browser_takes_its_key_only() {
    let phone = Phone::new().await;
    let (own, other) = (Signer::new(), Signer::new());
    let channel = "6f6b3d5e-0000-4000-8000-000000000001";
    let (opened, path) = phone
        .open(json!({"channel": channel, "vapid": format!("{}=", own.key())}))
        .await;
    assert_eq!(opened, channel);
    assert!(path.starts_with("/wpush/v2/"), "{path}");
    let post = async |authorization: &str| {
        let headers = [TTL, GCM, ("authorization", authorization)];
        let signed = headers.len() - usize::from(authorization.is_empty());
        phone.send(&path, &headers[..signed], "x").await
    };
    accepted(post(&own.header()).await);
    let expired = format!("vapid t={}, k={}", own.token(ROOT, -1), own.key());
    let elsewhere = own.token("https://elsewhere.example", 60);
    let elsewhere = format!("vapid t={elsewhere}, k={}", own.key());
    for bad in ["", &other.header(), &expired, &elsewhere] {
        refused(post(bad).await, 401, 109);
    }
    assert_eq!(phone.bodies().await.len(), 1);
}

/// RFC 8291 section 5 and appendix A: what is posted, the secret that both sides share by ECDH, and the text.
#[tokio::test]
async fn up_12_the_example_of_the_standard_is_decrypted_after_passing_through() {
    use ring::hmac::{HMAC_SHA256, Key, sign};
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let posted = decode(
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8w\
         EqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN",
    );
    let phone = Phone::new().await;
    let path = phone.endpoint().await;
    accepted(phone.send(&path, &[TTL, GCM], posted).await);
    let body = phone.bodies().await.remove(0);
    let shared = decode("kyrL1jIIOHEzg3sM2ZWRHDRB62YACZhhSlknJ672kSs");
    let auth = decode("BTBZMqHH6r4Tts7J_aSIgg");
    let ua = decode(
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
    );
    let mac = |key: &[u8], parts: &[&[u8]]| sign(&Key::new(HMAC_SHA256, key), &parts.concat());
    let (salt, sender) = (&body[..16], &body[21..86]);
    let prk_key = mac(&auth, &[&shared]);
    let ikm = mac(prk_key.as_ref(), &[b"WebPush: info\0", &ua, sender, &[1]]);
    let prk = mac(salt, &[ikm.as_ref()]);
    let key = mac(prk.as_ref(), &[b"Content-Encoding: aes128gcm\0", &[1]]);
    let nonce = mac(prk.as_ref(), &[b"Content-Encoding: nonce\0", &[1]]);
    let key = ring::aead::UnboundKey::new(&ring::aead::AES_128_GCM, &key.as_ref()[..16]).unwrap();
    let nonce = ring::aead::Nonce::try_assume_unique_for_key(&nonce.as_ref()[..12]).unwrap();
    let mut record = body[86..].to_vec();
    let text = ring::aead::LessSafeKey::new(key)
        .open_in_place(nonce, ring::aead::Aad::empty(), &mut record)
        .unwrap();
    assert_eq!(text, b"When I grow up, I want to be a watermelon\x02");
}

#[tokio::test]
async fn an_enrolment_is_an_address_of_its_user() {
    let phone = Phone::new().await;
    let w = &phone.w;
    let made = w
        .post("/v1/users/u-1/enrolments", &w.server, Value::Null)
        .await;
    let made = made.expect(201);
    let until = NOON.plus(Duration::from_secs(86_400)).rfc3339();
    assert_eq!(made["expires_at"], until, "a day");
    // A text is bound to the user's record: there is one from then on.
    let known = w.get("/v1/users/u-1", &w.server).await;
    known.expect(200);
    assert_eq!(made["user"], "u-1");
    let url = made["url"].as_str().unwrap();
    let root = ROOT.replacen("http", "ws", 1);
    assert!(url.starts_with(&format!("{root}/autopush/hy_en_")), "{url}");
    w.post("/v1/users/u-1/enrolments", &phone.token, Value::Null)
        .await
        .expect(403);
}

#[tokio::test]
async fn nobody_is_enrolled_where_browsers_are_not_served() {
    let w = world_with(Options::default(), None).await;
    let path = "/v1/users/u-1/enrolments";
    let refused = w.post(path, &w.server, Value::Null).await.expect(404);
    assert_eq!(refused["code"], "not_found");
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("autopush.app"), "{detail}");
    w.get("/v1/users/u-1", &w.server).await.expect(404);
}

#[tokio::test]
async fn up_02_a_body_that_does_not_come_is_not_waited_for() {
    let phone = Phone::with(PushOptions {
        body_timeout: Duration::from_millis(50),
        ..PushOptions::default()
    })
    .await;
    let path = phone.endpoint().await;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nTTL: 60\r\nContent-Encoding: aes128gcm\r\n\
         Content-Length: 10\r\nConnection: close\r\n\r\nhalf"
    );
    let answer = raw(&phone.w, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(phone.bodies().await.is_empty());
}
