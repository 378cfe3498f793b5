//! A device that its app's server sends away is told so, in the words of its protocol, and otherwise than one that is gone.

use hongyan_core::port::Presence as _;
use hongyan_gateway::protocol::sse::AckMode;
use hongyan_gateway::protocol::websocket::close;
use hongyan_mqtt::packet::Version;

use crate::mqtt::{Heard, post};
use crate::poll::{ask, waits};
use crate::rig::Rig;
use crate::sse::{open, request};
use crate::store::{app, device};
use crate::xmpp::Spoken;

impl Rig {
    fn kick(&self) {
        self.runtime.block_on(self.hub.kick(&app(), &device("d")));
        assert!(self.hub.is_empty());
    }
}

#[test]
fn hw_12_over_websocket() {
    let rig = Rig::new();
    let mut client = rig.live("d");
    client.expect("idle");
    rig.kick();
    let error = client.expect("error");
    assert_eq!(
        (error["code"].as_str(), error["fatal"].as_bool()),
        (Some("kicked"), Some(true))
    );
    assert_eq!(client.closed(), 4403);
    let mut client = rig.live("d");
    client.expect("idle");
    rig.runtime
        .block_on(rig.hub.disconnect(&app(), &device("d")));
    assert_eq!(client.expect("error")["code"], "device_deleted");
    assert_eq!(client.closed(), 4410);
}

#[test]
fn hw_12_over_a_stream() {
    let rig = Rig::new();
    let mut stream = open(&rig, request(None, AckMode::Explicit)).unwrap();
    let welcome = stream.expect("welcome");
    stream.expect("idle");
    rig.kick();
    assert_eq!(stream.expect("error").data["code"], "kicked");
    assert_eq!(stream.hear(), None);
    // Who names its session when it comes back by itself is told to stay away.
    assert!(rig.hub.was_taken(welcome.data["session"].as_str()));
    let mut stream = open(&rig, request(None, AckMode::Explicit)).unwrap();
    stream.expect("welcome");
    stream.expect("idle");
    rig.runtime
        .block_on(rig.hub.disconnect(&app(), &device("d")));
    assert_eq!(stream.expect("error").data["code"], "device_deleted");
    assert_eq!(stream.hear(), None);
}

#[test]
fn hw_12_over_polls() {
    let rig = Rig::new();
    let asked = ask(&rig, "d", None, 60, 100);
    rig.until("it waits", waits(&rig));
    rig.kick();
    let turned = rig.runtime.block_on(asked).unwrap().unwrap_err();
    assert_eq!(
        (turned.code, turned.word),
        (close::FORBIDDEN, close::KICKED)
    );
    assert!(
        turned.detail.contains("sent this device away"),
        "{turned:?}"
    );
}

#[test]
fn hw_12_over_mqtt() {
    let post = post();
    for (version, kicked, deleted) in [
        (
            Version::V5,
            Heard::Disconnect(0x98),
            Heard::Disconnect(0x87),
        ),
        (Version::V311, Heard::End, Heard::End),
    ] {
        let (mut phone, _) = post.device(version, false, 600);
        post.rig.kick();
        assert_eq!(phone.hear(), kicked);
        // It comes to a new session.
        let (mut phone, present) = post.device(version, false, 600);
        assert!(!present);
        let (app, device) = (app(), device("d"));
        let gone = post.rig.hub.disconnect(&app, &device);
        post.rig.runtime.block_on(gone);
        assert_eq!(phone.hear(), deleted);
    }
}

#[test]
fn hw_12_over_xmpp() {
    let spoken = Spoken::new();
    let at = spoken.plain();
    let mut client = spoken.bound(at, "d");
    spoken.rig.kick();
    let told = client.rest();
    assert!(told.contains("<policy-violation "), "{told}");
    assert!(told.contains("sent this device away"), "{told}");
}
