//! Telephone numbers among vendor tokens: one number is one token, whoever wrote it how.

use std::collections::HashMap;

use hongyan_core::draft::Fault;
use hongyan_core::telephone;
use hongyan_core::{AppId, CredentialName, StoreError};

use super::fault;
use crate::api::Api;
use crate::wire::device::NamedToken;

/// The country of numbers without one, by credential.
pub(super) struct Countries(HashMap<CredentialName, String>);

impl Countries {
    /// Reads what these tokens need: nothing, when none is a number.
    pub(super) async fn read<'a>(
        api: &Api,
        app: &AppId,
        tokens: impl IntoIterator<Item = &'a NamedToken>,
    ) -> Result<Self, StoreError> {
        let mut countries = HashMap::new();
        if tokens.into_iter().any(is_number) {
            for credential in api.registry().credentials(app).await? {
                let country = credential.shown.get(telephone::COUNTRY);
                if credential.channel.as_str() == telephone::CHANNEL
                    && let Some(country) = country.and_then(serde_json::Value::as_str)
                {
                    countries.insert(credential.name, country.to_owned());
                }
            }
        }
        Ok(Self(countries))
    }

    /// Writes a number as it is stored. Other tokens stay as they are.
    pub(super) fn normalise(&self, token: &mut NamedToken, path: &str) -> Option<Fault> {
        if !is_number(token) {
            return None;
        }
        let country = match &token.credential {
            Some(name) => self.0.get(name),
            // As it is chosen when it is sent to: `default`, else the only one.
            None => {
                let named = self.0.iter().find(|(name, _)| name.as_str() == "default");
                let only = self.0.iter().next().filter(|_| self.0.len() == 1);
                named.or(only).map(|(_, country)| country)
            }
        };
        match telephone::normalise(&token.token, country.map(String::as_str)) {
            Ok(number) => {
                token.token = number;
                None
            }
            Err(error) => Some(fault(path, error.to_string())),
        }
    }

    /// The same for the tokens of one device.
    pub(super) fn normalise_all(&self, tokens: &mut [NamedToken]) -> Vec<Fault> {
        let numbered = tokens.iter_mut().enumerate();
        numbered
            .filter_map(|(i, token)| self.normalise(token, &format!("tokens[{i}].token")))
            .collect()
    }
}

fn is_number(token: &NamedToken) -> bool {
    token.channel.as_str() == telephone::CHANNEL
}
