//! The vendor services that the sandbox plays.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A vendor service, by the name that hongyan's API gives its channel. The providers of text messages share one channel,
/// `sms`, whose tokens are telephone numbers; each has its own requests and faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// Apple Push Notification service.
    Apns,
    /// Firebase Cloud Messaging, HTTP v1.
    Fcm,
    /// Huawei Push Kit for HMS Core, API generations v1 and v2.
    Huawei,
    /// Huawei Push Kit for HarmonyOS 5 and later, API generation v3.
    Harmony,
    /// Xiaomi MiPush.
    Xiaomi,
    /// Honor Push.
    Honor,
    /// OPPO Push (OnePlus and realme too).
    Oppo,
    /// vivo Push (iQOO too).
    Vivo,
    /// Meizu Flyme Push.
    Meizu,
    /// A push service of browsers, RFC 8030.
    Webpush,
    /// JPush.
    Jpush,
    /// Getui.
    Getui,
    /// Umeng U-Push.
    Umeng,
    /// Tencent TPNS.
    Tpns,
    /// Aliyun Mobile Push (EMAS).
    Aliyun,
    /// Text messages, through any of the providers below.
    Sms,
    /// Aliyun SMS.
    AliyunSms,
    /// Tencent Cloud SMS.
    TencentSms,
    /// Twilio.
    Twilio,
    /// A short message service centre, SMPP 3.4.
    Smpp,
}

impl Channel {
    /// Every one there is.
    pub const ALL: [Self; 20] = [
        Self::Apns,
        Self::Fcm,
        Self::Huawei,
        Self::Harmony,
        Self::Xiaomi,
        Self::Honor,
        Self::Oppo,
        Self::Vivo,
        Self::Meizu,
        Self::Webpush,
        Self::Jpush,
        Self::Getui,
        Self::Umeng,
        Self::Tpns,
        Self::Aliyun,
        Self::Sms,
        Self::AliyunSms,
        Self::TencentSms,
        Self::Twilio,
        Self::Smpp,
    ];

    /// The name in paths and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Apns => "apns",
            Self::Fcm => "fcm",
            Self::Huawei => "huawei",
            Self::Harmony => "harmony",
            Self::Xiaomi => "xiaomi",
            Self::Honor => "honor",
            Self::Oppo => "oppo",
            Self::Vivo => "vivo",
            Self::Meizu => "meizu",
            Self::Webpush => "webpush",
            Self::Jpush => "jpush",
            Self::Getui => "getui",
            Self::Umeng => "umeng",
            Self::Tpns => "tpns",
            Self::Aliyun => "aliyun",
            Self::Sms => "sms",
            Self::AliyunSms => "aliyun_sms",
            Self::TencentSms => "tencent_sms",
            Self::Twilio => "twilio",
            Self::Smpp => "smpp",
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// The channel whose tokens it reaches: text message providers share telephone numbers.
    #[must_use]
    pub const fn reaches(self) -> Self {
        match self {
            Self::AliyunSms | Self::TencentSms | Self::Twilio | Self::Smpp => Self::Sms,
            other => other,
        }
    }

    /// Whether the platform runs the app's code when a push arrives, so that the app can report
    /// `displayed` without being opened: Android with Google services, the notification service extension of iOS, a
    /// browser's service worker, and the SDKs of platforms that bring their own connection.
    #[must_use]
    pub const fn runs_code_on_arrival(self) -> bool {
        matches!(
            self,
            Self::Apns
                | Self::Fcm
                | Self::Webpush
                | Self::Jpush
                | Self::Getui
                | Self::Umeng
                | Self::Tpns
                | Self::Aliyun
        )
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name is not one of a simulated channel.
#[derive(Debug, thiserror::Error)]
#[error("channel {0:?} has no simulator; there are {names}", names = names())]
pub struct UnknownChannel(pub String);

fn names() -> String {
    Channel::ALL.map(Channel::as_str).join(", ")
}

impl FromStr for Channel {
    type Err = UnknownChannel;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|channel| channel.as_str() == name)
            .ok_or_else(|| UnknownChannel(name.chars().take(40).collect()))
    }
}
