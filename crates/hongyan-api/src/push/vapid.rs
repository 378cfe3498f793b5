//! VAPID (RFC 8292): a sender proves by a signed token which key it has.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::Deserialize;

use hongyan_core::Timestamp;

use super::headers::{CRYPTO_KEY, parameter};

/// How far ahead `exp` may lie, seconds (RFC 8292 section 2).
const AHEAD_MAX: i64 = 24 * 3_600;
/// How far clocks may differ, seconds.
const SLACK: i64 = 300;
/// Bytes of an uncompressed point of P-256.
const KEY_BYTES: usize = 65;

/// base64url with or without padding; the standard alphabet is translated before.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn decode(text: &str) -> Option<Vec<u8>> {
    LENIENT
        .decode(text.replace('+', "-").replace('/', "_"))
        .ok()
}

/// What an `Authorization` header holds, in either form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Presented {
    token: String,
    key: Vec<u8>,
}

/// A key that was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proved {
    /// SHA-256 of the key.
    pub(crate) key: [u8; 32],
    /// Until when the same header proves it again.
    pub(crate) until: Timestamp,
}

/// SHA-256 of a key that is written as in the header, if it is one.
#[must_use]
pub fn key_hash(text: &str) -> Option<[u8; 32]> {
    let key = decode(text.trim())?;
    (key.len() == KEY_BYTES && key.first() == Some(&4)).then(|| sha256(&key))
}

/// What the header is remembered by; nothing when there is none.
pub(crate) fn header_hash(headers: &HeaderMap) -> Option<[u8; 32]> {
    let header = headers.get(AUTHORIZATION)?;
    let mut all = header.as_bytes().to_vec();
    // The old form has its key in another header.
    for value in headers.get_all(&CRYPTO_KEY) {
        all.push(b'\n');
        all.extend_from_slice(value.as_bytes());
    }
    Some(sha256(&all))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0u8; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// Reads the header: `vapid t=…, k=…`, or the old `WebPush …` and `Bearer …` with `Crypto-Key: p256ecdsa=…`.
pub(crate) fn read(headers: &HeaderMap) -> Result<Presented, &'static str> {
    let value = headers
        .get(AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .ok_or("the header Authorization is missing or not ASCII")?;
    let (scheme, rest) = value
        .trim()
        .split_once([' ', '\t'])
        .ok_or("the header Authorization has no parameters")?;
    let (token, key) = if scheme.eq_ignore_ascii_case("vapid") {
        let find = |wanted: &str| {
            rest.split([',', ';'])
                .filter_map(|pair| pair.split_once('='))
                .find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value.trim().trim_matches('"').to_owned())
        };
        let token = find("t").ok_or("the header Authorization has no t=")?;
        (
            token,
            find("k").ok_or("the header Authorization has no k=")?,
        )
    } else if scheme.eq_ignore_ascii_case("webpush") || scheme.eq_ignore_ascii_case("bearer") {
        let key = parameter(headers, &CRYPTO_KEY, "p256ecdsa")
            .ok_or("the header Crypto-Key has no p256ecdsa=")?;
        (rest.trim().to_owned(), key)
    } else {
        return Err("the header Authorization must be `vapid t=…, k=…`");
    };
    let key = decode(&key)
        .filter(|key| key.len() == KEY_BYTES && key.first() == Some(&4))
        .ok_or("the key must be an uncompressed point of P-256 in base64url")?;
    Ok(Presented { token, key })
}

#[derive(Deserialize)]
struct Head {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    aud: String,
    exp: serde_json::Number,
    #[serde(default)]
    sub: Option<serde_json::Value>,
}

impl Presented {
    /// Checks the token: signed by the key, for this origin, not expired, not for longer than a day.
    pub(crate) fn check(&self, origin: &str, now: Timestamp) -> Result<Proved, &'static str> {
        let (signed, signature) = self
            .token
            .rsplit_once('.')
            .ok_or("the token is not a JWT")?;
        let (head, claims) = signed.split_once('.').ok_or("the token is not a JWT")?;
        let head: Head = json(head).ok_or("the token's header cannot be read")?;
        if head.alg != "ES256" {
            return Err("the token must be signed with ES256");
        }
        let signature = decode(signature).ok_or("the token's signature is not base64url")?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.key)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| "the token's signature does not fit its key")?;
        let claims: Claims = json(claims).ok_or("the token's claims cannot be read")?;
        if claims.aud != origin {
            return Err("the token's aud is not the origin of this endpoint");
        }
        #[allow(
            clippy::cast_possible_truncation,
            reason = "fractions of a second do not matter"
        )]
        let exp = claims
            .exp
            .as_i64()
            .or_else(|| claims.exp.as_f64().map(|exp| exp as i64))
            .ok_or("the token's exp is not a time")?;
        let seconds = now.seconds();
        if exp <= seconds {
            return Err("the token has expired");
        }
        if exp > seconds.saturating_add(AHEAD_MAX + SLACK) {
            return Err("the token's exp is more than 24 hours ahead");
        }
        let of_standard = claims.sub.as_ref().is_none_or(|sub| {
            sub.as_str()
                .is_some_and(|s| s.starts_with("mailto:") || s.starts_with("https:"))
        });
        if !of_standard {
            metrics::counter!("hongyan_push_odd_sub_total").increment(1);
        }
        Ok(Proved {
            key: sha256(&self.key),
            until: Timestamp(exp.saturating_mul(1_000)),
        })
    }
}

