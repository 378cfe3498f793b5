//! The gateway in front of Alibaba Cloud's services: both signatures, clock, nonces, parameters from query and form.
//!
//! Sources: Alibaba Cloud help, "V3 request structure and signature" and the RPC signature of version 1. Answers are JSON
//! whatever the caller asks for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::exchange::{Call, Reply};
use crate::faults::FaultKind;

/// How far the clocks may be apart.
const SKEW_MS_MAX: i64 = 15 * 60_000;
/// Nonces that are remembered.
const NONCES_MAX: usize = 20_000;

/// An AccessKey.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct AccessKey {
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl AccessKey {
    pub(crate) fn make(dice: &Dice) -> Self {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        Self {
            id: format!("LTAI5t{}", dice.text(LETTERS, 18)),
            secret: dice.text(LETTERS, 30),
        }
    }
}

/// A refusal of the gateway or of a service behind it.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
        }
    }

    pub(crate) fn reply(&self) -> Reply {
        let body = json!({
            "RequestId": request_id(), "HostId": "aliyuncs.com", "Code": self.code,
            "Message": self.message, "Recommend": "",
        });
        Reply::json(self.status, &body, format!("refused {}", self.code))
    }
}

/// `RequestId` of an answer.
pub(crate) fn request_id() -> String {
    uuid::Uuid::new_v4().to_string().to_ascii_uppercase()
}

/// The gateway's words on a bad day.
pub(crate) fn fault(kind: FaultKind) -> Refusal {
    match kind {
        FaultKind::RateLimited => Refusal::new(
            429,
            "Throttling.User",
            "Request was denied due to user flow control.",
        ),
        FaultKind::AuthExpired => Refusal::new(
            400,
            "InvalidTimeStamp.Expired",
            "Specified time stamp or date value is expired.",
        ),
        _ => Refusal::new(
            503,
            "ServiceUnavailable",
            "The request has failed due to a temporary failure of the server.",
        ),
    }
}

/// A call that passed.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) action: String,
    pub(crate) parameters: BTreeMap<String, String>,
}

/// Which version a call is for, by its header or its parameter.
pub(crate) fn version(call: &Call) -> Option<String> {
    if call.path != "/" {
        return None;
    }
    if let Some(version) = call.header("x-acs-version") {
        return Some(version.to_owned());
    }
    let all = call.query_pairs().into_iter().chain(call.form());
    let mut all = all.filter(|(name, _)| name == "Version");
    all.next().map(|(_, version)| version)
}

/// Nonces seen, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<VecDeque<String>>);

impl Gate {
    /// Checks who calls, and reads the parameters.
    pub(crate) fn pass(
        &self,
        call: &Call,
        key: &AccessKey,
        now_ms: i64,
    ) -> Result<Passed, Refusal> {
        let mut parameters: BTreeMap<String, String> = call.query_pairs().into_iter().collect();
        parameters.extend(call.form());
        let action = if call
            .header("authorization")
            .is_some_and(|a| a.starts_with("ACS3-"))
        {
            self.version_3(call, key, now_ms)?
        } else if parameters.contains_key("Signature") {
            self.version_1(call, &parameters, key, now_ms)?
        } else {
            return Err(Refusal::new(
                400,
                "IncompleteSignature",
                "The request has no signature.",
            ));
        };
        Ok(Passed { action, parameters })
    }

    fn version_3(&self, call: &Call, key: &AccessKey, now_ms: i64) -> Result<String, Refusal> {
        let incomplete = |what: &str| Refusal::new(400, "IncompleteSignature", what);
        let authorization = call.header("authorization").unwrap_or_default();
        let rest = authorization
            .strip_prefix("ACS3-HMAC-SHA256 ")
            .ok_or_else(|| incomplete("only ACS3-HMAC-SHA256 is known here"))?;
        let parts: BTreeMap<&str, &str> = rest
            .split(',')
            .filter_map(|part| part.trim().split_once('='))
            .collect();
        let part = |name: &str| parts.get(name).copied().ok_or_else(|| incomplete(name));
        let (id, names, given) = (
            part("Credential")?,
            part("SignedHeaders")?,
            part("Signature")?,
        );
        known(id, key)?;
        let names: Vec<&str> = names.split(';').collect();
        for must in [
            "host",
            "x-acs-action",
            "x-acs-version",
            "x-acs-date",
            "x-acs-signature-nonce",
            "x-acs-content-sha256",
        ] {
            if !names.contains(&must) {
                return Err(incomplete(&format!("{must} is not signed")));
            }
        }
        let header = |name: &str| call.header(name).unwrap_or_default().trim().to_owned();
        let sum = hex(digest::digest(&digest::SHA256, &call.body).as_ref());
        if header("x-acs-content-sha256") != sum {
            return Err(Refusal::new(
                400,
                "SignatureDoesNotMatch",
                "x-acs-content-sha256 is of another body",
            ));
        }
        let mut pairs = call.query_pairs();
        pairs.sort();
        let query: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{}={}", percent(name), percent(value)))
            .collect();
        let lines: String = names
            .iter()
            .map(|name| {
                let value = if *name == "host" {
                    call.authority.clone()
                } else {
                    header(name)
                };
                format!("{name}:{value}\n")
            })
            .collect();
        let canonical = format!(
            "{}\n/\n{}\n{lines}\n{}\n{sum}",
            call.method,
            query.join("&"),
            names.join(";")
        );
        let canonical = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let mac = hmac::Key::new(hmac::HMAC_SHA256, key.secret.as_bytes());
        let text = format!("ACS3-HMAC-SHA256\n{canonical}");
        if hex(hmac::sign(&mac, text.as_bytes()).as_ref()) != given {
            return Err(Refusal::new(
                400,
                "SignatureDoesNotMatch",
                format!(
                    "Specified signature is not matched with our calculation. server string to sign is:{text}"
                ),
            ));
        }
        self.fresh(
            &header("x-acs-date"),
            &header("x-acs-signature-nonce"),
            now_ms,
        )?;
        Ok(header("x-acs-action"))
    }

