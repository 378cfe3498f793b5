use std::sync::Arc;

use hongyan_core::port::Reader;
use hongyan_core::{AppId, DeviceId, Message, Timestamp, UserId};

use super::*;

fn place(user: u64) -> Cursor {
    Cursor {
        epoch: 1,
        reader: 7,
        user,
        device: 0,
        broadcast: 0,
    }
}

fn id(n: u64) -> MessageId {
    MessageId::parse(&format!("0198f2f0-0000-7000-8000-{n:012}")).unwrap()
}

fn entry(n: u64) -> Entry {
    let message: Message = serde_json::from_value(serde_json::json!({
        "id": id(n), "app": "demo", "to": {"users": ["u"]}, "accepted_at": 0, "expires_at": 9
    }))
    .unwrap();
    Entry {
        cursor: place(n),
        message: Arc::new(message),
    }
}

fn seat(user: &str) -> Seat {
    Seat::new(&Reader {
        app: AppId::parse("demo").unwrap(),
        device: DeviceId::parse("d").unwrap(),
        user: Some(UserId::parse(user).unwrap()),
    })
}

fn fresh(n: u64) -> (Hint, Fresh) {
    let fresh = Fresh {
        after: n - 1,
        place: n,
        message: entry(n).message,
    };
    let owner = Owner::User(UserId::parse("u").unwrap());
    let mut hint = Hint::new(AppId::parse("demo").unwrap(), owner);
    hint.fresh = Some(fresh.clone());
    (hint, fresh)
}

fn page(range: std::ops::RangeInclusive<u64>, head: u64) -> InboxPage {
    let next = *range.end();
    InboxPage {
        entries: range.map(entry).collect(),
        next: place(next),
        head: place(head),
        lost: 0,
        reset: false,
        more: next < head,
    }
}

fn nothing(head: u64) -> InboxPage {
    InboxPage {
        entries: Vec::new(),
        next: place(head),
        ..page(head..=head, head)
    }
}

fn session(inflight_max: u16, sent_before: Option<u64>) -> Session {
    Session::new(seat("u"), place(0), inflight_max, sent_before.map(place))
}

fn take(session: &mut Session, page: &InboxPage) -> (Vec<u64>, Vec<bool>, Option<Cursor>) {
    let mut dups = Vec::new();
    let sent = session.take_page(page, 0, Some(300), |_, dup| {
        dups.push(dup);
        Taken::Sent
    });
    let numbers = sent
        .ids
        .iter()
        .map(|one| (1..200).find(|n| id(*n) == *one).unwrap())
        .collect();
    (numbers, dups, sent.idle)
}

#[test]
fn reads_on_from_what_was_sent_and_stops_at_the_window() {
    let mut session = session(4, None);
    assert_eq!(session.next_read(), None, "the first read is under way");
    assert_eq!(
        take(&mut session, &page(1..=3, 10)),
        (vec![1, 2, 3], vec![false; 3], None)
    );
    assert_eq!(
        session.next_read(),
        Some(Read {
            after: Some(place(3)),
            limit: 1
        })
    );
    take(&mut session, &page(4..=4, 10));
    assert_eq!(session.next_read(), None, "the window is full");
    assert_eq!(session.ack_upto(place(2)), Some(place(2)));
    assert_eq!(
        session.next_read(),
        Some(Read {
            after: Some(place(4)),
            limit: 2
        })
    );
    assert_eq!(session.inflight(), 2);
}

#[test]
fn idle_is_said_once_when_everything_was_sent() {
    let mut session = session(8, None);
    let (_, _, idle) = take(&mut session, &page(1..=2, 2));
    assert_eq!(idle, Some(place(2)));
    session.want();
    assert!(session.next_read().is_some());
    assert_eq!(
        take(&mut session, &page(3..=3, 3)),
        (vec![3], vec![false], None)
    );
}

#[test]
fn a_hint_during_the_first_read_is_not_lost() {
    let mut session = session(8, None);
    session.want();
    let (_, _, idle) = take(&mut session, &page(1..=2, 2));
    assert_eq!(idle, None);
    assert_eq!(
        session.next_read(),
        Some(Read {
            after: Some(place(2)),
            limit: 6
        })
    );
}

