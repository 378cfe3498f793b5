//! The loop that joins the parts: what the connection brings goes to the apps, what they took is acknowledged.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hongyan_client::storage::File;
use hongyan_client::{
    AckMode, AppState, Client, Codec, Event, Inbox, NackCode, Options, Secret, Status,
};
use jiff::Timestamp;
use tokio::sync::mpsc;
use zbus::fdo::RequestNameFlags;

use crate::apps::{Apps, Settled};
use crate::bus::{Face, NAME, PATH};
use crate::connector::OnBus;
use crate::device::{Device, Tokens};
use crate::distributor::{Distributor, Route};
use crate::error::Error;
use crate::state::{self, Book};

/// How many messages may be under way to apps at one time; the server sends no more until some are acknowledged.
const INFLIGHT: u16 = 64;
/// How many settled messages wait to be acknowledged.
const SETTLED_MAX: usize = 64;
/// First wait after channels and registrations could not be brought together; it doubles.
const RECONCILE_WAIT: Duration = Duration::from_secs(5);
/// The longest that doubling makes of it.
const RECONCILE_WAIT_MAX: Duration = Duration::from_secs(300);

/// What the distributor needs to know.
pub struct Settings {
    /// Where the server is, and how it is reached.
    pub options: Options,
    /// The server's address as the person gave it: the device belongs to it.
    pub server: String,
    /// A client key of the app that the device shall belong to.
    pub client_key: Secret,
    /// The folder for what survives; made when it is not there.
    pub folder: PathBuf,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("server", &self.server)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// Runs until `stop` comes true.
///
/// # Errors
/// [`Error`], when it cannot start or cannot go on: the bus is gone, or the server does not let the device in.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> Result<(), Error> {
    state::make_folder(&settings.folder)?;
    let connection = zbus::Connection::session().await?;
    let book = Book::open(settings.folder.join("state.json"), &settings.server).await?;
    let book = Arc::new(book);
    let options = Options {
        codec: Codec::Cbor,
        ack: AckMode::Manual,
        inflight: INFLIGHT,
        state: AppState::Background,
        storage: Some(Arc::new(File::new(settings.folder.join("cursor.json")))),
        ..settings.options
    };
    let device = Device::new(options.clone(), settings.client_key, Arc::clone(&book));
    let device = Arc::new(device);
    let (settled, mut settled_out) = mpsc::channel(SETTLED_MAX);
    let apps = Apps::new(Arc::new(OnBus(connection.clone())), settled);
    let distributor = Distributor::new(book, Arc::clone(&device), Arc::clone(&apps));

    let served = Face(Arc::clone(&distributor));
    connection.object_server().at(PATH, served).await?;
    // The name is also the lock: nobody else connects as this device, and nobody takes it over.
    let alone = RequestNameFlags::DoNotQueue.into();
    let named = connection.request_name_with_flags(NAME, alone).await;
    named.map_err(|error| match error {
        zbus::Error::NameTaken => Error::NameTaken { name: NAME },
        error => error.into(),
    })?;
    let (client, inbox) = Client::start(options, Arc::new(Tokens(Arc::clone(&device))));
    tracing::info!(server = settings.server, "the distributor is on the bus");
    let serving = Serving {
        client,
        apps,
        distributor,
    };
    let keeping = keep_in_step(&serving.distributor, &device);
    let ended = tokio::select! {
        ended = serving.serve(inbox, &mut settled_out) => ended,
        () = keeping => Ok(()),
        () = connection.closed() => Err(Error::BusClosed),
        () = stop => Ok(()),
    };
    // What apps have by now need not come again.
    while let Ok(Settled { id, .. }) = settled_out.try_recv() {
        if serving.client.ack(&id).await.is_err() {
            break;
        }
    }
    serving.client.close().await;
    ended
}

struct Serving {
    client: Client,
    apps: Arc<Apps>,
    distributor: Arc<Distributor>,
}

/// What wakes the loop.
enum Wake {
    Came(Option<Event>),
    Settled(Settled),
}

impl Serving {
    /// Serves until the connection to the server has ended for good.
    async fn serve(
        &self,
        mut inbox: Inbox,
        settled: &mut mpsc::Receiver<Settled>,
    ) -> Result<(), Error> {
        loop {
            let wake = tokio::select! {
                event = inbox.recv() => Wake::Came(event),
                Some(settled) = settled.recv() => Wake::Settled(settled),
            };
            match wake {
                Wake::Came(None) => {
                    let why = match self.client.status() {
                        Status::Stopped(why) => why.to_string(),
                        other => format!("{other:?}"),
                    };
                    return Err(Error::Ended { why });
                }
                Wake::Came(Some(event)) => self.came(event).await?,
                Wake::Settled(Settled { id, token, fate }) => {
                    self.client.ack(&id).await?;
                    let kept = self
                        .distributor
                        .settled(&token, fate, Timestamp::now())
                        .await;
                    if let Err(error) = kept {
                        tracing::warn!(%error, "cannot note whether an app is there");
                    }
                }
            }
        }
    }

    async fn came(&self, event: Event) -> Result<(), Error> {
        match event {
            Event::Message(message) => match self.distributor.route(&message) {
                Route::Queued => {}
                Route::Nobody => {
                    tracing::debug!(
                        message = message.id,
                        "a message is for no app that is registered"
                    );
                    self.client.ack(&message.id).await?;
                }
                Route::Later => self.client.nack(&message.id, NackCode::Retry).await?,
            },
            Event::Recall { id } if self.apps.recall(&id) => self.client.ack(&id).await?,
            Event::Gap { lost } => {
                tracing::warn!(lost, "messages were dropped before they could be fetched");
            }
            _ => {}
        }
        Ok(())
    }
}

/// Brings channels and registrations together at the start, and whenever they may differ.
async fn keep_in_step(distributor: &Distributor, device: &Device) {
    loop {
        let mut wait = RECONCILE_WAIT;
        while let Err(error) = distributor.reconcile().await {
            tracing::warn!(%error, "cannot compare the registrations with the server's channels; trying later");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RECONCILE_WAIT_MAX);
        }
        tokio::select! {
            () = device.renewed.notified() => {}
            // What could not be closed a moment ago is not asked for at once.
            () = distributor.differs.notified() => tokio::time::sleep(RECONCILE_WAIT).await,
        }
    }
}
