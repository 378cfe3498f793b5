//! `hongyan demo`: server, sandbox, an app and phones of every platform, ready to push.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use hongyan_api::key::{self, TokenKind};
use hongyan_core::app::{App, AppPolicy, Key, KeyKind, LaneLimits, Scope};
use hongyan_core::{AppId, ChannelId, Class, CredentialName, KeyId, StoreError};
use hongyan_dispatch::credentials::NewCredential;
use hongyan_sandbox::{Channel as Service, Handle, ReceiptAddress, Sandbox};
use serde::{Deserialize, Serialize};

use crate::admin_key::ADMIN_KEY_FILE;
use crate::cmd::{output, serve};
use crate::config::Sources;
use crate::config::setting::Address;
use crate::data::write_private;
use crate::shutdown::Signals;
use crate::wiring::{Node, Sandboxed};

/// The demo's app.
const APP: &str = "demo";
/// Where the demo speaks XMPP when nothing else is set; its certificate is of the sandbox's authority.
const XMPP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7422);
/// Where it speaks MQTT with devices when nothing else is set.
const MQTT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7411);
/// File with everything that a program needs to use the demo.
const FACTS_FILE: &str = "demo.json";

/// Runs a complete demo on this machine: server, simulated vendors, virtual phones. Safe to stop, kill and start again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: Sources,
}

/// What `demo.json` holds (mode 0600: there are keys in it).
#[derive(Debug, Serialize, Deserialize)]
struct Facts {
    api: String,
    console: String,
    sandbox: String,
    vendors: String,
    /// MQTT is not served yet.
    mqtt: Option<String>,
    /// `host:port` of XMPP with STARTTLS.
    xmpp: Option<String>,
    app: String,
    admin_key: String,
    server_key: String,
    client_key: String,
}

/// Runs the demo until it is told to stop.
///
/// # Errors
/// One line for a person: what, why, what to do.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    serve::block_on(go(args))
}

async fn go(args: Args) -> anyhow::Result<()> {
    let loaded = args.sources.load()?;
    crate::log::init(&loaded.config.log);
    let mut config = loaded.config;
    config.xmpp.listen.get_or_insert(Address(XMPP));
    config.mqtt.listen.get_or_insert(Address(MQTT));
    // A stock Firefox may join the demo.
    config.autopush.app.get_or_insert_with(|| APP.to_owned());
    let data = config.server.data.clone();
    let mut signals = Signals::take()?;
    crate::data::DataDir::prepare(&data).with_context(|| {
        format!(
            "the data directory {} cannot be used; choose another with --data",
            data.display()
        )
    })?;
    let sandbox = start_sandbox(
        &data,
        config.sandbox.control_listen,
        config.sandbox.vendors_listen,
        config.sandbox.smpp_listen,
    )
    .await
    .context("the sandbox does not start")?;
    let handle = sandbox.handle();
    let (cert, key) = handle.local_server();
    let trusted = Sandboxed {
        roots_pem: Some(handle.ca_pem().to_owned()),
        allow_loopback: true,
        local_server: Some((cert.to_owned(), key.to_owned())),
    };
    let node = Node::start(config, trusted).await?;
    let facts = set_up(&node, &handle, &data).await?;
    handle.attach(&facts.api, &facts.client_key)?;
    write_private(&data.join(FACTS_FILE), &serde_json::to_vec_pretty(&facts)?)?;
    if let Err(error) = output::print(&greeting(&facts, &data)) {
        // The demo is for whoever opens its pages too; what it would have said is in the file.
        tracing::warn!(%error, file = FACTS_FILE, "the greeting could not be shown; addresses and keys are in the file");
    }
    let cause = serve::wait(&mut signals, &node).await;
    let stop = async move {
        sandbox.stop().await;
        node.stop().await;
    };
    serve::end(signals, stop, cause).await
}

/// The sandbox in its part of the data directory.
pub(crate) async fn start_sandbox(
    data: &Path,
    control: SocketAddr,
    vendors: SocketAddr,
    smpp: SocketAddr,
) -> anyhow::Result<Sandbox> {
    let options = hongyan_sandbox::Options {
        control,
        vendors,
        smpp,
        ..hongyan_sandbox::Options::new(data.join("sandbox"))
    };
    Ok(Sandbox::start(options).await?)
}

