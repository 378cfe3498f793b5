use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::verdict::Unsure;
use crate::{Stage, Verdict};

fn delivery() -> Delivery {
    Delivery {
        app: AppId::parse("a").unwrap(),
        message: MessageId(uuid::Uuid::nil()),
        device: DeviceId::parse("d").unwrap(),
        user: None,
        holder: None,
        binding: 0,
        class: Class::Im,
        platform: Platform::Ios,
        collapse_key: None,
        expires_at: Timestamp(1_000_000),
        state: State::Planning,
        online_tried: false,
        online_until: None,
        tried: vec![],
        opens: None,
        last_failure: None,
        attempt: 0,
        via: None,
        taken: vec![],
        given_up: None,
        handed: None,
        first_ack: false,
        seen: Seen::default(),
        version: 0,
    }
}

fn apns() -> ChannelId {
    ChannelId::parse("apns").unwrap()
}

fn verdicts() -> impl Strategy<Value = Verdict> {
    let detail = || String::from("said so");
    prop_oneof![
        Just(Verdict::Accepted { vendor_id: None }),
        Just(Verdict::TokenDead {
            reason: Reason::TokenInvalid,
            detail: detail(),
            since: None
        }),
        Just(Verdict::Refused {
            reason: Reason::PayloadRejected,
            detail: detail()
        }),
        Just(Verdict::CredentialBad { detail: detail() }),
        Just(Verdict::QuotaExhausted {
            until: None,
            detail: detail()
        }),
        Just(Verdict::Retry {
            reason: Reason::VendorUnavailable,
            after: None,
            detail: detail(),
            certainty: Unsure::NotTaken
        }),
        Just(Verdict::Unknown { detail: detail() }),
    ]
}

fn call() -> Called {
    Called {
        channel: apns(),
        attempt: 1,
        at: Timestamp(1),
        took: Duration::from_millis(2),
    }
}

fn calls() -> impl Strategy<Value = Option<Called>> {
    prop_oneof![Just(None), Just(Some(call()))]
}

fn inputs() -> impl Strategy<Value = Input> {
    let time = || (0i64..2_000_000).prop_map(Timestamp);
    prop_oneof![
        time().prop_map(|until| Input::Plan(Decision::Online { until })),
        Just(Input::Plan(Decision::Push {
            channel: apns(),
            credential: CredentialName::parse("default").unwrap()
        })),
        time().prop_map(|until| Input::Plan(Decision::Hold {
            until,
            reason: Reason::QuietHours
        })),
        Just(Input::Plan(Decision::End(Reason::NoChannel))),
        time().prop_map(|until| Input::OnlineToo { until }),
        Just(Input::Reconsider),
        Just(Input::Due),
        Just(Input::Acked),
        Just(Input::Rejected),
        prop::sample::select(vec![
            Stage::Displayed,
            Stage::Clicked,
            Stage::Opened,
            Stage::Accepted
        ])
        .prop_map(Input::Client),
        Just(Input::Told {
            channel: apns(),
            stage: Stage::Delivered
        }),
        (
            verdicts(),
            time(),
            any::<bool>(),
            prop::option::of(time()),
            calls()
        )
            .prop_map(|(verdict, retry_at, fallback, receipt_by, called)| {
                Input::Verdict {
                    channel: apns(),
                    verdict,
                    retry_at,
                    attempts_max: 3,
                    fallback,
                    receipt_by,
                    called,
                }
            }),
        Just(Input::Handed { channel: apns() }),
        prop::option::of(time()).prop_map(|receipt_by| Input::Lost { receipt_by }),
        Just(Input::Undelivered {
            channel: apns(),
            reason: Reason::PermissionOff,
            detail: None
        }),
        (time(), calls()).prop_map(|(retry_at, called)| Input::NotSent {
            reason: Reason::BreakerOpen,
            retry_at,
            detail: None,
            called,
        }),
        prop::sample::select(vec![
            Reason::UserLoggedOut,
            Reason::Recalled,
            Reason::Expired
        ])
        .prop_map(Input::End),
    ]
}

