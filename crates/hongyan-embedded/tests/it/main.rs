//! The embedded engines against the promises of the ports, against damage and against each other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "this is how a test fails, and how a child process talks to its test"
)]

mod backend;
mod backup;
mod conformance;
mod crash;
mod damage;
mod fault;
mod inbox_model;
mod loss;
mod opening;
mod oracle;
mod queued;
mod sets;
mod subject;
