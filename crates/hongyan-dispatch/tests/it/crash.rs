//! What a process had handed to vendors when it died.

use std::time::Duration;

use hongyan_core::draft::Draft;
use hongyan_core::limits::LEASE;
use hongyan_core::{MessageId, Reason, Stage};
use hongyan_testkit::fake::FakeVendor;

use crate::world::{World, channel, to_users, world};

/// Sends while the vendor hangs, and lets the process die in the call.
async fn dies_in_the_call(w: &mut World, vendor: &FakeVendor, draft: Draft) -> MessageId {
    let gate = vendor.gate();
    let all = u32::try_from(gate.available_permits()).unwrap();
    // It never answers those who asked before the restart.
    gate.acquire_many_owned(all).await.unwrap().forget();
    let id = w.send(draft).await;
    let called = || async { (vendor.begun() == 1).then_some(()) };
    w.until(called).await.unwrap();
    w.restart();
    w.pass(LEASE + Duration::from_secs(1));
    id
}

#[tokio::test]
async fn a_text_that_may_have_been_sent_before_a_crash_is_not_sent_again() {
    let mut w = world().await;
    w.device("d", Some("u"), &["texts"]).await;
    let texts = w.texts.clone();
    let mut draft = to_users(&["u"]);
    draft.options.channels.fallback = false;
    let id = dies_in_the_call(&mut w, &texts, draft).await;
    assert_eq!(w.outcome(id).await, Reason::VendorUnavailable);
    assert_eq!(
        w.trace(id).await,
        [
            "accepted",
            "targeted",
            "sent_vendor@texts",
            "undelivered(vendor_unavailable)@texts"
        ]
    );
    let events = w.events(id).await;
    assert_eq!(w.count(id, Stage::SentVendor).await, 1);
    let why = events.last().unwrap().detail.as_deref().unwrap();
    assert!(why.contains("the server was stopped"), "{why}");
    w.pass(Duration::from_secs(3_600));
    // Another goes the same way, so all that waited has been looked at.
    texts.gate().add_permits(1 << 10);
    let next = w.send(to_users(&["u"])).await;
    assert_eq!(w.outcome(next).await, Reason::AcceptedByVendor);
    assert_eq!(texts.begun(), 2, "one call for each message");
}

#[tokio::test]
async fn another_channel_follows_a_text_of_before_the_crash() {
    let mut w = world().await;
    w.device("d", Some("u"), &["texts", "alpha"]).await;
    let texts = w.texts.clone();
    let mut draft = to_users(&["u"]);
    draft.options.channels.order = vec![channel("texts"), channel("alpha")];
    let id = dies_in_the_call(&mut w, &texts, draft).await;
    w.sees(id, "held(vendor_unavailable)@texts").await;
    w.pass(Duration::from_secs(301));
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    assert_eq!((texts.begun(), w.alpha.sent().len()), (1, 1));
}

#[tokio::test]
async fn a_vendor_that_recognises_a_repeat_is_asked_again_after_a_crash() {
    let mut w = world().await;
    w.device("d", Some("u"), &["beta"]).await;
    let beta = w.beta.clone();
    let id = dies_in_the_call(&mut w, &beta, to_users(&["u"])).await;
    w.sees(id, "retried(restarted)@beta").await;
    beta.gate().add_permits(1 << 10);
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    assert_eq!(beta.begun(), 2);
}

#[tokio::test]
async fn a_text_is_told_as_sent_once_and_its_answer_says_how_long_it_took() {
    let w = world().await;
    w.device("d", Some("u"), &["texts"]).await;
    let id = w.send(to_users(&["u"])).await;
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    let words = w.trace(id).await;
    let at = |word: &str| words.iter().position(|w| w.starts_with(word)).unwrap();
    assert!(
        at("sent_vendor@texts") < at("accepted_by_vendor"),
        "{words:?}"
    );
    let events = w.events(id).await;
    let accepted = events.iter().find(|e| e.r#final).unwrap();
    assert!(
        accepted.took_ms.is_some(),
        "the answer says how long it took"
    );
    assert_eq!(w.count(id, Stage::SentVendor).await, 1);
}
