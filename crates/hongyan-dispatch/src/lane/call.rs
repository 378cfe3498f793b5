//! One call of a lane to its vendor, from the gate to the feedback.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hongyan_core::delivery::{Called, Happened, Input};
use hongyan_core::limits::{CONFLICT_RETRIES_MAX, VENDOR_CALL_DEADLINE};
use hongyan_core::port::{Batch, CommitError, Recipient, Truncation, WriteSet};
use hongyan_core::verdict::Unsure;
use hongyan_core::{DeviceId, Reason, Secret, Stage, StoreError, Timestamp, Verdict};

use super::measure::counts;
use super::quota::{Over, Policy, Ready};
use super::unused::Charge;
use super::{FULL_RETRY, Health, Lane, PAUSE_MAX, PAUSE_NAMED_MAX, lock};
use crate::breaker::Turn;
use crate::credentials::Opened;
use crate::quota::{Day, believed_until, is_bulk};
use crate::render::{self, Shortened};
use crate::shipment::Shipment;
use crate::situation;

/// First pause of a lane that its vendor asked to slow down without a time; doubles while it goes on asking. A time that it
/// names is kept, as long as it is below [`PAUSE_NAMED_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// So many devices of which a vendor takes no more, and none of which it does between them, are not single busy ones.
const CROWDED_MAX: usize = 50;
/// Grace over the vendor's deadline before the call is given up from outside.
const DEADLINE_GRACE: Duration = Duration::from_secs(1);
/// Tokens that may be called dead one after another, without one that lives between them.
const DEATHS_MAX: usize = 100;

/// A call that may be the probe of an open breaker. When nothing was asked of the vendor in the end, whatever the cause,
/// the probe must not stay open: the next call may be one.
struct Probe<'a> {
    health: &'a Mutex<Health>,
    turn: Turn,
    answered: bool,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if !self.answered {
            lock(self.health).breaker.not_made(self.turn);
        }
    }
}

impl Lane {
    /// One call to the vendor, from the gate to the feedback.
    /// `taken` is what it may use of the vendor's rate.
    pub(super) async fn send(
        &self,
        opened: Opened,
        group: Vec<Shipment>,
        taken: u32,
        (health, turn): (&Mutex<Health>, Turn),
    ) {
        let inner = &self.inner;
        let mut charge = Charge::new(&self.unused, taken);
        let mut probe = Probe {
            health,
            turn,
            answered: false,
        };
        let pass = inner.gate.enter(
            &self.key.0,
            group
                .iter()
                .map(|s| (s.delivery.device.clone(), s.delivery.binding)),
        );
        let (fit, mut rest) = self.still_meant(group).await;
        let changed = match self.fitted(&opened, &fit) {
            Ok(changed) => changed,
            Err(refused) => {
                let now = inner.ports.clock.now();
                for (shipment, _) in fit {
                    self.count(&refused);
                    let input = self.answer(&shipment, refused.clone(), Some(&opened), None, now);
                    rest.push((shipment, input));
                }
                self.report(rest).await;
                return;
            }
        };
        let (fit, over, share) = self.within_quota(&opened, fit).await;
        rest.extend(over);
        let (fit, stayed) = if opened.repeats {
            (fit, Vec::new())
        } else {
            self.hand(fit).await
        };
        // What was taken for those that stay after all goes back with the rest of the share.
        let mut results: Vec<(DeviceId, Verdict)> = Vec::new();
        for (shipment, input) in stayed {
            results.push((shipment.delivery.device.clone(), not_made()));
            rest.extend(input.map(|input| (shipment, input)));
        }
        self.report(rest).await;
        let Some((first, _)) = fit.first() else {
            if let Some(share) = share.filter(|_| !results.is_empty()) {
                self.settle_quota(&share, &results).await;
            }
            return;
        };
        charge.uses(counts(&opened, fit.len()));
        drop(charge);
        let called_at = inner.ports.clock.now();
        let outbound = render::outbound(&first.message, first.package.clone(), called_at);
        let batch = Batch {
            outbound: changed.shortened.of(outbound),
            recipients: fit
                .iter()
                .map(|(s, device)| Recipient {
                    device: s.delivery.device.clone(),
                    token: Secret::new(s.token.as_bytes()),
                    environment: s.environment,
                    secret_hash: device.secret_hash,
                })
                .collect(),
        };
        let verdicts = self.ask(&opened, batch).await;
        drop(pass);
        let now = inner.ports.clock.now();
        let took = now.since(called_at);
        probe.answered = true;
        let verdicts = self.learn((health, turn), &fit, verdicts, now);
        self.tell_changed(&fit, &changed, now).await;
        if let Some(share) = &share {
            let told = fit.iter().map(|(_, device)| device.id.clone());
            results.extend(told.zip(verdicts.iter().cloned()));
            self.settle_quota(share, &results).await;
        }
        let mut policy = Policy::default();
        for ((shipment, device), verdict) in fit.into_iter().zip(verdicts) {
            let verdict = unless_given_since(&shipment, verdict);
            let called = verdict.is_of_vendor().then(|| Called {
                channel: self.key.1.clone(),
                attempt: shipment.delivery.attempt,
                at: called_at,
                took,
            });
            self.count(&verdict);
            let input = match verdict.word() {
                Verdict::QuotaExhausted { until, detail } if is_bulk(shipment.message.class) => {
                    let day = Day::at(now, opened.vendor.day_offset_s());
                    let opens_at = believed_until(until, day, now);
                    let over = Over {
                        opens_at,
                        detail: Some(detail),
                        called,
                    };
                    self.over_quota(&shipment, &device, over, &mut policy).await
                }
                verdict => {
                    match &verdict {
                        Verdict::TokenDead { reason, .. } => {
                            self.kill_token(&shipment, *reason, now).await;
                        }
                        Verdict::Accepted { vendor_id } => {
                            if let Some(id) = vendor_id {
                                let message = shipment.message.id;
                                inner
                                    .carried
                                    .remember(&self.key.0, &self.key.1, id, message);
                            }
                            inner.learned.accepted(&self.key.1, &device, now);
                        }
                        _ => {}
                    }
                    self.answer(&shipment, verdict, Some(&opened), called, now)
                }
            };
            inner.feedback.send(shipment.signal(input)).await;
        }
    }

