//! Ports in memory, as cheap as they can be: what is left is the gateway's own cost.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use hongyan_core::app::{App, Credential, Key};
use hongyan_core::device::{Permission, Platform};
use hongyan_core::message::{Audience, Notification, Target};
use hongyan_core::port::{
    Ack, Entry, Fresh, Hint, Inbox, InboxPage, Owner, Reader, Registry, Subscription,
};
use hongyan_core::push::{PushEncoding, Urgency};
use hongyan_core::{
    AppId, ChannelId, Class, CredentialName, Cursor, Device, DeviceId, KeyId, Message, MessageId,
    Push, PushChannel, PushEndpoint, Reason, StoreError, Timestamp, Topic, User, UserId,
};

use crate::dialect::TOPIC;
use crate::dialect::autopush::CHANNEL;

/// Messages that the topic keeps, and each user.
const TOPIC_LEN_MAX: usize = 4096;
const USER_LEN_MAX: usize = 128;

type List = Mutex<VecDeque<(u64, Arc<Message>)>>;

/// Devices `d0…` of users `u0…` with tokens of [`token`].
#[derive(Debug)]
pub struct Memory {
    by_secret: HashMap<[u8; 32], u32>,
    followers: u32,
    users: Vec<List>,
    topic: List,
    topic_name: Topic,
    /// The channel of every device, when they are browsers.
    channel: Option<PushChannel>,
    order: AtomicU64,
}

/// The app that all belong to.
#[must_use]
pub fn app() -> AppId {
    match AppId::parse("bench") {
        Ok(app) => app,
        Err(_) => unreachable!("the name follows the rule"),
    }
}

/// The secret of a device.
#[must_use]
pub fn token(number: u32) -> String {
    format!("hy_dt_benchmark-device-token-{number:08}")
}

/// The identity of a browser.
#[must_use]
pub fn uaid(number: u32) -> String {
    format!("{number:032x}")
}

/// What a secret is found by.
#[must_use]
pub fn hash(secret: &str) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, secret.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// What the intake gives a hint: a push waits apart, and is found by a read alone.
fn stands_alone(fresh: &Fresh) -> bool {
    fresh.message.push.is_none()
}

fn lock(list: &List) -> MutexGuard<'_, VecDeque<(u64, Arc<Message>)>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

fn number_of(id: &DeviceId) -> Option<u32> {
    id.as_str().strip_prefix('d')?.parse().ok()
}

/// The phone with this number, bound to the user of the same number.
#[must_use]
pub fn device(number: u32) -> Option<Device> {
    device_on(Platform::Android, number)
}

fn device_on(platform: Platform, number: u32) -> Option<Device> {
    let secret_hash = hash(&match platform {
        Platform::Web => uaid(number),
        _ => token(number),
    });
    Some(Device {
        app: app(),
        id: DeviceId::parse(&format!("d{number}")).ok()?,
        package: None,
        platform,
        brand: None,
        model: None,
        locale: None,
        timezone: None,
        app_version: None,
        permission: Permission::Granted,
        tags: std::collections::BTreeSet::new(),
        tokens: Vec::new(),
        user: UserId::parse(&format!("u{number}")).ok(),
        binding: 1,
        secret_hash,
        scram: None,
        created_at: Timestamp(1),
        last_seen: Timestamp(1),
        version: 1,
    })
}

impl Memory {
    /// Makes so many devices, of which the first follow the topic; browsers follow none.
    ///
    /// # Errors
    /// Never with the names used here.
    pub fn new(devices: u32, followers: u32, browsers: bool) -> anyhow::Result<Self> {
        let secret = if browsers { uaid } else { token };
        Ok(Self {
            by_secret: (0..devices)
                .map(|number| (hash(&secret(number)), number))
                .collect(),
            channel: browsers.then(|| PushChannel::parse(CHANNEL)).transpose()?,
            followers,
            users: (0..devices).map(|_| List::default()).collect(),
            topic: List::default(),
            topic_name: Topic::parse(TOPIC)?,
            order: AtomicU64::new(0),
        })
    }

