//! Aliyun Mobile Push (`aliyun`): EMAS push to Android, iOS and HarmonyOS, `Push` of version 2016-08-01.
//!
//! Sources: Alibaba Cloud help pages 2249916 and 48089 (Push), 434629 and 92832 (limits), signature v3; generated SDK
//! `push-20160801` of 2026-01. Unverified and therefore settings: the length of the content (`content_bytes_max`), the layout
//! of per-device receipts (`receipts`). Unverified, the product's own error codes for quotas and bad targets: an unknown 4xx
//! is final.
//!
//! Rate: 400 requests a second. `limits.rate_per_s` sets another.
//!
//! | credential | what |
//! | --- | --- |
//! | `access_key_id`, `access_key_secret`, `security_token` | key of a RAM user with the right `mpush:Push`; the token for temporary keys |
//! | `app_key` | AppKey of the application; Android, iOS and HarmonyOS have one each |
//! | `platform` | what that application is: `android` (default), `ios`, `harmony` |
//! | `environment` | iOS: `production` (default) or `development` |
//! | `popup_activity` | Android: activity that notifications of the makers' channels open |
//! | `notification_channel` | Android 8 channel id |
//! | `xiaomi_channels` | for each class the approved Xiaomi channel id |
//! | `huawei_receipt_id`, `vivo_receipt_id`, `harmony_receipt_id` | the makers' receipt configurations |
//! | `content_bytes_max` | title, text and extras together; default 1800, iOS 3800 |
//! | `granted`, `strict_classes`, `class_override` | classes that the makers granted; see the table of classes |
//! | `receipts` | which fields of a receipt say what: `{"list", "message", "push_id", "token", "event", "at", "detail", "events"}`. Absent: `JobKey`, `MessageId`, `DeviceId`, `Event`, `Time` and `Detail` of each item of a JSON list, with the events `receive`, `open`, `delete` and those that `tpns` has. Set it, be it empty, once Aliyun posts receipts: only then is silence a reason to go another way |
//!
//! `options.vendor.aliyun` is merged into the parameters last; application and targets cannot be set that way, nor the
//! makers' marks of a marketing message unless the credential has `class_override`.
//!
//! Receipts come two ways. Enter the credential's callback address in the console, where Aliyun offers receipts of each
//! device: its posts are not signed, the secret of the address proves them, and one that comes again changes nothing.
//! Beside it `QueryPushStatByMsg` is asked for each push to at most 200 devices, up to twenty a minute: where the counters
//! are as high as the push has devices, everybody has it. After a restart those are known that the ledger's end names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hongyan_core::port::{
    Batch, Callback, CallbackError, CallbackRequest, Capability, Channel, ChannelError,
    CheckReport, ConfigError, CountedAs, Earlier, OpenCredential, Outbound, Parcel, QuotaWord,
    RateCounts, Receipt, Recipient, Truncation, Vendor,
};
use hongyan_core::{
    ChannelId, Class, ClassDetail, Message, MessageId, Reason, Secret, Timestamp, Verdict,
};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::counted::{Counted, Counts};
use crate::acs::{self, AccessKey, Repeats, Service};
use crate::answer::{accepted, token_dead, unreadable};
use crate::classes::Grants;
use crate::config::{self, Fields};
use crate::egress::{Egress, Origin};
use crate::http::Answer;
use crate::layout::{Layout, Usual};
use crate::{classes, payload, texts, vendor};

const NAME: &str = "aliyun";
const HOST: &str = "https://cloudpush.aliyuncs.com";
const VERSION: &str = "2016-08-01";
/// Device ids in one call.
const TARGETS_MAX: usize = 1000;
/// Device ids in one `CheckDevices`.
const PROBE_MAX: usize = 100;

/// How often counters are asked for, and how many.
const POLL_EVERY: Duration = Duration::from_secs(60);
const POLL_LEN: usize = 20;

/// What a receipt's fields are called, as long as nobody says otherwise.
const RECEIPT: Usual = Usual {
    message: "JobKey",
    vendor_id: "MessageId",
    token: "DeviceId",
    event: "Event",
    at: "Time",
    detail: "Detail",
};

