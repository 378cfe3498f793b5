//! Looks after what is beside the engine: watermark and free disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::disk::DiskWatch;
use super::watermark::Watermark;
use super::writer::Shared;

/// How often watermark and free disk are looked after.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// Looks after watermark and free disk once a second.
pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    pub(super) dir: PathBuf,
    pub(super) epoch: u32,
    pub(super) disk: DiskWatch,
    pub(super) written: u64,
}

impl Keeper {
    pub(super) fn run(mut self, stop: &Receiver<()>) {
        loop {
            let closing = match stop.recv_timeout(KEEP_EVERY) {
                Err(RecvTimeoutError::Timeout) => false,
                Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
            };
            self.keep(closing);
            if closing {
                return;
            }
        }
    }

    fn keep(&mut self, closing: bool) {
        self.disk.look();
        let waiting = u32::try_from(self.shared.queued()).unwrap_or(u32::MAX);
        metrics::gauge!("hongyan_store_queue_len_now").set(waiting);
        let number = self.shared.durable.load(Ordering::Acquire);
        let closed = closing && !self.shared.has_failed();
        if number == self.written && !closed {
            return;
        }
        let watermark = Watermark {
            epoch: self.epoch,
            number,
            closed,
        };
        match watermark.write(&self.dir) {
            Ok(()) => self.written = number,
            Err(error) => tracing::warn!(%error, "the watermark was not written"),
        }
    }
}
