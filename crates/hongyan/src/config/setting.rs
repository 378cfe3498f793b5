//! What a setting is: one row with a name, a kind, a default and words, made from the field's own declaration.
//!
//! The tree in [`super`] is declared once with [`group!`]; reading, printing and the reference page are
//! visitors over it, so that none of them can forget a setting.

use std::net::SocketAddr;
use std::path::PathBuf;

use hongyan_core::Secret;

/// A setting's own description.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// Dotted name, as in the file.
    pub(crate) path: &'static str,
    /// The lines of its doc comment.
    pub(crate) doc: &'static [&'static str],
    /// Smallest and largest value, for numbers.
    pub(crate) range: Option<(u64, u64)>,
}

impl Setting {
    /// The environment variable that sets it.
    pub(crate) fn variable(&self) -> String {
        format!(
            "HONGYAN_{}",
            self.path.replace('.', "_").to_ascii_uppercase()
        )
    }
}

/// Visits every setting of a tree, in the order of the file.
pub(crate) trait Visitor {
    /// A group begins.
    fn group(&mut self, name: &'static str, doc: &'static [&'static str]);
    /// A setting and its value.
    fn setting(&mut self, setting: Setting, value: &mut dyn Value);
}

/// A group of settings.
pub(crate) trait Group {
    /// Visits its settings.
    fn visit(&mut self, visitor: &mut dyn Visitor);
}

/// Something a setting can hold.
pub(crate) trait Value {
    /// What may be written there, for people.
    fn kind(&self) -> String;

    /// The value as it would stand in the file; `None` when it is not set. Never a secret.
    fn show(&self) -> Option<String>;

    /// Takes a value from the file. The error completes the sentence "`name` …".
    fn read(&mut self, value: &toml::Value) -> Result<(), String>;

    /// Takes a value from a variable or flag.
    fn parse(&mut self, text: &str) -> Result<(), String> {
        self.read(&toml::Value::String(text.to_owned()))
    }

    /// Whether it must never be printed.
    fn is_secret(&self) -> bool {
        false
    }

    /// The value as a number, when it is one: ranges are checked on it.
    fn number(&self) -> Option<u64> {
        None
    }
}

fn wrong(kind: &str, got: &toml::Value) -> String {
    format!("must be {kind}, not {}", got.type_str())
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Value for bool {
    fn kind(&self) -> String {
        "true or false".to_owned()
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn read(&mut self, value: &toml::Value) -> Result<(), String> {
        *self = value
            .as_bool()
            .ok_or_else(|| wrong("true or false", value))?;
        Ok(())
    }

    fn parse(&mut self, text: &str) -> Result<(), String> {
        *self = match text {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" => false,
            _ => return Err(format!("must be true or false, not `{text}`")),
        };
        Ok(())
    }
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn kind(&self) -> String {
                "number".to_owned()
            }

            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }

            fn read(&mut self, value: &toml::Value) -> Result<(), String> {
                let number = value.as_integer().ok_or_else(|| wrong("a whole number", value))?;
                *self = <$type>::try_from(number).map_err(|_| format!("cannot be {number}"))?;
                Ok(())
            }

            fn parse(&mut self, text: &str) -> Result<(), String> {
                *self = str::parse(&text.replace('_', "")).map_err(|_| format!("must be a whole number, not `{text}`"))?;
                Ok(())
            }

            fn number(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }
        }
    )*};
}

number!(u16, u32, u64, usize);

impl Value for String {
    fn kind(&self) -> String {
        "text".to_owned()
    }

    fn show(&self) -> Option<String> {
        Some(quoted(self))
    }

    fn read(&mut self, value: &toml::Value) -> Result<(), String> {
        value
            .as_str()
            .ok_or_else(|| wrong("text", value))?
            .clone_into(self);
        Ok(())
    }
}

impl Value for PathBuf {
    fn kind(&self) -> String {
        "path".to_owned()
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }

    fn read(&mut self, value: &toml::Value) -> Result<(), String> {
        let text = value.as_str().ok_or_else(|| wrong("a path", value))?;
        if text.is_empty() {
            return Err("must not be empty".to_owned());
        }
        *self = PathBuf::from(text);
        Ok(())
    }
}

impl Value for SocketAddr {
    fn kind(&self) -> String {
        "address:port".to_owned()
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }

    fn read(&mut self, value: &toml::Value) -> Result<(), String> {
        let text = value
            .as_str()
            .ok_or_else(|| wrong("an address with a port", value))?;
        *self = text.parse().map_err(|_| {
            format!("must be an address with a port, such as 127.0.0.1:7400, not `{text}`")
        })?;
        Ok(())
    }
}

/// An address that may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) SocketAddr);

