//! Lanes are bulkheads.

use std::time::Duration;

use hongyan_core::app::LaneLimits;
use hongyan_core::limits::LEASE;
use hongyan_core::message::Target;
use hongyan_core::port::{RateCounts, Receipt, ReceiptKind};
use hongyan_core::verdict::Unsure;
use hongyan_core::{CredentialName, MessageId, Reason, Secret, Stage, Verdict};
use hongyan_dispatch::credentials::NewCredential;
use hongyan_testkit::fake::FakeVendor;

use crate::world::{World, channel, device, to, to_users, world, world_of};

#[tokio::test]
async fn a_hanging_vendor_holds_up_nobody_else() {
    let w = world().await;
    w.device("slow", Some("s"), &["alpha"]).await;
    w.device("fast", Some("f"), &["beta"]).await;
    let gate = w.alpha.gate();
    let all = u32::try_from(gate.available_permits()).unwrap();
    let _closed = gate.acquire_many_owned(all).await.unwrap();
    let stuck = w.send(to_users(&["s"])).await;
    for _ in 0..50 {
        let id = w.send(to_users(&["f"])).await;
        assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    }
    assert!(!w.events(stuck).await.iter().any(|e| e.r#final));
}

#[tokio::test]
async fn a_broken_vendor_opens_the_breaker_and_recovers_by_itself() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.alpha.always(Some(Verdict::Retry {
        reason: Reason::VendorUnavailable,
        after: None,
        detail: "503".into(),
        certainty: Unsure::NotTaken,
    }));
    let mut ids = Vec::new();
    for _ in 0..30 {
        ids.push(w.send(to_users(&["u1"])).await);
    }
    let opened = || async {
        for id in &ids {
            if w.trace(*id)
                .await
                .iter()
                .any(|t| t.starts_with("held(breaker_open)"))
            {
                return Some(());
            }
        }
        w.pass(Duration::from_millis(100));
        None
    };
    w.until(opened).await.expect("the breaker opens");
    w.alpha.always(None);
    for id in ids {
        let end = w.outcome_in_steps(id, Duration::from_secs(1)).await;
        assert_eq!(end, Reason::AcceptedByVendor);
    }
}

/// A channel's own measure for one device (wake-ups come seldom) says nothing of the vendor.
#[tokio::test]
async fn a_device_that_has_to_wait_holds_up_nobody_else() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.device("d2", Some("u2"), &["alpha"]).await;
    w.alpha.always(Some(Verdict::Retry {
        reason: Reason::FrequencyCap,
        after: Some(Duration::from_secs(600)),
        detail: "woken before".into(),
        certainty: Unsure::NotTaken,
    }));
    let mut waiting = Vec::new();
    for _ in 0..12 {
        let id = w.send(to_users(&["u1"])).await;
        w.sees(id, "retried(frequency_cap)@alpha").await;
        waiting.push(id);
    }
    w.alpha.always(None);
    let other = w.send(to_users(&["u2"])).await;
    assert_eq!(w.outcome(other).await, Reason::AcceptedByVendor);
    for id in &waiting {
        assert!(!w.events(*id).await.iter().any(|e| e.r#final));
    }
    for id in waiting {
        let end = w.outcome_in_steps(id, Duration::from_secs(60)).await;
        assert_eq!(end, Reason::AcceptedByVendor);
    }
}

#[tokio::test]
async fn a_channel_that_panics_is_tried_again_and_others_go_on() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.device("d2", Some("u2"), &["beta"]).await;
    w.alpha.panic_next(3);
    let ids = [
        w.send(to_users(&["u1"])).await,
        w.send(to_users(&["u1"])).await,
    ];
    for id in ids {
        w.sees(id, "retried(vendor_unavailable)@alpha").await;
    }
    let other = w.send(to_users(&["u2"])).await;
    assert_eq!(w.outcome(other).await, Reason::AcceptedByVendor);
    for id in ids {
        let end = w.outcome_in_steps(id, Duration::from_millis(200)).await;
        assert_eq!(end, Reason::AcceptedByVendor);
        let sent = w.alpha.sent();
        assert_eq!(sent.iter().filter(|s| s.message == id).count(), 1);
    }
    w.until(|| async { (w.dispatch.in_flight() == 0).then_some(()) })
        .await
        .expect("nothing stays in flight");
}

/// More than a lane holds: its queue, what it has taken out of it, and what is with the vendor.
const FLOOD: usize = 6_000;
const LANE_HOLDS: usize = 4_096 + 1_000 + 8;

#[tokio::test]
async fn a_flooded_lane_holds_so_many_and_loses_none() {
    let w = world().await;
    for piece in 0..FLOOD / 500 {
        let names: Vec<_> = (0..500)
            .map(|i| format!("d{:05}", piece * 500 + i))
            .collect();
        w.import(&names, &["beta"]).await;
    }
    let gate = w.beta.gate();
    let all = u32::try_from(gate.available_permits()).unwrap();
    let closed = gate.clone().acquire_many_owned(all).await.unwrap();
    let id = w.send(to(Target::All)).await;
    let count = |stage: Stage| {
        let w = &w;
        async move {
            let rows = w.ports.ledger.message_counters(&w.app, id).await.unwrap();
            let of = rows.iter().filter(|r| r.key.stage == stage);
            usize::try_from(of.map(|r| r.count).sum::<u64>()).unwrap()
        }
    };
    let flooded = || async {
        assert!(w.dispatch.in_flight() <= LANE_HOLDS + 512, "bounded");
        let held = count(Stage::Held).await;
        (count(Stage::Targeted).await == FLOOD && held >= FLOOD - LANE_HOLDS).then_some(())
    };
    w.until(flooded)
        .await
        .expect("all are planned, the rest waits in the store");
    w.until(|| async { (w.dispatch.in_flight() <= LANE_HOLDS).then_some(()) })
        .await
        .expect("what was refused is not in flight");
    drop(closed);
    let taken = || async {
        w.pass(Duration::from_millis(20));
        (count(Stage::AcceptedByVendor).await == FLOOD).then_some(())
    };
    w.until(taken).await.expect("none is lost");
    let mut devices: Vec<_> = w.beta.sent().into_iter().map(|s| s.device).collect();
    assert_eq!(devices.len(), FLOOD, "none is sent twice");
    devices.sort();
    devices.dedup();
    assert_eq!(devices.len(), FLOOD);
    assert_eq!(count(Stage::SentVendor).await, FLOOD, "not those held");
    w.until(|| async { (w.dispatch.in_flight() == 0).then_some(()) })
        .await
        .expect("nothing stays in flight");
}

fn broken() -> Verdict {
    Verdict::Retry {
        reason: Reason::VendorUnavailable,
        after: None,
        detail: "the connection broke".into(),
        certainty: Unsure::MaybeTaken,
    }
}

#[tokio::test]
async fn what_may_have_been_sent_is_sent_once_where_a_repeat_would_show() {
    let w = world().await;
    w.device("d", Some("u"), &["texts"]).await;
    w.texts.script([broken()]);
    let mut draft = to_users(&["u"]);
    draft.options.channels.fallback = false;
    let id = w.send(draft).await;
    assert_eq!(w.outcome(id).await, Reason::VendorUnavailable);
    w.pass(Duration::from_secs(3_600));
    // The receipt still comes, and is believed.
    let token = w.ports.registry.devices(&w.app, &[device("d")]).await;
    let token = token.unwrap()[0].clone().unwrap().tokens[0].token.clone();
    let told = Receipt {
        kind: ReceiptKind::Delivered,
        message: Some(id),
        vendor_id: None,
        token: Some(Secret::new(token)),
        at: None,
        detail: String::new(),
    };
    let receipts = w.dispatch.receipts();
    let texts = channel("texts");
    let noted = receipts.take(&w.app, &texts, vec![told]).await;
    assert_eq!(noted.unwrap().known, 1);
    assert!(w.trace(id).await.iter().any(|t| t.starts_with("delivered")));
    assert_eq!(w.texts.sent().len(), 1, "{:?}", w.trace(id).await);
    // A vendor that recognises a repeat gets one.
    w.device("e", Some("v"), &["alpha"]).await;
    w.alpha.script([broken()]);
    let id = w.send(to_users(&["v"])).await;
    w.sees(id, "retried").await;
    w.pass(Duration::from_secs(60));
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    assert_eq!(w.alpha.sent().len(), 2);
}

#[tokio::test]
async fn a_credential_knows_better_than_its_vendor_whether_a_repeat_would_show() {
    let w = world().await;
    w.device("d", Some("u"), &["alpha"]).await;
    w.device("e", Some("v"), &["texts"]).await;
    w.alpha.may_repeat(false);
    w.texts.may_repeat(true);
    for (vendor, user, want, sent) in [
        (&w.alpha, "u", Reason::VendorUnavailable, 1),
        (&w.texts, "v", Reason::AcceptedByVendor, 2),
    ] {
        vendor.script([broken()]);
        let mut draft = to_users(&[user]);
        draft.options.channels.fallback = false;
        let id = w.send(draft).await;
        let end = w.outcome_in_steps(id, Duration::from_secs(1)).await;
        assert_eq!(end, want);
        assert_eq!(vendor.sent().len(), sent, "{:?}", w.trace(id).await);
    }
}

/// What a vendor says of a push while our call is still under way.
fn gave_up(id: MessageId, token: &str) -> Receipt {
    Receipt {
        kind: ReceiptKind::Failed(Reason::QuotaExhausted),
        message: Some(id),
        vendor_id: None,
        token: Some(Secret::new(token)),
        at: None,
        detail: String::new(),
    }
}

#[tokio::test]
async fn news_of_a_push_that_is_under_way_do_not_bring_it_a_second_call() {
    let w = world().await;
    w.device("d", Some("u"), &["beta"]).await;
    w.device("e", Some("v"), &["alpha"]).await;
    let gate = w.beta.gate();
    let all = u32::try_from(gate.available_permits()).unwrap();
    let closed = gate.clone().acquire_many_owned(all).await.unwrap();
    let id = w.send(to_users(&["u"])).await;
    w.until(|| async { (w.beta.begun() == 1).then_some(()) })
        .await
        .unwrap();
    let news = vec![gave_up(id, "beta-d")];
    let noted = w.dispatch.receipts();
    let noted = noted.take(&w.app, &channel("beta"), news).await;
    assert_eq!(noted.unwrap().known, 1);
    w.sees(id, "undelivered").await;
    w.pass(LEASE + Duration::from_secs(1));
    // Another is due later, so the one whose lease has ended has been looked at.
    let other = w.send(to_users(&["v"])).await;
    assert_eq!(w.outcome(other).await, Reason::AcceptedByVendor);
    drop(closed);
    w.outcome(id).await;
    assert_eq!(w.beta.begun(), 1, "{:?}", w.trace(id).await);
    w.until(|| async { (w.dispatch.in_flight() == 0).then_some(()) })
        .await
        .expect("nothing stays in flight");
}

#[tokio::test]
async fn news_that_change_nothing_do_not_hold_a_text_up() {
    let w = world().await;
    w.device("d", Some("u"), &["texts"]).await;
    let mut held = w.trouble.hold_one("commit");
    let (intake, app) = (w.dispatch.intake(), w.app.clone());
    let sent = tokio::spawn(async move { intake.accept(&app, vec![to_users(&["u"])], None).await });
    // What is taken in, what is planned, and that it is about to be sent.
    for _ in 0..2 {
        held.reached().await;
        let next = w.trouble.hold_one("commit");
        held.go_on();
        held = next;
    }
    held.reached().await;
    let id = sent.await.unwrap().unwrap().ids[0];
    let news = vec![gave_up(id, "texts-d")];
    let noted = w.dispatch.receipts();
    let noted = noted.take(&w.app, &channel("texts"), news).await;
    assert_eq!(noted.unwrap().known, 1);
    w.sees(id, "undelivered").await;
    held.go_on();
    w.outcome(id).await;
    assert_eq!(w.texts.begun(), 1, "{:?}", w.trace(id).await);
    assert_eq!(w.count(id, Stage::SentVendor).await, 1);
}

/// More than a lane believes of its vendor in a row.
#[tokio::test]
async fn tokens_that_cannot_be_the_vendors_say_nothing_of_it() {
    let w = world().await;
    let names: Vec<_> = (0..120).map(|i| format!("d{i:03}")).collect();
    w.import(&names, &["alpha"]).await;
    w.alpha.always(Some(Verdict::no_token("64 hex digits")));
    let mut draft = to(Target::All);
    draft.options.channels.fallback = false;
    let id = w.send(draft).await;
    let ends = w.outcomes(id, names.len()).await;
    assert!(ends.iter().all(|(_, why)| *why == Reason::TokenInvalid));
    assert_eq!(w.count(id, Stage::SentVendor).await, 0);
}

#[tokio::test]
async fn another_channel_follows_an_unknown_send_when_no_receipt_comes() {
    let w = world().await;
    w.device("d", Some("u"), &["texts", "alpha"]).await;
    w.texts.script([broken()]);
    let mut draft = to_users(&["u"]);
    draft.options.channels.order = vec![channel("texts"), channel("alpha")];
    let id = w.send(draft).await;
    w.sees(id, "held(vendor_unavailable)@texts").await;
    w.pass(Duration::from_secs(301));
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    assert_eq!((w.texts.sent().len(), w.alpha.sent().len()), (1, 1));
}

impl World {
    /// A message to as many devices as there are, all of `alpha`.
    async fn to_many(&self, devices: usize) -> MessageId {
        let ids: Vec<String> = (0..devices).map(|n| format!("many{n:04}")).collect();
        self.import(&ids, &["alpha"]).await;
        self.send(to(Target::All)).await
    }

    async fn alpha_got(&self, count: usize) {
        let got = || async { (self.alpha.sent().len() == count).then_some(()) };
        let got = self.until(got).await;
        got.unwrap_or_else(|| panic!("{} of {count}", self.alpha.sent().len()));
    }

    /// What is told of a message once something happened to it in the lane.
    pub(crate) async fn at_alpha(&self, id: MessageId) -> Vec<String> {
        let told = || async {
            let trace = self.trace(id).await;
            trace.iter().any(|t| t.ends_with("@alpha")).then_some(trace)
        };
        self.until(told).await.unwrap()
    }

    /// Gives the lanes every chance to do something that they should not.
    async fn meanwhile(&self) {
        for n in 0..5 {
            let id = format!("aside{}-{n}", self.beta.sent().len());
            self.device(&id, Some(&id), &["beta"]).await;
            let id = self.send(to_users(&[&id])).await;
            assert_eq!(self.outcome(id).await, Reason::AcceptedByVendor);
        }
    }
}

/// The clock is the test's: what goes out while it stands still is what a lane may send at once.
#[tokio::test]
async fn a_vendor_that_counts_devices_gets_so_many_devices_a_second() {
    let w = world_of(FakeVendor::new("alpha", 100).at_most(50, RateCounts::Devices)).await;
    w.to_many(150).await;
    w.alpha_got(50).await;
    for second in 1..3 {
        w.pass(Duration::from_millis(800));
        w.meanwhile().await;
        assert_eq!(w.alpha.sent().len(), 50 * second);
        w.pass(Duration::from_millis(200));
        w.alpha_got(50 * (second + 1)).await;
    }
    let calls = w.alpha.sent().into_iter().map(|s| s.call).max();
    assert_eq!(calls, Some(2), "each call has a second's worth");
}

#[tokio::test]
async fn a_vendor_that_counts_requests_gets_a_whole_batch_for_one() {
    let w = world_of(FakeVendor::new("alpha", 50).at_most(1, RateCounts::Requests)).await;
    w.to_many(100).await;
    w.alpha_got(50).await;
    w.meanwhile().await;
    assert_eq!(w.alpha.sent().len(), 50);
    w.pass(Duration::from_secs(1));
    w.alpha_got(100).await;
}

#[tokio::test]
async fn a_batch_that_goes_out_one_by_one_counts_as_so_many_requests() {
    let w = world_of(FakeVendor::new("alpha", 50).at_most(50, RateCounts::Requests)).await;
    w.alpha.one_by_one();
    w.to_many(100).await;
    w.alpha_got(50).await;
    w.pass(Duration::from_millis(500));
    w.meanwhile().await;
    assert_eq!(w.alpha.sent().len(), 50);
    w.pass(Duration::from_millis(500));
    w.alpha_got(100).await;
}

impl World {
    /// How many devices each call to `alpha` was for.
    fn calls_of_alpha(&self) -> Vec<usize> {
        let sent = self.alpha.sent();
        let calls = sent.iter().map(|s| s.call + 1).max().unwrap_or(0);
        (0..calls)
            .map(|call| sent.iter().filter(|s| s.call == call).count())
            .collect()
    }

    /// Lets time go on, little faster than it does, until `alpha` was called so often.
    async fn alpha_called(&self, calls: usize) -> Vec<usize> {
        let called = || async {
            self.pass(Duration::from_millis(10));
            let calls_now = self.calls_of_alpha();
            (calls_now.len() >= calls).then_some(calls_now)
        };
        let called = self.until(called).await;
        called.unwrap_or_else(|| panic!("{:?}", self.calls_of_alpha()))
    }
}

#[tokio::test]
async fn a_batch_of_two_requests_is_not_cut_where_that_saves_none() {
    let w = world_of(FakeVendor::new("alpha", 50).at_most(1, RateCounts::Requests)).await;
    w.alpha.in_two_steps();
    w.to_many(100).await;
    assert_eq!(w.alpha_called(2).await, [50, 50]);
}

/// A second's worth of the rate as it is now, so that nobody waits long behind a batch.
#[tokio::test]
async fn batches_are_smaller_while_a_lane_is_slowed_down() {
    let w = world_of(FakeVendor::new("alpha", 64).at_most(64, RateCounts::Devices)).await;
    w.alpha.script((0..64).map(|_| slow_down(None)));
    w.to_many(256).await;
    let calls = w.alpha_called(3).await;
    assert_eq!(calls[0], 64);
    assert!(calls[1] <= 40 && calls[2] <= 40, "{calls:?}");
}

#[tokio::test]
async fn a_vendor_that_takes_a_part_and_asks_to_slow_down_is_heard() {
    let w = world_of(FakeVendor::new("alpha", 64).at_most(64, RateCounts::Devices)).await;
    w.alpha.script([slow_down(None)]);
    w.to_many(256).await;
    let calls = w.alpha_called(3).await;
    assert_eq!(calls[0], 64);
    assert!(calls[1] <= 40 && calls[2] <= 40, "{calls:?}");
    let trace = w.at_alpha(w.alpha.sent()[0].message).await;
    assert!(!trace.iter().any(|t| t.starts_with("held(")), "no pause");
}

pub(crate) fn slow_down(after: Option<u64>) -> Verdict {
    Verdict::Retry {
        reason: Reason::VendorRateLimited,
        after: after.map(Duration::from_secs),
        detail: "429".into(),
        certainty: Unsure::NotTaken,
    }
}

#[tokio::test]
async fn a_pause_that_the_vendor_names_is_kept_to_its_end() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.device("d2", Some("u2"), &["alpha"]).await;
    w.alpha.script([slow_down(Some(600))]);
    let first = w.send(to_users(&["u1"])).await;
    w.sees(first, "retried(vendor_rate_limited)@alpha").await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        w.pass(Duration::from_secs(119));
        let next = w.send(to_users(&["u2"])).await;
        w.sees(next, "held(vendor_rate_limited)@alpha").await;
        waiting.push(next);
    }
    assert_eq!(w.alpha.sent().len(), 1, "not once in ten minutes");
    w.pass(Duration::from_secs(10));
    for next in waiting {
        assert_eq!(w.outcome(next).await, Reason::AcceptedByVendor);
    }
    // A vendor that names a day is asked again within the hour.
    w.alpha.script([slow_down(Some(86_400))]);
    let first = w.send(to_users(&["u1"])).await;
    w.sees(first, "retried(vendor_rate_limited)@alpha").await;
    w.pass(Duration::from_secs(3_500));
    let next = w.send(to_users(&["u2"])).await;
    w.sees(next, "held(vendor_rate_limited)@alpha").await;
    w.pass(Duration::from_secs(120));
    assert_eq!(w.outcome(next).await, Reason::AcceptedByVendor);
}

