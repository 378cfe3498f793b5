//! The vendors: one file each, one line each.

pub mod aliyun;
pub mod apns;
pub mod fcm;
pub mod getui;
pub mod harmony;
pub mod honor;
pub mod huawei;
pub mod jpush;
pub mod meizu;
pub mod oppo;
pub mod sms;
pub mod tpns;
pub mod umeng;
pub mod vivo;
pub mod webpush;
pub mod xiaomi;

mod counted;
mod limits;
mod makers;
mod recent;

#[cfg(test)]
mod noise;

use std::future::Future;
use std::sync::Arc;

use futures_util::StreamExt as _;
use hongyan_core::port::{CheckReport, Recipient, Vendor};
use hongyan_core::{ChannelId, Reason, Timestamp, Verdict};

use crate::Egress;
use crate::http::Answer;

/// Every vendor there is.
#[must_use]
pub fn all(egress: &Egress) -> Vec<Arc<dyn Vendor>> {
    vec![
        Arc::new(apns::Apns::new(egress)),
        Arc::new(fcm::Fcm::new(egress)),
        Arc::new(huawei::Huawei::new(egress)),
        Arc::new(harmony::Harmony::new(egress)),
        Arc::new(xiaomi::Xiaomi::new(egress)),
        Arc::new(oppo::Oppo::new(egress)),
        Arc::new(vivo::Vivo::new(egress)),
        Arc::new(honor::Honor::new(egress)),
        Arc::new(meizu::Meizu::new(egress)),
        Arc::new(webpush::Webpush::new(egress)),
        Arc::new(jpush::Jpush::new(egress)),
        Arc::new(getui::Getui::new(egress)),
        Arc::new(umeng::Umeng::new(egress)),
        Arc::new(tpns::Tpns::new(egress)),
        Arc::new(aliyun::Aliyun::new(egress)),
        Arc::new(sms::Sms::new(egress)),
    ]
}

/// What a channel makes of an answer of its vendor to one recipient; nothing for a channel that there is not. For those who feed
/// it bytes.
#[must_use]
pub fn judge(channel: &str, answer: &Answer, now: Timestamp) -> Option<Verdict> {
    match channel {
        "apns" => Some(apns::decode(answer, now)),
        "fcm" => Some(fcm::decode(answer, now)),
        "huawei" | "harmony" => Some(huawei::decode(answer, now).rest),
        "xiaomi" => Some(xiaomi::decode(answer, now)),
        "oppo" => Some(oppo::decode(answer, now, &[]).rest),
        "vivo" => Some(vivo::decode(answer, now, false).rest),
        "honor" => Some(honor::decode(answer, now).rest),
        "meizu" => Some(meizu::decode(answer, now).rest),
        "webpush" => Some(webpush::decode(answer, now)),
        "jpush" => Some(jpush::decode(answer, now)),
        "getui" => Some(getui::decode(answer, now).rest),
        "umeng" => Some(umeng::decode(answer, now)),
        "tpns" => Some(tpns::decode(answer, now)),
        "aliyun" => Some(aliyun::decode(answer, now)),
        "sms" => Some(sms::decode(answer, now)),
        _ => None,
    }
}

/// Requests of one batch that are under way at once, where a vendor takes one token a request.
const FAN_OUT_MAX: usize = 100;

/// A vendor's own name as an id.
#[allow(
    clippy::expect_used,
    reason = "a constant of a vendor file; a test parses every one"
)]
fn id(name: &'static str) -> ChannelId {
    ChannelId::parse(name).expect("a vendor's name is a channel id")
}

/// The same verdict for everyone.
fn for_all(recipients: &[Recipient], verdict: &Verdict) -> Vec<Verdict> {
    vec![verdict.clone(); recipients.len()]
}

/// The refusal of a message that would never be taken.
fn refusal((reason, detail): (Reason, String)) -> Verdict {
    Verdict::Refused { reason, detail }
}