proptest! {
    #[test]
    fn every_sequence_has_at_most_one_final_outcome_and_always_one_after_expiry(
        steps in prop::collection::vec(inputs(), 0..60)
    ) {
        let mut d = delivery();
        let mut finals = Vec::new();
        let mut reported = Vec::new();
        for (i, input) in steps.into_iter().chain([Input::End(Reason::Expired)]).enumerate() {
            let before = d.outcome();
            let version = d.version;
            let step = d.apply(input, Timestamp(i64::try_from(i).unwrap()));
            // A final outcome never changes.
            if before.is_some() {
                prop_assert_eq!(d.outcome(), before);
                prop_assert!(matches!(step.next, Next::Nothing | Next::Recorded));
            }
            // Nothing is written without a new version, and nothing happens in silence.
            prop_assert_eq!(step.next == Next::Nothing, d.version == version);
            if step.next == Next::Nothing {
                prop_assert!(step.happened.is_empty());
            }
            if step.next == Next::Done {
                prop_assert!(d.outcome().is_some());
            }
            if let Next::Wait(until) = step.next {
                let told = step.happened.iter().any(|h| h.until == Some(until));
                let goes_on = step.happened.is_empty() && matches!(d.state, State::AwaitingReceipt { .. });
                prop_assert!(told || goes_on, "a wait is told to the ledger");
            }
            finals.extend(step.happened.iter().filter(|h| h.r#final).map(|h| h.reason));
            reported.extend(step.happened.iter().map(|h| h.stage).filter(|s| Seen::is_client(*s)));
        }
        prop_assert_eq!(finals, vec![d.outcome()]);
        let mut once = reported.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), reported.len(), "each stage is reported once");
    }

    #[test]
    fn a_record_reads_back(steps in prop::collection::vec(inputs(), 0..20)) {
        let mut d = delivery();
        for input in steps {
            d.apply(input, Timestamp(1));
        }
        let json = serde_json::to_string(&d).unwrap();
        prop_assert_eq!(serde_json::from_str::<Delivery>(&json).unwrap(), d);
    }
}

#[test]
fn retries_end_after_the_last_try() {
    let mut d = delivery();
    let push = || {
        Input::Plan(Decision::Push {
            channel: apns(),
            credential: CredentialName::parse("default").unwrap(),
        })
    };
    let busy = || Input::Verdict {
        channel: apns(),
        verdict: Verdict::Retry {
            reason: Reason::VendorUnavailable,
            after: None,
            detail: "503".into(),
            certainty: Unsure::NotTaken,
        },
        retry_at: Timestamp(5),
        attempts_max: 2,
        fallback: false,
        receipt_by: None,
        called: None,
    };
    assert_eq!(d.apply(push(), Timestamp(1)).next, Next::Push);
    assert_eq!(d.apply(busy(), Timestamp(2)).next, Next::Wait(Timestamp(5)));
    assert_eq!(d.apply(Input::Due, Timestamp(5)).next, Next::Plan);
    assert_eq!(d.apply(push(), Timestamp(5)).next, Next::Push);
    assert_eq!(d.apply(busy(), Timestamp(6)).next, Next::Done);
    assert_eq!(d.outcome(), Some(Reason::RetriesExhausted));
}

fn pushed(channel: &str, d: &mut Delivery) {
    let push = Decision::Push {
        channel: ChannelId::parse(channel).unwrap(),
        credential: CredentialName::parse("default").unwrap(),
    };
    assert_eq!(d.apply(Input::Plan(push), Timestamp(1)).next, Next::Push);
}

fn taken(channel: &str, receipt_by: Option<i64>) -> Input {
    Input::Verdict {
        channel: ChannelId::parse(channel).unwrap(),
        verdict: Verdict::Accepted {
            vendor_id: Some("v1".to_owned()),
        },
        retry_at: Timestamp(5),
        attempts_max: 2,
        fallback: true,
        receipt_by: receipt_by.map(Timestamp),
        called: None,
    }
}

