//! The machine that takes one message to one device.
//!
//! Pure: [`Delivery::apply`] turns an [`Input`] into a [`Step`] (what happened, what comes next). Every open
//! delivery has exactly one job in the work store, due when something must happen if nothing else does; a
//! final outcome has no way out, later news (a late ack, a click) is recorded as stages only.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::device::{Device, Platform};
use crate::message::{DeviceChoice, Message};
use crate::{
    AppId, ChannelId, Class, CredentialName, DeviceId, Event, MessageId, Reason, Stage, Timestamp,
    UserId, Verdict,
};

/// One message on its way to one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// The app.
    pub app: AppId,
    /// The message.
    pub message: MessageId,
    /// The device.
    pub device: DeviceId,
    /// The user it is meant for; none when the device itself was addressed.
    #[serde(default)]
    pub user: Option<UserId>,
    /// Who held the device when it was planned: for the trace, also of what addresses everybody.
    #[serde(default)]
    pub holder: Option<UserId>,
    /// The device's binding when it was planned: another binding is another person.
    #[serde(default)]
    pub binding: u64,
    /// The message's class.
    pub class: Class,
    /// The device's platform.
    pub platform: Platform,
    /// The message's collapse key.
    #[serde(default)]
    pub collapse_key: Option<String>,
    /// When it is no longer worth delivering.
    pub expires_at: Timestamp,
    /// Where it is.
    pub state: State,
    /// Whether a session had its chance and stayed silent.
    #[serde(default)]
    pub online_tried: bool,
    /// Channels that failed for good.
    #[serde(default)]
    pub tried: Vec<ChannelId>,
    /// Why the last way failed.
    #[serde(default)]
    pub last_failure: Option<Reason>,
    /// Tries at the present channel.
    #[serde(default)]
    pub attempt: u16,
    /// The channel whose vendor took it last.
    #[serde(default)]
    pub via: Option<ChannelId>,
    /// Every channel whose vendor took it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken: Vec<ChannelId>,
    /// A channel whose vendor gave it up before its answer to our call came, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<(ChannelId, Reason)>,
    /// Whether an ack ends the deliveries to the user's other devices.
    #[serde(default)]
    pub first_ack: bool,
    /// What the device reported, each once.
    #[serde(default)]
    pub seen: Seen,
    /// Grows with every change; checked on write.
    #[serde(default)]
    pub version: u32,
}

/// Where a delivery is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// To be planned.
    Planning,
    /// With a session; `until` is when the wait for its ack ends.
    Online {
        /// End of the wait.
        until: Timestamp,
    },
    /// Waits for a time.
    Held {
        /// Until when.
        until: Timestamp,
        /// For what.
        reason: Reason,
    },
    /// With a lane or vendor.
    Pushing {
        /// The channel.
        channel: ChannelId,
        /// The credential.
        credential: CredentialName,
    },
    /// Waits for the next try at a vendor.
    Retrying {
        /// The channel.
        channel: ChannelId,
        /// The credential.
        credential: CredentialName,
        /// When.
        until: Timestamp,
    },
    /// A vendor took it; another channel is tried if no receipt comes in time.
    AwaitingReceipt {
        /// The vendor's channel.
        channel: ChannelId,
        /// End of the wait.
        until: Timestamp,
    },
    /// The final outcome.
    Done {
        /// Which.
        reason: Reason,
        /// When.
        at: Timestamp,
    },
}

/// The set of stages that a device reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seen(pub u8);

impl Seen {
    fn bit(stage: Stage) -> u8 {
        match stage {
            Stage::Delivered => 1,
            Stage::Displayed => 2,
            Stage::Clicked => 4,
            Stage::Opened => 8,
            Stage::Dismissed => 16,
            Stage::Undelivered => 32,
            _ => 0,
        }
    }

    /// Whether the stage was reported.
    #[must_use]
    pub fn has(self, stage: Stage) -> bool {
        self.0 & Self::bit(stage) != 0
    }

    /// Whether devices report this stage.
    fn is_client(stage: Stage) -> bool {
        stage != Stage::Undelivered && Self::bit(stage) != 0
    }

    /// Adds a stage; answers whether it is new and one that is kept here.
    fn add(&mut self, stage: Stage) -> bool {
        let bit = Self::bit(stage);
        let new = bit != 0 && self.0 & bit == 0;
        self.0 |= bit;
        new
    }
}

