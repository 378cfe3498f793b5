//! The centre's side of a connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};

use super::wire::{self, Submit};
use super::{Outgoing, Smsc};
use crate::channel::Channel;
use crate::exchange::Call;
use crate::faults::{Endpoint, FaultKind};
use crate::limits;
use crate::sandbox::stopped;
use crate::world::World;

/// Sessions of one centre.
const SESSIONS_MAX: usize = 256;
/// Receipts that wait for one session.
const OUTGOING_MAX: usize = 1024;

/// Accepts sessions until told to stop.
pub(crate) async fn run(listener: TcpListener, world: Arc<World>, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(SESSIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => return,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::debug!(%error, "SMPP connection not accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let (world, mut stop) = (Arc::clone(&world), stop.clone());
        tokio::spawn(async move {
            let smsc = world.simulators.smsc().clone();
            tokio::select! {
                () = serve(socket, &smsc, &world) => {}
                () = stopped(&mut stop) => {}
            }
            drop(place);
        });
    }
}

async fn serve(mut socket: TcpStream, smsc: &Smsc, world: &World) {
    let _ = socket.set_nodelay(true);
    let (sender, mut outgoing) = mpsc::channel(OUTGOING_MAX);
    let mut session = Session {
        smsc,
        world,
        sender,
        number: None,
        submits: false,
    };
    let mut buffer = BytesMut::new();
    loop {
        match take(&mut buffer) {
            Ok(Some((id, status, sequence, body))) => {
                let act = session.hear(id, status, sequence, &body);
                let (bytes, end) = match act {
                    Act::Say(bytes) => (bytes, false),
                    Act::SayAndEnd(bytes) => (bytes, true),
                };
                if !bytes.is_empty() && socket.write_all(&bytes).await.is_err() {
                    break;
                }
                if end {
                    break;
                }
                continue;
            }
            Ok(None) => {}
            Err(()) => {
                let nack = wire::framed(wire::GENERIC_NACK, 0x02, 0, &[]);
                let _ = socket.write_all(&nack).await;
                break;
            }
        }
        tokio::select! {
            read = socket.read_buf(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            },
            Some(pdu) = outgoing.recv() => {
                let pdu: Vec<u8> = pdu;
                // Two halves: whoever reads must not count on whole PDUs.
                let (head, tail) = pdu.split_at(pdu.len() / 2);
                if socket.write_all(head).await.is_err()
                    || socket.flush().await.is_err()
                    || socket.write_all(tail).await.is_err()
                {
                    break;
                }
            }
        }
    }
    if let Some(number) = session.number {
        smsc.leave(number);
    }
}

type Frame = (u32, u32, u32, Bytes);

fn take(buffer: &mut BytesMut) -> Result<Option<Frame>, ()> {
    let word = |at: usize| -> Option<u32> {
        let bytes: [u8; 4] = buffer.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes))
    };
    let Some(length) = word(0) else {
        return Ok(None);
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if !(wire::HEADER_BYTES..=wire::PDU_BYTES_MAX).contains(&length) {
        return Err(());
    }
    if buffer.len() < length {
        return Ok(None);
    }
    let (Some(id), Some(status), Some(sequence)) = (word(4), word(8), word(12)) else {
        return Ok(None);
    };
    let pdu = buffer.split_to(length).freeze();
    Ok(Some((
        id,
        status,
        sequence,
        pdu.slice(wire::HEADER_BYTES..),
    )))
}

enum Act {
    Say(Vec<u8>),
    SayAndEnd(Vec<u8>),
}

struct Session<'a> {
    smsc: &'a Smsc,
    world: &'a World,
    sender: mpsc::Sender<Outgoing>,
    /// The number under which the centre knows it, once it is bound.
    number: Option<u64>,
    submits: bool,
}