/// What a check says when the vendor's answer proves nothing, or nobody could be asked: always with what to do.
fn unproved(verdict: &Verdict) -> CheckReport {
    let said = verdict.detail();
    let detail = match verdict {
        Verdict::Retry {
            reason: Reason::VendorRateLimited,
            ..
        }
        | Verdict::DeviceLimited { .. } => {
            format!("{said}: the vendor asks to slow down; check again in a few minutes")
        }
        Verdict::Retry { .. } | Verdict::Unknown { .. } => format!(
            "{said}: the vendor could not be asked; check the endpoint and this machine's way to it, then again"
        ),
        Verdict::Refused { .. } => format!(
            "{said}: the vendor refused the check itself; check the credential's other settings"
        ),
        _ => said.to_owned(),
    };
    CheckReport { ok: false, detail }
}

/// The same verdict where the vendor certainly sent nothing: what failed was a call before the send.
fn not_taken(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Retry {
            reason,
            after,
            detail,
            ..
        } => Verdict::Retry {
            reason,
            after,
            detail,
            certainty: hongyan_core::verdict::Unsure::NotTaken,
        },
        other => other,
    }
}

/// The same verdict where the vendor may have sent it although it failed, and does not recognise a repeat.
fn maybe_taken(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Retry {
            reason: reason @ Reason::VendorUnavailable,
            after,
            detail,
            ..
        } => Verdict::Retry {
            reason,
            after,
            detail,
            certainty: hongyan_core::verdict::Unsure::MaybeTaken,
        },
        other => other,
    }
}

/// Lets the calls run, bounded, and answers their verdicts in order.
async fn fan_out<F>(mut calls: Vec<F>) -> Vec<Verdict>
where
    F: Future<Output = Verdict> + Send,
{
    if calls.len() == 1
        && let Some(only) = calls.pop()
    {
        return vec![only.await];
    }
    futures_util::stream::iter(calls)
        .buffered(FAN_OUT_MAX)
        .collect()
        .await
}

/// A batch of at least this many tokens that all die of the same answer speaks of a wrong credential or environment.
const SUSPECT_LEN: usize = 10;

/// Lets no token die when many of a batch would, with words which `suspicious` recognises, and nothing in it shows that the
/// vendor knows the app: the credential or the environment is wrong then. A token that lives shows it, and one that died for
/// a reason of its own; a malformed one, which the vendor never saw, shows nothing.
fn spare_tokens(verdicts: Vec<Verdict>, suspicious: impl Fn(&str) -> bool) -> Vec<Verdict> {
    let dying = |v: &Verdict| matches!(v, Verdict::TokenDead { .. });
    let proves = |v: &Verdict| match v {
        Verdict::Accepted { .. } => true,
        Verdict::TokenDead { detail, .. } => v.is_of_vendor() && !suspicious(detail),
        _ => false,
    };
    let count = verdicts.iter().filter(|v| dying(v)).count();
    if count < SUSPECT_LEN || verdicts.iter().any(proves) {
        return verdicts;
    }
    let mut dead = verdicts.iter().filter(|v| dying(v));
    let first = dead
        .clone()
        .find(|v| v.is_of_vendor())
        .or_else(|| dead.next());
    let detail = format!(
        "all {count} tokens of the batch were refused ({}): check the credential, its environment and where the tokens come from",
        first.map(Verdict::detail).unwrap_or_default(),
    );
    let spared = Verdict::Refused {
        reason: Reason::TokenEnvironment,
        detail,
    };
    verdicts
        .into_iter()
        .map(|v| if dying(&v) { spared.clone() } else { v })
        .collect()
}

/// The tokens of a batch, each once: vendors deliver to a repeated token twice.
fn tokens(recipients: &[Recipient]) -> Vec<&str> {
    let mut seen = std::collections::BTreeSet::new();
    recipients
        .iter()
        .filter_map(|r| r.token.expose_str())
        .filter(|token| !token.is_empty() && seen.insert(*token))
        .collect()
}

