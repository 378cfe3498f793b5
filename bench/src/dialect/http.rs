//! Streams and polls over HTTP/1.1, as far as a measurement needs them.

/// Longest wait that a poll may ask for, seconds: fewest polls of a client that only waits.
const WAIT_S: u32 = 60;

/// Appends the request of a stream.
pub(super) fn stream(token: &str, out: &mut Vec<u8>) {
    get("/v1/stream?inflight=256", token, out);
}

/// Appends the first poll, which is answered at once, or the one that follows an answer.
pub(super) fn poll(after: Option<&str>, token: &str, out: &mut Vec<u8>) {
    match after {
        None => get("/v1/poll?wait=0", token, out),
        Some(cursor) => get(
            &format!("/v1/poll?wait={WAIT_S}&limit=500&cursor={cursor}"),
            token,
            out,
        ),
    }
}

fn get(path: &str, token: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n")
            .as_bytes(),
    );
}

/// Appends the acknowledgement of everything up to a cursor.
pub fn acknowledge(upto: &str, token: &str, out: &mut Vec<u8>) {
    let body = format!(r#"{{"upto":"{upto}"}}"#);
    out.extend_from_slice(
        format!(
            "POST /v1/acks HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
}

/// The whole head of an answer: whether it is 200, the length of its body when it is told, and where the head ends.
pub(super) fn head_at(bytes: &[u8]) -> Option<(bool, Option<usize>, usize)> {
    let end = 4 + bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|length| length.trim().parse().ok());
    Some((head.starts_with("http/1.1 200"), length, end))
}

/// Place of the content of a whole chunk, and where the chunk ends.
pub(super) fn chunk_at(bytes: &[u8]) -> Option<(usize, usize, usize)> {
    let line = bytes.windows(2).position(|two| two == b"\r\n")?;
    let length = std::str::from_utf8(&bytes[..line]).ok()?;
    let from = line + 2;
    let to = from + usize::from_str_radix(length, 16).ok()?;
    (to + 2 <= bytes.len()).then_some((from, to, to + 2))
}

/// The text after this name, up to the next quote or line break.
pub(super) fn value_after<'a>(bytes: &'a [u8], name: &[u8]) -> Option<&'a str> {
    let from = name.len() + bytes.windows(name.len()).position(|part| part == name)?;
    let rest = &bytes[from..];
    let to = rest.iter().position(|byte| matches!(byte, b'"' | b'\n'))?;
    std::str::from_utf8(&rest[..to]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_chunks_wait_until_they_are_whole() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        for cut in 0..answer.len() - 3 {
            assert_eq!(head_at(&answer[..cut]), None, "{cut}");
        }
        assert_eq!(head_at(answer), Some((true, Some(3), answer.len() - 3)));
        let chunk = b"a\r\n0123456789\r\n";
        for cut in 0..chunk.len() {
            assert_eq!(chunk_at(&chunk[..cut]), None, "{cut}");
        }
        assert_eq!(chunk_at(chunk), Some((3, 13, 15)));
    }

    #[test]
    fn values_end_with_their_line_or_quote() {
        assert_eq!(value_after(b"id: c1\nevent", b"id: "), Some("c1"));
        assert_eq!(
            value_after(br#"{"cursor":"c2","#, br#""cursor":""#),
            Some("c2")
        );
        assert_eq!(value_after(b"id: c1", b"id: "), None);
    }
}