/// `MassPush` may be called 500 times a second; the limit of `Push` is not published.
const CAPABILITY: Capability = Capability {
    payload_bytes_max: 4000,
    batch_len_max: TARGETS_MAX,
    rate_per_s: 400,
    rate_counts: RateCounts::Requests,
    concurrency: 32,
    ttl_max: Duration::from_secs(72 * 3600),
    recalls: false,
    receipts: true,
    poll_every: Some(POLL_EVERY),
    environments: false,
    repeatable: true,
    quota_word: QuotaWord::AskedAgain,
};

/// The parameters that decide class and quota at the makers.
const MARKS: &[&str] = &[
    "AndroidMessageHuaweiCategory",
    "AndroidMessageHuaweiUrgency",
    "AndroidNotificationHuaweiChannel",
    "AndroidNotificationHonorChannel",
    "AndroidMessageOppoCategory",
    "AndroidMessageOppoNotifyLevel",
    "AndroidOppoPrivateMsgTemplateId",
    "AndroidOppoPrivateTitleParameters",
    "AndroidOppoPrivateContentParameters",
    "AndroidMessageVivoCategory",
    "AndroidNotificationVivoChannel",
    "AndroidMeizuNoticeMsgType",
    "AndroidNotificationXiaomiChannel",
    "HarmonyCategory",
    "iOSInterruptionLevel",
];
/// Parameters that are never the sender's.
const OWN: &[&str] = &[
    "AppKey",
    "Target",
    "TargetValue",
    "Action",
    "Version",
    "IdempotentToken",
    "JobKey",
    "PushTime",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Platform {
    Android,
    Ios,
    Harmony,
}

impl Platform {
    /// The parameter that carries the app's own fields.
    const fn extras(self) -> &'static str {
        match self {
            Self::Android => "AndroidExtParameters",
            Self::Ios => "iOSExtParameters",
            Self::Harmony => "HarmonyExtParameters",
        }
    }
}