#[test]
fn future_and_foreign_acks_do_no_harm() {
    let mut session = session(8, None);
    assert_eq!(session.ack_upto(place(5)), None, "nothing was sent yet");
    take(&mut session, &page(1..=3, 9));
    assert_eq!(
        session.ack_upto(Cursor {
            epoch: 2,
            ..place(3)
        }),
        None
    );
    assert_eq!(
        session.ack_upto(Cursor {
            reader: 8,
            ..place(3)
        }),
        None
    );
    assert_eq!(
        session.ack_upto(place(9)),
        Some(place(3)),
        "what was sent at most"
    );
    assert_eq!(session.inflight(), 0);
    assert_eq!(
        session.ack_upto(place(1)),
        Some(place(1)),
        "repeated ones are for the store"
    );
}

#[test]
fn what_was_sent_on_an_earlier_connection_is_marked() {
    let mut session = session(8, Some(2));
    assert_eq!(
        session.ack_upto(place(2)),
        Some(place(2)),
        "it may ack what it has"
    );
    let (_, dups, _) = take(&mut session, &page(1..=3, 3));
    assert_eq!(dups, [true, true, false]);
    assert_eq!(session.unfinished(), Some(place(3)));
    session.ack_upto(place(3));
    assert_eq!(session.unfinished(), None);
    assert!(session.window.is_none(), "an idle session keeps nothing");
}

#[test]
fn a_cut_before_replay_keeps_the_mark() {
    let mut session = session(1, Some(5));
    take(&mut session, &page(1..=1, 9));
    assert_eq!(session.unfinished(), Some(place(5)));
    session.ack_each(&[id(1)]);
    assert_eq!(session.unfinished(), Some(place(5)));
}

#[test]
fn what_a_connection_cannot_carry_is_passed_over() {
    let mut session = session(8, None);
    let sent = session.take_page(&page(1..=3, 3), 0, None, |entry, _| {
        match entry.cursor.user {
            1 => Taken::Skipped { rejected: true },
            2 => Taken::Skipped { rejected: false },
            _ => Taken::Sent,
        }
    });
    assert_eq!((sent.rejected, sent.ids), (vec![id(1)], vec![id(3)]));
    assert_eq!((session.inflight(), session.sent()), (1, Some(place(3))));
}

#[test]
fn a_restart_reads_again_and_voids_the_read_under_way() {
    let mut session = session(8, None);
    take(&mut session, &page(1..=4, 4));
    session.want();
    assert!(session.next_read().is_some());
    session.restart(Some(place(1)));
    assert_eq!(session.inflight(), 0);
    assert_eq!(
        take(&mut session, &page(5..=5, 5)).0,
        [] as [u64; 0],
        "asked before"
    );
    let again = Read {
        after: Some(place(1)),
        limit: 8,
    };
    assert_eq!(session.next_read(), Some(again));
    assert_eq!(take(&mut session, &page(2..=5, 5)).0, [2, 3, 4, 5]);
    session.restart(None);
    assert_eq!(session.next_read().map(|read| read.after), Some(None));
}

#[test]
fn a_full_connection_reads_the_rest_again() {
    let mut session = session(8, None);
    let mut room = 2;
    let sent = session.take_page(&page(1..=4, 4), 0, None, |_, _| {
        room -= 1;
        if room >= 0 { Taken::Sent } else { Taken::Full }
    });
    assert_eq!(sent.ids.len(), 2);
    assert_eq!(
        session.next_read(),
        Some(Read {
            after: Some(place(2)),
            limit: 6
        })
    );
    // Nothing at all went out: begin where the first read began.
    let mut session = self::session(8, None);
    session.take_page(&page(1..=4, 4), 0, None, |_, _| Taken::Full);
    assert_eq!(
        session.next_read(),
        Some(Read {
            after: None,
            limit: 8
        })
    );
}

