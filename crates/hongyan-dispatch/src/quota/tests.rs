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
fn marketing_gets_what_is_not_reserved() {
    let check = |per_day, reserved, marketing, want| {
        let quota = DailyQuota {
            per_day,
            reserved,
            marketing_per_day: marketing,
            marketing_per_device: None,
        };
        assert_eq!(bulk_limit(&quota), want, "{quota:?}");
    };
    check(None, None, None, None);
    check(Some(100), None, None, Some(80));
    check(Some(100), Some(0), None, Some(100));
    check(Some(100), Some(30), Some(90), Some(70));
    check(Some(100), Some(30), Some(10), Some(10));
    check(None, Some(30), Some(10), Some(10));
    check(Some(10), Some(50), None, Some(0));
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
