//! `hongyan bench`: how fast the rooms are, beside peers in the same run.

pub(crate) use hongyan_bench::Args;

/// Measures and prints.
///
/// # Errors
/// What failed, why and what to do.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    hongyan_bench::run(args, &["bench"])
}
