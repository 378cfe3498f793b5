//! Which device hears which topic, and from where on.

use hongyan_core::port::Subscription;
use hongyan_core::{AppId, DeviceId, StoreError, Topic};

use super::damaged;
use crate::inbox;
use crate::store::record::{Damage, Key, Parts};
use crate::store::{Space, Txn, View};

/// Topics of a device that are read: five times as many as a device may have.
const TOPICS_MAX: usize = 1_000;

pub(super) fn subscribe(
    txn: &mut Txn<'_>,
    app: &AppId,
    topic: &Topic,
    devices: &[DeviceId],
) -> Result<(), StoreError> {
    let since = inbox::broadcast_head(txn, app)?;
    for device in devices {
        let key = Key::of(app).text(topic).text(device).done();
        if txn.get(Space::TopicDevice, &key)?.is_none() {
            txn.put_number(Space::TopicDevice, &key, since);
            let back = Key::of(app).text(device).text(topic);
            txn.put_number(Space::DeviceTopic, back, since);
        }
    }
    Ok(())
}

pub(super) fn unsubscribe(
    txn: &mut Txn<'_>,
    app: &AppId,
    topic: &Topic,
    devices: &[DeviceId],
) -> Result<(), StoreError> {
    for device in devices {
        let key = Key::of(app).text(topic).text(device).done();
        if txn.get(Space::TopicDevice, &key)?.is_some() {
            txn.remove(Space::TopicDevice, &key);
            txn.remove(Space::DeviceTopic, Key::of(app).text(device).text(topic));
        }
    }
    Ok(())
}

/// Subscriptions of a device (`app, device`), in topic order.
pub(crate) fn read_topics(
    view: &impl View,
    device: &[u8],
) -> Result<Vec<Subscription>, StoreError> {
    let mut topics = Vec::new();
    for (key, payload) in view.prefix(Space::DeviceTopic, device, TOPICS_MAX)? {
        let mut parts = Parts(&key);
        let (_, _) = (parts.text(), parts.text());
        let topic = parts
            .text()
            .and_then(|t| Topic::parse(t).ok())
            .ok_or_else(|| damaged(Space::DeviceTopic, &key))?;
        let since = Parts(&payload).number().ok_or_else(|| {
            Damage::of(Space::DeviceTopic, &key, "the place is missing").into_store_error()
        })?;
        topics.push(Subscription { topic, since });
    }
    Ok(topics)
}
