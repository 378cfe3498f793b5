//! `hongyan bench` as a program of its own, to measure rooms without building the whole server.

use clap::Parser as _;

/// The server's own allocator: it gives memory of handshakes back, and costs less (`docs/decisions/0024`); its settings are in `.cargo/config.toml`.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Load generator: latency, CPU and memory of the rooms, beside peers in the same run.
#[derive(Debug, clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: hongyan_bench::Args,
}

fn main() -> anyhow::Result<()> {
    hongyan_bench::run(Cli::parse().args, &[])
}
