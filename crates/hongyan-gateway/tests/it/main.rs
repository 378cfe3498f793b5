//! The gateway over real sockets on loopback, with a store in memory behind its ports.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected has failed"
)]

mod autopush;
mod client;
mod hostile;
mod hub;
mod kick;
mod listeners;
mod mqtt;
mod mqtt_wire;
mod news;
mod poll;
mod protocol;
mod push;
mod recall;
mod rig;
mod sse;
mod store;
mod storm;
mod tls;
mod topics;
mod transport;
mod xmpp;
mod xmpp_wire;
