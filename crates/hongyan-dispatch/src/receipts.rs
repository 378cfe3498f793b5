//! What vendors say after they took a push: callbacks that they post, queries that we make, tokens that they no longer know.
//!
//! A receipt is news about one delivery or one token. It is checked against what was really sent; what does not fit is
//! counted and dropped, so that nobody can make a delivery up.

mod quota;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use hongyan_core::delivery::{Delivery, Input};
use hongyan_core::device::Permission;
use hongyan_core::error::BoxError;
use hongyan_core::limits::{CONFLICT_RETRIES_MAX, VENDOR_CALL_DEADLINE};
use hongyan_core::port::{
    Callback, CallbackError, CallbackRequest, EventFilter, Receipt, ReceiptKind,
};
use hongyan_core::{
    AppId, ChannelId, CredentialName, Device, DeviceId, MessageId, Reason, Stage, StoreError,
};
use tokio::sync::watch;

use crate::carried::Carried;
use crate::choice::Learned;
use crate::credentials::{CredentialError, Credentials};
use crate::deaths::{Death, Deaths};
use crate::feedback::{self, Signal};
use crate::hygiene::bury;
use crate::plan::CredentialIndex;
use crate::quota::{Account, Quotas};
use crate::router::InFlight;
use crate::service::Ports;

/// Receipts that become durable together.
const PART_LEN: usize = 500;
/// Grace over the vendor's deadline before a query is given up from outside.
const POLL_GRACE: Duration = Duration::from_secs(1);
/// Events of a device that are looked through for a vendor's id of a push that this process did not send.
const EVENTS_LEN_MAX: usize = 5_000;
/// How many events of all devices back is looked, one after another.
const LOOKS_BACK: [u64; 5] = [10_000, 100_000, 1_000_000, 10_000_000, u64::MAX];
/// Events read at once.
const EVENTS_PAGE: usize = 500;
/// How often credentials are looked through for those to be polled.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Shortest time between two polls of one credential.
const POLL_EVERY_MIN: Duration = Duration::from_secs(1);
/// Polls in a row of a vendor that has always more.
const POLLS_IN_A_ROW_MAX: usize = 100;
/// Apps read at once.
const APPS_PAGE: usize = 100;

/// A callback was not taken.
#[derive(Debug, thiserror::Error)]
pub enum CallbackRefused {
    /// No app, channel or credential of these names, or a channel whose vendor has no callbacks.
    #[error("there is no such callback address")]
    Unknown,
    /// Neither the vendor's signature nor the address's secret holds.
    #[error("the callback proves nothing: {0}")]
    Unproved(String),
    /// It was taken before.
    #[error("the callback was taken before")]
    Replayed,
    /// It is not what the vendor sends.
    #[error("{0}")]
    Malformed(String),
    /// The credential does not open; the vendor may come again.
    #[error("the credential cannot be used")]
    Credential(#[source] BoxError),
    /// The store did not answer; the vendor may come again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Takes receipts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Receipts {
    pub(crate) ports: Ports,
    pub(crate) credentials: Credentials,
    pub(crate) in_flight: InFlight,
    pub(crate) learned: Learned,
    pub(crate) carried: Carried,
    pub(crate) deaths: Deaths,
    pub(crate) quotas: Quotas,
}

/// What was seen among receipts that came together: each counts once, however many tell of it.
#[derive(Debug, Default)]
struct Seen {
    arrived: HashSet<(MessageId, DeviceId)>,
    over_quota: HashSet<MessageId>,
}

/// What receipts were worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Noted {
    /// They changed something or told of something.
    pub known: usize,
    /// They named nothing that was sent.
    pub unknown: usize,
}

