//! The key that may do everything: made at the first start, and made anew when it is lost.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use hongyan_api::{Api, key};
use hongyan_core::KeyId;
use hongyan_core::app::{Key, KeyKind};
use hongyan_core::port::{Clock, Dice, Registry};

use crate::data::write_private;

/// File in the data directory with the admin key.
pub(crate) const ADMIN_KEY_FILE: &str = "admin.key";
/// File of `hongyan demo` that names it too.
const DEMO_FILE: &str = "demo.json";

/// The admin keys of a store, and the file that holds the one of this machine.
#[derive(Debug, Clone)]
pub(crate) struct AdminKeys {
    pub(crate) data: PathBuf,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) dice: Arc<dyn Dice>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Who remembers keys for a while, when a server runs.
    pub(crate) api: Option<Api>,
}

impl AdminKeys {
    /// Makes the first admin key of a store that has none.
    ///
    /// # Errors
    /// When it cannot be written down or stored.
    pub(crate) async fn first(&self) -> anyhow::Result<()> {
        if !self.registry.keys(None).await?.is_empty() {
            return Ok(());
        }
        // The file comes first: a key that nobody knows would never be followed by another.
        let minted = key::mint(key::TokenKind::Key(KeyKind::Admin), self.dice.as_ref());
        self.write_down(&minted.text)?;
        let id = KeyId::parse("first-admin")?;
        self.store(id, "made at the first start", minted.hash)
            .await?;
        tracing::info!(file = %self.file().display(), "made the first admin key");
        Ok(())
    }

    /// Makes a new admin key and ends all others; the file has it then. Answers how many were ended. Whenever it breaks off,
    /// there is a key that holds, and another try ends the rest.
    ///
    /// # Errors
    /// When it cannot be written down or stored.
    pub(crate) async fn rotate(&self) -> anyhow::Result<u64> {
        let dice = self.dice.as_ref();
        let minted = key::mint(key::TokenKind::Key(KeyKind::Admin), dice);
        let id = KeyId::parse(&format!("admin_{}", key::handle(dice, 16)))?;
        self.store(id.clone(), "made by key admin --rotate", minted.hash)
            .await?;
        self.write_down(&minted.text)?;
        let mut ended = 0;
        for old in self.registry.keys(None).await? {
            if old.id != id && self.registry.delete_key(None, &old.id).await? {
                ended += 1;
            }
        }
        if let Some(api) = &self.api {
            api.forget_keys();
        }
        tracing::warn!(file = %self.file().display(), ended, "made a new admin key and ended the others");
        Ok(ended)
    }

    /// Where the key is.
    pub(crate) fn file(&self) -> PathBuf {
        self.data.join(ADMIN_KEY_FILE)
    }

    async fn store(&self, id: KeyId, name: &str, hash: [u8; 32]) -> anyhow::Result<()> {
        let key = Key {
            id,
            kind: KeyKind::Admin,
            app: None,
            scopes: Vec::new(),
            name: name.to_owned(),
            hash,
            created_at: self.clock.now(),
        };
        Ok(self.registry.put_key(key).await?)
    }

    /// Writes the key where commands find it, and into what `hongyan demo` left for programs.
    fn write_down(&self, text: &str) -> anyhow::Result<()> {
        let file = self.file();
        write_private(&file, format!("{text}\n").as_bytes())
            .with_context(|| format!("the admin key cannot be written to {}", file.display()))?;
        let demo = self.data.join(DEMO_FILE);
        let Ok(facts) = std::fs::read(&demo) else {
            return Ok(());
        };
        if let Ok(mut facts) = serde_json::from_slice::<serde_json::Value>(&facts)
            && facts.get("admin_key").is_some()
        {
            facts["admin_key"] = text.into();
            write_private(&demo, format!("{facts:#}\n").as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hongyan_embedded::Embedded;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::clock::{SystemClock, SystemDice};

    #[tokio::test]
    async fn a_lost_key_is_replaced_and_no_longer_holds() {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open(&hongyan_embedded::Options::new(dir.path())).unwrap();
        let keys = AdminKeys {
            data: dir.path().to_owned(),
            registry: store.registry(),
            dice: Arc::new(SystemDice::default()),
            clock: Arc::new(SystemClock::default()),
            api: None,
        };
        let written = || {
            let mode = std::fs::metadata(keys.file()).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let text = std::fs::read_to_string(keys.file()).unwrap();
            text.trim().to_owned()
        };
        keys.first().await.unwrap();
        let first = written();
        keys.first().await.unwrap();
        assert_eq!(written(), first, "there is one first key");
        std::fs::write(
            dir.path().join(DEMO_FILE),
            r#"{"admin_key":"x","app":"demo"}"#,
        )
        .unwrap();
        assert_eq!(keys.rotate().await.unwrap(), 1);
        let second = written();
        let holds = async |text: &str| {
            let found = store.registry().key_by_hash(&key::hash(text)).await;
            found.unwrap().is_some_and(|key| key.kind == KeyKind::Admin)
        };
        assert!(!holds(&first).await && holds(&second).await);
        let facts = std::fs::read_to_string(dir.path().join(DEMO_FILE)).unwrap();
        assert!(facts.contains(&second) && facts.contains("demo"));
        store.close().await;
    }
}
