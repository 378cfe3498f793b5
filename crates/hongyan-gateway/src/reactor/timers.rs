//! Deadlines of connections.

use std::sync::Arc;

use super::Reactor;
use super::connection::Phase;
use crate::options::{Options, ticks};
use crate::protocol::websocket::close;
use crate::wheel::{Tick, Timer};

impl Reactor {
    /// Sets the wheel for the connection's next deadline, if it is sooner than what is set.
    pub(super) fn arm(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let next = connection.next_deadline(&self.parts.options);
        if next < connection.timer {
            let timer = Timer {
                key: key as u32,
                generation: connection.generation,
            };
            connection.timer = self.wheel.set(next, timer);
        }
    }

    pub(super) fn fire_timers(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(self.now, &mut due);
        for timer in due.drain(..) {
            let key = timer.key as usize;
            let current = self
                .connections
                .get(key)
                .is_some_and(|c| c.generation == timer.generation && c.timer <= self.now);
            if current {
                self.guard(key, |reactor| reactor.fire(key));
            }
        }
        self.due = due;
    }

    pub(super) fn fire(&mut self, key: usize) {
        let now = self.now;
        let options = Arc::clone(&self.parts.options);
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.timer = Tick::MAX;
        let over = connection.deadline != 0 && connection.deadline <= now;
        match connection.phase {
            Phase::Opening if over => {
                self.close(key, close::TOO_SLOW, "no hello came in time");
            }
            Phase::Opening if connection.due().is_some_and(|due| due <= now) => {
                self.speak(key, None, |protocol, desk| protocol.fire(desk));
            }
            Phase::Greeting if over => {
                self.close(key, close::TRY_AGAIN, "the store did not answer in time");
            }
            Phase::Closing | Phase::Broken | Phase::Ending if over => {
                self.end(key);
                return;
            }
            Phase::Live | Phase::Guest => {
                if over {
                    connection.deadline = 0;
                    self.queue_pull(key);
                }
                self.fire_live(key, &options);
            }
            _ => {}
        }
        self.arm(key);
    }

    pub(super) fn fire_live(&mut self, key: usize, options: &Options) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let blocked = connection
            .output
            .as_ref()
            .and_then(|output| output.blocked_since);
        if blocked.is_some_and(|since| now >= since + ticks(options.slow_timeout_ms)) {
            self.close(
                key,
                close::TOO_SLOW,
                "too slow: the send queue made no progress",
            );
            return;
        }
        if connection.due().is_some_and(|due| due <= now) {
            self.speak(key, None, |protocol, desk| protocol.fire(desk));
        }
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let silence = connection.silence(options);
        let silent = now.saturating_sub(connection.heard);
        let asked = connection.pinged || silence.ping_after.is_none();
        if asked && silence.dead_after.is_some_and(|dead| silent >= dead) {
            // After a pause of this whole process its answer may be here, unread.
            let heard = connection.heard;
            self.read_socket(key, true);
            let Some(connection) = self.connections.get_mut(key) else {
                return;
            };
            if connection.heard == heard && !connection.is_closing() {
                metrics::counter!("hongyan_gateway_dead_total").increment(1);
                if silence.ping_after.is_some() {
                    self.end(key);
                } else {
                    self.refuse(
                        key,
                        close::TOO_SLOW,
                        "silent",
                        "nothing was heard for too long",
                    );
                }
            }
            return;
        }
        if !connection.pinged && silence.ping_after.is_some_and(|wait| silent >= wait) {
            connection.pinged = true;
            self.speak(key, None, |protocol, desk| protocol.ping(desk));
        }
        self.ask_again(key);
    }
}
