//! Header compression of HTTP/2 (RFC 7541), as a client needs it.
//!
//! What is sent is put into the dynamic table when it is likely to come again: a name at once when the static table has none
//! such, a value when it was the last one of its name before. So a token's path or a message's id stays out of it, what is the
//! same for all messages of an app is one byte, and a peer with a small table (APNs) keeps what matters. That also holds
//! for credentials: HPACK compares whole values only, and nobody else chooses values of that name (section 7.1).

mod huffman;

use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

/// Size of a dynamic table unless its reader says otherwise (RFC 9113 section 6.5.2); never more here.
pub(super) const TABLE_BYTES_MAX: usize = 4096;
/// What a field takes of a table beside its texts (section 4.1).
const FIELD_BYTES: usize = 32;
/// Names that an encoder remembers.
const NAMES_MAX: usize = 64;

#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The block cannot be read, and nothing after it on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

/// A field of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    Status(Bytes),
    Header(HeaderName, HeaderValue),
    /// A pseudo header of requests, or no header at all: the answer is malformed (RFC 9113 section 8.2.1).
    Malformed,
}

#[derive(Debug, Clone)]
struct Stored {
    name: Bytes,
    value: Bytes,
    field: Field,
}

impl Stored {
    fn new(name: Bytes, value: Bytes) -> Self {
        let field = if name == ":status".as_bytes() {
            Field::Status(value.clone())
        } else {
            let parts = HeaderName::from_lowercase(&name)
                .ok()
                .zip(HeaderValue::from_maybe_shared(value.clone()).ok());
            parts.map_or(Field::Malformed, |(name, value)| Field::Header(name, value))
        };
        Self { name, value, field }
    }

    fn size(&self) -> usize {
        self.name.len() + self.value.len() + FIELD_BYTES
    }
}

/// Reads header blocks.
#[derive(Debug)]
pub(super) struct Decoder {
    table: VecDeque<Stored>,
    size: usize,
    size_max: usize,
    text: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            table: VecDeque::new(),
            size: 0,
            size_max: TABLE_BYTES_MAX,
            text: Vec::new(),
        }
    }
}

impl Decoder {
    /// Reads a whole block; `each` gets a field and its size in a table.
    pub(super) fn decode(
        &mut self,
        block: &[u8],
        mut each: impl FnMut(&Field, usize),
    ) -> Result<(), Unreadable> {
        let mut rest = block;
        let mut begun = false;
        while let Some(first) = rest.first().copied() {
            if first & 0x80 != 0 {
                match usize::try_from(integer(&mut rest, 7)?).map_err(|_| Unreadable)? {
                    0 => return Err(Unreadable),
                    place @ 1..=61 => {
                        let stored = fixed(place).ok_or(Unreadable)?;
                        each(&stored.field, stored.size());
                    }
                    place => {
                        let stored = self.table.get(place - 62).ok_or(Unreadable)?;
                        each(&stored.field, stored.size());
                    }
                }
            } else if first & 0xe0 == 0x20 {
                // Only before the first field (section 4.2).
                let size = usize::try_from(integer(&mut rest, 5)?).map_err(|_| Unreadable)?;
                if begun || size > TABLE_BYTES_MAX {
                    return Err(Unreadable);
                }
                self.size_max = size;
                self.shrink(0);
                continue;
            } else {
                let keeps = first & 0x40 != 0;
                let place = integer(&mut rest, if keeps { 6 } else { 4 })?;
                let name = match usize::try_from(place).map_err(|_| Unreadable)? {
                    0 => self.string(&mut rest)?,
                    place @ 1..=61 => fixed(place).ok_or(Unreadable)?.name,
                    place => self.table.get(place - 62).ok_or(Unreadable)?.name.clone(),
                };
                let value = self.string(&mut rest)?;
                let stored = Stored::new(name, value);
                each(&stored.field, stored.size());
                if keeps {
                    self.keep(stored);
                }
            }
            begun = true;
        }
        Ok(())
    }

    fn string(&mut self, rest: &mut &[u8]) -> Result<Bytes, Unreadable> {
        let huffman = rest.first().ok_or(Unreadable)? & 0x80 != 0;
        let length = usize::try_from(integer(rest, 7)?).map_err(|_| Unreadable)?;
        let (text, after) = rest.split_at_checked(length).ok_or(Unreadable)?;
        *rest = after;
        if !huffman {
            return Ok(Bytes::copy_from_slice(text));
        }
        self.text.clear();
        huffman::decode(text, &mut self.text).ok_or(Unreadable)?;
        Ok(Bytes::copy_from_slice(&self.text))
    }

    fn keep(&mut self, stored: Stored) {
        let size = stored.size();
        self.shrink(size);
        // A field larger than the table empties it, and is no error (section 4.4).
        if size <= self.size_max {
            self.size += size;
            self.table.push_front(stored);
        }
    }

    fn shrink(&mut self, room: usize) {
        while self.size + room > self.size_max
            && let Some(oldest) = self.table.pop_back()
        {
            self.size -= oldest.size();
        }
    }
}

fn fixed(place: usize) -> Option<Stored> {
    let (name, value) = STATIC.get(place.checked_sub(1)?)?;
    Some(Stored::new(
        Bytes::from_static(name.as_bytes()),
        Bytes::from_static(value.as_bytes()),
    ))
}

