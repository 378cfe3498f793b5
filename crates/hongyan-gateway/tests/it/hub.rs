//! What other rooms ask of the hub.

use std::time::Duration;

use hongyan_core::port::{Owner, Presence};
use hongyan_core::session::AppState;
use hongyan_gateway::{Busy, Options};
use serde_json::json;

use crate::client::bodies;
use crate::rig::{FAR, Rig};
use crate::store::{app, device, user};

#[test]
fn presence_knows_who_is_connected() {
    let rig = Rig::new();
    let names = [device("d"), device("e")];
    assert_eq!(rig.hub.sessions(&app(), &names), [None, None]);
    let mut client = rig.connect();
    client.hello("d", json!({"state": "background"}));
    let found = rig.hub.sessions(&app(), &names);
    assert_eq!(found[0].as_ref().unwrap().state, AppState::Background);
    assert_eq!(found[1], None);
    client.expect("idle");
    client.say(json!({"t": "state", "state": "foreground"}));
    rig.until("in front", || {
        rig.hub.sessions(&app(), &names)[0].as_ref().unwrap().state == AppState::Foreground
    });
}

#[test]
fn a_rebound_session_gets_nothing_of_the_former_user() {
    let rig = Rig::new();
    let mut client = rig.live("d");
    client.expect("idle");
    for round in 0..50 {
        let (from, to) = if round % 2 == 0 {
            ("u", "v")
        } else {
            ("v", "u")
        };
        rig.publish(from, &format!("{from}{round}"));
        rig.store.bind("d", Some(to));
        rig.runtime
            .block_on(rig.hub.rebind(&app(), &device("d"), Some(user(to))));
        // From here on nothing of the former user may leave: what is published now and was hinted
        // before comes for the new user only.
        client.say(json!({"t": "ping", "n": round}));
        while client.hear()["t"] != "pong" {}
        rig.publish(from, "never");
        rig.publish(to, &format!("{to}{round}"));
        loop {
            let value = client.hear();
            if value["t"] == "msg" {
                let body = value["notification"]["body"].as_str().unwrap();
                assert!(body.starts_with(to), "{body} for {to}");
                client.say(json!({"t": "ack", "upto": value["cursor"]}));
                if body == format!("{to}{round}") {
                    break;
                }
            }
        }
        // What is left of "never" belongs to the next round's user: read it away.
        let left = rig.store.unread("d", Some(from));
        assert!(left > 0);
        rig.store.bind("d", Some(to));
        rig.until("acked", || rig.store.unread("d", Some(to)) == 0);
        drain_store(&rig, from);
    }
    rig.runtime
        .block_on(rig.hub.rebind(&app(), &device("d"), None));
    rig.publish("u", "never");
    rig.store.append(Owner::Device(device("d")), "own", FAR);
    rig.hint(Owner::Device(device("d")));
    loop {
        let value = client.hear();
        if value["t"] == "msg" {
            assert_eq!(value["notification"]["body"], "own");
            break;
        }
    }
}

/// Acks everything of a user for the device, behind the gateway's back.
fn drain_store(rig: &Rig, name: &str) {
    use hongyan_core::port::{Ack, Inbox, Reader};
    let reader = Reader {
        app: app(),
        device: device("d"),
        user: Some(user(name)),
    };
    rig.runtime.block_on(async {
        let head = rig.store.head(&reader).await.unwrap();
        rig.store
            .ack(&reader, Ack::Upto(head), hongyan_core::Timestamp(0))
            .await
            .unwrap();
    });
}

#[test]
fn a_deleted_device_is_closed() {
    let rig = Rig::new();
    let mut client = rig.live("d");
    rig.runtime
        .block_on(rig.hub.disconnect(&app(), &device("d")));
    assert!(rig.hub.is_empty());
    assert_eq!(client.closed(), 4410);
}

