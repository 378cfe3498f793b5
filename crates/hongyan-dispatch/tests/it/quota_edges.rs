//! What lies at the edges of a day's quota: limits that come late, reserves of reserves, the way back, and a lane's pace.

use std::time::Duration;

use hongyan_core::app::{DailyQuota, QuotaOverflow};
use hongyan_core::port::{Clock as _, LimitOf, RateCounts};
use hongyan_core::{Class, ClassDetail, Reason, Stage, Verdict};
use hongyan_testkit::fake::FakeVendor;

use crate::quotas::{TO_MIDNIGHT, named, of_class, settled};
use crate::world::{World, to_users, world, world_of};

const NONE: DailyQuota = DailyQuota {
    per_day: None,
    reserved: None,
    marketing_per_day: None,
    marketing_per_device: None,
};

fn marketing(limit: u64) -> DailyQuota {
    DailyQuota {
        marketing_per_day: Some(limit),
        ..NONE
    }
}

#[tokio::test]
async fn the_reserve_of_the_whole_is_not_taken_from_the_limit_on_marketing() {
    let w = world().await;
    w.alpha.sends_as_public(Class::Im);
    w.device("d1", Some("u1"), &["alpha"]).await;
    let quota = DailyQuota {
        per_day: Some(100),
        reserved: Some(50),
        ..marketing(10)
    };
    w.limit("alpha", quota).await;
    let standing = w.standing("alpha", quota).await;
    assert_eq!(standing.marketing_per_day, Some(5));
    assert_eq!((standing.reserved, standing.marketing_reserved), (50, 5));
    // What the urgent class takes of its part is not taken from the others.
    for _ in 0..4 {
        assert_eq!(w.one_more(Class::Im, "u1").await, ("sent", 1));
    }
    for want in ["sent", "sent", "sent", "sent", "sent", "held"] {
        assert_eq!(w.one_more(Class::Marketing, "u1").await.0, want);
    }
    let standing = w.standing("alpha", quota).await;
    assert_eq!((standing.reserved, standing.marketing_reserved), (46, 1));
    assert_eq!(w.one_more(Class::Im, "u1").await, ("sent", 1));
    let over = w.send(of_class(Class::Im, "u1")).await;
    assert_eq!(w.outcome(over).await, Reason::QuotaExhausted);
}

#[tokio::test]
async fn a_kind_of_transaction_that_was_not_granted_finds_something_left() {
    let w = world().await;
    w.alpha.sends_detail_as_public(ClassDetail::Account);
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.limit("alpha", marketing(5)).await;
    for want in ["sent", "sent", "sent", "sent", "held"] {
        assert_eq!(w.one_more(Class::Marketing, "u1").await.0, want);
    }
    let mut account = of_class(Class::Transaction, "u1");
    account.class_detail = Some(ClassDetail::Account);
    let account = w.send(account).await;
    assert_eq!(w.outcome(account).await, Reason::AcceptedByVendor);
}

#[tokio::test]
async fn a_limit_that_is_cleared_and_set_again_counts_what_went_meanwhile() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    for quota in [marketing(3), DailyQuota::default()] {
        w.limit("alpha", quota).await;
        assert_eq!(w.one_more(Class::Marketing, "u1").await, ("sent", 1));
    }
    w.limit("alpha", marketing(3)).await;
    for want in ["sent", "held"] {
        assert_eq!(w.one_more(Class::Marketing, "u1").await.0, want);
    }
}

#[tokio::test]
async fn what_the_vendor_counts_later_in_the_day_is_believed_too() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.alpha
        .names_limits([named(LimitOf::Marketing, 10, Some(0), &w)]);
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("sent", 1));
    // Another server sent eight.
    w.alpha
        .names_limits([named(LimitOf::Marketing, 10, Some(9), &w)]);
    for want in ["sent", "held"] {
        assert_eq!(w.one_more(Class::Marketing, "u1").await.0, want);
    }
    let quota = DailyQuota::default();
    let standing = w.standing("alpha", quota).await;
    assert_eq!(standing.used[3], (Class::Marketing, 2));
}

#[tokio::test]
async fn nothing_is_left_for_marketing_when_nothing_is_left_at_all() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let quota = DailyQuota {
        per_day: Some(10),
        reserved: Some(0),
        ..DailyQuota::default()
    };
    w.limit("alpha", quota).await;
    for _ in 0..9 {
        assert_eq!(w.one_more(Class::Im, "u1").await, ("sent", 1));
    }
    let standing = w.standing("alpha", quota).await;
    assert!(standing.runs_out_at.is_some());
    assert_eq!(standing.marketing_runs_out_at, standing.runs_out_at);
}

