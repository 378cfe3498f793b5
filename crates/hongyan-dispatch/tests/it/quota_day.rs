//! A whole day of a vendor and the morning after it, with marketing far over the limit: what each message is to become is
//! told beforehand by a model of a few lines, and at the end the ledger, the books and the vendors' own lists must agree.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hongyan_core::app::{DailyQuota, QuotaOverflow};
use hongyan_core::port::{CounterKey, EventFilter};
use hongyan_core::{Class, Event, MessageId, Reason, Stage, Timestamp, Verdict};
use hongyan_dispatch::quota::Day;

use crate::quotas::{BEIJING, of_class};
use crate::world::{World, world};

const HOUR: Duration = Duration::from_secs(3600);
/// Users, each with one device; those with an even number are reached by the other vendor too.
const USERS: u64 = 12;
/// How long a message lives: beyond the morning after.
const TTL_S: u32 = 3 * 86_400;

/// Chance that falls the same way for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }
}

/// One message that is to be sent.
#[derive(Debug, Clone, Copy)]
struct Planned {
    class: Class,
    user: u64,
    /// Whether the vendor will not take it.
    refused: bool,
}

impl Planned {
    const fn has_another_way(&self) -> bool {
        self.user.is_multiple_of(2)
    }

    const fn is_bulk(&self) -> bool {
        matches!(self.class, Class::Marketing | Class::Subscription)
    }
}

