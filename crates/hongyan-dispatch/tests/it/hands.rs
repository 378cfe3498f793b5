//! A device that changes hands never receives what was meant for the former holder.

use std::time::Duration;

use hongyan_core::Reason;

use crate::world::{to_users, user, world};

#[tokio::test]
async fn a_logout_waits_for_the_push_that_is_under_way() {
    let w = world().await;
    let d = w.device("d1", Some("a"), &["alpha"]).await;
    let gate = w.alpha.gate();
    let all = u32::try_from(gate.available_permits()).unwrap();
    let closed = gate.clone().acquire_many_owned(all).await.unwrap();
    let under_way = w.send(to_users(&["a"])).await;
    w.until(|| async { (w.dispatch.in_flight() == 1).then_some(()) })
        .await
        .unwrap();
    // Once the lane is inside its gate, a logout cannot finish before the call has.
    let bindings = w.dispatch.bindings();
    let (app, device) = (w.app.clone(), d.clone());
    let mut logout = tokio::spawn(async move { bindings.login(&app, &device, &user("b")).await });
    let early = tokio::time::timeout(Duration::from_millis(200), &mut logout).await;
    drop(closed);
    if early.is_err() {
        logout.await.unwrap().unwrap();
    }
    // Either it had left before the logout returned, or it never leaves.
    let sent_by_then = w.alpha.sent().len();
    let outcome = w.outcome(under_way).await;
    match sent_by_then {
        1 => assert!(matches!(
            outcome,
            Reason::AcceptedByVendor | Reason::UserLoggedOut
        )),
        _ => assert_eq!(outcome, Reason::UserLoggedOut),
    }
    assert_eq!(w.alpha.sent().len(), sent_by_then);
}

#[tokio::test]
async fn what_is_queued_for_a_is_not_pushed_to_b() {
    let w = world().await;
    let d = w.device("d1", Some("a"), &["alpha"]).await;
    let gate = w.alpha.gate();
    let all = u32::try_from(gate.available_permits()).unwrap();
    for round in 0..5 {
        let before = w.alpha.sent().len();
        let closed = gate.clone().acquire_many_owned(all).await.unwrap();
        let mut ids = Vec::new();
        for _ in 0..40 {
            ids.push(w.send(to_users(&["a"])).await);
        }
        let bindings = w.dispatch.bindings();
        let (app, device) = (w.app.clone(), d.clone());
        let change =
            tokio::spawn(async move { bindings.login(&app, &device, &user("b")).await.unwrap() });
        w.until(|| async {
            let found = w
                .ports
                .registry
                .devices(&w.app, std::slice::from_ref(&d))
                .await
                .unwrap()
                .remove(0);
            (found.unwrap().user == Some(user("b"))).then_some(())
        })
        .await
        .unwrap();
        drop(closed);
        change.await.unwrap();
        let at_login = w.alpha.sent().len();
        for id in ids {
            let outcome = w.outcome(id).await;
            assert!(
                matches!(
                    outcome,
                    // The last is what routing finds when the user has left before it began.
                    Reason::UserLoggedOut | Reason::AcceptedByVendor | Reason::NoDevice
                ),
                "round {round}: {outcome}"
            );
        }
        assert_eq!(
            w.alpha.sent().len(),
            at_login,
            "nothing of A left after B had logged in"
        );
        assert!(
            at_login - before <= 8,
            "only what was under way: the lane's concurrency"
        );
        w.dispatch
            .bindings()
            .login(&w.app, &d, &user("a"))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_waiting_message_ends_when_its_user_leaves() {
    let w = world().await;
    let d = w.device("d1", Some("a"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    let id = w.send(to_users(&["a"])).await;
    w.sees(id, "sent_online").await;
    w.dispatch.bindings().logout(&w.app, &d).await.unwrap();
    assert_eq!(w.outcome(id).await, Reason::UserLoggedOut);
    assert_eq!(w.presence.rebound().last().unwrap(), &(d.clone(), None));
    // A comes back: it is another binding, the old message stays ended.
    w.dispatch
        .bindings()
        .login(&w.app, &d, &user("a"))
        .await
        .unwrap();
    assert_eq!(w.outcomes(id, 1).await.len(), 1);
    assert!(w.alpha.sent().is_empty());
}

#[tokio::test]
async fn a_kick_closes_and_a_forgotten_device_ends_its_deliveries() {
    let w = world().await;
    let d = w.device("d1", Some("a"), &["alpha"]).await;
    w.presence.connect(&w.app, &d);
    w.dispatch.bindings().kick(&w.app, &d).await.unwrap();
    assert_eq!(w.presence.closed(), std::slice::from_ref(&d));
    w.dispatch
        .bindings()
        .login(&w.app, &d, &user("a"))
        .await
        .unwrap();
    w.presence.connect(&w.app, &d);
    let id = w.send(to_users(&["a"])).await;
    w.sees(id, "sent_online").await;
    assert!(w.dispatch.bindings().forget(&w.app, &d).await.unwrap());
    assert_eq!(w.outcome(id).await, Reason::DeviceDeleted);
    assert!(!w.dispatch.bindings().forget(&w.app, &d).await.unwrap());
}
