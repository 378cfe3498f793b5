//! The transitions: what each input does in each state.

use super::{Decision, Delivery, Happened, Input, Next, Seen, State};
use crate::{ChannelId, Reason, Stage, Timestamp, Verdict};

/// Why nobody knows what became of a call that was under way when its process ended.
const RESTARTED: &str = "the server was stopped before the answer came";

fn sent(channel: ChannelId, attempt: u16, at: Timestamp) -> Happened {
    Happened {
        channel: Some(channel),
        attempt,
        at: Some(at),
        ..Happened::new(Stage::SentVendor, None)
    }
}

impl Delivery {
    pub(super) fn step(&mut self, input: Input, now: Timestamp, out: &mut Vec<Happened>) -> Next {
        let called = input.called().cloned();
        if let Some(call) = &called {
            out.push(sent(call.channel.clone(), call.attempt, call.at));
        }
        let told = out.len();
        let next = match self.state {
            State::Done { .. } => self.after_the_end(input, out),
            _ => self.under_way(input, now, out),
        };
        if let (Some(call), Some(answer)) = (&called, out.get_mut(told)) {
            answer.took_ms = u32::try_from(call.took.as_millis()).ok();
        }
        if !matches!(self.state, State::Pushing { .. }) {
            self.handed = None;
        }
        match next {
            // The delivery has moved on; the call was made all the same.
            Next::Nothing if !out.is_empty() => Next::Recorded,
            next => next,
        }
    }

    fn under_way(&mut self, input: Input, now: Timestamp, out: &mut Vec<Happened>) -> Next {
        match input {
            Input::Plan(decision) => self.planned(decision, now, out),
            Input::OnlineToo { until } => {
                if self.state != State::Planning || self.online_tried {
                    return Next::Nothing;
                }
                self.online_tried = true;
                self.online_until = Some(until);
                out.push(Happened::new(Stage::SentOnline, None));
                Next::Recorded
            }
            Input::Reconsider => {
                let quiet = |state: &State| {
                    matches!(
                        state,
                        State::Held {
                            reason: Reason::QuietHours,
                            ..
                        }
                    )
                };
                if !quiet(&self.state) {
                    return Next::Nothing;
                }
                self.state = State::Planning;
                Next::Plan
            }
            Input::Due => self.due(now, out),
            Input::Acked => self.arrived(Stage::Delivered, None, now, out),
            Input::Client(stage) => self.arrived(stage, None, now, out),
            Input::Told { channel, stage } => self.arrived(stage, Some(channel), now, out),
            Input::Rejected => self.end(Stage::Dropped, Reason::ClientRejected, None, now, out),
            Input::Verdict {
                channel,
                verdict,
                retry_at,
                attempts_max,
                fallback,
                receipt_by,
                called: _,
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
            Input::Handed { channel } => {
                let with_it = matches!(&self.state, State::Pushing { channel: current, .. } if *current == channel);
                if !with_it || self.handed.is_some() {
                    return Next::Nothing;
                }
                self.handed = Some(now);
                Next::Recorded
            }
            Input::Lost { receipt_by } => match self.handed_to().cloned() {
                Some(channel) => self.lost_to(channel, receipt_by, now, out),
                None => Next::Nothing,
            },
            Input::Undelivered {
                channel,
                reason,
                detail,
            } => self.undelivered(channel, reason, detail, out),
            Input::NotSent {
                reason,
                retry_at,
                detail,
                ..
            } => {
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
                held.detail = detail;
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
        let mut record = |stage: Stage, channel: Option<ChannelId>| {
            for stage in [Stage::Delivered, stage] {
                if Seen::is_client(stage) && self.seen.add(stage) {
                    out.push(Happened {
                        channel: channel.clone(),
                        ..Happened::new(stage, None)
                    });
                }
            }
        };
        match input {
            Input::Acked => record(Stage::Delivered, None),
            Input::Client(stage) if Seen::is_client(stage) => record(stage, None),
            Input::Told { channel, stage } if Seen::is_client(stage) => {
                record(stage, Some(channel));
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

    /// The device has it, and perhaps more; `from` is the channel whose vendor says so.
    fn arrived(
        &mut self,
        stage: Stage,
        from: Option<ChannelId>,
        now: Timestamp,
        out: &mut Vec<Happened>,
    ) -> Next {
        if !Seen::is_client(stage) {
            return Next::Nothing;
        }
        self.seen.add(Stage::Delivered);
        let by = from.clone().map(|channel| (channel, None));
        self.end(Stage::Delivered, Reason::Delivered, by, now, out);
        if self.seen.add(stage) {
            out.push(Happened {
                channel: from,
                ..Happened::new(stage, None)
            });
        }
        Next::Done
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
                // Told when the vendor is called: until then it only waits for its turn.
                self.attempt = self.attempt.saturating_add(1);
                self.state = State::Pushing {
                    channel,
                    credential,
                };
                Next::Push
            }
            Decision::Hold { until, reason } => {
                let mut held = Happened::new(Stage::Held, Some(reason));
                held.until = Some(until);
                if reason == Reason::QuotaExhausted
                    && let Some((channel, _)) = self.opens.take()
                {
                    // It waits for this one, which has more then.
                    self.tried.retain(|tried| *tried != channel);
                    held.channel = Some(channel);
                }
                out.push(held);
                self.state = State::Held { until, reason };
                Next::Wait(until)
            }
            Decision::End(reason) => self.give_up(reason, now, out),
        }
    }

    /// It ends for this reason; but what a vendor has taken stays the best that is known of it.
    fn give_up(&mut self, reason: Reason, now: Timestamp, out: &mut Vec<Happened>) -> Next {
        if let Some(channel) = self.handed_to().cloned() {
            // The answer may still come, and then tells of the call.
            self.maybe_took(&channel);
        }
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

    /// A call that was under way when its process ended counts as made.
    fn lost_to(
        &mut self,
        channel: ChannelId,
        receipt_by: Option<Timestamp>,
        now: Timestamp,
        out: &mut Vec<Happened>,
    ) -> Next {
        if let Some(at) = self.handed {
            out.push(sent(channel.clone(), self.attempt, at));
        }
        self.maybe_accepted(channel, RESTARTED.to_owned(), receipt_by, now, out)
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
        self.maybe_took(&channel);
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
        self.maybe_took(channel);
    }

    fn maybe_took(&mut self, channel: &ChannelId) {
        if !self.taken.contains(channel) {
            self.taken.push(channel.clone());
        }
    }

    /// Keeps of the channels that have more later the one that opens first.
    fn opens_later(&mut self, channel: ChannelId, at: Timestamp) {
        if self.opens.as_ref().is_none_or(|(_, known)| at < *known) {
            self.opens = Some((channel, at));
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
            State::Pushing { channel, .. } if self.handed.is_some() => {
                let channel = channel.clone();
                return self.lost_to(channel, None, now, out);
            }
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
        let verdict = verdict.word();
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
                let opens_at = match failed {
                    Verdict::QuotaExhausted { until, .. } if self.class.may_wait() => {
                        until.map(|after| now.plus(after))
                    }
                    _ => None,
                };
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
                // What the session was given beside it may still be acknowledged.
                let waits_online = self.online_until.is_some_and(|until| now < until);
                if !fallback && !waits_online {
                    return self.end(Stage::Dropped, reason, Some((channel, detail)), now, out);
                }
                if let Some(opens_at) = opens_at.filter(|_| fallback) {
                    self.opens_later(channel.clone(), opens_at);
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
