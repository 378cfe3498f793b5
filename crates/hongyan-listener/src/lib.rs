//! Listeners: connections that come in, the same way for every protocol.
//!
//! A [`Listener`] accepts, asks a [`Door`] whether there is a place, bounds the time until the connection is open, and makes
//! the TLS handshake, at once or when the door says so (STARTTLS). Limits on all connections and on those of one address are
//! [`Places`]. It reads no byte of any protocol, and knows no room that speaks one.
//!
//! Start reading at `listen.rs`, then [`secure`] (what is kept of a handshake for those who go on without rustls).

mod listen;
mod places;
pub mod secure;
mod transport;

pub use listen::{Arrival, Door, Listener, Refusal};
pub use places::{Full, Place, Places};
pub use transport::Transport;
