//! What is due to a session: pages of its inbox, messages that are due again, recalls.

use std::sync::Arc;

use bytes::Bytes;
use hongyan_core::message::Target;
use hongyan_core::port::{Fresh, Hint, InboxPage};
use hongyan_core::{Cursor, Message, MessageId, SessionId};

use tokio::sync::mpsc::error::TrySendError;

use super::{PULLS_PER_TURN, READ_RETRY_MS, Reactor};
use crate::backend::{Job, Report, Wanted, What};
use crate::mailbox::Again;
use crate::options::ticks;
use crate::protocol::hongyan::outgoing;
use crate::protocol::{Encoding, Outgoing, Taken};
use crate::seat::Seat;
use crate::session::Sent;

/// Shared parts that are kept for sessions that read the same broadcast a little later.
const RECENT_LEN_MAX: usize = 64;
/// Larger ones are encoded anew.
const RECENT_BYTES_MAX: usize = 64 * 1024;
/// Messages of one session that are asked for again at once.
const AGAIN_AT_ONCE: usize = 16;
/// Reads that one task of the backend makes.
const READS_PER_JOB: usize = 64;
impl Reactor {
    /// Notes that there may be more for a session.
    pub(super) fn want(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if let Some(session) = &mut connection.session {
            session.want();
            self.queue_pull(key);
        } else if let Some(opening) = &mut connection.opening {
            opening.wanted = true;
        }
    }

    /// Sends an entry that was just committed to the sessions that have everything before it; the others read. So do those
    /// that a look at everything is still to reach with what came earlier, maybe to another of their lists.
    pub(super) fn take_news(&mut self, sessions: &[SessionId], hint: &Hint) {
        let news = self.is_news(hint);
        for session in sessions {
            if let Some(key) = self.find(*session) {
                let known = news.filter(|_| !self.is_before_sweep(&hint.app, key));
                self.guard(key, |reactor| reactor.take_fresh(key, known));
            }
        }
    }

