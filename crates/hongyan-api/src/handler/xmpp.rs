//! Logins over XMPP: the keys for SCRAM are made where the device token is seen in plain.

use std::num::NonZeroU32;

use futures_util::TryFutureExt as _;
use hongyan_core::device::ScramKeys;
use hongyan_core::{AppId, jid};
use ring::{digest, hmac, pbkdf2};

use super::devices::{bearer_of, update};
use crate::auth::same_device;
use crate::key;
use crate::problem::{Code, Problem};
use crate::reply::{Done, Reply};
use crate::route::Call;
use crate::wire::client::XmppLogin;

/// What a login may be proven by; those with `-PLUS` only over TLS 1.3.
const MECHANISMS: [&str; 5] = [
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-256",
    "SCRAM-SHA-1-PLUS",
    "SCRAM-SHA-1",
    "PLAIN",
];

pub(crate) async fn enable(call: Call) -> Result<Reply<XmppLogin>, Problem> {
    let (app, id) = (call.app()?, call.device_id()?);
    let Some(domain) = call.api.options().xmpp_domain.clone() else {
        return Err(Problem::new(
            Code::NotFound,
            "XMPP is not spoken here; set xmpp.listen or xmpp.tls_listen",
        ));
    };
    let (Some(device), Some(token)) = (
        call.caller.device(),
        bearer_of(&call.caller, &call.parts.headers),
    ) else {
        return Err(Problem::new(
            Code::Forbidden,
            "this address needs a device token",
        ));
    };
    same_device(device, Some(&id))?;
    let Some(user) = device.user.clone() else {
        return Err(Problem::new(
            Code::Conflict,
            "the device is bound to no user; log it in first",
        ));
    };
    let salt = ScramKeys::salt(app.as_str());
    let keys = tokio::task::spawn_blocking(move || derive(token.as_bytes(), &salt))
        .await
        .map_err(|_| Problem::new(Code::Internal, "the keys could not be made"))?
        .map_err(|_| Problem::new(Code::Internal, "the keys could not be made"))?;
    update(&call.api, &app, &id, |device| {
        device.scram = Some(Box::new(keys.clone()));
        Ok(())
    })
    .await?;
    Ok(Reply::new(login(&app, user.as_str(), &domain)))
}

fn login(app: &AppId, user: &str, domain: &str) -> XmppLogin {
    let domain = format!("{app}.{domain}");
    XmppLogin {
        jid: format!("{}@{domain}", jid::escape(user)),
        domain,
        mechanisms: MECHANISMS.map(str::to_owned).to_vec(),
    }
}

pub(crate) async fn disable(call: Call) -> Result<Done, Problem> {
    let (app, id) = (call.app()?, call.device_id()?);
    update(&call.api, &app, &id, |device| {
        device.scram = None;
        Ok(())
    })
    .map_ok(|_| Done)
    .await
}

/// RFC 5802 section 3. Takes some milliseconds.
fn derive(token: &[u8], salt: &[u8]) -> Result<ScramKeys, std::array::TryFromSliceError> {
    let rounds = NonZeroU32::new(ScramKeys::ITERATIONS).unwrap_or(NonZeroU32::MIN);
    let (mut one, mut two) = ([0; 20], [0; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA1, rounds, salt, token, &mut one);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, token, &mut two);
    let one = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &one);
    let two = hmac::Key::new(hmac::HMAC_SHA256, &two);
    let stored = |key: &hmac::Key, algorithm| {
        digest::digest(algorithm, hmac::sign(key, b"Client Key").as_ref())
    };
    let text = std::str::from_utf8(token).unwrap_or_default();
    Ok(ScramKeys {
        secret_hash: key::hash(text),
        sha1_stored: stored(&one, &digest::SHA1_FOR_LEGACY_USE_ONLY)
            .as_ref()
            .try_into()?,
        sha1_server: hmac::sign(&one, b"Server Key").as_ref().try_into()?,
        sha256_stored: stored(&two, &digest::SHA256).as_ref().try_into()?,
        sha256_server: hmac::sign(&two, b"Server Key").as_ref().try_into()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_agree_with_those_of_another_implementation() {
        // By Python's hashlib and hmac: token "pencil", the app's salt, 10,000 rounds.
        let keys = derive(b"pencil", &ScramKeys::salt("demo")).unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            hex(&keys.sha1_stored),
            "60f76bc0bb0b2eaadb066ddaaccf2569df1d3781"
        );
        assert_eq!(
            hex(&keys.sha1_server),
            "68b37346bd960aa7259adb00264702832f10c4b0"
        );
        assert_eq!(
            hex(&keys.sha256_stored),
            "9388237359d4066b3cd9e099990b027b09d22bbc23c0762a1a8e9e09ae7cd104"
        );
        assert_eq!(
            hex(&keys.sha256_server),
            "4be24a962bc818cf68c8e7995d36bd2aae47db587cca834308231a5249889d9c"
        );
        assert_eq!(keys.secret_hash, key::hash("pencil"));
    }

    #[test]
    fn an_address_is_the_user_at_the_app() {
        let login = login(&AppId::parse("demo").unwrap(), "a@b", "push.example");
        assert_eq!(login.jid, "a\\40b@demo.push.example");
    }
}
