//! What a client sends, read from its bytes (pure). Nothing is taken for granted: a length, a count or a text that is not as the
//! protocol has it is an error, and no message is larger than it may be.

use super::refusal::Refusal;
use bytes::Bytes;
use std::collections::BTreeMap;

/// The first message of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// Asks for TLS.
    Tls,
    /// Asks for encryption by Kerberos.
    Gss,
    /// Cancels what another connection waits for.
    Cancel { process: u32, secret: Vec<u8> },
    /// Begins: `user`, `database` and settings.
    Startup {
        minor: u16,
        parameters: BTreeMap<String, String>,
    },
}

/// A message of a client that was let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    Query(String),
    Parse {
        name: String,
        sql: String,
        types: Vec<u32>,
    },
    Bind(Bind),
    Describe(Named),
    Execute {
        portal: String,
        rows_max: Option<usize>,
    },
    Close(Named),
    Flush,
    Sync,
    Terminate,
    /// A part of an answer to COPY, which is passed over.
    Copy,
}

/// Values for a statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bind {
    pub(super) portal: String,
    pub(super) statement: String,
    pub(super) formats: Vec<i16>,
    pub(super) values: Vec<Option<Bytes>>,
    pub(super) result_formats: Vec<i16>,
}

/// What has a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    Statement(String),
    Portal(String),
}

const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
const CANCEL: u32 = 80_877_102;

/// Reads the first message, without the length before it.
///
/// # Errors
/// It is none, or of another protocol than the third.
pub(super) fn opening(body: &[u8]) -> Result<Opening, Refusal> {
    let mut reader = Reader(body);
    let code = reader.u32()?;
    let opening = match code {
        TLS => Opening::Tls,
        GSS => Opening::Gss,
        CANCEL => {
            let process = reader.u32()?;
            let secret = reader.rest().to_vec();
            return Ok(Opening::Cancel { process, secret });
        }
        version if version >> 16 == 3 => {
            let mut parameters = BTreeMap::new();
            loop {
                let name = reader.text()?;
                if name.is_empty() {
                    break;
                }
                parameters.insert(name, reader.text()?);
            }
            Opening::Startup {
                minor: u16::try_from(version & 0xFFFF).unwrap_or(u16::MAX),
                parameters,
            }
        }
        version => {
            let (major, minor) = (version >> 16, version & 0xFFFF);
            return Err(Refusal::protocol(format!(
                "version {major}.{minor} of the protocol is not spoken; speak 3.0"
            )));
        }
    };
    reader.end()?;
    Ok(opening)
}

/// What a client answers when its password is asked for.
///
/// # Errors
/// It is another message.
pub(super) fn password(kind: u8, body: &[u8]) -> Result<&[u8], Refusal> {
    match kind {
        b'p' => Ok(body),
        other => Err(Refusal::protocol(format!(
            "message `{}` came in place of a password",
            other.escape_ascii()
        ))),
    }
}

/// The first answer to SASL: the mechanism, and what it begins with.
///
/// # Errors
/// It is not as the protocol has it.
pub(super) fn sasl_initial(body: &[u8]) -> Result<(String, &[u8]), Refusal> {
    let mut reader = Reader(body);
    let mechanism = reader.text()?;
    let length = usize::try_from(reader.u32()?).map_err(|_| cut())?;
    let data = reader.take(length)?;
    reader.end()?;
    Ok((mechanism, data))
}

/// Reads a message.
///
/// # Errors
/// There is no such message, or its body is not as the protocol has it.
pub(super) fn message(kind: u8, body: &[u8]) -> Result<Message, Refusal> {
    let mut reader = Reader(body);
    let message = match kind {
        b'Q' => Message::Query(reader.text()?),
        b'P' => Message::Parse {
            name: reader.text()?,
            sql: reader.text()?,
            types: reader.list(Reader::u32)?,
        },
        b'B' => Message::Bind(Bind {
            portal: reader.text()?,
            statement: reader.text()?,
            formats: reader.list(Reader::i16)?,
            values: reader.list(Reader::value)?,
            result_formats: reader.list(Reader::i16)?,
        }),
        b'D' => Message::Describe(reader.named()?),
        b'E' => {
            let portal = reader.text()?;
            let most = usize::try_from(reader.u32()?.cast_signed()).ok();
            Message::Execute {
                portal,
                // Zero and less stand for all.
                rows_max: most.filter(|most| *most > 0),
            }
        }
        b'C' => Message::Close(reader.named()?),
        b'H' => Message::Flush,
        b'S' => Message::Sync,
        b'X' => Message::Terminate,
        b'd' | b'c' | b'f' => return Ok(Message::Copy),
        other => {
            return Err(Refusal::protocol(format!(
                "there is no message `{}`",
                other.escape_ascii()
            )));
        }
    };
    reader.end()?;
    Ok(message)
}

