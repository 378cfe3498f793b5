//! The client's side of one HTTP/2 connection (RFC 9113) without a socket: requests and bytes of the peer go in, bytes for the peer
//! and results come out. Whoever owns it moves the bytes.
//!
//! - All requests that wait are written one behind the other, so that they leave in few TLS records.
//! - The peer's limits are kept: concurrent streams, both windows, frame size, the size of its header table.
//! - After a GOAWAY nothing new begins; what the peer says that it did not process is told from what it may have processed.
//! - What the peer may make us hold is bounded: header blocks, header lists, answers, and what it does not read.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::hpack::{Decoder, Encoder, Field};
use super::{ANSWER_BYTES_MAX, Answer, Ask};

/// What a connection begins with (section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;
/// Longest frame that either side sends: the default, which we do not raise.
const FRAME_BYTES_MAX: usize = 16 * 1024;
/// Longest header block of an answer, bytes, and the number of frames that it may come in.
const BLOCK_BYTES_MAX: usize = 64 * 1024;
const BLOCK_FRAMES_MAX: u32 = 16;
/// Largest header list of an answer, as section 6.5.2 counts.
const LIST_BYTES_MAX: usize = 16 * 1024;
/// What a peer may send on a stream before it is told that we took it: whole answers need no word from us.
const STREAM_WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Both windows of a peer that said nothing yet.
const DEFAULT_WINDOW: u32 = 65_535;
const WINDOW_MAX: i64 = (1 << 31) - 1;
/// While more than this waits to leave, no request is begun and nothing more should be read.
pub(super) const OUT_BYTES_MAX: usize = 128 * 1024;
/// Ids up to here are used; a connection is not used for more.
pub(super) const ID_MAX: u32 = (1 << 31) - 1;

mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const PRIORITY: u8 = 2;
    pub(super) const RESET: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PROMISE: u8 = 5;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
}

mod flag {
    pub(super) const ACK: u8 = 1;
    pub(super) const END_STREAM: u8 = 1;
    pub(super) const END_HEADERS: u8 = 4;
    pub(super) const PADDED: u8 = 8;
    pub(super) const PRIORITY: u8 = 0x20;
}

/// Error codes of section 7.
pub(super) mod code {
    pub(in crate::http) const NONE: u32 = 0;
    pub(in crate::http) const PROTOCOL: u32 = 1;
    pub(in crate::http) const FLOW: u32 = 3;
    pub(in crate::http) const FRAME_SIZE: u32 = 6;
    pub(in crate::http) const REFUSED: u32 = 7;
    pub(in crate::http) const CANCEL: u32 = 8;
    pub(in crate::http) const COMPRESSION: u32 = 9;
    pub(in crate::http) const CALM: u32 = 11;
}

/// The peer broke the protocol; the connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub(super) struct Fault {
    pub(super) code: u32,
    pub(super) problem: &'static str,
}

const fn fault(code: u32, problem: &'static str) -> Fault {
    Fault { code, problem }
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It had no effect: it never left, or the peer said so.
    Unprocessed(String),
    /// It may have had its effect.
    Lost(String),
    /// The answer was longer than allowed.
    TooLarge,
}

#[derive(Debug)]
struct Waiting<R> {
    id: u32,
    ask: Ask,
    reply: R,
}

#[derive(Debug)]
struct Stream<R> {
    reply: R,
    /// What of the body has not left.
    body: Bytes,
    /// What may leave.
    window: i64,
    /// What came and was not given back to the peer's window.
    owed: u32,
    status: Option<u16>,
    headers: HeaderMap,
    answer: Vec<u8>,
}

/// A header block that goes on in the next frame.
#[derive(Debug)]
struct Block {
    id: u32,
    ends: bool,
    bytes: Vec<u8>,
    frames: u32,
}

/// Ids are ours and count upwards; the peer cannot choose them.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }
    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type Streams<R> = HashMap<u32, Stream<R>, BuildHasherDefault<IdHasher>>;

