//! UTF-8, checked as bytes arrive: a bad sequence is seen at its first impossible byte, not at
//! the end of the message (RFC 6455 section 8.1, Unicode table 3-7).

/// State between two chunks: the bytes of a character that is not complete yet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Utf8 {
    pending: [u8; 4],
    pending_len: u8,
}

impl Utf8 {
    /// Checks the next bytes of the text.
    ///
    /// # Errors
    /// No continuation can make the text so far valid.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), ()> {
        while self.pending_len > 0 {
            let Some((first, rest)) = bytes.split_first() else {
                return Ok(());
            };
            bytes = rest;
            let length = usize::from(self.pending_len);
            self.pending[length] = *first;
            match std::str::from_utf8(&self.pending[..=length]) {
                Ok(_) => self.pending_len = 0,
                Err(error) if error.error_len().is_some() => return Err(()),
                // A character has at most four bytes, so a fourth one always decides.
                Err(_) => self.pending_len += 1,
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_some() => Err(()),
            Err(error) => {
                let tail = &bytes[error.valid_up_to()..];
                self.pending[..tail.len()].copy_from_slice(tail);
                self.pending_len = tail.len() as u8;
                Ok(())
            }
        }
    }

    /// Says whether the text may end here.
    pub(super) fn is_complete(self) -> bool {
        self.pending_len == 0
    }
}
