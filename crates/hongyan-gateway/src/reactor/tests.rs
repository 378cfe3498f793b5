use std::sync::atomic::Ordering;
use std::time::Duration;

use hongyan_core::port::Presence;
use hongyan_core::{SessionId, Timestamp};

use super::stage::{Stage, all, app, message, user};
use super::*;

#[test]
fn what_waits_in_the_mailbox_is_not_slept_over() {
    let mut stage = Stage::new();
    let phone = stage.live("d");
    // More than a turn's work, of which a part is left for the next.
    for _ in 0..COMMANDS_PER_TURN + 1 {
        stage.hub.mailbox(phone.session).push(Command::Poke);
    }
    stage.turn();
    assert_eq!(stage.reactor.commands.len(), 1);
    // What comes now wakes nobody a second time ...
    stage.publish(user());
    stage.turn();
    // ... and was not taken in a turn that began with the rest.
    assert!(stage.reactor.commands.is_empty());
    assert!(phone.heard.lines().is_empty());
    assert_eq!(stage.reactor.wait(), Some(Duration::ZERO));
    stage.turn();
    assert_eq!(phone.heard.lines(), ["0"]);
    assert_ne!(stage.reactor.wait(), Some(Duration::ZERO));
}

#[test]
fn a_recalled_message_is_not_shown_by_a_look_that_comes_later() {
    let mut stage = Stage::new();
    let phone = stage.live("d");
    // Two looks, so that the second waits for a turn.
    stage.publish(all());
    stage.publish(all());
    stage.turn();
    assert_eq!(phone.heard.lines(), ["0"]);
    // More recalls than are remembered.
    for n in 1..100 {
        stage.recall(&all(), n);
    }
    stage.settle();
    let lines = phone.heard.lines();
    assert_eq!(lines[..2], ["0", "recall 1"], "and not the message itself");
    assert!(!lines.contains(&"1".to_owned()));
}

#[test]
fn so_many_recalls_are_not_queued_as_may_come() {
    let mut stage = Stage::new();
    let phone = stage.live("d");
    stage.publish(all());
    for n in 0..3_000 {
        stage.recall(&all(), n);
    }
    // They take a turn each: what is told is what had room.
    stage.settle();
    let lines = phone.heard.lines();
    assert!(lines.len() <= 1_025, "{}", lines.len());
    stage.publish(all());
    stage.settle();
    assert_eq!(phone.heard.lines().last().unwrap(), "1");
}

#[test]
fn a_recall_stays_behind_the_look_that_brings_its_message() {
    let mut stage = Stage::new();
    let phone = stage.live("d");
    stage.publish(all());
    stage.turn();
    stage.recall(&all(), 0);
    stage.settle();
    assert_eq!(phone.heard.lines(), ["0", "recall 0"]);
}

#[test]
fn a_message_that_is_recalled_while_it_is_read_is_not_shown() {
    let mut stage = Stage::new();
    let phone = stage.live("d");
    let mut hint = stage.store(user());
    hint.fresh = None;
    stage.hub.notify(vec![hint]);
    stage.turn();
    stage.answer_all();
    // The page is on its way, with the message.
    stage.recall(&user(), 0);
    stage.publish(user());
    stage.turn();
    stage.settle();
    assert_eq!(phone.heard.lines(), ["recall 0", "1"]);
}

#[test]
fn a_look_at_everything_does_not_pass_over_who_is_being_greeted() {
    for with_entry in [true, false] {
        let mut stage = Stage::new();
        let phone = stage.dial("d");
        // Its first page was read; it did not arrive.
        let mut hint = stage.store(all());
        hint.fresh = hint.fresh.filter(|_| with_entry);
        stage.hub.notify(vec![hint]);
        stage.turn();
        stage.settle();
        assert_eq!(phone.heard.lines(), ["0"]);
    }
}

