//! Web push endpoints: addresses of devices' channels, and what is posted to them.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use hongyan_core::delivery::Input;
use hongyan_core::message::{DeliveryMode, Options, Priority, PushOptions, Target};
use hongyan_core::port::{
    Enrolled, Enrolment, NewChannel, OpenChannel, OpenError, Post, PushState, PushedOut, Pushes,
};
use hongyan_core::push::{
    CHANNELS_PER_DEVICE_MAX, ENROLMENT_LIFE, PUSH_TTL_S_MAX, UNSEEN_MAX, Urgency,
};
use hongyan_core::{
    AppId, Class, DeviceId, Message, MessageId, Push, PushChannel, PushEndpoint, Reason, Secret,
    StoreError, UserId,
};
use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::digest::{SHA256, digest};
use tokio::sync::Mutex;

use crate::binding::Bindings;
use crate::credentials::Sealer;
use crate::enrolment::Claim;
use crate::feedback::Signal;
use crate::ids::Ids;
use crate::intake::Intake;
use crate::recall::Recall;
use crate::service::Ports;

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Devices whose channels are opened at the same time, at most.
const DOORS: usize = 64;

/// See [`Pushes`]. Cheap to clone.
#[derive(Clone)]
pub struct Endpoints {
    ports: Ports,
    ids: Ids,
    recall: Recall,
    bindings: Bindings,
    sealer: Arc<dyn Sealer>,
    root: Arc<str>,
    require_vapid: bool,
    /// Two openings of one channel at a time would end each other's endpoint.
    doors: Arc<[Mutex<()>]>,
}

impl std::fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoints")
            .field("root", &self.root)
            .field("require_vapid", &self.require_vapid)
            .finish_non_exhaustive()
    }
}

/// The hash that a token is found by.
fn hash_of(token: &[u8]) -> [u8; 32] {
    let mut hash = [0u8; 32];
    hash.copy_from_slice(digest(&SHA256, token).as_ref());
    hash
}

/// Longest text of a VAPID key, characters: 65 bytes with padding.
const VAPID_TEXT_LEN_MAX: usize = 88;

/// The hash of a VAPID key, if the text is one.
fn vapid_hash(text: &str) -> Option<[u8; 32]> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::URL_SAFE,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    if text.len() > VAPID_TEXT_LEN_MAX {
        return None;
    }
    let text = text.replace('+', "-").replace('/', "_");
    let key = LENIENT.decode(text).ok()?;
    if key.len() != 65 {
        return None;
    }
    // Agreeing with it checks that the point lies on the curve.
    let random = ring::rand::SystemRandom::new();
    let ours = EphemeralPrivateKey::generate(&ECDH_P256, &random).ok()?;
    agree_ephemeral(ours, &UnparsedPublicKey::new(&ECDH_P256, &key), |_| ()).ok()?;
    Some(hash_of(&key))
}

/// What the token of an endpoint is sealed for.
fn place(app: &AppId, device: &DeviceId, channel: &PushChannel) -> String {
    format!("push endpoint\n{app}\n{device}\n{channel}")
}

/// What pushes must share to replace each other. Longer than any collapse key that an app may choose.
fn collapse_key(endpoint: &PushEndpoint, topic: &str) -> String {
    let own = hash_of(format!("{}\n{topic}", endpoint.channel).as_bytes());
    format!(
        "push-topic-of-a-channel-of-the-device:{}",
        URL_SAFE_NO_PAD.encode(own)
    )
}

impl Endpoints {
    pub(crate) fn new(
        ports: Ports,
        ids: Ids,
        (recall, bindings): (Recall, Bindings),
        sealer: Arc<dyn Sealer>,
        root: String,
        require_vapid: bool,
    ) -> Self {
        Self {
            ports,
            ids,
            recall,
            bindings,
            sealer,
            root: root.into(),
            require_vapid,
            doors: (0..DOORS).map(|_| Mutex::new(())).collect(),
        }
    }

