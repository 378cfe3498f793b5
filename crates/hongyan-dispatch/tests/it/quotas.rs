//! A vendor's day: nothing urgent waits behind marketing, nothing goes out over the limit, and the books are right.

use std::collections::BTreeMap;
use std::time::Duration;

use hongyan_core::app::{DailyQuota, LaneLimits, QuotaOverflow};
use hongyan_core::draft::Draft;
use hongyan_core::port::{Clock as _, DailyLimit, LimitOf, QuotaWord};
use hongyan_core::{Class, CredentialName, MessageId, Reason, Stage, Verdict};
use hongyan_dispatch::credentials::NewCredential;
use hongyan_dispatch::explain::Would;
use hongyan_dispatch::quota::{Account, Day, Effective, Standing, Terms};

use hongyan_testkit::fake::FakeVendor;

use crate::world::{World, channel, to_users, world, world_of};

pub(crate) const BEIJING: i32 = 8 * 3600;

impl World {
    pub(crate) async fn limit(&self, name: &str, quota: DailyQuota) {
        let new = NewCredential {
            config: serde_json::json!({"secret": "s"}),
            endpoint: None,
            limits: LaneLimits {
                quota,
                ..LaneLimits::default()
            },
        };
        let default = CredentialName::parse("default").unwrap();
        let credentials = self.dispatch.credentials();
        let channel = channel(name);
        let put = credentials.put(&self.app, &channel, &default, new);
        put.await.unwrap();
    }

    fn account(&self, name: &str) -> Account {
        Account {
            app: self.app.clone(),
            channel: channel(name),
            credential: CredentialName::parse("default").unwrap(),
        }
    }

    /// As when alpha's credential is stored anew.
    pub(crate) async fn reopen(&self) {
        let account = self.account("alpha");
        self.dispatch.quotas().reopen(&account).await.unwrap();
    }

    pub(crate) async fn standing(&self, name: &str, quota: DailyQuota) -> Standing {
        let account = self.account(name);
        let now = self.clock.now();
        let terms = Terms::of(&self.alpha, &self.alpha);
        let limits = Effective::of(&quota, &terms, Day::at(now, BEIJING), now);
        let standing = self.dispatch.quotas().standing(&account, &limits, BEIJING);
        standing.await.unwrap()
    }

    pub(crate) async fn overflow(&self, overflow: QuotaOverflow) {
        let mut app = self.ports.registry.app(&self.app).await.unwrap().unwrap();
        let version = app.version;
        app.policy.quota_overflow = overflow;
        app.version += 1;
        let put = self.ports.registry.put_app(app, Some(version));
        put.await.unwrap();
    }
}

pub(crate) fn of_class(class: Class, user: &str) -> Draft {
    Draft {
        class,
        ..to_users(&[user])
    }
}

pub(crate) async fn settled(w: &World, id: MessageId) -> &'static str {
    let found = w.until(|| async {
        let events = w.events(id).await;
        let held = events
            .iter()
            .any(|e| e.stage == Stage::Held && e.reason == Some(Reason::QuotaExhausted));
        let done = events.iter().any(|e| e.r#final);
        match (done, held) {
            (true, false) => Some("sent"),
            (true, true) => Some("sent later"),
            (false, true) => Some("held"),
            (false, false) => None,
        }
    });
    found.await.unwrap()
}

