//! Goal 18: what a channel that hangs does to the messages of another one.
//!
//! The real intake, router and lanes on the embedded engine, with two vendors in memory: one
//! answers at once, one only when its deadline has passed.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use hdrhistogram::Histogram;
use hongyan_core::app::{App, AppPolicy, LaneLimits};
use hongyan_core::device::{Token, TokenState};
use hongyan_core::draft::Draft;
use hongyan_core::error::BoxError;
use hongyan_core::message::{Notification, Options, Target};
use hongyan_core::port::{
    Batch, Capability, Channel, ChannelError, CheckReport, Clock, ConfigError, OpenCredential,
    Outbound, Parcel, Recipient, Registry, Vendor,
};
use hongyan_core::verdict::Unsure;
use hongyan_core::{ChannelId, Class, CredentialName, Message, Reason, Timestamp, UserId, Verdict};
use hongyan_dispatch::credentials::{NewCredential, Sealer};
use hongyan_dispatch::feedback::Feedback;
use hongyan_dispatch::intake::Intake;
use hongyan_dispatch::{Dispatch, Ports};
use hongyan_embedded::Embedded;
use serde_json::{Map, Value, json};

use crate::child::memory::{app, device};
use crate::dialect::mark;
use crate::drive::{bar, histogram};
use crate::quiet::{Nobody, SystemClock, SystemDice, nanos};
use crate::report::Report;

/// Users of each channel.
const USERS: u32 = 1_000;
/// One in so many messages goes to the channel that hangs.
const HANG_EVERY: u64 = 4;
/// Time for what is under way to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a hanging channel does to the others.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Messages per second to the channel that works.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Where to put the store. A temporary directory below it is removed afterwards.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// Measures.
///
/// # Errors
/// What failed, why and what to do.
pub fn run(args: &Args) -> anyhow::Result<Report> {
    if args.rate == 0 {
        bail!("--rate must be at least 1");
    }
    let dir = tempfile::Builder::new()
        .prefix("hongyan-bench-")
        .tempdir_in(&args.dir)
        .with_context(|| format!("{} cannot be written; choose --dir", args.dir.display()))?;
    let runtime = crate::runtime()?;
    let report = runtime.block_on(measure(args, dir.path().join("store")));
    runtime.shutdown_background();
    report
}

async fn measure(args: &Args, store: PathBuf) -> anyhow::Result<Report> {
    let engine = Embedded::open(&hongyan_embedded::Options::new(store))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let registry: Arc<dyn Registry> = engine.registry();
    let (feedback, signals) = Feedback::new(Arc::clone(&registry), Arc::clone(&clock));
    let arrivals = Arc::new(Arrivals::new()?);
    let vendor = |name, hangs| -> anyhow::Result<Arc<dyn Vendor>> {
        Ok(Arc::new(Stub {
            id: ChannelId::parse(name)?,
            hangs,
            arrivals: Arc::clone(&arrivals),
        }))
    };
    let dispatch = Dispatch::new(
        hongyan_dispatch::Options {
            vendors: vec![vendor("quick", false)?, vendor("hanging", true)?],
            sealer: Arc::new(Unsealed),
            feedback: feedback.clone(),
            public_url: None,
        },
        Ports {
            registry: Arc::clone(&registry),
            inbox: engine.inbox(),
            work: engine.work(),
            ledger: engine.ledger(),
            commit: engine.commit(),
            quota: engine.quota(),
            presence: Arc::new(Nobody),
            clock,
            dice: Arc::new(SystemDice::default()),
        },
    );
    populate(registry.as_ref(), &dispatch).await?;
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let router = dispatch.clone();
    tokio::spawn(async move { router.run_router(stopped).await });
    let answers = dispatch.clone();
    tokio::spawn(async move { answers.run_feedback(signals).await });

    let intake = dispatch.intake();
    load(args, &intake, &arrivals, false, "warming up").await?;
    let alone = load(args, &intake, &arrivals, false, "one channel").await?;
    let beside = load(args, &intake, &arrivals, true, "beside one that hangs").await?;
    let mut report = Report::default();
    for (name, latency) in [
        ("accept to vendor, alone", &alone),
        ("beside a hanging channel", &beside),
    ] {
        report.row(
            name,
            vec![
                ("messages", latency.len() as f64),
                ("ms p50", latency.value_at_quantile(0.5) as f64 / 1e3),
                ("ms p99", latency.value_at_quantile(0.99) as f64 / 1e3),
            ],
        );
        report.histogram(name, latency);
    }
    let p99 = |latency: &Histogram<u64>| latency.value_at_quantile(0.99) as f64;
    report.ratio(
        "p99 us, beside a hanging channel / alone",
        p99(&beside),
        p99(&alone),
    );
    report.note("the clock runs from before intake until the vendor is called");
    Ok(report)
}

async fn populate(registry: &dyn Registry, dispatch: &Dispatch) -> anyhow::Result<()> {
    let tenant = App {
        id: app(),
        name: String::new(),
        policy: AppPolicy::default(),
        created_at: Timestamp(1),
        version: 1,
    };
    registry.put_app(tenant, None).await?;
    let name = CredentialName::parse("default")?;
    for (channel, first) in [("quick", 0), ("hanging", USERS)] {
        let channel = ChannelId::parse(channel)?;
        let credential = NewCredential {
            config: json!({}),
            endpoint: None,
            limits: LaneLimits::default(),
        };
        dispatch
            .credentials()
            .put(&app(), &channel, &name, credential)
            .await?;
        let devices = (first..first + USERS).filter_map(device).map(|mut device| {
            device.tokens.push(Token {
                channel: channel.clone(),
                token: device.id.to_string(),
                credential: None,
                environment: None,
                state: TokenState::Active,
                updated_at: Timestamp(1),
            });
            device
        });
        registry.import_devices(devices.collect()).await?;
    }
    Ok(())
}