/// What the console shows.
#[derive(Debug)]
struct Config {
    key: AccessKey,
    app_key: String,
    platform: Platform,
    apns_env: &'static str,
    popup_activity: Option<String>,
    notification_channel: Option<String>,
    xiaomi_channels: BTreeMap<String, String>,
    receipt_ids: [(&'static str, Option<String>); 3],
    content_bytes_max: usize,
    grants: Grants,
    class_override: bool,
    layout: Layout,
}

impl Config {
    fn read(config: &Value) -> Result<Self, Vec<ConfigError>> {
        let mut fields = Fields::new(config);
        let key = AccessKey::read(&mut fields);
        let app_key = fields.checked("app_key", "the AppKey of the application", |text| {
            if text.bytes().all(|b| b.is_ascii_digit()) {
                Ok(text.to_owned())
            } else {
                Err("must be digits".to_owned())
            }
        });
        let platform = match fields.optional_text("platform").as_deref() {
            None | Some("android") => Platform::Android,
            Some("ios") => Platform::Ios,
            Some("harmony") => Platform::Harmony,
            Some(_) => {
                fields.fault("platform", "must be android, ios or harmony");
                Platform::Android
            }
        };
        let apns_env = match fields.optional_text("environment").as_deref() {
            None | Some("production") => "PRODUCT",
            Some("development") => "DEV",
            Some(_) => {
                fields.fault("environment", "must be production or development");
                "PRODUCT"
            }
        };
        let popup_activity = fields.optional_text("popup_activity");
        let notification_channel = fields.optional_text("notification_channel");
        let xiaomi_channels = class_map(&mut fields, "xiaomi_channels");
        let receipt_ids = [
            (
                "AndroidHuaweiReceiptId",
                fields.optional_text("huawei_receipt_id"),
            ),
            (
                "AndroidVivoReceiptId",
                fields.optional_text("vivo_receipt_id"),
            ),
            (
                "HarmonyReceiptId",
                fields.optional_text("harmony_receipt_id"),
            ),
        ];
        let usual = if platform == Platform::Ios {
            3800
        } else {
            1800
        };
        let content_bytes_max = fields.number("content_bytes_max", 200..=4000, usual);
        let grants = Grants::read(&mut fields);
        let class_override = fields.switch("class_override");
        let layout = Layout::read(&mut fields, RECEIPT);
        let faults = fields.finish_strict();
        match app_key {
            Some(app_key) if faults.is_empty() => Ok(Self {
                key,
                app_key,
                platform,
                apns_env,
                popup_activity,
                notification_channel,
                xiaomi_channels,
                receipt_ids,
                content_bytes_max: usize::try_from(content_bytes_max).unwrap_or(1800),
                grants,
                class_override,
                layout,
            }),
            _ => Err(faults),
        }
    }
}

/// A map of class names to texts.
fn class_map(fields: &mut Fields<'_>, name: &'static str) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    match fields.value(name) {
        None => {}
        Some(Value::Object(object)) => {
            for (class, value) in object {
                match value.as_str() {
                    Some(text) if classes::is_name(class) => {
                        map.insert(class.clone(), text.to_owned());
                    }
                    _ => fields.fault(
                        &format!("{name}/{class}"),
                        "must be a text for a class: im, transaction, transaction.finance …, subscription, marketing",
                    ),
                }
            }
        }
        Some(_) => fields.fault(name, "must map classes to texts"),
    }
    map
}

/// Parameters without their targets.
struct Encoded {
    parameters: Map<String, Value>,
    truncated: Vec<Truncation>,
    downgraded: Option<String>,
}

fn encode(config: &Config, outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
    let message = &outbound.message;
    let (class, downgraded) = config.grants.class_for(message)?;
    let mut truncated = Vec::new();
    let mut set = Map::new();
    let mut put = |name: &str, value: Value| set.insert(name.to_owned(), value);
    put("AppKey", config.app_key.as_str().into());
    put("Target", "DEVICE".into());
    put("DeviceType", "ALL".into());
    put("JobKey", message.id.to_string().into());
    put("StoreOffline", "true".into());
    let life = vendor::ttl(outbound, CAPABILITY.ttl_max);
    put("ExpireTime", acs::date(outbound.now.plus(life)).into());
    let mut keys = payload::text_keys(message);
    if config.platform == Platform::Ios
        && let Some(image) = message.notification.as_ref().and_then(|n| n.image.as_ref())
    {
        keys.insert("hy_image".to_owned(), image.as_str().into());
    }
    let extras = Value::Object(keys).to_string();
    let room = config
        .content_bytes_max
        .checked_sub(extras.len())
        .filter(|room| *room >= 16)
        .ok_or_else(|| {
            let (len, max) = (extras.len(), config.content_bytes_max);
            let words = format!("the data has {len} bytes; Aliyun takes {max} with title and text");
            (Reason::PayloadTooLarge, words)
        })?;
    let shown = outbound.title.is_some() || outbound.body.is_some();
    if shown {
        let (title, text) = texts::title_and_text(outbound);
        let title = shorten_bytes("title", title, room / 3, &mut truncated);
        let text = shorten_bytes("body", text, room - title.len(), &mut truncated);
        put("PushType", "NOTICE".into());
        put("Title", title.into());
        put("Body", text.into());
        put("Trim", "true".into());
    } else {
        put("PushType", "MESSAGE".into());
        put("Title", "data".into());
        put("Body", extras.as_str().into());
    }
    put(config.platform.extras(), extras.into());
    if shown {
        set.extend(shown_fields(config, outbound, class));
    }
    let marks = marks(config, message, class);
    set.extend(marks.clone());
    merge(&mut set, config, outbound, class, &marks);
    Ok(Encoded {
        parameters: set,
        truncated,
        downgraded,
    })
}

/// What a platform needs to show a notification.
fn shown_fields(config: &Config, outbound: &Outbound, class: Class) -> Map<String, Value> {
    let message = &outbound.message;
    let notification = message.notification.as_ref();
    let image = notification.and_then(|n| n.image.as_deref());
    let group = notification.and_then(|n| n.group.as_deref());
    let sound = notification.and_then(|n| n.sound.as_deref());
    // The same number replaces, so a repeated send is shown once.
    let place = message
        .options
        .collapse_key
        .as_ref()
        .unwrap_or(&outbound.dedup_key);
    let number = payload::number_of(place).to_string();
    let badge = outbound
        .badge
        .filter(|n| (1..=99).contains(n))
        .map(|n| n.to_string());
    let sounds = classes::of_class(message, class).sounds || sound.is_some();
    let text = |text: Option<&str>| text.map(str::to_owned);
    let pairs: Vec<(&str, Option<String>)> = match config.platform {
        Platform::Android => vec![
            (
                "AndroidNotifyType",
                Some(if sounds { "BOTH" } else { "NONE" }.to_owned()),
            ),
            ("AndroidOpenType", Some("APPLICATION".to_owned())),
            ("AndroidNotificationNotifyId", Some(number)),
            (
                "AndroidNotificationChannel",
                config.notification_channel.clone(),
            ),
            ("AndroidPopupActivity", config.popup_activity.clone()),
            ("AndroidNotificationGroup", text(group)),
            ("AndroidImageUrl", text(image)),
            ("AndroidBadgeSetNum", badge),
        ],
        Platform::Ios => vec![
            ("iOSApnsEnv", Some(config.apns_env.to_owned())),
            (
                "iOSMusic",
                sounds.then(|| sound.unwrap_or("default").to_owned()),
            ),
            ("iOSNotificationCollapseId", Some(number)),
            ("iOSNotificationThreadId", text(group)),
            ("iOSMutableContent", image.map(|_| "true".to_owned())),
            ("iOSBadge", outbound.badge.map(|n| n.to_string())),
        ],
        Platform::Harmony => vec![
            ("HarmonyNotifyId", Some(number)),
            ("HarmonyImageUrl", text(image)),
            ("HarmonyBadgeSetNum", badge),
        ],
    };
    let receipts = config.receipt_ids.iter().filter(|(name, _)| {
        name.starts_with("Harmony") == (config.platform == Platform::Harmony)
            && config.platform != Platform::Ios
    });
    pairs
        .into_iter()
        .chain(receipts.map(|(name, id)| (*name, id.clone())))
        .filter_map(|(name, value)| Some((name.to_owned(), value?.into())))
        .collect()
}

/// The makers' marks for a class.
fn marks(config: &Config, message: &Message, class: Class) -> Map<String, Value> {
    let m = classes::of_class(message, class);
    let xiaomi = classes::names(class, message.class_detail)
        .iter()
        .find_map(|name| config.xiaomi_channels.get(name).cloned());
    let pairs: Vec<(&str, Option<String>)> = match config.platform {
        Platform::Android => vec![
            (
                "AndroidMessageHuaweiCategory",
                Some(m.huawei_category.to_owned()),
            ),
            (
                "AndroidNotificationHuaweiChannel",
                Some(m.huawei_importance.to_owned()),
            ),
            (
                "AndroidNotificationHonorChannel",
                Some(m.honor_importance.to_owned()),
            ),
            (
                "AndroidMessageOppoCategory",
                Some(m.oppo_category.to_owned()),
            ),
            (
                "AndroidMessageOppoNotifyLevel",
                Some(m.oppo_notify_level.to_string()),
            ),
            (
                "AndroidMessageVivoCategory",
                Some(m.vivo_category.to_owned()),
            ),
            (
                "AndroidNotificationVivoChannel",
                Some(m.vivo_classification.to_string()),
            ),
            (
                "AndroidMeizuNoticeMsgType",
                Some(m.meizu_notice_type.to_string()),
            ),
            ("AndroidNotificationXiaomiChannel", xiaomi),
        ],
        Platform::Ios => vec![("iOSInterruptionLevel", Some(m.apns_interruption.to_owned()))],
        Platform::Harmony => vec![("HarmonyCategory", Some(m.huawei_category.to_owned()))],
    };
    pairs
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.into())))
        .collect()
}

