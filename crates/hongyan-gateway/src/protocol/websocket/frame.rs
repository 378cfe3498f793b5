//! WebSocket frames, RFC 6455 section 5, as a pure codec without I/O.
//!
//! [`Decoder`] is the server's side: it takes bytes as they arrive and refuses everything that a
//! conforming client would not send. It owns memory only while a frame or a message is incomplete,
//! so a connection between two messages needs none: keep it while [`Decoder::is_idle`] is false.

use std::ops::Range;

use super::utf8::Utf8;

/// Length of the longest header that a client may send: 2 + 8 bytes of length + 4 bytes of mask.
const HEADER_BYTES_MAX: usize = 14;

/// Longest payload of a control frame (RFC 6455 section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// What a frame is, RFC 6455 section 5.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of the message that is under way.
    Continuation = 0,
    /// UTF-8 text.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// The last frame of its sender.
    Close = 8,
    /// Asks for a pong.
    Ping = 9,
    /// Answers a ping.
    Pong = 10,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// Why the peer's bytes cannot be accepted. Each ends the connection with [`Fault::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A rule of the framing was broken.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// Text or a close reason is not UTF-8.
    #[error("text is not valid utf-8")]
    NotUtf8,
    /// The message is longer than allowed.
    #[error("message is too big")]
    TooBig,
}

impl Fault {
    /// The close code for this fault, RFC 6455 section 7.4.1.
    pub fn code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::NotUtf8 => 1007,
            Self::TooBig => 1009,
        }
    }
}

