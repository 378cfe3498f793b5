//! What a packet is.

use std::fmt;

use super::wire::{Cursor, put_string};
use super::{EncodeError, Properties, ReasonCode};

/// The protocol's version, told by CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// 3.1.1, level 4.
    V311,
    /// 5.0, level 5.
    V5,
}

/// Who sent the bytes: each side may send only its own packets and properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// They come from a client.
    Client,
    /// They come from a server.
    Server,
}

/// What is taken, beyond the standard's own bounds. Too large a CONNECT field is answered with the
/// field's own reason, everything else with [`ReasonCode::PACKET_TOO_LARGE`] or
/// [`ReasonCode::QUOTA_EXCEEDED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A packet with its fixed header, bytes.
    pub packet_bytes_max: u32,
    /// A CONNECT packet with its fixed header, bytes: nobody knows yet who sends it.
    pub connect_bytes_max: u32,
    /// A client identifier, bytes.
    pub client_id_bytes_max: usize,
    /// A user name, bytes.
    pub user_name_bytes_max: usize,
    /// A password, bytes.
    pub password_bytes_max: usize,
    /// User properties in one list.
    pub user_properties_max: usize,
    /// Filters in one SUBSCRIBE or UNSUBSCRIBE.
    pub filters_max: usize,
}

impl Limits {
    /// What hongyan's listeners take.
    pub const DEFAULT: Self = Self {
        packet_bytes_max: 262_144,
        connect_bytes_max: 8_192,
        client_id_bytes_max: 128,
        user_name_bytes_max: 256,
        password_bytes_max: 4_096,
        user_properties_max: 20,
        filters_max: 100,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    /// Sent once, perhaps lost.
    AtMostOnce = 0,
    /// Sent until acknowledged, perhaps twice.
    AtLeastOnce = 1,
    /// Handed over in two steps.
    ExactlyOnce = 2,
}

impl QoS {
    /// The level of two bits; `None` for 3 and above.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::AtMostOnce,
            1 => Self::AtLeastOnce,
            2 => Self::ExactlyOnce,
            _ => return None,
        })
    }
}

