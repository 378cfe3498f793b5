//! Takes up again what waits for the end of quiet hours, when the person has changed them.

use hongyan_core::delivery::{Delivery, Input, State};
use hongyan_core::{AppId, Device, Reason, StoreError, User, UserId};

use crate::binding::to_the_end;
use crate::feedback::{Feedback, Signal, readable};
use crate::policy;
use crate::service::Ports;

/// Open deliveries of a device that are looked at in one step.
const PAGE_LEN: usize = 500;

/// What is held for users.
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
    pub async fn reconsider(&self, app: &AppId, user: &UserId) -> Result<(), StoreError> {
        let (this, app, user) = (self.clone(), app.clone(), user.clone());
        to_the_end(async move { this.reconsider_now(&app, &user).await }).await
    }

    async fn reconsider_now(&self, app: &AppId, user: &UserId) -> Result<(), StoreError> {
        let (registry, id) = (&self.ports.registry, std::slice::from_ref(user));
        let Some(user) = registry.users(app, id).await?.pop().flatten() else {
            return Ok(());
        };
        let policy = registry.app(app).await?.map(|app| app.policy);
        let policy = policy.unwrap_or_default();
        for device in registry.devices_of(app, id).await?.into_iter().flatten() {
            let mut after = None;
            loop {
                let ledger = &self.ports.ledger;
                let keys = ledger
                    .open_of_device(app, &device.id, after, PAGE_LEN)
                    .await?;
                after = keys.last().map(|(message, _)| *message);
                let now = self.ports.clock.now();
                for delivery in readable(&self.ports, app, &keys).await? {
                    if is_held_otherwise(&delivery, &user, &device, &policy, now) {
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
    user: &User,
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
    user.preferences.muted_classes.contains(&class)
        || policy::quiet_until(Some(user), device, policy, class, now) != Some(until)
}
