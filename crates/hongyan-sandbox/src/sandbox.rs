//! Start, steer and stop a whole sandbox.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::accounts::Accounts;
use crate::authority::Authority;
use crate::channel::Channel;
use crate::clock::Clock;
use crate::dice::Dice;
use crate::error::SandboxError;
use crate::faults::{Fault, Faults};
use crate::limits;
use crate::options::Options;
use crate::phone::link::Server;
use crate::phone::live::LiveServer;
use crate::phone::{NewPhone, PatchPhone, PhoneView, Phones, TrayEntry};
use crate::receipts::{ReceiptAddress, Receipts};
use crate::requests::{Record, Requests};
use crate::tokens::{TokenState, Tokens};
use crate::vendor::{Simulators, apns, xiaomi};
use crate::world::{Keys, World};
use crate::{control, server};

/// How long `stop` waits for each of its parts.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A running sandbox. Dropping it leaves its tasks to the runtime; [`Sandbox::stop`] ends them.
#[derive(Debug)]
pub struct Sandbox {
    handle: Handle,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    keeper: JoinHandle<()>,
    receipts: JoinHandle<()>,
}

/// The operations of the control interface, for programs; cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    world: Arc<World>,
    ca_pem: String,
    local_server: (String, String),
    control: SocketAddr,
    vendors: SocketAddr,
}

impl Sandbox {
    /// Opens the data directory, binds the listeners and starts the simulators and phones.
    ///
    /// The first start in a directory makes two RSA keys, which takes about a second.
    ///
    /// # Errors
    /// A listener that cannot be bound, a data directory that cannot be used.
    pub async fn start(options: Options) -> Result<Self, SandboxError> {
        let directory = options.data.clone();
        std::fs::create_dir_all(&directory).map_err(|source| SandboxError::File {
            action: "write",
            path: directory.clone(),
            source,
        })?;
        let control_listener = listen(
            options.control_listener,
            options.control,
            "the sandbox's control page",
            "sandbox.control_listen",
        )
        .await?;
        let vendor_listener = listen(
            options.vendors_listener,
            options.vendors,
            "the simulated vendors",
            "sandbox.vendors_listen",
        )
        .await?;

        let smpp_listener = listen(
            None,
            options.smpp,
            "the simulated message centre",
            "sandbox.smpp_listen",
        )
        .await?;
        let vendors = local(&vendor_listener)?;
        let smpp = local(&smpp_listener)?;
        let clock = Arc::new(Clock::default());
        let dice = Arc::new(Dice::new(options.seed));
        let (authority, accounts, simulators) = {
            let (directory, dice) = (directory.clone(), Arc::clone(&dice));
            let open = move || {
                let authority = Authority::open(&directory)?;
                let mut accounts = Accounts::open(&directory, &authority, &dice)?;
                let simulators = Simulators::open(&mut accounts, vendors, smpp, &dice);
                accounts.keep(&directory)?;
                Ok((authority, accounts, simulators))
            };
            tokio::task::spawn_blocking(open)
                .await
                .map_err(|error| SandboxError::Key {
                    what: "the vendor accounts",
                    why: error.to_string(),
                })??
        };

        let tokens = Arc::new(Tokens::new(simulators.clone()));
        let receipts = Arc::new(Receipts::new(Arc::clone(&clock), simulators.clone()));

        let stop = watch::Sender::new(false);
        // Written once all phones of the first start are there: a kill before it starts over.
        let made = directory.join("phones.made");
        let first_start = !made.exists();
        if first_start {
            forget_phones(&directory)?;
        }
        let phones = Phones::open(
            &directory,
            (
                Arc::clone(&clock),
                Arc::clone(&dice),
                Arc::clone(&tokens),
                Arc::clone(&receipts),
            ),
            stop.subscribe(),
        )?;
        let keys = Keys::of(&accounts)?;
        let world = Arc::new(World {
            clock,
            dice,
            tokens,
            receipts,
            phones,
            accounts,
            simulators,
            keys,
            faults: Faults::default(),
            requests: Requests::new(options.requests_kept_max),
            device_limits: AtomicBool::new(options.device_limits),
            apns: Default::default(),
            fcm: Default::default(),
            huawei: Default::default(),
            xiaomi: Default::default(),
        });
        let handle = Handle(Arc::new(Shared {
            ca_pem: authority.pem().to_owned(),
            local_server: authority.local_server()?,
            control: local(&control_listener)?,
            vendors,
            world: Arc::clone(&world),
        }));

        world.phones.start();
        let keeper = tokio::spawn({
            let phones = world.phones.clone();
            async move { phones.keep().await }
        });
        let posting = tokio::spawn({
            let receipts = Arc::clone(&world.receipts);
            async move { receipts.run().await }
        });
        let tls = authority.server_config()?;
        let tasks = vec![
            tokio::spawn(server::run(
                vendor_listener,
                tls,
                Arc::clone(&world),
                stop.subscribe(),
            )),
            tokio::spawn(crate::vendor::smpp::run(
                smpp_listener,
                Arc::clone(&world),
                stop.subscribe(),
            )),
            tokio::spawn(control::run(
                control_listener,
                handle.clone(),
                stop.subscribe(),
            )),
        ];
        if first_start {
            for phone in options.phones {
                handle.add_phone(phone).await?;
            }
            for phone in handle.phones() {
                world.phones.keep_now(&phone.id);
            }
            crate::files::write_private(&made, b"")?;
        }
        if let Some((api, client_key)) = &options.server {
            handle.attach(api, client_key)?;
        }
        Ok(Self {
            handle,
            stop,
            tasks,
            keeper,
            receipts: posting,
        })
    }