/// A packet. It borrows from the bytes that it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A client asks to connect.
    Connect(Connect<'a>),
    /// The server answers.
    ConnAck(ConnAck<'a>),
    /// A message.
    Publish(Publish<'a>),
    /// The receiver of a QoS 1 message has it.
    PubAck(Ack<'a>),
    /// The receiver of a QoS 2 message has it.
    PubRec(Ack<'a>),
    /// The sender of a QoS 2 message lets it go.
    PubRel(Ack<'a>),
    /// And its receiver, too.
    PubComp(Ack<'a>),
    /// A client wants messages.
    Subscribe(Subscribe<'a>),
    /// What it was granted.
    SubAck(SubAck<'a>),
    /// A client wants them no more.
    Unsubscribe(Unsubscribe<'a>),
    /// What became of it.
    UnsubAck(UnsubAck<'a>),
    /// A client lives.
    PingReq,
    /// The server, too.
    PingResp,
    /// The end, in good order; a server's only in 5.0.
    Disconnect(Disconnect<'a>),
    /// A step of enhanced authentication (5.0).
    Auth(Auth<'a>),
}

impl Packet<'_> {
    /// The standard's name of its type.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "CONNECT",
            Self::ConnAck(_) => "CONNACK",
            Self::Publish(_) => "PUBLISH",
            Self::PubAck(_) => "PUBACK",
            Self::PubRec(_) => "PUBREC",
            Self::PubRel(_) => "PUBREL",
            Self::PubComp(_) => "PUBCOMP",
            Self::Subscribe(_) => "SUBSCRIBE",
            Self::SubAck(_) => "SUBACK",
            Self::Unsubscribe(_) => "UNSUBSCRIBE",
            Self::UnsubAck(_) => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect(_) => "DISCONNECT",
            Self::Auth(_) => "AUTH",
        }
    }
}

/// CONNECT.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version that the connection speaks from now on.
    pub version: Version,
    /// 3.1.1: clean session; 5.0: clean start.
    pub clean_start: bool,
    /// Seconds, 0 for none.
    pub keep_alive: u16,
    /// Empty in 3.1.1.
    pub properties: Properties<'a>,
    /// Empty when the server is to choose one; in 3.1.1 only with `clean_start`.
    pub client_id: &'a str,
    /// What is published when the connection is lost.
    pub will: Option<Will<'a>>,
    /// The user name.
    pub user_name: Option<&'a str>,
    /// The password; `Debug` does not show it.
    pub password: Option<&'a [u8]>,
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive", &self.keep_alive)
            .field("properties", &self.properties)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("user_name", &self.user_name)
            .field("password", &self.password.map(|_| ".."))
            .finish()
    }
}

/// A client's last will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// A valid topic name.
    pub topic: &'a str,
    /// The message.
    pub payload: &'a [u8],
    /// Its quality of service.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
    /// Empty in 3.1.1.
    pub properties: Properties<'a>,
}

/// CONNACK. In 3.1.1 the reason is written as its return code, or as 3 (unavailable) where it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Whether the server has the client's session.
    pub session_present: bool,
    /// Whether the client may go on.
    pub reason: ReasonCode,
    /// Not written in 3.1.1.
    pub properties: Properties<'a>,
}

/// PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Sent before, perhaps; never with QoS 0.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// To be retained, or retained.
    pub retain: bool,
    /// A valid topic name, or empty with a topic alias in 5.0.
    pub topic: &'a str,
    /// Not 0 with QoS 1 and 2; 0 with QoS 0, where it is not on the wire.
    pub packet_id: u16,
    /// Empty in 3.1.1.
    pub properties: Properties<'a>,
    /// The message.
    pub payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Not 0.
    pub packet_id: u16,
    /// [`ReasonCode::SUCCESS`] in 3.1.1.
    pub reason: ReasonCode,
    /// Empty in 3.1.1.
    pub properties: Properties<'a>,
}

impl Ack<'static> {
    /// An acknowledgement without further words.
    pub const fn new(packet_id: u16, reason: ReasonCode) -> Self {
        Self {
            packet_id,
            reason,
            properties: Properties::NONE,
        }
    }
}

/// SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Not 0.
    pub packet_id: u16,
    /// Empty in 3.1.1.
    pub properties: Properties<'a>,
    /// At least one.
    pub filters: Filters<'a>,
}

/// SUBACK: one code for each filter, in their order. In 3.1.1 every failure is written as 0x80.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Not 0.
    pub packet_id: u16,
    /// Not written in 3.1.1.
    pub properties: Properties<'a>,
    /// The bytes of the codes.
    pub codes: &'a [u8],
}

/// UNSUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Not 0.
    pub packet_id: u16,
    /// Empty in 3.1.1.
    pub properties: Properties<'a>,
    /// At least one.
    pub filters: Topics<'a>,
}

/// UNSUBACK: one code for each filter in 5.0, none in 3.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// Not 0.
    pub packet_id: u16,
    /// Not written in 3.1.1.
    pub properties: Properties<'a>,
    /// The bytes of the codes; not written in 3.1.1.
    pub codes: &'a [u8],
}

/// DISCONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// [`ReasonCode::NORMAL_DISCONNECTION`] in 3.1.1.
    pub reason: ReasonCode,
    /// Empty in 3.1.1.
    pub properties: Properties<'a>,
}

impl Disconnect<'static> {
    /// An end without further words.
    pub const fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            properties: Properties::NONE,
        }
    }
}

/// AUTH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// 0x00, 0x18 or 0x19.
    pub reason: ReasonCode,
    /// Method and data.
    pub properties: Properties<'a>,
}

/// When a subscription gets retained messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    /// Whenever it is made, anew or again.
    Always = 0,
    /// When it did not exist before.
    New = 1,
    /// Never.
    Never = 2,
}

/// What a subscription asks for. In 3.1.1 there is only the QoS; the rest is as if left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubscribeOptions {
    /// The highest QoS wanted.
    pub qos: QoS,
    /// Nothing that the same client publishes.
    pub no_local: bool,
    /// The RETAIN flag is to be kept as it was published.
    pub retain_as_published: bool,
    /// When retained messages are wanted.
    pub retain_handling: RetainHandling,
}

impl SubscribeOptions {
    /// Those of a 3.1.1 subscription.
    pub const fn new(qos: QoS) -> Self {
        Self {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Always,
        }
    }

