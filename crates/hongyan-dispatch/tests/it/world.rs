//! One app, one engine, two vendors, and the room under test running on it.

use std::sync::Arc;
use std::time::Duration;

use hongyan_core::app::App;
use hongyan_core::delivery::{Delivery, State};
use hongyan_core::device::{Device, Permission, Platform, Token, TokenState};
use hongyan_core::draft::Draft;
use hongyan_core::error::BoxError;
use hongyan_core::message::{Notification, Options, Target};
use hongyan_core::port::{Clock, EventFilter, InboxPage, Reader, SessionSink, Vendor};
use hongyan_core::session::{SessionEvent, SessionSaid};
use hongyan_core::{
    AppId, ChannelId, Class, CredentialName, DeviceId, Event, MessageId, Reason, Stage, Timestamp,
    UserId,
};
use hongyan_dispatch::credentials::{NewCredential, Sealer};
use hongyan_dispatch::feedback::{Feedback, Signals};
use hongyan_dispatch::{Dispatch, Ports};
use hongyan_embedded::Embedded;
use hongyan_testkit::fake::{FakePresence, FakeVendor, ManualClock, SeededDice};

use crate::troubled::Trouble;

/// 2026-03-01 12:00 UTC.
pub(crate) const NOON: Timestamp = Timestamp(1_772_366_400_000);
/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct Plain;

impl Sealer for Plain {
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

pub(crate) struct World {
    pub(crate) app: AppId,
    pub(crate) dispatch: Dispatch,
    pub(crate) ports: Ports,
    pub(crate) presence: Arc<FakePresence>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) alpha: FakeVendor,
    pub(crate) beta: FakeVendor,
    /// A vendor that does not recognise a repeat.
    pub(crate) texts: FakeVendor,
    /// What goes wrong between dispatch and its engine.
    pub(crate) trouble: Arc<Trouble>,
    stop: tokio::sync::watch::Sender<bool>,
    troubled: Ports,
    _engine: Embedded,
    _dir: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

pub(crate) fn channel(name: &str) -> ChannelId {
    ChannelId::parse(name).unwrap()
}
pub(crate) fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}
pub(crate) fn device(id: &str) -> DeviceId {
    DeviceId::parse(id).unwrap()
}

pub(crate) async fn world() -> World {
    world_of(FakeVendor::new("alpha", 100)).await
}

/// With another vendor behind `alpha`.
pub(crate) async fn world_of(alpha: FakeVendor) -> World {
    // In memory where there is such a place: nothing here is about the disk.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    let engine = Embedded::open(&hongyan_embedded::Options::new(dir.path())).unwrap();
    let clock = Arc::new(ManualClock::at(NOON));
    let presence = Arc::new(FakePresence::default());
    let beta = FakeVendor::new("beta", 1);
    let texts = FakeVendor::new("texts", 1).once_only();
    let ports = Ports {
        registry: engine.registry(),
        inbox: engine.inbox(),
        work: engine.work(),
        ledger: engine.ledger(),
        commit: engine.commit(),
        quota: engine.quota(),
        presence: presence.clone(),
        clock: clock.clone(),
        dice: Arc::new(SeededDice::new(7)),
    };
    let trouble = Arc::new(Trouble::default());
    let troubled = trouble.in_front_of(ports.clone());
    let (dispatch, signals) = room(&troubled, [&alpha, &beta, &texts]);
    let app = AppId::parse("demo").unwrap();
    let record = App {
        id: app.clone(),
        name: String::new(),
        policy: Default::default(),
        created_at: NOON,
        version: 1,
    };
    ports.registry.put_app(record, None).await.unwrap();
    for name in ["alpha", "beta", "texts"] {
        let new = NewCredential {
            config: serde_json::json!({ "secret": "s" }),
            endpoint: None,
            limits: Default::default(),
        };
        let default = CredentialName::parse("default").unwrap();
        dispatch
            .credentials()
            .put(&app, &channel(name), &default, new)
            .await
            .unwrap();
    }
    let stop = run(&dispatch, signals);
    World {
        app,
        dispatch,
        ports,
        presence,
        clock,
        alpha,
        beta,
        texts,
        trouble,
        stop,
        troubled,
        _engine: engine,
        _dir: dir,
    }
}

