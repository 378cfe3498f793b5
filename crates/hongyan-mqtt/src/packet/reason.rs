//! Reason codes of 5.0, and what becomes of them in 3.1.1.

use std::fmt;

/// Why something was done or refused: the one byte of CONNACK, acknowledgements, SUBACK and
/// DISCONNECT in 5.0 (section 2.4). From 0x80 on it is a failure.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReasonCode(
    /// The byte on the wire.
    pub u8,
);

macro_rules! reasons {
    ($($(#[$meta:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        impl ReasonCode {
            $($(#[$meta])* #[doc = $text] pub const $name: Self = Self($code);)*

            /// The standard's name of the code, in small letters.
            pub const fn text(self) -> &'static str {
                match self.0 {
                    $($code => $text,)*
                    _ => "unknown",
                }
            }
        }
    };
}

reasons! {
    SUCCESS = 0x00, "success";
    GRANTED_QOS_1 = 0x01, "granted qos 1";
    GRANTED_QOS_2 = 0x02, "granted qos 2";
    DISCONNECT_WITH_WILL = 0x04, "disconnect with will message";
    NO_MATCHING_SUBSCRIBERS = 0x10, "no matching subscribers";
    NO_SUBSCRIPTION_EXISTED = 0x11, "no subscription existed";
    CONTINUE_AUTHENTICATION = 0x18, "continue authentication";
    REAUTHENTICATE = 0x19, "re-authenticate";
    UNSPECIFIED = 0x80, "unspecified error";
    MALFORMED_PACKET = 0x81, "malformed packet";
    PROTOCOL_ERROR = 0x82, "protocol error";
    IMPLEMENTATION_SPECIFIC = 0x83, "implementation specific error";
    UNSUPPORTED_VERSION = 0x84, "unsupported protocol version";
    CLIENT_ID_NOT_VALID = 0x85, "client identifier not valid";
    BAD_USER_NAME_OR_PASSWORD = 0x86, "bad user name or password";
    NOT_AUTHORIZED = 0x87, "not authorized";
    SERVER_UNAVAILABLE = 0x88, "server unavailable";
    SERVER_BUSY = 0x89, "server busy";
    BANNED = 0x8A, "banned";
    SERVER_SHUTTING_DOWN = 0x8B, "server shutting down";
    BAD_AUTHENTICATION_METHOD = 0x8C, "bad authentication method";
    KEEP_ALIVE_TIMEOUT = 0x8D, "keep alive timeout";
    SESSION_TAKEN_OVER = 0x8E, "session taken over";
    TOPIC_FILTER_INVALID = 0x8F, "topic filter invalid";
    TOPIC_NAME_INVALID = 0x90, "topic name invalid";
    PACKET_ID_IN_USE = 0x91, "packet identifier in use";
    PACKET_ID_NOT_FOUND = 0x92, "packet identifier not found";
    RECEIVE_MAXIMUM_EXCEEDED = 0x93, "receive maximum exceeded";
    TOPIC_ALIAS_INVALID = 0x94, "topic alias invalid";
    PACKET_TOO_LARGE = 0x95, "packet too large";
    MESSAGE_RATE_TOO_HIGH = 0x96, "message rate too high";
    QUOTA_EXCEEDED = 0x97, "quota exceeded";
    ADMINISTRATIVE_ACTION = 0x98, "administrative action";
    PAYLOAD_FORMAT_INVALID = 0x99, "payload format invalid";
    RETAIN_NOT_SUPPORTED = 0x9A, "retain not supported";
    QOS_NOT_SUPPORTED = 0x9B, "qos not supported";
    USE_ANOTHER_SERVER = 0x9C, "use another server";
    SERVER_MOVED = 0x9D, "server moved";
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E, "shared subscriptions not supported";
    CONNECTION_RATE_EXCEEDED = 0x9F, "connection rate exceeded";
    MAXIMUM_CONNECT_TIME = 0xA0, "maximum connect time";
    SUBSCRIPTION_IDS_NOT_SUPPORTED = 0xA1, "subscription identifiers not supported";
    WILDCARDS_NOT_SUPPORTED = 0xA2, "wildcard subscriptions not supported";
}

impl ReasonCode {
    /// DISCONNECT's name of 0x00.
    pub const NORMAL_DISCONNECTION: Self = Self::SUCCESS;

    /// Whether it tells of a failure.
    pub const fn is_error(self) -> bool {
        self.0 >= 0x80
    }

    /// The return code of a 3.1.1 CONNACK (0 to 5), `None` where 3.1.1 has no word for it and the
    /// connection is closed without one (3.1.1 section 3.2.2.3).
    pub const fn return_code(self) -> Option<u8> {
        match self {
            Self::SUCCESS => Some(0),
            Self::UNSUPPORTED_VERSION => Some(1),
            Self::CLIENT_ID_NOT_VALID => Some(2),
            Self::SERVER_UNAVAILABLE
            | Self::SERVER_BUSY
            | Self::USE_ANOTHER_SERVER
            | Self::SERVER_MOVED
            | Self::QUOTA_EXCEEDED
            | Self::CONNECTION_RATE_EXCEEDED => Some(3),
            Self::BAD_USER_NAME_OR_PASSWORD => Some(4),
            Self::NOT_AUTHORIZED | Self::BANNED | Self::BAD_AUTHENTICATION_METHOD => Some(5),
            _ => None,
        }
    }

    /// The reason that a 3.1.1 return code stands for; `None` from 6 on.
    pub const fn from_return_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::SUCCESS,
            1 => Self::UNSUPPORTED_VERSION,
            2 => Self::CLIENT_ID_NOT_VALID,
            3 => Self::SERVER_UNAVAILABLE,
            4 => Self::BAD_USER_NAME_OR_PASSWORD,
            5 => Self::NOT_AUTHORIZED,
            _ => return None,
        })
    }
}

impl fmt::Debug for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x} ({})", self.0, self.text())
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#04x})", self.text(), self.0)
    }
}
