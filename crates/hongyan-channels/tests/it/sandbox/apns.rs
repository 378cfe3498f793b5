//! Live Activities, broadcasts and tokens of other kinds, against the sandbox's APNs.

use hongyan_core::{ChannelId, Class, Message};
use hongyan_sandbox::{Channel as Vendor, TokenState};
use serde_json::{Value, json};

use super::World;
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
    let verdicts = world.send(call(), vec![format!("voip:{other}")]).await;
    assert_eq!(verdicts, ["token_dead token_invalid"]);
    let verdicts = world.send(call(), vec![format!("widgets:{other}")]).await;
    assert_eq!(verdicts, ["refused token_environment"]);
    let valid = world.tokens(1, TokenState::Valid).remove(0);
    let verdicts = world.send(call(), vec![format!("voip:{valid}")]).await;
    assert_eq!(verdicts, ["accepted"], "{:?}", world.last());
}
