//! Push services of browsers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use p256::{PublicKey, SecretKey};
use ring::{aead, hmac};
use serde_json::{Value, json};

use super::Paper;
use crate::stand_in::{Act, Seen};

/// The browser of RFC 8291 appendix A; every subscription here is its.
const PRIVATE: &str = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94";
const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

pub(crate) const WEBPUSH: Paper = Paper {
    name: "webpush",
    config: || {
        json!({"private_key": rcgen::KeyPair::generate().unwrap().serialize_pem(),
               "subject": "mailto:push@example.org"})
    },
    token_path: None,
    token_answer: super::oauth_token,
    // No token is fetched from anywhere.
    tokens_expire: false,
    names_tokens: true,
    token: |n| subscription(&format!("/wpush/v2/{n:04x}")),
    take_apart: |seen| {
        (
            "{token}".to_owned(),
            open(seen),
            vec![subscription(&seen.path)],
        )
    },
    answer: |dead| {
        let status = if dead.is_empty() { 201 } else { 410 };
        Act::Answer(status, vec![("ttl", "60".to_owned())], String::new())
    },
    expired: || Act::Silence,
    rows: &[
        (
            "no TTL",
            400,
            r#"{"errno":111,"message":"m"}"#,
            "refused payload_rejected",
        ),
        (
            "key",
            401,
            r#"{"errno":109,"message":"m"}"#,
            "credential_bad",
        ),
        ("other key", 403, "do not correspond", "credential_bad"),
        (
            "unknown",
            404,
            r#"{"errno":102,"message":"m"}"#,
            "token_dead token_invalid",
        ),
        ("method", 405, "", "refused payload_rejected"),
        ("throttled", 406, "", "retry vendor_rate_limited not_taken"),
        ("gone", 410, "", "token_dead token_invalid"),
        ("size", 413, "", "refused payload_too_large"),
        ("rate", 429, "", "retry vendor_rate_limited not_taken"),
        ("moved", 301, "", "retry vendor_unavailable not_taken"),
        ("elsewhere", 307, "", "retry vendor_unavailable not_taken"),
        ("fault", 500, "<html>", "retry vendor_unavailable not_taken"),
        ("bridge", 502, "", "retry vendor_unavailable not_taken"),
        (
            "busy",
            503,
            r#"{"errno":201,"message":"m"}"#,
            "retry vendor_unavailable not_taken",
        ),
    ],
};

fn private() -> SecretKey {
    SecretKey::from_slice(&URL_SAFE_NO_PAD.decode(PRIVATE).unwrap()).unwrap()
}

/// The endpoint comes last, so that the text ends with the number.
fn subscription(path: &str) -> String {
    let point = private().public_key().to_encoded_point(false);
    let point = URL_SAFE_NO_PAD.encode(point.as_bytes());
    format!(
        r#"{{"keys":{{"p256dh":"{point}","auth":"{AUTH}"}},"endpoint":"https://push.example{path}"}}"#
    )
}

/// What the service worker would get: RFC 8291.
pub(crate) fn open(seen: &Seen) -> Value {
    let (head, record) = seen.body.split_at(86);
    let theirs = PublicKey::from_sec1_bytes(&head[21..]).unwrap();
    let shared = (theirs.to_projective() * *private().to_nonzero_scalar()).to_affine();
    let shared = shared.to_encoded_point(false);
    let mac = |key: &[u8], data: &[u8]| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
            .as_ref()
            .to_vec()
    };
    let ours = private().public_key().to_encoded_point(false);
    let info = [b"WebPush: info\0", ours.as_bytes(), &head[21..], &[1]].concat();
    let auth = URL_SAFE_NO_PAD.decode(AUTH).unwrap();
    let prk = mac(&head[..16], &mac(&mac(&auth, shared.x().unwrap()), &info));
    let key = mac(&prk, b"Content-Encoding: aes128gcm\0\x01");
    let nonce = mac(&prk, b"Content-Encoding: nonce\0\x01");
    let mut record = record.to_vec();
    let plain =
        aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_128_GCM, &key[..16]).unwrap())
            .open_in_place(
                aead::Nonce::try_assume_unique_for_key(&nonce[..12]).unwrap(),
                aead::Aad::empty(),
                &mut record,
            )
            .unwrap();
    let text = plain.strip_suffix(&[2]).unwrap();
    serde_json::from_slice(text).unwrap()
}
