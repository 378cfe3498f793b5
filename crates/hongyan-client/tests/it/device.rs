//! The device's connection: websocket.md section 4, from the client's side.

use std::sync::Arc;
use std::time::Duration;

use hongyan_client::storage::{File, Memory};
use hongyan_client::{
    AckMode, AppState, BoxError, Client, Codec, Error, Event, FixedToken, Inbox, NackCode, Options,
    Secret, Status, Stop, TokenNeed, TokenSource,
};
use serde_json::json;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::gateway::{Gateway, pair};

fn start(options: Options) -> (Client, Inbox) {
    Client::start(options, FixedToken::new("device-token"))
}

async fn message(inbox: &mut Inbox) -> String {
    match inbox.recv().await {
        Some(Event::Message(message)) => message.id,
        other => panic!("{other:?}"),
    }
}

async fn nothing(inbox: &mut Inbox) {
    let got = timeout(Duration::from_secs(1), inbox.recv()).await;
    assert!(got.is_err(), "{got:?}");
}

/// Returns once nobody has anything left to do: only then does a stopped clock go on by itself.
async fn idle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

async fn stopped(client: &Client) -> Stop {
    let mut status = client.watch();
    match &*status
        .wait_for(|s| matches!(s, Status::Stopped(_)))
        .await
        .unwrap()
    {
        Status::Stopped(stop) => stop.clone(),
        _ => unreachable!("waited for it"),
    }
}

