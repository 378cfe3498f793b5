//! The browser's side of message encryption: RFC 8291 over the coding `aes128gcm` of RFC 8188.

use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use p256::{PublicKey, SecretKey};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac::{HMAC_SHA256, Key, Tag, sign};

const SALT_BYTES: usize = 16;
const POINT_BYTES: usize = 65;
/// A record holds at least one byte of content beside delimiter and tag.
const RECORD_BYTES_MIN: usize = 18;

/// The head of a body in `aes128gcm`, and what follows it.
struct Coded<'a> {
    salt: &'a [u8],
    record_bytes: usize,
    key_id: &'a [u8],
    records: &'a [u8],
}

impl<'a> Coded<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, &'static str> {
        let cut = |from: usize, len: usize| body.get(from..from + len).ok_or("is cut off");
        let record_bytes = cut(SALT_BYTES, 4)?
            .iter()
            .fold(0, |n: usize, byte| (n << 8) | usize::from(*byte));
        if record_bytes < RECORD_BYTES_MIN {
            return Err("has a record size under 18");
        }
        let id_bytes = usize::from(*cut(SALT_BYTES + 4, 1)?.first().ok_or("is cut off")?);
        Ok(Self {
            salt: cut(0, SALT_BYTES)?,
            record_bytes,
            key_id: cut(SALT_BYTES + 5, id_bytes)?,
            records: body.get(SALT_BYTES + 5 + id_bytes..).ok_or("is cut off")?,
        })
    }
}

/// Decrypts a push message for a subscription.
pub(super) fn open(private: &SecretKey, auth: &[u8], body: &[u8]) -> Result<Vec<u8>, &'static str> {
    let coded = Coded::parse(body)?;
    if coded.key_id.len() != POINT_BYTES {
        return Err("has a key id that is not a point of 65 bytes");
    }
    if coded.records.len() > coded.record_bytes {
        return Err("has more than one record");
    }
    let theirs = PublicKey::from_sec1_bytes(coded.key_id)
        .map_err(|_| "has a key id that is no point on P-256")?;
    let shared = (theirs.to_projective() * *private.to_nonzero_scalar()).to_affine();
    let shared = shared.to_encoded_point(false);
    let shared = shared.x().ok_or("has a key id that is no point on P-256")?;
    let mut info = b"WebPush: info\0".to_vec();
    info.extend_from_slice(private.public_key().to_encoded_point(false).as_bytes());
    info.extend_from_slice(coded.key_id);
    info.push(1);
    let ikm = mac(mac(auth, shared).as_ref(), &info);
    decode(&coded, ikm.as_ref())
}

fn mac(key: &[u8], data: &[u8]) -> Tag {
    sign(&Key::new(HMAC_SHA256, key), data)
}

/// Decrypts all records with keying material that the two agreed on.
fn decode(coded: &Coded<'_>, ikm: &[u8]) -> Result<Vec<u8>, &'static str> {
    const BROKEN: &str = "cannot be decrypted with the subscription's keys";
    let pseudorandom = mac(coded.salt, ikm);
    let key = mac(pseudorandom.as_ref(), b"Content-Encoding: aes128gcm\0\x01");
    let base = mac(pseudorandom.as_ref(), b"Content-Encoding: nonce\0\x01");
    let key = key.as_ref().get(..16).ok_or(BROKEN)?;
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).map_err(|_| BROKEN)?);
    let mut content = Vec::new();
    let mut records = coded.records.chunks(coded.record_bytes).peekable();
    let mut number = 0_u64;
    while let Some(record) = records.next() {
        let mut nonce = [0; NONCE_LEN];
        for (to, from) in nonce.iter_mut().zip(base.as_ref()) {
            *to = *from;
        }
        for (to, from) in nonce.iter_mut().rev().zip(number.to_le_bytes()) {
            *to ^= from;
        }
        number += 1;
        let mut record = record.to_vec();
        let plain = key
            .open_in_place(
                Nonce::assume_unique_for_key(nonce),
                Aad::empty(),
                &mut record,
            )
            .map_err(|_| BROKEN)?;
        let end = plain
            .iter()
            .rposition(|byte| *byte != 0)
            .ok_or("is all padding")?;
        let delimiter = if records.peek().is_some() { 1 } else { 2 };
        if plain.get(end) != Some(&delimiter) {
            return Err("has a record that does not end as it should");
        }
        content.extend_from_slice(plain.get(..end).unwrap_or_default());
    }
    if number == 0 {
        return Err("has no record");
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    #[test]
    fn the_examples_of_rfc_8188_are_read() {
        for (ikm, body) in [
            (
                "yqdlZ-tYemfogSmv7Ws5PQ",
                "I1BsxtFttlv3u_Oo94xnmwAAEAAA-NAVub2qFgBEuQKRapoZu-IxkIva3MEB1PD-ly8Thjg",
            ),
            (
                "BO3ZVPxUlnLORbVGMpbT1Q",
                "uNCkWiNYzKTnBN9ji3-qWAAAABkCYTHOG8chz_gnvgOqdGYovxyjuqRyJFjEDyoF1Fvkj6hQPdPHI51OEUKEpgz3SsLWIqS_uA",
            ),
        ] {
            let body = bytes(body);
            let coded = Coded::parse(&body).unwrap();
            let content = decode(&coded, &bytes(ikm)).unwrap();
            assert_eq!(content, b"I am the walrus");
        }
    }

    #[test]
    fn the_example_of_rfc_8291_is_read_and_nothing_that_differs() {
        let private =
            SecretKey::from_slice(&bytes("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94")).unwrap();
        let auth = bytes("BTBZMqHH6r4Tts7J_aSIgg");
        let body = bytes(
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN",
        );
        let text = open(&private, &auth, &body).unwrap();
        assert_eq!(text, b"When I grow up, I want to be a watermelon");
        // With padding.
        let padded = bytes(
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_e3c9cFr7_NBueh6wE2CU_nQWE1ds1aqnlkxh84dqQK6jToYfEq1XxSc6u8saQNNA",
        );
        assert_eq!(
            open(&private, &auth, &padded).unwrap(),
            b"{\"title\":\"T\"}"
        );
        for at in 0..body.len() {
            let mut spoilt = body.clone();
            spoilt[at] ^= 1;
            // The record size alone is not part of what is signed.
            let free = (16..20).contains(&at);
            assert_eq!(open(&private, &auth, &spoilt).is_ok(), free, "byte {at}");
            assert!(open(&private, &auth, &body[..at]).is_err());
        }
        assert!(open(&private, &[0; 16], &body).is_err());
    }
}
