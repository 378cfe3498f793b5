//! Phones on a real hongyan server, through the public client crate.

use std::sync::Arc;

use async_trait::async_trait;
use hongyan_client::wire::ClientEvent;
use hongyan_client::{
    AppState, Client, DeviceInfo, DeviceSession, Event, EventKind, FixedToken, Inbox, Options,
    Registered, Status,
};
use serde_json::json;
use tokio::sync::watch;

use super::link::{Connection, Device, Kind, News, Profile, Server};
use crate::error::SandboxError;

/// A hongyan server at an address.
#[derive(Clone)]
pub(crate) struct LiveServer {
    options: Options,
    client_key: String,
}

impl std::fmt::Debug for LiveServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveServer")
            .field("base", &self.options.base)
            .finish_non_exhaustive()
    }
}

impl LiveServer {
    pub(crate) fn new(api: &str, client_key: &str) -> Result<Self, SandboxError> {
        let mut options = Options::new(api).map_err(server_error)?;
        // A virtual phone is on the same machine: it may come back sooner than a real one.
        options.timers.backoff_max = std::time::Duration::from_secs(5);
        Ok(Self {
            options,
            client_key: client_key.to_owned(),
        })
    }
}

#[async_trait]
impl Server for LiveServer {
    async fn register(&self, profile: &Profile) -> Result<Arc<dyn Device>, SandboxError> {
        let info = DeviceInfo {
            device_id: Some(profile.device_id.clone()),
            platform: profile.platform.clone(),
            package: Some(profile.package.clone()),
            brand: Some(profile.brand.clone()).filter(|brand| !brand.is_empty()),
            model: Some(profile.model.clone()).filter(|model| !model.is_empty()),
            permission: Some(permission(profile.permission).to_owned()),
            device_token: profile.device_token.clone().map(Into::into),
            ..DeviceInfo::default()
        };
        let (session, registered) =
            DeviceSession::register(&self.options, self.client_key.clone(), &info)
                .await
                .map_err(server_error)?;
        Ok(Arc::new(LiveDevice {
            options: self.options.clone(),
            session,
            registered,
        }))
    }
}

#[derive(Debug)]
struct LiveDevice {
    options: Options,
    session: DeviceSession,
    registered: Registered,
}

#[async_trait]
impl Device for LiveDevice {
    fn token(&self) -> Option<String> {
        Some(self.registered.device_token.expose().to_owned())
    }

    async fn put_token(
        &self,
        channel: &str,
        token: &str,
        environment: Option<&str>,
    ) -> Result<(), SandboxError> {
        self.session
            .put_token(channel, token, environment, None)
            .await
            .map_err(server_error)
    }

    async fn wake_key(&self) -> Result<Option<hongyan_client::wake::Key>, SandboxError> {
        match self.session.wake_key().await {
            Ok(key) => Ok(Some(key)),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(server_error(error)),
        }
    }

    async fn login(&self, user: &str) -> Result<(), SandboxError> {
        self.session.login(user, None).await.map_err(server_error)
    }

    async fn logout(&self) -> Result<(), SandboxError> {
        self.session.logout().await.map_err(server_error)
    }

    async fn set_permission(&self, granted: bool) -> Result<(), SandboxError> {
        let fields = json!({"permission": permission(granted)});
        self.session
            .update(&fields)
            .await
            .map(drop)
            .map_err(server_error)
    }

    async fn report(&self, message: &str, kind: Kind) -> Result<(), SandboxError> {
        let event = ClientEvent {
            id: message.to_owned(),
            kind: event_kind(kind),
            at: jiff::Timestamp::now(),
        };
        self.session
            .client_events(&[event])
            .await
            .map_err(server_error)
    }

    async fn connect(&self, foreground: bool) -> Result<Box<dyn Connection>, SandboxError> {
        let mut options = self.options.clone();
        options.state = app_state(foreground);
        let (client, inbox) = Client::start(
            options,
            FixedToken::new(self.registered.device_token.clone()),
        );
        let status = client.watch();
        Ok(Box::new(LiveConnection {
            client,
            inbox,
            status,
            up: false,
        }))
    }
}

struct LiveConnection {
    client: Client,
    inbox: Inbox,
    status: watch::Receiver<Status>,
    up: bool,
}

#[async_trait]
impl Connection for LiveConnection {
    async fn next(&mut self) -> Option<News> {
        loop {
            let up = match &*self.status.borrow_and_update() {
                Status::Replaying { .. } | Status::Live => true,
                Status::Stopped(_) => return None,
                Status::Connecting { .. } | Status::Waiting { .. } => false,
            };
            if up != self.up {
                self.up = up;
                return Some(if up { News::Up } else { News::Down });
            }
            tokio::select! {
                changed = self.status.changed() => changed.ok()?,
                event = self.inbox.recv() => match event? {
                    Event::Message(message) => return Some(News::Message {
                        visible: message.notification.is_some(),
                        title: text(message.notification.as_ref(), "title"),
                        body: text(message.notification.as_ref(), "body"),
                        collapse: None,
                        id: message.id,
                    }),
                    Event::Recall { id } => return Some(News::Recall { id }),
                    _ => {}
                },
            }
        }
    }

    async fn report(&self, message: &str, kind: Kind) -> Result<(), SandboxError> {
        self.client
            .event(message, event_kind(kind))
            .await
            .map_err(server_error)
    }

    async fn set_foreground(&self, foreground: bool) {
        // The connection ended: the next one says it again.
        let _ = self.client.set_state(app_state(foreground)).await;
    }

    async fn close(&self) {
        self.client.close().await;
    }

    async fn kill(&self) {
        self.client.kill().await;
    }
}

fn text(notification: Option<&serde_json::Value>, name: &str) -> String {
    notification
        .and_then(|it| it.get(name))
        .and_then(serde_json::Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

const fn permission(granted: bool) -> &'static str {
    if granted { "granted" } else { "denied" }
}

const fn app_state(foreground: bool) -> AppState {
    if foreground {
        AppState::Foreground
    } else {
        AppState::Background
    }
}

const fn event_kind(kind: Kind) -> EventKind {
    match kind {
        Kind::Displayed => EventKind::Displayed,
        Kind::Clicked => EventKind::Clicked,
    }
}

fn server_error(error: hongyan_client::Error) -> SandboxError {
    SandboxError::Server(error.to_string())
}
