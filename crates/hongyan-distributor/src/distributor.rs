//! Registrations: what apps ask for, kept in step with the channels of the device at the server.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hongyan_client::{Message, NewChannel, Secret};
use jiff::{SignedDuration, Timestamp};
use ring::digest;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout};

use crate::apps::{Apps, Fate, PATIENCE, Parcel};
use crate::arguments::Register;
use crate::connector::Note;
use crate::device::Device;
use crate::error::Error;
use crate::state::{Book, Registration};

/// How many registrations one app may have. The server has a limit of its own for all of them.
pub(crate) const REGISTRATIONS_PER_APP_MAX: usize = 1_000;
/// How many registrations there may be, of all apps.
const REGISTRATIONS_MAX: usize = 5_000;
/// How many calls of apps may be under way.
const CALLS_MAX: usize = 64;
/// How long an app waits for an answer: less than callers on the bus usually wait (25 s).
const CALL_TIME: Duration = Duration::from_secs(20);
/// An app that nobody found for so long is not there any more.
const GONE_AFTER: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Why a registration failed, in UnifiedPush's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    InternalError,
    Network,
    ActionRequired,
    VapidRequired,
    Unauthorized,
}

impl Reason {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::InternalError => "INTERNAL_ERROR",
            Self::Network => "NETWORK",
            Self::ActionRequired => "ACTION_REQUIRED",
            Self::VapidRequired => "VAPID_REQUIRED",
            Self::Unauthorized => "UNAUTHORIZED",
        }
    }
}

/// What becomes of a message that came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// It waits for its app.
    Queued,
    /// It is for nobody here.
    Nobody,
    /// Its app has too much to do: the server shall send it again.
    Later,
}

pub(crate) struct Distributor {
    book: Arc<Book>,
    device: Arc<Device>,
    apps: Arc<Apps>,
    /// One change of the channels at a time, with its calls to the server.
    changes: tokio::sync::Mutex<()>,
    calls: Semaphore,
    /// Told when the server may have channels that nobody here has, or the other way round.
    pub(crate) differs: Notify,
}

impl Distributor {
    pub(crate) fn new(book: Arc<Book>, device: Arc<Device>, apps: Arc<Apps>) -> Arc<Self> {
        Arc::new(Self {
            book,
            device,
            apps,
            changes: tokio::sync::Mutex::default(),
            calls: Semaphore::new(CALLS_MAX),
            differs: Notify::new(),
        })
    }

    /// Registers a connector, or finds it registered. Answers its endpoint.
    pub(crate) async fn register(&self, asked: Register) -> Result<Secret, Reason> {
        let _place = self
            .calls
            .try_acquire()
            .map_err(|_| Reason::InternalError)?;
        match timeout(CALL_TIME, self.register_now(asked)).await {
            Ok(done) => done,
            Err(_) => Err(Reason::Network),
        }
    }

    async fn register_now(&self, asked: Register) -> Result<Secret, Reason> {
        let _alone = self.changes.lock().await;
        let (known, of_app, all) = self.book.read(|state| {
            let of_app = state.registrations.iter();
            let of_app = of_app.filter(|one| one.service == asked.service).count();
            let known = state.by_token(&asked.token).cloned();
            (known, of_app, state.registrations.len())
        });
        match known {
            Some(known) if known.service != asked.service => return Err(Reason::Unauthorized),
            Some(known) if known.vapid == asked.vapid => return Ok(known.endpoint),
            Some(_) => {}
            None if of_app >= REGISTRATIONS_PER_APP_MAX || all >= REGISTRATIONS_MAX => {
                tracing::warn!(
                    service = asked.service,
                    of_app,
                    all,
                    "too many registrations"
                );
                return Err(Reason::InternalError);
            }
            None => {}
        }
        let opened = self.open(&asked).await;
        let registration = opened.map_err(|error| {
            let reason = reason(&error);
            tracing::warn!(service = asked.service, %error, reason = reason.word(), "cannot register an app");
            reason
        })?;
        let endpoint = registration.endpoint.clone();
        self.book
            .change(|state| state.put(registration))
            .await
            .map_err(|error| {
                tracing::error!(%error, "a registration cannot be kept");
                self.differs.notify_one();
                Reason::InternalError
            })?;
        tracing::info!(service = asked.service, "registered an app");
        Ok(endpoint)
    }