    /// The operations on this sandbox.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Closes listeners and connections, saves the phones and waits for it.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let phones = self.handle.0.world.phones.clone();
        let _ = tokio::time::timeout(STOP_MAX, phones.join()).await;
        for task in self.tasks.into_iter().chain([self.keeper]) {
            let abort = task.abort_handle();
            if tokio::time::timeout(STOP_MAX, task).await.is_err() {
                abort.abort();
            }
        }
        self.receipts.abort();
    }
}

impl Handle {
    /// Address of the control interface.
    #[must_use]
    pub fn control_address(&self) -> SocketAddr {
        self.0.control
    }

    /// Address of the vendors.
    #[must_use]
    pub fn vendors_address(&self) -> SocketAddr {
        self.0.vendors
    }

    /// Base URL of the control interface.
    #[must_use]
    pub fn control_url(&self) -> String {
        format!("http://{}", self.0.control)
    }

    /// Base URL of the vendors, for a credential's endpoint override.
    #[must_use]
    pub fn vendors_url(&self) -> String {
        format!("https://{}", self.0.vendors)
    }

    /// The certificate that a sender has to trust to reach the vendors, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.0.ca_pem
    }

    /// A certificate of the same authority for servers on this machine (`localhost`, `demo.localhost`, the loopback
    /// addresses) and its key, PEM; made anew at each start.
    #[must_use]
    pub fn local_server(&self) -> (&str, &str) {
        (&self.0.local_server.0, &self.0.local_server.1)
    }

    /// The developer accounts that the vendors know.
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.0.world.accounts
    }

    /// Moves the sandbox's clock forward: quotas turn over, tokens expire, grace ends.
    pub fn advance(&self, by: Duration) {
        self.0.world.clock.advance(by);
        self.0.world.phones.wake_all();
    }

    /// Injects a fault.
    ///
    /// # Errors
    /// A rate outside 0 to 1, a delay over the limit, too many faults.
    pub fn inject(&self, channel: Channel, fault: Fault) -> Result<(), SandboxError> {
        for service in services(&channel) {
            self.0.world.faults.inject(*service, fault.clone())?;
        }
        Ok(())
    }

    /// The active faults of a channel, in the order in which they are rolled for.
    #[must_use]
    pub fn faults(&self, channel: Channel) -> Vec<Fault> {
        let services = services(&channel).iter();
        services
            .flat_map(|service| self.0.world.faults.list(*service))
            .collect()
    }

    /// Ends all faults of a channel.
    pub fn clear_faults(&self, channel: Channel) {
        for service in services(&channel) {
            self.0.world.faults.clear(*service);
        }
    }

    /// What a simulator received, newest last.
    #[must_use]
    pub fn requests(&self, channel: Channel) -> Vec<Record> {
        self.requests_after(channel, 0)
    }

    /// The same, without those up to number `after`.
    #[must_use]
    pub fn requests_after(&self, channel: Channel, after: u64) -> Vec<Record> {
        let services = services(&channel);
        let mut records: Vec<Record> = services
            .iter()
            .flat_map(|service| self.0.world.requests.list(*service, after))
            .collect();
        // One service's are in the order of their numbers already.
        if services.len() > 1 {
            records.sort_by(|a, b| a.at.cmp(&b.at));
        }
        records
    }

    /// Forgets what a simulator received.
    pub fn clear_requests(&self, channel: Channel) {
        for service in services(&channel) {
            self.0.world.requests.clear(*service);
        }
    }

    /// Gives out device tokens without phones, for load tests and for tests of token states.
    ///
    /// # Errors
    /// More than [`limits::TOKENS_PER_REQUEST_MAX`] at a time, or [`limits::TOKENS_MAX`] in all.
    pub fn issue_tokens(
        &self,
        channel: Channel,
        count: usize,
        state: TokenState,
    ) -> Result<Vec<String>, SandboxError> {
        if count > limits::TOKENS_PER_REQUEST_MAX {
            return Err(SandboxError::Full {
                what: "tokens per request",
                limit: limits::TOKENS_PER_REQUEST_MAX,
            });
        }
        let world = &self.0.world;
        (0..count)
            .map(|_| world.tokens.issue(channel, state, None, &world.dice))
            .collect()
    }

    /// Changes what a vendor thinks of a token that it gave out.
    ///
    /// # Errors
    /// An unknown token.
    pub fn set_token_state(
        &self,
        channel: Channel,
        token: &str,
        state: TokenState,
    ) -> Result<(), SandboxError> {
        if self.0.world.tokens.set_state(channel, token, state) {
            Ok(())
        } else {
            Err(SandboxError::Invalid(format!(
                "{channel} never gave out this token"
            )))
        }
    }

    /// Makes a vendor forget a token, so that it is malformed or unknown to it.
    pub fn forget_token(&self, channel: Channel, token: &str) {
        self.0.world.tokens.forget(channel, token);
    }

    /// Makes an APNs broadcast channel of the demo app, as Apple's console does; nothing when there are too many.
    #[must_use]
    pub fn make_apns_channel(&self, stores: bool) -> Option<String> {
        apns::make_channel(&self.0.world, stores)
    }

    /// Sets the messages a day that a Xiaomi channel takes; `None` restores Xiaomi's own rule.
    pub fn set_xiaomi_quota(&self, channel_id: &str, per_day: Option<u64>) {
        xiaomi::set_quota(&self.0.world, channel_id, per_day);
    }

    /// Chooses whether Xiaomi refuses messages without a channel, and private ones without a
    /// template. Both are off at the start.
    pub fn set_xiaomi_rules(&self, channel_required: bool, template_required: bool) {
        xiaomi::set_rules(&self.0.world, channel_required, template_required);
    }

    /// Sets what depends on the app's standing with a vendor: granted rights, quotas, licences. Which words there are is
    /// in the README.
    ///
    /// # Errors
    /// A channel without a simulator, words that the vendor does not have.
    pub fn set_rules(
        &self,
        channel: Channel,
        rules: &serde_json::Value,
    ) -> Result<(), SandboxError> {
        let vendor = self.0.world.simulators.of(channel);
        vendor
            .ok_or_else(|| format!("{channel} has no simulator of its own"))
            .and_then(|vendor| vendor.set_rules(rules))
            .map_err(SandboxError::Invalid)
    }

    /// Chooses whether the Chinese vendors accept and then silently drop what is too much marketing for one device a
    /// day, as they do.
    pub fn set_device_limits(&self, on: bool) {
        self.0.world.device_limits.store(on, Ordering::Relaxed);
    }

    /// Sets where a vendor posts receipts, as in its console; `None` for nowhere.
    pub fn set_receipts(&self, channel: Channel, address: Option<ReceiptAddress>) {
        self.0.world.receipts.set_console(channel, address);
    }

    /// The configuration of hongyan's credential for a simulated vendor, as a person would copy it from its console;
    /// nothing for a channel that has no simulator of its own.
    #[must_use]
    pub fn credential(&self, channel: Channel) -> Option<serde_json::Value> {
        let vendor = self.0.world.simulators.of(channel)?;
        Some(vendor.credential(&self.0.world.accounts))
    }

    /// Channel and name of that credential: several providers share the channel `sms`.
    #[must_use]
    pub fn credential_place(&self, channel: Channel) -> Option<(&'static str, &'static str)> {
        let vendor = self.0.world.simulators.of(channel)?;
        Some(vendor.place())
    }

    /// The channels that have a simulator.
    #[must_use]
    pub fn channels(&self) -> Vec<Channel> {
        self.0
            .world
            .simulators
            .iter()
            .map(|v| v.channel())
            .collect()
    }

    /// Makes the phones belong to the hongyan server at `api`: they register with the client key
    /// (`hy_pk_…`), tell their tokens, log in and connect.
    ///
    /// # Errors
    /// `api` is not an HTTP URL.
    pub fn attach(&self, api: &str, client_key: &str) -> Result<(), SandboxError> {
        self.attach_to(Arc::new(LiveServer::new(api, client_key)?));
        Ok(())
    }

    /// Makes the phones belong to any server, such as one that a test plays.
    pub fn attach_to(&self, server: Arc<dyn Server>) {
        self.0.world.phones.attach(server);
    }

    /// The phones.
    #[must_use]
    pub fn phones(&self) -> Vec<PhoneView> {
        self.0.world.phones.list()
    }

    /// One phone.
    ///
    /// # Errors
    /// An unknown phone.
    pub fn phone(&self, id: &str) -> Result<PhoneView, SandboxError> {
        self.0.world.phones.get(id)
    }

    /// Adds a phone; returns when it is registered and connected, at the latest after ten seconds.
    ///
    /// # Errors
    /// An unknown platform or channel, too many phones.
    pub async fn add_phone(&self, new: NewPhone) -> Result<PhoneView, SandboxError> {
        self.0.world.phones.add(new).await
    }

    /// Throws a phone away.
    ///
    /// # Errors
    /// An unknown phone.
    pub fn remove_phone(&self, id: &str) -> Result<(), SandboxError> {
        self.0.world.phones.remove(id)
    }

    /// Changes a phone; returns when the change is carried out, at the latest after ten seconds.
    ///
    /// # Errors
    /// An unknown phone, a value that does not exist.
    pub async fn patch_phone(
        &self,
        id: &str,
        patch: PatchPhone,
    ) -> Result<PhoneView, SandboxError> {
        self.0.world.phones.patch(id, patch).await
    }

    /// The vendor tokens of a phone.
    ///
    /// # Errors
    /// An unknown phone.
    pub fn phone_tokens(&self, id: &str) -> Result<BTreeMap<Channel, String>, SandboxError> {
        self.0.world.phones.tokens(id)
    }

    /// What the phone's person has seen, oldest first.
    ///
    /// # Errors
    /// An unknown phone.
    pub fn tray(&self, id: &str) -> Result<Vec<TrayEntry>, SandboxError> {
        self.0.world.phones.tray(id)
    }

    /// Empties a tray.
    ///
    /// # Errors
    /// An unknown phone.
    pub fn clear_tray(&self, id: &str) -> Result<(), SandboxError> {
        self.0.world.phones.clear_tray(id)
    }

    /// The person taps an entry.
    ///
    /// # Errors
    /// An unknown phone or entry.
    pub async fn click(&self, id: &str, n: u64) -> Result<TrayEntry, SandboxError> {
        self.0.world.phones.click(id, n).await
    }

    /// Follows changes of phones and trays; the number only grows.
    #[must_use]
    pub fn watch_phones(&self) -> watch::Receiver<u64> {
        self.0.world.phones.watch()
    }
}

