//! The body of an answer over HTTP/1.1, which comes in pieces: of a known length, in chunks, or until the connection ends.

use bytes::Bytes;

/// Longest line with the size of a chunk, bytes.
const LINE_BYTES_MAX: usize = 256;
/// Longest trailers, bytes.
const TRAILER_BYTES_MAX: usize = 16 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Wrong {
    /// It is longer than allowed.
    TooLarge,
    /// It is not HTTP.
    Malformed(&'static str),
    /// The connection did not last.
    Broken(std::io::Error),
}

impl From<std::io::Error> for Wrong {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// So many bytes, and nothing behind them.
    Rest(usize),
    /// Everything that comes.
    All,
    /// The line with a chunk's size.
    Size,
    /// So many bytes of a chunk.
    Chunk(usize),
    /// The end of the line behind a chunk.
    Gap,
    /// Trailers: so many bytes came.
    Trailers(usize),
    /// Nothing.
    Whole,
}

/// A body that is being read.
#[derive(Debug)]
pub(super) struct Body {
    bytes: Vec<u8>,
    bytes_max: usize,
    next: Next,
    /// A line that is not whole.
    line: Vec<u8>,
    delimited: bool,
}

impl Body {
    /// A body of this length.
    pub(super) fn of(length: usize, bytes_max: usize) -> Self {
        let next = if length == 0 {
            Next::Whole
        } else {
            Next::Rest(length)
        };
        Self::new(next, bytes_max, true)
    }

    /// A body in chunks (RFC 9112 section 7.1). `delimited`: the connection may be used behind it.
    pub(super) fn chunked(bytes_max: usize, delimited: bool) -> Self {
        Self::new(Next::Size, bytes_max, delimited)
    }

    /// A body that ends with its connection.
    pub(super) fn until_the_end(bytes_max: usize) -> Self {
        Self::new(Next::All, bytes_max, false)
    }

    fn new(next: Next, bytes_max: usize, delimited: bool) -> Self {
        Self {
            bytes: Vec::new(),
            bytes_max,
            next,
            line: Vec::new(),
            delimited,
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.next == Next::Whole
    }

    /// Whether its end was seen from the bytes alone, so that the connection can be used behind it.
    pub(super) fn is_delimited(&self) -> bool {
        self.delimited && self.is_whole()
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }

    /// The connection ended.
    pub(super) fn end(&self) -> Result<(), Wrong> {
        match self.next {
            Next::All | Next::Whole => Ok(()),
            _ => Err(Wrong::Malformed("the answer is incomplete")),
        }
    }

    /// Takes what belongs to it; how many bytes that are.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, Wrong> {
        let mut rest = bytes;
        while !self.is_whole() && !rest.is_empty() {
            match self.next {
                Next::Whole => {}
                Next::All => {
                    self.keep(rest)?;
                    rest = &[];
                }
                Next::Rest(left) | Next::Chunk(left) => {
                    let (piece, behind) = rest.split_at(left.min(rest.len()));
                    self.keep(piece)?;
                    rest = behind;
                    let left = left - piece.len();
                    self.next = match self.next {
                        Next::Rest(_) if left == 0 => Next::Whole,
                        Next::Rest(_) => Next::Rest(left),
                        _ if left == 0 => Next::Gap,
                        _ => Next::Chunk(left),
                    };
                }
                Next::Size | Next::Gap | Next::Trailers(_) => self.line_of(&mut rest)?,
            }
        }
        Ok(bytes.len() - rest.len())
    }

    fn keep(&mut self, piece: &[u8]) -> Result<(), Wrong> {
        if self.bytes.len() + piece.len() > self.bytes_max {
            return Err(Wrong::TooLarge);
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// Takes a line or a part of one.
    fn line_of(&mut self, rest: &mut &[u8]) -> Result<(), Wrong> {
        let malformed = Wrong::Malformed("the answer's chunks cannot be read");
        let end = rest.iter().position(|b| *b == b'\n');
        let (piece, behind) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
        *rest = behind;
        self.line.extend_from_slice(piece);
        let longest = match self.next {
            Next::Trailers(_) => TRAILER_BYTES_MAX,
            _ => LINE_BYTES_MAX,
        };
        if self.line.len() > longest {
            return Err(malformed);
        }
        if end.is_none() {
            return Ok(());
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.next = match self.next {
            Next::Gap if line.is_empty() => Next::Size,
            Next::Trailers(_) if line.is_empty() => Next::Whole,
            Next::Trailers(so_far) if so_far + line.len() <= TRAILER_BYTES_MAX => {
                // An empty line counts as well, or there could be endlessly many.
                Next::Trailers(so_far + line.len() + 1)
            }
            Next::Size => match size(line) {
                Some(0) => Next::Trailers(0),
                Some(size) if size <= self.bytes_max => Next::Chunk(size),
                Some(_) => return Err(Wrong::TooLarge),
                None => return Err(malformed),
            },
            _ => return Err(malformed),
        };
        self.line.clear();
        Ok(())
    }
}

/// The size of a chunk: hexadecimal digits, then perhaps extensions, which nobody has.
fn size(line: &[u8]) -> Option<usize> {
    let digits = line.split(|b| *b == b';').next()?.trim_ascii_end();
    let hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok().filter(|_| hex)?;
    // A number that is too large for this is too large.
    Some(usize::from_str_radix(text, 16).unwrap_or(usize::MAX))
}
