//! Reading the configuration from its sources, with every fault named.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::Config;
use super::setting::{Group, Setting, Value, Visitor};

/// Largest configuration file, bytes: a hundred times what all settings need.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where settings come from, weakest first: file, environment, flags.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Sources {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "HONGYAN_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Directory that holds everything the server keeps (setting `data`).
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Any setting, as `name=value`; may be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
}

/// Which source a value was taken from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Origin {
    /// Nobody set it.
    #[default]
    Default,
    /// The file.
    File,
    /// The environment variable.
    Environment,
    /// A flag.
    Flag,
}

/// A configuration that holds, and where its values came from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loaded {
    /// The values.
    pub(crate) config: Config,
    /// The settings that somebody set.
    pub(crate) origins: BTreeMap<&'static str, Origin>,
    /// Things that look like mistakes but harm nothing.
    pub(crate) warnings: Vec<String>,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Faults(pub(crate) Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "configuration: {one}"),
            many => {
                write!(
                    f,
                    "configuration: {} faults: {}",
                    many.len(),
                    many.join("; ")
                )
            }
        }
    }
}

impl std::error::Error for Faults {}

impl Sources {
    /// Reads the file and this process's environment, and checks everything.
    ///
    /// # Errors
    /// All faults together.
    pub(crate) fn load(&self) -> Result<Loaded, Faults> {
        let environment: Vec<_> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("HONGYAN_"))
            .collect();
        self.load_with(&environment)
    }

    /// The same with a given environment.
    pub(super) fn load_with(&self, environment: &[(String, String)]) -> Result<Loaded, Faults> {
        let mut faults = Vec::new();
        let file = match &self.config {
            Some(path) => read_file(path).unwrap_or_else(|fault| {
                faults.push(fault);
                BTreeMap::new()
            }),
            None => BTreeMap::new(),
        };
        let mut reader = Reader {
            file,
            file_name: self
                .config
                .as_deref()
                .map(|path| path.display().to_string()),
            environment,
            flags: self.flags(&mut faults),
            known: Vec::new(),
            origins: BTreeMap::new(),
            faults,
        };
        let mut config = Config::default();
        config.visit(&mut reader);
        reader.refuse_unknown();
        let warnings = reader.suspicious_variables();
        let Reader {
            origins,
            mut faults,
            ..
        } = reader;
        faults.extend(
            config
                .check()
                .into_iter()
                .map(|(name, fault)| format!("`{name}` {fault}")),
        );
        if faults.is_empty() {
            Ok(Loaded {
                config,
                origins,
                warnings,
            })
        } else {
            Err(Faults(faults))
        }
    }

    fn flags(&self, faults: &mut Vec<String>) -> BTreeMap<String, (String, String)> {
        let mut flags = BTreeMap::new();
        for item in &self.set {
            match item.split_once('=') {
                Some((name, value)) => {
                    let name = name.trim().to_owned();
                    flags.insert(name.clone(), (format!("--set {name}"), value.to_owned()));
                }
                None => faults.push(format!("`--set {item}` must be name=value")),
            }
        }
        if let Some(data) = &self.data {
            let value = data.to_string_lossy().into_owned();
            flags.insert("data".to_owned(), ("--data".to_owned(), value));
        }
        flags
    }
}

/// The file as dotted names and values.
fn read_file(path: &Path) -> Result<BTreeMap<String, toml::Value>, String> {
    let name = path.display();
    let size = std::fs::metadata(path)
        .map_err(|error| format!("the file {name} cannot be read: {error}"))?
        .len();
    if size > FILE_BYTES_MAX {
        return Err(format!(
            "the file {name} has {size} bytes; {FILE_BYTES_MAX} is the most"
        ));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("the file {name} cannot be read: {error}"))?;
    let table: toml::Table = str::parse(&text).map_err(|error: toml::de::Error| {
        // The parser's own rendering quotes the line, which may hold a secret.
        let line = error.span().map_or(1, |span| {
            1 + text[..span.start.min(text.len())].matches('\n').count()
        });
        format!(
            "the file {name} is not TOML: line {line}: {}",
            error.message()
        )
    })?;
    let mut flat = BTreeMap::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(group) => {
                for (field, value) in group {
                    flat.insert(format!("{key}.{field}"), value);
                }
            }
            other => {
                flat.insert(key, other);
            }
        }
    }
    Ok(flat)
}

