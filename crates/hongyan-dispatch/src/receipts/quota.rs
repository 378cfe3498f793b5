//! Receipts that say that a day's quota is used up.

use hongyan_core::port::Receipt;
use hongyan_core::{MessageId, StoreError};

use super::Receipts;
use crate::credentials::CredentialError;
use crate::quota::{Account, Day, Exhausted, Kind};

/// The words where the vendor gives none.
const SILENT: &str = "a receipt says that it is over the day's quota";

impl Receipts {
    /// The vendor took a push and then found that the app, or this kind of push, has had its quota of the day: the next ones would
    /// be taken and lost as well.
    pub(super) async fn quota_is_over(
        &self,
        account: &Account,
        message: MessageId,
        receipt: &Receipt,
    ) -> Result<(), StoreError> {
        let Some(message) = self.ports.inbox.message(&account.app, message).await? else {
            return Ok(());
        };
        let credentials = &self.credentials;
        let opening = credentials.open(&account.app, &account.channel, &account.credential);
        let opened = match opening.await {
            Ok(opened) => opened,
            Err(CredentialError::Store(error)) => return Err(error),
            // It closes nothing: no push goes that way.
            Err(_) => return Ok(()),
        };
        let (now, offset_s) = (self.ports.clock.now(), opened.vendor.day_offset_s());
        let day = Day::at(now, offset_s);
        if receipt.at.is_some_and(|at| Day::at(at, offset_s) != day) {
            // Of a day that is over.
            return Ok(());
        }
        let said = Some(receipt.detail.as_str()).filter(|detail| !detail.is_empty());
        let exhausted = Exhausted {
            until: None,
            detail: said.unwrap_or(SILENT).to_owned(),
        };
        let (word, kind) = (
            opened.vendor.capability().quota_word,
            Kind::of(&message, opened.channel.as_ref()),
        );
        self.quotas
            .heard_later(account, word, day, kind, exhausted)
            .await
    }
}
