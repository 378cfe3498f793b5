//! The moments in between: a caller who hangs up, an ack that comes while a push waits, news that overtakes the router.

use std::time::Duration;

use hongyan_core::message::{DeviceChoice, Target};
use hongyan_core::{Reason, Stage, Verdict};

use crate::world::{channel, to, to_users, user, world};

#[tokio::test]
async fn a_login_is_finished_though_its_caller_hangs_up() {
    let w = world().await;
    for round in 0..10 {
        let d = w.device(&format!("d{round}"), Some("a"), &["alpha"]).await;
        w.presence.connect(&w.app, &d);
        let waiting = w.send(to(Target::Users(vec![user("a")]))).await;
        w.sees(waiting, "sent_online").await;
        let bindings = w.dispatch.bindings();
        let b = user("b");
        {
            let login = bindings.login(&w.app, &d, &b);
            let hung_up = tokio::time::timeout(Duration::ZERO, login).await;
            drop(hung_up);
        }
        let told = || async {
            w.presence
                .rebound()
                .contains(&(d.clone(), Some(user("b"))))
                .then_some(())
        };
        w.until(told).await.expect("the session is told");
        let ended = || async {
            w.events(waiting)
                .await
                .iter()
                .any(|e| e.r#final && e.device.as_ref() == Some(&d))
                .then_some(())
        };
        w.until(ended).await.expect("what waited for a ends");
        // The others of a are out of the way of the next round.
        w.dispatch.bindings().logout(&w.app, &d).await.unwrap();
    }
}

#[tokio::test]
async fn a_repeated_login_tells_the_session_again() {
    let w = world().await;
    let d = w.device("d1", Some("a"), &[]).await;
    let before = w.presence.rebound().len();
    w.dispatch
        .bindings()
        .login(&w.app, &d, &user("a"))
        .await
        .unwrap();
    assert_eq!(w.presence.rebound().len(), before + 1);
    assert_eq!(
        w.presence.rebound().last().unwrap(),
        &(d, Some(user("a"))),
        "an earlier login may have ended before it told the session"
    );
}

#[tokio::test]
async fn nobody_logs_in_while_a_push_for_the_former_holder_is_under_way() {
    let w = world().await;
    let d = w.device("d1", Some("a"), &["alpha"]).await;
    let gate = w.alpha.gate();
    let all = u32::try_from(gate.available_permits()).unwrap();
    let closed = gate.clone().acquire_many_owned(all).await.unwrap();
    w.send(to_users(&["a"])).await;
    w.until(|| async { (w.alpha.begun() == 1).then_some(()) })
        .await
        .unwrap();
    let bindings = w.dispatch.bindings();
    let (app, device) = (w.app.clone(), d.clone());
    let mut logout = tokio::spawn(async move { bindings.logout(&app, &device).await.unwrap() });
    let early = tokio::time::timeout(Duration::from_millis(300), &mut logout).await;
    assert!(early.is_err(), "the push is under way");
    // The registry knows already that nobody holds it; the push is still with the vendor.
    let bindings = w.dispatch.bindings();
    let b = user("b");
    let login = bindings.login(&w.app, &d, &b);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), login)
            .await
            .is_err(),
        "a login must wait like the logout before it"
    );
    let again = bindings.logout(&w.app, &d);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), again)
            .await
            .is_err(),
        "so must a logout that is tried again"
    );
    drop(closed);
    w.dispatch
        .bindings()
        .login(&w.app, &d, &user("c"))
        .await
        .unwrap();
    let sent = w.alpha.sent().len();
    w.until(|| async { (w.dispatch.in_flight() == 0).then_some(()) })
        .await
        .unwrap();
    assert_eq!(w.alpha.sent().len(), sent, "nothing leaves after the login");
}

