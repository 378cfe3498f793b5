//! The bound session: connects, binds, submits inside a window, answers the centre, comes back after a loss.
//!
//! One task owns the connection. It begins with the first order and ends with the channel. Between tries it waits 1, 2, 4
//! … 60 seconds, a minute after a refused bind. A centre that throttles is left alone for a second and gets half the window,
//! which recovers by one with each submission taken.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use hongyan_core::verdict::Unsure;
use hongyan_core::{Reason, Verdict};
use rusmpp_core::CommandStatus;
use rusmpp_core::command::owned::Command;
use rusmpp_core::decode::owned::DecodeWithLength as _;
use rusmpp_core::encode::owned::Encode as _;
use rusmpp_core::pdus::owned::{Pdu, SubmitSm};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Config;
use super::receipt::{Arrived, Group, News};
use crate::answer::{
    credential_bad, mend, rate_limited, refused, token_dead, too_large, unavailable,
};
use crate::egress::{Egress, Protocol};
use crate::texts::detail;

pub(super) const BIND_TRANSCEIVER: u32 = 0x0000_0009;
const RESPONSE: u32 = 0x8000_0000;
const GENERIC_NACK: u32 = RESPONSE;
const SUBMIT_SM: u32 = 0x0000_0004;
const DELIVER_SM: u32 = 0x0000_0005;
const UNBIND: u32 = 0x0000_0006;
const OUTBIND: u32 = 0x0000_000B;
const ENQUIRE_LINK: u32 = 0x0000_0015;
const ALERT_NOTIFICATION: u32 = 0x0000_0102;
const DATA_SM: u32 = 0x0000_0103;

/// What is worth one more try, and no more.
const SUBMIT_FAILED: u32 = 0x45;
const UNKNOWN_ERROR: u32 = 0xFF;

const HEADER_BYTES: usize = 16;
/// Largest PDU that is read.
const PDU_BYTES_MAX: usize = 64 * 1024;
const SEQUENCE_MAX: u32 = 0x7FFF_FFFF;

/// Waits between tries.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Sessions that worked may be opened anew at once, so many times in this time; then each loss is given its pause.
const QUICK_MAX: usize = 3;
const QUICK_WITHIN: Duration = Duration::from_secs(10);
/// How long the centre may take for a bind, and to read what is written.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// After this a submission without an answer makes room for another.
const SUBMIT_ANSWER_MAX: Duration = Duration::from_secs(60);
/// How long a throttled session rests.
const THROTTLE_PAUSE: Duration = Duration::from_secs(1);

/// Whether an order has left, for the words of a time-out.
#[derive(Debug, Clone, Default)]
pub(super) struct Ticket(Arc<AtomicBool>);

impl Ticket {
    pub(super) fn certainty(&self) -> Unsure {
        if self.0.load(Ordering::Acquire) {
            Unsure::MaybeTaken
        } else {
            Unsure::NotTaken
        }
    }
}

/// What the channel asks of the session.
#[derive(Debug)]
pub(super) enum Order {
    Submit {
        pdu: Box<SubmitSm>,
        group: Arc<Group>,
        ticket: Ticket,
        reply: oneshot::Sender<Result<(), Verdict>>,
    },
    /// Answered once the session is bound, or cannot be.
    Check {
        reply: oneshot::Sender<Result<(), Verdict>>,
    },
}

impl Order {
    fn refuse(self, verdict: Verdict) {
        let (Self::Submit { reply, .. } | Self::Check { reply }) = self;
        let _ = reply.send(Err(verdict));
    }
}

/// Why there is no session.
#[derive(Debug)]
enum Trouble {
    Unreachable(Verdict),
    Refused(Verdict),
}

