//! What survives the process: who the device is, and who has registered. One file, only its owner may read it, replaced as a
//! whole.

use std::fmt;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hongyan_client::Secret;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Longest file that is read back, in bytes: all registrations that there may be, and room. A longer one is not ours.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Version of the file that this code writes; a newer one is not read.
const VERSION: u32 = 1;

/// An app's registration.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The app's bus name.
    pub service: String,
    /// The connector's token: what the app knows the registration by.
    pub token: Secret,
    /// The channel at the server.
    pub channel: String,
    /// The address for senders.
    pub endpoint: Secret,
    /// The one key that may post.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vapid: Option<String>,
    /// Text for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Since when no message found the app: nobody on the bus has its name, and nobody can be started for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_since: Option<Timestamp>,
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("service", &self.service)
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

/// Everything that survives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    v: u32,
    /// The server that the device belongs to.
    pub server: String,
    /// The device's id, made before it is registered, so that a registration whose answer is lost can be repeated.
    pub device_id: String,
    /// The token with which the device acts; none before it is registered.
    #[serde(default)]
    pub device_token: Option<Secret>,
    /// Who has registered, in that order.
    #[serde(default)]
    pub registrations: Vec<Registration>,
}

impl State {
    /// A device that is not known to the server yet.
    #[must_use]
    pub fn new(server: &str) -> Self {
        Self {
            v: VERSION,
            server: server.to_owned(),
            device_id: uuid::Uuid::new_v4().to_string(),
            device_token: None,
            registrations: Vec::new(),
        }
    }

    /// The registration of a connector's token.
    #[must_use]
    pub fn by_token(&self, token: &Secret) -> Option<&Registration> {
        self.registrations.iter().find(|one| one.token == *token)
    }

    /// The registration whose messages come over a channel.
    #[must_use]
    pub fn by_channel(&self, channel: &str) -> Option<&Registration> {
        self.registrations.iter().find(|one| one.channel == channel)
    }

    /// Adds a registration, or replaces the one of its token.
    pub fn put(&mut self, new: Registration) {
        match self
            .registrations
            .iter_mut()
            .find(|one| one.token == new.token)
        {
            Some(old) => *old = new,
            None => self.registrations.push(new),
        }
    }

    /// Removes the registration of a token.
    pub fn remove(&mut self, token: &Secret) -> Option<Registration> {
        let place = self
            .registrations
            .iter()
            .position(|one| one.token == *token)?;
        Some(self.registrations.remove(place))
    }
}

/// The state in memory and in its file: what is read here is on the disk.
#[derive(Debug)]
pub struct Book {
    path: PathBuf,
    state: Arc<Mutex<State>>,
    /// One change after the other; held until the file is written, also when nobody waits for that any more.
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl Book {
    /// Opens the file, or begins one for `server`. A device of another server is forgotten, its registrations are kept and
    /// get channels of the new one.
    ///
    /// # Errors
    /// [`Error::State`], [`Error::Unreadable`].
    pub async fn open(path: PathBuf, server: &str) -> Result<Self, Error> {
        let known = {
            let path = path.clone();
            blocking(&path.clone(), move || read(&path)).await?
        };
        let known = known
            .map(|bytes| parse(&bytes))
            .transpose()
            .map_err(|why| Error::Unreadable {
                path: path.clone(),
                why,
            })?;
        let book = |state| Self {
            path,
            state: Arc::new(Mutex::new(state)),
            changing: Arc::default(),
        };
        match known {
            Some(state) if state.server == server => Ok(book(state)),
            other => {
                let mut state = State::new(server);
                state.registrations = other.map(|state| state.registrations).unwrap_or_default();
                let book = book(state);
                // Written at once: the device's id has to be known before the server hears it.
                book.change(|_| ()).await?;
                Ok(book)
            }
        }
    }

    /// Looks at the state.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the state: first on the disk, then for readers. When the disk refuses, nothing has changed.
    ///
    /// # Errors
    /// [`Error::State`].
    pub async fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, Error> {
        let alone = Arc::clone(&self.changing).lock_owned().await;
        let mut next = self.read(State::clone);
        let done = change(&mut next);
        let record = serde_json::to_vec_pretty(&next).map_err(|error| Error::State {
            path: self.path.clone(),
            source: error.into(),
        })?;
        let (path, state) = (self.path.clone(), Arc::clone(&self.state));
        // Goes on when the caller has lost its patience: no other change may begin before it ends.
        blocking(&self.path, move || {
            let _alone = alone;
            replace(&path, &record)?;
            *state.lock().unwrap_or_else(PoisonError::into_inner) = next;
            Ok(())
        })
        .await?;
        Ok(done)
    }
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)
        .and_then(|done| done)
        .map_err(|source| Error::State {
            path: path.to_owned(),
            source,
        })
}