fn merge(
    set: &mut Map<String, Value>,
    config: &Config,
    outbound: &Outbound,
    class: Class,
    marks: &Map<String, Value>,
) {
    let bound = class == Class::Marketing && !config.class_override;
    let mut patch = payload::vendor_fields(outbound, NAME);
    patch.retain(|name, _| {
        let is = |other: &&&str| other.eq_ignore_ascii_case(name);
        !(OWN.iter().any(|own| is(&own)) || bound && MARKS.iter().any(|mark| is(&mark)))
    });
    payload::merge(set, &patch);
    if bound {
        set.extend(marks.clone());
    }
    // Parameters are texts; maps travel as JSON.
    for value in set.values_mut() {
        if !value.is_string() {
            *value = value.to_string().into();
        }
    }
    // Whatever the sender's extras are, the client must find its message.
    let name = config.platform.extras();
    let id = outbound.message.id.to_string();
    let extras = set.get(name).and_then(Value::as_str).unwrap_or_default();
    if !extras.contains(&id) {
        let mut extras: Map<String, Value> = serde_json::from_str(extras).unwrap_or_default();
        extras.insert("hy_id".to_owned(), id.into());
        set.insert(name.to_owned(), Value::Object(extras).to_string().into());
    }
}

/// At most `bytes_max` bytes of UTF-8, cut between characters; what was cut is noted.
fn shorten_bytes(
    field: &'static str,
    text: &str,
    bytes_max: usize,
    truncated: &mut Vec<Truncation>,
) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let mut end = bytes_max.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut short = text.get(..end).unwrap_or_default().to_owned();
    short.push('…');
    truncated.push(Truncation {
        field,
        from: text.len(),
        to: short.len(),
    });
    short
}

