//! The ways out: one file for each vendor that can reach a device without a session.
//!
//! A channel encodes a message, authenticates and makes one call; what the vendor said comes back as a
//! [`Verdict`](hongyan_core::Verdict). This room never retries, paces, logs or touches a store: that is the work of the
//! lanes, and it never opens a socket except through [`Egress`].
//!
//! Start reading at [`vendor`] (which channels there are), then `vendor/apns.rs` from top to bottom: every vendor has
//! the same shape. [`payload`] is the convention that clients rely on.
//!
//! To add a vendor: write `vendor/<name>.rs` and add one line to [`vendor::all`].

pub mod vendor;

pub mod classes;
pub mod payload;

pub mod egress;
pub mod http;

mod acs;
mod address;
mod answer;
mod callback;
mod config;
mod digests;
mod jwt;
mod layout;
mod receipts;
mod stored;
mod texts;
mod token;

pub use egress::{CallError, Egress};
