//! What goes over the wire, in its own types: the stored ones may change without it.

pub(crate) mod app;
pub(crate) mod broadcast;
pub(crate) mod callback;
pub(crate) mod client;
pub(crate) mod credential;
pub(crate) mod device;
pub(crate) mod event;
pub(crate) mod exact;
pub(crate) mod explain;
pub(crate) mod message;
pub(crate) mod push;
pub(crate) mod report;
pub(crate) mod schema;
pub(crate) mod topic;
pub(crate) mod user;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use hongyan_core::Timestamp;

/// A point in time: RFC 3339 on the wire; milliseconds since the epoch are read too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) Timestamp);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.rfc3339())
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Moment;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a time such as 2026-01-01T09:00:00+08:00")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Moment, E> {
                Timestamp::parse_rfc3339(text)
                    .map(Moment)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
            fn visit_i64<E>(self, ms: i64) -> Result<Moment, E> {
                Ok(Moment(Timestamp(ms)))
            }
            fn visit_u64<E>(self, ms: u64) -> Result<Moment, E> {
                Ok(Moment(Timestamp(i64::try_from(ms).unwrap_or(i64::MAX))))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Moment".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({"type": "string", "format": "date-time"})
    }
}

impl From<Timestamp> for Moment {
    fn from(t: Timestamp) -> Self {
        Self(t)
    }
}

/// A field of a PATCH: absent leaves it, `null` clears it, a value sets it (RFC 7396).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Patch<T> {
    #[default]
    Leave,
    Clear,
    Set(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<T>::deserialize(deserializer)?.map_or(Self::Clear, Self::Set))
    }
}

impl<T: JsonSchema> JsonSchema for Patch<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        Option::<T>::schema_name()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Option::<T>::json_schema(generator)
    }
}

impl<T> Patch<T> {
    /// Applies it to a field that may be empty.
    pub(crate) fn apply(self, field: &mut Option<T>) {
        match self {
            Self::Leave => {}
            Self::Clear => *field = None,
            Self::Set(value) => *field = Some(value),
        }
    }

    /// Applies it to a field that has a default.
    pub(crate) fn apply_or_default(self, field: &mut T)
    where
        T: Default,
    {
        match self {
            Self::Leave => {}
            Self::Clear => *field = T::default(),
            Self::Set(value) => *field = value,
        }
    }
}

/// Which part of a list.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    /// Begin after this id: the last one of the page before.
    #[serde(default)]
    pub(crate) after: Option<String>,
    /// At most so many.
    #[serde(default = "Page::default_limit")]
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) limit: usize,
}

impl Page {
    const fn default_limit() -> usize {
        crate::options::PAGE_LEN
    }

    pub(crate) fn limit(&self) -> Result<usize, crate::problem::Problem> {
        within(self.limit, crate::options::PAGE_LEN_MAX)
    }

    /// The place to begin after, as an id of its kind.
    pub(crate) fn after<T>(&self) -> Result<Option<T>, crate::problem::Problem>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        use crate::problem::{Code, Problem};
        self.after
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|e: T::Err| Problem::at(Code::InvalidRequest, "query.after", e.to_string()))
    }
}

/// A `limit` as it was asked for, if it may be asked for.
pub(crate) fn within(limit: usize, max: usize) -> Result<usize, crate::problem::Problem> {
    use crate::problem::{Code, Problem};
    if (1..=max).contains(&limit) {
        return Ok(limit);
    }
    let words = format!("must be 1 to {max}, not {limit}");
    Err(Problem::at(Code::Invalid, "query.limit", words))
}

/// One page of a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "List_of_{T}")]
pub(crate) struct List<T> {
    /// In id order.
    pub(crate) items: Vec<T>,
    /// Give this as `after` to get the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

impl<T> List<T> {
    /// A page of what was read, and the name of its last item if there may be more.
    pub(crate) fn new(items: Vec<T>, limit: usize, name: impl Fn(&T) -> String) -> Self {
        let next = items.last().filter(|_| items.len() >= limit).map(name);
        Self { items, next }
    }
}
