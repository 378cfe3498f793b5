//! Takes up again what waits for the end of quiet hours, when these changed, or the time zone that they are meant in.

use hongyan_core::delivery::{Delivery, Input, State};
use hongyan_core::{AppId, Device, DeviceId, Reason, StoreError, User, UserId};

use crate::binding::to_the_end;
use crate::feedback::{Feedback, Signal, readable};
use crate::policy;
use crate::service::Ports;

/// Open deliveries of a device that are looked at in one step.
const PAGE_LEN: usize = 500;

/// What is held for quiet hours.
#[derive(Debug, Clone)]
pub struct Holds {
    pub(crate) ports: Ports,
    pub(crate) feedback: Feedback,
}

impl Holds {
    /// Plans again what is held for the user's quiet hours and would not be held as it is. Costs one look at each open
    /// delivery of the user's devices; what fits the preferences stays as it is. Idempotent. Without it, what is held is
    /// planned again when the window opens that it was held for. Goes on when nobody waits for it any more.
    ///
    /// # Errors
    /// [`StoreError`]; what was not reached waits as long as it was to.
    pub async fn preferences_changed(&self, app: &AppId, user: &UserId) -> Result<(), StoreError> {
        let (this, app, user) = (self.clone(), app.clone(), user.clone());
        to_the_end(async move {
            let registry = &this.ports.registry;
            let of_user = registry.devices_of(&app, std::slice::from_ref(&user));
            let devices = of_user.await?.into_iter().flatten().collect();
            this.reconsider(&app, Some(&user), devices).await
        })
        .await
    }

    /// The same of one device, whose time zone changed: quiet hours of the app, and of a user without a zone, are meant in it.
    ///
    /// # Errors
    /// [`StoreError`]; what was not reached waits as long as it was to.
    pub async fn timezone_changed(&self, app: &AppId, device: &DeviceId) -> Result<(), StoreError> {
        let (this, app, device) = (self.clone(), app.clone(), device.clone());
        to_the_end(async move {
            let found = this.ports.registry.devices(&app, &[device]).await?;
            let Some(device) = found.into_iter().flatten().next() else {
                return Ok(());
            };
            let user = device.user.clone();
            this.reconsider(&app, user.as_ref(), vec![device]).await
        })
        .await
    }

    async fn reconsider(
        &self,
        app: &AppId,
        user: Option<&UserId>,
        devices: Vec<Device>,
    ) -> Result<(), StoreError> {
        let registry = &self.ports.registry;
        let user = match user {
            Some(id) => registry.users(app, std::slice::from_ref(id)).await?,
            None => Vec::new(),
        };
        let user = user.into_iter().flatten().next();
        let policy = registry.app(app).await?.map(|app| app.policy);
        let policy = policy.unwrap_or_default();
        for device in devices {
            let mut after = None;
            loop {
                let ledger = &self.ports.ledger;
                let open = ledger.open_of_device(app, &device.id, after, PAGE_LEN);
                let keys = open.await?;
                after = keys.last().map(|(message, _)| *message);
                let now = self.ports.clock.now();
                for delivery in readable(&self.ports, app, &keys).await? {
                    if is_held_otherwise(&delivery, user.as_ref(), &device, &policy, now) {
                        self.again(delivery).await;
                    }
                }
                if keys.len() < PAGE_LEN {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn again(&self, delivery: Delivery) {
        let signal = Signal {
            app: delivery.app,
            message: delivery.message,
            device: delivery.device,
            user: delivery.user,
            input: Input::Reconsider,
        };
        self.feedback.send(signal).await;
    }
}

/// Whether it waits for quiet hours, and not for these.
fn is_held_otherwise(
    delivery: &Delivery,
    user: Option<&User>,
    device: &Device,
    policy: &hongyan_core::app::AppPolicy,
    now: hongyan_core::Timestamp,
) -> bool {
    let State::Held {
        until,
        reason: Reason::QuietHours,
    } = delivery.state
    else {
        return false;
    };
    let class = delivery.class;
    user.is_some_and(|user| user.preferences.muted_classes.contains(&class))
        || policy::quiet_until(user, device, policy, class, now) != Some(until)
}