pub(super) fn decode(answer: &Answer, now: Timestamp) -> Verdict {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let code = text("Code");
    if code.is_empty() {
        return match (answer.status, body.get("MessageId")) {
            (200, Some(Value::String(id))) => accepted(Some(id)),
            (200, Some(Value::Number(id))) => accepted(Some(&id.to_string())),
            (200, _) => unreadable(200),
            (status, _) => acs::by_status(answer, &format!("Aliyun answered status {status}"), now),
        };
    }
    let words = format!("{code} {}", text("Message"));
    acs::gateway(answer, code, &words, now).unwrap_or_else(|| acs::by_status(answer, &words, now))
}

/// What the statistics of a push say; nothing when they say nothing.
fn counts(answer: &Answer) -> Option<Counts> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let stats = body.pointer("/PushStats/PushStat")?.as_array()?;
    let count = |name: &str| {
        let each = stats.iter().filter_map(|stat| match stat.get(name)? {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        });
        each.max().unwrap_or(0)
    };
    Some(Counts {
        delivered: count("ReceivedCount"),
        displayed: 0,
        clicked: count("OpenedCount"),
        dismissed: count("DeletedCount"),
    })
}

/// A device id is a place in a comma list.
fn is_device_id(token: &str) -> bool {
    (1..=64).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// The vendor.
#[derive(Debug)]
pub struct Aliyun {
    egress: Egress,
}

impl Aliyun {
    /// The vendor, reached through this egress.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        Self {
            egress: egress.clone(),
        }
    }
}

impl Vendor for Aliyun {
    fn id(&self) -> ChannelId {
        vendor::id(NAME)
    }

    fn capability(&self) -> &Capability {
        &CAPABILITY
    }

    fn check_config(&self, config: &Value) -> Result<Map<String, Value>, Vec<ConfigError>> {
        let read = Config::read(config)?;
        let platform = match read.platform {
            Platform::Android => "android",
            Platform::Ios => "ios",
            Platform::Harmony => "harmony",
        };
        Ok(config::shown([
            ("access_key_id", Some(read.key.id.as_str().into())),
            ("app_key", Some(read.app_key.as_str().into())),
            ("platform", Some(platform.into())),
            ("xiaomi_channels", Some(json!(read.xiaomi_channels))),
            ("granted", read.grants.shown()),
        ]))
    }