/// How a bound session ended.
#[derive(Debug)]
enum End {
    /// The channel is gone.
    Closed,
    Lost(String),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Keeps the session until the channel is gone.
pub(super) async fn run(
    config: Arc<Config>,
    egress: Egress,
    news: Arc<News>,
    mut orders: mpsc::Receiver<Order>,
) {
    let mut pause = PAUSE_FIRST;
    let mut quick: Vec<Instant> = Vec::new();
    loop {
        let (verdict, wait) = match open(&config, &egress).await {
            Ok((stream, buffer)) => {
                let since = Instant::now();
                let mut bound = Bound::new(stream, buffer, &config, &news);
                match bound.live(&mut orders).await {
                    End::Closed => return,
                    End::Lost(why) => {
                        bound.abandon(&why);
                        let worked = since.elapsed() >= PAUSE_FIRST || bound.taken > 0;
                        quick.retain(|at| at.elapsed() < QUICK_WITHIN);
                        if worked && quick.len() < QUICK_MAX {
                            quick.push(Instant::now());
                            pause = PAUSE_FIRST;
                            continue;
                        }
                        let wait = pause;
                        pause = (pause * 2).min(PAUSE_MAX);
                        (unavailable(None, &why), wait)
                    }
                }
            }
            Err(Trouble::Refused(verdict)) => (verdict, PAUSE_MAX),
            Err(Trouble::Unreachable(verdict)) => {
                let wait = pause;
                pause = (pause * 2).min(PAUSE_MAX);
                (verdict, wait)
            }
        };
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => break,
                order = orders.recv() => match order {
                    Some(order) => order.refuse(verdict.clone()),
                    None => return,
                },
            }
        }
    }
}

/// Connects and binds.
async fn open(config: &Config, egress: &Egress) -> Result<(Box<dyn Stream>, BytesMut), Trouble> {
    let unreachable = |why: &str| Trouble::Unreachable(unavailable(None, why));
    let Some(origin) = &config.origin else {
        return Err(Trouble::Refused(credential_bad("host is missing")));
    };
    let call_error = |error: crate::CallError| match error.verdict() {
        verdict @ Verdict::CredentialBad { .. } => Trouble::Refused(verdict),
        verdict => Trouble::Unreachable(verdict),
    };
    let mut stream: Box<dyn Stream> = if config.tls {
        let tls = egress.tls(Protocol::Raw);
        Box::new(egress.connect(origin, tls).await.map_err(call_error)?)
    } else {
        Box::new(egress.connect_plain(origin).await.map_err(call_error)?)
    };
    let mut buffer = BytesMut::new();
    let binding = async {
        stream
            .write_all(&config.bind(1))
            .await
            .map_err(|e| e.to_string())?;
        loop {
            if let Some(frame) = take_frame(&mut buffer)? {
                return Ok(frame);
            }
            if stream
                .read_buf(&mut buffer)
                .await
                .map_err(|e| e.to_string())?
                == 0
            {
                return Err("it closed the connection".to_owned());
            }
        }
    };
    let frame = match tokio::time::timeout(ANSWER_MAX, binding).await {
        Ok(Ok(frame)) => frame,
        Ok(Err(why)) => return Err(unreachable(&format!("the centre did not bind: {why}"))),
        Err(_) => return Err(unreachable("the centre did not answer the bind in time")),
    };
    match frame.status {
        0 if frame.id == BIND_TRANSCEIVER | RESPONSE => Ok((stream, buffer)),
        0 => Err(unreachable(
            "the centre answered the bind with something else",
        )),
        // An earlier session of ours that the centre has not noticed the end of yet.
        0x04 | 0x05 => Err(Trouble::Unreachable(unavailable(
            None,
            &words(frame.status),
        ))),
        0x0D..=0x0F => Err(Trouble::Refused(credential_bad(&words(frame.status)))),
        status => match verdict(status) {
            bad @ Verdict::CredentialBad { .. } => Err(Trouble::Refused(bad)),
            other => Err(Trouble::Unreachable(unavailable(None, other.detail()))),
        },
    }
}

/// A PDU as it arrived.
#[derive(Debug)]
struct Frame {
    id: u32,
    status: u32,
    sequence: u32,
    /// All of it but the length.
    rest: BytesMut,
}