    fn count(&self, verdict: &Verdict) {
        metrics::counter!(
            "hongyan_lane_verdicts_total",
            "channel" => self.key.1.to_string(),
            "reason" => verdict.reason().as_str(),
        )
        .increment(1);
    }

    async fn report(&self, inputs: Vec<(Shipment, Input)>) {
        for (shipment, input) in inputs {
            self.inner.feedback.send(shipment.signal(input)).await;
        }
    }

    /// What the channel changes of the message, or why it does not go out this way at all; the vendor is not asked. Told once,
    /// on a first try.
    fn fitted(&self, opened: &Opened, fit: &[Ready]) -> Result<Changed, Verdict> {
        let Some((first, _)) = fit.first() else {
            return Ok(Changed::default());
        };
        let strict = fit.iter().any(|(s, _)| s.strict_payload);
        let now = self.inner.ports.clock.now();
        let outbound = render::outbound(&first.message, first.package.clone(), now);
        let fit = AssertUnwindSafe(|| render::fit(opened.channel.as_ref(), &outbound));
        // A panic is the channel's fault; it comes again where it is caught, counted and told.
        let Ok(fit) = catch_unwind(fit) else {
            return Ok(Changed::default());
        };
        let (shortened, parcel) =
            fit.map_err(|(reason, detail)| Verdict::Refused { reason, detail })?;
        let changed = Changed {
            shortened,
            cut: parcel.truncated,
            downgraded: parcel.downgraded,
        };
        if strict && !changed.cut.is_empty() {
            let (reason, detail) = render::too_long(&changed.cut);
            return Err(Verdict::Refused { reason, detail });
        }
        Ok(changed)
    }

