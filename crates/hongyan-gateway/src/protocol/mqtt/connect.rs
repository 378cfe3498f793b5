//! From CONNECT to CONNACK: who a client is, and what both sides agree on.

use hongyan_core::app::{Key, KeyKind, Scope};
use hongyan_core::session::AppState;
use hongyan_core::{AppId, Device, StoreError};
use hongyan_mqtt::packet::{
    ConnAck, Connect, Limits, Packet, Property, PropertyList, QoS, ReasonCode, Version,
};

use super::{ALIASES_MAX, Client, Kept, RECEIVE_MAX, Stage};
use crate::gateway::Ports;
use crate::protocol::{Desk, Hello, Proof, Welcome};

/// User name of an app's server; its password is a server key with the scope `send`.
const SERVER: &str = "server";
/// Entries in flight towards a 5.0 client, whatever it allows; and towards a 3.1.1 client, which cannot say.
const INFLIGHT_MAX: u16 = 100;
const INFLIGHT_V3: u16 = 20;
/// Longest time between two packets of a client, seconds; longer ones are shortened in 5.0.
const KEEP_ALIVE_S_MAX: u16 = 1200;

/// What CONNECT said, until it is answered.
#[derive(Debug)]
pub(super) struct Greeting {
    client_id: Box<str>,
    user: Box<str>,
    pub(super) clean: bool,
    /// The keep alive that the client asked for.
    asked_s: u16,
}

/// Answers of the store.
pub(super) enum Found {
    Device(Box<Device>),
    Server(AppId),
    Nobody,
    Away(StoreError),
}

impl Client {
    pub(super) fn connect(&mut self, connect: &Connect<'_>, desk: &mut Desk<'_>) {
        self.version = connect.version;
        self.stage = Stage::Asked;
        let properties = connect.properties;
        if properties.auth_method().is_some() {
            self.fail(ReasonCode::BAD_AUTHENTICATION_METHOD, "bad_auth", desk);
            return;
        }
        if let Some(will) = &connect.will {
            let refused = match will.topic {
                _ if will.retain => Some(ReasonCode::RETAIN_NOT_SUPPORTED),
                _ if will.qos == QoS::ExactlyOnce => Some(ReasonCode::QOS_NOT_SUPPORTED),
                "hy/me/status" => None,
                _ => Some(ReasonCode::NOT_AUTHORIZED),
            };
            if let Some(reason) = refused {
                self.fail(reason, "bad_will", desk);
                return;
            }
        }
        let (Some(user), Some(password)) = (connect.user_name, connect.password) else {
            self.fail(ReasonCode::BAD_USER_NAME_OR_PASSWORD, "unauthorized", desk);
            return;
        };
        self.expiry_s = match self.version {
            // 3.1.1 has no expiry: the session is kept or not.
            Version::V311 => {
                if connect.clean_start {
                    0
                } else {
                    u32::MAX
                }
            }
            Version::V5 => properties.session_expiry().unwrap_or(0),
        };
        self.packet_bytes_max = properties.maximum_packet_size().unwrap_or(u32::MAX);
        let receive_max = match self.version {
            Version::V311 => INFLIGHT_V3,
            Version::V5 => properties.receive_maximum().unwrap_or(u16::MAX),
        };
        self.flights.limit(receive_max.min(INFLIGHT_MAX));
        self.greeting = Some(Box::new(Greeting {
            client_id: connect.client_id.into(),
            user: user.into(),
            clean: connect.clean_start,
            asked_s: connect.keep_alive,
        }));
        let hash = ring::digest::digest(&ring::digest::SHA256, password);
        let hash: [u8; 32] = hash.as_ref().try_into().unwrap_or_default();
        let server = user == SERVER;
        let asked = desk.ask(move |ports| async move { who(&ports, server, hash).await });
        if !asked {
            self.fail(ReasonCode::SERVER_BUSY, "busy", desk);
        }
    }