#[tokio::test]
async fn a_day_of_mixed_traffic_with_marketing_far_over_the_limit() {
    let w = world().await;
    let quota = DailyQuota {
        per_day: Some(60),
        reserved: Some(40),
        ..DailyQuota::default()
    };
    w.limit("alpha", quota).await;
    for n in 0..10 {
        w.device(&format!("d{n}"), Some(&format!("u{n}")), &["alpha"])
            .await;
    }
    // Noon in UTC is 20:00 in Beijing: four hours are left of the day. Ten rounds, each with more marketing than fits.
    let mut sent: BTreeMap<Class, Vec<MessageId>> = BTreeMap::new();
    for round in 0..10 {
        for n in 0..10 {
            let user = format!("u{n}");
            let mut classes = vec![Class::Marketing];
            match (n + round) % 5 {
                0 => classes.push(Class::Im),
                1 if round < 9 => classes.push(Class::Transaction),
                _ => {}
            }
            for class in classes {
                let mut draft = of_class(class, &user);
                draft.options.ttl_s = Some(86_400);
                sent.entry(class).or_default().push(w.send(draft).await);
            }
        }
        w.pass(Duration::from_secs(600));
    }
    let mut went: BTreeMap<Class, BTreeMap<&str, u64>> = BTreeMap::new();
    for (class, ids) in &sent {
        for id in ids {
            let how = settled(&w, *id).await;
            *went.entry(*class).or_default().entry(how).or_default() += 1;
        }
    }
    // The urgent classes: none waited, none was lost, though marketing took all that it could.
    assert_eq!(went[&Class::Im], BTreeMap::from([("sent", 20)]));
    assert_eq!(went[&Class::Transaction], BTreeMap::from([("sent", 18)]));
    // Marketing got what was not reserved and not used by the others, and the rest waits.
    let today = 20;
    assert_eq!(
        went[&Class::Marketing],
        BTreeMap::from([("sent", today), ("held", 100 - today)])
    );
    // The books say what the ledger says.
    let standing = w.standing("alpha", quota).await;
    assert_eq!(
        standing.used,
        [
            (Class::Im, 20),
            (Class::Transaction, 18),
            (Class::Subscription, 0),
            (Class::Marketing, today),
        ]
    );
    assert_eq!(standing.marketing_per_day, Some(20));
    assert_eq!(standing.reserved, 2);
    assert_eq!(w.alpha.sent().len() as u64, today + 38);

    // Beijing's midnight: the next day takes as many again.
    w.pass(Duration::from_secs(3 * 3600));
    let next_day = w.until(|| async {
        let used = w.standing("alpha", quota).await.used;
        (used.last() == Some(&(Class::Marketing, 20))).then_some(())
    });
    assert!(
        next_day.await.is_some(),
        "what waited goes out on the next day"
    );
    assert_eq!(w.alpha.sent().len() as u64, today + 38 + 20);
}

#[tokio::test]
async fn over_the_limit_goes_where_the_policy_says() {
    let w = world().await;
    let quota = DailyQuota {
        marketing_per_day: Some(1),
        ..DailyQuota::default()
    };
    w.limit("alpha", quota).await;
    w.device("d1", Some("u1"), &["alpha", "beta"]).await;
    let first = w.send(of_class(Class::Marketing, "u1")).await;
    assert_eq!(w.outcome(first).await, Reason::AcceptedByVendor);
    let held = w.send(of_class(Class::Marketing, "u1")).await;
    assert_eq!(settled(&w, held).await, "held");
    assert!(w.beta.sent().is_empty());

    w.overflow(QuotaOverflow::Spill).await;
    let spilled = w.send(of_class(Class::Marketing, "u1")).await;
    w.sees(spilled, "fallback(quota_exhausted)@alpha").await;
    w.sees(spilled, "accepted_by_vendor(accepted_by_vendor)@beta")
        .await;

    // With one channel only there is nowhere to go but tomorrow.
    w.device("d2", Some("u2"), &["alpha"]).await;
    let alone = w.send(of_class(Class::Marketing, "u2")).await;
    assert_eq!(settled(&w, alone).await, "held");
    // And who would not live to see tomorrow ends now, with the reason.
    let mut short = of_class(Class::Marketing, "u2");
    short.options.ttl_s = Some(3600);
    let short = w.send(short).await;
    assert_eq!(w.outcome(short).await, Reason::QuotaExhausted);
}