/// What the planner decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Give it to the session and wait for its ack until then.
    Online {
        /// End of the wait.
        until: Timestamp,
    },
    /// Give it to a vendor (and to the session too, for `both`).
    Push {
        /// The channel.
        channel: ChannelId,
        /// The credential.
        credential: CredentialName,
    },
    /// Wait.
    Hold {
        /// Until when.
        until: Timestamp,
        /// For what.
        reason: Reason,
    },
    /// It ends here.
    End(Reason),
}

/// What can happen to a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The planner decided.
    Plan(Decision),
    /// Its wait is over: ack timeout, hold, retry, or a lease that a lost process held.
    Due,
    /// The device acknowledged it, or a receipt says that the device has it.
    Acked,
    /// The device could not use it.
    Rejected,
    /// The device reported what the person did.
    Client(Stage),
    /// A vendor answered.
    Verdict {
        /// Which channel.
        channel: ChannelId,
        /// What.
        verdict: Verdict,
        /// When to try again, should the verdict ask for it.
        retry_at: Timestamp,
        /// How many tries a channel gets.
        attempts_max: u16,
        /// Whether another channel may follow.
        fallback: bool,
        /// Should the vendor take it: how long to wait for its receipt before another channel follows. `None` ends the
        /// delivery with the vendor's word.
        receipt_by: Option<Timestamp>,
    },
    /// A vendor that had taken it says that it did not deliver it after all.
    Undelivered {
        /// Which channel.
        channel: ChannelId,
        /// Why.
        reason: Reason,
        /// The vendor's words.
        detail: Option<String>,
    },
    /// The lane could not take it now; nothing was sent.
    NotSent {
        /// Why.
        reason: Reason,
        /// When to try again.
        retry_at: Timestamp,
    },
    /// It must end: logout, deletion, recall, cancellation, collapse, expiry.
    End(Reason),
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing changed.
    Nothing,
    /// Only stages were recorded.
    Recorded,
    /// The planner must decide now.
    Plan,
    /// The job is due then.
    Wait(Timestamp),
    /// A lane has it; the job stays leased.
    Push,
    /// The job is done.
    Done,
}

/// Something to be written to the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// What.
    pub stage: Stage,
    /// Why.
    pub reason: Option<Reason>,
    /// The channel.
    pub channel: Option<ChannelId>,
    /// Which try.
    pub attempt: u16,
    /// Until when it waits.
    pub until: Option<Timestamp>,
    /// The vendor's words.
    pub detail: Option<String>,
    /// Whether the delivery ended with it.
    pub r#final: bool,
}

impl Happened {
    /// A bare stage.
    #[must_use]
    pub fn new(stage: Stage, reason: Option<Reason>) -> Self {
        Self {
            stage,
            reason,
            channel: None,
            attempt: 0,
            until: None,
            detail: None,
            r#final: false,
        }
    }
}

/// The answer of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// For the ledger, in order.
    pub happened: Vec<Happened>,
    /// What to do.
    pub next: Next,
}

impl Delivery {
    /// A delivery that nothing has happened to. `to_user` says whether the message addresses the user, so that
    /// it must not outlive the device's binding.
    #[must_use]
    pub fn new(message: &Message, device: &Device, to_user: bool) -> Self {
        Self {
            app: message.app.clone(),
            message: message.id,
            device: device.id.clone(),
            user: device.user.clone().filter(|_| to_user),
            holder: device.user.clone(),
            binding: device.binding,
            class: message.class,
            platform: device.platform,
            collapse_key: message.options.collapse_key.clone(),
            expires_at: message.expires_at,
            state: State::Planning,
            online_tried: false,
            tried: Vec::new(),
            last_failure: None,
            attempt: 0,
            via: None,
            taken: Vec::new(),
            given_up: None,
            first_ack: message.options.devices == DeviceChoice::FirstAck,
            seen: Seen::default(),
            version: 0,
        }
    }

    /// The final outcome, if there is one.
    #[must_use]
    pub const fn outcome(&self) -> Option<Reason> {
        match &self.state {
            State::Done { reason, .. } => Some(*reason),
            _ => None,
        }
    }

    /// Takes an input. When the answer is not [`Next::Nothing`], the version has grown and the delivery must be
    /// written together with what happened.
    pub fn apply(&mut self, input: Input, now: Timestamp) -> Step {
        let mut happened = Vec::new();
        let next = self.step(input, now, &mut happened);
        if next != Next::Nothing {
            self.version = self.version.wrapping_add(1);
        }
        Step { happened, next }
    }

