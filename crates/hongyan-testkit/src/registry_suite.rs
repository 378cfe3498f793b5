//! The promises of [`Registry`](hongyan_core::port::Registry).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is how a case fails"
)]

use std::time::Duration;

use hongyan_core::app::{Credential, Key, KeyKind};
use hongyan_core::device::TokenState;
use hongyan_core::port::ENDPOINT_GONE_TTL;
use hongyan_core::{Device, PushChannel, PushEndpoint, Reason, StoreError, User};

use crate::sample::*;
use crate::suite::{Subject, cases};

cases! { $ registry_suite:
    a_write_is_seen_and_survives_a_restart,
    a_stale_version_is_refused_and_changes_nothing,
    a_token_moves_to_the_device_that_gave_it_last,
    a_token_given_up_is_free,
    only_the_exact_token_is_killed,
    a_device_moves_between_users,
    a_device_is_found_by_its_newest_secret_only,
    a_deleted_device_frees_what_it_had,
    a_deleted_user_leaves_their_devices_unbound,
    a_deleted_app_takes_everything_along,
    pages_are_in_id_order,
    an_import_needs_no_versions,
    a_touch_moves_last_seen_forward_only,
    a_repeated_subscription_keeps_its_beginning,
    keys_are_found_by_hash_until_deleted,
    credentials_are_kept_by_channel_and_name,
    apps_do_not_see_each_other,
    an_endpoint_is_found_by_its_hash_and_its_channel,
    a_new_endpoint_of_a_channel_ends_the_former,
    an_ended_endpoint_is_remembered_for_its_time,
    endpoints_end_with_their_device_and_their_app,
}

async fn a_write_is_seen_and_survives_a_restart(subject: &mut dyn Subject) {
    let registry = subject.ports().registry;
    registry.put_app(app_record("app", 1), None).await.unwrap();
    let mut phone = device_of("d1", "u1");
    phone.tokens = vec![token("fcm", "t1")];
    registry.put_device(phone.clone(), None).await.unwrap();
    let user = User {
        app: app(),
        id: user_id("u1"),
        attributes: Default::default(),
        preferences: Default::default(),
        created_at: NOW,
        version: 1,
    };
    registry.put_user(user.clone(), None).await.unwrap();
    drop(registry);
    for _ in 0..2 {
        let registry = subject.ports().registry;
        assert_eq!(
            registry.app(&app()).await.unwrap(),
            Some(app_record("app", 1))
        );
        let ids = [device_id("d1"), device_id("d2")];
        let devices = registry.devices(&app(), &ids).await.unwrap();
        assert_eq!(devices, [Some(phone.clone()), None]);
        let users = registry
            .users(&app(), &[user_id("u2"), user_id("u1")])
            .await;
        assert_eq!(users.unwrap(), [None, Some(user.clone())]);
        let of = registry
            .devices_of(&app(), &[user_id("u2"), user_id("u1")])
            .await;
        assert_eq!(of.unwrap(), [vec![], vec![phone.clone()]]);
        drop(registry);
        subject.restart().await;
    }
}

async fn a_stale_version_is_refused_and_changes_nothing(subject: &mut dyn Subject) {
    let registry = subject.ports().registry;
    let first = device("d1");
    registry.put_device(first.clone(), None).await.unwrap();
    let again = registry.put_device(first.clone(), None).await;
    assert!(
        matches!(again, Err(StoreError::Conflict { .. })),
        "{again:?}"
    );
    let mut second = device_of("d1", "u1");
    second.version = 2;
    let stale = registry.put_device(second.clone(), Some(7)).await;
    assert!(
        matches!(stale, Err(StoreError::Conflict { .. })),
        "{stale:?}"
    );
    let stored = registry.devices(&app(), &[device_id("d1")]).await.unwrap();
    assert_eq!(stored, [Some(first)]);
    assert!(registry.devices_of(&app(), &[user_id("u1")]).await.unwrap()[0].is_empty());
    registry.put_device(second, Some(1)).await.unwrap();
    registry.put_app(app_record("app", 1), None).await.unwrap();
    let stale = registry.put_app(app_record("app", 2), None).await;
    assert!(
        matches!(stale, Err(StoreError::Conflict { .. })),
        "{stale:?}"
    );
    registry
        .put_app(app_record("app", 2), Some(1))
        .await
        .unwrap();
}

