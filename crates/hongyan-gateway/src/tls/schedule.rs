//! The part of TLS 1.3's key schedule that a connection needs after its handshake (RFC 8446
//! sections 5.3, 7.2 and 7.3): from a traffic secret follow its key, its IV and the next secret.

use ring::aead::{self, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::error::Unspecified;
use ring::hkdf::{self, Prk};
use zeroize::{Zeroize as _, Zeroizing};

/// Bytes of the longest secret, that of SHA-384.
const SECRET_BYTES_MAX: usize = 48;
/// Bytes of the longest key.
const KEY_BYTES_MAX: usize = 32;
/// Bytes of the tag that every algorithm here adds.
pub(super) const TAG_BYTES: usize = 16;

/// The cipher suites of TLS 1.3 that are spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// `TLS_AES_128_GCM_SHA256`.
    Aes128Gcm,
    /// `TLS_AES_256_GCM_SHA384`.
    Aes256Gcm,
    /// `TLS_CHACHA20_POLY1305_SHA256`.
    Chacha20Poly1305,
}

impl Suite {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::Chacha20Poly1305];

    /// Bytes of a traffic secret: as many as the suite's hash has.
    #[must_use]
    pub const fn secret_bytes(self) -> usize {
        match self {
            Self::Aes256Gcm => 48,
            Self::Aes128Gcm | Self::Chacha20Poly1305 => 32,
        }
    }

    fn hkdf(self) -> hkdf::Algorithm {
        match self {
            Self::Aes256Gcm => hkdf::HKDF_SHA384,
            Self::Aes128Gcm | Self::Chacha20Poly1305 => hkdf::HKDF_SHA256,
        }
    }

    fn aead(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128Gcm => &aead::AES_128_GCM,
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::Chacha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }
}

/// One direction of a connection: what its keys follow from, and the number of its next record.
///
/// The secret is overwritten when this is dropped or moves on. What ring makes of it (HMAC state
/// and expanded AEAD keys) lives on the stack for one turn and cannot be overwritten, as ring
/// has no way to.
pub(super) struct Direction {
    secret: [u8; SECRET_BYTES_MAX],
    /// 32 bits are enough: what is sent changes its keys far below, what comes is asked to.
    pub(super) seq: u32,
}

impl Direction {
    /// Nothing when the secret has not the suite's length.
    pub(super) fn new(suite: Suite, secret: &[u8], seq: u32) -> Option<Self> {
        if secret.len() != suite.secret_bytes() {
            return None;
        }
        let mut own = Self {
            secret: [0; SECRET_BYTES_MAX],
            seq,
        };
        own.secret[..secret.len()].copy_from_slice(secret);
        Some(own)
    }

    fn prk(&self, suite: Suite) -> Prk {
        Prk::new_less_safe(suite.hkdf(), &self.secret[..suite.secret_bytes()])
    }

    /// The key and the IV that belong to the secret.
    pub(super) fn raw(&self, suite: Suite) -> Result<Raw, Unspecified> {
        let prk = self.prk(suite);
        let mut raw = Raw {
            key: Zeroizing::new([0; KEY_BYTES_MAX]),
            key_len: suite.aead().key_len(),
            iv: Zeroizing::new([0; NONCE_LEN]),
        };
        expand_label(&prk, b"key", &mut raw.key[..raw.key_len])?;
        expand_label(&prk, b"iv", &mut raw.iv[..])?;
        Ok(raw)
    }

    /// Keys ready for use: more than 500 bytes, to be kept for a turn and not longer.
    pub(super) fn keys(&self, suite: Suite) -> Result<Keys, Unspecified> {
        let raw = self.raw(suite)?;
        let key = UnboundKey::new(suite.aead(), raw.key())?;
        Ok(Keys {
            key: LessSafeKey::new(key),
            iv: raw.iv,
        })
    }

    /// Goes on to the next secret, as after a key update.
    pub(super) fn advance(&mut self, suite: Suite) -> Result<(), Unspecified> {
        let mut next = Zeroizing::new([0; SECRET_BYTES_MAX]);
        let len = suite.secret_bytes();
        expand_label(&self.prk(suite), b"traffic upd", &mut next[..len])?;
        self.secret.zeroize();
        self.secret[..len].copy_from_slice(&next[..len]);
        self.seq = 0;
        Ok(())
    }
}

