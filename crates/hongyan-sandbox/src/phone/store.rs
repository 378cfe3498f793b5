//! The phones on disk: one JSON file, so that a restart keeps the same phones, users and trays.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::model::Phone;
use crate::error::SandboxError;
use crate::files;

const FILE: &str = "phones.json";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored<P> {
    version: u32,
    phones: P,
}

pub(super) fn load(directory: &Path) -> Result<Vec<Phone>, SandboxError> {
    let path = directory.join(FILE);
    let Some(text) = files::read(&path)? else {
        return Ok(Vec::new());
    };
    let corrupt = |why: String| SandboxError::Corrupt {
        path: path.clone(),
        what: "the sandbox's phones",
        why,
    };
    let stored: Stored<Vec<Phone>> =
        serde_json::from_str(&text).map_err(|error| corrupt(error.to_string()))?;
    if stored.version != VERSION {
        return Err(corrupt(format!(
            "version {} is not {VERSION}",
            stored.version
        )));
    }
    Ok(stored.phones)
}

pub(super) fn save(directory: &Path, phones: &[Phone]) -> Result<(), SandboxError> {
    let text = serde_json::to_vec(&Stored {
        version: VERSION,
        phones,
    })
    .map_err(|error| SandboxError::Key {
        what: "the phones file",
        why: error.to_string(),
    })?;
    files::write_private(&directory.join(FILE), &text)
}
