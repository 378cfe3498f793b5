//! The room as a whole: what it needs, what it offers, how it runs.

use std::sync::Arc;

use hongyan_core::port::{
    Clock, Commit, Dice, Inbox, Ledger, Presence, Quota, Registry, Vendor, Work,
};
use hongyan_core::{AppId, ChannelId, CredentialName};

use crate::binding::Bindings;
use crate::carried::Carried;
use crate::choice::Learned;
use crate::counted::Counted;
use crate::credentials::{Credentials, Sealer};
use crate::deaths::Deaths;
use crate::explain::Explainer;
use crate::feedback::{self, Feedback, Signals};
use crate::gate::Gate;
use crate::holds::Holds;
use crate::hygiene::Hygiene;
use crate::ids::Ids;
use crate::intake::Intake;
use crate::lane::Lanes;
use crate::memory::Memory;
use crate::push::Endpoints;
use crate::quota::Quotas;
use crate::recall::Recall;
use crate::receipts::Receipts;
use crate::router::{InFlight, Router};

/// Everything that dispatch does I/O through.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the fields are the ports of their names")]
pub struct Ports {
    pub registry: Arc<dyn Registry>,
    pub inbox: Arc<dyn Inbox>,
    pub work: Arc<dyn Work>,
    pub ledger: Arc<dyn Ledger>,
    pub commit: Arc<dyn Commit>,
    pub presence: Arc<dyn Presence>,
    pub quota: Arc<dyn Quota>,
    pub clock: Arc<dyn Clock>,
    pub dice: Arc<dyn Dice>,
}

/// What dispatch is built from beside the ports.
#[derive(Debug)]
pub struct Options {
    /// The built-in vendors, in the order in which channels are tried.
    pub vendors: Vec<Arc<dyn Vendor>>,
    /// Seals credentials.
    pub sealer: Arc<dyn Sealer>,
    /// The reporting handle given to the gateway before.
    pub feedback: Feedback,
    /// Where vendors reach this server, for their receipts: `https://host[:port]`.
    pub public_url: Option<String>,
}

/// From accepted messages to settled deliveries. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dispatch {
    ports: Ports,
    credentials: Credentials,
    feedback: Feedback,
    gate: Gate,
    lanes: Lanes,
    in_flight: InFlight,
    learned: Learned,
    quotas: Quotas,
    carried: Carried,
    deaths: Deaths,
    ids: Ids,
}

impl Dispatch {
    /// Puts the room together; nothing runs yet.
    #[must_use]
    pub fn new(options: Options, ports: Ports) -> Self {
        let ports = Ports {
            commit: Arc::new(Counted(ports.commit)),
            ..ports
        };
        let gate = Gate::default();
        let credentials = Credentials::new(
            options.vendors,
            Arc::clone(&ports.registry),
            options.sealer,
            Arc::clone(&ports.clock),
            options.public_url.as_deref(),
        );
        let learned = Learned::default();
        let quotas = Quotas::new(Arc::clone(&ports.quota), Arc::clone(&ports.clock));
        let carried = Carried::default();
        let lanes = Lanes::new(
            ports.clone(),
            credentials.clone(),
            options.feedback.clone(),
            gate.clone(),
            learned.clone(),
            quotas.clone(),
            carried.clone(),
        );
        Self {
            ports,
            credentials,
            feedback: options.feedback,
            gate,
            lanes,
            in_flight: InFlight::default(),
            learned,
            quotas,
            carried,
            deaths: Deaths::default(),
            ids: Ids::default(),
        }
    }

    /// Takes messages in.
    #[must_use]
    pub fn intake(&self) -> Intake {
        Intake::new(self.ports.clone(), self.ids.clone())
    }

