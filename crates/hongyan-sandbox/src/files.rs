//! Small private files of the data directory: written whole, renamed into place, mode 0600.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::error::SandboxError;

/// The file's text, or nothing when it does not exist.
pub(crate) fn read(path: &Path) -> Result<Option<String>, SandboxError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SandboxError::File {
            action: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

/// Replaces the file; a reader sees the old bytes or the new ones, never a part.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), SandboxError> {
    let temporary = path.with_extension(format!("tmp-{}", uuid::Uuid::new_v4().simple()));
    let write = || -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let mut file = options.open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        SandboxError::File {
            action: "write",
            path: path.to_owned(),
            source,
        }
    })
}