/// The room as a process has it; nothing runs yet.
fn room(troubled: &Ports, vendors: [&FakeVendor; 3]) -> (Dispatch, Signals) {
    let (feedback, signals) = Feedback::new(troubled.registry.clone(), troubled.clock.clone());
    let vendors = vendors.map(|vendor| Arc::new(vendor.clone()) as Arc<dyn Vendor>);
    let options = hongyan_dispatch::Options {
        vendors: vendors.to_vec(),
        sealer: Arc::new(Plain),
        feedback,
        public_url: Some("https://push.example".to_owned()),
    };
    (Dispatch::new(options, troubled.clone()), signals)
}

fn run(dispatch: &Dispatch, signals: Signals) -> tokio::sync::watch::Sender<bool> {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (router, settler) = (dispatch.clone(), dispatch.clone());
    tokio::spawn(async move { router.run_router(stopped).await });
    tokio::spawn(async move { settler.run_feedback(signals).await });
    stop
}

/// A message to the users, with a title and nothing else.
pub(crate) fn to_users(users: &[&str]) -> Draft {
    to(Target::Users(users.iter().map(|u| user(u)).collect()))
}

pub(crate) fn to(target: Target) -> Draft {
    Draft {
        to: target,
        class: Class::Im,
        class_detail: None,
        notification: Some(Notification {
            title: "hello".into(),
            ..Default::default()
        }),
        data: None,
        options: Options::default(),
    }
}

impl World {
    /// A device with tokens at these channels, bound to the user.
    pub(crate) async fn device(
        &self,
        id: &str,
        holder: Option<&str>,
        channels: &[&str],
    ) -> DeviceId {
        let record = self.record(id, channels);
        self.ports.registry.put_device(record, None).await.unwrap();
        if let Some(holder) = holder {
            self.dispatch
                .bindings()
                .login(&self.app, &device(id), &user(holder))
                .await
                .unwrap();
        }
        device(id)
    }

    /// Many devices that nobody holds.
    pub(crate) async fn import(&self, ids: &[String], channels: &[&str]) {
        let records = ids.iter().map(|id| self.record(id, channels)).collect();
        self.ports.registry.import_devices(records).await.unwrap();
    }

    fn record(&self, id: &str, channels: &[&str]) -> Device {
        let token = |name: &&str| Token {
            channel: channel(name),
            token: format!("{name}-{id}"),
            credential: None,
            environment: None,
            state: TokenState::Active,
            paused: false,
            updated_at: NOON,
        };
        let mut secret_hash = [0u8; 32];
        for (slot, byte) in secret_hash.iter_mut().zip(id.bytes()) {
            *slot = byte;
        }
        Device {
            app: self.app.clone(),
            id: device(id),
            package: None,
            platform: Platform::Android,
            brand: None,
            model: None,
            locale: None,
            timezone: None,
            app_version: None,
            permission: Permission::Granted,
            tags: Default::default(),
            tokens: channels.iter().map(token).collect(),
            user: None,
            binding: 0,
            secret_hash,
            scram: None,
            created_at: self.clock.now(),
            last_seen: self.clock.now(),
            version: 1,
        }
    }

    pub(crate) async fn send(&self, draft: Draft) -> MessageId {
        self.dispatch
            .intake()
            .accept(&self.app, vec![draft], None)
            .await
            .unwrap()
            .ids[0]
    }

    pub(crate) async fn ack(&self, device: &DeviceId, holder: Option<&str>, message: MessageId) {
        let event = SessionEvent {
            app: self.app.clone(),
            device: device.clone(),
            user: holder.map(user),
            what: SessionSaid::Acked(vec![message]),
        };
        self.dispatch.feedback().accept(vec![event]).await;
    }

    /// Moves the clock; the router looks at it within a second.
    pub(crate) fn pass(&self, by: Duration) {
        self.clock.advance(by);
    }

    pub(crate) async fn events(&self, message: MessageId) -> Vec<Event> {
        let filter = EventFilter::Message(message);
        self.ports
            .ledger
            .events(&self.app, filter, 0, 1_000)
            .await
            .unwrap()
    }

