//! CONNECT: who it is, and which session it gets.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use super::connection::End;
use super::session::{Session, Will};
use super::{Broker, ConnectionId, SessionId};
use crate::packet::{
    ConnAck, Connect, Packet, Properties, Property, PropertyList, ReasonCode, Version,
};
use crate::topic;

impl Broker {
    pub(super) fn connect(&mut self, now: Duration, id: ConnectionId, connect: &Connect<'_>) {
        if let Err(reason) = self.admit(connect) {
            self.refuse_connect(id, connect.version, reason);
            return;
        }
        let assigned = connect.client_id.is_empty();
        let client_id = match assigned {
            true => self.assign_client_id(),
            false => connect.client_id.into(),
        };
        let before = self.take_over(now, &client_id, connect.clean_start);
        if before.is_none() && self.sessions.len() >= self.options.sessions_max {
            self.refuse_connect(id, connect.version, ReasonCode::QUOTA_EXCEEDED);
            return;
        }
        let session_id = match before {
            Some(session) => session,
            None => self.new_session(Arc::clone(&client_id)),
        };
        let asked = expiry_asked(connect);
        let expiry = asked.min(self.options.session_expiry_max);
        if let Some(session) = self.sessions.get_mut(&session_id) {
            session.connection = Some(id);
            session.expiry = expiry;
            session.will = connect.will.as_ref().map(|will| Will {
                topic: will.topic.into(),
                payload: will.payload.into(),
                properties: {
                    let mut properties = PropertyList::new();
                    properties.append(will.properties);
                    properties
                },
                qos: will.qos,
                retain: will.retain,
                delay: Duration::from_secs(will.properties.will_delay().unwrap_or(0).into()),
            });
        }
        let keep_alive = self.attach(now, id, session_id, connect);

        let mut list = PropertyList::new();
        if connect.version == Version::V5 {
            let shortened = (expiry < asked).then(|| seconds(expiry));
            let response_info = connect.properties.request_response_info() == Some(true);
            let response_info = response_info.then(|| format!("response/{client_id}"));
            let told = [
                Some(Property::ReceiveMaximum(self.options.receive_max)),
                Some(Property::MaximumPacketSize(
                    self.options.limits.packet_bytes_max,
                )),
                Some(Property::TopicAliasMaximum(self.options.topic_alias_max)),
                shortened.map(Property::SessionExpiry),
                keep_alive.map(Property::ServerKeepAlive),
                assigned.then_some(Property::AssignedClientId(&client_id)),
                response_info.as_deref().map(Property::ResponseInfo),
            ];
            list.extend(told.into_iter().flatten());
        }
        let connack = Packet::ConnAck(ConnAck {
            session_present: before.is_some(),
            reason: ReasonCode::SUCCESS,
            properties: list.as_properties(),
        });
        if self.send(id, &connack) {
            self.pump(now, session_id);
        } else {
            // It takes no packet as large as the answer, so it cannot be served.
            self.close(now, id, End::Lost);
        }
    }

    fn admit(&self, connect: &Connect<'_>) -> Result<(), ReasonCode> {
        if connect.properties.auth_method().is_some() {
            return Err(ReasonCode::BAD_AUTHENTICATION_METHOD);
        }
        if !self
            .options
            .access
            .allows(connect.user_name, connect.password)
        {
            return Err(ReasonCode::BAD_USER_NAME_OR_PASSWORD);
        }
        if let Some(will) = &connect.will {
            if !topic::is_within_limits(will.topic) {
                return Err(ReasonCode::TOPIC_NAME_INVALID);
            }
            if super::publish::is_reserved(will.topic) {
                return Err(ReasonCode::NOT_AUTHORIZED);
            }
            if will.properties.payload_format() == Some(1)
                && std::str::from_utf8(will.payload).is_err()
            {
                return Err(ReasonCode::PAYLOAD_FORMAT_INVALID);
            }
        }
        Ok(())
    }

