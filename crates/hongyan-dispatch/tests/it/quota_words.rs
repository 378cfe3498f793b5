//! A vendor's words that a quota is used up: what they close, for how long, and what opens it.

use std::time::Duration;

use hongyan_core::port::{Clock as _, QuotaWord};
use hongyan_core::verdict::Unsure;
use hongyan_core::{Class, ClassDetail, MessageId, Reason, Stage, Verdict};
use hongyan_testkit::fake::FakeVendor;
use serde_json::json;

use crate::quotas::{TO_MIDNIGHT, of_class, settled, used_up};
use crate::world::{World, to_users, world, world_of};

impl World {
    async fn transaction(&self, detail: ClassDetail) -> Reason {
        let mut draft = of_class(Class::Transaction, "u1");
        draft.class_detail = Some(detail);
        let id = self.send(draft).await;
        self.outcome(id).await
    }
}

#[tokio::test]
async fn what_was_not_granted_closes_nothing_of_what_was() {
    let w = world().await;
    // Finance was granted, orders were not: these go out as public, and that is used up.
    w.alpha.sends_detail_as_public(ClassDetail::Order);
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.alpha.script([used_up()]);
    let over = w.transaction(ClassDetail::Order).await;
    assert_eq!(over, Reason::QuotaExhausted);
    let granted = w.transaction(ClassDetail::Finance).await;
    assert_eq!(granted, Reason::AcceptedByVendor);
    let asked = w.alpha.sent().len();
    let closed = w.transaction(ClassDetail::Order).await;
    assert_eq!(closed, Reason::QuotaExhausted);
    assert_eq!(w.alpha.sent().len(), asked);
    assert_eq!(w.closed().await, [(Class::Transaction, TO_MIDNIGHT)]);
}

#[tokio::test]
async fn a_word_about_the_rest_of_a_batch_closes() {
    let w = world().await;
    let users: Vec<String> = (0..5).map(|n| format!("u{n}")).collect();
    for user in &users {
        w.device(&format!("d-{user}"), Some(user), &["alpha"]).await;
    }
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let mut draft = to_users(&users);
    draft.class = Class::Marketing;
    let accepted = Verdict::Accepted { vendor_id: None };
    w.alpha.script([accepted.clone(), accepted]);
    w.alpha.always(Some(used_up()));
    let id = w.send(draft).await;
    let held = || async { (w.count(id, Stage::Held).await == 3).then_some(()) };
    w.until(held).await.expect("the rest waits");
    assert_eq!(w.one_more(Class::Marketing, "u0").await, ("held", 0));
}

#[tokio::test]
async fn an_answer_that_got_lost_opens_nothing() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.alpha.script([used_up()]);
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("held", 1));
    w.pass(Duration::from_secs(600));
    w.alpha.script([Verdict::Retry {
        reason: Reason::VendorUnavailable,
        after: None,
        detail: "no answer".to_owned(),
        certainty: Unsure::MaybeTaken,
    }]);
    let lost = w.send(of_class(Class::Marketing, "u1")).await;
    w.sees(lost, "retried(vendor_unavailable)@alpha").await;
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("held", 0));
}

#[tokio::test]
async fn hours_that_a_vendor_names_are_kept_over_its_midnight() {
    let mut w = world_of(FakeVendor::new("alpha", 100).means_it(QuotaWord::Final)).await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    // From eight in the evening to seven.
    let night = Duration::from_secs(11 * 3600);
    w.alpha.script([Verdict::QuotaExhausted {
        until: Some(night),
        detail: "10071".to_owned(),
    }]);
    let held = w.send(of_class(Class::Marketing, "u1")).await;
    assert_eq!(settled(&w, held).await, "held");
    let seven = w.clock.now().plus(night);
    for restarts in [false, true] {
        if restarts {
            w.restart();
        }
        w.pass(TO_MIDNIGHT / 2 + Duration::from_secs(600));
        assert_eq!(w.one_more(Class::Marketing, "u1").await, ("held", 0));
        let left = seven.since(w.clock.now());
        assert_eq!(w.closed().await, [(Class::Marketing, left)]);
    }
    w.pass(seven.since(w.clock.now()) + Duration::from_secs(70));
    assert_eq!(w.outcome(held).await, Reason::AcceptedByVendor);
    assert_eq!(w.closed().await, []);
}

#[tokio::test]
async fn who_looks_while_it_opens_does_not_close_it_again() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.alpha.script([used_up()]);
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("held", 1));
    w.pass(Duration::from_secs(600));
    let store = w.trouble.hold("take");
    let probe = w.send(of_class(Class::Marketing, "u1")).await;
    // It was taken: that is written down first, then what it opens.
    store.reached().await;
    store.go_on_once();
    store.reached().await;
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("held", 0));
    store.go_on();
    assert_eq!(w.outcome(probe).await, Reason::AcceptedByVendor);
    let open = || async { w.closed().await.is_empty().then_some(()) };
    w.until(open).await.expect("it opens");
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("sent", 1));
}

#[tokio::test]
async fn a_credential_that_is_stored_anew_may_be_closed_again() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    for _ in 0..3 {
        w.alpha.script([used_up()]);
        assert_eq!(w.one_more(Class::Marketing, "u1").await, ("held", 1));
        assert_eq!(w.one_more(Class::Marketing, "u1").await, ("held", 0));
        w.reopen().await;
        assert_eq!(w.closed().await, []);
    }
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("sent", 1));
}

impl World {
    /// The vendor's receipt of a kind about a message, for a time so long before now.
    async fn receipt(&self, id: MessageId, kind: &str, before: Duration) {
        let at = self.clock.now().millis() - before.as_millis() as i64;
        let body = json!({
            "token": "alpha-d1", "message": id.to_string(), "kind": kind, "at": at, "detail": "128 ack 10 quota 10",
        });
        let body = body.to_string();
        self.posts(None, Some("yes"), &body).await.unwrap();
    }
}

#[tokio::test]
async fn a_receipt_that_says_so_closes_as_well() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let id = w.send(of_class(Class::Marketing, "u1")).await;
    assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    // Of one device it says nothing of the others, and of yesterday nothing of today.
    let hour = Duration::from_secs(3600);
    w.receipt(id, "over_quota", Duration::ZERO).await;
    w.receipt(id, "day_over", 21 * hour).await;
    assert_eq!(w.closed().await, []);
    w.receipt(id, "day_over", hour).await;
    assert_eq!(w.closed().await, [(Class::Marketing, TO_MIDNIGHT)]);
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("held", 0));
    assert_eq!(w.one_more(Class::Im, "u1").await, ("sent", 1));
    // What nobody sent closes nothing.
    w.receipt(MessageId(uuid::Uuid::nil()), "day_over", hour)
        .await;
    assert_eq!(w.closed().await, [(Class::Marketing, TO_MIDNIGHT)]);
}
