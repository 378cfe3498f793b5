//! How batches of devices and a vendor's rate are measured against each other.

use hongyan_core::port::RateCounts;

use crate::credentials::Opened;

/// How much of its rate a batch of so many devices takes, as the vendor counts.
pub(super) fn counts(opened: &Opened, devices: usize) -> u32 {
    let counts = match opened.vendor.capability().rate_counts {
        RateCounts::Requests => opened.channel.requests(devices),
        RateCounts::Devices => devices,
    };
    u32::try_from(counts).unwrap_or(u32::MAX)
}

/// The largest batch that is not more than the vendor takes in a second, so that the urgent do not wait behind it for long;
/// where a smaller one would count as much, it is not made smaller.
pub(super) fn batch_len(opened: &Opened, rate: u32) -> usize {
    let capability = opened.vendor.capability();
    let mut len = capability.batch_len_max.max(1);
    if capability.rate_counts == RateCounts::Devices {
        return len.min(rate as usize).max(1);
    }
    while len > 1 && counts(opened, len) > rate && counts(opened, len / 2) < counts(opened, len) {
        len /= 2;
    }
    len
}

/// How many devices one step of the vendor's rate is for at best.
pub(super) fn devices_at_once(opened: &Opened) -> u64 {
    let capability = opened.vendor.capability();
    let most = capability.batch_len_max.max(1);
    let devices = match capability.rate_counts {
        RateCounts::Requests => most / opened.channel.requests(most).max(1),
        RateCounts::Devices => 1,
    };
    devices.max(1) as u64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hongyan_testkit::fake::FakeVendor;

    use super::*;

    fn opened(vendor: &FakeVendor) -> Opened {
        Opened {
            channel: Arc::new(vendor.clone()),
            vendor: Arc::new(vendor.clone()),
            limits: Default::default(),
            hears: false,
            repeats: true,
            generation: 0,
        }
    }

    #[test]
    fn a_batch_is_a_seconds_worth() {
        let devices = FakeVendor::new("v", 1_000).at_most(4_000, RateCounts::Devices);
        let one_by_one = FakeVendor::new("v", 1_000);
        one_by_one.one_by_one();
        let two_steps = FakeVendor::new("v", 1_000);
        two_steps.in_two_steps();
        let check = |vendor: &FakeVendor, rate, want| {
            assert_eq!(batch_len(&opened(vendor), rate), want, "{rate}");
        };
        check(&devices, 4_000, 1_000);
        check(&devices, 600, 600);
        check(&devices, 0, 1);
        check(&FakeVendor::new("v", 1_000), 1, 1_000);
        check(&one_by_one, 2_000, 1_000);
        check(&one_by_one, 600, 500);
        check(&one_by_one, 1, 1);
        check(&two_steps, 2, 1_000);
        check(&two_steps, 1, 1_000);
    }

    #[test]
    fn what_comes_back_is_what_the_vendor_takes() {
        let check = |vendor: &FakeVendor, want| {
            assert_eq!(devices_at_once(&opened(vendor)), want);
        };
        check(&FakeVendor::new("v", 1_000), 1_000);
        let vendor = FakeVendor::new("v", 1_000);
        vendor.in_two_steps();
        check(&vendor, 500);
        vendor.one_by_one();
        check(&vendor, 1);
        check(
            &FakeVendor::new("v", 1_000).at_most(1, RateCounts::Devices),
            1,
        );
    }
}