    fn platform(&self) -> Platform {
        match self.channel {
            Some(_) => Platform::Web,
            None => Platform::Android,
        }
    }

    /// Who a secret belongs to.
    #[must_use]
    pub fn reader(&self, secret: &str) -> Option<Reader> {
        let device = device_on(self.platform(), *self.by_secret.get(&hash(secret))?)?;
        Some(Reader {
            app: device.app,
            device: device.id,
            user: device.user,
        })
    }

    /// Appends a message to the topic.
    pub fn to_topic(&self, text: &str) -> Hint {
        let mut list = lock(&self.topic);
        let fresh = self.append(
            &mut list,
            TOPIC_LEN_MAX,
            Target::Topic(self.topic_name.clone()),
            text,
        );
        Hint {
            app: app(),
            owner: Owner::Audience(Audience::Topic(self.topic_name.clone())),
            fresh: Some(fresh).filter(stands_alone),
        }
    }

    /// Appends a message to a user's ring.
    pub fn to_user(&self, number: u32, text: &str) -> Option<Hint> {
        let user = UserId::parse(&format!("u{number}")).ok()?;
        let mut list = lock(self.users.get(number as usize)?);
        let fresh = self.append(
            &mut list,
            USER_LEN_MAX,
            Target::Users(vec![user.clone()]),
            text,
        );
        Some(Hint {
            app: app(),
            owner: Owner::User(user),
            fresh: Some(fresh).filter(stands_alone),
        })
    }

    fn append(
        &self,
        list: &mut VecDeque<(u64, Arc<Message>)>,
        max: usize,
        to: Target,
        text: &str,
    ) -> Fresh {
        let order = self.order.fetch_add(1, Ordering::Relaxed) + 1;
        let mut tail = [0; 10];
        tail[2..].copy_from_slice(&order.to_be_bytes());
        let id = uuid::Builder::from_unix_timestamp_millis(order, &tail).into_uuid();
        let push = self.channel.as_ref().map(|channel| {
            Box::new(Push {
                channel: channel.clone(),
                endpoint: [0; 32],
                body: text.as_bytes().to_vec().into(),
                encoding: PushEncoding::Aes128gcm,
                urgency: Urgency::default(),
                topic: None,
                holder: None,
            })
        });
        let notification = push.is_none().then(|| Notification {
            body: text.to_owned(),
            ..Notification::default()
        });
        let message = Message {
            id: MessageId(id),
            app: app(),
            to,
            class: Class::Im,
            class_detail: None,
            notification,
            data: None,
            push,
            recalls: None,
            options: hongyan_core::message::Options::default(),
            accepted_at: Timestamp(1),
            expires_at: Timestamp::FAR,
        };
        let fresh = Fresh {
            after: list.back().map_or(0, |(order, _)| *order),
            place: order,
            message: Arc::new(message),
        };
        if list.len() >= max {
            list.pop_front();
        }
        list.push_back((order, Arc::clone(&fresh.message)));
        fresh
    }

    fn page(&self, reader: &Reader, after: Option<Cursor>, limit: usize) -> Option<InboxPage> {
        let number = number_of(&reader.device)?;
        let follows = number < self.followers;
        let own = lock(self.users.get(number as usize)?);
        let topic = lock(&self.topic);
        let newest = |list: &VecDeque<(u64, _)>| list.back().map_or(0, |(order, _)| *order);
        let head = Cursor {
            epoch: 1,
            reader: number,
            user: newest(&own),
            device: 0,
            broadcast: if follows { newest(&topic) } else { 0 },
        };
        let mut next = after.unwrap_or(head);
        let mut entries = Vec::new();
        let mut more = false;
        let from = own.partition_point(|(order, _)| *order <= next.user);
        for (order, message) in own.iter().skip(from) {
            more = entries.len() >= limit;
            if more {
                break;
            }
            next.user = *order;
            entries.push(Entry {
                cursor: next,
                message: Arc::clone(message),
            });
        }
        let from = topic.partition_point(|(order, _)| *order <= next.broadcast);
        for (order, message) in topic.iter().skip(from).filter(|_| follows) {
            more |= entries.len() >= limit;
            if more {
                break;
            }
            next.broadcast = *order;
            entries.push(Entry {
                cursor: next,
                message: Arc::clone(message),
            });
        }
        Some(InboxPage {
            entries,
            next,
            head,
            lost: 0,
            reset: false,
            more,
        })
    }
}