/// What a vendor said about a request with many tokens.
#[derive(Debug, Clone, PartialEq)]
struct Decoded {
    /// For everyone who is not named.
    rest: Verdict,
    /// For those who are named.
    named: std::collections::BTreeMap<String, Verdict>,
}

impl Decoded {
    const fn all(rest: Verdict) -> Self {
        Self {
            rest,
            named: std::collections::BTreeMap::new(),
        }
    }

    fn of(&self, recipient: &Recipient) -> Verdict {
        let token = recipient.token.expose_str().unwrap_or_default();
        self.named.get(token).unwrap_or(&self.rest).clone()
    }
}

/// What is left of the message's life, within the vendor's limit, at least a second.
fn ttl(
    outbound: &hongyan_core::port::Outbound,
    longest: std::time::Duration,
) -> std::time::Duration {
    outbound
        .expires_at
        .since(outbound.now)
        .clamp(std::time::Duration::from_secs(1), longest)
}

#[cfg(test)]
pub(crate) mod fixture {
    //! A message with everything in it, for golden bodies.

    use std::sync::Arc;
    use std::time::Duration;

    use hongyan_core::message::{Click, Notification, Options, Target};
    use hongyan_core::port::{Clock, Outbound};
    use hongyan_core::{AppId, ChannelId, Class, Message, MessageId, Timestamp, UserId};
    use serde_json::{Value, json};

    use crate::egress::{Egress, Options as EgressOptions};

    pub(crate) const NOW: Timestamp = Timestamp(1_767_229_200_000);

    #[derive(Debug)]
    pub(crate) struct Still;
    impl Clock for Still {
        fn now(&self) -> Timestamp {
            NOW
        }
    }

    pub(crate) fn egress() -> Egress {
        Egress::new(&EgressOptions::default(), Arc::new(Still)).unwrap()
    }

    pub(crate) fn message() -> Message {
        Message {
            id: MessageId::parse("018f0000-0000-7000-8000-000000000001").unwrap(),
            app: AppId::parse("demo").unwrap(),
            to: Target::Users(vec![UserId::parse("u1").unwrap()]),
            class: Class::Transaction,
            class_detail: None,
            notification: Some(Notification {
                title: "Order 42".to_owned(),
                body: "is on its way".to_owned(),
                image: None,
                badge: Some(3),
                sound: None,
                click: Some(Click {
                    url: "app://order/42".to_owned(),
                }),
                group: Some("orders".to_owned()),
            }),
            data: json!({"order": 42}).as_object().cloned(),
            push: None,
            recalls: None,
            options: Options::default(),
            accepted_at: NOW,
            expires_at: NOW.plus(Duration::from_secs(3600)),
        }
    }

    pub(crate) fn outbound() -> Outbound {
        of(message())
    }

    pub(crate) fn of(message: Message) -> Outbound {
        let shown = message.notification.clone();
        Outbound {
            title: shown.as_ref().map(|n| n.title.clone()),
            body: shown.as_ref().map(|n| n.body.clone()),
            badge: shown.and_then(|n| n.badge),
            package: None,
            expires_at: message.expires_at,
            now: NOW,
            dedup_key: message.id.to_string(),
            message: Arc::new(message),
        }
    }

    pub(crate) fn data_only() -> Outbound {
        let mut message = message();
        message.notification = None;
        of(message)
    }

    pub(crate) fn with_vendor(channel: &str, fields: &Value) -> Outbound {
        let mut message = message();
        message.options.vendor.insert(
            ChannelId::parse(channel).unwrap(),
            fields.as_object().unwrap().clone(),
        );
        of(message)
    }

