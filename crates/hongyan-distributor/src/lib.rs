//! A UnifiedPush distributor for Linux desktops: the one connection of a session, and a bus that hands on what comes.
//!
//! Apps register on the session bus (`org.unifiedpush.Distributor2`), get an endpoint of the server, and are called
//! (`org.unifiedpush.Connector2`) with what is posted there, byte for byte. To the server the distributor is a device like any
//! other, by way of `hongyan-client`: one connection, whatever the number of apps.
//!
//! Where to start reading: `service.rs` (the loop that joins the parts), `bus.rs` (what apps may ask), `distributor.rs` (what
//! is done about it), `apps.rs` (how messages reach apps, and when they count as taken), [`state`] (what survives).

pub mod arguments;

mod apps;
mod bus;
mod connector;
mod device;
mod distributor;
mod error;
mod service;
pub mod state;

pub use error::Error;
pub use service::{Settings, run};