/// One complete thing that the peer said.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A text message, all fragments joined; valid UTF-8.
    Text(&'a [u8]),
    /// A binary message, all fragments joined.
    Binary(&'a [u8]),
    /// A ping with its payload.
    Ping(&'a [u8]),
    /// A pong with its payload.
    Pong(&'a [u8]),
    /// A close with its code (absent when the payload was empty) and reason.
    Close(Option<u16>, &'a [u8]),
}

#[derive(Debug, Clone, Copy)]
struct Header {
    opcode: Opcode,
    fin: bool,
    mask: [u8; 4],
    length: usize,
    /// Payload bytes that were already taken.
    taken: usize,
}

#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    Message,
    Control,
}

/// Where the bytes of a finished thing are.
#[derive(Debug)]
enum Place {
    Input(Range<usize>),
    Message,
    Control,
}

/// Decodes masked client frames, incrementally.
#[derive(Debug, Default)]
pub struct Decoder {
    header_bytes: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    /// What was handed out last and is dropped on the next call.
    handed_out: Held,
    /// `Text` or `Binary` while a fragmented message is under way.
    message_kind: Option<Opcode>,
    frame: Option<Header>,
    utf8: Utf8,
    message: Vec<u8>,
    control: Vec<u8>,
}

impl Decoder {
    /// Says whether nothing is under way, so that the decoder may be dropped and made anew.
    pub fn is_idle(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.message_kind.is_none()
    }

    /// Bytes of heap that are held for what is under way.
    pub fn held_bytes(&self) -> usize {
        self.message.capacity() + self.control.capacity()
    }

    /// Takes bytes of `input` from `*at` on and returns the next complete thing, or `None` when
    /// all bytes were taken. The input is unmasked in place. `message_bytes_max` bounds a whole
    /// message; it is applied to the declared length, before the payload arrives.
    ///
    /// # Errors
    /// A [`Fault`] is final: the decoder must not be used any more.
    pub fn decode<'a>(
        &'a mut self,
        input: &'a mut [u8],
        at: &mut usize,
        message_bytes_max: usize,
    ) -> Result<Option<Incoming<'a>>, Fault> {
        // A control frame may have come inside a message, which must stay then.
        match std::mem::take(&mut self.handed_out) {
            Held::Nothing => {}
            Held::Message => self.message.clear(),
            Held::Control => self.control.clear(),
        }
        let Some((opcode, place)) = self.step(input, at, message_bytes_max)? else {
            return Ok(None);
        };
        let payload: &'a [u8] = match place {
            Place::Input(range) => &input[range],
            Place::Message => {
                self.handed_out = Held::Message;
                &self.message
            }
            Place::Control => {
                self.handed_out = Held::Control;
                &self.control
            }
        };
        Ok(Some(match opcode {
            Opcode::Text => Incoming::Text(payload),
            Opcode::Binary | Opcode::Continuation => Incoming::Binary(payload),
            Opcode::Ping => Incoming::Ping(payload),
            Opcode::Pong => Incoming::Pong(payload),
            Opcode::Close => {
                let (code, reason) = parse_close(payload)?;
                Incoming::Close(code, reason)
            }
        }))
    }

    fn step(
        &mut self,
        input: &mut [u8],
        at: &mut usize,
        message_bytes_max: usize,
    ) -> Result<Option<(Opcode, Place)>, Fault> {
        loop {
            let mut frame = match self.frame {
                Some(frame) => frame,
                None => match self.take_header(input, at, message_bytes_max)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            let start = *at;
            let end = start + (frame.length - frame.taken).min(input.len() - start);
            let whole = frame.taken == 0 && end - start == frame.length;
            unmask(&mut input[start..end], frame.mask, frame.taken);
            *at = end;
            frame.taken += end - start;
            let complete = frame.taken == frame.length;
            self.frame = (!complete).then_some(frame);
            let chunk = &input[start..end];

            if frame.opcode.is_control() {
                if whole {
                    return Ok(Some((frame.opcode, Place::Input(start..end))));
                }
                self.control.extend_from_slice(chunk);
                if complete {
                    return Ok(Some((frame.opcode, Place::Control)));
                }
                return Ok(None);
            }

            let kind = self.message_kind.unwrap_or(frame.opcode);
            if kind == Opcode::Text {
                self.utf8.feed(chunk).map_err(|()| Fault::NotUtf8)?;
            }
            let alone = whole && frame.fin && frame.opcode != Opcode::Continuation;
            if !alone {
                self.message_kind = Some(kind);
                self.message.extend_from_slice(chunk);
            }
            if complete && frame.fin {
                self.message_kind = None;
                if kind == Opcode::Text && !std::mem::take(&mut self.utf8).is_complete() {
                    return Err(Fault::NotUtf8);
                }
                let place = if alone {
                    Place::Input(start..end)
                } else {
                    Place::Message
                };
                return Ok(Some((kind, place)));
            }
            if !complete {
                return Ok(None);
            }
        }
    }

    /// Collects header bytes and judges each as soon as it is there.
    fn take_header(
        &mut self,
        input: &[u8],
        at: &mut usize,
        message_bytes_max: usize,
    ) -> Result<Option<Header>, Fault> {
        loop {
            let have = usize::from(self.header_len);
            let want = match have {
                0 | 1 => have + 1,
                _ => header_length(self.header_bytes[1]),
            };
            if have >= 2 && have == want {
                break;
            }
            let end = (*at + want - have).min(input.len());
            let bytes = &input[*at..end];
            if bytes.is_empty() {
                return Ok(None);
            }
            self.header_bytes[have..have + bytes.len()].copy_from_slice(bytes);
            self.header_len += bytes.len() as u8;
            *at = end;
            match self.header_len {
                1 => self.check_first(self.header_bytes[0])?,
                2 => check_second(self.header_bytes[0], self.header_bytes[1])?,
                _ => {}
            }
        }
        let bytes = self.header_bytes;
        let header_len = usize::from(std::mem::take(&mut self.header_len));
        let length = match bytes[1] & 0x7f {
            126 => {
                let length = u64::from(u16::from_be_bytes([bytes[2], bytes[3]]));
                if length < 126 {
                    return Err(Fault::Protocol("length is not in its shortest form"));
                }
                length
            }
            127 => {
                let [_, _, a, b, c, d, e, f, g, h, ..] = bytes;
                let length = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                if length >> 63 != 0 {
                    return Err(Fault::Protocol("top bit of a length is set"));
                }
                if length < 65_536 {
                    return Err(Fault::Protocol("length is not in its shortest form"));
                }
                length
            }
            short => u64::from(short),
        };
        let opcode = Opcode::from_bits(bytes[0] & 0x0f).ok_or(UNKNOWN_OPCODE)?;
        if !opcode.is_control() {
            let room = message_bytes_max.saturating_sub(self.message.len());
            if length > room as u64 {
                return Err(Fault::TooBig);
            }
        }
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| bytes[header_len - 4 + i]);
        Ok(Some(Header {
            opcode,
            fin: bytes[0] & 0x80 != 0,
            mask: [a, b, c, d],
            length: length as usize,
            taken: 0,
        }))
    }

    fn check_first(&self, byte: u8) -> Result<(), Fault> {
        if byte & 0x70 != 0 {
            return Err(Fault::Protocol("reserved bit is set"));
        }
        let opcode = Opcode::from_bits(byte & 0x0f).ok_or(UNKNOWN_OPCODE)?;
        match (opcode, self.message_kind) {
            (Opcode::Continuation, None) => Err(Fault::Protocol("continuation without a message")),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                Err(Fault::Protocol("new message inside a fragmented one"))
            }
            (opcode, _) if opcode.is_control() && byte & 0x80 == 0 => {
                Err(Fault::Protocol("control frame is fragmented"))
            }
            _ => Ok(()),
        }
    }
}

