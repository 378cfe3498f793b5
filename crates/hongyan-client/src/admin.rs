//! The API for app servers, the command line and tests.
//!
//! Bodies and answers are JSON values as in the OpenAPI document, so that a newer server's fields
//! pass through; paths, keys, idempotency, errors and streams are taken care of here.

mod events;
mod messages;
mod resources;
mod transfer;

use std::sync::Arc;
use std::time::Duration;

pub use events::{EventTail, ServerEvent};
pub use messages::Accepted;
pub use transfer::{Export, LINE_BYTES_MAX};

use crate::error::Error;
use crate::http_client::{Call, Http};
use crate::net::{Base, TcpConnector, Tls, escape};
use crate::secret::Secret;

/// Deadline of one call, unless it is changed.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of the API with one key; cheap to clone, one pool.
#[derive(Debug, Clone)]
pub struct Admin {
    http: Http,
}

impl Admin {
    /// Talks to the server at `base` with `key` (an admin or server key).
    ///
    /// # Errors
    /// [`Error::Invalid`] when `base` is not a URL of a server.
    pub fn new(base: &str, key: impl Into<Secret>) -> Result<Self, Error> {
        Self::with(base, key, Tls::default(), CALL_TIMEOUT)
    }

    /// As [`Admin::new`], with roots of one's own and another deadline for each call.
    ///
    /// # Errors
    /// As [`Admin::new`].
    pub fn with(
        base: &str,
        key: impl Into<Secret>,
        tls: Tls,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let base = Base::parse(base)?;
        let http = Http::new(base, Some(key.into()), tls, Arc::new(TcpConnector), timeout);
        Ok(Self { http })
    }

    /// The same server with another key.
    #[must_use]
    pub fn with_key(&self, key: impl Into<Secret>) -> Self {
        Self {
            http: self.http.with_key(key.into()),
        }
    }

    /// The same server, with every call meant for this app: an admin key needs that at the addresses
    /// that act within an app, and keys of an app do not mind it.
    #[must_use]
    pub fn for_app(&self, app: &str) -> Self {
        Self {
            http: self.http.with_app(app),
        }
    }

    /// Where the server is.
    #[must_use]
    pub fn base(&self) -> &Base {
        self.http.base()
    }

    /// Whether the process answers (`/healthz`).
    ///
    /// # Errors
    /// [`Error`] when it does not.
    pub async fn health(&self) -> Result<(), Error> {
        self.http.bytes(Call::get("/healthz")).await.map(drop)
    }

    /// Whether the server can do its work (`/readyz`).
    ///
    /// # Errors
    /// [`Error`] when it cannot.
    pub async fn ready(&self) -> Result<(), Error> {
        self.http.bytes(Call::get("/readyz")).await.map(drop)
    }

    /// The metrics in Prometheus' text form.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn metrics(&self) -> Result<String, Error> {
        let bytes = self.http.bytes(Call::get("/metrics")).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// `path?a=1&b=2` with names and values made safe; pairs without a value are left out.
fn with_query(path: &str, pairs: &[(&str, Option<&str>)]) -> String {
    let mut out = path.to_owned();
    let mut sign = '?';
    for (name, value) in pairs {
        if let Some(value) = value {
            out.push(sign);
            out.push_str(&escape(name));
            out.push('=');
            out.push_str(&escape(value));
            sign = '&';
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::with_query;

    #[test]
    fn queries() {
        assert_eq!(with_query("/a", &[("x", None)]), "/a");
        assert_eq!(
            with_query("/a", &[("x", Some("1&2")), ("y", Some("z"))]),
            "/a?x=1%262&y=z"
        );
    }
}
