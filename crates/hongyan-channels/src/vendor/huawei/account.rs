//! Huawei's service account: a key file, and JWTs signed with it in place of access tokens.

use std::time::Duration;

use hongyan_core::Timestamp;
use http::HeaderValue;
use serde_json::{Value, json};

use super::{TOKEN_URI, path_part};
use crate::config::Fields;
use crate::jwt::{Minted, Signer};

/// A service account JWT lives an hour and is used for 50 minutes.
const JWT_REUSE: Duration = Duration::from_secs(50 * 60);
const JWT_FORCE_PAUSE: Duration = Duration::from_secs(60);

/// Everything that the key file has; what is not read here says where certificates and logins are.
const FILE_FIELDS: &[&str] = &[
    "project_id",
    "key_id",
    "private_key",
    "sub_account",
    "auth_uri",
    "token_uri",
    "auth_provider_cert_uri",
    "client_cert_uri",
];

/// The service account's key file.
#[derive(Debug)]
pub(in crate::vendor) struct ServiceAccount {
    pub(in crate::vendor) project_id: String,
    key_id: String,
    sub_account: String,
    signer: Signer,
    audience: String,
}

impl ServiceAccount {
    /// Reads the key file, on its own or under `service_account` (as an object or as the file's text).
    pub(in crate::vendor) fn read(outer: &mut Fields<'_>, config: &Value) -> Option<Self> {
        let parsed: Value;
        let (file, path) = match outer.value("service_account") {
            Some(Value::String(text)) => {
                parsed = serde_json::from_str(text).unwrap_or_default();
                (&parsed, "service_account".to_owned())
            }
            Some(object) => (object, "service_account".to_owned()),
            None => {
                for name in FILE_FIELDS {
                    outer.value(name);
                }
                (config, String::new())
            }
        };
        let mut fields = Fields::at(file, path);
        let what = "use the service account's JSON file";
        let project_id = fields.checked("project_id", what, path_part);
        let key_id = fields.text("key_id", what);
        let sub_account = fields.text("sub_account", what);
        let signer = fields.checked("private_key", what, Signer::ps256);
        let audience = fields.optional_url("token_uri");
        outer.absorb(fields.finish());
        Some(Self {
            project_id: project_id?,
            key_id,
            sub_account,
            signer: signer?,
            audience: audience.unwrap_or_else(|| TOKEN_URI.to_owned()),
        })
    }

    /// The header value in use: a JWT signed here, with no exchange.
    pub(in crate::vendor) fn authorization(
        &self,
        minted: &Minted,
        now: Timestamp,
    ) -> Option<(HeaderValue, u64)> {
        minted.get(now, || {
            let claims = json!({
                "iss": self.sub_account, "aud": self.audience,
                "iat": now.seconds(), "exp": now.seconds() + 3600,
            });
            let header = json!({"typ": "JWT", "kid": self.key_id});
            let jwt = self.signer.sign(header, &claims)?;
            let mut value = HeaderValue::from_str(&format!("Bearer {jwt}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        })
    }

    /// A place for its JWT.
    pub(in crate::vendor) fn minted() -> Minted {
        Minted::new(JWT_REUSE, JWT_FORCE_PAUSE)
    }
}
