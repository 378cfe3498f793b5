use hongyan_core::{AppId, DeviceId, Message, UserId};

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

fn reader(user: &str) -> Arc<Reader> {
    Arc::new(Reader {
        app: AppId::parse("demo").unwrap(),
        device: DeviceId::parse("d").unwrap(),
        user: Some(UserId::parse(user).unwrap()),
    })
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

fn session(inflight_max: u16, sent_before: Option<u64>) -> Session {
    Session::new(reader("u"), place(0), inflight_max, sent_before.map(place))
}

fn take(session: &mut Session, page: &InboxPage) -> (Vec<u64>, Vec<bool>, Option<Cursor>) {
    let mut dups = Vec::new();
    let sent = session.take_page(page, 0, Some(300), |_, dup| {
        dups.push(dup);
        true
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
    session.ack_ids(&[id(1)]);
    assert_eq!(session.unfinished(), Some(place(5)));
}

#[test]
fn a_full_connection_reads_the_rest_again() {
    let mut session = session(8, None);
    let mut room = 2;
    let sent = session.take_page(&page(1..=4, 4), 0, None, |_, _| {
        room -= 1;
        room >= 0
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
    session.take_page(&page(1..=4, 4), 0, None, |_, _| false);
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
    session.rebind(reader("v"));
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

#[test]
fn an_idle_session_is_small() {
    // The place, the head and a few words: part of the 400 bytes that a connection may cost.
    assert!(
        std::mem::size_of::<Session>() <= 88,
        "{}",
        std::mem::size_of::<Session>()
    );
}
