//! What nobody heard of for long: where a vendor can say whether a token lives, it is asked before a push is wasted; browsers that
//! only made themselves known are forgotten.

use std::collections::HashMap;
use std::time::Duration;

use hongyan_core::device::Platform;
use hongyan_core::limits::VENDOR_CALL_DEADLINE;
use hongyan_core::port::{CommitError, WriteSet};
use hongyan_core::push::{BROWSER_PREFIX, CHANNELS_PER_DEVICE_MAX, UNSEEN_MAX};
use hongyan_core::{
    AppId, ChannelId, CredentialName, Device, DeviceId, Event, Reason, Secret, Stage, StoreError,
    Verdict,
};
use tokio::sync::watch;

use crate::binding::Bindings;
use crate::credentials::Credentials;
use crate::plan::CredentialIndex;
use crate::service::Ports;

/// A token is stale when neither it nor its device was heard of for this long.
const STALE_AFTER: Duration = Duration::from_secs(30 * 86_400);
/// How often all stale tokens are asked about.
const EVERY: Duration = Duration::from_secs(86_400);
/// Devices read at once.
const PAGE: usize = 1_000;
/// Pause between pages: this work never hurries.
const BETWEEN_PAGES: Duration = Duration::from_secs(1);
/// Apps read at once.
const APPS_PAGE: usize = 100;
/// Grace over the vendor's deadline before a question is given up from outside.
const GRACE: Duration = Duration::from_secs(1);
/// If more of the tokens that a credential was asked about in a round than this share are dead, the answer is not believed: the
/// credential is wrong then.
const DEAD_SHARE_MAX: f64 = 0.9;
/// Answers about fewer tokens in a round are believed whatever they say.
const BELIEVED_LEN: usize = 10;

/// Asks vendors about stale tokens. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hygiene {
    pub(crate) ports: Ports,
    pub(crate) credentials: Credentials,
    pub(crate) bindings: Bindings,
}

type Place = (ChannelId, CredentialName);

/// What the vendor said of a credential's tokens in this round.
#[derive(Debug, Default)]
struct Said {
    asked: usize,
    dead: usize,
}

impl Said {
    fn is_believed(&self) -> bool {
        let share = self.dead as f64 / self.asked.max(1) as f64;
        self.asked < BELIEVED_LEN || share <= DEAD_SHARE_MAX
    }
}