    fn door(&self, app: &AppId, device: &DeviceId) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        (app, device).hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % DOORS as u64).unwrap_or(0);
        &self.doors[at]
    }

    fn reopen(&self, endpoint: PushEndpoint) -> Result<OpenChannel, OpenError> {
        let place = place(&endpoint.app, &endpoint.device, &endpoint.channel);
        let token = self
            .sealer
            .open(&place, &endpoint.sealed)
            .map_err(OpenError::Seal)?;
        Ok(OpenChannel {
            endpoint,
            token: Secret::new(token),
        })
    }

    async fn make(
        &self,
        new: NewChannel,
        vapid: Option<[u8; 32]>,
        channel: PushChannel,
    ) -> Result<OpenChannel, OpenError> {
        let mut random = [0u8; TOKEN_BYTES];
        self.ports.dice.fill(&mut random);
        let token = URL_SAFE_NO_PAD.encode(random).into_bytes();
        let place = place(&new.app, &new.device, &channel);
        let endpoint = PushEndpoint {
            hash: hash_of(&token),
            sealed: self.sealer.seal(&place, &token).map_err(OpenError::Seal)?,
            app: new.app,
            device: new.device,
            channel,
            label: new.label,
            vapid,
            description: new.description,
            created_at: self.ports.clock.now(),
            gone_since: None,
        };
        self.ports.registry.put_endpoint(endpoint.clone()).await?;
        metrics::counter!("hongyan_push_channels_opened_total").increment(1);
        Ok(OpenChannel {
            endpoint,
            token: Secret::new(token),
        })
    }

    fn fresh_channel(&self) -> Result<PushChannel, OpenError> {
        let mut random = [0u8; 16];
        self.ports.dice.fill(&mut random);
        let id = uuid::Builder::from_random_bytes(random).into_uuid();
        PushChannel::parse(&id.to_string()).map_err(|e| OpenError::Seal(Box::new(e)))
    }

    async fn known(&self, app: &AppId, device: &DeviceId) -> Result<Vec<PushEndpoint>, StoreError> {
        self.ports
            .registry
            .endpoints_of(app, device, None, CHANNELS_PER_DEVICE_MAX)
            .await
    }

    /// The message of a post, which lives for its TTL from now on.
    fn message(&self, to: &PushEndpoint, post: Post, holder: Option<UserId>) -> Message {
        let now = self.ports.clock.now();
        let ttl_s = post.ttl_s.min(PUSH_TTL_S_MAX);
        let priority = match post.urgency {
            Urgency::High => Priority::High,
            Urgency::VeryLow | Urgency::Low | Urgency::Normal => Priority::Normal,
        };
        Message {
            id: self.ids.next(now, self.ports.dice.as_ref()),
            app: to.app.clone(),
            to: Target::Devices(vec![to.device.clone()]),
            class: Class::default(),
            class_detail: None,
            notification: None,
            data: None,
            options: Options {
                ttl_s: Some(ttl_s),
                collapse_key: post.topic.as_deref().map(|topic| collapse_key(to, topic)),
                priority: Some(priority),
                delivery: DeliveryMode::OnlineOnly,
                push: PushOptions {
                    enabled: false,
                    ..PushOptions::default()
                },
                ..Options::default()
            },
            push: Some(Box::new(Push {
                channel: to.channel.clone(),
                endpoint: to.hash,
                body: post.body,
                encoding: post.encoding,
                urgency: post.urgency,
                topic: post.topic,
                holder,
            })),
            recalls: None,
            accepted_at: now,
            expires_at: now.plus(Duration::from_secs(ttl_s.into())),
        }
    }

    /// Ends the delivery of a push that waits no longer.
    async fn end(&self, out: PushedOut) {
        metrics::counter!("hongyan_push_pushed_out_total", "reason" => out.reason.as_str())
            .increment(1);
        let signal = Signal {
            app: out.app,
            message: out.message,
            device: out.device,
            user: None,
            input: Input::End(out.reason),
        };
        self.recall.feedback.send(signal).await;
    }

    /// The message, if it came over the endpoint with this hash.
    async fn own(
        &self,
        endpoint: &PushEndpoint,
        id: MessageId,
    ) -> Result<Option<Arc<Message>>, StoreError> {
        let message = self.ports.inbox.message(&endpoint.app, id).await?;
        Ok(message.filter(|m| m.push.as_ref().is_some_and(|p| p.endpoint == endpoint.hash)))
    }
}

