//! Stand-ins for dispatch and gateway: they do the least that makes the ports tell a story, and note what they were asked.

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hongyan_api::services::{
    Accepted, Adopted, Bytestream, CallbackCall, CallbackReply, ClosedClass, Connect,
    DeviceExplanation, Explanation, IdempotencyKey, LiveCaller, NewCredential, Place, PollAnswer,
    PollRequest, QuotaStanding, RecallReport, Refused, ServiceError, Services, StreamRequest,
    Turned, Upgrade, Would,
};
use hongyan_core::app::{Credential, LaneLimits};
use hongyan_core::draft::Draft;
use hongyan_core::message::Target;
use hongyan_core::port::{
    Ack, BroadcastError, BroadcastStorage, Broadcasts, CheckReport, Clock, Commit, CommitError,
    ConfigError, DailyLimit, Idempotency, Inbox, InboxAppend, LimitOf, Owner, Parcel, Reader,
    Registry, WakeKey, WriteSet,
};
use hongyan_core::session::{AppState, SessionEvent};
use hongyan_core::{
    AppId, ChannelId, Class, CredentialName, Cursor, Device, DeviceId, Event, MessageId, Reason,
    Secret, Stage, StoreError, Timestamp, UserId,
};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode, Version};

#[derive(Debug)]
pub(crate) struct FakeServices {
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) inbox: Arc<dyn Inbox>,
    pub(crate) commit: Arc<dyn Commit>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) drafts: Mutex<Vec<Draft>>,
    pub(crate) heard: Mutex<Vec<SessionEvent>>,
    /// Pushes that wait for any vendor.
    pub(crate) waiting: std::sync::atomic::AtomicUsize,
    /// Users whose preferences were written.
    pub(crate) reconsidered: Mutex<Vec<UserId>>,
    pub(crate) moved: Mutex<Vec<DeviceId>>,
    pub(crate) kicked: Mutex<Vec<DeviceId>>,
    /// What the next `accept` says instead.
    pub(crate) refuse: Mutex<Option<StoreError>>,
    /// What somebody else stores while the next limits are changed.
    pub(crate) rotated: Mutex<Option<NewCredential>>,
    pub(crate) broadcasts: Arc<FakeBroadcasts>,
    pub(crate) panics: std::sync::atomic::AtomicBool,
}

impl FakeServices {
    pub(crate) fn event(&self, app: &AppId, message: MessageId, stage: Stage) -> Event {
        Event {
            seq: 0,
            at: self.clock.now(),
            app: app.clone(),
            stage,
            reason: None,
            message: Some(message),
            class: None,
            user: None,
            device: None,
            platform: None,
            channel: None,
            attempt: 0,
            until: None,
            took_ms: None,
            detail: None,
            r#final: false,
        }
    }

    async fn bind(
        &self,
        app: &AppId,
        device: &DeviceId,
        user: Option<&UserId>,
    ) -> Result<(), ServiceError> {
        let mut devices = self
            .registry
            .devices(app, std::slice::from_ref(device))
            .await?;
        let Some(mut device) = devices.pop().flatten() else {
            return Err(ServiceError::NotFound { entity: "device" });
        };
        if device.user.as_ref() != user {
            let read = device.version;
            device.user = user.cloned();
            device.binding += 1;
            device.version += 1;
            self.registry.put_device(device, Some(read)).await?;
        }
        Ok(())
    }
}

/// A vendor that makes two broadcast channels, with ids that a path must escape.
#[derive(Debug, Default)]
pub(crate) struct FakeBroadcasts {
    pub(crate) channels: Mutex<Vec<(String, BroadcastStorage)>>,
    /// What the next call says instead.
    pub(crate) refuse: Mutex<Option<BroadcastError>>,
}

