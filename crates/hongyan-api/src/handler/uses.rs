//! What a credential is needed for, before it is deleted.

use hongyan_core::app::CredentialIndex;
use hongyan_core::port::Registry;
use hongyan_core::{AppId, ChannelId, CredentialName, StoreError};

use crate::api::Api;
use crate::options::{PAGE_LEN_MAX, USES_SEEN_MAX};
use crate::problem::Problem;

/// What would lose its way with a credential, in words. Devices are looked at until some need it, or as many as are looked at.
pub(super) async fn of(
    api: &Api,
    app: &AppId,
    channel: &ChannelId,
    name: &CredentialName,
) -> Result<Vec<String>, Problem> {
    let registry = api.registry();
    let (mut index, mut of_channel, mut is_known) = (CredentialIndex::default(), 0, false);
    for credential in registry.credentials(app).await? {
        if credential.channel == *channel {
            of_channel += 1;
            is_known |= credential.name == *name;
            index.add(credential.channel, credential.name);
        }
    }
    if !is_known {
        return Ok(Vec::new());
    }
    let mut uses = Vec::new();
    let waiting = api.services().waiting(app, channel, name);
    if waiting > 0 {
        uses.push(format!("{waiting} pushes wait for its vendor"));
    }
    let policy = registry.app(app).await?.map(|app| app.policy);
    let is_ordered = policy.is_some_and(|policy| policy.channel_order.contains(channel));
    if is_ordered && of_channel == 1 {
        uses.push(format!(
            "the app's channel_order names {channel}, and this is its only credential"
        ));
    }
    let one = One {
        app,
        channel,
        name,
        index,
    };
    match one.holders(registry, PAGE_LEN_MAX, USES_SEEN_MAX).await? {
        Holders::Some { found, seen } => uses.push(format!(
            "tokens of {found} of the first {seen} devices need it"
        )),
        Holders::None => {}
        Holders::Unknown { seen } => uses.push(format!(
            "it is not known whether devices need it: the first {seen} do not, and the app has more, which were not looked at"
        )),
    }
    Ok(uses)
}

/// A credential, and all that its channel has.
struct One<'a> {
    app: &'a AppId,
    channel: &'a ChannelId,
    name: &'a CredentialName,
    index: CredentialIndex,
}

/// Whose tokens a credential is taken for.
#[derive(Debug, PartialEq, Eq)]
enum Holders {
    /// Some, among the devices that were looked at.
    Some { found: usize, seen: usize },
    /// Nobody's.
    None,
    /// Nobody's among those that were looked at; there are more.
    Unknown { seen: usize },
}

impl One<'_> {
    /// Looks at up to `seen_max` devices, page by page, and at one more to know whether these were all.
    async fn holders(
        &self,
        registry: &dyn Registry,
        page_len: usize,
        seen_max: usize,
    ) -> Result<Holders, StoreError> {
        let (mut after, mut seen) = (None, 0);
        loop {
            let wanted = page_len.min(seen_max - seen).max(1);
            let page = registry
                .device_page(self.app, after.as_ref(), wanted)
                .await?;
            if seen >= seen_max && !page.is_empty() {
                return Ok(Holders::Unknown { seen });
            }
            seen += page.len();
            // As the router picks: a credential is needed by the tokens that it would be picked for.
            let needs_it = |token: &&hongyan_core::device::Token| {
                let picked = self.index.pick(self.channel, token.credential.as_ref());
                token.is_active() && picked == Some(self.name)
            };
            let held = page.iter().filter_map(|device| device.token(self.channel));
            let found = held.filter(needs_it).count();
            if found > 0 {
                return Ok(Holders::Some { found, seen });
            }
            if page.len() < wanted {
                return Ok(Holders::None);
            }
            after = page.last().map(|device| device.id.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use hongyan_embedded::Embedded;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn an_unfinished_look_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Embedded::open(&hongyan_embedded::Options::new(dir.path())).unwrap();
        let registry = engine.registry();
        let app = AppId::parse("demo").unwrap();
        let channel = ChannelId::parse("apns").unwrap();
        let name = CredentialName::parse("default").unwrap();
        let put = async |id: &str, tokens: serde_json::Value| {
            let device = json!({"app": "demo", "id": id, "platform": "ios", "secret_hash": vec![0; 32],
                "tokens": tokens, "created_at": 0, "last_seen": 0, "version": 1});
            let device = serde_json::from_value(device).unwrap();
            registry.put_device(device, None).await.unwrap();
        };
        for i in 0..4 {
            put(&format!("d{i}"), json!([])).await;
        }
        let mut index = CredentialIndex::default();
        index.add(channel.clone(), name.clone());
        let one = One {
            app: &app,
            channel: &channel,
            name: &name,
            index,
        };
        let look = async |seen_max| one.holders(&*registry, 2, seen_max).await.unwrap();
        assert_eq!(look(4).await, Holders::None, "exactly as many are all");
        assert_eq!(look(3).await, Holders::Unknown { seen: 3 });
        assert_eq!(look(5).await, Holders::None);
        let token = json!({"channel": "apns", "token": "t", "updated_at": 0});
        put("d4", json!([token])).await;
        assert_eq!(look(4).await, Holders::Unknown { seen: 4 });
        assert_eq!(look(5).await, Holders::Some { found: 1, seen: 5 });
        engine.close().await;
    }
}
