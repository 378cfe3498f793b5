//! Whole sends against the sandbox's simulators, which are written from the vendors' papers and share no code with us.

mod aliyun;
mod apns;
mod clocks;
mod getui;
mod honor;
mod huawei;
mod jpush;
mod meizu;
mod oppo;
mod sms;
mod tpns;
mod umeng;
mod vivo;
mod webpush;
mod xiaomi;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use hongyan_channels::Egress;
use hongyan_core::message::{ClickGuard, Priority};
use hongyan_core::port::{Channel, ReceiptKind};
use hongyan_core::{ChannelId, Class, ClassDetail, Message, Secret};
use hongyan_sandbox::{
    Channel as Vendor, Endpoint, Fault, FaultKind, Handle, Options, Record, Sandbox, TokenState,
};
use hongyan_testkit::channel_suite::words;
use serde_json::{Value, json};

use crate::message;

const PATIENCE: Duration = Duration::from_secs(20);

/// A simulator and the channel that sends to it.
struct World {
    _data: tempfile::TempDir,
    _sandbox: Sandbox,
    handle: Handle,
    vendor: Vendor,
    channel: Arc<dyn Channel>,
    /// The channel's clock.
    clock: Arc<message::MovedClock>,
}

fn config(handle: &Handle, vendor: Vendor) -> Value {
    let mut config = handle.credential(vendor).unwrap();
    if vendor == Vendor::Xiaomi {
        config["channels"] = json!({
            "im": {"channel_id": "100001", "template_id": "P10001", "template_param": {"text": "{body}"}},
            "transaction": {"channel_id": "100002", "template_id": "P10002",
                            "template_param": {"order": "{title}", "state": "{body}"}},
            "subscription": {"channel_id": "200002", "public": true},
            "marketing": "200001",
        });
    }
    config
}