    /// Makes durable that a vendor which must not be asked twice is about to be called. Answers who may go, and who stays:
    /// without an input those that have moved on meanwhile.
    async fn hand(&self, fit: Vec<Ready>) -> (Vec<Ready>, Vec<(Shipment, Option<Input>)>) {
        if fit.is_empty() {
            return (fit, Vec::new());
        }
        let now = self.inner.ports.clock.now();
        let again = |error: &StoreError| {
            tracing::warn!(channel = %self.key.1, %error, "a lane could not write down what it was about to send; it comes again");
            Input::NotSent {
                reason: Reason::VendorUnavailable,
                retry_at: now.plus(FULL_RETRY),
                detail: None,
                called: None,
            }
        };
        let (mut ready, mut stayed) = (Vec::with_capacity(fit.len()), Vec::new());
        let mut waiting = fit;
        for _ in 0..CONFLICT_RETRIES_MAX {
            let mut handed = Vec::with_capacity(waiting.len());
            let mut sets = Vec::with_capacity(waiting.len());
            for (mut shipment, device) in waiting {
                let before = shipment.delivery.clone();
                let expected = Some(before.version);
                let step = shipment.delivery.apply(
                    Input::Handed {
                        channel: self.key.1.clone(),
                    },
                    now,
                );
                let mut set = WriteSet::default();
                situation::write(&mut set, &shipment.delivery, expected, vec![step], now);
                // Before it is written: who comes upon the job meanwhile finds either the old version, and makes this stale,
                // or the new one, which is under way.
                shipment.moved_on();
                sets.push(set);
                handed.push((shipment, device, before));
            }
            let results = self.inner.ports.commit.commit(sets).await;
            let mut results = results.into_iter();
            let mut stale = Vec::new();
            for (shipment, device, before) in handed {
                match results.next() {
                    Some(Ok(_)) => ready.push((shipment, device)),
                    Some(Err(CommitError::Store(error))) => {
                        stayed.push((shipment, Some(again(&error))));
                    }
                    Some(Err(CommitError::Stale)) => stale.push((shipment, device, before)),
                    _ => stayed.push((shipment, None)),
                }
            }
            waiting = Vec::with_capacity(stale.len());
            if stale.is_empty() {
                break;
            }
            let keys: Vec<_> = stale
                .iter()
                .map(|(s, ..)| (s.delivery.message, s.delivery.device.clone()))
                .collect();
            let ledger = &self.inner.ports.ledger;
            let found = match ledger.deliveries(&self.key.0, &keys).await {
                Ok(found) => found,
                Err(error) => {
                    let input = again(&error);
                    stayed.extend(stale.into_iter().map(|(s, ..)| (s, Some(input.clone()))));
                    break;
                }
            };
            for ((mut shipment, device, before), found) in stale.into_iter().zip(found) {
                match found.filter(|now| now.state == before.state && now.attempt == before.attempt)
                {
                    // Something was noted of it that changes nothing here.
                    Some(found) if found.handed.is_none() => {
                        shipment.delivery = found;
                        waiting.push((shipment, device));
                    }
                    // Acked, collapsed or cancelled a moment ago.
                    _ => stayed.push((shipment, None)),
                }
            }
        }
        // They change faster than they can be handed over: the end of their lease brings them back.
        stayed.extend(waiting.into_iter().map(|(s, _)| (s, None)));
        (ready, stayed)
    }

    /// Asks the vendor, in a task of its own so that a panic stays there.
    async fn ask(&self, opened: &Opened, batch: Batch) -> Vec<Verdict> {
        let channel = Arc::clone(&opened.channel);
        let recipients = batch.recipients.len();
        let called = tokio::spawn(async move {
            let sending = channel.send(&batch, VENDOR_CALL_DEADLINE);
            tokio::time::timeout(VENDOR_CALL_DEADLINE + DEADLINE_GRACE, sending).await
        });
        let lost = |detail: &str| Verdict::Retry {
            reason: Reason::VendorUnavailable,
            after: None,
            detail: detail.to_owned(),
            certainty: Unsure::MaybeTaken,
        };
        let mut verdicts = match called.await {
            Ok(Ok(verdicts)) => verdicts,
            Ok(Err(_elapsed)) => vec![lost("no answer within the deadline"); recipients],
            Err(panic) => {
                tracing::error!(channel = %self.key.1, error = %panic, "a channel panicked");
                metrics::counter!("hongyan_lane_panics_total").increment(1);
                vec![lost("internal error while sending"); recipients]
            }
        };
        verdicts.resize(recipients, lost("the channel gave no verdict"));
        verdicts
    }