    fn open(&self, credential: OpenCredential) -> Result<Arc<dyn Channel>, ChannelError> {
        let config = Config::read(&config::parse(&credential.config)?)
            .map_err(|faults| config::refused(&faults))?;
        let endpoint = credential.endpoint.as_deref().unwrap_or(HOST);
        let origin = Origin::parse(endpoint).map_err(|e| ChannelError::Config {
            detail: e.to_string(),
        })?;
        Ok(Arc::new(Sender {
            counted: Counted::new(POLL_EVERY, POLL_LEN),
            has_callback: credential.callback.is_some(),
            service: Service::new(&self.egress, origin, VERSION),
            egress: self.egress.clone(),
            config,
        }))
    }
}

/// A channel for one app.
#[derive(Debug)]
struct Sender {
    config: Config,
    service: Service,
    egress: Egress,
    counted: Counted,
    has_callback: bool,
}

impl Sender {
    async fn call(
        &self,
        action: &str,
        parameters: &BTreeMap<String, String>,
        until: Instant,
    ) -> Result<Answer, Verdict> {
        self.service
            .call(
                (&self.config.key, Repeats::Harmless),
                action,
                parameters,
                until,
            )
            .await
    }

    async fn send_part(
        &self,
        encoded: &Encoded,
        message: MessageId,
        part: &[Recipient],
        until: Instant,
    ) -> Vec<Verdict> {
        let tokens: Vec<&str> = vendor::tokens(part)
            .into_iter()
            .filter(|t| is_device_id(t))
            .collect();
        let verdict = if tokens.is_empty() {
            None
        } else {
            let mut form: BTreeMap<String, String> = encoded
                .parameters
                .iter()
                .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
                .collect();
            let list = tokens.join(",");
            let taken = tokens.iter().map(|t| Secret::new(*t)).collect();
            // A repeat of the same call gives the first result again.
            let job = form.get("JobKey").cloned().unwrap_or_default();
            let once = payload::short_hash(&format!("{job}\n{list}"), 16);
            form.insert("IdempotentToken".to_owned(), once);
            form.insert("TargetValue".to_owned(), list);
            let now = self.egress.now();
            let verdict = match self.call("Push", &form, until).await {
                Ok(answer) => decode(&answer, now),
                Err(verdict) => verdict,
            };
            if let Verdict::Accepted {
                vendor_id: Some(id),
            } = &verdict
            {
                self.counted.remember(id, message, taken, now);
            }
            Some(verdict)
        };
        let malformed = Verdict::no_token("a device id of Aliyun");
        part.iter()
            .map(|recipient| match &verdict {
                Some(verdict) if recipient.token.expose_str().is_some_and(is_device_id) => {
                    verdict.clone()
                }
                _ => malformed.clone(),
            })
            .collect()
    }

    /// Which devices are there, by id.
    async fn living(
        &self,
        ids: &[&str],
        until: Instant,
    ) -> Result<BTreeMap<String, bool>, Verdict> {
        let form = BTreeMap::from([
            ("AppKey".to_owned(), self.config.app_key.clone()),
            ("DeviceIds".to_owned(), ids.join(",")),
        ]);
        let answer = self.call("CheckDevices", &form, until).await?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let list = body
            .pointer("/DeviceCheckInfos/DeviceCheckInfo")
            .and_then(Value::as_array);
        let Some(list) = list.filter(|_| answer.status == 200) else {
            return Err(decode(&answer, self.egress.now()));
        };
        let living = list.iter().filter_map(|info| {
            let id = info.get("DeviceId")?.as_str()?.to_owned();
            Some((id, info.get("Available")?.as_bool()?))
        });
        Ok(living.collect())
    }
}