    async fn open(&self, asked: &Register) -> Result<Registration, Error> {
        let new = NewChannel {
            channel: None,
            token_hash: Some(label(&asked.service, &asked.token)),
            vapid: asked.vapid.clone(),
            description: asked.description.clone(),
        };
        let channel = self.device.session().await?.open_channel(&new).await?;
        Ok(Registration {
            service: asked.service.clone(),
            token: asked.token.clone(),
            channel: channel.channel,
            endpoint: channel.endpoint.into(),
            vapid: asked.vapid.clone(),
            description: asked.description.clone(),
            gone_since: None,
        })
    }

    /// Ends a registration and tells the app so. A token that nobody has is as good.
    pub(crate) async fn unregister(&self, token: &Secret) -> Result<(), Error> {
        let Ok(_place) = self.calls.try_acquire() else {
            return Err(Error::Ended {
                why: "too many calls are under way".to_owned(),
            });
        };
        let removed = {
            let _alone = self.changes.lock().await;
            let removed = self.book.change(|state| state.remove(token)).await?;
            let Some(removed) = removed else {
                return Ok(());
            };
            let closed = timeout(CALL_TIME, async {
                let session = self.device.session().await?;
                Ok::<_, Error>(session.close_channel(&removed.channel).await?)
            });
            match closed.await {
                Ok(Ok(())) => {}
                // Closed later: no registration has it any more.
                other => {
                    tracing::warn!(
                        service = removed.service,
                        ?other,
                        "a channel cannot be closed now"
                    );
                    self.differs.notify_one();
                }
            }
            removed
        };
        tracing::info!(service = removed.service, "unregistered an app");
        let token = removed.token;
        self.apps
            .tell(&removed.service, Note::Unregistered { token });
        Ok(())
    }

    /// Tells an app its endpoint.
    pub(crate) fn tell_endpoint(&self, service: &str, token: Secret, endpoint: Secret) {
        self.apps
            .tell(service, Note::NewEndpoint { token, endpoint });
    }

    /// Finds the app of a message.
    pub(crate) fn route(&self, message: &Message) -> Route {
        let Some(channel) = &message.ch else {
            return Route::Nobody;
        };
        let found = self.book.read(|state| {
            let found = state.by_channel(channel)?;
            Some((found.service.clone(), found.token.clone()))
        });
        let Some((service, token)) = found else {
            self.differs.notify_one();
            return Route::Nobody;
        };
        let parcel = Parcel {
            id: message.id.clone(),
            token,
            body: message.raw.clone().unwrap_or_default(),
            until: Instant::now() + PATIENCE,
        };
        match self.apps.deliver(&service, parcel) {
            Ok(()) => Route::Queued,
            Err(_full) => Route::Later,
        }
    }

    /// Remembers whether a message found its app, and ends the registration of one that has been gone for long.
    pub(crate) async fn settled(
        &self,
        token: &Secret,
        fate: Fate,
        now: Timestamp,
    ) -> Result<(), Error> {
        let since = self.book.read(|state| {
            let known = state.by_token(token)?;
            Some((known.gone_since, known.service.clone()))
        });
        let Some((since, service)) = since else {
            return Ok(());
        };
        let next = match (fate, since) {
            (Fate::Gone, None) => Some(now),
            (Fate::Gone, Some(since)) if now.duration_since(since) >= GONE_AFTER => {
                tracing::info!(
                    service,
                    "the app has been gone for long; its registration ends"
                );
                return self.unregister(token).await;
            }
            (Fate::Taken, Some(_)) => None,
            _ => return Ok(()),
        };
        let mark = self.book.change(|state| {
            if let Some(known) = state
                .registrations
                .iter_mut()
                .find(|one| one.token == *token)
            {
                known.gone_since = next;
            }
        });
        mark.await
    }

