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

#[test]
fn a_push_is_held_by_the_limits_of_its_kind() {
    let quota = DailyQuota {
        per_day: Some(100),
        reserved: Some(30),
        marketing_per_day: Some(50),
        marketing_per_device: Some(2),
    };
    let mut terms = Terms {
        named: Vec::new(),
        counted: Class::ALL.map(CountedAs::of),
        word: QuotaWord::AskedAgain,
    };
    let day = Day::at(Timestamp(0), 0);
    let check = |terms: &Terms, class, counted, want: &[(&str, u64)], per_device| {
        let kind = Kind { class, counted };
        let limits = Effective::of(&quota, terms, day, Timestamp(0));
        let shared: Vec<_> = kind.shared(&limits).collect();
        assert_eq!(shared, want, "{kind:?}");
        assert_eq!(kind.per_device(&limits), per_device, "{kind:?}");
    };
    let (service, marketing) = (CountedAs::Service, CountedAs::Marketing);
    let (own, bulk, all) = (("marketing", 50), ("bulk", 70), ("all", 100));
    check(&terms, Class::Im, service, &[all], None);
    check(&terms, Class::Subscription, service, &[bulk, all], None);
    check(
        &terms,
        Class::Subscription,
        marketing,
        &[own, bulk, all],
        Some(2),
    );
    check(
        &terms,
        Class::Marketing,
        marketing,
        &[own, bulk, all],
        Some(2),
    );
    // An urgent class that was not granted goes out as marketing, and still comes before it.
    terms.counted[0] = marketing;
    check(&terms, Class::Im, marketing, &[own, all], Some(2));
    let less = ("marketing", 20);
    check(
        &terms,
        Class::Marketing,
        marketing,
        &[less, bulk, all],
        Some(2),
    );
}

#[test]
fn marketing_gets_what_is_not_reserved() {
    let check = |per_day, reserved, want| {
        let quota = DailyQuota {
            per_day,
            reserved,
            ..DailyQuota::default()
        };
        assert_eq!(unreserved(&quota), want, "{quota:?}");
    };
    check(None, None, None);
    check(None, Some(30), None);
    check(Some(100), None, Some(80));
    check(Some(100), Some(0), Some(100));
    check(Some(100), Some(30), Some(70));
    check(Some(10), Some(50), Some(0));
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
