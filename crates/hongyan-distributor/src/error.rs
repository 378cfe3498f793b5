//! What ends the distributor, told so that a person can act on it.

use std::io;
use std::path::PathBuf;

/// Why the distributor cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The state file cannot be read or replaced.
    #[error(
        "cannot use the state file {path}: {source}; check the folder's owner and the free space"
    )]
    State {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The state file is not one of ours.
    #[error(
        "the state file {path} cannot be read ({why}); move it away to begin anew: apps then get new endpoints when they register"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        why: String,
    },
    /// The session bus does not answer.
    #[error("the session bus cannot be used: {0}; is DBUS_SESSION_BUS_ADDRESS set?")]
    Bus(#[from] zbus::Error),
    /// Another distributor of this name runs.
    #[error("{name} is taken: this distributor runs already in this session")]
    NameTaken {
        /// The bus name.
        name: &'static str,
    },
    /// The server, or the way to it.
    #[error(transparent)]
    Client(#[from] hongyan_client::Error),
    /// The connection to the server ended for good.
    #[error("the connection to the server has ended: {why}")]
    Ended {
        /// Why.
        why: String,
    },
    /// The session bus went away.
    #[error("the session bus has closed the connection")]
    BusClosed,
}