#[async_trait]
impl Channel for Sender {
    fn counts_as(&self, class: Class, detail: Option<ClassDetail>) -> CountedAs {
        self.config.grants.counted(class, detail)
    }

    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)> {
        let encoded = encode(&self.config, outbound)?;
        Ok(Parcel {
            method: "POST",
            path: "/".to_owned(),
            headers: vec![("x-acs-action".to_owned(), "Push".to_owned())],
            body: Value::Object(encoded.parameters),
            truncated: encoded.truncated,
            downgraded: encoded.downgraded,
        })
    }

    async fn send(&self, batch: &Batch, deadline: Duration) -> Vec<Verdict> {
        let until = Instant::now() + deadline;
        let encoded = match encode(&self.config, &batch.outbound) {
            Ok(encoded) => encoded,
            Err(refused) => return vendor::for_all(&batch.recipients, &vendor::refusal(refused)),
        };
        let mut verdicts = Vec::with_capacity(batch.recipients.len());
        for part in batch.recipients.chunks(TARGETS_MAX) {
            verdicts.extend(
                self.send_part(&encoded, batch.outbound.message.id, part, until)
                    .await,
            );
        }
        vendor::spare_tokens(verdicts, |_| true)
    }

    /// Asks for a device that there is not: nothing is sent.
    async fn check(&self, deadline: Duration) -> CheckReport {
        let nobody = "0".repeat(32);
        let (ok, detail) = match self.living(&[&nobody], Instant::now() + deadline).await {
            Ok(_) => (true, "Aliyun knows the AccessKey and the AppKey".to_owned()),
            Err(Verdict::CredentialBad { detail }) => {
                (false, format!("Aliyun refuses the credential: {detail}"))
            }
            Err(Verdict::Retry { detail, .. }) => (
                false,
                format!("Aliyun could not be asked: {detail}; try again later"),
            ),
            Err(other) => (
                false,
                format!(
                    "Aliyun answered: {}; check app_key and its owner",
                    other.detail()
                ),
            ),
        };
        CheckReport { ok, detail }
    }

    async fn recall(
        &self,
        _message: &Message,
        _recipients: &[Recipient],
        _deadline: Duration,
    ) -> Option<Vec<Verdict>> {
        None
    }

    fn remember(&self, earlier: &[Earlier]) {
        self.counted.recollect(earlier);
    }

    fn callback(&self, request: &CallbackRequest<'_>) -> Option<Result<Callback, CallbackError>> {
        Some(self.config.layout.callback(request))
    }

    fn hears(&self) -> Option<bool> {
        Some(self.has_callback && self.config.layout.is_given())
    }

    /// Asks for the counters of what was sent lately.
    async fn poll(&self, deadline: Duration) -> Result<Vec<Receipt>, ChannelError> {
        let until = Instant::now() + deadline;
        let mut receipts = Vec::new();
        for id in self.counted.due(self.egress.now()) {
            let form = BTreeMap::from([
                ("AppKey".to_owned(), self.config.app_key.clone()),
                ("MessageId".to_owned(), id.clone()),
            ]);
            match self.call("QueryPushStatByMsg", &form, until).await {
                Ok(answer) => {
                    let counts = counts(&answer).unwrap_or_default();
                    receipts.extend(self.counted.heard(&id, counts));
                }
                // What was heard already is not given away.
                Err(_) if !receipts.is_empty() => break,
                Err(verdict) => {
                    return Err(ChannelError::Failed {
                        what: "the counters of a push could not be asked for",
                        source: verdict.detail().into(),
                    });
                }
            }
        }
        Ok(receipts)
    }

    async fn probe(&self, tokens: &[Secret], deadline: Duration) -> Option<Vec<Verdict>> {
        let until = Instant::now() + deadline;
        let mut verdicts = Vec::with_capacity(tokens.len());
        for part in tokens.chunks(PROBE_MAX) {
            let ids: Vec<&str> = part
                .iter()
                .filter_map(Secret::expose_str)
                .filter(|id| is_device_id(id))
                .collect();
            let living = if ids.is_empty() {
                Ok(BTreeMap::new())
            } else {
                self.living(&ids, until).await
            };
            verdicts.extend(part.iter().map(|token| {
                let id = token.expose_str().unwrap_or_default();
                match &living {
                    _ if !is_device_id(id) => Verdict::no_token("a device id of Aliyun"),
                    Ok(living) if living.get(id) == Some(&true) => accepted(None),
                    Ok(_) => token_dead("CheckDevices: not available"),
                    Err(verdict) => verdict.clone(),
                }
            }));
        }
        Some(vendor::spare_tokens(verdicts, |_| true))
    }
}

#[cfg(test)]
mod tests;
