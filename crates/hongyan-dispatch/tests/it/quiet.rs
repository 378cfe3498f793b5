//! What waits for the end of quiet hours follows the person when they change them.

use std::time::Duration;

use hongyan_core::message::Target;
use hongyan_core::user::{Preferences, QuietHours};
use hongyan_core::{Class, Reason, Stage, User};

use crate::world::{World, to, to_users, user, world};

async fn prefers(w: &World, preferences: Preferences) {
    let registry = &w.ports.registry;
    let found = registry.users(&w.app, &[user("u1")]).await.unwrap();
    let found = found.into_iter().next().flatten().unwrap();
    let version = found.version;
    let changed = User {
        preferences,
        version: version + 1,
        ..found
    };
    registry.put_user(changed, Some(version)).await.unwrap();
    let holds = w.dispatch.holds();
    holds
        .preferences_changed(&w.app, &user("u1"))
        .await
        .unwrap();
}

/// Quiet now: the clock of these tests begins at noon.
fn quiet_until(end: &str) -> Preferences {
    Preferences {
        quiet_hours: Some(QuietHours {
            start: "11:00".into(),
            end: end.into(),
            classes: vec![Class::Im],
        }),
        timezone: Some("UTC".into()),
        ..Default::default()
    }
}

#[tokio::test]
async fn quiet_hours_that_are_taken_away_let_go_what_they_held() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    prefers(&w, quiet_until("14:00")).await;
    let id = w.send(to_users(&["u1"])).await;
    w.sees(id, "held(quiet_hours)").await;
    prefers(&w, Preferences::default()).await;
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    assert_eq!(w.alpha.sent().len(), 1);
}

#[tokio::test]
async fn what_is_held_follows_quiet_hours_that_move_and_a_class_that_is_muted() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    prefers(&w, quiet_until("14:00")).await;
    let id = w.send(to_users(&["u1"])).await;
    w.sees(id, "held(quiet_hours)").await;
    // Written again as they are: nothing is told twice.
    prefers(&w, quiet_until("14:00")).await;
    prefers(&w, quiet_until("16:00")).await;
    w.until(|| async { (w.count(id, Stage::Held).await == 2).then_some(()) })
        .await
        .expect("held until the new end");
    w.pass(Duration::from_secs(2 * 3600));
    let marker = w.send(to_users(&["nobody"])).await;
    w.outcome(marker).await;
    assert!(w.alpha.sent().is_empty(), "it is still quiet");
    let muted = Preferences {
        muted_classes: vec![Class::Im],
        ..quiet_until("16:00")
    };
    prefers(&w, muted).await;
    assert_eq!(w.outcome(id).await, Reason::PreferenceMuted);
    assert!(w.alpha.sent().is_empty());
}

/// Quiet hours of the app are meant in the zone of each device, whoever holds it.
#[tokio::test]
async fn what_is_held_follows_a_device_that_moves() {
    let w = world().await;
    let d = w.device("d1", None, &["alpha"]).await;
    let registry = &w.ports.registry;
    let found = registry.app(&w.app).await.unwrap().unwrap();
    let mut app = found.clone();
    app.policy.quiet_hours = quiet_until("14:00").quiet_hours;
    app.version += 1;
    registry.put_app(app, Some(found.version)).await.unwrap();
    let id = w.send(to(Target::Devices(vec![d.clone()]))).await;
    w.sees(id, "held(quiet_hours)").await;
    let held = w.count(id, Stage::Held).await;
    w.dispatch
        .holds()
        .timezone_changed(&w.app, &d)
        .await
        .unwrap();
    let found = registry
        .devices(&w.app, std::slice::from_ref(&d))
        .await
        .unwrap();
    let mut moved = found.into_iter().flatten().next().unwrap();
    moved.timezone = Some("America/New_York".into());
    moved.version += 1;
    let version = moved.version - 1;
    registry.put_device(moved, Some(version)).await.unwrap();
    assert_eq!(w.count(id, Stage::Held).await, held);
    w.dispatch
        .holds()
        .timezone_changed(&w.app, &d)
        .await
        .unwrap();
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
}

#[tokio::test]
async fn what_waits_for_something_else_is_left_alone() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    let id = w.send(to_users(&["u1"])).await;
    w.sees(id, "sent_online").await;
    prefers(&w, quiet_until("14:00")).await;
    w.ack(&d, Some("u1"), id).await;
    assert_eq!(w.outcome(id).await, Reason::Delivered);
    assert_eq!(w.count(id, Stage::SentOnline).await, 1);
}
