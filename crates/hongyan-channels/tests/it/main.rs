//! The room from outside: the channel suite against stand-ins, and whole sends against the sandbox's simulators.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests: a failure is told by a panic, and the simulators run on wall-clock time"
)]

mod bench;
mod message;
mod paper;
mod pool;
mod posts;
mod sandbox;
mod smpp;
mod stand_in;
mod suite;
