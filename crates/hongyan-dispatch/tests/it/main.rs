//! Dispatch over the embedded engine, with a vendor and a presence that do what a test says.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets the unexpected has failed"
)]

mod acked;
mod collapse;
mod counts;
mod crash;
mod deliveries;
mod explain;
mod hands;
mod hygiene;
mod lanes;
mod lint;
mod memory;
mod peers;
mod quiet;
mod quota_day;
mod quota_edges;
mod quota_words;
mod quotas;
mod recalls;
mod receipts;
mod store_trouble;
mod troubled;
mod windows;
mod world;
