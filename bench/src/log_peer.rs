//! The peer of durable accept: a file that is only appended to, with natural group commit.
//!
//! One thread writes what has arrived while it synced last, syncs, and answers everybody. It is as
//! fast as anything can be that promises the same and stores nothing but bytes.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::Context as _;
use tokio::sync::oneshot;

/// Records that are written together at most, as in the embedded engine.
const BATCH_LEN_MAX: usize = 4096;

#[derive(Debug)]
struct Append {
    bytes: Vec<u8>,
    done: oneshot::Sender<std::io::Result<()>>,
}

/// The log. Its thread ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Log(SyncSender<Append>);

impl Log {
    /// Creates the file and starts the writer.
    ///
    /// # Errors
    /// When the file or the thread cannot be made.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file =
            File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
        let (queue, appends) = sync_channel(BATCH_LEN_MAX);
        std::thread::Builder::new()
            .name("bare-log".to_owned())
            .spawn(move || write(file, &appends))
            .context("the system gave no thread")?;
        Ok(Self(queue))
    }

    /// Appends a record; it is on the disk when this returns.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn append(&self, bytes: Vec<u8>) -> anyhow::Result<()> {
        let (done, written) = oneshot::channel();
        self.0
            .try_send(Append { bytes, done })
            .context("the log is full or has ended")?;
        written.await.context("the log has ended")??;
        Ok(())
    }
}

fn write(mut file: File, appends: &Receiver<Append>) {
    let mut bytes = Vec::new();
    let mut waiting = Vec::new();
    while let Ok(first) = appends.recv() {
        let mut next = Some(first);
        while let Some(append) = next {
            let length = u32::try_from(append.bytes.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(&append.bytes);
            waiting.push(append.done);
            next = (waiting.len() < BATCH_LEN_MAX)
                .then(|| appends.try_recv().ok())
                .flatten();
        }
        let result = file.write_all(&bytes).and_then(|()| file.sync_data());
        for done in waiting.drain(..) {
            let told = match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(std::io::Error::new(error.kind(), error.to_string())),
            };
            // A caller that went away does not need the answer.
            let _ = done.send(told);
        }
        bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_answered_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = Log::create(&path).unwrap();
        let (a, b) = tokio::join!(log.append(b"one".to_vec()), log.append(b"three".to_vec()));
        a.unwrap();
        b.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 4 + 3 + 4 + 5);
    }
}