/// What is left of a message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(cut)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], Refusal> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(cut)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, Refusal> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn i16(&mut self) -> Result<i16, Refusal> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    /// A text that a zero byte ends.
    fn text(&mut self) -> Result<String, Refusal> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or_else(cut)?;
        let text = self.take(end)?;
        self.take(1)?;
        let text = str::from_utf8(text).map_err(|_| {
            let message = "a text is not UTF-8, the only encoding that is spoken";
            Refusal::new("22021", message).fatal()
        })?;
        Ok(text.to_owned())
    }

    /// So many elements as their count says, which is not believed: no room is made for them before they are there.
    fn list<T>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, Refusal>,
    ) -> Result<Vec<T>, Refusal> {
        let count = u16::from_be_bytes(self.array()?);
        (0..count).map(|_| read(self)).collect()
    }

    /// A value after its length; -1 stands for NULL.
    fn value(&mut self) -> Result<Option<Bytes>, Refusal> {
        let length = self.u32()?.cast_signed();
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| cut())?;
        Ok(Some(Bytes::copy_from_slice(self.take(length)?)))
    }

    fn named(&mut self) -> Result<Named, Refusal> {
        let [kind] = self.array()?;
        let name = self.text()?;
        match kind {
            b'S' => Ok(Named::Statement(name)),
            b'P' => Ok(Named::Portal(name)),
            _ => Err(Refusal::protocol(
                "a name is neither of a statement nor of a portal",
            )),
        }
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn end(&self) -> Result<(), Refusal> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Refusal::protocol("a message is longer than what is in it")),
        }
    }
}

fn cut() -> Refusal {
    Refusal::protocol("a message is shorter than what is in it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_read_as_the_protocol_has_them() {
        let startup = b"\0\x03\0\0user\0ada\0database\0x\0\0";
        let parameters = [("database", "x"), ("user", "ada")];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(
            opening(startup).unwrap(),
            Opening::Startup {
                minor: 0,
                parameters: BTreeMap::from(parameters)
            }
        );
        assert_eq!(opening(&TLS.to_be_bytes()).unwrap(), Opening::Tls);
        let cancel = [&CANCEL.to_be_bytes()[..], &[0, 0, 0, 9], b"abcd"].concat();
        let secret = b"abcd".to_vec();
        assert_eq!(
            opening(&cancel).unwrap(),
            Opening::Cancel { process: 9, secret }
        );
        assert_eq!(
            message(b'Q', b"SELECT 1\0").unwrap(),
            Message::Query("SELECT 1".into())
        );
        let parse = message(b'P', b"s\0SELECT $1\0\0\x01\0\0\0\x17").unwrap();
        let expected = Message::Parse {
            name: "s".into(),
            sql: "SELECT $1".into(),
            types: vec![23],
        };
        assert_eq!(parse, expected);
        let bind = b"\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\0";
        let expected = Message::Bind(Bind {
            portal: String::new(),
            statement: "s".into(),
            formats: vec![1],
            values: vec![Some("x".into()), None],
            result_formats: vec![],
        });
        assert_eq!(message(b'B', bind).unwrap(), expected);
        for (most, rows_max) in [(0_i32, None), (-5, None), (5, Some(5))] {
            let body = [b"\0".as_slice(), &most.to_be_bytes()].concat();
            let expected = Message::Execute {
                portal: String::new(),
                rows_max,
            };
            assert_eq!(message(b'E', &body).unwrap(), expected);
        }
        assert_eq!(
            sasl_initial(b"M\0\0\0\0\x02ab").unwrap(),
            ("M".to_owned(), b"ab".as_slice())
        );
    }

    #[test]
    fn what_is_cut_or_goes_on_or_is_unknown_is_refused() {
        for (kind, body) in [
            (b'Q', b"SELECT 1".as_slice()),
            (b'Q', b"SELECT 1\0x"),
            (b'Q', b"\xff\0"),
            (b'P', b"\0\0\xff\xff"),
            (b'B', b"\0\0\0\0\xff\xff\xff\xff\xff\xff"),
            (b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
            (b'D', b"X\0"),
            (b'D', b""),
            (b'E', b"\0\0"),
            (b'S', b"x"),
            (b'?', b""),
        ] {
            let refusal = message(kind, body).unwrap_err();
            assert!(refusal.is_fatal, "{body:?}");
        }
        for body in [
            b"".as_slice(),
            b"\0\x02\0\0",
            b"\0\x03\0\0user",
            b"\0\x03\0\0user\0x\0\0more",
        ] {
            assert!(opening(body).unwrap_err().is_fatal, "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_refused(kind: u8, body: Vec<u8>) {
            let _ = message(kind, &body);
            let _ = opening(&body);
            let _ = sasl_initial(&body);
        }
    }
}
