//! A device that changes hands never receives what was meant for the former holder.

use std::time::Duration;

use hongyan_core::Reason;

use crate::world::{World, to_users, user, world};

#[tokio::test]
async fn a_logout_waits_for_the_push_that_is_under_way() {
    let w = world().await;
    let d = w.device("d1", Some("a"), &["alpha"]).await;
    let gate = w.alpha.gate();
    let all = u32::try_from(gate.available_permits()).unwrap();
    let closed = gate.clone().acquire_many_owned(all).await.unwrap();
    let under_way = w.send(to_users(&["a"])).await;
    w.until(|| async { (w.alpha.begun() == 1).then_some(()) })
        .await
        .unwrap();
    // The lane is inside its gate: a login cannot finish before the call has.
    let bindings = w.dispatch.bindings();
    let (app, device) = (w.app.clone(), d.clone());
    let mut login = tokio::spawn(async move { bindings.login(&app, &device, &user("b")).await });
    let early = tokio::time::timeout(Duration::from_millis(200), &mut login).await;
    assert!(early.is_err(), "the push is under way");
    drop(closed);
    login.await.unwrap().unwrap();
    assert_eq!(
        w.alpha.sent().len(),
        1,
        "it had left before the login returned"
    );
    assert!(matches!(
        w.outcome(under_way).await,
        Reason::AcceptedByVendor | Reason::UserLoggedOut
    ));
    assert_eq!(w.alpha.sent().len(), 1);
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
    // What is connected, and what came while the user was taken from it.
    assert_eq!(w.presence.closed(), [d.clone(), d.clone()]);
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

/// What the sessions were told last, and what the registry says.
async fn told_and_stored(
    w: &World,
    device: &hongyan_core::DeviceId,
) -> (Option<hongyan_core::UserId>, Option<hongyan_core::UserId>) {
    let rebound = w.presence.rebound();
    let told = rebound.iter().rfind(|(d, _)| d == device);
    let stored = w
        .ports
        .registry
        .devices(&w.app, std::slice::from_ref(device))
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    (told.unwrap().1.clone(), stored.user)
}

#[tokio::test]
async fn a_login_at_the_moment_when_its_user_is_forgotten_is_the_same_for_session_and_registry() {
    let w = world().await;
    let d1 = w.device("d1", Some("a"), &[]).await;
    let d2 = w.device("d2", None, &[]).await;
    let held = w.trouble.hold("delete_user");
    let (bindings, app) = (w.dispatch.bindings(), w.app.clone());
    let forget = tokio::spawn(async move { bindings.forget_user(&app, &user("a")).await.unwrap() });
    held.reached().await;
    // All devices of the user are unbound by now, and the user is about to go.
    let (bindings, app, device) = (w.dispatch.bindings(), w.app.clone(), d2.clone());
    let mut login = tokio::spawn(async move {
        bindings.login(&app, &device, &user("a")).await.unwrap();
    });
    let _early = tokio::time::timeout(Duration::from_millis(300), &mut login).await;
    held.go_on();
    assert!(forget.await.unwrap());
    w.until(|| async { login.is_finished().then_some(()) })
        .await
        .expect("the login comes to its end");
    for device in [&d1, &d2] {
        let (told, stored) = told_and_stored(&w, device).await;
        assert_eq!(told, stored, "{device}");
    }
    let (told, _) = told_and_stored(&w, &d2).await;
    assert_eq!(told, Some(user("a")), "it began anew");
    let known = w.ports.registry.users(&w.app, &[user("a")]).await.unwrap();
    assert!(known[0].is_some(), "and is known");
}

#[tokio::test]
async fn a_device_that_changed_hands_meanwhile_is_not_unbound_with_its_former_user() {
    let w = world().await;
    let d = w.device("d1", Some("a"), &[]).await;
    let held = w.trouble.hold("devices_of");
    let (bindings, app) = (w.dispatch.bindings(), w.app.clone());
    let forget = tokio::spawn(async move { bindings.forget_user(&app, &user("a")).await.unwrap() });
    held.reached().await;
    held.go_on();
    // Whichever comes first: the device is b's in the end.
    let login = w.dispatch.bindings();
    login.login(&w.app, &d, &user("b")).await.unwrap();
    forget.await.unwrap();
    let (told, stored) = told_and_stored(&w, &d).await;
    assert_eq!((told, stored), (Some(user("b")), Some(user("b"))));
}

#[tokio::test]
async fn the_session_is_told_of_bindings_in_the_order_in_which_they_became_durable() {
    let w = world().await;
    let d = w.device("d1", None, &[]).await;
    let held = w.trouble.hold_one("put_device done");
    let login = |holder: &'static str| {
        let (bindings, app, d) = (w.dispatch.bindings(), w.app.clone(), d.clone());
        tokio::spawn(async move { bindings.login(&app, &d, &user(holder)).await.unwrap() })
    };
    let first = login("a");
    held.reached().await;
    // Durable for a, and the session has not been told when b comes.
    let mut second = login("b");
    let _early = tokio::time::timeout(Duration::from_millis(300), &mut second).await;
    held.go_on();
    first.await.unwrap();
    w.until(|| async { second.is_finished().then_some(()) })
        .await
        .expect("the second login comes to its end");
    let (told, stored) = told_and_stored(&w, &d).await;
    assert_eq!((told, stored), (Some(user("b")), Some(user("b"))));
}