struct Reader<'a> {
    file: BTreeMap<String, toml::Value>,
    file_name: Option<String>,
    environment: &'a [(String, String)],
    flags: BTreeMap<String, (String, String)>,
    known: Vec<Setting>,
    origins: BTreeMap<&'static str, Origin>,
    faults: Vec<String>,
}

impl Visitor for Reader<'_> {
    fn group(&mut self, _name: &'static str, _doc: &'static [&'static str]) {}

    fn setting(&mut self, setting: Setting, value: &mut dyn Value) {
        self.known.push(setting);
        let variable = setting.variable();
        let mut said_by = None;
        if let Some(written) = self.file.get(setting.path) {
            let place = self.file_name.clone().unwrap_or_default();
            said_by = Some((Origin::File, place, value.read(written)));
        }
        if let Some((_, text)) = self.environment.iter().find(|(name, _)| *name == variable) {
            said_by = Some((Origin::Environment, variable, value.parse(text)));
        }
        if let Some((flag, text)) = self.flags.get(setting.path) {
            said_by = Some((Origin::Flag, flag.clone(), value.parse(text)));
        }
        let Some((origin, place, result)) = said_by else {
            return;
        };
        self.origins.insert(setting.path, origin);
        let result = result.and_then(|()| in_range(setting, value));
        if let Err(fault) = result {
            self.faults
                .push(format!("`{}` {fault} ({place})", setting.path));
        }
    }
}

fn in_range(setting: Setting, value: &dyn Value) -> Result<(), String> {
    match (setting.range, value.number()) {
        (Some((min, max)), Some(number)) if !(min..=max).contains(&number) => {
            Err(format!("must be between {min} and {max}, not {number}"))
        }
        _ => Ok(()),
    }
}

impl Reader<'_> {
    fn refuse_unknown(&mut self) {
        let place = self.file_name.clone().unwrap_or_default();
        let in_file = self.file.keys().map(|name| (name.clone(), place.clone()));
        let in_flags = self
            .flags
            .iter()
            .map(|(name, (flag, _))| (name.clone(), flag.clone()));
        let mut unknown: Vec<String> = Vec::new();
        for (name, place) in in_file.chain(in_flags) {
            if self.known.iter().any(|setting| setting.path == name) {
                continue;
            }
            let near = nearest(&name, self.known.iter().map(|s| s.path.to_owned()));
            let hint = near.map_or_else(
                || "see `hongyan config`".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            unknown.push(format!("`{name}` is not a setting ({place}); {hint}"));
        }
        self.faults.append(&mut unknown);
    }

    /// Variables that no setting has but that are nearly one: commands have variables of their own, so these are
    /// no faults.
    fn suspicious_variables(&self) -> Vec<String> {
        let names: Vec<_> = self.known.iter().map(Setting::variable).collect();
        self.environment
            .iter()
            .filter(|(name, _)| !names.contains(name))
            .filter_map(|(name, _)| {
                let near = nearest(name, names.iter().cloned())?;
                Some(format!(
                    "the variable {name} sets nothing; did you mean {near}?"
                ))
            })
            .collect()
    }
}

/// The candidate that is at most two edits away, if there is one.
fn nearest(word: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    candidates
        .map(|candidate| (edits(word, &candidate), candidate))
        .filter(|(edits, _)| *edits <= 2)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance over bytes. Words are short: names of settings and variables, cut at 128 bytes.
fn edits(a: &str, b: &str) -> usize {
    let cut = |text: &str| text.bytes().take(128).collect::<Vec<_>>();
    let (a, b) = (cut(a), cut(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (j, to) in b.iter().enumerate() {
            let above = row.get(j + 1).copied().unwrap_or(usize::MAX - 1);
            let cost = diagonal + usize::from(from != to);
            let best = cost.min(above + 1).min(left + 1);
            diagonal = above;
            if let Some(cell) = row.get_mut(j) {
                *cell = left;
            }
            left = best;
        }
        if let Some(cell) = row.last_mut() {
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}
