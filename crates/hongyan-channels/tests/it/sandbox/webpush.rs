//! Sends to the sandbox's push services, which speak for Mozilla, Google, Apple and Microsoft in turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use hongyan_core::message::ClickGuard;
use hongyan_core::port::Channel;
use hongyan_core::{ChannelId, Class};
use hongyan_sandbox::{Channel as Vendor, Fault, FaultKind, NewPhone, PatchPhone, TokenState};
use hongyan_testkit::channel_suite::words;
use serde_json::{Value, json};

use super::{PATIENCE, World, survives, takes_everything, tells_tokens_apart};
use crate::message;
use crate::paper::webpush::WEBPUSH;
use crate::stand_in::{Act, StandIn};

/// The public half of another key pair.
fn other_key() -> (String, String) {
    hongyan_channels::vendor::webpush::generate().unwrap()
}

#[tokio::test]
async fn webpush() {
    let world = World::start(Vendor::Webpush).await;
    takes_everything(&world).await;
    tells_tokens_apart(
        &world,
        &[
            (super::DEAD, "token_dead token_invalid"),
            // The service took our key for others, so it is the subscription that is of another key.
            (TokenState::OtherApp, "token_dead token_invalid"),
            (TokenState::OtherEnvironment, "token_dead token_invalid"),
        ],
    )
    .await;
}

