//! The developer accounts that the simulators know, in the shapes in which the vendors hand
//! credentials out.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rsa::pkcs8::{EncodePrivateKey, LineEnding};
use serde::{Deserialize, Serialize};

use crate::authority::Authority;
use crate::dice::{BASE64, Dice, HEX};
use crate::error::SandboxError;
use crate::files;

/// Package name and bundle id of the demo app in every account.
pub const PACKAGE: &str = "com.example.hongyan";
/// A second app of the same developer, for tokens that belong to another app.
pub const OTHER_PACKAGE: &str = "com.example.hongyan.other";

/// Credentials of every simulated vendor. They open nothing but this sandbox; still, `Debug` shows
/// no secret.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(Default))]
pub struct Accounts {
    /// Apple developer account.
    pub apns: ApnsAccount,
    /// Firebase project.
    pub fcm: FcmAccount,
    /// `AppGallery` app for HMS Core.
    pub huawei: HuaweiAccount,
    /// `AppGallery` project for HarmonyOS.
    pub harmony: HarmonyAccount,
    /// Xiaomi app.
    pub xiaomi: XiaomiAccount,
    /// The accounts of the other vendors, each as its simulator made it.
    #[serde(flatten)]
    pub others: BTreeMap<String, serde_json::Value>,
}

/// What Apple's developer pages give for token and certificate authentication.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(Default))]
pub struct ApnsAccount {
    /// Ten characters.
    pub team_id: String,
    /// Ten characters.
    pub key_id: String,
    /// The `.p8` file: PKCS#8 PEM, P-256.
    pub private_key: String,
    /// The app's bundle id, which is its topic.
    pub bundle_id: String,
    /// Which of Apple's two worlds the app's tokens come from: `production` or `sandbox`.
    pub environment: String,
    /// Client certificate, PEM; its subject UID is the bundle id.
    pub certificate: String,
    /// Key of the client certificate, PKCS#8 PEM.
    pub certificate_key: String,
}

/// A Firebase project.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(Default))]
pub struct FcmAccount {
    /// Android package of the app.
    pub package: String,
    /// The JSON key file that Google Cloud hands out.
    pub service_account: GoogleServiceAccount,
}

/// Google's service account key file, field by field.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(Default))]
#[allow(missing_docs, reason = "Google's own field names")]
pub struct GoogleServiceAccount {
    pub r#type: String,
    pub project_id: String,
    pub private_key_id: String,
    pub private_key: String,
    pub client_email: String,
    pub client_id: String,
    pub auth_uri: String,
    pub token_uri: String,
    pub auth_provider_x509_cert_url: String,
    pub client_x509_cert_url: String,
    pub universe_domain: String,
}

/// An app for HMS Core: OAuth client credentials, and a service account as the other way in.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(Default))]
pub struct HuaweiAccount {
    /// App id; the OAuth client id is the same.
    pub app_id: String,
    /// OAuth client id.
    pub client_id: String,
    /// OAuth client secret.
    pub client_secret: String,
    /// Project that the app belongs to.
    pub project_id: String,
    /// Android package of the app.
    pub package: String,
}

/// A HarmonyOS app's project with its service account.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(Default))]
pub struct HarmonyAccount {
    /// Project id, as in the path of v3.
    pub project_id: String,
    /// OAuth client id of the app, as in the path of `messages:revoke`.
    pub client_id: String,
    /// Bundle name of the app.
    pub bundle_name: String,
    /// The JSON key file that `AppGallery` hands out.
    pub service_account: HuaweiServiceAccount,
}

/// Huawei's service account key file, field by field.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(Default))]
#[allow(missing_docs, reason = "Huawei's own field names")]
pub struct HuaweiServiceAccount {
    pub project_id: String,
    pub key_id: String,
    pub private_key: String,
    pub sub_account: String,
    pub auth_uri: String,
    pub token_uri: String,
    pub auth_provider_cert_uri: String,
    pub client_cert_uri: String,
}

/// What Xiaomi's console shows for an app.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(Default))]
pub struct XiaomiAccount {
    /// Android package of the app.
    pub package_name: String,
    /// App id.
    pub app_id: String,
    /// App key (client side).
    pub app_key: String,
    /// App secret (server side).
    pub app_secret: String,
    /// The approved channels, by id.
    pub channels: BTreeMap<String, XiaomiChannel>,
    /// The approved templates of private channels, by id.
    pub templates: BTreeMap<String, XiaomiTemplate>,
}