#[test]
fn without_a_receipt_another_channel_follows() {
    let mut d = delivery();
    pushed("apns", &mut d);
    let step = d.apply(taken("apns", Some(60)), Timestamp(2));
    assert_eq!(step.next, Next::Wait(Timestamp(60)));
    assert_eq!(step.happened[0].stage, Stage::AcceptedByVendor);
    assert!(!step.happened[0].r#final);
    let step = d.apply(Input::Due, Timestamp(60));
    assert_eq!(step.next, Next::Plan);
    assert_eq!(step.happened[0].reason, Some(Reason::ReceiptTimeout));
    assert_eq!(d.tried, [apns()]);
    pushed("sms", &mut d);
    assert_eq!(d.apply(taken("sms", None), Timestamp(61)).next, Next::Done);
    assert_eq!(d.outcome(), Some(Reason::AcceptedByVendor));
    // The first channel's receipt comes after all: a stage, not another outcome.
    assert_eq!(d.apply(Input::Acked, Timestamp(62)).next, Next::Recorded);
}

#[test]
fn a_receipt_ends_the_wait_and_bad_news_shortens_it() {
    let mut d = delivery();
    pushed("apns", &mut d);
    d.apply(taken("apns", Some(60)), Timestamp(2));
    let mut good = d.clone();
    assert_eq!(good.apply(Input::Acked, Timestamp(3)).next, Next::Done);
    assert_eq!(good.outcome(), Some(Reason::Delivered));
    let bad = Input::Undelivered {
        channel: apns(),
        reason: Reason::PermissionOff,
        detail: Some("6".to_owned()),
    };
    assert_eq!(d.apply(bad.clone(), Timestamp(3)).next, Next::Plan);
    // No other channel: the vendor's word stays the outcome.
    let step = d.apply(Input::Plan(Decision::End(Reason::NoChannel)), Timestamp(4));
    assert_eq!(step.next, Next::Done);
    assert_eq!(d.outcome(), Some(Reason::AcceptedByVendor));
    assert_eq!(d.apply(bad, Timestamp(5)).next, Next::Nothing, "told once");
}

#[test]
fn a_wait_for_a_receipt_is_not_cut_short() {
    let mut d = delivery();
    pushed("apns", &mut d);
    d.apply(taken("apns", Some(60)), Timestamp(2));
    let early = d.apply(Input::Due, Timestamp(59));
    assert_eq!(
        (early.next, early.happened),
        (Next::Wait(Timestamp(60)), vec![])
    );
    assert_eq!(d.apply(Input::Due, Timestamp(60)).next, Next::Plan);
}

#[test]
fn bad_news_that_overtakes_the_vendors_answer_is_remembered() {
    let mut d = delivery();
    pushed("apns", &mut d);
    let bad = Input::Undelivered {
        channel: apns(),
        reason: Reason::PermissionOff,
        detail: None,
    };
    assert_eq!(d.apply(bad, Timestamp(2)).next, Next::Recorded);
    let step = d.apply(taken("apns", Some(60)), Timestamp(3));
    assert_eq!(step.next, Next::Plan, "nothing to wait for");
    assert_eq!(d.taken, [apns()]);
}

#[test]
fn bad_news_after_the_end_is_told_and_changes_nothing() {
    let mut d = delivery();
    pushed("apns", &mut d);
    d.apply(taken("apns", None), Timestamp(2));
    let bad = Input::Undelivered {
        channel: apns(),
        reason: Reason::QuotaExhausted,
        detail: None,
    };
    let step = d.apply(bad, Timestamp(3));
    assert_eq!(step.next, Next::Recorded);
    assert_eq!(step.happened[0].stage, Stage::Undelivered);
    assert_eq!(d.outcome(), Some(Reason::AcceptedByVendor));
}

#[test]
fn a_late_ack_is_recorded_and_changes_nothing() {
    let mut d = delivery();
    d.apply(Input::End(Reason::NoChannel), Timestamp(1));
    let step = d.apply(Input::Acked, Timestamp(2));
    assert_eq!(step.next, Next::Recorded);
    assert_eq!(step.happened[0].stage, Stage::Delivered);
    assert_eq!(d.apply(Input::Acked, Timestamp(3)).next, Next::Nothing);
    assert_eq!(d.outcome(), Some(Reason::NoChannel));
}

fn unknown(fallback: bool, receipt_by: Option<i64>) -> Input {
    Input::Verdict {
        channel: apns(),
        verdict: Verdict::Retry {
            reason: Reason::VendorUnavailable,
            after: None,
            detail: "the connection broke".to_owned(),
            certainty: Unsure::MaybeTaken,
        }
        .once_only(),
        retry_at: Timestamp(5),
        attempts_max: 5,
        fallback,
        receipt_by: receipt_by.map(Timestamp),
        called: None,
    }
}

#[test]
fn what_may_have_been_taken_is_not_sent_again() {
    let mut d = delivery();
    pushed("apns", &mut d);
    let step = d.apply(unknown(false, Some(9)), Timestamp(2));
    assert_eq!(step.next, Next::Done);
    assert_eq!(step.happened[0].stage, Stage::Undelivered);
    assert!(step.happened[0].r#final);
    assert_eq!(d.outcome(), Some(Reason::VendorUnavailable));
    assert_eq!(d.taken, [apns()], "a receipt of it is believed");
    // The receipt that comes after all is recorded.
    let late = d.apply(Input::Acked, Timestamp(3));
    assert_eq!(late.happened[0].stage, Stage::Delivered);
    assert_eq!(d.apply(Input::Acked, Timestamp(4)).next, Next::Nothing);
}

#[test]
fn another_channel_follows_what_may_have_been_taken_only_without_a_receipt() {
    let mut d = delivery();
    pushed("apns", &mut d);
    let step = d.apply(unknown(true, Some(9)), Timestamp(2));
    assert_eq!(step.next, Next::Wait(Timestamp(9)));
    assert_eq!(step.happened[0].stage, Stage::Held);
    let mut told = d.clone();
    assert_eq!(told.apply(Input::Acked, Timestamp(3)).next, Next::Done);
    assert_eq!(told.outcome(), Some(Reason::Delivered));
    // No receipt: another way, and when there is none, nobody knows.
    assert_eq!(d.apply(Input::Due, Timestamp(9)).next, Next::Plan);
    assert_eq!(d.tried, [apns()]);
    let end = Input::Plan(Decision::End(Reason::ReceiptTimeout));
    let step = d.apply(end, Timestamp(9));
    assert_eq!(step.happened[0].stage, Stage::Undelivered);
    assert_eq!(d.outcome(), Some(Reason::ReceiptTimeout));
}

#[test]
fn a_receipt_may_come_before_nobody_knows() {
    let gone = Input::Undelivered {
        channel: apns(),
        reason: Reason::TokenInvalid,
        detail: None,
    };
    for (fallback, want) in [(true, Next::Plan), (false, Next::Done)] {
        let mut d = delivery();
        pushed("apns", &mut d);
        assert_eq!(d.apply(gone.clone(), Timestamp(2)).next, Next::Recorded);
        let until = fallback.then_some(9);
        assert_eq!(d.apply(unknown(fallback, until), Timestamp(3)).next, want);
        let why = d.outcome().or(d.last_failure);
        assert_eq!(why, Some(Reason::TokenInvalid));
    }
}

#[test]
fn only_what_is_uncertain_becomes_unknown() {
    let retry = |certainty| Verdict::Retry {
        reason: Reason::VendorUnavailable,
        after: None,
        detail: "d".to_owned(),
        certainty,
    };
    let sure = retry(Unsure::NotTaken);
    assert_eq!(sure.clone().once_only(), sure);
    let unknown = retry(Unsure::MaybeTaken).once_only();
    assert_eq!(
        (unknown.reason(), unknown.detail()),
        (Reason::VendorUnavailable, "d")
    );
    let taken = Verdict::Accepted { vendor_id: None };
    assert_eq!(taken.clone().once_only(), taken);
}

fn used_up(channel: &str, after_ms: Option<u64>) -> Input {
    Input::Verdict {
        channel: ChannelId::parse(channel).unwrap(),
        verdict: Verdict::QuotaExhausted {
            until: after_ms.map(Duration::from_millis),
            detail: String::new(),
        },
        retry_at: Timestamp(5),
        attempts_max: 2,
        fallback: true,
        receipt_by: None,
        called: None,
    }
}

#[test]
fn the_way_back_to_a_channel_that_has_more_later_is_kept() {
    let channel = |name: &str| ChannelId::parse(name).unwrap();
    let hold = Input::Plan(Decision::Hold {
        until: Timestamp(100),
        reason: Reason::QuotaExhausted,
    });
    let mut d = delivery();
    d.class = Class::Marketing;
    for (name, after) in [("apns", 498), ("fcm", 98), ("huawei", 900)] {
        pushed(name, &mut d);
        let step = d.apply(used_up(name, Some(after)), Timestamp(2));
        assert_eq!(step.next, Next::Plan);
    }
    assert_eq!(d.opens, Some((channel("fcm"), Timestamp(100))), "the first");
    let step = d.apply(hold, Timestamp(3));
    assert_eq!(step.next, Next::Wait(Timestamp(100)));
    assert_eq!(step.happened[0].channel, Some(channel("fcm")));
    assert_eq!(d.opens, None);
    assert_eq!(d.tried, ["apns", "huawei"].map(channel));
    assert_eq!(d.apply(Input::Due, Timestamp(100)).next, Next::Plan);
    pushed("fcm", &mut d);
    d.apply(taken("fcm", None), Timestamp(101));
    assert_eq!(d.outcome(), Some(Reason::AcceptedByVendor));
    // The urgent classes do not wait that long, and who names no time has none.
    let mut urgent = delivery();
    pushed("apns", &mut urgent);
    urgent.apply(used_up("apns", Some(98)), Timestamp(2));
    let mut timeless = delivery();
    timeless.class = Class::Subscription;
    pushed("apns", &mut timeless);
    timeless.apply(used_up("apns", None), Timestamp(2));
    assert_eq!((urgent.opens, timeless.opens), (None, None));
}

/// The stages of a step.
fn stages(step: &Step) -> Vec<Stage> {
    step.happened.iter().map(|h| h.stage).collect()
}

#[test]
fn a_push_counts_as_sent_when_its_vendor_was_called() {
    let mut d = delivery();
    pushed("apns", &mut d);
    let not_sent = |called| Input::NotSent {
        reason: Reason::QuotaExhausted,
        retry_at: Timestamp(50),
        detail: None,
        called,
    };
    // Held by our own count, and by the vendor's word.
    let mut held = d.clone();
    let step = held.apply(not_sent(None), Timestamp(3));
    assert_eq!(stages(&step), [Stage::Held]);
    let mut told = d.clone();
    let step = told.apply(not_sent(Some(call())), Timestamp(3));
    assert_eq!(stages(&step), [Stage::SentVendor, Stage::Held]);
    let Input::Verdict { verdict, .. } = taken("apns", None) else {
        unreachable!()
    };
    let answer = Input::Verdict {
        channel: apns(),
        verdict,
        retry_at: Timestamp(5),
        attempts_max: 2,
        fallback: true,
        receipt_by: None,
        called: Some(call()),
    };
    let step = d.apply(answer.clone(), Timestamp(4));
    assert_eq!(stages(&step), [Stage::SentVendor, Stage::AcceptedByVendor]);
    let [sent, accepted] = step.happened.as_slice() else {
        unreachable!()
    };
    assert_eq!((sent.at, sent.attempt), (Some(Timestamp(1)), 1));
    // However long it waited to be written down.
    assert_eq!(accepted.took_ms, Some(2));
    // It ended while the call was under way: the call was made all the same.
    let mut ended = delivery();
    pushed("apns", &mut ended);
    ended.apply(Input::End(Reason::UserLoggedOut), Timestamp(2));
    let step = ended.apply(answer, Timestamp(4));
    assert_eq!(stages(&step), [Stage::SentVendor, Stage::AcceptedByVendor]);
}

#[test]
fn who_finds_what_was_handed_over_does_not_send_it_again() {
    let mut d = delivery();
    pushed("apns", &mut d);
    let handed = Input::Handed { channel: apns() };
    let lost = |until: Option<i64>| Input::Lost {
        receipt_by: until.map(Timestamp),
    };
    assert_eq!(d.apply(lost(None), Timestamp(2)).next, Next::Nothing);
    let step = d.apply(handed.clone(), Timestamp(2));
    assert_eq!((stages(&step), step.next), (vec![], Next::Recorded));
    assert_eq!(d.apply(handed, Timestamp(2)).next, Next::Nothing);
    assert_eq!(d.handed_to(), Some(&apns()));
    // The process ended here: the call counts as made, at its time.
    for input in [Input::Due, lost(None)] {
        let mut found = d.clone();
        let step = found.apply(input, Timestamp(60));
        assert_eq!(stages(&step), [Stage::SentVendor, Stage::Undelivered]);
        assert_eq!(step.happened[0].at, Some(Timestamp(2)));
        assert_eq!(step.next, Next::Done);
        assert_eq!(found.outcome(), Some(Reason::VendorUnavailable));
        assert_eq!(found.taken, [apns()], "a receipt of it is believed");
        assert_eq!(found.handed, None);
    }
    let mut waits = d.clone();
    let step = waits.apply(lost(Some(90)), Timestamp(60));
    assert_eq!(stages(&step), [Stage::SentVendor, Stage::Held]);
    assert_eq!(step.next, Next::Wait(Timestamp(90)));
    // It expired first, or its user left.
    let mut over = d.clone();
    let step = over.apply(Input::End(Reason::Expired), Timestamp(60));
    assert_eq!(stages(&step), [Stage::Undelivered]);
    assert_eq!(over.outcome(), Some(Reason::Expired));
    // The vendor answered, and may be asked again; or its channel did, and it was not asked.
    for (called, want) in [
        (Some(call()), vec![Stage::SentVendor, Stage::Held]),
        (None, vec![Stage::Held]),
    ] {
        let mut back = d.clone();
        let input = Input::NotSent {
            reason: Reason::QuotaExhausted,
            retry_at: Timestamp(50),
            detail: None,
            called,
        };
        assert_eq!(stages(&back.apply(input, Timestamp(3))), want);
        assert_eq!((back.handed_to(), back.handed), (None, None));
        assert_eq!(back.apply(Input::Due, Timestamp(50)).next, Next::Plan);
    }
}

#[test]
fn a_receipt_names_the_channel_that_told_it() {
    let told = |stage| Input::Told {
        channel: apns(),
        stage,
    };
    let mut d = delivery();
    pushed("apns", &mut d);
    let mut open = d.clone();
    let step = open.apply(told(Stage::Clicked), Timestamp(3));
    assert_eq!(stages(&step), [Stage::Delivered, Stage::Clicked]);
    assert!(step.happened.iter().all(|h| h.channel == Some(apns())));
    assert_eq!(open.outcome(), Some(Reason::Delivered));
    d.apply(taken("apns", None), Timestamp(2));
    let step = d.apply(told(Stage::Delivered), Timestamp(3));
    assert_eq!(
        (stages(&step), step.next),
        (vec![Stage::Delivered], Next::Recorded)
    );
    assert_eq!(step.happened[0].channel, Some(apns()));
    assert_eq!(
        d.apply(told(Stage::Delivered), Timestamp(4)).next,
        Next::Nothing
    );
}
