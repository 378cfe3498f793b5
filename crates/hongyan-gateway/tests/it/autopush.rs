//! Browsers: Mozilla's autopush protocol, clause by clause, on the real engine and the real endpoints.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hongyan_core::app::{App, Key, KeyKind};
use hongyan_core::error::BoxError;
use hongyan_core::limits::DEVICES_PER_USER_MAX;
use hongyan_core::port::{Clock as _, Post, Pushes};
use hongyan_core::push::{ENROLMENT_LIFE, PushEncoding, Urgency};
use hongyan_core::{AppId, Device, KeyId, MessageId, PushEndpoint, Secret, Timestamp, UserId};
use hongyan_dispatch::binding::Bindings;
use hongyan_dispatch::credentials::Sealer;
use hongyan_dispatch::feedback::Feedback;
use hongyan_embedded::Embedded;
use hongyan_gateway::handshake::{self, Door};
use hongyan_gateway::{Autopush, Encoding, Gateway, GatewayHandle, Hub, Options, Socket, Speech};
use hongyan_testkit::fake::{ManualClock, SeededDice};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::client::Client;

const ROOT: &str = "https://push.example";
const NOON: Timestamp = Timestamp(1_772_366_400_000);
/// The key of the example in RFC 8292 section 2.4.
const VAPID: &str =
    "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";

#[derive(Debug)]
struct Plain;

impl Sealer for Plain {
    fn proof(&self, bound_to: &str) -> String {
        bound_to.to_owned()
    }
    fn proves(&self, bound_to: &str, proof: &str) -> bool {
        bound_to == proof
    }
    fn seal(&self, _: &str, secret: &[u8]) -> Result<Vec<u8>, BoxError> {
        Ok(secret.to_vec())
    }
    fn open(&self, _: &str, sealed: &[u8]) -> Result<Vec<u8>, BoxError> {
        Ok(sealed.to_vec())
    }
}

struct World {
    runtime: Runtime,
    engine: Embedded,
    clock: Arc<ManualClock>,
    hub: Hub,
    handle: GatewayHandle,
    pushes: Arc<dyn Pushes>,
    bindings: Bindings,
    listener: TcpListener,
    stop: Option<oneshot::Sender<()>>,
    running: Option<tokio::task::JoinHandle<()>>,
    settling: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

fn demo() -> AppId {
    AppId::parse("demo").unwrap()
}

fn channel(n: u8) -> String {
    format!("6f6b3d5e-0000-4000-8000-0000000000{n:02x}")
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let _inside = runtime.enter();
        let dir = tempfile::tempdir().unwrap();
        let engine = Embedded::open(&hongyan_embedded::Options::new(dir.path())).unwrap();
        let clock = Arc::new(ManualClock::at(NOON));
        let options = Options {
            reactors: 2,
            ..Options::default()
        };
        let ports = hongyan_gateway::Ports {
            registry: engine.registry(),
            inbox: engine.inbox(),
            clock: clock.clone(),
        };
        let gateway = Gateway::new(options, ports).unwrap();
        let (hub, handle) = (gateway.hub(), gateway.handle());
        let (feedback, signals) = Feedback::new(engine.registry(), clock.clone());
        let ports = hongyan_dispatch::Ports {
            registry: engine.registry(),
            inbox: engine.inbox(),
            work: engine.work(),
            ledger: engine.ledger(),
            commit: engine.commit(),
            quota: engine.quota(),
            presence: Arc::new(hub.clone()),
            clock: clock.clone(),
            dice: Arc::new(SeededDice::new(7)),
        };
        let options = hongyan_dispatch::Options {
            vendors: Vec::new(),
            sealer: Arc::new(Plain),
            feedback: feedback.clone(),
            public_url: None,
        };
        let dispatch = hongyan_dispatch::Dispatch::new(options, ports);
        let bindings = dispatch.bindings();
        let pushes = dispatch.endpoints(Arc::new(Plain), ROOT.to_owned(), false);
        let pushes: Arc<dyn Pushes> = Arc::new(pushes);
        handle.serve_autopush(Autopush {
            app: Some(demo()),
            pushes: Arc::clone(&pushes),
            broadcasts: [("known".to_owned(), "v2".to_owned())].into(),
        });
        let settling = runtime.spawn(async move { dispatch.run_feedback(signals).await });
        let (stop, stopped) = oneshot::channel();
        let run = gateway.run(Arc::new(feedback), async {
            let _ = stopped.await;
        });
        let running = runtime.spawn(async { run.await.unwrap() });
        let app = App {
            id: demo(),
            name: String::new(),
            policy: Default::default(),
            created_at: NOON,
            version: 1,
        };
        runtime
            .block_on(engine.registry().put_app(app, None))
            .unwrap();
        drop(_inside);
        Self {
            runtime,
            engine,
            clock,
            hub,
            handle,
            pushes,
            bindings,
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            stop: Some(stop),
            running: Some(running),
            settling,
            _dir: dir,
        }
    }

