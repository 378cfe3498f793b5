//! The one table from hongyan's message classes to the vendors' own marks.
//!
//! Sources: the vendors' classification pages as of 2026-11 (Huawei self-classification, Xiaomi channel rule of
//! 2024-11-04, Firebase HTTP v1 reference, Apple on interruption levels). APNs and FCM have no legal classes: their values
//! are this project's choice. A message without a class is `marketing`, as at the vendors.

use std::collections::BTreeSet;

use hongyan_core::message::Priority;
use hongyan_core::port::CountedAs;
use hongyan_core::{Class, ClassDetail, Message, Reason};
use serde_json::Value;

use crate::config::Fields;

/// Every vendor's marks for one kind of message: a row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Huawei v1, v2 and v3: `category`.
    pub huawei_category: &'static str,
    /// Huawei v1, v2: `importance`.
    pub huawei_importance: &'static str,
    /// Honor: `android.notification.importance`.
    pub honor_importance: &'static str,
    /// OPPO, scheme of 2024-11-20: `category`.
    pub oppo_category: &'static str,
    /// OPPO: `notify_level`, 1 notification bar, 2 bar and lock screen.
    pub oppo_notify_level: u8,
    /// vivo: `classification`, 1 system, 0 operation.
    pub vivo_classification: u8,
    /// vivo: `category`.
    pub vivo_category: &'static str,
    /// Meizu: `noticeBarInfo.noticeMsgType`, 1 private, 0 public.
    pub meizu_notice_type: u8,
    /// APNs: `apns-priority`.
    pub apns_priority: u8,
    /// APNs: `interruption-level`.
    pub apns_interruption: &'static str,
    /// FCM: `android.priority`.
    pub fcm_priority: &'static str,
    /// FCM: `android.notification.notification_priority`.
    pub fcm_notification: &'static str,
    /// Web Push: `Urgency`, RFC 8030 section 5.3.
    pub webpush_urgency: &'static str,
    /// Whether it makes a sound when the sender names none.
    pub sounds: bool,
}

const IM: Marks = Marks {
    huawei_category: "IM",
    huawei_importance: "NORMAL",
    honor_importance: "NORMAL",
    oppo_category: "IM",
    oppo_notify_level: 2,
    vivo_classification: 1,
    vivo_category: "IM",
    meizu_notice_type: 1,
    apns_priority: 10,
    apns_interruption: "active",
    fcm_priority: "HIGH",
    fcm_notification: "PRIORITY_HIGH",
    webpush_urgency: "high",
    sounds: true,
};
const TRANSACTION: Marks = Marks {
    huawei_category: "EXPRESS",
    oppo_category: "ORDER",
    vivo_category: "ORDER",
    fcm_notification: "PRIORITY_DEFAULT",
    ..IM
};
const SUBSCRIPTION: Marks = Marks {
    huawei_category: "SUBSCRIPTION",
    oppo_category: "SUBSCRIPTION",
    vivo_category: "SUBSCRIPTION",
    fcm_priority: "NORMAL",
    webpush_urgency: "normal",
    ..TRANSACTION
};
const MARKETING: Marks = Marks {
    huawei_category: "MARKETING",
    huawei_importance: "LOW",
    honor_importance: "LOW",
    oppo_category: "MARKETING",
    oppo_notify_level: 1,
    vivo_classification: 0,
    vivo_category: "MARKETING",
    meizu_notice_type: 0,
    apns_priority: 5,
    apns_interruption: "passive",
    fcm_priority: "NORMAL",
    fcm_notification: "PRIORITY_LOW",
    webpush_urgency: "low",
    sounds: false,
};

/// The marks of a kind of message.
#[must_use]
pub const fn marks(class: Class, detail: Option<ClassDetail>) -> Marks {
    match (class, detail) {
        (Class::Im, _) => IM,
        (Class::Subscription, _) => SUBSCRIPTION,
        (Class::Marketing, _) => MARKETING,
        (Class::Transaction, detail) => {
            // Huawei has no calendar category; work is its nearest.
            let (huawei, oppo, vivo) = match detail {
                None | Some(ClassDetail::Order) => ("EXPRESS", "ORDER", "ORDER"),
                Some(ClassDetail::Account) => ("ACCOUNT", "ACCOUNT", "ACCOUNT"),
                Some(ClassDetail::Finance) => ("FINANCE", "ACCOUNT", "ACCOUNT"),
                Some(ClassDetail::Schedule | ClassDetail::Work) => ("WORK", "TODO", "TODO"),
                Some(ClassDetail::Device) => {
                    ("DEVICE_REMINDER", "DEVICE_REMINDER", "DEVICE_REMINDER")
                }
                Some(ClassDetail::Travel) => ("TRAVEL", "ORDER", "ORDER"),
                Some(ClassDetail::Health) => ("HEALTH", "DEVICE_REMINDER", "DEVICE_REMINDER"),
            };
            Marks {
                huawei_category: huawei,
                oppo_category: oppo,
                vivo_category: vivo,
                ..TRANSACTION
            }
        }
    }
}

