//! The master key and what it seals: vendor credentials at rest.
//!
//! AES-256-GCM with a random nonce; the place of a secret (app, channel, name) is authenticated with it, so that
//! sealed bytes cannot be moved from one place to another. Sealed bytes begin with a version and the id of
//! their key, so that the key can be changed while old secrets stay readable:
//!
//! ```text
//! 1 byte version = 1 | 4 bytes key id | 12 bytes nonce | ciphertext | 16 bytes tag
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hongyan_core::Secret;
use hongyan_core::error::BoxError;
use hongyan_core::port::Dice;
use hongyan_dispatch::credentials::Sealer;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{digest, hmac};

use crate::config;
pub(crate) use crate::data::DataDir;

/// Version of the sealed form.
const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 4;
const HEAD_BYTES: usize = 1 + KEY_ID_BYTES;
/// Largest key file read, bytes: a key in text form has 43 or 44.
const FILE_BYTES_MAX: u64 = 1024;

/// What went wrong with the master key.
#[derive(Debug)]
pub(crate) enum SealError {
    /// A key file cannot be read or written.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The data directory was used before, but its key is gone.
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Not a key.
    Malformed {
        /// Where it came from.
        origin: String,
    },
    /// Others could change the key.
    Writable {
        /// Which file.
        path: PathBuf,
    },
    /// Sealed by a key that is not here.
    UnknownKey {
        /// The key's id.
        id: String,
    },
    /// Not what was sealed here: damaged, or from another place.
    Damaged,
}

impl std::fmt::Display for SealError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { path, source } => write!(
                f,
                "the master key file {} cannot be used: {source}; check that it exists and belongs to this user",
                path.display()
            ),
            Self::Missing { path } => write!(
                f,
                "the master key {} is missing although the data directory was used before; bring it back from your \
                 backup, or set seal.key_file (without it, stored vendor credentials cannot be opened)",
                path.display()
            ),
            Self::Malformed { origin } => write!(
                f,
                "the master key from {origin} is not 32 bytes in base64; make one with `openssl rand -base64 32`"
            ),
            Self::Writable { path } => write!(
                f,
                "the master key file {0} can be written by other users; run `chmod 600 {0}`",
                path.display()
            ),
            Self::UnknownKey { id } => write!(
                f,
                "sealed by the master key {id}, which is not configured; add its file to seal.old_key_files"
            ),
            Self::Damaged => f.write_str(
                "sealed bytes do not fit their place: they are damaged or were moved; store the credential again",
            ),
        }
    }
}

impl std::error::Error for SealError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Seals with the master key; opens with it and its predecessors.
pub(crate) struct MasterSeal {
    keys: Vec<MasterKey>,
    dice: Arc<dyn Dice>,
}

struct MasterKey {
    id: [u8; KEY_ID_BYTES],
    key: LessSafeKey,
    /// Made from the same secret, for proofs only.
    proofs: hmac::Key,
}

impl std::fmt::Debug for MasterSeal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.key_ids()).finish()
    }
}

impl MasterSeal {
    /// Reads the master key from where the configuration says, or makes it in a fresh data directory (which must exist).
    ///
    /// # Errors
    /// [`SealError`], with what to do.
    pub(crate) fn load(
        options: &config::Seal,
        data: &Path,
        state: DataDir,
        dice: Arc<dyn Dice>,
    ) -> Result<Self, SealError> {
        let first = if let Some(key) = &options.key {
            decode(key.expose(), "seal.key")?
        } else {
            let path = key_path(options, data);
            match read(&path) {
                Err(SealError::File { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && options.key_file.is_none() =>
                {
                    match state {
                        DataDir::Fresh => create(&path, dice.as_ref())?,
                        DataDir::Used => return Err(SealError::Missing { path }),
                    }
                }
                other => other?,
            }
        };
        let mut keys = vec![MasterKey::new(&first)?];
        for path in &options.old_key_files {
            keys.push(MasterKey::new(&read(path)?)?);
        }
        Ok(Self { keys, dice })
    }

    fn seal_for(&self, bound_to: &str, secret: &[u8]) -> Result<Vec<u8>, SealError> {
        let key = self.keys.first().ok_or(SealError::Damaged)?;
        let mut nonce = [0; NONCE_LEN];
        self.dice.fill(&mut nonce);
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(&key.id);
        let associated = associated(&sealed, bound_to);
        let mut body = secret.to_vec();
        key.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), associated, &mut body)
            .map_err(|_| SealError::Damaged)?;
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    fn open_for(&self, bound_to: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (head, rest) = sealed
            .split_at_checked(HEAD_BYTES)
            .ok_or(SealError::Damaged)?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(SealError::Damaged)?;
        let (version, id) = head.split_first().ok_or(SealError::Damaged)?;
        if *version != VERSION {
            return Err(SealError::Damaged);
        }
        let key = self
            .keys
            .iter()
            .find(|key| key.id == id)
            .ok_or_else(|| SealError::UnknownKey { id: hex(id) })?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Damaged)?;
        let mut body = body.to_vec();
        let plain_len = key
            .key
            .open_in_place(nonce, associated(head, bound_to), &mut body)
            .map_err(|_| SealError::Damaged)?
            .len();
        body.truncate(plain_len);
        Ok(body)
    }