    /// Connects behind the opening handshake, by this path.
    fn connect_at(&self, path: &str) -> Client {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let server = self.listener.accept().unwrap().0;
        let permit = self.handle.admit(server.peer_addr().unwrap().ip()).unwrap();
        let speech = Speech::Autopush(None).at(path);
        self.handle
            .adopt(Socket::Plain(server), Bytes::new(), speech, permit)
            .unwrap();
        Client::new(client, Encoding::Json)
    }

    fn connect(&self) -> Client {
        self.connect_at("/autopush")
    }

    /// Connects and says hello with this identity (none when empty); gives the identity it has then.
    fn hello(&self, uaid: &str) -> (Client, String) {
        let mut client = self.connect();
        let mut hello = json!({"messageType": "hello", "use_webpush": true, "broadcasts": {}});
        if !uaid.is_empty() {
            hello["uaid"] = uaid.into();
        }
        let said = ask(&mut client, hello);
        assert_eq!(said["messageType"], "hello", "{said}");
        assert_eq!(said["status"], 200);
        assert_eq!(said["use_webpush"], true);
        assert_eq!(said["broadcasts"], json!({}));
        let uaid = said["uaid"].as_str().unwrap().to_owned();
        assert!(uaid.len() == 32 && uaid.bytes().all(|b| b.is_ascii_hexdigit()));
        (client, uaid)
    }

    /// A browser with one channel: connection, identity, endpoint.
    fn browser(&self) -> (Client, String, PushEndpoint) {
        let (mut client, uaid) = self.hello("");
        let said = ask(&mut client, register(&channel(1), None));
        let endpoint = self.find(&said).unwrap();
        self.until_connected(&endpoint);
        (client, uaid, endpoint)
    }

    fn find(&self, registered: &Value) -> Option<PushEndpoint> {
        assert_eq!(registered["messageType"], "register", "{registered}");
        assert_eq!(registered["status"], 200, "{registered}");
        let url = registered["pushEndpoint"].as_str().unwrap();
        let token = url.strip_prefix(ROOT).unwrap().rsplit('/').next().unwrap();
        let found = self.runtime.block_on(self.pushes.find(token)).unwrap();
        found.filter(|e| e.gone_since.is_none())
    }