/// Another app may get the name.
#[test]
fn all_sessions_of_a_deleted_app_are_closed() {
    let rig = Rig::new();
    rig.store.add_device("e", Some("v"));
    let mut clients = [rig.live("d"), rig.live("e")];
    rig.runtime.block_on(async {
        rig.hub
            .disconnect_app(&hongyan_core::AppId::parse("other").unwrap())
            .await;
        assert_eq!(rig.hub.len(), 2);
        rig.hub.disconnect_app(&app()).await;
    });
    assert!(rig.hub.is_empty());
    for client in &mut clients {
        client.expect("idle");
        assert_eq!(client.closed(), 4410);
    }
}

#[test]
fn a_recall_is_told_and_not_sent_again() {
    let rig = Rig::new();
    let mut client = rig.live("d");
    client.expect("idle");
    let id = rig.publish("u", "a");
    client.expect("msg");
    rig.store.mark_recalled(id);
    rig.hub.recall(&app(), &Owner::User(user("u")), id);
    assert_eq!(client.expect("recall")["id"], id.to_string());
}

#[test]
fn broadcasts_reach_all_sessions_of_both_reactors() {
    let rig = Rig::new();
    let mut clients = Vec::new();
    for n in 0..40 {
        rig.store.add_device(&format!("d{n}"), None);
        let mut client = rig.live(&format!("d{n}"));
        client.expect("idle");
        clients.push(client);
    }
    rig.store.append(
        Owner::Audience(hongyan_core::message::Audience::All),
        "all",
        FAR,
    );
    rig.hint(Owner::Audience(hongyan_core::message::Audience::All));
    for client in &mut clients {
        assert_eq!(bodies(&[client.expect("msg")]), ["all"]);
    }
}

#[test]
fn drain_tells_and_closes_everybody() {
    let rig = Rig::new();
    let mut clients = Vec::new();
    for n in 0..10 {
        rig.store.add_device(&format!("d{n}"), None);
        clients.push(rig.live(&format!("d{n}")));
    }
    let hub = rig.hub.clone();
    let drained = rig
        .runtime
        .spawn(async move { hub.drain(Duration::from_secs(4)).await });
    for client in &mut clients {
        client.expect("idle");
        assert_eq!(client.expect("drain")["after_ms"], 4000);
    }
    let codes = std::thread::scope(|scope| {
        let readers: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(|| client.closed()))
            .collect();
        rig.until("all are gone", || {
            rig.advance(Duration::from_millis(100));
            rig.hub.stats().sockets == 0
        });
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert_eq!(codes, [1001; 10]);
    rig.runtime.block_on(drained).unwrap();
}

#[test]
fn stopping_closes_and_releases_whoever_waits() {
    let mut rig = Rig::new();
    let mut client = rig.live("d");
    client.expect("idle");
    rig.stop();
    assert_eq!(client.close_code(), 1001);
    rig.runtime
        .block_on(rig.hub.rebind(&app(), &device("d"), None));
    rig.runtime
        .block_on(rig.hub.disconnect(&app(), &device("d")));
}

#[test]
fn strangers_are_bounded() {
    let rig = Rig::with(Options {
        half_open_per_ip_max: 2,
        ..Options::default()
    });
    let ip = "127.0.0.1".parse().unwrap();
    let _one = rig.connect();
    let mut two = rig.connect();
    assert_eq!(rig.handle.admit(ip).unwrap_err(), Busy::Address);
    two.hello("d", json!({}));
    assert!(
        rig.handle.admit(ip).is_ok(),
        "who said hello counts no more"
    );
}

#[test]
fn five_thousand_half_open_sockets_leave_nothing_behind() {
    let rig = Rig::new();
    for _ in 0..10 {
        let clients: Vec<_> = (0..500).map(|_| rig.connect()).collect();
        rig.until("all are in", || rig.hub.stats().half_open == 500);
        drop(clients);
        rig.until("all are out", || rig.hub.stats().sockets == 0);
        assert_eq!(rig.hub.stats().half_open, 0);
    }
}
