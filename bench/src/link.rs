//! A swarm's side of one socket, with TLS 1.3 or without.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use anyhow::Context as _;
use mio::net::TcpStream;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection};

/// Settings of clients that trust this certificate (PEM) and make a whole handshake each time.
///
/// # Errors
/// When the certificate cannot be read.
pub fn config(ca: &str) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A non-blocking socket.
#[derive(Debug)]
pub struct Link {
    /// The socket itself.
    pub tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Link {
    /// A socket that may still be connecting.
    ///
    /// # Errors
    /// When TLS refuses its settings.
    pub fn new(tcp: TcpStream, config: Option<&Arc<ClientConfig>>) -> anyhow::Result<Self> {
        let tls = match config {
            Some(config) => {
                let name = ServerName::try_from("localhost")?;
                let tls = ClientConnection::new(Arc::clone(config), name)
                    .context("TLS refuses its settings")?;
                Some(Box::new(tls))
            }
            None => None,
        };
        Ok(Self { tcp, tls })
    }

    /// Whether a short read has emptied the socket.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.tls.is_none()
    }
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.tcp.read(buffer);
        };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
            if tls.read_tls(&mut self.tcp)? == 0 {
                return Ok(0);
            }
            tls.process_new_packets()
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            send(tls, &mut self.tcp)?;
        }
    }
}

impl Write for Link {
    /// What TLS takes it keeps until the socket takes it: see [`Write::flush`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.tcp.write(bytes);
        };
        let n = tls.writer().write(bytes)?;
        send(tls, &mut self.tcp)?;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => send(tls, &mut self.tcp),
            None => Ok(()),
        }
    }
}

fn send(tls: &mut ClientConnection, tcp: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(tcp) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
