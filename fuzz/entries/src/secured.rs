//! What comes over TLS connections once their handshake is done.

use std::io::{self, Read, Write};

use hongyan_gateway::tls::{Fault, RECORD_BYTES_MAX, Records, Suite};

use crate::Entry;

/// Types of records that mean something, and one that does not.
const KINDS: [u8; 6] = [23, 22, 21, 20, 0, 99];
/// Most bytes that may be kept of a record that is not whole, with what the allocator adds.
const HELD_BYTES_MAX: usize = 2 * RECORD_BYTES_MAX;

/// Records, bare and sealed, whole and in pieces: both ways say the same, and what is answered can be
/// read by the peer.
///
/// The first byte is the size of pieces, the second how many records are sealed: each is a byte for its type, one for its length, and its
/// content. What is left goes over the wire as it is.
pub(crate) const TLS_RECORDS: Entry = Entry {
    name: "tls_records",
    run: |bytes| {
        let [piece, count, rest @ ..] = bytes else {
            return;
        };
        let whole = read(*count, rest, usize::MAX);
        let pieces = read(*count, rest, usize::from(*piece).max(1));
        assert_eq!(whole, pieces, "records mean the same in pieces of {piece}");
    },
    seeds: || {
        let mut talk = vec![3, 4];
        for (kind, content) in [
            (0, &b"hello"[..]),
            (1, &[24, 0, 0, 1, 1]),
            (0, b"with new keys"),
            (2, &[1, 0]),
        ] {
            talk.extend([kind, content.len() as u8]);
            talk.extend(content);
        }
        vec![
            talk,
            vec![1, 2, 1, 4, 24, 0, 0, 1, 1, 1, 0],
            vec![1, 3, 0, 0, 4, 3, b'x', 23, 0, 1, 3, 4, 0, 0, 0],
            vec![
                7, 0, 23, 3, 3, 0, 17, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17,
            ],
            vec![2, 1, 0, 1, b'x', 20, 3, 3, 0, 1, 1],
            vec![2, 0, 23, 3, 3, 0xff, 0xff],
        ]
    },
};

/// How a stream of records ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Waits,
    Closed,
    Failed,
}

#[derive(Default)]
struct Wire {
    incoming: Vec<u8>,
    at: usize,
    piece: usize,
    outgoing: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = &self.incoming[self.at..];
        let n = left.len().min(self.piece).min(buffer.len());
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer[..n].copy_from_slice(&left[..n]);
        self.at += n;
        Ok(n)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pair() -> Option<(Records, Records)> {
    let (client, server) = ([1; 32], [2; 32]);
    let ours = Records::new(Suite::Chacha20Poly1305, &client, &server)?;
    let theirs = Records::new(Suite::Chacha20Poly1305, &server, &client)?;
    Some((ours, theirs))
}

fn read(count: u8, mut bytes: &[u8], piece: usize) -> (Vec<u8>, End) {
    let Some((mut ours, mut theirs)) = pair() else {
        unreachable!("the secrets have the suite's length");
    };
    let mut wire = Wire {
        piece,
        ..Wire::default()
    };
    for _ in 0..count {
        let [kind, len, rest @ ..] = bytes else {
            break;
        };
        let (content, rest) = rest.split_at(rest.len().min(usize::from(*len)));
        bytes = rest;
        let kind = KINDS[usize::from(*kind) % KINDS.len()];
        if let Ok(record) = theirs.seal_any(kind, content) {
            wire.incoming.extend(record);
        }
    }
    wire.incoming.extend_from_slice(bytes);

    let mut buffer = vec![0; 64 * 1024];
    let mut said = Vec::new();
    let mut fault = None;
    let end = loop {
        match ours.read(&mut wire, &mut buffer) {
            Ok(0) => break End::Closed,
            Ok(n) => said.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break End::Waits,
            Err(error) => {
                fault = error
                    .get_ref()
                    .and_then(|cause| cause.downcast_ref::<Fault>())
                    .copied();
                break End::Failed;
            }
        }
        assert!(
            ours.held_bytes() <= HELD_BYTES_MAX,
            "what is kept is bounded by a record"
        );
    };
    let mut back = Wire {
        incoming: wire.outgoing,
        piece: usize::MAX,
        ..Wire::default()
    };
    let answer = theirs.read(&mut back, &mut buffer);
    if let (Some(alert), Err(error)) = (fault.and_then(Fault::alert), answer) {
        let told = error
            .get_ref()
            .and_then(|cause| cause.downcast_ref::<Fault>())
            .copied();
        assert_eq!(told, Some(Fault::PeerAlert(alert)), "the peer is told why");
    }
    (said, end)
}
