//! `hongyan bench` as a program of its own, to measure rooms without building the whole server.

use clap::Parser as _;

/// Load generator: latency, CPU and memory of the rooms, beside peers in the same run.
#[derive(Debug, clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: hongyan_bench::Args,
}

fn main() -> anyhow::Result<()> {
    hongyan_bench::run(Cli::parse().args, &[])
}