/// A channel as approved in Xiaomi's console.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct XiaomiChannel {
    /// Scene.
    pub name: String,
    /// `private` (no quota, rings) or `public` (daily quotas, silent).
    pub class: String,
}

/// A template as approved in Xiaomi's console; variables are written `{$name$}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct XiaomiTemplate {
    /// Channel that the template is bound to.
    pub channel_id: String,
    /// Title text.
    pub title: String,
    /// Content text.
    pub content: String,
}

/// Where Google says that access tokens come from.
pub(crate) const GOOGLE_TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
/// Where Huawei says that access tokens come from; also the audience of its service account JWTs.
pub(crate) const HUAWEI_TOKEN_URI: &str = "https://oauth-login.cloud.huawei.com/oauth2/v3/token";

impl Accounts {
    /// Reads the accounts from `directory`, or makes and keeps them.
    pub(crate) fn open(
        directory: &Path,
        authority: &Authority,
        dice: &Dice,
    ) -> Result<Self, SandboxError> {
        let path = directory.join("accounts.json");
        if let Some(text) = files::read(&path)? {
            return serde_json::from_str(&text).map_err(|error| SandboxError::Corrupt {
                path,
                what: "the sandbox's vendor accounts",
                why: error.to_string(),
            });
        }
        Self::generate(authority, dice)
    }

    /// Writes the accounts into `directory`, if they are not there as they are.
    pub(crate) fn keep(&self, directory: &Path) -> Result<(), SandboxError> {
        let path = directory.join("accounts.json");
        let text = serde_json::to_string_pretty(self).map_err(|error| SandboxError::Key {
            what: "the accounts file",
            why: error.to_string(),
        })?;
        if files::read(&path)?.is_some_and(|kept| kept == text) {
            return Ok(());
        }
        files::write_private(&path, text.as_bytes())
    }

    /// The account that a vendor of this name made before, else a new one, which is kept with the others.
    pub(crate) fn of<T: Serialize + serde::de::DeserializeOwned>(
        &mut self,
        name: &str,
        make: impl FnOnce() -> T,
    ) -> T {
        let kept = self.others.get(name).cloned();
        if let Some(account) = kept.and_then(|value| serde_json::from_value(value).ok()) {
            return account;
        }
        let account = make();
        if let Ok(value) = serde_json::to_value(&account) {
            self.others.insert(name.to_owned(), value);
        }
        account
    }