    pub(crate) fn answer(status: u16, body: &str) -> crate::http::Answer {
        crate::http::Answer {
            status,
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    /// A verdict in a few words: `accepted`, `token_dead token_invalid`, `retry vendor_unavailable 60 not_taken` …
    pub(crate) fn words(verdict: &hongyan_core::Verdict) -> String {
        use hongyan_core::Verdict as V;
        match verdict {
            V::Unasked(word) => format!("unasked {}", words(word)),
            V::Accepted { .. } => "accepted".to_owned(),
            V::TokenDead { reason, .. } => format!("token_dead {reason}"),
            V::Refused { reason, .. } => format!("refused {reason}"),
            V::CredentialBad { .. } => "credential_bad".to_owned(),
            V::QuotaExhausted { .. } => "quota".to_owned(),
            V::DeviceLimited { after, .. } => {
                let after = after.map(|a| format!(" {}s", a.as_secs()));
                format!("device_limited{}", after.unwrap_or_default())
            }
            V::Unknown { .. } => "unknown".to_owned(),
            V::Retry {
                reason,
                after,
                certainty,
                ..
            } => {
                let sure = serde_json::to_value(certainty).unwrap();
                let after = after
                    .map(|a| format!(" {}s", a.as_secs()))
                    .unwrap_or_default();
                format!("retry {reason}{after} {}", sure.as_str().unwrap())
            }
        }
    }

    pub(crate) fn paths(faults: &[hongyan_core::port::ConfigError]) -> Vec<&str> {
        faults.iter().map(|f| f.path.as_str()).collect()
    }

    /// A key made for these tests; no vendor knows it.
    pub(crate) const RSA_PEM: &str = include_str!("../tests/fixtures/rsa.pem");

    pub(crate) fn ec_pem() -> String {
        rcgen::KeyPair::generate().unwrap().serialize_pem()
    }
}

#[cfg(test)]
mod tests {
    use hongyan_core::port::{QuotaWord, RateCounts};

    use super::*;

    #[test]
    fn a_mass_death_is_not_believed_and_malformed_tokens_do_not_help_it() {
        use crate::answer::{accepted, refused, token_dead, unavailable};
        let gone = token_dead("410 gone");
        let wrong = token_dead("wrong app");
        let malformed = Verdict::no_token("a regId");
        let spared = |rest: &[Verdict], wrong_len: usize| {
            let mut verdicts = vec![wrong.clone(); wrong_len];
            verdicts.extend(rest.iter().cloned());
            let told = spare_tokens(verdicts, |words| words == "wrong app");
            told.iter()
                .filter(|v| v.reason() == Reason::TokenEnvironment)
                .count()
        };
        assert_eq!(spared(&[], 9), 0, "few are believed");
        assert_eq!(spared(&[], 10), 10);
        assert_eq!(spared(std::slice::from_ref(&malformed), 10), 11);
        assert_eq!(spared(&vec![malformed.clone(); 5], 5), 10);
        assert_eq!(spared(&[refused("text"), unavailable(None, "503")], 10), 10);
        assert_eq!(spared(&[accepted(None), malformed], 10), 0);
        assert_eq!(spared(&[gone], 10), 0, "the vendor knows the app");
    }

    /// A refused key is mended by a person, who has to be told how, however much the vendor says.
    #[test]
    fn a_refused_credential_says_what_to_do() {
        let long = "x".repeat(2_000);
        let bodies = [
            (401, String::new()),
            (403, String::new()),
            (403, r#"{"reason":"Forbidden"}"#.to_owned()),
            (401, format!(r#"{{"code":21301,"reason":"{long}"}}"#)),
            (200, r#"{"code":22022,"reason":"package"}"#.to_owned()),
            (
                401,
                r#"{"error":{"code":1004,"message":"Authen failed"}}"#.to_owned(),
            ),
            (401, r#"{"code":20003,"message":"Authenticate"}"#.to_owned()),
            (
                400,
                r#"{"ret":"FAIL","data":{"error_code":"2021","error_msg":"m"}}"#.to_owned(),
            ),
            (401, r#"{"code":10001,"msg":"token"}"#.to_owned()),
        ];
        let names = all(&fixture::egress())
            .into_iter()
            .map(|v| v.id().to_string());
        for name in names {
            for (status, body) in &bodies {
                let answer = fixture::answer(*status, body);
                let Some(Verdict::CredentialBad { detail }) = judge(&name, &answer, fixture::NOW)
                else {
                    continue;
                };
                let told = [
                    "check ",
                    "add ",
                    "make ",
                    "enable ",
                    "register ",
                    "has no right",
                ];
                assert!(
                    told.iter().any(|t| detail.contains(t)),
                    "{name} {status}: {detail}"
                );
            }
        }
    }

    #[test]
    fn a_check_that_proves_nothing_says_what_to_do() {
        use crate::answer::{credential_bad, device_limited, rate_limited, refused, unavailable};
        let told = |verdict: Verdict| {
            let report = unproved(&verdict);
            assert!(!report.ok);
            report.detail
        };
        assert!(told(unavailable(None, "503")).starts_with("503: the vendor could not be asked"));
        assert!(told(rate_limited(None, "429")).contains("check again in a few minutes"));
        assert!(told(device_limited(None, "429")).contains("check again in a few minutes"));
        assert!(told(refused("400")).contains("other settings"));
        assert_eq!(told(credential_bad("x: check key")), "x: check key");
    }

    /// What people read of a vendor's rate is what its lane keeps.
    #[test]
    fn heads_tell_the_rate_in_the_vendors_unit() {
        let heads = [
            ("apns", include_str!("vendor/apns.rs")),
            ("fcm", include_str!("vendor/fcm.rs")),
            ("huawei", include_str!("vendor/huawei.rs")),
            ("harmony", include_str!("vendor/harmony.rs")),
            ("xiaomi", include_str!("vendor/xiaomi.rs")),
            ("oppo", include_str!("vendor/oppo.rs")),
            ("vivo", include_str!("vendor/vivo.rs")),
            ("honor", include_str!("vendor/honor.rs")),
            ("meizu", include_str!("vendor/meizu.rs")),
            ("webpush", include_str!("vendor/webpush.rs")),
            ("jpush", include_str!("vendor/jpush.rs")),
            ("getui", include_str!("vendor/getui.rs")),
            ("umeng", include_str!("vendor/umeng.rs")),
            ("tpns", include_str!("vendor/tpns.rs")),
            ("aliyun", include_str!("vendor/aliyun.rs")),
            ("sms", include_str!("vendor/sms.rs")),
        ];
        let vendors = all(&fixture::egress());
        assert_eq!(vendors.len(), heads.len());
        for vendor in vendors {
            let id = vendor.id();
            let head = heads.iter().find(|(name, _)| *name == id.as_str());
            let (_, head) = head.unwrap();
            let told = head.lines().find_map(|l| l.strip_prefix("//! Rate: "));
            let told = told.unwrap().replace(',', "");
            let c = vendor.capability();
            let want = format!("{} {} a second", c.rate_per_s, c.rate_counts.as_str());
            assert!(told.starts_with(&want), "{id}: {told}");
        }
    }

    #[test]
    fn every_vendor_has_a_name_and_sane_numbers() {
        let vendors = all(&fixture::egress());
        let names: Vec<String> = vendors.iter().map(|v| v.id().to_string()).collect();
        let all = [
            "apns", "fcm", "huawei", "harmony", "xiaomi", "oppo", "vivo", "honor", "meizu",
            "webpush", "jpush", "getui", "umeng", "tpns", "aliyun", "sms",
        ];
        assert_eq!(names, all);
        for vendor in vendors {
            let c = vendor.capability();
            assert!(c.payload_bytes_max >= 1024 && c.batch_len_max > 0 && c.concurrency > 0);
            let (devices, last) = (RateCounts::Devices, QuotaWord::Final);
            let name = vendor.id().to_string();
            let counts_devices = ["apns", "fcm", "huawei", "harmony", "oppo", "webpush"];
            let counts = counts_devices.contains(&name.as_str());
            assert_eq!(c.rate_counts == devices, counts, "{name}");
            assert_eq!(c.quota_word == last, name == "vivo", "{name}");
            assert!(vendor.check_config(&serde_json::json!({})).is_err());
            assert!(vendor.check_config(&serde_json::json!("text")).is_err());
        }
    }
}
