//! Vendor credentials: sealed at rest, opened into channels.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hongyan_core::app::{Credential, LaneLimits};
use hongyan_core::error::BoxError;
use hongyan_core::port::{
    Channel, ChannelError, CheckReport, Clock, ConfigError, OpenCredential, Registry, Vendor,
    WakeKey,
};
use hongyan_core::{AppId, ChannelId, CredentialName, Device, Secret, StoreError};

use crate::plan::CredentialIndex;

/// Seals and opens secrets with the master key. `bound_to` is authenticated with them, so that a sealed
/// secret cannot be moved to another place.
pub trait Sealer: Send + Sync + std::fmt::Debug {
    /// Seals.
    ///
    /// # Errors
    /// When the random source or the cipher fails.
    fn seal(&self, bound_to: &str, secret: &[u8]) -> Result<Vec<u8>, BoxError>;
    /// Opens.
    ///
    /// # Errors
    /// When it was sealed by another key, for another place, or was changed.
    fn open(&self, bound_to: &str, sealed: &[u8]) -> Result<Vec<u8>, BoxError>;
    /// A short text for URLs that only the holder of the master key can make for this place.
    fn proof(&self, bound_to: &str) -> String;
    /// Whether a text is such a proof, by any key that still opens. Takes the same time for all wrong ones.
    fn proves(&self, bound_to: &str, proof: &str) -> bool;
}

/// A credential could not be stored or opened.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// No channel of this name is built in.
    #[error("there is no channel {0}")]
    UnknownChannel(ChannelId),
    /// The configuration is not what the vendor hands out.
    #[error("the configuration has {} faults", .0.len())]
    Invalid(Vec<ConfigError>),
    /// There is no such credential.
    #[error("there is no credential {name} for channel {channel}")]
    Missing {
        /// The channel.
        channel: ChannelId,
        /// The name.
        name: CredentialName,
    },
    /// The master key does not open it, or the random source failed.
    #[error("the credential {name} of channel {channel} cannot be opened with this master key")]
    Seal {
        /// The channel.
        channel: ChannelId,
        /// The name.
        name: CredentialName,
        /// The cause.
        #[source]
        source: BoxError,
    },
    /// The channel does not open.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a caller wants to store.
#[derive(Debug)]
pub struct NewCredential {
    /// The vendor's configuration as it hands it out.
    pub config: serde_json::Value,
    /// Where the vendor is, when not at its usual address.
    pub endpoint: Option<String>,
    /// Limits of the lane.
    pub limits: LaneLimits,
}

type Key = (AppId, ChannelId, CredentialName);

/// Credentials and the channels opened from them.
#[derive(Debug, Clone)]
pub struct Credentials {
    vendors: Arc<HashMap<ChannelId, Arc<dyn Vendor>>>,
    order: Arc<[ChannelId]>,
    registry: Arc<dyn Registry>,
    sealer: Arc<dyn Sealer>,
    clock: Arc<dyn Clock>,
    public_url: Option<Arc<str>>,
    open: Arc<Mutex<HashMap<Key, Kept>>>,
    generations: Arc<AtomicU64>,
}

/// A channel that is open, and the record it was opened from. The version does not tell a record from one that was deleted and
/// written again; its secrets, sealed anew whenever they are stored, do.
#[derive(Debug, Clone)]
struct Kept {
    opened: Opened,
    from: Credential,
}

impl Kept {
    /// Whether it was opened from this record, or from one that differs in nothing that a channel is made of.
    fn is_of(&self, stored: &Credential) -> bool {
        let from = &self.from;
        (&from.sealed, &from.endpoint, from.created_at)
            == (&stored.sealed, &stored.endpoint, stored.created_at)
    }
}

/// An opened channel.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The channel.
    pub channel: Arc<dyn Channel>,
    /// The vendor.
    pub vendor: Arc<dyn Vendor>,
    /// The lane's limits.
    pub limits: LaneLimits,
    /// Whether receipts can be heard: the vendor gives them, and it is asked for them or knows where to post them.
    pub hears: bool,
    /// Whether a send may be made again when nobody knows whether the vendor took it.
    pub repeats: bool,
    /// Grows with every opening in this process: another number is another credential, or one with other secrets.
    pub generation: u64,
}

