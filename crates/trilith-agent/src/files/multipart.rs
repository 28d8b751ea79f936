//! Takes the file out of a `multipart/form-data` body (RFC 7578) while it arrives.
//!
//! Knows one part, the first that is named `file`, and skips all others. Data is passed on as it
//! came, without copying, except around what might be a boundary.

use bytes::Bytes;
use memchr::memmem::Finder;

/// How long the head of a part may be, in bytes.
const HEAD: usize = 16 << 10;

/// The longest boundary that there may be (RFC 2046, section 5.1.1).
const BOUNDARY: usize = 70;

/// Why a body is not what it claims to be.
pub(super) type Malformed = &'static str;

/// A parser that is fed with the pieces of a body.
#[derive(Debug)]
pub(super) struct Multipart {
    /// What is before each part but the first: a line break, two hyphens, the boundary.
    delimiter: Finder<'static>,
    state: State,
    /// What cannot be decided yet.
    pending: Vec<u8>,
    found: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first part, or in one that is skipped.
    Skip,
    /// In the part that is wanted.
    File,
    /// Behind a delimiter.
    Delimiter,
    Head,
    Done,
}

impl Multipart {
    /// Returns a parser for a body with this `Content-Type`; `None` when it is of another kind.
    pub(super) fn new(content_type: &str) -> Option<Self> {
        let (kind, parameters) = content_type.split_once(';')?;
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let boundary = parameter(parameters, "boundary")?;
        if boundary.is_empty() || boundary.len() > BOUNDARY {
            return None;
        }
        let delimiter = format!("\r\n--{boundary}");
        Some(Self {
            delimiter: Finder::new(delimiter.as_bytes()).into_owned(),
            state: State::Skip,
            // The first delimiter needs no line break before it.
            pending: b"\r\n".to_vec(),
            found: false,
        })
    }

    /// Takes a piece of the body and returns the pieces of the file in it.
    pub(super) fn push(&mut self, piece: Bytes) -> Result<Vec<Bytes>, Malformed> {
        let mut rest = if self.pending.is_empty() {
            piece
        } else {
            let mut joined = std::mem::take(&mut self.pending);
            joined.extend_from_slice(&piece);
            joined.into()
        };
        let mut file = Vec::new();
        while !rest.is_empty() && self.state != State::Done {
            let taken = match self.state {
                State::Skip | State::File => self.take_data(&rest, &mut file),
                State::Delimiter => self.take_delimiter(&rest)?,
                State::Head => self.take_head(&rest)?,
                State::Done => rest.len(),
            };
            if taken == 0 {
                self.pending = rest.into();
                break;
            }
            rest = rest.slice(taken..);
        }
        Ok(file)
    }

    /// Checks that the body was complete and had the file.
    pub(super) fn finish(&self) -> Result<(), Malformed> {
        match (self.state, self.found) {
            (State::Done, true) => Ok(()),
            (State::Done, false) => Err("the body has no part named `file`"),
            _ => Err("the body is cut off"),
        }
    }

    /// Takes data to the next delimiter or what might be one; each of these returns how much it took.
    fn take_data(&mut self, rest: &Bytes, file: &mut Vec<Bytes>) -> usize {
        let found = self.delimiter.find(rest);
        let end = found.unwrap_or_else(|| rest.len() - self.partial(rest));
        if self.state == State::File && end > 0 {
            file.push(rest.slice(..end));
        }
        if found.is_none() {
            return end;
        }
        self.state = State::Delimiter;
        end + self.delimiter.needle().len()
    }

    /// Returns how many bytes at the end may be the beginning of a delimiter.
    fn partial(&self, rest: &[u8]) -> usize {
        let delimiter = self.delimiter.needle();
        let longest = rest.len().min(delimiter.len() - 1);
        let is_start = |length: &usize| rest.ends_with(&delimiter[..*length]);
        (1..=longest).rev().find(is_start).unwrap_or(0)
    }

    fn take_delimiter(&mut self, rest: &[u8]) -> Result<usize, Malformed> {
        if rest.starts_with(b"--") {
            self.state = State::Done;
            return Ok(2);
        }
        // White space may have been added on the way.
        let padding = rest.iter().take_while(|byte| b" \t".contains(byte)).count();
        match &rest[padding..] {
            [b'\r', b'\n', ..] => {
                self.state = State::Head;
                Ok(padding + 2)
            }
            [] | [b'\r'] if padding < HEAD => Ok(0),
            [b'-'] if padding == 0 => Ok(0),
            _ => Err("a boundary is not at the end of a line"),
        }
    }

    fn take_head(&mut self, rest: &[u8]) -> Result<usize, Malformed> {
        let end = memchr::memmem::find(rest, b"\r\n\r\n");
        let (head, taken) = match end {
            _ if rest.starts_with(b"\r\n") => (&rest[..0], 2),
            Some(end) if end <= HEAD => (&rest[..end], end + 4),
            None if rest.len() <= HEAD => return Ok(0),
            _ => return Err("the head of a part is too long"),
        };
        let wanted = !self.found && is_file(head);
        self.found |= wanted;
        self.state = if wanted { State::File } else { State::Skip };
        Ok(taken)
    }
}

