//! The broker by the clauses: MQ-n are hongyan's own, bracketed numbers the standard's.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected has failed, and says why"
)]

mod connect;
mod flow;
mod limits;
mod play;
mod properties;
mod publish;
mod session;
mod wills;
mod wire;
