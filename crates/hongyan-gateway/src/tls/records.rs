//! TLS 1.3 records after the handshake (RFC 8446 sections 4.6.3, 5 and 6), for a server.
//!
//! Idle, a connection is two secrets and two numbers. Keys are made from them for one turn and
//! forgotten; bytes are kept only of a record that is incomplete, or that the socket did not take.
//! Of everything that may follow a handshake a client may only update its keys: the rest is
//! refused as the RFC says.

use std::io::{self, IoSlice, Read, Write};

use ring::error::Unspecified;

use super::schedule::{Direction, Keys, Suite, TAG_BYTES};

/// Bytes of a record's header.
const HEADER_BYTES: usize = 5;
/// Most plain bytes in a record (RFC 8446 section 5.1).
const PLAIN_BYTES_MAX: usize = 1 << 14;
/// Most bytes behind a header (section 5.2).
const SEALED_BYTES_MAX: usize = PLAIN_BYTES_MAX + 256;
/// Bytes of the longest record: [`Records::read`] needs a buffer of this size.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + SEALED_BYTES_MAX;
/// Plain bytes that are sealed at once: so much may have to wait for the socket, sealed.
const WRITE_BYTES_MAX: usize = 2 * PLAIN_BYTES_MAX;
/// Records with the same keys after which our own are renewed. AES-GCM is good for 2^24.5 full
/// records (section 5.5).
pub(super) const RENEW_AFTER: u32 = 1 << 23;
/// Records from the peer with the same keys after which it is asked to renew them; it may go on
/// until the 32 bits of their number are used up.
pub(super) const ASK_AFTER: u32 = 1 << 24;
/// Records in a row without data (empty ones, key updates) after which the peer only wants to
/// keep us busy.
const BARREN_MAX: u8 = 32;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// How a key update begins: its type and length. One byte follows.
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];
const UPDATE_NOT_REQUESTED: u8 = 0;
const UPDATE_REQUESTED: u8 = 1;

const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

/// The peer said close_notify.
const PEER_CLOSED: u8 = 1;
/// We said close_notify or a fatal alert: nothing more may be sent.
const CLOSED: u8 = 1 << 1;
/// The connection broke a rule.
const FAILED: u8 = 1 << 2;
/// A key update has to be sent before the next data.
const OWES_UPDATE: u8 = 1 << 3;
/// That update asks the peer for its own.
const ASKS_UPDATE: u8 = 1 << 4;
/// The last read did not empty the socket, or what it found is not all told yet.
const UNREAD: u8 = 1 << 5;

/// Why a connection was given up. The peer is told with the alert that belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A record is longer than TLS allows.
    #[error("a TLS record is longer than 2^14 bytes")]
    RecordOverflow,
    /// A record was changed on its way, or sealed with other keys.
    #[error("a TLS record cannot be opened with the keys of this connection")]
    BadRecordMac,
    /// Something that has no place after the handshake, or not there.
    #[error("{0}")]
    Unexpected(&'static str),
    /// A message of a wrong length.
    #[error("a TLS message has a wrong length")]
    Decode,
    /// A key update that says neither yes nor no.
    #[error("a TLS key update has a value that does not exist")]
    IllegalParameter,
    /// The peer sent this alert.
    #[error("the peer ended TLS with alert {0}")]
    PeerAlert(u8),
    /// Too many records with one key, or the crypto library refused.
    #[error("the keys of a TLS connection cannot be used any further")]
    Exhausted,
}

impl Fault {
    /// The alert to send (RFC 8446 section 6.2); an alert is not answered.
    #[must_use]
    pub const fn alert(self) -> Option<u8> {
        match self {
            Self::Unexpected(_) => Some(10),
            Self::BadRecordMac => Some(20),
            Self::RecordOverflow => Some(22),
            Self::IllegalParameter => Some(47),
            Self::Decode => Some(50),
            Self::Exhausted => Some(80),
            Self::PeerAlert(_) => None,
        }
    }
}

impl From<Unspecified> for Fault {
    fn from(_: Unspecified) -> Self {
        Self::Exhausted
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::new(io::ErrorKind::InvalidData, fault)
    }
}

