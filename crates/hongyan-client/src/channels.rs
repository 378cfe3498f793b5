//! Channels: addresses that others post to, for a UnifiedPush distributor or an app with web push senders.
//!
//! What is posted comes as a [`crate::Message`] with `ch` and `raw`.

use http::Method;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::http_client::Call;
use crate::net::escape;
use crate::register::DeviceSession;

/// What a channel is opened with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NewChannel {
    /// The channel's own id, normally a UUID; made by the server when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// What the device knows the channel by, such as a hash of a connector's token: the same again gets the same channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_hash: Option<String>,
    /// The one VAPID key that may post, in base64url.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vapid: Option<String>,
    /// Text for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// An open channel.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Channel {
    /// Its id: `ch` of what comes over it.
    pub channel: String,
    /// The address for senders: whoever has it may post.
    pub endpoint: String,
    /// What the device knows it by.
    #[serde(default)]
    pub token_hash: Option<String>,
    /// Whether it is bound to a VAPID key.
    #[serde(default)]
    pub bound: bool,
    /// Text for people.
    #[serde(default)]
    pub description: Option<String>,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("channel", &self.channel)
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Channels {
    items: Vec<Channel>,
}

impl DeviceSession {
    /// Opens a channel, or finds it open.
    ///
    /// # Errors
    /// [`Error::Problem`] by the server, or what kept the call from it. Idempotent when `new` names its channel or
    /// `token_hash`, and then tried again when it failed on the way.
    pub async fn open_channel(&self, new: &NewChannel) -> Result<Channel, Error> {
        let mut call = Call::post(self.path("/channels"), new);
        if new.channel.is_some() || new.token_hash.is_some() {
            call = call.repeatable();
        }
        self.http.call(call).await
    }

    /// All open channels, to compare with what the device knows.
    ///
    /// # Errors
    /// [`Error::Problem`] by the server, or what kept the call from it.
    pub async fn channels(&self) -> Result<Vec<Channel>, Error> {
        let all: Channels = self.http.call(Call::get(self.path("/channels"))).await?;
        Ok(all.items)
    }

    /// Closes a channel: its senders are told to forget it. One that is not open is as good.
    ///
    /// # Errors
    /// [`Error::Problem`] by the server, or what kept the call from it.
    pub async fn close_channel(&self, channel: &str) -> Result<(), Error> {
        let path = self.path(&format!("/channels/{}", escape(channel)));
        match self.http.bytes(Call::new(Method::DELETE, path)).await {
            Ok(_) => Ok(()),
            Err(error) if error.status() == Some(404) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
