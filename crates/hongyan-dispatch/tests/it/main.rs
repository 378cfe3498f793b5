//! Dispatch over the embedded engine, with a vendor and a presence that do what a test says.

mod deliveries;
mod explain;
mod hands;
mod lanes;
mod world;
