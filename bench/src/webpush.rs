//! Goal 11: what it costs to encrypt a Web Push message and to build its request, beside a peer that does each step by
//! itself for every message: reads its key, signs a token, agrees in RustCrypto's P-256 and encrypts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hongyan_channels::vendor::webpush::{Composer, generate};
use hongyan_channels::{Egress, egress};
use hongyan_core::port::Clock as _;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use p256::{PublicKey, SecretKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use ring::{aead, hmac};
use serde_json::{Value, json};

use crate::drive::bar;
use crate::process;
use crate::quiet::SystemClock;
use crate::report::Report;

/// Subscriptions that are sent to, each with keys of its own.
const SUBSCRIPTIONS: usize = 64;
/// Messages between two looks at the clock.
const TURN: usize = 16;

/// Measures on this thread; messages per CPU second of our channel.
///
/// # Errors
/// What failed, why and what to do.
pub fn run(take: Duration, report: &mut Report) -> anyhow::Result<f64> {
    let clock = Arc::new(SystemClock::default());
    let egress = Egress::new(&egress::Options::default(), Arc::clone(&clock) as _)?;
    let (private_key, public_key) = generate().context("the system gave no random numbers")?;
    let config = json!({
        "private_key": private_key, "public_key": public_key, "subject": "mailto:a@example.org",
    });
    let composer = Composer::new(&egress, &config)?;
    let outbound = crate::channels::outbound(clock.now())?;
    let subscriptions = (0..SUBSCRIPTIONS)
        .map(Subscription::make)
        .collect::<anyhow::Result<Vec<_>>>()?;

    let peer = measure("webpush, step by step", take, &subscriptions, |to| {
        naive(&private_key, &public_key, to, &outbound.dedup_key)
    })?;
    let ours = measure("webpush channel", take, &subscriptions, |to| {
        let call = composer.compose(&outbound, &to.token);
        let call = call.map_err(|verdict| anyhow::anyhow!("the channel judged {verdict:?}"))?;
        Ok(call.body.len())
    })?;
    for (name, rate) in [("Web Push, step by step", peer), ("webpush channel", ours)] {
        report.row(
            name,
            vec![("messages per second and core, encrypted and built", rate)],
        );
    }
    report.ratio("Web Push messages, step by step", ours, peer);
    Ok(ours)
}

/// Messages per CPU second.
fn measure(
    doing: &str,
    take: Duration,
    to: &[Subscription],
    one: impl Fn(&Subscription) -> anyhow::Result<usize>,
) -> anyhow::Result<f64> {
    let pid = std::process::id();
    let bar = bar(doing, take.as_secs());
    for to in to {
        one(to)?;
    }
    let (begin, before) = (Instant::now(), process::cpu(pid)?);
    let mut count = 0_u32;
    let mut targets = to.iter().cycle();
    while begin.elapsed() < take {
        for to in targets.by_ref().take(TURN) {
            std::hint::black_box(one(to)?);
            count += 1;
        }
        bar.set_position(begin.elapsed().as_secs());
    }
    bar.finish_and_clear();
    let cpu = process::cpu(pid)?.saturating_sub(before);
    Ok(f64::from(count) / cpu.as_secs_f64().max(1e-9))
}

struct Subscription {
    token: String,
    p256dh: String,
    auth: String,
}

impl Subscription {
    fn make(n: usize) -> anyhow::Result<Self> {
        let key = SecretKey::from_slice(&[u8::try_from(n + 1)?; 32])
            .map_err(|_| anyhow::anyhow!("a key cannot be made"))?;
        let point = key.public_key().to_encoded_point(false);
        let p256dh = URL_SAFE_NO_PAD.encode(point.as_bytes());
        let auth = URL_SAFE_NO_PAD.encode([7; 16]);
        let token = json!({
            "endpoint": format!("https://fcm.googleapis.com/fcm/send/{n}"),
            "expirationTime": null, "keys": {"p256dh": p256dh, "auth": auth},
        });
        Ok(Self {
            token: token.to_string(),
            p256dh,
            auth,
        })
    }
}

/// RFC 8291 and 8292 without keeping anything from one message to the next.
fn naive(private: &str, public: &str, to: &Subscription, id: &str) -> anyhow::Result<usize> {
    let broken = |_| anyhow::anyhow!("the cryptography failed");
    let no_point = |_| anyhow::anyhow!("it is no point on P-256");
    let random = SystemRandom::new();
    let body = json!({
        "hy_id": id, "notification": {"title": "Order 42", "body": "is on its way", "tag": id},
    });
    let token: Value = serde_json::from_str(&to.token)?;
    let endpoint = token.get("endpoint").and_then(Value::as_str);
    let endpoint: hyper::Uri = endpoint.unwrap_or_default().parse()?;

    let key = EcdsaKeyPair::from_private_key_and_public_key(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        &URL_SAFE_NO_PAD.decode(private)?,
        &URL_SAFE_NO_PAD.decode(public)?,
        &random,
    )
    .map_err(|_| anyhow::anyhow!("the key cannot be read"))?;
    let claims = json!({
        "aud": format!("https://{}", endpoint.host().unwrap_or_default()),
        "exp": crate::quiet::nanos() / 1_000_000_000 + 3600, "sub": "mailto:a@example.org",
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!(
        "{}.{}",
        part(&json!({"typ": "JWT", "alg": "ES256"})),
        part(&claims)
    );
    let signature = key.sign(&random, signed.as_bytes()).map_err(broken)?;
    let signature = URL_SAFE_NO_PAD.encode(signature.as_ref());
    let authorization = format!("vapid t={signed}.{signature}, k={public}");

    let mut scalar = [0; 32];
    let mut salt = [0; 16];
    random.fill(&mut scalar).map_err(broken)?;
    random.fill(&mut salt).map_err(broken)?;
    let ours = SecretKey::from_slice(&scalar).map_err(no_point)?;
    let our_point = ours.public_key().to_encoded_point(false);
    let their_point = URL_SAFE_NO_PAD.decode(&to.p256dh)?;
    let theirs = PublicKey::from_sec1_bytes(&their_point).map_err(no_point)?;
    let shared = (theirs.to_projective() * *ours.to_nonzero_scalar()).to_affine();
    let shared = shared.to_encoded_point(false);
    let mac = |key: &[u8], data: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    let auth = URL_SAFE_NO_PAD.decode(&to.auth)?;
    let secret = mac(&auth, shared.x().map(|x| x.as_slice()).unwrap_or_default());
    let info = [
        b"WebPush: info\0",
        their_point.as_slice(),
        our_point.as_bytes(),
        &[1],
    ]
    .concat();
    let prk = mac(&salt, mac(secret.as_ref(), &info).as_ref());
    let key = mac(prk.as_ref(), b"Content-Encoding: aes128gcm\0\x01");
    let nonce = mac(prk.as_ref(), b"Content-Encoding: nonce\0\x01");
    let key = key.as_ref().get(..16).unwrap_or_default();
    let key =
        aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_128_GCM, key).map_err(broken)?);
    let nonce = nonce.as_ref().get(..12).unwrap_or_default();
    let nonce = aead::Nonce::try_assume_unique_for_key(nonce).map_err(broken)?;
    let mut record = body.to_string().into_bytes();
    record.push(2);
    key.seal_in_place_append_tag(nonce, aead::Aad::empty(), &mut record)
        .map_err(broken)?;
    let body = [&salt, &[0, 0, 16, 0, 65][..], our_point.as_bytes(), &record].concat();
    let request = hyper::Request::post(endpoint)
        .header("authorization", authorization)
        .header("content-encoding", "aes128gcm")
        .header("ttl", "3600")
        .header("urgency", "high")
        .body(body)?;
    Ok(request.body().len())
}
