//! Keys and device tokens: how they look, how they are made and looked up.
//!
//! A key is its kind's prefix and 32 random bytes in base 62. Only the SHA-256 of the whole text is stored, and looking a
//! key up means looking its hash up: no secret is ever compared byte by byte.

use std::fmt;

use hongyan_core::app::KeyKind;
use hongyan_core::port::Dice;

/// Characters of the random part: `62^43 > 2^256`.
const RANDOM_CHARS: usize = 43;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What a bearer token claims to be, by its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// `hy_admin_…`, `hy_sk_…` or `hy_pk_…`.
    Key(KeyKind),
    /// `hy_dt_…`: acts as one device.
    Device,
    /// `hy_tk_…`: opens one connection of one device.
    Ticket,
}

impl TokenKind {
    const ALL: [Self; 4] = [
        Self::Key(KeyKind::Admin),
        Self::Key(KeyKind::Server),
        Self::Key(KeyKind::Client),
        Self::Device,
    ];

    /// The prefix of its texts.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Key(KeyKind::Admin) => "hy_admin_",
            Self::Key(KeyKind::Server) => "hy_sk_",
            Self::Key(KeyKind::Client) => "hy_pk_",
            Self::Device => "hy_dt_",
            Self::Ticket => "hy_tk_",
        }
    }
}

/// A freshly made secret: the text is shown once, the hash is stored.
pub struct Minted {
    /// The whole text.
    pub text: String,
    /// SHA-256 of the text.
    pub hash: [u8; 32],
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Minted(…)")
    }
}

/// Makes a new secret.
#[must_use]
pub fn mint(kind: TokenKind, dice: &dyn Dice) -> Minted {
    let mut random = [0u8; 32];
    dice.fill(&mut random);
    let text = format!("{}{}", kind.prefix(), base62(random));
    random.fill(0);
    let hash = hash(&text);
    Minted { text, hash }
}

/// The hash under which a key or device token is stored: SHA-256 of the whole text.
#[must_use]
pub fn hash(text: &str) -> [u8; 32] {
    sha256(text.as_bytes())
}

/// What a text claims to be; `None` when it is not a key of ours at all, so that it need not be looked up.
#[must_use]
pub fn kind_of(text: &str) -> Option<TokenKind> {
    TokenKind::ALL.into_iter().find(|kind| {
        text.strip_prefix(kind.prefix()).is_some_and(|random| {
            random.len() == RANDOM_CHARS && random.bytes().all(|b| b.is_ascii_alphanumeric())
        })
    })
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0u8; 32];
    out.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    out
}

/// Random text of `chars` characters for public handles.
#[must_use]
pub fn handle(dice: &dyn Dice, chars: usize) -> String {
    (0..chars)
        .map(|_| char::from(ALPHABET[(dice.below(62) % 62) as usize]))
        .collect()
}

/// Long division, most significant digit first, always of the same length.
fn base62(mut number: [u8; 32]) -> String {
    let mut digits = [b'0'; RANDOM_CHARS];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0u32;
        for byte in &mut number {
            let part = (rest << 8) | u32::from(*byte);
            *byte = (part / 62).to_le_bytes()[0];
            rest = part % 62;
        }
        *digit = ALPHABET[rest as usize];
    }
    digits.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fixed(u8);
    impl Dice for Fixed {
        fn fill(&self, buffer: &mut [u8]) {
            buffer.fill(self.0);
        }
    }

    #[test]
    fn minted_texts_are_known_by_kind() {
        for kind in TokenKind::ALL {
            for byte in [0, 1, 255] {
                let minted = mint(kind, &Fixed(byte));
                assert_eq!(kind_of(&minted.text), Some(kind));
                assert_eq!(minted.hash, hash(&minted.text));
                assert!(!format!("{minted:?}").contains(&minted.text));
            }
        }
        assert_ne!(
            mint(TokenKind::Device, &Fixed(1)).text,
            mint(TokenKind::Device, &Fixed(2)).text
        );
    }

    #[test]
    fn base62_is_exact() {
        assert_eq!(base62([0; 32]), "0".repeat(43));
        let mut one_over = [0u8; 32];
        one_over[31] = 63;
        assert_eq!(base62(one_over), format!("{}11", "0".repeat(41)));
    }

    #[test]
    fn other_texts_are_no_keys() {
        for text in [
            "",
            "hy_sk_",
            "hy_sk_short",
            "Bearer",
            "hy_xx_0000000000000000000000000000000000000000000",
        ] {
            assert_eq!(kind_of(text), None, "{text}");
        }
        let with_symbol = format!("hy_sk_{}!", "0".repeat(42));
        assert_eq!(kind_of(&with_symbol), None);
    }
}
