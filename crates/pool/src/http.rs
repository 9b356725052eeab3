//! HTTP/1.1 heads as the pool's wires use them: parsed from what has arrived so far, and written.
//!
//! Keeps only those parts of a head that decide something. Ignores unknown headers, as the genuine
//! packages ignore ours. Refuses whatever could make two readers of one connection disagree about
//! where a body ends (a transfer coding, two lengths).

use std::fmt::Write as _;

use bytes::BytesMut;

use crate::limits::{MAXIMUM_HEAD_BYTES, MAXIMUM_HEADERS};

/// A refused head.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// Not HTTP/1.1.
    #[error("what arrived is not an HTTP/1.1 head: {0}")]
    Malformed(&'static str),
    /// Longer than the limit.
    #[error("the head is longer than {MAXIMUM_HEAD_BYTES} bytes or {MAXIMUM_HEADERS} lines")]
    TooLong,
    /// A header with an impossible value.
    #[error("the header '{0}' has a value that cannot be read")]
    Value(&'static str),
}

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// To deliver a message.
    Post,
    /// To ask something.
    Get,
    /// Nothing that we offer.
    Other,
}

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each stands for a header of its own")]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// Bytes of the body, if stated.
    pub content_length: Option<u64>,
    /// Whether the body has a transfer coding.
    pub transfer_coded: bool,
    /// Whether the body is compressed.
    pub content_coded: bool,
    /// Whether the sender waits for `100 Continue`.
    pub expects_continue: bool,
    /// Whether the connection ends after this request.
    pub close: bool,
    /// Whether a web browser sent it: it has a header that browsers add to the requests of web
    /// pages, and no pool sends.
    pub from_browser: bool,
    /// The port by which peers know the sender's own server.
    pub server_port: Option<u16>,
    /// The highest wire the sender speaks, or the body's.
    pub wire: Option<u8>,
    /// The sender's session.
    pub session_id: Option<u64>,
    /// The receiver's session as the sender knows it.
    pub peer_session_id: Option<u64>,
    /// The message's number in the sender's session.
    pub sequence_number: Option<u64>,
    /// All lower numbers are settled.
    pub floor: Option<u64>,
    /// Where in the body this continuation begins.
    pub offset: Option<u64>,
    /// The sender says goodbye.
    pub bye: bool,
}

/// The head of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status.
    pub status: u16,
    /// The reason phrase, for people.
    pub reason: String,
    /// Bytes of the body.
    pub content_length: u64,
    /// Whether the connection ends after this response.
    pub close: bool,
    /// The highest wire the responder speaks.
    pub wire: Option<u8>,
    /// The responder's session.
    pub session_id: Option<u64>,
    /// How much of a message the responder has.
    pub have: Option<Have>,
}

/// How much of a message has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Have {
    /// This many bytes of its body.
    Bytes(u64),
    /// All of it; it is delivered.
    All,
}

impl RequestHead {
    /// Reads a head from the beginning of `bytes`; also returns its length. `None` if more bytes
    /// are needed.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, HeadError> {
        let mut headers = [httparse::EMPTY_HEADER; MAXIMUM_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let Some(length) = complete(request.parse(bytes), bytes.len())? else { return Ok(None) };
        if request.version != Some(1) {
            return Err(HeadError::Malformed("the version is not 1.1"));
        }
        let mut head = Self {
            method: match request.method {
                Some("POST") => Method::Post,
                Some("GET") => Method::Get,
                _ => Method::Other,
            },
            content_length: None,
            transfer_coded: false,
            content_coded: false,
            expects_continue: false,
            close: false,
            from_browser: false,
            server_port: None,
            wire: None,
            session_id: None,
            peer_session_id: None,
            sequence_number: None,
            floor: None,
            offset: None,
            bye: false,
        };
        for header in request.headers.iter() {
            head.header(header.name, header.value)?;
        }
        Ok(Some((head, length)))
    }

