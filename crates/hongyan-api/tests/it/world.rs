//! A node on loopback with one app and its keys.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hongyan_api::key::{self, TokenKind};
use hongyan_api::{Api, Options, Ports};
use hongyan_core::app::{Key, KeyKind};
use hongyan_core::port::{Clock, Commit, CommitError, Committed, Dice, WriteSet};
use hongyan_core::{AppId, Event, KeyId, StoreError, Timestamp};
use hongyan_embedded::Embedded;
use hongyan_testkit::fake::{FakePresence, ManualClock, SeededDice};
use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::http_client::{Answer, call};
use crate::services::{FakeConnect, FakeServices};

/// 2026-03-01 12:00 UTC.
pub(crate) const NOON: Timestamp = Timestamp(1_772_366_400_000);
/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) api: Api,
    pub(crate) admin: String,
    /// Server key of the app `demo` with all scopes.
    pub(crate) server: String,
    /// Client key of the app `demo`.
    pub(crate) client: String,
    pub(crate) services: Arc<FakeServices>,
    pub(crate) presence: Arc<FakePresence>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) engine: Embedded,
    /// What senders of pushes write into.
    pub(crate) posted: Arc<Posted>,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) served: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

pub(crate) async fn world() -> World {
    world_with(Options::default(), None).await
}

pub(crate) async fn world_with(options: Options, tls: Option<Arc<rustls::ServerConfig>>) -> World {
    // In memory where there is such a place: nothing here is about the disk.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    let engine = Embedded::open(&hongyan_embedded::Options::new(dir.path())).unwrap();
    let clock = Arc::new(ManualClock::at(NOON));
    let presence = Arc::new(FakePresence::default());
    let dice: Arc<dyn Dice> = Arc::new(SeededDice::new(7));
    let services = Arc::new(FakeServices {
        registry: engine.registry(),
        inbox: engine.inbox(),
        commit: engine.commit(),
        clock: clock.clone(),
        drafts: Default::default(),
        heard: Default::default(),
        waiting: Default::default(),
        reconsidered: Default::default(),
        moved: Default::default(),
        kicked: Default::default(),
        refuse: Default::default(),
        rotated: Default::default(),
        broadcasts: Default::default(),
        panics: Default::default(),
    });
    let posted = Arc::new(Posted {
        commit: engine.commit(),
        full_after: AtomicUsize::new(usize::MAX),
    });
    let pushes: Arc<dyn hongyan_core::port::Pushes> =
        Arc::new(pushes(&engine, &posted, &presence, &clock, &dice));
    let api = Api::new(
        options,
        Ports {
            registry: engine.registry(),
            inbox: engine.inbox(),
            work: engine.work(),
            ledger: engine.ledger(),
            presence: presence.clone(),
            clock: clock.clone(),
            dice: dice.clone(),
            services: services.clone(),
            connect: Arc::new(FakeConnect),
            pushes,
            metrics: Arc::new(|| "# TYPE up gauge\nup 1\n".to_owned()),
            channels: ["apns", "fcm", "huawei", "sms", "xiaomi"]
                .map(|name| hongyan_core::ChannelId::parse(name).unwrap())
                .to_vec(),
        },
    );
    let admin = key::mint(TokenKind::Key(KeyKind::Admin), &*dice);
    let record = Key {
        id: KeyId::parse("root").unwrap(),
        kind: KeyKind::Admin,
        app: None,
        scopes: vec![],
        name: String::new(),
        hash: admin.hash,
        created_at: clock.now(),
    };
    engine.registry().put_key(record).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    api.set_ready(true);
    let encrypted = tls.is_some();
    let served = tokio::spawn(api.clone().serve(listener, tls, async move {
        let _ = stopped.await;
    }));
    let mut world = World {
        address,
        api,
        admin: admin.text,
        server: String::new(),
        client: String::new(),
        services,
        presence,
        clock,
        engine,
        posted,
        stop: Some(stop),
        served: Some(served),
        _dir: dir,
    };
    if !encrypted {
        world.make_app("demo").await;
        world.server = world.make_key("demo", json!({"kind": "server"})).await;
        world.client = world.make_key("demo", json!({"kind": "client"})).await;
    }
    world
}

impl World {
    pub(crate) fn app(&self) -> AppId {
        AppId::parse("demo").unwrap()
    }

    /// A call with a JSON body (none when null).
    pub(crate) async fn call(&self, method: Method, path: &str, key: &str, body: Value) -> Answer {
        let (headers, body): (&[_], String) = if body.is_null() {
            (&[], String::new())
        } else {
            (&[("content-type", "application/json")], body.to_string())
        };
        call(self.address, method, path, key, headers, body).await
    }

