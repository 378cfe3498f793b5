//! What a phone needs of a hongyan server, as traits, so that tests can play the server.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::SandboxError;

/// What a phone says of itself when it registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The installation's UUID.
    pub device_id: String,
    /// `ios android harmony web desktop iot`.
    pub platform: String,
    /// Maker.
    pub brand: String,
    /// Model.
    pub model: String,
    /// Package or bundle id of the app.
    pub package: String,
    /// Whether notifications may be shown.
    pub permission: bool,
    /// The device token that the phone got before, if it has one.
    pub device_token: Option<String>,
}

/// What a person did, or the platform, with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It was on the screen.
    Displayed,
    /// It was tapped.
    Clicked,
}

/// A hongyan server, as a device sees it before it has a token.
#[async_trait]
pub trait Server: Send + Sync + fmt::Debug {
    /// Registers the phone, or registers it again with its full state.
    async fn register(&self, profile: &Profile) -> Result<Arc<dyn Device>, SandboxError>;
}

/// A registered device at the server.
#[async_trait]
pub trait Device: Send + Sync + fmt::Debug {
    /// The device token, for the phone to keep: with it, registering again changes nothing.
    fn token(&self) -> Option<String> {
        None
    }
    /// Tells a vendor token.
    async fn put_token(
        &self,
        channel: &str,
        token: &str,
        environment: Option<&str>,
    ) -> Result<(), SandboxError>;
    /// Asks for the key of the device's wake-ups; nothing when none of its channels wakes it.
    async fn wake_key(&self) -> Result<Option<hongyan_client::wake::Key>, SandboxError> {
        Ok(None)
    }
    /// Binds the device to a user.
    async fn login(&self, user: &str) -> Result<(), SandboxError>;
    /// Unbinds the device.
    async fn logout(&self) -> Result<(), SandboxError>;
    /// Tells whether notifications may be shown.
    async fn set_permission(&self, granted: bool) -> Result<(), SandboxError>;
    /// Reports on a message without a connection.
    async fn report(&self, message: &str, kind: Kind) -> Result<(), SandboxError>;
    /// Opens the long connection, which keeps itself alive until closed.
    async fn connect(&self, foreground: bool) -> Result<Box<dyn Connection>, SandboxError>;
}

/// What comes over the long connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The connection is up.
    Up,
    /// The connection is down and being made again.
    Down,
    /// A message for the app.
    Message {
        /// Its id.
        id: String,
        /// Title of its notification; without a notification nothing is shown.
        title: String,
        /// Text of its notification.
        body: String,
        /// Whether it carries a notification.
        visible: bool,
        /// Replaces an earlier one of the same key.
        collapse: Option<String>,
    },
    /// The message is to be removed from sight.
    Recall {
        /// Its id.
        id: String,
    },
}

/// The app's long connection.
#[async_trait]
pub trait Connection: Send + Sync {
    /// Waits for what comes next; `None` when the connection ended for good. Cancel safe.
    async fn next(&mut self) -> Option<News>;
    /// Reports on a message.
    async fn report(&self, message: &str, kind: Kind) -> Result<(), SandboxError>;
    /// Says whether the app is on the screen.
    async fn set_foreground(&self, foreground: bool);
    /// Ends the connection politely, as an app does that is going to sleep.
    async fn close(&self);
    /// Drops the connection as a killed process or a lost network does.
    async fn kill(&self);
}