    /// Brings the server's channels and the registrations together: closes channels that nobody has, opens those that are
    /// missing, and tells the apps whose endpoint has become another one.
    pub(crate) async fn reconcile(&self) -> Result<(), Error> {
        let _alone = self.changes.lock().await;
        let session = self.device.session().await?;
        let there = session.channels().await?;
        let ours = self.book.read(|state| state.registrations.clone());
        for channel in &there {
            if !ours.iter().any(|one| one.channel == channel.channel) {
                session.close_channel(&channel.channel).await?;
            }
        }
        for old in ours {
            let same = there
                .iter()
                .any(|c| c.channel == old.channel && c.endpoint == old.endpoint.expose());
            if same {
                continue;
            }
            let asked = Register {
                service: old.service.clone(),
                token: old.token.clone(),
                description: old.description.clone(),
                vapid: old.vapid.clone(),
            };
            let new = match self.open(&asked).await {
                Ok(new) => new,
                Err(Error::Client(error)) if error.code() == Some("vapid_required") => {
                    let (service, token) = (old.service, old.token);
                    tracing::warn!(
                        service,
                        "the server now asks for a VAPID key; the app is told to register again"
                    );
                    self.book.change(|state| state.remove(&token)).await?;
                    self.apps.tell(&service, Note::Unregistered { token });
                    continue;
                }
                Err(error) => return Err(error),
            };
            let changed = new.endpoint != old.endpoint;
            let (token, endpoint) = (new.token.clone(), new.endpoint.clone());
            self.book.change(|state| state.put(new)).await?;
            if changed {
                self.tell_endpoint(&old.service, token, endpoint);
            }
        }
        Ok(())
    }
}

/// What the server knows a registration by: no token leaves this machine.
fn label(service: &str, token: &Secret) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(service.as_bytes());
    hash.update(&[0]);
    hash.update(token.expose().as_bytes());
    URL_SAFE_NO_PAD.encode(hash.finish())
}

/// What an app is told of a failure.
fn reason(error: &Error) -> Reason {
    let Error::Client(error) = error else {
        return Reason::InternalError;
    };
    match (error, error.status()) {
        (
            hongyan_client::Error::Unreachable { .. }
            | hongyan_client::Error::Broken { .. }
            | hongyan_client::Error::Timeout { .. },
            _,
        ) => Reason::Network,
        _ if error.code() == Some("vapid_required") => Reason::VapidRequired,
        // Too many calls, or a server that is about to be there again.
        (_, Some(429 | 502 | 503 | 504)) => Reason::Network,
        // The client key or the server's address is wrong: a person has to look.
        (_, Some(401 | 403 | 404)) => Reason::ActionRequired,
        _ => Reason::InternalError,
    }
}

#[cfg(test)]
mod tests {
    use hongyan_client::Problem;

    use super::*;

    #[test]
    fn up_14_every_failure_has_its_reason() {
        let problem = |status, code: &str| {
            let code = code.to_owned();
            let problem = Problem {
                status,
                code,
                ..Problem::default()
            };
            Error::Client(hongyan_client::Error::Problem(Box::new(problem)))
        };
        let timeout = hongyan_client::Error::Timeout {
            base: "b".to_owned(),
            after: CALL_TIME,
        };
        assert_eq!(reason(&Error::Client(timeout)).word(), "NETWORK");
        assert_eq!(reason(&problem(503, "unavailable")).word(), "NETWORK");
        assert_eq!(
            reason(&problem(422, "vapid_required")).word(),
            "VAPID_REQUIRED"
        );
        assert_eq!(
            reason(&problem(401, "unauthorized")).word(),
            "ACTION_REQUIRED"
        );
        assert_eq!(reason(&problem(409, "conflict")).word(), "INTERNAL_ERROR");
        assert_eq!(reason(&Error::BusClosed).word(), "INTERNAL_ERROR");
    }

    /// Connectors that nobody has to call.
    #[derive(Debug)]
    struct Nobody;

    #[async_trait::async_trait]
    impl crate::connector::Connector for Nobody {
        async fn message(
            &self,
            _: &str,
            _: &Secret,
            _: &str,
            _: &bytes::Bytes,
        ) -> Result<(), crate::connector::Failure> {
            Err(crate::connector::Failure::Gone)
        }

