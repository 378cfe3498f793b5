//! The control socket: how `backup`, `doctor` and `key admin` talk to a server that runs on the same data directory.
//!
//! A Unix socket with mode 0600 in the data directory, so that whoever may read the data may ask, and nobody else.
//! One line of JSON asks, lines of JSON answer:
//!
//! ```text
//! → {"ask":"status"}
//! ← {"answer":"status","version":"0.1.0","process":4711,"durable":12,"disk_bytes":8192}
//! → {"ask":"backup","path":"/absolute/file"}
//! ← {"answer":"progress","bytes":65536}            (several)
//! ← {"answer":"backup","records":12,"bytes":70000,"number":12}
//! ← {"answer":"failed","problem":"cannot use …"}
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hongyan_embedded::Embedded;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::admin_key::AdminKeys;
use crate::tasks::Stop;

/// Longest line, bytes: a path and a few words.
const LINE_BYTES_MAX: u64 = 16 * 1024;
/// How long a caller may take to ask, and to take an answer.
const CALLER_DEADLINE: Duration = Duration::from_secs(5);
/// How often a backup tells how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Ask {
    /// Who are you?
    Status,
    /// Make a new admin key and end all others.
    RotateAdmin,
    /// Write a backup to a file of the server's machine.
    Backup {
        /// Absolute.
        path: PathBuf,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The server runs.
    Status {
        /// Its version.
        version: String,
        /// Its process id.
        process: u32,
        /// The last batch that is on the disk.
        durable: u64,
        /// About how large the store is.
        disk_bytes: u64,
    },
    /// The backup goes on.
    Progress {
        /// Bytes written so far.
        bytes: u64,
    },
    /// The backup is whole.
    Backup {
        /// Records in it.
        records: u64,
        /// Its length.
        bytes: u64,
        /// The batch after which it was taken.
        number: u64,
    },
    /// There is a new admin key, in the file of the data directory.
    RotatedAdmin {
        /// How many others were ended.
        ended: u64,
    },
    /// It did not work.
    Failed {
        /// What, why and what to do.
        problem: String,
    },
}

/// Where the socket is.
pub(crate) fn socket_path(data: &Path) -> PathBuf {
    data.join("control.sock")
}

/// Listens in a data directory whose store this process holds: a socket left there by a dead process is replaced.
///
/// # Errors
/// When the directory cannot be written, or its path is longer than a socket's may be (about 100 bytes): the server
/// works without, only `backup` and `doctor` must then wait until it is stopped.
pub(crate) fn listen(data: &Path) -> io::Result<UnixListener> {
    let path = socket_path(data);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves callers, one after the other, until it is time to stop; then removes the socket.
pub(crate) async fn serve(
    listener: UnixListener,
    store: Embedded,
    admin_keys: AdminKeys,
    mut stop: Stop,
) {
    loop {
        let stream = tokio::select! {
            () = stop.stopped() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the control socket does not accept");
                    tokio::time::sleep(PROGRESS_EVERY).await;
                    continue;
                }
            },
        };
        let served = tokio::select! {
            () = stop.stopped() => break,
            served = serve_one(stream, &store, &admin_keys) => served,
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a control caller went away");
        }
    }
    let address = listener.local_addr();
    drop(listener);
    if let Some(path) = address
        .as_ref()
        .ok()
        .and_then(|address| address.as_pathname())
    {
        let _ = fs::remove_file(path);
    }
}

async fn serve_one(stream: UnixStream, store: &Embedded, admin_keys: &AdminKeys) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut bounded = BufReader::new(read.take(LINE_BYTES_MAX));
    tokio::time::timeout(CALLER_DEADLINE, bounded.read_line(&mut line)).await??;
    let answer = match serde_json::from_str(&line) {
        Ok(Ask::Status) => status(store),
        Ok(Ask::RotateAdmin) => match admin_keys.rotate().await {
            Ok(ended) => Answer::RotatedAdmin { ended },
            Err(error) => failed(format!("{error:#}")),
        },
        Ok(Ask::Backup { path }) => backup(&mut write, store, path).await?,
        Err(error) => failed(format!(
            "the question cannot be understood ({error}); use a program of the server's version"
        )),
    };
    tell(&mut write, &answer).await
}

fn status(store: &Embedded) -> Answer {
    Answer::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        process: std::process::id(),
        durable: store.store().durable(),
        disk_bytes: store.store().backend().disk_bytes(),
    }
}

fn failed(problem: String) -> Answer {
    Answer::Failed { problem }
}

/// A caller that goes away does not stop the backup; the file is whole or is not there.
async fn backup(
    write: &mut (impl tokio::io::AsyncWrite + Unpin),
    store: &Embedded,
    path: PathBuf,
) -> io::Result<Answer> {
    if !path.is_absolute() {
        return Ok(failed(format!(
            "{} is not an absolute path",
            path.display()
        )));
    }
    if path.exists() {
        return Ok(failed(already_there(&path)));
    }
    let unfinished = path.with_extension("unfinished");
    let work = store.backup(path);
    tokio::pin!(work);
    let mut every = tokio::time::interval(PROGRESS_EVERY);
    loop {
        tokio::select! {
            done = &mut work => {
                return Ok(match done {
                    Ok(summary) => Answer::Backup {
                        records: summary.records,
                        bytes: summary.bytes,
                        number: summary.number,
                    },
                    Err(error) => failed(whole(&error)),
                });
            }
            _ = every.tick() => {
                let bytes = fs::metadata(&unfinished).map(|file| file.len()).unwrap_or(0);
                tell(write, &Answer::Progress { bytes }).await?;
            }
        }
    }
}

