//! Takes a message back: what has not left stays, what has left is withdrawn where that is possible.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hongyan_core::delivery::{Input, State};
use hongyan_core::limits::{IDEMPOTENCY_TTL, TARGETS_LEN_MAX, VENDOR_CALL_DEADLINE};
use hongyan_core::port::{
    CommitError, Fresh, Hint, Idempotency, Job, JobKind, Recipient, WriteSet,
};
use hongyan_core::{
    AppId, ChannelId, CredentialName, DeviceId, Message, MessageId, Reason, Secret, Stage,
    StoreError, Timestamp, Verdict,
};

use crate::choice::Learned;
use crate::credentials::Credentials;
use crate::feedback::{Feedback, Signal};
use crate::gate::Gate;
use crate::ids::Ids;
use crate::intake;
use crate::service::Ports;

/// What a recall did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recalled {
    /// Deliveries that were still open and now end: as `recalled`, or with the word of a vendor that had taken them.
    pub stopped: u64,
    /// Deliveries that a vendor withdrew.
    pub withdrawn: u64,
}

/// Takes messages back.
#[derive(Debug, Clone)]
pub struct Recall {
    pub(crate) ports: Ports,
    pub(crate) credentials: Credentials,
    pub(crate) feedback: Feedback,
    pub(crate) gate: Gate,
    pub(crate) learned: Learned,
    pub(crate) ids: Ids,
}

