//! Who is built from what: the one place that knows every room.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hongyan_api::Api;
use hongyan_channels::Egress;
use hongyan_core::limits::LEDGER_TTL;
use hongyan_core::port::{Clock, Dice, Presence, Pushes, Registry};
use hongyan_core::{AppId, Timestamp};
use hongyan_dispatch::feedback::Feedback;
use hongyan_dispatch::{Dispatch, Ports};
use hongyan_embedded::Embedded;
use hongyan_gateway::{Gateway, Hub};

use crate::admin_key::AdminKeys;
use crate::bridge;
use crate::clock::{SystemClock, SystemDice};
use crate::config::{self, Config};
use crate::control;
use crate::data::{self, DataDir};
use crate::mqtt;
use crate::seal::MasterSeal;
use crate::shutdown::Shutdown;
use crate::tasks::{Stopper, Tasks, stop_pair};
use crate::xmpp;

/// How often expired records are swept.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// What only the sandbox changes about a node.
#[derive(Debug, Default)]
pub(crate) struct Sandboxed {
    /// The certificate authority of the simulated vendors, PEM.
    pub(crate) roots_pem: Option<String>,
    /// Whether loopback vendors may be called.
    pub(crate) allow_loopback: bool,
    /// Certificate chain and key for listeners that have none of their own, PEM.
    pub(crate) local_server: Option<(String, String)>,
}

/// A running node.
#[derive(Debug)]
pub(crate) struct Node {
    config: Config,
    engine: Embedded,
    dispatch: Dispatch,
    hub: Hub,
    api: Api,
    address: SocketAddr,
    xmpp: Option<SocketAddr>,
    mqtt: Option<SocketAddr>,
    api_ended: tokio::sync::oneshot::Receiver<()>,
    stop_api: Stopper,
    tasks: Tasks,
    stop_router: Stopper,
    stop_gateway: Stopper,
    stop_sweeper: Stopper,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dice: Arc<dyn Dice>,
}