/// A connection. `R` is what the owner wants to see again beside a request's result.
#[derive(Debug)]
pub(super) struct Machine<R> {
    authority: Bytes,
    /// Bytes for the peer; the owner takes them from the front and clears it when all have left.
    pub(super) out: Vec<u8>,
    /// Results, for the owner to take.
    pub(super) finished: Vec<(R, Result<Answer, Failure>)>,
    encoder: Encoder,
    decoder: Decoder,
    waiting: VecDeque<Waiting<R>>,
    streams: Streams<R>,
    /// Streams with a body that the windows held back, in order.
    held: VecDeque<u32>,
    /// Bytes of a frame that is not complete.
    partial: Vec<u8>,
    block: Option<Block>,
    greeted: bool,
    /// Whether the peer's SETTINGS were taken over.
    settled: bool,
    last_id: u32,
    going_away: bool,
    window: i64,
    window_first: i64,
    streams_max: usize,
    /// What the peer may still send on the connection, and what of it we have not given back.
    credit: i64,
    owed: u32,
    pongs: u64,
}

impl<R> Machine<R> {
    /// A connection that has not said anything yet; its first words are in `out`.
    pub(super) fn new(authority: &str) -> Self {
        let mut out = PREFACE.to_vec();
        let settings: [(u16, u32); 4] = [
            (2, 0),
            (3, 0),
            (4, STREAM_WINDOW),
            (6, u32::try_from(LIST_BYTES_MAX).unwrap_or(u32::MAX)),
        ];
        head(&mut out, settings.len() * 6, kind::SETTINGS, 0, 0);
        for (name, value) in settings {
            out.extend_from_slice(&name.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
        window_update(&mut out, 0, CONNECTION_WINDOW - DEFAULT_WINDOW);
        Self {
            authority: Bytes::copy_from_slice(authority.as_bytes()),
            out,
            finished: Vec::new(),
            encoder: Encoder::default(),
            decoder: Decoder::default(),
            waiting: VecDeque::new(),
            streams: Streams::default(),
            held: VecDeque::new(),
            partial: Vec::new(),
            block: None,
            greeted: false,
            settled: false,
            last_id: 0,
            going_away: false,
            window: i64::from(DEFAULT_WINDOW),
            window_first: i64::from(DEFAULT_WINDOW),
            // APNs opens with one, as it does not know yet who we are.
            streams_max: 1,
            credit: i64::from(CONNECTION_WINDOW),
            owed: 0,
            pongs: 0,
        }
    }

    /// How many streams the peer allows at once; one until it has said so.
    pub(super) fn streams_max(&self) -> usize {
        self.streams_max
    }

    /// Whether the peer ends this connection: nothing new is begun.
    pub(super) fn is_going_away(&self) -> bool {
        self.going_away
    }

    /// Whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.streams.is_empty() && self.waiting.is_empty()
    }

    /// How many of our pings were answered.
    pub(super) fn pongs(&self) -> u64 {
        self.pongs
    }

    /// Asks for a sign of life.
    pub(super) fn ping(&mut self) {
        head(&mut self.out, 8, kind::PING, 0, 0);
        self.out.extend_from_slice(b"hongyan.");
    }

    /// Says good-bye.
    pub(super) fn go_away(&mut self, code: u32) {
        head(&mut self.out, 8, kind::GOAWAY, 0, 0);
        // The peer opened no streams.
        self.out.extend_from_slice(&0_u32.to_be_bytes());
        self.out.extend_from_slice(&code.to_be_bytes());
    }

    /// Takes a request, to begin it in [`Self::pump`]. Ids are odd and rise from one to the next.
    pub(super) fn submit(&mut self, id: u32, ask: Ask, reply: R) {
        if self.going_away {
            let failure = Failure::Unprocessed("the peer is going away".to_owned());
            return self.finished.push((reply, Err(failure)));
        }
        self.waiting.push_back(Waiting { id, ask, reply });
    }

    /// Gives a request up; its reply is dropped.
    pub(super) fn cancel(&mut self, id: u32) {
        if self.streams.remove(&id).is_some() {
            reset(&mut self.out, id, code::CANCEL);
        } else if let Some(at) = self.waiting.iter().position(|w| w.id == id) {
            self.waiting.remove(at);
        }
    }

    /// Begins what may be begun and sends what the windows allow.
    pub(super) fn pump(&mut self) {
        while self.window > 0
            && self.out.len() < OUT_BYTES_MAX
            && let Some(id) = self.held.pop_front()
        {
            self.send_body(id);
        }
        while self.streams.len() < self.streams_max
            && self.out.len() < OUT_BYTES_MAX
            && let Some(waiting) = self.waiting.pop_front()
        {
            self.begin(waiting);
        }
    }

    /// Ends every request: those that began may have had their effect.
    pub(super) fn fail(&mut self, problem: &str) {
        self.going_away = true;
        for (_, stream) in self.streams.drain() {
            let failure = Failure::Lost(problem.to_owned());
            self.finished.push((stream.reply, Err(failure)));
        }
        self.refuse_waiting(problem);
    }

    fn refuse_waiting(&mut self, problem: &str) {
        for waiting in self.waiting.drain(..) {
            let failure = Failure::Unprocessed(problem.to_owned());
            self.finished.push((waiting.reply, Err(failure)));
        }
    }

    fn begin(&mut self, waiting: Waiting<R>) {
        let Waiting { id, ask, reply } = waiting;
        let ends = if ask.body.is_empty() {
            flag::END_STREAM
        } else {
            0
        };
        let at = self.out.len();
        head(
            &mut self.out,
            0,
            kind::HEADERS,
            flag::END_HEADERS | ends,
            id,
        );
        self.encoder.begin(&mut self.out);
        match ask.method {
            Method::GET => Encoder::fixed(&mut self.out, 2),
            Method::POST => Encoder::fixed(&mut self.out, 3),
            other => self
                .encoder
                .field(&mut self.out, 0, ":method", other.as_str().as_bytes()),
        }
        // https
        Encoder::fixed(&mut self.out, 7);
        self.encoder
            .field(&mut self.out, 0, ":authority", &self.authority);
        self.encoder.field(&mut self.out, 1, ":path", &ask.path);
        for (place, (name, value)) in ask.headers.iter().enumerate() {
            self.encoder
                .field(&mut self.out, place + 2, name.as_str(), value.as_bytes());
        }
        self.frame_block(at, id);
        self.last_id = id;
        let stream = Stream {
            reply,
            body: ask.body,
            window: self.window_first,
            owed: 0,
            status: None,
            headers: HeaderMap::new(),
            answer: Vec::new(),
        };
        let sends = !stream.body.is_empty();
        self.streams.insert(id, stream);
        if sends {
            self.send_body(id);
        }
    }

    /// Writes the length into the head of the block that begins at `at`; a long one goes on in further frames.
    fn frame_block(&mut self, at: usize, id: u32) {
        let length = self.out.len() - at - HEAD_BYTES;
        if length <= FRAME_BYTES_MAX {
            let length = u32::try_from(length).unwrap_or(0).to_be_bytes();
            if let Some([a, b, c, ..]) = self.out.get_mut(at..) {
                (*a, *b, *c) = (length[1], length[2], length[3]);
            }
            return;
        }
        let block = self.out.split_off(at + HEAD_BYTES);
        let ends = self.out.get(at + 4).copied().unwrap_or(0) & flag::END_STREAM;
        self.out.truncate(at);
        let pieces = block.chunks(FRAME_BYTES_MAX);
        let last = pieces.len().saturating_sub(1);
        for (nth, piece) in pieces.enumerate() {
            let kind = if nth == 0 {
                kind::HEADERS
            } else {
                kind::CONTINUATION
            };
            let mut flags = if nth == 0 { ends } else { 0 };
            if nth == last {
                flags |= flag::END_HEADERS;
            }
            head(&mut self.out, piece.len(), kind, flags, id);
            self.out.extend_from_slice(piece);
        }
    }

    fn send_body(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        while !stream.body.is_empty() {
            let room = usize::try_from(self.window.min(stream.window)).unwrap_or(0);
            let length = stream.body.len().min(room).min(FRAME_BYTES_MAX);
            if length == 0 {
                // A stream without a window of its own is woken by that window alone.
                if stream.window > 0 {
                    self.held.push_back(id);
                }
                return;
            }
            let piece = stream.body.split_to(length);
            let ends = if stream.body.is_empty() {
                flag::END_STREAM
            } else {
                0
            };
            head(&mut self.out, length, kind::DATA, ends, id);
            self.out.extend_from_slice(&piece);
            let sent = i64::try_from(length).unwrap_or(i64::MAX);
            self.window -= sent;
            stream.window -= sent;
        }
    }

    /// Takes bytes of the peer.
    ///
    /// # Errors
    /// [`Fault`]: the owner says good-bye with its code and ends every request.
    pub(super) fn receive(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        if !self.partial.is_empty() {
            let mut partial = std::mem::take(&mut self.partial);
            let wanted = match length_of(&partial) {
                Some(length) => HEAD_BYTES + length,
                None => HEAD_BYTES,
            };
            let (now, later) = bytes.split_at(bytes.len().min(wanted - partial.len().min(wanted)));
            partial.extend_from_slice(now);
            bytes = later;
            if partial.len() == HEAD_BYTES
                && let Some(length) = length_of(&partial)
            {
                if length > FRAME_BYTES_MAX {
                    return Err(too_long());
                }
                let (now, later) = bytes.split_at(bytes.len().min(length));
                partial.extend_from_slice(now);
                bytes = later;
            }
            match split(&partial)? {
                Some((frame, _)) => self.frame(frame)?,
                None => {
                    self.partial = partial;
                    return Ok(());
                }
            }
            partial.clear();
            self.partial = partial;
        }
        while let Some((frame, rest)) = split(bytes)? {
            self.frame(frame)?;
            bytes = rest;
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    fn frame(&mut self, frame: Frame<'_>) -> Result<(), Fault> {
        if !self.greeted {
            if frame.kind != kind::SETTINGS || frame.flags & flag::ACK != 0 {
                return Err(fault(
                    code::PROTOCOL,
                    "the peer did not begin with SETTINGS",
                ));
            }
            self.greeted = true;
        }
        if let Some(block) = &self.block
            && (frame.kind != kind::CONTINUATION || frame.id != block.id)
        {
            return Err(fault(code::PROTOCOL, "a header block was interrupted"));
        }
        match frame.kind {
            kind::DATA => self.data(frame),
            kind::HEADERS => self.headers(frame),
            kind::RESET => self.reset(frame),
            kind::SETTINGS => self.settings(frame),
            kind::PROMISE => Err(fault(
                code::PROTOCOL,
                "a push was promised, which we do not allow",
            )),
            kind::PING => self.pinged(frame),
            kind::GOAWAY => self.goes_away(frame),
            kind::WINDOW => self.window_grows(frame),
            kind::CONTINUATION => self.continuation(frame),
            kind::PRIORITY if frame.id == 0 => Err(no_stream()),
            // Frames of a kind that we do not know are ignored (section 5.5).
            _ => Ok(()),
        }
    }

    /// Whether a stream was ever open: if it is no more, late frames are ignored.
    fn known(&self, id: u32) -> Result<(), Fault> {
        if id == 0 {
            return Err(no_stream());
        }
        if id.is_multiple_of(2) || id > self.last_id {
            return Err(fault(
                code::PROTOCOL,
                "a frame came on a stream that nobody opened",
            ));
        }
        Ok(())
    }

    fn data(&mut self, frame: Frame<'_>) -> Result<(), Fault> {
        self.known(frame.id)?;
        let length = u32::try_from(frame.payload.len()).unwrap_or(u32::MAX);
        self.credit -= i64::from(length);
        if self.credit < 0 {
            return Err(fault(
                code::FLOW,
                "the peer sent more than the connection's window",
            ));
        }
        self.owed += length;
        if self.owed >= CONNECTION_WINDOW / 2 {
            window_update(&mut self.out, 0, self.owed);
            self.credit += i64::from(self.owed);
            self.owed = 0;
        }
        let piece = unpadded(frame)?;
        let Some(stream) = self.streams.get_mut(&frame.id) else {
            return Ok(());
        };
        if stream.status.is_none() {
            return self.give_up(frame.id, code::PROTOCOL, "a body came before its head");
        }
        if stream.answer.len() + piece.len() > ANSWER_BYTES_MAX {
            reset(&mut self.out, frame.id, code::CANCEL);
            self.finish(frame.id, Err(Failure::TooLarge));
            return Ok(());
        }
        stream.answer.extend_from_slice(piece);
        if frame.flags & flag::END_STREAM != 0 {
            return self.complete(frame.id);
        }
        stream.owed += length;
        if stream.owed >= STREAM_WINDOW / 2 {
            window_update(&mut self.out, frame.id, stream.owed);
            stream.owed = 0;
        }
        Ok(())
    }

    fn headers(&mut self, frame: Frame<'_>) -> Result<(), Fault> {
        self.known(frame.id)?;
        let mut block = unpadded(frame)?;
        if frame.flags & flag::PRIORITY != 0 {
            block = block
                .get(5..)
                .ok_or(fault(code::FRAME_SIZE, "a HEADERS frame is too short"))?;
        }
        let ends = frame.flags & flag::END_STREAM != 0;
        if frame.flags & flag::END_HEADERS != 0 {
            return self.block(frame.id, ends, block);
        }
        self.block = Some(Block {
            id: frame.id,
            ends,
            bytes: block.to_vec(),
            frames: 1,
        });
        Ok(())
    }

    fn continuation(&mut self, frame: Frame<'_>) -> Result<(), Fault> {
        let Some(mut block) = self.block.take() else {
            return Err(fault(code::PROTOCOL, "a CONTINUATION continues nothing"));
        };
        block.bytes.extend_from_slice(frame.payload);
        block.frames += 1;
        if block.bytes.len() > BLOCK_BYTES_MAX || block.frames > BLOCK_FRAMES_MAX {
            return Err(fault(code::CALM, "a header block is too long"));
        }
        if frame.flags & flag::END_HEADERS != 0 {
            return self.block(block.id, block.ends, &block.bytes);
        }
        self.block = Some(block);
        Ok(())
    }

    /// Reads a whole header block. It is read for streams that are no more as well, as the table depends on it.
    fn block(&mut self, id: u32, ends: bool, block: &[u8]) -> Result<(), Fault> {
        let mut list = List::default();
        self.decoder
            .decode(block, |field, size| list.add(field, size))
            .map_err(|_| fault(code::COMPRESSION, "a header block cannot be read"))?;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        if list.malformed {
            return self.give_up(id, code::PROTOCOL, "the answer's head is malformed");
        }
        match (stream.status, list.status) {
            // Trailers say nothing that we need.
            (Some(_), None) if ends => return self.complete(id),
            // An interim answer (section 8.1).
            (None, Some(100..=199)) if !ends => return Ok(()),
            (None, Some(status @ 200..)) => {
                stream.status = Some(status);
                stream.headers = list.headers;
            }
            _ => return self.give_up(id, code::PROTOCOL, "the answer's head is malformed"),
        }
        if ends { self.complete(id) } else { Ok(()) }
    }

    fn complete(&mut self, id: u32) -> Result<(), Fault> {
        let Some(stream) = self.streams.get(&id) else {
            return Ok(());
        };
        let announced = stream
            .headers
            .get(http::header::CONTENT_LENGTH)
            .map(|length| length.to_str().ok().and_then(|l| l.parse::<usize>().ok()));
        let whole = announced.is_none_or(|length| length == Some(stream.answer.len()));
        // An answer that only points at what is known has no body (RFC 9110 section 8.6).
        if !whole && stream.status != Some(304) {
            return self.give_up(
                id,
                code::PROTOCOL,
                "the answer has another length than announced",
            );
        }
        let Some(stream) = self.streams.remove(&id) else {
            return Ok(());
        };
        if !stream.body.is_empty() {
            // The peer answered without waiting for the rest.
            reset(&mut self.out, id, code::CANCEL);
        }
        let answer = Answer {
            status: stream.status.unwrap_or_default(),
            headers: stream.headers,
            body: stream.answer.into(),
        };
        self.finished.push((stream.reply, Ok(answer)));
        Ok(())
    }

    /// Ends one stream on which the peer broke the protocol.
    fn give_up(&mut self, id: u32, code: u32, problem: &str) -> Result<(), Fault> {
        reset(&mut self.out, id, code);
        self.finish(id, Err(Failure::Lost(problem.to_owned())));
        Ok(())
    }

    fn finish(&mut self, id: u32, result: Result<Answer, Failure>) {
        if let Some(stream) = self.streams.remove(&id) {
            self.finished.push((stream.reply, result));
        }
    }

    fn reset(&mut self, frame: Frame<'_>) -> Result<(), Fault> {
        self.known(frame.id)?;
        let code = u32::from_be_bytes(exactly(frame.payload)?);
        let failure = if code == code::REFUSED {
            Failure::Unprocessed("the peer refused the stream".to_owned())
        } else {
            Failure::Lost(format!("the peer reset the stream with code {code}"))
        };
        self.finish(frame.id, Err(failure));
        Ok(())
    }

    fn settings(&mut self, frame: Frame<'_>) -> Result<(), Fault> {
        if frame.id != 0 {
            return Err(fault(code::PROTOCOL, "SETTINGS came on a stream"));
        }
        if frame.flags & flag::ACK != 0 {
            return if frame.payload.is_empty() {
                Ok(())
            } else {
                Err(wrong_length())
            };
        }
        let (settings, rest) = frame.payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(wrong_length());
        }
        let mut named = false;
        for [a, b, c, d, e, f] in settings {
            let value = u32::from_be_bytes([*c, *d, *e, *f]);
            match u16::from_be_bytes([*a, *b]) {
                1 => self.encoder.resize(value as usize),
                2 if value != 0 => {
                    return Err(fault(code::PROTOCOL, "a server allowed pushes"));
                }
                3 => {
                    self.streams_max = value as usize;
                    named = true;
                }
                4 => self.first_window(value)?,
                5 if !(16_384..1 << 24).contains(&value) => {
                    return Err(fault(code::PROTOCOL, "the peer's frame size is none"));
                }
                _ => {}
            }
        }
        // A peer that names no limit has none.
        if !std::mem::replace(&mut self.settled, true) && !named {
            self.streams_max = usize::MAX;
        }
        head(&mut self.out, 0, kind::SETTINGS, flag::ACK, 0);
        Ok(())
    }

    /// Changes the window of every stream by the difference, which may leave it negative (section 6.9.2).
    fn first_window(&mut self, value: u32) -> Result<(), Fault> {
        let value = i64::from(value);
        let change = value - self.window_first;
        let overflow = self
            .streams
            .values()
            .any(|s| s.window + change > WINDOW_MAX);
        if value > WINDOW_MAX || overflow {
            return Err(fault(code::FLOW, "the peer's window is too large"));
        }
        self.window_first = value;
        for (id, stream) in &mut self.streams {
            let was = stream.window;
            stream.window += change;
            if was <= 0 && stream.window > 0 && !stream.body.is_empty() {
                self.held.push_back(*id);
            }
        }
        Ok(())
    }

    fn pinged(&mut self, frame: Frame<'_>) -> Result<(), Fault> {
        if frame.id != 0 {
            return Err(fault(code::PROTOCOL, "a PING came on a stream"));
        }
        let payload: [u8; 8] = exactly(frame.payload)?;
        if frame.flags & flag::ACK != 0 {
            self.pongs += 1;
        } else {
            head(&mut self.out, 8, kind::PING, flag::ACK, 0);
            self.out.extend_from_slice(&payload);
        }
        Ok(())
    }

    fn goes_away(&mut self, frame: Frame<'_>) -> Result<(), Fault> {
        if frame.id != 0 {
            return Err(fault(code::PROTOCOL, "a GOAWAY came on a stream"));
        }
        let Some((last, _)) = frame.payload.split_first_chunk::<4>() else {
            return Err(wrong_length());
        };
        if frame.payload.len() < 8 {
            return Err(wrong_length());
        }
        let last = u32::from_be_bytes(*last) & 0x7fff_ffff;
        self.going_away = true;
        let unprocessed: Vec<u32> = self
            .streams
            .keys()
            .copied()
            .filter(|id| *id > last)
            .collect();
        for id in unprocessed {
            let failure = Failure::Unprocessed("the peer went away before it".to_owned());
            self.finish(id, Err(failure));
        }
        self.refuse_waiting("the peer is going away");
        Ok(())
    }

    fn window_grows(&mut self, frame: Frame<'_>) -> Result<(), Fault> {
        let more = i64::from(u32::from_be_bytes(exactly(frame.payload)?) & 0x7fff_ffff);
        if frame.id == 0 {
            self.window += more;
            return match more {
                0 => Err(fault(code::PROTOCOL, "a window grew by nothing")),
                _ if self.window > WINDOW_MAX => {
                    Err(fault(code::FLOW, "the connection's window is too large"))
                }
                _ => Ok(()),
            };
        }
        self.known(frame.id)?;
        let Some(stream) = self.streams.get_mut(&frame.id) else {
            return Ok(());
        };
        let was = stream.window;
        stream.window += more;
        if more == 0 {
            return self.give_up(frame.id, code::PROTOCOL, "a window grew by nothing");
        }
        if stream.window > WINDOW_MAX {
            return self.give_up(frame.id, code::FLOW, "a stream's window is too large");
        }
        if was <= 0 && stream.window > 0 && !stream.body.is_empty() {
            self.held.push_back(frame.id);
        }
        Ok(())
    }
}

/// The fields of one header block.
#[derive(Debug, Default)]
struct List {
    status: Option<u16>,
    headers: HeaderMap,
    size: usize,
    malformed: bool,
}

impl List {
    fn add(&mut self, field: &Field, size: usize) {
        self.size += size;
        if self.size > LIST_BYTES_MAX {
            self.malformed = true;
        }
        if self.malformed {
            return;
        }
        match field {
            Field::Status(text) => {
                let status = std::str::from_utf8(text).ok().filter(|t| t.len() == 3);
                let again = self.status.is_some() || !self.headers.is_empty();
                self.status = status.and_then(|t| t.parse().ok());
                self.malformed = again || self.status.is_none();
            }
            Field::Header(name, value) => {
                let (name, value): (HeaderName, HeaderValue) = (name.clone(), value.clone());
                self.malformed = self.headers.try_append(name, value).is_err();
            }
            Field::Malformed => self.malformed = true,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Frame<'a> {
    kind: u8,
    flags: u8,
    id: u32,
    payload: &'a [u8],
}

/// The length that a frame's head tells, once the head is there.
fn length_of(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [a, b, c, _, _, _, _, _, _, ..] => Some(u32::from_be_bytes([0, *a, *b, *c]) as usize),
        _ => None,
    }
}

/// The first frame and what is behind it; `None` while it is not complete.
fn split(bytes: &[u8]) -> Result<Option<(Frame<'_>, &[u8])>, Fault> {
    let Some(length) = length_of(bytes) else {
        return Ok(None);
    };
    if length > FRAME_BYTES_MAX {
        return Err(too_long());
    }
    let Some((whole, rest)) = bytes.split_at_checked(HEAD_BYTES + length) else {
        return Ok(None);
    };
    let [_, _, _, kind, flags, a, b, c, d, payload @ ..] = whole else {
        return Ok(None);
    };
    let frame = Frame {
        kind: *kind,
        flags: *flags,
        id: u32::from_be_bytes([*a, *b, *c, *d]) & 0x7fff_ffff,
        payload,
    };
    Ok(Some((frame, rest)))
}

/// The payload without its padding (section 6.1).
fn unpadded(frame: Frame<'_>) -> Result<&[u8], Fault> {
    if frame.flags & flag::PADDED == 0 {
        return Ok(frame.payload);
    }
    let wrong = fault(code::PROTOCOL, "a frame is padded with more than it has");
    let (padding, rest) = frame.payload.split_first().ok_or(wrong)?;
    let length = rest.len().checked_sub(usize::from(*padding)).ok_or(wrong)?;
    rest.get(..length).ok_or(wrong)
}

fn exactly<const N: usize>(payload: &[u8]) -> Result<[u8; N], Fault> {
    payload.try_into().map_err(|_| wrong_length())
}

const fn wrong_length() -> Fault {
    fault(code::FRAME_SIZE, "a frame has another length than its kind")
}

const fn too_long() -> Fault {
    fault(code::FRAME_SIZE, "a frame is longer than allowed")
}

const fn no_stream() -> Fault {
    fault(code::PROTOCOL, "a frame of a stream came without one")
}

fn head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, id: u32) {
    let length = u32::try_from(length).unwrap_or(0).to_be_bytes();
    let id = id.to_be_bytes();
    out.extend_from_slice(&[
        length[1], length[2], length[3], kind, flags, id[0], id[1], id[2], id[3],
    ]);
}

fn reset(out: &mut Vec<u8>, id: u32, code: u32) {
    head(out, 4, kind::RESET, 0, id);
    out.extend_from_slice(&code.to_be_bytes());
}

fn window_update(out: &mut Vec<u8>, id: u32, more: u32) {
    head(out, 4, kind::WINDOW, 0, id);
    out.extend_from_slice(&more.to_be_bytes());
}

#[cfg(test)]
mod tests;