fn json<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&decode(part)?).ok()
}

/// The origin of a URL as browsers write it: scheme, host, and the port when it is not the usual one.
pub(crate) fn origin_of(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let host = uri.host()?.to_ascii_lowercase();
    let usual = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    Some(match uri.port_u16() {
        Some(port) if port != usual => format!("{scheme}://{host}:{port}"),
        _ => format!("{scheme}://{host}"),
    })
}

/// Reads and checks an `Authorization` and a `Crypto-Key` header, as a sender's. For those who feed it bytes.
#[must_use]
pub fn judge(authorization: &[u8], crypto_key: &[u8]) -> bool {
    let mut headers = HeaderMap::new();
    let values = [(AUTHORIZATION, authorization), (CRYPTO_KEY, crypto_key)];
    for (name, value) in values {
        if let Ok(value) = http::HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    }
    read(&headers).is_ok_and(|p| {
        p.check("https://push.example", Timestamp(1_700_000_000_000))
            .is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 8292 section 2.4.
    const TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0.i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA";
    const KEY: &str =
        "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";
    const EXP: i64 = 1_453_523_768;

    fn headers(authorization: &str, crypto_key: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization.parse().unwrap());
        if !crypto_key.is_empty() {
            headers.insert(CRYPTO_KEY, crypto_key.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_example_of_the_standard_is_proved_in_every_writing() {
        let origin = "https://push.example.net";
        let now = Timestamp((EXP - 3_600) * 1_000);
        let padded = format!("{}=", KEY.replace('-', "+").replace('_', "/"));
        let forms = [
            headers(&format!("vapid t={TOKEN}, k={KEY}"), ""),
            headers(&format!("VAPID  k={KEY},t={TOKEN}"), ""),
            headers(&format!("vapid t=\"{TOKEN}\" , k={padded}"), ""),
            headers(&format!("WebPush {TOKEN}"), &format!("p256ecdsa={KEY}")),
            headers(
                &format!("Bearer {TOKEN}"),
                &format!("dh=abc;p256ecdsa={KEY}"),
            ),
        ];
        let proved = forms.map(|h| read(&h).unwrap().check(origin, now).unwrap());
        assert!(proved.iter().all(|p| *p == proved[0]));
        assert_eq!(proved[0].until, Timestamp(EXP * 1_000));
    }

    #[test]
    fn a_token_is_good_for_its_origin_and_its_time_only() {
        let presented = read(&headers(&format!("vapid t={TOKEN}, k={KEY}"), "")).unwrap();
        let origin = "https://push.example.net";
        let at = |seconds: i64| presented.check(origin, Timestamp(seconds * 1_000));
        assert!(at(EXP - 1).is_ok());
        assert!(at(EXP).is_err(), "expired");
        assert!(at(EXP - AHEAD_MAX - SLACK).is_ok());
        assert!(at(EXP - AHEAD_MAX - SLACK - 1).is_err(), "too far ahead");
        let now = Timestamp((EXP - 1) * 1_000);
        for other in ["https://push.example.net:8443", "http://push.example.net"] {
            assert!(presented.check(other, now).is_err(), "{other}");
        }
        let mut forged = presented.token.clone();
        forged.replace_range(TOKEN.len() - 4.., "AAAA");
        let forged = Presented {
            token: forged,
            key: presented.key.clone(),
        };
        assert!(forged.check(origin, now).is_err());
    }

    #[test]
    fn what_is_not_vapid_is_not_read() {
        for bad in [
            "",
            "vapid",
            "vapid x",
            &format!("vapid t={TOKEN}"),
            &format!("vapid k={KEY}"),
            &format!("vapid t={TOKEN}, k=AAAA"),
            &format!("Basic {TOKEN}"),
            &format!("WebPush {TOKEN}"),
        ] {
            assert!(read(&headers(bad, "")).is_err(), "{bad}");
        }
        assert!(!judge(b"vapid t=a.b.c, k=\xff", b""));
        // `alg: none` and a key that is no point of the curve.
        let none = "eyJhbGciOiJub25lIn0.e30.";
        let presented = read(&headers(&format!("vapid t={none}, k={KEY}"), "")).unwrap();
        let refused = presented.check("https://push.example.net", Timestamp(0));
        assert!(refused.unwrap_err().contains("ES256"));
        let off = KEY.replace("BPs", "BPw");
        let presented = read(&headers(&format!("vapid t={TOKEN}, k={off}"), "")).unwrap();
        let now = Timestamp((EXP - 1) * 1_000);
        assert!(presented.check("https://push.example.net", now).is_err());
    }

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        let of = |url: &str| origin_of(url).unwrap_or_default();
        assert_eq!(of("https://Push.Example:443/base"), "https://push.example");
        assert_eq!(of("http://127.0.0.1:7400"), "http://127.0.0.1:7400");
        assert_eq!(of("http://[::1]:80/x"), "http://[::1]");
        assert_eq!(of("ftp://x"), "");
        assert_eq!(of("nonsense"), "");
    }
}