    /// Ids of the keys, the one that seals first. They tell nothing about the keys.
    pub(crate) fn key_ids(&self) -> Vec<String> {
        self.keys.iter().map(|key| hex(&key.id)).collect()
    }
}

impl Sealer for MasterSeal {
    fn seal(&self, bound_to: &str, secret: &[u8]) -> Result<Vec<u8>, BoxError> {
        Ok(self.seal_for(bound_to, secret)?)
    }

    fn open(&self, bound_to: &str, sealed: &[u8]) -> Result<Vec<u8>, BoxError> {
        Ok(self.open_for(bound_to, sealed)?)
    }

    fn proof(&self, bound_to: &str) -> String {
        self.keys
            .first()
            .map_or_else(String::new, |key| key.proof(bound_to))
    }

    fn proves(&self, bound_to: &str, proof: &str) -> bool {
        self.keys.iter().any(|key| {
            let right = key.proof(bound_to);
            // Equal tags of two secrets say that the secrets are equal, in a time that says nothing else.
            hmac::verify(
                &key.proofs,
                proof.as_bytes(),
                hmac::sign(&key.proofs, right.as_bytes()).as_ref(),
            )
            .is_ok()
        })
    }
}

/// Version and key id, then the place: both are authenticated.
fn associated(head: &[u8], bound_to: &str) -> Aad<Vec<u8>> {
    Aad::from([head, bound_to.as_bytes()].concat())
}

impl MasterKey {
    fn new(secret: &Secret) -> Result<Self, SealError> {
        let malformed = || SealError::Malformed {
            origin: "the key file".to_owned(),
        };
        let key = UnboundKey::new(&AES_256_GCM, secret.expose()).map_err(|_| malformed())?;
        let mut named = b"hongyan master key id".to_vec();
        named.extend_from_slice(secret.expose());
        let hash = digest::digest(&digest::SHA256, &named);
        named.fill(0);
        let id = hash
            .as_ref()
            .first_chunk::<KEY_ID_BYTES>()
            .copied()
            .ok_or_else(malformed)?;
        Ok(Self {
            id,
            key: LessSafeKey::new(key),
            proofs: hmac::Key::new(
                hmac::HMAC_SHA256,
                hmac::sign(
                    &hmac::Key::new(hmac::HMAC_SHA256, secret.expose()),
                    b"hongyan proofs",
                )
                .as_ref(),
            ),
        })
    }

    /// 128 bits that only this key makes for this place, in base64url.
    fn proof(&self, bound_to: &str) -> String {
        let tag = hmac::sign(&self.proofs, bound_to.as_bytes());
        URL_SAFE_NO_PAD.encode(tag.as_ref().get(..16).unwrap_or_default())
    }
}

/// Where the master key's file is, set or not.
pub(crate) fn key_path(options: &config::Seal, data: &Path) -> PathBuf {
    options
        .key_file
        .clone()
        .unwrap_or_else(|| data.join("master.key"))
}

fn read(path: &Path) -> Result<Secret, SealError> {
    let file = |source| SealError::File {
        path: path.to_owned(),
        source,
    };
    let metadata = fs::metadata(path).map_err(file)?;
    if metadata.permissions().mode() & 0o022 != 0 {
        return Err(SealError::Writable {
            path: path.to_owned(),
        });
    }
    let origin = path.display().to_string();
    if metadata.len() > FILE_BYTES_MAX {
        return Err(SealError::Malformed { origin });
    }
    if metadata.permissions().mode() & 0o044 != 0 {
        tracing::warn!(file = %origin, "the master key can be read by other users; run `chmod 600` on it");
    }
    let text = Secret::new(fs::read(path).map_err(file)?);
    decode(text.expose(), &origin)
}

/// Both alphabets of base64, with or without the padding.
fn decode(text: &[u8], origin: &str) -> Result<Secret, SealError> {
    let text = text.trim_ascii();
    let bytes = STANDARD
        .decode(text)
        .or_else(|_| URL_SAFE_NO_PAD.decode(text))
        .map_or_else(|_| Secret::default(), Secret::new);
    if bytes.expose().len() == KEY_BYTES {
        Ok(bytes)
    } else {
        Err(SealError::Malformed {
            origin: origin.to_owned(),
        })
    }
}

