//! The way out of one connection: what waits to be written, and the socket below it.
//!
//! A queue exists only from the first frame of a turn until everything was taken by the kernel;
//! everything that is due leaves in one vectored write.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};

use bytes::Bytes;
use mio::net::TcpStream;

use crate::pipe::Pipe;
use crate::tls::Tls;
use crate::wheel::Tick;

/// Slices in one vectored write: far below the kernel's 1,024, as the array is on the stack.
const SLICES_MAX: usize = 128;
/// Own bytes beyond which frames get an allocation of their own, so that the area cannot grow
/// without end while a slow connection never empties it.
const OWN_BYTES_MAX: usize = 64 * 1024;
/// The end of a frame is copied up to this size: one piece is cheaper to write than two.
const COPIED_BYTES_MAX: usize = 1024;
/// Capacity with which a queue may go back to the pool.
const POOLED_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug)]
enum Text {
    Own { start: usize, end: usize },
    Shared(Bytes),
}

#[derive(Debug)]
struct Piece {
    bytes: Text,
    /// Whether a frame ends here.
    last: bool,
}

impl Piece {
    fn slice<'a>(&'a self, own: &'a [u8]) -> &'a [u8] {
        match &self.bytes {
            Text::Own { start, end } => &own[*start..*end],
            Text::Shared(bytes) => bytes,
        }
    }
}

/// Frames that wait for the socket.
#[derive(Debug, Default)]
pub(crate) struct Output {
    own: Vec<u8>,
    pieces: VecDeque<Piece>,
    /// Bytes of the front piece that were written.
    front: usize,
    /// The piece before the front was not the end of its frame.
    mid_frame: bool,
    bytes: usize,
    frames: usize,
    /// When bytes were last taken, once a write blocked.
    pub(crate) blocked_since: Option<Tick>,
}

impl Output {
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames that wait.
    pub(crate) fn frames(&self) -> usize {
        self.frames
    }

    /// Adds a frame that `write` appends.
    pub(crate) fn frame(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.own_piece(write, true);
    }

    /// Adds a frame whose end is shared.
    pub(crate) fn shared_frame(&mut self, write: impl FnOnce(&mut Vec<u8>), rest: Bytes) {
        if rest.len() <= COPIED_BYTES_MAX {
            self.frame(|out| {
                write(out);
                out.extend_from_slice(&rest);
            });
            return;
        }
        self.own_piece(write, false);
        self.bytes += rest.len();
        self.pieces.push_back(Piece {
            bytes: Text::Shared(rest),
            last: true,
        });
        self.frames += 1;
    }

    fn own_piece(&mut self, write: impl FnOnce(&mut Vec<u8>), last: bool) {
        let bytes = if self.own.len() < OWN_BYTES_MAX {
            let start = self.own.len();
            write(&mut self.own);
            Text::Own {
                start,
                end: self.own.len(),
            }
        } else {
            let mut bytes = Vec::new();
            write(&mut bytes);
            Text::Shared(bytes.into())
        };
        let piece = Piece { bytes, last };
        self.bytes += piece.slice(&self.own).len();
        self.frames += usize::from(last);
        self.pieces.push_back(piece);
    }

    /// Drops every frame but the one that is partly written.
    pub(crate) fn drop_waiting(&mut self) {
        let keep = if self.front > 0 || self.mid_frame {
            self.pieces
                .iter()
                .position(|piece| piece.last)
                .map_or(0, |end| end + 1)
        } else {
            0
        };
        self.pieces.truncate(keep);
        self.frames = usize::from(keep > 0);
        let left: usize = self
            .pieces
            .iter()
            .map(|piece| piece.slice(&self.own).len())
            .sum();
        self.bytes = left - self.front;
    }

