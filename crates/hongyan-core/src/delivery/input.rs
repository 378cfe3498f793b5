//! What the machine takes and what it answers.

use std::time::Duration;

use crate::{ChannelId, CredentialName, Reason, Stage, Timestamp, Verdict};

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

/// A call to a vendor that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// Which channel.
    pub channel: ChannelId,
    /// Which try.
    pub attempt: u16,
    /// When it began.
    pub at: Timestamp,
    /// How long its answer took.
    pub took: Duration,
}

/// What can happen to a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The planner decided.
    Plan(Decision),
    /// The session has it too, beside what the planner decides next.
    OnlineToo {
        /// Until when it may acknowledge before the failure of all else ends the delivery.
        until: Timestamp,
    },
    /// What it is held for may have changed: it is planned again, if it waits for the end of quiet hours.
    Reconsider,
    /// Its wait is over: ack timeout, hold, retry, or a lease that a lost process held.
    Due,
    /// The device acknowledged it.
    Acked,
    /// A vendor's receipt says that the device has it, or what the person did.
    Told {
        /// By which channel.
        channel: ChannelId,
        /// What.
        stage: Stage,
    },
    /// The device could not use it.
    Rejected,
    /// The device reported what the person did.
    Client(Stage),
    /// A lane is about to call a vendor that must not be asked twice: durable before the call, so that whoever finds it
    /// after a crash knows that it may have been sent.
    Handed {
        /// Which channel.
        channel: ChannelId,
    },
    /// The process that had handed it over is gone, and nobody else will hear the answer.
    Lost {
        /// How long to wait for the receipt before another channel follows; `None` when none is to follow.
        receipt_by: Option<Timestamp>,
    },
    /// A vendor answered, or its channel did for it.
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
        /// The call that was made for it; none where nobody was asked.
        called: Option<Called>,
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
    /// It waits: the lane did not send it, or the vendor said that there is nothing left today.
    NotSent {
        /// Why.
        reason: Reason,
        /// When to try again.
        retry_at: Timestamp,
        /// More about why, in words.
        detail: Option<String>,
        /// The call that was made all the same.
        called: Option<Called>,
    },
    /// It must end: logout, deletion, recall, cancellation, collapse, expiry.
    End(Reason),
}

impl Input {
    pub(super) const fn called(&self) -> Option<&Called> {
        match self {
            Self::Verdict { called, .. } | Self::NotSent { called, .. } => called.as_ref(),
            _ => None,
        }
    }
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
    /// When it was, if not now.
    pub at: Option<Timestamp>,
    /// How long the call took that it is the answer to, in milliseconds.
    pub took_ms: Option<u32>,
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
            at: None,
            took_ms: None,
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
