//! Callers that call again as soon as they are answered, and how long that takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use crate::process;

/// What a run of callers found.
#[derive(Debug)]
pub struct Measured {
    /// Operations in the measured time.
    pub operations: u64,
    /// The measured time.
    pub elapsed: Duration,
    /// CPU time of the measured process in it.
    pub cpu: Duration,
    /// Time of one call, microseconds.
    pub latency: Histogram<u64>,
}

impl Measured {
    /// Operations per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// CPU seconds for 100,000 operations.
    #[must_use]
    pub fn cpu_per_100k(&self) -> f64 {
        self.cpu.as_secs_f64() * 100_000.0 / self.operations.max(1) as f64
    }
}

/// An empty histogram of microseconds up to two minutes.
///
/// # Errors
/// Never with these bounds.
pub fn histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 120_000_000, 3).context("a histogram cannot be made")
}

/// A bar of seconds on stderr; invisible when stderr is no terminal.
#[must_use]
pub fn bar(doing: &str, len: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:32} {bar:30} {pos}/{len} ({elapsed})")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len)
        .with_style(style)
        .with_message(doing.to_owned())
}

/// How callers are driven.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Word for the progress bar.
    pub doing: String,
    /// Callers at once.
    pub callers: usize,
    /// Time that is not measured.
    pub warm: Duration,
    /// Time that is measured.
    pub take: Duration,
    /// The process whose CPU time counts.
    pub pid: u32,
}

/// Drives callers. `call` gets the caller's number and answers how many operations it did.
///
/// # Errors
/// The first error of a call ends the run.
pub async fn drive<F, Answer>(plan: Plan, call: F) -> anyhow::Result<Measured>
where
    F: Fn(usize, u64) -> Answer + Clone + Send + 'static,
    Answer: Future<Output = anyhow::Result<u64>> + Send,
{
    let begin = Instant::now() + plan.warm;
    let end = begin + plan.take;
    let count = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for caller in 0..plan.callers {
        let (call, count) = (call.clone(), Arc::clone(&count));
        callers.spawn(async move {
            let mut times: Vec<u32> = Vec::new();
            for n in 0.. {
                let asked = Instant::now();
                if asked >= end {
                    break;
                }
                let done = call(caller, n).await?;
                let now = Instant::now();
                if asked >= begin && now <= end {
                    count.fetch_add(done, Ordering::Relaxed);
                    times.push(u32::try_from((now - asked).as_micros()).unwrap_or(u32::MAX));
                }
            }
            anyhow::Ok(times)
        });
    }
    let bar = bar(&plan.doing, plan.take.as_secs());
    tokio::time::sleep_until(begin.into()).await;
    let before = process::cpu(plan.pid)?;
    while let Some(left) = end
        .checked_duration_since(Instant::now())
        .filter(|d| !d.is_zero())
    {
        tokio::time::sleep(left.min(Duration::from_millis(200))).await;
        bar.set_position(plan.take.as_secs().saturating_sub(left.as_secs()));
    }
    let cpu = process::cpu(plan.pid)?.saturating_sub(before);
    bar.finish_and_clear();
    let mut latency = histogram()?;
    while let Some(times) = callers.join_next().await {
        for micros in times.context("a caller panicked")?? {
            latency.saturating_record(u64::from(micros).max(1));
        }
    }
    let operations = count.load(Ordering::Relaxed);
    if operations == 0 {
        bail!("{}: no call was answered in the measured time", plan.doing);
    }
    Ok(Measured {
        operations,
        elapsed: plan.take,
        cpu,
        latency,
    })
}