/// The marks of a message, with the urgency that it asks for. Asking for high urgency never changes the class.
#[must_use]
pub fn of(message: &Message) -> Marks {
    of_class(message, message.class)
}

/// The marks of a message that goes out as another class, as [`Grants::class_for`] decided.
#[must_use]
pub fn of_class(message: &Message, class: Class) -> Marks {
    let marks = marks(class, message.class_detail);
    match message.options.priority {
        None => marks,
        Some(Priority::High) => Marks {
            apns_priority: 10,
            fcm_priority: "HIGH",
            webpush_urgency: "high",
            ..marks
        },
        Some(Priority::Normal) => Marks {
            apns_priority: 5,
            fcm_priority: "NORMAL",
            webpush_urgency: "normal",
            ..marks
        },
    }
}

/// Names under which a credential lists what it was granted for a kind of message, most particular first:
/// `transaction.finance`, then `transaction`.
#[must_use]
pub fn names(class: Class, detail: Option<ClassDetail>) -> Vec<String> {
    let mut names = Vec::with_capacity(2);
    if class == Class::Transaction {
        let detail = serde_json::to_value(detail.unwrap_or_default()).unwrap_or_default();
        if let Some(detail) = detail.as_str() {
            names.push(format!("{}.{detail}", class.as_str()));
        }
    }
    names.push(class.as_str().to_owned());
    names
}

/// Every name that [`names`] can give.
#[must_use]
pub fn is_name(text: &str) -> bool {
    match text.split_once('.') {
        None => Class::ALL.iter().any(|c| c.as_str() == text),
        Some(("transaction", detail)) => {
            serde_json::from_value::<ClassDetail>(detail.into()).is_ok()
        }
        Some(_) => false,
    }
}

/// Which service classes the vendor granted to an app, in every credential whose vendor grants them:
///
/// | field | what |
/// | --- | --- |
/// | `granted` | class names (`im`, `transaction`, `transaction.finance` …, `subscription`); absent: all of them |
/// | `strict_classes` | whether a message of another class is refused, instead of going out as `marketing` |
#[derive(Debug, Clone, Default)]
pub struct Grants {
    granted: Option<BTreeSet<String>>,
    strict: bool,
}

impl Grants {
    /// Reads the two fields; faults are kept in `fields`.
    pub(crate) fn read(fields: &mut Fields<'_>) -> Self {
        let strict = fields.switch("strict_classes");
        let granted = match fields.value("granted") {
            None => None,
            Some(Value::Array(names)) => {
                let mut granted = BTreeSet::new();
                for (at, name) in names.iter().enumerate() {
                    match name.as_str() {
                        Some(name) if is_name(name) => {
                            granted.insert(name.to_owned());
                        }
                        _ => fields.fault(
                            &format!("granted/{at}"),
                            "is not a class: im, transaction, transaction.finance …, subscription, marketing",
                        ),
                    }
                }
                Some(granted)
            }
            Some(_) => {
                fields.fault("granted", "must be a list of classes");
                None
            }
        };
        Self { granted, strict }
    }

    /// Whether a message is refused rather than sent as a lower class.
    pub(crate) const fn strict(&self) -> bool {
        self.strict
    }

    /// Under which of its daily counts the vendor has a kind of message.
    pub(crate) fn counted(&self, class: Class, detail: Option<ClassDetail>) -> CountedAs {
        let class = self
            .class_of(class, detail)
            .map_or(class, |(class, _)| class);
        CountedAs::of(class)
    }

    /// For people.
    pub(crate) fn shown(&self) -> Option<Value> {
        let granted = self.granted.as_ref()?;
        Some(granted.iter().map(String::as_str).collect())
    }

    /// The class as which a message goes out, and why when it is not its own.
    ///
    /// # Errors
    /// The refusal, when the class was not granted and the credential is strict.
    pub fn class_for(
        &self,
        message: &Message,
    ) -> Result<(Class, Option<String>), (Reason, String)> {
        self.class_of(message.class, message.class_detail)
    }

