//! The HTTP API: `/v1`, health, metrics, and the door to live connections.
//!
//! This room reads requests strictly, finds out who calls, asks ports and services, and answers. It decides nothing about a
//! message's way, knows no engine and no vendor, and never writes a delivery. One table of routes makes
//! both the router and the OpenAPI document.
//!
//! Start reading at `table.rs` (all routes), then `route.rs` (how a request is let in and read), `handler/messages.rs` (what a
//! send does) and [`services`] (what this room needs from others).

mod api;
mod auth;
mod body;
mod docs;
mod handler;
pub mod key;
mod limiter;
mod objects;
pub mod openapi;
mod options;
mod problem;
mod pulse;
mod push;
mod reply;
mod route;
mod serve;
pub mod services;
mod table;
mod upgrade;
mod wire;

pub use api::{Api, MetricsText, Ports};
pub use limiter::Rate;
pub use options::Options;
pub use problem::{Code, Problem};
pub use push::{PushOptions, judge_headers, judge_matrix, judge_vapid, vapid_key_hash};

/// Reads a request body as `POST /v1/messages` does. For those who feed it bytes.
///
/// # Errors
/// The problem that the caller would be answered.
pub fn read_message(body: &[u8]) -> Result<hongyan_core::draft::Draft, Problem> {
    body::parse::<wire::message::Message>(body)?.into_draft()
}

/// Reads a request body as `POST /v1/devices` does. For those who feed it bytes.
///
/// # Errors
/// The problem that the caller would be answered.
pub fn read_registration(body: &[u8]) -> Result<(), Problem> {
    body::parse::<wire::device::Registration>(body).map(drop)
}