/// What waits for a slot when the vendor asks for a pause does not go out after it.
#[tokio::test]
async fn a_pause_holds_for_those_that_wait_their_turn() {
    let w = world().await;
    let gate = w.alpha.gate();
    let all = u32::try_from(gate.available_permits()).unwrap();
    let closed = gate.clone().acquire_many_owned(all).await.unwrap();
    w.alpha.script((0..8).map(|_| slow_down(Some(600))));
    let mut sent = Vec::new();
    for n in 0..12 {
        let user = format!("u{n}");
        w.device(&format!("d{n}"), Some(&user), &["alpha"]).await;
        sent.push(w.send(to_users(&[&user])).await);
        w.with_a_lane(sent[n]).await;
    }
    let begun = w.until(|| async { (w.alpha.begun() == 8).then_some(()) });
    begun.await.expect("all slots are taken");
    drop(closed);
    for id in &sent {
        let trace = w.at_alpha(*id).await;
        assert!(
            trace.iter().any(|t| t.contains("vendor_rate_limited")),
            "{trace:?}"
        );
    }
    assert_eq!(w.alpha.sent().len(), 8, "those that were under way");
    // Whom the vendor asked to pause is the same with other limits.
    let default = CredentialName::parse("default").unwrap();
    let (credentials, alpha) = (w.dispatch.credentials(), channel("alpha"));
    let registry = &w.ports.registry;
    let read = registry.credential(&w.app, &alpha, &default).await;
    let limits = LaneLimits {
        concurrency: Some(1),
        ..LaneLimits::default()
    };
    let limited = credentials.limit(read.unwrap().unwrap(), limits).await;
    limited.unwrap();
    let next = w.send(to_users(&["u0"])).await;
    w.sees(next, "held(vendor_rate_limited)@alpha").await;
    assert_eq!(w.alpha.opened(), 1, "what the channel knows stays");
    let opened = credentials.open(&w.app, &alpha, &default).await.unwrap();
    assert_eq!(opened.limits, limits);
    // A credential that is stored anew is another matter.
    let new = NewCredential {
        config: serde_json::json!({ "secret": "another" }),
        endpoint: None,
        limits,
    };
    let stored = credentials.put(&w.app, &alpha, &default, new).await;
    stored.unwrap();
    let next = w.send(to_users(&["u0"])).await;
    assert_eq!(w.outcome(next).await, Reason::AcceptedByVendor);
    assert_eq!(w.alpha.opened(), 2);
}