    pub(super) const fn from_byte(byte: u8) -> Option<Self> {
        let Some(qos) = QoS::from_bits(byte & 0x03) else {
            return None;
        };
        Some(Self {
            qos,
            no_local: byte & 0x04 != 0,
            retain_as_published: byte & 0x08 != 0,
            retain_handling: match byte >> 4 & 0x03 {
                0 => RetainHandling::Always,
                1 => RetainHandling::New,
                2 => RetainHandling::Never,
                _ => return None,
            },
        })
    }

    pub(super) const fn to_byte(self) -> u8 {
        self.qos as u8
            | (self.no_local as u8) << 2
            | (self.retain_as_published as u8) << 3
            | (self.retain_handling as u8) << 4
    }
}

/// A topic filter and what is wanted of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter<'a> {
    /// A valid topic filter, perhaps `$share/<name>/<filter>`.
    pub filter: &'a str,
    /// The options.
    pub options: SubscribeOptions,
}

macro_rules! list {
    ($(#[$doc:meta])* $view:ident, $(#[$owned_doc:meta])* $owned:ident, $iter:ident, $item:ty, $next:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $view<'a> {
            bytes: &'a [u8],
        }

        impl<'a> $view<'a> {
            pub(super) const fn checked(bytes: &'a [u8]) -> Self {
                Self { bytes }
            }

            /// Goes over them in their order.
            pub const fn iter(&self) -> $iter<'a> {
                $iter {
                    cursor: Cursor::new(self.bytes),
                }
            }

            /// Their bytes on the wire.
            pub const fn as_bytes(&self) -> &'a [u8] {
                self.bytes
            }
        }

        impl fmt::Debug for $view<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_list().entries(self.iter()).finish()
            }
        }

        impl<'a> IntoIterator for &$view<'a> {
            type Item = $item;
            type IntoIter = $iter<'a>;

            fn into_iter(self) -> $iter<'a> {
                self.iter()
            }
        }

        /// Goes over the list.
        #[derive(Debug, Clone)]
        pub struct $iter<'a> {
            cursor: Cursor<'a>,
        }

        impl<'a> Iterator for $iter<'a> {
            type Item = $item;

            fn next(&mut self) -> Option<$item> {
                if self.cursor.is_empty() {
                    return None;
                }
                let next: fn(&mut Cursor<'a>) -> Option<$item> = $next;
                next(&mut self.cursor)
            }
        }

        $(#[$owned_doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct $owned {
            bytes: Vec<u8>,
        }

        impl $owned {
            /// An empty list.
            pub const fn new() -> Self {
                Self { bytes: Vec::new() }
            }
        }
    };
}

list!(
    /// The filters of a SUBSCRIBE, checked.
    Filters,
    /// Filters to be sent.
    FilterList, FilterIter, Filter<'a>,
    |cursor| Some(Filter {
        filter: cursor.string().ok()?,
        options: SubscribeOptions::from_byte(cursor.u8().ok()?)?,
    })
);

list!(
    /// The filters of an UNSUBSCRIBE, checked.
    Topics,
    /// Filters to be sent.
    TopicList, TopicIter, &'a str,
    |cursor| cursor.string().ok()
);

impl FilterList {
    /// Adds one at the end.
    ///
    /// # Errors
    /// [`EncodeError::FieldTooLong`]; nothing is added then.
    pub fn push(&mut self, filter: &str, options: SubscribeOptions) -> Result<(), EncodeError> {
        put_string(&mut self.bytes, filter)?;
        self.bytes.push(options.to_byte());
        Ok(())
    }

    /// The list as it is sent.
    pub fn as_filters(&self) -> Filters<'_> {
        Filters::checked(&self.bytes)
    }
}

impl TopicList {
    /// Adds one at the end.
    ///
    /// # Errors
    /// [`EncodeError::FieldTooLong`]; nothing is added then.
    pub fn push(&mut self, filter: &str) -> Result<(), EncodeError> {
        put_string(&mut self.bytes, filter)
    }

    /// The list as it is sent.
    pub fn as_topics(&self) -> Topics<'_> {
        Topics::checked(&self.bytes)
    }
}