    fn header(&mut self, name: &str, value: &[u8]) -> Result<(), HeadError> {
        // The first byte and the length distinguish nearly all names.
        match name.len() {
            6 if name.eq_ignore_ascii_case("cookie") => {
                if let Some(port) = server_port(value) {
                    self.server_port = Some(port);
                }
            }
            6 if name.eq_ignore_ascii_case("expect") => {
                self.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
            }
            10 if name.eq_ignore_ascii_case("connection") => {
                self.close = value.eq_ignore_ascii_case(b"close");
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                set_once(&mut self.content_length, decimal(value), "content-length")?;
            }
            16 if name.eq_ignore_ascii_case("content-encoding") => {
                self.content_coded |= !value.eq_ignore_ascii_case(b"identity");
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => self.transfer_coded = true,
            _ => {
                let Some(ours) = name.get(7..).filter(|_| is_ours(name)) else {
                    self.from_browser |= is_browsers(name);
                    return Ok(());
                };
                match ours {
                    _ if ours.eq_ignore_ascii_case("wire") => {
                        self.wire = Some(wire(value)?);
                    }
                    _ if ours.eq_ignore_ascii_case("epoch") => {
                        set_once(&mut self.session_id, hexadecimal(value), "x-pool-epoch")?;
                    }
                    _ if ours.eq_ignore_ascii_case("peer-epoch") => {
                        set_once(
                            &mut self.peer_session_id,
                            hexadecimal(value),
                            "x-pool-peer-epoch",
                        )?;
                    }
                    _ if ours.eq_ignore_ascii_case("nonce") => {
                        set_once(&mut self.sequence_number, decimal(value), "x-pool-nonce")?;
                    }
                    _ if ours.eq_ignore_ascii_case("floor") => {
                        set_once(&mut self.floor, decimal(value), "x-pool-floor")?;
                    }
                    _ if ours.eq_ignore_ascii_case("offset") => {
                        set_once(&mut self.offset, decimal(value), "x-pool-offset")?;
                    }
                    _ if ours.eq_ignore_ascii_case("bye") => self.bye = true,
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

impl ResponseHead {
    /// Reads a head from the beginning of `bytes`; also returns its length. `None` if more bytes
    /// are needed.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, HeadError> {
        let mut headers = [httparse::EMPTY_HEADER; MAXIMUM_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let Some(length) = complete(response.parse(bytes), bytes.len())? else { return Ok(None) };
        let mut close = response.version != Some(1);
        let (mut content_length, mut session_id) = (None, None);
        let (mut peer_wire, mut have, mut coded) = (None, None, false);
        for header in response.headers.iter() {
            let (name, value) = (header.name, header.value);
            if name.eq_ignore_ascii_case("content-length") {
                set_once(&mut content_length, decimal(value), "content-length")?;
            } else if name.eq_ignore_ascii_case("connection") {
                close |= value.eq_ignore_ascii_case(b"close");
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                coded = true;
            } else if name.eq_ignore_ascii_case("x-pool-wire") {
                peer_wire = Some(wire(value)?);
            } else if name.eq_ignore_ascii_case("x-pool-epoch") {
                set_once(&mut session_id, hexadecimal(value), "x-pool-epoch")?;
            } else if name.eq_ignore_ascii_case("x-pool-have") {
                have = Some(match value {
                    b"all" => Have::All,
                    _ => Have::Bytes(decimal(value).ok_or(HeadError::Value("x-pool-have"))?),
                });
            }
        }
        let status = response.code.unwrap_or_default();
        // Without a length, the body ends with the connection: the next response could not be
        // found.
        close |= coded || (content_length.is_none() && status >= 200);
        let head = Self {
            status,
            reason: response.reason.unwrap_or_default().chars().take(200).collect(),
            content_length: if coded { 0 } else { content_length.unwrap_or(0) },
            close,
            wire: peer_wire,
            session_id,
            have,
        };
        Ok(Some((head, length)))
    }
}

/// What makes a message on the second wire arrive exactly once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Numbering {
    pub(crate) session_id: u64,
    pub(crate) peer_session_id: Option<u64>,
    pub(crate) sequence_number: u64,
    pub(crate) floor: u64,
    pub(crate) offset: u64,
}

/// Writes the head of a request that delivers a message; with `ours` on the second wire.
pub(crate) fn write_post(
    out: &mut BytesMut,
    host: &str,
    server_port: u16,
    content_length: u64,
    ours: Option<Numbering>,
) {
    out.reserve(320);
    let kind = if ours.is_some() { "x-convelo-pool" } else { "octet-stream" };
    let _ = write!(
        out,
        "POST / HTTP/1.1\r\nHost: {host}\r\nCookie: server_port={server_port}\r\n\
         Content-Type: application/{kind}\r\nContent-Length: {content_length}\r\n"
    );
    if let Some(ours) = ours {
        let _ = write!(
            out,
            "x-pool-wire: 2\r\nx-pool-epoch: {:016x}\r\nx-pool-nonce: {}\r\nx-pool-floor: {}\r\n",
            ours.session_id, ours.sequence_number, ours.floor
        );
        if let Some(session_id) = ours.peer_session_id {
            let _ = write!(out, "x-pool-peer-epoch: {session_id:016x}\r\n");
        }
        if ours.offset > 0 {
            let _ = write!(out, "x-pool-offset: {}\r\n", ours.offset);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// What one of our GETs asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Are you there, and which wire do you speak?
    Wire,
    /// How much of this message do you have?
    Have(u64),
    /// Nothing: we are leaving.
    Bye,
}

/// Writes a GET.
pub(crate) fn write_get(
    out: &mut BytesMut,
    host: &str,
    server_port: u16,
    session_id: u64,
    question: Question,
) {
    let _ = write!(
        out,
        "GET / HTTP/1.1\r\nHost: {host}\r\nCookie: server_port={server_port}\r\nx-pool-wire: 2\r\n\
         x-pool-epoch: {session_id:016x}\r\n"
    );
    let _ = match question {
        Question::Wire => Ok(()),
        Question::Have(sequence_number) => write!(out, "x-pool-nonce: {sequence_number}\r\n"),
        Question::Bye => out.write_str("x-pool-bye: 1\r\n"),
    };
    out.extend_from_slice(b"\r\n");
}

/// An answer that is not 200.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) status: u16,
    pub(crate) text: String,
    pub(crate) have: Option<Have>,
}

impl Rejection {
    pub(crate) fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), have: None }
    }
}

/// Writes a rejection, which ends the connection.
pub(crate) fn write_rejection(out: &mut BytesMut, rejection: &Rejection, session_id: u64) {
    let Rejection { status, text, have } = rejection;
    write_response(out, *status, text, session_id, *have, true);
}

/// Writes a whole response. `text` is for people; with a status other than 200 it is also the
/// reason phrase, which is all that the genuine packages show.
pub(crate) fn write_response(
    out: &mut BytesMut,
    status: u16,
    text: &str,
    session_id: u64,
    have: Option<Have>,
    close: bool,
) {
    out.reserve(256);
    let reason = if status == 200 { "OK" } else { text };
    let _ = write!(
        out,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nx-pool-wire: 2\r\nx-pool-epoch: {session_id:016x}\r\n",
        text.len()
    );
    let _ = match have {
        None => Ok(()),
        Some(Have::All) => out.write_str("x-pool-have: all\r\n"),
        Some(Have::Bytes(bytes)) => write!(out, "x-pool-have: {bytes}\r\n"),
    };
    if status == 503 {
        out.extend_from_slice(b"Retry-After: 1\r\n");
    }
    if close {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(text.as_bytes());
}

fn complete(
    result: Result<httparse::Status<usize>, httparse::Error>,
    available: usize,
) -> Result<Option<usize>, HeadError> {
    match result {
        Ok(httparse::Status::Complete(length)) if length <= MAXIMUM_HEAD_BYTES => Ok(Some(length)),
        Ok(httparse::Status::Partial) if available < MAXIMUM_HEAD_BYTES => Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooLong),
        Err(httparse::Error::Version) => Err(HeadError::Malformed("the version is not 1.1")),
        Err(_) => Err(HeadError::Malformed("it does not follow the grammar")),
    }
}

/// `Sec-Fetch-Site` and its kin, and what older browsers send.
fn is_browsers(name: &str) -> bool {
    name.as_bytes().get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"sec-"))
        || ["origin", "referer", "accept-language"]
            .iter()
            .any(|browsers| name.eq_ignore_ascii_case(browsers))
}

fn is_ours(name: &str) -> bool {
    name.as_bytes().get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"x-pool-"))
}

