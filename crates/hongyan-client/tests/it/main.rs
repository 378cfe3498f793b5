//! The SDK against a small server that speaks the published interfaces.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

mod admin;
mod device;
mod gateway;
mod http_server;
mod tls;
mod transport;
mod ways;