/// What a quota holds was not sent: the funnel has as many sent as the vendor was asked for, and each is accounted for.
#[tokio::test]
async fn the_funnel_adds_up_where_a_quota_holds() {
    let w = world().await;
    let quota = DailyQuota {
        per_day: Some(3),
        reserved: Some(0),
        ..DailyQuota::default()
    };
    w.limit("alpha", quota).await;
    let users: Vec<String> = (0..5).map(|n| format!("u{n}")).collect();
    for user in &users {
        w.device(&format!("d-{user}"), Some(user), &["alpha"]).await;
    }
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let mut draft = to_users(&users);
    draft.class = Class::Marketing;
    draft.options.ttl_s = Some(86_400);
    let id = w.send(draft).await;
    w.outcomes(id, 3).await;
    let held = || async { (w.count(id, Stage::Held).await == 2).then_some(()) };
    w.until(held).await.expect("two wait for tomorrow");
    let funnel = async || {
        let mut counts = Vec::new();
        for stage in [
            Stage::Targeted,
            Stage::SentVendor,
            Stage::AcceptedByVendor,
            Stage::Held,
        ] {
            counts.push(w.count(id, stage).await);
        }
        counts
    };
    assert_eq!(funnel().await, [5, 3, 3, 2]);
    assert_eq!(w.alpha.sent().len(), 3);
    w.pass(Duration::from_secs(4 * 3600 + 120));
    w.outcomes(id, 5).await;
    assert_eq!(funnel().await, [5, 5, 5, 2]);
    assert_eq!(w.alpha.sent().len(), 5);
    // The vendor's own word is another matter: it was asked.
    w.alpha.always(Some(Verdict::QuotaExhausted {
        until: None,
        detail: "over".to_owned(),
    }));
    w.limit("alpha", DailyQuota::default()).await;
    let asked = w.send(of_class(Class::Marketing, "u1")).await;
    assert_eq!(settled(&w, asked).await, "held");
    assert_eq!(w.count(asked, Stage::SentVendor).await, 1);
}

#[tokio::test]
async fn one_device_gets_so_much_marketing_a_day() {
    let w = world().await;
    let quota = DailyQuota {
        marketing_per_device: Some(2),
        ..DailyQuota::default()
    };
    w.limit("alpha", quota).await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.device("d2", Some("u2"), &["alpha"]).await;
    let mut how = Vec::new();
    for user in ["u1", "u1", "u1", "u2"] {
        let id = w.send(of_class(Class::Marketing, user)).await;
        how.push(settled(&w, id).await);
    }
    assert_eq!(how, ["sent", "sent", "held", "sent"]);
    let im = w.send(of_class(Class::Im, "u1")).await;
    assert_eq!(settled(&w, im).await, "sent");
}

#[tokio::test]
async fn what_the_vendor_does_not_take_is_given_back() {
    let w = world().await;
    let quota = DailyQuota {
        per_day: Some(2),
        reserved: Some(0),
        ..DailyQuota::default()
    };
    w.limit("alpha", quota).await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let refused = Verdict::Refused {
        reason: Reason::PayloadRejected,
        detail: "no".to_owned(),
    };
    w.alpha.script(vec![refused; 5]);
    for _ in 0..5 {
        let id = w.send(of_class(Class::Marketing, "u1")).await;
        assert_eq!(w.outcome(id).await, Reason::PayloadRejected);
    }
    for _ in 0..2 {
        let id = w.send(of_class(Class::Marketing, "u1")).await;
        assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    }
    let third = w.send(of_class(Class::Marketing, "u1")).await;
    assert_eq!(settled(&w, third).await, "held");
    assert_eq!(
        w.standing("alpha", quota).await.used[3],
        (Class::Marketing, 2)
    );
}

