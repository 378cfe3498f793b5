//! JSON Web Tokens as the vendors check them: ES256, RS256 and PS256 (RFC 7515, RFC 7518).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rsa::PublicKeyComponents;
use ring::signature::{self, KeyPair as _, UnparsedPublicKey};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;

use crate::error::SandboxError;

/// A token taken apart, not yet believed.
pub(crate) struct Jwt<'a> {
    header: Value,
    claims: Value,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Jwt<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let part = |part: &str| -> Option<Value> {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
        };
        Some(Self {
            header: part(header)?,
            claims: part(claims)?,
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.header.get(name)?.as_str()
    }

    pub(crate) fn claim(&self, name: &str) -> Option<&str> {
        self.claims.get(name)?.as_str()
    }

    pub(crate) fn seconds(&self, name: &str) -> Option<i64> {
        self.claims.get(name)?.as_i64()
    }

    /// ES256 with the raw R||S signature; DER is let through as Apple's own shell sample sends it.
    pub(crate) fn verified_es256(&self, key: &EcKey) -> bool {
        let signed = self.signed.as_bytes();
        UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, &key.0)
            .verify(signed, &self.signature)
            .or_else(|_| {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, &key.0)
                    .verify(signed, &self.signature)
            })
            .is_ok()
    }

    pub(crate) fn verified_rs256(&self, key: &RsaKey) -> bool {
        self.verified_rsa(key, &signature::RSA_PKCS1_2048_8192_SHA256)
    }

    pub(crate) fn verified_ps256(&self, key: &RsaKey) -> bool {
        self.verified_rsa(key, &signature::RSA_PSS_2048_8192_SHA256)
    }

    fn verified_rsa(&self, key: &RsaKey, how: &'static signature::RsaParameters) -> bool {
        PublicKeyComponents {
            n: &key.modulus,
            e: &key.exponent,
        }
        .verify(how, self.signed.as_bytes(), &self.signature)
        .is_ok()
    }
}

/// Public half of a P-256 key.
#[derive(Debug)]
pub(crate) struct EcKey(Vec<u8>);

impl EcKey {
    /// An uncompressed point of 65 bytes.
    pub(crate) const fn from_point(point: Vec<u8>) -> Self {
        Self(point)
    }

    pub(crate) fn from_private_pem(pem: &str) -> Result<Self, SandboxError> {
        const WHAT: &str = "the APNs verification key";
        let der = pkcs8(pem, WHAT)?;
        let random = ring::rand::SystemRandom::new();
        let pair = signature::EcdsaKeyPair::from_pkcs8(
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            der.secret_pkcs8_der(),
            &random,
        )
        .map_err(|fault| SandboxError::Key {
            what: WHAT,
            why: fault.to_string(),
        })?;
        Ok(Self(pair.public_key().as_ref().to_vec()))
    }
}

/// Public half of an RSA key.
#[derive(Debug)]
pub(crate) struct RsaKey {
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

impl RsaKey {
    pub(crate) fn from_private_pem(pem: &str) -> Result<Self, SandboxError> {
        const WHAT: &str = "a service account's verification key";
        let der = pkcs8(pem, WHAT)?;
        let pair = ring::rsa::KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|fault| {
            SandboxError::Key {
                what: WHAT,
                why: fault.to_string(),
            }
        })?;
        let public: PublicKeyComponents<Vec<u8>> = pair.public().into();
        Ok(Self {
            modulus: public.n,
            exponent: public.e,
        })
    }
}

fn pkcs8(pem: &str, what: &'static str) -> Result<PrivatePkcs8KeyDer<'static>, SandboxError> {
    PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|fault| SandboxError::Key {
        what,
        why: fault.to_string(),
    })
}
