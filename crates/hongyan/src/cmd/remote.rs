//! Finding the server that a command speaks to, and saying what its refusals mean.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches};
use hongyan_client::net::Tls;
use hongyan_client::{Admin, Error, Secret};
use serde::Deserialize;
use serde_json::Value;

use super::output::Form;
use crate::admin_key::ADMIN_KEY_FILE;

/// Where a server listens that nobody has named.
const API_DEFAULT: &str = "http://127.0.0.1:7400";
/// Data directory that nobody has named.
const DATA_DEFAULT: &str = "./hongyan-data";
/// Deadline of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest file of addresses and keys that is read, in bytes.
const DEMO_BYTES_MAX: u64 = 64 * 1024;
/// Items in one page of a list.
const PAGE_LEN: usize = 500;

/// A command line that cannot be carried out; ends with code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Where the server is, and who asks.
#[derive(Args, Clone)]
pub(crate) struct Remote {
    /// The server's address [default: from DIR/demo.json, else http://127.0.0.1:7400]
    #[arg(
        long,
        env = "HONGYAN_API",
        value_name = "URL",
        global = true,
        help_heading = "Server"
    )]
    api: Option<String>,
    /// Admin or server key [default: from DIR/demo.json or DIR/admin.key]
    #[arg(
        long,
        env = "HONGYAN_KEY",
        hide_env_values = true,
        value_name = "KEY",
        global = true,
        help_heading = "Server"
    )]
    key: Option<String>,
    /// Act in this app; needed with an admin key
    #[arg(
        long,
        env = "HONGYAN_APP",
        value_name = "APP",
        global = true,
        help_heading = "Server"
    )]
    app: Option<String>,
    /// Data directory of a local server [default: ./hongyan-data]
    #[arg(long, value_name = "DIR", global = true, help_heading = "Server")]
    data: Option<PathBuf>,
    /// PEM file with a root certificate to trust besides the public ones
    #[arg(long, value_name = "FILE", global = true, help_heading = "Server")]
    ca: Option<PathBuf>,
    /// Answer in JSON, for programs
    #[arg(long, global = true, help_heading = "Server")]
    json: bool,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("api", &self.api)
            .finish_non_exhaustive()
    }
}

/// The same for a command that may ask no server: it knows which of the flags were given on the command line itself.
#[derive(Debug)]
pub(crate) struct Typed {
    pub(crate) remote: Remote,
    /// Flags that choose a server and a key, as they are written.
    flags: Vec<&'static str>,
}

impl Typed {
    /// Refuses flags that would choose a server and a key, for a command that works on files of this machine. Variables of
    /// the environment are for all commands, and stay unheard.
    pub(crate) fn here(&self) -> Result<&Remote, Usage> {
        match self.flags.first() {
            None => Ok(&self.remote),
            Some(flag) => Err(Usage(format!(
                "{flag} does nothing here: this works on a data directory of this machine, which --data names; leave {flag} out"
            ))),
        }
    }
}

impl FromArgMatches for Typed {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }
    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        let all = [
            ("api", "--api"),
            ("key", "--key"),
            ("app", "--app"),
            ("ca", "--ca"),
        ];
        let typed =
            |(id, _): &(&str, _)| matches.value_source(id) == Some(ValueSource::CommandLine);
        let flags = all
            .into_iter()
            .filter(typed)
            .map(|(_, flag)| flag)
            .collect();
        let remote = Remote::from_arg_matches_mut(matches)?;
        Ok(Self { remote, flags })
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Typed {
    fn augment_args(command: clap::Command) -> clap::Command {
        Remote::augment_args(command)
    }
    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Remote::augment_args_for_update(command)
    }
}

/// What a command is about to touch, which decides the key that is taken from demo.json.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Things within an app.
    App,
    /// Tenants and their keys.
    Server,
}

/// What `hongyan demo` wrote.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Demo {
    api: Option<String>,
    app: Option<String>,
    admin_key: Option<Secret>,
    server_key: Option<Secret>,
}

impl Remote {
    /// The data directory of a local server, when one was named.
    pub(crate) fn data(&self) -> Option<&Path> {
        self.data.as_deref()
    }

