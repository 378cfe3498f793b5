//! The gateway: live connections of devices and what is due on them.
//!
//! It owns sockets from the opening handshake on, on reactors of its own (one thread each, no task
//! and no buffer for an idle connection), and delivers every device's inbox over them: a session
//! asks for what lies after its place, sends at most so many unacknowledged messages, and passes
//! on what the device says. It never plans deliveries, never writes messages and never calls a
//! vendor; it sees engines only through the ports of [`hongyan_core::port`].
//!
//! Start reading at [`session`] (the model that all protocols share), then `reactor` (who runs
//! it), [`hub`] (how other rooms reach sessions) and [`protocol::websocket`].

mod backend;
pub mod gate;
mod gateway;
pub mod handshake;
pub mod hub;
mod mailbox;
pub mod options;
pub mod pipe;
pub mod protocol;
mod reactor;
mod seat;
pub mod session;
mod tickets;
pub mod tls;
mod wheel;
mod writer;

pub use gate::{Busy, Permit};
pub use gateway::{AdoptError, Gateway, GatewayHandle, Ports, Socket, StartError};
pub use hub::{Hub, Stats};
pub use options::{Options, TlsRecords};
pub use protocol::autopush::Setup as Autopush;
pub use protocol::mqtt::{Mqtt, Publish, PublishError};
pub use protocol::xmpp::{Listener, Xmpp, XmppOptions};
pub use protocol::{Encoding, Speech};
pub use tickets::TICKET_TTL;
pub use tls::Tls;
