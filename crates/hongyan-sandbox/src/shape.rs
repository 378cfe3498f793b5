//! Tables of what a vendor's JSON may look like, and the check of a body against them.

use serde_json::{Map, Value};

/// What a value has to be.
#[derive(Debug)]
pub(crate) enum Shape {
    /// Any text.
    Text,
    /// Text of at most so many characters, not empty.
    TextMax(usize),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Text for which the function holds; the phrase says what it should have been.
    TextLike(fn(&str) -> bool, &'static str),
    /// A whole number between the two, inclusive.
    Int(i64, i64),
    /// A number between the two, inclusive.
    Number(f64, f64),
    Bool,
    /// An object with these fields and no others.
    Object(&'static Fields),
    /// An object with any keys, each value of the shape.
    Map(&'static Shape),
    /// A list of at most so many values of the shape.
    List(&'static Shape, usize),
    /// Any object.
    AnyObject,
    /// Any value: a field that comes in several types.
    Any,
}

/// Fields of an object by name; a `!` in front of the name marks a required one.
pub(crate) type Fields = [(&'static str, Shape)];

/// Where a body is not as the table says.
#[derive(Debug, PartialEq)]
pub(crate) struct Violation {
    /// Path with dots, such as `message.android.ttl`.
    pub(crate) field: String,
    pub(crate) why: String,
}

/// How field names of a body are compared with the table's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Names {
    Exact,
    /// As `Exact`, but fields that the table does not have are passed over, as at vendors that ignore them.
    Known,
    /// proto3 JSON: `lowerCamelCase` and `snake_case` are the same name.
    Proto,
}

/// Checks an object and everything below it. The first violation ends the check.
pub(crate) fn check_object(
    object: &Map<String, Value>,
    fields: &Fields,
    names: Names,
    path: &str,
) -> Result<(), Violation> {
    for (name, value) in object {
        let at = join(path, name);
        let wanted = plain(name, names);
        let Some((_, shape)) = fields
            .iter()
            .find(|(field, _)| field.trim_start_matches('!') == wanted)
        else {
            if names == Names::Known {
                continue;
            }
            return Err(Violation {
                field: at,
                why: format!("unknown field {name:?}"),
            });
        };
        // proto3 JSON reads null as "not there".
        if !(names == Names::Proto && value.is_null()) {
            check(value, shape, names, &at)?;
        }
    }
    for required in fields
        .iter()
        .filter_map(|(field, _)| field.strip_prefix('!'))
    {
        if !object.keys().any(|name| plain(name, names) == required) {
            return Err(Violation {
                field: join(path, required),
                why: "is required".to_owned(),
            });
        }
    }
    Ok(())
}

fn check(value: &Value, shape: &Shape, names: Names, path: &str) -> Result<(), Violation> {
    let wrong = |why: String| {
        Err(Violation {
            field: path.to_owned(),
            why,
        })
    };
    match (shape, value) {
        (Shape::Any, _) | (Shape::AnyObject, Value::Object(_)) | (Shape::Bool, Value::Bool(_)) => {
            Ok(())
        }
        (Shape::Text, Value::String(_)) => Ok(()),
        (Shape::TextMax(max), Value::String(text)) => {
            if text.is_empty() {
                wrong("must not be empty".to_owned())
            } else if text.chars().count() > *max {
                wrong(format!("is longer than {max} characters"))
            } else {
                Ok(())
            }
        }
        (Shape::Word(words), Value::String(text)) => {
            if words.contains(&text.as_str()) {
                Ok(())
            } else {
                wrong(format!("{text:?} is not one of {}", words.join(", ")))
            }
        }
        (Shape::TextLike(holds, wanted), Value::String(text)) => {
            if holds(text) {
                Ok(())
            } else {
                wrong(format!("{text:?} is not {wanted}"))
            }
        }
        (Shape::Int(low, high), Value::Number(number)) => match number.as_i64() {
            Some(number) if (*low..=*high).contains(&number) => Ok(()),
            _ => wrong(format!(
                "{number} is not a whole number from {low} to {high}"
            )),
        },
        (Shape::Number(low, high), Value::Number(number)) => match number.as_f64() {
            Some(number) if (*low..=*high).contains(&number) => Ok(()),
            _ => wrong(format!("{number} is not a number from {low} to {high}")),
        },
        (Shape::Object(fields), Value::Object(object)) => check_object(object, fields, names, path),
        (Shape::Map(shape), Value::Object(object)) => {
            for (at, (name, value)) in object.iter().enumerate() {
                // Google names the entry by its place: `message.data[0].value`.
                let path = match names {
                    Names::Proto => format!("{path}[{at}].value"),
                    Names::Exact | Names::Known => join(path, name),
                };
                check(value, shape, names, &path)?;
            }
            Ok(())
        }
        (Shape::List(shape, max), Value::Array(list)) => {
            if list.len() > *max {
                return wrong(format!(
                    "has {} entries, at most {max} are allowed",
                    list.len()
                ));
            }
            for (at, value) in list.iter().enumerate() {
                check(value, shape, names, &format!("{path}[{at}]"))?;
            }
            Ok(())
        }
        (shape, _) => wrong(format!("must be {}", shape.noun())),
    }
}

impl Shape {
    const fn noun(&self) -> &'static str {
        match self {
            Self::Text | Self::TextMax(_) | Self::Word(_) | Self::TextLike(..) => "a string",
            Self::Int(..) => "a whole number",
            Self::Number(..) => "a number",
            Self::Bool => "true or false",
            Self::Object(_) | Self::Map(_) | Self::AnyObject => "an object",
            Self::List(..) => "a list",
            Self::Any => "a value",
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn plain(name: &str, names: Names) -> String {
    if names != Names::Proto {
        return name.to_owned();
    }
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// `"3.5s"`: seconds with at most nine decimals.
pub(crate) fn duration_ms(text: &str) -> Option<i64> {
    let number = text.strip_suffix('s')?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 12 || part.len() > 9 || !digits(whole) || !digits(part) {
        return None;
    }
    let millis: String = part.chars().chain("000".chars()).take(3).collect();
    Some(whole.parse::<i64>().ok()? * 1000 + millis.parse::<i64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const INNER: &Fields = &[("!name", Shape::TextMax(3)), ("the_ttl", Shape::Int(0, 9))];
    const OUTER: &Fields = &[
        ("inner", Shape::Object(INNER)),
        ("data", Shape::Map(&Shape::Text)),
        ("list", Shape::List(&Shape::Bool, 2)),
    ];

    #[test]
    fn bodies_are_held_against_the_table() {
        let check = |body: Value, names, want: &str| {
            let got = check_object(body.as_object().unwrap(), OUTER, names, "m");
            assert_eq!(
                got.map_err(|v| v.field).err().unwrap_or_default(),
                want,
                "{body}"
            );
        };
        check(json!({}), Names::Exact, "");
        check(
            json!({"inner": {"name": "a", "the_ttl": 3}}),
            Names::Exact,
            "",
        );
        check(
            json!({"inner": {"name": "a", "theTtl": 3}}),
            Names::Exact,
            "m.inner.theTtl",
        );
        check(
            json!({"inner": {"name": "a", "theTtl": 3}}),
            Names::Proto,
            "",
        );
        check(
            json!({"inner": {"the_ttl": 3}}),
            Names::Exact,
            "m.inner.name",
        );
        check(
            json!({"inner": {"name": "abcd"}}),
            Names::Exact,
            "m.inner.name",
        );
        check(
            json!({"data": {"a": "b", "c": 1}}),
            Names::Proto,
            "m.data[1].value",
        );
        check(json!({"list": [true, 1]}), Names::Exact, "m.list[1]");
        check(json!({"list": [true, true, true]}), Names::Exact, "m.list");
        check(json!({"other": 1}), Names::Exact, "m.other");
        check(json!({"other": 1}), Names::Known, "");
        check(json!({"inner": {"x": 1}}), Names::Known, "m.inner.name");
    }

    #[test]
    fn durations_are_googles() {
        assert_eq!(duration_ms("3.5s"), Some(3500));
        assert_eq!(duration_ms("0s"), Some(0));
        assert_eq!(duration_ms("86400s"), Some(86_400_000));
        for wrong in ["", "s", "5", "-1s", "1.s5", "1e3s", "5 s"] {
            assert_eq!(duration_ms(wrong), None, "{wrong}");
        }
    }
}