    /// Looks each device up once more, inside the gate: what is no longer meant for who holds it stays here.
    async fn still_meant(&self, group: Vec<Shipment>) -> (Vec<Ready>, Vec<(Shipment, Input)>) {
        let ports = &self.inner.ports;
        let now = ports.clock.now();
        let ids: Vec<_> = group.iter().map(|s| s.delivery.device.clone()).collect();
        let again = Input::NotSent {
            reason: Reason::VendorUnavailable,
            retry_at: now.plus(FULL_RETRY),
            detail: None,
            called: None,
        };
        let keys: Vec<_> = group
            .iter()
            .map(|s| (s.delivery.message, s.delivery.device.clone()))
            .collect();
        let message = group.first().map(|s| s.message.id);
        let looked = async {
            let devices = ports.registry.devices(&self.key.0, &ids).await?;
            let recalled = match message {
                Some(id) => ports.inbox.recalled(&self.key.0, id).await?.is_some(),
                None => false,
            };
            let deliveries = ports.ledger.deliveries(&self.key.0, &keys).await?;
            Ok::<_, StoreError>((devices, recalled, deliveries))
        };
        let (devices, recalled, deliveries) = match looked.await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "a lane could not look its devices up; its shipments come again");
                let again = |s| (s, again.clone());
                return (vec![], group.into_iter().map(again).collect());
            }
        };
        let (mut fit, mut rest) = (Vec::with_capacity(group.len()), Vec::new());
        for ((shipment, device), stored) in group.into_iter().zip(devices).zip(deliveries) {
            let d = &shipment.delivery;
            // Acked, collapsed or cancelled while it waited here: there is nothing left to say.
            if stored.is_none_or(|stored| stored.state != d.state || stored.attempt != d.attempt) {
                continue;
            }
            let verdict = match &device {
                None => Some(Input::End(Reason::DeviceDeleted)),
                Some(device)
                    if d.user.is_some()
                        && (device.user != d.user || device.binding != d.binding) =>
                {
                    Some(Input::End(Reason::UserLoggedOut))
                }
                Some(_) if recalled => Some(Input::End(Reason::Recalled)),
                Some(_) if now >= d.expires_at => Some(Input::End(Reason::Expired)),
                Some(device) => match device.token(&self.key.1) {
                    Some(t) if t.takes_pushes() && t.token == shipment.token => None,
                    // The token changed on the way, or is paused: plan again.
                    _ => Some(Input::NotSent {
                        reason: Reason::TokenInvalid,
                        retry_at: now,
                        detail: None,
                        called: None,
                    }),
                },
            };
            match (verdict, device) {
                (None, Some(device)) => fit.push((shipment, device)),
                (None, None) => rest.push((shipment, Input::End(Reason::DeviceDeleted))),
                (Some(input), _) => rest.push((shipment, input)),
            }
        }
        (fit, rest)
    }

    async fn kill_token(&self, shipment: &Shipment, reason: Reason, now: Timestamp) {
        let killed = self
            .inner
            .ports
            .registry
            .kill_token(
                &self.key.0,
                &shipment.delivery.device,
                &self.key.1,
                &shipment.token,
                reason,
                now,
            )
            .await;
        if let Err(error) = killed {
            tracing::warn!(channel = %self.key.1, %error, "a dead token could not be taken out of use");
        }
    }

    /// What was changed for the vendor is told, once for each delivery.
    async fn tell_changed(&self, sent: &[Ready], changed: &Changed, now: Timestamp) {
        let mut told = Vec::new();
        if !changed.cut.is_empty() {
            told.push((
                Stage::Truncated,
                Reason::Truncated,
                render::cut_words(&changed.cut),
            ));
        }
        if let Some(why) = &changed.downgraded {
            told.push((Stage::ClassDowngraded, Reason::ClassDowngraded, why.clone()));
        }
        if told.is_empty() {
            return;
        }
        let mut events = Vec::with_capacity(sent.len());
        for (shipment, _) in sent.iter().filter(|(s, _)| s.delivery.attempt <= 1) {
            for (stage, reason, detail) in &told {
                let happened = Happened {
                    channel: Some(self.key.1.clone()),
                    attempt: shipment.delivery.attempt,
                    detail: Some(detail.clone()),
                    ..Happened::new(*stage, Some(*reason))
                };
                events.push(shipment.delivery.event(happened, now));
            }
        }
        let set = WriteSet {
            events,
            ..WriteSet::default()
        };
        if let Some(Err(error)) = self.inner.ports.commit.commit(vec![set]).await.pop() {
            tracing::warn!(%error, "what was changed for a vendor could not be told");
        }
    }

    /// What the answers say about the vendor's health.
    ///
    /// A vendor that calls token after token dead, over calls, speaks of a wrong credential: then no more tokens die.
    fn learn(
        &self,
        (health, turn): (&Mutex<Health>, Turn),
        sent: &[Ready],
        mut verdicts: Vec<Verdict>,
        now: Timestamp,
    ) -> Vec<Verdict> {
        let mut health = lock(health);
        for verdict in &mut verdicts {
            match verdict {
                // What cannot be a token at all says nothing of the credential.
                verdict if !verdict.is_of_vendor() => {}
                Verdict::TokenDead { detail, .. } => {
                    health.deaths += 1;
                    if health.deaths > DEATHS_MAX {
                        *verdict = Verdict::Refused {
                            reason: Reason::TokenEnvironment,
                            detail: format!(
                                "{} tokens in a row were called dead ({detail}), so they are kept: check the credential, its environment and where the tokens come from",
                                health.deaths
                            ),
                        };
                    }
                }
                Verdict::Accepted { .. } => health.deaths = 0,
                _ => {}
            }
        }
        let mut answered = false;
        let mut failed = false;
        let mut slowed = false;
        let mut limited = false;
        let mut named = None;
        for (verdict, (shipment, _)) in verdicts.iter().zip(sent) {
            match verdict {
                // The channel's own word: the vendor was not asked.
                verdict if !verdict.is_of_vendor() => {}
                Verdict::Retry {
                    reason: Reason::VendorRateLimited,
                    after,
                    ..
                } => {
                    slowed = true;
                    named = named.max(*after);
                }
                Verdict::DeviceLimited { .. } => {
                    limited = true;
                    if health.crowded.len() <= CROWDED_MAX {
                        health.crowded.insert(shipment.delivery.device.clone());
                    }
                }
                Verdict::Retry { .. } => failed = true,
                verdict => {
                    answered = true;
                    if matches!(verdict, Verdict::Accepted { .. }) {
                        health.crowded.clear();
                    }
                }
            }
        }
        // One busy device after the other, and none that is not: it means all of them.
        slowed |= limited && health.crowded.len() > CROWDED_MAX;
        if slowed {
            health.pace.slow_down(now);
        }
        let pause = match named {
            Some(named) => Some(named.min(PAUSE_NAMED_MAX)),
            None if slowed && !answered => Some(
                PAUSE_MIN
                    .saturating_mul(1 << health.slowed.min(8))
                    .min(PAUSE_MAX),
            ),
            None => None,
        };
        if let Some(pause) = pause {
            health.slowed = health.slowed.saturating_add(1);
            health.paused_until = health.paused_until.max(now.plus(pause));
            answered = true;
        } else if answered {
            health.slowed = 0;
        }
        if answered || limited {
            health.breaker.succeeded();
        } else if failed {
            health.breaker.failed(turn, now);
        } else {
            health.breaker.not_made(turn);
        }
        verdicts
    }
}

/// What is changed of a message for a channel, and told.
#[derive(Debug, Default)]
struct Changed {
    shortened: Shortened,
    cut: Vec<Truncation>,
    downgraded: Option<String>,
}

/// For the quota of a call that was not made in the end.
fn not_made() -> Verdict {
    Verdict::Retry {
        reason: Reason::VendorUnavailable,
        after: None,
        detail: String::new(),
        certainty: Unsure::NotTaken,
    }
}

/// A token that the device gave again after the vendor saw it die is alive: the vendor has not noticed yet.
fn unless_given_since(shipment: &Shipment, verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::TokenDead {
            detail,
            since: Some(since),
            ..
        } if shipment.registered_at > since => Verdict::Retry {
            reason: Reason::VendorUnavailable,
            after: None,
            detail: format!("{detail}, but the device gave it again later"),
            certainty: Unsure::NotTaken,
        },
        verdict => verdict,
    }
}
