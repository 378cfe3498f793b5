//! What apps pass over the bus: one dictionary (`a{sv}`) for each call. Keys that are not known are for later versions and
//! not looked at; a value that breaks a rule refuses the call.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hongyan_client::Secret;
use zbus::names::WellKnownName;
use zbus::zvariant::{OwnedValue, Value};

/// Longest token of a connector, bytes (UnifiedPush for D-Bus, terms).
pub const TOKEN_BYTES_MAX: usize = 100;
/// Longest description that is kept, bytes; a longer one is cut, since it is only for people.
pub const DESCRIPTION_BYTES_MAX: usize = 100;
/// A VAPID key: an uncompressed point of P-256, bytes, the first of which is 4.
const VAPID_BYTES: usize = 65;

/// One dictionary of arguments.
pub type Dictionary = HashMap<String, OwnedValue>;

/// Why a dictionary is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {problem}")]
pub struct Fault {
    /// The key.
    pub key: &'static str,
    /// The rule that its value breaks.
    pub problem: &'static str,
}

/// What `Register` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// The app's bus name.
    pub service: String,
    /// The connector's token.
    pub token: Secret,
    /// Text for people.
    pub description: Option<String>,
    /// The one key that may post.
    pub vapid: Option<String>,
}

impl Register {
    /// Reads the arguments of `Register`.
    ///
    /// # Errors
    /// [`Fault`] with the first key that breaks a rule.
    pub fn read(arguments: &Dictionary) -> Result<Self, Fault> {
        let service = needed(arguments, "service")?;
        if WellKnownName::try_from(service).is_err() {
            return Err(Fault {
                key: "service",
                problem: "is not a well-known bus name",
            });
        }
        let vapid = text(arguments, "vapid")?.filter(|key| !key.is_empty());
        if vapid.is_some_and(|key| !is_point(key)) {
            return Err(Fault {
                key: "vapid",
                problem: "is not an uncompressed point of P-256 in base64url without padding (87 characters)",
            });
        }
        Ok(Self {
            service: service.to_owned(),
            token: token(arguments)?,
            description: text(arguments, "description")?.and_then(shown),
            vapid: vapid.map(str::to_owned),
        })
    }
}

/// Reads the arguments of `Unregister`: a token.
///
/// # Errors
/// [`Fault`] when it is missing or breaks a rule.
pub fn token(arguments: &Dictionary) -> Result<Secret, Fault> {
    let key = "token";
    let token = needed(arguments, key)?;
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        let problem = "has to be 1 to 100 bytes";
        return Err(Fault { key, problem });
    }
    Ok(Secret::new(token))
}

fn needed<'a>(arguments: &'a Dictionary, key: &'static str) -> Result<&'a str, Fault> {
    text(arguments, key)?.ok_or(Fault {
        key,
        problem: "is missing",
    })
}

fn text<'a>(arguments: &'a Dictionary, key: &'static str) -> Result<Option<&'a str>, Fault> {
    match arguments.get(key).map(|value| &**value) {
        None => Ok(None),
        Some(Value::Str(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(Fault {
            key,
            problem: "has to be text (`s`)",
        }),
    }
}

fn is_point(key: &str) -> bool {
    URL_SAFE_NO_PAD
        .decode(key)
        .is_ok_and(|point| point.len() == VAPID_BYTES && point[0] == 4)
}

/// What of a text can be shown on one line.
fn shown(text: &str) -> Option<String> {
    let mut line = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if line.len() + c.len_utf8() > DESCRIPTION_BYTES_MAX {
            break;
        }
        line.push(c);
    }
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dictionary(pairs: &[(&str, Value<'static>)]) -> Dictionary {
        let own = |value: &Value<'static>| value.try_to_owned().unwrap();
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), own(v)))
            .collect()
    }

    fn point() -> String {
        let mut raw = [7u8; VAPID_BYTES];
        raw[0] = 4;
        URL_SAFE_NO_PAD.encode(raw)
    }

    #[test]
    fn up_14_all_that_an_app_says_is_read() {
        let said = dictionary(&[
            ("service", "org.example.App".into()),
            ("token", "t".into()),
            ("description", "Mail\nof me".into()),
            ("vapid", point().into()),
            ("later", 5u32.into()),
        ]);
        let read = Register::read(&said).unwrap();
        assert_eq!(read.service, "org.example.App");
        assert_eq!(read.token.expose(), "t");
        assert_eq!(read.description.as_deref(), Some("Mailof me"));
        assert_eq!(read.vapid, Some(point()));
        assert!(!format!("{read:?}").contains("\"t\""));
    }

    #[test]
    fn up_14_what_breaks_a_rule_is_refused_with_its_key() {
        let good = [("service", Value::from("a.b")), ("token", "t".into())];
        let check = |key: &'static str, value: Option<Value<'static>>, want: Option<&str>| {
            let mut said = dictionary(&good);
            match value {
                Some(value) => said.insert(key.to_owned(), value.try_to_owned().unwrap()),
                None => said.remove(key),
            };
            let fault = Register::read(&said).err();
            assert_eq!(fault.map(|fault| fault.key), want, "{key}");
        };
        check("later", Some(1u8.into()), None);
        check("service", None, Some("service"));
        check("service", Some(":1.7".into()), Some("service"));
        check("service", Some("nodots".into()), Some("service"));
        check("service", Some(7u32.into()), Some("service"));
        check("token", None, Some("token"));
        check("token", Some("".into()), Some("token"));
        check("token", Some("x".repeat(100).into()), None);
        check("token", Some("x".repeat(101).into()), Some("token"));
        check("token", Some(vec![1u8].into()), Some("token"));
        check("vapid", Some("".into()), None);
        check("vapid", Some(point().into()), None);
        check(
            "vapid",
            Some(point().replace("Bwc", "B+c").into()),
            Some("vapid"),
        );
        check("vapid", Some("BA".into()), Some("vapid"));
        check("description", Some(true.into()), Some("description"));
    }

    #[test]
    fn a_long_description_is_cut_between_characters() {
        let long = "汉".repeat(60);
        assert_eq!(shown(&long).unwrap(), "汉".repeat(33));
        assert_eq!(shown("\n"), None);
    }
}
