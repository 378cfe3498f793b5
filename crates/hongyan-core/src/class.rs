//! Message classes: what a message is for, which every vendor wants to know.

use serde::{Deserialize, Serialize};

/// What a message is for. Unmarked means [`Class::Marketing`], as at the vendors.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default,
)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A person or group wrote to this user.
    Im,
    /// State of an order, payment, account, device … of this user.
    Transaction,
    /// Content that the user asked to be told about.
    Subscription,
    /// Everything else.
    #[default]
    Marketing,
}

impl Class {
    /// All classes, most urgent first.
    pub const ALL: [Self; 4] = [
        Self::Im,
        Self::Transaction,
        Self::Subscription,
        Self::Marketing,
    ];

    /// Whether it comes after the others, and may wait for a vendor's next day.
    #[must_use]
    pub const fn may_wait(self) -> bool {
        matches!(self, Self::Subscription | Self::Marketing)
    }

    /// The word used in the API, the ledger and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Im => "im",
            Self::Transaction => "transaction",
            Self::Subscription => "subscription",
            Self::Marketing => "marketing",
        }
    }
}

/// The kind of a `transaction`, because several vendors split it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum ClassDetail {
    /// Order, parcel, ticket.
    #[default]
    Order,
    /// Change of the user's account.
    Account,
    /// Change of the user's assets.
    Finance,
    /// Calendar, to-do.
    Schedule,
    /// Reminder of a device.
    Device,
    /// Work flow.
    Work,
    /// Trip.
    Travel,
    /// Health reminder.
    Health,
}

impl ClassDetail {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Order,
        Self::Account,
        Self::Finance,
        Self::Schedule,
        Self::Device,
        Self::Work,
        Self::Travel,
        Self::Health,
    ];
}