    /// Web push endpoints: `root` is the address of this server as senders reach it, without a slash at its end.
    #[must_use]
    pub fn endpoints(
        &self,
        sealer: Arc<dyn Sealer>,
        root: String,
        require_vapid: bool,
    ) -> Endpoints {
        Endpoints::new(
            self.ports.clone(),
            self.ids.clone(),
            (self.recall(), self.bindings()),
            sealer,
            root,
            require_vapid,
        )
    }

    /// Explains messages.
    #[must_use]
    pub fn explainer(&self) -> Explainer {
        Explainer {
            ports: self.ports.clone(),
            credentials: self.credentials.clone(),
            learned: self.learned.clone(),
            quotas: self.quotas.clone(),
        }
    }

    /// Takes messages back.
    #[must_use]
    pub fn recall(&self) -> Recall {
        Recall {
            ports: self.ports.clone(),
            credentials: self.credentials.clone(),
            feedback: self.feedback.clone(),
            gate: self.gate.clone(),
            learned: self.learned.clone(),
            ids: self.ids.clone(),
        }
    }

    /// Changes who holds a device.
    #[must_use]
    pub fn bindings(&self) -> Bindings {
        Bindings {
            ports: self.ports.clone(),
            feedback: self.feedback.clone(),
            gate: self.gate.clone(),
        }
    }

    /// Takes up again what is held.
    #[must_use]
    pub fn holds(&self) -> Holds {
        Holds {
            ports: self.ports.clone(),
            feedback: self.feedback.clone(),
        }
    }

    /// Takes what vendors say after they took a push.
    #[must_use]
    pub fn receipts(&self) -> Receipts {
        Receipts {
            ports: self.ports.clone(),
            credentials: self.credentials.clone(),
            in_flight: self.in_flight.clone(),
            learned: self.learned.clone(),
            carried: self.carried.clone(),
            deaths: self.deaths.clone(),
            quotas: self.quotas.clone(),
        }
    }

    /// Asks vendors about tokens that nobody heard of for long.
    #[must_use]
    pub fn hygiene(&self) -> Hygiene {
        Hygiene {
            ports: self.ports.clone(),
            credentials: self.credentials.clone(),
            bindings: self.bindings(),
        }
    }

    /// The daily quotas of credentials.
    #[must_use]
    pub const fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Stores and checks credentials.
    #[must_use]
    pub const fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Takes what sessions and clients report.
    #[must_use]
    pub const fn feedback(&self) -> &Feedback {
        &self.feedback
    }

    /// Routes due work until told to stop. Beside it, what an earlier process knew of its vendors is read from the ledger's end.
    pub async fn run_router(&self, stop: tokio::sync::watch::Receiver<bool>) {
        let router = Router {
            learned: self.learned.clone(),
            ports: self.ports.clone(),
            credentials: self.credentials.clone(),
            lanes: self.lanes.clone(),
            in_flight: self.in_flight.clone(),
            began_at: self.ports.clock.now(),
            owed: Arc::default(),
        };
        let memory = Memory {
            ports: self.ports.clone(),
            credentials: self.credentials.clone(),
            learned: self.learned.clone(),
            carried: self.carried.clone(),
        };
        let ended = {
            let mut stop = stop.clone();
            async move {
                let _told_or_gone = stop.wait_for(|stop| *stop).await;
            }
        };
        let recollect = async {
            tokio::select! {
                () = memory.recollect() => {}
                () = ended => {}
            }
        };
        tokio::join!(router.run(stop), recollect);
    }

    /// Applies answers until every [`Feedback`] handle is gone or the task is ended.
    pub async fn run_feedback(&self, signals: Signals) {
        feedback::run(self.ports.clone(), signals, self.in_flight.clone()).await;
    }

    /// Deliveries that are with a lane or vendor now: zero when drained.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// How many pushes wait in the lane of a credential now.
    #[must_use]
    pub fn waiting(&self, app: &AppId, channel: &ChannelId, name: &CredentialName) -> usize {
        let key = (app.clone(), channel.clone(), name.clone());
        self.lanes.waiting(&key)
    }

    /// Lanes that exist now.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }
}
