//! One vendor request and its answer, apart from any socket.

use std::sync::Mutex;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;

/// A request as it arrived, body read whole.
#[derive(Debug, Default)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) authority: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What follows `Bearer ` in the authorization header, the scheme in any case.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then_some(token.trim())
    }

    pub(crate) fn form(&self) -> Vec<(String, String)> {
        parse_form(&self.body)
    }

    pub(crate) fn query_pairs(&self) -> Vec<(String, String)> {
        parse_form(self.query.as_bytes())
    }
}

/// What a connection has shown so far.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    pub(crate) http2: bool,
    /// DER of the client's certificate, already verified against the sandbox's authority.
    pub(crate) client_certificate: Option<Vec<u8>>,
    /// The provider token that APNs accepted last on this connection.
    pub(crate) provider_token: Mutex<Option<ProviderToken>>,
}

#[derive(Debug, Clone)]
pub(crate) struct ProviderToken {
    pub(crate) text: String,
    pub(crate) issued_s: i64,
    pub(crate) accepted_ms: i64,
}

/// What the simulator answers.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    /// One line for the request list: what was decided and why.
    pub(crate) verdict: String,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &Value, verdict: impl Into<String>) -> Self {
        Self {
            status,
            headers: vec![("content-type", "application/json; charset=utf-8".to_owned())],
            body: Bytes::from(body.to_string()),
            verdict: verdict.into(),
        }
    }

    pub(crate) fn empty(status: u16, verdict: impl Into<String>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            verdict: verdict.into(),
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// What happens on the wire.
#[derive(Debug)]
pub(crate) enum Act {
    /// The request is answered.
    Answer(Reply),
    /// The stream is reset; on HTTP/1.1 the connection closes without an answer.
    Reset,
    /// HTTP/2 GOAWAY; this request was not processed.
    GoAway,
}

/// `application/x-www-form-urlencoded` (WHATWG URL section 5.1).
pub(crate) fn parse_form(bytes: &[u8]) -> Vec<(String, String)> {
    bytes
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let name = percent_decode(halves.next().unwrap_or_default());
            let value = percent_decode(halves.next().unwrap_or_default());
            (name, value)
        })
        .collect()
}

pub(crate) fn percent_decode(bytes: &[u8]) -> String {
    let hex = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_decode_as_browsers_encode_them() {
        let check = |input: &str, want: &[(&str, &str)]| {
            let got = parse_form(input.as_bytes());
            let got: Vec<_> = got.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert_eq!(got, want, "{input}");
        };
        check("", &[]);
        check("a=1&b=", &[("a", "1"), ("b", "")]);
        check("a=x+y%2B&t=%E4%BD%A0", &[("a", "x y+"), ("t", "你")]);
        check("a=%&b=%4", &[("a", "%"), ("b", "%4")]);
        check("extra.k=1=2", &[("extra.k", "1=2")]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            parse_form(&bytes);
        }
    }
}
