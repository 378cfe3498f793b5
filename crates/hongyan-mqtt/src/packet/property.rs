//! Properties of 5.0 (section 2.2.2): which exist, where they may stand, and how often.

use super::wire::{Cursor, put_binary, put_string, put_varint};
use super::{DecodeError, EncodeError, Limits, ReasonCode, Sender};

/// Where a list of properties stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Connect,
    Will,
    ConnAck,
    Publish,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
    Ack,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Auth,
}

macro_rules! properties {
    ($life:lifetime; $($(#[$meta:meta])* $variant:ident($($type:ty),+) = $id:literal;)*) => {
        /// One property.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Property<$life> {
            $($(#[$meta])* $variant($($type),+),)*
        }

        impl Property<'_> {
            /// Its identifier on the wire.
            pub const fn id(&self) -> u8 {
                match self {
                    $(Self::$variant(..) => $id,)*
                }
            }
        }
    };
}

properties! { 'a;
    /// 1 says that the payload is UTF-8, 0 that nobody knows.
    PayloadFormat(u8) = 0x01;
    /// Lifetime of a message, seconds.
    MessageExpiry(u32) = 0x02;
    /// MIME type of the payload, by custom.
    ContentType(&'a str) = 0x03;
    /// Where an answer is expected.
    ResponseTopic(&'a str) = 0x08;
    /// What the answer is to carry.
    CorrelationData(&'a [u8]) = 0x09;
    /// Number of a subscription, 1 to 268,435,455; a delivered message may carry several.
    SubscriptionId(u32) = 0x0B;
    /// How long a session outlives its connection, seconds; `u32::MAX` is for ever.
    SessionExpiry(u32) = 0x11;
    /// The client identifier that the server chose.
    AssignedClientId(&'a str) = 0x12;
    /// The keep alive that the server demands, seconds.
    ServerKeepAlive(u16) = 0x13;
    /// Name of an authentication method.
    AuthMethod(&'a str) = 0x15;
    /// Data of an authentication method.
    AuthData(&'a [u8]) = 0x16;
    /// Whether reason strings and user properties are welcome outside of PUBLISH.
    RequestProblemInfo(bool) = 0x17;
    /// How long a will waits, seconds.
    WillDelay(u32) = 0x18;
    /// Whether response information is welcome in CONNACK.
    RequestResponseInfo(bool) = 0x19;
    /// The basis of response topics.
    ResponseInfo(&'a str) = 0x1A;
    /// Another server.
    ServerReference(&'a str) = 0x1C;
    /// For people who look for a fault.
    ReasonString(&'a str) = 0x1F;
    /// How many QoS 1 and 2 messages may be under way to the sender of this; never 0.
    ReceiveMaximum(u16) = 0x21;
    /// Highest topic alias that the sender of this takes.
    TopicAliasMaximum(u16) = 0x22;
    /// A number that stands for a topic; never 0.
    TopicAlias(u16) = 0x23;
    /// Highest QoS of the server, 0 or 1.
    MaximumQos(u8) = 0x24;
    /// Whether the server keeps retained messages.
    RetainAvailable(bool) = 0x25;
    /// A name and a value, in the order of the sender, any number of them.
    UserProperty(&'a str, &'a str) = 0x26;
    /// Largest packet that the sender of this takes, all of its bytes; never 0.
    MaximumPacketSize(u32) = 0x27;
    /// Whether the server takes wildcards.
    WildcardAvailable(bool) = 0x28;
    /// Whether the server takes subscription identifiers.
    SubscriptionIdsAvailable(bool) = 0x29;
    /// Whether the server takes shared subscriptions.
    SharedAvailable(bool) = 0x2A;
}

impl<'a> Property<'a> {
    /// Reads the next property: its form and its own range, not its place.
    fn read(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        // An identifier is a variable byte integer; all that exist have one byte.
        let id = cursor.varint()?;
        Ok(match id {
            0x01 => match cursor.u8()? {
                format @ 0..=1 => Self::PayloadFormat(format),
                _ => return Err(DecodeError::protocol("the payload format is unknown")),
            },
            0x02 => Self::MessageExpiry(cursor.u32()?),
            0x03 => Self::ContentType(cursor.string()?),
            0x08 => Self::ResponseTopic(topic_name(cursor.string()?)?),
            0x09 => Self::CorrelationData(cursor.binary()?),
            0x0B => match cursor.varint()? {
                0 => return Err(DecodeError::protocol("a subscription identifier is 0")),
                id => Self::SubscriptionId(id),
            },
            0x11 => Self::SessionExpiry(cursor.u32()?),
            0x12 => Self::AssignedClientId(cursor.string()?),
            0x13 => Self::ServerKeepAlive(cursor.u16()?),
            0x15 => Self::AuthMethod(cursor.string()?),
            0x16 => Self::AuthData(cursor.binary()?),
            0x17 => Self::RequestProblemInfo(bool(cursor)?),
            0x18 => Self::WillDelay(cursor.u32()?),
            0x19 => Self::RequestResponseInfo(bool(cursor)?),
            0x1A => Self::ResponseInfo(cursor.string()?),
            0x1C => Self::ServerReference(cursor.string()?),
            0x1F => Self::ReasonString(cursor.string()?),
            0x21 => match cursor.u16()? {
                0 => return Err(DecodeError::protocol("the receive maximum is 0")),
                maximum => Self::ReceiveMaximum(maximum),
            },
            0x22 => Self::TopicAliasMaximum(cursor.u16()?),
            0x23 => match cursor.u16()? {
                0 => {
                    return Err(DecodeError::new(
                        ReasonCode::TOPIC_ALIAS_INVALID,
                        "the topic alias is 0",
                    ));
                }
                alias => Self::TopicAlias(alias),
            },
            0x24 => match cursor.u8()? {
                qos @ 0..=1 => Self::MaximumQos(qos),
                _ => return Err(DecodeError::protocol("the maximum QoS is not 0 or 1")),
            },
            0x25 => Self::RetainAvailable(bool(cursor)?),
            0x26 => Self::UserProperty(cursor.string()?, cursor.string()?),
            0x27 => match cursor.u32()? {
                0 => return Err(DecodeError::protocol("the maximum packet size is 0")),
                maximum => Self::MaximumPacketSize(maximum),
            },
            0x28 => Self::WildcardAvailable(bool(cursor)?),
            0x29 => Self::SubscriptionIdsAvailable(bool(cursor)?),
            0x2A => Self::SharedAvailable(bool(cursor)?),
            _ => return Err(DecodeError::malformed("a property is unknown")),
        })
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.push(self.id());
        match *self {
            Self::PayloadFormat(byte) | Self::MaximumQos(byte) => out.push(byte),
            Self::RequestProblemInfo(flag)
            | Self::RequestResponseInfo(flag)
            | Self::RetainAvailable(flag)
            | Self::WildcardAvailable(flag)
            | Self::SubscriptionIdsAvailable(flag)
            | Self::SharedAvailable(flag) => out.push(u8::from(flag)),
            Self::ServerKeepAlive(number)
            | Self::ReceiveMaximum(number)
            | Self::TopicAliasMaximum(number)
            | Self::TopicAlias(number) => out.extend_from_slice(&number.to_be_bytes()),
            Self::MessageExpiry(number)
            | Self::SessionExpiry(number)
            | Self::WillDelay(number)
            | Self::MaximumPacketSize(number) => out.extend_from_slice(&number.to_be_bytes()),
            Self::SubscriptionId(number) => put_varint(out, number),
            Self::ContentType(text)
            | Self::ResponseTopic(text)
            | Self::AssignedClientId(text)
            | Self::AuthMethod(text)
            | Self::ResponseInfo(text)
            | Self::ServerReference(text)
            | Self::ReasonString(text) => put_string(out, text)?,
            Self::CorrelationData(bytes) | Self::AuthData(bytes) => put_binary(out, bytes)?,
            Self::UserProperty(name, value) => {
                put_string(out, name)?;
                put_string(out, value)?;
            }
        }
        Ok(())
    }

    /// Whether it may stand there (5.0 table 2-4).
    const fn belongs(&self, place: Place, from: Sender) -> bool {
        use Place::{Ack, Auth, ConnAck, Connect, Disconnect, Publish, Subscribe, Will};
        match self {
            Self::PayloadFormat(_)
            | Self::MessageExpiry(_)
            | Self::ContentType(_)
            | Self::ResponseTopic(_)
            | Self::CorrelationData(_) => matches!(place, Publish | Will),
            // From a client it is a protocol error [3.3.4-6], told apart below.
            Self::SubscriptionId(_) => matches!(place, Publish | Subscribe),
            Self::SessionExpiry(_) => matches!(
                (place, from),
                (Connect | ConnAck, _) | (Disconnect, Sender::Client)
            ),
            Self::AssignedClientId(_)
            | Self::ServerKeepAlive(_)
            | Self::ResponseInfo(_)
            | Self::MaximumQos(_)
            | Self::RetainAvailable(_)
            | Self::WildcardAvailable(_)
            | Self::SubscriptionIdsAvailable(_)
            | Self::SharedAvailable(_) => matches!(place, ConnAck),
            Self::AuthMethod(_) | Self::AuthData(_) => {
                matches!(place, Connect | ConnAck | Auth)
            }
            Self::RequestProblemInfo(_) | Self::RequestResponseInfo(_) => {
                matches!(place, Connect)
            }
            Self::WillDelay(_) => matches!(place, Will),
            Self::ServerReference(_) => {
                matches!((place, from), (ConnAck, _) | (Disconnect, Sender::Server))
            }
            Self::ReasonString(_) => matches!(place, ConnAck | Ack | Disconnect | Auth),
            Self::ReceiveMaximum(_) | Self::TopicAliasMaximum(_) | Self::MaximumPacketSize(_) => {
                matches!(place, Connect | ConnAck)
            }
            Self::TopicAlias(_) => matches!(place, Publish),
            Self::UserProperty(..) => true,
        }
    }

    /// Whether it may stand there more than once.
    const fn repeats(&self, place: Place) -> bool {
        matches!(self, Self::UserProperty(..))
            || matches!((self, place), (Self::SubscriptionId(_), Place::Publish))
    }
}

fn bool(cursor: &mut Cursor<'_>) -> Result<bool, DecodeError> {
    match cursor.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::protocol("a yes or no is neither 0 nor 1")),
    }
}

/// A name that a message may be published under [4.7.3-1], [3.3.2-2].
pub(super) fn topic_name(name: &str) -> Result<&str, DecodeError> {
    if name.is_empty() {
        return Err(DecodeError::malformed("a topic name is empty"));
    }
    if name.contains(['+', '#']) {
        return Err(DecodeError::malformed("a topic name holds a wildcard"));
    }
    Ok(name)
}

/// A checked list of properties, in the order of the wire. It borrows and costs nothing to pass on.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Properties<'a> {
    bytes: &'a [u8],
}

impl<'a> Properties<'a> {
    /// No properties.
    pub const NONE: Self = Self { bytes: &[] };

    /// Reads the length and the properties behind it.
    pub(super) fn read(
        cursor: &mut Cursor<'a>,
        place: Place,
        from: Sender,
        limits: &Limits,
    ) -> Result<Self, DecodeError> {
        let length = cursor.varint()?;
        let bytes = cursor.take(length as usize)?;
        let mut inside = Cursor::new(bytes);
        let mut seen = 0_u64;
        let mut user_properties = 0;
        while !inside.is_empty() {
            let property = Property::read(&mut inside)?;
            if !property.belongs(place, from) {
                return Err(DecodeError::malformed(
                    "a property does not belong into this packet",
                ));
            }
            if place == Place::Publish
                && from == Sender::Client
                && matches!(property, Property::SubscriptionId(_))
            {
                return Err(DecodeError::protocol(
                    "a client sent a subscription identifier with a message",
                ));
            }
            let bit = 1 << property.id();
            if seen & bit != 0 && !property.repeats(place) {
                return Err(DecodeError::protocol("a property is repeated"));
            }
            seen |= bit;
            if matches!(property, Property::UserProperty(..)) {
                user_properties += 1;
            }
        }
        if user_properties > limits.user_properties_max {
            return Err(DecodeError::new(
                ReasonCode::QUOTA_EXCEEDED,
                "too many user properties",
            ));
        }
        let has = |id: u8| seen & (1 << id) != 0;
        if has(0x16) && !has(0x15) {
            return Err(DecodeError::protocol(
                "authentication data stands without a method",
            ));
        }
        Ok(Self { bytes })
    }

    /// The properties in their order.
    pub const fn iter(&self) -> Iter<'a> {
        Iter {
            cursor: Cursor::new(self.bytes),
        }
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Their bytes on the wire, without the length in front.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Name and value of each user property, in their order.
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::UserProperty(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// Every subscription identifier, in their order.
    pub fn subscription_ids(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.iter().filter_map(|property| match property {
            Property::SubscriptionId(id) => Some(id),
            _ => None,
        })
    }
}

macro_rules! accessors {
    ($($(#[$meta:meta])* $name:ident -> $type:ty = $variant:ident;)*) => {
        impl<'a> Properties<'a> {
            $($(#[$meta])*
            pub fn $name(&self) -> Option<$type> {
                self.iter().find_map(|property| match property {
                    Property::$variant(value) => Some(value),
                    _ => None,
                })
            })*
        }
    };
}

accessors! {
    /// [`Property::PayloadFormat`].
    payload_format -> u8 = PayloadFormat;
    /// [`Property::MessageExpiry`], seconds.
    message_expiry -> u32 = MessageExpiry;
    /// [`Property::ContentType`].
    content_type -> &'a str = ContentType;
    /// [`Property::ResponseTopic`].
    response_topic -> &'a str = ResponseTopic;
    /// [`Property::CorrelationData`].
    correlation_data -> &'a [u8] = CorrelationData;
    /// The first [`Property::SubscriptionId`].
    subscription_id -> u32 = SubscriptionId;
    /// [`Property::SessionExpiry`], seconds.
    session_expiry -> u32 = SessionExpiry;
    /// [`Property::AssignedClientId`].
    assigned_client_id -> &'a str = AssignedClientId;
    /// [`Property::ServerKeepAlive`], seconds.
    server_keep_alive -> u16 = ServerKeepAlive;
    /// [`Property::AuthMethod`].
    auth_method -> &'a str = AuthMethod;
    /// [`Property::AuthData`].
    auth_data -> &'a [u8] = AuthData;
    /// [`Property::RequestProblemInfo`].
    request_problem_info -> bool = RequestProblemInfo;
    /// [`Property::WillDelay`], seconds.
    will_delay -> u32 = WillDelay;
    /// [`Property::RequestResponseInfo`].
    request_response_info -> bool = RequestResponseInfo;
    /// [`Property::ResponseInfo`].
    response_info -> &'a str = ResponseInfo;
    /// [`Property::ServerReference`].
    server_reference -> &'a str = ServerReference;
    /// [`Property::ReasonString`].
    reason_string -> &'a str = ReasonString;
    /// [`Property::ReceiveMaximum`].
    receive_maximum -> u16 = ReceiveMaximum;
    /// [`Property::TopicAliasMaximum`].
    topic_alias_maximum -> u16 = TopicAliasMaximum;
    /// [`Property::TopicAlias`].
    topic_alias -> u16 = TopicAlias;
    /// [`Property::MaximumQos`].
    maximum_qos -> u8 = MaximumQos;
    /// [`Property::RetainAvailable`].
    retain_available -> bool = RetainAvailable;
    /// [`Property::MaximumPacketSize`], bytes.
    maximum_packet_size -> u32 = MaximumPacketSize;
    /// [`Property::WildcardAvailable`].
    wildcard_available -> bool = WildcardAvailable;
    /// [`Property::SubscriptionIdsAvailable`].
    subscription_ids_available -> bool = SubscriptionIdsAvailable;
    /// [`Property::SharedAvailable`].
    shared_available -> bool = SharedAvailable;
}

impl std::fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut list = f.debug_list();
        for property in self {
            match property {
                // May be a password.
                Property::AuthData(_) => list.entry(&"AuthData(..)"),
                other => list.entry(&other),
            };
        }
        list.finish()
    }
}

impl<'a> IntoIterator for &Properties<'a> {
    type Item = Property<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Goes over [`Properties`].
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Property<'a>> {
        if self.cursor.is_empty() {
            return None;
        }
        // They were read once before, so this does not fail.
        Property::read(&mut self.cursor).ok()
    }
}

/// A list of properties to be sent. Reuse one with [`PropertyList::clear`] to spare allocations.
///
/// It checks lengths, not whether a property may stand where it is used: that is the sender's to know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PropertyList {
    bytes: Vec<u8>,
}

impl PropertyList {
    /// An empty list.
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Adds a property at the end.
    ///
    /// # Errors
    /// [`EncodeError::FieldTooLong`] for a string or binary of more than 65,535 bytes; nothing is added then.
    pub fn push(&mut self, property: Property<'_>) -> Result<(), EncodeError> {
        let before = self.bytes.len();
        property
            .write(&mut self.bytes)
            .inspect_err(|_| self.bytes.truncate(before))
    }

    /// Adds a whole list at the end, without looking into it.
    pub fn append(&mut self, properties: Properties<'_>) {
        self.bytes.extend_from_slice(properties.as_bytes());
    }

    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The list as it is sent.
    pub fn as_properties(&self) -> Properties<'_> {
        Properties { bytes: &self.bytes }
    }
}

impl<'a> Extend<Property<'a>> for PropertyList {
    /// Adds those that fit; for properties that came from the wire, and so all fit.
    fn extend<I: IntoIterator<Item = Property<'a>>>(&mut self, properties: I) {
        for property in properties {
            let _ = self.push(property);
        }
    }
}