    /// The same of a kind of message.
    pub(crate) fn class_of(
        &self,
        class: Class,
        detail: Option<ClassDetail>,
    ) -> Result<(Class, Option<String>), (Reason, String)> {
        let Some(granted) = &self.granted else {
            return Ok((class, None));
        };
        let names = names(class, detail);
        if class == Class::Marketing || names.iter().any(|name| granted.contains(name)) {
            return Ok((class, None));
        }
        let asked = names.first().map_or("", String::as_str);
        if self.strict {
            return Err((
                Reason::ClassNotGranted,
                format!(
                    "the credential has no grant for {asked} and strict_classes is on: apply for it with the vendor and add it to granted"
                ),
            ));
        }
        Ok((
            Class::Marketing,
            Some(format!("{asked} is not granted: sent as marketing")),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_reads_as_the_vendors_ask() {
        let rows = [
            (
                Class::Im,
                "IM",
                "NORMAL",
                10,
                "active",
                "HIGH",
                "PRIORITY_HIGH",
            ),
            (
                Class::Transaction,
                "EXPRESS",
                "NORMAL",
                10,
                "active",
                "HIGH",
                "PRIORITY_DEFAULT",
            ),
            (
                Class::Subscription,
                "SUBSCRIPTION",
                "NORMAL",
                10,
                "active",
                "NORMAL",
                "PRIORITY_DEFAULT",
            ),
            (
                Class::Marketing,
                "MARKETING",
                "LOW",
                5,
                "passive",
                "NORMAL",
                "PRIORITY_LOW",
            ),
        ];
        for (class, category, importance, priority, interruption, fcm, shown) in rows {
            let m = marks(class, None);
            assert_eq!(
                (
                    m.huawei_category,
                    m.huawei_importance,
                    m.apns_priority,
                    m.apns_interruption,
                    m.fcm_priority,
                    m.fcm_notification
                ),
                (category, importance, priority, interruption, fcm, shown),
                "{class:?}"
            );
        }
    }

    #[test]
    fn every_kind_has_every_vendors_mark() {
        // Columns: OPPO category and level, vivo classification and category, Honor, Meizu, Web Push.
        let rows = [
            (Class::Im, None, "IM 2", "1 IM", "NORMAL", 1, "high"),
            (
                Class::Transaction,
                None,
                "ORDER 2",
                "1 ORDER",
                "NORMAL",
                1,
                "high",
            ),
            (
                Class::Transaction,
                Some(ClassDetail::Finance),
                "ACCOUNT 2",
                "1 ACCOUNT",
                "NORMAL",
                1,
                "high",
            ),
            (
                Class::Transaction,
                Some(ClassDetail::Work),
                "TODO 2",
                "1 TODO",
                "NORMAL",
                1,
                "high",
            ),
            (
                Class::Transaction,
                Some(ClassDetail::Health),
                "DEVICE_REMINDER 2",
                "1 DEVICE_REMINDER",
                "NORMAL",
                1,
                "high",
            ),
            (
                Class::Subscription,
                None,
                "SUBSCRIPTION 2",
                "1 SUBSCRIPTION",
                "NORMAL",
                1,
                "normal",
            ),
            (
                Class::Marketing,
                None,
                "MARKETING 1",
                "0 MARKETING",
                "LOW",
                0,
                "low",
            ),
        ];
        for (class, detail, oppo, vivo, honor, meizu, webpush) in rows {
            let m = marks(class, detail);
            assert_eq!(format!("{} {}", m.oppo_category, m.oppo_notify_level), oppo);
            assert_eq!(
                format!("{} {}", m.vivo_classification, m.vivo_category),
                vivo
            );
            assert_eq!(
                (m.honor_importance, m.meizu_notice_type, m.webpush_urgency),
                (honor, meizu, webpush)
            );
        }
    }

    #[test]
    fn what_is_not_granted_goes_out_as_marketing_or_not_at_all() {
        let grants = |config: &Value| Grants::read(&mut Fields::new(config));
        let mut message = crate::vendor::fixture::message();
        message.class = Class::Transaction;
        message.class_detail = Some(ClassDetail::Finance);
        let class = |config: &Value| {
            grants(config)
                .class_for(&message)
                .map(|(class, why)| (class, why.is_some()))
        };
        assert_eq!(class(&json!({})), Ok((Class::Transaction, false)));
        assert_eq!(
            class(&json!({"granted": ["transaction"]})),
            Ok((Class::Transaction, false))
        );
        assert_eq!(
            class(&json!({"granted": ["transaction.finance"]})),
            Ok((Class::Transaction, false))
        );
        assert_eq!(
            class(&json!({"granted": ["transaction.order", "im"]})),
            Ok((Class::Marketing, true))
        );
        let strict = class(&json!({"granted": [], "strict_classes": true}));
        assert_eq!(strict.unwrap_err().0, Reason::ClassNotGranted);
        let wrong = json!({"granted": ["news", 5]});
        let mut fields = Fields::new(&wrong);
        Grants::read(&mut fields);
        assert_eq!(fields.finish_strict().len(), 2);
    }

    #[test]
    fn a_class_counts_as_what_it_goes_out_as() {
        let grants = |config: &Value| Grants::read(&mut Fields::new(config));
        let counted = |config: &Value| Class::ALL.map(|c| grants(config).counted(c, None).as_str());
        let (service, marketing) = ("service", "marketing");
        assert_eq!(counted(&json!({})), [service, service, service, marketing]);
        assert_eq!(
            counted(&json!({"granted": ["transaction", "subscription"]})),
            [marketing, service, service, marketing]
        );
        let some = grants(&json!({"granted": ["transaction.finance"]}));
        let of = |detail| some.counted(Class::Transaction, detail).as_str();
        assert_eq!(of(Some(ClassDetail::Finance)), service);
        assert_eq!(of(Some(ClassDetail::Health)), marketing);
    }

    #[test]
    fn names_go_from_particular_to_general() {
        assert_eq!(
            names(Class::Transaction, Some(ClassDetail::Finance)),
            ["transaction.finance", "transaction"]
        );
        assert_eq!(names(Class::Im, None), ["im"]);
        assert!(is_name("marketing") && is_name("transaction.health"));
        assert!(!is_name("im.order") && !is_name("transaction.x") && !is_name("news"));
    }
}