/// The next whole PDU, if it is there.
fn take_frame(buffer: &mut BytesMut) -> Result<Option<Frame>, String> {
    let Some(length) = buffer.get(..4) else {
        return Ok(None);
    };
    let length = length
        .iter()
        .fold(0usize, |n, b| (n << 8) | usize::from(*b));
    if !(HEADER_BYTES..=PDU_BYTES_MAX).contains(&length) {
        return Err(format!("a PDU of {length} bytes cannot be"));
    }
    if buffer.len() < length {
        buffer.reserve(length - buffer.len());
        return Ok(None);
    }
    let mut rest = buffer.split_to(length);
    rest.advance(4);
    let word = |at: usize| {
        let bytes = rest.get(at..at + 4).unwrap_or_default();
        bytes.iter().fold(0u32, |n, b| (n << 8) | u32::from(*b))
    };
    let (id, status, sequence) = (word(0), word(4), word(8));
    Ok(Some(Frame {
        id,
        status,
        sequence,
        rest,
    }))
}

/// Reads PDUs as a bound session does, as far as they can be read; answers how many there were.
pub(super) fn hear_all(bytes: &[u8], news: &News) -> usize {
    let mut buffer = BytesMut::from(bytes);
    let mut heard = 0;
    while let Ok(Some(frame)) = take_frame(&mut buffer) {
        heard += 1;
        if let Some(Pdu::DeliverSm(pdu)) = decode(frame.rest) {
            news.arrived(&pdu);
        }
    }
    heard
}

/// A PDU with its header.
pub(super) fn framed(id: u32, status: u32, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut pdu = Vec::with_capacity(HEADER_BYTES + body.len());
    for word in [length, id, status, sequence] {
        pdu.extend(word.to_be_bytes());
    }
    pdu.extend(body);
    pdu
}

struct Pending {
    group: Arc<Group>,
    reply: oneshot::Sender<Result<(), Verdict>>,
    since: Instant,
}

/// What wakes the session.
enum Event {
    Read(std::io::Result<usize>),
    Order(Option<Order>),
    Tick,
}

struct Bound<'a> {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
    config: &'a Config,
    news: &'a News,
    pending: HashMap<u32, Pending>,
    sequence: u32,
    window: usize,
    rests_until: Option<Instant>,
    /// When something was last heard, and when it was asked whether the centre is there.
    heard: Instant,
    enquired: Option<Instant>,
    /// Submissions that the centre took.
    taken: u64,
}

impl<'a> Bound<'a> {
    fn new(stream: Box<dyn Stream>, buffer: BytesMut, config: &'a Config, news: &'a News) -> Self {
        Self {
            stream,
            buffer,
            config,
            news,
            pending: HashMap::new(),
            sequence: 1,
            window: config.window,
            rests_until: None,
            heard: Instant::now(),
            enquired: None,
            taken: 0,
        }
    }

    async fn live(&mut self, orders: &mut mpsc::Receiver<Order>) -> End {
        loop {
            match self.step(orders).await {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(why) => return End::Lost(why),
            }
        }
    }

    async fn step(&mut self, orders: &mut mpsc::Receiver<Order>) -> Result<Option<End>, String> {
        while let Some(frame) = take_frame(&mut self.buffer)? {
            self.heard = Instant::now();
            self.enquired = None;
            if let Some(end) = self.hear(frame).await? {
                return Ok(Some(end));
            }
        }
        let now = Instant::now();
        if self.rests_until.is_some_and(|until| until <= now) {
            self.rests_until = None;
        }
        let may_send = self.rests_until.is_none() && self.pending.len() < self.window;
        let silent_until = match self.enquired {
            Some(at) => at + ANSWER_MAX,
            None => self.heard + self.config.enquire_every,
        };
        // What the centre never answers gives its place in the window back, however much else it says.
        let unanswered_until = self
            .pending
            .values()
            .map(|pending| pending.since + SUBMIT_ANSWER_MAX)
            .min();
        let tick = [self.rests_until, unanswered_until]
            .into_iter()
            .flatten()
            .fold(silent_until, Instant::min);
        let event = tokio::select! {
            read = self.stream.read_buf(&mut self.buffer) => Event::Read(read),
            order = orders.recv(), if may_send => Event::Order(order),
            () = tokio::time::sleep_until(tick) => Event::Tick,
        };
        match event {
            Event::Read(Ok(0)) => Err("the centre closed the connection".to_owned()),
            Event::Read(Ok(_)) => Ok(None),
            Event::Read(Err(error)) => Err(format!("the connection broke: {error}")),
            Event::Order(None) => {
                let sequence = self.next_sequence();
                // A courtesy: the connection closes in any case.
                let _ = self.write(&framed(UNBIND, 0, sequence, &[])).await;
                Ok(Some(End::Closed))
            }
            Event::Order(Some(Order::Check { reply })) => {
                let _ = reply.send(Ok(()));
                Ok(None)
            }
            Event::Order(Some(Order::Submit {
                pdu,
                group,
                ticket,
                reply,
            })) => {
                // Whoever asked may be gone: what was not sent yet needs no answer.
                if !reply.is_closed() {
                    self.submit(*pdu, group, &ticket, reply).await?;
                }
                Ok(None)
            }
            Event::Tick => self.tick().await.map(|()| None),
        }
    }

