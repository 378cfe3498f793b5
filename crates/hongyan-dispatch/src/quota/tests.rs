use std::time::Duration;

use hongyan_core::ClassDetail;
use hongyan_core::app::DailyQuota;
use hongyan_core::port::{DailyLimit, LimitOf, QuotaWord};

use hongyan_testkit::fake::ManualClock;

use super::limits::reserve_of;
use super::standing::runs_out_at;
use super::*;

const BEIJING: i32 = 8 * 3600;

#[test]
fn a_day_begins_at_the_vendors_midnight() {
    let at = |text: &str| Timestamp::parse_rfc3339(text).unwrap();
    let day = Day::at(at("2026-03-01T15:59:59Z"), BEIJING);
    assert_eq!(day.start, at("2026-02-28T16:00:00Z"));
    assert_eq!(day.end, at("2026-03-01T16:00:00Z"));
    assert_eq!(Day::at(at("2026-03-01T16:00:00Z"), BEIJING).start, day.end);
    assert_eq!(
        Day::at(at("2026-03-01T16:00:00Z"), 0).start,
        at("2026-03-01T00:00:00Z")
    );
}

fn plain() -> Terms {
    Terms::plain(QuotaWord::AskedAgain)
}

#[test]
fn a_push_is_held_by_the_limits_of_its_kind() {
    let quota = DailyQuota {
        per_day: Some(100),
        reserved: Some(30),
        marketing_per_day: Some(50),
        marketing_per_device: Some(2),
    };
    let day = Day::at(Timestamp(0), 0);
    let check = |terms: &Terms, class, counted, want: &[(&str, u64)], per_device| {
        let kind = Kind { class, counted };
        let limits = Effective::of(&quota, terms, day, Timestamp(0));
        let shared = kind.shared(&limits).map(|(s, limit)| (s.as_str(), limit));
        assert_eq!(shared.collect::<Vec<_>>(), want, "{kind:?}");
        assert_eq!(kind.per_device(&limits), per_device, "{kind:?}");
    };
    let (service, marketing) = (CountedAs::Service, CountedAs::Marketing);
    let (own, bulk, all) = (("marketing", 50), ("bulk", 70), ("all", 100));
    let terms = plain();
    check(&terms, Class::Im, service, &[all], None);
    check(&terms, Class::Subscription, service, &[bulk, all], None);
    for class in [Class::Subscription, Class::Marketing] {
        check(&terms, class, marketing, &[own, bulk, all], Some(2));
    }
    // An urgent class that was not granted goes out as marketing, and still comes before it: it is limited by the whole, and
    // they by a part of it in a counter of their own.
    let im_too = |class, _| match class {
        Class::Im => marketing,
        class => CountedAs::of(class),
    };
    let terms = plain().counting(im_too);
    check(&terms, Class::Im, marketing, &[own, all], Some(2));
    let less = ("bulk_marketing", 35);
    let want = [less, own, bulk, all];
    check(&terms, Class::Marketing, marketing, &want, Some(2));
    // So it is where only some kinds of a class were not granted.
    let but_finance = |class, detail| match (class, detail) {
        (Class::Transaction, Some(ClassDetail::Finance)) => service,
        (Class::Transaction, _) => marketing,
        (class, _) => CountedAs::of(class),
    };
    let but_order = |class, detail| match (class, detail) {
        (Class::Transaction, None | Some(ClassDetail::Order)) => service,
        (Class::Transaction, _) => marketing,
        (class, _) => CountedAs::of(class),
    };
    for terms in [plain().counting(but_finance), plain().counting(but_order)] {
        check(&terms, Class::Marketing, marketing, &want, Some(2));
        check(&terms, Class::Transaction, service, &[all], None);
    }
}