impl Node {
    /// Opens the store, puts the rooms together and listens. Nothing answers before this returns.
    ///
    /// # Errors
    /// One line for a person: what, why, what to do.
    pub(crate) async fn start(config: Config, sandboxed: Sandboxed) -> anyhow::Result<Self> {
        let data = config.server.data.clone();
        let state = DataDir::prepare(&data).with_context(|| {
            format!(
                "the data directory {} cannot be used; choose another with --data",
                data.display()
            )
        })?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let dice: Arc<dyn Dice> = Arc::new(SystemDice::default());
        let sealer = Arc::new(MasterSeal::load(
            &config.seal,
            &data,
            state,
            Arc::clone(&dice),
        )?);
        let engine = open_store(&config).await?;
        if let Some(loss) = engine.loss() {
            tracing::warn!(%loss, "the store was opened although acknowledged data is lost");
        }
        let (registry, inbox) = (engine.registry(), engine.inbox());

        let (feedback, signals) = Feedback::new(Arc::clone(&registry), Arc::clone(&clock));
        let gateway = Gateway::new(
            hongyan_gateway::Options {
                reactors: config.gateway.reactors,
                sessions_max: config.gateway.sessions_max,
                half_open_max: config.gateway.half_open_max,
                half_open_per_ip_max: config.gateway.half_open_per_ip_max,
                hello_timeout_ms: config.gateway.hello_timeout_ms,
                heartbeat_ms: config.gateway.heartbeat_ms,
                heartbeat_grace_ms: config.gateway.heartbeat_grace_ms,
                slow_timeout_ms: config.gateway.slow_timeout_ms,
                messages_per_s: config.gateway.messages_per_s,
                messages_burst: config.gateway.messages_burst,
                inflight: config.gateway.inflight,
                tls_records: match config.gateway.tls_records {
                    config::TlsRecords::Own => hongyan_gateway::TlsRecords::Own,
                    config::TlsRecords::Rustls => hongyan_gateway::TlsRecords::Rustls,
                },
                ..hongyan_gateway::Options::default()
            },
            hongyan_gateway::Ports {
                registry: Arc::clone(&registry),
                inbox: Arc::clone(&inbox),
                clock: Arc::clone(&clock),
            },
        )?;
        let hub = gateway.hub();
        let egress = Egress::new(
            &hongyan_channels::egress::Options {
                allow_loopback: sandboxed.allow_loopback || config.egress.allow_loopback,
                roots_pem: roots(&config.egress, sandboxed.roots_pem)?,
                http2: match config.egress.http2 {
                    crate::config::Http2::Own => hongyan_channels::egress::Http2::Own,
                    crate::config::Http2::Library => hongyan_channels::egress::Http2::Library,
                },
                ..hongyan_channels::egress::Options::default()
            },
            Arc::clone(&clock),
        )?;
        let (listener, tls) = listen(&config).await?;
        let address = listener.local_addr()?;
        let xmpp_listeners = xmpp::listen(&config, sandboxed.local_server.as_ref()).await?;
        let open_space = mqtt::listen(&config, sandboxed.local_server.as_ref()).await?;
        let mqtt_listeners =
            mqtt::listen_for_devices(&config, sandboxed.local_server.as_ref()).await?;
        // Simulated vendors are on this machine, so they reach the listener itself.
        let local = (sandboxed.allow_loopback || config.egress.allow_loopback)
            .then(|| url_of(&config, address));
        let dispatch = Dispatch::new(
            hongyan_dispatch::Options {
                vendors: hongyan_channels::vendor::all(&egress),
                sealer: Arc::clone(&sealer) as _,
                feedback: feedback.clone(),
                public_url: config.http.public_url.clone().or(local),
            },
            Ports {
                registry: Arc::clone(&registry),
                inbox: Arc::clone(&inbox),
                work: engine.work(),
                ledger: engine.ledger(),
                commit: engine.commit(),
                presence: Arc::new(hub.clone()),
                quota: engine.quota(),
                clock: Arc::clone(&clock),
                dice: Arc::clone(&dice),
            },
        );
        let root = config.http.public_url.clone();
        let root = root.unwrap_or_else(|| url_of(&config, address));
        let pushes: Arc<dyn Pushes> = Arc::new(dispatch.endpoints(
            sealer,
            root.trim_end_matches('/').to_owned(),
            config.push.require_vapid,
        ));
        if let Some(app) = &config.autopush.app {
            gateway.handle().serve_autopush(hongyan_gateway::Autopush {
                app: Some(AppId::parse(app)?),
                pushes: Arc::clone(&pushes),
                broadcasts: Default::default(),
            });
        }
        let metrics = crate::metrics::page()?;
        let api = Api::new(
            hongyan_api::Options {
                connections_max: config.http.connections_max,
                connections_per_ip_max: match config.http.connections_per_ip_max {
                    0 => u32::MAX,
                    max => max,
                },
                header_timeout: Duration::from_millis(config.http.header_timeout_ms),
                body_timeout: Duration::from_millis(config.http.body_timeout_ms),
                idle_timeout: Duration::from_millis(config.http.idle_timeout_ms),
                key_rate: hongyan_api::Rate {
                    per_s: config.http.key_rate,
                    burst: config.http.key_rate.saturating_mul(2),
                },
                xmpp_domain: (!xmpp_listeners.is_empty()).then(|| config.xmpp.domain.clone()),
                autopush: config.autopush.app.is_some(),
                push: hongyan_api::PushOptions {
                    opaque: config.push.opaque,
                    matrix: config.push.matrix,
                    barred: {
                        let keys = config.push.barred_keys.iter();
                        keys.filter_map(|key| hongyan_api::vapid_key_hash(key))
                            .collect()
                    },
                    endpoint_rate: rate(config.push.endpoint_rate),
                    peer_rate: rate(config.push.peer_rate),
                    ..hongyan_api::PushOptions::default()
                },
                ..hongyan_api::Options::default()
            },
            hongyan_api::Ports {
                registry: Arc::clone(&registry),
                inbox,
                work: engine.work(),
                ledger: engine.ledger(),
                presence: Arc::new(hub.clone()),
                clock: Arc::clone(&clock),
                dice: Arc::clone(&dice),
                services: Arc::new(bridge::Services {
                    dispatch: dispatch.clone(),
                    registry: Arc::clone(&registry),
                    clock: Arc::clone(&clock),
                }),
                connect: Arc::new(bridge::Connect(
                    gateway.handle(),
                    config
                        .http
                        .public_url
                        .as_deref()
                        .and_then(|url| url.parse().ok()),
                )),
                pushes,
                metrics: Arc::new(move || metrics.render()),
                channels: dispatch.credentials().built_in_order().to_vec(),
            },
        );
        let admin_keys = AdminKeys {
            data: data.clone(),
            registry: Arc::clone(&registry),
            dice: Arc::clone(&dice),
            clock: Arc::clone(&clock),
            api: Some(api.clone()),
        };
        admin_keys.first().await?;

        let tasks = Tasks::default();
        let (stop_router, router_stop) = stop_pair();
        let (stop_gateway, mut gateway_stop) = stop_pair();
        let (stop_sweeper, sweeper_stop) = stop_pair();
        let (stop_api, mut api_stop) = stop_pair();
        let (ended, api_ended) = tokio::sync::oneshot::channel();
        let room = dispatch.clone();
        tasks.spawn_essential("feedback", sweeper_stop.clone(), async move {
            room.run_feedback(signals).await;
        });
        let (receipts, polls_stop) = (dispatch.receipts(), router_stop.clone());
        tasks.spawn("receipts", async move {
            receipts.run_polls(polls_stop.into_receiver()).await;
        });
        let (hygiene, sweep_stop) = (dispatch.hygiene(), router_stop.clone());
        tasks.spawn("token hygiene", async move {
            hygiene.run(sweep_stop.into_receiver()).await;
        });
        let (room, stop) = (dispatch.clone(), router_stop.clone());
        tasks.spawn_essential("router", router_stop, async move {
            room.run_router(stop.into_receiver()).await;
        });
        let xmpp = xmpp_listeners
            .first()
            .and_then(|(listener, _)| listener.local_addr().ok());
        let spoken = (&config, gateway.handle(), Arc::clone(&clock));
        xmpp::serve(spoken, xmpp_listeners, &tasks, &gateway_stop);
        mqtt::serve(open_space, &tasks, &gateway_stop);
        let mqtt = mqtt_listeners
            .first()
            .and_then(|(listener, _)| listener.local_addr().ok());
        let spoken = (gateway.handle(), dispatch.clone());
        mqtt::serve_devices(spoken, mqtt_listeners, &tasks, &gateway_stop);
        let sink = Arc::new(feedback);
        tasks.spawn_essential("gateway", gateway_stop.clone(), async move {
            let stopped = async move { gateway_stop.stopped().await };
            if let Err(error) = gateway.run(sink, stopped).await {
                tracing::error!(%error, "the gateway ended");
            }
        });
        match control::listen(&data) {
            Ok(listener) => {
                tasks.spawn(
                    "control",
                    control::serve(listener, engine.clone(), admin_keys, sweeper_stop.clone()),
                );
            }
            Err(error) => {
                tracing::warn!(%error, "no control socket: backup, doctor and key admin work only while the server is stopped")
            }
        }
        tasks.spawn(
            "sweeper",
            sweep(engine.clone(), Arc::clone(&clock), sweeper_stop),
        );
        let serving = api.clone();
        tasks.spawn_essential("api", api_stop.clone(), async move {
            serving
                .serve(listener, tls, async move { api_stop.stopped().await })
                .await;
            let _nobody_waits = ended.send(());
        });
        api.set_ready(true);
        Ok(Self {
            config,
            engine,
            dispatch,
            hub,
            api,
            address,
            xmpp,
            mqtt,
            api_ended,
            stop_api,
            tasks,
            stop_router,
            stop_gateway,
            stop_sweeper,
            registry,
            clock,
            dice,
        })
    }

