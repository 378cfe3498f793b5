//! TLS of a connection after its handshake.
//!
//! rustls makes every handshake. A TLS 1.3 connection whose traffic secrets are known then goes on
//! without it, as [`Records`]: an idle one costs 120 bytes instead of some kilobytes. TLS 1.2 and
//! everything that is not quite as expected stay with rustls.
//!
//! rustls gives out keys (`dangerous_extract_secrets`), but not the secrets that the keys after a
//! key update follow from; its `KernelConnection` would update them, but only for its unbuffered
//! connections, and at the price of a state of its own that has to be kept. The secrets
//! therefore come the documented way, through `rustls::KeyLog`, for one connection alone, and the
//! extracted keys prove that they belong to it. Decision note 17 has the whole story.

mod records;
#[cfg(test)]
mod records_tests;
mod schedule;

use std::io::{self, IoSlice, Read, Write};

use hongyan_listener::secure::{self, Secrets};
use rustls::{CipherSuite, ConnectionTrafficSecrets, ServerConnection};

use self::schedule::Direction;

pub use self::records::{Fault, RECORD_BYTES_MAX, Records};
pub use self::schedule::Suite;
pub use crate::options::TlsRecords;

/// Key updates before the hand-over that are followed: a client has no reason for even one.
const UPDATES_BEFORE_MAX: usize = 16;

/// The TLS of a connection could not be taken over; the connection is lost.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// rustls did not give the keys out.
    #[error("rustls keeps the keys of a connection")]
    Extract(#[source] rustls::Error),
    /// The secrets are not those of this connection.
    #[error("the traffic secrets do not fit the keys of the connection")]
    OtherSecrets,
}

/// TLS of a connection past its handshake.
#[derive(Debug)]
pub struct Tls(Layer);

/// Who handles the records. An idle connection has one of these on the heap.
#[derive(Debug)]
enum Layer {
    Rustls(Box<Kept>),
    Own(Records),
}

/// A connection of rustls, and what is needed to go on without it.
#[derive(Debug)]
struct Kept {
    connection: ServerConnection,
    secrets: Option<Secrets>,
    partial: Vec<u8>,
}

impl From<secure::Tls> for Tls {
    /// A connection that may go on without rustls, when its secrets are there: then its configuration has
    /// `enable_secret_extraction`.
    fn from(tls: secure::Tls) -> Self {
        let secure::Tls {
            connection,
            secrets,
            partial,
        } = tls;
        Self(Layer::Rustls(Box::new(Kept {
            connection,
            secrets,
            partial,
        })))
    }
}

impl Tls {
    /// Decides who handles the records from here on. Answers plain bytes that rustls had opened already as well; they
    /// come before all that is read later.
    ///
    /// # Errors
    /// [`TakeOverError`], when it is too late to stay with rustls.
    pub(crate) fn settle(self, records: TlsRecords) -> Result<(Self, Vec<u8>), TakeOverError> {
        let mut kept = match self.0 {
            Layer::Rustls(kept) => kept,
            own => return Ok((Self(own), Vec::new())),
        };
        let secrets = kept.secrets.take().filter(|_| records == TlsRecords::Own);
        let Some((secrets, ready)) = secrets.and_then(|secrets| {
            let ready = prepare(&mut kept.connection, &secrets)?;
            Some((secrets, ready))
        }) else {
            return Ok((Self(Layer::Rustls(kept)), Vec::new()));
        };
        let suite = ready.suite;
        let keys = kept
            .connection
            .dangerous_extract_secrets()
            .map_err(TakeOverError::Extract)?;
        let rx = direction(suite, &secrets.client, &keys.rx)?;
        let tx = direction(suite, &secrets.server, &keys.tx)?;
        let records = Records::resume(suite, rx, tx, kept.partial, ready.sealed);
        Ok((Self(Layer::Own(records)), ready.opened))
    }

    /// rustls's part, while it has one: always before the gateway took the connection over.
    #[must_use]
    pub fn connection(&self) -> Option<&ServerConnection> {
        match &self.0 {
            Layer::Rustls(kept) => Some(&kept.connection),
            Layer::Own(_) => None,
        }
    }

    /// Whether rustls is out of it.
    #[must_use]
    pub fn has_own_records(&self) -> bool {
        matches!(self.0, Layer::Own(_))
    }

