use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// Reads an answer as [`Connection::answer`] does, in pieces of this length, and then the end.
fn read(bytes: &[u8], piece: usize, bytes_max: usize) -> Result<(u16, Vec<u8>, bool), Wrong> {
    let mut buffer = Vec::new();
    let mut pieces = bytes.chunks(piece.max(1));
    let (head, length) = loop {
        if !buffer.is_empty()
            && let Some(found) = Head::parse(&buffer)?
        {
            break found;
        }
        match pieces.next() {
            Some(piece) => buffer.extend_from_slice(piece),
            None => return Err(Wrong::Malformed("no head")),
        }
    };
    let mut body = head.body(bytes_max)?;
    let mut rest = buffer.split_off(length);
    loop {
        let taken = body.take(&rest)?;
        if body.is_whole() {
            let left = taken < rest.len() || pieces.next().is_some();
            let keeps = head.keeps && body.is_delimited() && !left;
            return Ok((head.status, body.into_bytes().to_vec(), keeps));
        }
        assert_eq!(taken, rest.len(), "only a whole body leaves bytes");
        match pieces.next() {
            Some(piece) => rest = piece.to_vec(),
            None => {
                body.end()?;
                return Ok((head.status, body.into_bytes().to_vec(), false));
            }
        }
    }
}

fn check(answer: &str, want: (u16, &str, bool)) {
    for piece in [1, 7, answer.len()] {
        let (status, body, keeps) = read(answer.as_bytes(), piece, 100).unwrap();
        let body = String::from_utf8(body).unwrap();
        assert_eq!((status, body.as_str(), keeps), want, "{answer}");
    }
}

#[test]
fn bodies_end_where_their_head_says() {
    check(
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        (200, "hello", true),
    );
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        (200, "hello", true),
    );
    check(
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        (200, "", true),
    );
    check("HTTP/1.1 204 \r\n\r\n", (204, "", true));
    check(
        "HTTP/1.1 200 OK\r\n\r\nuntil the end",
        (200, "until the end", false),
    );
    check(
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nno",
        (200, "no", false),
    );
    check(
        "HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 2\r\n\r\nno",
        (200, "no", false),
    );
    // Bytes behind the answer: nobody asked for them.
    check(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nnomore",
        (200, "no", false),
    );
}

#[test]
fn chunks_are_put_together() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n";
    check(
        &format!("{head}\r\n5\r\nhello\r\n1;a=b\r\n!\r\n0\r\n\r\n"),
        (200, "hello!", true),
    );
    check(
        &format!("{head}\r\n0a\r\n0123456789\r\n0\r\na: b\r\nc: d\r\n\r\n"),
        (200, "0123456789", true),
    );
    check(
        &format!("{head}content-length: 3\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
        (200, "x", false),
    );
}

#[test]
fn answers_that_are_none_are_refused() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for bad in [
        "HTTP/2 200\r\n\r\n".to_owned(),
        "nonsense\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\nhello".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel".to_owned(),
        format!("{chunked}5\r\nhel"),
        format!("{chunked}5\r\nhello!\r\n0\r\n\r\n"),
        format!("{chunked}-5\r\nhello\r\n0\r\n\r\n"),
        format!("{chunked}\r\n"),
        format!("{chunked}5{}\r\n", ";".repeat(300)),
        format!("{chunked}0\r\n{}", "a: b\r\n".repeat(5000)),
    ] {
        for piece in [1, 7, bad.len()] {
            let read = read(bad.as_bytes(), piece, 100);
            assert!(matches!(read, Err(Wrong::Malformed(_))), "{bad}: {read:?}");
        }
    }
}

#[test]
fn long_answers_are_given_up() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let x = "x".repeat(60);
    for long in [
        "HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n\r\n{x}{x}"),
        format!("{chunked}3c\r\n{x}\r\n3c\r\n{x}\r\n"),
        format!("{chunked}ffffffffffffffffffff\r\n"),
    ] {
        let read = read(long.as_bytes(), 9, 100);
        let right = matches!(read, Err(Wrong::TooLarge))
            || long.contains("99999") && matches!(read, Err(Wrong::Malformed(_)));
        assert!(right, "{long}: {read:?}");
    }
}

#[test]
fn a_request_is_written_whole() {
    let origin = Origin::parse("https://a.example:8443").unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("x-a", HeaderValue::from_static("1"));
    headers.insert(HOST, HeaderValue::from_static("other.example"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("99"));
    let mut call = Call {
        method: Method::POST,
        path: "/a?b=c".to_owned(),
        headers,
        body: Bytes::from_static(b"hello"),
    };
    let mut out = Vec::new();
    request(&mut out, &origin, &call).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "POST /a?b=c HTTP/1.1\r\nhost: a.example:8443\r\nx-a: 1\r\ncontent-length: 5\r\n\r\nhello"
    );
    (call.method, call.body) = (Method::GET, Bytes::new());
    let mut out = Vec::new();
    request(&mut out, &origin, &call).unwrap();
    assert!(out.ends_with(b"x-a: 1\r\n\r\n"));
    for path in ["/a b", "/a\r\nx: y", "a", "", "/\u{e4}"] {
        call.path = path.to_owned();
        assert!(
            request(&mut Vec::new(), &origin, &call).is_err(),
            "{path:?}"
        );
    }
}

proptest! {
    #[test]
    fn chunks_may_be_cut_anywhere(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..10),
        piece in 1..50_usize,
    ) {
        let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for chunk in &chunks {
            bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        let (status, body, keeps) = read(&bytes, piece, 1000).unwrap();
        prop_assert_eq!((status, body, keeps), (200, chunks.concat(), true));
    }

    #[test]
    fn no_answer_is_too_strange(tail: Vec<u8>, piece in 1..20_usize) {
        let heads: [&[u8]; 3] = [
            b"",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ];
        for head in heads {
            let _ = read(&[head, &tail].concat(), piece, 1000);
        }
    }
}
