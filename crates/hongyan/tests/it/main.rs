//! The whole thing, from outside: the real binary, real sockets, simulated vendors, virtual phones.

mod crash;
mod faults;
mod harness;
mod input;
mod journeys;
mod operations;
