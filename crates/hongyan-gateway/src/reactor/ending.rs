//! Ends of connections: from either side, with a farewell or without.

use super::End;
use super::Reactor;
use super::connection::{Framing, Phase, session_id};
use crate::backend::{Report, What};
use crate::hub::Left;
use crate::options::ticks;
use crate::protocol::Farewell;
use crate::protocol::websocket::{close, frame};
use crate::writer::Output;

impl Reactor {
    /// Begins to close: nothing but the last words leaves from here on.
    pub(super) fn close(&mut self, key: usize, code: u16, reason: &'static str) {
        let end = End {
            code,
            word: close_label(code),
            detail: reason,
            error: false,
        };
        self.close_saying(key, end, false);
    }

    /// Says a fatal error, then closes.
    pub(super) fn refuse(
        &mut self,
        key: usize,
        code: u16,
        word: &'static str,
        detail: &'static str,
    ) {
        let end = End {
            code,
            word,
            detail,
            error: true,
        };
        self.close_saying(key, end, false);
    }

    /// Begins to close. What the connection's own protocol decided lets go first what the socket takes at once.
    pub(super) fn close_saying(&mut self, key: usize, end: End, own: bool) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        if connection.is_closing() {
            return;
        }
        let blocked = |output: &Output| output.blocked_since.is_some();
        if own && connection.output.as_deref().is_some_and(|o| !blocked(o)) {
            self.flush_one(key);
        }
        let deadline = self.now + ticks(self.parts.options.close_wait_ms);
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.phase = match connection.framing {
            Framing::WebSocket => Phase::Closing,
            Framing::Raw => Phase::Broken,
            Framing::Pipe => Phase::Ending,
        };
        connection.deadline = deadline;
        let framing = connection.framing;
        if let Some(output) = &mut connection.output {
            output.drop_waiting();
        }
        metrics::counter!("hongyan_gateway_closes_total", "code" => close_label(end.code))
            .increment(1);
        let farewell = Farewell {
            code: end.code,
            word: end.word,
            detail: end.detail,
            error: end.error,
        };
        let code = self.speak(key, None, |protocol, desk| protocol.close(&farewell, desk));
        self.leave(key);
        if framing == Framing::WebSocket
            && let Some(output) = self.output(key)
        {
            output.frame(|out| frame::encode_close(code.unwrap_or(end.code), end.detail, out));
        }
        self.mark_dirty(key);
        self.arm(key);
    }

    /// The session is over: the hub forgets it and dispatch is told.
    pub(super) fn leave(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.opening = None;
        let id = session_id(self.parts.index, key, connection.generation);
        let clean = connection.clean;
        let now = self.parts.clock.now();
        let parked = connection.speaker.protocol_mut().and_then(|protocol| {
            let parked = protocol.park(clean, now)?;
            Some(((protocol.kind(), parked), protocol.lingers(now)))
        });
        let (parked, until) = parked.unzip();
        let seat = match connection.session.take() {
            Some(session) => {
                let seat = session.seat().clone();
                let left = Left {
                    unfinished: session.unfinished(),
                    parked,
                    until: until.flatten(),
                    ..Left::default()
                };
                self.parts.hub.leave(id, &seat, left);
                Some(seat)
            }
            // Its work failed while the session was in hand.
            None if connection.phase == Phase::Live => self.parts.hub.forget(id),
            None => None,
        };
        if let Some(seat) = seat {
            metrics::gauge!("hongyan_gateway_sessions").decrement(1.0);
            self.reports.push(Report {
                seat,
                what: What::Down(id),
            });
        }
    }

    /// Notes what a session has to say.
    pub(super) fn report(&mut self, key: usize, what: What) {
        if let Some(seat) = self.connections.get(key).and_then(|c| c.seat()) {
            let seat = seat.clone();
            self.reports.push(Report { seat, what });
        }
    }

    /// Drops a connection at once.
    pub(super) fn end(&mut self, key: usize) {
        self.leave(key);
        if let Some(mut connection) = self.connections.try_remove(key) {
            if connection.phase == Phase::Ending {
                connection.io.shutdown();
            }
            if let Some(io) = connection.io.socket() {
                let _ = self.parts.poll.registry().deregister(&mut io.tcp);
            }
            self.parts
                .hub
                .sockets()
                .fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// The node stops: a close frame where it can be written at once.
    pub(super) fn end_all(&mut self) {
        let keys: Vec<usize> = self.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.close(key, close::GOING_AWAY, "the node stops");
            if let Some(connection) = self.connections.get_mut(key) {
                connection.phase = Phase::Ending;
            }
            self.flush_one(key);
            self.end(key);
        }
        let reports = std::mem::take(&mut self.reports);
        if !reports.is_empty() && self.parts.reports.blocking_send(reports).is_err() {
            tracing::warn!("the last reports of sessions were lost: nobody takes them any more");
        }
        self.parts.mailbox.close();
    }
}

/// Close codes as metric labels: a closed list.
fn close_label(code: u16) -> &'static str {
    match code {
        1000 => "1000",
        1001 => "1001",
        1002 => "1002",
        1003 => "1003",
        1007 => "1007",
        1009 => "1009",
        1011 => "1011",
        1012 => "1012",
        1013 => "1013",
        4400 => "4400",
        4401 => "4401",
        4403 => "4403",
        4408 => "4408",
        4409 => "4409",
        4410 => "4410",
        4429 => "4429",
        _ => "other",
    }
}