#[tokio::test]
async fn who_does_not_outlive_a_pause_goes_another_way_or_ends_with_the_reason() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.device("d2", Some("u2"), &["alpha", "beta"]).await;
    w.alpha.script([slow_down(Some(600))]);
    let short = |user: &str| {
        let mut draft = to_users(&[user]);
        draft.options.ttl_s = Some(300);
        draft
    };
    // The first is answered, the others find the pause.
    for _ in 0..2 {
        let other = w.send(short("u2")).await;
        w.sees(other, "fallback(vendor_rate_limited)@alpha").await;
        w.sees(other, "accepted_by_vendor(accepted_by_vendor)@beta")
            .await;
        let ends = w.send(short("u1")).await;
        assert_eq!(w.outcome(ends).await, Reason::VendorRateLimited);
    }
    assert_eq!(w.alpha.sent().len(), 1);
    let lives = w.send(to_users(&["u1"])).await;
    w.sees(lives, "held(vendor_rate_limited)@alpha").await;
    w.pass(Duration::from_secs(601));
    assert_eq!(w.outcome(lives).await, Reason::AcceptedByVendor);
}

#[tokio::test]
async fn one_device_of_which_the_vendor_takes_no_more_holds_up_nobody_else() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.device("d2", Some("u2"), &["alpha"]).await;
    let busy = || Verdict::DeviceLimited {
        after: Some(Duration::from_secs(60)),
        detail: "TooManyRequests".into(),
    };
    let mut waiting = Vec::new();
    for _ in 0..12 {
        w.alpha.script([busy()]);
        let id = w.send(to_users(&["u1"])).await;
        w.sees(id, "retried(vendor_rate_limited)@alpha").await;
        assert_eq!(w.count(id, Stage::SentVendor).await, 1);
        waiting.push(id);
        let other = w.send(to_users(&["u2"])).await;
        assert_eq!(w.outcome(other).await, Reason::AcceptedByVendor);
    }
    w.pass(Duration::from_secs(90));
    for id in waiting {
        assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    }
    // However often the one is asked: others are not concerned.
    w.alpha.always(Some(busy()));
    for _ in 0..60 {
        let id = w.send(to_users(&["u1"])).await;
        w.sees(id, "retried(vendor_rate_limited)@alpha").await;
        assert_eq!(w.count(id, Stage::Held).await, 0);
    }
    w.alpha.always(None);
    let other = w.send(to_users(&["u2"])).await;
    assert_eq!(w.outcome(other).await, Reason::AcceptedByVendor);
    // One after the other, and nobody who is not: it means all.
    w.alpha.always(Some(busy()));
    let mut held = 0;
    for n in 0..60 {
        let user = format!("v{n}");
        w.device(&format!("e{n}"), Some(&user), &["alpha"]).await;
        let id = w.send(to_users(&[&user])).await;
        let trace = w.at_alpha(id).await;
        held += usize::from(trace.iter().any(|t| t.starts_with("held(")));
        assert!(n > 50 || held == 0, "{n}");
    }
    assert!(held > 0, "the lane slows down");
    // A vendor that fails is no crowd.
    w.alpha.always(Some(broken()));
    let open = || async {
        w.pass(Duration::from_millis(200));
        let id = w.send(to_users(&["u2"])).await;
        let trace = w.at_alpha(id).await;
        let open = |t: &String| t.starts_with("held(breaker_open)");
        trace.iter().any(open).then_some(())
    };
    w.until(open).await.expect("the breaker opens");
}
