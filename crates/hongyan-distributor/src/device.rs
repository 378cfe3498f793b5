//! The distributor as a device of the server: it registers itself, and gives its token to whoever connects.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hongyan_client::{
    BoxError, DeviceInfo, DeviceSession, Options, Registered, Secret, TokenNeed, TokenSource,
};
use tokio::sync::Notify;

use crate::error::Error;
use crate::state::Book;

/// Between two tries to register a device whose token was refused.
const PAUSE: Duration = Duration::from_secs(30);

/// Makes calls as the device, which is registered by the first of them.
pub(crate) struct Device {
    options: Options,
    client_key: Secret,
    book: Arc<Book>,
    session: Mutex<Option<DeviceSession>>,
    /// One registration at a time: each makes the token of the one before it worthless.
    registering: tokio::sync::Mutex<()>,
    /// Told when the device has become another one, so that its channels have to be opened again.
    pub(crate) renewed: Notify,
}

impl Device {
    pub(crate) fn new(options: Options, client_key: Secret, book: Arc<Book>) -> Self {
        Self {
            options,
            client_key,
            book,
            session: Mutex::default(),
            registering: tokio::sync::Mutex::default(),
            renewed: Notify::new(),
        }
    }

    /// The device's calls.
    pub(crate) async fn session(&self) -> Result<DeviceSession, Error> {
        if let Some(session) = self.known() {
            return Ok(session);
        }
        let _alone = self.registering.lock().await;
        match self.known() {
            Some(session) => Ok(session),
            None => self.register().await,
        }
    }

    fn known(&self) -> Option<DeviceSession> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if session.is_none() {
            *session = self.book.read(|state| {
                let device_token = state.device_token.clone()?;
                let device_id = state.device_id.clone();
                let registered = Registered {
                    device_id,
                    device_token,
                };
                Some(DeviceSession::resume(&self.options, &registered))
            });
        }
        session.clone()
    }

    fn token(&self) -> Option<Secret> {
        self.book.read(|state| state.device_token.clone())
    }

    /// Registers the device; to be called by one at a time.
    async fn register(&self) -> Result<DeviceSession, Error> {
        let info = DeviceInfo {
            device_id: Some(self.book.read(|state| state.device_id.clone())),
            platform: "desktop".to_owned(),
            app_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            ..DeviceInfo::default()
        };
        let (session, registered) =
            DeviceSession::register(&self.options, self.client_key.clone(), &info).await?;
        self.book
            .change(|state| {
                state.device_id = registered.device_id;
                state.device_token = Some(registered.device_token);
            })
            .await?;
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.clone());
        tracing::info!(device = session.device_id(), "registered at the server");
        Ok(session)
    }

    async fn first_token(&self) -> Result<Secret, Error> {
        self.session().await?;
        self.token().ok_or_else(|| Error::Ended {
            why: "the device has no token".to_owned(),
        })
    }

    /// Registers again until the server takes it; only a refused client key ends it.
    async fn next_token(&self) -> Result<Secret, Error> {
        let refused = self.token();
        let _alone = self.registering.lock().await;
        while self.token() == refused {
            match self.register().await {
                Ok(_) => {}
                Err(Error::Client(error)) if matches!(error.status(), Some(401 | 403)) => {
                    return Err(error.into());
                }
                Err(error) => {
                    tracing::warn!(%error, "the device cannot be registered again; trying later");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        self.renewed.notify_one();
        self.token().ok_or_else(|| Error::Ended {
            why: "the device has no token".to_owned(),
        })
    }
}

/// For the connection.
pub(crate) struct Tokens(pub(crate) Arc<Device>);

#[async_trait]
impl TokenSource for Tokens {
    async fn token(&self, need: TokenNeed) -> Result<Secret, BoxError> {
        let token = match need {
            TokenNeed::Connect => self.0.first_token().await,
            TokenNeed::Renew | TokenNeed::Register => self.0.next_token().await,
        };
        token.map_err(BoxError::from)
    }
}