const NOBODY: StoreError = StoreError::NotFound { entity: "device" };

#[async_trait]
impl Inbox for Memory {
    async fn read(
        &self,
        reader: &Reader,
        after: Option<Cursor>,
        limit: usize,
        _: Timestamp,
    ) -> Result<InboxPage, StoreError> {
        self.page(reader, after, limit).ok_or(NOBODY)
    }
    async fn ack(&self, _: &Reader, _: Ack, _: Timestamp) -> Result<Vec<MessageId>, StoreError> {
        Ok(Vec::new())
    }
    async fn acked(
        &self,
        _: &Reader,
        _: &[MessageId],
        _: Timestamp,
    ) -> Result<Vec<MessageId>, StoreError> {
        // Nothing is planned over it.
        Ok(Vec::new())
    }
    async fn head(&self, reader: &Reader) -> Result<Cursor, StoreError> {
        self.page(reader, None, 0)
            .map(|page| page.head)
            .ok_or(NOBODY)
    }
    async fn message(&self, _: &AppId, _: MessageId) -> Result<Option<Arc<Message>>, StoreError> {
        Ok(None)
    }
    async fn messages(
        &self,
        ids: &[(AppId, MessageId)],
    ) -> Result<Vec<Option<Arc<Message>>>, StoreError> {
        Ok(vec![None; ids.len()])
    }
    async fn recalled(&self, _: &AppId, _: MessageId) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }
    async fn pushed_out(&self, _: &AppId, _: MessageId) -> Result<Option<Reason>, StoreError> {
        Ok(None)
    }
}

/// What no session asks for.
const UNUSED: StoreError = StoreError::NotFound {
    entity: "record of this kind",
};

#[async_trait]
impl Registry for Memory {
    async fn put_endpoint(&self, _: PushEndpoint) -> Result<(), StoreError> {
        Err(UNUSED)
    }
    async fn endpoint(&self, _: &[u8; 32]) -> Result<Option<PushEndpoint>, StoreError> {
        Ok(None)
    }
    async fn endpoints_of(
        &self,
        app: &AppId,
        device: &DeviceId,
        _: Option<&PushChannel>,
        _: usize,
    ) -> Result<Vec<PushEndpoint>, StoreError> {
        let open = self.channel.clone().map(|channel| PushEndpoint {
            hash: [0; 32],
            sealed: Vec::new(),
            app: app.clone(),
            device: device.clone(),
            channel,
            label: None,
            vapid: None,
            description: None,
            created_at: Timestamp(1),
            gone_since: None,
        });
        Ok(open.into_iter().collect())
    }
    async fn end_endpoint(
        &self,
        _: &AppId,
        _: &DeviceId,
        _: &PushChannel,
        _: Timestamp,
    ) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn devices(
        &self,
        _: &AppId,
        ids: &[DeviceId],
    ) -> Result<Vec<Option<Device>>, StoreError> {
        Ok(ids
            .iter()
            .map(|id| device_on(self.platform(), number_of(id)?))
            .collect())
    }
    async fn device_by_secret(&self, hash: &[u8; 32]) -> Result<Option<Device>, StoreError> {
        let number = self.by_secret.get(hash);
        Ok(number.and_then(|number| device_on(self.platform(), *number)))
    }
    async fn touch_device(&self, _: &AppId, _: &DeviceId, _: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }
    async fn topics_of(&self, _: &AppId, id: &DeviceId) -> Result<Vec<Subscription>, StoreError> {
        let follows = number_of(id).is_some_and(|number| number < self.followers);
        let one = Subscription {
            topic: self.topic_name.clone(),
            since: 0,
        };
        Ok(follows.then_some(one).into_iter().collect())
    }

