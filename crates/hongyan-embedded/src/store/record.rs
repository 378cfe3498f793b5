//! Keys that sort, and values that notice damage.
//!
//! A key is a tuple: texts end with a zero byte (ids hold no control characters), numbers are
//! big-endian. A value is `[format, checksum (4 bytes), payload]`; the checksum covers keyspace,
//! key, format and payload, so that a flipped bit, a zeroed page or a misplaced record is named.

use hongyan_core::StoreError;
use xxhash_rust::xxh3::Xxh3;

use super::Space;

/// The only value format there is.
const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 5;
/// Room for most JSON records.
const JSON_BYTES: usize = 512;

/// What is wrong with a stored record.
#[derive(Debug, thiserror::Error)]
#[error("record {key} of keyspace {space}: {what}")]
pub struct Damage {
    /// The keyspace.
    pub space: &'static str,
    /// The key, escaped.
    pub key: String,
    /// What is wrong.
    pub what: String,
}

impl Damage {
    /// Names a record that cannot be read.
    pub fn of(space: Space, key: &[u8], what: impl Into<String>) -> Self {
        Self {
            space: space.name(),
            key: key.escape_ascii().to_string(),
            what: what.into(),
        }
    }

    /// As the ports' error.
    #[must_use]
    pub fn into_store_error(self) -> StoreError {
        StoreError::Corrupt {
            entity: self.space,
            source: Box::new(self),
        }
    }
}

fn checksum(space: Space, key: &[u8], format: u8, payload: &[u8]) -> [u8; 4] {
    let mut hasher = Xxh3::new();
    hasher.update(&[space.tag(), format]);
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(payload);
    let [a, b, c, d, ..] = hasher.digest().to_le_bytes();
    [a, b, c, d]
}

/// Wraps a payload for the disk.
#[must_use]
pub fn seal(space: Space, key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER_BYTES + payload.len());
    value.extend_from_slice(&[0; HEADER_BYTES]);
    value.extend_from_slice(payload);
    reseal(space, key, &mut value);
    value
}

/// Makes the value of a record that is a few bytes and then JSON, in one piece.
///
/// # Errors
/// As [`encode`].
pub fn seal_json<T: serde::Serialize>(
    space: Space,
    key: &[u8],
    head: &[u8],
    value: &T,
) -> Result<Vec<u8>, StoreError> {
    let mut sealed = Vec::with_capacity(JSON_BYTES);
    sealed.extend_from_slice(&[0; HEADER_BYTES]);
    sealed.extend_from_slice(head);
    serde_json::to_writer(&mut sealed, value).map_err(|source| StoreError::Corrupt {
        entity: space.name(),
        source: Box::new(source),
    })?;
    reseal(space, key, &mut sealed);
    Ok(sealed)
}

/// Makes a sealed value fit for another keyspace or key.
pub(crate) fn reseal(space: Space, key: &[u8], sealed: &mut [u8]) {
    if let Some((header, payload)) = sealed.split_first_chunk_mut::<HEADER_BYTES>() {
        header[0] = FORMAT;
        header[1..].copy_from_slice(&checksum(space, key, FORMAT, payload));
    }
}

/// The payload of a value that is to be sealed again.
pub(crate) fn payload_mut(sealed: &mut [u8]) -> &mut [u8] {
    sealed.get_mut(HEADER_BYTES..).unwrap_or_default()
}

/// Checks and unwraps what [`seal`] made.
///
/// # Errors
/// [`Damage`] names the record and what is wrong with it.
pub fn unseal(space: Space, key: &[u8], mut value: Vec<u8>) -> Result<Vec<u8>, Damage> {
    let Some((header, payload)) = value.split_at_checked(HEADER_BYTES) else {
        return Err(Damage::of(space, key, "the value is cut short"));
    };
    if header[0] != FORMAT {
        let what = format!(
            "unknown value format {}; it is damaged or of a newer version",
            header[0]
        );
        return Err(Damage::of(space, key, what));
    }
    if header[1..] != checksum(space, key, FORMAT, payload) {
        return Err(Damage::of(space, key, "the checksum does not match"));
    }
    value.drain(..HEADER_BYTES);
    Ok(value)
}

/// The payload of a value that [`seal`] made in this process.
#[must_use]
pub(crate) fn payload(sealed: &[u8]) -> &[u8] {
    sealed.get(HEADER_BYTES..).unwrap_or_default()
}

/// What can be a key, taken over where it is owned.
pub trait IntoKey {
    /// The key's bytes.
    fn into_key(self) -> Vec<u8>;
}

impl IntoKey for Vec<u8> {
    fn into_key(self) -> Vec<u8> {
        self
    }
}

impl IntoKey for &Vec<u8> {
    fn into_key(self) -> Vec<u8> {
        self.clone()
    }
}

impl IntoKey for &[u8] {
    fn into_key(self) -> Vec<u8> {
        self.to_vec()
    }
}

