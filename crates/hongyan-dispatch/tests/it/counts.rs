//! The metric of outcomes, the counters and the ledger's events tell the same.

use std::collections::BTreeMap;
use std::time::Duration;

use hongyan_core::message::{DeliveryMode, Target};
use hongyan_core::port::EventFilter;
use hongyan_core::verdict::Unsure;
use hongyan_core::{Reason, Topic, Verdict};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::world::{NOON, World, to, to_users, world};

/// Outcomes by reason, as the metrics page has them.
fn shown(page: &str) -> BTreeMap<String, u64> {
    let mut shown = BTreeMap::new();
    for line in page.lines() {
        let Some(rest) = line.strip_prefix("hongyan_dispatch_outcomes_total{reason=\"") else {
            continue;
        };
        let (reason, count) = rest.split_once("\"} ").unwrap();
        shown.insert(reason.to_owned(), count.parse().unwrap());
    }
    shown
}

async fn in_events(w: &World) -> BTreeMap<String, u64> {
    let ledger = &w.ports.ledger;
    let events = ledger.events(&w.app, EventFilter::App, 0, 10_000).await;
    let mut ends = BTreeMap::new();
    for event in events.unwrap().into_iter().filter(|e| e.r#final) {
        *ends.entry(event.reason.unwrap().to_string()).or_default() += 1;
    }
    ends
}

async fn in_counters(w: &World) -> BTreeMap<String, u64> {
    let day = NOON.day();
    let rows = w.ports.ledger.counters(&w.app, day, day + 2).await.unwrap();
    let mut ends = BTreeMap::new();
    for row in rows.into_iter().filter(|row| row.key.ends) {
        *ends.entry(row.key.reason.unwrap().to_string()).or_default() += row.count;
    }
    ends
}

#[tokio::test]
async fn metric_counters_and_events_agree_after_mixed_traffic() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let page = recorder.handle();
    let _here = metrics::set_default_local_recorder(&recorder);
    let w = world().await;
    let connected = w.device("c1", Some("c"), &["alpha"]).await;
    w.presence.connect(&w.app, &connected);
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.device("d2", Some("u2"), &[]).await;
    w.device("t1", Some("t"), &["texts"]).await;
    let mut sent = Vec::new();
    // Pushed, without a way, without a device, over the connection.
    sent.push(w.send(to_users(&["u1"])).await);
    sent.push(w.send(to_users(&["u2", "nobody"])).await);
    let online = w.send(to_users(&["c"])).await;
    w.ack(&connected, Some("c"), online).await;
    sent.push(online);
    // Collapsed, recalled before its time, and a topic that nobody has.
    for _ in 0..5 {
        let mut draft = to_users(&["u1", "c"]);
        draft.options.collapse_key = Some("score".into());
        sent.push(w.send(draft).await);
    }
    let mut later = to_users(&["u1", "c"]);
    later.options.send_at = Some(NOON.plus(Duration::from_secs(3600)));
    let later = w.send(later).await;
    w.dispatch.recall().recall(&w.app, later).await.unwrap();
    let nobody = to(Target::Topic(Topic::parse("empty").unwrap()));
    w.send(nobody).await;
    // One whose answer is lost, and one that the vendor refuses.
    w.texts.script([Verdict::Unknown {
        detail: "the connection broke".into(),
    }]);
    let mut once = to_users(&["t"]);
    once.options.delivery = DeliveryMode::OfflineOnly;
    sent.push(w.send(once).await);
    w.alpha.script([Verdict::Retry {
        reason: Reason::VendorUnavailable,
        after: None,
        detail: "503".into(),
        certainty: Unsure::NotTaken,
    }]);
    sent.push(w.send(to_users(&["u1"])).await);
    // Acks that race with the router: what is decided twice is counted once.
    for _ in 0..30 {
        let id = w.send(to_users(&["c"])).await;
        w.ack(&connected, Some("c"), id).await;
        sent.push(id);
    }
    let mut last = BTreeMap::new();
    for round in 0.. {
        assert!(round < 100, "open: {last:?}");
        w.pass(Duration::from_secs(60));
        for id in &sent {
            w.until(|| async { (!w.events(*id).await.is_empty()).then_some(()) })
                .await
                .unwrap();
        }
        let mut open = 0;
        for id in &sent {
            let all = w.ports.ledger.deliveries_of(&w.app, *id, None, 100).await;
            open += all
                .unwrap()
                .iter()
                .filter(|d| d.outcome().is_none())
                .count();
        }
        let ends = in_events(&w).await;
        if open == 0 && ends == last {
            break;
        }
        last = ends;
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let told = in_events(&w).await;
    assert!(told.len() >= 6, "the traffic is mixed: {told:?}");
    assert_eq!(in_counters(&w).await, told, "counters");
    assert_eq!(shown(&page.render()), told, "metric");
}
