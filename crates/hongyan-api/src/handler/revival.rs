//! Vendor tokens that a device gives again: what is kept of what was known, and when a dead one is tried anew.

use std::time::Duration;

use hongyan_core::device::{self, TokenState};
use hongyan_core::{AppId, ChannelId, CredentialName, StoreError, Timestamp};

use crate::api::Api;
use crate::wire::device::NamedToken;

/// How long a dead token rests before its device may give it again. Apps give their token at every start, also one that they
/// keep from before; an app that was removed and installed again may truly have the same one back.
const REST: Duration = Duration::from_secs(3_600);

/// When each credential was last changed: a token that died of a wrong one (the other environment, another project's key) is
/// good again at once.
#[derive(Debug, Default)]
pub(super) struct Revival(Vec<(ChannelId, CredentialName, Timestamp)>);

impl Revival {
    /// Reads what these tokens need: nothing, when the device gives none that died.
    pub(super) async fn read(
        api: &Api,
        app: &AppId,
        old: &[device::Token],
        given: &[NamedToken],
    ) -> Result<Self, StoreError> {
        let died = |given: &NamedToken| {
            known(given, old).is_some_and(|old| matches!(old.state, TokenState::Dead { .. }))
        };
        if !given.iter().any(died) {
            return Ok(Self::default());
        }
        let all = api.registry().credentials(app).await?;
        Ok(Self(
            all.into_iter()
                .map(|c| (c.channel, c.name, c.updated_at))
                .collect(),
        ))
    }

    /// A token as the device gives it now. A dead one stays dead until it has rested or its credential was changed; one that
    /// is paused stays so.
    pub(super) fn renewed(
        &self,
        given: NamedToken,
        old: &[device::Token],
        now: Timestamp,
    ) -> device::Token {
        let Some(old) = known(&given, old) else {
            return given.into_core(now);
        };
        let mut token = given.into_core(now);
        token.paused = old.paused;
        if let dead @ TokenState::Dead { at, .. } = old.state
            && now.since(at) < REST
            && !self.changed_since(&token, at)
        {
            token.state = dead;
        }
        token
    }

    fn changed_since(&self, token: &device::Token, at: Timestamp) -> bool {
        self.0.iter().any(|(channel, name, changed)| {
            *channel == token.channel
                && token.credential.as_ref().is_none_or(|own| own == name)
                && *changed > at
        })
    }
}

/// The same token, as the device gave it before.
fn known<'a>(given: &NamedToken, old: &'a [device::Token]) -> Option<&'a device::Token> {
    old.iter().find(|old| {
        old.channel == given.channel
            && old.token == given.token
            && old.environment == given.environment
            && old.credential == given.credential
    })
}