#[tokio::test]
async fn the_counters_of_a_batch_are_asked_for_together() {
    let w = world().await;
    let quota = DailyQuota {
        marketing_per_device: Some(1),
        ..DailyQuota::default()
    };
    w.limit("alpha", quota).await;
    let users: Vec<String> = (0..40).map(|n| format!("u{n}")).collect();
    for user in &users {
        w.device(&format!("d-{user}"), Some(user), &["alpha"]).await;
    }
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let mut draft = to_users(&users);
    draft.class = Class::Marketing;
    let held = w.trouble.hold("take");
    let id = w.send(draft).await;
    let together = || async { (w.trouble.calls("take") == 40).then_some(()) };
    w.until(together).await.expect("none waits for another");
    held.go_on();
    assert_eq!(w.outcomes(id, 40).await.len(), 40);
    assert_eq!(w.alpha.sent().len(), 40);
}

pub(crate) fn used_up() -> Verdict {
    Verdict::QuotaExhausted {
        until: None,
        detail: "10070 over".to_owned(),
    }
}

impl World {
    /// What became of one more message of a class, and how often the vendor was asked for it.
    pub(crate) async fn one_more(&self, class: Class, user: &str) -> (&'static str, usize) {
        let id = self.send(of_class(class, user)).await;
        let how = settled(self, id).await;
        let sent = self.alpha.sent();
        (how, sent.iter().filter(|s| s.message == id).count())
    }

    async fn explained(&self, draft: Draft) -> String {
        let said = self.dispatch.explainer().explain(&self.app, draft).await;
        match &said.unwrap().devices[0].would {
            Would::Push { .. } => "push".to_owned(),
            Would::Hold { reason, .. } => format!("hold {reason}"),
            other => format!("{other:?}"),
        }
    }

    pub(crate) async fn closed(&self) -> Vec<(Class, Duration)> {
        let standing = self.standing("alpha", DailyQuota::default()).await;
        let now = self.clock.now();
        let closed = standing.closed.into_iter();
        closed
            .map(|(class, c)| (class, c.until.since(now)))
            .collect()
    }
}

pub(crate) const TO_MIDNIGHT: Duration = Duration::from_secs(4 * 3600);

#[tokio::test]
async fn the_first_word_that_a_quota_is_used_up_closes_it_until_midnight() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.alpha.always(Some(used_up()));
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("held", 1));
    w.alpha.always(None);
    for _ in 0..6 {
        assert_eq!(w.one_more(Class::Marketing, "u1").await, ("held", 0));
    }
    assert_eq!(w.closed().await, [(Class::Marketing, TO_MIDNIGHT)]);
    let standing = w.standing("alpha", DailyQuota::default()).await;
    assert_eq!(standing.closed[0].1.why, "10070 over");
    // Who is held by it is told why.
    let held = w.send(of_class(Class::Marketing, "u1")).await;
    assert_eq!(settled(&w, held).await, "held");
    let events = w.events(held).await;
    let why = events.iter().find(|e| e.stage == Stage::Held).unwrap();
    assert_eq!(why.detail.as_deref(), Some("10070 over"));
    // Another class is another matter.
    for class in [Class::Subscription, Class::Im] {
        assert_eq!(w.one_more(class, "u1").await, ("sent", 1));
    }
    w.pass(TO_MIDNIGHT + Duration::from_secs(120));
    assert_eq!(w.outcome(held).await, Reason::AcceptedByVendor);
    assert_eq!(w.closed().await, []);
}

#[tokio::test]
async fn one_push_asks_now_and_then_whether_it_is_still_closed() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.alpha.always(Some(used_up()));
    let minutes = |n: u64| Duration::from_secs(60 * n);
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("held", 1));
    // After ten minutes, then after twenty more.
    for wait in [10, 20] {
        w.pass(minutes(wait - 1));
        assert_eq!(w.one_more(Class::Marketing, "u1").await, ("held", 0));
        w.pass(minutes(1));
        assert_eq!(w.one_more(Class::Marketing, "u1").await, ("held", 1));
        assert_eq!(w.one_more(Class::Marketing, "u1").await, ("held", 0));
    }
    w.alpha.always(None);
    w.pass(minutes(39));
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("held", 0));
    w.pass(minutes(1));
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("sent", 1));
    assert_eq!(w.closed().await, [], "the first that is taken opens");
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("sent", 1));
}