    /// The entry of a hint, unless it was recalled in the last moments or has expired.
    pub(super) fn is_news<'a>(&self, hint: &'a Hint) -> Option<(&'a Hint, &'a Fresh)> {
        let fresh = hint.fresh.as_ref()?;
        let is_over = fresh.message.expires_at <= self.parts.clock.now();
        let is_news = !is_over && !self.recalled.contains(&fresh.message.id);
        is_news.then_some((hint, fresh))
    }

    pub(super) fn take_fresh(&mut self, key: usize, news: Option<(&Hint, &Fresh)>) {
        let session = self.connections.get(key).and_then(|c| c.session.as_ref());
        if let (Some((hint, fresh)), Some(session)) = (news, session)
            && session.has_read(hint, fresh)
        {
            return;
        }
        if news
            .and_then(|(hint, fresh)| self.send_fresh(key, hint, fresh))
            .is_none()
        {
            self.want(key);
        }
    }

    /// Sends a fresh entry if it is what comes next; `None` when only a read tells.
    fn send_fresh(&mut self, key: usize, hint: &Hint, fresh: &Fresh) -> Option<()> {
        let id = self.id(key)?;
        let connection = self.connections.get(key)?;
        if !connection.takes(&self.parts.options) {
            return None;
        }
        let place = connection.session.as_ref()?.next_place(hint, fresh)?;
        let redelivers = connection.speaker.protocol()?.redelivers();
        let one = Outgoing {
            message: &fresh.message,
            place,
            dup: false,
        };
        let taken = self.speak(key, None, |protocol, desk| protocol.give(&one, desk))?;
        let message = fresh.message.id;
        let session = self.connections.get_mut(key)?.session.as_mut()?;
        match taken {
            Taken::Sent => {}
            Taken::Full => return None,
            Taken::Later => return Some(()),
            Taken::Skipped { rejected } => {
                session.pass(place);
                if rejected {
                    self.report(key, What::Reject(message));
                }
                return Some(());
            }
        }
        let wait = redelivers
            .then(|| self.parts.options.redeliver_after(1))
            .flatten();
        let due = wait.map(|wait| self.now + wait);
        session.sent_fresh(&fresh.message, place, due);
        if fresh.message.recalls.is_none() {
            let seat = session.seat().clone();
            metrics::counter!("hongyan_gateway_messages_total").increment(1);
            let what = What::Sent(id, vec![message]);
            self.reports.push(Report { seat, what });
        }
        self.speak(key, None, |protocol, desk| protocol.sent(1, false, desk));
        let timer = self.connections.get(key)?.timer;
        if due.is_some_and(|due| due < timer) {
            self.arm(key);
        }
        Some(())
    }

    pub(super) fn queue_pull(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && connection.session.is_some()
            && !connection.queued
        {
            connection.queued = true;
            self.pulls.push_back(key);
        }
    }

    /// Asks for pages for sessions that want some.
    pub(super) fn pull(&mut self) {
        let mut wanted = Vec::new();
        for _ in 0..self.pulls.len().min(PULLS_PER_TURN) {
            let Some(key) = self.pulls.pop_front() else {
                break;
            };
            wanted.extend(self.next_read(key));
            if wanted.len() >= READS_PER_JOB && !self.ask(std::mem::take(&mut wanted)) {
                return;
            }
        }
        if !wanted.is_empty() {
            self.ask(wanted);
        }
    }

    fn next_read(&mut self, key: usize) -> Option<Wanted> {
        let id = self.id(key)?;
        let connection = self.connections.get_mut(key)?;
        connection.queued = false;
        // What holds it up queues it again when that is over.
        if !connection.takes(&self.parts.options) {
            return None;
        }
        let session = connection.session.as_mut()?;
        let read = session.next_read()?;
        let seat = session.seat().clone();
        Some(Wanted {
            session: id,
            seat,
            read,
        })
    }

    /// Hands reads to the backend; when it is full, all of them are wanted again.
    fn ask(&mut self, wanted: Vec<Wanted>) -> bool {
        match self.parts.jobs.try_send(Job::Reads(wanted)) {
            Err(
                TrySendError::Full(Job::Reads(wanted)) | TrySendError::Closed(Job::Reads(wanted)),
            ) => {
                for one in wanted {
                    if let Some(key) = self.find(one.session) {
                        if let Some(session) = &mut self.connections[key].session {
                            session.read_failed();
                        }
                        self.queue_pull(key);
                    }
                }
                self.backlog = true;
                false
            }
            _ => true,
        }
    }

    /// A page came, or could not be read.
    pub(super) fn take_page(&mut self, id: SessionId, seat: &Seat, page: Option<Box<InboxPage>>) {
        let Some(key) = self.find(id) else { return };
        let retry_at = self.now + ticks(READ_RETRY_MS);
        let connection = &mut self.connections[key];
        let Some(session) = &mut connection.session else {
            return;
        };
        if !session.seat().is(seat) {
            return; // Read for a user that has left.
        }
        let Some(page) = page else {
            session.read_failed();
            connection.deadline = retry_at;
            self.arm(key);
            return;
        };
        if page.lost > 0 {
            let lost = page.lost;
            self.speak(key, None, |protocol, desk| protocol.gap(lost, desk));
        }
        let more = page.more;
        let sent = self.send_page(key, &page);
        let count = sent.ids.len();
        let marks = sent.marks;
        for rejected in sent.rejected {
            self.report(key, What::Reject(rejected));
        }
        if count > 0 {
            metrics::counter!("hongyan_gateway_messages_total").increment(count as u64);
            let what = What::Sent(id, sent.ids);
            self.reports.push(Report {
                seat: seat.clone(),
                what,
            });
        }
        self.speak(key, None, |protocol, desk| {
            protocol.sent(count + marks, more, desk);
            if let Some(head) = sent.idle {
                protocol.idle(head, desk);
            }
        });
        self.hand_early(id);
        self.queue_pull(key);
        self.arm(key);
    }

    fn send_page(&mut self, key: usize, page: &InboxPage) -> Sent {
        let Some(connection) = self.connections.get_mut(key) else {
            return Sent::default();
        };
        let Some(mut session) = connection.session.take() else {
            return Sent::default();
        };
        let redelivers = connection
            .speaker
            .protocol()
            .is_some_and(|protocol| protocol.redelivers());
        let first_wait = redelivers
            .then(|| self.parts.options.redeliver_after(1))
            .flatten();
        let now = self.now;
        let sent = self.speak(key, None, |protocol, desk| {
            session.take_page(page, now, first_wait, |entry, dup| {
                // Recalled while the page was read.
                if desk.reactor.recalled.contains(&entry.message.id) {
                    return Taken::Skipped { rejected: false };
                }
                let one = Outgoing {
                    message: &entry.message,
                    place: entry.cursor,
                    dup,
                };
                protocol.give(&one, desk)
            })
        });
        if let Some(connection) = self.connections.get_mut(key) {
            connection.session = Some(session);
        }
        sent.unwrap_or_default()
    }

    /// The part of a message that all sessions share, encoded once for a broadcast.
    pub(super) fn shared(&mut self, encoding: Encoding, message: &Message) -> Bytes {
        if !matches!(message.to, Target::Topic(_) | Target::All) {
            // Written where there is room already, then kept at its size.
            self.scratch.clear();
            outgoing::write_shared(encoding, message, &mut self.scratch);
            let shared = Bytes::copy_from_slice(&self.scratch);
            if self.scratch.capacity() > RECENT_BYTES_MAX {
                self.scratch = Vec::new();
            }
            return shared;
        }
        let known = self
            .recent
            .iter()
            .rev()
            .find(|(id, other, _)| *id == message.id && *other == encoding);
        if let Some((_, _, shared)) = known {
            return shared.clone();
        }
        let shared = outgoing::shared(encoding, message);
        if shared.len() <= RECENT_BYTES_MAX {
            if self.recent.len() >= RECENT_LEN_MAX {
                self.recent.pop_front();
            }
            self.recent
                .push_back((message.id, encoding, shared.clone()));
        }
        shared
    }

    /// Asks the store for messages that are due again.
    pub(super) fn ask_again(&mut self, key: usize) {
        let Some(id) = self.id(key) else { return };
        let options = Arc::clone(&self.parts.options);
        let now = self.now;
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Some(session) = &mut connection.session else {
            return;
        };
        let seat = session.seat().clone();
        let due = session.take_due(now, AGAIN_AT_ONCE, |tries| options.redeliver_after(tries));
        for (message, place) in due {
            let job = Job::Again {
                session: id,
                seat: seat.clone(),
                id: message,
                place,
            };
            if self.parts.jobs.try_send(job).is_err() {
                self.retry_later(key, message);
            }
        }
    }

    fn retry_later(&mut self, key: usize, message: MessageId) {
        let due = self.now + ticks(READ_RETRY_MS);
        if let Some(session) = self
            .connections
            .get_mut(key)
            .and_then(|c| c.session.as_mut())
        {
            session.retry(message, due);
            self.arm(key);
        }
    }

    /// A message that is due again was looked up.
    pub(super) fn send_again(
        &mut self,
        id: SessionId,
        seat: &Seat,
        message: MessageId,
        place: Cursor,
        found: Again,
    ) {
        let Some(key) = self.find(id) else { return };
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Some(session) = &mut connection.session else {
            return;
        };
        if !session.seat().is(seat) || !session.is_in_flight(message) {
            return;
        }
        match found {
            Again::Send(body) => {
                let one = Outgoing {
                    message: &body,
                    place,
                    dup: true,
                };
                let taken = self.speak(key, None, |protocol, desk| protocol.give(&one, desk));
                if taken == Some(Taken::Sent) {
                    metrics::counter!("hongyan_gateway_redeliveries_total").increment(1);
                } else {
                    self.retry_later(key, message);
                }
            }
            Again::Gone => {
                session.recall(message);
                self.queue_pull(key);
            }
            Again::Unknown => self.retry_later(key, message),
        }
    }

    pub(super) fn recall(&mut self, key: usize, id: MessageId) {
        let session = self
            .connections
            .get_mut(key)
            .and_then(|c| c.session.as_mut());
        let Some(session) = session else { return };
        if !session.recall(id) {
            self.speak(key, None, |protocol, desk| protocol.recall(id, desk));
        }
        self.queue_pull(key);
    }
}