    /// Writes what the socket takes; true when nothing is left.
    pub(crate) fn flush(&mut self, io: &mut Way) -> io::Result<bool> {
        while !self.pieces.is_empty() {
            let written = match self.whole() {
                Some(bytes) => io.write(bytes),
                None => self.write_pieces(io),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.written(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        io.finish()
    }

    /// All that waits, when it stands in one piece.
    fn whole(&self) -> Option<&[u8]> {
        let own = |piece: &Piece| match piece.bytes {
            Text::Own { start, end } => Some((start, end)),
            Text::Shared(_) => None,
        };
        let (start, mut to) = own(self.pieces.front()?)?;
        for piece in self.pieces.iter().skip(1) {
            // What was dropped still stands in the area, which is emptied only when no piece is left.
            let (next, end) = own(piece)?;
            if next != to {
                return None;
            }
            to = end;
        }
        self.own.get(start + self.front..to)
    }

    fn write_pieces(&self, io: &mut Way) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slot, piece) in slices.iter_mut().zip(&self.pieces) {
            let skip = if count == 0 { self.front } else { 0 };
            *slot = IoSlice::new(&piece.slice(&self.own)[skip..]);
            count += 1;
        }
        io.write_vectored(&slices[..count])
    }

    fn written(&mut self, mut n: usize) {
        self.bytes -= n.min(self.bytes);
        self.blocked_since = None;
        while let Some(piece) = self.pieces.front() {
            let left = piece.slice(&self.own).len() - self.front;
            if n < left {
                self.front += n;
                return;
            }
            n -= left;
            self.front = 0;
            self.mid_frame = !piece.last;
            self.frames -= usize::from(piece.last);
            self.pieces.pop_front();
        }
        self.own.clear();
    }

    /// Whether the emptied queue is small enough to be kept for another connection.
    pub(crate) fn recycle(&mut self) -> bool {
        self.own.clear();
        self.pieces.clear();
        self.front = 0;
        self.mid_frame = false;
        self.bytes = 0;
        self.frames = 0;
        self.blocked_since = None;
        self.own.capacity() <= POOLED_BYTES_MAX && self.pieces.capacity() <= SLICES_MAX
    }
}

/// Where the bytes of a connection go and come from.
#[derive(Debug)]
pub(crate) enum Way {
    /// A socket.
    Socket(Io),
    /// The body of an HTTP answer; `None` for a session whose answers are given in process. (One variant for both: so the
    /// socket's number says which it is, and two words are enough.)
    Pipe(Option<Pipe>),
}

impl Way {
    /// The socket, if it is one.
    pub(crate) fn socket(&mut self) -> Option<&mut Io> {
        match self {
            Self::Socket(io) => Some(io),
            Self::Pipe(_) => None,
        }
    }

    /// Whether a short read has taken all that came, and TLS has nothing to say of its own.
    pub(crate) fn is_drained(&self) -> bool {
        match self {
            Self::Socket(io) => io.is_drained(),
            Self::Pipe(_) => true,
        }
    }

    /// Reads plain bytes. `Ok(0)` is the end of the stream.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Socket(io) => io.read(buffer),
            Self::Pipe(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// The same as one slice; `send` costs less than `writev`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Socket(io) => io.write(bytes),
            Self::Pipe(_) => self.write_vectored(&[IoSlice::new(bytes)]),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Socket(io) => io.write_vectored(slices),
            Self::Pipe(Some(pipe)) => pipe.write_vectored(slices),
            Self::Pipe(None) => Ok(slices.iter().map(|slice| slice.len()).sum()),
        }
    }

    /// Writes what TLS still holds; true when nothing is left.
    pub(crate) fn finish(&mut self) -> io::Result<bool> {
        match self {
            Self::Socket(io) => io.finish(),
            Self::Pipe(_) => Ok(true),
        }
    }

    /// Says that nothing more is sent.
    pub(crate) fn shutdown(&mut self) {
        match self {
            Self::Socket(io) => io.shutdown(),
            Self::Pipe(Some(pipe)) => pipe.finish(),
            Self::Pipe(None) => {}
        }
    }
}

/// A socket, with TLS or without.
#[derive(Debug)]
pub(crate) struct Io {
    pub(crate) tcp: TcpStream,
    tls: Option<Box<Tls>>,
}

impl Io {
    /// To be called on the reactor's own thread: the box is made anew there, away from the memory that handshakes
    /// leave behind, of which it would otherwise hold on to a piece for as long as the connection lives.
    pub(crate) fn new(tcp: TcpStream, tls: Option<Box<Tls>>) -> Self {
        let tls = tls.map(|tls| Box::new(*tls));
        Self { tcp, tls }
    }

