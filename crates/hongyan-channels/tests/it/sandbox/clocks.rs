//! A machine whose clock is wrong, at every vendor that looks at the time: nothing is refused as if the message or the
//! token were bad, the check says what is wrong, and it heals when the clock does.

use std::sync::atomic::{AtomicI64, Ordering};

use super::*;

const HOUR_MS: i64 = 3_600_000;
/// What clocks are usually apart.
const LITTLE_MS: i64 = 20_000;

/// The vendor's time is taken over, or not asked for.
const TAKEN: &str = "accepted";
/// The vendor says that it is the time: the message is tried again.
const WAITS: &str = "retry vendor_unavailable not_taken";
/// The vendor's words do not tell a wrong clock from a wrong key: the credential's lane waits for somebody to look.
const BLAMED: &str = "credential_bad";

struct Row {
    vendor: Vendor,
    /// More of the credential than the simulator hands out.
    change: fn(&Handle, &mut Value),
    behind: &'static str,
    ahead: &'static str,
}

const fn row(vendor: Vendor, behind: &'static str, ahead: &'static str) -> Row {
    Row {
        vendor,
        change: |_, _| {},
        behind,
        ahead,
    }
}

/// Xiaomi, Meizu, JPush and Twilio are proved without a time.
const ROWS: [Row; 15] = [
    row(Vendor::Apns, WAITS, BLAMED),
    row(Vendor::Fcm, BLAMED, BLAMED),
    // A plain access token: what it lives is counted from when it came.
    row(Vendor::Huawei, TAKEN, TAKEN),
    Row {
        change: service_account,
        ..row(Vendor::Huawei, WAITS, BLAMED)
    },
    row(Vendor::Harmony, WAITS, BLAMED),
    row(Vendor::Honor, WAITS, WAITS),
    row(Vendor::Oppo, WAITS, WAITS),
    row(Vendor::Vivo, BLAMED, BLAMED),
    row(Vendor::Webpush, BLAMED, BLAMED),
    row(Vendor::Getui, BLAMED, BLAMED),
    row(Vendor::Umeng, WAITS, WAITS),
    row(Vendor::Tpns, BLAMED, BLAMED),
    // Signed anew by their clock.
    row(Vendor::Aliyun, TAKEN, TAKEN),
    row(Vendor::AliyunSms, TAKEN, TAKEN),
    row(Vendor::TencentSms, TAKEN, TAKEN),
];

async fn check(row: &Row, far_ms: i64, want: &str) {
    let vendor = row.vendor;
    let ahead = Arc::new(AtomicI64::new(0));
    let world = World::start_by_clock(vendor, &ahead, row.change).await;
    for near in [-LITTLE_MS, LITTLE_MS] {
        ahead.store(near, Ordering::Relaxed);
        assert_eq!(world.send_one().await, TAKEN, "{vendor} off by {near} ms");
    }
    // A channel that starts on a machine with a wrong clock; what was fetched before would hide it.
    ahead.store(far_ms, Ordering::Relaxed);
    let world = world.opened_anew(&ahead, row.change);
    let told = world.send_one().await;
    assert_eq!(
        told,
        want,
        "{vendor} off by {far_ms} ms: {:?}",
        world.last()
    );
    let report = world.channel.check(PATIENCE).await;
    if want != TAKEN {
        assert!(!report.ok, "{vendor}: {report:?}");
        assert!(report.detail.contains("clock"), "{vendor}: {report:?}");
    }
    ahead.store(0, Ordering::Relaxed);
    // Some vendors are not asked for a token twice in a second.
    let healed = async {
        while world.send_one().await != TAKEN {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let healed = tokio::time::timeout(PATIENCE, healed).await;
    assert!(
        healed.is_ok(),
        "{vendor} with the right time: {:?}",
        world.last()
    );
    let report = world.channel.check(PATIENCE).await;
    assert!(report.ok, "{vendor} with the right time: {report:?}");
}

#[tokio::test]
async fn a_clock_that_is_behind_is_told_and_heals() {
    for row in &ROWS {
        // Web Push is signed for half a day: less than that nobody notices.
        let far = if row.vendor == Vendor::Webpush { 25 } else { 2 };
        check(row, -far * HOUR_MS, row.behind).await;
    }
}

#[tokio::test]
async fn a_clock_that_is_ahead_is_told_and_heals() {
    for row in &ROWS {
        let far = if row.vendor == Vendor::Webpush { 25 } else { 2 };
        check(row, far * HOUR_MS, row.ahead).await;
    }
}
