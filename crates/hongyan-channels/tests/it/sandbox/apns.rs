//! Live Activities, broadcasts and tokens of other kinds, against the sandbox's APNs.

use hongyan_core::port::{BroadcastError, BroadcastStorage};
use hongyan_core::{ChannelId, Class, Message, Verdict};
use hongyan_sandbox::{Channel as Vendor, Fault, FaultKind, OTHER_PACKAGE, TokenState};
use serde_json::{Value, json};

use super::{PATIENCE, World};
use crate::message;

fn with(fields: &Value) -> Message {
    let mut sent = message::message(Class::Im);
    sent.options.vendor.insert(
        ChannelId::parse("apns").unwrap(),
        fields.as_object().unwrap().clone(),
    );
    sent
}

fn activity(event: &str) -> Message {
    let mut fields =
        json!({"push_type": "liveactivity", "event": event, "content_state": {"gate": "B7"}});
    if event == "start" {
        fields["attributes_type"] = "Flight".into();
        fields["attributes"] = json!({"no": "XY1"});
        fields["input_push_token"] = 1.into();
    }
    with(&fields)
}

#[tokio::test]
async fn apns_live_activities_start_change_and_end() {
    let world = World::start(Vendor::Apns).await;
    let token = format!("liveactivity:{}", world.tokens(1, TokenState::Valid)[0]);
    for event in ["start", "update", "end"] {
        let verdicts = world.send(activity(event), vec![token.clone()]).await;
        assert_eq!(verdicts, ["accepted"], "{event} {:?}", world.last());
        let seen = world.last();
        assert_eq!(seen.headers["apns-push-type"], "liveactivity");
        assert!(seen.headers["apns-topic"].ends_with(".push-type.liveactivity"));
        assert_eq!(seen.body["aps"]["event"], event);
        assert_eq!(seen.body["aps"]["content-state"], json!({"gate": "B7"}));
        assert_eq!(
            seen.body["aps"].get("attributes").is_some(),
            event == "start"
        );
    }
    // An ordinary message never ends as an activity's.
    let before = world.handle.requests(Vendor::Apns).len();
    let verdicts = world.send(message::message(Class::Im), vec![token]).await;
    assert_eq!(verdicts, ["refused token_environment"]);
    assert_eq!(world.handle.requests(Vendor::Apns).len(), before);
}

/// A repeated send has the id of the first one, and what the vendor calls a push is known before it answers.
#[tokio::test]
async fn apns_ids_are_the_same_over_all_tries() {
    let world = World::start(Vendor::Apns).await;
    let tokens = world.tokens(2, TokenState::Valid);
    let outbound = message::outbound(message::message(Class::Im));
    let batch = message::batch(outbound, tokens);
    let mut told = Vec::new();
    for _ in 0..2 {
        let verdicts = world.channel.send(&batch, PATIENCE).await;
        told.push(verdicts.iter().map(|v| v.detail().to_owned()).collect());
    }
    let [first, again]: [Vec<String>; 2] = told.try_into().unwrap();
    assert_eq!(first, again);
    assert_ne!(first[0], first[1]);
    let sent: Vec<_> = world
        .handle
        .requests(Vendor::Apns)
        .iter()
        .map(|seen| seen.headers["apns-id"].clone())
        .collect();
    assert_eq!(sent.len(), 4);
    assert!(
        sent.iter().all(|id| first.contains(id)),
        "{sent:?} {first:?}"
    );
}

#[tokio::test]
async fn apns_broadcasts_reach_their_channel() {
    let world = World::start(Vendor::Apns).await;
    for stores in [true, false] {
        let id = world.handle.make_apns_channel(stores).unwrap();
        let token = format!("broadcast:{id}");
        let mut sent = activity("update");
        sent.data = json!({"long": "x".repeat(4200)}).as_object().cloned();
        let verdicts = world.send(sent, vec![token.clone()]).await;
        assert_eq!(verdicts, ["accepted"], "{:?}", world.last());
        let seen = world.last();
        assert!(
            seen.path.starts_with("/4/broadcasts/apps/"),
            "{}",
            seen.path
        );
        assert_eq!(seen.headers["apns-channel-id"], id);
        assert!(!seen.headers.contains_key("apns-topic"));
        // A channel that stores nothing takes no expiration.
        assert_eq!(seen.headers["apns-expiration"] == "0", !stores);
        let verdicts = world.send(activity("start"), vec![token.clone()]).await;
        assert_eq!(verdicts, ["refused payload_rejected"]);
        let verdicts = world.send(message::message(Class::Im), vec![token]).await;
        assert_eq!(verdicts, ["refused token_environment"]);
    }
    let unknown = "broadcast:AAAAAAAAAAAAAAAAAAAAAA==".to_owned();
    let verdicts = world.send(activity("end"), vec![unknown]).await;
    assert_eq!(verdicts, ["token_dead token_invalid"], "{:?}", world.last());
}