/// Bytes that a connection has to keep for a while.
#[derive(Default)]
struct Held {
    /// The begin of a record.
    input: Vec<u8>,
    /// Sealed bytes that the socket did not take.
    output: Vec<u8>,
    /// How many of these it took meanwhile.
    written: usize,
}

/// The records of one connection.
pub struct Records {
    rx: Direction,
    tx: Direction,
    /// Exists while a record is incomplete in either direction.
    held: Option<Box<Held>>,
    suite: Suite,
    flags: u8,
    /// Records in a row without data.
    barren: u8,
    /// How much of [`KEY_UPDATE`] has come: it may be spread over records.
    begun: u8,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records")
            .field("suite", &self.suite)
            .field("held_bytes", &self.held_bytes())
            .finish_non_exhaustive()
    }
}

impl Records {
    /// Goes on after a handshake from its traffic secrets: `rx` is that of what comes, `tx` of what is sent.
    /// Nothing when a secret has not the suite's length.
    #[must_use]
    pub fn new(suite: Suite, rx: &[u8], tx: &[u8]) -> Option<Self> {
        let rx = Direction::new(suite, rx, 0)?;
        let tx = Direction::new(suite, tx, 0)?;
        Some(Self::resume(suite, rx, tx, Vec::new(), Vec::new()))
    }

    /// Goes on where the next records have these numbers. `input` was read and not opened yet, `output` was sealed and
    /// not sent yet.
    pub(super) fn resume(
        suite: Suite,
        rx: Direction,
        tx: Direction,
        input: Vec<u8>,
        output: Vec<u8>,
    ) -> Self {
        let mut records = Self {
            rx,
            tx,
            held: Some(Box::new(Held {
                input,
                output,
                written: 0,
            })),
            suite,
            flags: 0,
            barren: 0,
            begun: 0,
        };
        records.tidy();
        records
    }