#[test]
fn a_reserve_is_a_part_of_the_limit_that_it_is_taken_from() {
    let check = |per_day, reserved, limit, want| {
        let quota = DailyQuota {
            per_day,
            reserved,
            ..DailyQuota::default()
        };
        assert_eq!(reserve_of(&quota, limit), want, "{quota:?} of {limit}");
    };
    // Of all.
    check(Some(100), None, 100, 20);
    check(Some(100), Some(0), 100, 0);
    check(Some(100), Some(30), 100, 30);
    check(Some(10), Some(50), 10, 50);
    // Of the limit on marketing, which is less or more.
    check(Some(1_000_000), Some(200_000), 100_000, 20_000);
    check(Some(1_000_000), None, 100_000, 20_000);
    check(None, Some(200_000), 100_000, 20_000);
    check(Some(100), Some(30), 1_000, 300);
    check(Some(100), Some(200), 1_000, 1_000);
    check(Some(0), Some(5), 100, 100);
    check(Some(u64::MAX), Some(u64::MAX), u64::MAX - 1, u64::MAX - 1);
}

#[test]
fn an_hour_that_a_vendor_names_is_kept_over_its_midnight() {
    let hour = |h: i64| Timestamp(h * 3_600_000);
    let seconds = |at: Timestamp, s: i64| Timestamp(at.millis() + s * 1000);
    let day = Day::at(hour(1), 0);
    let hours = |h: u64| Some(Duration::from_secs(h * 3600));
    assert_eq!(believed_until(None, day, hour(10)), hour(24));
    assert_eq!(believed_until(hours(2), day, hour(10)), hour(12));
    assert_eq!(
        believed_until(hours(8), day, hour(23)),
        hour(31),
        "tomorrow at seven"
    );
    // Midnight, as it was when the vendor answered.
    let asked = seconds(hour(10), 7);
    assert_eq!(believed_until(hours(14), day, asked), hour(24));
    // Just after midnight the vendor's day may be the one before: the end of a day is soon, an hour is that hour.
    let early = seconds(hour(0), 60);
    let soon = seconds(hour(0), 300);
    assert_eq!(believed_until(None, day, early), soon);
    assert_eq!(believed_until(hours(24), day, early), soon);
    assert_eq!(believed_until(hours(7), day, early), seconds(hour(7), 60));
    assert_eq!(believed_until(None, day, soon), hour(24));
}

#[test]
fn the_forecast_goes_on_as_the_day_began() {
    let day = Day::at(Timestamp(0), 0);
    let hour = |h: i64| Timestamp(h * 3_600_000);
    // A quarter of the limit in three hours: all of it in twelve.
    assert_eq!(runs_out_at(25, 100, day, hour(3)), Some(hour(12)));
    assert_eq!(runs_out_at(10, 100, day, hour(3)), None, "not today");
    assert_eq!(runs_out_at(0, 100, day, hour(3)), None);
    assert_eq!(runs_out_at(100, 100, day, hour(3)), Some(hour(3)), "now");
    assert_eq!(runs_out_at(0, 0, day, hour(3)), Some(hour(3)));
    assert_eq!(runs_out_at(1, u64::MAX, day, hour(23)), None);
}

/// Counters in memory; of the next returns so many fail.
#[derive(Debug, Default)]
struct Store {
    counts: Mutex<HashMap<(String, Timestamp), u64>>,
    failing: Mutex<usize>,
}

impl Store {
    fn count(&self, account: &Account, what: &str) -> u64 {
        let key = (account.key(what), TODAY.start);
        self.counts.lock().unwrap().get(&key).copied().unwrap_or(0)
    }
}

#[async_trait::async_trait]
impl port::Quota for Store {
    async fn take(
        &self,
        key: &str,
        start: Timestamp,
        resets_at: Timestamp,
        limit: u64,
        want: u64,
    ) -> Result<port::QuotaGrant, StoreError> {
        let mut counts = self.counts.lock().unwrap();
        let count = counts.entry((key.to_owned(), start)).or_default();
        let granted = want.min(limit.saturating_sub(*count));
        *count += granted;
        Ok(port::QuotaGrant {
            granted,
            left: limit.saturating_sub(*count),
            resets_at,
        })
    }