#[test]
fn due_again_until_the_waits_end() {
    let mut session = session(8, None);
    take(&mut session, &page(1..=2, 2));
    assert_eq!(session.next_due(), Some(300));
    let wait = |tries: u8| (tries < 3).then_some(600);
    assert!(session.take_due(299, 10, wait).is_empty());
    assert_eq!(session.take_due(300, 10, wait).len(), 2);
    assert_eq!(session.next_due(), Some(900));
    assert_eq!(session.take_due(900, 1, wait), [(id(1), place(1))]);
    assert_eq!(
        session.next_due(),
        Some(900),
        "the second one waits its turn"
    );
    session.take_due(900, 1, wait);
    assert_eq!(session.next_due(), None);
    assert!(session.retry(id(2), 1000));
    assert_eq!(session.next_due(), Some(1000));
    assert!(!session.retry(id(3), 1000));
}

#[test]
fn another_user_begins_anew() {
    let mut session = session(8, Some(2));
    take(&mut session, &page(1..=3, 3));
    session.rebind(seat("v"));
    assert_eq!(session.inflight(), 0);
    assert_eq!(session.unfinished(), None);
    assert_eq!(
        session.next_read(),
        Some(Read {
            after: None,
            limit: 8
        })
    );
}

fn mark(n: u64, of: u64) -> Entry {
    let message = entry(of).message.recall_mark(id(n), Timestamp(0));
    Entry {
        cursor: place(n),
        message: Arc::new(message),
    }
}

fn page_of(entries: Vec<Entry>) -> InboxPage {
    let head = entries.last().unwrap().cursor;
    InboxPage {
        entries,
        next: head,
        ..nothing(head.user)
    }
}

#[test]
fn marks_take_no_room_of_messages() {
    let mut one = session(1, None);
    take(&mut one, &page_of(vec![mark(1, 90), entry(2), mark(3, 91)]));
    assert_eq!(one.inflight(), 1);
    assert!(one.is_in_flight(id(1)) && one.is_in_flight(id(3)));
    // Neither does a full window hold a mark up, nor a mark a message.
    let (hint, mut fresh) = fresh(4);
    assert_eq!(one.next_place(&hint, &fresh), None);
    fresh.message = mark(4, 92).message;
    assert_eq!(one.next_place(&hint, &fresh), Some(place(4)));
    one.sent_fresh(&fresh.message, place(4), Some(300));
    assert_eq!(one.ack_ids(&[id(2)]), [id(1)]);
    one.want();
    let read = one.next_read().unwrap();
    assert_eq!((read.after, read.limit), (Some(place(4)), 1));
    assert_eq!(one.next_due(), None, "marks come again with a connection");
}

#[test]
fn who_acknowledges_an_entry_had_the_marks_before_it() {
    let mut one = session(8, None);
    let entries = vec![entry(1), mark(2, 90), entry(3), mark(4, 91), mark(5, 92)];
    take(&mut one, &page_of(entries));
    assert_eq!(one.ack_ids(&[id(1)]), []);
    assert_eq!(one.ack_ids(&[id(3)]), [id(2)]);
    assert_eq!(
        one.ack_ids(&[id(5)]),
        [id(4)],
        "the acknowledged is not told of"
    );
    assert_eq!(one.unfinished(), None);
}

#[test]
fn an_entry_of_an_earlier_connection_proves_nothing() {
    let mut one = session(8, Some(2));
    let entries = vec![mark(1, 90), entry(2), entry(3)];
    take(&mut one, &page_of(entries));
    assert_eq!(one.ack_ids(&[id(2)]), [], "it may be acknowledged unread");
    assert_eq!(one.ack_ids(&[id(3)]), [id(1)]);
}

#[test]
fn marks_in_flight_are_bounded() {
    let mut one = session(1, None);
    let count = MARKS_LEN_MAX as u64 + 5;
    take(
        &mut one,
        &page_of((1..=count).map(|n| mark(n, 900 + n)).collect()),
    );
    let flying = (1..=count).filter(|n| one.is_in_flight(id(*n))).count();
    assert_eq!(flying, MARKS_LEN_MAX);
    assert!(!one.is_in_flight(id(5)) && one.is_in_flight(id(6)));
    assert_eq!(one.inflight(), 0);
}

#[test]
fn an_idle_session_is_small() {
    // The place, the head and a few words: part of the 400 bytes that a connection may cost.
    assert!(
        std::mem::size_of::<Session>() <= 88,
        "{}",
        std::mem::size_of::<Session>()
    );
}

