//! The vocabulary of hongyan, its pure machines and the ports to everything that does I/O.
//!
//! This room does no I/O, reads no clock and rolls no dice: time and randomness arrive as
//! arguments. It knows no engine, no vendor and no protocol.
//!
//! Start reading at [`message`] (what is sent), [`device`] (to what), [`delivery`] (the machine
//! that takes one message to one device) and [`port`] (what the other rooms offer each other).

pub mod app;
pub mod class;
pub mod cursor;
pub mod delivery;
pub mod device;
pub mod draft;
pub mod error;
pub mod event;
pub mod id;
pub mod jid;
pub mod limits;
pub mod message;
pub mod port;
pub mod push;
pub mod reason;
pub mod secret;
pub mod session;
pub mod time;
pub mod user;
pub mod verdict;

pub use class::{Class, ClassDetail};
pub use cursor::Cursor;
pub use device::Device;
pub use error::{Certainty, Kind, StoreError};
pub use event::{Event, Stage};
pub use id::{
    AppId, ChannelId, CredentialName, DeviceId, KeyId, MessageId, PushChannel, SessionId, Topic,
    UserId,
};
pub use message::Message;
pub use push::{Push, PushEndpoint};
pub use reason::Reason;
pub use secret::Secret;
pub use time::Timestamp;
pub use user::User;
pub use verdict::Verdict;
