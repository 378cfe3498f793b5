//! Processes under measurement. Each prints one line of JSON with its ports and runs until its
//! standard input ends.

pub mod echo;
pub mod gateway;
pub mod memory;

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
    },
    /// tokio-tungstenite alone.
    Tungstenite {
        /// Bytes of its read buffer.
        #[arg(long)]
        buffer: usize,
    },
}

/// Where a child listens.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Ports {
    /// For clients.
    pub clients: u16,
    /// For the publisher, if it takes one.
    pub publisher: u16,
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
        let ports = Ports {
            clients: clients.local_addr()?.port(),
            publisher: publisher.local_addr()?.port(),
        };
        match args.role {
            Role::Gateway { devices, followers } => {
                gateway::start(clients, publisher, devices, followers)?;
            }
            Role::Tungstenite { buffer } => echo::start(clients, buffer),
        }
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&ports)?)?;
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
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