    /// Where HTTP is spoken.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where MQTT is spoken with devices, if it is.
    pub(crate) fn mqtt(&self) -> Option<SocketAddr> {
        self.mqtt
    }

    /// Where XMPP is spoken, if it is.
    pub(crate) fn xmpp(&self) -> Option<SocketAddr> {
        self.xmpp
    }

    /// `http://…` or `https://…` of this node, as seen from this machine.
    pub(crate) fn url(&self) -> String {
        url_of(&self.config, self.address())
    }

    /// The tasks, to notice one that falls.
    pub(crate) const fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// The API's own operations, for the demo's set-up.
    pub(crate) const fn dispatch(&self) -> &Dispatch {
        &self.dispatch
    }

    /// Stops in order, each step with its deadline.
    pub(crate) async fn stop(self) {
        let millis = Duration::from_millis;
        let step = millis(self.config.shutdown.step_ms);
        let drain = millis(self.config.shutdown.drain_ms);
        let lanes = millis(self.config.shutdown.lanes_ms);
        let (api, hub, dispatch) = (&self.api, &self.hub, &self.dispatch);
        Shutdown::default()
            .step("not ready", step, async { api.set_ready(false) })
            .step("stop leasing", step, async { self.stop_router.stop() })
            .step("drain sessions", drain + step, async {
                if !hub.is_empty() {
                    hub.drain(drain).await;
                }
            })
            .step("stop the API", step, async {
                self.stop_api.stop();
                let _ended = self.api_ended.await;
            })
            .step("drain lanes", lanes, async {
                while dispatch.in_flight() > 0 {
                    tokio::time::sleep(millis(20)).await;
                }
            })
            .step("close sessions", step, async { self.stop_gateway.stop() })
            .step("stop sweeping", step, async { self.stop_sweeper.stop() })
            .step("close the store", lanes, async {
                self.engine.close().await
            })
            .run()
            .await;
    }
}