    /// Where things of a local server are looked for.
    fn dir(&self) -> &Path {
        self.data().unwrap_or(Path::new(DATA_DEFAULT))
    }

    /// How answers are to be shown.
    pub(crate) fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::Text }
    }

    /// A client of the server.
    pub(crate) fn connect(&self, reach: Reach) -> anyhow::Result<Admin> {
        let mut demo = Demo::read(&self.dir().join("demo.json"))?.unwrap_or_default();
        if demo.admin_key.is_none() && self.key.is_none() {
            demo.admin_key = admin_key(&self.dir().join(ADMIN_KEY_FILE))?;
        }
        self.nothing_empty()?;
        let (key, app) = self.who(reach, &demo)?;
        let api = self
            .api
            .clone()
            .or(demo.api)
            .unwrap_or_else(|| API_DEFAULT.to_owned());
        let tls = match &self.ca {
            None => Tls::default(),
            Some(path) => {
                let pem = std::fs::read(path)
                    .with_context(|| format!("cannot read the certificate {}", path.display()))?;
                Tls::with_root_pem(&pem).map_err(told)?
            }
        };
        let admin = Admin::with(&api, key, tls, CALL_TIMEOUT).map_err(told)?;
        Ok(match app {
            Some(app) => admin.for_app(&app),
            None => admin,
        })
    }

    /// A variable that is set to nothing was mostly meant to be something.
    fn nothing_empty(&self) -> Result<(), Usage> {
        for (given, what) in [
            (
                &self.api,
                "--api (HONGYAN_API) is empty: give it as http://host:port",
            ),
            (
                &self.key,
                "--key (HONGYAN_KEY) is empty: give an admin or server key",
            ),
            (
                &self.app,
                "--app (HONGYAN_APP) is empty: give the id of an app",
            ),
        ] {
            if given.as_ref().is_some_and(|text| text.trim().is_empty()) {
                return Err(Usage(format!("{what}, or leave it unset")));
            }
        }
        Ok(())
    }

    /// The key to show, and the app to name with it.
    fn who(&self, reach: Reach, demo: &Demo) -> anyhow::Result<(Secret, Option<String>)> {
        let app = self.app.clone();
        if let Some(key) = &self.key {
            let local = if self.api.is_none() {
                demo.app.clone()
            } else {
                None
            };
            let admin = key.starts_with("hy_admin_");
            let app = app.or(if admin && reach == Reach::App {
                local
            } else {
                None
            });
            if admin && reach == Reach::App && app.is_none() {
                let why = "with an admin key, name the app: give --app or HONGYAN_APP";
                return Err(Usage(why.to_owned()).into());
            }
            return Ok((Secret::new(key), app));
        }
        let foreign = app.is_some() && app != demo.app;
        let key = match reach {
            Reach::App if !foreign => demo.server_key.as_ref().or(demo.admin_key.as_ref()),
            _ => demo.admin_key.as_ref(),
        };
        let Some(key) = key.cloned() else {
            return Err(Usage(format!(
                "no key: none was given and {} holds neither demo.json nor {ADMIN_KEY_FILE}; give one with --key or HONGYAN_KEY, or name the directory with --data",
                self.dir().display()
            ))
            .into());
        };
        if let Some(api) = self
            .api
            .as_ref()
            .filter(|api| !is_local(api, demo.api.as_deref()))
        {
            return Err(Usage(format!(
                "no key for {api}: keys in {} are not sent to another machine; give one with --key or HONGYAN_KEY",
                self.dir().display()
            ))
            .into());
        }
        let app = match reach {
            Reach::App => app.or_else(|| demo.app.clone()),
            Reach::Server => app,
        };
        if reach == Reach::App && app.is_none() {
            let why = "with the server's own admin key, name the app: give --app or HONGYAN_APP";
            return Err(Usage(why.to_owned()).into());
        }
        Ok((key, app))
    }
}

