//! What dispatch does when the store fails it, or a record is damaged.

use std::time::Duration;

use hongyan_core::message::Target;
use hongyan_core::port::Clock;
use hongyan_core::{Reason, Stage};

use crate::world::{channel, to, to_users, user, world};

#[tokio::test]
async fn a_damaged_delivery_ends_and_the_answers_of_others_are_applied() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    let damaged = w.send(to_users(&["u1"])).await;
    let sound = w.send(to_users(&["u1"])).await;
    w.sees(damaged, "sent_online").await;
    w.sees(sound, "sent_online").await;
    w.trouble.damage(damaged);
    let both = hongyan_core::session::SessionEvent {
        app: w.app.clone(),
        device: d.clone(),
        user: Some(user("u1")),
        what: hongyan_core::session::SessionSaid::Acked(vec![damaged, sound]),
    };
    hongyan_core::port::SessionSink::accept(w.dispatch.feedback(), vec![both]).await;
    assert_eq!(w.outcome(sound).await, Reason::Delivered);
    assert_eq!(w.outcome(damaged).await, Reason::RecordUnreadable);
    let jobs = w.ports.work.of_message(&w.app, damaged, 9).await.unwrap();
    assert!(jobs.is_empty(), "nothing of it comes again");
    // And the way is free.
    let next = w.send(to_users(&["u1"])).await;
    w.sees(next, "sent_online").await;
    w.ack(&d, Some("u1"), next).await;
    assert_eq!(w.outcome(next).await, Reason::Delivered);
}

#[tokio::test]
async fn a_damaged_delivery_ends_when_it_comes_due() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    let damaged = w.send(to_users(&["u1"])).await;
    let sound = w.send(to_users(&["u1"])).await;
    w.sees(damaged, "sent_online").await;
    w.sees(sound, "sent_online").await;
    w.trouble.damage(damaged);
    w.pass(Duration::from_secs(5));
    assert_eq!(w.outcome(sound).await, Reason::AcceptedByVendor);
    assert_eq!(w.outcome(damaged).await, Reason::RecordUnreadable);
    let jobs = w.ports.work.of_message(&w.app, damaged, 9).await.unwrap();
    assert!(jobs.is_empty(), "nothing of it comes again");
}