/// Returns whether the head of a part says that it is named `file`.
fn is_file(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head);
    let value = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim()
            .eq_ignore_ascii_case("content-disposition")
            .then_some(value)
    });
    let parameters = value.and_then(|value| value.split_once(';'));
    parameters
        .and_then(|(_, rest)| parameter(rest, "name"))
        .as_deref()
        == Some("file")
}

/// Returns the parameter `wanted` of a list such as `a=b; c="d e"`.
fn parameter(list: &str, wanted: &str) -> Option<String> {
    let mut rest = list;
    loop {
        let (name, tail) = rest.split_once('=')?;
        let name = name.trim_matches([' ', '\t', ';']);
        let (value, tail) = if let Some(quoted) = tail.trim_start().strip_prefix('"') {
            unquote(quoted)?
        } else {
            let end = tail.find(';').unwrap_or(tail.len());
            (tail[..end].trim().to_owned(), &tail[end..])
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = tail;
    }
}

/// Reads a quoted string behind its first quote; returns it and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIND: &str = "multipart/form-data; charset=utf-8; boundary=\"x y\"";

    /// Feeds `body` in pieces of `size` and returns the file.
    fn parse(body: &[u8], size: usize) -> Result<Vec<u8>, Malformed> {
        let mut multipart = Multipart::new(KIND).unwrap();
        let mut file = Vec::new();
        for piece in body.chunks(size) {
            for data in multipart.push(Bytes::copy_from_slice(piece))? {
                file.extend_from_slice(&data);
            }
        }
        multipart.finish().map(|()| file)
    }

    fn form(file: &[u8]) -> Vec<u8> {
        let mut body = b"--x y\r\n\r\nno head\r\n--x y \t\r\nContent-Disposition: form-data; name=\"a\"\r\n\
            \r\nvalue\r\n--x y\r\ncontent-disposition: form-data; filename=\"q\\\"\"; name=\"file\"\r\n\
            Content-Type: text/plain\r\n\r\n"
            .to_vec();
        body.extend_from_slice(file);
        body.extend_from_slice(b"\r\n--x y--\r\nepilogue");
        body
    }

    #[test]
    fn kinds_are_told_apart() {
        assert!(Multipart::new(KIND).is_some());
        for kind in [
            "application/json",
            "multipart/mixed; boundary=x",
            "multipart/form-data",
            "multipart/form-data; boundary=\"",
            "multipart/form-data; boundary=",
        ] {
            assert!(Multipart::new(kind).is_none(), "{kind}");
        }
        let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
        assert!(Multipart::new(&long).is_none());
    }

    #[test]
    fn what_is_wrong_is_told() {
        let body = form(b"content");
        for (body, reason) in [
            (&body[..body.len() - 14], "the body is cut off"),
            (&b""[..], "the body is cut off"),
            (b"--x y--", "the body has no part named `file`"),
            (b"--x yz\r\n", "a boundary is not at the end of a line"),
            (
                &[&b"--x y\r\n"[..], &vec![b'a'; HEAD + 1]].concat(),
                "the head of a part is too long",
            ),
        ] {
            assert_eq!(parse(body, 1000), Err(reason));
        }
    }

    proptest! {
        #[test]
        fn files_come_out_as_they_went_in(
            parts in prop::collection::vec(
                prop_oneof![
                    Just(b"\r\n--x ".to_vec()),
                    Just(b"\r\n--".to_vec()),
                    Just(b"\r".to_vec()),
                    prop::collection::vec(any::<u8>(), 0..20),
                ],
                0..10,
            ),
            size in 1..64_usize,
        ) {
            let file = parts.concat();
            prop_assume!(memchr::memmem::find(&file, b"\r\n--x y").is_none());
            prop_assert_eq!(parse(&form(&file), size), Ok(file));
        }

        #[test]
        fn nothing_panics_or_depends_on_the_pieces(
            parts in prop::collection::vec(
                prop_oneof![
                    Just(b"\r\n--x y".to_vec()),
                    Just(b"--x y".to_vec()),
                    Just(b"\r\n\r\n".to_vec()),
                    Just(b"\r\n".to_vec()),
                    Just(b"--".to_vec()),
                    Just(b"content-disposition:f;name=file".to_vec()),
                    prop::collection::vec(any::<u8>(), 0..4),
                ],
                0..20,
            ),
            size in 1..9_usize,
            kind in "\\PC{0,30}",
        ) {
            let body = parts.concat();
            prop_assert_eq!(parse(&body, size), parse(&body, usize::MAX));
            let _ = Multipart::new(&format!("multipart/form-data;{kind}"));
        }
    }
}