async fn a_token_moves_to_the_device_that_gave_it_last(subject: &mut dyn Subject) {
    let registry = subject.ports().registry;
    for id in ["d1", "d2"] {
        let mut phone = device(id);
        phone.tokens = vec![token("fcm", "same")];
        registry.put_device(phone, None).await.unwrap();
    }
    let holder = registry
        .device_by_token(&app(), &channel("fcm"), "same")
        .await;
    assert_eq!(holder.unwrap(), Some(device_id("d2")));
    let stored = registry.devices(&app(), &[device_id("d1")]).await.unwrap();
    let former = stored[0].as_ref().unwrap();
    let reason = Reason::TokenInvalid;
    assert_eq!(former.tokens[0].state, TokenState::Dead { reason, at: NOW });
    assert!(former.version > 1, "whoever read it before must notice");
    let other = registry
        .device_by_token(&app(), &channel("apns"), "same")
        .await;
    assert_eq!(other.unwrap(), None);
}

async fn a_token_given_up_is_free(subject: &mut dyn Subject) {
    let registry = subject.ports().registry;
    let mut phone = device("d1");
    phone.tokens = vec![token("fcm", "old")];
    registry.put_device(phone.clone(), None).await.unwrap();
    phone.tokens = vec![token("fcm", "new")];
    phone.version = 2;
    registry.put_device(phone, Some(1)).await.unwrap();
    let fcm = channel("fcm");
    assert_eq!(
        registry.device_by_token(&app(), &fcm, "old").await.unwrap(),
        None
    );
    let new = registry.device_by_token(&app(), &fcm, "new").await.unwrap();
    assert_eq!(new, Some(device_id("d1")));
}

async fn only_the_exact_token_is_killed(subject: &mut dyn Subject) {
    let registry = subject.ports().registry;
    let mut phone = device("d1");
    phone.tokens = vec![token("fcm", "t1")];
    registry.put_device(phone, None).await.unwrap();
    let (app, id, fcm) = (app(), device_id("d1"), channel("fcm"));
    let kill = |text: &'static str| {
        registry.kill_token(&app, &id, &fcm, text, Reason::TokenInvalid, at(5))
    };
    assert!(!kill("t0").await.unwrap());
    assert!(kill("t1").await.unwrap());
    assert!(!kill("t1").await.unwrap(), "it is dead already");
    let stored = registry
        .devices(&app, std::slice::from_ref(&id))
        .await
        .unwrap();
    assert!(!stored[0].as_ref().unwrap().tokens[0].is_active());
    assert_eq!(
        registry.device_by_token(&app, &fcm, "t1").await.unwrap(),
        None
    );
}

async fn a_device_moves_between_users(subject: &mut dyn Subject) {
    let registry = subject.ports().registry;
    registry
        .put_device(device_of("d1", "u1"), None)
        .await
        .unwrap();
    let moved = Device {
        binding: 2,
        version: 2,
        ..device_of("d1", "u2")
    };
    registry.put_device(moved.clone(), Some(1)).await.unwrap();
    let users = [user_id("u1"), user_id("u2")];
    let of = registry.devices_of(&app(), &users).await.unwrap();
    assert_eq!(of, [vec![], vec![moved]]);
    let unbound = Device {
        binding: 3,
        version: 3,
        ..device("d1")
    };
    registry.put_device(unbound, Some(2)).await.unwrap();
    let of = registry.devices_of(&app(), &users).await.unwrap();
    assert_eq!(of, [vec![], vec![]]);
}

async fn a_device_is_found_by_its_newest_secret_only(subject: &mut dyn Subject) {
    let registry = subject.ports().registry;
    registry.put_device(device("d1"), None).await.unwrap();
    let old = device("d1").secret_hash;
    assert!(registry.device_by_secret(&old).await.unwrap().is_some());
    let renewed = Device {
        secret_hash: [9; 32],
        version: 2,
        ..device("d1")
    };
    registry.put_device(renewed.clone(), Some(1)).await.unwrap();
    assert_eq!(registry.device_by_secret(&old).await.unwrap(), None);
    assert_eq!(
        registry.device_by_secret(&[9; 32]).await.unwrap(),
        Some(renewed)
    );
}

