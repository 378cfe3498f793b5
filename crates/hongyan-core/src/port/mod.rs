//! What the rooms offer each other, as object-safe traits.
//!
//! The engine ports ([`Registry`], [`Inbox`], [`Work`], [`Ledger`], [`Commit`]) have one
//! conformance suite each; every promise in their comments is a case of it.

mod broadcast;
mod channel;
mod clock;
mod commit;
mod inbox;
mod ledger;
mod presence;
mod push;
mod quota;
mod registry;
mod work;

pub use broadcast::{BroadcastError, BroadcastStorage, Broadcasts};
pub use channel::{
    Batch, Callback, CallbackError, CallbackRequest, Capability, Channel, ChannelError,
    CheckReport, ConfigError, CountedAs, DailyLimit, Earlier, LimitOf, OpenCredential, Outbound,
    Parcel, QuotaWord, RateCounts, Receipt, ReceiptKind, Recipient, Truncation, Vendor, WakeKey,
};
pub use clock::{Clock, Dice};
pub use commit::{
    Commit, CommitError, Committed, DeliveryWrite, Idempotency, InboxAppend, PushEntry, PushedOut,
    WriteSet,
};
pub use inbox::{Ack, Entry, Inbox, InboxPage, Owner, Reader};
pub use ledger::{CounterKey, CounterRow, EventFilter, Ledger};
pub use presence::{Fresh, Hint, Presence, SessionInfo, SessionSink};
pub use push::{
    Enrolled, Enrolment, NewChannel, OpenChannel, OpenError, Post, PushState, Pushes, endpoint_url,
};
pub use quota::{Quota, QuotaGrant};
pub use registry::{ENDPOINT_GONE_TTL, Registry, Subscription};
pub use work::{Job, JobId, JobKind, Work};
