//! The one table from hongyan's message classes to the vendors' own marks.
//!
//! Sources: the vendors' classification pages as of 2026-11 (Huawei self-classification, Xiaomi channel rule of
//! 2024-11-04, Firebase HTTP v1 reference, Apple on interruption levels). APNs and FCM have no legal classes: their values
//! are this project's choice. A message without a class is `marketing`, as at the vendors.

use hongyan_core::message::Priority;
use hongyan_core::{Class, ClassDetail, Message};

/// Every vendor's marks for one kind of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Huawei v1, v2 and v3: `category`.
    pub huawei_category: &'static str,
    /// Huawei v1, v2: `importance`.
    pub huawei_importance: &'static str,
    /// APNs: `apns-priority`.
    pub apns_priority: u8,
    /// APNs: `interruption-level`.
    pub apns_interruption: &'static str,
    /// FCM: `android.priority`.
    pub fcm_priority: &'static str,
    /// FCM: `android.notification.notification_priority`.
    pub fcm_notification: &'static str,
    /// Whether it makes a sound when the sender names none.
    pub sounds: bool,
}

const IM: Marks = Marks {
    huawei_category: "IM",
    huawei_importance: "NORMAL",
    apns_priority: 10,
    apns_interruption: "active",
    fcm_priority: "HIGH",
    fcm_notification: "PRIORITY_HIGH",
    sounds: true,
};
const TRANSACTION: Marks = Marks {
    huawei_category: "EXPRESS",
    fcm_notification: "PRIORITY_DEFAULT",
    ..IM
};
const SUBSCRIPTION: Marks = Marks {
    huawei_category: "SUBSCRIPTION",
    fcm_priority: "NORMAL",
    ..TRANSACTION
};
const MARKETING: Marks = Marks {
    huawei_category: "MARKETING",
    huawei_importance: "LOW",
    apns_priority: 5,
    apns_interruption: "passive",
    fcm_priority: "NORMAL",
    fcm_notification: "PRIORITY_LOW",
    sounds: false,
};

/// The marks of a kind of message.
#[must_use]
pub const fn marks(class: Class, detail: Option<ClassDetail>) -> Marks {
    match (class, detail) {
        (Class::Im, _) => IM,
        (Class::Subscription, _) => SUBSCRIPTION,
        (Class::Marketing, _) => MARKETING,
        (Class::Transaction, detail) => Marks {
            huawei_category: match detail {
                None | Some(ClassDetail::Order) => "EXPRESS",
                Some(ClassDetail::Account) => "ACCOUNT",
                Some(ClassDetail::Finance) => "FINANCE",
                // Huawei has no calendar category; work is its nearest.
                Some(ClassDetail::Schedule | ClassDetail::Work) => "WORK",
                Some(ClassDetail::Device) => "DEVICE_REMINDER",
                Some(ClassDetail::Travel) => "TRAVEL",
                Some(ClassDetail::Health) => "HEALTH",
            },
            ..TRANSACTION
        },
    }
}

/// The marks of a message, with the urgency that it asks for. Asking for high urgency never changes the class.
#[must_use]
pub fn of(message: &Message) -> Marks {
    let marks = marks(message.class, message.class_detail);
    match message.options.priority {
        None => marks,
        Some(Priority::High) => Marks {
            apns_priority: 10,
            fcm_priority: "HIGH",
            ..marks
        },
        Some(Priority::Normal) => Marks {
            apns_priority: 5,
            fcm_priority: "NORMAL",
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

#[cfg(test)]
mod tests {
    use super::*;

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
