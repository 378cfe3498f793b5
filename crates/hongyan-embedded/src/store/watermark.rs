//! Remembers, outside of the engine, how far writes were acknowledged.
//!
//! An engine that lost its newest data to damage can open as if nothing had happened. The watermark
//! is a small file of its own that says which batch was durable last; a store behind it has lost data.
//!
//! It is replaced once a second, since that costs a sync. The near mark beside it is written in place at
//! every commit and never synced: a killed process leaves it as it was, so that for damage there is no
//! last second. After a power cut it may be old or torn, and then counts for nothing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"hongyanW";
const VERSION: u8 = 1;
const BYTES: usize = 8 + 1 + 1 + 4 + 8 + 8;
const FILE: &str = "WATERMARK";
const NEAR_FILE: &str = "WATERMARK.near";

/// How far the store was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// Which life of the store.
    pub epoch: u32,
    /// The last acknowledged batch.
    pub number: u64,
    /// Whether the store was closed in order after it.
    pub closed: bool,
}

/// The watermark cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the watermark file {path} cannot be read: {what}")]
pub struct WatermarkError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub what: String,
}

/// Where the watermark of a store is.
#[must_use]
pub fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

impl Watermark {
    fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.push(u8::from(self.closed));
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&xxh3_64(&bytes).to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let Ok(bytes) = <[u8; BYTES]>::try_from(bytes) else {
            return Err("it has the wrong length");
        };
        let (body, sum) = bytes.split_at(BYTES - 8);
        if sum != xxh3_64(body).to_be_bytes() {
            return Err("its checksum does not match");
        }
        if &bytes[..8] != MAGIC || bytes[8] != VERSION {
            return Err("it is of an unknown version");
        }
        let mut parts = super::record::Parts(&bytes[9..]);
        match (parts.raw::<1>(), parts.raw::<4>(), parts.number()) {
            (Some([closed]), Some(epoch), Some(number)) => Ok(Self {
                epoch: u32::from_be_bytes(epoch),
                number,
                closed: closed != 0,
            }),
            _ => Err("it has the wrong length"),
        }
    }

    /// Reads the watermark; `None` when there is none.
    ///
    /// # Errors
    /// [`WatermarkError`] when there is a file that cannot be read.
    pub fn read(dir: &Path) -> Result<Option<Self>, WatermarkError> {
        let path = path(dir);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => {
                let what = e.to_string();
                return Err(WatermarkError { path, what });
            }
        };
        match Self::decode(&bytes) {
            Ok(watermark) => Ok(Some(watermark)),
            Err(what) => Err(WatermarkError {
                path,
                what: what.to_owned(),
            }),
        }
    }

    /// Replaces the watermark, durably and whole.
    ///
    /// # Errors
    /// What the file system says; the former watermark is then still there.
    pub fn write(self, dir: &Path) -> io::Result<()> {
        let fresh = dir.join("WATERMARK.new");
        let mut file = File::create(&fresh)?;
        file.write_all(&self.encode())?;
        file.sync_all()?;
        drop(file);
        fs::rename(&fresh, path(dir))?;
        File::open(dir)?.sync_all()
    }
}

impl Watermark {
    /// The later of this one and the near mark of the same life.
    #[must_use]
    pub(crate) fn or_near(self, dir: &Path) -> Self {
        let near = fs::read(dir.join(NEAR_FILE)).ok();
        let near = near.and_then(|bytes| Self::decode(&bytes).ok());
        match near.filter(|near| near.epoch == self.epoch) {
            Some(near) if near.number > self.number => near,
            _ => self,
        }
    }
}

/// Keeps the near mark.
#[derive(Debug)]
pub(crate) struct NearMark {
    file: File,
    epoch: u32,
}

impl NearMark {
    /// Makes it, or takes over the one that is there.
    pub(crate) fn open(dir: &Path, epoch: u32, number: u64) -> io::Result<Self> {
        let path = dir.join(NEAR_FILE);
        let mut options = File::options();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        let mark = Self { file, epoch };
        mark.note(number)?;
        // A longer file, of whatever origin, would not be read.
        mark.file.set_len(BYTES as u64)?;
        Ok(mark)
    }

    /// Notes that a batch is durable. Takes about as long as a system call, and no room on the disk.
    pub(crate) fn note(&self, number: u64) -> io::Result<()> {
        let mark = Watermark {
            epoch: self.epoch,
            number,
            closed: false,
        };
        self.file.write_all_at(&mark.encode(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_round_trips_and_notices_damage() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Watermark::read(dir.path()).unwrap(), None);
        let watermark = Watermark {
            epoch: 7,
            number: 42,
            closed: true,
        };
        watermark.write(dir.path()).unwrap();
        assert_eq!(Watermark::read(dir.path()).unwrap(), Some(watermark));
        let whole = fs::read(path(dir.path())).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(path(dir.path()), &flipped).unwrap();
            assert!(Watermark::read(dir.path()).is_err(), "bit {bit}");
        }
        fs::write(path(dir.path()), b"").unwrap();
        assert!(Watermark::read(dir.path()).is_err());
    }
    #[test]
    fn the_near_mark_counts_in_its_own_life_and_only_when_whole() {
        let dir = tempfile::tempdir().unwrap();
        let far = Watermark {
            epoch: 7,
            number: 42,
            closed: false,
        };
        assert_eq!(far.or_near(dir.path()), far);
        let near = NearMark::open(dir.path(), 7, 42).unwrap();
        near.note(50).unwrap();
        assert_eq!(far.or_near(dir.path()).number, 50);
        let later = Watermark { number: 60, ..far };
        assert_eq!(later.or_near(dir.path()), later);
        let other = Watermark { epoch: 8, ..far };
        assert_eq!(other.or_near(dir.path()), other);
        let file = dir.path().join(NEAR_FILE);
        let mut bytes = fs::read(&file).unwrap();
        bytes[20] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert_eq!(far.or_near(dir.path()), far);
    }
}