#[tokio::test]
async fn what_was_acked_while_it_waited_in_the_lane_is_not_pushed() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    w.device("d2", Some("u2"), &["alpha"]).await;
    let gate = w.alpha.gate();
    let all = u32::try_from(gate.available_permits()).unwrap();
    let closed = gate.clone().acquire_many_owned(all).await.unwrap();
    let mut busy = Vec::new();
    for _ in 0..8 {
        busy.push(w.send(to_users(&["u2"])).await);
    }
    for id in &busy {
        w.with_a_lane(*id).await;
    }
    let id = w.send(to_users(&["u1"])).await;
    w.with_a_lane(id).await;
    w.ack(&d, Some("u1"), id).await;
    assert_eq!(w.outcome(id).await, Reason::Delivered);
    drop(closed);
    for id in busy {
        assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    }
    w.until(|| async { (w.dispatch.in_flight() == 0).then_some(()) })
        .await
        .expect("nothing stays in flight");
    // One more through the same lane: all that was before it has been looked at.
    let last = w.send(to_users(&["u2"])).await;
    w.outcome(last).await;
    assert!(w.alpha.sent().iter().all(|s| s.message != id));
}

#[tokio::test]
async fn a_next_channel_is_tried_at_once() {
    let w = world().await;
    for i in 0..30 {
        let (id, holder) = (format!("d{i}"), format!("u{i}"));
        w.device(&id, Some(&holder), &["alpha", "beta"]).await;
    }
    w.alpha.always(Some(Verdict::TokenDead {
        reason: Reason::TokenInvalid,
        detail: "410".into(),
        since: None,
    }));
    // The clock stands: whoever had to wait for the end of a lease would wait for ever.
    let mut ids = Vec::new();
    for i in 0..30 {
        ids.push(w.send(to_users(&[&format!("u{i}")])).await);
    }
    for id in ids {
        assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    }
    w.until(|| async { (w.dispatch.in_flight() == 0).then_some(()) })
        .await
        .expect("nothing stays in flight");
}

#[tokio::test]
async fn what_moved_on_is_planned_though_feedback_has_not_noticed_yet() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha", "beta"]).await;
    w.alpha.script([Verdict::TokenDead {
        reason: Reason::TokenInvalid,
        detail: "410".into(),
        since: None,
    }]);
    let gate = w.alpha.gate();
    let all = u32::try_from(gate.available_permits()).unwrap();
    let closed = gate.clone().acquire_many_owned(all).await.unwrap();
    let id = w.send(to_users(&["u1"])).await;
    w.until(|| async { (w.alpha.begun() == 1).then_some(()) })
        .await
        .expect("the call has begun");
    // The next commit is the answer: durable, and still counted as being with the lane.
    let held = w.trouble.hold_one("commit done");
    drop(closed);
    held.reached().await;
    w.until(|| async { (w.beta.sent().len() == 1).then_some(()) })
        .await
        .expect("the next channel is tried; the clock stands, so that no lease ends");
    held.go_on();
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    w.until(|| async { (w.dispatch.in_flight() == 0).then_some(()) })
        .await
        .expect("nothing stays in flight");
}

#[tokio::test]
async fn a_first_ack_that_overtakes_the_router_is_enough_too() {
    let w = world().await;
    let (one, two) = (
        w.device("d1", Some("u1"), &["alpha"]).await,
        w.device("d2", Some("u1"), &["alpha"]).await,
    );
    w.presence.connect(&w.app, &one);
    w.presence.connect(&w.app, &two);
    for _ in 0..20 {
        let mut draft = to_users(&["u1"]);
        draft.options.devices = DeviceChoice::FirstAck;
        let id = w.send(draft).await;
        w.ack(&one, Some("u1"), id).await;
        let outcomes = w.outcomes(id, 2).await;
        assert_eq!(
            outcomes,
            [
                ("d1".to_owned(), Reason::Delivered),
                ("d2".to_owned(), Reason::Cancelled)
            ]
        );
    }
}