impl Default for Address {
    fn default() -> Self {
        Self(SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}

impl Value for Address {
    fn kind(&self) -> String {
        self.0.kind()
    }

    fn show(&self) -> Option<String> {
        self.0.show()
    }

    fn read(&mut self, value: &toml::Value) -> Result<(), String> {
        self.0.read(value)
    }
}

impl<T: Value + Default> Value for Option<T> {
    fn kind(&self) -> String {
        T::default().kind()
    }

    fn is_secret(&self) -> bool {
        T::default().is_secret()
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(Value::show)
    }

    fn read(&mut self, value: &toml::Value) -> Result<(), String> {
        self.insert(T::default()).read(value)
    }

    fn parse(&mut self, text: &str) -> Result<(), String> {
        if text.is_empty() {
            *self = None;
            return Ok(());
        }
        self.insert(T::default()).parse(text)
    }
}

impl Value for Vec<PathBuf> {
    fn kind(&self) -> String {
        "list of paths".to_owned()
    }

    fn show(&self) -> Option<String> {
        let items: Vec<_> = self.iter().map(|p| quoted(&p.to_string_lossy())).collect();
        Some(format!("[{}]", items.join(", ")))
    }

    fn read(&mut self, value: &toml::Value) -> Result<(), String> {
        let items = value
            .as_array()
            .ok_or_else(|| wrong("a list of paths", value))?;
        *self = items
            .iter()
            .map(|item| {
                item.as_str()
                    .map(PathBuf::from)
                    .ok_or_else(|| wrong("a list of paths", item))
            })
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    fn parse(&mut self, text: &str) -> Result<(), String> {
        *self = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(PathBuf::from)
            .collect();
        Ok(())
    }
}

impl Value for Vec<String> {
    fn kind(&self) -> String {
        "list of texts".to_owned()
    }

    fn show(&self) -> Option<String> {
        let items: Vec<_> = self.iter().map(|text| quoted(text)).collect();
        Some(format!("[{}]", items.join(", ")))
    }

    fn read(&mut self, value: &toml::Value) -> Result<(), String> {
        let items = value
            .as_array()
            .ok_or_else(|| wrong("a list of texts", value))?;
        *self = items
            .iter()
            .map(|item| {
                item.as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| wrong("a list of texts", item))
            })
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    fn parse(&mut self, text: &str) -> Result<(), String> {
        let items = text.split(',').map(str::trim);
        *self = items
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect();
        Ok(())
    }
}

impl Value for Secret {
    fn kind(&self) -> String {
        "secret".to_owned()
    }

    fn is_secret(&self) -> bool {
        true
    }

    fn show(&self) -> Option<String> {
        Some(String::new())
    }

    fn read(&mut self, value: &toml::Value) -> Result<(), String> {
        let text = value.as_str().ok_or_else(|| wrong("text", value))?;
        *self = Secret::new(text);
        Ok(())
    }
}

/// Declares a closed list of words as a setting's type.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$vmeta])* $variant),* }

        impl $name {
            const WORDS: &'static [&'static str] = &[$($word),*];

            /// The word in the file.
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl $crate::config::setting::Value for $name {
            fn kind(&self) -> String {
                let quoted: Vec<_> = Self::WORDS.iter().map(|word| format!("\"{word}\"")).collect();
                quoted.join(" or ")
            }

            fn show(&self) -> Option<String> {
                Some(format!("\"{}\"", self.as_str()))
            }

            fn read(&mut self, value: &toml::Value) -> Result<(), String> {
                *self = match value.as_str() {
                    $(Some($word) => Self::$variant,)*
                    Some(other) => return Err(format!("must be {}, not `{other}`", self.kind())),
                    None => return Err(format!("must be {}, not {}", self.kind(), value.type_str())),
                };
                Ok(())
            }
        }
    };
}

/// Declares a group: a struct with defaults, and its visit.
///
/// `name: type = default (min..=max),` – the range is for numbers and may be left out.
macro_rules! group {
    (
        $(#[doc = $gdoc:literal])*
        $name:ident in $prefix:literal {
            $($(#[doc = $doc:literal])* $field:ident : $type:ty = $default:expr $(; $min:literal ..= $max:literal)? ),* $(,)?
        }
    ) => {
        $(#[doc = $gdoc])*
        #[derive(Debug, Clone)]
        pub(crate) struct $name { $($(#[doc = $doc])* pub(crate) $field: $type),* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }

        impl $crate::config::setting::Group for $name {
            fn visit(&mut self, visitor: &mut dyn $crate::config::setting::Visitor) {
                visitor.group($prefix, &[$($gdoc),*]);
                $(visitor.setting(
                    $crate::config::setting::Setting {
                        path: if $prefix.is_empty() { stringify!($field) } else { concat!($prefix, ".", stringify!($field)) },
                        doc: &[$($doc),*],
                        range: $crate::config::setting::group!(@range $($min, $max)?),
                    },
                    &mut self.$field,
                );)*
            }
        }
    };
    (@range) => { None };
    (@range $min:literal, $max:literal) => { Some(($min, $max)) };
}

pub(crate) use {group, words};
