//! Vendors' receipts on the wire.

use schemars::JsonSchema;
use serde::Deserialize;

use hongyan_core::CredentialName;

/// What the callback address carries besides its path. Vendors may add their own.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct CallbackQuery {
    /// The credential, unless it is the app's `default` or only one.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(crate) c: Option<CredentialName>,
    /// The secret of the address; not needed where the vendor signs.
    #[serde(default)]
    pub(crate) k: Option<String>,
}