fn parse(bytes: &[u8]) -> Result<State, String> {
    let state: State = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match state.v {
        VERSION => Ok(state),
        v => Err(format!("it has version {v}, this program knows {VERSION}")),
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is too long"));
    }
    Ok(Some(bytes))
}

/// Makes the folder, for its owner alone.
///
/// # Errors
/// [`Error::State`].
pub fn make_folder(folder: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| Error::State {
            path: folder.to_owned(),
            source,
        })
}

fn replace(path: &Path, record: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    // What a crash left behind may have another mode.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(record)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    // The rename itself is durable once the folder is.
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => fs::File::open(folder)?.sync_all(),
        _ => fs::File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn registration(token: &str) -> Registration {
        Registration {
            service: "org.example.App".to_owned(),
            token: token.into(),
            channel: format!("channel-{token}"),
            endpoint: "https://push.example/up/secret".into(),
            vapid: None,
            description: None,
            gone_since: None,
        }
    }

    #[tokio::test]
    async fn up_14_what_was_changed_is_there_after_a_restart_and_nobody_else_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        // Left by a crash, open to everybody.
        fs::write(path.with_extension("new"), "half").unwrap();
        let book = Book::open(path.clone(), "https://push.example")
            .await
            .unwrap();
        let put = |state: &mut State| {
            state.device_token = Some("secret".into());
            state.put(registration("a"));
            state.put(registration("b"));
        };
        book.change(put).await.unwrap();
        book.change(|state| state.remove(&"a".into()))
            .await
            .unwrap();
        let again = Book::open(path.clone(), "https://push.example")
            .await
            .unwrap();
        assert_eq!(again.read(State::clone), book.read(State::clone));
        again.read(|state| {
            assert_eq!(state.by_token(&"a".into()), None);
            assert_eq!(state.by_channel("channel-b"), Some(&registration("b")));
        });
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn up_14_another_server_means_another_device_and_the_same_registrations() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let book = Book::open(path.clone(), "https://one.example")
            .await
            .unwrap();
        let put = |state: &mut State| {
            state.device_token = Some("secret".into());
            state.put(registration("a"));
        };
        book.change(put).await.unwrap();
        let device = book.read(|state| state.device_id.clone());
        let moved = Book::open(path, "https://two.example").await.unwrap();
        moved.read(|state| {
            assert_ne!(state.device_id, device);
            assert_eq!(state.device_token, None);
            assert_eq!(state.registrations, [registration("a")]);
        });
    }

    #[tokio::test]
    async fn a_file_that_is_not_ours_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        for text in ["", "{}", r#"{"v":9,"server":"s","device_id":"d"}"#] {
            fs::write(&path, text).unwrap();
            let refused = Book::open(path.clone(), "s").await.unwrap_err();
            assert!(matches!(refused, Error::Unreadable { .. }), "{refused}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[tokio::test]
    async fn what_the_disk_refuses_has_not_happened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let book = Book::open(path.clone(), "s").await.unwrap();
        // A folder in the place of the file that is written beside.
        fs::create_dir(path.with_extension("new")).unwrap();
        let put = book.change(|state| state.put(registration("a"))).await;
        assert!(matches!(put, Err(Error::State { .. })));
        assert_eq!(book.read(|state| state.registrations.len()), 0);
    }

    #[test]
    fn nothing_secret_is_shown() {
        let mut state = State::new("s");
        state.device_token = Some("hidden".into());
        state.put(registration("hidden"));
        let shown = format!("{state:?}");
        assert!(
            !shown.contains("\"hidden\"") && !shown.contains("up/secret"),
            "{shown}"
        );
    }
}
