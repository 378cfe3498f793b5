//! What a Huawei credential holds: ids, how calls are authorized, and which classes were granted.

use hongyan_core::port::{ConfigError, CountedAs};
use hongyan_core::{Class, ClassDetail, Message, Reason};
use serde_json::Value;

use super::{Receipts, ServiceAccount};
use crate::classes::{self, Grants, Marks};
use crate::config::Fields;

/// Categories that an app can be granted.
pub(super) const CATEGORIES: &[&str] = &[
    "IM",
    "VOIP",
    "MISS_CALL",
    "SUBSCRIPTION",
    "TRAVEL",
    "HEALTH",
    "WORK",
    "ACCOUNT",
    "EXPRESS",
    "FINANCE",
    "DEVICE_REMINDER",
    "MAIL",
    "PLAY_VOICE",
    "MARKETING",
];

/// Ids become part of a path.
pub(in crate::vendor) fn path_part(id: &str) -> Result<String, String> {
    if id
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    {
        Ok(id.to_owned())
    } else {
        Err("has characters that no id has".to_owned())
    }
}

/// What a Huawei credential says about classes, for all API generations.
#[derive(Debug)]
pub(in crate::vendor) struct Rights {
    grants: Grants,
    /// The granted categories; `None` leaves it to Huawei, which treats others as marketing.
    categories: Option<Vec<String>>,
    class_override: bool,
}

/// What a message is sent as.
#[derive(Debug)]
pub(in crate::vendor) struct Marked {
    class: Class,
    pub(in crate::vendor) marks: Marks,
    /// Why it is not sent as what it is.
    pub(in crate::vendor) downgraded: Option<String>,
}

impl Rights {
    pub(in crate::vendor) fn read(fields: &mut Fields<'_>) -> Self {
        let grants = Grants::read(fields);
        let categories = fields.texts("categories");
        for (i, category) in categories.iter().flatten().enumerate() {
            if !CATEGORIES.contains(&category.as_str()) {
                fields.fault(&format!("categories/{i}"), "is not a category of Huawei");
            }
        }
        Self {
            grants,
            categories,
            class_override: fields.switch("class_override"),
        }
    }

    /// How Huawei counts a kind of message as it is sent with these rights.
    pub(in crate::vendor) fn counted(
        &self,
        class: Class,
        detail: Option<ClassDetail>,
    ) -> CountedAs {
        let granted = |category: &str| match &self.categories {
            Some(granted) => granted.iter().any(|c| c == category),
            None => true,
        };
        match self.grants.counted(class, detail) {
            CountedAs::Service if !granted(classes::marks(class, detail).huawei_category) => {
                CountedAs::Marketing
            }
            counted => counted,
        }
    }

    /// The marks that a message is sent with.
    ///
    /// # Errors
    /// The refusal, when its class was not granted and the credential is strict.
    pub(in crate::vendor) fn mark(&self, message: &Message) -> Result<Marked, (Reason, String)> {
        let (class, downgraded) = self.grants.class_for(message)?;
        let marks = classes::of_class(message, class);
        let category = marks.huawei_category;
        let missing = match &self.categories {
            Some(granted) => class != Class::Marketing && !granted.iter().any(|c| c == category),
            None => false,
        };
        if !missing {
            return Ok(Marked {
                class,
                marks,
                downgraded,
            });
        }
        if self.grants.strict() {
            return Err((
                Reason::ClassNotGranted,
                format!(
                    "{category} is not among the credential's categories and strict_classes is on: apply for the category in AppGallery Connect and add it"
                ),
            ));
        }
        Ok(Marked {
            class: Class::Marketing,
            marks: classes::of_class(message, Class::Marketing),
            downgraded: Some(format!(
                "{category} is not among the credential's categories: sent as MARKETING"
            )),
        })
    }

    /// Whether the sender's own fields may not change the category.
    pub(in crate::vendor) fn fixed(&self, marked: &Marked) -> bool {
        marked.class == Class::Marketing && !self.class_override
    }