/// What may happen to a session.
#[test]
fn a_fresh_entry_needs_no_read_when_everything_before_it_was_sent() {
    let mut one = session(2, None);
    let next = |session: &Session, n: u64| {
        let (hint, fresh) = fresh(n);
        session.next_place(&hint, &fresh)
    };
    assert_eq!(next(&one, 1), None, "the first read is under way");
    take(&mut one, &nothing(0));
    assert_eq!(next(&one, 2), None, "there is one before it");
    assert_eq!(next(&one, 1), Some(place(1)));
    one.sent_fresh(&entry(1).message, place(1), Some(300));
    assert_eq!((one.head(), one.sent()), (place(1), Some(place(1))));
    assert_eq!(next(&one, 1), None, "it was sent");
    one.want();
    assert_eq!(next(&one, 2), None, "there may be more that is not known");
    let read = one.next_read().unwrap();
    assert_eq!(read.after, Some(place(1)));
    assert_eq!(next(&one, 2), None, "a read is under way");
    take(&mut one, &nothing(1));
    one.sent_fresh(&entry(2).message, next(&one, 2).unwrap(), None);
    assert_eq!(next(&one, 3), None, "the window is full");
    assert_eq!(one.ack_upto(place(2)), Some(place(2)));
    assert_eq!(next(&one, 3), Some(place(3)));
    one.pass(place(3));
    assert_eq!((one.inflight(), one.sent()), (0, Some(place(3))));
}

#[test]
fn a_fresh_entry_is_for_whom_its_hint_names() {
    let mut one = session(2, None);
    take(&mut one, &nothing(0));
    let (hint, fresh) = fresh(1);
    let of = |owner: Owner, app: &str| Hint {
        owner,
        ..Hint::new(AppId::parse(app).unwrap(), hint.owner.clone())
    };
    let user = |name: &str| Owner::User(UserId::parse(name).unwrap());
    let device = |name: &str| Owner::Device(DeviceId::parse(name).unwrap());
    let all = Owner::Audience(hongyan_core::message::Audience::All);
    let next = |hint: &Hint, fresh: &Fresh| one.next_place(hint, fresh);
    assert_eq!(next(&of(user("v"), "demo"), &fresh), None);
    assert_eq!(next(&of(user("u"), "other"), &fresh), None);
    assert_eq!(next(&of(device("e"), "demo"), &fresh), None);
    let own = Cursor {
        user: 0,
        device: 1,
        ..place(0)
    };
    assert_eq!(next(&of(device("d"), "demo"), &fresh), Some(own));
    let broadcast = Cursor {
        user: 0,
        broadcast: 1,
        ..place(0)
    };
    assert_eq!(next(&of(all.clone(), "demo"), &fresh), Some(broadcast));
    let mut message = Message::clone(&fresh.message);
    message.to = Target::Users(vec![UserId::parse("v").unwrap()]);
    let hers = Fresh {
        message: Arc::new(message),
        ..fresh
    };
    assert_eq!(
        next(&of(device("d"), "demo"), &hers),
        None,
        "whichever list it stands in"
    );
    assert_eq!(next(&of(all, "demo"), &hers), None);
}

#[derive(Debug, Clone)]
enum Step {
    Publish,
    Expire(u64),
    Answer {
        takes: usize,
    },
    Fail,
    AckUpto(u64),
    AckId(u64),
    Recall(u64),
    Pass(u32),
    Hint,
    /// A hint with its entry, at once.
    Fresh,
    /// The same of an entry so far back, late.
    Late(u64),
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    use proptest::prelude::*;
    let step = prop_oneof![
        3 => Just(Step::Publish),
        1 => (1u64..60).prop_map(Step::Expire),
        6 => (0usize..8).prop_map(|takes| Step::Answer { takes }),
        1 => Just(Step::Fail),
        3 => (0u64..60).prop_map(Step::AckUpto),
        2 => (1u64..60).prop_map(Step::AckId),
        1 => (1u64..60).prop_map(Step::Recall),
        1 => (1u32..700).prop_map(Step::Pass),
        2 => Just(Step::Hint),
        4 => Just(Step::Fresh),
        2 => (0u64..4).prop_map(Step::Late),
    ];
    proptest::collection::vec(step, 1..120)
}