#[tokio::test]
async fn a_late_ack_is_told_of_the_user_who_made_it() {
    let w = world().await;
    let d = w.device("d1", None, &["alpha"]).await;
    let id = w.send(to_users(&["a"])).await;
    assert_eq!(w.outcome(id).await, Reason::NoDevice);
    w.dispatch
        .bindings()
        .login(&w.app, &d, &user("b"))
        .await
        .unwrap();
    w.ack(&d, Some("a"), id).await;
    w.sees(id, "delivered").await;
    let delivered = w
        .events(id)
        .await
        .into_iter()
        .find(|e| e.stage == Stage::Delivered)
        .unwrap();
    assert_eq!(delivered.user, Some(user("a")));
}

#[tokio::test]
async fn a_text_that_a_vendor_cuts_is_told() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let mut draft = to_users(&["u1"]);
    draft.notification.as_mut().unwrap().title = "鸿雁".repeat(70);
    let id = w.send(draft).await;
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    let cut = w
        .events(id)
        .await
        .into_iter()
        .find(|e| e.stage == Stage::Truncated)
        .expect("the truncation is told");
    assert_eq!(cut.reason, Some(Reason::Truncated));
    assert_eq!(cut.channel, Some(channel("alpha")));
    assert_eq!(cut.detail.as_deref(), Some("title 140 to 100"));
    assert!(!cut.r#final);
}

#[tokio::test]
async fn who_is_named_twice_is_meant_once() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    let id = w.send(to_users(&["u1", "u1", "u1"])).await;
    assert_eq!(w.outcomes(id, 1).await.len(), 1);
    let page = w.inbox(&d, "u1").await;
    assert_eq!(page.entries.len(), 1);
}

#[tokio::test]
async fn a_recall_waits_for_the_call_under_way_and_stops_the_rest() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let gate = w.alpha.gate();
    let all = u32::try_from(gate.available_permits()).unwrap();
    let closed = gate.clone().acquire_many_owned(all).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..12 {
        let id = w.send(to_users(&["u1"])).await;
        w.with_a_lane(id).await;
        ids.push(id);
    }
    let last = ids[11];
    let recall = w.dispatch.recall();
    let app = w.app.clone();
    let recalled = tokio::spawn(async move { recall.recall(&app, last).await.unwrap() });
    w.sees(last, "recalled").await;
    drop(closed);
    assert_eq!(recalled.await.unwrap().stopped, 1);
    assert_eq!(w.outcome(last).await, Reason::Recalled);
    for id in &ids[..11] {
        assert_eq!(w.outcome(*id).await, Reason::AcceptedByVendor);
    }
    assert!(
        w.alpha.sent().iter().all(|s| s.message != last),
        "it waited behind eight calls and never left"
    );
}

#[tokio::test]
async fn what_a_call_under_way_brings_is_withdrawn_after_it() {
    let w = world().await;
    let d = w.device("d1", Some("u1"), &["alpha"]).await;
    let gate = w.alpha.gate();
    let all = u32::try_from(gate.available_permits()).unwrap();
    let closed = gate.clone().acquire_many_owned(all).await.unwrap();
    let id = w.send(to_users(&["u1"])).await;
    w.until(|| async { (w.alpha.begun() == 1).then_some(()) })
        .await
        .expect("the call has begun");
    let (recall, app) = (w.dispatch.recall(), w.app.clone());
    let mut recalled = tokio::spawn(async move { recall.recall(&app, id).await.unwrap() });
    let early = tokio::time::timeout(Duration::from_millis(300), &mut recalled).await;
    assert!(early.is_err(), "it waits for the call");
    assert!(
        w.alpha.withdrawn().is_empty(),
        "there is nothing to withdraw"
    );
    drop(closed);
    assert_eq!(recalled.await.unwrap().stopped, 1);
    assert_eq!(w.alpha.sent().len(), 1);
    assert_eq!(w.alpha.withdrawn(), [(id, d)]);
    assert_eq!(w.outcome(id).await, Reason::Recalled);
}
