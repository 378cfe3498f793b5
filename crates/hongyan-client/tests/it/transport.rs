//! Which way the client takes: sse-and-polling.md from the client's side, and the moves between the ways.

use std::sync::Arc;
use std::time::Duration;

use hongyan_client::storage::Memory;
use hongyan_client::{
    AckMode, AppState, Client, Event, FixedToken, Inbox, NackCode, Options, Status, Stop, Transport,
};

use crate::ways::{Way, Ways};

const PATIENCE: Duration = Duration::from_secs(30);
const WS: &str = "/v1/connect";
const SSE: &str = "/v1/stream";

fn options(ways: &Ways) -> Options {
    let mut options = Options::new(&ways.base).unwrap();
    options.storage = Some(Arc::new(Memory::default()));
    options.seed = Some(7);
    options.timers.backoff_base = Duration::from_millis(5);
    options.timers.backoff_max = Duration::from_millis(20);
    options.timers.ack_delay = Duration::from_millis(5);
    options.timers.poll_pause = Duration::from_millis(20);
    options
}

fn start(options: Options) -> (Client, Inbox) {
    Client::start(options, FixedToken::new("device-token"))
}

async fn event(inbox: &mut Inbox) -> Event {
    tokio::time::timeout(PATIENCE, inbox.recv())
        .await
        .expect("an event in time")
        .expect("the client runs")
}

async fn messages(inbox: &mut Inbox, want: std::ops::RangeInclusive<u32>) {
    for n in want {
        match event(inbox).await {
            Event::Message(message) => assert_eq!(message.id, format!("m{n}")),
            other => panic!("{other:?}"),
        }
    }
}

