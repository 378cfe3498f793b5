//! Printing the configuration: what holds now, and the reference page.

use std::fmt::Write as _;

use super::setting::{Group, Setting, Value, Visitor};
use super::{Config, Loaded, Origin};

/// What holds, as a file that could be read back (except secrets), with the source of each value that was set.
pub(crate) fn effective(loaded: &Loaded) -> String {
    let mut page = Effective {
        text: String::new(),
        loaded,
    };
    loaded.config.clone().visit(&mut page);
    page.text
}

struct Effective<'a> {
    text: String,
    loaded: &'a Loaded,
}

impl Visitor for Effective<'_> {
    fn group(&mut self, name: &'static str, _doc: &'static [&'static str]) {
        if !name.is_empty() {
            let _ = write!(self.text, "\n[{name}]\n");
        }
    }

    fn setting(&mut self, setting: Setting, value: &mut dyn Value) {
        let name = setting.path.rsplit('.').next().unwrap_or(setting.path);
        let mut line = match value.show() {
            Some(_) if value.is_secret() => format!("# {name} is set, and not shown"),
            Some(shown) => format!("{name} = {shown}"),
            None => format!("# {name} is not set"),
        };
        match self.loaded.origins.get(setting.path) {
            Some(Origin::File) => line.push_str("  # from the file"),
            Some(Origin::Environment) => {
                let _ = write!(line, "  # from {}", setting.variable());
            }
            Some(Origin::Flag) => line.push_str("  # from a flag"),
            Some(Origin::Default) | None => {}
        }
        self.text.push_str(&line);
        self.text.push('\n');
    }
}

/// The reference page, `docs/configuration.md`.
pub(crate) fn reference() -> String {
    let mut page = Reference {
        text: HEAD.to_owned(),
    };
    Config::default().visit(&mut page);
    page.text
}

const HEAD: &str = "\
# Configuration

hongyan runs without any configuration. What you set comes from three places; the stronger one wins:
a flag (`--data DIR`, `--set name=value`), the environment (`HONGYAN_…`), the file (`--config FILE` or
`HONGYAN_CONFIG`, TOML). `hongyan config` prints what holds and where each value came from, without secrets.

A name that does not exist, a value of the wrong kind or out of bounds, and settings that contradict each
other are all reported together at start; nothing is guessed. In the environment, lists are separated by commas.

<!-- Made from the declarations in crates/hongyan/src/config.rs: `cargo xtask golden` renews this page. -->
";

struct Reference {
    text: String,
}

fn words(doc: &[&str]) -> String {
    let lines: Vec<_> = doc.iter().map(|line| line.trim()).collect();
    lines.join(" ")
}

impl Visitor for Reference {
    fn group(&mut self, name: &'static str, doc: &'static [&'static str]) {
        let title = if name.is_empty() {
            "Top level".to_owned()
        } else {
            format!("`[{name}]`")
        };
        let _ = write!(self.text, "\n## {title}\n\n{}\n", words(doc));
    }

    fn setting(&mut self, setting: Setting, value: &mut dyn Value) {
        let default = value
            .show()
            .map_or_else(|| "not set".to_owned(), |shown| format!("`{shown}`"));
        let range = setting
            .range
            .map(|(min, max)| format!(", {min} to {max}"))
            .unwrap_or_default();
        let _ = write!(
            self.text,
            "\n### `{}`\n\n{}\n\n- kind: {}{range}\n- default: {default}\n- variable: `{}`\n",
            setting.path,
            words(setting.doc),
            value.kind(),
            setting.variable(),
        );
    }
}
