//! A vendor's answer for one parcel.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Reason, Timestamp};

/// What a vendor said, in the words that all channels share. It reports; it does not decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The vendor took it.
    Accepted {
        /// The vendor's own id of the message, if it gave one.
        vendor_id: Option<String>,
    },
    /// The token will never work again: drop it, with this reason.
    TokenDead {
        /// [`Reason::TokenInvalid`] or [`Reason::TokenEnvironment`].
        reason: Reason,
        /// The vendor's words.
        detail: String,
        /// Since when, if the vendor says: a device that gave the token later has it anew, and it lives.
        since: Option<Timestamp>,
    },
    /// This payload will never be taken; the token is fine.
    Refused {
        /// [`Reason::PayloadRejected`], [`Reason::PayloadTooLarge`] …
        reason: Reason,
        /// The vendor's words.
        detail: String,
    },
    /// The credential must be mended by a person; nothing of this lane will work until then.
    CredentialBad {
        /// The vendor's words.
        detail: String,
    },
    /// The vendor's daily quota for this class is used up.
    QuotaExhausted {
        /// When it opens again, if the vendor or its rules say so.
        until: Option<Duration>,
        /// The vendor's words.
        detail: String,
    },
    /// The vendor takes no more for this one device for a while; others are not concerned.
    DeviceLimited {
        /// Not sooner than this, when the vendor or its rules say so.
        after: Option<Duration>,
        /// The vendor's words.
        detail: String,
    },
    /// Try again.
    Retry {
        /// [`Reason::VendorUnavailable`] or [`Reason::VendorRateLimited`]; the latter is a word to the whole credential.
        reason: Reason,
        /// Not sooner than this, when the vendor said so.
        after: Option<Duration>,
        /// The vendor's words, or what failed on the way.
        detail: String,
        /// Whether the vendor may have taken it all the same.
        certainty: Unsure,
    },
    /// The vendor may have taken it, and a repeat might reach the person twice: it is not sent again, a receipt tells.
    Unknown {
        /// What failed on the way.
        detail: String,
    },
    /// A channel's own word, in the form that the vendor's would have: it was not asked, because there was no way to it for
    /// this one recipient. Says nothing of the vendor's health.
    Unasked(Box<Verdict>),
}

/// How a channel's own word on a token begins that cannot be one of its vendor's.
pub const NOT_A_TOKEN: &str = "the token is not";

/// Whether a failed call may have had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unsure {
    /// The vendor certainly did not take it.
    NotTaken,
    /// The connection broke after the request had left.
    MaybeTaken,
}

impl Verdict {
    /// The verdict where a send must not be made twice: one that nobody knows the end of is not a reason to try again.
    #[must_use]
    pub fn once_only(self) -> Self {
        match self {
            Self::Retry {
                detail,
                certainty: Unsure::MaybeTaken,
                ..
            } => Self::Unknown { detail },
            other => other,
        }
    }

    /// The verdict on a token that cannot be one of this vendor's: `words` go on from [`NOT_A_TOKEN`]. It was not asked.
    #[must_use]
    pub fn no_token(words: &str) -> Self {
        Self::TokenDead {
            reason: Reason::TokenInvalid,
            detail: format!("{NOT_A_TOKEN} {words}"),
            since: None,
        }
    }

    /// This verdict as a channel's own word.
    #[must_use]
    pub fn unasked(self) -> Self {
        match self {
            own @ Self::Unasked(_) => own,
            other => Self::Unasked(Box::new(other)),
        }
    }

    /// What follows from it, whoever said it.
    #[must_use]
    pub fn word(self) -> Self {
        match self {
            Self::Unasked(word) => word.word(),
            Self::DeviceLimited { after, detail } => Self::Retry {
                reason: Reason::VendorRateLimited,
                after,
                detail,
                certainty: Unsure::NotTaken,
            },
            other => other,
        }
    }

    /// Whether it is the vendor's word, or that it gave none; not what a channel says by itself, of a token that cannot be the
    /// vendor's or of a device that gets no more for a while.
    #[must_use]
    pub fn is_of_vendor(&self) -> bool {
        match self {
            Self::Unasked(_) => false,
            Self::TokenDead { detail, .. } => !detail.starts_with(NOT_A_TOKEN),
            Self::Retry { reason, .. } => *reason != Reason::FrequencyCap,
            _ => true,
        }
    }

    /// The reason word that goes to the ledger.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Unasked(word) => word.reason(),
            Self::Accepted { .. } => Reason::AcceptedByVendor,
            Self::TokenDead { reason, .. }
            | Self::Refused { reason, .. }
            | Self::Retry { reason, .. } => *reason,
            Self::CredentialBad { .. } => Reason::CredentialInvalid,
            Self::QuotaExhausted { .. } => Reason::QuotaExhausted,
            Self::DeviceLimited { .. } => Reason::VendorRateLimited,
            Self::Unknown { .. } => Reason::VendorUnavailable,
        }
    }

    /// The vendor's words, empty when it took the message.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::Unasked(word) => word.detail(),
            Self::Accepted { vendor_id } => vendor_id.as_deref().unwrap_or(""),
            Self::TokenDead { detail, .. }
            | Self::Refused { detail, .. }
            | Self::CredentialBad { detail }
            | Self::QuotaExhausted { detail, .. }
            | Self::DeviceLimited { detail, .. }
            | Self::Unknown { detail }
            | Self::Retry { detail, .. } => detail,
        }
    }
}