    async fn tick(&mut self) -> Result<(), String> {
        let now = Instant::now();
        self.pending
            .retain(|_, pending| now.duration_since(pending.since) < SUBMIT_ANSWER_MAX);
        match self.enquired {
            Some(at) if now.duration_since(at) >= ANSWER_MAX => {
                Err("the centre no longer answers enquire_link".to_owned())
            }
            None if now.duration_since(self.heard) >= self.config.enquire_every => {
                let sequence = self.next_sequence();
                self.enquired = Some(now);
                self.write(&framed(ENQUIRE_LINK, 0, sequence, &[])).await
            }
            _ => Ok(()),
        }
    }

    async fn submit(
        &mut self,
        pdu: SubmitSm,
        group: Arc<Group>,
        ticket: &Ticket,
        reply: oneshot::Sender<Result<(), Verdict>>,
    ) -> Result<(), String> {
        let sequence = self.next_sequence();
        let command = Command::new(CommandStatus::EsmeRok, sequence, pdu);
        let mut bytes = BytesMut::new();
        command.encode(&mut bytes);
        let mut whole = BytesMut::with_capacity(bytes.len() + 4);
        let length = u32::try_from(bytes.len() + 4).unwrap_or(u32::MAX);
        whole.extend_from_slice(&length.to_be_bytes());
        whole.extend_from_slice(&bytes);
        let since = Instant::now();
        self.pending.insert(
            sequence,
            Pending {
                group,
                reply,
                since,
            },
        );
        ticket.0.store(true, Ordering::Release);
        self.write(&whole).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        match tokio::time::timeout(ANSWER_MAX, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("the connection broke: {error}")),
            Err(_) => Err("the centre does not read".to_owned()),
        }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = if self.sequence >= SEQUENCE_MAX {
            1
        } else {
            self.sequence + 1
        };
        self.sequence
    }

    async fn hear(&mut self, frame: Frame) -> Result<Option<End>, String> {
        let Frame {
            id,
            status,
            sequence,
            rest,
        } = frame;
        match id {
            GENERIC_NACK => self.answered(sequence, status, None),
            _ if id == SUBMIT_SM | RESPONSE => {
                let id = match decode(rest) {
                    Some(Pdu::SubmitSmResp(resp)) => Some(resp.message_id().as_str().to_owned()),
                    _ => None,
                };
                self.answered(sequence, status, id);
            }
            _ if id & RESPONSE != 0 => {}
            DELIVER_SM => {
                // Taken first, looked at later; 0x64 asks the centre to come again when there is no room.
                let status = match decode(rest) {
                    Some(Pdu::DeliverSm(pdu)) => match self.news.arrived(&pdu) {
                        Arrived::Taken => 0,
                        Arrived::Full => 0x64,
                    },
                    _ => 0x08,
                };
                self.write(&framed(DELIVER_SM | RESPONSE, status, sequence, &[0]))
                    .await?;
            }
            DATA_SM => {
                self.write(&framed(DATA_SM | RESPONSE, 0, sequence, &[0]))
                    .await?
            }
            ENQUIRE_LINK => {
                self.write(&framed(ENQUIRE_LINK | RESPONSE, 0, sequence, &[]))
                    .await?
            }
            UNBIND => {
                let _ = self
                    .write(&framed(UNBIND | RESPONSE, 0, sequence, &[]))
                    .await;
                return Ok(Some(End::Lost("the centre unbound the session".to_owned())));
            }
            OUTBIND | ALERT_NOTIFICATION => {}
            _ => {
                self.write(&framed(GENERIC_NACK, 0x03, sequence, &[]))
                    .await?
            }
        }
        Ok(None)
    }

    fn answered(&mut self, sequence: u32, status: u32, id: Option<String>) {
        let Some(pending) = self.pending.remove(&sequence) else {
            return;
        };
        if status == 0 {
            self.taken += 1;
            self.window = (self.window + 1).min(self.config.window);
            self.news
                .accepted(id.as_deref().unwrap_or_default(), &pending.group);
            let _ = pending.reply.send(Ok(()));
            return;
        }
        if matches!(status, 0x58 | 0x14) {
            self.window = (self.window / 2).max(1);
            self.rests_until = Some(Instant::now() + THROTTLE_PAUSE);
        }
        let once_more = matches!(status, SUBMIT_FAILED | UNKNOWN_ERROR);
        let verdict = match verdict(status) {
            first if !once_more || self.news.may_try_again(&pending.group) => first,
            again => Verdict::Refused {
                reason: Reason::VendorUnavailable,
                detail: detail(&format!("{}, twice", again.detail())),
            },
        };
        let _ = pending.reply.send(Err(verdict));
    }

    /// The connection is gone: what was sent may have been taken.
    fn abandon(&mut self, why: &str) {
        for (_, pending) in self.pending.drain() {
            let _ = pending.reply.send(Err(Verdict::Retry {
                reason: Reason::VendorUnavailable,
                after: None,
                detail: detail(why),
                certainty: Unsure::MaybeTaken,
            }));
        }
    }
}

