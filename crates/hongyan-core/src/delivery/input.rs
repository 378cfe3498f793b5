//! What the machine takes and what it answers.

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