    pub(crate) async fn get(&self, path: &str, key: &str) -> Answer {
        self.call(Method::GET, path, key, Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, key: &str, body: Value) -> Answer {
        self.call(Method::POST, path, key, body).await
    }

    pub(crate) async fn make_app(&self, id: &str) {
        self.post("/v1/apps", &self.admin, json!({"id": id}))
            .await
            .expect(201);
    }

    pub(crate) async fn make_key(&self, app: &str, body: Value) -> String {
        let made = self
            .post(&format!("/v1/apps/{app}/keys"), &self.admin, body)
            .await
            .expect(201);
        made["secret"].as_str().unwrap().to_owned()
    }

    /// Registers an iPhone; gives its token.
    pub(crate) async fn register(&self, id: &str) -> String {
        let body = json!({"device_id": id, "platform": "ios"});
        let made = self
            .post("/v1/devices", &self.client, body)
            .await
            .expect(200);
        assert_eq!(made["device_id"], id);
        made["device_token"].as_str().unwrap().to_owned()
    }

    /// Sends a message to a user; gives its id.
    pub(crate) async fn send(&self, user: &str) -> String {
        let body = json!({"to": {"user": user}, "notification": {"title": "hi"}});
        let sent = self
            .post("/v1/messages", &self.server, body)
            .await
            .expect(202);
        sent["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn events(&self, events: Vec<Event>) {
        let set = WriteSet {
            events,
            ..WriteSet::default()
        };
        self.engine
            .commit()
            .commit(vec![set])
            .await
            .pop()
            .unwrap()
            .unwrap();
    }
}

/// Where senders reach the node, as its operator would say.
pub(crate) const ROOT: &str = "https://push.example";

#[derive(Debug)]
struct Plain;

impl hongyan_dispatch::credentials::Sealer for Plain {
    fn proof(&self, bound_to: &str) -> String {
        format!("proof-of-{}", bound_to.len())
    }
    fn proves(&self, bound_to: &str, proof: &str) -> bool {
        self.proof(bound_to) == proof
    }
    fn seal(
        &self,
        bound_to: &str,
        secret: &[u8],
    ) -> Result<Vec<u8>, hongyan_core::error::BoxError> {
        Ok([bound_to.as_bytes(), &[0], secret].concat())
    }
    fn open(
        &self,
        bound_to: &str,
        sealed: &[u8],
    ) -> Result<Vec<u8>, hongyan_core::error::BoxError> {
        let secret = sealed.strip_prefix([bound_to.as_bytes(), &[0]].concat().as_slice());
        secret
            .map(<[u8]>::to_vec)
            .ok_or_else(|| "another place".into())
    }
}

/// The real endpoints; nothing routes or delivers.
/// Takes so many posts, and says of the next that the disk is full.
#[derive(Debug)]
pub(crate) struct Posted {
    commit: Arc<dyn Commit>,
    full_after: AtomicUsize,
}

impl Posted {
    pub(crate) fn full_after(&self, posts: usize) {
        self.full_after.store(posts, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl Commit for Posted {
    async fn commit(&self, sets: Vec<WriteSet>) -> Vec<Result<Committed, CommitError>> {
        let left = self
            .full_after
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                Some(left.wrapping_sub(1))
            });
        if left == Ok(0) {
            let full = |_| Err(CommitError::Store(StoreError::DiskFull));
            return sets.into_iter().map(full).collect();
        }
        self.commit.commit(sets).await
    }

    async fn idempotent(
        &self,
        app: &AppId,
        key: &str,
        now: Timestamp,
    ) -> Result<Option<([u8; 32], Vec<u8>)>, StoreError> {
        self.commit.idempotent(app, key, now).await
    }
}

fn pushes(
    engine: &Embedded,
    posted: &Arc<Posted>,
    presence: &Arc<FakePresence>,
    clock: &Arc<ManualClock>,
    dice: &Arc<dyn Dice>,
) -> hongyan_dispatch::push::Endpoints {
    let ports = hongyan_dispatch::Ports {
        registry: engine.registry(),
        inbox: engine.inbox(),
        work: engine.work(),
        ledger: engine.ledger(),
        commit: posted.clone(),
        quota: engine.quota(),
        presence: presence.clone(),
        clock: clock.clone(),
        dice: dice.clone(),
    };
    let (feedback, _signals) =
        hongyan_dispatch::feedback::Feedback::new(engine.registry(), clock.clone());
    let sealer = Arc::new(Plain);
    let options = hongyan_dispatch::Options {
        vendors: Vec::new(),
        sealer: sealer.clone(),
        feedback,
        public_url: Some(ROOT.to_owned()),
    };
    let dispatch = hongyan_dispatch::Dispatch::new(options, ports);
    dispatch.endpoints(sealer, ROOT.to_owned(), false)
}