#[tokio::test]
async fn what_spilled_and_failed_there_goes_back_the_next_day() {
    let w = world().await;
    w.overflow(QuotaOverflow::Spill).await;
    w.limit("alpha", marketing(1)).await;
    w.device("d1", Some("u1"), &["alpha", "beta"]).await;
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("sent", 1));
    w.beta.script([Verdict::TokenDead {
        reason: Reason::TokenInvalid,
        detail: "gone".to_owned(),
        since: None,
    }]);
    let mut draft = of_class(Class::Marketing, "u1");
    draft.options.ttl_s = Some(86_400);
    let spilled = w.send(draft).await;
    w.sees(spilled, "fallback(token_invalid)@beta").await;
    w.sees(spilled, "held(quota_exhausted)@alpha").await;
    w.pass(TO_MIDNIGHT + Duration::from_secs(120));
    assert_eq!(w.outcome(spilled).await, Reason::AcceptedByVendor);
    w.sees(spilled, "accepted_by_vendor(accepted_by_vendor)@alpha")
        .await;
}

#[tokio::test]
async fn what_is_held_costs_nothing_of_the_vendors_rate() {
    let w = world_of(FakeVendor::new("alpha", 1).at_most(1, RateCounts::Requests)).await;
    w.limit("alpha", marketing(0)).await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let mut held = Vec::new();
    for _ in 0..30 {
        held.push(w.send(of_class(Class::Marketing, "u1")).await);
    }
    // The clock stands still, so that the bucket gets nothing but what is given back.
    for id in held {
        assert_eq!(settled(&w, id).await, "held");
    }
    assert_eq!(w.one_more(Class::Subscription, "u1").await, ("sent", 1));
}

#[tokio::test]
async fn of_a_batch_only_those_that_go_count_against_the_rate() {
    let w = world_of(FakeVendor::new("alpha", 100).at_most(100, RateCounts::Devices)).await;
    w.limit("alpha", marketing(10)).await;
    let users: Vec<String> = (0..90).map(|n| format!("u{n}")).collect();
    for user in &users {
        w.device(&format!("d-{user}"), Some(user), &["alpha"]).await;
    }
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let mut draft = to_users(&users);
    draft.class = Class::Marketing;
    let id = w.send(draft).await;
    assert_eq!(w.outcomes(id, 10).await.len(), 10);
    // A tenth of a second's worth was saved up, and just that much went: a moment is enough for one more.
    w.pass(Duration::from_millis(20));
    assert_eq!(w.one_more(Class::Subscription, "u1").await, ("sent", 1));
}

#[tokio::test]
async fn whose_turn_comes_after_its_end_does_not_wait_for_it() {
    let w = world_of(FakeVendor::new("alpha", 1).at_most(1, RateCounts::Requests)).await;
    w.limit("alpha", marketing(0)).await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    // One a second comes back, from a minute after midnight on; all but the last end a second after that.
    let mut how = Vec::new();
    for life in [61, 61, 61, 62] {
        let mut draft = of_class(Class::Marketing, "u1");
        draft.options.ttl_s = Some(TO_MIDNIGHT.as_secs() as u32 + life);
        let id = w.send(draft).await;
        how.push(settled(&w, id).await);
    }
    // Those that ended at once took no turn of the last one.
    assert_eq!(how, ["held", "sent", "sent", "held"]);
    assert_eq!(w.alpha.sent().len(), 0);
}

#[tokio::test]
async fn who_waits_for_an_hour_does_not_wait_behind_those_that_wait_for_midnight() {
    let w = world().await;
    w.limit("alpha", marketing(0)).await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("held", 0));
    let two_hours = Duration::from_secs(2 * 3600);
    w.alpha.always(Some(Verdict::QuotaExhausted {
        until: Some(two_hours),
        detail: "not at this hour".to_owned(),
    }));
    let held = w.send(of_class(Class::Subscription, "u1")).await;
    assert_eq!(settled(&w, held).await, "held");
    let events = w.events(held).await;
    let until = events.iter().find(|e| e.stage == Stage::Held).unwrap();
    let waits = until.until.unwrap().since(w.clock.now());
    assert_eq!(waits, two_hours + Duration::from_secs(60));
}

#[tokio::test]
async fn a_quota_that_the_store_cannot_settle_is_heard_of_all_the_same() {
    let w: World = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    // Some of the batch is taken and must be written down: that fails; the word about the rest must not be lost with it.
    w.device("d2", Some("u2"), &["alpha"]).await;
    let accepted = Verdict::Accepted { vendor_id: None };
    w.alpha.script([accepted, crate::quotas::used_up()]);
    w.trouble.fail("take", 1);
    let mut draft = to_users(&["u1", "u2"]);
    draft.class = Class::Marketing;
    let id = w.send(draft).await;
    w.outcomes(id, 1).await;
    let held = || async { (w.count(id, Stage::Held).await == 1).then_some(()) };
    w.until(held).await.expect("one waits");
    assert_eq!(w.closed().await, [(Class::Marketing, TO_MIDNIGHT)]);
}