/// A backup is never written over something else.
pub(crate) fn already_there(path: &Path) -> String {
    format!(
        "{} exists already; name a file that does not",
        path.display()
    )
}

/// An error with its causes, in one line.
pub(crate) fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = Vec::new();
    for text in causes.map(ToString::to_string) {
        // Transparent errors repeat the text of their cause.
        if texts.last() != Some(&text) {
            texts.push(text);
        }
    }
    texts.join(": ")
}

async fn tell(write: &mut (impl tokio::io::AsyncWrite + Unpin), answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    tokio::time::timeout(CALLER_DEADLINE, write.write_all(&line)).await?
}

/// The caller's side of one question.
#[derive(Debug)]
pub(crate) struct Caller {
    lines: BufReader<tokio::io::Take<UnixStream>>,
}

impl Caller {
    /// Asks the server that runs on a data directory; `None` when there is none.
    ///
    /// # Errors
    /// When there is one that does not listen to us.
    pub(crate) async fn ask(data: &Path, ask: &Ask) -> io::Result<Option<Self>> {
        let mut stream = match UnixStream::connect(socket_path(data)).await {
            Ok(stream) => stream,
            Err(error)
                if [
                    io::ErrorKind::NotFound,
                    io::ErrorKind::ConnectionRefused,
                    io::ErrorKind::InvalidInput,
                ]
                .contains(&error.kind()) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut line = serde_json::to_vec(ask)?;
        line.push(b'\n');
        tokio::time::timeout(CALLER_DEADLINE, stream.write_all(&line)).await??;
        Ok(Some(Self {
            lines: BufReader::new(stream.take(LINE_BYTES_MAX)),
        }))
    }

    /// The next answer.
    ///
    /// # Errors
    /// When the server went away, or answers what we do not know.
    pub(crate) async fn next(&mut self) -> io::Result<Answer> {
        self.lines.get_mut().set_limit(LINE_BYTES_MAX);
        let mut line = String::new();
        if self.lines.read_line(&mut line).await? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server went away",
            ));
        }
        Ok(serde_json::from_str(&line)?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{SystemClock, SystemDice};
    use crate::tasks::{Tasks, stop_pair};

    fn keys(store: &Embedded, data: &Path) -> AdminKeys {
        AdminKeys {
            data: data.to_owned(),
            registry: store.registry(),
            dice: Arc::new(SystemDice::default()),
            clock: Arc::new(SystemClock::default()),
            api: None,
        }
    }

    async fn last(data: &Path, ask: Ask) -> Answer {
        let mut caller = Caller::ask(data, &ask).await.unwrap().unwrap();
        loop {
            match caller.next().await.unwrap() {
                Answer::Progress { .. } => {}
                answer => return answer,
            }
        }
    }

    #[tokio::test]
    async fn a_running_server_tells_its_state_and_writes_a_backup() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        assert!(Caller::ask(data, &Ask::Status).await.unwrap().is_none());

        let store = Embedded::open(&hongyan_embedded::Options::new(data)).unwrap();
        let tasks = Tasks::default();
        let (stopper, stop) = stop_pair();
        tasks.spawn(
            "control",
            serve(
                listen(data).unwrap(),
                store.clone(),
                keys(&store, data),
                stop,
            ),
        );
        let mode = fs::metadata(socket_path(data))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let Answer::Status { process, .. } = last(data, Ask::Status).await else {
            panic!("no status");
        };
        assert_eq!(process, std::process::id());

        let rotated = last(data, Ask::RotateAdmin).await;
        assert_eq!(rotated, Answer::RotatedAdmin { ended: 0 });
        assert!(keys(&store, data).file().exists());

        let path = data.join("one.backup");
        let Answer::Backup { bytes, .. } = last(data, Ask::Backup { path: path.clone() }).await
        else {
            panic!("no backup");
        };
        assert_eq!(bytes, fs::metadata(&path).unwrap().len());
        hongyan_embedded::check(&path).unwrap();

        for path in [path, PathBuf::from("relative"), data.join("no/such/dir")] {
            let answer = last(data, Ask::Backup { path }).await;
            assert!(matches!(answer, Answer::Failed { .. }), "{answer:?}");
        }
        stopper.stop();
        assert!(tasks.join(Duration::from_secs(60)).await.is_empty());
        assert!(!socket_path(data).exists());
        store.close().await;
    }

    #[tokio::test]
    async fn nonsense_is_answered_and_a_dead_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        drop(listen(data).unwrap());
        assert!(Caller::ask(data, &Ask::Status).await.unwrap().is_none());

        let store = Embedded::open(&hongyan_embedded::Options::new(data)).unwrap();
        let tasks = Tasks::default();
        let (stopper, stop) = stop_pair();
        tasks.spawn(
            "control",
            serve(
                listen(data).unwrap(),
                store.clone(),
                keys(&store, data),
                stop,
            ),
        );
        let mut stream = UnixStream::connect(socket_path(data)).await.unwrap();
        stream.write_all(b"{\"ask\":\"coffee\"}\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("cannot be understood"), "{answer}");
        stopper.stop();
        assert!(tasks.join(Duration::from_secs(60)).await.is_empty());
        store.close().await;
    }
}