#[async_trait]
impl Pushes for Endpoints {
    fn root(&self) -> &str {
        &self.root
    }

    async fn enrolment(&self, app: &AppId, user: &UserId) -> Result<Enrolment, StoreError> {
        self.bindings.know(app, user).await?;
        let claim = Claim {
            app: app.clone(),
            user: user.clone(),
            made_at: self.ports.clock.now(),
        };
        Ok(Enrolment {
            text: claim.text(self.sealer.as_ref()),
            expires_at: claim.made_at.plus(ENROLMENT_LIFE),
        })
    }

    async fn enrolled(&self, text: &Secret) -> Result<Option<Enrolled>, StoreError> {
        let Some(claim) = Claim::of(text, self.sealer.as_ref()) else {
            return Ok(None);
        };
        let (app, user, made_at) = (claim.app, claim.user, claim.made_at);
        let fresh = self.ports.clock.now() < made_at.plus(ENROLMENT_LIFE);
        let open = fresh && self.bindings.may_enrol(&app, &user, made_at).await?;
        Ok(Some(Enrolled {
            app,
            user,
            made_at,
            open,
        }))
    }

    async fn enrol(&self, device: &DeviceId, by: &Enrolled) -> Result<bool, StoreError> {
        // The browser may have been here for long.
        let fresh = self.ports.clock.now() < by.made_at.plus(ENROLMENT_LIFE);
        if !by.open || !fresh {
            return Ok(false);
        }
        let (app, user) = (&by.app, &by.user);
        self.bindings.enrol(app, device, user, by.made_at).await
    }

    async fn forget(&self, app: &AppId, device: &DeviceId) -> Result<bool, StoreError> {
        self.bindings.forget(app, device).await
    }

    async fn open(&self, new: NewChannel) -> Result<OpenChannel, OpenError> {
        if self.require_vapid && new.vapid.is_none() {
            return Err(OpenError::VapidRequired);
        }
        let vapid = match &new.vapid {
            Some(text) => Some(vapid_hash(text).ok_or(OpenError::BadKey)?),
            None => None,
        };
        let _alone = self.door(&new.app, &new.device).lock().await;
        let known = self.known(&new.app, &new.device).await?;
        let len = known.len();
        let same = known.into_iter().find(|e| match &new.channel {
            Some(channel) => e.channel == *channel,
            None => new.label.is_some() && e.label == new.label,
        });
        let channel = match (same, &new.channel) {
            (Some(same), _) if same.vapid == vapid => {
                let channel = same.channel.clone();
                match self.reopen(same) {
                    Ok(open) => return Ok(open),
                    Err(error) => {
                        tracing::warn!(%error, "an endpoint cannot be told again; its channel gets a new one");
                        channel
                    }
                }
            }
            (Some(same), _) => same.channel,
            (None, _) if len >= CHANNELS_PER_DEVICE_MAX => return Err(OpenError::TooMany),
            (None, Some(channel)) => channel.clone(),
            (None, None) => self.fresh_channel()?,
        };
        self.make(new, vapid, channel).await
    }

    async fn list(&self, app: &AppId, device: &DeviceId) -> Result<Vec<OpenChannel>, OpenError> {
        let known = self.known(app, device).await?;
        known.into_iter().map(|e| self.reopen(e)).collect()
    }

    async fn close(
        &self,
        app: &AppId,
        device: &DeviceId,
        channel: &PushChannel,
    ) -> Result<bool, StoreError> {
        let _alone = self.door(app, device).lock().await;
        let now = self.ports.clock.now();
        self.ports
            .registry
            .end_endpoint(app, device, channel, now)
            .await
    }