/// So many in a second, ten times as many at once.
fn rate(per_s: u32) -> hongyan_api::Rate {
    hongyan_api::Rate {
        per_s,
        burst: per_s.saturating_mul(10),
    }
}

fn url_of(config: &Config, address: SocketAddr) -> String {
    let scheme = if config.http.tls_cert.is_some() {
        "https"
    } else {
        "http"
    };
    format!("{scheme}://{address}")
}

async fn open_store(config: &Config) -> anyhow::Result<Embedded> {
    let mut options = data::store_options(config);
    options.on_fatal = Arc::new(|fatal| {
        // Going on would acknowledge what may not be there: the log line is all that may still be done.
        tracing::error!(error = %fatal, "the store failed; the process ends so that nothing false is promised");
        std::process::exit(1);
    });
    Ok(tokio::task::spawn_blocking(move || Embedded::open(&options)).await??)
}

/// The authorities to trust beside the public ones.
fn roots(egress: &config::Egress, sandbox: Option<String>) -> anyhow::Result<Option<String>> {
    let extra = egress
        .extra_ca
        .as_ref()
        .map(|path| {
            std::fs::read_to_string(path)
                .with_context(|| format!("egress.extra_ca: {} cannot be read", path.display()))
        })
        .transpose()?;
    let all: Vec<String> = extra.into_iter().chain(sandbox).collect();
    Ok((!all.is_empty()).then(|| all.join("\n")))
}

/// The listener and, when certificates are set, the TLS settings.
async fn listen(
    config: &Config,
) -> anyhow::Result<(tokio::net::TcpListener, Option<Arc<rustls::ServerConfig>>)> {
    let address = config.http.listen;
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| {
            format!("http.listen: {address} is not free; stop what uses it or set another address")
        })?;
    let tls = match (&config.http.tls_cert, &config.http.tls_key) {
        (Some(cert), Some(key)) => {
            let mut tls = tls(("http.tls_cert", cert), ("http.tls_key", key))?;
            tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            tls.enable_secret_extraction = config.gateway.tls_records == config::TlsRecords::Own;
            Some(Arc::new(tls))
        }
        _ => None,
    };
    Ok((listener, tls))
}

/// TLS with a chain and its key from files; each with the name of its setting.
pub(crate) fn tls(
    (cert_name, cert): (&str, &Path),
    (key_name, key): (&str, &Path),
) -> anyhow::Result<rustls::ServerConfig> {
    let read = |name: &str, path: &Path| {
        std::fs::read(path).with_context(|| format!("{name}: {} cannot be read", path.display()))
    };
    tls_of(&read(cert_name, cert)?, &read(key_name, key)?)
        .with_context(|| format!("{cert_name} and {key_name} cannot be used"))
}

/// TLS with a chain and its key, PEM.
pub(crate) fn tls_of(cert: &[u8], key: &[u8]) -> anyhow::Result<rustls::ServerConfig> {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = CertificateDer::pem_slice_iter(cert)
        .collect::<Result<Vec<_>, _>>()
        .context("there are no PEM certificates in the one")?;
    let key = PrivateKeyDer::from_pem_slice(key).context("there is no PEM key in the other")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("they do not belong together")
}

/// Drops what has expired, in bounded pieces.
async fn sweep(engine: Embedded, clock: Arc<dyn Clock>, mut stop: crate::tasks::Stop) {
    let ledger = engine.ledger();
    loop {
        tokio::select! {
            () = stop.stopped() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        let now = clock.now();
        let long_ago = Timestamp(
            now.millis()
                .saturating_sub(i64::try_from(LEDGER_TTL.as_millis()).unwrap_or(i64::MAX)),
        );
        for _ in 0..100 {
            let swept = match (engine.maintain(now).await, ledger.expire(long_ago).await) {
                (Ok(a), Ok(b)) => a + b,
                (Err(error), _) | (_, Err(error)) => {
                    tracing::warn!(%error, "expired records could not be swept");
                    break;
                }
            };
            if swept == 0 || stop.is_stopped() {
                break;
            }
        }
    }
}
