//! What can go wrong while the sandbox starts or is steered.

use std::io;
use std::path::PathBuf;

/// The sandbox could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// A listener's address is taken or not allowed.
    #[error(
        "cannot listen on {address} for {what}: {source}; free the port or choose another with `{setting}`"
    )]
    Listen {
        /// What the listener is for.
        what: &'static str,
        /// The address that was asked for.
        address: String,
        /// The setting that names the address.
        setting: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A file of the data directory cannot be read or written.
    #[error("cannot {action} {path}: {source}; check that the directory exists and is writable")]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A file of the data directory is not what the sandbox wrote.
    #[error("{path} is not readable as {what}: {why}; move it away and a new one is made")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What the file should hold.
        what: &'static str,
        /// The fault.
        why: String,
    },
    /// A key or certificate could not be made.
    #[error("cannot make {what}: {why}")]
    Key {
        /// What was to be made.
        what: &'static str,
        /// The fault.
        why: String,
    },
    /// There is no phone with this id.
    #[error("phone {0:?} not found; GET /phones lists them")]
    NoPhone(String),
    /// There is no such entry in the phone's tray.
    #[error("phone {phone:?} has no tray entry {n}; GET /phones/{phone}/tray lists them")]
    NoTrayEntry {
        /// The phone.
        phone: String,
        /// The entry's number.
        n: u64,
    },
    /// The request asks for something that does not exist or does not fit.
    #[error("{0}")]
    Invalid(String),
    /// The sandbox holds as much as it may.
    #[error("the sandbox holds at most {limit} {what}")]
    Full {
        /// What there are too many of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The hongyan server did not do its part.
    #[error("hongyan server: {0}")]
    Server(String),
}