    /// Whether a short read has taken all that came, and nothing but what is queued has to be written: always so
    /// without TLS.
    pub(crate) fn is_drained(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.is_drained())
    }

    /// Reads plain bytes. `Ok(0)` is the end of the stream. With TLS the buffer has to be larger than a record.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => tls.read(&mut self.tcp, buffer),
            None => self.tcp.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => tls.write_vectored(&mut self.tcp, &[IoSlice::new(bytes)]),
            None => self.tcp.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => tls.write_vectored(&mut self.tcp, slices),
            None => self.tcp.write_vectored(slices),
        }
    }

    /// Writes what TLS still holds; true when nothing is left.
    pub(crate) fn finish(&mut self) -> io::Result<bool> {
        match &mut self.tls {
            Some(tls) => tls.finish(&mut self.tcp),
            None => Ok(true),
        }
    }

    /// Says that nothing more is sent.
    pub(crate) fn shutdown(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.close(&mut self.tcp);
        }
        let _ = self.tcp.shutdown(std::net::Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(output: &Output) -> Vec<u8> {
        let all: Vec<u8> = output
            .pieces
            .iter()
            .flat_map(|piece| piece.slice(&output.own).to_vec())
            .collect();
        all[output.front..].to_vec()
    }

    #[test]
    fn counts_what_waits() {
        let mut output = Output::default();
        output.frame(|out| out.extend_from_slice(b"one"));
        output.shared_frame(|out| out.extend_from_slice(b"tw"), Bytes::from_static(b"o"));
        assert_eq!((output.bytes(), output.frames()), (6, 2));
        output.written(4);
        assert_eq!(text(&output), b"wo");
        assert_eq!((output.bytes(), output.frames()), (2, 1));
        output.written(2);
        assert!(output.is_empty() && output.own.is_empty());
    }

    #[test]
    fn what_follows_in_one_area_is_one_piece() {
        let mut output = Output::default();
        assert_eq!(output.whole(), None);
        output.frame(|out| out.extend_from_slice(b"one"));
        output.shared_frame(|out| out.extend_from_slice(b"tw"), Bytes::from_static(b"o"));
        assert_eq!(output.whole(), Some(&b"onetwo"[..]));
        output.written(4);
        assert_eq!(output.whole(), Some(&b"wo"[..]));
        let long = Bytes::from(vec![b'x'; COPIED_BYTES_MAX + 1]);
        output.shared_frame(|out| out.extend_from_slice(b"y"), long);
        assert_eq!(output.whole(), None);
        assert_eq!(output.bytes(), 2 + 1 + COPIED_BYTES_MAX + 1);
        assert_eq!(text(&output).len(), output.bytes());
    }

    #[test]
    fn frames_that_were_dropped_are_not_sent_with_what_follows() {
        let mut output = Output::default();
        output.frame(|out| out.extend_from_slice(b"one"));
        output.frame(|out| out.extend_from_slice(b"dropped"));
        output.written(1);
        output.drop_waiting();
        assert_eq!(output.whole(), Some(&b"ne"[..]));
        output.frame(|out| out.extend_from_slice(b"close"));
        assert_eq!(text(&output), b"neclose");
        assert_eq!(output.bytes(), 7);
        assert_eq!(output.whole(), None, "it does not stand in one piece");
        output.written(2);
        assert_eq!(output.whole(), Some(&b"close"[..]));
    }

    #[test]
    fn only_a_frame_that_began_survives_a_close() {
        // As `shared_frame` does when the end is long.
        let fill = |written| {
            let mut output = Output::default();
            output.own_piece(|out| out.extend_from_slice(b"ab"), false);
            output.bytes += 2;
            output.frames += 1;
            output.pieces.push_back(Piece {
                bytes: Text::Shared(Bytes::from_static(b"cd")),
                last: true,
            });
            output.frame(|out| out.extend_from_slice(b"ef"));
            output.written(written);
            output.drop_waiting();
            assert_eq!(output.bytes(), text(&output).len());
            text(&output)
        };
        assert_eq!(fill(0), b"");
        assert_eq!(fill(1), b"bcd");
        assert_eq!(fill(2), b"cd");
        assert_eq!(fill(4), b"");
        assert_eq!(fill(5), b"f");
    }
}
