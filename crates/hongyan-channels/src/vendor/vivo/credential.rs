//! What a vivo credential says.

use hongyan_core::Secret;
use hongyan_core::port::ConfigError;
use md5::{Digest as _, Md5};
use serde_json::Value;

use super::{CALLBACK_BYTES_MAX, PUBLIC_CATEGORIES};
use crate::callback::ReceiptUrl;
use crate::classes::Grants;
use crate::config::Fields;

/// What the console shows for an app, and how it wants to be used.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) app_id: i64,
    pub(super) app_key: String,
    pub(super) secret: Secret,
    pub(super) grants: Grants,
    pub(super) class_override: bool,
    pub(super) marketing_category: &'static str,
    pub(super) callback_id: Option<String>,
    pub(super) callback: Option<ReceiptUrl>,
    pub(super) click_intent: Option<String>,
    pub(super) add_badge: bool,
    pub(super) test: bool,
    /// Whether inactive tokens are kept.
    pub(super) keeps_inactive: bool,
    pub(super) half_widths: bool,
}

impl Config {
    pub(super) fn read(config: &Value) -> Result<Self, Vec<ConfigError>> {
        let mut fields = Fields::new(config);
        let app_id = fields.checked("app_id", "the AppID of the console", |text| {
            text.parse::<i64>()
                .map_err(|_| "is not the number that the console shows".to_owned())
        });
        let app_key = fields.text("app_key", "the AppKey of the console");
        let secret = fields.text("app_secret", "the AppSecret of the console");
        let grants = Grants::read(&mut fields);
        let class_override = fields.switch("class_override");
        let marketing_category = match fields.optional_text("marketing_category") {
            None => "MARKETING",
            Some(text) => {
                let known = PUBLIC_CATEGORIES.iter().find(|c| **c == text);
                known.copied().unwrap_or_else(|| {
                    let all = PUBLIC_CATEGORIES.join(", ");
                    fields.fault("marketing_category", format!("must be one of {all}"));
                    "MARKETING"
                })
            }
        };
        let callback_id = fields.optional_text("callback_id");
        let callback = fields.optional_url("callback");
        if callback
            .as_ref()
            .is_some_and(|url| url.len() > CALLBACK_BYTES_MAX)
        {
            fields.fault("callback", "is longer than 128 bytes");
        }
        let keeps_inactive = match fields.optional_text("inactive").as_deref() {
            None | Some("drop") => false,
            Some("keep") => true,
            Some(_) => {
                fields.fault("inactive", "must be drop or keep");
                false
            }
        };
        let click_intent = fields.optional_text("click_intent");
        let add_badge = fields.switch("add_badge");
        let test = fields.switch("test");
        let half_widths = fields.switch("half_widths");
        let faults = fields.finish_strict();
        match app_id {
            Some(app_id) if faults.is_empty() => Ok(Self {
                app_id,
                app_key,
                secret: Secret::new(secret),
                grants,
                class_override,
                marketing_category,
                callback_id,
                callback: callback.map(ReceiptUrl::new),
                click_intent,
                add_badge,
                test,
                keeps_inactive,
                half_widths,
            }),
            _ => Err(faults),
        }
    }

    /// The signature of the auth call: MD5 over AppID, AppKey, time and AppSecret.
    pub(super) fn sign(&self, timestamp_ms: i64) -> String {
        let secret = self.secret.expose_str().unwrap_or_default();
        let text = format!("{}{}{timestamp_ms}{secret}", self.app_id, self.app_key);
        let sum = Md5::digest(text.trim().as_bytes());
        sum.iter().map(|b| format!("{b:02x}")).collect()
    }
}