        async fn tell(&self, _: &str, _: &Note) -> Result<(), crate::connector::Failure> {
            Err(crate::connector::Failure::Gone)
        }
    }

    /// A distributor with one registration and no way to a server.
    async fn distributor(folder: &std::path::Path, token: &Secret) -> Arc<Distributor> {
        let server = "http://127.0.0.1:9";
        let book = Book::open(folder.join("state.json"), server).await;
        let book = Arc::new(book.unwrap());
        let registration = Registration {
            service: "org.example.App".to_owned(),
            token: token.clone(),
            channel: "c".to_owned(),
            endpoint: "e".into(),
            vapid: None,
            description: None,
            gone_since: None,
        };
        let put = book.change(|state| {
            state.device_token = Some("secret".into());
            state.put(registration);
        });
        put.await.unwrap();
        let options = hongyan_client::Options::new(server).unwrap();
        let device = Device::new(options, "key".into(), Arc::clone(&book));
        let (settled, _) = tokio::sync::mpsc::channel(1);
        Distributor::new(book, Arc::new(device), Apps::new(Arc::new(Nobody), settled))
    }

    #[tokio::test(start_paused = true)]
    async fn up_14_an_app_that_is_gone_for_thirty_days_loses_its_registration() {
        let folder = tempfile::tempdir().unwrap();
        let token = Secret::new("token");
        let distributor = distributor(folder.path(), &token).await;
        let gone = || {
            let look =
                |state: &crate::state::State| state.by_token(&token).map(|one| one.gone_since);
            distributor.book.read(look)
        };
        let begun = Timestamp::UNIX_EPOCH;
        let after = |days: i64| begun + SignedDuration::from_hours(24 * days);
        for (fate, day, want) in [
            (Fate::Silent, 0, Some(None)),
            (Fate::Gone, 0, Some(Some(begun))),
            (Fate::Gone, 29, Some(Some(begun))),
            (Fate::Silent, 40, Some(Some(begun))),
            (Fate::Taken, 40, Some(None)),
            (Fate::Gone, 41, Some(Some(after(41)))),
            (Fate::Gone, 71, None),
            (Fate::Gone, 72, None),
        ] {
            distributor.settled(&token, fate, after(day)).await.unwrap();
            assert_eq!(gone(), want, "{fate:?} on day {day}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn up_14_what_is_known_is_answered_without_the_server() {
        let folder = tempfile::tempdir().unwrap();
        let token = Secret::new("token");
        let distributor = distributor(folder.path(), &token).await;
        let asked = |service: &str, token: &Secret| Register {
            service: service.to_owned(),
            token: token.clone(),
            description: None,
            vapid: None,
        };
        let same = distributor.register(asked("org.example.App", &token)).await;
        assert_eq!(same, Ok("e".into()));
        let stolen = distributor
            .register(asked("org.example.Thief", &token))
            .await;
        assert_eq!(stolen, Err(Reason::Unauthorized));
        let new = distributor
            .register(asked("org.example.App", &"new".into()))
            .await;
        assert_eq!(new, Err(Reason::Network));
        let many = distributor.book.change(|state| {
            let first = state.registrations[0].clone();
            for n in 1..REGISTRATIONS_PER_APP_MAX {
                let token = n.to_string().into();
                state.put(Registration {
                    token,
                    ..first.clone()
                });
            }
        });
        many.await.unwrap();
        let more = distributor
            .register(asked("org.example.App", &"new".into()))
            .await;
        assert_eq!(more, Err(Reason::InternalError));
    }

    #[test]
    fn up_14_the_server_knows_no_token() {
        let token = Secret::new("fdd1ba9e-7b9e-4c2a-a3fc-6f6b1f5d37a0");
        let known = label("org.example.App", &token);
        assert_eq!(known.len(), 43);
        assert_eq!(known, label("org.example.App", &token));
        assert_ne!(known, label("org.example.Other", &token));
        assert!(!known.contains("fdd1ba9e"));
    }
}