    /// Whether the last read took all that the socket had, and nothing is owed that [`Self::finish`] would send.
    pub(crate) fn is_drained(&self) -> bool {
        match &self.0 {
            Layer::Own(records) => records.is_drained(),
            Layer::Rustls(_) => false,
        }
    }

    /// Reads plain bytes. `Ok(0)` is the end of the stream. The buffer has at least [`RECORD_BYTES_MAX`] bytes.
    pub(crate) fn read<S: Read + Write>(
        &mut self,
        stream: &mut S,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        let tls = match &mut self.0 {
            Layer::Own(records) => return records.read(stream, buffer),
            Layer::Rustls(kept) => &mut kept.connection,
        };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            let n = tls.read_tls(stream)?;
            let state = tls
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if n == 0 && state.plaintext_bytes_to_read() == 0 {
                return Ok(0);
            }
        }
    }

    pub(crate) fn write_vectored(
        &mut self,
        stream: &mut impl Write,
        slices: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        let tls = match &mut self.0 {
            Layer::Own(records) => return records.write_vectored(stream, slices),
            Layer::Rustls(kept) => &mut kept.connection,
        };
        if tls.wants_write() && !drain(tls, stream)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = tls.writer().write_vectored(slices)?;
        drain(tls, stream)?;
        Ok(n)
    }

    /// Writes what TLS still holds; true when nothing is left.
    pub(crate) fn finish(&mut self, stream: &mut impl Write) -> io::Result<bool> {
        match &mut self.0 {
            Layer::Own(records) => records.finish(stream),
            Layer::Rustls(kept) => drain(&mut kept.connection, stream),
        }
    }

    /// Says that nothing more is sent.
    pub(crate) fn close(&mut self, stream: &mut impl Write) {
        let tls = match &mut self.0 {
            Layer::Own(records) => return records.close(stream),
            Layer::Rustls(kept) => &mut kept.connection,
        };
        tls.send_close_notify();
        // The connection ends now: what cannot leave at once is not waited for.
        let _ = drain(tls, stream);
    }
}

/// What rustls still held of a connection that can go on without it.
struct Ready {
    suite: Suite,
    opened: Vec<u8>,
    sealed: Vec<u8>,
}

/// Empties rustls; nothing when the connection has to stay with it.
fn prepare(tls: &mut ServerConnection, secrets: &Secrets) -> Option<Ready> {
    let suite = match tls.negotiated_cipher_suite()?.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => Suite::Aes128Gcm,
        CipherSuite::TLS13_AES_256_GCM_SHA384 => Suite::Aes256Gcm,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Suite::Chacha20Poly1305,
        _ => return None,
    };
    let len = suite.secret_bytes();
    if tls.is_handshaking() || secrets.client.len() != len || secrets.server.len() != len {
        return None;
    }
    let state = tls.process_new_packets().ok()?;
    if state.peer_has_closed() {
        return None;
    }
    // From here on nothing may fail, as rustls is emptied.
    let mut opened = vec![0; state.plaintext_bytes_to_read()];
    tls.reader().read_exact(&mut opened).ok()?;
    // The answer to a client's key update is kept back until the next write, even of nothing.
    let _ = tls.writer().write(&[]).ok()?;
    let mut sealed = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut sealed).ok()?;
    }
    Some(Ready {
        suite,
        opened,
        sealed,
    })
}

/// The direction whose first secret is given, where rustls has arrived in it.
fn direction(
    suite: Suite,
    secret: &[u8],
    (seq, keys): &(u64, ConnectionTrafficSecrets),
) -> Result<Direction, TakeOverError> {
    let other = TakeOverError::OtherSecrets;
    let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
    | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
    | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = keys
    else {
        return Err(other);
    };
    let mut direction = Direction::new(suite, secret, 0).ok_or(TakeOverError::OtherSecrets)?;
    for _ in 0..=UPDATES_BEFORE_MAX {
        let raw = direction
            .raw(suite)
            .map_err(|_| TakeOverError::OtherSecrets)?;
        if raw.key() == key.as_ref() && raw.iv() == iv.as_ref() {
            direction.seq = u32::try_from(*seq).map_err(|_| TakeOverError::OtherSecrets)?;
            return Ok(direction);
        }
        direction
            .advance(suite)
            .map_err(|_| TakeOverError::OtherSecrets)?;
    }
    Err(other)
}

fn drain(tls: &mut ServerConnection, stream: &mut impl Write) -> io::Result<bool> {
    while tls.wants_write() {
        match tls.write_tls(stream) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