    async fn give_back(&self, key: &str, start: Timestamp, back: u64) -> Result<(), StoreError> {
        let mut failing = self.failing.lock().unwrap();
        if *failing > 0 {
            *failing -= 1;
            return Err(StoreError::Unavailable {
                engine: "store",
                certainty: hongyan_core::error::Certainty::NothingHappened,
                source: "as the test said".into(),
            });
        }
        let mut counts = self.counts.lock().unwrap();
        let count = counts.entry((key.to_owned(), start)).or_default();
        *count = count.saturating_sub(back);
        Ok(())
    }

    async fn used(&self, key: &str, start: Timestamp) -> Result<u64, StoreError> {
        let key = (key.to_owned(), start);
        Ok(self.counts.lock().unwrap().get(&key).copied().unwrap_or(0))
    }
}

const TODAY: Day = Day {
    start: Timestamp(0),
    end: Timestamp(DAY_MS),
};
const MARKETING: Kind = Kind {
    class: Class::Marketing,
    counted: CountedAs::Marketing,
};

fn quotas() -> (Quotas, Arc<Store>, Account) {
    let store = Arc::new(Store::default());
    let clock = Arc::new(ManualClock::at(Timestamp(3_600_000)));
    let account = Account {
        app: AppId::parse("demo").unwrap(),
        channel: ChannelId::parse("alpha").unwrap(),
        credential: CredentialName::parse("default").unwrap(),
    };
    (Quotas::new(store.clone(), clock), store, account)
}

fn limits(marketing_per_day: Option<u64>, marketing_per_device: Option<u32>) -> Effective {
    let quota = DailyQuota {
        marketing_per_day,
        marketing_per_device,
        ..DailyQuota::default()
    };
    Effective::of(&quota, &plain(), TODAY, Timestamp(3_600_000))
}

#[tokio::test]
async fn a_store_that_fails_halfway_gets_nothing_back_twice() {
    let (quotas, store, account) = quotas();
    let devices = ["d1", "d2", "d3"].map(|id| DeviceId::parse(id).unwrap());
    let before = limits(None, Some(3));
    let taken = quotas.take(&account, &before, TODAY, MARKETING, &devices);
    let taken = taken.await.unwrap();
    let accepted = devices.clone().map(|device| (device, true));
    let settled = quotas.settle(&account, &taken, &accepted);
    settled.await.unwrap();
    // One more goes; of the other two one is not given back.
    let now = limits(Some(4), Some(3));
    *store.failing.lock().unwrap() = 1;
    let failed = quotas.take(&account, &now, TODAY, MARKETING, &devices);
    assert!(failed.await.is_err());
    let counts = ["device/d1", "device/d2", "device/d3", "marketing"];
    let counts = counts.map(|what| store.count(&account, what));
    assert_eq!(counts, [1, 1, 2, 3], "one too many, and none too few");
}

