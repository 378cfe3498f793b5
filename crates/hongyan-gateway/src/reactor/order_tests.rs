//! Order across the lists of an inbox, however hints, reads and looks at everything fall.

use hongyan_core::SessionId;
use hongyan_core::port::Presence;
use proptest::prelude::*;

use super::stage::{Phone, Stage, all, app, own, topic, user};
use crate::mailbox::Command;

#[test]
fn what_is_for_one_waits_for_a_look_at_everything_that_began_before() {
    let mut stage = Stage::new();
    let phone = stage.live("d");
    // The first look is worked off in this turn, the second in the next.
    stage.publish(all());
    stage.publish(all());
    stage.publish(user());
    stage.turn();
    stage.settle();
    assert_eq!(phone.heard.lines(), ["0", "1", "2"]);
}

#[test]
fn who_was_reached_by_a_look_at_everything_needs_no_read() {
    let mut stage = Stage::new();
    let phone = stage.live("d");
    stage.publish(all());
    stage.turn();
    stage.publish(user());
    stage.turn();
    assert_eq!(phone.heard.lines(), ["0", "1"]);
    assert!(stage.jobs.is_empty(), "nothing was read");
}

#[test]
fn hints_of_a_list_are_joined_over_nothing_of_another() {
    let mut stage = Stage::new();
    let phones = [stage.live("d"), stage.live("e")];
    let hints = [topic(), topic(), user(), topic(), own("d"), topic()];
    for owner in hints {
        stage.publish(owner);
    }
    stage.settle();
    assert_eq!(phones[0].heard.lines(), ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(phones[1].heard.lines(), ["0", "1", "2", "3", "5"]);
}

/// How many hints each command of the line holds, of those that hold some.
fn lined_up(stage: &mut Stage) -> Vec<usize> {
    let mut fresh = Vec::new();
    stage.hub.mailbox(SessionId(0)).take(&mut fresh);
    stage.reactor.line_up(fresh);
    let waiting = stage.reactor.commands.iter();
    let hints = waiting.filter_map(|command| match command {
        Command::News { more, .. } => Some(1 + more.len()),
        _ => None,
    });
    hints.collect()
}

#[test]
fn hints_of_a_list_are_joined() {
    let mut stage = Stage::new();
    let phones = [stage.live("d"), stage.live("e")];
    for n in 0..10 {
        stage.publish(topic());
        if n == 5 {
            stage.hub.poke();
        }
    }
    assert_eq!(lined_up(&mut stage), [8, 2]);
    stage.settle();
    assert_eq!(phones[1].heard.lines(), stage.due_to(&phones[1]));
    assert!(stage.jobs.is_empty(), "nothing was read");
}

#[test]
fn what_others_are_told_keeps_nothing_apart() {
    let mut stage = Stage::new();
    let phones = [stage.live("d"), stage.live("e")];
    let other = stage.live("f");
    let reader = &other.reader;
    let mark = stage.hub.topics_mark(reader);
    stage
        .hub
        .set_topics(other.session, reader, Vec::new(), mark);
    for _ in 0..4 {
        stage.publish(topic());
        stage.publish(own("f"));
    }
    assert_eq!(lined_up(&mut stage), [4, 1, 1, 1, 1]);
    // More than is kept in mind ends a run.
    for _ in 0..65 {
        stage.publish(own("f"));
    }
    stage.publish(topic());
    assert_eq!(lined_up(&mut stage)[5 + 65..], [1]);
    stage.settle();
    for phone in &phones {
        assert_eq!(phone.heard.lines(), stage.due_to(phone));
    }
}

#[test]
fn a_wake_up_comes_before_what_follows_it_in_a_batch() {
    let mut stage = Stage::new();
    let phone = stage.live("d");
    let mut first = stage.store(own("d"));
    first.fresh = None;
    let second = stage.store(user());
    stage.hub.notify(vec![first, second]);
    stage.settle();
    assert_eq!(phone.heard.lines(), ["0", "1"]);
}

#[test]
fn a_late_hint_makes_nobody_read() {
    let mut stage = Stage::new();
    let phone = stage.live("d");
    let hint = stage.store(user());
    stage.hub.notify(vec![hint.clone()]);
    stage.hub.notify(vec![hint]);
    stage.turn();
    assert_eq!(phone.heard.lines(), ["0"]);
    assert!(stage.jobs.is_empty(), "nothing was read");
}

#[derive(Debug, Clone)]
enum Step {
    /// Something for a list (user, topic, all, or a device's own), whose hint carries the entry or does not.
    Publish(u8, bool),
    /// Several at once, in one call.
    Batch(Vec<(u8, bool)>),
    /// The hub is told that a device's topics change.
    Topics(u8),
    /// One of the last messages is recalled; the hint of its mark carries the entry or does not.
    Recall(u8, bool),
    Dial,
    Turn,
    /// The store looks up what was asked.
    Answer,
    /// An answer comes back.
    Arrive,
}

fn step() -> impl Strategy<Value = Step> {
    let one = || (0..5u8, proptest::bool::weighted(0.8));
    prop_oneof![
        6 => one().prop_map(|(list, fresh)| Step::Publish(list, fresh)),
        2 => proptest::collection::vec(one(), 2..5).prop_map(Step::Batch),
        1 => (0..3u8).prop_map(Step::Topics),
        1 => (0..6u8, proptest::bool::weighted(0.8)).prop_map(|(back, fresh)| Step::Recall(back, fresh)),
        1 => Just(Step::Dial),
        4 => Just(Step::Turn),
        3 => Just(Step::Answer),
        3 => Just(Step::Arrive),
    ]
}

proptest! {
    #[test]
    fn every_session_is_sent_everything_once_in_the_order_of_acceptance(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut stage = Stage::new();
        let mut phones: Vec<Phone> = vec![stage.live("d0")];
        for step in steps {
            match step {
                Step::Publish(list, fresh) => publish(&mut stage, &[(list, fresh)]),
                Step::Batch(all) => publish(&mut stage, &all),
                Step::Topics(n) => {
                    if let Some(phone) = phones.get(usize::from(n)) {
                        stage.hub.topics_change(&phone.reader);
                    }
                }
                Step::Recall(back, fresh) => stage.recall_last(u64::from(back), fresh),
                Step::Dial if phones.len() < 3 => {
                    let name = format!("d{}", phones.len());
                    phones.push(stage.dial(&name));
                }
                Step::Dial => {}
                Step::Turn => stage.turn(),
                Step::Answer => stage.answer_all(),
                Step::Arrive => stage.arrive(),
            }
        }
        stage.settle();
        for phone in &phones {
            let mut lines = phone.heard.lines();
            for n in stage.recalled() {
                let at = |line: String| lines.iter().position(|one| *one == line);
                let shown = at(n.to_string());
                for told in [at(format!("recall {n}")), at(format!("mark {n}"))] {
                    let is_late = shown.is_some() && told.is_some_and(|told| Some(told) < shown);
                    prop_assert!(!is_late, "{n} was shown after its recall: {lines:?}");
                }
                lines.retain(|one| *one != n.to_string() && *one != format!("recall {n}"));
            }
            prop_assert_eq!(lines, stage.due_to(phone), "{}", phone.reader.device);
        }
    }
}

fn publish(stage: &mut Stage, lists: &[(u8, bool)]) {
    let mut hints = Vec::new();
    for (list, fresh) in lists {
        let owner = match list {
            0 => user(),
            1 => topic(),
            2 => all(),
            n => own(&format!("d{}", n - 3)),
        };
        let mut hint = stage.store(owner);
        hint.fresh = hint.fresh.filter(|_| *fresh);
        assert_eq!(hint.app, app());
        hints.push(hint);
    }
    stage.hub.notify(hints);
}
