//! The hongyan server and its command line.

mod admin_key;
mod bridge;
mod clock;
mod cmd;
mod config;
mod control;
mod data;
mod log;
mod metrics;
mod mqtt;
mod seal;
mod shutdown;
mod tasks;
mod wiring;
mod xmpp;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Gives memory of handshakes back, and costs less (`docs/decisions/0024`); its settings are in `.cargo/config.toml`.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One message, one person, whatever they hold in their hand.
#[derive(Parser, Debug)]
#[command(name = "hongyan", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Demo(cmd::demo::Args),
    Serve(cmd::serve::Args),
    Sandbox(cmd::sandbox::Args),
    Send(cmd::send::Args),
    Tail(cmd::tail::Args),
    Explain(cmd::explain::Args),
    App(cmd::app::Args),
    Key(cmd::key::Args),
    Channel(cmd::channel::Args),
    Device(cmd::device::Args),
    Report(cmd::report::Args),
    Config(cmd::config::Args),
    Doctor(cmd::doctor::Args),
    Bench(cmd::bench::Args),
    Backup(cmd::backup::Args),
    Restore(cmd::restore::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let done = match cli.command {
        Command::Demo(args) => cmd::demo::run(args),
        Command::Serve(args) => cmd::serve::run(args),
        Command::Sandbox(args) => cmd::sandbox::run(args),
        Command::Send(args) => cmd::send::run(args),
        Command::Tail(args) => cmd::tail::run(args),
        Command::Explain(args) => cmd::explain::run(args),
        Command::App(args) => cmd::app::run(args),
        Command::Key(args) => cmd::key::run(args),
        Command::Channel(args) => cmd::channel::run(args),
        Command::Device(args) => cmd::device::run(args),
        Command::Report(args) => cmd::report::run(args),
        Command::Config(args) => cmd::config::run(args),
        Command::Doctor(args) => cmd::doctor::run(args),
        Command::Bench(args) => cmd::bench::run(args),
        Command::Backup(args) => cmd::backup::run(args),
        Command::Restore(args) => cmd::restore::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Shows help and versions as they are, and what is wrong with a command line in one line.
fn refuse(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind as K;
    let as_it_is = matches!(
        error.kind(),
        K::DisplayHelp | K::DisplayVersion | K::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if as_it_is {
        // Nothing can be done when the reader is gone.
        let _ = error.print();
        return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
    }
    let words = one_line(error);
    let _ = writeln!(std::io::stderr(), "hongyan: {words}; see `hongyan help`");
    ExitCode::from(2)
}

/// The words of a refusal without the usage that follows them.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"))
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
        .collect();
    let words = lines.join("; ").replace(":; ", ": ");
    words.trim_start_matches("error: ").to_owned()
}

/// Says what went wrong in one line, and gives the exit code: 2 for a command line that cannot be
/// carried out, 1 for the rest.
fn fail(error: &anyhow::Error) -> ExitCode {
    let reader_is_gone = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe);
    if reader_is_gone {
        return ExitCode::SUCCESS;
    }
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Many errors quote their cause already.
        if !text.contains(&cause) {
            let sign = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{sign}{cause}");
        }
    }
    // Nothing can be done when stderr is gone.
    let _ = writeln!(
        std::io::stderr(),
        "hongyan: {}",
        cmd::output::harmless(&text)
    );
    ExitCode::from(if error.is::<cmd::remote::Usage>() {
        2
    } else {
        1
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    #[test]
    fn refusals_are_one_line() {
        let check = |line: &str, want: &str| {
            let error = super::Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(super::one_line(&error), want);
        };
        check("hongyan bogus", "unrecognized subcommand 'bogus'");
        check(
            "hongyan send --tille x",
            "unexpected argument '--tille' found; tip: a similar argument exists: '--title'",
        );
        check(
            "hongyan key admin",
            "the following required arguments were not provided: --rotate",
        );
        check(
            "hongyan send --ttl soon",
            "invalid value 'soon' for '--ttl <SECONDS>': invalid digit found in string",
        );
    }

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }

    /// Two arguments with one id are one argument: what is given for the one is taken for the other.
    fn own_and_global(command: &clap::Command, above: &[String], clashes: &mut Vec<String>) {
        let id = |arg: &clap::Arg| arg.get_id().to_string();
        clashes.extend(
            command
                .get_arguments()
                .map(id)
                .filter(|id| above.contains(id))
                .map(|id| format!("{} {id}", command.get_name())),
        );
        let globals = command
            .get_arguments()
            .filter(|arg| arg.is_global_set())
            .map(id);
        let all: Vec<String> = above.iter().cloned().chain(globals).collect();
        for below in command.get_subcommands() {
            own_and_global(below, &all, clashes);
        }
    }

    #[test]
    fn no_argument_of_a_command_is_one_of_all_commands() {
        let mut clashes = Vec::new();
        own_and_global(&super::Cli::command(), &[], &mut clashes);
        assert!(clashes.is_empty(), "{clashes:?}");
    }
}
