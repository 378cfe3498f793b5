//! Who holds a device: login, logout, kick and forgetting, with nothing of the former user after them.

use hongyan_core::error::Certainty;
use hongyan_core::limits::{CONFLICT_RETRIES_MAX, DEVICES_PER_USER_MAX};
use hongyan_core::{AppId, Device, DeviceId, Reason, StoreError, Timestamp, User, UserId};

use crate::feedback::{self, Feedback};
use crate::gate::Gate;
use crate::service::Ports;

/// What is to become of a binding.
#[derive(Debug, Clone, Copy)]
enum Change<'a> {
    /// The device is bound to this user, or to nobody.
    To(Option<&'a UserId>),
    /// The device is bound to this user, if it never was bound to anybody.
    First(&'a UserId),
    /// The device is bound to nobody, if this user still holds it.
    Leave(&'a UserId),
}

/// A device as it is bound now, and whom it was bound to before a change.
#[derive(Debug)]
struct Bound {
    device: Device,
    former: Option<UserId>,
}

/// Changes bindings.
#[derive(Debug, Clone)]
pub struct Bindings {
    pub(crate) ports: Ports,
    pub(crate) feedback: Feedback,
    pub(crate) gate: Gate,
}

impl Bindings {
    /// Binds the device to a user. When this returns, nothing for its former user can reach the device through us.
    /// Logging in again as the same user changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown device.
    pub async fn login(
        &self,
        app: &AppId,
        device: &DeviceId,
        user: &UserId,
    ) -> Result<Device, StoreError> {
        let changed = self.bind(app, device, Some(user)).await?;
        self.unbind_beyond_limit(app, device, user).await?;
        Ok(changed)
    }

    /// Makes a user known who is not yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn know(&self, app: &AppId, user: &UserId) -> Result<(), StoreError> {
        let _turn = self.gate.user_turn(app, user).await;
        self.remember_user(app, user).await
    }

    /// Whether a user may get one more device by an enrolment of this time: one who is known since before it, and holds fewer
    /// than they may.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn may_enrol(
        &self,
        app: &AppId,
        user: &UserId,
        made_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let (registry, user) = (&self.ports.registry, std::slice::from_ref(user));
        let known = registry.users(app, user).await?.pop().flatten();
        // Who was forgotten and came back is another person, as far as anybody knows.
        if known.is_none_or(|known| known.created_at > made_at) {
            return Ok(false);
        }
        let devices = registry.devices_of(app, user).await?.pop();
        Ok(devices.is_none_or(|all| all.len() < DEVICES_PER_USER_MAX))
    }

    /// Binds a device that never was bound to a user who may get one more by an enrolment of this time. Answers whether the
    /// user holds it then: nobody is logged out for it, and no logout undone.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown device.
    pub async fn enrol(
        &self,
        app: &AppId,
        device: &DeviceId,
        user: &UserId,
        made_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let this = self.clone();
        let (app, device, user) = (app.clone(), device.clone(), user.clone());
        to_the_end(async move {
            let turn = this.gate.user_turn(&app, &user).await;
            if !this.may_enrol(&app, &user, made_at).await? {
                return Ok(false);
            }
            let bound = this.rebind(&app, &device, Change::First(&user)).await?;
            drop(turn);
            let holds = bound.device.user.as_ref() == Some(&user);
            this.end_former(&app, bound).await?;
            Ok(holds)
        })
        .await
    }

    /// Unbinds the device. When this returns, nothing for its former user can reach the device through us.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown device.
    pub async fn logout(&self, app: &AppId, device: &DeviceId) -> Result<Device, StoreError> {
        self.bind(app, device, None).await
    }

    /// Unbinds the device and closes its connection: the app server wants it out.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown device.
    pub async fn kick(&self, app: &AppId, device: &DeviceId) -> Result<Device, StoreError> {
        let (this, app, device) = (self.clone(), app.clone(), device.clone());
        to_the_end(async move {
            // First, so that the connection is told of this and not only that its user changed; again, for one that came
            // in between.
            this.ports.presence.kick(&app, &device).await;
            let unbound = this.bind_now(&app, &device, None).await?;
            this.ports.presence.kick(&app, &device).await;
            Ok(unbound)
        })
        .await
    }

    /// Forgets the device, its tokens, topics and inbox. Answers whether it was known.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget(&self, app: &AppId, device: &DeviceId) -> Result<bool, StoreError> {
        let (this, app, device) = (self.clone(), app.clone(), device.clone());
        to_the_end(async move { this.forget_now(&app, &device).await }).await
    }

    async fn forget_now(&self, app: &AppId, device: &DeviceId) -> Result<bool, StoreError> {
        let turn = self.gate.turn(app, device).await;
        let known = self.ports.registry.delete_device(app, device).await?;
        self.ports.presence.disconnect(app, device).await;
        drop(turn);
        self.gate.wait_empty(app, device).await;
        feedback::end_open(
            &self.ports,
            &self.feedback,
            app,
            device,
            None,
            Reason::DeviceDeleted,
        )
        .await?;
        Ok(known)
    }

    /// Forgets a user: their devices are unbound first. A login of this user at the same moment comes before it, and is
    /// undone, or after it, and begins anew.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_user(&self, app: &AppId, user: &UserId) -> Result<bool, StoreError> {
        let (this, app, user) = (self.clone(), app.clone(), user.clone());
        to_the_end(async move { this.forget_user_now(&app, &user).await }).await
    }

    async fn forget_user_now(&self, app: &AppId, user: &UserId) -> Result<bool, StoreError> {
        let registry = &self.ports.registry;
        let turn = self.gate.user_turn(app, user).await;
        let devices = registry
            .devices_of(app, std::slice::from_ref(user))
            .await?
            .pop()
            .unwrap_or_default();
        let mut unbound = Vec::with_capacity(devices.len());
        let mut trouble = None;
        for device in devices {
            match self.rebind(app, &device.id, Change::Leave(user)).await {
                Ok(bound) => unbound.push(bound),
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => trouble = Some(error),
            }
        }
        let known = match trouble {
            Some(error) => Err(error),
            None => registry.delete_user(app, user).await,
        };
        drop(turn);
        // Those that were unbound are, whatever became of the rest.
        let mut ended = Ok(());
        for bound in unbound {
            ended = ended.and(self.end_former(app, bound).await);
        }
        let known = known?;
        ended.map(|()| known)
    }

    async fn bind(
        &self,
        app: &AppId,
        id: &DeviceId,
        user: Option<&UserId>,
    ) -> Result<Device, StoreError> {
        let (this, app, id, user) = (self.clone(), app.clone(), id.clone(), user.cloned());
        to_the_end(async move { this.bind_now(&app, &id, user.as_ref()).await }).await
    }

    async fn bind_now(
        &self,
        app: &AppId,
        id: &DeviceId,
        user: Option<&UserId>,
    ) -> Result<Device, StoreError> {
        let (bound, remembered) = match user {
            Some(user) => {
                let turn = self.gate.user_turn(app, user).await;
                let bound = self.rebind(app, id, Change::To(Some(user))).await?;
                let remembered = self.remember_user(app, user).await;
                drop(turn);
                (bound, remembered)
            }
            None => (self.rebind(app, id, Change::To(None)).await?, Ok(())),
        };
        let device = bound.device.clone();
        // The binding stands, whatever became of the user's record.
        self.end_former(app, bound).await?;
        remembered.map(|()| device)
    }

    /// Makes a binding durable and tells the session, in the device's turn.
    async fn rebind(
        &self,
        app: &AppId,
        id: &DeviceId,
        change: Change<'_>,
    ) -> Result<Bound, StoreError> {
        let turn = self.gate.turn(app, id).await;
        let bound = self.write_binding(app, id, change).await?;
        // Also when the device was bound so before: an earlier change may have been cut off, or be under way.
        self.ports
            .presence
            .rebind(app, id, bound.device.user.clone())
            .await;
        drop(turn);
        Ok(bound)
    }

    /// Waits for what is under way to the former user, and ends what is open for them.
    async fn end_former(&self, app: &AppId, bound: Bound) -> Result<(), StoreError> {
        let (id, binding) = (&bound.device.id, bound.device.binding);
        self.gate.wait_before(app, id, binding).await;
        let Some(former) = &bound.former else {
            return Ok(());
        };
        feedback::end_open(
            &self.ports,
            &self.feedback,
            app,
            id,
            Some(former),
            Reason::UserLoggedOut,
        )
        .await
    }

    /// Makes the binding durable.
    async fn write_binding(
        &self,
        app: &AppId,
        id: &DeviceId,
        change: Change<'_>,
    ) -> Result<Bound, StoreError> {
        for _ in 0..CONFLICT_RETRIES_MAX {
            let device = self
                .ports
                .registry
                .devices(app, std::slice::from_ref(id))
                .await?
                .pop()
                .flatten()
                .ok_or(StoreError::NotFound { entity: "device" })?;
            let user = match change {
                Change::To(user) => user,
                Change::First(user) if device.user.is_none() && device.binding == 0 => Some(user),
                Change::First(_) => device.user.as_ref(),
                Change::Leave(user) if device.user.as_ref() == Some(user) => None,
                Change::Leave(_) => device.user.as_ref(),
            };
            if device.user.as_ref() == user {
                return Ok(Bound {
                    device,
                    former: None,
                });
            }
            let former = device.user.clone();
            let version = device.version;
            let changed = Device {
                user: user.cloned(),
                binding: device.binding + 1,
                version: version + 1,
                last_seen: self.ports.clock.now(),
                ..device
            };
            match self
                .ports
                .registry
                .put_device(changed.clone(), Some(version))
                .await
            {
                Ok(()) => {
                    return Ok(Bound {
                        device: changed,
                        former,
                    });
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Conflict { entity: "device" })
    }

    /// A user who logs in is known from then on.
    async fn remember_user(&self, app: &AppId, user: &UserId) -> Result<(), StoreError> {
        let registry = &self.ports.registry;
        if registry
            .users(app, std::slice::from_ref(user))
            .await?
            .pop()
            .flatten()
            .is_some()
        {
            return Ok(());
        }
        let new = User {
            app: app.clone(),
            id: user.clone(),
            attributes: serde_json::Map::new(),
            preferences: hongyan_core::user::Preferences::default(),
            created_at: self.ports.clock.now(),
            version: 1,
        };
        match registry.put_user(new, None).await {
            Ok(()) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Unbinds the devices seen longest ago when a user has too many.
    async fn unbind_beyond_limit(
        &self,
        app: &AppId,
        keep: &DeviceId,
        user: &UserId,
    ) -> Result<(), StoreError> {
        let registry = &self.ports.registry;
        let mut devices = registry
            .devices_of(app, std::slice::from_ref(user))
            .await?
            .pop()
            .unwrap_or_default();
        devices.sort_by_key(|d| (d.id != *keep, std::cmp::Reverse(d.last_seen)));
        for device in devices.into_iter().skip(DEVICES_PER_USER_MAX) {
            let (this, app, user) = (self.clone(), app.clone(), user.clone());
            to_the_end(async move {
                // Whoever took it over meanwhile keeps it.
                let leave = Change::Leave(&user);
                let bound = this.rebind(&app, &device.id, leave).await?;
                this.end_former(&app, bound).await
            })
            .await?;
        }
        Ok(())
    }
}

/// Runs a change in a task of its own: a caller who hangs up must not leave the registry, the session and the open
/// deliveries with different ideas of who holds the device.
pub(crate) async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::spawn(change).await.unwrap_or_else(|ended| {
        Err(StoreError::Unavailable {
            engine: "dispatch",
            certainty: Certainty::Unknown,
            source: ended.into(),
        })
    })
}
