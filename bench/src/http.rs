//! The smallest HTTP/1.1 client that keeps its connection: the load must not cost more than what
//! is measured.

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest answer that is read, bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// A connection to one server.
#[derive(Debug)]
pub struct Http {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Host and port of an `http://` address.
///
/// # Errors
/// When it is another kind of address.
pub fn host(api: &str) -> anyhow::Result<&str> {
    let rest = api.strip_prefix("http://").context(
        "--api must begin with http://: the measurement leaves TLS out, connect to the plain port",
    )?;
    Ok(rest.trim_end_matches('/'))
}

/// A request with a JSON body, as it goes onto the wire.
#[must_use]
pub fn request(method: &str, path: &str, host: &str, key: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

impl Http {
    /// Connects.
    ///
    /// # Errors
    /// When nothing listens there.
    pub async fn connect(host: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(host)
            .await
            .with_context(|| format!("{host} does not answer; is the server running?"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(4096),
        })
    }

    /// Sends a whole request; the status and body of its answer.
    ///
    /// # Errors
    /// When the connection ends, or the answer has no length.
    pub async fn call(&mut self, request: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if let Some((status, head, length)) = head(&self.buffer)?
                && self.buffer.len() >= head + length
            {
                return Ok((status, self.buffer[head..head + length].to_vec()));
            }
            if self.buffer.len() > ANSWER_BYTES_MAX {
                bail!("the answer is longer than {ANSWER_BYTES_MAX} bytes");
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the server closed the connection before it answered");
            }
        }
    }
}

/// Status, length of the head and length of the body, once the head is complete.
fn head(bytes: &[u8]) -> anyhow::Result<Option<(u16, usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..end]).context("the answer's head is not text")?;
    let status = text
        .get(9..12)
        .and_then(|digits| digits.parse().ok())
        .context("the answer has no status")?;
    let length = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(Ok(0), |(_, value)| value.trim().parse())
        .context("the answer's length is no number")?;
    Ok(Some((status, end + 4, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_once_complete() {
        assert_eq!(
            head(b"HTTP/1.1 202 Accepted\r\ncontent-length: 7\r\n").unwrap(),
            None
        );
        let whole = b"HTTP/1.1 202 Accepted\r\nContent-Length: 7\r\n\r\n{}";
        assert_eq!(head(whole).unwrap(), Some((202, 44, 7)));
        assert!(head(b"HTTP/1.1 ???\r\n\r\n").is_err());
    }
}