#[tokio::test]
async fn a_vendor_whose_clock_is_behind_costs_minutes_and_no_day() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.pass(TO_MIDNIGHT + Duration::from_secs(60));
    w.alpha.script([used_up()]);
    let held = w.send(of_class(Class::Marketing, "u1")).await;
    assert_eq!(settled(&w, held).await, "held");
    w.pass(Duration::from_secs(5 * 60 + 60));
    assert_eq!(w.outcome(held).await, Reason::AcceptedByVendor);
}

#[tokio::test]
async fn of_a_batch_only_one_asks() {
    let w = world().await;
    let users: Vec<String> = (0..20).map(|n| format!("u{n}")).collect();
    for user in &users {
        w.device(&format!("d-{user}"), Some(user), &["alpha"]).await;
    }
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    w.alpha.always(Some(used_up()));
    assert_eq!(w.one_more(Class::Marketing, "u0").await, ("held", 1));
    w.pass(Duration::from_secs(600));
    let mut draft = to_users(&users);
    draft.class = Class::Marketing;
    let id = w.send(draft).await;
    let held = || async {
        let events = w.events(id).await;
        let held = events.iter().filter(|e| e.stage == Stage::Held).count();
        (held == 20).then_some(())
    };
    w.until(held).await.expect("all wait");
    let asked = w.alpha.sent().into_iter().filter(|s| s.message == id);
    assert_eq!(asked.count(), 1);
}

#[tokio::test]
async fn the_urgent_classes_go_another_way_while_theirs_is_closed() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.device("d2", Some("u2"), &["alpha", "beta"]).await;
    w.alpha.always(Some(used_up()));
    let first = w.send(of_class(Class::Im, "u2")).await;
    w.sees(first, "fallback(quota_exhausted)@alpha").await;
    w.sees(first, "accepted_by_vendor(accepted_by_vendor)@beta")
        .await;
    let asked = w.alpha.sent().len();
    for _ in 0..5 {
        let next = w.send(of_class(Class::Im, "u2")).await;
        w.sees(next, "fallback(quota_exhausted)@alpha").await;
        w.sees(next, "accepted_by_vendor(accepted_by_vendor)@beta")
            .await;
    }
    let alone = w.send(of_class(Class::Im, "u1")).await;
    assert_eq!(w.outcome(alone).await, Reason::QuotaExhausted);
    assert_eq!(w.alpha.sent().len(), asked, "the vendor is left alone");
    assert_eq!(w.closed().await, [(Class::Im, TO_MIDNIGHT)]);
    // Tomorrow is too late for them: the next asks soon.
    w.alpha.always(None);
    w.pass(Duration::from_secs(10));
    assert_eq!(w.one_more(Class::Im, "u1").await, ("sent", 1));
    assert_eq!(w.closed().await, []);
}

#[tokio::test]
async fn what_is_closed_stays_so_over_a_restart() {
    let mut w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let hours = |n: u64| Duration::from_secs(3600 * n);
    w.alpha.always(Some(Verdict::QuotaExhausted {
        until: Some(hours(2)),
        detail: "not at this hour".to_owned(),
    }));
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("held", 1));
    w.alpha.always(None);
    w.restart();
    assert_eq!(w.closed().await, [(Class::Marketing, hours(2))]);
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("held", 0));
    // A credential that is stored anew may have more.
    w.reopen().await;
    assert_eq!(w.closed().await, []);
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("sent", 1));
}

