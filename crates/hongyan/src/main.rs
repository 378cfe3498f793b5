//! The hongyan server and its command line.

mod clock;
mod config;
mod log;
mod seal;
mod shutdown;
mod tasks;

fn main() {}