    pub(super) fn found(&mut self, found: Found, desk: &mut Desk<'_>) {
        let Some(greeting) = &self.greeting else {
            return;
        };
        match found {
            Found::Device(device) => {
                let client_id = greeting.client_id.as_ref();
                if !client_id.is_empty() && client_id != device.id.as_str() {
                    self.fail(ReasonCode::CLIENT_ID_NOT_VALID, "bad_client_id", desk);
                    return;
                }
                if !is_user(&greeting.user, &device) {
                    self.fail(ReasonCode::BAD_USER_NAME_OR_PASSWORD, "unauthorized", desk);
                    return;
                }
                desk.hello(Hello {
                    proof: Proof::Device {
                        app: device.app,
                        device: device.id,
                        secret_hash: device.secret_hash,
                    },
                    cursor: None,
                    inflight: Some(self.flights.limit_of()),
                    state: AppState::Foreground,
                });
            }
            Found::Server(app) => {
                self.stage = Stage::Server;
                self.app = Some(Box::new(app));
                self.expiry_s = 0;
                desk.stay();
                self.connack(false, None, desk);
            }
            Found::Nobody => {
                self.fail(ReasonCode::BAD_USER_NAME_OR_PASSWORD, "unauthorized", desk);
            }
            Found::Away(error) => {
                tracing::warn!(%error, "an MQTT client could not be looked up");
                self.fail(ReasonCode::SERVER_UNAVAILABLE, "unavailable", desk);
            }
        }
    }

    pub(super) fn connack(
        &mut self,
        session_present: bool,
        device: Option<&str>,
        desk: &mut Desk<'_>,
    ) {
        let Some(greeting) = self.greeting.take() else {
            return;
        };
        let too_long = greeting.asked_s == 0 || greeting.asked_s > KEEP_ALIVE_S_MAX;
        let mut list = PropertyList::new();
        if self.is_v5() {
            let assigned = device.filter(|_| greeting.client_id.is_empty());
            let properties = [
                Some(Property::ReceiveMaximum(RECEIVE_MAX)),
                Some(Property::MaximumQos(1)),
                Some(Property::RetainAvailable(false)),
                Some(Property::MaximumPacketSize(
                    Limits::DEFAULT.packet_bytes_max,
                )),
                Some(Property::TopicAliasMaximum(ALIASES_MAX)),
                Some(Property::SharedAvailable(false)),
                too_long.then_some(Property::ServerKeepAlive(KEEP_ALIVE_S_MAX)),
                assigned.map(Property::AssignedClientId),
            ];
            for property in properties.into_iter().flatten() {
                // Short texts: they fit.
                let _ = list.push(property);
            }
            self.keep_alive_s = u32::from(if too_long {
                KEEP_ALIVE_S_MAX
            } else {
                greeting.asked_s
            });
        } else {
            self.keep_alive_s = u32::from(greeting.asked_s);
        }
        let answer = ConnAck {
            session_present,
            reason: ReasonCode::SUCCESS,
            properties: list.as_properties(),
        };
        self.say(&Packet::ConnAck(answer), desk);
        desk.rearm();
        let sent_on = std::mem::take(&mut self.partial);
        self.take(&sent_on, desk);
    }

    /// The session is up: CONNACK follows.
    pub(super) fn welcomed(&mut self, welcome: &Welcome<'_>, desk: &mut Desk<'_>) {
        self.stage = Stage::Device;
        let clean = self.greeting.as_ref().is_none_or(|greeting| greeting.clean);
        let now = desk.clock();
        let kept = desk
            .parked()
            .and_then(|parked| parked.downcast::<Kept>().ok())
            .filter(|kept| !clean && kept.until > now);
        let present = kept.is_some();
        if let Some(kept) = kept {
            let Kept {
                subscriptions,
                flights,
                ..
            } = *kept;
            self.subscriptions = subscriptions;
            self.flights.resume(flights);
        }
        if clean {
            // What waits is for the device's other ways.
            self.begins = Some(welcome.head);
            desk.reread(self.begins);
        }
        let device = welcome.reader.device.clone();
        self.connack(present, Some(device.as_str()), desk);
    }
}

/// Whose password it is.
async fn who(ports: &Ports, server: bool, hash: [u8; 32]) -> Found {
    if server {
        return match ports.registry.key_by_hash(&hash).await {
            Ok(Some(Key {
                kind: KeyKind::Server,
                app: Some(app),
                scopes,
                ..
            })) if scopes.contains(&Scope::Send) => Found::Server(app),
            Ok(_) => Found::Nobody,
            Err(error) => Found::Away(error),
        };
    }
    match ports.registry.device_by_secret(&hash).await {
        Ok(Some(device)) => Found::Device(Box::new(device)),
        Ok(None) => Found::Nobody,
        Err(error) => Found::Away(error),
    }
}

/// Whether a user name is the device's: its user (`user` or `user@app`), or its own id while it has none.
fn is_user(name: &str, device: &Device) -> bool {
    let id = device
        .user
        .as_ref()
        .map_or(device.id.as_str(), |user| user.as_str());
    name == id
        || name
            .rsplit_once('@')
            .is_some_and(|(user, app)| user == id && app == device.app.as_str())
}
