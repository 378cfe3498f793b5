//! The Rust SDK of hongyan.
//!
//! This room speaks hongyan's public interfaces from the outside, as anybody's program could: the
//! device side keeps one live connection and hands each message to the app once; the server side
//! calls the HTTP API. It never sees another crate of the platform, so what works here works for
//! everybody.
//!
//! Where to start reading: [`Client`] (a handle and its [`Inbox`]), `session.rs` (the loop
//! around connections) and `live.rs` (one connection), [`backoff`] (what each end means), and [`Admin`] for the API.
//!
//! ```no_run
//! # async fn run() -> Result<(), hongyan_client::Error> {
//! use hongyan_client::{Client, Event, FixedToken, Options};
//! let options = Options::new("http://127.0.0.1:7400")?;
//! let (client, mut inbox) = Client::start(options, FixedToken::new("device token"));
//! while let Some(event) = inbox.recv().await {
//!     if let Event::Message(message) = event {
//!         client.displayed(&message.id).await?;
//!     }
//! }
//! # Ok(()) }
//! ```

pub mod admin;
pub mod backoff;
mod channels;
mod client;
mod error;
mod http_client;
mod live;
pub mod net;
mod options;
mod register;
mod secret;
mod session;
pub mod storage;
mod tracker;
pub mod wake;
pub mod wire;

pub use admin::Admin;
pub use channels::{Channel, NewChannel};
pub use client::{Client, Event, FETCH_MAX, Inbox, Stats, Status, Stop};
pub use error::{BoxError, Error, FieldFault, Problem};
pub use options::{AckMode, Codec, FixedToken, Options, Timers, TokenNeed, TokenSource};
pub use register::{DeviceInfo, DeviceSession, Registered};
pub use secret::Secret;
pub use wire::{AppState, ClientEvent, EventKind, Message, NackCode};
