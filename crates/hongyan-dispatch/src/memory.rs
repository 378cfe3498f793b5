//! What the process before this one knew of its vendors: rebuilt from the ledger's end, beside the routing.
//!
//! Three things are kept in memory because they are asked for often and worth little for long: under which of its ids a vendor
//! took what (receipts and withdrawals name nothing else), which pushes are to be asked about, and how well each channel
//! delivers. The ledger has all of it; a bounded look at its end brings back what matters.

use std::collections::HashMap;
use std::time::Duration;

use hongyan_core::port::{Earlier, EventFilter};
use hongyan_core::{
    AppId, ChannelId, CredentialName, Device, DeviceId, Event, MessageId, Secret, Stage,
    StoreError, Timestamp,
};

use crate::carried::Carried;
use crate::choice::Learned;
use crate::credentials::Credentials;
use crate::plan::CredentialIndex;
use crate::service::Ports;

/// Events of all apps that are looked through, from the ledger's end back.
const EVENTS_MAX: u64 = 100_000;
/// How far back they may be: no vendor is asked about a push for longer.
const BACK: Duration = Duration::from_secs(24 * 3_600);
/// Events read at once.
const EVENTS_PAGE: usize = 500;
/// Events between the first recipient of a batch and its last: of batches that begin so near to where the look begins, some
/// recipients may be missing.
const BATCH_SPREAD: u64 = 10_000;
/// Apps read at once.
const APPS_PAGE: usize = 100;

#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) ports: Ports,
    pub(crate) credentials: Credentials,
    pub(crate) learned: Learned,
    pub(crate) carried: Carried,
}

/// Which push.
type PushKey = (ChannelId, String, MessageId);

/// A push as far as the ledger told of it.
#[derive(Debug)]
struct Told {
    /// Recipients, known or not.
    recipients: usize,
    /// The tokens that are known, by the credential that each goes by now: the one of the push, as far as anybody knows.
    tokens: HashMap<CredentialName, Vec<Secret>>,
    first: u64,
    at: Timestamp,
}

impl Memory {
    /// Looks at the ledger's end once. What cannot be read is passed over: nothing depends on it but how much is known.
    pub(crate) async fn recollect(self) {
        if let Err(error) = self.look().await {
            tracing::warn!(%error, "what was sent before the start could not be looked at; receipts and withdrawals of it may be missed");
        }
    }

    async fn look(&self) -> Result<(), StoreError> {
        let head = self.ports.ledger.head().await?;
        let mut after = None;
        loop {
            let apps = self.ports.registry.apps(after.as_ref(), APPS_PAGE).await?;
            let Some(last) = apps.last() else {
                return Ok(());
            };
            after = Some(last.id.clone());
            for app in &apps {
                if let Err(error) = self.app(&app.id, head).await {
                    tracing::warn!(app = %app.id, %error, "what an app sent before the start could not be looked at");
                }
            }
        }
    }

    async fn app(&self, app: &AppId, head: u64) -> Result<(), StoreError> {
        let ledger = &self.ports.ledger;
        let from = head.saturating_sub(EVENTS_MAX);
        let now = self.ports.clock.now();
        let mut credentials = CredentialIndex::default();
        for c in self.ports.registry.credentials(app).await? {
            credentials.add(c.channel, c.name);
        }
        let mut pushes: HashMap<PushKey, Told> = HashMap::new();
        let mut after = from;
        while after < head {
            let page = ledger
                .events(app, EventFilter::App, after, EVENTS_PAGE)
                .await?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            let fresh = |e: &Event| e.seq <= head && now.since(e.at) < BACK;
            let about = |e: &Event| matches!(e.stage, Stage::AcceptedByVendor | Stage::Delivered);
            let page: Vec<Event> = page
                .into_iter()
                .filter(|e| about(e) && e.channel.is_some() && fresh(e))
                .collect();
            let devices = self.devices(app, &page).await?;
            for event in page {
                let device = event.device.as_ref().and_then(|id| devices.get(id));
                self.note(app, event, device, &credentials, &mut pushes);
            }
        }
        self.remind(app, pushes, from).await;
        Ok(())
    }

    async fn devices(
        &self,
        app: &AppId,
        events: &[Event],
    ) -> Result<HashMap<DeviceId, Device>, StoreError> {
        let mut ids: Vec<DeviceId> = events.iter().filter_map(|e| e.device.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let found = self.ports.registry.devices(app, &ids).await?;
        Ok(found
            .into_iter()
            .flatten()
            .map(|d| (d.id.clone(), d))
            .collect())
    }

    fn note(
        &self,
        app: &AppId,
        event: Event,
        device: Option<&Device>,
        credentials: &CredentialIndex,
        pushes: &mut HashMap<PushKey, Told>,
    ) {
        let (Some(channel), Some(message)) = (event.channel, event.message) else {
            return;
        };
        if event.stage == Stage::Delivered {
            if let Some(device) = device {
                self.learned.delivered(&channel, device, event.at);
            }
            return;
        }
        if let Some(device) = device {
            self.learned.accepted(&channel, device, event.at);
        }
        let Some(vendor_id) = event.detail.filter(|id| !id.is_empty()) else {
            return;
        };
        self.carried.remember(app, &channel, &vendor_id, message);
        let wanted = self.credentials.vendor(&channel).is_some_and(|vendor| {
            let capability = vendor.capability();
            capability.recalls || capability.poll_every.is_some()
        });
        if !wanted {
            return;
        }
        let held = device.and_then(|d| d.token(&channel));
        let name = credentials.pick(&channel, held.and_then(|t| t.credential.as_ref()));
        let name = name.cloned();
        let push = pushes
            .entry((channel, vendor_id, message))
            .or_insert_with(|| Told {
                recipients: 0,
                tokens: HashMap::new(),
                first: event.seq,
                at: event.at,
            });
        push.recipients += 1;
        let Some(name) = name else {
            return;
        };
        let tokens = push.tokens.entry(name).or_default();
        // A token that was given since is another than the one that was pushed to, or may be.
        if let Some(token) = held.filter(|t| t.updated_at <= event.at) {
            tokens.push(Secret::new(token.token.as_bytes()));
        }
    }

    /// Tells each channel of its own.
    async fn remind(&self, app: &AppId, pushes: HashMap<PushKey, Told>, from: u64) {
        let mut by_credential: HashMap<(ChannelId, CredentialName), Vec<(u64, Earlier)>> =
            HashMap::new();
        for ((channel, vendor_id, message), told) in pushes {
            let cut = from > 0 && told.first <= from.saturating_add(BATCH_SPREAD);
            for (name, tokens) in told.tokens {
                let earlier = Earlier {
                    vendor_id: vendor_id.clone(),
                    message,
                    // Of all that it went to, whichever credential each of them has now.
                    whole: !cut && tokens.len() == told.recipients,
                    tokens,
                    at: told.at,
                };
                let all = by_credential.entry((channel.clone(), name)).or_default();
                all.push((told.first, earlier));
            }
        }
        for ((channel, name), mut all) in by_credential {
            all.sort_by_key(|(first, _)| *first);
            let all: Vec<Earlier> = all.into_iter().map(|(_, earlier)| earlier).collect();
            match self.credentials.open(app, &channel, &name).await {
                Ok(opened) => opened.channel.remember(&all),
                Err(error) => tracing::debug!(%channel, %error, "a credential does not open"),
            }
        }
    }
}