/// The traffic of one hour, in an order of its own.
fn hour_of(chance: &mut Chance) -> Vec<Planned> {
    let mut hour = Vec::new();
    for user in 0..USERS {
        for (class, share) in [
            (Class::Marketing, 60),
            (Class::Subscription, 20),
            (Class::Im, 35),
            (Class::Transaction, 20),
        ] {
            if chance.percent(share) {
                let mut planned = Planned {
                    class,
                    user,
                    refused: false,
                };
                // Who has no other way gets no second try, so that a refusal stays one.
                planned.refused =
                    planned.is_bulk() && !planned.has_another_way() && chance.percent(5);
                hour.push(planned);
            }
        }
    }
    for at in (1..hour.len()).rev() {
        let other = usize::try_from(chance.below(at as u64 + 1)).unwrap();
        hour.swap(at, other);
    }
    hour
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Went {
    Sent,
    Spilled,
    Held,
    Refused,
}

/// The vendor's day as the policy says it, in the order in which messages are sent.
struct Model {
    quota: DailyQuota,
    overflow: QuotaOverflow,
    /// Accepted by the vendor with the quota, by class.
    used: BTreeMap<Class, u64>,
}

impl Model {
    fn bulk(&self) -> u64 {
        let of = |class| self.used.get(&class).copied().unwrap_or(0);
        of(Class::Marketing) + of(Class::Subscription)
    }

    fn bulk_limit(&self) -> u64 {
        self.quota.per_day.unwrap() - self.quota.reserved.unwrap()
    }

    fn next(&mut self, planned: &Planned) -> Went {
        let left = self.used.values().sum::<u64>() < self.quota.per_day.unwrap()
            && (!planned.is_bulk() || self.bulk() < self.bulk_limit());
        match (left, planned.refused) {
            (true, true) => Went::Refused,
            (true, false) => {
                *self.used.entry(planned.class).or_default() += 1;
                Went::Sent
            }
            (false, _) => {
                assert!(
                    planned.is_bulk(),
                    "there is always room for the urgent classes"
                );
                match self.overflow {
                    QuotaOverflow::Spill if planned.has_another_way() => Went::Spilled,
                    _ => Went::Held,
                }
            }
        }
    }
}

/// A message that was sent.
#[derive(Debug, Clone, Copy)]
struct Sent {
    planned: Planned,
    id: MessageId,
    at: Timestamp,
    went: Went,
}

/// What became of it so far, once something did.
async fn became(w: &World, id: MessageId) -> Went {
    let found = w.until(|| async {
        let events = w.events(id).await;
        let of = |stage: Stage| events.iter().find(|e| e.stage == stage);
        if let Some(accepted) = of(Stage::AcceptedByVendor) {
            let spilled = accepted
                .channel
                .as_ref()
                .is_some_and(|c| c.as_str() == "beta");
            return Some(if spilled { Went::Spilled } else { Went::Sent });
        }
        if of(Stage::Held).is_some() {
            return Some(Went::Held);
        }
        events.iter().any(|e| e.r#final).then_some(Went::Refused)
    });
    found
        .await
        .unwrap_or_else(|| panic!("nothing became of {id}"))
}

/// Sends an hour's traffic over the hour, and compares each with the model.
async fn an_hour(w: &World, model: &mut Model, hour: &[Planned], sent: &mut Vec<Sent>) {
    // The clock knows no less than a millisecond.
    let step = Duration::from_millis(3_600_000 / (hour.len() as u64 + 1));
    for planned in hour {
        w.pass(step);
        let went = model.next(planned);
        if went == Went::Refused {
            w.alpha.script([Verdict::Refused {
                reason: Reason::PayloadRejected,
                detail: "no".to_owned(),
            }]);
        }
        let mut draft = of_class(planned.class, &format!("u{}", planned.user));
        draft.options.ttl_s = Some(TTL_S);
        let at = w.ports.clock.now();
        let id = w.send(draft).await;
        assert_eq!(
            became(w, id).await,
            went,
            "{planned:?}: {:?}",
            w.trace(id).await
        );
        let planned = *planned;
        sent.push(Sent {
            planned,
            id,
            at,
            went,
        });
    }
    w.pass(HOUR - step * u32::try_from(hour.len()).unwrap());
}

async fn all_events(w: &World) -> Vec<Event> {
    let mut all: Vec<Event> = Vec::new();
    loop {
        let after = all.last().map_or(0, |e| e.seq);
        let ledger = &w.ports.ledger;
        let page = ledger.events(&w.app, EventFilter::App, after, 1_000);
        let page = page.await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// What a vendor accepted on one of its days, by class, as the events tell it.
fn accepted(events: &[Event], channel: &str, day: Day) -> BTreeMap<Class, u64> {
    let mut used = BTreeMap::new();
    for event in events {
        let there = event
            .channel
            .as_ref()
            .is_some_and(|c| c.as_str() == channel);
        if there
            && event.stage == Stage::AcceptedByVendor
            && day.start <= event.at
            && event.at < day.end
        {
            *used.entry(event.class.unwrap()).or_default() += 1;
        }
    }
    used
}

/// The same as the books tell it.
async fn booked(w: &World, channel: &str, day: Day) -> BTreeMap<Class, u64> {
    let mut used = BTreeMap::new();
    for class in Class::ALL {
        let key = format!("{}/{channel}/default/used/{}", w.app, class.as_str());
        let count = w.ports.quota.used(&key, day.start).await.unwrap();
        if count > 0 {
            used.insert(class, count);
        }
    }
    used
}

/// Ledger, counters, books and the vendors' own lists agree.
async fn everything_agrees(w: &World, sent: &[Sent], days: &[Day]) {
    let events = all_events(w).await;
    for (vendor, name) in [(&w.alpha, "alpha"), (&w.beta, "beta")] {
        for day in days {
            assert_eq!(
                accepted(&events, name, *day),
                booked(w, name, *day).await,
                "{name}'s books of {day:?}"
            );
        }
        // Each call that the vendor got is one that the ledger has an answer to, and the other way round, once each.
        let mut got: Vec<_> = vendor
            .sent()
            .into_iter()
            .map(|s| (s.message, s.device))
            .collect();
        let answered = |e: &&Event| {
            e.channel.as_ref().is_some_and(|c| c.as_str() == name)
                && (e.stage == Stage::AcceptedByVendor || e.reason == Some(Reason::PayloadRejected))
        };
        let mut told: Vec<_> = events
            .iter()
            .filter(answered)
            .map(|e| (e.message.unwrap(), e.device.clone().unwrap()))
            .collect();
        got.sort();
        told.sort();
        assert!(
            got == told,
            "{name} got {} calls, the ledger has {} answers",
            got.len(),
            told.len()
        );
        let once: BTreeSet<_> = got.iter().collect();
        assert_eq!(once.len(), got.len(), "{name} got each once");
    }
    let mut counted: BTreeMap<CounterKey, u64> = BTreeMap::new();
    for event in &events {
        let key = CounterKey {
            day: event.at.day(),
            stage: event.stage,
            reason: event.reason,
            class: event.class,
            channel: event.channel.clone(),
            platform: event.platform,
            ends: event.r#final,
        };
        *counted.entry(key).or_default() += 1;
    }
    let (first, last) = (events[0].at.day(), events[events.len() - 1].at.day());
    let rows = w.ports.ledger.counters(&w.app, first, last).await.unwrap();
    let rows: BTreeMap<_, _> = rows.into_iter().map(|r| (r.key, r.count)).collect();
    assert_eq!(rows, counted, "counters are the events");
    for one in sent {
        let of: Vec<&Event> = events
            .iter()
            .filter(|e| e.message == Some(one.id))
            .collect();
        let count = |stage: Stage| of.iter().filter(|e| e.stage == stage).count();
        let finals: Vec<_> = of.iter().filter(|e| e.r#final).collect();
        if !one.planned.is_bulk() {
            // Neither late nor lost: the clock did not move between the two.
            assert_eq!(finals.len(), 1);
            assert_eq!(finals[0].reason, Some(Reason::AcceptedByVendor));
            assert_eq!(finals[0].at, one.at, "{:?}", one.planned);
            assert_eq!((count(Stage::Held), count(Stage::Fallback)), (0, 0));
        }
        match one.went {
            Went::Spilled => assert_eq!((count(Stage::Fallback), finals.len()), (1, 1)),
            Went::Held => assert!(finals.len() <= 1 && count(Stage::Fallback) == 0),
            Went::Sent | Went::Refused => assert_eq!((count(Stage::Held), finals.len()), (0, 1)),
        }
    }
}

/// What was held goes out at the vendor's midnight, as far as the new day has room; the rest waits for another night.
async fn the_night(w: &World, model: &mut Model, sent: &[Sent], today: Day) {
    let held: BTreeSet<MessageId> = sent
        .iter()
        .filter(|s| s.went == Went::Held)
        .map(|s| s.id)
        .collect();
    let room = usize::try_from(model.bulk_limit()).unwrap().min(held.len());
    assert!(
        room > 0 && room < held.len(),
        "far over the limit: {} held",
        held.len()
    );
    let events = w.until(|| async {
        let events = all_events(w).await;
        let mut went = BTreeSet::new();
        let mut again = BTreeSet::new();
        for event in events.iter().filter(|e| e.at >= today.start) {
            match (event.stage, event.message) {
                (Stage::AcceptedByVendor, Some(id)) => went.insert(id),
                (Stage::Held, Some(id)) => again.insert(id),
                _ => false,
            };
        }
        assert!(went.len() <= room, "no more than the day has room for");
        // What spills now goes another way at once.
        let all: BTreeSet<MessageId> = went.union(&again).copied().collect();
        (all == held && went.len() == room).then_some(events)
    });
    let Some(events) = events.await else {
        panic!(
            "the night did not end: {:?}",
            accepted(&all_events(w).await, "alpha", today)
        );
    };
    model.used = accepted(&events, "alpha", today);
}

async fn a_day_and_the_morning_after(overflow: QuotaOverflow, seed: u64) {
    let w = world().await;
    w.overflow(overflow).await;
    for user in 0..USERS {
        let channels: &[&str] = match user % 2 {
            0 => &["alpha", "beta"],
            _ => &["alpha"],
        };
        w.device(&format!("d{user}"), Some(&format!("u{user}")), channels)
            .await;
    }
    let mut chance = Chance(seed);
    let day: Vec<_> = (0..24).map(|_| hour_of(&mut chance)).collect();
    let morning: Vec<_> = (0..8).map(|_| hour_of(&mut chance)).collect();
    // Reserved is just what the urgent classes will want: one place too few or given away, and one of them waits.
    let urgent = day.iter().flatten().filter(|p| !p.is_bulk()).count() as u64;
    let quota = DailyQuota {
        per_day: Some(urgent + 40 + chance.below(20)),
        reserved: Some(urgent),
        ..DailyQuota::default()
    };
    w.limit("alpha", quota).await;
    let mut model = Model {
        quota,
        overflow,
        used: BTreeMap::new(),
    };
    // Beijing's midnight.
    w.pass(4 * HOUR);
    let first = Day::at(w.ports.clock.now(), BEIJING);
    assert_eq!(first.start, w.ports.clock.now());
    let mut sent = Vec::new();
    for hour in &day {
        an_hour(&w, &mut model, hour, &mut sent).await;
    }
    assert_eq!(
        model.used.values().sum::<u64>(),
        quota.per_day.unwrap(),
        "used up"
    );
    let second = Day::at(w.ports.clock.now(), BEIJING);
    assert_eq!(second.start, first.end, "a whole day has gone");
    let yesterday = booked(&w, "alpha", first).await;
    assert_eq!(yesterday, model.used);

    w.pass(HOUR);
    the_night(&w, &mut model, &sent, second).await;
    let standing = w.standing("alpha", quota).await;
    assert_eq!(
        (standing.day, standing.marketing_per_day),
        (second, Some(model.bulk_limit()))
    );
    assert_eq!(standing.reserved, urgent, "the new day's reserve is whole");
    for hour in &morning {
        an_hour(&w, &mut model, hour, &mut sent).await;
    }
    assert_eq!(
        booked(&w, "alpha", first).await,
        yesterday,
        "a day that is over stays as it was"
    );
    assert_eq!(booked(&w, "alpha", second).await, model.used);
    let standing = w.standing("alpha", quota).await;
    let used: BTreeMap<_, _> = standing.used.into_iter().filter(|(_, n)| *n > 0).collect();
    assert_eq!(used, model.used, "what a report says");
    let mut went: BTreeMap<(Class, Went), u64> = BTreeMap::new();
    for one in &sent {
        *went.entry((one.planned.class, one.went)).or_default() += 1;
    }
    let some = |class, how| went.contains_key(&(class, how));
    assert!(some(Class::Marketing, Went::Held) && some(Class::Subscription, Went::Held));
    let spills = some(Class::Marketing, Went::Spilled);
    assert_eq!(spills, overflow == QuotaOverflow::Spill);
    everything_agrees(&w, &sent, &[first, second]).await;
}

#[tokio::test]
async fn marketing_over_the_limit_is_held() {
    for seed in [1, 2] {
        a_day_and_the_morning_after(QuotaOverflow::Hold, seed).await;
    }
}

#[tokio::test]
async fn marketing_over_the_limit_spills_where_there_is_another_way() {
    for seed in [3, 4] {
        a_day_and_the_morning_after(QuotaOverflow::Spill, seed).await;
    }
}
