//! What is sent to a client, as bytes (pure).

use super::{
    refusal::Refusal,
    values::rows::{Block, Column, Format},
    values::time::Zone,
};
use bytes::{BufMut, BytesMut};

/// Whether a transaction is open, as every `ready` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transaction {
    None,
    Open,
    /// A statement of it failed: it can only be ended.
    Failed,
}

/// Bytes that are to be sent.
#[derive(Debug, Default)]
pub(super) struct Answers(pub(super) BytesMut);

impl Answers {
    /// A message without a body that could fail.
    fn put(&mut self, kind: u8, body: impl FnOnce(&mut BytesMut)) {
        let written = self.try_put(kind, |out| {
            body(out);
            Ok(())
        });
        // What is written here is far shorter than a length can say.
        debug_assert!(written.is_ok());
    }

    fn try_put(
        &mut self,
        kind: u8,
        body: impl FnOnce(&mut BytesMut) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let start = self.0.len();
        self.0.put_u8(kind);
        self.0.put_i32(0);
        let written = body(&mut self.0).and_then(|()| {
            i32::try_from(self.0.len() - start - 1).map_err(|_| Refusal::too_long())
        });
        match written {
            Ok(length) => {
                self.0[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
                Ok(())
            }
            Err(refusal) => {
                self.0.truncate(start);
                Err(refusal)
            }
        }
    }

    /// Which mechanisms there are to prove who one is.
    pub(super) fn ask_for_proof(&mut self, mechanism: &str) {
        self.put(b'R', |out| {
            out.put_u32(10);
            put_text(out, mechanism);
            out.put_u8(0);
        });
    }

    /// A step of a proof; the last one is the server's own.
    pub(super) fn step_of_proof(&mut self, step: &str, is_last: bool) {
        self.put(b'R', |out| {
            out.put_u32(if is_last { 12 } else { 11 });
            out.put_slice(step.as_bytes());
        });
    }

    pub(super) fn let_in(&mut self) {
        self.put(b'R', |out| out.put_u32(0));
    }

    /// The newest version of the protocol that is spoken, for a client that asked for a later one.
    pub(super) fn version(&mut self, unknown: &[&String]) {
        self.put(b'v', |out| {
            out.put_u32(3 << 16);
            out.put_u32(u32::try_from(unknown.len()).unwrap_or_default());
            for name in unknown {
                put_text(out, name);
            }
        });
    }

    pub(super) fn setting(&mut self, name: &str, value: &str) {
        self.put(b'S', |out| {
            put_text(out, name);
            put_text(out, value);
        });
    }

    /// By what the client may cancel.
    pub(super) fn cancel_key(&mut self, process: u32, secret: [u8; 4]) {
        self.put(b'K', |out| {
            out.put_u32(process);
            out.put_slice(&secret);
        });
    }

    pub(super) fn ready(&mut self, transaction: Transaction) {
        self.put(b'Z', |out| {
            out.put_u8(match transaction {
                Transaction::None => b'I',
                Transaction::Open => b'T',
                Transaction::Failed => b'E',
            });
        });
    }

    pub(super) fn refused(&mut self, refusal: &Refusal) {
        let severity = if refusal.is_fatal { "FATAL" } else { "ERROR" };
        let hint = refusal.hint.as_deref().map(|hint| (b'H', hint));
        let fields = [
            (b'S', severity),
            (b'V', severity),
            (b'C', refusal.code),
            (b'M', refusal.message.as_str()),
        ];
        self.put(b'E', |out| {
            for (kind, text) in fields.into_iter().chain(hint) {
                out.put_u8(kind);
                put_text(out, text);
            }
            out.put_u8(0);
        });
    }

    pub(super) fn parsed(&mut self) {
        self.put(b'1', |_| {});
    }

    pub(super) fn bound(&mut self) {
        self.put(b'2', |_| {});
    }

    pub(super) fn closed(&mut self) {
        self.put(b'3', |_| {});
    }

    pub(super) fn no_rows(&mut self) {
        self.put(b'n', |_| {});
    }

    pub(super) fn empty(&mut self) {
        self.put(b'I', |_| {});
    }

    pub(super) fn suspended(&mut self) {
        self.put(b's', |_| {});
    }

    pub(super) fn done(&mut self, tag: &str) {
        self.put(b'C', |out| put_text(out, tag));
    }

    pub(super) fn parameters(&mut self, oids: &[u32]) {
        self.put(b't', |out| {
            out.put_u16(u16::try_from(oids.len()).unwrap_or(u16::MAX));
            oids.iter().for_each(|oid| out.put_u32(*oid));
        });
    }

    /// # Errors
    /// There are more columns than the protocol can count.
    pub(super) fn columns(
        &mut self,
        columns: &[Column],
        formats: impl Fn(usize) -> Format,
    ) -> Result<(), Refusal> {
        let count = count_of(columns.len())?;
        self.put(b'T', |out| {
            out.put_i16(count);
            for (index, column) in columns.iter().enumerate() {
                put_text(out, &column.name);
                // No table and no place in it: a column may be anything.
                out.put_u32(0);
                out.put_i16(0);
                out.put_u32(column.kind.oid());
                out.put_i16(column.kind.size());
                out.put_i32(-1);
                out.put_i16(i16::from(formats(index) == Format::Binary));
            }
        });
        Ok(())
    }

    /// # Errors
    /// A value cannot be written, or is too long.
    pub(super) fn row(
        &mut self,
        (block, row): (&Block, usize),
        columns: usize,
        formats: impl Fn(usize) -> Format,
        zone: &Zone,
    ) -> Result<(), Refusal> {
        let count = count_of(columns)?;
        self.try_put(b'D', |out| {
            out.put_i16(count);
            block.write_row(row, formats, zone, out)
        })
    }
}

fn count_of(columns: usize) -> Result<i16, Refusal> {
    i16::try_from(columns).map_err(|_| Refusal::new("54011", "an answer has too many columns"))
}

/// A text that a zero byte ends, so it has none inside.
fn put_text(out: &mut BytesMut, text: &str) {
    out.put_slice(text.replace('\0', "\u{fffd}").as_bytes());
    out.put_u8(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_written_with_their_lengths() {
        let mut answers = Answers::default();
        answers.ready(Transaction::Failed);
        answers.done("SELECT 2");
        answers.parameters(&[20, 1700]);
        let expected = b"Z\0\0\0\x05EC\0\0\0\x0dSELECT 2\0t\0\0\0\x0e\0\x02\0\0\0\x14\0\0\x06\xa4";
        assert_eq!(answers.0, expected.as_slice());
    }

    #[test]
    fn an_error_says_its_state_and_hint_and_holds_no_zero_byte() {
        let mut answers = Answers::default();
        answers.refused(&Refusal::new("42P01", "no \0").with_hint("look"));
        let body = &answers.0[5..];
        let expected = "SERROR\0VERROR\0C42P01\0Mno \u{fffd}\0Hlook\0\0";
        assert_eq!(body, expected.as_bytes());
    }
}