    fn generate(authority: &Authority, dice: &Dice) -> Result<Self, SandboxError> {
        const CAPITALS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
        const DIGITS: &[u8] = b"0123456789";
        let apns_key = rcgen::KeyPair::generate().map_err(|error| SandboxError::Key {
            what: "the APNs signing key",
            why: error.to_string(),
        })?;
        let (certificate, certificate_key) = authority.client_certificate(PACKAGE)?;
        let secret = || uuid::Uuid::new_v4().simple().to_string();
        let project = "hongyan-sandbox";
        let email = format!("firebase-adminsdk@{project}.iam.gserviceaccount.com");
        let huawei_app = format!("10{}", dice.text(DIGITS, 7));
        let huawei_project = format!("736{}", dice.text(DIGITS, 15));
        let channel = |name: &str, class: &str| XiaomiChannel {
            name: name.to_owned(),
            class: class.to_owned(),
        };
        let template = |channel_id: &str, title: &str, content: &str| XiaomiTemplate {
            channel_id: channel_id.to_owned(),
            title: title.to_owned(),
            content: content.to_owned(),
        };
        Ok(Self {
            apns: ApnsAccount {
                team_id: dice.text(CAPITALS, 10),
                key_id: dice.text(CAPITALS, 10),
                private_key: apns_key.serialize_pem(),
                bundle_id: PACKAGE.to_owned(),
                environment: "production".to_owned(),
                certificate,
                certificate_key,
            },
            fcm: FcmAccount {
                package: PACKAGE.to_owned(),
                service_account: GoogleServiceAccount {
                    r#type: "service_account".to_owned(),
                    project_id: project.to_owned(),
                    private_key_id: dice.text(HEX, 40),
                    private_key: rsa_key("the FCM service account's key")?,
                    client_x509_cert_url: format!(
                        "https://www.googleapis.com/robot/v1/metadata/x509/{email}"
                    ),
                    client_email: email,
                    client_id: dice.text(DIGITS, 21),
                    auth_uri: "https://accounts.google.com/o/oauth2/auth".to_owned(),
                    token_uri: GOOGLE_TOKEN_URI.to_owned(),
                    auth_provider_x509_cert_url: "https://www.googleapis.com/oauth2/v1/certs"
                        .to_owned(),
                    universe_domain: "googleapis.com".to_owned(),
                },
            },
            huawei: HuaweiAccount {
                app_id: huawei_app.clone(),
                client_id: huawei_app.clone(),
                client_secret: format!("{}{}", secret(), secret()),
                project_id: huawei_project.clone(),
                package: PACKAGE.to_owned(),
            },
            harmony: HarmonyAccount {
                project_id: huawei_project.clone(),
                client_id: huawei_app,
                bundle_name: PACKAGE.to_owned(),
                service_account: HuaweiServiceAccount {
                    project_id: huawei_project,
                    key_id: dice.text(HEX, 32),
                    private_key: rsa_key("the Huawei service account's key")?,
                    sub_account: dice.text(DIGITS, 9),
                    auth_uri: "https://oauth-login.cloud.huawei.com/oauth2/v3/authorize".to_owned(),
                    token_uri: HUAWEI_TOKEN_URI.to_owned(),
                    auth_provider_cert_uri: "https://oauth-login.cloud.huawei.com/oauth2/v3/certs"
                        .to_owned(),
                    client_cert_uri: "https://oauth-login.cloud.huawei.com/oauth2/v3/x509"
                        .to_owned(),
                },
            },
            xiaomi: XiaomiAccount {
                package_name: PACKAGE.to_owned(),
                app_id: format!("28823037{}", dice.text(DIGITS, 11)),
                app_key: format!("5{}", dice.text(DIGITS, 12)),
                app_secret: {
                    let bytes = uuid::Uuid::new_v4();
                    STANDARD.encode(bytes.as_bytes())
                },
                channels: BTreeMap::from([
                    ("100001".to_owned(), channel("instant message", "private")),
                    (
                        "100002".to_owned(),
                        channel("orders and logistics", "private"),
                    ),
                    (
                        "100003".to_owned(),
                        channel("personal subscription", "private"),
                    ),
                    (
                        "100004".to_owned(),
                        channel("personal account change", "private"),
                    ),
                    ("200001".to_owned(), channel("platform activity", "public")),
                    ("200002".to_owned(), channel("followed content", "public")),
                ]),
                templates: BTreeMap::from([
                    (
                        "P10001".to_owned(),
                        template("100001", "New message", "{$text$}"),
                    ),
                    (
                        "P10002".to_owned(),
                        template("100002", "Order {$order$}", "{$state$}"),
                    ),
                ]),
            },
            others: BTreeMap::new(),
        })
    }
}

fn rsa_key(what: &'static str) -> Result<String, SandboxError> {
    let error = |why: String| SandboxError::Key { what, why };
    let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048)
        .map_err(|fault| error(fault.to_string()))?;
    let pem = key
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|fault| error(fault.to_string()))?;
    Ok(pem.to_string())
}

/// Characters of base64, for ids that vendors make of them.
pub(crate) fn base64_text(dice: &Dice, length: usize) -> String {
    dice.text(BASE64, length)
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts")
            .field("apns_team", &self.apns.team_id)
            .field("fcm_project", &self.fcm.service_account.project_id)
            .field("huawei_app", &self.huawei.app_id)
            .field("harmony_project", &self.harmony.project_id)
            .field("xiaomi_app", &self.xiaomi.app_id)
            .finish_non_exhaustive()
    }
}

macro_rules! secretless_debug {
    ($($name:ident { $shown:ident }),+ $(,)?) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    .field(stringify!($shown), &self.$shown)
                    .finish_non_exhaustive()
            }
        }
    )+};
}

secretless_debug! {
    ApnsAccount { key_id },
    FcmAccount { package },
    GoogleServiceAccount { project_id },
    HuaweiAccount { app_id },
    HarmonyAccount { project_id },
    HuaweiServiceAccount { project_id },
    XiaomiAccount { app_id },
}