async fn a_deleted_device_frees_what_it_had(subject: &mut dyn Subject) {
    let registry = subject.ports().registry;
    let mut phone = device_of("d1", "u1");
    phone.tokens = vec![token("fcm", "t1")];
    registry.put_device(phone.clone(), None).await.unwrap();
    let (app, news, id) = (app(), topic("news"), device_id("d1"));
    registry
        .subscribe(&app, &news, std::slice::from_ref(&id))
        .await
        .unwrap();
    assert!(registry.delete_device(&app, &id).await.unwrap());
    assert!(!registry.delete_device(&app, &id).await.unwrap());
    assert_eq!(
        registry
            .devices(&app, std::slice::from_ref(&id))
            .await
            .unwrap(),
        [None]
    );
    let fcm = channel("fcm");
    assert_eq!(
        registry.device_by_token(&app, &fcm, "t1").await.unwrap(),
        None
    );
    assert_eq!(
        registry.device_by_secret(&phone.secret_hash).await.unwrap(),
        None
    );
    assert!(
        registry
            .subscribers(&app, &news, None, 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(registry.topics_of(&app, &id).await.unwrap().is_empty());
    assert!(registry.devices_of(&app, &[user_id("u1")]).await.unwrap()[0].is_empty());
    registry.put_device(phone, None).await.unwrap();
}

async fn a_deleted_user_leaves_their_devices_unbound(subject: &mut dyn Subject) {
    let registry = subject.ports().registry;
    registry
        .put_device(device_of("d1", "u1"), None)
        .await
        .unwrap();
    registry
        .put_device(device_of("d2", "u2"), None)
        .await
        .unwrap();
    assert!(registry.delete_user(&app(), &user_id("u1")).await.unwrap());
    assert!(!registry.delete_user(&app(), &user_id("u1")).await.unwrap());
    let ids = [device_id("d1"), device_id("d2")];
    let stored = registry.devices(&app(), &ids).await.unwrap();
    let (freed, other) = (stored[0].as_ref().unwrap(), stored[1].as_ref().unwrap());
    assert_eq!(freed.user, None);
    assert!(freed.binding > 1 && freed.version > 1, "{freed:?}");
    assert_eq!(other.user, Some(user_id("u2")));
}

async fn a_deleted_app_takes_everything_along(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let registry = &ports.registry;
    for id in ["app", "app-2"] {
        registry.put_app(app_record(id, 1), None).await.unwrap();
        registry
            .put_key(key(id, "k1", [id.len() as u8; 32]))
            .await
            .unwrap();
    }
    registry
        .put_device(device_of("d1", "u1"), None)
        .await
        .unwrap();
    let other = Device {
        app: app_id("app-2"),
        secret_hash: [7; 32],
        ..device("d1")
    };
    registry.put_device(other.clone(), None).await.unwrap();
    let set = append(1, &user_list("u1"));
    ports.commit.commit(vec![set]).await.remove(0).unwrap();
    registry.delete_app(&app()).await.unwrap();
    assert_eq!(registry.app(&app()).await.unwrap(), None);
    assert!(
        registry
            .device_page(&app(), None, 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(registry.keys(Some(&app())).await.unwrap().is_empty());
    assert_eq!(registry.key_by_hash(&[3; 32]).await.unwrap(), None);
    assert_eq!(
        registry
            .device_by_secret(&device("d1").secret_hash)
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        ports.inbox.message(&app(), message_id(1)).await.unwrap(),
        None
    );
    let left = registry
        .device_page(&app_id("app-2"), None, 10)
        .await
        .unwrap();
    assert_eq!(left, [other]);
    assert!(registry.key_by_hash(&[5; 32]).await.unwrap().is_some());
    registry.put_app(app_record("app", 1), None).await.unwrap();
}

async fn pages_are_in_id_order(subject: &mut dyn Subject) {
    let registry = subject.ports().registry;
    let news = topic("news");
    for id in ["b", "a", "c", "a-1", "aa"] {
        registry.put_device(device(id), None).await.unwrap();
        registry
            .subscribe(&app(), &news, &[device_id(id)])
            .await
            .unwrap();
        registry.put_app(app_record(id, 1), None).await.unwrap();
    }
    let (mut devices, mut apps, mut subscribers) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let page = registry
            .device_page(&app(), devices.last(), 2)
            .await
            .unwrap();
        let is_last = page.is_empty();
        devices.extend(page.into_iter().map(|d| d.id));
        let page = registry.apps(apps.last(), 2).await.unwrap();
        apps.extend(page.into_iter().map(|a| a.id));
        let page = registry
            .subscribers(&app(), &news, subscribers.last(), 2)
            .await;
        subscribers.extend(page.unwrap());
        if is_last {
            break;
        }
    }
    let order = ["a", "a-1", "aa", "b", "c"];
    assert_eq!(devices, order.map(device_id));
    assert_eq!(subscribers, order.map(device_id));
    assert_eq!(apps, order.map(app_id));
}

async fn an_import_needs_no_versions(subject: &mut dyn Subject) {
    let registry = subject.ports().registry;
    registry
        .put_device(device_of("d1", "u1"), None)
        .await
        .unwrap();
    let many = (0..600)
        .map(|i| device_of(&format!("d{i}"), "u2"))
        .collect();
    registry.import_devices(many).await.unwrap();
    let page = registry.device_page(&app(), None, 1_000).await.unwrap();
    assert_eq!(page.len(), 600);
    for device in page {
        let user = if device.id == device_id("d1") {
            "u1"
        } else {
            "u2"
        };
        assert_eq!(device.user, Some(user_id(user)), "{}", device.id);
    }
    let of_u1 = registry.devices_of(&app(), &[user_id("u1")]).await;
    assert_eq!(of_u1.unwrap()[0].len(), 1, "an import unbinds nobody");
    let stored = registry.devices(&app(), &[device_id("d1")]).await.unwrap();
    assert!(
        stored[0].as_ref().unwrap().version > 1,
        "others must notice the import"
    );
}

async fn a_touch_moves_last_seen_forward_only(subject: &mut dyn Subject) {
    let registry = subject.ports().registry;
    registry.put_device(device("d1"), None).await.unwrap();
    let id = device_id("d1");
    for ms in [500, 100] {
        registry.touch_device(&app(), &id, at(ms)).await.unwrap();
        let stored = registry
            .devices(&app(), std::slice::from_ref(&id))
            .await
            .unwrap();
        let stored = stored[0].as_ref().unwrap();
        assert_eq!((stored.last_seen, stored.version), (at(500), 1));
    }
    registry
        .touch_device(&app(), &device_id("unknown"), NOW)
        .await
        .unwrap();
    let second = Device {
        version: 2,
        ..device("d1")
    };
    registry.put_device(second, Some(1)).await.unwrap();
    let stored = registry.devices(&app(), &[id]).await.unwrap();
    assert_eq!(stored[0].as_ref().unwrap().last_seen, at(500));
}

async fn a_repeated_subscription_keeps_its_beginning(subject: &mut dyn Subject) {
    let ports = subject.ports();
    let (app, news, id) = (app(), topic("news"), device_id("d1"));
    let one = std::slice::from_ref(&id);
    ports.registry.subscribe(&app, &news, one).await.unwrap();
    let first = ports.registry.topics_of(&app, &id).await.unwrap();
    let audience = hongyan_core::message::Audience::Topic(news.clone());
    let set = append(1, &hongyan_core::port::Owner::Audience(audience));
    ports.commit.commit(vec![set]).await.remove(0).unwrap();
    ports.registry.subscribe(&app, &news, one).await.unwrap();
    assert_eq!(ports.registry.topics_of(&app, &id).await.unwrap(), first);
    ports.registry.unsubscribe(&app, &news, one).await.unwrap();
    ports.registry.unsubscribe(&app, &news, one).await.unwrap();
    assert!(
        ports
            .registry
            .topics_of(&app, &id)
            .await
            .unwrap()
            .is_empty()
    );
    ports.registry.subscribe(&app, &news, one).await.unwrap();
    let later = ports.registry.topics_of(&app, &id).await.unwrap();
    assert!(later[0].since > first[0].since, "{later:?} {first:?}");
}

fn key(app: &str, id: &str, hash: [u8; 32]) -> Key {
    Key {
        id: key_id(id),
        kind: KeyKind::Server,
        app: (!app.is_empty()).then(|| app_id(app)),
        scopes: Vec::new(),
        name: String::new(),
        hash,
        created_at: NOW,
    }
}

async fn keys_are_found_by_hash_until_deleted(subject: &mut dyn Subject) {
    let registry = subject.ports().registry;
    let (admin, server) = (key("", "k1", [1; 32]), key("app", "k1", [2; 32]));
    registry.put_key(admin.clone()).await.unwrap();
    registry.put_key(server.clone()).await.unwrap();
    assert_eq!(
        registry.key_by_hash(&[1; 32]).await.unwrap(),
        Some(admin.clone())
    );
    assert_eq!(registry.keys(None).await.unwrap(), [admin]);
    assert_eq!(registry.keys(Some(&app())).await.unwrap(), [server]);
    assert!(
        registry
            .delete_key(Some(&app()), &key_id("k1"))
            .await
            .unwrap()
    );
    assert!(
        !registry
            .delete_key(Some(&app()), &key_id("k1"))
            .await
            .unwrap()
    );
    assert_eq!(registry.key_by_hash(&[2; 32]).await.unwrap(), None);
    assert!(registry.key_by_hash(&[1; 32]).await.unwrap().is_some());
}

async fn credentials_are_kept_by_channel_and_name(subject: &mut dyn Subject) {
    let registry = subject.ports().registry;
    let credential = |at_channel: &str, name: &str, version| Credential {
        app: app(),
        channel: channel(at_channel),
        name: credential_name(name),
        sealed: vec![0, 255, 7],
        shown: Default::default(),
        endpoint: None,
        limits: Default::default(),
        created_at: NOW,
        updated_at: NOW,
        version,
    };
    let first = credential("fcm", "default", 1);
    registry.put_credential(first.clone(), None).await.unwrap();
    registry
        .put_credential(credential("apns", "b", 1), None)
        .await
        .unwrap();
    let stale = registry
        .put_credential(credential("fcm", "default", 2), Some(9))
        .await;
    assert!(
        matches!(stale, Err(StoreError::Conflict { .. })),
        "{stale:?}"
    );
    let earlier = Credential {
        created_at: at(-1),
        ..credential("fcm", "default", 2)
    };
    let stale = registry.put_credential(earlier, Some(1)).await;
    assert!(
        matches!(stale, Err(StoreError::Conflict { .. })),
        "deleted and made anew: {stale:?}"
    );
    let (fcm, name) = (channel("fcm"), credential_name("default"));
    let stored = registry.credential(&app(), &fcm, &name).await.unwrap();
    assert_eq!(stored, Some(first));
    let all = registry.credentials(&app()).await.unwrap();
    let names: Vec<_> = all.iter().map(|c| c.channel.as_str()).collect();
    assert_eq!(names, ["apns", "fcm"]);
    assert!(
        registry
            .delete_credential(&app(), &fcm, &name)
            .await
            .unwrap()
    );
    assert!(
        !registry
            .delete_credential(&app(), &fcm, &name)
            .await
            .unwrap()
    );
    assert_eq!(
        registry.credential(&app(), &fcm, &name).await.unwrap(),
        None
    );
}

async fn apps_do_not_see_each_other(subject: &mut dyn Subject) {
    let registry = subject.ports().registry;
    let mut one = device_of("d1", "u1");
    one.tokens = vec![token("fcm", "same")];
    let two = Device {
        app: app_id("app-2"),
        secret_hash: [8; 32],
        ..one.clone()
    };
    registry.put_device(one.clone(), None).await.unwrap();
    registry.put_device(two.clone(), None).await.unwrap();
    for phone in [&one, &two] {
        let fcm = channel("fcm");
        let holder = registry.device_by_token(&phone.app, &fcm, "same").await;
        assert_eq!(holder.unwrap(), Some(device_id("d1")));
        let of = registry
            .devices_of(&phone.app, &[user_id("u1")])
            .await
            .unwrap();
        assert_eq!(of, [vec![phone.clone()]]);
        let page = registry.device_page(&phone.app, None, 10).await.unwrap();
        assert_eq!(page.as_slice(), std::slice::from_ref(phone));
    }
    let (app_2, id) = (app_id("app-2"), device_id("d1"));
    assert!(registry.delete_device(&app_2, &id).await.unwrap());
    assert_eq!(registry.devices(&app(), &[id]).await.unwrap(), [Some(one)]);
}

fn endpoint(device: &str, channel: &str, hash: u8) -> PushEndpoint {
    PushEndpoint {
        hash: [hash; 32],
        sealed: vec![hash, 0, 255],
        app: app(),
        device: device_id(device),
        channel: PushChannel::parse(channel).unwrap(),
        label: Some(format!("label-{channel}")),
        vapid: hash.is_multiple_of(2).then_some([hash; 32]),
        description: None,
        created_at: NOW,
        gone_since: None,
    }
}

async fn an_endpoint_is_found_by_its_hash_and_its_channel(subject: &mut dyn Subject) {
    let registry = subject.ports().registry;
    let orphan = registry.put_endpoint(endpoint("d1", "a", 1)).await;
    assert!(
        matches!(orphan, Err(StoreError::NotFound { .. })),
        "{orphan:?}"
    );
    registry.put_device(device("d1"), None).await.unwrap();
    registry.put_device(device("d2"), None).await.unwrap();
    let all = [
        endpoint("d1", "a", 1),
        endpoint("d1", "b", 2),
        endpoint("d1", "c", 3),
        endpoint("d2", "a", 4),
    ];
    for one in &all {
        registry.put_endpoint(one.clone()).await.unwrap();
    }
    drop(registry);
    subject.restart().await;
    let registry = subject.ports().registry;
    for one in &all {
        assert_eq!(
            registry.endpoint(&one.hash).await.unwrap().as_ref(),
            Some(one)
        );
    }
    assert_eq!(registry.endpoint(&[9; 32]).await.unwrap(), None);
    let (app, d1) = (app(), device_id("d1"));
    let of = registry.endpoints_of(&app, &d1, None, 2).await.unwrap();
    assert_eq!(of, all[..2]);
    let after = Some(&all[1].channel);
    let of = registry.endpoints_of(&app, &d1, after, 2).await.unwrap();
    assert_eq!(of, all[2..3]);
}

async fn a_new_endpoint_of_a_channel_ends_the_former(subject: &mut dyn Subject) {
    let registry = subject.ports().registry;
    registry.put_device(device("d1"), None).await.unwrap();
    let former = endpoint("d1", "a", 1);
    registry.put_endpoint(former.clone()).await.unwrap();
    let newer = PushEndpoint {
        created_at: NOW.plus(Duration::from_secs(5)),
        ..endpoint("d1", "a", 2)
    };
    registry.put_endpoint(newer.clone()).await.unwrap();
    let found = registry.endpoint(&former.hash).await.unwrap().unwrap();
    assert_eq!(found.gone_since, Some(newer.created_at));
    let (app, id) = (app(), device_id("d1"));
    let of = registry.endpoints_of(&app, &id, None, 10).await.unwrap();
    assert_eq!(of, [newer]);
}

async fn an_ended_endpoint_is_remembered_for_its_time(subject: &mut dyn Subject) {
    let registry = subject.ports().registry;
    registry.put_device(device("d1"), None).await.unwrap();
    let one = endpoint("d1", "a", 1);
    registry.put_endpoint(one.clone()).await.unwrap();
    let (app, id) = (app(), device_id("d1"));
    let end = || registry.end_endpoint(&app, &id, &one.channel, NOW);
    assert!(end().await.unwrap());
    assert!(!end().await.unwrap(), "ending it again does nothing");
    let of = registry.endpoints_of(&app, &id, None, 10).await.unwrap();
    assert_eq!(of, []);
    let gone = registry.endpoint(&one.hash).await.unwrap().unwrap();
    assert_eq!(gone.gone_since, Some(NOW));
    let minute = Duration::from_secs(60);
    let last = NOW.plus(ENDPOINT_GONE_TTL);
    subject.maintain(last).await;
    assert!(registry.endpoint(&one.hash).await.unwrap().is_some());
    subject.maintain(last.plus(minute)).await;
    assert_eq!(registry.endpoint(&one.hash).await.unwrap(), None);
}

async fn endpoints_end_with_their_device_and_their_app(subject: &mut dyn Subject) {
    let registry = subject.ports().registry;
    registry.put_app(app_record("app", 1), None).await.unwrap();
    for id in ["d1", "d2"] {
        registry.put_device(device(id), None).await.unwrap();
    }
    let (first, second) = (endpoint("d1", "a", 1), endpoint("d2", "a", 2));
    registry.put_endpoint(first.clone()).await.unwrap();
    registry.put_endpoint(second.clone()).await.unwrap();
    assert!(
        registry
            .delete_device(&app(), &device_id("d1"))
            .await
            .unwrap()
    );
    let gone = registry.endpoint(&first.hash).await.unwrap().unwrap();
    assert!(gone.gone_since.is_some());
    registry.delete_app(&app()).await.unwrap();
    assert_eq!(registry.endpoint(&second.hash).await.unwrap(), None);
}
