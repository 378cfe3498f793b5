//! TLS of a listener: rustls's handshake, and what somebody needs who later goes on with a
//! connection's records without rustls.
//!
//! That is two things which rustls does not tell afterwards: the traffic secrets, which its key log
//! is told once, and the bytes of a record of which only the begin has come. Both are gathered
//! only when the settings have `enable_secret_extraction`.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use rustls::{KeyLog, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use crate::writes_through;

/// Bytes of a record's header (RFC 8446 section 5.1).
const HEADER_BYTES: usize = 5;

/// Makes the server's side of a handshake. Give it a deadline.
///
/// # Errors
/// When the handshake fails or the stream ends.
pub async fn accept<S>(config: &Arc<ServerConfig>, stream: S) -> io::Result<Secure<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if !config.enable_secret_extraction {
        let stream = Watched::new(stream, false);
        return Ok(Secure {
            stream: TlsAcceptor::from(Arc::clone(config)).accept(stream).await?,
            keeper: None,
        });
    }
    // A log of its own, so that it is clear whose secrets they are. The copy shares the
    // certificates, the tickets and the sessions; rustls lets go of it after the handshake.
    let keeper = Arc::new(Keeper::default());
    let mut own = ServerConfig::clone(config);
    own.key_log = Arc::clone(&keeper) as Arc<dyn KeyLog>;
    let stream = Watched::new(stream, true);
    Ok(Secure {
        stream: TlsAcceptor::from(Arc::new(own)).accept(stream).await?,
        keeper: Some(keeper),
    })
}

/// A stream behind its handshake.
#[derive(Debug)]
pub struct Secure<S> {
    stream: TlsStream<Watched<S>>,
    keeper: Option<Arc<Keeper>>,
}

/// The TLS state of a stream, taken off it.
#[derive(Debug)]
pub struct Tls {
    /// rustls's part. It may hold plain bytes that were not read yet.
    pub connection: ServerConnection,
    /// The first traffic secrets, where they were asked for and TLS 1.3 is spoken.
    pub secrets: Option<Secrets>,
    /// The begin of a record of which rustls waits for the rest; empty when the secrets were not asked for.
    pub partial: Vec<u8>,
}

/// The first traffic secrets of a connection. They are overwritten when this is dropped.
#[derive(Default)]
pub struct Secrets {
    /// Of what the client sends.
    pub client: Zeroizing<Vec<u8>>,
    /// Of what the server sends.
    pub server: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

impl<S> Secure<S> {
    /// The stream below, and TLS. What TLS has sealed and not sent yet is with its connection.
    pub fn into_parts(self) -> (S, Tls) {
        let (watched, connection) = self.stream.into_inner();
        let tls = Tls {
            connection,
            secrets: self.keeper.and_then(|keeper| keeper.take()),
            partial: watched.partial,
        };
        (watched.stream, tls)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secure<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

writes_through!(Secure<S>, stream, S: AsyncRead, AsyncWrite, Unpin);

/// Keeps the two secrets of one connection.
#[derive(Debug, Default)]
struct Keeper(Mutex<Secrets>);

impl Keeper {
    fn lock(&self) -> MutexGuard<'_, Secrets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Secrets> {
        let secrets = std::mem::take(&mut *self.lock());
        (!secrets.client.is_empty() && !secrets.server.is_empty()).then_some(secrets)
    }
}

impl KeyLog for Keeper {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let secret = Zeroizing::new(secret.to_vec());
        match label {
            "CLIENT_TRAFFIC_SECRET_0" => self.lock().client = secret,
            "SERVER_TRAFFIC_SECRET_0" => self.lock().server = secret,
            _ => {}
        }
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, "CLIENT_TRAFFIC_SECRET_0" | "SERVER_TRAFFIC_SECRET_0")
    }
}

/// A stream that remembers what was read of a record that is not whole.
#[derive(Debug)]
struct Watched<S> {
    stream: S,
    watches: bool,
    partial: Vec<u8>,
}

impl<S> Watched<S> {
    const fn new(stream: S, watches: bool) -> Self {
        Self {
            stream,
            watches,
            partial: Vec::new(),
        }
    }

    fn watch(&mut self, mut fresh: &[u8]) {
        while !self.partial.is_empty() {
            let whole = record_len(&self.partial).unwrap_or(HEADER_BYTES);
            let (some, rest) = fresh.split_at((whole - self.partial.len()).min(fresh.len()));
            self.partial.extend_from_slice(some);
            fresh = rest;
            if record_len(&self.partial) == Some(self.partial.len()) {
                self.partial = Vec::new();
            } else if fresh.is_empty() {
                return;
            }
        }
        while let Some(rest) = record_len(fresh).and_then(|len| fresh.get(len..)) {
            fresh = rest;
        }
        self.partial.extend_from_slice(fresh);
    }
}

/// Length of the record at the front, once its header is there.
fn record_len(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    Some(HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]])))
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if this.watches {
            this.watch(&buf.filled()[before..]);
        }
        read
    }
}

writes_through!(Watched<S>, stream, S: AsyncWrite, Unpin);

#[cfg(test)]
mod tests {
    use super::*;

    fn record(len: u16) -> Vec<u8> {
        let mut record = vec![23, 3, 3];
        record.extend(len.to_be_bytes());
        record.extend((0..len).map(|n| n as u8));
        record
    }

    #[test]
    fn what_is_left_is_the_begin_of_the_last_record() {
        let stream = [record(0), record(1), record(300), record(0), record(7)].concat();
        let ends: Vec<usize> = [0, 5, 11, 316, 321, 333].to_vec();
        for piece in [1, 2, 3, 5, 6, 7, 64, 400] {
            let mut watched = Watched::new((), true);
            let mut seen = 0;
            for chunk in stream.chunks(piece) {
                watched.watch(chunk);
                seen += chunk.len();
                let end = ends.iter().rev().find(|end| **end <= seen).unwrap();
                assert_eq!(watched.partial, stream[*end..seen], "pieces of {piece}");
            }
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let keeper = Keeper::default();
        assert!(keeper.take().is_none());
        keeper.log("CLIENT_TRAFFIC_SECRET_0", b"random", b"client-secret");
        keeper.log("EXPORTER_SECRET", b"random", b"other");
        assert!(!keeper.will_log("EXPORTER_SECRET"));
        keeper.log("SERVER_TRAFFIC_SECRET_0", b"random", b"server-secret");
        assert!(!format!("{keeper:?}").contains("99"));
        let secrets = keeper.take().unwrap();
        assert_eq!(format!("{secrets:?}"), "Secrets");
        assert_eq!(&secrets.client[..], b"client-secret");
        assert_eq!(&secrets.server[..], b"server-secret");
    }
}