impl Credentials {
    /// Over the vendors that are built in, in the order in which channels are tried when nobody says another.
    #[must_use]
    pub fn new(
        vendors: Vec<Arc<dyn Vendor>>,
        registry: Arc<dyn Registry>,
        sealer: Arc<dyn Sealer>,
        clock: Arc<dyn Clock>,
        public_url: Option<&str>,
    ) -> Self {
        let order = vendors.iter().map(|v| v.id()).collect();
        let vendors = vendors.into_iter().map(|v| (v.id(), v)).collect();
        Self {
            vendors: Arc::new(vendors),
            order,
            registry,
            sealer,
            clock,
            open: Arc::default(),
            public_url: public_url.map(|url| url.trim_end_matches('/').into()),
            generations: Arc::default(),
        }
    }

    /// A path of this server as vendors know it.
    #[must_use]
    pub fn public(&self, path: &str) -> String {
        format!("{}{path}", self.public_url.as_deref().unwrap_or_default())
    }

    /// Where the vendor of a credential may post receipts to, with the credential's own secret; `None` when it
    /// posts none, or the server was given no public address.
    #[must_use]
    pub fn callback_url(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Option<String> {
        let base = self.public_url.as_deref()?;
        if !self.vendor(channel)?.capability().receipts {
            return None;
        }
        let proof = self.sealer.proof(&callback_of(app, channel, name));
        let which = match name.as_str() {
            "default" => String::new(),
            other => format!("c={other}&"),
        };
        Some(format!(
            "{base}/v1/callbacks/{app}/{channel}?{which}k={proof}"
        ))
    }

    /// The secret in the callback address of a credential.
    pub(crate) fn callback_secret(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> String {
        self.sealer.proof(&callback_of(app, channel, name))
    }

    pub(crate) fn is_callback_secret(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
        secret: &str,
    ) -> bool {
        self.sealer.proves(&callback_of(app, channel, name), secret)
    }

    /// Channels in the order in which they are tried when nobody says another.
    #[must_use]
    pub fn built_in_order(&self) -> &[ChannelId] {
        &self.order
    }

    /// A built-in vendor.
    #[must_use]
    pub fn vendor(&self, channel: &ChannelId) -> Option<&Arc<dyn Vendor>> {
        self.vendors.get(channel)
    }

    /// Which of several vendors behind a credential a token leads to. Reads no store: of a credential that is not open yet,
    /// only what all credentials of its channel share.
    pub(crate) fn peer(&self, key: &Key, token: &str) -> Option<String> {
        let shared = self.vendor(&key.1)?.peer(token);
        shared.or_else(|| {
            let kept = self.lock();
            kept.get(key)?.opened.channel.peer(token)
        })
    }

    /// Checks, seals and stores a credential, replacing one of the same name.
    ///
    /// # Errors
    /// [`CredentialError`]; a version conflict is tried again inside.
    pub async fn put(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
        new: NewCredential,
    ) -> Result<Credential, CredentialError> {
        let vendor = self
            .vendor(channel)
            .ok_or_else(|| CredentialError::UnknownChannel(channel.clone()))?;
        let shown = vendor
            .check_config(&new.config)
            .map_err(CredentialError::Invalid)?;
        let plain = new.config.to_string();
        let sealed = self
            .sealer
            .seal(&bound_to(app, channel, name), plain.as_bytes())
            .map_err(|source| CredentialError::Seal {
                channel: channel.clone(),
                name: name.clone(),
                source,
            })?;
        let now = self.clock.now();
        for _ in 0..hongyan_core::limits::CONFLICT_RETRIES_MAX {
            let old = self.registry.credential(app, channel, name).await?;
            let credential = Credential {
                app: app.clone(),
                channel: channel.clone(),
                name: name.clone(),
                sealed: sealed.clone(),
                shown: shown.clone(),
                endpoint: new.endpoint.clone(),
                limits: new.limits,
                created_at: old.as_ref().map_or(now, |o| o.created_at),
                updated_at: now,
                version: old.as_ref().map_or(1, |o| o.version + 1),
            };
            match self
                .registry
                .put_credential(credential.clone(), old.map(|o| o.version))
                .await
            {
                Ok(()) => return Ok(credential),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict {
            entity: "credential",
        }
        .into())
    }

    /// Gives a credential that was read other limits; its secrets stay as they were read. Answers what is stored then.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the credential changed since it was read: read it again.
    pub async fn limit(
        &self,
        read: Credential,
        limits: LaneLimits,
    ) -> Result<Credential, CredentialError> {
        let version = read.version;
        let credential = Credential {
            limits,
            updated_at: self.clock.now(),
            version: version + 1,
            ..read
        };
        self.registry
            .put_credential(credential.clone(), Some(version))
            .await?;
        Ok(credential)
    }

    /// Opens the channel of a credential; the same one until the credential changes.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub async fn open(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Result<Opened, CredentialError> {
        let missing = || CredentialError::Missing {
            channel: channel.clone(),
            name: name.clone(),
        };
        let Some(stored) = self.registry.credential(app, channel, name).await? else {
            self.forget(app, channel, name);
            return Err(missing());
        };
        let key = (app.clone(), channel.clone(), name.clone());
        if let Some(kept) = self.lock().get_mut(&key)
            && kept.is_of(&stored)
        {
            // Limits are the lane's: what the channel knows of its vendor outlives a change of them.
            kept.opened.limits = stored.limits;
            return Ok(kept.opened.clone());
        }
        let vendor = self
            .vendor(channel)
            .ok_or_else(|| CredentialError::UnknownChannel(channel.clone()))?;
        let config = self
            .sealer
            .open(&bound_to(app, channel, name), &stored.sealed)
            .map_err(|source| CredentialError::Seal {
                channel: channel.clone(),
                name: name.clone(),
                source,
            })?;
        let callback = self.callback_url(app, channel, name);
        let capability = vendor.capability();
        let hears = capability.receipts
            && (callback.is_some()
                || capability.poll_every.is_some()
                || stored.shown.contains_key("callback"));
        let opening = vendor.open(OpenCredential {
            app: app.clone(),
            name: name.clone(),
            config: Secret::new(config),
            endpoint: stored.endpoint.clone(),
            callback,
        })?;
        let opened = Opened {
            hears: opening.hears().unwrap_or(hears),
            repeats: opening.repeats().unwrap_or(capability.repeatable),
            channel: opening,
            vendor: Arc::clone(vendor),
            limits: stored.limits,
            generation: self.generations.fetch_add(1, Ordering::Relaxed),
        };
        let new = Kept {
            opened,
            from: stored,
        };
        let mut open = self.lock();
        // Two callers may have opened at once: all share the one that is kept.
        let kept = open.entry(key).or_insert_with(|| new.clone());
        if !kept.is_of(&new.from) {
            *kept = new;
        }
        Ok(kept.opened.clone())
    }

    /// The key of a device's wake-ups, from the first of its channels that sends any.
    ///
    /// # Errors
    /// When the store fails; a credential that does not open gives no key.
    pub async fn wake_key(&self, device: &Device) -> Result<Option<WakeKey>, CredentialError> {
        let mut index = CredentialIndex::default();
        for c in self.registry.credentials(&device.app).await? {
            index.add(c.channel, c.name);
        }
        for token in device.tokens.iter().filter(|t| t.is_active()) {
            let channel = &token.channel;
            let Some(name) = index.pick(channel, token.credential.as_ref()) else {
                continue;
            };
            match self.open(&device.app, channel, name).await {
                Ok(opened) => {
                    let key = opened.channel.wake_key(&device.id, &device.secret_hash);
                    if key.is_some() {
                        return Ok(key);
                    }
                }
                Err(error @ CredentialError::Store(_)) => return Err(error),
                Err(error) => {
                    tracing::debug!(%channel, %error, "a credential gives no wake-up key");
                }
            }
        }
        Ok(None)
    }

    /// Forgets the channels of a deleted credential.
    pub fn forget(&self, app: &AppId, channel: &ChannelId, name: &CredentialName) {
        self.lock()
            .remove(&(app.clone(), channel.clone(), name.clone()));
    }

    /// Proves a credential with the vendor.
    ///
    /// # Errors
    /// [`CredentialError`] when it cannot even be opened.
    pub async fn check(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
        deadline: Duration,
    ) -> Result<CheckReport, CredentialError> {
        let opened = self.open(app, channel, name).await?;
        let slow = CheckReport {
            ok: false,
            detail: format!("the vendor did not answer within {} s", deadline.as_secs()),
        };
        Ok(
            tokio::time::timeout(deadline, opened.channel.check(deadline))
                .await
                .unwrap_or(slow),
        )
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Kept>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the secret of a callback address is made for.
fn callback_of(app: &AppId, channel: &ChannelId, name: &CredentialName) -> String {
    format!("callback/{app}/{channel}/{name}")
}

/// What a credential's secrets are sealed for: its place.
#[must_use]
pub fn bound_to(app: &AppId, channel: &ChannelId, name: &CredentialName) -> String {
    format!("credential/{app}/{channel}/{name}")
}
