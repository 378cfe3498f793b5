//! The whole thing, from outside: the real binary, real sockets, simulated vendors, virtual phones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that meets the unexpected has failed, and says why"
)]

mod broadcast;
mod crash;
mod damage;
mod disk;
mod everywhere;
mod faults;
mod harness;
mod input;
mod journeys;
mod open_mqtt;
mod operations;
mod push;
mod taken_back;
mod wake;
