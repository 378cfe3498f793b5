//! The closed list of reasons: the same word in code, API, ledger, metric and console.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal),* $(,)?) => {
        /// Why a delivery is where it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Reason { $($(#[$doc])* $name),* }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The public word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }
        }
    };
}

reasons! {
    /// The client acknowledged it, or the vendor's receipt says that the device has it.
    Delivered = "delivered",
    /// The client says that it was shown.
    Displayed = "displayed",
    /// The person tapped it.
    Clicked = "clicked",
    /// The app was opened through it.
    Opened = "opened",
    /// The person swiped it away.
    Dismissed = "dismissed",
    /// The vendor took it; nothing more is known yet.
    AcceptedByVendor = "accepted_by_vendor",
    /// The user has no device.
    NoDevice = "no_device",
    /// The device is not connected and has no usable token for a channel that may be used.
    NoChannel = "no_channel",
    /// The device has a token, but the app has no credential for its channel.
    NoCredential = "no_credential",
    /// The person switched notifications off for this app.
    PermissionOff = "permission_off",
    /// The person muted this class.
    PreferenceMuted = "preference_muted",
    /// The message switches its push off.
    PushDisabled = "push_disabled",
    /// It is the person's quiet time.
    QuietHours = "quiet_hours",
    /// The person got as many as the app allows.
    FrequencyCap = "frequency_cap",
    /// The vendor's quota is used up.
    QuotaExhausted = "quota_exhausted",
    /// Its time to live ended first.
    Expired = "expired",
    /// It was recalled.
    Recalled = "recalled",
    /// A newer message with the same collapse key took its place.
    Collapsed = "collapsed",
    /// More waited for the device than is kept: it gave way to newer or more urgent ones.
    Overflowed = "overflowed",
    /// The same message had already reached this device.
    Duplicate = "duplicate",
    /// The vendor says that the token is dead.
    TokenInvalid = "token_invalid",
    /// The token belongs to the vendor's other environment.
    TokenEnvironment = "token_environment",
    /// The vendor refused the credential.
    CredentialInvalid = "credential_invalid",
    /// The vendor refused the payload.
    PayloadRejected = "payload_rejected",
    /// The payload is over the vendor's size limit.
    PayloadTooLarge = "payload_too_large",
    /// The vendor could not be reached or is out of order.
    VendorUnavailable = "vendor_unavailable",
    /// The vendor asked to slow down.
    VendorRateLimited = "vendor_rate_limited",
    /// All tries were used.
    RetriesExhausted = "retries_exhausted",
    /// The device is no longer bound to the user it was meant for.
    UserLoggedOut = "user_logged_out",
    /// The device was forgotten.
    DeviceDeleted = "device_deleted",
    /// The recipient is in a campaign's holdout.
    Holdout = "holdout",
    /// Another device of the user was enough, or the sender cancelled it.
    Cancelled = "cancelled",
    /// The session did not acknowledge within the time that the message allows.
    AckTimeout = "ack_timeout",
    /// The message may only go out later.
    Scheduled = "scheduled",
    /// The message must wait for a connection.
    WaitingForSession = "waiting_for_session",
    /// The client could not use the message.
    ClientRejected = "client_rejected",
    /// Our own process was restarted while it was under way.
    Restarted = "restarted",
    /// The lane's breaker is open after many failures.
    BreakerOpen = "breaker_open",
    /// A text was shortened to the vendor's limit.
    Truncated = "truncated",
    /// The vendor did not grant the message's class, so that it went out as a lower one.
    ClassDowngraded = "class_downgraded",
    /// The vendor did not grant the message's class, and the app refuses to send it as a lower one.
    ClassNotGranted = "class_not_granted",
    /// The channel took it, but no receipt came within the time that the message allows.
    ReceiptTimeout = "receipt_timeout",
    /// What was stored of it is damaged and cannot be read.
    RecordUnreadable = "record_unreadable",
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_the_serde_word() {
        for reason in Reason::ALL {
            let json = serde_json::to_string(reason).unwrap();
            assert_eq!(json, format!("\"{}\"", reason.as_str()));
        }
    }
}