#[tokio::test]
async fn a_damaged_delivery_does_not_keep_a_logout_from_ending_the_others() {
    let w = world().await;
    let d = w.device("d1", Some("a"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    let damaged = w.send(to_users(&["a"])).await;
    let sound = w.send(to_users(&["a"])).await;
    w.sees(damaged, "sent_online").await;
    w.sees(sound, "sent_online").await;
    w.trouble.damage(damaged);
    w.dispatch.bindings().logout(&w.app, &d).await.unwrap();
    assert_eq!(w.outcome(sound).await, Reason::UserLoggedOut);
}

#[tokio::test]
async fn a_logout_ends_every_open_delivery() {
    let w = world().await;
    let d = w.device("d1", Some("a"), &[]).await;
    w.presence.connect(&w.app, &d);
    let drafts = || vec![to_users(&["a"]); 600];
    let mut ids = Vec::new();
    for _ in 0..2 {
        let accepted = w.dispatch.intake().accept(&w.app, drafts(), None).await;
        ids.extend(accepted.unwrap().ids);
    }
    for id in &ids {
        w.sees(*id, "sent_online").await;
    }
    w.dispatch.bindings().logout(&w.app, &d).await.unwrap();
    // The clock stands: none of them comes due by itself.
    for id in ids {
        assert_eq!(w.outcome(id).await, Reason::UserLoggedOut);
    }
}

#[tokio::test]
async fn what_the_store_refused_is_planned_when_it_is_back() {
    let w = world().await;
    for i in 0..20 {
        let (id, holder) = (format!("d{i}"), format!("u{i}"));
        w.device(&id, Some(&holder), &["alpha"]).await;
    }
    for call in ["devices_of", "deliveries", "commit", "lease"] {
        let (begin, noted) = (w.trouble.calls(call), w.clock.now());
        let mut ids = Vec::new();
        // Intake shares the commit with the router: what it has accepted is what counts.
        for i in 0..20 {
            ids.push(w.send(to_users(&[&format!("u{i}")])).await);
            if i == 0 {
                w.trouble.fail(call, 4);
            }
            if call == "commit" {
                break;
            }
        }
        let settled = |id| {
            let (w, noted) = (&w, noted);
            async move {
                // What was handed back comes again after a second of the clock. Its lease would end after a minute.
                if w.clock.now().since(noted) < Duration::from_secs(30) {
                    w.pass(Duration::from_millis(50));
                }
                let events = w.events(id).await;
                events.iter().find(|e| e.r#final).and_then(|e| e.reason)
            }
        };
        let sent = w.alpha.sent().len();
        for id in &ids {
            let outcome = w.until(|| settled(*id)).await;
            assert_eq!(outcome, Some(Reason::AcceptedByVendor), "{call}");
            let copies = w.alpha.sent().iter().filter(|s| s.message == *id).count();
            assert_eq!(copies, 1, "{call}: sent once");
        }
        assert!(w.alpha.sent().len() >= sent);
        let calls = w.trouble.calls(call) - begin;
        assert!(calls < 2_000, "{call}: {calls} calls are a spin");
    }
}

#[tokio::test]
async fn a_router_without_a_store_waits_between_its_tries() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.trouble.fail("lease", usize::MAX);
    let begin = w.trouble.calls("lease");
    let id = w.send(to_users(&["u1"])).await;
    // Five tries a quarter of a second apart; each wake-up may bring one more.
    let tried = || async { (w.trouble.calls("lease") >= begin + 5).then_some(()) };
    let start = tokio::time::Instant::now();
    w.until(tried).await.expect("it goes on trying");
    assert!(
        start.elapsed() >= Duration::from_millis(500),
        "it does not spin"
    );
    w.trouble.fail("lease", 0);
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
}

#[tokio::test]
async fn an_ack_from_outside_the_audience_makes_no_delivery() {
    let w = world().await;
    let news = hongyan_core::Topic::parse("news").unwrap();
    let inside = w.device("inside", None, &[]).await;
    let outside = w.device("outside", None, &[]).await;
    let subscribers = std::slice::from_ref(&inside);
    w.ports
        .registry
        .subscribe(&w.app, &news, subscribers)
        .await
        .unwrap();
    // The router does not come to it: what is told comes from the acks alone.
    let held = w.trouble.hold("lease");
    held.reached().await;
    let to_topic = w.send(to(Target::Topic(news))).await;
    let to_all = w.send(to(Target::All)).await;
    w.pass(Duration::from_secs(1));
    let late = w.device("late", None, &[]).await;
    for id in [to_topic, to_all] {
        w.ack(&outside, None, id).await;
        w.ack(&late, None, id).await;
        w.ack(&inside, None, id).await;
    }
    let told = |id, device| {
        let w = &w;
        async move {
            let events = w.events(id).await;
            events
                .iter()
                .any(|e| e.stage == Stage::Delivered && e.device.as_ref() == Some(device))
                .then_some(())
        }
    };
    w.until(|| told(to_topic, &inside)).await.expect("told");
    w.until(|| told(to_all, &inside)).await.expect("told");
    assert!(told(to_all, &outside).await.is_some());
    assert!(told(to_topic, &outside).await.is_none(), "not subscribed");
    assert!(told(to_topic, &late).await.is_none(), "not subscribed");
    assert!(told(to_all, &late).await.is_none(), "came after it");
    for id in [to_topic, to_all] {
        let all = w
            .ports
            .ledger
            .deliveries_of(&w.app, id, None, 9)
            .await
            .unwrap();
        assert!(all.iter().all(|d| d.device != late));
    }
    held.go_on();
}

#[tokio::test]
async fn somebody_else_does_not_end_what_is_open() {
    let w = world().await;
    let d = w.device("d1", Some("a"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    let id = w.send(to_users(&["a"])).await;
    w.sees(id, "sent_online").await;
    w.ack(&d, Some("b"), id).await;
    let marker = w.send(to_users(&["a"])).await;
    w.sees(marker, "sent_online").await;
    w.ack(&d, Some("a"), marker).await;
    assert_eq!(w.outcome(marker).await, Reason::Delivered);
    assert!(!w.events(id).await.iter().any(|e| e.r#final));
    w.ack(&d, Some("a"), id).await;
    assert_eq!(w.outcome(id).await, Reason::Delivered);
}

#[tokio::test]
async fn a_credential_that_is_written_again_is_not_the_one_from_before() {
    let w = world().await;
    let (alpha, name) = (
        channel("alpha"),
        hongyan_core::CredentialName::parse("other").unwrap(),
    );
    let credentials = w.dispatch.credentials().clone();
    let new = |rate| hongyan_dispatch::credentials::NewCredential {
        config: serde_json::json!({ "secret": format!("{rate}") }),
        endpoint: None,
        limits: hongyan_core::app::LaneLimits {
            rate_per_s: Some(rate),
            ..Default::default()
        },
    };
    credentials
        .put(&w.app, &alpha, &name, new(1))
        .await
        .unwrap();
    let first = credentials.open(&w.app, &alpha, &name).await.unwrap();
    // Deleted and written again in the same millisecond, with the same version, by somebody who could not tell us: what an
    // opening under way leaves behind.
    let registry = &w.ports.registry;
    registry
        .delete_credential(&w.app, &alpha, &name)
        .await
        .unwrap();
    credentials
        .put(&w.app, &alpha, &name, new(2))
        .await
        .unwrap();
    let second = credentials.open(&w.app, &alpha, &name).await.unwrap();
    assert_eq!(second.limits.rate_per_s, Some(2));
    assert_ne!(first.generation, second.generation);
    let again = credentials.open(&w.app, &alpha, &name).await.unwrap();
    assert_eq!(again.generation, second.generation, "opened once");
}

#[tokio::test]
async fn a_damaged_subscriber_does_not_keep_a_topic_from_the_others() {
    let w = world().await;
    let news = hongyan_core::Topic::parse("news").unwrap();
    let mut subscribers = Vec::new();
    for i in 0..5 {
        subscribers.push(w.device(&format!("d{i}"), None, &["alpha"]).await);
    }
    let registry = &w.ports.registry;
    registry
        .subscribe(&w.app, &news, &subscribers)
        .await
        .unwrap();
    w.trouble.damage_device(&subscribers[2]);
    let id = w.send(to(Target::Topic(news))).await;
    let outcomes = w.outcomes(id, 5).await;
    let reached = |(_, reason): &&(String, Reason)| *reason == Reason::AcceptedByVendor;
    assert_eq!(outcomes.iter().filter(reached).count(), 4, "{outcomes:?}");
}

#[tokio::test]
async fn a_login_ends_what_its_former_user_waited_for_though_the_user_is_not_remembered() {
    let w = world().await;
    let d = w.device("d1", Some("a"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    let id = w.send(to_users(&["a"])).await;
    w.sees(id, "sent_online").await;
    w.trouble.fail("put_user", 1);
    let bindings = w.dispatch.bindings();
    let refused = bindings.login(&w.app, &d, &user("b")).await;
    assert!(refused.is_err(), "the caller tries again");
    assert_eq!(w.outcome(id).await, Reason::UserLoggedOut);
    bindings.login(&w.app, &d, &user("b")).await.unwrap();
    let known = w.ports.registry.users(&w.app, &[user("b")]).await.unwrap();
    assert!(known[0].is_some());
}
