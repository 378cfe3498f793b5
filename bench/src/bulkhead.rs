//! Goal 18: what channels that hang do to the messages of the others.
//!
//! The real intake, router and lanes on the embedded engine, with vendors in memory: first two, then as many as there are
//! channels, three of which hang. Those that hang do not answer while the others are measured beside them, and answer while
//! these are measured alone. Alone and beside take turns, so that a ratio compares neighbours in time, and several
//! ratios show how much of one is noise.

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
    Outbound, Parcel, QuotaWord, RateCounts, Recipient, Registry, Vendor,
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

/// What is measured: the channels that work and those that hang, with so many users each.
#[derive(Debug, Clone, Copy)]
struct Scene {
    name: &'static str,
    working: u32,
    hanging: u32,
    users: u32,
}

const SCENES: [Scene; 2] = [
    Scene {
        name: "one beside one that hangs",
        working: 1,
        hanging: 1,
        users: 1_000,
    },
    Scene {
        name: "13 beside 3 that hang",
        working: 13,
        hanging: 3,
        users: 200,
    },
];

/// For so many messages to the channels that work one goes to those that hang, which with thirteen and three is about as
/// much for each.
const HANG_EVERY: u64 = 4;
/// Time for what is under way to arrive.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time before the first measurement.
const WARM: Duration = Duration::from_secs(2);

/// What a hanging channel does to the others.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Messages per second to the channels that work, all together.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Seconds of each measurement; below a vendor call's deadline of 15.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How often both are measured, in turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
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
    if args.rounds == 0 || !(1..15).contains(&args.seconds) {
        bail!("--rounds must be at least 1 and --seconds between 1 and 14");
    }
    let dir = tempfile::Builder::new()
        .prefix("hongyan-bench-")
        .tempdir_in(&args.dir)
        .with_context(|| format!("{} cannot be written; choose --dir", args.dir.display()))?;
    let runtime = crate::runtime()?;
    let mut report = Report::default();
    let measured = runtime.block_on(async {
        for (n, scene) in SCENES.iter().enumerate() {
            let store = dir.path().join(format!("store-{n}"));
            measure(args, scene, store, &mut report).await?;
        }
        anyhow::Ok(())
    });
    runtime.shutdown_background();
    measured?;
    report.note("the clock runs from before intake until the vendor is called");
    Ok(report)
}