#[test]
fn what_is_not_stored_waits_for_a_first_page_and_not_longer_than_it_is_of_use() {
    let mut stage = Stage::new();
    let phone = stage.dial("d");
    assert!(stage.hub.hand(&app(), &phone.reader.device, message(7)));
    stage.turn();
    assert_eq!(stage.reactor.early.len(), 1);
    stage.settle();
    assert_eq!(phone.heard.lines(), ["7"]);
    assert_eq!(stage.reactor.early.len(), 0);

    let late = stage.dial("e");
    assert!(stage.hub.hand(&app(), &late.reader.device, message(8)));
    stage.turn();
    assert_eq!(stage.reactor.early.len(), 1);
    let wait = stage.reactor.wait().unwrap();
    assert!(wait <= Duration::from_secs(5), "{wait:?}");
    stage.advance(wait);
    stage.turn();
    assert_eq!(stage.reactor.early.len(), 0);
    stage.settle();
    assert!(late.heard.lines().is_empty(), "it came too late");
}

#[test]
fn what_is_not_stored_does_not_wait_for_a_session_that_takes_nothing() {
    let mut stage = Stage::new();
    let phone = stage.live("d");
    phone.heard.deaf.store(true, Ordering::SeqCst);
    let key = stage.reactor.find(phone.session).unwrap();
    let session = stage.reactor.connections[key].session.as_mut().unwrap();
    session.restart(None);
    assert!(stage.hub.hand(&app(), &phone.reader.device, message(7)));
    stage.turn();
    assert_eq!(stage.reactor.early.len(), 0);
    // What is asked for in this turn comes, and the message with it.
    phone.heard.deaf.store(false, Ordering::SeqCst);
    assert!(stage.hub.hand(&app(), &phone.reader.device, message(8)));
    stage.turn();
    assert_eq!(stage.reactor.early.len(), 1);
    stage
        .hub
        .mailbox(phone.session)
        .push(Command::Wake(vec![phone.session]));
    stage.settle();
    assert_eq!(phone.heard.lines(), ["8"]);
}

/// Sessions whose topics the backend was asked to read.
fn topic_reads(stage: &mut Stage) -> Vec<SessionId> {
    let mut found = Vec::new();
    while let Ok(job) = stage.jobs.try_recv() {
        if let Job::Resubscribe { session, .. } = job {
            found.push(session);
        }
    }
    found
}

#[test]
fn topics_are_read_also_when_the_backend_was_full() {
    let mut stage = Stage::with_jobs(1);
    let phone = stage.live("d");
    let seat = stage.seat(&phone).unwrap();
    let session = SessionId(u64::MAX);
    let job = Job::Resubscribe { session, seat };
    stage.reactor.parts.jobs.try_send(job).unwrap();
    stage.hub.resubscribe(&app(), &phone.reader.device);
    stage.hub.resubscribe(&app(), &phone.reader.device);
    stage.turn();
    assert_eq!(topic_reads(&mut stage), [session], "there was no room");
    let wait = stage.reactor.wait().unwrap();
    stage.advance(wait);
    stage.turn();
    assert_eq!(topic_reads(&mut stage), [phone.session]);
    assert_eq!(stage.reactor.unread.due(), None, "nothing is left to do");
}

#[test]
fn topics_that_could_not_be_read_are_read_later() {
    let mut stage = Stage::new();
    let phone = stage.live("d");
    stage
        .hub
        .mailbox(phone.session)
        .push(Command::TopicsUnread(phone.session));
    stage.turn();
    assert!(topic_reads(&mut stage).is_empty());
    let wait = stage.reactor.wait().unwrap();
    stage.advance(wait);
    stage.turn();
    assert_eq!(topic_reads(&mut stage), [phone.session]);
}

#[test]
fn topics_that_change_during_a_greeting_are_read_after_it() {
    let mut stage = Stage::new();
    let phone = stage.dial("d");
    stage.hub.resubscribe(&app(), &phone.reader.device);
    stage.turn();
    assert!(topic_reads(&mut stage).is_empty());
    stage.arrive();
    stage.turn();
    assert_eq!(topic_reads(&mut stage), [phone.session]);
    assert_eq!(stage.clock.now(), Timestamp(1_000), "at once");
}

#[test]
fn a_recall_is_told_once_to_who_gets_its_mark_at_once() {
    let mut stage = Stage::new();
    let phone = stage.live("d");
    for owner in [user(), all()] {
        stage.publish(owner);
        stage.settle();
        stage.recall_last(0, true);
        stage.settle();
    }
    assert_eq!(phone.heard.lines(), ["0", "mark 0", "2", "mark 2"]);
    assert!(stage.jobs.is_empty(), "nothing was read");
}
