//! MQTT 3.1.1 and 5.0: the packets, the topics, and an open broker.
//!
//! It knows the two OASIS standards and nothing of hongyan: no device, no inbox, no app. The packet
//! layer owns no byte and no socket, so that the gateway's device sessions and the broker can both
//! be built on it. Comments cite the standards' conformance statements as `[3.1.2-1]` (prefix
//! `MQTT-` left out; 5.0's numbers unless 3.1.1 is named).
//!
//! Start reading at [`packet`], then [`broker`].

pub mod broker;
pub mod packet;
mod serve;
pub mod topic;

pub use serve::serve;