    fn until_connected(&self, endpoint: &PushEndpoint) {
        use hongyan_core::port::Presence as _;
        let devices = std::slice::from_ref(&endpoint.device);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let session = self.hub.sessions(&endpoint.app, devices).pop().flatten();
            if session.is_some_and(|s| s.protocol == "autopush") {
                return;
            }
            assert!(Instant::now() < deadline, "the session is not up in time");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn until_gone(&self) {
        use hongyan_core::port::Presence as _;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.hub.is_empty() {
            assert!(Instant::now() < deadline, "the session did not end in time");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Acknowledgements are written behind the connection's back: so many are left.
    fn until_acked(&self, endpoint: &PushEndpoint, left: usize) {
        let reader = hongyan_core::port::Reader {
            app: endpoint.app.clone(),
            device: endpoint.device.clone(),
            user: None,
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let inbox = self.engine.inbox();
            let page = inbox.read(&reader, None, 100, NOON);
            if self.runtime.block_on(page).unwrap().entries.len() == left {
                return;
            }
            assert!(Instant::now() < deadline, "acks were not written in time");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn post_as(&self, to: &PushEndpoint, ttl_s: u32, topic: Option<&str>, body: &str) -> MessageId {
        let post = Post {
            ttl_s,
            urgency: Urgency::Normal,
            topic: topic.map(str::to_owned),
            encoding: PushEncoding::Aes128gcm,
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        self.runtime.block_on(self.pushes.post(to, post)).unwrap()
    }

    fn post(&self, to: &PushEndpoint, body: &str) -> MessageId {
        self.post_as(to, 60, None, body)
    }

    fn devices(&self) -> Vec<Device> {
        let registry = self.engine.registry();
        let app = demo();
        let page = registry.device_page(&app, None, 100);
        self.runtime.block_on(page).unwrap()
    }

    fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.hub.poke();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let (Some(stop), Some(running)) = (self.stop.take(), self.running.take()) {
            let _ = stop.send(());
            let _ = self.runtime.block_on(running);
        }
        self.settling.abort();
    }
}

fn ask(client: &mut Client, question: Value) -> Value {
    client.say(question);
    client.hear()
}

fn register(channel: &str, key: Option<&str>) -> Value {
    let mut said = json!({"messageType": "register", "channelID": channel});
    if let Some(key) = key {
        said["key"] = key.into();
    }
    said
}

fn ack(versions: &[MessageId]) -> Value {
    let updates: Vec<_> = versions
        .iter()
        .map(|v| json!({"channelID": channel(1), "version": v.to_string(), "code": 100}))
        .collect();
    json!({"messageType": "ack", "updates": updates})
}

/// The text of a notification.
fn text(said: &Value) -> String {
    use base64::Engine as _;
    assert_eq!(said["messageType"], "notification", "{said}");
    let data = said["data"].as_str().unwrap_or_default();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(data);
    String::from_utf8(bytes.unwrap()).unwrap()
}

/// The next message answers a ping: nothing else was under way.
fn nothing_more(client: &mut Client) {
    let said = ask(client, json!({}));
    assert_eq!(said, json!({}));
}

#[test]
fn ap_01_an_identity_is_kept_once_it_is_used() {
    let world = World::new();
    let (first, anonymous) = world.hello("");
    assert!(world.devices().is_empty(), "nothing is stored by a hello");
    drop(first);
    let (_, again) = world.hello(&anonymous);
    assert_ne!(again, anonymous, "it was never issued for good");
    let (client, uaid, _) = world.browser();
    drop(client);
    let (_, same) = world.hello(&uaid);
    assert_eq!(same, uaid);
    let unknown = "0123456789abcdef0123456789abcdef";
    for bad in [unknown, "x", "0123456789ABCDEF0123456789ABCDEF"] {
        let (_, fresh) = world.hello(bad);
        assert_ne!(fresh, bad);
        assert_ne!(fresh, uaid);
    }
    assert_eq!(world.devices().len(), 1);
}

#[test]
fn ap_01_an_identity_of_another_app_is_replaced() {
    let world = World::new();
    let (_, uaid, _) = world.browser();
    let registry = world.engine.registry();
    let other = AppId::parse("other").unwrap();
    let text = "hy_pk_other";
    let mut hash = [0u8; 32];
    hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref());
    let key = Key {
        id: KeyId::parse("k").unwrap(),
        kind: KeyKind::Client,
        app: Some(other.clone()),
        scopes: Vec::new(),
        name: String::new(),
        hash,
        created_at: NOON,
    };
    world.runtime.block_on(registry.put_key(key)).unwrap();
    for path in ["/autopush/hy_pk_other", "/autopush/hy_pk_other/"] {
        let mut client = world.connect_at(path);
        let said = ask(&mut client, json!({"messageType": "hello", "uaid": uaid}));
        assert_ne!(said["uaid"], uaid.as_str());
        let said = ask(&mut client, register(&channel(1), None));
        assert_eq!(world.find(&said).unwrap().app, other);
    }
    let mut stranger = world.connect_at("/autopush/hy_pk_unknown");
    stranger.say(json!({"messageType": "hello"}));
    assert_eq!(stranger.closed(), 1000);
    assert_eq!(
        Speech::Autopush(None).at("/autopush/x"),
        Speech::Autopush(Some(Secret::new("x")))
    );
}

fn person(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

impl World {
    /// The path of a new enrolment.
    fn enrolment(&self, user: &str) -> String {
        let user = person(user);
        let app = demo();
        let made = self.pushes.enrolment(&app, &user);
        let made = self.runtime.block_on(made).unwrap();
        assert_eq!(made.expires_at, self.clock.now().plus(ENROLMENT_LIFE));
        format!("/autopush/{}", made.text.expose_str().unwrap())
    }

    /// Says hello by this path; gives the identity too.
    fn hello_at(&self, path: &str, uaid: Option<&str>) -> (Client, String) {
        let mut client = self.connect_at(path);
        let mut hello = json!({"messageType": "hello", "use_webpush": true});
        if let Some(uaid) = uaid {
            hello["uaid"] = uaid.into();
        }
        let said = ask(&mut client, hello);
        (client, said["uaid"].as_str().unwrap().to_owned())
    }

    /// A browser that became a device by this path; it is gone again.
    fn enrolled_by(&self, path: &str) -> String {
        let (mut client, uaid) = self.hello_at(path, None);
        let said = ask(&mut client, register(&channel(1), None));
        self.until_connected(&self.find(&said).unwrap());
        drop(client);
        self.until_gone();
        uaid
    }

    /// Comes back and leaves; gives whose its only device is then.
    fn back_by(&self, path: &str, uaid: &str) -> Option<UserId> {
        let (client, same) = self.hello_at(path, Some(uaid));
        assert_eq!(same, uaid);
        drop(client);
        self.until_gone();
        let devices = self.devices();
        assert_eq!(devices.len(), 1);
        devices[0].user.clone()
    }

    fn is_turned_away(&self, path: &str) {
        let mut client = self.connect_at(path);
        client.say(json!({"messageType": "hello", "use_webpush": true}));
        assert_eq!(client.closed(), 1000);
    }
}

#[test]
fn ap_01_a_browser_with_an_enrolment_becomes_a_device_of_its_user() {
    let world = World::new();
    let path = world.enrolment("u-1");
    let uaid = world.enrolled_by(&format!("{path}/"));
    assert_eq!(world.back_by(&path, &uaid), Some(person("u-1")));
    // Another's does not take it away.
    let other = world.enrolment("u-2");
    assert_eq!(world.back_by(&other, &uaid), Some(person("u-1")));
    // What is no enrolment of this server names no app.
    world.is_turned_away(path.split_at(path.len() - 1).0);
}

#[test]
fn ap_01_a_browser_of_nobody_becomes_a_users_by_an_enrolment() {
    let world = World::new();
    let (client, uaid, _) = world.browser();
    drop(client);
    world.until_gone();
    assert_eq!(world.back_by("/autopush", &uaid), None);
    let path = world.enrolment("u-1");
    assert_eq!(world.back_by(&path, &uaid), Some(person("u-1")));
}

#[test]
fn ap_01_an_enrolment_undoes_no_logout() {
    let world = World::new();
    let path = world.enrolment("u-1");
    let uaid = world.enrolled_by(&path);
    let device = world.devices()[0].id.clone();
    let (app, runtime) = (demo(), &world.runtime);
    let logout = world.bindings.logout(&app, &device);
    assert_eq!(runtime.block_on(logout).unwrap().user, None);
    assert_eq!(world.back_by(&path, &uaid), None);
    let newer = world.enrolment("u-1");
    assert_eq!(world.back_by(&newer, &uaid), None);
}

#[test]
fn ap_01_an_enrolment_ends_with_its_user() {
    let world = World::new();
    let path = world.enrolment("u-1");
    let uaid = world.enrolled_by(&path);
    let (app, user, runtime) = (demo(), person("u-1"), &world.runtime);
    let forgotten = world.bindings.forget_user(&app, &user);
    assert!(runtime.block_on(forgotten).unwrap());
    assert_eq!(world.back_by(&path, &uaid), None);
    world.is_turned_away(&path);
    // Who comes by this name later is another.
    world.clock.advance(Duration::from_secs(1));
    runtime.block_on(world.bindings.know(&app, &user)).unwrap();
    world.is_turned_away(&path);
}

#[test]
fn ap_01_an_enrolment_is_good_for_a_day() {
    let world = World::new();
    let path = world.enrolment("u-1");
    let uaid = world.enrolled_by(&path);
    world.advance(ENROLMENT_LIFE - Duration::from_secs(30));
    let (mut late, _) = world.hello_at(&path, None);
    world.advance(Duration::from_secs(31));
    // One that waited from before it until after it.
    assert_eq!(ask(&mut late, register(&channel(2), None))["status"], 401);
    drop(late);
    assert_eq!(world.devices().len(), 1);
    world.is_turned_away(&path);
    // What it made stays.
    assert_eq!(world.back_by(&path, &uaid), Some(person("u-1")));
}

#[test]
fn ap_01_an_enrolment_logs_no_other_device_out() {
    let world = World::new();
    let path = world.enrolment("u-1");
    let (mut late, _) = world.hello_at(&path, None);
    for _ in 0..DEVICES_PER_USER_MAX {
        world.enrolled_by(&path);
    }
    assert_eq!(ask(&mut late, register(&channel(1), None))["status"], 401);
    drop(late);
    world.is_turned_away(&path);
    let devices = world.devices();
    assert_eq!(devices.len(), DEVICES_PER_USER_MAX);
    assert!(devices.iter().all(|d| d.user == Some(person("u-1"))));
}

#[test]
fn ap_02_who_does_not_say_hello_first_and_once_is_closed() {
    let world = World::new();
    let mut silent = world.connect();
    // Its time begins when a reactor has it: then a ping is answered.
    silent.raw(&crate::client::frame(0x89, b""));
    assert_eq!(silent.frame().unwrap().opcode, 10);
    world.advance(Duration::from_millis(4_900));
    world.advance(Duration::from_millis(200));
    assert_eq!(silent.closed(), 1011);
    for wrong in [register(&channel(1), None), json!({}), json!([])] {
        let mut client = world.connect();
        client.say(wrong);
        assert_eq!(client.closed(), 1002);
    }
    let (mut client, _) = world.hello("");
    client.say(json!({"messageType": "hello"}));
    assert_eq!(client.closed(), 1002);
    let (mut client, ..) = world.browser();
    client.say(json!({"messageType": "hello"}));
    assert_eq!(client.closed(), 1002);
    for raw in ["{", "nonsense"] {
        let (mut client, _) = world.hello("");
        client.raw(&crate::client::frame(0x81, raw.as_bytes()));
        assert_eq!(client.closed(), 1002);
    }
    let (mut client, _) = world.hello("");
    client.raw(&crate::client::frame(0x82, b"{}"));
    assert_eq!(client.closed(), 1003);
    let (mut client, _) = world.hello("");
    client.say(json!({"messageType": "fly"}));
    nothing_more(&mut client);
}

#[test]
fn ap_02_a_browser_without_channels_is_sent_away_for_good() {
    let world = World::new();
    let (mut client, _) = world.hello("");
    world.advance(Duration::from_secs(3_599));
    nothing_more(&mut client);
    world.advance(Duration::from_secs(2));
    assert_eq!(client.closed(), 4774);
}

#[test]
fn ap_03_a_channel_is_registered_once() {
    let world = World::new();
    let (mut client, _) = world.hello("");
    for bad in [
        channel(1).to_uppercase(),
        format!("{{{}}}", channel(1)),
        "x".to_owned(),
    ] {
        let said = ask(&mut client, register(&bad, None));
        assert_eq!(
            (&said["status"], &said["channelID"]),
            (&json!(400), &json!(bad))
        );
    }
    let said = ask(&mut client, register(&channel(1), Some("not a key")));
    assert_eq!(said["status"], 400);
    assert!(world.devices().is_empty(), "nothing is kept for a bad key");
    let first = ask(&mut client, register(&channel(1), None));
    assert!(
        first["pushEndpoint"]
            .as_str()
            .unwrap()
            .contains("/wpush/v1/")
    );
    world.find(&first).unwrap();
    let again = ask(&mut client, register(&channel(1), None));
    assert_eq!(again, first);
    let bound = ask(&mut client, register(&channel(2), Some(VAPID)));
    assert!(
        bound["pushEndpoint"]
            .as_str()
            .unwrap()
            .contains("/wpush/v2/")
    );
    let padded = ask(
        &mut client,
        register(&channel(2), Some(&format!("{VAPID}="))),
    );
    assert_eq!(padded, bound);
    let rebound = ask(&mut client, register(&channel(1), Some(VAPID)));
    assert_ne!(rebound["pushEndpoint"], first["pushEndpoint"]);
    assert!(world.find(&first).is_none(), "the old one is gone");
    assert_eq!(world.devices().len(), 1);
}

#[test]
fn ap_05_live_and_stored_deliveries_come_in_order() {
    let world = World::new();
    let (mut client, uaid, endpoint) = world.browser();
    let version = world.post(&endpoint, "live");
    let said = client.hear();
    assert_eq!(text(&said), "live");
    assert_eq!(said["version"], version.to_string());
    assert_eq!(said["channelID"], channel(1));
    assert_eq!(said["headers"], json!({"encoding": "aes128gcm"}));
    let empty = world.post(&endpoint, "");
    let said = client.hear();
    assert!(said.get("data").is_none() && said.get("headers").is_none());
    let old = Post {
        ttl_s: 60,
        urgency: Urgency::High,
        topic: None,
        encoding: PushEncoding::Aesgcm {
            encryption: "salt=abc".to_owned(),
            crypto_key: "dh=def".to_owned(),
        },
        body: Bytes::from_static(b"old"),
    };
    let third = world
        .runtime
        .block_on(world.pushes.post(&endpoint, old))
        .unwrap();
    assert_eq!(
        client.hear()["headers"],
        json!({"encoding": "aesgcm", "encryption": "salt=abc", "crypto_key": "dh=def"})
    );
    client.say(ack(&[version, empty, third]));
    nothing_more(&mut client);
    drop(client);
    world.until_gone();
    for n in 0..40 {
        world.post(&endpoint, &format!("stored {n}"));
    }
    let (mut client, _) = world.hello(&uaid);
    let mut versions = Vec::new();
    for n in 0..40 {
        let said = client.hear();
        assert_eq!(text(&said), format!("stored {n}"));
        versions.push(MessageId::parse(said["version"].as_str().unwrap()).unwrap());
        client.say(ack(&versions[n..]));
    }
}

#[test]
fn ap_06_what_is_not_acknowledged_comes_again_and_only_that() {
    let world = World::new();
    let (mut client, uaid, endpoint) = world.browser();
    let posted: Vec<_> = ["a", "b", "c"].map(|t| world.post(&endpoint, t)).to_vec();
    for text_of in ["a", "b", "c"] {
        assert_eq!(text(&client.hear()), text_of);
    }
    client.say(ack(&posted[1..2]));
    nothing_more(&mut client);
    drop(client);
    world.until_gone();
    world.until_acked(&endpoint, 2);
    let (mut client, _) = world.hello(&uaid);
    for at in [0, 2] {
        let said = client.hear();
        assert_eq!(said["version"], posted[at].to_string(), "the same version");
    }
    let mut unreadable = ack(&posted[..1]);
    unreadable["updates"][0]["code"] = 101.into();
    client.say(unreadable);
    client.say(json!({"messageType": "nack", "version": posted[2].to_string(), "code": 301}));
    client.say(ack(&posted[2..]));
    nothing_more(&mut client);
    drop(client);
    world.until_gone();
    world.until_acked(&endpoint, 0);
    let (mut client, _) = world.hello(&uaid);
    nothing_more(&mut client);
}

#[test]
fn ap_07_topics_and_times_to_live() {
    let world = World::new();
    let (mut client, uaid, endpoint) = world.browser();
    world.post_as(&endpoint, 0, None, "heard now");
    assert_eq!(text(&client.hear()), "heard now");
    drop(client);
    world.until_gone();
    world.post_as(&endpoint, 0, None, "heard never");
    world.post_as(&endpoint, 60, Some("t"), "replaced");
    world.post_as(&endpoint, 1, None, "short");
    world.post_as(&endpoint, 60, None, "fresh");
    world.post_as(&endpoint, 60, Some("t"), "newest");
    world.advance(Duration::from_secs(1));
    let (mut client, _) = world.hello(&uaid);
    assert_eq!(text(&client.hear()), "fresh");
    assert_eq!(text(&client.hear()), "newest");
    nothing_more(&mut client);
}

#[test]
fn ap_08_a_channel_that_is_given_up_is_gone() {
    let world = World::new();
    let (mut client, uaid, endpoint) = world.browser();
    let said = json!({"messageType": "unregister", "channelID": channel(1), "code": 200});
    world.post(&endpoint, "unacknowledged");
    client.hear();
    let answer = ask(&mut client, said.clone());
    let done = json!({"messageType": "unregister", "channelID": channel(1), "status": 200});
    assert_eq!(answer, done);
    assert_eq!(ask(&mut client, said), done, "again does no harm");
    let gone = world
        .runtime
        .block_on(world.engine.registry().endpoint(&endpoint.hash))
        .unwrap()
        .unwrap();
    assert!(gone.gone_since.is_some());
    drop(client);
    world.until_gone();
    let (mut client, same) = world.hello(&uaid);
    assert_eq!(same, uaid);
    nothing_more(&mut client);
}

#[test]
fn ap_09_signs_of_life_are_answered_within_reason() {
    let world = World::new();
    let (mut client, ..) = world.browser();
    for _ in 0..10 {
        nothing_more(&mut client);
    }
    client.say(json!({"messageType": "ping"}));
    assert_eq!(client.closed(), 1011);
    let (mut client, ..) = world.browser();
    for n in 0..19 {
        assert_eq!(
            ask(&mut client, register(&channel(n + 2), None))["status"],
            200
        );
    }
    assert_eq!(
        ask(&mut client, register(&channel(99), None))["status"],
        429
    );
    world.advance(Duration::from_secs(61));
    assert_eq!(
        ask(&mut client, register(&channel(99), None))["status"],
        200
    );
}

#[test]
fn ap_10_a_flooded_channel_costs_the_browser_nothing_else() {
    let world = World::new();
    let (mut client, uaid, flooded) = world.browser();
    let said = ask(&mut client, register(&channel(2), None));
    let other = world.find(&said).unwrap();
    drop(client);
    world.until_gone();
    world.post(&other, "of another");
    let most = hongyan_core::push::PUSHES_PER_CHANNEL_MAX;
    let posts = (0..=most).map(|n| {
        let post = Post {
            ttl_s: 60,
            urgency: Urgency::Normal,
            topic: None,
            encoding: PushEncoding::Aes128gcm,
            body: Bytes::from(n.to_string()),
        };
        world.pushes.post(&flooded, post)
    });
    let posted = world
        .runtime
        .block_on(futures_util::future::join_all(posts));
    assert!(posted.iter().all(Result::is_ok));
    let (mut client, same) = world.hello(&uaid);
    assert_eq!(same, uaid);
    assert_eq!(text(&client.hear()), "of another");
    // Of the flooded one what was kept.
    assert_eq!(client.hear()["channelID"], channel(1));
    drop(client);
    world.until_gone();
    assert_eq!(world.hello(&uaid).1, uaid);
    assert_eq!(world.devices().len(), 1);
}

#[test]
fn ap_11_a_message_that_was_taken_back_is_not_delivered() {
    let world = World::new();
    let (client, uaid, endpoint) = world.browser();
    drop(client);
    world.until_gone();
    let regretted = world.post(&endpoint, "regretted");
    world.post(&endpoint, "kept");
    let withdraw = world.pushes.withdraw(&endpoint.hash, regretted);
    assert!(world.runtime.block_on(withdraw).unwrap());
    let (mut client, _) = world.hello(&uaid);
    assert_eq!(text(&client.hear()), "kept");
    nothing_more(&mut client);
}

#[test]
fn ap_14_broadcasts_are_said_when_they_differ() {
    let world = World::new();
    let mut client = world.connect();
    let versions = json!({"known": "v1", "remote-settings/monitor_changes": "x"});
    let said = ask(
        &mut client,
        json!({"messageType": "hello", "broadcasts": versions}),
    );
    assert_eq!(said["broadcasts"]["known"], "v2");
    assert!(said["broadcasts"]["errors"]["remote-settings/monitor_changes"].is_string());
    let subscribe =
        |versions: Value| json!({"messageType": "broadcast_subscribe", "broadcasts": versions});
    let said = ask(&mut client, subscribe(json!({"known": "v1"})));
    assert_eq!(
        said,
        json!({"messageType": "broadcast", "broadcasts": {"known": "v2"}})
    );
    client.say(subscribe(json!({"known": "v2"})));
    nothing_more(&mut client);
    let mut client = world.connect();
    let known = json!({"messageType": "hello", "broadcasts": {"known": "v2"}});
    let said = ask(&mut client, known);
    assert_eq!(
        said["broadcasts"].as_object().map_or(0, |all| all.len()),
        0,
        "{said}"
    );
}

#[test]
fn ap_15_any_origin_passes_and_no_extension_is_taken() {
    let mut headers = http::HeaderMap::new();
    for (name, value) in [
        ("host", "127.0.0.1"),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("origin", "ws://127.0.0.1/autopush"),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    let door = Door::at("/autopush").unwrap();
    let ask = |headers: &http::HeaderMap| {
        handshake::check(
            door,
            &http::Method::GET,
            http::Version::HTTP_11,
            headers,
            &http::uri::Scheme::HTTP,
            None,
            &[],
        )
        .unwrap()
    };
    assert_eq!(ask(&headers).subprotocol, None);
    assert_eq!(ask(&headers).origin, None);
    headers.insert(
        "sec-websocket-protocol",
        "push-notification".parse().unwrap(),
    );
    assert_eq!(ask(&headers).subprotocol, Some("push-notification"));
}

#[test]
fn the_newer_connection_of_an_identity_wins_and_the_older_stays_away() {
    let world = World::new();
    let (mut older, uaid, endpoint) = world.browser();
    let (mut newer, same) = world.hello(&uaid);
    assert_eq!(same, uaid);
    assert_eq!(older.closed(), 4774);
    world.post(&endpoint, "for the newer");
    assert_eq!(text(&newer.hear()), "for the newer");
}

#[test]
fn what_is_not_for_a_channel_of_the_browser_is_not_sent() {
    use hongyan_core::draft::Draft;
    use hongyan_core::message::{Notification, Target};
    use hongyan_core::port::{InboxAppend, Owner, WriteSet};
    let world = World::new();
    let (mut client, _, endpoint) = world.browser();
    let draft = Draft {
        to: Target::Devices(vec![endpoint.device.clone()]),
        class: Default::default(),
        class_detail: None,
        notification: Some(Notification {
            title: "in the clear".to_owned(),
            ..Notification::default()
        }),
        data: None,
        options: Default::default(),
    };
    let id = MessageId(uuid::Uuid::from_u128(5));
    let message = Arc::new(draft.into_message(demo(), id, NOON));
    let set = WriteSet {
        inbox: vec![InboxAppend {
            app: demo(),
            owner: Owner::Device(endpoint.device.clone()),
            message: id,
            expires_at: message.expires_at,
            push: None,
        }],
        messages: vec![message],
        ..WriteSet::default()
    };
    let results = world
        .runtime
        .block_on(world.engine.commit().commit(vec![set]));
    assert!(results[0].is_ok());
    world.post(&endpoint, "for the page");
    assert_eq!(text(&client.hear()), "for the page");
}
