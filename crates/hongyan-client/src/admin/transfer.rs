//! Devices in bulk, as NDJSON streams.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};

use super::{Admin, with_query};
use crate::error::{BoxError, Error};
use crate::http_client::{Call, Http};

/// Longest line of an export, in bytes.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;

/// A long import may work a while before it answers.
const IMPORT_HEAD_WITHIN: Duration = Duration::from_secs(3600);
/// How long an export may be silent.
const EXPORT_SILENCE_MAX: Duration = Duration::from_secs(60);

impl Admin {
    /// Imports devices from pieces of NDJSON, which may be cut anywhere. The answer is again a
    /// stream of lines: per-line errors and the sum. Not repeated; the caller resumes.
    ///
    /// # Errors
    /// [`Error`], also when a piece cannot be read.
    pub async fn import_devices(
        &self,
        pieces: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
    ) -> Result<Export, Error> {
        use futures_util::StreamExt;
        let body = StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync();
        let call = Http::ndjson("/v1/devices/import");
        let (_, _, body) = self
            .http
            .stream(&call, Some(body), IMPORT_HEAD_WITHIN)
            .await?;
        Ok(Export {
            http: self.http.clone(),
            body,
            buffer: BytesMut::new(),
            ended: false,
        })
    }

    /// Exports devices, from the start or from the place where an export broke off.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn export_devices(&self, after: Option<&str>) -> Result<Export, Error> {
        let call = Call::get(with_query("/v1/devices/export", &[("after", after)]));
        let (_, _, body) = self.http.stream(&call, None, EXPORT_SILENCE_MAX).await?;
        Ok(Export {
            http: self.http.clone(),
            body,
            buffer: BytesMut::new(),
            ended: false,
        })
    }
}

/// Lines of an NDJSON answer.
#[derive(Debug)]
pub struct Export {
    http: Http,
    body: Incoming,
    buffer: BytesMut,
    ended: bool,
}

impl Export {
    /// The next line without its end; `None` after the last. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Broken`] when the stream broke off, a line is too long, or nothing came for a minute.
    pub async fn next_line(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let mut line = self.buffer.split_to(end + 1);
                line.truncate(end);
                if line.ends_with(b"\r") {
                    line.truncate(end - 1);
                }
                if !line.is_empty() {
                    return Ok(Some(line.freeze()));
                }
                continue;
            }
            if self.ended {
                let rest = self.buffer.split().freeze();
                return Ok((!rest.is_empty()).then_some(rest));
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                let why = format!("a line is longer than {LINE_BYTES_MAX} bytes");
                return Err(self.http.broken(why.into()));
            }
            match tokio::time::timeout(EXPORT_SILENCE_MAX, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Ok(Some(Err(error))) => return Err(self.http.broken(error.into())),
                Ok(None) => self.ended = true,
                Err(_) => {
                    return Err(Error::Timeout {
                        base: self.http.base().to_string(),
                        after: EXPORT_SILENCE_MAX,
                    });
                }
            }
        }
    }
}
