//! A running gateway.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hongyan_core::Timestamp;
use hongyan_core::message::Audience;
use hongyan_core::port::{Hint, Owner, Presence};
use hongyan_core::{MessageId, Topic};
use hongyan_gateway::{Encoding, Gateway, GatewayHandle, Hub, Options, Ports, Socket};
use hongyan_testkit::fake::ManualClock;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::client::Client;
use crate::store::{Sink, Store, app, user};

pub(crate) struct Rig {
    pub(crate) runtime: Runtime,
    pub(crate) store: Arc<Store>,
    pub(crate) sink: Arc<Sink>,
    pub(crate) hub: Hub,
    pub(crate) handle: GatewayHandle,
    pub(crate) clock: Arc<ManualClock>,
    listener: TcpListener,
    stop: Option<oneshot::Sender<()>>,
    running: Option<tokio::task::JoinHandle<()>>,
}

pub(crate) const FAR: i64 = i64::MAX;

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let store = Arc::new(Store::default());
        let sink = Arc::new(Sink::default());
        let clock = Arc::new(ManualClock::at(Timestamp(1_000_000)));
        let ports = Ports {
            registry: Arc::clone(&store) as _,
            inbox: Arc::clone(&store) as _,
            clock: Arc::clone(&clock) as _,
        };
        let gateway = Gateway::new(
            Options {
                reactors: 2,
                ..options
            },
            ports,
        )
        .unwrap();
        let (hub, handle) = (gateway.hub(), gateway.handle());
        let (stop, stopped) = oneshot::channel();
        let run = gateway.run(Arc::clone(&sink) as _, async {
            let _ = stopped.await;
        });
        let running = runtime.spawn(async { run.await.unwrap() });
        store.add_device("d", Some("u"));
        Self {
            runtime,
            store,
            sink,
            hub,
            handle,
            clock,
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            stop: Some(stop),
            running: Some(running),
        }
    }

    /// Where programs connect to; see [`Self::accept`].
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection of a program.
    pub(crate) fn accept(&self) -> TcpStream {
        self.listener.accept().unwrap().0
    }

    /// Two ends of a connection.
    pub(crate) fn pair(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        (client, self.listener.accept().unwrap().0)
    }

    pub(crate) fn connect(&self) -> Client {
        self.connect_as(Encoding::Json, Bytes::new())
    }

    /// Connects behind the opening handshake.
    pub(crate) fn connect_as(&self, encoding: Encoding, read_ahead: Bytes) -> Client {
        let (client, server) = self.pair();
        let permit = self.handle.admit(server.peer_addr().unwrap().ip()).unwrap();
        self.handle
            .adopt(Socket::Plain(server), read_ahead, encoding, permit)
            .unwrap();
        Client::new(client, encoding)
    }

    /// Connects as a page of this origin does, which some app allows.
    pub(crate) fn connect_from(&self, origin: &str) -> Client {
        let (client, server) = self.pair();
        let permit = self.handle.admit(server.peer_addr().unwrap().ip()).unwrap();
        let permit = permit.from_page(Some(origin.to_owned()));
        let (socket, encoding) = (Socket::Plain(server), Encoding::Json);
        self.handle
            .adopt(socket, Bytes::new(), encoding, permit)
            .unwrap();
        Client::new(client, encoding)
    }

    /// Connects and says hello.
    pub(crate) fn live(&self, device: &str) -> Client {
        let mut client = self.connect();
        client.hello(device, serde_json::json!({}));
        client
    }

    /// Stores a message for a user, without a hint.
    pub(crate) fn store(&self, to: &str, body: &str) -> MessageId {
        self.store.append(Owner::User(user(to)), body, FAR)
    }

    /// Stores a message for a user and says so.
    pub(crate) fn publish(&self, to: &str, body: &str) -> MessageId {
        let id = self.store(to, body);
        self.hint(Owner::User(user(to)));
        id
    }

    pub(crate) fn hint(&self, owner: Owner) {
        self.hub.notify(vec![Hint::new(app(), owner)]);
    }

    /// The newest entry of a list, with a hint that carries it.
    pub(crate) fn news(&self, owner: Owner) -> Hint {
        let fresh = Some(self.store.newest(&owner));
        Hint {
            app: app(),
            owner,
            fresh,
        }
    }

    pub(crate) fn topic(name: &str) -> Owner {
        Owner::Audience(Audience::Topic(Topic::parse(name).unwrap()))
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.hub.poke();
    }

    /// Waits until the condition holds.
    pub(crate) fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(
                Instant::now() < deadline,
                "not in time: {what}; {:?}",
                self.sink.said()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn stop(&mut self) {
        if let (Some(stop), Some(running)) = (self.stop.take(), self.running.take()) {
            let _ = stop.send(());
            self.runtime.block_on(running).unwrap();
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}