    async fn find(&self, token: &str) -> Result<Option<PushEndpoint>, StoreError> {
        let registry = &self.ports.registry;
        let mut endpoint = match registry.endpoint(&hash_of(token.as_bytes())).await? {
            Some(endpoint) if endpoint.gone_since.is_none() => endpoint,
            known => return Ok(known),
        };
        let ids = std::slice::from_ref(&endpoint.device);
        let now = self.ports.clock.now();
        let device = registry.devices(&endpoint.app, ids).await?.pop().flatten();
        let sessions = self.ports.presence.sessions(&endpoint.app, ids);
        let is_connected = sessions.iter().any(Option::is_some);
        match device {
            Some(device) if is_connected || device.last_seen.plus(UNSEEN_MAX) >= now => {}
            Some(device) => endpoint.gone_since = Some(device.last_seen.plus(UNSEEN_MAX)),
            None => endpoint.gone_since = Some(now),
        }
        Ok(Some(endpoint))
    }

    async fn post(&self, to: &PushEndpoint, post: Post) -> Result<MessageId, StoreError> {
        // The address belongs to the device whoever holds it; what is posted is for who holds it now.
        let device = std::slice::from_ref(&to.device);
        let device = self.ports.registry.devices(&to.app, device).await?;
        let holder = device.into_iter().flatten().next().and_then(|d| d.user);
        let message = Arc::new(self.message(to, post, holder));
        let id = message.id;
        let kept = message.expires_at > message.accepted_at;
        if kept {
            let intake = Intake::new(self.ports.clone(), self.ids.clone());
            for out in intake.accept_push(message).await? {
                self.end(out).await;
            }
        } else {
            let presence = &self.ports.presence;
            let handed = presence.hand(&to.app, &to.device, message);
            let result = if handed { "handed" } else { "nobody" };
            metrics::counter!("hongyan_push_unstored_total", "result" => result).increment(1);
        }
        metrics::counter!("hongyan_push_messages_total").increment(1);
        Ok(id)
    }

    async fn withdraw(&self, hash: &[u8; 32], id: MessageId) -> Result<bool, StoreError> {
        let Some(endpoint) = self.ports.registry.endpoint(hash).await? else {
            return Ok(false);
        };
        if self.own(&endpoint, id).await?.is_some() {
            match self.recall.recall(&endpoint.app, id).await {
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    async fn state(&self, hash: &[u8; 32], id: MessageId) -> Result<Option<PushState>, StoreError> {
        let Some(endpoint) = self.ports.registry.endpoint(hash).await? else {
            return Ok(None);
        };
        let Some(message) = self.own(&endpoint, id).await? else {
            return Ok(Some(PushState::Lost));
        };
        let keys = [(id, endpoint.device.clone())];
        let delivery = self.ports.ledger.deliveries(&endpoint.app, &keys).await?;
        let outcome = delivery
            .into_iter()
            .next()
            .flatten()
            .and_then(|d| d.outcome());
        Ok(Some(match outcome {
            Some(
                Reason::Delivered
                | Reason::Displayed
                | Reason::Clicked
                | Reason::Opened
                | Reason::Dismissed,
            ) => PushState::Acked,
            Some(_) => PushState::Lost,
            None if message.expires_at <= self.ports.clock.now() => PushState::Lost,
            None => PushState::Open,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key pair of the example in RFC 8292 section 2.4.
    const KEY: &str =
        "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";

    #[test]
    fn keys_are_taken_in_all_their_writings_and_only_on_the_curve() {
        let hash = vapid_hash(KEY).unwrap();
        assert_eq!(vapid_hash(&format!("{KEY}=")), Some(hash));
        let standard = KEY.replace('-', "+").replace('_', "/");
        assert_eq!(vapid_hash(&standard), Some(hash));
        assert_eq!(vapid_hash(&KEY[..86]), None, "a byte is missing");
        let off = KEY.replace("BPs", "BPw");
        assert_eq!(vapid_hash(&off), None, "not on the curve");
        assert_eq!(vapid_hash(&"A".repeat(10_000)), None);
        assert_eq!(vapid_hash(""), None);
    }
}