    /// The trace in short: `stage(reason)@channel`.
    pub(crate) async fn trace(&self, message: MessageId) -> Vec<String> {
        let events = self.events(message).await;
        events
            .iter()
            .map(|e| {
                let reason = e.reason.map(|r| format!("({r})")).unwrap_or_default();
                let channel = e
                    .channel
                    .as_ref()
                    .map(|c| format!("@{c}"))
                    .unwrap_or_default();
                format!("{}{reason}{channel}", e.stage)
            })
            .collect()
    }

    /// Waits until the message has this many final outcomes; answers them by device.
    pub(crate) async fn outcomes(&self, message: MessageId, count: usize) -> Vec<(String, Reason)> {
        self.until(|| async move {
            let events = self.events(message).await;
            let mut finals: Vec<_> = events
                .into_iter()
                .filter(|e| e.r#final)
                .map(|e| {
                    (
                        e.device.map(|d| d.to_string()).unwrap_or_default(),
                        e.reason.unwrap(),
                    )
                })
                .collect();
            finals.sort();
            (finals.len() >= count).then_some(finals)
        })
        .await
        .unwrap_or_else(|| panic!("no {count} outcomes in time for {message}"))
    }

    pub(crate) async fn outcome(&self, message: MessageId) -> Reason {
        self.outcomes(message, 1).await[0].1
    }

    /// How the message ends when time goes on in these steps.
    pub(crate) async fn outcome_in_steps(&self, message: MessageId, step: Duration) -> Reason {
        let ended = || async {
            self.pass(step);
            let events = self.events(message).await;
            events.iter().find(|e| e.r#final).and_then(|e| e.reason)
        };
        let ended = self.until(ended).await;
        ended.unwrap_or_else(|| panic!("{message} does not end"))
    }

    /// The device as a reader of the inbox.
    pub(crate) fn reader(&self, device: &DeviceId, of: &str) -> Reader {
        Reader {
            app: self.app.clone(),
            device: device.clone(),
            user: Some(user(of)),
        }
    }

    /// What the device would read of its inbox, at most ten entries.
    pub(crate) async fn inbox(&self, device: &DeviceId, of: &str) -> InboxPage {
        let (reader, now) = (self.reader(device, of), self.ports.clock.now());
        self.ports.inbox.read(&reader, None, 10, now).await.unwrap()
    }

    /// The process ends and another begins on what is stored. Calls that are under way stay there, and nobody hears of them
    /// while their vendor hangs.
    pub(crate) fn restart(&mut self) {
        self.stop.send_replace(true);
        let (dispatch, signals) = room(&self.troubled, [&self.alpha, &self.beta, &self.texts]);
        self.stop = run(&dispatch, signals);
        self.dispatch = dispatch;
    }

    /// Waits until a lane has a delivery of the message.
    pub(crate) async fn with_a_lane(&self, message: MessageId) {
        let ledger = &self.ports.ledger;
        let found = || async move {
            let all = ledger.deliveries_of(&self.app, message, None, 100).await;
            let pushing = |d: &Delivery| matches!(d.state, State::Pushing { .. });
            all.unwrap().iter().any(pushing).then_some(())
        };
        self.until(found).await.unwrap();
    }

    /// How many events of this stage the message has, by its counters; they equal its events.
    pub(crate) async fn count(&self, message: MessageId, stage: Stage) -> usize {
        // Something may be written between the two reads.
        let both = || async {
            let rows = self.ports.ledger.message_counters(&self.app, message).await;
            let rows = rows.unwrap();
            let counted = rows.iter().filter(|r| r.key.stage == stage);
            let counted: u64 = counted.map(|r| r.count).sum();
            let events = self.events(message).await;
            let told = events.iter().filter(|e| e.stage == stage).count();
            (counted == told as u64).then_some(told)
        };
        let told = self.until(both).await;
        told.unwrap_or_else(|| panic!("counters equal the events of {message}"))
    }

    /// Waits until the trace contains the word.
    pub(crate) async fn sees(&self, message: MessageId, word: &str) {
        let seen = self
            .until(|| async move {
                self.trace(message)
                    .await
                    .iter()
                    .any(|t| t.starts_with(word))
                    .then_some(())
            })
            .await;
        if seen.is_none() {
            panic!("{word} not in {:?}", self.trace(message).await);
        }
    }

    /// Polls until there is an answer or patience ends.
    pub(crate) async fn until<T, F: Future<Output = Option<T>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Option<T> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask().await {
                return Some(answer);
            }
            if tokio::time::Instant::now() > deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