    /// The event for something that happened to this delivery.
    #[must_use]
    pub fn event(&self, what: Happened, at: Timestamp) -> Event {
        Event {
            seq: 0,
            at,
            app: self.app.clone(),
            stage: what.stage,
            reason: what.reason,
            message: Some(self.message),
            class: Some(self.class),
            user: self.user.clone().or_else(|| self.holder.clone()),
            device: Some(self.device.clone()),
            platform: Some(self.platform),
            channel: what.channel,
            attempt: what.attempt,
            until: what.until,
            took_ms: None,
            detail: what.detail,
            r#final: what.r#final,
        }
    }

    fn step(&mut self, input: Input, now: Timestamp, out: &mut Vec<Happened>) -> Next {
        if let State::Done { .. } = self.state {
            return self.after_the_end(input, out);
        }
        match input {
            Input::Plan(decision) => self.planned(decision, now, out),
            Input::Due => self.due(now, out),
            Input::Acked => {
                self.seen.add(Stage::Delivered);
                self.end(Stage::Delivered, Reason::Delivered, None, now, out)
            }
            Input::Rejected => self.end(Stage::Dropped, Reason::ClientRejected, None, now, out),
            Input::Client(stage) => {
                if !Seen::is_client(stage) {
                    return Next::Nothing;
                }
                self.seen.add(Stage::Delivered);
                self.end(Stage::Delivered, Reason::Delivered, None, now, out);
                if self.seen.add(stage) {
                    out.push(Happened::new(stage, None));
                }
                Next::Done
            }
            Input::Verdict {
                channel,
                verdict,
                retry_at,
                attempts_max,
                fallback,
                receipt_by,
            } => {
                let receipt_by = receipt_by.filter(|_| fallback);
                if let (Verdict::Accepted { vendor_id }, Some(until)) = (&verdict, receipt_by) {
                    return self.accepted_for_now(channel, vendor_id.clone(), until, out);
                }
                if let Verdict::Unknown { detail } = verdict {
                    return self.maybe_accepted(channel, detail, receipt_by, now, out);
                }
                self.answered(channel, verdict, retry_at, attempts_max, fallback, now, out)
            }
            Input::Undelivered {
                channel,
                reason,
                detail,
            } => self.undelivered(channel, reason, detail, out),
            Input::NotSent { reason, retry_at } => {
                let State::Pushing {
                    channel,
                    credential,
                } = &self.state
                else {
                    return Next::Nothing;
                };
                let mut held = Happened::new(Stage::Held, Some(reason));
                held.channel = Some(channel.clone());
                held.until = Some(retry_at);
                out.push(held);
                // Nothing left the house, so it does not count as a try.
                self.attempt = self.attempt.saturating_sub(1);
                self.state = State::Retrying {
                    channel: channel.clone(),
                    credential: credential.clone(),
                    until: retry_at,
                };
                Next::Wait(retry_at)
            }
            Input::End(reason) => self.give_up(reason, now, out),
        }
    }

    /// News after the end: recorded once each, never another outcome.
    fn after_the_end(&mut self, input: Input, out: &mut Vec<Happened>) -> Next {
        let mut record = |stage: Stage| {
            if self.seen.add(stage) {
                out.push(Happened::new(stage, None));
            }
        };
        match input {
            Input::Acked => record(Stage::Delivered),
            Input::Client(stage) if Seen::is_client(stage) => {
                record(Stage::Delivered);
                record(stage);
            }
            Input::Undelivered {
                channel,
                reason,
                detail,
            } => return self.undelivered(channel, reason, detail, out),
            Input::Verdict {
                channel,
                verdict: Verdict::Accepted { vendor_id },
                ..
            } => {
                let mut late = Happened::new(Stage::AcceptedByVendor, None);
                late.channel = Some(channel);
                late.detail = vendor_id;
                late.attempt = self.attempt;
                out.push(late);
            }
            _ => {}
        }
        if out.is_empty() {
            Next::Nothing
        } else {
            Next::Recorded
        }
    }

    fn planned(&mut self, decision: Decision, now: Timestamp, out: &mut Vec<Happened>) -> Next {
        if self.state != State::Planning {
            return Next::Nothing;
        }
        match decision {
            Decision::Online { until } => {
                let mut sent = Happened::new(Stage::SentOnline, None);
                sent.until = Some(until);
                out.push(sent);
                self.state = State::Online { until };
                Next::Wait(until)
            }
            Decision::Push {
                channel,
                credential,
            } => {
                self.attempt = self.attempt.saturating_add(1);
                let mut sent = Happened::new(Stage::SentVendor, None);
                sent.channel = Some(channel.clone());
                sent.attempt = self.attempt;
                out.push(sent);
                self.state = State::Pushing {
                    channel,
                    credential,
                };
                Next::Push
            }
            Decision::Hold { until, reason } => {
                let mut held = Happened::new(Stage::Held, Some(reason));
                held.until = Some(until);
                out.push(held);
                self.state = State::Held { until, reason };
                Next::Wait(until)
            }
            Decision::End(reason) => self.give_up(reason, now, out),
        }
    }