    fn version_1(
        &self,
        call: &Call,
        parameters: &BTreeMap<String, String>,
        key: &AccessKey,
        now_ms: i64,
    ) -> Result<String, Refusal> {
        let get = |name: &str| parameters.get(name).map(String::as_str).unwrap_or_default();
        known(get("AccessKeyId"), key)?;
        let canon: Vec<String> = parameters
            .iter()
            .filter(|(name, _)| *name != "Signature")
            .map(|(name, value)| format!("{}={}", percent(name), percent(value)))
            .collect();
        let text = format!("{}&%2F&{}", call.method, percent(&canon.join("&")));
        let secret = format!("{}&", key.secret);
        let mac = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
        if STANDARD.encode(hmac::sign(&mac, text.as_bytes()).as_ref()) != get("Signature") {
            return Err(Refusal::new(
                400,
                "SignatureDoesNotMatch",
                format!(
                    "Specified signature is not matched with our calculation. server string to sign is:{text}"
                ),
            ));
        }
        self.fresh(get("Timestamp"), get("SignatureNonce"), now_ms)?;
        Ok(get("Action").to_owned())
    }

    fn fresh(&self, date: &str, nonce: &str, now_ms: i64) -> Result<(), Refusal> {
        let at = date.parse::<jiff::Timestamp>().map_err(|_| {
            Refusal::new(
                400,
                "InvalidTimeStamp.Format",
                "Specified time stamp or date value is not well formatted.",
            )
        })?;
        if (at.as_millisecond() - now_ms).abs() > SKEW_MS_MAX {
            return Err(fault(FaultKind::AuthExpired));
        }
        let mut nonces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if nonce.is_empty() || nonces.iter().any(|seen| seen == nonce) {
            return Err(Refusal::new(
                400,
                "SignatureNonceUsed",
                "Specified signature nonce was used already.",
            ));
        }
        while nonces.len() >= NONCES_MAX {
            nonces.pop_front();
        }
        nonces.push_back(nonce.to_owned());
        Ok(())
    }
}

fn known(id: &str, key: &AccessKey) -> Result<(), Refusal> {
    if id == key.id {
        Ok(())
    } else {
        Err(Refusal::new(
            404,
            "InvalidAccessKeyId.NotFound",
            "Specified access key is not found.",
        ))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Alibaba Cloud's percent encoding: everything but letters, digits and `-_.~`.
fn percent(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// A parameter that must be there.
pub(crate) fn required<'a>(
    parameters: &'a BTreeMap<String, String>,
    name: &str,
) -> Result<&'a str, Refusal> {
    match parameters.get(name).map(String::as_str) {
        Some(value) if !value.is_empty() => Ok(value),
        _ => Err(Refusal::new(
            400,
            &format!("Missing{name}"),
            format!("{name} is mandatory for this action."),
        )),
    }
}

/// A success with the fields of the service.
pub(crate) fn success(mut body: Value, verdict: &str) -> Reply {
    body["RequestId"] = request_id().into();
    Reply::json(200, &body, verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_example_of_version_1_passes() {
        let key = AccessKey {
            id: "testid".to_owned(),
            secret: "testsecret".to_owned(),
        };
        let call = |signature: &str| Call {
            path: "/".to_owned(),
            query: format!(
                "Format=XML&AccessKeyId=testid&Action=GetDeviceInfos&SignatureMethod=HMAC-SHA1&RegionId=cn-hangzhou&Devices=e2ba19de97604f55b165576736477b74%2C92a1da34bdfd4c9692714917ce22d53d&SignatureNonce=c4f5f0de-b3ff-4528-8a89-fa478bda8d80&SignatureVersion=1.0&Version=2016-08-01&AppKey=23267207&Timestamp=2016-03-29T03%3A59%3A24Z&Signature={signature}"
            ),
            ..Call::default()
        };
        let gate = Gate::default();
        let now_ms = 1_459_223_964_000;
        let good = call("D6ldYxo%2FchwOlfv8Ug8REyWU0mk%3D");
        let passed = gate.pass(&good, &key, now_ms).unwrap();
        assert_eq!(passed.action, "GetDeviceInfos");
        let code = |call: &Call, now_ms| gate.pass(call, &key, now_ms).unwrap_err().code;
        assert_eq!(code(&good, now_ms), "SignatureNonceUsed");
        assert_eq!(
            code(&good, now_ms + 16 * 60_000),
            "InvalidTimeStamp.Expired"
        );
        assert_eq!(code(&call("wrong"), now_ms), "SignatureDoesNotMatch");
    }
}