const UNKNOWN_OPCODE: Fault = Fault::Protocol("unknown opcode");

fn check_second(first: u8, second: u8) -> Result<(), Fault> {
    if second & 0x80 == 0 {
        return Err(Fault::Protocol("client frame is not masked"));
    }
    if first & 0x08 != 0 && usize::from(second & 0x7f) > CONTROL_BYTES_MAX {
        return Err(Fault::Protocol("control frame is too long"));
    }
    Ok(())
}

fn header_length(second: u8) -> usize {
    match second & 0x7f {
        126 => 8,
        127 => HEADER_BYTES_MAX,
        _ => 6,
    }
}

/// Applies the mask to a part of a payload that begins `offset` bytes into it.
fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: usize) {
    let mask = [0, 1, 2, 3].map(|i| mask[(offset + i) % 4]);
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

fn parse_close(payload: &[u8]) -> Result<(Option<u16>, &[u8]), Fault> {
    match payload {
        [] => Ok((None, &[])),
        [_] => Err(Fault::Protocol("close payload of one byte")),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !is_close_code(code) {
                return Err(Fault::Protocol("close code that may not be on the wire"));
            }
            std::str::from_utf8(reason).map_err(|_| Fault::NotUtf8)?;
            Ok((Some(code), reason))
        }
    }
}

/// Says whether a close code may stand in a frame: 1000-1003, 1007-1014 and 3000-4999
/// (RFC 6455 section 7.4 and the IANA registry).
pub fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The unmasked header of a final frame with a payload of `length` bytes, and its own length.
pub fn header(opcode: Opcode, length: usize) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    bytes[0] = 0x80 | opcode as u8;
    if length < 126 {
        bytes[1] = length as u8;
        (bytes, 2)
    } else if let Ok(short) = u16::try_from(length) {
        bytes[1] = 126;
        bytes[2..4].copy_from_slice(&short.to_be_bytes());
        (bytes, 4)
    } else {
        bytes[1] = 127;
        bytes[2..10].copy_from_slice(&(length as u64).to_be_bytes());
        (bytes, 10)
    }
}

/// Appends one whole unmasked frame to `out`.
pub fn encode(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    let (bytes, length) = header(opcode, payload.len());
    out.extend_from_slice(&bytes[..length]);
    out.extend_from_slice(payload);
}

/// Appends a close frame. The reason is cut at a character so that the payload fits.
pub fn encode_close(code: u16, reason: &str, out: &mut Vec<u8>) {
    let mut end = reason.len().min(CONTROL_BYTES_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let (bytes, length) = header(Opcode::Close, end + 2);
    out.extend_from_slice(&bytes[..length]);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&reason.as_bytes()[..end]);
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
