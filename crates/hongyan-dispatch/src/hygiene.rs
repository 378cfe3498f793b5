//! Tokens that nobody heard of for long: where the vendor can say whether they live, it is asked before a push is wasted.

use std::collections::HashMap;
use std::time::Duration;

use hongyan_core::limits::VENDOR_CALL_DEADLINE;
use hongyan_core::{
    AppId, ChannelId, CredentialName, Device, DeviceId, Secret, StoreError, Verdict,
};
use tokio::sync::watch;

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
/// If more of a question's tokens than this share are dead, the answer is not believed: the credential is wrong then.
const DEAD_SHARE_MAX: f64 = 0.9;
/// Questions about fewer tokens are believed whatever they say.
const BELIEVED_LEN: usize = 10;

/// Asks vendors about stale tokens. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hygiene {
    pub(crate) ports: Ports,
    pub(crate) credentials: Credentials,
}

type Place = (ChannelId, CredentialName);

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
                killed += self.app(&app.id).await?;
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
        loop {
            let page = registry.device_page(app, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(killed);
            };
            after = Some(last.id.clone());
            let full = page.len() == PAGE;
            for (place, stale) in self.stale(&index, &page) {
                killed += self.ask(app, &place, stale).await?;
            }
            if !full {
                return Ok(killed);
            }
            tokio::time::sleep(BETWEEN_PAGES).await;
        }
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
    ) -> Result<usize, StoreError> {
        let opened = match self.credentials.open(app, channel, name).await {
            Ok(opened) => opened,
            Err(error) => {
                tracing::debug!(%app, %channel, %error, "stale tokens of a credential that does not open stay");
                return Ok(0);
            }
        };
        let mut killed = 0;
        for part in stale.chunks(opened.vendor.capability().batch_len_max.max(1)) {
            let tokens: Vec<Secret> = part
                .iter()
                .map(|(_, t)| Secret::new(t.as_bytes()))
                .collect();
            let Some(verdicts) = opened.channel.probe(&tokens, VENDOR_CALL_DEADLINE).await else {
                return Ok(killed);
            };
            let dead = |v: &Verdict| matches!(v, Verdict::TokenDead { .. });
            let share =
                verdicts.iter().filter(|v| dead(v)).count() as f64 / verdicts.len().max(1) as f64;
            if verdicts.len() >= BELIEVED_LEN && share > DEAD_SHARE_MAX {
                tracing::warn!(%app, %channel, credential = %name, asked = verdicts.len(), "the vendor calls nearly all stale tokens dead, so none is dropped: check the credential");
                return Ok(killed);
            }
            let now = self.ports.clock.now();
            for ((device, token), verdict) in part.iter().zip(&verdicts) {
                if let Verdict::TokenDead { reason, .. } = verdict {
                    let registry = &self.ports.registry;
                    if registry
                        .kill_token(app, device, channel, token, *reason, now)
                        .await?
                    {
                        killed += 1;
                    }
                }
            }
        }
        Ok(killed)
    }
}
