//! Objects that are the caller's own: kept as they were sent, or refused.

use std::collections::BTreeMap;
use std::fmt;

use hongyan_core::ChannelId;
use hongyan_core::draft::Fault;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Faults that one message tells of; the rest would say the same.
const FAULTS_LEN_MAX: usize = 10;
/// What a path shows of a name that the caller made, bytes.
const NAME_BYTES_MAX: usize = 64;
/// The longest path, bytes.
const PATH_BYTES_MAX: usize = 512;
/// From here on an integer does not fit 64 bits, and would be rounded.
const ROUNDED_FROM: f64 = 18_446_744_073_709_551_616.0;

/// An object, and what of it would not have been kept: names that stand twice, and integers that are too long.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exact {
    fields: Map<String, Value>,
    faults: Vec<(String, &'static str)>,
}

impl Exact {
    /// The object; its faults are told at the path where it stands, while there are few.
    pub(crate) fn at(self, path: &str, faults: &mut Vec<Fault>) -> Map<String, Value> {
        let room = FAULTS_LEN_MAX.saturating_sub(faults.len());
        let told = self.faults.into_iter().take(room);
        faults.extend(told.map(|(below, problem)| Fault {
            path: format!("{path}{below}"),
            problem: problem.to_owned(),
        }));
        self.fields
    }
}

impl<'de> serde::Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole<'a>(&'a mut Faults);
        impl<'de> Visitor<'de> for Whole<'_> {
            type Value = Map<String, Value>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                fields(map, &Place::Top, self.0)
            }
        }
        let mut faults = Faults::new();
        let fields = deserializer.deserialize_map(Whole(&mut faults))?;
        Ok(Self { fields, faults })
    }
}

/// An object for each channel. One that is named twice is refused: only one of its objects could be kept.
pub(super) fn by_channel<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<ChannelId, Exact>, D::Error> {
    struct ByChannel;
    impl<'de> Visitor<'de> for ByChannel {
        type Value = BTreeMap<ChannelId, Exact>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = BTreeMap::new();
            while let Some(channel) = map.next_key::<ChannelId>()? {
                if all.contains_key(&channel) {
                    let words = format!("names `{channel}` twice; only one can be kept");
                    return Err(serde::de::Error::custom(words));
                }
                all.insert(channel, map.next_value()?);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_map(ByChannel)
}

type Faults = Vec<(String, &'static str)>;

/// Where a value stands. It is written out only for a fault: written for every value, long names and deep objects would cost
/// the square of what was sent.
enum Place<'a> {
    Top,
    Field(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl Place<'_> {
    fn write(&self, path: &mut String) {
        match self {
            Self::Top => {}
            Self::Field(above, name) => {
                above.write(path);
                let shown = &name[..name.floor_char_boundary(NAME_BYTES_MAX)];
                let cut = if shown.len() < name.len() { "…" } else { "" };
                path.push('.');
                path.push_str(shown);
                path.push_str(cut);
            }
            Self::Item(above, index) => {
                above.write(path);
                path.push_str(&format!("[{index}]"));
            }
        }
    }

    fn note(&self, faults: &mut Faults, problem: &'static str) {
        if faults.len() >= FAULTS_LEN_MAX {
            return;
        }
        let mut path = String::new();
        self.write(&mut path);
        if path.len() > PATH_BYTES_MAX {
            path.truncate(path.floor_char_boundary(PATH_BYTES_MAX));
            path.push('…');
        }
        path.shrink_to_fit();
        faults.push((path, problem));
    }
}

fn fields<'de, A: MapAccess<'de>>(
    mut map: A,
    above: &Place<'_>,
    faults: &mut Faults,
) -> Result<Map<String, Value>, A::Error> {
    let mut all = Map::new();
    while let Some(name) = map.next_key::<String>()? {
        let place = Place::Field(above, &name);
        let value = map.next_value_seed(One {
            place: &place,
            faults: &mut *faults,
        })?;
        if all.contains_key(&name) {
            place.note(faults, "stands twice in its object; only one can be kept");
        }
        all.insert(name, value);
    }
    Ok(all)
}

/// One value at its place.
struct One<'a> {
    place: &'a Place<'a>,
    faults: &'a mut Faults,
}

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for One<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        // Those that fit come as integers. How a number was written is not known here, so `1e20` is taken for an integer, too.
        let is_long =
            value.fract() == 0.0 && (value >= ROUNDED_FROM || value <= -ROUNDED_FROM / 2.0);
        if is_long {
            let words = "has no fraction and does not fit 64 bits, so it could be rounded (1e20 is refused, too); send it as a text";
            self.place.note(self.faults, words);
        }
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        loop {
            let place = Place::Item(self.place, all.len());
            let one = One {
                place: &place,
                faults: &mut *self.faults,
            };
            match seq.next_element_seed(one)? {
                Some(value) => all.push(value),
                None => return Ok(Value::Array(all)),
            }
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        fields(map, self.place, self.faults).map(Value::Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Map<String, Value>, Vec<String>) {
        let exact: Exact = crate::body::parse(text.as_bytes()).unwrap();
        let mut faults = Vec::new();
        let fields = exact.at("data", &mut faults);
        (fields, faults.into_iter().map(|f| f.path).collect())
    }

    #[test]
    fn what_is_kept_is_what_was_sent() {
        let text = r#"{"a":9007199254740993,"b":-9223372036854775808,"c":18446744073709551615,"d":[1.5,null,true,{"e":"x"}],"f":0.1,"g":1e3}"#;
        let (fields, faults) = read(text);
        assert_eq!(faults, [""; 0]);
        let kept = serde_json::to_string(&fields).unwrap();
        assert_eq!(kept, text.replace("1e3", "1000.0"));
    }

    #[test]
    fn what_would_be_changed_is_named() {
        let (_, faults) = read(r#"{"a":1,"b":{"c":[{"d":1,"d":2}]},"a":2}"#);
        assert_eq!(faults, ["data.b.c[0].d", "data.a"]);
        let (_, faults) = read(r#"{"a":18446744073709551616,"b":[-9223372036854775809]}"#);
        assert_eq!(faults, ["data.a", "data.b[0]"]);
    }

    #[test]
    fn what_is_told_stays_small() {
        let name = "é".repeat(40_000);
        let items = vec!["1e20"; 2_000].join(",");
        let (fields, faults) = read(&format!(r#"{{"{name}":[{items}]}}"#));
        assert_eq!(fields[&name].as_array().map(Vec::len), Some(2_000));
        assert_eq!(faults.len(), FAULTS_LEN_MAX);
        assert_eq!(faults[9], format!("data.{}…[9]", "é".repeat(32)));
        let deep = format!("{}1e20{}", r#"{"aaaaaaaaaa":"#.repeat(100), "}".repeat(100));
        let (_, faults) = read(&deep);
        assert!(faults[0].len() < PATH_BYTES_MAX + 10, "{faults:?}");
        // Objects of one message share what may be told.
        let exact = || crate::body::parse::<Exact>(format!(r#"{{"a":[{items}]}}"#).as_bytes());
        let mut told = Vec::new();
        exact().unwrap().at("data", &mut told);
        exact().unwrap().at("options.vendor.apns", &mut told);
        assert_eq!(told.len(), FAULTS_LEN_MAX);
    }
}