/// Whether an address is the one that the local server wrote down, or on this machine.
fn is_local(api: &str, demo: Option<&str>) -> bool {
    let Ok(uri) = api.parse::<http::Uri>() else {
        return false;
    };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    Some(api) == demo
        || host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Reads the first admin key of a local server, when this user may.
fn admin_key(path: &Path) -> anyhow::Result<Option<Secret>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(Secret::new(text.trim()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}

impl Demo {
    fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        let meta = match std::fs::metadata(path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        anyhow::ensure!(
            meta.len() <= DEMO_BYTES_MAX,
            "{} is too long to be what `hongyan demo` writes",
            path.display()
        );
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        // The parser's own words could quote a key.
        let demo = serde_json::from_slice(&bytes).map_err(|e| {
            anyhow::anyhow!(
                "{} is not what `hongyan demo` writes (line {})",
                path.display(),
                e.line()
            )
        })?;
        Ok(Some(demo))
    }
}

/// Says what an error of the client means for the person at the command line.
pub(crate) fn told(error: Error) -> anyhow::Error {
    if let Error::Invalid { .. } = &error {
        return Usage(error.to_string()).into();
    }
    let advice = match (&error, error.status()) {
        (Error::Unreachable { .. }, _) => {
            "is the server running? start it with `hongyan demo` or `hongyan serve`, or name it with --api"
        }
        (_, Some(401)) => {
            "check --key or HONGYAN_KEY; keys are made with `hongyan key create`, a new admin key with `hongyan key admin --rotate` on the server's machine"
        }
        (_, Some(403)) => "use a key that may do this: `hongyan key list` shows the scopes",
        (_, Some(429)) => "wait a little and repeat",
        (_, Some(500..)) => "the server's log says more",
        (Error::Timeout { .. } | Error::Broken { .. }, _) => {
            "look whether it took effect before you repeat it"
        }
        _ => return anyhow::Error::new(error),
    };
    anyhow::anyhow!("{error}; {advice}")
}

/// Runs a command's asynchronous part.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(Box::pin(work))
}

/// Reads a list page by page, up to `max` items.
pub(crate) async fn pages(admin: &Admin, path: &str, max: usize) -> anyhow::Result<Value> {
    let mut items: Vec<Value> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let limit = PAGE_LEN.min(max - items.len()).max(1).to_string();
        let page = with_query(
            path,
            &[("limit", Some(limit.as_str())), ("after", after.as_deref())],
        );
        let answer = admin
            .raw(http::Method::GET, &page, None)
            .await
            .map_err(told)?;
        let count = items.len();
        items.extend(super::output::rows(&answer).iter().cloned());
        after = answer
            .get("next")
            .and_then(Value::as_str)
            .map(str::to_owned);
        if after.is_none() || items.len() >= max || items.len() == count {
            return Ok(serde_json::json!({ "items": items }));
        }
    }
}

/// Makes text safe as one segment of a path or one value of a query.
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// `path?a=1&b=2`; pairs without a value are left out.
pub(crate) fn with_query(path: &str, pairs: &[(&str, Option<&str>)]) -> String {
    let mut out = path.to_owned();
    for (name, value) in pairs {
        if let Some(value) = value {
            out.push(if out.contains('?') { '&' } else { '?' });
            out.push_str(&format!("{name}={}", segment(value)));
        }
    }
    out
}

/// Puts a value into an object at a dotted path, making objects on the way.
pub(crate) fn put(object: &mut Value, path: &str, value: Value) -> Result<(), Usage> {
    let mut place = object;
    for step in path.split('.') {
        if step.is_empty() {
            return Err(Usage(format!("the path {path:?} has an empty step")));
        }
        if place.is_null() {
            *place = Value::Object(serde_json::Map::new());
        }
        let Value::Object(fields) = place else {
            return Err(Usage(format!(
                "{path}: there is a value in the way of {step:?}"
            )));
        };
        place = fields.entry(step).or_insert(Value::Null);
    }
    *place = value;
    Ok(())
}

