//! Plain values for tests: what a case does not care about has a default here.

use std::sync::Arc;

use hongyan_core::app::{App, AppPolicy};
use hongyan_core::delivery::{Delivery, State};
use hongyan_core::device::{Permission, Platform, Token, TokenState};
use hongyan_core::message::{Options, Target};
use hongyan_core::port::{InboxAppend, Owner, PushEntry, Reader, WriteSet};
use hongyan_core::push::{Push, PushEncoding, Urgency};
use hongyan_core::{
    AppId, ChannelId, Class, Device, DeviceId, Event, Message, MessageId, Reason, Stage, Timestamp,
    UserId,
};

/// Noon of some day.
pub const NOW: Timestamp = Timestamp(1_767_268_800_000);
/// An hour, in milliseconds.
pub const HOUR: i64 = 3_600_000;

/// [`NOW`] and so many milliseconds.
#[must_use]
pub const fn at(ms: i64) -> Timestamp {
    Timestamp(NOW.0 + ms)
}

macro_rules! ids {
    ($($name:ident -> $type:ty),+ $(,)?) => {$(
        /// An id that is known to be well-formed.
        ///
        /// # Panics
        /// When it is not.
        #[must_use]
        #[allow(clippy::expect_used, reason = "the text is a literal of a test")]
        pub fn $name(text: &str) -> $type {
            <$type>::parse(text).expect("a well-formed id")
        }
    )+};
}
ids!(app_id -> AppId, device_id -> DeviceId, user_id -> UserId, channel -> ChannelId,
     topic -> hongyan_core::Topic, key_id -> hongyan_core::KeyId,
     credential_name -> hongyan_core::CredentialName, push_channel -> hongyan_core::PushChannel);

/// The app of most cases.
#[must_use]
pub fn app() -> AppId {
    app_id("app")
}

/// An app.
#[must_use]
pub fn app_record(id: &str, version: u64) -> App {
    App {
        id: app_id(id),
        name: id.to_owned(),
        policy: AppPolicy::default(),
        created_at: NOW,
        version,
    }
}

/// A message id: the same number is the same id, greater ones sort later.
#[must_use]
pub fn message_id(n: u64) -> MessageId {
    let ms = (NOW.0.unsigned_abs() + n) << 16 | 0x7000;
    let high = u128::from(ms) << 64;
    MessageId(uuid_from(high | (0x8000_0000_0000_0000 + u128::from(n))))
}

fn uuid_from(n: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(n)
}

/// A device without user and tokens.
#[must_use]
pub fn device(id: &str) -> Device {
    let mut secret_hash = [0; 32];
    for (slot, byte) in secret_hash.iter_mut().zip(id.bytes().cycle()) {
        *slot = byte;
    }
    Device {
        app: app(),
        id: device_id(id),
        package: None,
        platform: Platform::Android,
        brand: None,
        model: None,
        locale: None,
        timezone: None,
        app_version: None,
        permission: Permission::Granted,
        tags: Default::default(),
        tokens: Vec::new(),
        user: None,
        binding: 0,
        secret_hash,
        scram: None,
        created_at: NOW,
        last_seen: NOW,
        version: 1,
    }
}

/// A device bound to a user.
#[must_use]
pub fn device_of(id: &str, user: &str) -> Device {
    Device {
        user: Some(user_id(user)),
        binding: 1,
        ..device(id)
    }
}

/// A usable token.
#[must_use]
pub fn token(at_channel: &str, text: &str) -> Token {
    Token {
        channel: channel(at_channel),
        token: text.to_owned(),
        credential: None,
        environment: None,
        state: TokenState::Active,
        paused: false,
        updated_at: NOW,
    }
}

/// A message for a user, worth delivering for a day.
#[must_use]
pub fn message_to(n: u64, to: Target) -> Message {
    Message {
        id: message_id(n),
        app: app(),
        to,
        class: Class::Im,
        class_detail: None,
        notification: None,
        data: None,
        push: None,
        recalls: None,
        options: Options::default(),
        accepted_at: NOW,
        expires_at: at(24 * HOUR),
    }
}

/// Push `n` of a device's channel, with an hour to live.
#[must_use]
pub fn push_to(
    device: &str,
    n: u64,
    channel: &str,
    urgency: Urgency,
    topic: Option<&str>,
) -> Message {
    let push = Push {
        channel: push_channel(channel),
        endpoint: [7; 32],
        body: bytes::Bytes::from(n.to_string()),
        encoding: PushEncoding::Aes128gcm,
        urgency,
        topic: topic.map(str::to_owned),
        holder: None,
    };
    Message {
        push: Some(Box::new(push)),
        ..message_to(n, Target::Devices(vec![device_id(device)]))
    }
}

/// Who may be given what stands in this list.
#[must_use]
pub fn target_of(owner: &Owner) -> Target {
    match owner {
        Owner::User(user) => Target::Users(vec![user.clone()]),
        Owner::Device(device) => Target::Devices(vec![device.clone()]),
        Owner::Audience(hongyan_core::message::Audience::All) => Target::All,
        Owner::Audience(hongyan_core::message::Audience::Topic(topic)) => {
            Target::Topic(topic.clone())
        }
    }
}

/// A set that stores message `n` and appends it to a list.
#[must_use]
pub fn append(n: u64, owner: &Owner) -> WriteSet {
    append_message(message_to(n, target_of(owner)), owner)
}

/// A set that stores this message and appends it to a list.
#[must_use]
pub fn append_message(message: Message, owner: &Owner) -> WriteSet {
    WriteSet {
        inbox: vec![InboxAppend {
            app: message.app.clone(),
            owner: owner.clone(),
            message: message.id,
            expires_at: message.expires_at,
            push: message.push.as_deref().map(|push| PushEntry {
                channel: push.channel.clone(),
                urgency: push.urgency,
                topic: push.topic.clone(),
            }),
        }],
        messages: vec![Arc::new(message)],
        ..WriteSet::default()
    }
}

/// A reader.
#[must_use]
pub fn reader(device: &str, user: Option<&str>) -> Reader {
    Reader {
        app: app(),
        device: device_id(device),
        user: user.map(user_id),
    }
}

/// The list of a user.
#[must_use]
pub fn user_list(user: &str) -> Owner {
    Owner::User(user_id(user))
}

/// A new delivery of message `n`.
#[must_use]
pub fn delivery(n: u64, device: &str) -> Delivery {
    let record = device_of(device, "u1");
    let to = Target::Users(vec![user_id("u1")]);
    Delivery::new(&message_to(n, to), &record, true)
}

/// The same delivery, ended, one version later.
#[must_use]
pub fn ended(delivery: &Delivery, reason: Reason) -> Delivery {
    Delivery {
        state: State::Done { reason, at: NOW },
        version: delivery.version + 1,
        ..delivery.clone()
    }
}

/// An event of message `n` at a device of user `u1`.
#[must_use]
pub fn event(n: u64, device: &str, stage: Stage) -> Event {
    delivery(n, device).event(hongyan_core::delivery::Happened::new(stage, None), NOW)
}