    /// Bytes that are kept beside the connection's own.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held
            .as_ref()
            .map_or(0, |held| held.input.capacity() + held.output.capacity())
    }

    /// Whether [`Self::read`] took everything that the socket had when it was last called.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        !self.has(UNREAD)
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Reads plain bytes: those of all whole records that have come. `Ok(0)` is the end that the peer announced;
    /// what TLS has to answer on its own is sent on the way. The buffer is used for sealed bytes too.
    ///
    /// # Errors
    /// Those of the stream; `UnexpectedEof` for an end without announcement; `InvalidData` with a [`Fault`],
    /// after which the connection is of no use; `InvalidInput` for a buffer smaller than [`RECORD_BYTES_MAX`].
    pub fn read<S: Read + Write>(
        &mut self,
        stream: &mut S,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        if self.has(FAILED) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.has(PEER_CLOSED) {
            self.close(stream);
            return Ok(0);
        }
        let mut keys = None;
        loop {
            let filled = self.fill(stream, buffer)?;
            let mut opened = Opened::default();
            let outcome = self.open_all(&mut buffer[..filled], &mut keys, &mut opened);
            match outcome {
                Ok(()) => self.keep(&buffer[opened.taken..filled]),
                Err(fault) => {
                    self.fail(stream, fault);
                    if opened.plain == 0 {
                        return Err(fault.into());
                    }
                }
            }
            if self.has(OWES_UPDATE) {
                self.finish(stream)?;
            }
            if opened.plain > 0 {
                return Ok(opened.plain);
            }
            if self.has(PEER_CLOSED) {
                self.close(stream);
                return Ok(0);
            }
        }
    }

    /// Puts what was kept, and what has come, into the buffer; how many bytes that is.
    fn fill(&mut self, stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
        let kept = self.held.as_ref().map_or(0, |held| held.input.len());
        if buffer.len() < RECORD_BYTES_MAX.max(kept + 1) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let space = &mut buffer[kept..];
        let read = stream.read(space)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.set(UNREAD, read == space.len());
        if let Some(held) = &mut self.held {
            buffer[..kept].copy_from_slice(&held.input);
            held.input = Vec::new();
            self.tidy();
        }
        Ok(kept + read)
    }

    /// Keeps the begin of a record.
    fn keep(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.held.get_or_insert_default().input = rest.to_vec();
        }
    }

    /// Opens the whole records in `bytes` and moves their plain text to the front.
    fn open_all(
        &mut self,
        bytes: &mut [u8],
        keys: &mut Option<Keys>,
        opened: &mut Opened,
    ) -> Result<(), Fault> {
        while let Some(sealed) = sealed_len(&bytes[opened.taken..])? {
            let from = opened.taken + HEADER_BYTES;
            let to = from + sealed;
            if to > bytes.len() {
                break;
            }
            let (kind, len) = self.open(&mut bytes[opened.taken..to], keys)?;
            opened.taken = to;
            let content = from..from + len;
            if self.begun > 0 && kind != HANDSHAKE {
                return Err(Fault::Unexpected("a TLS message was interrupted"));
            }
            self.barren = if kind == DATA && len > 0 {
                0
            } else {
                self.barren + 1
            };
            if self.barren > BARREN_MAX {
                return Err(Fault::Unexpected("too many TLS records without data"));
            }
            match kind {
                DATA => {
                    bytes.copy_within(content, opened.plain);
                    opened.plain += len;
                }
                HANDSHAKE => {
                    if self.hear_handshake(&bytes[content])? {
                        *keys = None;
                    }
                }
                ALERT => self.hear_alert(&bytes[content])?,
                _ => return Err(Fault::Unexpected("a TLS record of an unknown type")),
            }
            if self.has(PEER_CLOSED) {
                // What follows is to be ignored (RFC 8446 section 6.1).
                opened.taken = bytes.len();
                break;
            }
        }
        Ok(())
    }

    /// Opens one record in place, header included: its type, and how long its content is behind the header.
    fn open(&mut self, record: &mut [u8], keys: &mut Option<Keys>) -> Result<(u8, usize), Fault> {
        let (header, sealed) = record
            .split_first_chunk_mut::<HEADER_BYTES>()
            .ok_or(Fault::Decode)?;
        let keys = match keys {
            Some(keys) => keys,
            None => keys.insert(self.rx.keys(self.suite)?),
        };
        let next = self.rx.seq.checked_add(1).ok_or(Fault::Exhausted)?;
        let inner = keys
            .open(self.rx.seq, *header, sealed)
            .map_err(|_| Fault::BadRecordMac)?;
        self.rx.seq = next;
        if next == ASK_AFTER {
            self.flags |= OWES_UPDATE | ASKS_UPDATE;
        }
        if inner > PLAIN_BYTES_MAX + 1 {
            return Err(Fault::RecordOverflow);
        }
        // The type stands behind the content; zeros may follow it.
        match sealed[..inner].iter().rposition(|byte| *byte != 0) {
            Some(len) => Ok((sealed[len], len)),
            None => Err(Fault::Unexpected("a TLS record has no type")),
        }
    }

    /// Takes a handshake message, which can only be a key update; true when our keys to read changed.
    fn hear_handshake(&mut self, content: &[u8]) -> Result<bool, Fault> {
        if content.is_empty() {
            return Err(Fault::Unexpected("an empty part of a TLS message"));
        }
        for (at, byte) in content.iter().enumerate() {
            match KEY_UPDATE.get(usize::from(self.begun)) {
                Some(want) if want == byte => self.begun += 1,
                Some(_) if self.begun == 0 => {
                    return Err(Fault::Unexpected(
                        "a TLS handshake message came after the handshake",
                    ));
                }
                Some(_) => return Err(Fault::Decode),
                None if at + 1 < content.len() => {
                    return Err(Fault::Unexpected("something follows a TLS key update"));
                }
                None => {
                    match *byte {
                        UPDATE_NOT_REQUESTED => {}
                        UPDATE_REQUESTED => self.flags |= OWES_UPDATE,
                        _ => return Err(Fault::IllegalParameter),
                    }
                    self.begun = 0;
                    self.rx.advance(self.suite)?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn hear_alert(&mut self, content: &[u8]) -> Result<(), Fault> {
        match content {
            [_, CLOSE_NOTIFY] => {
                self.flags |= PEER_CLOSED | UNREAD;
                Ok(())
            }
            // Followed by close_notify.
            [_, USER_CANCELED] => Ok(()),
            // All others are fatal, whatever level they name (RFC 8446 section 6).
            [_, alert] => Err(Fault::PeerAlert(*alert)),
            _ => Err(Fault::Decode),
        }
    }

    /// Seals and sends the begin of these bytes; how many of them were taken. Sealed bytes that the socket does not
    /// take are kept and leave before all others.
    ///
    /// # Errors
    /// Those of the stream; `WouldBlock` while earlier bytes still wait; `BrokenPipe` after the end was said.
    pub fn write_vectored(
        &mut self,
        stream: &mut impl Write,
        slices: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        if self.has(CLOSED) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if !self.drain(stream)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let total = slices.iter().map(|slice| slice.len()).sum::<usize>();
        let total = total.min(WRITE_BYTES_MAX);
        let records = total.div_ceil(PLAIN_BYTES_MAX) + 1;
        let mut out = Vec::with_capacity(total + records * (HEADER_BYTES + 1 + TAG_BYTES));
        self.update_when_due(&mut out)?;
        let keys = self.tx.keys(self.suite).map_err(Fault::from)?;
        let mut slices = Slices::new(slices);
        let mut left = total;
        while left > 0 {
            let len = left.min(PLAIN_BYTES_MAX);
            self.seal(&keys, DATA, &mut out, |out| slices.take(len, out))?;
            left -= len;
        }
        self.send(stream, out)?;
        Ok(total)
    }

    /// Sends what waits: true when nothing is left.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn finish(&mut self, stream: &mut impl Write) -> io::Result<bool> {
        if !self.drain(stream)? {
            return Ok(false);
        }
        if self.has(OWES_UPDATE) && !self.has(CLOSED) {
            let mut out = Vec::new();
            self.update_when_due(&mut out)?;
            return self.send(stream, out);
        }
        Ok(true)
    }

    /// Says that nothing more is sent, once, as far as the socket takes it.
    pub fn close(&mut self, stream: &mut impl Write) {
        self.say_alert(stream, 1, CLOSE_NOTIFY);
    }

    /// Seals one record of any type, as a peer may. After a whole key update it goes on to the next keys. For those who
    /// feed a reader.
    ///
    /// # Errors
    /// [`Fault::Exhausted`] when the keys are used up.
    pub fn seal_any(&mut self, kind: u8, content: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        self.seal_one(kind, &mut out, content)?;
        if kind == HANDSHAKE && matches!(content, [24, 0, 0, 1, 0 | 1]) {
            self.tx.advance(self.suite)?;
        }
        Ok(out)
    }

    fn fail(&mut self, stream: &mut impl Write, fault: Fault) {
        if let Some(alert) = fault.alert() {
            self.say_alert(stream, 2, alert);
        }
        self.flags |= FAILED | CLOSED | UNREAD;
    }

    fn say_alert(&mut self, stream: &mut impl Write, level: u8, alert: u8) {
        if self.has(CLOSED) {
            return;
        }
        let mut out = Vec::new();
        let sealed = self.seal_one(ALERT, &mut out, &[level, alert]);
        self.flags |= CLOSED;
        // The connection ends now: what cannot leave at once is not waited for.
        if sealed.is_ok() && self.drain(stream).unwrap_or(false) {
            let _ = self.send(stream, out);
        }
    }

    /// Seals a key update when one is owed or our keys are worn, and goes on to the next.
    fn update_when_due(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        if !self.has(OWES_UPDATE) && self.tx.seq < RENEW_AFTER {
            return Ok(());
        }
        let ask = if self.has(ASKS_UPDATE) {
            UPDATE_REQUESTED
        } else {
            UPDATE_NOT_REQUESTED
        };
        let [kind, a, b, c] = KEY_UPDATE;
        self.seal_one(HANDSHAKE, out, &[kind, a, b, c, ask])?;
        self.tx.advance(self.suite)?;
        self.flags &= !(OWES_UPDATE | ASKS_UPDATE);
        Ok(())
    }

    fn seal_one(&mut self, kind: u8, out: &mut Vec<u8>, content: &[u8]) -> Result<(), Fault> {
        let keys = self.tx.keys(self.suite)?;
        self.seal(&keys, kind, out, |out| out.extend_from_slice(content))
    }

    /// Appends one record with what `content` appends.
    fn seal(
        &mut self,
        keys: &Keys,
        kind: u8,
        out: &mut Vec<u8>,
        content: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Fault> {
        let next = self.tx.seq.checked_add(1).ok_or(Fault::Exhausted)?;
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        content(out);
        out.push(kind);
        let plain = out.len() - start - HEADER_BYTES;
        let [high, low] = ((plain + TAG_BYTES) as u16).to_be_bytes();
        let header = [DATA, 3, 3, high, low];
        let (place, plain) = out[start..].split_at_mut(HEADER_BYTES);
        place.copy_from_slice(&header);
        let tag = keys.seal(self.tx.seq, header, plain)?;
        out.extend_from_slice(tag.as_ref());
        self.tx.seq = next;
        Ok(())
    }

    /// Sends sealed bytes when none wait before them; true when the socket took all.
    fn send(&mut self, stream: &mut impl Write, out: Vec<u8>) -> io::Result<bool> {
        let written = write_some(stream, &out)?;
        if written == out.len() {
            return Ok(true);
        }
        let held = self.held.get_or_insert_default();
        held.output = out;
        held.written = written;
        Ok(false)
    }

    /// Sends the sealed bytes that wait; true when none are left.
    fn drain(&mut self, stream: &mut impl Write) -> io::Result<bool> {
        let Some(held) = &mut self.held else {
            return Ok(true);
        };
        held.written += write_some(stream, &held.output[held.written..])?;
        if held.written < held.output.len() {
            return Ok(false);
        }
        held.output = Vec::new();
        held.written = 0;
        self.tidy();
        Ok(true)
    }

    /// Keeps nothing when there is nothing to keep.
    fn tidy(&mut self) {
        if let Some(held) = &self.held
            && held.input.is_empty()
            && held.output.is_empty()
        {
            self.held = None;
        }
    }

    fn set(&mut self, flag: u8, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }
}

#[cfg(test)]
impl Records {
    pub(super) fn tx_seq(&self) -> u32 {
        self.tx.seq
    }

    pub(super) fn set_tx_seq(&mut self, seq: u32) {
        self.tx.seq = seq;
    }

    pub(super) fn set_rx_seq(&mut self, seq: u32) {
        self.rx.seq = seq;
    }

    /// Renews our keys with the next write.
    pub(super) fn wear_out(&mut self) {
        self.flags |= OWES_UPDATE;
    }

    /// Goes on to the next keys without a word.
    pub(super) fn advance_tx(&mut self) {
        self.tx.advance(self.suite).unwrap();
    }
}

/// How far a buffer was opened.
#[derive(Debug, Default)]
struct Opened {
    /// Bytes of plain text at its front.
    plain: usize,
    /// Bytes of whole records.
    taken: usize,
}

/// How many bytes follow the header at the front, once that is there.
fn sealed_len(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    match header[0] {
        DATA => {}
        CHANGE_CIPHER_SPEC => {
            return Err(Fault::Unexpected(
                "a TLS change_cipher_spec came after the handshake",
            ));
        }
        _ => return Err(Fault::Unexpected("a TLS record is not sealed")),
    }
    let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if len > SEALED_BYTES_MAX {
        return Err(Fault::RecordOverflow);
    }
    Ok(Some(len))
}

/// Writes until all is taken or the stream blocks.
fn write_some(stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// Takes bytes off a list of slices, one after the other.
struct Slices<'a> {
    rest: std::slice::Iter<'a, IoSlice<'a>>,
    front: &'a [u8],
}

impl<'a> Slices<'a> {
    fn new(slices: &'a [IoSlice<'a>]) -> Self {
        Self {
            rest: slices.iter(),
            front: &[],
        }
    }

    fn take(&mut self, mut len: usize, out: &mut Vec<u8>) {
        while len > 0 {
            if self.front.is_empty() {
                match self.rest.next() {
                    Some(slice) => self.front = slice,
                    None => return,
                }
                continue;
            }
            let (some, rest) = self.front.split_at(len.min(self.front.len()));
            out.extend_from_slice(some);
            self.front = rest;
            len -= some.len();
        }
    }
}
