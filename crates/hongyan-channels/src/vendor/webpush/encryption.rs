//! Message encryption for Web Push (RFC 8291) in the coding `aes128gcm` (RFC 8188), one record.

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::hmac::{HMAC_SHA256, Key, sign};
use ring::rand::{SecureRandom as _, SystemRandom};

/// Largest body that every push service takes, bytes (RFC 8030 section 7.2).
const BODY_BYTES_MAX: usize = 4096;
/// Length of an uncompressed P-256 point.
pub(super) const POINT_BYTES: usize = 65;
/// Length of a subscription's authentication secret.
pub(super) const AUTH_BYTES: usize = 16;
const SALT_BYTES: usize = 16;
/// Salt, record size, length of the key id and the key id, which is the sender's point.
const HEADER_BYTES: usize = SALT_BYTES + 4 + 1 + POINT_BYTES;
const TAG_BYTES: usize = 16;
/// Largest plaintext: one byte marks its end.
pub(super) const PLAINTEXT_BYTES_MAX: usize = BODY_BYTES_MAX - HEADER_BYTES - 1 - TAG_BYTES;
/// Written into every header; a single record only has to be shorter.
const RECORD_BYTES: u32 = 4096;
/// Ends the last record.
const LAST: u8 = 2;

/// Why nothing was encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsealed {
    /// The subscription's key is no point on P-256.
    Point,
    /// The system's source of chance failed, or the plaintext is too long.
    Here,
}

/// What a message is encrypted for.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    /// `p256dh`: the browser's public key.
    pub(super) point: &'a [u8; POINT_BYTES],
    /// `auth`: the secret that the browser shares with the sender.
    pub(super) auth: &'a [u8; AUTH_BYTES],
}

/// Encrypts with a key pair and a salt made for this message alone.
pub(super) fn seal(keys: Keys<'_>, plaintext: &[u8]) -> Result<Vec<u8>, Unsealed> {
    let random = SystemRandom::new();
    let mut salt = [0; SALT_BYTES];
    random.fill(&mut salt).map_err(|_| Unsealed::Here)?;
    let private = EphemeralPrivateKey::generate(&ECDH_P256, &random).map_err(|_| Unsealed::Here)?;
    let public = private.compute_public_key().map_err(|_| Unsealed::Here)?;
    let theirs = UnparsedPublicKey::new(&ECDH_P256, keys.point);
    agree_ephemeral(private, &theirs, |shared| {
        seal_with(shared, public.as_ref(), &salt, keys, plaintext)
    })
    .map_err(|_| Unsealed::Point)?
    .ok_or(Unsealed::Here)
}

/// The same from the shared secret on, for the vectors of the RFC.
fn seal_with(
    shared: &[u8],
    public: &[u8],
    salt: &[u8; SALT_BYTES],
    keys: Keys<'_>,
    plaintext: &[u8],
) -> Option<Vec<u8>> {
    if plaintext.len() > PLAINTEXT_BYTES_MAX || public.len() != POINT_BYTES {
        return None;
    }
    let (key, nonce) = key_and_nonce(shared, public, salt, keys);
    let mut body = Vec::with_capacity(HEADER_BYTES + plaintext.len() + 1 + TAG_BYTES);
    body.extend_from_slice(salt);
    body.extend_from_slice(&RECORD_BYTES.to_be_bytes());
    body.push(u8::try_from(POINT_BYTES).ok()?);
    body.extend_from_slice(public);
    body.extend_from_slice(plaintext);
    body.push(LAST);
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref().get(..16)?).ok()?);
    let nonce = Nonce::try_assume_unique_for_key(nonce.as_ref().get(..12)?).ok()?;
    let record = body.get_mut(HEADER_BYTES..)?;
    let tag = key
        .seal_in_place_separate_tag(nonce, Aad::empty(), record)
        .ok()?;
    body.extend_from_slice(tag.as_ref());
    Some(body)
}

/// The content key and its nonce, each the head of an HKDF block (RFC 8291 section 3.4).
fn key_and_nonce(
    shared: &[u8],
    public: &[u8],
    salt: &[u8; SALT_BYTES],
    keys: Keys<'_>,
) -> (ring::hmac::Tag, ring::hmac::Tag) {
    let mac = |key: &[u8], data: &[u8]| sign(&Key::new(HMAC_SHA256, key), data);
    let mut info = Vec::with_capacity(14 + 2 * POINT_BYTES + 1);
    info.extend_from_slice(b"WebPush: info\0");
    info.extend_from_slice(keys.point);
    info.extend_from_slice(public);
    info.push(1);
    let ikm = mac(mac(keys.auth, shared).as_ref(), &info);
    let pseudorandom = Key::new(HMAC_SHA256, mac(salt, ikm.as_ref()).as_ref());
    (
        sign(&pseudorandom, b"Content-Encoding: aes128gcm\0\x01"),
        sign(&pseudorandom, b"Content-Encoding: nonce\0\x01"),
    )
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    // RFC 8291 appendix A.
    const POINT: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";
    const PUBLIC: &str =
        "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8";
    const SALT: &str = "DGv6ra1nlYgDCS1FRnbzlw";
    const SHARED: &str = "kyrL1jIIOHEzg3sM2ZWRHDRB62YACZhhSlknJ672kSs";
    const BODY: &str = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        URL_SAFE_NO_PAD.decode(text).unwrap().try_into().unwrap()
    }

    #[test]
    fn the_example_of_rfc_8291_comes_out() {
        let (point, auth) = (bytes(POINT), bytes(AUTH));
        let keys = Keys {
            point: &point,
            auth: &auth,
        };
        let (shared, public) = (bytes::<32>(SHARED), bytes::<POINT_BYTES>(PUBLIC));
        let (key, nonce) = key_and_nonce(&shared, &public, &bytes(SALT), keys);
        assert_eq!(key.as_ref()[..16], bytes::<16>("oIhVW04MRdy2XN9CiKLxTg"));
        assert_eq!(nonce.as_ref()[..12], bytes::<12>("4h_95klXJ5E_qnoN"));
        let text = b"When I grow up, I want to be a watermelon";
        let body = seal_with(&shared, &public, &bytes(SALT), keys, text).unwrap();
        assert_eq!(URL_SAFE_NO_PAD.encode(body), BODY);
    }

    #[test]
    fn every_message_has_its_own_key_and_salt() {
        let (point, auth) = (bytes(POINT), bytes(AUTH));
        let keys = Keys {
            point: &point,
            auth: &auth,
        };
        let (a, b) = (seal(keys, b"x").unwrap(), seal(keys, b"x").unwrap());
        assert_ne!(a[..SALT_BYTES], b[..SALT_BYTES]);
        assert_ne!(a[21..HEADER_BYTES], b[21..HEADER_BYTES]);
        let full = vec![0; PLAINTEXT_BYTES_MAX];
        assert_eq!(PLAINTEXT_BYTES_MAX, 3993);
        assert_eq!(seal(keys, &full).unwrap().len(), BODY_BYTES_MAX);
        let long = vec![0; PLAINTEXT_BYTES_MAX + 1];
        assert_eq!(seal(keys, &long), Err(Unsealed::Here));
    }

    #[test]
    fn a_point_off_the_curve_is_refused() {
        let auth = bytes(AUTH);
        for spoilt in [1, 64] {
            let mut point: [u8; POINT_BYTES] = bytes(POINT);
            point[spoilt] ^= 1;
            let keys = Keys {
                point: &point,
                auth: &auth,
            };
            assert_eq!(seal(keys, b"x"), Err(Unsealed::Point));
        }
    }
}