    /// For people.
    pub(in crate::vendor) fn shown(&self) -> [(&'static str, Option<Value>); 2] {
        let categories = self.categories.as_ref();
        [
            ("granted", self.grants.shown()),
            (
                "categories",
                categories.map(|c| c.iter().map(String::as_str).collect()),
            ),
        ]
    }
}

#[derive(Debug)]
pub(super) struct Config {
    /// App id or project id, as in the path.
    pub(super) path: String,
    pub(super) auth: Auth,
    pub(super) shown: Shown,
    pub(super) rights: Rights,
    pub(super) options: Options,
    pub(super) receipts: Receipts,
}

pub(super) enum Auth {
    OAuth {
        client_id: String,
        secret: hongyan_core::Secret,
    },
    Account(Box<ServiceAccount>),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OAuth { .. } => "OAuth",
            Self::Account(_) => "Account",
        })
    }
}

#[derive(Debug)]
pub(super) struct Shown {
    pub(super) app_id: String,
    pub(super) project_id: Option<String>,
}

/// What an app may add to its credential.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// Intent URI with `{hy_id}`, `{hy_url}` and `{hy_data}`; a tap opens the app when absent.
    pub(super) click_intent: Option<String>,
    /// Launcher activity, without which Huawei sets no badge.
    pub(super) badge_class: Option<String>,
    /// A configured receipt address.
    pub(super) receipt_id: Option<String>,
    /// Whether all messages are test messages (500 a day).
    pub(super) test: bool,
}

impl Config {
    pub(super) fn read(config: &Value) -> Result<Self, Vec<ConfigError>> {
        let mut fields = Fields::new(config);
        let app_id = fields.checked("app_id", "the app id of AppGallery Connect", path_part);
        let client_id = fields.optional_text("client_id");
        let api = fields.optional_text("api");
        let rights = Rights::read(&mut fields);
        let receipts = Receipts::read(&mut fields);
        let options = Options {
            click_intent: fields.optional_text("click_intent"),
            badge_class: fields.optional_text("badge_class"),
            receipt_id: fields.optional_text("receipt_id"),
            test: fields.switch("test"),
        };
        let auth = if config.get("client_secret").is_some()
            || config.get("sub_account").is_none() && config.get("service_account").is_none()
        {
            let secret = fields.text(
                "client_secret",
                "the app secret of AppGallery Connect, or use a service account's JSON file",
            );
            let client_id = client_id.or_else(|| app_id.clone()).unwrap_or_default();
            Some(Auth::OAuth {
                client_id,
                secret: hongyan_core::Secret::new(secret),
            })
        } else {
            ServiceAccount::read(&mut fields, config).map(|a| Auth::Account(Box::new(a)))
        };
        let named = fields.optional_text("project_id");
        let project_id = match &auth {
            Some(Auth::Account(account)) => Some(account.project_id.clone()),
            _ => named,
        };
        let version = match (api.as_deref(), &auth) {
            (Some("v1"), _) | (None, Some(Auth::OAuth { .. })) => "v1",
            (Some("v2") | None, _) => "v2",
            _ => {
                fields.fault("api", "must be v1 or v2");
                "v1"
            }
        };
        let id = match (version, &auth, &project_id) {
            ("v2", _, Some(project)) => project.clone(),
            ("v2", _, None) => {
                fields.fault("project_id", "is missing: v2 addresses the project");
                String::new()
            }
            (_, Some(Auth::OAuth { client_id, .. }), _) => client_id.clone(),
            _ => app_id.clone().unwrap_or_default(),
        };
        if let Err(problem) = path_part(&id) {
            fields.fault("client_id", problem);
        }
        let faults = fields.finish_strict();
        match (auth, app_id) {
            (Some(auth), Some(app_id)) if faults.is_empty() => Ok(Self {
                path: format!("/{version}/{id}/messages:send"),
                auth,
                shown: Shown { app_id, project_id },
                rights,
                options,
                receipts,
            }),
            _ => Err(faults),
        }
    }
}