#[tokio::test]
async fn a_counter_is_raised_to_what_went_out_however_often() {
    let (quotas, store, account) = quotas();
    let devices = [DeviceId::parse("d1").unwrap()];
    let without = limits(None, None);
    for _ in 0..5 {
        let taken = quotas.take(&account, &without, TODAY, MARKETING, &devices);
        let taken = taken.await.unwrap();
        let accepted = devices.clone().map(|device| (device, true));
        let settled = quotas.settle(&account, &taken, &accepted);
        settled.await.unwrap();
    }
    let with = limits(Some(7), None);
    for want in [[true], [true], [false], [false]] {
        let taken = quotas.take(&account, &with, TODAY, MARKETING, &devices);
        assert_eq!(taken.await.unwrap().granted, want);
    }
    assert_eq!(store.count(&account, "marketing"), 7);
    // What went out as a private message of the class is none of it.
    let private = Kind {
        counted: CountedAs::Service,
        ..MARKETING
    };
    for _ in 0..3 {
        let taken = quotas.take(&account, &with, TODAY, private, &devices);
        let taken = taken.await.unwrap();
        let accepted = devices.clone().map(|device| (device, true));
        let settled = quotas.settle(&account, &taken, &accepted);
        settled.await.unwrap();
    }
    let more = limits(Some(8), None);
    let explained = quotas.opens_at(&account, &more, TODAY, MARKETING, &devices[0]);
    assert_eq!(explained.await.unwrap(), None);
    // As a crash leaves it: what went out is in the books, and the counter has none of it.
    store
        .counts
        .lock()
        .unwrap()
        .remove(&(account.key("marketing"), TODAY.start));
    let less = limits(Some(5), None);
    let explained = quotas.opens_at(&account, &less, TODAY, MARKETING, &devices[0]);
    assert_eq!(explained.await.unwrap(), Some(TODAY.end));
    let taken = quotas.take(&account, &less, TODAY, MARKETING, &devices);
    assert_eq!(taken.await.unwrap().granted, [false]);
}

fn named(used: u64, at: Timestamp) -> Terms {
    let limit = DailyLimit {
        of: LimitOf::Marketing,
        part: String::new(),
        limit: 10,
        used: Some(used),
        at,
    };
    let mut terms = plain();
    terms.named = vec![limit];
    terms
}

/// A vendor's clock may turn a little later than ours.
#[test]
fn what_a_vendor_counts_just_after_midnight_may_be_of_the_day_before() {
    let now = Timestamp(3_600_000);
    for (at, want) in [(1_000, 0), (299_999, 0), (300_000, 10)] {
        let terms = named(10, Timestamp(at));
        let limits = Effective::of(&DailyQuota::default(), &terms, TODAY, now);
        let least = limits.at_least(limits::Shared::Marketing, &limits::Booked::default());
        assert_eq!(least, want, "{at}");
    }
}

/// The vendor's count is what it says, and what it says may be wrong, or it gave more.
#[tokio::test]
async fn a_push_that_asks_again_is_not_held_by_what_the_vendor_named() {
    let (store, clock) = (
        Arc::new(Store::default()),
        Arc::new(ManualClock::at(Timestamp(3_600_000))),
    );
    let (_, _, account) = quotas();
    let quotas = Quotas::new(store.clone(), clock.clone());
    let limits = Effective::of(
        &DailyQuota::default(),
        &named(10, Timestamp(3_000_000)),
        TODAY,
        Timestamp(3_600_000),
    );
    let devices = ["d1", "d2"].map(|id| DeviceId::parse(id).unwrap());
    let take = || quotas.take(&account, &limits, TODAY, MARKETING, &devices);
    let taken = take().await.unwrap();
    assert_eq!(taken.granted, [false, false]);
    let word = Exhausted {
        until: None,
        detail: "used up".to_owned(),
    };
    let heard = quotas.heard(&account, limits.word(), &taken, Some(word), false);
    heard.await.unwrap();
    clock.advance(Duration::from_secs(599));
    assert_eq!(take().await.unwrap().granted, [false, false]);
    clock.advance(Duration::from_secs(1));
    let probe = take().await.unwrap();
    assert_eq!(probe.granted, [true, false]);
    let accepted = [(devices[0].clone(), true)];
    quotas.settle(&account, &probe, &accepted).await.unwrap();
    let heard = quotas.heard(&account, limits.word(), &probe, None, true);
    heard.await.unwrap();
    // It is open, and what the vendor named before is not believed; what it names from now on is.
    assert_eq!(take().await.unwrap().granted, [true, true]);
    clock.advance(Duration::from_secs(1));
    let (nothing, now) = (DailyQuota::default(), clock.now());
    let again = Effective::of(&nothing, &named(10, now), TODAY, now);
    let taken = quotas.take(&account, &again, TODAY, MARKETING, &devices);
    assert_eq!(taken.await.unwrap().granted, [false, false]);
}