impl Drop for Direction {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// A key and an IV in bytes.
pub(super) struct Raw {
    key: Zeroizing<[u8; KEY_BYTES_MAX]>,
    key_len: usize,
    iv: Zeroizing<[u8; NONCE_LEN]>,
}

impl Raw {
    pub(super) fn key(&self) -> &[u8] {
        &self.key[..self.key_len]
    }

    pub(super) fn iv(&self) -> &[u8] {
        &self.iv[..]
    }
}

/// Opens or seals records of one direction.
pub(super) struct Keys {
    key: LessSafeKey,
    iv: Zeroizing<[u8; NONCE_LEN]>,
}

impl Keys {
    /// Opens in place; how many bytes of it are plain text now.
    pub(super) fn open(
        &self,
        seq: u32,
        header: [u8; 5],
        sealed: &mut [u8],
    ) -> Result<usize, Unspecified> {
        self.key
            .open_in_place(self.nonce(seq), Aad::from(header), sealed)
            .map(|plain| plain.len())
    }

    /// Seals in place; the tag that goes behind.
    pub(super) fn seal(
        &self,
        seq: u32,
        header: [u8; 5],
        plain: &mut [u8],
    ) -> Result<aead::Tag, Unspecified> {
        self.key
            .seal_in_place_separate_tag(self.nonce(seq), Aad::from(header), plain)
    }

    /// The IV with the record's number added (RFC 8446 section 5.3).
    fn nonce(&self, seq: u32) -> Nonce {
        let mut nonce = *self.iv;
        for (byte, with) in nonce[NONCE_LEN - 4..].iter_mut().zip(seq.to_be_bytes()) {
            *byte ^= with;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label without a context (RFC 8446 section 7.1).
fn expand_label(prk: &Prk, label: &[u8], out: &mut [u8]) -> Result<(), Unspecified> {
    const PREFIX: &[u8] = b"tls13 ";
    let length = (out.len() as u16).to_be_bytes();
    let label_len = [(PREFIX.len() + label.len()) as u8];
    let info = [&length[..], &label_len, PREFIX, label, &[0]];
    prk.expand(&info, Length(out.len()))?.fill(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
            .collect()
    }

    /// RFC 8448 section 3, "derive write traffic keys for application data".
    #[test]
    fn keys_follow_from_secrets() {
        let check = |secret: &str, key: &str, iv: &str| {
            let direction = Direction::new(Suite::Aes128Gcm, &bytes(secret), 0).unwrap();
            let raw = direction.raw(Suite::Aes128Gcm).unwrap();
            assert_eq!(raw.key(), bytes(key));
            assert_eq!(raw.iv(), bytes(iv));
        };
        check(
            "a1 1a f9 f0 55 31 f8 56 ad 47 11 6b 45 a9 50 32 82 04 b4 f4 4b fb 6b 3a 4b 4f 1f 3f cb 63 16 43",
            "9f 02 28 3b 6c 9c 07 ef c2 6b b9 f2 ac 92 e3 56",
            "cf 78 2b 88 dd 83 54 9a ad f1 e9 84",
        );
        check(
            "9e 40 64 6c e7 9a 7f 9d c0 5a f8 88 9b ce 65 52 87 5a fa 0b 06 df 00 87 f7 92 eb b7 c1 75 04 a5",
            "17 42 2d da 59 6e d5 d9 ac d8 90 e3 c6 3f 50 51",
            "5b 78 92 3d ee 08 57 90 33 e5 23 d9",
        );
    }

    #[test]
    fn a_secret_has_the_length_of_its_hash() {
        for suite in Suite::ALL {
            let len = suite.secret_bytes();
            assert!(Direction::new(suite, &vec![1; len], 0).is_some());
            assert!(Direction::new(suite, &vec![1; len - 1], 0).is_none());
            assert!(Direction::new(suite, &vec![1; len + 1], 0).is_none());
        }
    }

    #[test]
    fn nonces_count_at_the_end_of_the_iv() {
        let direction = Direction::new(Suite::Aes128Gcm, &[3; 32], 0).unwrap();
        let keys = direction.keys(Suite::Aes128Gcm).unwrap();
        let iv = *keys.iv;
        let nonce = *keys.nonce(0x0102_0304).as_ref();
        assert_eq!(nonce[..8], iv[..8]);
        assert_eq!(nonce[8] ^ iv[8], 1);
        assert_eq!(nonce[11] ^ iv[11], 4);
    }
}
