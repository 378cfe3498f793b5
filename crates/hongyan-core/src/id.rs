//! Names of things: validated newtypes, cheap to clone.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not an id of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} must be {rule}")]
pub struct InvalidId {
    /// The kind of id, in the design's words.
    pub kind: &'static str,
    /// The rule that the text breaks.
    pub rule: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $max:literal, $rule:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Longest id of this kind, in bytes.
            pub const BYTES_MAX: usize = $max;

            /// Checks the text and takes it over.
            ///
            /// # Errors
            /// [`InvalidId`] names the rule that the text breaks.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                let ok: fn(char) -> bool = $ok;
                if text.is_empty() || text.len() > $max || !text.chars().all(ok) {
                    return Err(InvalidId { kind: $kind, rule: $rule });
                }
                Ok(Self(Arc::from(text)))
            }

            /// The same id again, from a text that [`Self::as_str`] gave: it is not checked anew.
            #[must_use]
            pub fn known(text: &str) -> Self {
                debug_assert!(Self::parse(text).is_ok(), "{text:?} was no id");
                Self(Arc::from(text))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::parse(&text)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }
        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id!(
    /// A tenant.
    AppId, "app", 32, "1 to 32 characters of a-z, 0-9, '_' and '-'",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-'
);
text_id!(
    /// An account of the app's own user base.
    UserId, "user", 128, "1 to 128 bytes without control characters",
    |c| !c.is_control()
);
text_id!(
    /// One installation; chosen by the client, normally a UUID.
    DeviceId, "device_id", 64, "1 to 64 characters of A-Z, a-z, 0-9, '_', '-', '.' and ':'",
    |c| c.is_ascii_alphanumeric() || "_-.:".contains(c)
);
text_id!(
    /// A subject that devices subscribe to.
    Topic, "topic", 128, "1 to 128 characters of A-Z, a-z, 0-9 and '_-.~%/:'",
    |c| c.is_ascii_alphanumeric() || "_-.~%/:".contains(c)
);
text_id!(
    /// The name of a set of vendor secrets within an app and channel.
    CredentialName, "credential", 32, "1 to 32 characters of A-Z, a-z, 0-9, '_', '-' and '.'",
    |c| c.is_ascii_alphanumeric() || "_-.".contains(c)
);
text_id!(
    /// A way out, such as `apns` or `huawei`. Which ids exist is known to the channels room.
    ChannelId, "channel", 32, "1 to 32 characters of a-z, 0-9 and '_'",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
);
text_id!(
    /// One of a device's web push subscriptions: chosen by the device, normally a UUID.
    PushChannel, "push channel", 64, "1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'",
    |c| c.is_ascii_alphanumeric() || "_-".contains(c)
);
text_id!(
    /// The public handle of an API key (never the secret).
    KeyId, "key id", 32, "1 to 32 characters of A-Z, a-z, 0-9, '_' and '-'",
    |c| c.is_ascii_alphanumeric() || "_-".contains(c)
);

/// A message: a UUIDv7, so that ids sort by acceptance within one node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(pub Uuid);

impl MessageId {
    /// Reads the canonical text form.
    ///
    /// # Errors
    /// [`InvalidId`] when the text is not a UUID.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        Uuid::try_parse(text).map(Self).map_err(|_| InvalidId {
            kind: "message id",
            rule: "a UUID",
        })
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One live connection of a device; unique for the life of a node, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_breaks_their_rule() {
        assert!(AppId::parse("demo").is_ok());
        assert!(AppId::parse("Demo").is_err());
        assert!(AppId::parse("").is_err());
        assert!(UserId::parse("张三@example").is_ok());
        assert!(UserId::parse("a\nb").is_err());
        assert!(CredentialName::parse(&"x".repeat(33)).is_err());
        assert!(serde_json::from_str::<DeviceId>("\"a b\"").is_err());
        assert!(MessageId::parse("not-a-uuid").is_err());
    }
}
