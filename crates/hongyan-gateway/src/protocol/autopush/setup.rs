//! What autopush needs of the store: identities and their channels.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use hongyan_core::app::KeyKind;
use hongyan_core::device::{Permission, Platform};
use hongyan_core::port::{Enrolled, NewChannel, OpenError, Pushes, endpoint_url};
use hongyan_core::push::BROWSER_PREFIX;
use hongyan_core::{AppId, Device, DeviceId, PushChannel, Secret, StoreError};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::gateway::Ports;

/// What browsers are served with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The app that browsers belong to which name none; without it they must.
    pub app: Option<AppId>,
    /// Opens endpoints.
    pub pushes: Arc<dyn Pushes>,
    /// Broadcasts that there are, with their versions.
    pub broadcasts: BTreeMap<String, String>,
}

/// A browser that is known.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) app: AppId,
    pub(super) device: DeviceId,
    pub(super) secret_hash: [u8; 32],
}

/// Whose device a new browser becomes.
#[derive(Debug, Clone)]
pub(super) struct Home {
    pub(super) app: AppId,
    /// Makes it a user's; nobody's without.
    pub(super) enrolled: Option<Enrolled>,
}

/// Who a browser is.
#[derive(Debug)]
pub(super) enum Identity {
    /// It has been here, with these channels.
    Known(Known, HashSet<PushChannel>),
    /// It gets a new identity in this app, which is stored when it registers its first channel.
    New(Home, Secret),
    /// The path names no app.
    Stranger,
    /// The enrolment makes no more devices, and this is none yet.
    TooLate,
}

/// What became of a registration.
#[derive(Debug)]
pub(super) enum Registered {
    /// Its endpoint.
    At(String),
    /// The status that the browser is told.
    Refused(u16),
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0u8; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0u8; N];
    // The system that gives no randomness can do nothing else either.
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| StoreError::NotFound {
            entity: "randomness",
        })?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Setup {
    /// What a connection's path says: the user of an enrolment, the app of a client key, else the server's own app.
    async fn home(
        &self,
        ports: &Ports,
        enrolment: Option<&Secret>,
    ) -> Result<Option<Home>, StoreError> {
        let nobodys = |app| Home {
            app,
            enrolled: None,
        };
        let Some(token) = enrolment else {
            return Ok(self.app.clone().map(nobodys));
        };
        if let Some(enrolled) = self.pushes.enrolled(token).await? {
            let app = enrolled.app.clone();
            let known = ports.registry.app(&app).await?.is_some();
            let enrolled = Some(enrolled);
            return Ok(known.then_some(Home { app, enrolled }));
        }
        let key = ports.registry.key_by_hash(&sha256(token.expose())).await?;
        Ok(key
            .filter(|key| key.kind == KeyKind::Client)
            .and_then(|key| key.app)
            .map(nobodys))
    }

    pub(super) async fn identify(
        &self,
        ports: &Ports,
        enrolment: Option<&Secret>,
        uaid: Option<&Secret>,
    ) -> Result<Identity, StoreError> {
        let Some(home) = self.home(ports, enrolment).await? else {
            return Ok(Identity::Stranger);
        };
        let app = home.app.clone();
        if let Some(uaid) = uaid {
            let secret_hash = sha256(uaid.expose());
            let device = ports.registry.device_by_secret(&secret_hash).await?;
            if let Some(device) = device.filter(|d| d.app == app && d.platform == Platform::Web) {
                // One that was anybody's before stays as it is: a logout is not undone by connecting again.
                if let Some(enrolled) = &home.enrolled
                    && device.binding == 0
                {
                    self.pushes.enrol(&device.id, enrolled).await?;
                }
                let open = self.open(&app, &device.id, ports).await?;
                let known = Known {
                    app,
                    device: device.id,
                    secret_hash,
                };
                return Ok(Identity::Known(known, open));
            }
        }
        if home
            .enrolled
            .as_ref()
            .is_some_and(|enrolled| !enrolled.open)
        {
            return Ok(Identity::TooLate);
        }
        let uaid = Secret::new(hex(&random::<16>()?));
        Ok(Identity::New(home, uaid))
    }

    async fn open(
        &self,
        app: &AppId,
        device: &DeviceId,
        ports: &Ports,
    ) -> Result<HashSet<PushChannel>, StoreError> {
        let most = hongyan_core::push::CHANNELS_PER_DEVICE_MAX;
        let open = ports.registry.endpoints_of(app, device, None, most).await?;
        Ok(open.into_iter().map(|e| e.channel).collect())
    }

    /// Stores a new identity, unless it is to be a user's and cannot be any more.
    pub(super) async fn settle(
        &self,
        ports: &Ports,
        home: Home,
        uaid: &Secret,
    ) -> Result<Option<Known>, StoreError> {
        let app = home.app.clone();
        let id = format!("{BROWSER_PREFIX}{}", hex(&random::<16>()?));
        let device = DeviceId::parse(&id).map_err(|_| StoreError::NotFound { entity: "device" })?;
        let (now, secret_hash) = (ports.clock.now(), sha256(uaid.expose()));
        let record = Device {
            app: app.clone(),
            id: device.clone(),
            package: None,
            platform: Platform::Web,
            brand: None,
            model: None,
            locale: None,
            timezone: None,
            app_version: None,
            permission: Permission::Granted,
            tags: Default::default(),
            tokens: Vec::new(),
            user: None,
            binding: 0,
            scram: None,
            secret_hash,
            created_at: now,
            last_seen: now,
            version: 1,
        };
        ports.registry.put_device(record, None).await?;
        if let Some(enrolled) = &home.enrolled {
            let bound = self.pushes.enrol(&device, enrolled).await;
            if !matches!(bound, Ok(true)) {
                self.pushes.forget(&app, &device).await?;
                return bound.map(|_| None);
            }
        }
        Ok(Some(Known {
            app,
            device,
            secret_hash,
        }))
    }

    pub(super) async fn register(
        &self,
        known: &Known,
        channel: PushChannel,
        key: Option<String>,
    ) -> Registered {
        let new = NewChannel {
            app: known.app.clone(),
            device: known.device.clone(),
            channel: Some(channel),
            label: None,
            vapid: key,
            description: None,
        };
        match self.pushes.open(new).await {
            Ok(open) => Registered::At(endpoint_url(self.pushes.root(), &open)),
            Err(OpenError::BadKey | OpenError::VapidRequired) => Registered::Refused(400),
            Err(OpenError::TooMany) => Registered::Refused(409),
            Err(error @ (OpenError::Seal(_) | OpenError::Store(_))) => {
                tracing::warn!(%error, "a browser's channel could not be opened");
                Registered::Refused(500)
            }
        }
    }
}
