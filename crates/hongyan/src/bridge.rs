//! Bridges between rooms that do not know each other: what the API asks for, done by dispatch and gateway.

use std::sync::Arc;

use async_trait::async_trait;
use hongyan_api::services as wanted;
use hongyan_core::app::{Credential, LaneLimits};
use hongyan_core::draft::Draft;
use hongyan_core::limits::VENDOR_CALL_DEADLINE;
use hongyan_core::port::{Broadcasts, CallbackRequest, CheckReport, SessionSink, WakeKey};
use hongyan_core::session::SessionEvent;
use hongyan_core::{
    AppId, ChannelId, CredentialName, Device, DeviceId, MessageId, StoreError, UserId,
};
use hongyan_dispatch::Dispatch;
use hongyan_dispatch::credentials::{CredentialError, NewCredential};
use hongyan_dispatch::explain::{ExplainError, Would};
use hongyan_dispatch::intake::{AcceptError, IdempotencyKey};
use hongyan_dispatch::quota::{Account, Day, Effective, Terms};
use hongyan_dispatch::receipts::CallbackRefused;
use wanted::ServiceError;

/// Dispatch, as the API wants it.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) dispatch: Dispatch,
    pub(crate) registry: std::sync::Arc<dyn hongyan_core::port::Registry>,
    pub(crate) clock: std::sync::Arc<dyn hongyan_core::port::Clock>,
}

impl Services {
    /// Perhaps a changed credential has more quota: what its vendor said today is forgotten.
    async fn reopen(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Result<(), ServiceError> {
        let account = Account {
            app: app.clone(),
            channel: channel.clone(),
            credential: name.clone(),
        };
        self.dispatch.quotas().reopen(&account).await?;
        Ok(())
    }
}

#[async_trait]
impl wanted::Services for Services {
    async fn accept(
        &self,
        app: &AppId,
        drafts: Vec<Draft>,
        idempotency: Option<wanted::IdempotencyKey>,
    ) -> Result<wanted::Accepted, ServiceError> {
        let key = idempotency.map(|i| IdempotencyKey {
            key: i.key,
            body_hash: i.body_hash,
        });
        match self.dispatch.intake().accept(app, drafts, key).await {
            Ok(done) => Ok(wanted::Accepted {
                ids: done.ids,
                replayed: done.replayed,
            }),
            Err(AcceptError::Invalid(faults)) => Err(ServiceError::Invalid(faults)),
            Err(AcceptError::KeyReused) => Err(ServiceError::KeyReused),
            Err(AcceptError::Store(error)) => Err(error.into()),
        }
    }

    async fn explain(
        &self,
        app: &AppId,
        draft: Draft,
    ) -> Result<wanted::Explanation, ServiceError> {
        match self.dispatch.explainer().explain(app, draft).await {
            Ok(said) => Ok(wanted::Explanation {
                more: said.more,
                devices: said
                    .devices
                    .into_iter()
                    .map(|d| wanted::DeviceExplanation {
                        device: d.device,
                        user: d.user,
                        platform: d.platform,
                        connected: d.connected,
                        would: would(d.would),
                    })
                    .collect(),
            }),
            Err(ExplainError::Invalid(faults)) => Err(ServiceError::Invalid(vec![(0, faults)])),
            Err(ExplainError::Store(error)) => Err(error.into()),
        }
    }

    async fn recall(
        &self,
        app: &AppId,
        id: MessageId,
    ) -> Result<wanted::RecallReport, ServiceError> {
        let done = self
            .dispatch
            .recall()
            .recall(app, id)
            .await
            .map_err(not_found)?;
        Ok(wanted::RecallReport {
            stopped: done.stopped,
            withdrawn: done.withdrawn,
        })
    }

    async fn login(
        &self,
        app: &AppId,
        device: &DeviceId,
        user: &UserId,
    ) -> Result<(), ServiceError> {
        self.dispatch
            .bindings()
            .login(app, device, user)
            .await
            .map_err(not_found)?;
        Ok(())
    }

