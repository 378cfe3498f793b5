//! From an accepted message to a settled delivery.
//!
//! [`intake`] makes messages durable, [`router`] plans their deliveries with [`plan`] (pure),
//! [`lane`] takes them to a vendor under its limits, [`feedback`] applies what sessions and vendors
//! answer. Only this room writes deliveries, and only through [`hongyan_core::delivery::Delivery::apply`].
//!
//! It knows ports, never engines, vendors or protocols. Start reading at [`Dispatch`] in
//! `service.rs`, then `intake.rs`, `router.rs`, `lane.rs`, `feedback.rs`.

mod acked;
pub mod binding;
pub mod breaker;
mod carried;
pub mod choice;
mod counted;
pub mod credentials;
mod deaths;
mod enrolment;
pub mod explain;
pub mod feedback;
pub mod gate;
pub mod holds;
pub mod hygiene;
mod ids;
pub mod intake;
pub mod lane;
mod memory;
pub mod plan;
pub mod policy;
pub mod push;
pub mod quota;
pub mod rate;
pub mod recall;
pub mod receipts;
pub mod render;
mod returns;
pub mod router;
mod service;
mod shipment;
mod situation;
mod unreadable;

pub use service::{Dispatch, Options, Ports};