#[tokio::test]
async fn apns_tokens_outlive_pushes_of_another_kind() {
    let world = World::start(Vendor::Apns).await;
    let other = world.tokens(1, TokenState::OtherApp).remove(0);
    let call = || with(&json!({"push_type": "voip"}));
    let verdicts = world.send(call(), vec![other.clone()]).await;
    assert_eq!(verdicts, ["refused token_environment"]);
    // A bundle id that is missing in the credential looks the same.
    let voip = world.send(call(), vec![format!("voip:{other}")]).await;
    let own = world.send(message::message(Class::Im), vec![other.clone()]);
    assert_eq!((voip, own.await), (verdicts.clone(), verdicts));
    let verdicts = world.send(call(), vec![format!("widgets:{other}")]).await;
    assert_eq!(verdicts, ["refused token_environment"]);
    let valid = world.tokens(1, TokenState::Valid).remove(0);
    let verdicts = world.send(call(), vec![format!("voip:{valid}")]).await;
    assert_eq!(verdicts, ["accepted"], "{:?}", world.last());
}

#[tokio::test]
async fn apns_broadcast_channels_are_made_and_deleted() {
    let world = World::start(Vendor::Apns).await;
    let channels = world.channel.clone().broadcasts().unwrap();
    assert_eq!(channels.list(PATIENCE).await.unwrap(), [""; 0]);
    for storage in [BroadcastStorage::None, BroadcastStorage::Latest] {
        let id = channels.create(storage, PATIENCE).await.unwrap();
        let seen = world.last();
        assert_eq!(seen.body["push-type"], "LiveActivity");
        assert_eq!(channels.list(PATIENCE).await.unwrap(), [id.as_str()]);
        assert_eq!(channels.read(&id, PATIENCE).await.unwrap(), storage);
        assert_eq!(world.last().headers["apns-channel-id"], id);
        let token = format!("broadcast:{id}");
        let verdicts = world.send(activity("update"), vec![token.clone()]).await;
        assert_eq!(verdicts, ["accepted"], "{:?}", world.last());
        channels.delete(&id, PATIENCE).await.unwrap();
        let verdicts = world.send(activity("end"), vec![token]).await;
        assert_eq!(verdicts, ["token_dead token_invalid"], "{:?}", world.last());
        for gone in [id.as_str(), "AAAA", "not base64", "a\r\nb", ""] {
            let read = channels.read(gone, PATIENCE).await;
            assert_eq!(read, Err(BroadcastError::NotFound), "{gone}");
            let deleted = channels.delete(gone, PATIENCE).await;
            assert_eq!(deleted, Err(BroadcastError::NotFound), "{gone}");
        }
    }
    assert_eq!(channels.list(PATIENCE).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn apns_refuses_more_broadcast_channels_than_it_lists() {
    let world = World::start(Vendor::Apns).await;
    let channels = world.channel.clone().broadcasts().unwrap();
    while world.handle.make_apns_channel(false).is_some() {}
    let full = channels.create(BroadcastStorage::None, PATIENCE).await;
    assert!(
        matches!(&full, Err(BroadcastError::Full { detail }) if detail.contains("10,000")),
        "{full:?}"
    );
    assert_eq!(channels.list(PATIENCE).await.unwrap().len(), 10_000);
}

#[tokio::test]
async fn apns_says_why_broadcast_channels_cannot_be_managed() {
    let off = World::start_with(Vendor::Apns, |config| {
        config["bundle_id"] = OTHER_PACKAGE.into();
    })
    .await;
    let channels = off.channel.clone().broadcasts().unwrap();
    let refused = channels.create(BroadcastStorage::Latest, PATIENCE).await;
    let Err(BroadcastError::Vendor(Verdict::CredentialBad { detail })) = refused else {
        panic!("{refused:?}");
    };
    assert!(detail.contains("developer account"), "{detail}");

    // A token that Apple calls expired is renewed once, as with sends; a service that is away is told as such.
    let world = World::start(Vendor::Apns).await;
    let channels = world.channel.clone().broadcasts().unwrap();
    let inject = |kind| {
        let fault = Fault::times(kind, 1);
        world.handle.inject(Vendor::Apns, fault).unwrap();
    };
    inject(FaultKind::AuthExpired);
    channels
        .create(BroadcastStorage::Latest, PATIENCE)
        .await
        .unwrap();
    assert_eq!(channels.list(PATIENCE).await.unwrap().len(), 1);
    inject(FaultKind::Unavailable);
    let away = channels.list(PATIENCE).await;
    assert!(
        matches!(&away, Err(BroadcastError::Vendor(Verdict::Retry { .. }))),
        "{away:?}"
    );
}