#[tokio::test]
async fn a_vendor_that_punishes_those_who_go_on_is_not_asked_before_its_midnight() {
    let mut w = world_of(FakeVendor::new("alpha", 100).means_it(QuotaWord::Final)).await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.alpha.script([used_up()]);
    let im = w.send(of_class(Class::Im, "u1")).await;
    assert_eq!(w.outcome(im).await, Reason::QuotaExhausted);
    // It counts all service classes together.
    let service = [Class::Im, Class::Transaction, Class::Subscription];
    assert_eq!(w.closed().await, service.map(|class| (class, TO_MIDNIGHT)));
    for restarts in [false, true] {
        if restarts {
            w.restart();
        }
        w.pass(Duration::from_secs(3600));
        for class in service {
            assert_eq!(w.one_more(class, "u1").await.1, 0, "{class:?}");
        }
        assert_eq!(w.one_more(Class::Marketing, "u1").await, ("sent", 1));
    }
    w.pass(TO_MIDNIGHT);
    assert_eq!(w.one_more(Class::Im, "u1").await, ("sent", 1));
}

#[tokio::test]
async fn a_vendor_that_names_the_hour_gets_them_then() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    w.alpha.always(Some(Verdict::QuotaExhausted {
        until: Some(Duration::from_secs(2 * 3600)),
        detail: "not at this hour".to_owned(),
    }));
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(w.send(of_class(Class::Marketing, "u1")).await);
        assert_eq!(settled(&w, held[held.len() - 1]).await, "held");
    }
    assert_eq!(w.alpha.sent().len(), 1);
    w.alpha.always(None);
    w.pass(Duration::from_secs(2 * 3600 + 120));
    for id in held {
        assert_eq!(w.outcome(id).await, Reason::AcceptedByVendor);
    }
}

#[tokio::test]
async fn a_limit_on_marketing_holds_what_the_vendor_counts_as_that() {
    let w = world().await;
    w.device("d1", Some("u1"), &["alpha"]).await;
    let quota = DailyQuota {
        marketing_per_day: Some(2),
        ..DailyQuota::default()
    };
    w.limit("alpha", quota).await;
    let limited = [Class::Marketing, Class::Marketing, Class::Marketing];
    let mut how = Vec::new();
    for class in limited {
        how.push(w.one_more(class, "u1").await.0);
    }
    assert_eq!(how, ["sent", "sent", "held"]);
    for class in [Class::Subscription, Class::Subscription, Class::Im] {
        assert_eq!(w.one_more(class, "u1").await.0, "sent", "{class:?}");
    }
    let now = w.clock.now();
    let standing = w.standing("alpha", quota).await;
    assert_eq!(standing.marketing_per_day, Some(2));
    assert_eq!(standing.marketing_runs_out_at, Some(now), "it did");
    assert_eq!(standing.used[2], (Class::Subscription, 2));
    // Where a class goes out as public it counts with the rest.
    w.alpha.sends_as_public(Class::Subscription);
    assert_eq!(w.one_more(Class::Subscription, "u1").await.0, "held");
    let would = w.explained(of_class(Class::Subscription, "u1")).await;
    assert_eq!(would, "hold quota_exhausted");
    let would = w.explained(of_class(Class::Im, "u1")).await;
    assert_eq!(would, "push");
}

#[tokio::test]
async fn an_urgent_class_that_goes_out_as_public_finds_something_left() {
    let w = world().await;
    w.alpha.sends_as_public(Class::Im);
    w.device("d1", Some("u1"), &["alpha"]).await;
    let quota = DailyQuota {
        marketing_per_day: Some(5),
        ..DailyQuota::default()
    };
    w.limit("alpha", quota).await;
    let mut how = Vec::new();
    for _ in 0..5 {
        how.push(w.one_more(Class::Marketing, "u1").await.0);
    }
    assert_eq!(how, ["sent", "sent", "sent", "sent", "held"]);
    assert_eq!(w.one_more(Class::Im, "u1").await, ("sent", 1));
    let over = w.send(of_class(Class::Im, "u1")).await;
    assert_eq!(w.outcome(over).await, Reason::QuotaExhausted);
    // What was sent counts under a limit that is set later as it went out: five, with that im among them.
    let other = DailyQuota {
        marketing_per_day: Some(6),
        ..DailyQuota::default()
    };
    w.limit("alpha", other).await;
    let standing = w.standing("alpha", other).await;
    assert_eq!(standing.marketing_per_day, Some(5));
    assert_eq!(standing.marketing_reserved, 0, "one of six, which is used");
    assert_eq!(standing.used[0], (Class::Im, 1));
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("sent", 1));
    assert_eq!(w.one_more(Class::Marketing, "u1").await, ("held", 0));
}