/// Makes the app, its keys and its credentials where they are missing, so that starting again changes nothing.
async fn set_up(node: &Node, sandbox: &Handle, data: &Path) -> anyhow::Result<Facts> {
    let app = AppId::parse(APP)?;
    let new = App {
        id: app.clone(),
        name: "Demo".to_owned(),
        // The texts of the sandbox cost nothing.
        policy: AppPolicy {
            sms_fallback: Class::ALL.to_vec(),
            ..AppPolicy::default()
        },
        created_at: node.clock.now(),
        version: 1,
    };
    match node.registry.put_app(new, None).await {
        Ok(()) | Err(StoreError::Conflict { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let earlier: Option<Facts> = std::fs::read(data.join(FACTS_FILE))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let all = vec![Scope::Send, Scope::Read, Scope::Manage];
    let earlier_keys = earlier.map(|e| (e.server_key, e.client_key)).unzip();
    let server_key = keep_or_make(
        node,
        &app,
        KeyKind::Server,
        "demo-server",
        all,
        earlier_keys.0,
    )
    .await?;
    let client_key = keep_or_make(
        node,
        &app,
        KeyKind::Client,
        "demo-client",
        vec![],
        earlier_keys.1,
    )
    .await?;
    for service in sandbox.channels() {
        let (Some(config), Some((channel, name))) = (
            sandbox.credential(service),
            sandbox.credential_place(service),
        ) else {
            continue;
        };
        let new = NewCredential {
            config,
            endpoint: Some(sandbox.vendors_url()),
            limits: LaneLimits::default(),
        };
        let channel = ChannelId::parse(channel)?;
        let name = CredentialName::parse(name)?;
        node.dispatch()
            .credentials()
            .put(&app, &channel, &name, new)
            .await
            .with_context(|| format!("the sandbox's credential for {channel} is not accepted"))?;
        // Where a vendor has the address from its console, it is entered there.
        if let Service::Huawei | Service::Harmony | Service::Honor = service
            && let Some(url) = node
                .dispatch()
                .credentials()
                .callback_url(&app, &channel, &name)
        {
            let address = ReceiptAddress {
                url,
                username: None,
                key: None,
            };
            sandbox.set_receipts(service, Some(address));
        }
    }
    let admin = std::fs::read_to_string(data.join(ADMIN_KEY_FILE)).with_context(|| {
        format!(
            "{ADMIN_KEY_FILE} is missing from {}; start with an empty directory",
            data.display()
        )
    })?;
    Ok(Facts {
        api: node.url(),
        console: format!("{}/docs", node.url()),
        sandbox: sandbox.control_url(),
        vendors: sandbox.vendors_url(),
        mqtt: node.mqtt().map(|at| format!("mqtt://{at}")),
        xmpp: node.xmpp().map(|at| format!("xmpp://{at}")),
        app: APP.to_owned(),
        admin_key: admin.trim().to_owned(),
        server_key,
        client_key,
    })
}

/// The key of the last start when the registry still knows it, else a new one in its place.
async fn keep_or_make(
    node: &Node,
    app: &AppId,
    kind: KeyKind,
    id: &str,
    scopes: Vec<Scope>,
    earlier: Option<String>,
) -> anyhow::Result<String> {
    if let Some(text) = earlier
        && node
            .registry
            .key_by_hash(&key::hash(&text))
            .await?
            .is_some_and(|k| k.kind == kind)
    {
        return Ok(text);
    }
    let id = KeyId::parse(id)?;
    node.registry.delete_key(Some(app), &id).await?;
    let minted = key::mint(TokenKind::Key(kind), node.dice.as_ref());
    let record = Key {
        id,
        kind,
        app: Some(app.clone()),
        scopes,
        name: "made by hongyan demo".to_owned(),
        hash: minted.hash,
        created_at: node.clock.now(),
    };
    node.registry.put_key(record).await?;
    Ok(minted.text)
}

fn greeting(facts: &Facts, data: &Path) -> String {
    let user = "alice";
    let ways = [("MQTT", &facts.mqtt), ("XMPP", &facts.xmpp)];
    let ways: String = ways
        .into_iter()
        .filter_map(|(name, at)| Some(format!("  {name}     {}\n", at.as_ref()?)))
        .collect();
    format!(
        "\nhongyan is ready.\n\n  phones   {}/phones\n  API      {}\n  API page {}\n{ways}  keys     {}\n\n\
         Watch the phones, then send the first message:\n\n  \
         curl {}/v1/messages \\\n    -H 'Authorization: Bearer {}' -H 'Content-Type: application/json' \\\n    \
         -d '{{\"to\":{{\"user\":\"{user}\"}},\"class\":\"im\",\"notification\":{{\"title\":\"Hello\",\"body\":\"from the wild goose\"}}}}'\n\n\
         Ctrl-C ends it; start again to go on.\n\n",
        facts.sandbox,
        facts.api,
        facts.console,
        data.join(FACTS_FILE).display(),
        facts.api,
        facts.server_key,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_names_what_can_be_opened_and_how_to_send() {
        let facts = serde_json::json!({
            "api": "http://127.0.0.1:1", "console": "", "sandbox": "", "vendors": "", "app": "demo",
            "admin_key": "", "server_key": "hy_sk_1", "client_key": "",
        });
        let facts: Facts = serde_json::from_value(facts).unwrap();
        let text = greeting(&facts, Path::new("there"));
        for part in [
            "there/demo.json",
            "http://127.0.0.1:1/v1/messages",
            "Bearer hy_sk_1",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(text.ends_with("go on.\n\n"));
    }
}
