use std::collections::{BTreeMap, BTreeSet};

use hongyan_core::port::Reader;
use hongyan_core::{DeviceId, UserId};
use proptest::prelude::*;

use super::*;

fn app(n: u8) -> AppId {
    AppId::parse(&format!("a{n}")).unwrap()
}

fn topic(n: u8) -> Topic {
    Topic::parse(&format!("t{n}")).unwrap()
}

fn seat((in_app, device): (u8, u8), user: Option<u8>) -> Seat {
    Seat::new(&Reader {
        app: app(in_app),
        device: DeviceId::parse(&format!("d{device}")).unwrap(),
        user: user.map(|user| UserId::parse(&format!("u{user}")).unwrap()),
    })
}

/// What a map by device says, with nothing clever about it.
#[derive(Debug, Default)]
struct Model(BTreeMap<(u8, u8), Known>);

/// Session, user and topics.
type Known = (SessionId, Option<u8>, BTreeSet<u8>);

impl Model {
    fn of(&self, is_it: impl Fn(u8, &Option<u8>, &BTreeSet<u8>) -> bool) -> BTreeSet<SessionId> {
        let all = self.0.iter();
        all.filter(|((app, _), (_, user, topics))| is_it(*app, user, topics))
            .map(|(_, (session, ..))| *session)
            .collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Come((u8, u8), Option<u8>),
    Go((u8, u8)),
    Rebind((u8, u8), Option<u8>),
    Follow((u8, u8), Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let device = || (0..2u8, 0..6u8);
    let user = || proptest::option::of(0..3u8);
    prop_oneof![
        (device(), user()).prop_map(|(device, user)| Step::Come(device, user)),
        device().prop_map(Step::Go),
        (device(), user()).prop_map(|(device, user)| Step::Rebind(device, user)),
        (device(), proptest::collection::vec(0..4u8, 0..4))
            .prop_map(|(device, topics)| Step::Follow(device, topics)),
    ]
}

proptest! {
    #[test]
    fn finds_whom_a_plain_map_finds(steps in proptest::collection::vec(step(), 0..120)) {
        let (mut index, mut model) = (Index::default(), Model::default());
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                Step::Come(device, user) => {
                    let seat = seat(device, user);
                    let former = index.remove(seat.app(), seat.device());
                    let was = model.0.remove(&device).map(|(session, ..)| session);
                    prop_assert_eq!(former.map(|member| member.session), was);
                    let session = SessionId(at as u64);
                    index.add(seat, session, Timestamp(at as i64), Kind::WebSocket, AppState::Foreground);
                    model.0.insert(device, (session, user, BTreeSet::new()));
                }
                Step::Go(device) => {
                    let seat = seat(device, None);
                    let gone = index.remove(seat.app(), seat.device()).is_some();
                    prop_assert_eq!(gone, model.0.remove(&device).is_some());
                }
                Step::Rebind(device, user) => {
                    index.reseat(seat(device, user));
                    if let Some(member) = model.0.get_mut(&device) {
                        member.1 = user;
                    }
                }
                Step::Follow(device, topics) => {
                    let session = model.0.get(&device).map_or(SessionId(u64::MAX), |m| m.0);
                    let name = format!("d{}", device.1);
                    let all = topics.iter().map(|n| topic(*n)).collect();
                    index.follow(session, (&app(device.0), &name), all, 0);
                    index.follow(SessionId(u64::MAX), (&app(device.0), &name), vec![topic(0)], 0);
                    if let Some(member) = model.0.get_mut(&device) {
                        member.2 = topics.into_iter().collect();
                    }
                }
            }
            prop_assert_eq!(index.len(), model.0.len());
            for of in 0..2u8 {
                let name = format!("a{of}");
                for n in 0..4u8 {
                    let found: Vec<SessionId> = index.of_user(&name, &format!("u{n}")).collect();
                    let want = model.of(|app, user, _| app == of && *user == Some(n));
                    prop_assert_eq!(found.len(), want.len());
                    prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), want);
                    let found: Vec<SessionId> = index
                        .of_topic(&name, &format!("t{n}"))
                        .map(|(session, _)| session)
                        .collect();
                    let want = model.of(|app, _, topics| app == of && topics.contains(&n));
                    prop_assert_eq!(found.len(), want.len());
                    prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), want);
                }
                for n in 0..6u8 {
                    let found = index.find(&name, &format!("d{n}")).map(|m| m.session);
                    prop_assert_eq!(found, model.0.get(&(of, n)).map(|m| m.0));
                }
            }
            let followed = model.0.iter().flat_map(|((app, _), (.., topics))| {
                topics.iter().map(move |topic| (*app, *topic))
            });
            prop_assert_eq!(index.crowds.len(), followed.collect::<BTreeSet<_>>().len());
        }
    }
}