impl Session<'_> {
    fn hear(&mut self, id: u32, status: u32, sequence: u32, body: &[u8]) -> Act {
        let answer = |status: u32, body: &[u8]| {
            Act::Say(wire::framed(id | wire::RESPONSE, status, sequence, body))
        };
        match id {
            wire::BIND_RECEIVER | wire::BIND_TRANSMITTER | wire::BIND_TRANSCEIVER => {
                self.bind(id, sequence, body)
            }
            wire::SUBMIT_SM => self.submit(sequence, body),
            wire::ENQUIRE_LINK => answer(0, &[]),
            wire::UNBIND => Act::SayAndEnd(wire::framed(id | wire::RESPONSE, 0, sequence, &[])),
            // Answers: of deliver_sm and enquire_link.
            _ if id & wire::RESPONSE != 0 => {
                tracing::debug!(id, status, "SMPP answer");
                Act::Say(Vec::new())
            }
            _ => Act::Say(wire::framed(wire::GENERIC_NACK, 0x03, sequence, &[])),
        }
    }

    fn record(&self, path: &str, body: serde_json::Value, verdict: &str, status: u32) {
        let mut headers = http::HeaderMap::new();
        headers.insert(
            "content-type",
            http::HeaderValue::from_static("application/json"),
        );
        let call = Call {
            method: Method::from_bytes(b"SMPP").unwrap_or(Method::POST),
            path: path.to_owned(),
            headers,
            body: Bytes::from(body.to_string()),
            ..Call::default()
        };
        let status = u16::try_from(status).unwrap_or(u16::MAX);
        let now_ms = self.world.clock.now_ms();
        self.world
            .requests
            .add(Channel::Smpp, now_ms, &call, verdict, status);
    }

    fn bind(&mut self, id: u32, sequence: u32, body: &[u8]) -> Act {
        let say =
            |status: u32, body: &[u8]| wire::framed(id | wire::RESPONSE, status, sequence, body);
        let struck =
            self.world
                .faults
                .strike(Channel::Smpp, Endpoint::Auth, &self.world.dice, |_| false);
        let read = wire::bind(body);
        let name = read
            .as_ref()
            .map(|(name, _)| name.clone())
            .unwrap_or_default();
        let status = match (&read, struck.map(|fault| fault.kind)) {
            (_, Some(FaultKind::Unavailable)) => 0x08,
            (_, Some(FaultKind::RateLimited)) => 0x58,
            (_, Some(_)) => 0x0D,
            (None, None) => 0x02,
            _ if self.number.is_some() => 0x05,
            (Some((name, password)), None) => self.smsc.judge(name, password),
        };
        let verdict = if status == 0 { "accepted" } else { "refused" };
        self.record(
            "/bind",
            json!({"system_id": name, "command_id": id}),
            verdict,
            status,
        );
        if status != 0 {
            return Act::SayAndEnd(say(status, &[]));
        }
        self.submits = id != wire::BIND_RECEIVER;
        let receives = id != wire::BIND_TRANSMITTER;
        self.number = Some(self.smsc.enter(receives, self.sender.clone()));
        // Name and version of the centre.
        Act::Say(say(0, b"SMSC\0\x02\x10\x00\x01\x34"))
    }

    fn submit(&self, sequence: u32, body: &[u8]) -> Act {
        let say = |status: u32, id: &str| {
            let mut body = id.as_bytes().to_vec();
            if status == 0 {
                body.push(0);
            }
            wire::framed(wire::SUBMIT_SM | wire::RESPONSE, status, sequence, &body)
        };
        if self.number.is_none() || !self.submits {
            self.record("/submit_sm", json!({}), "refused not bound", 0x04);
            return Act::Say(say(0x04, ""));
        }
        let read = match wire::submit(body) {
            Ok(read) => read,
            Err(status) => {
                self.record("/submit_sm", json!({}), "refused unreadable", status);
                return Act::Say(say(status, ""));
            }
        };
        let number = format!("+{}", read.destination);
        let world = self.world;
        let fault = world
            .faults
            .strike(Channel::Smpp, Endpoint::Send, &world.dice, |token| {
                number == token
            });
        let delay = fault
            .as_ref()
            .filter(|fault| fault.kind == FaultKind::Slow)
            .map(|fault| {
                fault
                    .delay_ms
                    .unwrap_or(limits::SLOW_MS_DEFAULT)
                    .min(limits::SLOW_MS_MAX)
            });
        let refusal = match fault.as_ref().map(|fault| fault.kind) {
            Some(FaultKind::Unavailable) => 0x08,
            Some(FaultKind::RateLimited) => 0x58,
            Some(FaultKind::QuotaExhausted) => 0x14,
            Some(FaultKind::TokenInvalid) => 0x0B,
            Some(FaultKind::AuthExpired) => 0x04,
            _ => 0,
        };
        let kind = fault.map(|fault| fault.kind);
        let shown = shown(&read);
        if kind == Some(FaultKind::Goaway) {
            self.record("/submit_sm", shown, "fault unbind", 0);
            return Act::SayAndEnd(wire::framed(wire::UNBIND, 0, 1, &[]));
        }
        let result = if refusal == 0 {
            self.smsc.take(world, &read)
        } else {
            Err(refusal)
        };
        let (status, id) = match &result {
            Ok(id) => (0, id.as_str()),
            Err(status) => (*status, ""),
        };
        let verdict = match (kind, status) {
            (Some(kind), _) => format!("fault {kind:?}").to_lowercase(),
            (None, 0) => "accepted".to_owned(),
            (None, status) => format!("refused {status:#04x}"),
        };
        self.record("/submit_sm", shown, &verdict, status);
        match kind {
            Some(FaultKind::Reset) => Act::SayAndEnd(Vec::new()),
            // A length that no PDU can have.
            Some(FaultKind::Malformed) => Act::SayAndEnd(vec![0, 0, 0, 3, 0, 0, 0, 0]),
            _ => match delay {
                None => Act::Say(say(status, id)),
                Some(delay) => {
                    // Late, and nobody else waits for it.
                    let (pdu, sender) = (say(status, id), self.sender.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(delay)).await;
                        let _ = sender.send(pdu).await;
                    });
                    Act::Say(Vec::new())
                }
            },
        }
    }
}

fn shown(read: &Submit) -> serde_json::Value {
    json!({
        "source_addr": read.source, "destination_addr": read.destination,
        "destination_addr_ton": read.destination_ton, "esm_class": read.esm_class,
        "validity_period": read.validity, "registered_delivery": read.registered,
        "data_coding": read.data_coding, "text": wire::text(read.data_coding, &read.text),
        "part": read.part.map(|(reference, total, number)| json!([reference, total, number])),
        "port": read.port,
    })
}