/// Makes a key file whole or not at all: written beside, then linked into place, which fails if it exists.
fn create(path: &Path, dice: &dyn Dice) -> Result<Secret, SealError> {
    let mut bytes = [0; KEY_BYTES];
    dice.fill(&mut bytes);
    let secret = Secret::new(bytes);
    bytes.fill(0);
    let text = Secret::new(format!("{}\n", STANDARD.encode(secret.expose())));
    match write_new(path, text.expose()) {
        Ok(()) => {
            tracing::info!(file = %path.display(), "made a new master key; keep a copy of it apart from the data");
            Ok(secret)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(path),
        Err(source) => Err(SealError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::hard_link(&beside, path)
    })();
    let removed = fs::remove_file(&beside);
    written.and(removed)?;
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemDice;

    const HERE: &str = "demo/apns/default";

    fn open(options: &config::Seal, data: &Path, state: DataDir) -> Result<MasterSeal, SealError> {
        MasterSeal::load(options, data, state, Arc::new(SystemDice::default()))
    }

    fn fresh() -> (tempfile::TempDir, MasterSeal) {
        let dir = tempfile::tempdir().unwrap();
        let sealer = open(&config::Seal::default(), dir.path(), DataDir::Fresh).unwrap();
        (dir, sealer)
    }

    #[test]
    fn what_was_sealed_opens_in_its_place_only() {
        let (_dir, sealer) = fresh();
        let sealed = sealer.seal_for(HERE, b"secret").unwrap();
        assert_eq!(sealer.open_for(HERE, &sealed).unwrap(), b"secret");
        for other in [
            "demo2/apns/default",
            "demo/fcm/default",
            "demo/apns/other",
            "",
        ] {
            assert!(matches!(
                sealer.open_for(other, &sealed),
                Err(SealError::Damaged)
            ));
        }
    }

    #[test]
    fn any_changed_byte_and_any_cut_is_noticed() {
        let (_dir, sealer) = fresh();
        let sealed = sealer.seal_for(HERE, b"secret").unwrap();
        for n in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[n] ^= 1;
            assert!(sealer.open_for(HERE, &changed).is_err(), "byte {n}");
            assert!(sealer.open_for(HERE, &sealed[..n]).is_err(), "cut {n}");
        }
    }

    #[test]
    fn the_key_file_is_private_survives_and_is_not_made_twice() {
        let (dir, sealer) = fresh();
        let path = dir.path().join("master.key");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let again = open(&config::Seal::default(), dir.path(), DataDir::Used).unwrap();
        assert_eq!(again.key_ids(), sealer.key_ids());

        fs::remove_file(&path).unwrap();
        let error = open(&config::Seal::default(), dir.path(), DataDir::Used).unwrap_err();
        assert!(matches!(error, SealError::Missing { .. }), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_key_that_others_can_write_or_that_is_none_is_refused() {
        let (dir, _) = fresh();
        let path = dir.path().join("master.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).unwrap();
        let error = open(&config::Seal::default(), dir.path(), DataDir::Used).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for text in ["", "c2hvcnQ=", "not base64!"] {
            fs::write(&path, text).unwrap();
            let error = open(&config::Seal::default(), dir.path(), DataDir::Used).unwrap_err();
            assert!(matches!(error, SealError::Malformed { .. }), "{error}");
        }
    }

    #[test]
    fn after_a_change_of_keys_the_old_one_still_opens() {
        let (dir, old) = fresh();
        let sealed = old.seal_for(HERE, b"secret").unwrap();
        let old_file = dir.path().join("old.key");
        fs::rename(dir.path().join("master.key"), &old_file).unwrap();
        let mut options = config::Seal {
            key: Some(Secret::new(STANDARD.encode([7; 32]))),
            ..config::Seal::default()
        };
        let new = open(&options, dir.path(), DataDir::Used).unwrap();
        assert!(matches!(
            new.open_for(HERE, &sealed),
            Err(SealError::UnknownKey { .. })
        ));
        options.old_key_files = vec![old_file];
        let both = open(&options, dir.path(), DataDir::Used).unwrap();
        assert_eq!(both.open_for(HERE, &sealed).unwrap(), b"secret");
        assert_eq!(both.key_ids(), [new.key_ids(), old.key_ids()].concat());
    }

    #[test]
    fn debug_shows_ids_only() {
        let (dir, sealer) = fresh();
        let text = fs::read_to_string(dir.path().join("master.key")).unwrap();
        assert!(!format!("{sealer:?}").contains(text.trim()));
    }
}
