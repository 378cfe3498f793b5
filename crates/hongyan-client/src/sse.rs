//! The event stream format (HTML standard, server-sent events), read piece by piece.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Event {
    /// Its type; empty when it names none.
    pub(crate) name: String,
    /// Its data, lines joined by LF.
    pub(crate) data: String,
}

/// A line or an event is longer than this client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Reads a stream; what is incomplete waits for its rest.
#[derive(Debug)]
pub(crate) struct Parser {
    bytes_max: usize,
    line: Vec<u8>,
    /// The last byte was CR: a LF that follows belongs to it.
    after_cr: bool,
    first_line: bool,
    name: String,
    data: String,
    has_data: bool,
    retry_ms: Option<u64>,
}

impl Parser {
    /// Accepts lines and events of at most so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            line: Vec::new(),
            after_cr: false,
            first_line: true,
            name: String::new(),
            data: String::new(),
            has_data: false,
            retry_ms: None,
        }
    }

    /// The last `retry`, in milliseconds.
    pub(crate) fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// Reads on, and adds the events that are complete.
    pub(crate) fn read(
        &mut self,
        mut bytes: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), TooLong> {
        while let Some(&first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                bytes = bytes.get(1..).unwrap_or_default();
                continue;
            }
            let end = bytes.iter().position(|b| matches!(b, b'\n' | b'\r'));
            let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            if self.line.len() + part.len() > self.bytes_max {
                return Err(TooLong);
            }
            self.line.extend_from_slice(part);
            let Some((end, rest)) = rest.split_first() else {
                return Ok(());
            };
            self.after_cr = *end == b'\r';
            bytes = rest;
            let line = std::mem::take(&mut self.line);
            self.end_line(&line, events)?;
        }
        Ok(())
    }

    fn end_line(&mut self, mut line: &[u8], events: &mut Vec<Event>) -> Result<(), TooLong> {
        if std::mem::take(&mut self.first_line) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            let data = std::mem::take(&mut self.data);
            if std::mem::take(&mut self.has_data) {
                events.push(Event { name, data });
            }
            return Ok(());
        }
        let colon = line.iter().position(|b| *b == b':');
        let (field, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
        match field {
            b"data" => {
                if self.data.len() + value.len() > self.bytes_max {
                    return Err(TooLong);
                }
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(&value);
                self.has_data = true;
            }
            b"event" => self.name = value.into_owned(),
            b"retry" if value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retry_ms = value.parse().ok().or(self.retry_ms);
            }
            // `id` is not needed, as each message carries its cursor; comments and later fields are skipped.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> (Vec<Event>, Option<u64>) {
        let mut parser = Parser::new(1000);
        let mut events = Vec::new();
        for piece in pieces {
            parser.read(piece, &mut events).unwrap();
        }
        (events, parser.retry_ms())
    }

    fn event(name: &str, data: &str) -> Event {
        Event {
            name: name.into(),
            data: data.into(),
        }
    }

    #[test]
    fn fields_and_line_ends() {
        let check = |text: &str, want: &[Event]| {
            assert_eq!(read(&[text.as_bytes()]).0, want, "{text:?}");
        };
        check("data: a\n\n", &[event("", "a")]);
        check("\u{feff}event:x\rdata:  a\r\r", &[event("x", " a")]);
        check(
            "data: a\r\ndata\r\ndata:b\r\n\r\n: c\n\nevent: y\ndata: c\n\n",
            &[event("", "a\n\nb"), event("y", "c")],
        );
        // Without data there is no event, and its type does not stay.
        check("event: x\n\ndata: a\n\n", &[event("", "a")]);
        check("data: cut off\n", &[]);
        check("id: 7\nunknown: 1\ndata: a\n\n", &[event("", "a")]);
        assert_eq!(read(&[b"retry: 250\nretry: 7s\n\n"]), (vec![], Some(250)));
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut parser = Parser::new(10);
        let mut events = Vec::new();
        assert_eq!(parser.read(b"data: 12345", &mut events), Err(TooLong));
        let mut parser = Parser::new(10);
        let lines = b"data:12345\ndata:12345\ndata:12345\n";
        assert_eq!(parser.read(lines, &mut events), Err(TooLong));
        let mut parser = Parser::new(10);
        for _ in 0..1000 {
            parser.read(b": 12345\nid: 7\n", &mut events).unwrap();
        }
    }

    proptest::proptest! {
        #[test]
        fn any_cut_reads_the_same(
            lines in proptest::collection::vec("(data|event|retry|id|)(: ?| ?)[a-zé\u{10348}:0-9 ]{0,6}(\n|\r|\r\n|\n\n|\r\r|\r\n\r\n)", 0..20),
            cuts in proptest::collection::vec(0_usize..400, 0..12),
        ) {
            let whole = lines.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &whole[w[0]..w[1]]).collect();
            proptest::prop_assert_eq!(read(&pieces), read(&[&whole]));
        }

        #[test]
        fn any_bytes_do_no_harm(bytes: Vec<u8>) {
            let mut events = Vec::new();
            let _ = Parser::new(20).read(&bytes, &mut events);
        }
    }
}