    async fn logout(&self, app: &AppId, device: &DeviceId) -> Result<(), ServiceError> {
        self.dispatch
            .bindings()
            .logout(app, device)
            .await
            .map_err(not_found)?;
        Ok(())
    }

    async fn kick(&self, app: &AppId, device: &DeviceId) -> Result<(), ServiceError> {
        self.dispatch
            .bindings()
            .kick(app, device)
            .await
            .map_err(not_found)?;
        Ok(())
    }

    async fn delete_device(&self, app: &AppId, device: &DeviceId) -> Result<bool, ServiceError> {
        Ok(self.dispatch.bindings().forget(app, device).await?)
    }

    async fn forget_user(&self, app: &AppId, user: &UserId) -> Result<bool, ServiceError> {
        Ok(self.dispatch.bindings().forget_user(app, user).await?)
    }

    async fn preferences_changed(&self, app: &AppId, user: &UserId) -> Result<(), ServiceError> {
        let holds = self.dispatch.holds();
        Ok(holds.preferences_changed(app, user).await?)
    }

    async fn timezone_changed(&self, app: &AppId, device: &DeviceId) -> Result<(), ServiceError> {
        Ok(self.dispatch.holds().timezone_changed(app, device).await?)
    }

    async fn feedback(&self, events: Vec<SessionEvent>) {
        self.dispatch.feedback().accept(events).await;
    }

    async fn put_credential(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
        new: wanted::NewCredential,
    ) -> Result<(), ServiceError> {
        let new = NewCredential {
            config: new.config,
            endpoint: new.endpoint,
            limits: new.limits,
        };
        let credentials = self.dispatch.credentials();
        let put = credentials.put(app, channel, name, new).await;
        put.map_err(credential)?;
        self.reopen(app, channel, name).await
    }

    async fn limit_credential(
        &self,
        read: Credential,
        limits: LaneLimits,
    ) -> Result<Credential, ServiceError> {
        // What the vendor said of its own limits says it of the same credential still.
        let limited = self.dispatch.credentials().limit(read, limits).await;
        limited.map_err(credential)
    }

    fn waiting(&self, app: &AppId, channel: &ChannelId, name: &CredentialName) -> usize {
        self.dispatch.waiting(app, channel, name)
    }