    /// A CONNACK, where the version has one for the reason, and the end.
    fn refuse_connect(&mut self, id: ConnectionId, version: Version, reason: ReasonCode) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if version == Version::V5 || reason.return_code().is_some() {
            let connack = Packet::ConnAck(ConnAck {
                session_present: false,
                reason,
                properties: Properties::NONE,
            });
            // A CONNACK without properties always has a form.
            let _ = connack.encode(version, &mut connection.output);
        }
        connection.closing = true;
        self.wake(id);
    }

    /// Ends whatever connection the client has and answers the session that goes on [3.1.4-3].
    fn take_over(&mut self, now: Duration, client_id: &str, clean: bool) -> Option<SessionId> {
        let session_id = self.by_client.get(client_id).copied()?;
        if let Some(old) = self.sessions.get(&session_id)?.connection {
            let reason = ReasonCode::SESSION_TAKEN_OVER;
            self.fail(now, old, reason, "the client has a new connection");
        }
        // The session may have ended with its connection.
        let session = self.sessions.get_mut(&session_id)?;
        if clean {
            self.end_session(now, session_id);
            return None;
        }
        // It is back before its will's delay was over [3.1.3-9].
        session.will = None;
        session.will_due = None;
        session.ends = None;
        self.arm_session(session_id);
        Some(session_id)
    }

    fn new_session(&mut self, client_id: Arc<str>) -> SessionId {
        self.next_id += 1;
        let id = SessionId(self.next_id);
        self.by_client.insert(Arc::clone(&client_id), id);
        self.sessions.insert(id, Session::new(client_id));
        id
    }

    /// A client identifier that nobody has [3.1.3-6].
    fn assign_client_id(&mut self) -> Arc<str> {
        loop {
            self.assigned += 1;
            let id: Arc<str> = format!("assigned-{}", self.assigned).into();
            if let Entry::Vacant(_) = self.by_client.entry(Arc::clone(&id)) {
                return id;
            }
        }
    }

    /// Sets a connection up as the client asked for; answers the keep alive that a 5.0 client must take instead.
    fn attach(
        &mut self,
        now: Duration,
        id: ConnectionId,
        session: SessionId,
        connect: &Connect<'_>,
    ) -> Option<u16> {
        let options = &self.options;
        let connection = self.connections.get_mut(&id)?;
        let properties = &connect.properties;
        let asked = Duration::from_secs(connect.keep_alive.into());
        let demanded = (connect.version == Version::V5
            && (asked.is_zero() || asked > options.keep_alive_max))
            .then_some(options.keep_alive_max);
        let keep_alive = demanded.unwrap_or(asked);
        connection.silence = match keep_alive.is_zero() {
            true => options.silence_max,
            false => keep_alive * 3 / 2,
        };
        connection.version = Some(connect.version);
        connection.session = Some(session);
        connection.heard = now;
        connection.receive_max = properties
            .receive_maximum()
            .unwrap_or(u16::MAX)
            .min(options.inflight_max)
            .into();
        connection.packet_max = properties
            .maximum_packet_size()
            .map_or(usize::MAX, |size| size as usize);
        connection.alias_out_max = properties
            .topic_alias_maximum()
            .unwrap_or(0)
            .min(options.topic_alias_max)
            .into();
        connection.problem_info = properties.request_problem_info() != Some(false);
        let due = now + connection.silence;
        self.arm_connection(id, due);
        demanded.map(|keep_alive| u16::try_from(keep_alive.as_secs()).unwrap_or(u16::MAX))
    }
}

/// How long the session is to outlive its connection: 3.1.1 knows only never and for ever.
fn expiry_asked(connect: &Connect<'_>) -> Duration {
    match (connect.version, connect.clean_start) {
        (Version::V311, true) => Duration::ZERO,
        (Version::V311, false) => Duration::MAX,
        (Version::V5, _) => match connect.properties.session_expiry().unwrap_or(0) {
            u32::MAX => Duration::MAX,
            seconds => Duration::from_secs(seconds.into()),
        },
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
