//! What comes from a socket and what goes into it.

use std::io;

use super::Reactor;
use super::connection::{Framing, Phase};
use crate::protocol::Input;
use crate::protocol::websocket::frame::{Decoder, Fault};
use crate::session::Session;
use crate::writer::Output;

/// Bytes that all connections of a reactor are read into, one after the other.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// Reads of one connection in one turn; then it goes behind the others.
const READS_PER_TURN: usize = 4;
/// Empty queues that are kept for the next connection that has something to say.
const POOL_LEN_MAX: usize = 1024;

impl Reactor {
    pub(super) fn read_socket(&mut self, key: usize, closed: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            buffer = vec![0; READ_BYTES];
        }
        let mut again = true;
        for _ in 0..READS_PER_TURN {
            let Some(connection) = self.connections.get_mut(key) else {
                again = false;
                break;
            };
            match connection.io.read(&mut buffer) {
                Ok(0) => {
                    // Whoever said goodbye in TLS is told so, too (RFC 8446 section 6.1).
                    connection.io.shutdown();
                    self.end(key);
                    again = false;
                    break;
                }
                Ok(n) => {
                    connection.heard = self.now;
                    connection.pinged = false;
                    self.take_input(key, &mut buffer[..n]);
                    // A short read has emptied the socket, unless its end is waiting behind.
                    if n < READ_BYTES && !closed && self.is_drained(key) {
                        again = false;
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    again = false;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.end(key);
                    again = false;
                    break;
                }
            }
        }
        self.buffer = buffer;
        if again {
            self.readable.push((key, closed));
        }
        // TLS may have something to answer on its own.
        if self.connections.get(key).is_some() && !self.is_drained(key) {
            self.mark_dirty(key);
        }
    }

    pub(super) fn is_drained(&self, key: usize) -> bool {
        self.connections
            .get(key)
            .is_none_or(|connection| connection.io.is_drained())
    }

    pub(super) fn take_input(&mut self, key: usize, bytes: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if matches!(connection.phase, Phase::Broken | Phase::Ending) {
            return;
        }
        let generation = connection.generation;
        if connection.framing == Framing::Raw {
            if connection.phase != Phase::Closing {
                self.speak(key, None, |protocol, desk| {
                    protocol.hear(Input::Bytes(bytes), desk);
                });
            }
            return;
        }
        let mut kept = connection.decoder.take();
        let mut fresh = Decoder::default();
        let decoder = kept.as_deref_mut().unwrap_or(&mut fresh);
        let mut at = 0;
        loop {
            let Some(connection) = self.connections.get(key) else {
                return;
            };
            if connection.generation != generation
                || matches!(connection.phase, Phase::Broken | Phase::Ending)
            {
                return;
            }
            let message_bytes_max = connection.message_bytes_max(&self.parts.options);
            match decoder.decode(bytes, &mut at, message_bytes_max) {
                Ok(Some(incoming)) => self.hear(key, incoming),
                Ok(None) => break,
                Err(fault) => {
                    self.fail(key, fault);
                    return;
                }
            }
        }
        if decoder.is_idle() {
            return;
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.decoder = Some(kept.unwrap_or_else(|| Box::new(fresh)));
        }
    }

    pub(super) fn fail(&mut self, key: usize, fault: Fault) {
        let reason = match fault {
            Fault::Protocol(rule) => rule,
            Fault::NotUtf8 => "text is not valid utf-8",
            Fault::TooBig => "message is too big",
        };
        self.close(key, fault.code(), reason);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.phase = Phase::Broken;
        }
    }

    /// The queue of a connection; it is flushed at the end of the turn.
    pub(super) fn output(&mut self, key: usize) -> Option<&mut Output> {
        self.mark_dirty(key);
        let connection = self.connections.get_mut(key)?;
        let pool = &mut self.pool;
        Some(
            connection
                .output
                .get_or_insert_with(|| pool.pop().unwrap_or_default()),
        )
    }

    pub(super) fn mark_dirty(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    pub(super) fn flush(&mut self) {
        for key in std::mem::take(&mut self.dirty) {
            self.guard(key, |reactor| reactor.flush_one(key));
        }
    }

    pub(super) fn flush_one(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.dirty = false;
        let flushed = match &mut connection.output {
            Some(output) => output.flush(&mut connection.io),
            None => connection.io.finish(),
        };
        match flushed {
            Ok(true) => {
                if let Some(mut output) = connection.output.take()
                    && output.recycle()
                    && self.pool.len() < POOL_LEN_MAX
                {
                    self.pool.push(output);
                }
                match connection.phase {
                    Phase::Ending => self.end(key),
                    Phase::Broken => connection.io.shutdown(),
                    _ if connection.session.as_ref().is_some_and(Session::wants_read) => {
                        self.queue_pull(key);
                    }
                    _ => {}
                }
            }
            Ok(false) => {
                let now = self.now;
                if let Some(output) = &mut connection.output {
                    output.blocked_since.get_or_insert(now);
                }
                self.arm(key);
            }
            Err(_) => self.end(key),
        }
    }
}
