//! Checks fjall's manifests before fjall reads them.
//!
//! A keyspace's manifest lists its tables. It is written with a checksum, which lsm-tree 3.1 does not look
//! at when it opens (`version/recovery.rs`): a changed bit in a count can hide a table, or ask for more
//! memory than there is, which ends the process without a word.

use std::fs;
use std::io;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

/// The file that names the newest manifest: its number, its XXH3-128, the kind of checksum; little-endian.
const CURRENT: &str = "current";
const CURRENT_BYTES: usize = 8 + 16 + 1;
const KIND_XXH3: u8 = 0;

/// A manifest is not as it was written.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {what}")]
pub(crate) struct ManifestError {
    file: String,
    what: String,
}

/// Checks the newest manifest of every keyspace. A keyspace without one was never finished.
pub(crate) fn check(database: &Path) -> Result<(), ManifestError> {
    let keyspaces = database.join("keyspaces");
    let entries = match fs::read_dir(&keyspaces) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(fault(&keyspaces, e)),
    };
    for entry in entries {
        let keyspace = entry.map_err(|e| fault(&keyspaces, e))?.path();
        check_one(&keyspace)?;
    }
    Ok(())
}

fn check_one(keyspace: &Path) -> Result<(), ManifestError> {
    let path = keyspace.join(CURRENT);
    let current = match fs::read(&path) {
        Ok(current) => current,
        Err(e) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&e.kind()) => {
            return Ok(());
        }
        Err(e) => return Err(fault(&path, e)),
    };
    let Ok(current) = <[u8; CURRENT_BYTES]>::try_from(current) else {
        return Err(fault(&path, "it has the wrong length"));
    };
    let mut parts = super::record::Parts(&current);
    let (Some(number), Some(sum), Some([KIND_XXH3])) =
        (parts.raw::<8>(), parts.raw::<16>(), parts.raw::<1>())
    else {
        return Err(fault(&path, "it names an unknown kind of checksum"));
    };
    let manifest = keyspace.join(format!("v{}", u64::from_le_bytes(number)));
    let bytes = fs::read(&manifest).map_err(|e| fault(&manifest, e))?;
    if xxh3_128(&bytes) != u128::from_le_bytes(sum) {
        return Err(fault(&manifest, "its checksum does not match"));
    }
    Ok(())
}

fn fault(path: &Path, what: impl ToString) -> ManifestError {
    ManifestError {
        file: path.display().to_string(),
        what: what.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::FjallBackend;
    use super::*;

    #[test]
    fn every_changed_bit_of_a_manifest_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        check(dir.path()).unwrap();
        drop(FjallBackend::open(dir.path()).unwrap());
        check(dir.path()).unwrap();
        let keyspace = dir.path().join("keyspaces/1");
        for name in [CURRENT, "v0"] {
            let file = keyspace.join(name);
            let whole = fs::read(&file).unwrap();
            for bit in 0..whole.len() * 8 {
                let mut flipped = whole.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                fs::write(&file, &flipped).unwrap();
                assert!(check(dir.path()).is_err(), "bit {bit} of {name}");
            }
            fs::write(&file, &whole[..whole.len() - 1]).unwrap();
            assert!(check(dir.path()).is_err());
            fs::write(&file, &whole).unwrap();
        }
        check(dir.path()).unwrap();
    }
}
