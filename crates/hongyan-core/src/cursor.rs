//! A place in an inbox, opaque to clients.

use std::fmt::{self, Write as _};

/// Everything up to here has been seen: one number for each source that an inbox merges.
///
/// Its text form is opaque and checked: a cursor that was cut, mistyped or made up does not parse;
/// one of another reader or of a rebuilt store parses and is noticed by `reader` and `epoch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// Which life of the store it belongs to.
    pub epoch: u32,
    /// Hash of (app, device, user): whose inbox it is a place in.
    pub reader: u32,
    /// Last seen entry of the user's ring; 0 is before the first.
    pub user: u64,
    /// Last seen entry of the device's own ring.
    pub device: u64,
    /// Last seen broadcast of the app.
    pub broadcast: u64,
}

/// The text is not a cursor of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is malformed; use one that the server gave, unchanged, or none")]
pub struct MalformedCursor;

const BYTES: usize = 36;
/// Base32 without padding, digits and lower case: safe in headers, URLs and SSE ids.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl Cursor {
    /// Bytes of the text form, always.
    pub const TEXT_BYTES: usize = (BYTES * 8).div_ceil(5);

    /// Reads the text form.
    ///
    /// # Errors
    /// [`MalformedCursor`] for anything that this type did not write.
    pub fn parse(text: &str) -> Result<Self, MalformedCursor> {
        if text.len() != Self::TEXT_BYTES {
            return Err(MalformedCursor);
        }
        let (mut bytes, mut at, mut acc, mut bits) = ([0u8; BYTES], 0usize, 0u32, 0u32);
        for c in text.bytes() {
            let value = ALPHABET
                .iter()
                .position(|a| *a == c)
                .ok_or(MalformedCursor)?;
            acc = (acc << 5) | u32::try_from(value).map_err(|_| MalformedCursor)?;
            bits += 5;
            if bits >= 8 {
                bits -= 8;
                let Some(slot) = bytes.get_mut(at) else {
                    return Err(MalformedCursor);
                };
                *slot = (acc >> bits).to_le_bytes()[0];
                acc &= (1 << bits) - 1;
                at += 1;
            }
        }
        if at != BYTES || acc != 0 {
            return Err(MalformedCursor);
        }
        let u32_at =
            |i: usize| u32::from_be_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        let u64_at = |i: usize| (u64::from(u32_at(i)) << 32) | u64::from(u32_at(i + 4));
        if u32_at(32) != checksum(&bytes[..32]) {
            return Err(MalformedCursor);
        }
        Ok(Self {
            epoch: u32_at(0),
            reader: u32_at(4),
            user: u64_at(8),
            device: u64_at(16),
            broadcast: u64_at(24),
        })
    }

    /// The text form, all of it ASCII.
    #[must_use]
    pub fn text(&self) -> [u8; Self::TEXT_BYTES] {
        let mut bytes = [0u8; BYTES];
        bytes[0..4].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.reader.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.user.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.device.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.broadcast.to_be_bytes());
        let sum = checksum(&bytes[..32]);
        bytes[32..36].copy_from_slice(&sum.to_be_bytes());
        // Five bytes are eight letters; the last letters are of a group that is filled up with zeros.
        let mut text = [0u8; Self::TEXT_BYTES];
        for (group, letters) in bytes.chunks(5).zip(text.chunks_mut(8)) {
            let mut padded = [0u8; 8];
            padded[3..3 + group.len()].copy_from_slice(group);
            let bits = u64::from_be_bytes(padded);
            for (at, letter) in letters.iter_mut().enumerate() {
                *letter = ALPHABET[(bits >> (35 - 5 * at) & 31) as usize];
            }
        }
        text
    }

    /// Whether every part is at or before the other's; epochs and readers must agree.
    #[must_use]
    pub const fn covers(&self, other: &Self) -> bool {
        self.epoch == other.epoch
            && self.reader == other.reader
            && self.user >= other.user
            && self.device >= other.device
            && self.broadcast >= other.broadcast
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text()
            .iter()
            .try_for_each(|letter| f.write_char(char::from(*letter)))
    }
}

/// FNV-1a: it notices slips, not forgers; a cursor grants nothing.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |h, b| {
        (h ^ u32::from(*b)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_form_round_trips(epoch: u32, reader: u32, user: u64, device: u64, broadcast: u64) {
            let cursor = Cursor { epoch, reader, user, device, broadcast };
            prop_assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor));
        }

        #[test]
        fn other_text_is_refused(text in "\\PC{0,80}") {
            prop_assert!(Cursor::parse(&text).is_err());
        }
    }
}