impl Receipts {
    /// Takes what a vendor posted to the callback address of a credential, and answers what it wants to hear.
    ///
    /// `secret` is the address's own secret, as the vendor gave it back in the query.
    ///
    /// # Errors
    /// [`CallbackRefused`].
    pub async fn callback(
        &self,
        app: &AppId,
        channel: &ChannelId,
        credential: Option<&CredentialName>,
        secret: Option<&str>,
        request: &CallbackRequest<'_>,
    ) -> Result<Callback, CallbackRefused> {
        // Names that a stranger makes up must not become series of a metric.
        let label = match self.credentials.vendor(channel) {
            Some(_) => channel.to_string(),
            None => "unknown".to_owned(),
        };
        let refused = |why: &'static str| {
            metrics::counter!("hongyan_callbacks_refused_total", "channel" => label.clone(), "why" => why)
                .increment(1);
        };
        // Without a proof all failures look alike: nobody learns which addresses there are.
        let unproved =
            || CallbackRefused::Unproved("no signature and no secret of the address".to_owned());
        let name = match credential {
            Some(name) => Some(name.clone()),
            None => self.only_credential(app, channel).await?,
        };
        let Some(name) = name else {
            refused("unknown");
            return Err(unproved());
        };
        let proved =
            secret.is_some_and(|s| self.credentials.is_callback_secret(app, channel, &name, s));
        let opened = match self.credentials.open(app, channel, &name).await {
            Ok(opened) => opened,
            Err(CredentialError::Store(error)) => return Err(error.into()),
            Err(error) => {
                refused("unknown");
                return Err(if proved {
                    CallbackRefused::Credential(Box::new(error))
                } else {
                    unproved()
                });
            }
        };
        let callback = match opened.channel.callback(request) {
            Some(Ok(callback)) if callback.signed || proved => callback,
            Some(Err(CallbackError::Signature(why))) => {
                refused("signature");
                return Err(CallbackRefused::Unproved(why));
            }
            Some(Err(CallbackError::Replayed)) => {
                refused("replayed");
                return Err(CallbackRefused::Replayed);
            }
            Some(Err(CallbackError::Malformed(why))) if proved => {
                refused("malformed");
                return Err(CallbackRefused::Malformed(why));
            }
            // The vendor's own words, which this version cannot read: whoever operates it must hear that.
            Some(Err(CallbackError::SignedMalformed(why))) => {
                refused("malformed");
                return Err(CallbackRefused::Malformed(why));
            }
            None if proved => {
                refused("unknown");
                return Err(CallbackRefused::Unknown);
            }
            _ => {
                refused("unproved");
                return Err(unproved());
            }
        };
        let account = Account {
            app: app.clone(),
            channel: channel.clone(),
            credential: name,
        };
        self.take_of(&account, callback.receipts.clone()).await?;
        Ok(callback)
    }

    /// The credential of an address that names none: `default`, or the only one.
    async fn only_credential(
        &self,
        app: &AppId,
        channel: &ChannelId,
    ) -> Result<Option<CredentialName>, StoreError> {
        let all = self.ports.registry.credentials(app).await?;
        let mut index = CredentialIndex::default();
        for c in all.into_iter().filter(|c| c.channel == *channel) {
            index.add(c.channel, c.name);
        }
        Ok(index.pick(channel, None).cloned())
    }

    /// Takes receipts of a channel's default credential. What they change is durable when this returns.
    ///
    /// # Errors
    /// When the store does not answer; receipts before that are taken, and taking them again does no harm.
    pub async fn take(
        &self,
        app: &AppId,
        channel: &ChannelId,
        receipts: Vec<Receipt>,
    ) -> Result<Noted, StoreError> {
        let Ok(credential) = CredentialName::parse("default") else {
            return Ok(Noted::default());
        };
        let account = Account {
            app: app.clone(),
            channel: channel.clone(),
            credential,
        };
        self.take_of(&account, receipts).await
    }

    /// The same for a credential.
    async fn take_of(
        &self,
        account: &Account,
        receipts: Vec<Receipt>,
    ) -> Result<Noted, StoreError> {
        let (app, channel) = (&account.app, &account.channel);
        let mut noted = Noted::default();
        let mut seen = Seen::default();
        let mut receipts = receipts.into_iter();
        loop {
            let part: Vec<Receipt> = receipts.by_ref().take(PART_LEN).collect();
            if part.is_empty() {
                return Ok(noted);
            }
            let mut signals = Vec::with_capacity(part.len());
            for receipt in part {
                let kind = word(receipt.kind);
                let known = self.one(account, receipt, &mut signals, &mut seen).await?;
                if known {
                    noted.known += 1;
                } else {
                    noted.unknown += 1;
                }
                metrics::counter!(
                    "hongyan_receipts_total",
                    "channel" => channel.to_string(), "kind" => kind, "known" => if known { "yes" } else { "no" },
                )
                .increment(1);
            }
            feedback::apply(&self.ports, app, signals, &self.in_flight).await?;
        }
    }

    /// Reads one receipt into what it means for its delivery; answers whether it named something that was sent.
    async fn one(
        &self,
        account: &Account,
        receipt: Receipt,
        signals: &mut Vec<Signal>,
        seen: &mut Seen,
    ) -> Result<bool, StoreError> {
        let (app, channel) = (&account.app, &account.channel);
        let device = self.device(app, channel, &receipt).await?;
        let delivery = self
            .delivery(app, channel, device.as_ref(), &receipt)
            .await?;
        let mut known = delivery.is_some();
        let input = match receipt.kind {
            ReceiptKind::Delivered => Some(told(channel, Stage::Delivered)),
            ReceiptKind::Displayed => Some(told(channel, Stage::Displayed)),
            ReceiptKind::Clicked => Some(told(channel, Stage::Clicked)),
            ReceiptKind::Dismissed => Some(told(channel, Stage::Dismissed)),
            ReceiptKind::TokenInvalid => {
                let dead = self
                    .token_is_dead(account, device.as_ref(), &receipt)
                    .await?;
                known |= dead.is_some();
                let reason = match dead {
                    Some(Death::HeldBack(_)) => Reason::TokenEnvironment,
                    _ => Reason::TokenInvalid,
                };
                Some(undelivered(channel, reason, &receipt))
            }
            ReceiptKind::PermissionOff => {
                known |= self.permission_is_off(device.as_ref(), &receipt).await?;
                Some(undelivered(channel, Reason::PermissionOff, &receipt))
            }
            ReceiptKind::OverQuota => Some(undelivered(channel, Reason::QuotaExhausted, &receipt)),
            ReceiptKind::Failed(reason) => Some(undelivered(channel, reason, &receipt)),
            ReceiptKind::Other => None,
        };
        let arrives = matches!(
            receipt.kind,
            ReceiptKind::Delivered | ReceiptKind::Displayed | ReceiptKind::Clicked
        );
        if let Some(delivery) = delivery
            && let Some(input) = input
        {
            if receipt.kind == ReceiptKind::OverQuota && seen.over_quota.insert(delivery.message) {
                self.quota_is_over(account, delivery.message, &receipt)
                    .await?;
            }
            // One arrival counts once, however many receipts tell of it.
            if arrives
                && !delivery.seen.has(Stage::Delivered)
                && seen
                    .arrived
                    .insert((delivery.message, delivery.device.clone()))
            {
                let now = self.ports.clock.now();
                let found = match device {
                    Some(device) => Some(device),
                    None => self.device_of(app, &delivery.device).await?,
                };
                self.deaths.lives(account, now);
                if let Some(device) = found {
                    self.learned.delivered(channel, &device, now);
                }
            }
            signals.push(Signal {
                app: delivery.app,
                message: delivery.message,
                device: delivery.device,
                user: delivery.user,
                input,
            });
        }
        Ok(known)
    }

    async fn is_personal(&self, app: &AppId, message: MessageId) -> Result<bool, StoreError> {
        let found = self.ports.inbox.message(app, message).await?;
        Ok(found.is_some_and(|m| m.to.audience().is_none()))
    }

    async fn device_of(&self, app: &AppId, id: &DeviceId) -> Result<Option<Device>, StoreError> {
        let registry = &self.ports.registry;
        let found = registry.devices(app, std::slice::from_ref(id)).await?;
        Ok(found.into_iter().next().flatten())
    }

    /// The device that has the receipt's token now.
    async fn device(
        &self,
        app: &AppId,
        channel: &ChannelId,
        receipt: &Receipt,
    ) -> Result<Option<Device>, StoreError> {
        let registry = &self.ports.registry;
        let Some(token) = receipt.token.as_ref().and_then(|t| t.expose_str()) else {
            return Ok(None);
        };
        let Some(id) = registry.device_by_token(app, channel, token).await? else {
            return Ok(None);
        };
        self.device_of(app, &id).await
    }

    /// The delivery that the receipt is about, if this channel really carried it.
    async fn delivery(
        &self,
        app: &AppId,
        channel: &ChannelId,
        device: Option<&Device>,
        receipt: &Receipt,
    ) -> Result<Option<Delivery>, StoreError> {
        let ledger = &self.ports.ledger;
        let carried = |d: &Delivery| {
            d.taken.contains(channel)
                || d.via.as_ref() == Some(channel)
                || matches!(&d.state, hongyan_core::delivery::State::Pushing { channel: c, .. } if c == channel)
                || matches!(&d.state, hongyan_core::delivery::State::Retrying { channel: c, .. } if c == channel)
        };
        let found = match (receipt.message, device) {
            (Some(message), Some(device)) => {
                let key = [(message, device.id.clone())];
                ledger
                    .deliveries(app, &key)
                    .await?
                    .into_iter()
                    .flatten()
                    .next()
            }
            // No token, or one that is written otherwise here (a telephone number): a personal message with one delivery names it.
            (Some(message), None) if self.is_personal(app, message).await? => {
                let mut all = ledger.deliveries_of(app, message, None, 2).await?;
                let one = all.pop();
                if all.is_empty() { one } else { None }
            }
            (None, Some(device)) => match &receipt.vendor_id {
                Some(id) => {
                    let message = self.message_of(app, channel, device, id).await?;
                    let key = message.map(|m| (m, device.id.clone()));
                    match key {
                        Some(key) => ledger
                            .deliveries(app, &[key])
                            .await?
                            .into_iter()
                            .flatten()
                            .next(),
                        None => None,
                    }
                }
                None => None,
            },
            // The vendor's own id alone: of a personal message with one delivery it names that.
            (None, None) if receipt.token.is_none() => {
                let id = receipt.vendor_id.as_deref().unwrap_or_default();
                match self.carried.message(app, channel, id) {
                    Some(message) if self.is_personal(app, message).await? => {
                        let mut all = ledger.deliveries_of(app, message, None, 2).await?;
                        let one = all.pop();
                        if all.is_empty() { one } else { None }
                    }
                    _ => None,
                }
            }
            (_, None) => None,
        };
        Ok(found.filter(carried))
    }

    /// The message that the vendor took under this id for a device: its ledger says so.
    async fn message_of(
        &self,
        app: &AppId,
        channel: &ChannelId,
        device: &Device,
        vendor_id: &str,
    ) -> Result<Option<MessageId>, StoreError> {
        let ledger = &self.ports.ledger;
        if let Some(message) = self.carried.message(app, channel, vendor_id) {
            let key = [(message, device.id.clone())];
            let known = ledger.deliveries(app, &key).await?;
            if known.into_iter().flatten().next().is_some() {
                return Ok(Some(message));
            }
        }
        // The ledger, from its end: each look goes ten times as far back as the one before, and reads no event twice.
        let head = ledger.head().await?;
        let (mut until, mut looked) = (head, 0);
        for far in LOOKS_BACK {
            let from = head.saturating_sub(far);
            let mut after = from;
            let mut found = None;
            while after < until && looked < EVENTS_LEN_MAX {
                let filter = EventFilter::Device(device.id.clone());
                let page = ledger.events(app, filter, after, EVENTS_PAGE).await?;
                let Some(last) = page.last() else { break };
                (after, looked) = (last.seq, looked + page.len());
                let named = page.iter().rev().find(|e| {
                    e.seq <= until
                        && e.stage == Stage::AcceptedByVendor
                        && e.channel.as_ref() == Some(channel)
                        && e.detail.as_deref() == Some(vendor_id)
                });
                found = named.and_then(|e| e.message).or(found);
            }
            if found.is_some() || from == 0 {
                return Ok(found);
            }
            until = from;
        }
        Ok(None)
    }

    /// What became of a token that the vendor calls dead; nothing when no device has it.
    async fn token_is_dead(
        &self,
        account: &Account,
        device: Option<&Device>,
        receipt: &Receipt,
    ) -> Result<Option<Death>, StoreError> {
        let channel = &account.channel;
        let (Some(device), Some(token)) =
            (device, receipt.token.as_ref().and_then(|t| t.expose_str()))
        else {
            return Ok(None);
        };
        // A device that gave the token again after the vendor saw it die has it anew.
        let given_since = device
            .token(channel)
            .zip(receipt.at)
            .is_some_and(|(held, at)| held.updated_at > at);
        if given_since {
            return Ok(Some(Death::Believed));
        }
        if device.token(channel).is_none_or(|held| !held.is_active()) {
            return Ok(Some(Death::Believed));
        }
        let death = self.deaths.dies(account, self.ports.clock.now());
        if let Death::HeldBack(count) = death {
            metrics::counter!("hongyan_receipts_deaths_held_total", "channel" => channel.to_string())
                .increment(1);
            if count == 1 {
                tracing::warn!(app = %account.app, %channel, credential = %account.credential, "the vendor calls token after token dead by receipts and hardly any alive, so no more die for ten minutes: check the credential and its environment");
            }
            return Ok(Some(death));
        }
        let detail = Some(receipt.detail.clone()).filter(|d| !d.is_empty());
        bury(
            &self.ports,
            device,
            channel,
            token,
            Reason::TokenInvalid,
            detail,
        )
        .await?;
        Ok(Some(Death::Believed))
    }

    /// The person switched notifications off: what the app will say when it runs next is known now.
    async fn permission_is_off(
        &self,
        device: Option<&Device>,
        receipt: &Receipt,
    ) -> Result<bool, StoreError> {
        let Some(device) = device else {
            return Ok(false);
        };
        let said_at = receipt.at.unwrap_or_else(|| self.ports.clock.now());
        let registry = &self.ports.registry;
        for _ in 0..CONFLICT_RETRIES_MAX {
            let found = registry
                .devices(&device.app, std::slice::from_ref(&device.id))
                .await?;
            let Some(Some(mut current)) = found.into_iter().next() else {
                return Ok(false);
            };
            // The app was heard of later, and says it itself when it is.
            if current.permission == Permission::Denied || current.last_seen > said_at {
                return Ok(true);
            }
            let version = current.version;
            current.permission = Permission::Denied;
            current.version += 1;
            match registry.put_device(current, Some(version)).await {
                Err(StoreError::Conflict { .. }) => {}
                done => return done.map(|()| true),
            }
        }
        Err(StoreError::Conflict { entity: "device" })
    }

    /// Asks vendors that only tell when asked, each in its own time, until told to stop.
    pub async fn run_polls(&self, mut stop: watch::Receiver<bool>) {
        let mut running: HashMap<(AppId, ChannelId, CredentialName), tokio::task::JoinHandle<()>> =
            HashMap::new();
        loop {
            match self.to_poll().await {
                Ok(wanted) => {
                    running.retain(|key, task| {
                        let keep = wanted.contains_key(key) && !task.is_finished();
                        if !keep {
                            task.abort();
                        }
                        keep
                    });
                    for (key, every) in wanted {
                        running.entry(key).or_insert_with_key(|key| {
                            tokio::spawn(self.clone().poll_one(key.clone(), every))
                        });
                    }
                }
                Err(error) => tracing::warn!(%error, "credentials to poll could not be read"),
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        for task in running.into_values() {
            task.abort();
        }
    }

    /// Every credential whose vendor must be asked, and how often.
    async fn to_poll(
        &self,
    ) -> Result<HashMap<(AppId, ChannelId, CredentialName), Duration>, StoreError> {
        let mut wanted = HashMap::new();
        let mut after = None;
        loop {
            let apps = self.ports.registry.apps(after.as_ref(), APPS_PAGE).await?;
            let Some(last) = apps.last() else { break };
            after = Some(last.id.clone());
            for app in &apps {
                for c in self.ports.registry.credentials(&app.id).await? {
                    let every = self
                        .credentials
                        .vendor(&c.channel)
                        .and_then(|v| v.capability().poll_every);
                    if let Some(every) = every {
                        wanted.insert((c.app, c.channel, c.name), every.max(POLL_EVERY_MIN));
                    }
                }
            }
        }
        Ok(wanted)
    }

    async fn poll_one(self, key: (AppId, ChannelId, CredentialName), every: Duration) {
        loop {
            for _ in 0..POLLS_IN_A_ROW_MAX {
                match self.poll(&key.0, &key.1, &key.2).await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::info!(app = %key.0, channel = %key.1, credential = %key.2, %error, "a vendor could not be asked for receipts");
                        break;
                    }
                }
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Asks a vendor once; answers how many receipts it gave.
    ///
    /// # Errors
    /// When the credential does not open, or the vendor or the store does not answer.
    pub async fn poll(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Result<usize, BoxError> {
        let opened = self.credentials.open(app, channel, name).await?;
        let asked = opened.channel.poll(VENDOR_CALL_DEADLINE);
        let receipts = tokio::time::timeout(VENDOR_CALL_DEADLINE + POLL_GRACE, asked).await??;
        let count = receipts.len();
        let account = Account {
            app: app.clone(),
            channel: channel.clone(),
            credential: name.clone(),
        };
        // What the vendor gave will not come again: the store gets a few chances.
        let mut tries = 0;
        loop {
            match self.take_of(&account, receipts.clone()).await {
                Ok(_) => return Ok(count),
                Err(error) if tries >= CONFLICT_RETRIES_MAX => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(%app, %channel, %error, "receipts could not be taken; trying again");
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(200) * 2_u32.pow(tries.min(6) as u32))
                        .await;
                }
            }
        }
    }
}

fn told(channel: &ChannelId, stage: Stage) -> Input {
    Input::Told {
        channel: channel.clone(),
        stage,
    }
}

fn undelivered(channel: &ChannelId, reason: Reason, receipt: &Receipt) -> Input {
    Input::Undelivered {
        channel: channel.clone(),
        reason,
        detail: Some(receipt.detail.clone()).filter(|d| !d.is_empty()),
    }
}

const fn word(kind: ReceiptKind) -> &'static str {
    match kind {
        ReceiptKind::Delivered => "delivered",
        ReceiptKind::Displayed => "displayed",
        ReceiptKind::Clicked => "clicked",
        ReceiptKind::Dismissed => "dismissed",
        ReceiptKind::TokenInvalid => "token_invalid",
        ReceiptKind::PermissionOff => "permission_off",
        ReceiptKind::OverQuota => "over_quota",
        ReceiptKind::Failed(_) => "failed",
        ReceiptKind::Other => "other",
    }
}
