//! A device without push service, woken by a text.

use serde_json::{Value, json};

use crate::harness::{Demo, Kind, hello, until};

const NUMBER_ONLY: Kind = Kind {
    platform: "iot",
    brand: "goose",
    channel: "sms",
};

/// Makes the app's credential of the channel one that wakes, through this provider.
fn wakes_through(demo: &Demo, provider: &str) {
    let (status, place) = demo.sandbox(
        "GET",
        &format!("/vendors/{provider}/credential"),
        &Value::Null,
    );
    assert_eq!(status, 200, "{place}");
    let mut config = place["config"].clone();
    config["mode"] = json!("signal");
    config["wake_key"] = json!("of this test alone");
    let body = json!({ "config": config, "endpoint": place["endpoint"] });
    let (status, put) = demo.api("PUT", "/v1/channels/sms/credentials/default", &body);
    assert_eq!(status, 200, "{put}");
}

#[test]
fn a_killed_phone_with_a_number_alone_is_woken_and_fetches_the_message_once() {
    let demo = Demo::start();
    for provider in ["twilio", "smpp"] {
        wakes_through(&demo, provider);
        let user = format!("woken-by-{provider}");
        let phone = demo.phone(&NUMBER_ONLY, &user);
        demo.set(&phone, &json!({ "state": "killed" }));
        demo.until_online(&user, false);
        let id = demo.send(&hello(&user));
        assert_eq!(demo.sees(&phone, &id), "connection", "{provider}");
        // The trace tells both: the text that went out, and the message that was fetched.
        until("both in the trace", || {
            let trace = demo.trace(&id);
            let has = |stage: &str, channel: Option<&str>| {
                let channel = channel.map_or(Value::Null, |c| json!(c));
                trace
                    .iter()
                    .any(|e| e["stage"] == stage && e["channel"] == channel)
            };
            (has("sent_vendor", Some("sms"))
                && has("accepted_by_vendor", Some("sms"))
                && has("delivered", None))
            .then_some(())
        });
        // Nothing but the code went over the air.
        let requests = Value::from(demo.requests_after(provider, 0)).to_string();
        assert!(!requests.contains("from afar"), "{requests}");
        let tray = demo.tray(&phone);
        assert_eq!(tray.len(), 1, "{provider}: {tray:?}");
        assert_eq!(tray[0]["copies"], 1, "{provider}: {tray:?}");
        // It goes to sleep again.
        demo.until_online(&user, false);
    }
}
