//! Keeps a logout and a send to the same device apart.
//!
//! A lane enters the gate for the devices of a batch, checks their bindings, calls the vendor and leaves. A
//! logout first makes the new binding durable and then waits until nobody who entered earlier is left:
//! either the lane saw the new binding, or the logout saw the lane. So nothing addressed to the former
//! user leaves after a logout has returned. Changes of one device's binding take turns, so that its session is
//! told of them in the order in which they became durable; so do logins of one user and the end of that user.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use hongyan_core::{AppId, DeviceId, UserId};
use tokio::sync::{Notify, OwnedMutexGuard};

/// The bindings that those inside were planned for, by device.
type Inside = HashMap<(AppId, DeviceId), Vec<u64>>;

/// Devices share turns by hash: few enough to hold, enough that strangers seldom meet.
const TURNS: usize = 256;

type Turns = Arc<[Arc<tokio::sync::Mutex<()>>]>;

/// Who is being sent to right now. Bounded by the lanes' concurrency times their batch size.
#[derive(Debug, Clone)]
pub struct Gate {
    inside: Arc<Mutex<Inside>>,
    left: Arc<Notify>,
    turns: Turns,
    user_turns: Turns,
    hasher: std::hash::RandomState,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            inside: Arc::default(),
            left: Arc::default(),
            turns: (0..TURNS).map(|_| Arc::default()).collect(),
            user_turns: (0..TURNS).map(|_| Arc::default()).collect(),
            hasher: std::hash::RandomState::new(),
        }
    }
}

impl Gate {
    /// The turn to change this device's binding and to tell its session, given back on drop.
    pub async fn turn(&self, app: &AppId, device: &DeviceId) -> Option<OwnedMutexGuard<()>> {
        turn_of(&self.turns, self.hasher.hash_one((app, device))).await
    }

    /// The turn to bind devices to this user or to forget the user, given back on drop. Whoever takes a device's turn too
    /// takes this one first, and nobody waits for a vendor while holding it.
    pub async fn user_turn(&self, app: &AppId, user: &UserId) -> Option<OwnedMutexGuard<()>> {
        turn_of(&self.user_turns, self.hasher.hash_one((app, user))).await
    }

    /// Enters for these devices, each with the binding that was planned for, until the pass is dropped.
    #[must_use]
    pub fn enter(&self, app: &AppId, devices: impl Iterator<Item = (DeviceId, u64)>) -> Pass {
        let keys: Vec<_> = devices.map(|(d, b)| ((app.clone(), d), b)).collect();
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, binding) in &keys {
            inside.entry(key.clone()).or_default().push(*binding);
        }
        Pass {
            gate: self.clone(),
            keys,
        }
    }

    /// Resolves when nobody is inside for this device.
    pub async fn wait_empty(&self, app: &AppId, device: &DeviceId) {
        self.wait_before(app, device, u64::MAX).await;
    }

    /// Resolves when nobody is inside who was planned for an earlier binding of this device.
    pub async fn wait_before(&self, app: &AppId, device: &DeviceId, binding: u64) {
        let key = (app.clone(), device.clone());
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if !self
                .inside
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&key)
                .is_some_and(|inside| inside.iter().any(|b| *b < binding))
            {
                return;
            }
            left.await;
        }
    }
}

async fn turn_of(turns: &Turns, hash: u64) -> Option<OwnedMutexGuard<()>> {
    let at = usize::try_from(hash % TURNS as u64).unwrap_or(0);
    let turn = turns.get(at)?;
    Some(Arc::clone(turn).lock_owned().await)
}

/// The right to send, given back on drop.
#[derive(Debug)]
pub struct Pass {
    gate: Gate,
    keys: Vec<((AppId, DeviceId), u64)>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inside = self
            .gate
            .inside
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (key, binding) in self.keys.drain(..) {
            if let Some(bindings) = inside.get_mut(&key) {
                if let Some(at) = bindings.iter().position(|b| *b == binding) {
                    bindings.swap_remove(at);
                }
                if bindings.is_empty() {
                    inside.remove(&key);
                }
            }
        }
        drop(inside);
        self.gate.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_logout_waits_for_those_inside() {
        let gate = Gate::default();
        let (app, device) = (AppId::parse("a").unwrap(), DeviceId::parse("d").unwrap());
        let first = gate.enter(&app, [(device.clone(), 1)].into_iter());
        let second = gate.enter(&app, [(device.clone(), 2)].into_iter());
        let mut wait = Box::pin(gate.wait_empty(&app, &device));
        assert!(futures_poll(&mut wait).await.is_none());
        // Those of the present binding are not in the way of a change that has already happened.
        let mut former = Box::pin(gate.wait_before(&app, &device, 2));
        assert!(futures_poll(&mut former).await.is_none());
        drop(first);
        former.await;
        assert!(futures_poll(&mut wait).await.is_none());
        drop(second);
        wait.await;
    }

    async fn futures_poll<F: Future + Unpin>(f: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut *f).poll(cx) {
                std::task::Poll::Ready(v) => Some(v),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
