//! Access tokens that a vendor's token endpoint gave out.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::limits;

/// What a sender's access token is worth now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Worth {
    Unknown,
    Expired,
    Good,
}

/// The tokens, oldest first.
#[derive(Debug, Default)]
pub(crate) struct AccessTokens(Mutex<VecDeque<(String, i64)>>);

impl AccessTokens {
    /// A new token that lives for `life_s` seconds.
    pub(crate) fn issue(&self, prefix: &str, now_s: i64, life_s: i64) -> String {
        let token = format!(
            "{prefix}{}{}",
            uuid::Uuid::new_v4().simple(),
            uuid::Uuid::new_v4().simple()
        );
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tokens.len() >= limits::ACCESS_TOKENS_MAX {
            tokens.pop_front();
        }
        tokens.push_back((token.clone(), now_s + life_s));
        token
    }

    pub(crate) fn worth(&self, token: &str, now_s: i64) -> Worth {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match tokens.iter().rev().find(|(held, _)| held == token) {
            None => Worth::Unknown,
            Some((_, until_s)) if now_s >= *until_s => Worth::Expired,
            Some(_) => Worth::Good,
        }
    }

    /// Makes a token worthless before its time.
    pub(crate) fn expire(&self, token: &str) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, until_s)) = tokens.iter_mut().find(|(held, _)| held == token) {
            *until_s = 0;
        }
    }
}
