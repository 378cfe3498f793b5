//! Processes under measurement. Each prints one line of JSON with its ports and runs until its
//! standard input ends.

pub mod echo;
pub mod fill;
pub mod gateway;
pub mod memory;
pub mod sink;
pub mod tls;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// A process under measurement.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, clap::Subcommand)]
enum Role {
    /// The gateway alone, on ports in memory.
    Gateway {
        /// Devices that exist.
        #[arg(long)]
        devices: u32,
        /// How many of them follow the topic.
        #[arg(long)]
        followers: u32,
        /// TLS, and who handles its records.
        #[arg(long)]
        tls: Option<Records>,
        /// What its clients speak.
        #[arg(long, default_value = "http")]
        speech: Speech,
    },
    /// tokio-rustls alone.
    TokioRustls {
        /// Bytes of each connection's read buffer.
        #[arg(long)]
        buffer: usize,
    },
    /// tokio-tungstenite alone.
    Tungstenite {
        /// Bytes of its read buffer.
        #[arg(long)]
        buffer: usize,
    },
    /// Vendors that accept everything over TLS: APNs over HTTP/2, on the other port Xiaomi over HTTP/1.1.
    Sink,
    /// Fills a store and holds it open.
    Fill {
        /// The data directory.
        #[arg(long)]
        data: std::path::PathBuf,
        /// Devices to import.
        #[arg(long)]
        devices: u32,
        /// Messages to put into inboxes.
        #[arg(long)]
        entries: u32,
    },
}

/// What the clients of the gateway speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Speech {
    /// HTTP: WebSocket, streams and polls.
    Http,
    /// MQTT over TCP.
    Mqtt,
    /// XMPP over TCP, without TLS.
    Xmpp,
    /// What browsers speak to their push service.
    Autopush,
}

/// Who handles the records of TLS connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Records {
    /// The gateway.
    Own,
    /// rustls.
    Rustls,
}

/// Where a child listens, and what it did before.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ports {
    /// For clients.
    pub clients: u16,
    /// For the publisher, if it takes one.
    pub publisher: u16,
    /// The certificate to trust, PEM, if it speaks TLS.
    #[serde(default)]
    pub ca: String,
    /// Devices that were imported per second.
    #[serde(default)]
    pub devices_per_s: f64,
    /// Inbox entries that were committed per second.
    #[serde(default)]
    pub entries_per_s: f64,
}

/// Plays a role until standard input ends.
///
/// # Errors
/// What failed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    crate::process::allow_files(1)?;
    let runtime = crate::runtime()?;
    runtime.block_on(async {
        let clients = listen().await?;
        let publisher = listen().await?;
        let mut ports = Ports {
            clients: clients.local_addr()?.port(),
            publisher: publisher.local_addr()?.port(),
            ..Ports::default()
        };
        let mut held = None;
        match &args.role {
            Role::Gateway {
                devices,
                followers,
                tls,
                speech,
            } => {
                let who = (*devices, *followers);
                ports.ca = gateway::start(clients, publisher, who, *tls, *speech)?;
            }
            Role::TokioRustls { buffer } => ports.ca = tls::start(clients, *buffer)?,
            Role::Tungstenite { buffer } => echo::start(clients, *buffer),
            Role::Sink => {
                ports.ca = sink::start(clients)?;
                ports.ca += &sink::start_http1(publisher)?;
            }
            Role::Fill {
                data,
                devices,
                entries,
            } => {
                let engine =
                    hongyan_embedded::Embedded::open(&hongyan_embedded::Options::new(data))?;
                ports.devices_per_s = fill::devices(&engine, *devices).await?;
                ports.entries_per_s = fill::entries(&engine, *entries, *devices).await?;
                held = Some(engine);
            }
        }
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&ports)?)?;
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        drop(held);
        anyhow::Ok(())
    })?;
    // Nothing is worth an orderly end here.
    runtime.shutdown_background();
    Ok(())
}

async fn listen() -> anyhow::Result<tokio::net::TcpListener> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    tokio::net::TcpListener::bind(any)
        .await
        .context("no free port")
}