pub(crate) fn named(of: LimitOf, limit: u64, used: Option<u64>, w: &World) -> DailyLimit {
    DailyLimit {
        of,
        part: String::new(),
        limit,
        used,
        at: w.clock.now(),
    }
}

#[tokio::test]
async fn a_limit_that_the_vendor_names_counts_where_none_was_configured() {
    let w = world().await;
    w.device("d", Some("u"), &["alpha"]).await;
    let send = async |class: Class| {
        let mut draft = of_class(class, "u");
        draft.options.ttl_s = Some(86_400);
        let id = w.send(draft).await;
        settled(&w, id).await
    };
    // Nobody knows of a limit; three go out.
    for _ in 0..3 {
        assert_eq!(send(Class::Marketing).await, "sent");
    }
    let nothing = DailyQuota::default();
    assert_eq!(w.standing("alpha", nothing).await.marketing_per_day, None);
    assert_eq!(w.alpha.asked_limits(), 1);
    // Now the vendor names one, and that it counts four: another server sends as well.
    w.alpha
        .names_limits([named(LimitOf::Marketing, 6, Some(4), &w)]);
    for want in ["sent", "sent", "held"] {
        assert_eq!(send(Class::Marketing).await, want);
    }
    assert_eq!(send(Class::Im).await, "sent", "it is not for those");
    let standing = w.standing("alpha", nothing).await;
    assert_eq!(
        (standing.marketing_per_day, standing.marketing_named),
        (Some(6), true)
    );
    assert_eq!((standing.per_day, standing.per_day_named), (None, false));
    assert_eq!(standing.used[3], (Class::Marketing, 5));
    // What a person set counts more than what the vendor says.
    let set = DailyQuota {
        marketing_per_day: Some(100),
        ..DailyQuota::default()
    };
    let standing = w.standing("alpha", set).await;
    assert_eq!(
        (standing.marketing_per_day, standing.marketing_named),
        (Some(100), false)
    );
    // After ten minutes the vendor is asked again; what it said is not believed for ever.
    w.pass(Duration::from_secs(600));
    assert_eq!(send(Class::Im).await, "sent");
    let asked = w.until(|| async { (w.alpha.asked_limits() == 2).then_some(()) });
    assert!(asked.await.is_some());
    w.pass(Duration::from_secs(2 * 86_400));
    assert_eq!(w.standing("alpha", nothing).await.marketing_per_day, None);
}

#[tokio::test]
async fn a_part_limits_nothing_and_a_whole_keeps_a_reserve() {
    let w = world().await;
    w.device("d", Some("u"), &["alpha"]).await;
    w.alpha.names_limits([
        named(LimitOf::Part, 0, None, &w),
        named(LimitOf::All, 10, None, &w),
    ]);
    let nothing = DailyQuota::default();
    let standing = w.standing("alpha", nothing).await;
    assert_eq!(
        (standing.per_day, standing.marketing_per_day),
        (Some(10), Some(8))
    );
    assert!(standing.per_day_named && standing.marketing_named);
    assert_eq!(standing.reserved, 2);
    let id = w.send(of_class(Class::Marketing, "u")).await;
    assert_eq!(settled(&w, id).await, "sent");
}
