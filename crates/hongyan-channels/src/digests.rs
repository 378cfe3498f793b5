//! Digests that vendors sign requests and callbacks with.

use md5::{Digest as _, Md5};
use ring::digest::{SHA256, digest};

/// MD5 as lower-case hex: Getui's receipts and Umeng's requests are signed with nothing better.
pub(crate) fn md5_hex(parts: &[&[u8]]) -> String {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part);
    }
    hex(&md5.finalize())
}

/// SHA-256 as lower-case hex.
pub(crate) fn sha256_hex(text: &[u8]) -> String {
    hex(digest(&SHA256, text).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standards() {
        // RFC 1321 appendix A.5, FIPS 180-4 example.
        assert_eq!(md5_hex(&[b""]), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(
            md5_hex(&[b"message", b" digest"]),
            "f96b697d7cb7938d525a2f31aaf161d0"
        );
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
