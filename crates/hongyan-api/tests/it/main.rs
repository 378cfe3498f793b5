//! The API over real sockets, on the embedded engine, with services that a test can look into.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod apps;
mod bad_input;
mod broadcasts;
mod callbacks;
mod client_side;
mod connections;
mod credentials;
mod described;
mod devices;
mod events;
mod http_client;
mod messages;
mod numbers;
mod objects;
mod openapi;
mod push;
mod services;
mod topics;
mod transfer;
mod users;
mod world;
