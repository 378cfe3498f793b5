//! The phones on disk: one JSON file each, so that a restart keeps the same phones, users and trays.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::model::Phone;
use crate::error::SandboxError;
use crate::files;

const FOLDER: &str = "phones";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored<P> {
    version: u32,
    phone: P,
}

/// Reads every phone.
pub(super) fn load(directory: &Path) -> Result<Vec<Phone>, SandboxError> {
    let folder = directory.join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(fault("read", &folder, source)),
    };
    let mut phones = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| fault("read", &folder, e))?.path();
        // What a write that was cut off left behind has another ending.
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        let Some(text) = files::read(&path)? else {
            continue;
        };
        let corrupt = |why: String| SandboxError::Corrupt {
            path: path.clone(),
            what: "a phone of the sandbox",
            why,
        };
        let stored: Stored<Phone> =
            serde_json::from_str(&text).map_err(|error| corrupt(error.to_string()))?;
        if stored.version != VERSION {
            return Err(corrupt(format!(
                "version {} is not {VERSION}",
                stored.version
            )));
        }
        phones.push(stored.phone);
    }
    Ok(phones)
}

/// Writes a phone: what its person has seen outlives a kill from then on.
pub(super) fn save(directory: &Path, phone: &Phone) -> Result<(), SandboxError> {
    let text = serde_json::to_vec(&Stored {
        version: VERSION,
        phone,
    })
    .map_err(|error| SandboxError::Key {
        what: "a phone's file",
        why: error.to_string(),
    })?;
    let folder = directory.join(FOLDER);
    fs::create_dir_all(&folder).map_err(|e| fault("make", &folder, e))?;
    files::write_private(&file(directory, &phone.id), &text)
}

/// Forgets a phone.
pub(super) fn remove(directory: &Path, id: &str) -> Result<(), SandboxError> {
    let path = file(directory, id);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault("remove", &path, error)),
        _ => Ok(()),
    }
}

fn file(directory: &Path, id: &str) -> PathBuf {
    directory.join(FOLDER).join(format!("{id}.json"))
}

fn fault(action: &'static str, path: &Path, source: io::Error) -> SandboxError {
    SandboxError::File {
        action,
        path: path.to_owned(),
        source,
    }
}