fn set_once(
    slot: &mut Option<u64>,
    value: Option<u64>,
    name: &'static str,
) -> Result<(), HeadError> {
    let value = value.ok_or(HeadError::Value(name))?;
    if slot.replace(value).is_some_and(|before| before != value) {
        return Err(HeadError::Value(name));
    }
    Ok(())
}

/// Only digits: no sign, no spaces, at most 19 of them.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    value.iter().try_fold(0u64, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0'))
    })
}

fn hexadecimal(value: &[u8]) -> Option<u64> {
    if value.len() != 16 || !value.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(value).ok()?, 16).ok()
}

fn wire(value: &[u8]) -> Result<u8, HeadError> {
    decimal(value)
        .and_then(|number| u8::try_from(number).ok())
        .ok_or(HeadError::Value("x-pool-wire"))
}

/// The cookie `server_port`, with or without quotes.
fn server_port(value: &[u8]) -> Option<u16> {
    value.split(|byte| *byte == b';').find_map(|cookie| {
        let number = cookie.trim_ascii().strip_prefix(b"server_port=")?;
        let number = number.strip_prefix(b"\"").unwrap_or(number);
        let number = number.strip_suffix(b"\"").unwrap_or(number);
        decimal(number).and_then(|port| u16::try_from(port).ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<Option<(RequestHead, usize)>, HeadError> {
        RequestHead::parse(text.as_bytes())
    }

    #[test]
    fn a_request_of_the_genuine_package() {
        let text = "POST / HTTP/1.1\r\nHost: 127.0.0.1:8061\r\nCookie: server_port=8062\r\n\
                    Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nUser-Agent: Python/3.11 \
                    aiohttp/3.14.5\r\nContent-Length: 14\r\nContent-Type: \
                    application/octet-stream\r\n\r\n82a6";
        let (head, length) = request(text).unwrap().unwrap();
        assert_eq!(length, text.len() - 4);
        assert_eq!(head.method, Method::Post);
        assert_eq!((head.content_length, head.server_port), (Some(14), Some(8062)));
        assert!(!head.close && !head.content_coded && !head.transfer_coded);
        assert_eq!((head.wire, head.session_id, head.sequence_number), (None, None, None));
    }

    #[test]
    fn a_request_of_ours_is_read_as_it_was_written() {
        let mut out = BytesMut::new();
        let ours = Numbering {
            session_id: 7,
            peer_session_id: Some(8),
            sequence_number: 9,
            floor: 3,
            offset: 1 << 40,
        };
        write_post(&mut out, "bob:80", 8061, 1 << 41, Some(ours));
        let (head, length) = RequestHead::parse(&out).unwrap().unwrap();
        assert_eq!(length, out.len());
        assert_eq!((head.session_id, head.peer_session_id), (Some(7), Some(8)));
        assert_eq!(
            (head.sequence_number, head.floor, head.offset),
            (Some(9), Some(3), Some(1 << 40))
        );
        assert_eq!((head.wire, head.content_length), (Some(2), Some(1 << 41)));
        out.clear();
        write_get(&mut out, "bob", 1, 5, Question::Bye);
        let (head, _) = RequestHead::parse(&out).unwrap().unwrap();
        assert!(head.bye && head.method == Method::Get);
    }

    #[test]
    fn a_response_of_ours_is_read_as_it_was_written() {
        let mut out = BytesMut::new();
        write_response(&mut out, 409, "not here", 5, Some(Have::Bytes(77)), true);
        let (head, length) = ResponseHead::parse(&out).unwrap().unwrap();
        assert_eq!(&out[length..], b"not here");
        assert_eq!((head.status, head.reason.as_str()), (409, "not here"));
        assert_eq!((head.content_length, head.close), (8, true));
        assert_eq!(
            (head.wire, head.session_id, head.have),
            (Some(2), Some(5), Some(Have::Bytes(77)))
        );
    }

    #[test]
    fn every_beginning_of_a_head_waits_for_more() {
        let text = "POST / HTTP/1.1\r\nContent-Length: 14\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(request(&text[..end]).unwrap(), None, "{end}");
        }
    }

    #[test]
    fn two_lengths_are_refused() {
        let text = "POST / HTTP/1.1\r\nContent-Length: 14\r\nContent-Length: 15\r\n\r\n";
        assert_eq!(request(text), Err(HeadError::Value("content-length")));
        for value in ["-1", "+1", "1e3", "0x10", "", "99999999999999999999", "1, 1"] {
            let text = format!("POST / HTTP/1.1\r\nContent-Length: {value}\r\n\r\n");
            assert_eq!(request(&text), Err(HeadError::Value("content-length")), "{value}");
        }
    }

    #[test]
    fn codings_are_seen() {
        let text = "POST / HTTP/1.1\r\ntransfer-ENCODING: chunked\r\n\r\n";
        assert!(request(text).unwrap().unwrap().0.transfer_coded);
        let text = "POST / HTTP/1.1\r\nContent-Encoding: deflate\r\n\r\n";
        assert!(request(text).unwrap().unwrap().0.content_coded);
    }

    #[test]
    fn requests_of_web_pages_are_recognised() {
        for name in ["Origin", "sec-fetch-site", "SEC-FETCH-MODE", "Sec-CH-UA", "referer"] {
            let text = format!("POST / HTTP/1.1\r\n{name}: null\r\nContent-Length: 1\r\n\r\n");
            assert!(request(&text).unwrap().unwrap().0.from_browser, "{name}");
        }
        let pools = "POST / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n\
                     User-Agent: Python/3.11 aiohttp/3.9\r\nSecond: 2\r\nOriginal: 1\r\n\r\n";
        assert!(!request(pools).unwrap().unwrap().0.from_browser);
    }

    #[test]
    fn an_endless_head_is_refused() {
        let text = format!("POST / HTTP/1.1\r\nA: {}", "a".repeat(MAXIMUM_HEAD_BYTES));
        assert_eq!(request(&text), Err(HeadError::TooLong));
        let text = format!("POST / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAXIMUM_HEADERS + 1));
        assert_eq!(request(&text), Err(HeadError::TooLong));
    }

    #[test]
    fn other_protocols_are_refused() {
        for text in ["\x16\x03\x01\x02\0\x01\0", "PRI * HTTP/2.0\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"]
        {
            assert!(matches!(request(text), Err(HeadError::Malformed(_))), "{text:?}");
        }
    }
}
