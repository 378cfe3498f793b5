//! Keeps a logout and a send to the same device apart.
//!
//! A lane enters the gate for the devices of a batch, checks their bindings, calls the vendor and leaves. A
//! logout first makes the new binding durable and then waits until nobody who entered earlier is left:
//! either the lane saw the new binding, or the logout saw the lane. So nothing addressed to the former
//! user leaves after a logout has returned.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hongyan_core::{AppId, DeviceId};
use tokio::sync::Notify;

type Inside = HashMap<(AppId, DeviceId), u32>;

/// Who is being sent to right now. Bounded by the lanes' concurrency times their batch size.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    inside: Arc<Mutex<Inside>>,
    left: Arc<Notify>,
}

impl Gate {
    /// Enters for these devices until the pass is dropped.
    #[must_use]
    pub fn enter(&self, app: &AppId, devices: impl Iterator<Item = DeviceId>) -> Pass {
        let keys: Vec<_> = devices.map(|d| (app.clone(), d)).collect();
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &keys {
            *inside.entry(key.clone()).or_default() += 1;
        }
        Pass {
            gate: self.clone(),
            keys,
        }
    }

    /// Resolves when nobody is inside for this device.
    pub async fn wait_empty(&self, app: &AppId, device: &DeviceId) {
        let key = (app.clone(), device.clone());
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if !self
                .inside
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains_key(&key)
            {
                return;
            }
            left.await;
        }
    }
}

/// The right to send, given back on drop.
#[derive(Debug)]
pub struct Pass {
    gate: Gate,
    keys: Vec<(AppId, DeviceId)>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inside = self
            .gate
            .inside
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for key in self.keys.drain(..) {
            if let Some(count) = inside.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
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
        let first = gate.enter(&app, [device.clone()].into_iter());
        let second = gate.enter(&app, [device.clone()].into_iter());
        let mut wait = Box::pin(gate.wait_empty(&app, &device));
        assert!(futures_poll(&mut wait).await.is_none());
        drop(first);
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