/// Reads `path=value` pairs into an object; a value that is not JSON is text.
pub(crate) fn put_pairs(object: &mut Value, pairs: &[String]) -> Result<(), Usage> {
    for pair in pairs {
        let Some((path, value)) = pair.split_once('=') else {
            return Err(Usage(format!("{pair:?} is not of the form PATH=VALUE")));
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        put(object, path, value)?;
    }
    Ok(())
}

/// Reads a JSON file; `-` is stdin.
pub(crate) fn read_json(path: &Path) -> anyhow::Result<Value> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes)
            .context("cannot read stdin")?;
        bytes
    } else {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?
    };
    serde_json::from_slice(&bytes)
        .map_err(|e| Usage(format!("{} is not JSON: {e}", path.display())).into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn remote(key: Option<&str>, app: Option<&str>, api: Option<&str>) -> Remote {
        Remote {
            api: api.map(Into::into),
            key: key.map(Into::into),
            app: app.map(Into::into),
            data: Some(PathBuf::from("/nowhere")),
            ca: None,
            json: false,
        }
    }

    fn demo() -> Demo {
        Demo {
            api: Some("http://127.0.0.1:7400".into()),
            app: Some("demo".into()),
            admin_key: Some("hy_admin_a".into()),
            server_key: Some("hy_sk_s".into()),
        }
    }

    #[test]
    fn who_asks() {
        let check = |remote: Remote, reach, want: (&str, Option<&str>)| {
            let (key, app) = remote.who(reach, &demo()).unwrap();
            assert_eq!((key.expose(), app.as_deref()), want);
        };
        check(
            remote(None, None, None),
            Reach::App,
            ("hy_sk_s", Some("demo")),
        );
        check(
            remote(None, Some("shop"), None),
            Reach::App,
            ("hy_admin_a", Some("shop")),
        );
        check(
            remote(None, None, None),
            Reach::Server,
            ("hy_admin_a", None),
        );
        check(
            remote(Some("hy_sk_x"), None, None),
            Reach::App,
            ("hy_sk_x", None),
        );
        check(
            remote(Some("hy_admin_x"), None, None),
            Reach::App,
            ("hy_admin_x", Some("demo")),
        );
        let no_app = remote(Some("hy_admin_x"), None, Some("http://x"));
        assert!(no_app.who(Reach::App, &demo()).is_err());
    }

    #[test]
    fn what_is_empty_is_said_to_be() {
        for (given, word) in [
            (remote(None, None, Some("")), "HONGYAN_API"),
            (remote(Some(" "), None, None), "HONGYAN_KEY"),
            (remote(None, Some(""), None), "HONGYAN_APP"),
        ] {
            let error = given.connect(Reach::App).err().unwrap();
            assert!(
                error.is::<Usage>() && error.to_string().contains(word),
                "{error}"
            );
        }
    }

    #[test]
    fn local_keys_stay_here() {
        let check =
            |api: &str, want: bool| assert_eq!(is_local(api, Some("http://a.example")), want);
        check("http://a.example", true);
        check("http://127.0.0.1:9", true);
        check("https://[::1]:9", true);
        check("http://localhost:7400", true);
        check("http://b.example", false);
        check("http://127.0.0.1.example", false);
        check("http://localhost@b.example", false);
        let error = remote(None, None, Some("http://b.example")).who(Reach::App, &demo());
        assert!(error.is_err());
    }

    #[test]
    fn no_key_says_what_to_do() {
        let error = remote(None, None, None).connect(Reach::App).unwrap_err();
        assert!(error.is::<Usage>());
        assert!(
            error
                .to_string()
                .contains("/nowhere holds neither demo.json nor admin.key"),
            "{error}"
        );
    }

    #[test]
    fn pairs() {
        let check = |pairs: &[&str], want: Value| {
            let mut object = json!({"options": {"ttl": 1}, "class": "im"});
            let pairs: Vec<String> = pairs.iter().map(|p| (*p).to_owned()).collect();
            let got = put_pairs(&mut object, &pairs).map(|()| object);
            assert_eq!(got.map_err(|e| e.to_string()), Ok(want));
        };
        check(
            &[
                "options.ttl=60",
                "options.vendor.apns={\"a\":1}",
                "class=marketing",
            ],
            json!({
            "options": {"ttl": 60, "vendor": {"apns": {"a": 1}}}, "class": "marketing"}),
        );
        let mut object = json!({"class": "im"});
        assert!(put_pairs(&mut object, &["class.x=1".to_owned()]).is_err());
        assert!(put_pairs(&mut object, &["class".to_owned()]).is_err());
        assert!(put_pairs(&mut object, &["a..b=1".to_owned()]).is_err());
    }
}