proptest::proptest! {
    /// Whatever happens: first deliveries come in order and once, the window is kept, and when
    /// reads are answered and acked in the end, everything that is still due was sent.
    #[test]
    fn nothing_is_lost_doubled_or_out_of_order(
        steps in steps(), inflight_max in 1u16..6, stored in 0u64..20,
    ) {
        let mut head = stored;
        let mut gone = std::collections::BTreeSet::new();
        let mut acked = 0; // what the store has recorded
        let mut session = session(inflight_max, None);
        let mut read = Some(Read { after: None, limit: 32 });
        let mut sent: Vec<u64> = Vec::new();
        let mut now = 0;

        let answer = |session: &mut Session, read: &Read, takes: usize, head: u64, acked: u64,
                      gone: &std::collections::BTreeSet<u64>, now: Tick, sent: &mut Vec<u64>| {
            let after = read.after.map_or(acked, |place| place.user);
            let mut entries = Vec::new();
            let mut next = after;
            for n in after + 1..=head {
                if entries.len() >= read.limit {
                    break;
                }
                next = n;
                if !gone.contains(&n) {
                    entries.push(entry(n));
                }
            }
            let page = InboxPage {
                entries,
                next: place(next),
                head: place(head),
                lost: 0,
                reset: false,
                more: next < head,
            };
            let mut room = takes;
            session.take_page(&page, now, Some(300), |entry, dup| {
                assert!(!dup);
                if room == 0 {
                    return Taken::Full;
                }
                room -= 1;
                sent.push(entry.cursor.user);
                Taken::Sent
            });
        };

        let offer = |session: &mut Session, n: u64, now: Tick, sent: &mut Vec<u64>| {
            let (hint, fresh) = fresh(n);
            match session.next_place(&hint, &fresh) {
                Some(place) => {
                    sent.push(n);
                    session.sent_fresh(&entry(n).message, place, Some(now + 300));
                }
                None => session.want(),
            }
        };

        for step in steps {
            match step {
                Step::Fresh => {
                    head += 1;
                    offer(&mut session, head, now, &mut sent);
                }
                Step::Late(back) => {
                    let n = head.saturating_sub(back);
                    if n > 0 && !gone.contains(&n) {
                        offer(&mut session, n, now, &mut sent);
                    }
                }
                Step::Publish => {
                    head += 1;
                    session.want();
                }
                Step::Expire(n) => {
                    gone.insert(n);
                }
                Step::Answer { takes } => {
                    if let Some(read) = read.take() {
                        answer(&mut session, &read, takes, head, acked, &gone, now, &mut sent);
                    }
                }
                Step::Fail => {
                    // The first read is made before there is a session; it cannot fail in one.
                    if read.as_ref().is_some_and(|read| read.after.is_some()) {
                        read = None;
                        session.read_failed();
                    }
                }
                Step::AckUpto(n) => {
                    if let Some(place) = session.ack_upto(place(n)) {
                        proptest::prop_assert!(place.user <= n.max(acked));
                        acked = acked.max(place.user);
                    }
                }
                Step::AckId(n) => drop(session.ack_ids(&[id(n)])),
                Step::Recall(n) => {
                    gone.insert(n);
                    session.recall(id(n));
                }
                Step::Pass(ticks) => {
                    now += ticks;
                    for (message, _) in session.take_due(now, 16, |_| Some(600)) {
                        proptest::prop_assert!(session.is_in_flight(message));
                    }
                }
                Step::Hint => session.want(),
            }
            if read.is_none() {
                read = session.next_read();
            }
            proptest::prop_assert!(session.inflight() <= usize::from(inflight_max));
        }
        // The client acks everything and the store answers everything.
        for _ in 0..300 {
            if let Some(read) = read.take() {
                answer(&mut session, &read, 64, head, acked, &gone, now, &mut sent);
            }
            if let Some(last) = sent.last() {
                session.ack_upto(place(*last));
            }
            session.want();
            read = session.next_read();
        }
        proptest::prop_assert!(sent.is_sorted_by(|a, b| a < b), "in order and once: {sent:?}");
        for n in acked + 1..=head {
            proptest::prop_assert!(
                gone.contains(&n) || sent.contains(&n),
                "{n} of {head} is missing in {sent:?}, acked {acked}"
            );
        }
        proptest::prop_assert_eq!(session.inflight(), 0);
    }
}