impl<const N: usize> IntoKey for [u8; N] {
    fn into_key(self) -> Vec<u8> {
        self.to_vec()
    }
}

impl<const N: usize> IntoKey for &[u8; N] {
    fn into_key(self) -> Vec<u8> {
        self.to_vec()
    }
}

impl IntoKey for Key {
    fn into_key(self) -> Vec<u8> {
        self.0
    }
}

/// A signed number as one that sorts.
#[must_use]
pub const fn signed(n: i64) -> u64 {
    n.cast_unsigned() ^ (1 << 63)
}

/// Builds a key, part by part.
#[derive(Debug, Clone, Default)]
pub struct Key(Vec<u8>);

impl Key {
    /// A key that begins with a text.
    pub fn of(text: impl AsRef<str>) -> Self {
        Self(Vec::with_capacity(64)).text(text)
    }

    /// An empty key.
    #[must_use]
    pub fn empty() -> Self {
        Self(Vec::with_capacity(64))
    }

    /// An empty key or payload that is to have this many bytes.
    #[must_use]
    pub fn sized(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Adds a text and its end.
    #[must_use]
    pub fn text(mut self, text: impl AsRef<str>) -> Self {
        self.0.extend_from_slice(text.as_ref().as_bytes());
        self.0.push(0);
        self
    }

    /// Adds bytes of fixed length, or the last part.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, n: u64) -> Self {
        self.raw(&n.to_be_bytes())
    }

    /// Adds a signed number so that it sorts.
    #[must_use]
    pub fn signed(self, n: i64) -> Self {
        self.number(signed(n))
    }

    /// The bytes.
    #[must_use]
    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Reads a key or a binary payload, part by part; `None` when it is too short.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a>(pub &'a [u8]);

impl<'a> Parts<'a> {
    /// The next text.
    pub fn text(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|b| *b == 0)?;
        let text = std::str::from_utf8(&self.0[..end]).ok()?;
        self.0 = &self.0[end + 1..];
        Some(text)
    }

    /// The next `N` bytes.
    pub fn raw<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    /// The next bytes.
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    /// The next number.
    pub fn number(&mut self) -> Option<u64> {
        self.raw().map(u64::from_be_bytes)
    }

    /// The next signed number.
    pub fn signed(&mut self) -> Option<i64> {
        self.number().map(|n| (n ^ (1 << 63)).cast_signed())
    }

    /// All that is left.
    #[must_use]
    pub const fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// The first key after all keys with this prefix; `None` when there is none.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// The first key after this one.
#[must_use]
pub fn after(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

/// Writes a record as JSON.
///
/// # Errors
/// [`StoreError::Corrupt`] when the value has no JSON form; our records all have one.
pub fn encode<T: serde::Serialize>(entity: &'static str, value: &T) -> Result<Vec<u8>, StoreError> {
    let mut json = Vec::with_capacity(JSON_BYTES);
    serde_json::to_writer(&mut json, value).map_err(|source| StoreError::Corrupt {
        entity,
        source: Box::new(source),
    })?;
    Ok(json)
}

/// Reads a JSON record.
///
/// # Errors
/// [`StoreError::Corrupt`] names the record.
pub fn decode<T: serde::de::DeserializeOwned>(
    space: Space,
    key: &[u8],
    payload: &[u8],
) -> Result<T, StoreError> {
    serde_json::from_slice(payload)
        .map_err(|e| Damage::of(space, key, e.to_string()).into_store_error())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sealed_values_round_trip_and_notice_any_flipped_bit(
            key: Vec<u8>, payload: Vec<u8>, bit: usize
        ) {
            let sealed = seal(Space::Device, &key, &payload);
            prop_assert_eq!(unseal(Space::Device, &key, sealed.clone()).unwrap(), payload);
            let mut flipped = sealed.clone();
            let bit = bit % (flipped.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(unseal(Space::Device, &key, flipped).is_err());
            prop_assert!(unseal(Space::User, &key, sealed).is_err());
        }

        #[test]
        fn anything_unsealed_never_panics(value: Vec<u8>) {
            let _ = unseal(Space::Device, b"k", value);
        }

        #[test]
        fn signed_keys_sort_as_their_numbers(a: i64, b: i64) {
            let (x, y) = (Key::empty().signed(a).done(), Key::empty().signed(b).done());
            prop_assert_eq!(a.cmp(&b), x.cmp(&y));
            prop_assert_eq!(Parts(&x).signed(), Some(a));
        }

        #[test]
        fn the_end_of_a_prefix_is_after_all_that_have_it(prefix: Vec<u8>, tail: Vec<u8>) {
            let mut key = prefix.clone();
            key.extend(tail);
            if let Some(end) = prefix_end(&prefix) {
                prop_assert!(key < end);
                prop_assert!(prefix < end);
            } else {
                prop_assert!(prefix.iter().all(|b| *b == u8::MAX));
            }
        }
    }
}
