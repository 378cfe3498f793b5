//! What vendors count of a push: how many have it, how many tapped it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::limits;
use crate::push::Fate;

/// Numbers of one push.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Numbers {
    pub(crate) delivered: u64,
    pub(crate) clicked: u64,
}

/// The numbers of the latest pushes.
#[derive(Debug, Default)]
pub(crate) struct Counted(Mutex<VecDeque<(String, Numbers)>>);

impl Counted {
    /// Something became of a push to one device.
    pub(crate) fn add(&self, id: &str, fate: Fate) {
        let mut pushes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !pushes.iter().any(|(of, _)| of == id) {
            while pushes.len() >= limits::REQUESTS_KEPT_MAX {
                pushes.pop_front();
            }
            pushes.push_back((id.to_owned(), Numbers::default()));
        }
        if let Some((_, numbers)) = pushes.iter_mut().find(|(of, _)| of == id) {
            match fate {
                Fate::Delivered => numbers.delivered += 1,
                Fate::Clicked => numbers.clicked += 1,
                Fate::TargetInvalid | Fate::NotShown | Fate::OverQuota => {}
            }
        }
    }

    /// What is counted of a push so far.
    pub(crate) fn of(&self, id: &str) -> Numbers {
        let pushes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = pushes.iter().rev().find(|(of, _)| of == id);
        found.map(|(_, numbers)| *numbers).unwrap_or_default()
    }
}