/// The services behind a channel's name: text messages go through any of several.
const fn services(channel: &Channel) -> &[Channel] {
    match channel {
        Channel::Sms => &[
            Channel::AliyunSms,
            Channel::TencentSms,
            Channel::Twilio,
            Channel::Smpp,
        ],
        one => std::slice::from_ref(one),
    }
}

/// Removes what a first start left that did not come to its end.
fn forget_phones(directory: &std::path::Path) -> Result<(), SandboxError> {
    let path = directory.join("phones");
    match std::fs::remove_dir_all(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(SandboxError::File {
            action: "remove",
            path,
            source,
        }),
        _ => Ok(()),
    }
}

/// Waits until the sandbox is told to stop, or is gone.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn listen(
    bound: Option<std::net::TcpListener>,
    address: SocketAddr,
    what: &'static str,
    setting: &'static str,
) -> Result<TcpListener, SandboxError> {
    let failed = |source| SandboxError::Listen {
        what,
        address: address.to_string(),
        setting,
        source,
    };
    match bound {
        Some(listener) => {
            listener.set_nonblocking(true).map_err(failed)?;
            TcpListener::from_std(listener).map_err(failed)
        }
        None => TcpListener::bind(address).await.map_err(failed),
    }
}

fn local(listener: &TcpListener) -> Result<SocketAddr, SandboxError> {
    listener
        .local_addr()
        .map_err(|source| SandboxError::Listen {
            what: "the sandbox",
            address: "a bound socket".to_owned(),
            setting: "sandbox",
            source,
        })
}