/// A data directory whose keys are there already: making them takes seconds, so it is done once.
async fn prepared() -> tempfile::TempDir {
    static MADE: tokio::sync::OnceCell<tempfile::TempDir> = tokio::sync::OnceCell::const_new();
    let made = MADE
        .get_or_init(|| async {
            let data = tempfile::tempdir().unwrap();
            let sandbox = Sandbox::start(Options::ephemeral(data.path()))
                .await
                .unwrap();
            sandbox.stop().await;
            data
        })
        .await;
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(made.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

async fn simulators() -> (tempfile::TempDir, Sandbox) {
    let data = prepared().await;
    let sandbox = Sandbox::start(Options::ephemeral(data.path()))
        .await
        .unwrap();
    (data, sandbox)
}

impl World {
    async fn start(vendor: Vendor) -> Self {
        Self::start_with(vendor, |_| {}).await
    }

    async fn start_with(vendor: Vendor, change: impl Fn(&mut Value)) -> Self {
        Self::start_at(vendor, None, change).await
    }

    /// The same for a server that vendors can post to.
    async fn start_at(vendor: Vendor, callback: Option<&str>, change: impl Fn(&mut Value)) -> Self {
        let (data, sandbox) = simulators().await;
        let handle = sandbox.handle();
        let mut config = config(&handle, vendor);
        change(&mut config);
        let clock = Arc::new(message::MovedClock::default());
        let egress = message::egress_at(handle.ca_pem(), clock.clone());
        Self::open((data, sandbox), vendor, &egress, &config, callback, clock)
    }

    /// A channel on a machine whose clock is ahead by so much.
    async fn start_by_clock(
        vendor: Vendor,
        ahead_ms: &Arc<AtomicI64>,
        change: fn(&Handle, &mut Value),
    ) -> Self {
        let (data, sandbox) = simulators().await;
        let handle = sandbox.handle();
        let mut config = config(&handle, vendor);
        change(&handle, &mut config);
        let clock = Arc::new(message::MovedClock::ahead(ahead_ms));
        let egress = message::egress_at(handle.ca_pem(), clock.clone());
        Self::open((data, sandbox), vendor, &egress, &config, None, clock)
    }

    /// The same vendor, and a channel that was opened just now.
    fn opened_anew(self, ahead_ms: &Arc<AtomicI64>, change: fn(&Handle, &mut Value)) -> Self {
        let mut config = config(&self.handle, self.vendor);
        change(&self.handle, &mut config);
        let clock = Arc::new(message::MovedClock::ahead(ahead_ms));
        let egress = message::egress_at(self.handle.ca_pem(), clock.clone());
        Self::open(
            (self._data, self._sandbox),
            self.vendor,
            &egress,
            &config,
            None,
            clock,
        )
    }

    fn open(
        simulators: (tempfile::TempDir, Sandbox),
        vendor: Vendor,
        egress: &Egress,
        config: &Value,
        callback: Option<&str>,
        clock: Arc<message::MovedClock>,
    ) -> Self {
        let (data, sandbox) = simulators;
        let handle = sandbox.handle();
        let endpoint = handle.vendors_url();
        let (name, _) = handle.credential_place(vendor).unwrap();
        let channel = message::open_with_callback(egress, name, config, &endpoint, callback);
        Self {
            _data: data,
            _sandbox: sandbox,
            handle,
            vendor,
            channel,
            clock,
        }
    }

    fn tokens(&self, count: usize, state: TokenState) -> Vec<String> {
        self.handle.issue_tokens(self.vendor, count, state).unwrap()
    }

    async fn send(&self, message: Message, tokens: Vec<String>) -> Vec<String> {
        self.send_within(message, tokens, PATIENCE).await
    }

    async fn send_within(
        &self,
        message: Message,
        tokens: Vec<String>,
        deadline: Duration,
    ) -> Vec<String> {
        let batch = message::batch(message::outbound(message), tokens);
        let verdicts = self.channel.send(&batch, deadline).await;
        verdicts.iter().map(words).collect()
    }

    async fn send_one(&self) -> String {
        let token = self.tokens(1, TokenState::Valid);
        self.send(message::message(Class::Im), token)
            .await
            .remove(0)
    }

    fn last(&self) -> Record {
        self.handle.requests(self.vendor).pop().unwrap()
    }

    /// The requests that went to the vendor's token endpoint.
    fn token_requests(&self) -> usize {
        let paths = [
            "/token",
            "/oauth2/v3/token",
            "/server/v1/auth",
            "/message/auth",
            "/auth/token",
        ];
        let requests = self.handle.requests(self.vendor);
        requests
            .iter()
            .filter(|r| paths.contains(&r.path.as_str()))
            .count()
    }
}

/// What every simulator must take: a check, one, many, every class, data alone, mixed tokens.
async fn takes_everything(world: &World) {
    let report = world.channel.check(PATIENCE).await;
    assert!(report.ok, "{report:?}");
    let sent = message::message(Class::Im);
    let verdicts = world
        .send(sent.clone(), world.tokens(1, TokenState::Valid))
        .await;
    assert_eq!(verdicts, ["accepted"], "{:?}", world.last());
    let seen = json!(world.last());
    assert!(
        seen.to_string().contains(&sent.id.to_string()),
        "hy_id is in {seen}"
    );
    let many = world
        .send(
            message::message(Class::Im),
            world.tokens(250, TokenState::Valid),
        )
        .await;
    assert_eq!(many, vec!["accepted"; 250]);
    for class in Class::ALL {
        let verdicts = world
            .send(message::message(class), world.tokens(2, TokenState::Valid))
            .await;
        assert_eq!(verdicts, ["accepted"; 2], "{class:?} {:?}", world.last());
    }
    let details = [
        ClassDetail::Account,
        ClassDetail::Finance,
        ClassDetail::Schedule,
        ClassDetail::Device,
        ClassDetail::Work,
        ClassDetail::Travel,
        ClassDetail::Health,
    ];
    for detail in details {
        let mut sent = message::message(Class::Transaction);
        sent.class_detail = Some(detail);
        sent.options.priority = Some(Priority::Normal);
        let verdicts = world.send(sent, world.tokens(1, TokenState::Valid)).await;
        assert_eq!(verdicts, ["accepted"], "{detail:?} {:?}", world.last());
    }
    let mut full = message::message(Class::Im);
    full.options.collapse_key = Some("chat-42".to_owned());
    full.options.click_guard = ClickGuard::Anyone;
    full.options.skip_splash = Some(true);
    full.options.ttl_s = Some(60);
    let shown = full.notification.as_mut().unwrap();
    shown.image = Some("https://images.example/a.png".to_owned());
    shown.sound = Some("default".to_owned());
    shown.group = Some("chat-42".to_owned());
    shown.title = "鸿雁 \"传书\" & <b>".to_owned();
    let verdicts = world.send(full, world.tokens(1, TokenState::Valid)).await;
    assert_eq!(verdicts, ["accepted"], "{:?}", world.last());
    let mut data_only = message::message(Class::Im);
    data_only.notification = None;
    let verdicts = world
        .send(data_only, world.tokens(1, TokenState::Valid))
        .await;
    let want = match world.vendor {
        // They show notifications and do nothing else.
        Vendor::Oppo | Vendor::Vivo => "refused payload_rejected",
        _ => "accepted",
    };
    assert_eq!(verdicts, [want], "{:?}", world.last());
}

/// What faults come to at most vendors. Each has its own way to say that the day's quota is used up, if it has one.
const USUAL: [(FaultKind, &str); 7] = [
    (FaultKind::Unavailable, "retry vendor_unavailable not_taken"),
    (
        FaultKind::RateLimited,
        "retry vendor_rate_limited not_taken",
    ),
    (FaultKind::TokenInvalid, "token_dead token_invalid"),
    (FaultKind::AuthExpired, "accepted"),
    (FaultKind::Goaway, "accepted"),
    (FaultKind::Reset, "retry vendor_unavailable maybe_taken"),
    (FaultKind::Malformed, "retry vendor_unavailable maybe_taken"),
];

/// Every fault, and that the channel works after it; told is what is not as usual.
async fn survives(world: &World, told: &[(FaultKind, &str)]) {
    let usual = USUAL
        .iter()
        .filter(|(kind, _)| told.iter().all(|(other, _)| other != kind));
    for (kind, want) in usual.chain(told) {
        world
            .handle
            .inject(world.vendor, Fault::times(*kind, 1))
            .unwrap();
        assert_eq!(
            world.send_one().await,
            *want,
            "{kind:?}: {:?}",
            world.last()
        );
        world.handle.clear_faults(world.vendor);
        assert_eq!(world.send_one().await, "accepted", "after {kind:?}");
    }
    let mut slow = Fault::always(FaultKind::Slow);
    slow.delay_ms = Some(20_000);
    world.handle.inject(world.vendor, slow).unwrap();
    let token = world.tokens(1, TokenState::Valid);
    let verdicts = world
        .send_within(
            message::message(Class::Im),
            token,
            Duration::from_millis(500),
        )
        .await;
    assert_eq!(verdicts, ["retry vendor_unavailable maybe_taken"]);
    world.handle.clear_faults(world.vendor);
    assert_eq!(world.send_one().await, "accepted");
}

/// Tokens of every state between good ones.
async fn tells_tokens_apart(world: &World, states: &[(TokenState, &str)]) {
    let mut tokens = Vec::new();
    let mut want = Vec::new();
    for (state, verdict) in states {
        tokens.extend(world.tokens(1, TokenState::Valid));
        want.push("accepted");
        tokens.extend(world.tokens(1, *state));
        want.push(verdict);
    }
    let verdicts = world
        .send(message::message(Class::Transaction), tokens)
        .await;
    assert_eq!(verdicts, want);
}

/// Many sends at once with an access token that is just then refused: one is fetched anew.
async fn renews_once_under_load(world: &World) {
    assert_eq!(world.send_one().await, "accepted");
    let before = world.token_requests();
    let mut slow = Fault::always(FaultKind::Slow);
    (slow.delay_ms, slow.endpoint) = (Some(200), Endpoint::Auth);
    world.handle.inject(world.vendor, slow).unwrap();
    world
        .handle
        .inject(world.vendor, Fault::times(FaultKind::AuthExpired, 1))
        .unwrap();
    let sends = (0..40).map(|_| world.send_one());
    let verdicts = futures_util::future::join_all(sends).await;
    assert_eq!(verdicts, vec!["accepted"; 40]);
    assert_eq!(world.token_requests(), before + 1);
    world.handle.clear_faults(world.vendor);
}

/// What a vendor only counts becomes receipts where it is everybody, once.
async fn counts_tell(world: &World, after: Duration) {
    let poll = async || {
        let told = world.channel.poll(PATIENCE).await.unwrap();
        let told = told
            .into_iter()
            .filter(|r| r.kind == ReceiptKind::Delivered);
        told.map(|r| (r.message, r.token.unwrap()))
            .collect::<Vec<_>>()
    };
    let token = world.tokens(1, TokenState::Valid);
    let sent = message::message(Class::Im);
    assert_eq!(world.send(sent.clone(), token.clone()).await, ["accepted"]);
    assert_eq!(poll().await, [], "it is too early to ask");
    let several = world.tokens(2, TokenState::Valid);
    world.clock.advance(after);
    let told = poll().await;
    assert_eq!(told, [(Some(sent.id), Secret::new(token[0].clone()))]);
    world.clock.advance(after * 10);
    assert_eq!(poll().await, [], "it is told once");
    let both = message::message(Class::Im);
    world.send(both.clone(), several.clone()).await;
    world.clock.advance(after);
    let told = poll().await;
    let want = several
        .iter()
        .map(|t| (Some(both.id), Secret::new(t.clone())));
    assert_eq!(told, want.collect::<Vec<_>>());
}

const DEAD: TokenState = TokenState::Dead {
    since_ms: 1_700_000_000_000,
};

#[tokio::test]
async fn apns() {
    let world = World::start(Vendor::Apns).await;
    takes_everything(&world).await;
    tells_tokens_apart(
        &world,
        &[
            (DEAD, "token_dead token_invalid"),
            (
                TokenState::Expired {
                    since_ms: 1_700_000_000_000,
                },
                "token_dead token_invalid",
            ),
            (TokenState::OtherEnvironment, "token_dead token_invalid"),
            (TokenState::OtherApp, "refused token_environment"),
        ],
    )
    .await;
    survives(
        &world,
        &[
            // Apple's only limit is one device's.
            (FaultKind::RateLimited, "device_limited"),
            (FaultKind::QuotaExhausted, "device_limited"),
            (FaultKind::Malformed, "accepted"),
        ],
    )
    .await;
    // A whole batch of the other environment kills no token.
    let foreign = world.tokens(12, TokenState::OtherEnvironment);
    let verdicts = world.send(message::message(Class::Im), foreign).await;
    assert_eq!(verdicts, vec!["refused token_environment"; 12]);
    assert_eq!(
        world
            .last()
            .headers
            .get("apns-push-type")
            .map(String::as_str),
        Some("alert")
    );
    for push_type in [
        "alert",
        "background",
        "voip",
        "complication",
        "fileprovider",
        "location",
        "pushtotalk",
        "widgets",
        "controls",
    ] {
        let mut sent = message::message(Class::Im);
        let fields = json!({"push_type": push_type});
        sent.options.vendor.insert(
            ChannelId::parse("apns").unwrap(),
            fields.as_object().unwrap().clone(),
        );
        let verdicts = world.send(sent, world.tokens(1, TokenState::Valid)).await;
        assert_eq!(verdicts, ["accepted"], "{push_type} {:?}", world.last());
    }
}

#[tokio::test]
async fn apns_goes_on_while_connections_go_away() {
    let world = World::start(Vendor::Apns).await;
    let mut fault = Fault::always(FaultKind::Goaway);
    (fault.rate, fault.count) = (0.05, Some(8));
    world.handle.inject(Vendor::Apns, fault).unwrap();
    for _ in 0..4 {
        let verdicts = world
            .send(
                message::message(Class::Im),
                world.tokens(100, TokenState::Valid),
            )
            .await;
        assert_eq!(verdicts, vec!["accepted"; 100]);
    }
}

fn certificate(handle: &Handle, config: &mut Value) {
    let account = &handle.accounts().apns;
    *config = json!({
        "certificate": account.certificate, "private_key": account.certificate_key,
        "bundle_id": account.bundle_id,
    });
}

#[tokio::test]
async fn apns_with_a_certificate() {
    let world = World::start_by_clock(Vendor::Apns, &Arc::default(), certificate).await;
    let tokens = world.tokens(3, TokenState::Valid);
    let verdicts = world.send(message::message(Class::Im), tokens).await;
    assert_eq!(verdicts, ["accepted"; 3], "{:?}", world.last());
}

#[tokio::test]
async fn fcm() {
    let world = World::start(Vendor::Fcm).await;
    takes_everything(&world).await;
    tells_tokens_apart(
        &world,
        &[
            (DEAD, "token_dead token_invalid"),
            (TokenState::OtherApp, "token_dead token_invalid"),
        ],
    )
    .await;
    survives(
        &world,
        &[(
            FaultKind::QuotaExhausted,
            "retry vendor_rate_limited not_taken",
        )],
    )
    .await;
    renews_once_under_load(&world).await;
}

#[tokio::test]
async fn huawei() {
    let world = World::start(Vendor::Huawei).await;
    takes_everything(&world).await;
    tells_tokens_apart(
        &world,
        &[
            (DEAD, "token_dead token_invalid"),
            (TokenState::OtherApp, "token_dead token_invalid"),
        ],
    )
    .await;
    survives(
        &world,
        &[
            // Over the day's limit Huawei says success; its receipt tells the truth.
            (FaultKind::QuotaExhausted, "accepted"),
        ],
    )
    .await;
    renews_once_under_load(&world).await;
}

#[tokio::test]
async fn harmony() {
    let world = World::start(Vendor::Harmony).await;
    takes_everything(&world).await;
    tells_tokens_apart(
        &world,
        &[
            (DEAD, "token_dead token_invalid"),
            (TokenState::OtherApp, "token_dead token_invalid"),
        ],
    )
    .await;
    survives(&world, &[(FaultKind::QuotaExhausted, "accepted")]).await;
    let sent = message::message(Class::Im);
    let tokens = world.tokens(2, TokenState::Valid);
    assert_eq!(
        world.send(sent.clone(), tokens.clone()).await,
        ["accepted"; 2]
    );
    let batch = message::batch(message::outbound(sent.clone()), tokens);
    let recalled = world
        .channel
        .recall(&sent, &batch.recipients, PATIENCE)
        .await
        .unwrap();
    let recalled: Vec<String> = recalled.iter().map(words).collect();
    assert_eq!(recalled, ["accepted"; 2], "{:?}", world.last());
}

/// Huawei's newer proof is a signed token with a time in it.
fn service_account(handle: &Handle, config: &mut Value) {
    let accounts = handle.accounts();
    *config = json!({
        "app_id": accounts.huawei.app_id, "service_account": accounts.harmony.service_account,
    });
}

#[tokio::test]
async fn huawei_with_a_service_account() {
    let world = World::start_by_clock(Vendor::Huawei, &Arc::default(), service_account).await;
    let tokens = world.tokens(3, TokenState::Valid);
    let verdicts = world.send(message::message(Class::Im), tokens).await;
    assert_eq!(verdicts, ["accepted"; 3], "{:?}", world.last());
}

#[tokio::test]
async fn xiaomi() {
    let world = World::start(Vendor::Xiaomi).await;
    world.handle.set_xiaomi_rules(true, true);
    takes_everything(&world).await;
    // Among living ones Xiaomi leaves out a regId that is gone, and tells by its list of invalid ones.
    tells_tokens_apart(
        &world,
        &[(DEAD, "accepted"), (TokenState::OtherApp, "accepted")],
    )
    .await;
    for (state, want) in [
        (DEAD, "token_dead token_invalid"),
        (TokenState::OtherApp, "token_dead token_invalid"),
    ] {
        let verdicts = world
            .send(message::message(Class::Im), world.tokens(1, state))
            .await;
        assert_eq!(verdicts, [want], "{state:?}");
    }
    survives(
        &world,
        &[
            (FaultKind::QuotaExhausted, "quota_exhausted"),
            (FaultKind::AuthExpired, "credential_bad"),
        ],
    )
    .await;
}

#[tokio::test]
async fn wrong_credentials_are_told() {
    let wrong: &[(Vendor, &str)] = &[
        (Vendor::Apns, "/key_id"),
        (Vendor::Fcm, "/client_email"),
        (Vendor::Huawei, "/client_secret"),
        (Vendor::Harmony, "/key_id"),
        (Vendor::Xiaomi, "/app_secret"),
        (Vendor::Oppo, "/master_secret"),
        (Vendor::Vivo, "/app_secret"),
        (Vendor::Honor, "/client_secret"),
        (Vendor::Meizu, "/app_secret"),
    ];
    for (vendor, field) in wrong {
        let world = World::start_with(*vendor, |config| {
            *config.pointer_mut(field).unwrap() = "WRONG12345".into();
        })
        .await;
        let report = world.channel.check(PATIENCE).await;
        assert!(!report.ok, "{vendor} {report:?}");
        assert_eq!(
            world.send_one().await,
            "credential_bad",
            "{vendor} {:?}",
            world.last()
        );
    }
}