fn decode(mut rest: BytesMut) -> Option<Pdu> {
    let length = rest.len();
    let (command, _) = Command::decode(&mut rest, length).ok()?;
    command.pdu().cloned()
}

/// What a `command_status` other than 0 means.
pub(super) fn verdict(status: u32) -> Verdict {
    let words = words(status);
    match status {
        0x0B => token_dead(&words),
        0x01 => too_large(&words),
        0x0D..=0x0F => mend(&words, "check system_id, password and system_type"),
        // The session is in the wrong state: the next one will do.
        0x04 | 0x05 => unavailable(None, &words),
        0x0A | 0x06 | 0x07 | 0x15 | 0x32 | 0x43 | 0x48..=0x51 | 0x53..=0x55 | 0xC0..=0xC4 => mend(
            &words,
            "check the addresses and the types of the credential with the carrier",
        ),
        0x08 | SUBMIT_FAILED | UNKNOWN_ERROR | 0x64 => unavailable(None, &words),
        0x14 | 0x58 => rate_limited(Some(THROTTLE_PAUSE), &words),
        _ => refused(&words),
    }
}

fn words(status: u32) -> String {
    let name = match status {
        0x01 => "the message is too long",
        0x02 => "the PDU is too long",
        0x03 => "it does not know the command",
        0x04 => "the session is not bound for this",
        0x05 => "the account is bound already: close the other session",
        0x08 => "system error",
        0x0A => "it does not take the sender: check source",
        0x0B => "there is no such number",
        0x0D => "the bind failed: check system_id, password and the centre's address list",
        0x0E => "the password is wrong",
        0x0F => "the system_id is wrong",
        0x14 => "its queue is full",
        0x15 => "it does not know the service_type",
        0x45 => "the submission failed",
        0x48 | 0x49 => "it does not take source_ton or source_npi",
        0x50 | 0x51 => "it does not take type or plan of the number",
        0x53 => "it does not know the system_type",
        0x58 => "too fast",
        0x61 | 0x62 => "it does not take the validity period",
        0x66 => "the phone refused it",
        0xFE => "it could not be delivered",
        0x400..=0x4FF => "a code of this centre's own",
        _ => "see its manual",
    };
    format!("command_status {status:#04x}: {name}")
}
