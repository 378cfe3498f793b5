//! Objects that are the caller's own: kept as they were sent, or refused.

use std::fmt;

use hongyan_core::draft::Fault;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Faults that one object tells of; the rest would say the same.
const FAULTS_LEN_MAX: usize = 100;
/// From here on an integer does not fit 64 bits, and would be rounded.
const ROUNDED_FROM: f64 = 18_446_744_073_709_551_616.0;

/// An object, and what of it would not have been kept: names that stand twice, and integers that are too long.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exact {
    fields: Map<String, Value>,
    faults: Vec<Fault>,
}

impl Exact {
    /// The object; its faults are told at the path where it stands.
    pub(crate) fn at(self, path: &str, faults: &mut Vec<Fault>) -> Map<String, Value> {
        faults.extend(self.faults.into_iter().map(|fault| Fault {
            path: format!("{path}{}", fault.path),
            problem: fault.problem,
        }));
        self.fields
    }
}

impl<'de> serde::Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole<'a>(&'a mut Vec<Fault>);
        impl<'de> Visitor<'de> for Whole<'_> {
            type Value = Map<String, Value>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                fields(map, "", self.0)
            }
        }
        let mut faults = Vec::new();
        let fields = deserializer.deserialize_map(Whole(&mut faults))?;
        Ok(Self { fields, faults })
    }
}

fn note(faults: &mut Vec<Fault>, path: String, problem: &str) {
    if faults.len() < FAULTS_LEN_MAX {
        faults.push(Fault {
            path,
            problem: problem.to_owned(),
        });
    }
}

fn fields<'de, A: MapAccess<'de>>(
    mut map: A,
    path: &str,
    faults: &mut Vec<Fault>,
) -> Result<Map<String, Value>, A::Error> {
    let mut all = Map::new();
    while let Some(name) = map.next_key::<String>()? {
        let path = format!("{path}.{name}");
        let value = map.next_value_seed(One {
            path: &path,
            faults: &mut *faults,
        })?;
        if all.insert(name, value).is_some() {
            note(
                faults,
                path,
                "stands twice in its object; only one can be kept",
            );
        }
    }
    Ok(all)
}

/// One value at a path.
struct One<'a> {
    path: &'a str,
    faults: &'a mut Vec<Fault>,
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
        // Those that fit come as integers: what comes here and has no fraction is longer, or was written as if it were.
        let is_long =
            value.fract() == 0.0 && (value >= ROUNDED_FROM || value <= -ROUNDED_FROM / 2.0);
        if is_long {
            let words = "does not fit 64 bits and would be rounded; send it as a text";
            note(self.faults, self.path.to_owned(), words);
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
            let path = format!("{}[{}]", self.path, all.len());
            let one = One {
                path: &path,
                faults: &mut *self.faults,
            };
            match seq.next_element_seed(one)? {
                Some(value) => all.push(value),
                None => return Ok(Value::Array(all)),
            }
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        fields(map, self.path, self.faults).map(Value::Object)
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
}
