//! The devices that a job is about.

use std::collections::HashMap;

use hongyan_core::limits::BROADCAST_PAGE_LEN;
use hongyan_core::message::Audience;
use hongyan_core::port::{Job, JobKind, Owner};
use hongyan_core::{AppId, Device, DeviceId, Message, StoreError};

use super::Router;
use crate::situation::{self, Read};

/// Devices that a job is about: their ids in order, and those that exist.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) ids: Vec<DeviceId>,
    pub(super) devices: HashMap<DeviceId, Device>,
}

impl Found {
    fn many(devices: Vec<Device>) -> Self {
        Self {
            ids: devices.iter().map(|d| d.id.clone()).collect(),
            devices: devices.into_iter().map(|d| (d.id.clone(), d)).collect(),
        }
    }

    /// Keeps the device that is connected, else the one that was seen last.
    pub(super) fn keep_latest(&mut self, read: &Read<'_>) {
        let latest = latest(self.devices.values(), |id| read.sessions.contains_key(id)).cloned();
        self.ids.retain(|id| Some(id) == latest.as_ref());
        self.devices.retain(|id, _| Some(id) == latest.as_ref());
    }
}

/// The device that is connected, else the one that was seen last.
pub(crate) fn latest<'d>(
    devices: impl Iterator<Item = &'d Device>,
    connected: impl Fn(&DeviceId) -> bool,
) -> Option<&'d DeviceId> {
    devices
        .max_by_key(|d| (connected(&d.id), d.last_seen, d.id.clone()))
        .map(|d| &d.id)
}

impl Router {
    /// The devices that each job is about.
    pub(super) async fn candidates(
        &self,
        app: &AppId,
        jobs: &[Job],
        messages: &situation::Known,
    ) -> Result<Vec<Found>, StoreError> {
        let registry = &self.ports.registry;
        let users: Vec<_> = jobs
            .iter()
            .filter_map(|j| match &j.kind {
                JobKind::Route {
                    owner: Owner::User(user),
                } => Some(user.clone()),
                _ => None,
            })
            .collect();
        let mut of_users = registry.devices_of(app, &users).await?.into_iter();
        let single: Vec<_> = jobs
            .iter()
            .filter_map(|j| match &j.kind {
                JobKind::Route {
                    owner: Owner::Device(device),
                }
                | JobKind::Deliver { device } => Some(device.clone()),
                _ => None,
            })
            .collect();
        let mut singles = registry.devices(app, &single).await?.into_iter();
        let mut all = Vec::with_capacity(jobs.len());
        for job in jobs {
            all.push(match &job.kind {
                JobKind::Route {
                    owner: Owner::User(_),
                } => Found::many(of_users.next().unwrap_or_default()),
                JobKind::Route {
                    owner: Owner::Device(id),
                }
                | JobKind::Deliver { device: id } => {
                    let device = singles.next().flatten();
                    Found {
                        ids: vec![id.clone()],
                        devices: device.into_iter().map(|d| (d.id.clone(), d)).collect(),
                    }
                }
                JobKind::Route {
                    owner: Owner::Audience(_),
                } => Found::default(),
                JobKind::Broadcast { after } => match messages.get(&job.message) {
                    Some((message, _)) => self.broadcast_page(message, after.as_ref()).await?,
                    None => Found::default(),
                },
            });
        }
        Ok(all)
    }

    async fn broadcast_page(
        &self,
        message: &Message,
        after: Option<&DeviceId>,
    ) -> Result<Found, StoreError> {
        let registry = &self.ports.registry;
        match message.to.audience() {
            Some(Audience::Topic(topic)) => {
                let ids = registry
                    .subscribers(&message.app, &topic, after, BROADCAST_PAGE_LEN)
                    .await?;
                let devices = self.sound_devices(&message.app, &ids).await?;
                Ok(Found {
                    devices: devices
                        .into_iter()
                        .flatten()
                        .map(|d| (d.id.clone(), d))
                        .collect(),
                    ids,
                })
            }
            Some(Audience::All) => Ok(Found::many(
                registry
                    .device_page(&message.app, after, BROADCAST_PAGE_LEN)
                    .await?,
            )),
            None => Ok(Found::default()),
        }
    }

    /// Devices in the order of the ids; one whose record is damaged counts as none, so that the rest of a page is served.
    async fn sound_devices(
        &self,
        app: &AppId,
        ids: &[DeviceId],
    ) -> Result<Vec<Option<Device>>, StoreError> {
        let registry = &self.ports.registry;
        match registry.devices(app, ids).await {
            Err(StoreError::Corrupt { .. }) => {}
            read => return read,
        }
        let mut sound = Vec::with_capacity(ids.len());
        for id in ids {
            match registry.devices(app, std::slice::from_ref(id)).await {
                Ok(mut one) => sound.push(one.pop().flatten()),
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::error!(%app, device = %id, %error, "a subscriber's record is damaged; it gets nothing");
                    metrics::counter!("hongyan_dispatch_unreadable_total").increment(1);
                    sound.push(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(sound)
    }
}
