//! Signed tokens: ES256 (APNs), RS256 (Google), PS256 (Huawei).

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hongyan_core::Timestamp;
use http::HeaderValue;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

/// A private key with the algorithm that it signs with. `Debug` shows the algorithm only.
pub(crate) enum Signer {
    /// ECDSA on P-256, raw R and S.
    Es256(EcdsaKeyPair),
    /// RSASSA-PKCS1-v1_5.
    Rs256(RsaKeyPair),
    /// RSASSA-PSS with a salt of 32 bytes.
    Ps256(RsaKeyPair),
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm())
    }
}

impl Signer {
    /// Reads a PKCS#8 PEM key on P-256.
    pub(crate) fn es256(pem: &str) -> Result<Self, String> {
        EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            pkcs8(pem)?.secret_der(),
            &SystemRandom::new(),
        )
        .map(Self::Es256)
        .map_err(|e| format!("is not a P-256 private key ({e}); use the .p8 file as downloaded"))
    }

    /// Reads a PKCS#8 PEM RSA key for RS256.
    pub(crate) fn rs256(pem: &str) -> Result<Self, String> {
        rsa(pem).map(Self::Rs256)
    }

    /// Reads a PKCS#8 PEM RSA key for PS256.
    pub(crate) fn ps256(pem: &str) -> Result<Self, String> {
        rsa(pem).map(Self::Ps256)
    }

    const fn algorithm(&self) -> &'static str {
        match self {
            Self::Es256(_) => "ES256",
            Self::Rs256(_) => "RS256",
            Self::Ps256(_) => "PS256",
        }
    }

    /// Signs the claims; `alg` is added to the header. `None` when the system's source of chance fails.
    pub(crate) fn sign(&self, mut header: Value, claims: &Value) -> Option<String> {
        if let Some(fields) = header.as_object_mut() {
            fields.insert("alg".to_owned(), self.algorithm().into());
        }
        let mut token = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let rng = SystemRandom::new();
        let signature = match self {
            Self::Es256(key) => key.sign(&rng, token.as_bytes()).ok()?.as_ref().to_vec(),
            Self::Rs256(key) => rsa_sign(key, &ring::signature::RSA_PKCS1_SHA256, &rng, &token)?,
            Self::Ps256(key) => rsa_sign(key, &ring::signature::RSA_PSS_SHA256, &rng, &token)?,
        };
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Some(token)
    }
}

fn pkcs8(pem: &str) -> Result<PrivateKeyDer<'static>, String> {
    match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
        Ok(key @ PrivateKeyDer::Pkcs8(_)) => Ok(key),
        Ok(_) => Err("must be a PKCS#8 key: BEGIN PRIVATE KEY".to_owned()),
        Err(_) => Err("is not a PEM key: it must hold BEGIN PRIVATE KEY … END PRIVATE KEY with its line breaks".to_owned()),
    }
}

fn rsa(pem: &str) -> Result<RsaKeyPair, String> {
    RsaKeyPair::from_pkcs8(pkcs8(pem)?.secret_der())
        .map_err(|e| format!("is not an RSA private key of 2048 bits or more ({e})"))
}

fn rsa_sign(
    key: &RsaKeyPair,
    padding: &'static dyn ring::signature::RsaEncoding,
    rng: &SystemRandom,
    token: &str,
) -> Option<Vec<u8>> {
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(padding, rng, token.as_bytes(), &mut signature)
        .ok()?;
    Some(signature)
}

/// A token minted here and used for a while; minting is a critical section, so that all callers share one.
#[derive(Debug)]
pub(crate) struct Minted {
    /// A token is used for this long.
    reuse: Duration,
    /// A refused token is replaced no sooner than this after the last forced replacement.
    force_pause: Duration,
    state: Mutex<MintedState>,
}

#[derive(Default)]
struct MintedState {
    current: Option<(HeaderValue, Timestamp)>,
    generation: u64,
    forced_at: Option<Timestamp>,
}

impl fmt::Debug for MintedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MintedState")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Minted {
    pub(crate) fn new(reuse: Duration, force_pause: Duration) -> Self {
        Self {
            reuse,
            force_pause,
            state: Mutex::default(),
        }
    }

    /// The header value in use and its generation; `mint` makes a new one when it is too old.
    pub(crate) fn get(
        &self,
        now: Timestamp,
        mint: impl FnOnce() -> Option<HeaderValue>,
    ) -> Option<(HeaderValue, u64)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((value, at)) = &state.current {
            // A clock that was set back far is a reason to mint anew as well.
            if now.since(*at) < self.reuse && at.since(now) < Duration::from_secs(60) {
                return Some((value.clone(), state.generation));
            }
        }
        let value = mint()?;
        state.current = Some((value.clone(), now));
        state.generation += 1;
        Some((value, state.generation))
    }

    /// The vendor refused the token of this generation as expired: the next `get` mints anew, unless that was done by
    /// another caller or only just now.
    pub(crate) fn refused(&self, generation: u64, now: Timestamp) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let too_soon = state
            .forced_at
            .is_some_and(|at| now.since(at) < self.force_pause);
        if state.generation == generation && !too_soon {
            state.current = None;
            state.forced_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<HeaderValue> {
        HeaderValue::from_str(text).ok()
    }

    #[test]
    fn a_minted_token_is_reused_until_it_is_old_or_refused() {
        let minted = Minted::new(Duration::from_secs(2700), Duration::from_secs(1200));
        let t = Timestamp(1_000_000_000);
        let (_, g1) = minted.get(t, || value("a")).unwrap();
        let (v, g2) = minted
            .get(t.plus(Duration::from_secs(2699)), || value("b"))
            .unwrap();
        assert_eq!((v.to_str().unwrap(), g1), ("a", g2));
        minted.refused(g1, t);
        let (v, g3) = minted.get(t, || value("c")).unwrap();
        assert_eq!(v.to_str().unwrap(), "c");
        // Late answers about the old token change nothing, and forcing is rate limited.
        minted.refused(g1, t);
        minted.refused(g3, t.plus(Duration::from_secs(60)));
        let (v, _) = minted.get(t, || value("d")).unwrap();
        assert_eq!(v.to_str().unwrap(), "c");
        let (v, _) = minted
            .get(t.plus(Duration::from_secs(2700)), || value("e"))
            .unwrap();
        assert_eq!(v.to_str().unwrap(), "e");
    }

    #[test]
    fn unreadable_keys_are_explained() {
        assert!(Signer::es256("nonsense").unwrap_err().contains("PEM"));
        let wrong = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(Signer::es256(wrong).unwrap_err().contains("P-256"));
        assert!(Signer::rs256(wrong).unwrap_err().contains("RSA"));
    }
}
