//! Devices in bulk, as NDJSON streams.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::Value;

use super::{Admin, with_query};
use crate::error::{BoxError, Error};
use crate::http_client::{Call, Http, collect};

/// Longest line of an export, in bytes.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;

/// A long import may work a while before it answers.
const IMPORT_HEAD_WITHIN: Duration = Duration::from_secs(3600);
/// Longest answer to an import, in bytes: it names the first thousand refused lines.
const IMPORT_ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long an export may be silent.
const EXPORT_SILENCE_MAX: Duration = Duration::from_secs(60);

impl Admin {
    /// Imports devices from pieces of NDJSON, which may be cut anywhere. Lines before `from_line`
    /// are passed over, so a broken import goes on where the last one ended. The answer counts the
    /// lines and names the refused ones. Not repeated by itself, though that would do no harm.
    ///
    /// # Errors
    /// [`Error`], also when a piece cannot be read.
    pub async fn import_devices(
        &self,
        pieces: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
        from_line: u64,
    ) -> Result<Value, Error> {
        let body = StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync();
        let from_line = (from_line > 0).then(|| from_line.to_string());
        let path = with_query("/v1/devices/import", &[("from_line", from_line.as_deref())]);
        let call = Http::ndjson(path);
        let (_, _, body) = self
            .http
            .stream(&call, Some(body), IMPORT_HEAD_WITHIN)
            .await?;
        let bytes = collect(body, IMPORT_ANSWER_BYTES_MAX)
            .await
            .map_err(|e| self.http.broken(e))?;
        serde_json::from_slice(&bytes).map_err(|e| Error::Malformed {
            what: "POST /v1/devices/import".to_owned(),
            source: Box::new(e),
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
