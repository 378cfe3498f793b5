//! The key with which an application server names itself to push services (RFC 8292), in every form in which it is kept.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;

use crate::jwt::Signer;

/// What stands before the 32 bytes of the private key in an `ECPrivateKey` (RFC 5915): version 1, a string of 32 bytes.
const PRIVATE_MARK: &[u8] = &[2, 1, 1, 4, 32];
/// What stands before the public point: a bit string of 65 bytes.
const PUBLIC_MARK: &[u8] = &[3, 66, 0];

/// A key pair that signs, with its public half as browsers take it (`applicationServerKey`).
pub(super) struct Vapid {
    pub(super) signer: Signer,
    /// 65 bytes in base64url.
    pub(super) public_key: String,
}

impl fmt::Debug for Vapid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vapid")
            .field("public_key", &self.public_key)
            .finish_non_exhaustive()
    }
}

impl Vapid {
    /// Reads a private key: PEM (`PRIVATE KEY` or `EC PRIVATE KEY`), its DER in base64, or the bare 32 bytes in base64url as
    /// web-push tools print them, which need the public key beside them.
    pub(super) fn read(private_key: &str, public_key: Option<&str>) -> Result<Self, String> {
        let der = if private_key.contains("-----BEGIN") {
            PrivateKeyDer::from_pem_slice(private_key.as_bytes())
                .map_err(|_| "is not a PEM private key".to_owned())?
                .secret_der()
                .to_vec()
        } else {
            decode(private_key).ok_or("is neither PEM nor base64url")?
        };
        let private = if der.len() == 32 {
            der.as_slice()
        } else {
            after(&der, PRIVATE_MARK, 32).ok_or("is not a P-256 private key")?
        };
        let given = match public_key {
            Some(text) => Some(
                decode(text)
                    .filter(|point| point.len() == 65)
                    .ok_or("has a public_key that is not 65 bytes in base64url")?,
            ),
            None => None,
        };
        let public = given.as_deref().or_else(|| after(&der, PUBLIC_MARK, 65));
        let public = public.ok_or("comes without its public half: set public_key as well")?;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            private,
            public,
            &SystemRandom::new(),
        )
        .map_err(|_| "is not a P-256 private key, or public_key is not its public half")?;
        Ok(Self {
            public_key: URL_SAFE_NO_PAD.encode(pair.public_key().as_ref()),
            signer: Signer::Es256(pair),
        })
    }

    /// `vapid t=…, k=…` for a push service (RFC 8292 section 3); `None` when the system's source of chance fails.
    pub(super) fn authorization(
        &self,
        audience: &str,
        subject: &str,
        expires_s: i64,
    ) -> Option<String> {
        let claims = json!({"aud": audience, "exp": expires_s, "sub": subject});
        let token = self.signer.sign(json!({"typ": "JWT"}), &claims)?;
        Some(format!("vapid t={token}, k={}", self.public_key))
    }
}

/// A new key pair, both halves in base64url as the credential takes them; `None` when the system's source of chance fails.
#[must_use]
pub fn generate() -> Option<(String, String)> {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).ok()?;
    let der = document.as_ref();
    let text = |mark, len| Some(URL_SAFE_NO_PAD.encode(after(der, mark, len)?));
    Some((text(PRIVATE_MARK, 32)?, text(PUBLIC_MARK, 65)?))
}

/// Base64 of either alphabet, with or without padding: all occur in the wild.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let bare: String = text
        .trim()
        .trim_end_matches('=')
        .chars()
        .filter(|c| !c.is_ascii_whitespace())
        .map(|c| match c {
            '+' => '-',
            '/' => '_',
            other => other,
        })
        .collect();
    URL_SAFE_NO_PAD
        .decode(&bare)
        .or_else(|_| STANDARD.decode(text.trim()))
        .ok()
}

/// The bytes that follow a mark.
fn after<'a>(der: &'a [u8], mark: &[u8], len: usize) -> Option<&'a [u8]> {
    let at = der.windows(mark.len()).position(|window| window == mark)? + mark.len();
    der.get(at..at + len)
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    fn pem(label: &str, der: &[u8]) -> String {
        let text = STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    }

    fn check_vapid(header: &str, audience: &str, expires_s: i64, subject: &str) {
        let parts = header.strip_prefix("vapid t=").unwrap();
        let (token, key) = parts
            .split_once(", k=")
            .or(parts.split_once(",k="))
            .unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, decode(key).unwrap())
            .verify(signed.as_bytes(), &decode(signature).unwrap())
            .unwrap();
        let (head, claims) = signed.split_once('.').unwrap();
        let json =
            |part| -> serde_json::Value { serde_json::from_slice(&decode(part).unwrap()).unwrap() };
        assert_eq!(json(head), json!({"typ": "JWT", "alg": "ES256"}));
        let want = json!({"aud": audience, "exp": expires_s, "sub": subject});
        assert_eq!(json(claims), want);
    }

    #[test]
    fn ours_and_the_example_of_rfc_8292_pass_the_same_check() {
        let example = "vapid t=eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0.i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA, k=BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";
        let (audience, subject) = ("https://push.example.net", "mailto:push@example.com");
        check_vapid(example, audience, 1_453_523_768, subject);
        let (private, public) = generate().unwrap();
        let vapid = Vapid::read(&private, Some(&public)).unwrap();
        let ours = vapid.authorization(audience, subject, 7).unwrap();
        check_vapid(&ours, audience, 7, subject);
    }

    #[test]
    fn every_form_of_a_key_is_read() {
        let random = SystemRandom::new();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pkcs8 = pkcs8.as_ref();
        let private = after(pkcs8, PRIVATE_MARK, 32).unwrap();
        let public = after(pkcs8, PUBLIC_MARK, 65).unwrap();
        // As `openssl ecparam -genkey -name prime256v1` writes it.
        let mut sec1 = vec![0x30, 0x77, 2, 1, 1, 4, 32];
        sec1.extend_from_slice(private);
        sec1.extend([0xa0, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
        sec1.extend([0xa1, 0x44, 3, 66, 0]);
        sec1.extend_from_slice(public);
        let point = URL_SAFE_NO_PAD.encode(public);
        for (form, with_public) in [
            (pem("PRIVATE KEY", pkcs8), false),
            (pem("EC PRIVATE KEY", &sec1), false),
            (URL_SAFE_NO_PAD.encode(pkcs8), false),
            (STANDARD.encode(&sec1), true),
            (URL_SAFE_NO_PAD.encode(private), true),
            (STANDARD.encode(private), true),
        ] {
            let vapid = Vapid::read(&form, with_public.then_some(point.as_str())).unwrap();
            assert_eq!(vapid.public_key, point);
        }
    }

    #[test]
    fn unreadable_keys_are_explained() {
        let (private, public) = generate().unwrap();
        let (_, other) = generate().unwrap();
        for (private, public, words) in [
            ("!", None, "base64url"),
            ("AAAA", None, "P-256"),
            (private.as_str(), None, "public_key"),
            (&private, Some("AAAA"), "65 bytes"),
            (&private, Some(other.as_str()), "public half"),
            ("-----BEGIN X-----", Some(&public), "PEM"),
        ] {
            let problem = Vapid::read(private, public).unwrap_err();
            assert!(problem.contains(words), "{problem}");
        }
    }
}