    /// It ends for this reason; but what a vendor has taken stays the best that is known of it.
    fn give_up(&mut self, reason: Reason, now: Timestamp, out: &mut Vec<Happened>) -> Next {
        let Some(via) = self.via.clone() else {
            let Some(unsure) = self.taken.last().cloned() else {
                return self.end(Stage::Dropped, reason, None, now, out);
            };
            // Nobody knows, and nobody will.
            self.seen.add(Stage::Undelivered);
            let detail = "no receipt; it may have been sent all the same".to_owned();
            let from = Some((unsure, Some(detail)));
            return self.end(Stage::Undelivered, reason, from, now, out);
        };
        self.seen.add(Stage::Undelivered);
        let detail = format!("no receipt, and no other channel followed: {reason}");
        self.end(
            Stage::Undelivered,
            Reason::AcceptedByVendor,
            Some((via, Some(detail))),
            now,
            out,
        )
    }

    /// The vendor took it, and the message wants to see a receipt.
    fn accepted_for_now(
        &mut self,
        channel: ChannelId,
        vendor_id: Option<String>,
        until: Timestamp,
        out: &mut Vec<Happened>,
    ) -> Next {
        if !matches!(&self.state, State::Pushing { channel: current, .. } if *current == channel) {
            return Next::Nothing;
        }
        self.took(&channel);
        if let Some((gave_up, reason)) = self.given_up.take()
            && gave_up == channel
        {
            out.push(Happened {
                channel: Some(channel.clone()),
                attempt: self.attempt,
                detail: vendor_id,
                ..Happened::new(Stage::AcceptedByVendor, None)
            });
            return self.other_channel(channel, reason, None, out);
        }
        out.push(Happened {
            channel: Some(channel.clone()),
            attempt: self.attempt,
            until: Some(until),
            detail: vendor_id,
            ..Happened::new(Stage::AcceptedByVendor, None)
        });
        self.state = State::AwaitingReceipt { channel, until };
        Next::Wait(until)
    }

    /// Nobody knows whether the vendor took it: its receipt is waited for, when another channel may follow; otherwise it ends
    /// as undelivered, and a receipt that comes is recorded all the same.
    fn maybe_accepted(
        &mut self,
        channel: ChannelId,
        detail: String,
        until: Option<Timestamp>,
        now: Timestamp,
        out: &mut Vec<Happened>,
    ) -> Next {
        if !matches!(&self.state, State::Pushing { channel: current, .. } if *current == channel) {
            return Next::Nothing;
        }
        if !self.taken.contains(&channel) {
            self.taken.push(channel.clone());
        }
        let given_up = self
            .given_up
            .take()
            .filter(|(gave_up, _)| *gave_up == channel);
        let detail = Some(format!(
            "it may have been sent, so it is not sent again: {detail}"
        ));
        let Some(until) = until else {
            self.seen.add(Stage::Undelivered);
            let reason = given_up.map_or(Reason::VendorUnavailable, |(_, reason)| reason);
            return self.end(
                Stage::Undelivered,
                reason,
                Some((channel, detail)),
                now,
                out,
            );
        };
        if let Some((_, reason)) = given_up {
            return self.other_channel(channel, reason, detail, out);
        }
        out.push(Happened {
            channel: Some(channel.clone()),
            attempt: self.attempt,
            until: Some(until),
            detail,
            ..Happened::new(Stage::Held, Some(Reason::VendorUnavailable))
        });
        self.state = State::AwaitingReceipt { channel, until };
        Next::Wait(until)
    }

    /// Bad news from a vendor that had taken it: told once, and another channel follows if one was to.
    fn undelivered(
        &mut self,
        channel: ChannelId,
        reason: Reason,
        detail: Option<String>,
        out: &mut Vec<Happened>,
    ) -> Next {
        if self.seen.has(Stage::Delivered) {
            return Next::Nothing;
        }
        if matches!(&self.state, State::AwaitingReceipt { channel: current, .. } if *current == channel)
        {
            return self.other_channel(channel, reason, detail, out);
        }
        if !self.seen.add(Stage::Undelivered) {
            return Next::Nothing;
        }
        if matches!(&self.state, State::Pushing { channel: current, .. } if *current == channel) {
            self.given_up = Some((channel.clone(), reason));
        }
        out.push(Happened {
            channel: Some(channel),
            detail,
            ..Happened::new(Stage::Undelivered, Some(reason))
        });
        Next::Recorded
    }