async fn messages_come_and_are_acked(codec: Codec) {
    let (gateway, options) = pair(codec);
    let (client, mut inbox) = start(options);
    let mut conn = gateway.welcome("c2").await;
    assert_eq!(
        conn.hello,
        json!({"t": "hello", "v": 1, "auth": {"token": "device-token"}, "inflight": 32,
            "state": "foreground"})
    );
    conn.msg(1).await;
    conn.msg(2).await;
    conn.idle("c2").await;
    assert_eq!(message(&mut inbox).await, "m1");
    assert_eq!(message(&mut inbox).await, "m2");
    assert_eq!(conn.expect("ack").await, json!({"t": "ack", "upto": "c2"}));
    client.caught_up().await.unwrap();
    client.clicked("m1").await.unwrap();
    let event = conn.expect("event").await;
    assert_eq!(
        (&event["id"], &event["kind"]),
        (&json!("m1"), &json!("clicked"))
    );
    client.set_state(AppState::Background).await.unwrap();
    assert_eq!(conn.expect("state").await["state"], "background");
    conn.say(json!({"t": "recall", "id": "m1"})).await;
    conn.say(json!({"t": "gap", "lost": 3})).await;
    assert_eq!(inbox.recv().await, Some(Event::Recall { id: "m1".into() }));
    assert_eq!(inbox.recv().await, Some(Event::Gap { lost: Some(3) }));
    let closing = tokio::spawn(async move { client.close().await });
    conn.expect("bye").await;
    conn.close(1000).await;
    closing.await.unwrap();
    assert_eq!(inbox.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn json() {
    messages_come_and_are_acked(Codec::Json).await;
}

#[tokio::test(start_paused = true)]
async fn cbor() {
    messages_come_and_are_acked(Codec::Cbor).await;
}

#[tokio::test(start_paused = true)]
async fn a_recall_that_comes_again_is_acked_and_not_told() {
    let (gateway, options) = pair(Codec::Json);
    let (_client, mut inbox) = start(options);
    let recall = json!({"t": "recall", "id": "m9", "cursor": "c1", "mark": "k1"});
    let mut conn = gateway.welcome("c1").await;
    conn.say(recall.clone()).await;
    assert_eq!(inbox.recv().await, Some(Event::Recall { id: "m9".into() }));
    // Cut before the ack could go out.
    drop(conn);
    let mut conn = gateway.welcome("c2").await;
    conn.say(recall).await;
    conn.msg(2).await;
    assert_eq!(message(&mut inbox).await, "m2");
    assert_eq!(conn.expect("ack").await["upto"], "c2");
}

#[tokio::test(start_paused = true)]
async fn a_recall_is_acked_when_the_app_has_it() {
    let (gateway, mut options) = pair(Codec::Json);
    options.inflight = 1;
    let (_client, mut inbox) = start(options);
    let mut conn = gateway.welcome("c2").await;
    conn.msg(1).await;
    conn.say(json!({"t": "recall", "id": "m9", "cursor": "c2", "mark": "k2"}))
        .await;
    conn.idle("c2").await;
    // The app has taken nothing: its queue is full of the message, and the recall waits.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(message(&mut inbox).await, "m1");
    assert_eq!(conn.expect("ack").await["upto"], "c1");
    assert_eq!(inbox.recv().await, Some(Event::Recall { id: "m9".into() }));
    assert_eq!(conn.expect("ack").await["upto"], "c2");
}

#[tokio::test(start_paused = true)]
async fn a_recall_that_comes_at_once_and_in_its_place_is_told_once() {
    let (gateway, options) = pair(Codec::Json);
    let (_client, mut inbox) = start(options);
    let mut conn = gateway.welcome("c1").await;
    conn.say(json!({"t": "recall", "id": "m9"})).await;
    conn.say(json!({"t": "recall", "id": "m9", "cursor": "c1", "mark": "k1"}))
        .await;
    assert_eq!(conn.expect("ack").await["upto"], "c1");
    conn.say(json!({"t": "recall", "id": "m9"})).await;
    conn.msg(2).await;
    assert_eq!(inbox.recv().await, Some(Event::Recall { id: "m9".into() }));
    assert_eq!(message(&mut inbox).await, "m2");
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_not_shown_and_acked_again() {
    let (gateway, options) = pair(Codec::Json);
    let (client, mut inbox) = start(options);
    let mut conn = gateway.welcome("c2").await;
    conn.msg(1).await;
    assert_eq!(message(&mut inbox).await, "m1");
    // Cut before the ack could go out: the next connection sends it again.
    drop(conn);
    let mut conn = gateway.welcome("c2").await;
    conn.msg(1).await;
    conn.msg(2).await;
    assert_eq!(message(&mut inbox).await, "m2");
    assert_eq!(conn.expect("ack").await["upto"], "c2");
    assert_eq!((client.stats().messages(), client.stats().copies()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_takes_what_waits_and_goes() {
    let (gateway, mut options) = pair(Codec::Json);
    options.storage = Some(Arc::new(Memory::default()));
    options.ack = AckMode::Manual;
    let fetch = |options: &Options| {
        let options = options.clone();
        let tokens = FixedToken::new("device-token");
        tokio::spawn(Client::fetch(options, tokens, Duration::from_secs(20)))
    };
    let fetched = fetch(&options);
    let mut conn = gateway.welcome("c2").await;
    conn.msg(1).await;
    conn.msg(2).await;
    conn.idle("c2").await;
    assert_eq!(conn.expect("ack").await["upto"], "c2");
    conn.expect("bye").await;
    conn.close(1000).await;
    let ids = |events: Vec<Event>| {
        let ids = events.into_iter().map(|event| match event {
            Event::Message(message) => message.id,
            other => panic!("{other:?}"),
        });
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids(fetched.await.unwrap().unwrap()), ["m1", "m2"]);
    // The next one goes on where this one ended, also when nothing waits.
    let fetched = fetch(&options);
    let mut conn = gateway.welcome("c2").await;
    assert_eq!(conn.hello["cursor"], "c2");
    conn.idle("c2").await;
    conn.expect("bye").await;
    conn.close(1000).await;
    assert_eq!(ids(fetched.await.unwrap().unwrap()), [""; 0]);
    // A gateway that never catches up has its time; what came is kept.
    let fetched = fetch(&options);
    let mut conn = gateway.welcome("c4").await;
    conn.msg(3).await;
    conn.expect("ack").await;
    conn.expect("bye").await;
    conn.close(1000).await;
    assert_eq!(ids(fetched.await.unwrap().unwrap()), ["m3"]);
    // Nobody there: that is an error, and nothing was taken.
    drop(gateway);
    let error = fetch(&options).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Disconnected { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_crash_shows_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Arc::new(File::new(folder.path().join("record")));
    let (gateway, mut options) = pair(Codec::Json);
    options.storage = Some(storage);
    let (client, mut inbox) = start(options.clone());
    let mut conn = gateway.welcome("c2").await;
    conn.msg(1).await;
    conn.msg(2).await;
    message(&mut inbox).await;
    message(&mut inbox).await;
    conn.expect("ack").await;
    client.kill().await;
    let (_client, mut inbox) = start(options);
    let mut conn = gateway.welcome("c3").await;
    assert_eq!(conn.hello["cursor"], "c2");
    // The gateway never saw the ack.
    for n in 1..=3 {
        conn.msg(n).await;
    }
    assert_eq!(message(&mut inbox).await, "m3");
    assert_eq!(conn.expect("ack").await["upto"], "c3");
}

#[tokio::test(start_paused = true)]
async fn manual_acks_wait_for_the_app() {
    let (gateway, mut options) = pair(Codec::Json);
    options.ack = AckMode::Manual;
    let (client, mut inbox) = start(options);
    let mut conn = gateway.welcome("c3").await;
    for n in 1..=3 {
        conn.msg(n).await;
        message(&mut inbox).await;
    }
    client.ack("m2").await.unwrap();
    assert_eq!(conn.expect("ack").await, json!({"t": "ack", "ids": ["m2"]}));
    client.nack("m1", NackCode::Retry).await.unwrap();
    assert_eq!(
        conn.expect("nack").await,
        json!({"t": "nack", "id": "m1", "code": "retry"})
    );
    conn.msg(1).await;
    assert_eq!(message(&mut inbox).await, "m1");
    client.ack("m1").await.unwrap();
    client.ack("m3").await.unwrap();
    client.ack("foreign").await.unwrap();
    assert_eq!(conn.expect("ack").await, json!({"t": "ack", "upto": "c3"}));
}

#[tokio::test(start_paused = true)]
async fn never_acking_is_possible() {
    let (gateway, mut options) = pair(Codec::Json);
    options.ack = AckMode::Never;
    let (client, mut inbox) = start(options);
    let mut conn = gateway.welcome("c1").await;
    conn.msg(1).await;
    message(&mut inbox).await;
    client.set_state(AppState::Background).await.unwrap();
    conn.expect("state").await;
    // Only heartbeats follow.
    conn.expect("ping").await;
}

#[tokio::test(start_paused = true)]
async fn waits_grow_with_jitter_and_reset_after_a_long_life() {
    let (gateway, options) = pair(Codec::Json);
    let (_client, _inbox) = start(options);
    for n in 0..10_u32 {
        let before = Instant::now();
        drop(gateway.dial().await);
        let ceiling = Duration::from_secs(60.min(1 << n.saturating_sub(1)));
        assert!(
            n == 0 || before.elapsed() <= ceiling + Duration::from_millis(1),
            "{n}"
        );
    }
    let mut conn = gateway.welcome("c0").await;
    for n in 1..=4 {
        let ping = conn.expect("ping").await;
        assert_eq!(ping["n"], n);
        conn.say(json!({"t": "pong", "n": n, "head": "c0"})).await;
    }
    let before = Instant::now();
    drop(conn);
    gateway.welcome("c0").await;
    assert!(
        before.elapsed() <= Duration::from_secs(1),
        "{:?}",
        before.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn close_codes_mean_what_the_table_says() {
    let after = async |code: u16| {
        let (gateway, options) = pair(Codec::Json);
        let (client, inbox) = start(options);
        gateway.welcome("c0").await.close(code).await;
        (gateway, client, inbox)
    };
    for (code, want) in [(4403, Stop::Blocked), (4409, Stop::TakenOver)] {
        let (gateway, client, mut inbox) = after(code).await;
        assert_eq!(stopped(&client).await, want);
        assert_eq!(inbox.recv().await, None);
        assert!(matches!(
            client.clicked("m").await,
            Err(Error::Stopped { .. })
        ));
        assert!(gateway.quiet_for(Duration::from_secs(600)).await);
    }
    for code in [4400, 4401, 4410] {
        let (_gateway, client, _inbox) = after(code).await;
        let stop = stopped(&client).await;
        assert!(
            matches!(stop, Stop::NotUnderstood(_) | Stop::NoToken(_)),
            "{stop:?}"
        );
    }
    for (code, least) in [
        (1000, 0),
        (1001, 0),
        (1013, 0),
        (4408, 0),
        (4429, 30),
        (1009, 60),
    ] {
        let (gateway, _client, _inbox) = after(code).await;
        assert!(
            least == 0 || gateway.quiet_for(Duration::from_secs(least)).await,
            "{code}"
        );
        gateway.welcome("c0").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_spreads_the_return_and_loses_nothing() {
    let (gateway, options) = pair(Codec::Json);
    let (_client, mut inbox) = start(options);
    let mut conn = gateway.welcome("c1").await;
    let before = Instant::now();
    conn.say(json!({"t": "drain", "after_ms": 8000})).await;
    conn.msg(1).await;
    assert_eq!(message(&mut inbox).await, "m1");
    assert_eq!(conn.expect("ack").await["upto"], "c1");
    conn.expect("bye").await;
    conn.close(1001).await;
    let conn = gateway.accept().await;
    assert_eq!(conn.hello["cursor"], "c1");
    assert!(
        before.elapsed() <= Duration::from_secs(8),
        "{:?}",
        before.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_gateway_counts_as_dead() {
    let (gateway, options) = pair(Codec::Json);
    let (_client, _inbox) = start(options);
    let before = Instant::now();
    let mut conn = gateway.welcome("c0").await;
    conn.expect("ping").await;
    gateway.welcome("c0").await;
    let waited = before.elapsed();
    assert!(
        waited >= Duration::from_secs(90) && waited <= Duration::from_secs(92),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_tail_is_fetched_once() {
    let (gateway, options) = pair(Codec::Json);
    let (_client, mut inbox) = start(options);
    let mut conn = gateway.welcome("c1").await;
    conn.msg(1).await;
    message(&mut inbox).await;
    conn.idle("c1").await;
    conn.expect("ack").await;
    let n = conn.expect("ping").await["n"].clone();
    conn.say(json!({"t": "pong", "n": n, "head": "c2"})).await;
    conn.expect("bye").await;
    conn.close(1000).await;
    let mut conn = gateway.welcome("c2").await;
    assert_eq!(conn.hello["cursor"], "c1");
    conn.msg(2).await;
    assert_eq!(message(&mut inbox).await, "m2");
    conn.idle("c2").await;
    conn.expect("ack").await;
    // A head that moves without a message for this device does not make it loop.
    for n in 3..6 {
        let ping = conn.expect("ping").await["n"].clone();
        conn.say(json!({"t": "pong", "n": ping, "head": format!("c{n}")}))
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_arrives_in_time_is_no_lost_tail() {
    let (gateway, options) = pair(Codec::Json);
    let (_client, mut inbox) = start(options);
    let mut conn = gateway.welcome("c0").await;
    conn.idle("c0").await;
    let n = conn.expect("ping").await["n"].clone();
    conn.say(json!({"t": "pong", "n": n, "head": "c1"})).await;
    conn.msg(1).await;
    assert_eq!(message(&mut inbox).await, "m1");
    conn.expect("ack").await;
    conn.expect("ping").await;
}

#[tokio::test(start_paused = true)]
async fn topics_and_pings_are_answered() {
    let (gateway, options) = pair(Codec::Json);
    let (client, _inbox) = start(options);
    let mut conn = gateway.welcome("c0").await;
    let work = {
        let client = client.clone();
        tokio::spawn(async move {
            client.subscribe("news").await.unwrap();
            let refused = client.subscribe("bad").await.unwrap_err();
            assert_eq!(refused.code(), Some("invalid_topic"));
            client.unsubscribe("news").await.unwrap();
            client.ping().await.unwrap();
            client.subscribe("lost").await.unwrap_err()
        })
    };
    assert_eq!(conn.expect("sub").await["topic"], "news");
    conn.say(json!({"t": "sub_ok", "topic": "news"})).await;
    conn.expect("sub").await;
    conn.say(json!({"t": "error", "code": "invalid_topic", "msg": "no", "fatal": false}))
        .await;
    conn.expect("unsub").await;
    conn.say(json!({"t": "sub_ok", "topic": "news"})).await;
    let n = conn.expect("ping").await["n"].clone();
    conn.say(json!({"t": "pong", "n": n, "head": "c0"})).await;
    conn.expect("sub").await;
    drop(conn);
    assert!(matches!(work.await.unwrap(), Error::Disconnected { .. }));
}

#[tokio::test(start_paused = true)]
async fn events_wait_for_a_connection_across_restarts() {
    let (gateway, mut options) = pair(Codec::Json);
    options.storage = Some(Arc::new(Memory::default()));
    let (client, _inbox) = start(options.clone());
    drop(gateway.dial().await);
    client.clicked("m9").await.unwrap();
    client.clicked("m9").await.unwrap();
    client.kill().await;
    let (_client, _inbox) = start(options);
    let mut conn = gateway.welcome("c0").await;
    assert_eq!(conn.expect("event").await["id"], "m9");
    conn.expect("ping").await;
}

#[tokio::test(start_paused = true)]
async fn nonsense_from_the_gateway_does_no_harm() {
    let (gateway, options) = pair(Codec::Json);
    let (client, mut inbox) = start(options);
    let mut conn = gateway.welcome("c0").await;
    conn.say_raw(Frame::text("{")).await;
    conn.say_raw(Frame::binary(vec![0xff, 0, 1])).await;
    conn.say(json!({"t": "hologram"})).await;
    conn.say(json!({"t": "msg", "cursor": 7})).await;
    conn.msg(1).await;
    assert_eq!(message(&mut inbox).await, "m1");
    assert_eq!(client.stats().unreadable(), 3);
    conn.expect("ack").await;
    conn.say_too_much(Frame::text("x".repeat(300 * 1024))).await;
    assert!(gateway.quiet_for(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_does_not_take_is_not_flooded() {
    let (gateway, mut options) = pair(Codec::Json);
    options.inflight = 4;
    let (client, mut inbox) = start(options);
    let mut conn = gateway.welcome("c200").await;
    assert_eq!(conn.hello["inflight"], 4);
    // A gateway that ignores the credit, with more than pipe and socket can hold.
    let flood = tokio::spawn(async move {
        for n in 1..=200 {
            let body = "x".repeat(8 * 1024);
            conn.say(json!({"t": "msg", "cursor": format!("c{n}"), "id": format!("m{n}"),
                "at": 1_767_229_200_123_i64, "class": "im", "notification": {"title": "t", "body": body}}))
                .await;
        }
        conn
    });
    idle().await;
    assert!(!flood.is_finished(), "the client reads on without an end");
    let taken = client.stats().messages();
    assert!((4..=4 + 4 + 16).contains(&taken), "{taken}");
    for n in 1..=200 {
        assert_eq!(message(&mut inbox).await, format!("m{n}"));
    }
    flood.await.unwrap();
}

/// Gives `token-0`, then after each refusal the next one.
#[derive(Debug, Default)]
struct Renewing(std::sync::atomic::AtomicU32);

#[async_trait::async_trait]
impl TokenSource for Renewing {
    async fn token(&self, need: TokenNeed) -> Result<Secret, BoxError> {
        let step = u32::from(need != TokenNeed::Connect);
        let n = self.0.fetch_add(step, std::sync::atomic::Ordering::SeqCst) + step;
        Ok(Secret::new(format!("token-{n}")))
    }
}

#[tokio::test(start_paused = true)]
async fn refused_and_expiring_tokens_are_renewed() {
    let (gateway, options) = pair(Codec::Json);
    let (_client, _inbox) = Client::start(options, Arc::new(Renewing::default()));
    let token = async |gateway: &Gateway| {
        let conn = gateway.accept().await;
        (conn.hello["auth"]["token"].clone(), conn)
    };
    let (first, conn) = token(&gateway).await;
    assert_eq!(first, "token-0");
    conn.close(4401).await;
    let (second, conn) = token(&gateway).await;
    assert_eq!(second, "token-1");
    conn.close(4410).await;
    let mut conn = gateway.welcome("c0").await;
    assert_eq!(conn.hello["auth"]["token"], "token-2");
    conn.say(json!({"t": "error", "code": "auth_expiring", "msg": "", "fatal": false}))
        .await;
    conn.expect("bye").await;
    conn.close(1000).await;
    assert_eq!(token(&gateway).await.0, "token-3");
}

#[tokio::test(start_paused = true)]
async fn waking_ends_the_wait_and_dropping_the_inbox_ends_the_client() {
    let (gateway, options) = pair(Codec::Json);
    let (client, mut inbox) = start(options);
    gateway.welcome("c0").await.close(4429).await;
    let mut status = client.watch();
    status
        .wait_for(|s| matches!(s, Status::Waiting { .. }))
        .await
        .unwrap();
    let before = Instant::now();
    client.wake().await.unwrap();
    let mut conn = gateway.welcome("c0").await;
    assert!(before.elapsed() < Duration::from_secs(1));
    nothing(&mut inbox).await;
    drop(inbox);
    conn.expect("bye").await;
    conn.close(1000).await;
    assert_eq!(stopped(&client).await, Stop::Closed);
}
