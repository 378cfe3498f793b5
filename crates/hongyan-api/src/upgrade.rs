//! From an HTTP connection to a bare socket for the gateway.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::{Parts, downcast};

use crate::api::Api;
use crate::serve::Socket;
use crate::services::{Adopted, Place};

/// How long the 101 answer may take to go out.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits in the background until the 101 answer is out, then hands the socket over.
pub(crate) fn hand_over(api: &Api, upgrade: OnUpgrade, peer: SocketAddr, place: Place) {
    let connect = std::sync::Arc::clone(&api.ports().connect);
    tokio::spawn(async move {
        let switched = match tokio::time::timeout(SWITCH_TIMEOUT, upgrade).await {
            Ok(Ok(switched)) => switched,
            Ok(Err(error)) => {
                tracing::debug!(%peer, error = %error, "a connection ended before its upgrade");
                return;
            }
            Err(_) => return,
        };
        let Ok(Parts { io, read_buf, .. }) = downcast::<TokioIo<Socket>>(switched) else {
            tracing::error!(%peer, "an upgraded connection is not a socket of this server");
            return;
        };
        match io.into_inner().into_std() {
            Ok((stream, tls)) => connect.adopt(Adopted {
                stream,
                tls: tls.map(Box::new),
                leftover: read_buf,
                peer,
                place,
            }),
            Err(error) => {
                tracing::debug!(%peer, error = %error, "an upgraded socket could not be handed over");
            }
        }
    });
}