    async fn delete_credential(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Result<bool, ServiceError> {
        let known = self.registry.delete_credential(app, channel, name).await?;
        self.dispatch.credentials().forget(app, channel, name);
        Ok(known)
    }

    async fn check_credential(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Result<CheckReport, ServiceError> {
        let credentials = self.dispatch.credentials();
        credentials
            .check(app, channel, name, VENDOR_CALL_DEADLINE)
            .await
            .map_err(credential)
    }

    async fn broadcasts(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Result<Option<Arc<dyn Broadcasts>>, ServiceError> {
        let credentials = self.dispatch.credentials();
        let opened = credentials
            .open(app, channel, name)
            .await
            .map_err(credential)?;
        Ok(opened.channel.broadcasts())
    }

    fn callback_url(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Option<String> {
        self.dispatch.credentials().callback_url(app, channel, name)
    }

    async fn callback(
        &self,
        app: &AppId,
        channel: &ChannelId,
        call: wanted::CallbackCall,
    ) -> Result<wanted::CallbackReply, ServiceError> {
        let url = self.dispatch.credentials().public(&call.target);
        let request = CallbackRequest {
            method: &call.method,
            url: &url,
            headers: &call.headers,
            body: &call.body,
            now: self.clock.now(),
        };
        let taken = self
            .dispatch
            .receipts()
            .callback(
                app,
                channel,
                call.credential.as_ref(),
                call.secret.as_deref(),
                &request,
            )
            .await
            .map_err(callback)?;
        Ok(wanted::CallbackReply {
            content_type: taken.content_type,
            body: taken.body,
        })
    }

    async fn wake_key(&self, device: &Device) -> Result<Option<WakeKey>, ServiceError> {
        let credentials = self.dispatch.credentials();
        credentials.wake_key(device).await.map_err(credential)
    }

    async fn quotas(&self, app: &AppId) -> Result<Vec<wanted::QuotaStanding>, ServiceError> {
        let mut standings = Vec::new();
        for c in self.registry.credentials(app).await? {
            let Some(vendor) = self.dispatch.credentials().vendor(&c.channel) else {
                continue;
            };
            let account = Account {
                app: c.app,
                channel: c.channel,
                credential: c.name,
            };
            let credentials = self.dispatch.credentials();
            let opening = credentials.open(&account.app, &account.channel, &account.credential);
            // One that does not open names nothing; its own limits are shown all the same.
            let terms = match opening.await {
                Ok(opened) => Terms::of(opened.channel.as_ref(), opened.vendor.as_ref()),
                Err(_) => Terms::unopened(vendor.as_ref()),
            };
            let offset_s = vendor.day_offset_s();
            let at = self.clock.now();
            let limits = Effective::of(&c.limits.quota, &terms, Day::at(at, offset_s), at);
            let quotas = self.dispatch.quotas();
            let now = quotas.standing(&account, &limits, offset_s).await?;
            let used: u64 = now.used.iter().map(|(_, n)| n).sum();
            let silent = limits.quota.is_empty() && terms.named.is_empty();
            if silent && now.closed.is_empty() && used == 0 {
                continue;
            }
            standings.push(wanted::QuotaStanding {
                channel: account.channel,
                credential: account.credential,
                day_start: now.day.start,
                resets_at: now.day.end,
                used: now.used,
                per_day: now.per_day,
                per_day_named: now.per_day_named,
                marketing_per_day: now.marketing_per_day,
                marketing_named: now.marketing_named,
                named: terms.named,
                reserved: now.reserved,
                marketing_reserved: now.marketing_reserved,
                runs_out_at: now.runs_out_at,
                marketing_runs_out_at: now.marketing_runs_out_at,
                closed: (now.closed.into_iter())
                    .map(|(class, closed)| wanted::ClosedClass {
                        class,
                        until: closed.until,
                        why: closed.why,
                    })
                    .collect(),
            });
        }
        Ok(standings)
    }
}

fn callback(refused: CallbackRefused) -> ServiceError {
    match refused {
        CallbackRefused::Unknown => ServiceError::NotFound {
            entity: "callback address",
        },
        CallbackRefused::Unproved(_) => ServiceError::Forbidden(refused.to_string()),
        CallbackRefused::Replayed => ServiceError::Repeated(refused.to_string()),
        CallbackRefused::Malformed(why) => ServiceError::Malformed(why),
        CallbackRefused::Credential(source) => {
            tracing::warn!(error = %source, "a callback came for a credential that does not open");
            ServiceError::Credential("the credential of this address cannot be used".to_owned())
        }
        CallbackRefused::Store(error) => error.into(),
    }
}

fn would(from: Would) -> wanted::Would {
    match from {
        Would::Online { until, otherwise } => wanted::Would::Online {
            until,
            otherwise: Box::new(would(*otherwise)),
        },
        Would::Both { beside } => wanted::Would::Both {
            beside: Box::new(would(*beside)),
        },
        Would::Push {
            channel,
            credential,
            parcel,
        } => wanted::Would::Push {
            channel,
            credential,
            parcel,
        },
        Would::Hold { until, reason } => wanted::Would::Hold { until, reason },
        Would::End(reason) => wanted::Would::End(reason),
    }
}

fn not_found(error: StoreError) -> ServiceError {
    match error {
        StoreError::NotFound { entity } => ServiceError::NotFound { entity },
        other => other.into(),
    }
}

fn credential(error: CredentialError) -> ServiceError {
    match error {
        CredentialError::UnknownChannel(channel) => ServiceError::UnknownChannel(channel),
        CredentialError::Invalid(faults) => ServiceError::Config(faults),
        CredentialError::Missing { .. } => ServiceError::NotFound {
            entity: "credential",
        },
        CredentialError::Store(error) => error.into(),
        other @ (CredentialError::Seal { .. } | CredentialError::Channel(_)) => {
            ServiceError::Credential(other.to_string())
        }
    }
}

fn caller(caller: wanted::LiveCaller) -> hongyan_gateway::protocol::sse::Caller {
    use hongyan_gateway::protocol::sse::Caller;
    match caller {
        wanted::LiveCaller::Device(device) => Caller::Device {
            app: device.app,
            device: device.id,
            secret_hash: device.secret_hash,
        },
        wanted::LiveCaller::Ticket(ticket) => Caller::Ticket(ticket),
    }
}

fn busy(busy: hongyan_gateway::Busy) -> wanted::Turned {
    wanted::Turned {
        status: match busy {
            hongyan_gateway::Busy::Full => http::StatusCode::SERVICE_UNAVAILABLE,
            hongyan_gateway::Busy::Address => http::StatusCode::TOO_MANY_REQUESTS,
        },
        kicked: false,
        detail: busy.to_string(),
    }
}

fn turned(turned: hongyan_gateway::protocol::sse::Turned) -> wanted::Turned {
    use hongyan_gateway::protocol::websocket::close;
    use http::StatusCode;
    wanted::Turned {
        status: match turned.code {
            close::UNAUTHORIZED => StatusCode::UNAUTHORIZED,
            close::FORBIDDEN => StatusCode::FORBIDDEN,
            close::DEVICE_GONE => StatusCode::GONE,
            close::RESTART | close::TAKEN_OVER => StatusCode::CONFLICT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        },
        kicked: turned.word == close::KICKED,
        detail: turned.detail.to_owned(),
    }
}

/// A place at the gateway, and what will be spoken on it.
struct Way {
    permit: hongyan_gateway::Permit,
    speech: hongyan_gateway::Speech,
}

/// The gateway, as the API wants it, with the server's address where it is known.
#[derive(Debug)]
pub(crate) struct Connect(
    pub(crate) hongyan_gateway::GatewayHandle,
    pub(crate) Option<http::Uri>,
);

impl Connect {
    /// A place for one more connection from this address, or the answer that there is none.
    fn place(
        &self,
        peer: std::net::SocketAddr,
    ) -> Result<hongyan_gateway::Permit, wanted::Refused> {
        use hongyan_gateway::Busy;
        self.0.admit(peer.ip()).map_err(|busy| wanted::Refused {
            status: match busy {
                Busy::Full => http::StatusCode::SERVICE_UNAVAILABLE,
                Busy::Address => http::StatusCode::TOO_MANY_REQUESTS,
            },
            headers: vec![(
                http::header::RETRY_AFTER,
                http::HeaderValue::from_static("5"),
            )],
            detail: busy.to_string(),
        })
    }
}

#[async_trait]
impl wanted::Connect for Connect {
    fn check(
        &self,
        path: &str,
        method: &http::Method,
        version: http::Version,
        headers: &http::HeaderMap,
        origins: &[String],
        from: wanted::From<'_>,
    ) -> Result<wanted::Upgrade, wanted::Refused> {
        use hongyan_gateway::handshake::Door;
        use http::header::{HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL};
        let Some(door) = Door::at(path).filter(|door| self.0.speaks(*door)) else {
            return Err(wanted::Refused {
                status: http::StatusCode::NOT_FOUND,
                headers: Vec::new(),
                detail: format!("nothing is spoken at {path}"),
            });
        };
        let (scheme, public) = (from.scheme, self.1.as_ref());
        let judged = hongyan_gateway::handshake::check(
            door, method, version, headers, scheme, public, origins,
        );
        match judged {
            Ok(accepted) => {
                let accept =
                    HeaderValue::from_str(&accepted.accept).map_err(|_| wanted::Refused {
                        status: http::StatusCode::BAD_REQUEST,
                        headers: Vec::new(),
                        detail: "Sec-WebSocket-Key is not 16 bytes of base64".to_owned(),
                    })?;
                let mut headers = vec![(SEC_WEBSOCKET_ACCEPT, accept)];
                headers.extend(
                    accepted
                        .subprotocol
                        .map(|name| (SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name))),
                );
                let place = Way {
                    permit: self.place(from.peer)?.from_page(accepted.origin),
                    speech: accepted.speech.at(path),
                };
                Ok(wanted::Upgrade {
                    headers,
                    place: wanted::Place(Box::new(place)),
                })
            }
            Err(refused) => Err(wanted::Refused {
                status: refused.status,
                headers: refused
                    .header
                    .into_iter()
                    .map(|(name, value)| (name, HeaderValue::from_static(value)))
                    .collect(),
                detail: refused.detail.to_owned(),
            }),
        }
    }

    fn ticket(
        &self,
        text: &hongyan_core::Secret,
        device: &hongyan_core::Device,
        now: hongyan_core::Timestamp,
    ) -> Option<std::time::Duration> {
        self.0
            .issue_ticket(text, device, now)
            .then_some(hongyan_gateway::TICKET_TTL)
    }

    fn adopt(&self, adopted: wanted::Adopted) {
        use hongyan_gateway::{Socket, Tls};
        let Ok(way) = adopted.place.0.downcast::<Way>() else {
            tracing::error!("a socket came with somebody else's place");
            return;
        };
        let Way { permit, speech } = *way;
        let socket = match adopted.tls {
            Some(tls) => Socket::Tls(adopted.stream, Box::new(Tls::from(*tls))),
            None => Socket::Plain(adopted.stream),
        };
        if let Err(error) = self.0.adopt(socket, adopted.leftover, speech, permit) {
            tracing::debug!(%error, "a connection was not taken");
        }
    }

    async fn stream(
        &self,
        request: wanted::StreamRequest,
    ) -> Result<wanted::Bytestream, wanted::Turned> {
        use hongyan_gateway::protocol::sse;
        if self.0.hub().was_taken(request.session.as_deref()) {
            return Err(wanted::Turned {
                status: http::StatusCode::NO_CONTENT,
                kicked: false,
                detail: String::new(),
            });
        }
        let permit = self.0.admit(request.peer.ip()).map_err(busy)?;
        let asked = sse::Request {
            caller: caller(request.caller),
            cursor: request.cursor,
            inflight: request.inflight,
            ack: if request.resume {
                sse::AckMode::Resume
            } else {
                sse::AckMode::Explicit
            },
        };
        let permit = permit.from_page(request.origin);
        let stream = self.0.open_stream(asked, permit).await.map_err(turned)?;
        Ok(Box::pin(stream))
    }

    async fn poll(
        &self,
        request: wanted::PollRequest,
    ) -> Result<wanted::PollAnswer, wanted::Turned> {
        use hongyan_gateway::protocol::poll;
        let asked = poll::Request {
            cursor: request.cursor,
            wait_ms: u64::try_from(request.wait.as_millis()).unwrap_or(u64::MAX),
            limit: request.limit,
        };
        let who = caller(wanted::LiveCaller::Device(request.device));
        let admit = || self.0.admit(request.peer.ip());
        let answer = self.0.poll(who, asked, admit).await.map_err(turned)?;
        Ok(wanted::PollAnswer {
            cursor: answer.cursor,
            head: answer.head,
            more: answer.more,
            reset: answer.reset,
            superseded: answer.superseded,
            messages: answer.messages,
            recalled: answer.recalled,
        })
    }

    fn acked(&self, reader: &hongyan_core::port::Reader, ack: hongyan_core::port::Ack) {
        self.0.hub().acked(reader, ack);
    }

    fn state(&self, app: &AppId, device: &DeviceId, state: hongyan_core::session::AppState) {
        self.0.hub().set_device_state(app, device, state);
    }
}