    fn took(&mut self, channel: &ChannelId) {
        self.via = Some(channel.clone());
        if !self.taken.contains(channel) {
            self.taken.push(channel.clone());
        }
    }

    /// Gives a channel up and asks the planner for another.
    fn other_channel(
        &mut self,
        channel: ChannelId,
        reason: Reason,
        detail: Option<String>,
        out: &mut Vec<Happened>,
    ) -> Next {
        out.push(Happened {
            channel: Some(channel.clone()),
            attempt: self.attempt,
            detail,
            ..Happened::new(Stage::Fallback, Some(reason))
        });
        self.tried.push(channel);
        self.attempt = 0;
        self.last_failure = Some(reason);
        self.state = State::Planning;
        Next::Plan
    }

    fn due(&mut self, now: Timestamp, out: &mut Vec<Happened>) -> Next {
        match &self.state {
            State::Planning => return Next::Plan,
            State::Online { .. } => {
                self.online_tried = true;
                out.push(Happened::new(Stage::Fallback, Some(Reason::AckTimeout)));
            }
            State::Held { .. } | State::Retrying { .. } => {}
            State::Pushing { channel, .. } => {
                let mut again = Happened::new(Stage::Retried, Some(Reason::Restarted));
                again.channel = Some(channel.clone());
                again.attempt = self.attempt;
                out.push(again);
            }
            // A lease that ended late, or a job that was put back: the wait goes on.
            State::AwaitingReceipt { until, .. } if now < (*until).min(self.expires_at) => {
                return Next::Wait(*until);
            }
            State::AwaitingReceipt { channel, .. } => {
                let channel = channel.clone();
                return self.other_channel(channel, Reason::ReceiptTimeout, None, out);
            }
            State::Done { .. } => return Next::Nothing,
        }
        self.state = State::Planning;
        Next::Plan
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the fields of one input, taken apart once"
    )]
    fn answered(
        &mut self,
        channel: ChannelId,
        verdict: Verdict,
        retry_at: Timestamp,
        attempts_max: u16,
        fallback: bool,
        now: Timestamp,
        out: &mut Vec<Happened>,
    ) -> Next {
        let State::Pushing {
            channel: current,
            credential,
        } = &self.state
        else {
            return Next::Nothing;
        };
        if *current != channel {
            return Next::Nothing;
        }
        let credential = credential.clone();
        let detail = Some(verdict.detail().to_owned()).filter(|d| !d.is_empty());
        match verdict {
            Verdict::Accepted { .. } => {
                self.took(&channel);
                let attempt = self.attempt;
                self.state = State::Done {
                    reason: Reason::AcceptedByVendor,
                    at: now,
                };
                out.push(Happened {
                    channel: Some(channel),
                    attempt,
                    detail,
                    r#final: true,
                    ..Happened::new(Stage::AcceptedByVendor, Some(Reason::AcceptedByVendor))
                });
                Next::Done
            }
            Verdict::Retry { reason, .. } if self.attempt < attempts_max => {
                out.push(Happened {
                    channel: Some(channel.clone()),
                    attempt: self.attempt,
                    until: Some(retry_at),
                    detail,
                    ..Happened::new(Stage::Retried, Some(reason))
                });
                self.last_failure = Some(reason);
                self.state = State::Retrying {
                    channel,
                    credential,
                    until: retry_at,
                };
                Next::Wait(retry_at)
            }
            failed => {
                let died = matches!(failed, Verdict::TokenDead { .. });
                let reason = match failed {
                    Verdict::Retry { .. } => Reason::RetriesExhausted,
                    other => other.reason(),
                };
                if died {
                    out.push(Happened {
                        channel: Some(channel.clone()),
                        detail: detail.clone(),
                        ..Happened::new(Stage::TokenDead, Some(reason))
                    });
                }
                if !fallback {
                    return self.end(Stage::Dropped, reason, Some((channel, detail)), now, out);
                }
                self.other_channel(channel, reason, detail, out)
            }
        }
    }

    fn end(
        &mut self,
        stage: Stage,
        reason: Reason,
        from: Option<(ChannelId, Option<String>)>,
        now: Timestamp,
        out: &mut Vec<Happened>,
    ) -> Next {
        self.state = State::Done { reason, at: now };
        let (channel, detail) = from.map_or((None, None), |(c, d)| (Some(c), d));
        out.push(Happened {
            attempt: if channel.is_some() { self.attempt } else { 0 },
            channel,
            detail,
            r#final: true,
            ..Happened::new(stage, Some(reason))
        });
        Next::Done
    }
}
