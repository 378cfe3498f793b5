//! The packet layer: bytes to packets and back, strictly by the standard, without owning a byte.
//!
//! [`decode`] looks at the front of whatever has been received: it answers `None` while a packet is
//! incomplete, and otherwise a packet that borrows from those bytes and how many of them it used. What
//! it accepts needs no further check of form; what is left to a session is meaning (who may do what, topic
//! aliases, packet identifiers in use, quotas).
//!
//! [`Packet::encode`] appends to a buffer of the caller's. Both are pure: an idle connection holds nothing.
//!
//! ```
//! use hongyan_mqtt::packet::{Limits, Packet, Sender, Version, decode};
//!
//! let limits = Limits::default();
//! // The first packet of a connection: nothing but CONNECT is taken, and it says the version.
//! let received = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c\xc0\x00";
//! let (packet, used) = decode(received, Sender::Client, None, &limits).unwrap().unwrap();
//! let Packet::Connect(connect) = packet else { unreachable!() };
//! assert_eq!((connect.client_id, connect.version), ("c", Version::V311));
//! // From then on with the version.
//! let (packet, _) = decode(&received[used..], Sender::Client, Some(connect.version), &limits).unwrap().unwrap();
//! assert_eq!(packet, Packet::PingReq);
//! let mut answer = Vec::new();
//! Packet::PingResp.encode(connect.version, &mut answer).unwrap();
//! assert_eq!(answer, b"\xd0\x00");
//! ```

mod decode;
mod encode;
mod error;
mod property;
mod reason;
#[cfg(test)]
mod tests;
mod types;
mod wire;

pub use decode::{decode, frame};
pub use error::{DecodeError, EncodeError};
pub use property::{Iter as PropertyIter, Properties, Property, PropertyList};
pub use reason::ReasonCode;
pub use types::{
    Ack, Auth, ConnAck, Connect, Disconnect, Filter, FilterIter, FilterList, Filters, Limits,
    Packet, Publish, QoS, RetainHandling, Sender, SubAck, Subscribe, SubscribeOptions, TopicIter,
    TopicList, Topics, UnsubAck, Unsubscribe, Version, Will,
};
pub use wire::{VARINT_MAX, is_allowed};
