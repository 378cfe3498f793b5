//! The Rust SDK of hongyan.
//!
//! This room speaks hongyan's public interfaces from the outside, as anybody's program could: the
//! device side keeps one live connection and hands each message to the app once; the server side
//! calls the HTTP API. It never sees another crate of the platform, so what works here works for
//! everybody.
//!
//! The way to the gateway is chosen by itself: WebSocket, else server-sent events, else long polling, and back up when a
//! better one comes through again ([`Transport`], [`Options::transports`]). The app sees no difference.
//!
//! Where to start reading: [`Client`] (a handle and its [`Inbox`]), `session.rs` (the loop
//! around connections), `live.rs` (one connection), `link.rs` (what carries it), `transport.rs` (which one), [`backoff`]
//! (what each end means), and [`Admin`] for the API.
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
mod http_link;
mod link;
mod live;
pub mod net;
mod options;
mod overflow;
mod register;
mod secret;
mod session;
mod sse;
pub mod storage;
mod tracker;
mod transport;
pub mod wake;
pub mod wire;

pub use admin::Admin;
pub use channels::{Channel, NewChannel};
pub use client::{Client, Event, FETCH_MAX, Inbox, Stats, Status, Stop};
pub use error::{BoxError, Error, FieldFault, Problem};
pub use options::{AckMode, Codec, FixedToken, Options, Timers, TokenNeed, TokenSource};
pub use register::{DeviceInfo, DeviceSession, Registered};
pub use secret::Secret;
pub use transport::Transport;
pub use wire::{AppState, ClientEvent, EventKind, Message, NackCode};
