//! Notices what an engine does not: batches that vanished, records that changed.
//!
//! Every batch writes its number into a ring of [`CHAIN_LEN`] slots. Damage to a journal can take
//! batches out of the middle or off the end while the engine opens in peace; a hole in the ring, or
//! a ring that ends before the watermark, gives it away.

use std::fmt;

use hongyan_core::StoreError;

use super::record::{Damage, after, seal, unseal};
use super::txn::Checked;
use super::{Backend, Change, Range, Read, Space, View};

/// How many of the newest batch numbers are kept: more batches than the journals can hold.
pub const CHAIN_LEN: u64 = 131_072;
/// Meta key: numbers up to this one are not expected in the chain.
pub(crate) const BASE: &[u8] = b"chain_base";
/// Rows read at a time.
const PAGE: usize = 4_096;
/// Damaged records that a report names; the others are counted.
const NAMED_MAX: usize = 20;

/// What a store has lost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loss {
    /// The last batch that was acknowledged, as far as the watermark knows.
    pub acknowledged: u64,
    /// The last batch that is there.
    pub found: u64,
    /// Batches that are missing, as inclusive ranges of numbers.
    pub missing: Vec<(u64, u64)>,
    /// Damaged records: keyspace, key and fault, the first [`NAMED_MAX`].
    pub damaged: Vec<String>,
    /// How many records are damaged.
    pub damaged_count: u64,
    /// The watermark itself was missing or damaged, so that loss at the end cannot be ruled out.
    pub watermark: Option<String>,
}

impl Loss {
    /// Whether nothing is lost.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.missing.is_empty() && self.damaged_count == 0 && self.watermark.is_none()
    }

    /// How many batches are missing.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.missing.iter().map(|(from, to)| to - from + 1).sum()
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        if !self.missing.is_empty() {
            let batches = self.batches();
            write!(f, "{batches} acknowledged batches are missing (")?;
            for (i, (from, to)) in self.missing.iter().take(NAMED_MAX).enumerate() {
                let comma = if i > 0 { ", " } else { "" };
                write!(f, "{comma}{from}-{to}")?;
            }
            write!(f, "; newest found {})", self.found)?;
            between = "; ";
        }
        if self.damaged_count > 0 {
            write!(f, "{between}{} records are damaged (", self.damaged_count)?;
            write!(f, "{})", self.damaged.join("; "))?;
            between = "; ";
        }
        if let Some(what) = &self.watermark {
            write!(f, "{between}{what}, so loss at the end cannot be ruled out")?;
        }
        Ok(())
    }
}

/// The change by which a batch leaves its number in the chain.
pub(crate) fn chain_change(number: u64) -> Change {
    let key = (number % CHAIN_LEN).to_be_bytes().to_vec();
    let value = Some(seal(Space::Chain, &key, &number.to_be_bytes()));
    Change {
        space: Space::Chain,
        key,
        value,
    }
}

/// The newest number and the holes before it.
pub(crate) fn chain(reader: &dyn Read) -> Result<(u64, Vec<(u64, u64)>), StoreError> {
    let base = number_or_damage(reader, BASE)?.flatten().unwrap_or(0);
    let limit = usize::try_from(CHAIN_LEN).unwrap_or(usize::MAX);
    let rows = reader.range(Space::Chain, Range::forward(b"", None, limit))?;
    // A damaged record is a hole.
    let mut numbers: Vec<u64> = rows
        .into_iter()
        .filter_map(|(k, v)| unseal(Space::Chain, &k, v).ok())
        .filter_map(|v| <[u8; 8]>::try_from(v.as_slice()).ok())
        .map(u64::from_be_bytes)
        .filter(|n| *n > base)
        .collect();
    numbers.sort_unstable();
    let head = numbers.last().copied().unwrap_or(base);
    let first = (base + 1).max((head + 1).saturating_sub(CHAIN_LEN));
    let mut missing = Vec::new();
    let mut expected = first;
    for number in numbers.into_iter().filter(|n| *n >= first) {
        if number > expected {
            missing.push((expected, number - 1));
        }
        expected = number + 1;
    }
    Ok((head, missing))
}

/// A number of [`Space::Meta`]: `None` when it is damaged, `Some(None)` when it is not there.
pub(crate) fn number_or_damage(
    reader: &dyn Read,
    key: &[u8],
) -> Result<Option<Option<u64>>, StoreError> {
    match Checked(reader).number(Space::Meta, key) {
        Ok(number) => Ok(Some(number)),
        Err(StoreError::Corrupt { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Reads every record and answers the damaged ones by keyspace and key.
///
/// # Errors
/// What the engine says when it cannot read at all.
pub fn walk(reader: &dyn Read) -> Result<Vec<(Space, Vec<u8>, Damage)>, StoreError> {
    let mut damaged = Vec::new();
    for space in Space::ALL {
        damaged.extend(walk_space(reader, *space)?);
    }
    Ok(damaged)
}

/// As [`walk`], one keyspace.
pub(crate) fn walk_space(
    reader: &dyn Read,
    space: Space,
) -> Result<Vec<(Space, Vec<u8>, Damage)>, StoreError> {
    let mut damaged = Vec::new();
    let mut from = Vec::new();
    loop {
        let rows = reader.range(space, Range::forward(&from, None, PAGE))?;
        let Some((last, _)) = rows.last() else {
            return Ok(damaged);
        };
        from = after(last);
        for (key, value) in rows {
            if let Err(damage) = unseal(space, &key, value) {
                damaged.push((space, key, damage));
            }
        }
    }
}

/// Shows every record of a keyspace that is not damaged: key and payload.
pub(crate) fn each_sound(
    reader: &dyn Read,
    space: Space,
    mut show: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut from = Vec::new();
    loop {
        let rows = reader.range(space, Range::forward(&from, None, PAGE))?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        from = after(last);
        for (key, value) in rows {
            if let Ok(payload) = unseal(space, &key, value) {
                show(&key, &payload)?;
            }
        }
    }
}

/// The engine's own check and a walk over every record.
///
/// # Errors
/// As [`walk`] and [`Backend::check`].
pub fn deep(backend: &dyn Backend) -> Result<Vec<(Space, Vec<u8>, Damage)>, StoreError> {
    backend.check()?;
    walk(backend)
}

pub(crate) fn name(damaged: &[(Space, Vec<u8>, Damage)], loss: &mut Loss) {
    loss.damaged_count = damaged.len() as u64;
    loss.damaged = damaged
        .iter()
        .take(NAMED_MAX)
        .map(|(_, _, damage)| damage.to_string())
        .collect();
}