impl Hygiene {
    /// Once a day until told to stop. The first round begins after a day, so that restarts do not ask again and again.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                done = self.sweep() => match done {
                    Ok(killed) => tracing::info!(killed, "stale tokens were asked about"),
                    Err(error) => tracing::warn!(%error, "stale tokens could not be asked about"),
                }
            }
        }
    }

    /// One round over all apps; answers how many tokens were found dead.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn sweep(&self) -> Result<usize, StoreError> {
        let (mut killed, mut after) = (0, None);
        loop {
            let apps = self.ports.registry.apps(after.as_ref(), APPS_PAGE).await?;
            let Some(last) = apps.last() else {
                return Ok(killed);
            };
            after = Some(last.id.clone());
            for app in &apps {
                match self.app(&app.id).await {
                    Ok(count) => killed += count,
                    // One app's trouble is not the next one's.
                    Err(error) => {
                        tracing::warn!(app = %app.id, %error, "an app's stale tokens could not be asked about");
                    }
                }
            }
        }
    }

    async fn app(&self, app: &AppId) -> Result<usize, StoreError> {
        let registry = &self.ports.registry;
        let mut index = CredentialIndex::default();
        for c in registry.credentials(app).await? {
            index.add(c.channel, c.name);
        }
        let (mut killed, mut after) = (0, None);
        let mut said: HashMap<Place, Said> = HashMap::new();
        loop {
            let page = registry.device_page(app, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(killed);
            };
            after = Some(last.id.clone());
            let full = page.len() == PAGE;
            self.forget_browsers(app, &page).await?;
            for (place, stale) in self.stale(&index, &page) {
                let said = said.entry(place.clone()).or_default();
                killed += self.ask(app, &place, stale, said).await?;
            }
            if !full {
                return Ok(killed);
            }
            tokio::time::sleep(BETWEEN_PAGES).await;
        }
    }

    /// Forgets browsers that did not connect for long: nobody else will. Their senders are told so for as long as usual.
    async fn forget_browsers(&self, app: &AppId, page: &[Device]) -> Result<(), StoreError> {
        let now = self.ports.clock.now();
        let unseen = |d: &&Device| {
            d.platform == Platform::Web
                && d.id.as_str().starts_with(BROWSER_PREFIX)
                && d.last_seen.plus(UNSEEN_MAX) < now
        };
        let gone: Vec<&Device> = page.iter().filter(unseen).collect();
        let ids: Vec<DeviceId> = gone.iter().map(|device| device.id.clone()).collect();
        let sessions = self.ports.presence.sessions(app, &ids);
        let connected = sessions.iter().map(Option::is_some);
        let registry = &self.ports.registry;
        for (device, is_connected) in gone.into_iter().zip(connected) {
            if is_connected {
                continue;
            }
            let since = device.last_seen.plus(UNSEEN_MAX);
            let most = CHANNELS_PER_DEVICE_MAX;
            for endpoint in registry.endpoints_of(app, &device.id, None, most).await? {
                registry
                    .end_endpoint(app, &device.id, &endpoint.channel, since)
                    .await?;
            }
            self.bindings.forget(app, &device.id).await?;
            metrics::counter!("hongyan_push_browsers_forgotten_total").increment(1);
        }
        Ok(())
    }

    /// Stale tokens of a page of devices, by where to ask.
    fn stale(
        &self,
        index: &CredentialIndex,
        page: &[Device],
    ) -> HashMap<Place, Vec<(DeviceId, String)>> {
        let now = self.ports.clock.now();
        let mut stale: HashMap<Place, Vec<(DeviceId, String)>> = HashMap::new();
        for device in page.iter().filter(|d| now.since(d.last_seen) > STALE_AFTER) {
            for token in &device.tokens {
                if !token.is_active() || now.since(token.updated_at) <= STALE_AFTER {
                    continue;
                }
                if let Some(name) = index.pick(&token.channel, token.credential.as_ref()) {
                    stale
                        .entry((token.channel.clone(), name.clone()))
                        .or_default()
                        .push((device.id.clone(), token.token.clone()));
                }
            }
        }
        stale
    }

    async fn ask(
        &self,
        app: &AppId,
        (channel, name): &Place,
        stale: Vec<(DeviceId, String)>,
        said: &mut Said,
    ) -> Result<usize, StoreError> {
        let opened = match self.credentials.open(app, channel, name).await {
            Ok(opened) => opened,
            Err(error) => {
                tracing::debug!(%app, %channel, %error, "stale tokens of a credential that does not open stay");
                return Ok(0);
            }
        };
        let mut dead = Vec::new();
        for part in stale.chunks(opened.vendor.capability().batch_len_max.max(1)) {
            let tokens: Vec<Secret> = part
                .iter()
                .map(|(_, t)| Secret::new(t.as_bytes()))
                .collect();
            let asked = opened.channel.probe(&tokens, VENDOR_CALL_DEADLINE);
            let Ok(Some(verdicts)) =
                tokio::time::timeout(VENDOR_CALL_DEADLINE + GRACE, asked).await
            else {
                return Ok(0);
            };
            for ((device, token), verdict) in part.iter().zip(&verdicts) {
                if let Verdict::TokenDead { reason, detail, .. } = verdict {
                    dead.push((device, token, *reason, detail.clone()));
                }
            }
        }
        // With what it said of the pages before: a wrong credential calls everybody dead, however few are stale on each.
        let before = said.is_believed();
        said.asked += stale.len();
        said.dead += dead.len();
        if !said.is_believed() {
            if before {
                tracing::warn!(%app, %channel, credential = %name, asked = said.asked, "the vendor calls nearly all stale tokens dead, so no more are dropped: check the credential");
            }
            return Ok(0);
        }
        let mut killed = 0;
        for (id, token, reason, detail) in dead {
            let found = self.ports.registry.devices(app, std::slice::from_ref(id));
            if let Some(Some(device)) = found.await?.pop()
                && bury(&self.ports, &device, channel, token, reason, Some(detail)).await?
            {
                killed += 1;
            }
        }
        Ok(killed)
    }
}

/// Leaves a tombstone on a token and tells the ledger; answers whether the device still had it.
pub(crate) async fn bury(
    ports: &Ports,
    device: &Device,
    channel: &ChannelId,
    token: &str,
    reason: Reason,
    detail: Option<String>,
) -> Result<bool, StoreError> {
    let now = ports.clock.now();
    let buried = ports
        .registry
        .kill_token(&device.app, &device.id, channel, token, reason, now)
        .await?;
    if buried {
        let told = Event {
            seq: 0,
            at: now,
            app: device.app.clone(),
            stage: Stage::TokenDead,
            reason: Some(reason),
            message: None,
            class: None,
            user: device.user.clone(),
            device: Some(device.id.clone()),
            platform: Some(device.platform),
            channel: Some(channel.clone()),
            attempt: 0,
            until: None,
            took_ms: None,
            detail,
            r#final: false,
        };
        let set = WriteSet {
            events: vec![told],
            ..WriteSet::default()
        };
        if let Some(Err(CommitError::Store(error))) = ports.commit.commit(vec![set]).await.pop() {
            return Err(error);
        }
    }
    Ok(buried)
}