#[tokio::test]
async fn webpush_survives_the_faults_of_every_service() {
    let all = "retry vendor_rate_limited not_taken";
    for (maker, throttled) in [
        ("mozilla", all),
        ("google", all),
        ("apple", all),
        // It says that the one subscription is throttled, not the sender.
        ("microsoft", "device_limited"),
    ] {
        let world = World::start(Vendor::Webpush).await;
        let rules = json!({ "maker": maker });
        world.handle.set_rules(Vendor::Webpush, &rules).unwrap();
        survives(
            &world,
            &[
                (FaultKind::RateLimited, throttled),
                (FaultKind::QuotaExhausted, throttled),
                // The token is made anew and the send repeated.
                (FaultKind::AuthExpired, "accepted"),
                (FaultKind::Malformed, "accepted"),
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn webpush_with_another_key_blames_the_credential_and_kills_no_token() {
    let (private_key, public_key) = other_key();
    let world = World::start_with(Vendor::Webpush, |config| {
        config["private_key"] = private_key.as_str().into();
        config["public_key"] = public_key.as_str().into();
    })
    .await;
    let report = world.channel.check(PATIENCE).await;
    assert!(
        report.ok && report.detail.contains(&public_key),
        "{report:?}"
    );
    let tokens = world.tokens(12, TokenState::Valid);
    let verdicts = world.send(message::message(Class::Im), tokens).await;
    assert_eq!(verdicts, vec!["credential_bad"; 12]);
}

#[tokio::test]
async fn webpush_signs_once_for_each_service_and_encrypts_each_time() {
    let world = World::start(Vendor::Webpush).await;
    let tokens = world.tokens(40, TokenState::Valid);
    let verdicts = world.send(message::message(Class::Im), tokens).await;
    assert_eq!(verdicts, vec!["accepted"; 40]);
    let requests = world.handle.requests(Vendor::Webpush);
    let signed: std::collections::BTreeSet<_> = requests
        .iter()
        .map(|r| &r.headers["authorization"])
        .collect();
    let bodies: std::collections::BTreeSet<_> =
        requests.iter().map(|r| r.body.to_string()).collect();
    assert_eq!((signed.len(), bodies.len()), (1, 40));
}

#[tokio::test]
async fn webpush_reaches_the_browser_and_a_collapse_key_replaces() {
    let world = World::start(Vendor::Webpush).await;
    let phone = NewPhone::of("web", "firefox", "Firefox", "alice");
    let phone = world.handle.add_phone(phone).await.unwrap();
    let token = world.handle.phone_tokens(&phone.id).unwrap()[&Vendor::Webpush].clone();
    let network = async |on: &str| {
        let patch = PatchPhone {
            network: Some(on.to_owned()),
            ..PatchPhone::default()
        };
        world.handle.patch_phone(&phone.id, patch).await.unwrap();
    };
    network("off").await;
    for title in ["first", "second"] {
        let mut sent = message::message(Class::Im);
        sent.options.collapse_key = Some("a chat".to_owned());
        sent.options.click_guard = ClickGuard::Anyone;
        sent.notification.as_mut().unwrap().title = title.to_owned();
        assert_eq!(world.send(sent, vec![token.clone()]).await, ["accepted"]);
    }
    network("on").await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let tray = loop {
        let tray = world.handle.tray(&phone.id).unwrap();
        if !tray.is_empty() || tokio::time::Instant::now() > deadline {
            break tray;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    let shown: Vec<(&str, &str)> = tray
        .iter()
        .map(|entry| (entry.title.as_str(), entry.body.as_str()))
        .collect();
    assert_eq!(shown, [("second", "is on its way")]);
}

#[tokio::test]
async fn webpush_now_or_never_goes_to_every_service() {
    let world = World::start(Vendor::Webpush).await;
    let mut sent = message::message(Class::Im);
    sent.options.ttl_s = Some(0);
    let verdicts = world.send(sent, world.tokens(40, TokenState::Valid)).await;
    assert_eq!(verdicts, vec!["accepted"; 40], "{:?}", world.last());
    let mut sent = message::message(Class::Im);
    let fields = json!({"urgency": "very-low", "topic": "T", "ttl": 5});
    sent.options.vendor.insert(
        ChannelId::parse("webpush").unwrap(),
        fields.as_object().unwrap().clone(),
    );
    let verdicts = world.send(sent, world.tokens(1, TokenState::Valid)).await;
    assert_eq!(verdicts, ["accepted"]);
    let headers = world.last().headers;
    let got = ["urgency", "topic", "ttl"].map(|name| headers[name].as_str());
    assert_eq!(got, ["very-low", "T", "5"]);
}

#[tokio::test]
async fn webpush_endpoints_are_only_known_services_at_public_addresses() {
    let world = World::start(Vendor::Webpush).await;
    let token = world.tokens(1, TokenState::Valid).remove(0);
    let config = |hosts: Value| {
        let mut config = world.handle.credential(Vendor::Webpush).unwrap();
        config["hosts"] = hosts;
        config
    };
    let send = async |config: Value, loopback: bool, token: &str| {
        let options = hongyan_channels::egress::Options {
            allow_loopback: loopback,
            roots_pem: Some(world.handle.ca_pem().to_owned()),
            ..hongyan_channels::egress::Options::default()
        };
        let clock = std::sync::Arc::new(message::WallClock);
        let egress = hongyan_channels::Egress::new(&options, clock).unwrap();
        let channel = message::open_at(&egress, "webpush", &config, None, None);
        let sent = message::outbound(message::message(Class::Im));
        let batch = message::batch(sent, [token.to_owned()]);
        words(&channel.send(&batch, PATIENCE).await[0])
    };
    let nobody = json!([]);
    let got = send(config(nobody.clone()), true, &token).await;
    assert_eq!(
        got, "unasked refused token_environment",
        "127.0.0.1 is no push service"
    );
    let got = send(config(json!(["127.0.0.1"])), true, &token).await;
    assert_eq!(got, "accepted", "a host of the credential's own");
    let got = send(config(json!(["*"])), false, &token).await;
    assert_eq!(
        got, "unasked refused token_environment",
        "not a public address"
    );
    // Nobody listens there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let mut away: Value = serde_json::from_str(&token).unwrap();
    away["endpoint"] = format!("https://{address}/x").into();
    let away = away.to_string();
    let got = send(config(json!(["127.0.0.1"])), true, &away).await;
    assert_eq!(
        got, "retry vendor_unavailable not_taken",
        "the service that the credential names is down"
    );
    let got = send(config(json!(["*"])), true, &away).await;
    assert_eq!(
        got, "unasked retry vendor_unavailable not_taken",
        "anybody's host says nothing of others"
    );
    let busy = Fault::times(FaultKind::Unavailable, 1);
    world.handle.inject(Vendor::Webpush, busy).unwrap();
    let got = send(config(json!(["*"])), true, &token).await;
    assert_eq!(
        got, "unasked retry vendor_unavailable not_taken",
        "somebody's host, and nobody else's"
    );
    let plain = token.replace("https://", "http://");
    let got = send(config(json!(["*"])), true, &plain).await;
    assert_eq!(got, "token_dead token_invalid", "not https");
}

#[tokio::test]
async fn webpush_falls_back_to_http_1_where_there_is_nothing_else() {
    use crate::stand_in::{Act, StandIn};
    let stand_in = StandIn::start_with(&[b"http/1.1"], |_| {
        Act::Answer(201, Vec::new(), String::new())
    })
    .await;
    let egress = message::egress(&stand_in.ca_pem);
    let paper = crate::paper::ALL
        .iter()
        .find(|p| p.name == "webpush")
        .unwrap();
    let channel = message::open(&egress, "webpush", &(paper.config)(), &stand_in.endpoint);
    for _ in 0..3 {
        let sent = message::outbound(message::message(Class::Im));
        let batch = message::batch(sent, [(paper.token)(1)]);
        let verdicts = channel.send(&batch, PATIENCE).await;
        assert_eq!(words(&verdicts[0]), "accepted");
    }
    assert_eq!(stand_in.seen().len(), 3);
}

#[tokio::test]
async fn webpush_faults_can_be_for_one_subscription() {
    let world = World::start(Vendor::Webpush).await;
    let tokens = world.tokens(2, TokenState::Valid);
    let mut fault = Fault::always(FaultKind::TokenInvalid);
    fault.token = Some(tokens[1].clone());
    world.handle.inject(Vendor::Webpush, fault).unwrap();
    let verdicts = world.send(message::message(Class::Im), tokens).await;
    assert_eq!(verdicts, ["accepted", "token_dead token_invalid"]);
}

/// Some hosts answer 404 to whatever is asked: that says nothing of a subscription.
#[tokio::test]
async fn a_host_that_calls_every_subscription_gone_is_not_believed() {
    for status in [404, 410] {
        let stand_in =
            StandIn::start(move |_| Act::Answer(status, Vec::new(), String::new())).await;
        let egress = message::egress(&stand_in.ca_pem);
        let config = (WEBPUSH.config)();
        let channel = message::open(&egress, "webpush", &config, &stand_in.endpoint);
        let mut told = Vec::new();
        for n in 0..12 {
            let outbound = message::outbound(message::message(Class::Im));
            let batch = message::batch(outbound, [(WEBPUSH.token)(n)]);
            told.push(words(&channel.send(&batch, PATIENCE).await[0]));
        }
        let mut want = vec!["token_dead token_invalid"; 9];
        want.extend(["refused token_environment"; 3]);
        assert_eq!(told, want, "{status}");
    }
}

/// A push service that answers to a send by the token that names us, and one subscription of it.
struct Service {
    stand_in: StandIn,
    channel: Arc<dyn Channel>,
}

impl Service {
    async fn start(judge: impl Fn(&str) -> (u16, &'static str) + Send + Sync + 'static) -> Self {
        let stand_in = StandIn::start(move |seen| {
            let (status, words) = judge(seen.headers["authorization"].to_str().unwrap());
            Act::Answer(status, Vec::new(), words.to_owned())
        })
        .await;
        let egress = message::egress(&stand_in.ca_pem);
        let config = (WEBPUSH.config)();
        let channel = message::open(&egress, "webpush", &config, &stand_in.endpoint);
        Self { stand_in, channel }
    }

    /// The verdict of a send, its words, and how often the service was asked.
    async fn send(&self) -> (String, String, usize) {
        let before = self.stand_in.seen().len();
        let sent = message::outbound(message::message(Class::Im));
        let batch = message::batch(sent, [(WEBPUSH.token)(1)]);
        let verdict = self.channel.send(&batch, PATIENCE).await.remove(0);
        let asked = self.stand_in.seen().len() - before;
        (words(&verdict), verdict.detail().to_owned(), asked)
    }
}

#[tokio::test]
async fn webpush_makes_a_refused_token_anew_once() {
    for (status, said) in [
        (401, r#"{"errno":109,"message":"Invalid VAPID token"}"#),
        (403, "invalid JWT provided"),
        (400, r#"{"reason":"BadJwtToken"}"#),
    ] {
        let bad = Mutex::new(None::<String>);
        let service = Service::start(move |token| {
            let mut bad = bad.lock().unwrap();
            if bad.get_or_insert_with(|| token.to_owned()) == token {
                (status, said)
            } else {
                (201, "")
            }
        })
        .await;
        let (told, _, asked) = service.send().await;
        assert_eq!((told.as_str(), asked), ("accepted", 2), "{status}");
        let (told, _, asked) = service.send().await;
        assert_eq!((told.as_str(), asked), ("accepted", 1), "{status}");
    }
}

/// A service that took our key and then no token of it: the clocks differ, nothing is wrong with subscription or key.
#[tokio::test]
async fn webpush_with_a_wrong_clock_waits_and_heals() {
    let refuses = Arc::new(AtomicBool::new(false));
    let judged = refuses.clone();
    let service = Service::start(move |_| match judged.load(Ordering::SeqCst) {
        true => (401, r#"{"errno":109,"message":"Invalid VAPID token"}"#),
        false => (201, ""),
    })
    .await;
    assert_eq!(service.send().await.0, "accepted");
    refuses.store(true, Ordering::SeqCst);
    // The second time it is too early for yet another token.
    for times in [2, 1] {
        let (told, detail, asked) = service.send().await;
        assert_eq!(told, "retry vendor_unavailable not_taken");
        assert!(detail.contains("clock"), "{detail}");
        assert_eq!(asked, times);
    }
    refuses.store(false, Ordering::SeqCst);
    assert_eq!(service.send().await.0, "accepted");
}

#[tokio::test]
async fn webpush_with_a_subscription_of_another_key_makes_no_token_anew() {
    let other = Arc::new(AtomicBool::new(false));
    let judged = other.clone();
    let service = Service::start(move |_| match judged.load(Ordering::SeqCst) {
        true => (
            403,
            "the VAPID credentials do not correspond to the subscription's",
        ),
        false => (201, ""),
    })
    .await;
    assert_eq!(service.send().await.0, "accepted");
    other.store(true, Ordering::SeqCst);
    let (told, _, asked) = service.send().await;
    assert_eq!((told.as_str(), asked), ("token_dead token_invalid", 1));
}
