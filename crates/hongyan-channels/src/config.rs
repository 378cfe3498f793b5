//! Reads a credential's configuration and collects every fault with its path, so that a form shows all of them at once.

use hongyan_core::port::ConfigError;
use serde_json::{Map, Value};

/// A JSON object that is being read.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    object: Option<&'a Map<String, Value>>,
    path: String,
    known: Vec<&'static str>,
    faults: Vec<ConfigError>,
}

impl<'a> Fields<'a> {
    /// The whole configuration.
    pub(crate) fn new(config: &'a Value) -> Self {
        Self::at(config, String::new())
    }

    /// A part of it.
    pub(crate) fn at(config: &'a Value, path: String) -> Self {
        let mut fields = Self {
            object: config.as_object(),
            path,
            known: Vec::new(),
            faults: Vec::new(),
        };
        if fields.object.is_none() {
            fields.faults.push(ConfigError {
                path: fields.path.clone(),
                problem: "must be a JSON object".to_owned(),
            });
        }
        fields
    }

    /// The raw value of a field.
    pub(crate) fn value(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.object?.get(name).filter(|v| !v.is_null())
    }

    /// A text that must be there.
    pub(crate) fn text(&mut self, name: &'static str, what: &str) -> String {
        match self.optional_text(name) {
            Some(text) => text,
            None => {
                if self.object.is_some_and(|o| !o.contains_key(name)) {
                    self.fault(name, format!("is missing: {what}"));
                }
                String::new()
            }
        }
    }

    /// A text that may be absent; it may not be empty or very long.
    pub(crate) fn optional_text(&mut self, name: &'static str) -> Option<String> {
        match self.value(name)? {
            Value::String(text) if text.trim().is_empty() => {
                self.fault(name, "is empty");
                None
            }
            Value::String(text) if text.len() > 32 * 1024 => {
                self.fault(name, "is longer than 32 KiB");
                None
            }
            Value::String(text) => Some(text.trim().to_owned()),
            Value::Number(number) => Some(number.to_string()),
            _ => {
                self.fault(name, "must be a text");
                None
            }
        }
    }

    /// A text that is checked; the fault is what `check` says.
    pub(crate) fn checked<T>(
        &mut self,
        name: &'static str,
        what: &str,
        check: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(name, what);
        if text.is_empty() {
            return None;
        }
        match check(&text) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.fault(name, problem);
                None
            }
        }
    }

    /// A switch.
    pub(crate) fn switch(&mut self, name: &'static str) -> bool {
        match self.value(name) {
            None => false,
            Some(Value::Bool(value)) => *value,
            Some(_) => {
                self.fault(name, "must be true or false");
                false
            }
        }
    }

    /// A whole number within the range, as a number or its digits.
    pub(crate) fn number(
        &mut self,
        name: &'static str,
        range: std::ops::RangeInclusive<u64>,
        default: u64,
    ) -> u64 {
        let number = match self.value(name) {
            None => return default,
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(_) => None,
        };
        match number.filter(|n| range.contains(n)) {
            Some(number) => number,
            None => {
                let (low, high) = range.into_inner();
                self.fault(name, format!("must be a whole number from {low} to {high}"));
                default
            }
        }
    }

    /// A list of texts; empty when absent.
    pub(crate) fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        let value = self.value(name)?;
        let list = value
            .as_array()
            .and_then(|a| a.iter().map(|v| v.as_str().map(str::to_owned)).collect());
        if list.is_none() {
            self.fault(name, "must be a list of texts");
        }
        list
    }

    /// An https URL that may be absent.
    pub(crate) fn optional_url(&mut self, name: &'static str) -> Option<String> {
        let text = self.optional_text(name)?;
        match crate::egress::Origin::parse(&text) {
            Ok(_) => Some(text),
            Err(error) => {
                self.fault(name, error.to_string());
                None
            }
        }
    }

    /// Notes a fault.
    pub(crate) fn fault(&mut self, name: &str, problem: impl Into<String>) {
        let path = if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.path)
        };
        self.faults.push(ConfigError {
            path,
            problem: problem.into(),
        });
    }

    /// Takes over the faults of a part.
    pub(crate) fn absorb(&mut self, faults: Vec<ConfigError>) {
        self.faults.extend(faults);
    }

    /// Ends reading; fields that nobody asked for are faults (a typing error would otherwise go unnoticed).
    pub(crate) fn finish_strict(mut self) -> Vec<ConfigError> {
        if let Some(object) = self.object {
            for name in object.keys() {
                if !self.known.contains(&name.as_str()) {
                    let known = self.known.join(", ");
                    self.fault(name, format!("is not a field here; the fields are {known}"));
                }
            }
        }
        self.faults
    }

    /// Ends reading where the vendor's own file stands either under this name or in place of everything: only then has it fields
    /// that nobody asks for.
    pub(crate) fn finish_beside(self, file: &str) -> Vec<ConfigError> {
        if self.object.is_some_and(|object| object.contains_key(file)) {
            self.finish_strict()
        } else {
            self.finish()
        }
    }

    /// Ends reading; other fields are allowed, because the vendor's own file has them.
    pub(crate) fn finish(self) -> Vec<ConfigError> {
        self.faults
    }
}

/// Reads the configuration of a credential from its stored text.
pub(crate) fn parse(
    config: &hongyan_core::Secret,
) -> Result<Value, hongyan_core::port::ChannelError> {
    serde_json::from_slice(config.expose()).map_err(|_| hongyan_core::port::ChannelError::Config {
        detail: "the stored configuration is not JSON; set the credential again".to_owned(),
    })
}

/// The faults as one error, for `open`.
pub(crate) fn refused(faults: &[ConfigError]) -> hongyan_core::port::ChannelError {
    let all: Vec<String> = faults.iter().map(ToString::to_string).collect();
    hongyan_core::port::ChannelError::Config {
        detail: all.join("; "),
    }
}

/// A map of the parts that may be shown to people; absent ones are left out.
pub(crate) fn shown<const N: usize>(parts: [(&str, Option<Value>); N]) -> Map<String, Value> {
    parts
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_faults_are_reported_with_their_paths() {
        let config = json!({"a": 1, "b": "", "typo": 1, "d": ["x", 2], "e": "http://x"});
        let mut fields = Fields::new(&config);
        assert_eq!(fields.text("a", "the a"), "1");
        fields.text("b", "the b");
        fields.text("c", "the c");
        fields.texts("d");
        fields.optional_url("e");
        let faults: Vec<String> = fields
            .finish_strict()
            .iter()
            .map(|f| f.path.clone())
            .collect();
        assert_eq!(faults, ["b", "c", "d", "e", "typo"]);
        assert_eq!(Fields::new(&json!([])).finish().len(), 1);
    }
}