async fn uses(client: &Client, transport: Transport) {
    let mut status = client.watch();
    let found = async {
        while client.stats().transport() != Some(transport) {
            status.changed().await.expect("the client runs");
        }
        client.caught_up().await.expect("caught up");
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .unwrap_or_else(|_| panic!("{transport}: {:?}", client.status()));
}

async fn stopped(client: &Client) -> Stop {
    let mut status = client.watch();
    let stopped = status.wait_for(|s| matches!(s, Status::Stopped(_)));
    let stopped = tokio::time::timeout(PATIENCE, stopped).await.unwrap();
    match &*stopped.unwrap() {
        Status::Stopped(stop) => stop.clone(),
        _ => unreachable!("waited for it"),
    }
}

#[tokio::test]
async fn a_refused_upgrade_leads_to_the_stream() {
    for way in [Way::Status(502), Way::Status(404), Way::Page, Way::Cut] {
        let ways = Ways::start().await;
        ways.set(WS, way);
        ways.publish();
        let (client, mut inbox) = start(options(&ways));
        messages(&mut inbox, 1..=1).await;
        uses(&client, Transport::Sse).await;
        assert_eq!(ways.asked(WS), 2, "{way:?}");
        for _ in 0..50 {
            ways.publish();
        }
        messages(&mut inbox, 2..=51).await;
        ways.until_acked(51).await;
        // Many were taken at once, so few calls said so.
        assert!(ways.asked("POST /v1/acks") < 51, "{way:?}");
        client.clicked("m1").await.unwrap();
        client.set_state(AppState::Background).await.unwrap();
        client.subscribe("news/a").await.unwrap();
        client.ping().await.unwrap();
        ways.until_asked("PUT /v1/topics/news%2Fa/subscribers/d1", 1)
            .await;
        ways.until_asked(r#"PATCH /v1/devices/d1 {"state":"background"}"#, 1)
            .await;
        assert_eq!(ways.events()[0]["kind"], "clicked");
        client.close().await;
    }
}

#[tokio::test]
async fn a_stream_that_does_not_come_through_leads_to_polls() {
    for way in [Way::Buffered, Way::Cut, Way::Page, Way::Status(500)] {
        let ways = Ways::start().await;
        ways.set(WS, Way::Status(400));
        ways.set(SSE, way);
        let mut options = options(&ways);
        options.timers.welcome = Duration::from_millis(500);
        options.inflight = 8;
        for _ in 0..20 {
            ways.publish();
        }
        let (client, mut inbox) = start(options);
        messages(&mut inbox, 1..=20).await;
        uses(&client, Transport::Poll).await;
        assert_eq!((ways.asked(WS), ways.asked(SSE)), (2, 2), "{way:?}");
        ways.until_acked(20).await;
        ways.publish();
        messages(&mut inbox, 21..=21).await;
        client.clicked("m1").await.unwrap();
        ways.until_asked("POST /v1/client-events", 1).await;
        client.ping().await.unwrap();
        let refused = client.subscribe("news").await.unwrap_err();
        assert_eq!(refused.code(), Some("device_unknown"));
        client.close().await;
        // What was taken last is acknowledged before it goes.
        ways.until_acked(21).await;
        assert_eq!(client.stats().messages(), 21, "{way:?}");
    }
}

#[tokio::test]
async fn better_ways_are_taken_again() {
    let ways = Ways::start().await;
    ways.set(WS, Way::Status(502));
    ways.set(SSE, Way::Cut);
    let mut options = options(&ways);
    options.timers.climb = Duration::from_millis(50);
    options.timers.climb_max = Duration::from_millis(200);
    let (client, mut inbox) = start(options);
    ways.publish();
    messages(&mut inbox, 1..=1).await;
    uses(&client, Transport::Poll).await;
    ways.set(SSE, Way::Open);
    uses(&client, Transport::Sse).await;
    ways.publish();
    messages(&mut inbox, 2..=2).await;
    ways.set(WS, Way::Open);
    uses(&client, Transport::WebSocket).await;
    ways.publish();
    messages(&mut inbox, 3..=3).await;
    ways.until_acked(3).await;
    let asked = ways.asked("GET");
    // It stays there.
    client.ping().await.unwrap();
    ways.publish();
    messages(&mut inbox, 4..=4).await;
    assert_eq!(ways.asked("GET"), asked);
}

#[tokio::test]
async fn the_end_of_a_stream_tries_the_better_way_first() {
    let ways = Ways::start().await;
    ways.set(WS, Way::Status(502));
    let (client, mut inbox) = start(options(&ways));
    ways.publish();
    messages(&mut inbox, 1..=1).await;
    uses(&client, Transport::Sse).await;
    ways.until_acked(1).await;
    ways.write("event: gap\ndata: {\"t\":\"gap\",\"lost\":3}\n\nevent: recall\ndata: {\"t\":\"recall\",\"id\":\"m1\"}\n\n");
    assert_eq!(event(&mut inbox).await, Event::Gap { lost: Some(3) });
    assert_eq!(event(&mut inbox).await, Event::Recall { id: "m1".into() });
    ways.write("retry: 30\nevent: drain\ndata: {\"t\":\"drain\",\"after_ms\":10}\n\n");
    ways.until_asked(SSE, 2).await;
    assert_eq!(ways.asked(WS), 3);
    ways.set(WS, Way::Open);
    ways.write("retry: 30\nevent: drain\ndata: {\"t\":\"drain\",\"after_ms\":10}\n\n");
    uses(&client, Transport::WebSocket).await;
    ways.publish();
    messages(&mut inbox, 2..=2).await;
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_left() {
    let ways = Ways::start().await;
    ways.set_heartbeat(0.05);
    let mut options = options(&ways);
    options.transports = vec![Transport::Sse];
    let (_client, mut inbox) = start(options);
    ways.until_asked(SSE, 3).await;
    ways.publish();
    messages(&mut inbox, 1..=1).await;
}

#[tokio::test]
async fn taken_over_is_the_end() {
    let ways = Ways::start().await;
    let mut only = options(&ways);
    only.transports = vec![Transport::Sse];
    let (client, _inbox) = start(only);
    uses(&client, Transport::Sse).await;
    ways.write("event: taken\ndata: {\"t\":\"taken\"}\n\n");
    assert_eq!(stopped(&client).await, Stop::TakenOver);

    let mut only = options(&ways);
    only.transports = vec![Transport::Poll];
    let (client, _inbox) = start(only);
    uses(&client, Transport::Poll).await;
    ways.supersede();
    assert_eq!(stopped(&client).await, Stop::TakenOver);
}

#[tokio::test]
async fn the_gateways_own_refusals_are_not_of_the_way() {
    for (transport, path) in [(Transport::Sse, SSE), (Transport::Poll, "/v1/poll")] {
        for (status, want) in [
            (401, "cannot be renewed"),
            (403, "blocked"),
            (410, "deleted"),
        ] {
            let ways = Ways::start().await;
            ways.set(path, Way::Problem(status));
            let mut options = options(&ways);
            options.transports = vec![transport];
            let (client, _inbox) = start(options);
            let stop = stopped(&client).await.to_string();
            assert!(stop.contains(want), "{transport} {status}: {stop}");
            assert_eq!(ways.asked(path), 1);
        }
    }
    let ways = Ways::start().await;
    ways.set(WS, Way::Problem(503));
    let (client, _inbox) = start(options(&ways));
    ways.until_asked(WS, 5).await;
    ways.set(WS, Way::Open);
    uses(&client, Transport::WebSocket).await;
    assert_eq!(ways.asked(SSE), 0);
}

#[tokio::test]
async fn what_the_app_keeps_or_gives_back_holds_no_others() {
    for transport in [Transport::Sse, Transport::Poll] {
        let ways = Ways::start().await;
        let mut options = options(&ways);
        options.transports = vec![transport];
        options.ack = AckMode::Manual;
        let (client, mut inbox) = start(options);
        ways.publish();
        ways.publish();
        messages(&mut inbox, 1..=2).await;
        client.ack("m2").await.unwrap();
        ways.until_asked(r#"{"ids":["m2"]}"#, 1).await;
        ways.publish();
        messages(&mut inbox, 3..=3).await;
        client.nack("m1", NackCode::Retry).await.unwrap();
        messages(&mut inbox, 1..=1).await;
        client.ack("m1").await.unwrap();
        client.ack("m3").await.unwrap();
        ways.until_acked(3).await;
        client.close().await;
        assert_eq!(client.stats().messages(), 4, "{transport}");
    }
}

#[tokio::test]
async fn nothing_comes_twice_over_two_ways() {
    let ways = Ways::start().await;
    let mut options = options(&ways);
    options.transports = vec![Transport::Sse];
    ways.set("/v1/acks", Way::Status(500));
    ways.publish();
    let (client, mut inbox) = start(options.clone());
    messages(&mut inbox, 1..=1).await;
    ways.until_asked("POST /v1/acks", 1).await;
    client.close().await;
    options.transports = vec![Transport::Poll];
    let (client, mut inbox) = start(options);
    ways.publish();
    messages(&mut inbox, 2..=2).await;
    ways.until_acked(2).await;
    client.close().await;
}

#[tokio::test]
async fn a_recall_is_told_once_and_acknowledged_over_every_way() {
    for transport in [Transport::WebSocket, Transport::Sse, Transport::Poll] {
        let ways = Ways::start().await;
        let mut options = options(&ways);
        options.transports = vec![transport];
        ways.publish();
        let (client, mut inbox) = start(options.clone());
        messages(&mut inbox, 1..=1).await;
        ways.until_acked(1).await;
        ways.recall(1);
        ways.publish();
        let recall = Event::Recall { id: "m1".into() };
        // Over a poll both may come in one answer: then messages stand first.
        let both = [event(&mut inbox).await, event(&mut inbox).await];
        assert!(both.contains(&recall), "{transport}: {both:?}");
        ways.until_acked(3).await;
        client.close().await;
        // Who was away finds it, and goes on behind it.
        ways.recall(3);
        let (client, mut inbox) = start(options.clone());
        assert_eq!(event(&mut inbox).await, Event::Recall { id: "m3".into() });
        ways.until_acked(4).await;
        client.close().await;
        ways.publish();
        let (client, mut inbox) = start(options);
        messages(&mut inbox, 5..=5).await;
        ways.until_acked(5).await;
        client.close().await;
    }
}

#[tokio::test]
async fn a_poll_with_a_recall_before_a_message_is_taken_as_one() {
    let ways = Ways::start().await;
    let mut options = options(&ways);
    options.transports = vec![Transport::Poll];
    ways.publish();
    let (client, mut inbox) = start(options.clone());
    messages(&mut inbox, 1..=1).await;
    ways.until_acked(1).await;
    client.close().await;
    // In the answer the message stands first.
    ways.recall(1);
    ways.publish();
    ways.publish();
    let (client, mut inbox) = start(options.clone());
    messages(&mut inbox, 3..=4).await;
    assert_eq!(event(&mut inbox).await, Event::Recall { id: "m1".into() });
    ways.until_acked(4).await;
    ways.until_asked("cursor=c4", 1).await;
    assert_eq!(ways.asked("cursor=c2") + ways.asked("cursor=c3"), 0);
    ways.publish();
    messages(&mut inbox, 5..=5).await;
    ways.until_acked(5).await;
    client.close().await;
    // Nothing is handed out twice.
    ways.publish();
    let (client, mut inbox) = start(options);
    messages(&mut inbox, 6..=6).await;
    client.close().await;
}

#[tokio::test]
async fn the_last_word_of_a_stream_says_whether_to_come_back() {
    for (word, want) in [
        ("kicked", "sent away"),
        ("device_deleted", "deleted"),
        ("unauthorized", "cannot be renewed"),
    ] {
        let ways = Ways::start().await;
        let mut options = options(&ways);
        options.transports = vec![Transport::Sse];
        let (client, _inbox) = start(options);
        uses(&client, Transport::Sse).await;
        let error = format!(r#"{{"t":"error","code":"{word}","msg":"so","fatal":true}}"#);
        ways.write(&format!("event: error\ndata: {error}\n\n"));
        let stop = stopped(&client).await.to_string();
        assert!(stop.contains(want), "{word}: {stop}");
        assert_eq!(ways.asked(SSE), 1);
    }
}