impl FakeBroadcasts {
    fn refused(&self) -> Result<(), BroadcastError> {
        self.refuse.lock().unwrap().take().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Broadcasts for FakeBroadcasts {
    async fn create(
        &self,
        storage: BroadcastStorage,
        _deadline: Duration,
    ) -> Result<String, BroadcastError> {
        self.refused()?;
        let mut channels = self.channels.lock().unwrap();
        let free = ["a/b+c==", "%2F/=="]
            .into_iter()
            .find(|id| !channels.iter().any(|(known, _)| known == id));
        let id = free.ok_or(BroadcastError::Full {
            detail: "two are enough".to_owned(),
        })?;
        channels.push((id.to_owned(), storage));
        Ok(id.to_owned())
    }

    async fn list(&self, _deadline: Duration) -> Result<Vec<String>, BroadcastError> {
        self.refused()?;
        let channels = self.channels.lock().unwrap();
        Ok(channels.iter().map(|(id, _)| id.clone()).collect())
    }

    async fn read(
        &self,
        id: &str,
        _deadline: Duration,
    ) -> Result<BroadcastStorage, BroadcastError> {
        self.refused()?;
        let channels = self.channels.lock().unwrap();
        let found = channels.iter().find(|(known, _)| known == id);
        found
            .map(|(_, storage)| *storage)
            .ok_or(BroadcastError::NotFound)
    }

    async fn delete(&self, id: &str, deadline: Duration) -> Result<(), BroadcastError> {
        self.read(id, deadline).await?;
        self.channels
            .lock()
            .unwrap()
            .retain(|(known, _)| known != id);
        Ok(())
    }
}

#[async_trait]
impl Services for FakeServices {
    async fn accept(
        &self,
        app: &AppId,
        drafts: Vec<Draft>,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Accepted, ServiceError> {
        assert!(
            !self.panics.load(std::sync::atomic::Ordering::SeqCst),
            "as a test asked for"
        );
        if let Some(error) = self.refuse.lock().unwrap().take() {
            return Err(error.into());
        }
        let now = self.clock.now();
        let ids: Vec<MessageId> = drafts
            .iter()
            .map(|_| MessageId(uuid::Uuid::now_v7()))
            .collect();
        let mut set = WriteSet {
            idempotency: idempotency.as_ref().map(|wanted| Idempotency {
                app: app.clone(),
                key: wanted.key.clone(),
                body_hash: wanted.body_hash,
                answer: serde_json::to_vec(&ids).unwrap(),
                expires_at: now.plus(std::time::Duration::from_secs(86_400)),
            }),
            ..WriteSet::default()
        };
        self.drafts.lock().unwrap().extend(drafts.iter().cloned());
        for (draft, id) in drafts.into_iter().zip(&ids) {
            let message = Arc::new(draft.into_message(app.clone(), *id, now));
            let owners: Vec<Owner> = match &message.to {
                Target::Users(users) => users.iter().cloned().map(Owner::User).collect(),
                Target::Devices(devices) => devices.iter().cloned().map(Owner::Device).collect(),
                other => other.audience().into_iter().map(Owner::Audience).collect(),
            };
            set.inbox
                .extend(owners.into_iter().map(|owner| InboxAppend {
                    app: app.clone(),
                    owner,
                    message: *id,
                    expires_at: message.expires_at,
                    push: None,
                }));
            set.events.push(self.event(app, *id, Stage::Accepted));
            set.messages.push(message);
        }
        match self.commit.commit(vec![set]).await.pop().unwrap() {
            Ok(_) => Ok(Accepted {
                ids,
                replayed: false,
            }),
            Err(CommitError::Known { body_hash, answer }) => {
                if idempotency.is_some_and(|wanted| wanted.body_hash == body_hash) {
                    let ids = serde_json::from_slice(&answer).unwrap();
                    Ok(Accepted {
                        ids,
                        replayed: true,
                    })
                } else {
                    Err(ServiceError::KeyReused)
                }
            }
            Err(other) => panic!("{other}"),
        }
    }

    async fn explain(&self, app: &AppId, draft: Draft) -> Result<Explanation, ServiceError> {
        let Target::Users(users) = draft.to else {
            return Ok(Explanation {
                devices: vec![],
                more: true,
            });
        };
        let devices = self.registry.devices_of(app, &users).await?;
        let push = |parcel| Would::Push {
            channel: ChannelId::parse("apns").unwrap(),
            credential: CredentialName::parse("default").unwrap(),
            parcel,
        };
        let parcel = Parcel {
            method: "POST",
            path: "/3/device/{token}".to_owned(),
            headers: vec![("apns-push-type".to_owned(), "alert".to_owned())],
            body: serde_json::json!({"aps": {}}),
            truncated: vec![],
            downgraded: None,
        };
        let devices = devices
            .into_iter()
            .flatten()
            .map(|device| DeviceExplanation {
                device: Some(device.id),
                user: device.user,
                platform: Some(device.platform),
                connected: true,
                would: Would::Online {
                    until: self.clock.now(),
                    otherwise: Box::new(push(Ok(parcel.clone()))),
                },
            })
            .collect();
        Ok(Explanation {
            devices,
            more: false,
        })
    }

    async fn recall(&self, app: &AppId, id: MessageId) -> Result<RecallReport, ServiceError> {
        if self.inbox.message(app, id).await?.is_none() {
            return Err(ServiceError::NotFound { entity: "message" });
        }
        let set = WriteSet {
            recalled: vec![(app.clone(), id, self.clock.now())],
            ..WriteSet::default()
        };
        self.commit.commit(vec![set]).await.pop().unwrap().unwrap();
        Ok(RecallReport {
            stopped: 1,
            withdrawn: 0,
        })
    }

    async fn login(
        &self,
        app: &AppId,
        device: &DeviceId,
        user: &UserId,
    ) -> Result<(), ServiceError> {
        self.bind(app, device, Some(user)).await
    }

    async fn logout(&self, app: &AppId, device: &DeviceId) -> Result<(), ServiceError> {
        self.bind(app, device, None).await
    }

    async fn kick(&self, app: &AppId, device: &DeviceId) -> Result<(), ServiceError> {
        self.bind(app, device, None).await?;
        self.kicked.lock().unwrap().push(device.clone());
        Ok(())
    }

    async fn delete_device(&self, app: &AppId, device: &DeviceId) -> Result<bool, ServiceError> {
        Ok(self.registry.delete_device(app, device).await?)
    }

    async fn forget_user(&self, app: &AppId, user: &UserId) -> Result<bool, ServiceError> {
        Ok(self.registry.delete_user(app, user).await?)
    }

    async fn preferences_changed(&self, _: &AppId, user: &UserId) -> Result<(), ServiceError> {
        self.reconsidered.lock().unwrap().push(user.clone());
        Ok(())
    }

    async fn timezone_changed(&self, _: &AppId, device: &DeviceId) -> Result<(), ServiceError> {
        self.moved.lock().unwrap().push(device.clone());
        Ok(())
    }

    async fn feedback(&self, events: Vec<SessionEvent>) {
        self.heard.lock().unwrap().extend(events);
    }

    async fn put_credential(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
        new: NewCredential,
    ) -> Result<(), ServiceError> {
        if !["apns", "sms"].contains(&channel.as_str()) {
            return Err(ServiceError::UnknownChannel(channel.clone()));
        }
        if new.config.get("key").is_none() {
            return Err(ServiceError::Config(vec![ConfigError {
                path: "key".to_owned(),
                problem: "is missing".to_owned(),
            }]));
        }
        let old = self.registry.credential(app, channel, name).await?;
        let read = old.map(|c| c.version);
        let mut shown = new.config.as_object().unwrap().clone();
        shown.remove("key");
        let credential = Credential {
            app: app.clone(),
            channel: channel.clone(),
            name: name.clone(),
            sealed: b"sealed".to_vec(),
            shown,
            endpoint: new.endpoint,
            limits: new.limits,
            created_at: self.clock.now(),
            updated_at: self.clock.now(),
            version: read.unwrap_or(0) + 1,
        };
        Ok(self.registry.put_credential(credential, read).await?)
    }

    async fn limit_credential(
        &self,
        read: Credential,
        limits: LaneLimits,
    ) -> Result<Credential, ServiceError> {
        let version = read.version;
        let rotated = self.rotated.lock().unwrap().take();
        if let Some(new) = rotated {
            let (app, channel, name) = (&read.app, &read.channel, &read.name);
            self.put_credential(app, channel, name, new).await?;
        }
        let stored = Credential {
            limits,
            version: version + 1,
            ..read
        };
        let put = self.registry.put_credential(stored.clone(), Some(version));
        put.await?;
        Ok(stored)
    }

    fn waiting(&self, _: &AppId, _: &ChannelId, _: &CredentialName) -> usize {
        self.waiting.load(std::sync::atomic::Ordering::Relaxed)
    }

    async fn delete_credential(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Result<bool, ServiceError> {
        Ok(self.registry.delete_credential(app, channel, name).await?)
    }

    async fn check_credential(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Result<CheckReport, ServiceError> {
        match self.registry.credential(app, channel, name).await? {
            Some(_) => Ok(CheckReport {
                ok: false,
                detail: "the vendor does not know the key".into(),
            }),
            None => Err(ServiceError::NotFound {
                entity: "credential",
            }),
        }
    }

    async fn broadcasts(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Result<Option<Arc<dyn Broadcasts>>, ServiceError> {
        if self
            .registry
            .credential(app, channel, name)
            .await?
            .is_none()
        {
            let entity = "credential";
            return Err(ServiceError::NotFound { entity });
        }
        let has = channel.as_str() == "apns";
        Ok(has.then(|| Arc::clone(&self.broadcasts) as Arc<dyn Broadcasts>))
    }

    fn callback_url(
        &self,
        app: &AppId,
        channel: &ChannelId,
        _name: &CredentialName,
    ) -> Option<String> {
        Some(format!(
            "https://push.example/v1/callbacks/{app}/{channel}?k=secret"
        ))
    }

    async fn callback(
        &self,
        _app: &AppId,
        channel: &ChannelId,
        call: CallbackCall,
    ) -> Result<CallbackReply, ServiceError> {
        if call.secret.as_deref() != Some("secret") {
            return Err(ServiceError::Forbidden("no proof".to_owned()));
        }
        // Answers what it saw, for the test.
        let body = String::from_utf8_lossy(&call.body);
        Ok(CallbackReply {
            content_type: "text/plain",
            body: format!("{channel} {} {} {body}", call.method, call.target),
        })
    }

    async fn wake_key(&self, device: &Device) -> Result<Option<WakeKey>, ServiceError> {
        Ok(device.tokens.first().map(|_| WakeKey {
            key: Secret::new(device.secret_hash),
            app: [0, 0xc0, 0xff, 0xee],
            valid: Duration::from_secs(3_600),
        }))
    }

    async fn quotas(&self, _app: &AppId) -> Result<Vec<QuotaStanding>, ServiceError> {
        Ok(vec![QuotaStanding {
            channel: ChannelId::parse("vivo").unwrap(),
            credential: CredentialName::parse("default").unwrap(),
            day_start: Timestamp(0),
            resets_at: Timestamp(86_400_000),
            used: vec![(Class::Im, 3), (Class::Marketing, 60)],
            per_day: Some(100),
            per_day_named: false,
            marketing_per_day: Some(80),
            marketing_named: true,
            named: vec![DailyLimit {
                of: LimitOf::Marketing,
                part: String::new(),
                limit: 80,
                used: Some(61),
                at: Timestamp(1_000),
            }],
            reserved: 17,
            marketing_reserved: 4,
            runs_out_at: None,
            marketing_runs_out_at: Some(Timestamp(40_000_000)),
            closed: vec![ClosedClass {
                class: Class::Im,
                until: Timestamp(50_000),
                why: "over".to_owned(),
            }],
        }])
    }
}

/// Accepts what names the subprotocol `echo`, and greets with what the client sent early.
#[derive(Debug, Default)]
pub(crate) struct FakeConnect;

#[async_trait]
impl Connect for FakeConnect {
    fn check(
        &self,
        path: &str,
        method: &Method,
        version: Version,
        headers: &HeaderMap,
        origins: &[String],
        _from: hongyan_api::services::From<'_>,
    ) -> Result<Upgrade, Refused> {
        assert_eq!(path, "/v1/connect");
        let refuse = |status, headers| {
            Err(Refused {
                status,
                headers,
                detail: "not a good request".to_owned(),
            })
        };
        assert_eq!(*method, Method::GET);
        let origin = headers.get("origin").map(|o| o.to_str().unwrap());
        if origin.is_some_and(|o| !origins.iter().any(|one| one == o)) {
            return refuse(StatusCode::FORBIDDEN, vec![]);
        }
        if headers
            .get("sec-websocket-version")
            .is_none_or(|v| v != "13")
        {
            let version = HeaderName::from_static("sec-websocket-version");
            return refuse(
                StatusCode::UPGRADE_REQUIRED,
                vec![(version, HeaderValue::from_static("13"))],
            );
        }
        if version != Version::HTTP_11 {
            return refuse(StatusCode::BAD_REQUEST, vec![]);
        }
        Ok(Upgrade {
            headers: vec![(
                HeaderName::from_static("sec-websocket-protocol"),
                HeaderValue::from_static("echo"),
            )],
            place: Place(Box::new("echo")),
        })
    }

    fn ticket(
        &self,
        _text: &hongyan_core::Secret,
        _device: &hongyan_core::Device,
        _now: hongyan_core::Timestamp,
    ) -> Option<std::time::Duration> {
        Some(std::time::Duration::from_secs(60))
    }

    fn adopt(&self, socket: Adopted) {
        let Adopted {
            mut stream,
            mut tls,
            leftover,
            peer,
            place,
        } = socket;
        let subprotocol: &str = *place.0.downcast::<&'static str>().unwrap();
        assert!(peer.ip().is_loopback());
        std::thread::spawn(move || {
            stream.set_nonblocking(false).unwrap();
            let mut greeting = format!("{subprotocol}:").into_bytes();
            greeting.extend_from_slice(&leftover);
            match &mut tls {
                None => stream.write_all(&greeting).unwrap(),
                Some(tls) => {
                    let tls = &mut tls.connection;
                    tls.writer().write_all(&greeting).unwrap();
                    while tls.wants_write() {
                        tls.write_tls(&mut stream).unwrap();
                    }
                }
            }
        });
    }

    /// Streams what it was asked with, as one event.
    async fn stream(&self, request: StreamRequest) -> Result<Bytestream, Turned> {
        let turned = |status| Turned {
            kicked: false,
            status,
            detail: "turned".to_owned(),
        };
        let who = match &request.caller {
            LiveCaller::Device(device) => device.id.to_string(),
            LiveCaller::Ticket(ticket) if ticket.expose() == b"used" => {
                return Err(turned(StatusCode::UNAUTHORIZED));
            }
            LiveCaller::Ticket(_) => "ticket".to_owned(),
        };
        match request.session.as_deref() {
            Some("taken") => return Err(turned(StatusCode::NO_CONTENT)),
            Some("full") => return Err(turned(StatusCode::SERVICE_UNAVAILABLE)),
            _ => {}
        }
        let asked = serde_json::json!({
            "who": who,
            "cursor": request.cursor.map(|cursor| cursor.to_string()),
            "inflight": request.inflight,
            "resume": request.resume,
            "origin": request.origin,
        });
        let event = bytes::Bytes::from(format!("event: welcome\ndata: {asked}\n\n"));
        Ok(Box::pin(futures_util::stream::iter([event])))
    }

    /// Answers with what it was asked.
    async fn poll(&self, request: PollRequest) -> Result<PollAnswer, Turned> {
        let cursor = request.cursor.unwrap_or(PLACE);
        let asked = serde_json::json!({
            "id": request.device.id.to_string(),
            "wait_ms": request.wait.as_millis() as u64,
            "limit": request.limit,
        });
        Ok(PollAnswer {
            cursor,
            head: PLACE,
            more: true,
            reset: cursor != PLACE,
            superseded: false,
            messages: vec![asked.to_string().into_bytes()],
            recalled: Vec::new(),
        })
    }

    fn acked(&self, _reader: &Reader, _ack: Ack) {}

    fn state(&self, _app: &AppId, _device: &DeviceId, _state: AppState) {}
}

/// A place in some inbox.
pub(crate) const PLACE: Cursor = Cursor {
    epoch: 1,
    reader: 2,
    user: 3,
    device: 4,
    broadcast: 5,
};

/// A final event of a delivery, for counters and traces.
pub(crate) fn ended(mut event: Event, device: &str, user: &str, reason: Reason) -> Event {
    event.device = Some(DeviceId::parse(device).unwrap());
    event.user = Some(UserId::parse(user).unwrap());
    event.platform = Some(hongyan_core::device::Platform::Ios);
    event.class = Some(hongyan_core::Class::Im);
    event.reason = Some(reason);
    event.r#final = true;
    event
}