const PAGE: usize = 500;
/// What begins sooner than this may begin while its recall is written.
const SOON: Duration = Duration::from_secs(3);
/// How long a recall waits until the router has ended what it was to begin later.
const ROUTED_WITHIN: Duration = Duration::from_secs(5);
/// How soon it looks whether that is done, and how often at most.
const LOOK_FIRST: Duration = Duration::from_millis(5);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Recall {
    /// Recalls a message. Idempotent: recalling twice does nothing more.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the message is unknown or no longer kept.
    pub async fn recall(&self, app: &AppId, id: MessageId) -> Result<Recalled, StoreError> {
        let ports = &self.ports;
        let message = ports
            .inbox
            .message(app, id)
            .await?
            .filter(|message| message.recalls.is_none())
            .ok_or(StoreError::NotFound { entity: "message" })?;
        let mut is_unbegun = false;
        if ports.inbox.recalled(app, id).await?.is_none() {
            let now = ports.clock.now();
            is_unbegun = message.options.send_at.is_some_and(|at| at > now);
            let jobs = self.not_begun(&message, now).await?;
            self.mark(app, &message, jobs, now).await?;
        }
        for owner in intake::owners(&message) {
            ports.presence.recall(app, &owner, id);
        }
        let mut done = self.stop_and_withdraw(app, &message).await?;
        if is_unbegun {
            // Those that began meanwhile are among them.
            done.stopped = done.stopped.max(self.ended_unbegun(app, id).await?);
        }
        Ok(done)
    }

    /// What was to be routed at a time that has not come: it is routed now, so that each device is told that nothing will come.
    async fn not_begun(&self, message: &Message, now: Timestamp) -> Result<Vec<Job>, StoreError> {
        // Nobody leases them before their time, so they can be moved. What begins soon is left alone: it finds the recall.
        if !begins_late(message, now) {
            return Ok(Vec::new());
        }
        let work = &self.ports.work;
        let jobs = work.of_message(&message.app, message.id, TARGETS_LEN_MAX);
        let routes = jobs.await?.into_iter();
        Ok(routes
            .filter(|job| !matches!(job.kind, JobKind::Deliver { .. }))
            .map(|job| Job { due: now, ..job })
            .collect())
    }

    /// How many deliveries of a message that had not begun ended as recalled. Waits for the router, but not for ever:
    /// of a broadcast to very many, those that ended meanwhile.
    async fn ended_unbegun(&self, app: &AppId, id: MessageId) -> Result<u64, StoreError> {
        let ports = &self.ports;
        let routed = async {
            let mut wait = LOOK_FIRST;
            loop {
                let next = ports.work.of_message(app, id, 1).await?;
                if next.is_empty() {
                    return Ok::<_, StoreError>(());
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LOOK_AGAIN);
            }
        };
        if let Ok(failed @ Err(_)) = tokio::time::timeout(ROUTED_WITHIN, routed).await {
            failed?;
        }
        let rows = ports.ledger.message_counters(app, id).await?.into_iter();
        Ok(rows
            .filter(|row| row.key.ends && row.key.reason == Some(Reason::Recalled))
            .map(|row| row.count)
            .sum())
    }

    /// Makes the recall durable. Whoever may have the message already is told by a mark in the same lists; of what came over
    /// a push endpoint there is none, as it waits apart and whoever has it has it.
    async fn mark(
        &self,
        app: &AppId,
        message: &Message,
        jobs: Vec<Job>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let ports = &self.ports;
        let mut set = WriteSet {
            idempotency: Some(once(app, message.id, now)),
            recalled: vec![(app.clone(), message.id, now)],
            jobs,
            events: vec![intake::about(message, Stage::Recalled, now)],
            ..WriteSet::default()
        };
        let mut hints = Vec::new();
        // One that waits for its time has reached nobody.
        if message.push.is_none() && !begins_late(message, now) {
            let id = self.ids.next(now, ports.dice.as_ref());
            let mark = Arc::new(message.recall_mark(id, now));
            for owner in intake::owners(&mark) {
                set.inbox.push(intake::entry(&mark, owner.clone()));
                hints.push(Hint {
                    app: app.clone(),
                    owner,
                    fresh: Some(Fresh {
                        after: 0,
                        place: 0,
                        message: Arc::clone(&mark),
                    }),
                });
            }
            set.messages.push(mark);
        }
        match ports.commit.commit(vec![set]).await.pop() {
            Some(Ok(done)) => intake::place(&mut hints, &done.places),
            // Somebody else recalled it at the same time.
            Some(Err(CommitError::Known { .. })) => return Ok(()),
            Some(Err(CommitError::Store(error))) => return Err(error),
            _ => return Err(StoreError::Conflict { entity: "message" }),
        }
        // Before the sessions are told to stop: who gets the mark at once need not be told twice.
        ports.presence.notify(hints);
        Ok(())
    }

    async fn stop_and_withdraw(
        &self,
        app: &AppId,
        message: &Arc<Message>,
    ) -> Result<Recalled, StoreError> {
        let mut done = Recalled::default();
        let mut after: Option<DeviceId> = None;
        loop {
            let page = self
                .ports
                .ledger
                .deliveries_of(app, message.id, after.clone(), PAGE)
                .await?;
            after = page.last().map(|d| d.device.clone());
            let full = page.len() == PAGE;
            let mut sent: HashMap<ChannelId, Vec<DeviceId>> = HashMap::new();
            let mut under_way: HashMap<ChannelId, Vec<DeviceId>> = HashMap::new();
            for delivery in page {
                for channel in delivery.taken.iter().chain(&delivery.via) {
                    let devices = sent.entry(channel.clone()).or_default();
                    if devices.last() != Some(&delivery.device) {
                        devices.push(delivery.device.clone());
                    }
                }
                if delivery.outcome().is_none() {
                    done.stopped += 1;
                    if let State::Pushing { channel, .. } = &delivery.state
                        && self.withdraws(channel)
                    {
                        let devices = under_way.entry(channel.clone()).or_default();
                        devices.push(delivery.device.clone());
                    }
                    self.feedback
                        .send(Signal {
                            app: delivery.app,
                            message: delivery.message,
                            device: delivery.device,
                            user: delivery.user,
                            input: Input::End(Reason::Recalled),
                        })
                        .await;
                }
            }
            for (channel, devices) in sent {
                done.withdrawn += self.withdraw(app, message, &channel, &devices).await?;
            }
            for (channel, devices) in under_way {
                // A call to the vendor may have begun before the recall was known: what it brought is withdrawn after it.
                let left = async {
                    for device in &devices {
                        self.gate.wait_empty(app, device).await;
                    }
                };
                if tokio::time::timeout(VENDOR_CALL_DEADLINE, left)
                    .await
                    .is_err()
                {
                    tracing::warn!(%app, message = %message.id, %channel, "a recall did not wait longer for calls to the vendor");
                }
                self.withdraw(app, message, &channel, &devices).await?;
            }
            if !full {
                return Ok(done);
            }
        }
    }

    /// Whether the channel's vendor can take messages back.
    fn withdraws(&self, channel: &ChannelId) -> bool {
        self.credentials
            .vendor(channel)
            .is_some_and(|v| v.capability().recalls)
    }

    /// Asks the vendor to take it back from these devices; a vendor that cannot is no error.
    async fn withdraw(
        &self,
        app: &AppId,
        message: &Arc<Message>,
        channel: &ChannelId,
        devices: &[DeviceId],
    ) -> Result<u64, StoreError> {
        if !self.withdraws(channel) {
            return Ok(0);
        }
        let facts = crate::situation::app_facts(&self.ports, &self.learned, app).await?;
        let mut by_credential: HashMap<CredentialName, Vec<Recipient>> = HashMap::new();
        for device in self
            .ports
            .registry
            .devices(app, devices)
            .await?
            .into_iter()
            .flatten()
        {
            if let Some(token) = device.token(channel).filter(|t| t.is_active())
                && let Some(name) = facts.credentials.pick(channel, token.credential.as_ref())
            {
                by_credential
                    .entry(name.clone())
                    .or_default()
                    .push(Recipient {
                        device: device.id.clone(),
                        token: Secret::new(token.token.as_bytes()),
                        environment: token.environment,
                        secret_hash: device.secret_hash,
                    });
            }
        }
        let mut withdrawn = 0;
        for (name, recipients) in by_credential {
            let opened = match self.credentials.open(app, channel, &name).await {
                Ok(opened) => opened,
                Err(error) => {
                    tracing::warn!(%channel, %error, "a recall could not reach its vendor");
                    continue;
                }
            };
            let call = opened
                .channel
                .recall(message, &recipients, VENDOR_CALL_DEADLINE);
            if let Ok(Some(verdicts)) = tokio::time::timeout(VENDOR_CALL_DEADLINE, call).await {
                withdrawn += verdicts
                    .iter()
                    .filter(|v| matches!(v, Verdict::Accepted { .. }))
                    .count() as u64;
            }
        }
        Ok(withdrawn)
    }
}

/// Whether the message waits for its time, and for so long that it cannot begin while its recall is written.
fn begins_late(message: &Message, now: Timestamp) -> bool {
    let begins = message.options.send_at;
    begins.is_some_and(|at| at > now.plus(SOON))
}

/// Of recalls of a message at the same time one is written. No caller can send such a key: headers have no NUL.
fn once(app: &AppId, id: MessageId, now: Timestamp) -> Idempotency {
    Idempotency {
        app: app.clone(),
        key: format!("\0recall/{id}"),
        body_hash: [0; 32],
        answer: Vec::new(),
        expires_at: now.plus(IDEMPOTENCY_TTL),
    }
}