/// An integer with a prefix of so many bits (section 5.1).
fn integer(rest: &mut &[u8], prefix: u32) -> Result<u32, Unreadable> {
    let mut next = || {
        let (first, after) = rest.split_first().ok_or(Unreadable)?;
        *rest = after;
        Ok(u32::from(*first))
    };
    let full = (1 << prefix) - 1;
    let mut number = next()? & full;
    if number < full {
        return Ok(number);
    }
    for shift in (0..28).step_by(7) {
        let byte = next()?;
        number = number
            .checked_add((byte & 0x7f) << shift)
            .ok_or(Unreadable)?;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Unreadable)
}

/// Writes header blocks.
#[derive(Debug)]
pub(super) struct Encoder {
    /// Sizes of what the peer's table holds, newest first.
    table: VecDeque<usize>,
    size: usize,
    size_max: usize,
    /// The least that the table was told to be since the last block, and whether the peer has to be told.
    told: Option<usize>,
    /// How many fields were ever put into the table.
    kept: u64,
    names: Vec<Name>,
}

#[derive(Debug)]
struct Name {
    name: Bytes,
    /// Its place in the static table, or 0.
    fixed: u32,
    /// The last value that was sent.
    last: Vec<u8>,
    /// The value that the table holds with it, if it still does: the number of the field.
    value: Vec<u8>,
    number: Option<u64>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            table: VecDeque::new(),
            size: 0,
            size_max: TABLE_BYTES_MAX,
            told: None,
            kept: 0,
            names: Vec::new(),
        }
    }
}

impl Encoder {
    /// Takes over what the peer's table may hold (`SETTINGS_HEADER_TABLE_SIZE`).
    pub(super) fn resize(&mut self, size_max: usize) {
        let size_max = size_max.min(TABLE_BYTES_MAX);
        if size_max == self.size_max {
            return;
        }
        self.told = Some(self.told.unwrap_or(size_max).min(size_max));
        self.size_max = size_max;
        self.shrink(0);
    }

    /// Begins a block.
    pub(super) fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(least) = self.told.take() {
            if least < self.size_max {
                put_integer(out, 0x20, 5, least);
            }
            put_integer(out, 0x20, 5, self.size_max);
        }
    }

    /// Adds a field that the static table has whole.
    pub(super) fn fixed(out: &mut Vec<u8>, place: u8) {
        out.push(0x80 | place);
    }

    /// Adds a field. `hint` is where its name probably is, such as the field's place among those of a request.
    pub(super) fn field(&mut self, out: &mut Vec<u8>, hint: usize, name: &str, value: &[u8]) {
        let Some(at) = self.find(hint, name) else {
            put_integer(out, 0, 4, 0);
            put_string(out, name.as_bytes());
            return put_string(out, value);
        };
        let (table, kept) = (self.table.len(), self.kept);
        let Some(known) = self.names.get_mut(at) else {
            return;
        };
        // Place 62 is the newest field.
        let age = known.number.map(|number| kept - 1 - number);
        let place = age
            .and_then(|age| usize::try_from(age).ok())
            .filter(|age| *age < table)
            .map(|age| age + 62);
        if let Some(place) = place
            && known.value == value
        {
            return put_integer(out, 0x80, 7, place);
        }
        let named = place.unwrap_or(known.fixed as usize);
        let size = name.len() + value.len() + FIELD_BYTES;
        let keeps = (named == 0 || known.last == value) && size <= self.size_max / 2;
        if known.last != value {
            known.last.clear();
            known.last.extend_from_slice(value);
        }
        if keeps {
            put_integer(out, 0x40, 6, named);
        } else {
            put_integer(out, 0, 4, named);
        }
        if named == 0 {
            put_string(out, name.as_bytes());
        }
        put_string(out, value);
        if keeps {
            known.value.clear();
            known.value.extend_from_slice(value);
            known.number = Some(kept);
            self.shrink(size);
            self.table.push_front(size);
            self.size += size;
            self.kept += 1;
        }
    }

    /// Where a name is remembered; `None` when there are too many.
    fn find(&mut self, hint: usize, name: &str) -> Option<usize> {
        let is = |known: &Name| known.name == name.as_bytes();
        if self.names.get(hint).is_some_and(is) {
            return Some(hint);
        }
        if let Some(at) = self.names.iter().position(is) {
            return Some(at);
        }
        if self.names.len() >= NAMES_MAX {
            return None;
        }
        let fixed = STATIC.iter().position(|(known, _)| *known == name);
        self.names.push(Name {
            name: Bytes::copy_from_slice(name.as_bytes()),
            fixed: fixed.and_then(|at| u32::try_from(at + 1).ok()).unwrap_or(0),
            last: Vec::new(),
            value: Vec::new(),
            number: None,
        });
        Some(self.names.len() - 1)
    }

    fn shrink(&mut self, room: usize) {
        while self.size + room > self.size_max
            && let Some(oldest) = self.table.pop_back()
        {
            self.size -= oldest;
        }
    }
}

fn put_integer(out: &mut Vec<u8>, mark: u8, prefix: u32, number: usize) {
    let full = (1_usize << prefix) - 1;
    let low = |number: usize| u8::try_from(number & 0xff).unwrap_or(0);
    if number < full {
        return out.push(mark | low(number));
    }
    out.push(mark | low(full));
    let mut left = number - full;
    while left >= 0x80 {
        out.push(low(left & 0x7f) | 0x80);
        left >>= 7;
    }
    out.push(low(left));
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    put_integer(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests;