async fn measure(
    args: &Args,
    scene: &Scene,
    store: PathBuf,
    report: &mut Report,
) -> anyhow::Result<()> {
    let engine = Embedded::open(&hongyan_embedded::Options::new(store))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let registry: Arc<dyn Registry> = engine.registry();
    let (feedback, signals) = Feedback::new(Arc::clone(&registry), Arc::clone(&clock));
    let arrivals = Arc::new(Arrivals::new()?);
    let hanging = Arc::new(Arrivals::new()?);
    let (hang, hangs) = tokio::sync::watch::channel(false);
    let channels = scene.channels()?;
    let vendors = channels.iter().enumerate().map(|(n, id)| {
        let works = n < scene.working as usize;
        Arc::new(Stub {
            id: id.clone(),
            hangs: (!works).then(|| hangs.clone()),
            arrivals: Arc::clone(if works { &arrivals } else { &hanging }),
        }) as Arc<dyn Vendor>
    });
    let dispatch = Dispatch::new(
        hongyan_dispatch::Options {
            vendors: vendors.collect(),
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
    populate(registry.as_ref(), &dispatch, scene, &channels).await?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let router = dispatch.clone();
    tokio::spawn(async move { router.run_router(stopped).await });
    let answers = dispatch.clone();
    tokio::spawn(async move { answers.run_feedback(signals).await });

    let bench = Bench {
        scene: *scene,
        intake: dispatch.intake(),
        rate: args.rate,
        arrivals,
        hanging,
        hang,
    };
    let name = scene.name;
    bench
        .load(WARM, false, &format!("{name}: warming up"))
        .await?;
    let time = Duration::from_secs(args.seconds);
    let (mut alone, mut beside) = (histogram()?, histogram()?);
    let mut pairs = Vec::new();
    for round in 1..=args.rounds {
        let doing = format!("{name}: round {round} of {}", args.rounds);
        // Each is first as often as the other, so that a drift of the machine favours neither.
        let first = round % 2 == 0;
        let one = bench.load(time, first, &doing).await?;
        let other = bench.load(time, !first, &doing).await?;
        let (a, b) = if first { (other, one) } else { (one, other) };
        let pair = (p99(&a), p99(&b));
        tell(&format!(
            "{doing}: p99 alone {:.2} ms, beside {:.2} ms, {:.3}x",
            pair.0 / 1e3,
            pair.1 / 1e3,
            pair.1 / pair.0
        ));
        alone.add(&a).context("histograms differ")?;
        beside.add(&b).context("histograms differ")?;
        pairs.push(pair);
    }
    stop.send_replace(true);
    write(report, scene, &alone, &beside, pairs);
    Ok(())
}

fn write(
    report: &mut Report,
    scene: &Scene,
    alone: &Histogram<u64>,
    beside: &Histogram<u64>,
    mut pairs: Vec<(f64, f64)>,
) {
    let name = scene.name;
    for (how, latency) in [("none hangs", alone), ("they hang", beside)] {
        let row = format!("{name}: {how}");
        report.row(
            &row,
            vec![
                ("messages", latency.len() as f64),
                ("ms p50", latency.value_at_quantile(0.5) as f64 / 1e3),
                ("ms p99", p99(latency) / 1e3),
            ],
        );
        report.histogram(row, latency);
    }
    pairs.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
    let of = |pair: &(f64, f64)| pair.1 / pair.0;
    if let (Some(least), Some(median), Some(most)) =
        (pairs.first(), pairs.get(pairs.len() / 2), pairs.last())
    {
        report.ratio(format!("p99 us, {name} / none hangs"), median.1, median.0);
        report.note(format!(
            "{name}: the ratio is the median of {} rounds, from {:.3} to {:.3}",
            pairs.len(),
            of(least),
            of(most)
        ));
    }
}

fn p99(latency: &Histogram<u64>) -> f64 {
    latency.value_at_quantile(0.99) as f64
}

/// A line of progress, also where nobody sees a bar.
#[allow(clippy::print_stderr, reason = "progress goes to stderr")]
fn tell(line: &str) {
    eprintln!("{line}");
}

impl Scene {
    /// The channels: first those that work.
    fn channels(&self) -> anyhow::Result<Vec<ChannelId>> {
        let working = (0..self.working).map(|n| format!("quick{n}"));
        let hanging = (0..self.hanging).map(|n| format!("hanging{n}"));
        Ok(working
            .chain(hanging)
            .map(|name| ChannelId::parse(&name))
            .collect::<Result<_, _>>()?)
    }

    /// Whom the `n`th message to the channels from `first` on, `of` of them, is for.
    const fn user(&self, first: u32, of: u32, n: u64) -> u32 {
        let channel = (n % of as u64) as u32;
        let user = (n / of as u64 % self.users as u64) as u32;
        (first + channel) * self.users + user
    }
}

async fn populate(
    registry: &dyn Registry,
    dispatch: &Dispatch,
    scene: &Scene,
    channels: &[ChannelId],
) -> anyhow::Result<()> {
    let tenant = App {
        id: app(),
        name: String::new(),
        policy: AppPolicy::default(),
        created_at: Timestamp(1),
        version: 1,
    };
    registry.put_app(tenant, None).await?;
    let name = CredentialName::parse("default")?;
    for (first, channel) in (0..).step_by(scene.users as usize).zip(channels) {
        let credential = NewCredential {
            config: json!({}),
            endpoint: None,
            limits: LaneLimits::default(),
        };
        dispatch
            .credentials()
            .put(&app(), channel, &name, credential)
            .await?;
        let devices = (first..first + scene.users)
            .filter_map(device)
            .map(|mut device| {
                device.tokens.push(Token {
                    channel: channel.clone(),
                    token: device.id.to_string(),
                    credential: None,
                    environment: None,
                    state: TokenState::Active,
                    paused: false,
                    updated_at: Timestamp(1),
                });
                device
            });
        registry.import_devices(devices.collect()).await?;
    }
    Ok(())
}

/// Everything that a measurement needs.
struct Bench {
    scene: Scene,
    intake: Intake,
    rate: u32,
    arrivals: Arc<Arrivals>,
    hanging: Arc<Arrivals>,
    hang: tokio::sync::watch::Sender<bool>,
}

impl Bench {
    /// Sends evenly; the times of the messages to the channels that work. What hung is let go afterwards, so that
    /// nothing of it is left for the next measurement.
    async fn load(
        &self,
        time: Duration,
        with_hanging: bool,
        doing: &str,
    ) -> anyhow::Result<Histogram<u64>> {
        self.arrivals.reset();
        self.hanging.reset();
        self.hang.send_replace(with_hanging);
        let beside = if with_hanging { "beside" } else { "alone" };
        let bar = bar(&format!("{doing}, {beside}"), time.as_secs());
        let begin = tokio::time::Instant::now();
        let mut sends = tokio::task::JoinSet::new();
        let count = u64::from(self.rate) * time.as_secs();
        for n in 0..count {
            let due = Duration::from_secs_f64(n as f64 / f64::from(self.rate));
            tokio::time::sleep_until(begin + due).await;
            let Scene {
                working, hanging, ..
            } = self.scene;
            let user = self.scene.user(0, working, n);
            sends.spawn(accept(self.intake.clone(), user));
            // Alone, the other channels get as much and answer: what differs is that they hang.
            if n % HANG_EVERY == 0 {
                let user = self.scene.user(working, hanging, n / HANG_EVERY);
                sends.spawn(accept(self.intake.clone(), user));
            }
            while let Some(sent) = sends.try_join_next() {
                sent.context("a caller panicked")??;
            }
            bar.set_position(due.as_secs());
        }
        while let Some(sent) = sends.join_next().await {
            sent.context("a caller panicked")??;
        }
        self.arrivals.wait_for(count, "working").await?;
        let latency = self.arrivals.latency().clone();
        self.hang.send_replace(false);
        self.hanging
            .wait_for(count.div_ceil(HANG_EVERY), "hanging")
            .await?;
        bar.finish_and_clear();
        Ok(latency)
    }
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

/// When messages reached a vendor.
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

    async fn wait_for(&self, count: u64, vendor: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.count.load(Ordering::Relaxed) < count {
            if Instant::now() > deadline {
                let missing = count - self.count.load(Ordering::Relaxed);
                bail!(
                    "{missing} of {count} messages did not reach the {vendor} vendor; choose a lower --rate"
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
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
    /// Whether it hangs now; `None` for the one that never does.
    hangs: Option<tokio::sync::watch::Receiver<bool>>,
    arrivals: Arc<Arrivals>,
}

static CAPABILITY: Capability = Capability {
    payload_bytes_max: 4096,
    batch_len_max: 1,
    rate_per_s: 100_000,
    rate_counts: RateCounts::Requests,
    concurrency: 64,
    ttl_max: Duration::from_secs(86_400),
    recalls: false,
    receipts: false,
    poll_every: None,
    environments: false,
    repeatable: true,
    quota_word: QuotaWord::AskedAgain,
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
        // Whoever stops the bench lets everything go; so does the end of a call's time.
        let hangs = async {
            if let Some(mut hangs) = self.hangs.clone() {
                let _ended = hangs.wait_for(|hangs| !hangs).await;
            }
        };
        let verdict = if tokio::time::timeout(deadline, hangs).await.is_ok() {
            self.arrivals.note(&batch.outbound.message);
            Verdict::Accepted { vendor_id: None }
        } else {
            Verdict::Retry {
                reason: Reason::VendorUnavailable,
                after: None,
                detail: "no answer in time".to_owned(),
                certainty: Unsure::MaybeTaken,
            }
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
