//! Integers, strings and lengths (5.0 section 1.5).

use super::{DecodeError, EncodeError};

/// Largest value of a variable byte integer, and so of a remaining length.
pub const VARINT_MAX: u32 = 268_435_455;

/// A reader over the bytes of one packet; everything that is missing is a malformed packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(DecodeError::malformed("a field ends before its length"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self
            .rest
            .split_first()
            .ok_or(DecodeError::malformed("a byte is missing"))?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        let (number, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(DecodeError::malformed("an integer is cut"))?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*number))
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        let (number, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(DecodeError::malformed("an integer is cut"))?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*number))
    }

    pub(super) fn varint(&mut self) -> Result<u32, DecodeError> {
        match varint(self.rest)? {
            Some((value, length)) => {
                self.take(length)?;
                Ok(value)
            }
            None => Err(DecodeError::malformed("a variable byte integer is cut")),
        }
    }

    /// Binary data: two bytes of length, then that many.
    pub(super) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    pub(super) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.binary()?;
        let text = std::str::from_utf8(bytes)
            .map_err(|_| DecodeError::malformed("a string is not UTF-8"))?;
        if is_allowed(text) {
            Ok(text)
        } else {
            Err(DecodeError::malformed(
                "a string holds a control character or a non-character",
            ))
        }
    }

    /// A packet identifier, which is never 0 [2.2.1-3].
    pub(super) fn packet_id(&mut self) -> Result<u16, DecodeError> {
        match self.u16()? {
            0 => Err(DecodeError::protocol("the packet identifier is 0")),
            id => Ok(id),
        }
    }

    /// Nothing may follow the last field.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::malformed("bytes follow the last field"))
        }
    }
}

/// Reads a variable byte integer and its length; `None` when more bytes are needed.
///
/// Only the shortest form is taken [1.5.5-1], and never a fifth byte.
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (n, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * n);
        if byte & 0x80 == 0 {
            if n > 0 && *byte == 0 {
                return Err(DecodeError::malformed(
                    "a variable byte integer is longer than it need be",
                ));
            }
            return Ok(Some((value, n + 1)));
        }
    }
    if bytes.len() >= 4 {
        return Err(DecodeError::malformed(
            "a variable byte integer has more than four bytes",
        ));
    }
    Ok(None)
}

/// Length of a variable byte integer on the wire.
pub(super) const fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Whether a string may be sent and is taken: neither control characters nor non-characters
/// (both standards leave refusing these to the receiver, but U+0000 never is allowed [1.5.4-2]).
pub fn is_allowed(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, 0x20..=0x7E))
        || text.chars().all(|char| {
            let code = u32::from(char);
            !char.is_control() && !matches!(code, 0xFDD0..=0xFDEF) && code & 0xFFFE != 0xFFFE
        })
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    loop {
        let low = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

pub(super) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), EncodeError> {
    let length =
        u16::try_from(bytes.len()).map_err(|_| EncodeError::FieldTooLong { bytes: bytes.len() })?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

pub(super) fn put_string(out: &mut Vec<u8>, text: &str) -> Result<(), EncodeError> {
    put_binary(out, text.as_bytes())
}
