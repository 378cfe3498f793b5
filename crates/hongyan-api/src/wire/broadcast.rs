//! A vendor's broadcast channels on the wire.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use hongyan_core::port;

/// What the vendor keeps of a broadcast channel for devices that are away.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Storage {
    /// Nothing: for frequent updates, of which more may be sent.
    None,
    /// The latest message, for as long as the vendor says.
    Latest,
}

impl From<Storage> for port::BroadcastStorage {
    fn from(storage: Storage) -> Self {
        match storage {
            Storage::None => Self::None,
            Storage::Latest => Self::Latest,
        }
    }
}

impl From<port::BroadcastStorage> for Storage {
    fn from(storage: port::BroadcastStorage) -> Self {
        match storage {
            port::BroadcastStorage::None => Self::None,
            port::BroadcastStorage::Latest => Self::Latest,
        }
    }
}

/// A broadcast channel to make.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewBroadcast {
    /// What it stores; cannot be changed later.
    pub(crate) storage: Storage,
}

/// A broadcast channel.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Broadcast {
    /// Its id, which the vendor chose. A device with the token `broadcast:<id>` stands for it.
    pub(crate) id: String,
    /// What it stores; absent in lists, which do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) storage: Option<Storage>,
}