/// Sends evenly; the times of the messages to the channel that works.
async fn load(
    args: &Args,
    intake: &Intake,
    arrivals: &Arrivals,
    with_hanging: bool,
    doing: &str,
) -> anyhow::Result<Histogram<u64>> {
    arrivals.reset();
    let bar = bar(doing, args.seconds);
    let begin = tokio::time::Instant::now();
    let mut sends = tokio::task::JoinSet::new();
    let count = u64::from(args.rate) * args.seconds.max(1);
    for n in 0..count {
        let due = Duration::from_secs_f64(n as f64 / f64::from(args.rate));
        tokio::time::sleep_until(begin + due).await;
        let user = (n % u64::from(USERS)) as u32;
        sends.spawn(accept(intake.clone(), user));
        if with_hanging && n % HANG_EVERY == 0 {
            sends.spawn(accept(intake.clone(), USERS + user));
        }
        while let Some(sent) = sends.try_join_next() {
            sent.context("a caller panicked")??;
        }
        bar.set_position(due.as_secs());
    }
    while let Some(sent) = sends.join_next().await {
        sent.context("a caller panicked")??;
    }
    let deadline = Instant::now() + PATIENCE;
    while arrivals.count.load(Ordering::Relaxed) < count {
        if Instant::now() > deadline {
            let there = arrivals.count.load(Ordering::Relaxed);
            bail!(
                "{} of {count} messages did not reach the vendor",
                count - there
            );
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bar.finish_and_clear();
    Ok(arrivals.latency().clone())
}

async fn accept(intake: Intake, user: u32) -> anyhow::Result<()> {
    let draft = Draft {
        to: Target::Users(vec![UserId::parse(&format!("u{user}"))?]),
        class: Class::Im,
        class_detail: None,
        notification: Some(Notification {
            body: mark(nanos()),
            ..Notification::default()
        }),
        data: None,
        options: Options::default(),
    };
    intake.accept(&app(), vec![draft], None).await?;
    Ok(())
}

/// When messages reached the vendor that works.
#[derive(Debug)]
struct Arrivals {
    count: AtomicU64,
    latency: Mutex<Histogram<u64>>,
}

impl Arrivals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            count: AtomicU64::new(0),
            latency: Mutex::new(histogram()?),
        })
    }

    fn latency(&self) -> std::sync::MutexGuard<'_, Histogram<u64>> {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reset(&self) {
        self.latency().reset();
        self.count.store(0, Ordering::Relaxed);
    }

    fn note(&self, message: &Message) {
        let body = message.notification.as_ref().map(|n| n.body.as_str());
        let sent = body.and_then(|body| u64::from_str_radix(body.strip_prefix('@')?, 16).ok());
        if let Some(sent) = sent {
            self.latency()
                .saturating_record((nanos().saturating_sub(sent) / 1_000).max(1));
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A vendor in memory, and its channel.
#[derive(Debug, Clone)]
struct Stub {
    id: ChannelId,
    hangs: bool,
    arrivals: Arc<Arrivals>,
}

static CAPABILITY: Capability = Capability {
    payload_bytes_max: 4096,
    batch_len_max: 1,
    rate_per_s: 100_000,
    concurrency: 64,
    ttl_max: Duration::from_secs(86_400),
    recalls: false,
    receipts: false,
    poll_every: None,
    environments: false,
};

impl Vendor for Stub {
    fn id(&self) -> ChannelId {
        self.id.clone()
    }
    fn capability(&self) -> &Capability {
        &CAPABILITY
    }
    fn check_config(&self, _: &Value) -> Result<Map<String, Value>, Vec<ConfigError>> {
        Ok(Map::new())
    }
    fn open(&self, _: OpenCredential) -> Result<Arc<dyn Channel>, ChannelError> {
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
impl Channel for Stub {
    fn preview(&self, _: &Outbound) -> Result<Parcel, (Reason, String)> {
        Ok(Parcel {
            method: "POST",
            path: "/".to_owned(),
            headers: Vec::new(),
            body: Value::Null,
            truncated: Vec::new(),
            downgraded: None,
        })
    }
    async fn send(&self, batch: &Batch, deadline: Duration) -> Vec<Verdict> {
        let verdict = if self.hangs {
            tokio::time::sleep(deadline).await;
            Verdict::Retry {
                reason: Reason::VendorUnavailable,
                after: None,
                detail: "no answer in time".to_owned(),
                certainty: Unsure::MaybeTaken,
            }
        } else {
            self.arrivals.note(&batch.outbound.message);
            Verdict::Accepted { vendor_id: None }
        };
        vec![verdict; batch.recipients.len()]
    }
    async fn check(&self, _: Duration) -> CheckReport {
        CheckReport {
            ok: true,
            detail: String::new(),
        }
    }
    async fn recall(&self, _: &Message, _: &[Recipient], _: Duration) -> Option<Vec<Verdict>> {
        None
    }
}

/// There is nothing to hide here.
#[derive(Debug)]
struct Unsealed;

impl Sealer for Unsealed {
    fn proof(&self, bound_to: &str) -> String {
        format!("proof-of-{}", bound_to.len())
    }
    fn proves(&self, bound_to: &str, proof: &str) -> bool {
        self.proof(bound_to) == proof
    }
    fn seal(&self, _: &str, secret: &[u8]) -> Result<Vec<u8>, BoxError> {
        Ok(secret.to_vec())
    }
    fn open(&self, _: &str, sealed: &[u8]) -> Result<Vec<u8>, BoxError> {
        Ok(sealed.to_vec())
    }
}
