//! The program: options, logs, signals.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use hongyan_client::net::Tls;
use hongyan_client::{Options, Secret};
use hongyan_distributor::{Error, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Receives UnifiedPush messages from a hongyan server for the apps of this desktop session.
#[derive(Parser)]
#[command(name = "hongyan-distributor", version, max_term_width = 100)]
struct Cli {
    /// The server, such as https://push.example.
    #[arg(long, env = "HONGYAN_SERVER", value_name = "URL")]
    server: String,
    /// A client key (hy_pk_…) of the app that this desktop shall belong to. Better in the environment, where others cannot see it.
    #[arg(
        long,
        env = "HONGYAN_CLIENT_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    client_key: String,
    /// The folder for the registrations; $XDG_STATE_HOME/hongyan-distributor when not given.
    #[arg(long, env = "HONGYAN_DISTRIBUTOR_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
    /// A PEM file with certificates to trust besides the public ones.
    #[arg(long, env = "HONGYAN_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let done = settings(cli).and_then(|settings| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start: {error}"))?;
        let done: Result<(), Error> = runtime.block_on(async {
            let stop = stop().map_err(zbus::Error::from)?;
            hongyan_distributor::run(settings, stop).await
        });
        done.map_err(|error| error.to_string())
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Nobody may read standard error, which is no reason to end otherwise.
            let _ = writeln!(std::io::stderr(), "hongyan-distributor: {why}");
            ExitCode::FAILURE
        }
    }
}

fn settings(cli: Cli) -> Result<Settings, String> {
    let mut options = Options::new(&cli.server).map_err(|error| error.to_string())?;
    if let Some(file) = &cli.ca {
        let pem = std::fs::read(file)
            .map_err(|error| format!("cannot read --ca {}: {error}", file.display()))?;
        options.tls = Tls::with_root_pem(&pem).map_err(|error| error.to_string())?;
    }
    let folder = match cli.state {
        Some(folder) => folder,
        None => default_folder(
            std::env::var_os("XDG_STATE_HOME").map(PathBuf::from),
            std::env::home_dir(),
        )
        .ok_or("there is no home folder; give --state")?,
    };
    Ok(Settings {
        options,
        server: cli.server.trim_end_matches('/').to_owned(),
        client_key: Secret::new(cli.client_key),
        folder,
    })
}

/// Where the XDG base directories have state; relative ones do not count.
fn default_folder(state: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    state
        .filter(|folder| folder.is_absolute())
        .or_else(|| Some(home?.join(".local/state")))
        .map(|folder| folder.join("hongyan-distributor"))
}

/// Resolves on the first signal to end.
fn stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_where_the_desktop_has_it() {
        let path = |text: &str| Some(PathBuf::from(text));
        let check = |state, home, want| assert_eq!(default_folder(state, home), want);
        check(path("/s"), path("/h"), path("/s/hongyan-distributor"));
        check(
            path("s"),
            path("/h"),
            path("/h/.local/state/hongyan-distributor"),
        );
        check(
            None,
            path("/h"),
            path("/h/.local/state/hongyan-distributor"),
        );
        check(None, None, None);
    }

    #[test]
    fn options_come_from_the_environment_too() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
        let cli = [
            "hongyan-distributor",
            "--server",
            "https://push.example/",
            "--client-key",
            "k",
            "--state",
            "/s",
        ];
        let settings = settings(Cli::parse_from(cli)).unwrap();
        assert_eq!(settings.server, "https://push.example");
        assert!(!format!("{settings:?}").contains("\"k\""));
    }
}