#[test]
fn what_the_hub_keeps_of_a_session_is_small() {
    // One member in the slab, and four bytes in the table of devices, in that of users and in that of each topic. The
    // tables add a byte for each of their places, of which 7/16 to 7/8 are taken.
    assert!(std::mem::size_of::<Member>() <= 48);
    assert!(std::mem::size_of::<Option<Member>>() <= 48);
}

#[test]
fn says_since_when_to_a_tenth_of_a_second() {
    let mut index = Index::default();
    for (n, at) in [(0u8, 1_000_000), (1, 1_012_345), (2, 999_000)] {
        let seat = seat((0, n), None);
        index.add(
            seat,
            SessionId(u64::from(n)),
            Timestamp(at),
            Kind::Sse,
            AppState::Foreground,
        );
    }
    let since = |n: u8| index.since(index.find("a0", &format!("d{n}")).unwrap());
    assert_eq!(since(0), Timestamp(1_000_000));
    assert_eq!(since(1), Timestamp(1_012_300));
    assert_eq!(since(2), Timestamp(1_000_000), "a clock that went back");
}

#[test]
fn a_change_that_is_announced_makes_what_is_known_uncertain_until_it_was_read() {
    let mut index = Index::default();
    let own = seat((0, 0), None);
    let session = SessionId(7);
    index.add(
        own.clone(),
        session,
        Timestamp(0),
        Kind::Mqtt,
        AppState::Foreground,
    );
    let certain = |index: &Index| {
        index
            .of_topic("a0", "t1")
            .map(|(_, certain)| certain)
            .next()
    };
    let read = |index: &mut Index, mark: u8| {
        index.follow(session, (&app(0), "d0"), vec![topic(1)], mark);
    };
    let mark = index.mark("a0", "d0");
    read(&mut index, mark);
    assert_eq!(certain(&index), Some(true));
    let announced = index.find_mut("a0", "d0").unwrap().changes();
    assert_eq!(certain(&index), Some(false));
    index.find_mut("a0", "d0").unwrap().changes();
    read(&mut index, announced);
    assert_eq!(
        certain(&index),
        Some(false),
        "read before the second change"
    );
    let mark = index.mark("a0", "d0");
    read(&mut index, mark);
    assert_eq!(certain(&index), Some(true));
}

/// What the hub is told of one device, whose topics are changed and read by several at once.
struct OneDevice(Index);

impl OneDevice {
    fn new() -> Self {
        let mut index = Index::default();
        let (kind, state) = (Kind::Mqtt, AppState::Foreground);
        index.add(seat((0, 0), None), SessionId(7), Timestamp(0), kind, state);
        Self(index)
    }

    fn changes(&mut self) -> u8 {
        self.0.find_mut("a0", "d0").unwrap().changes()
    }

    /// What was read after `mark` comes.
    fn read(&mut self, mark: u8, topics: &[u8]) {
        let topics = topics.iter().map(|n| topic(*n)).collect();
        self.0.follow(SessionId(7), (&app(0), "d0"), topics, mark);
    }

    /// Topics that it is known to follow, and whether that is certain.
    fn known(&self) -> Vec<(u8, bool)> {
        let of = |n: u8| {
            let name = format!("t{n}");
            let mut found = self
                .0
                .of_topic("a0", &name)
                .map(|(_, certain)| (n, certain));
            found.next()
        };
        (0..4).filter_map(of).collect()
    }
}

#[test]
fn topics_that_were_read_before_what_is_known_are_not_taken() {
    let mut device = OneDevice::new();
    let early = device.changes();
    let late = device.changes();
    device.read(late, &[2]);
    device.read(early, &[1, 2]);
    assert_eq!(device.known(), [(2, true)], "the later read counts");
    // Between two that are not the last the newer is the better guess.
    let third = device.changes();
    device.changes();
    device.read(third, &[3]);
    device.read(late, &[2]);
    assert_eq!(device.known(), [(3, false)]);
}

#[test]
fn no_number_of_changes_makes_topics_certain_that_were_not_read() {
    let mut device = OneDevice::new();
    device.read(0, &[1]);
    assert_eq!(device.known(), [(1, true)]);
    for n in 0..1000 {
        let mark = device.changes();
        assert_eq!(device.known(), [(1, false)], "after {n} changes");
        if n % 300 == 299 {
            device.read(mark, &[1]);
            assert_eq!(device.known(), [(1, true)], "read after {n} changes");
        }
    }
}