    async fn put_app(&self, _: App, _: Option<u64>) -> Result<(), StoreError> {
        Err(UNUSED)
    }
    async fn app(&self, _: &AppId) -> Result<Option<App>, StoreError> {
        Ok(None)
    }
    async fn apps(&self, _: Option<&AppId>, _: usize) -> Result<Vec<App>, StoreError> {
        Ok(Vec::new())
    }
    async fn delete_app(&self, _: &AppId) -> Result<(), StoreError> {
        Err(UNUSED)
    }
    async fn put_key(&self, _: Key) -> Result<(), StoreError> {
        Err(UNUSED)
    }
    async fn key_by_hash(&self, _: &[u8; 32]) -> Result<Option<Key>, StoreError> {
        Ok(None)
    }
    async fn keys(&self, _: Option<&AppId>) -> Result<Vec<Key>, StoreError> {
        Ok(Vec::new())
    }
    async fn delete_key(&self, _: Option<&AppId>, _: &KeyId) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn put_credential(&self, _: Credential, _: Option<u64>) -> Result<(), StoreError> {
        Err(UNUSED)
    }
    async fn credential(
        &self,
        _: &AppId,
        _: &ChannelId,
        _: &CredentialName,
    ) -> Result<Option<Credential>, StoreError> {
        Ok(None)
    }
    async fn credentials(&self, _: &AppId) -> Result<Vec<Credential>, StoreError> {
        Ok(Vec::new())
    }
    async fn delete_credential(
        &self,
        _: &AppId,
        _: &ChannelId,
        _: &CredentialName,
    ) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn put_device(&self, _: Device, _: Option<u64>) -> Result<(), StoreError> {
        Err(UNUSED)
    }
    async fn import_devices(&self, _: Vec<Device>) -> Result<(), StoreError> {
        Err(UNUSED)
    }
    async fn devices_of(&self, _: &AppId, _: &[UserId]) -> Result<Vec<Vec<Device>>, StoreError> {
        Ok(Vec::new())
    }
    async fn device_by_token(
        &self,
        _: &AppId,
        _: &ChannelId,
        _: &str,
    ) -> Result<Option<DeviceId>, StoreError> {
        Ok(None)
    }
    async fn device_page(
        &self,
        _: &AppId,
        _: Option<&DeviceId>,
        _: usize,
    ) -> Result<Vec<Device>, StoreError> {
        Ok(Vec::new())
    }
    async fn delete_device(&self, _: &AppId, _: &DeviceId) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn kill_token(
        &self,
        _: &AppId,
        _: &DeviceId,
        _: &ChannelId,
        _: &str,
        _: Reason,
        _: Timestamp,
    ) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn put_user(&self, _: User, _: Option<u64>) -> Result<(), StoreError> {
        Err(UNUSED)
    }
    async fn users(&self, _: &AppId, _: &[UserId]) -> Result<Vec<Option<User>>, StoreError> {
        Ok(Vec::new())
    }
    async fn delete_user(&self, _: &AppId, _: &UserId) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn subscribe(&self, _: &AppId, _: &Topic, _: &[DeviceId]) -> Result<(), StoreError> {
        Err(UNUSED)
    }
    async fn unsubscribe(&self, _: &AppId, _: &Topic, _: &[DeviceId]) -> Result<(), StoreError> {
        Err(UNUSED)
    }
    async fn subscribers(
        &self,
        _: &AppId,
        _: &Topic,
        _: Option<&DeviceId>,
        _: usize,
    ) -> Result<Vec<DeviceId>, StoreError> {
        Ok(Vec::new())
    }
}
