//! Server-sent events as they come: text lines into events. Follows the parsing rules of the HTML
//! standard ("event stream interpretation"), with bounds; never reconnects by itself.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// The server sends a comment at least every 15 s: a stream that is quiet for longer is dead.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Longest line and longest event, in bytes.
const EVENT_MAX: usize = 1 << 20;

/// The stream cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The connection ended in the middle.
    #[error("the stream broke off")]
    Broken(#[source] hyper::Error),
    /// Nothing came for too long.
    #[error("the stream has been silent for {} s", SILENCE_MAX.as_secs())]
    Silent,
    /// Larger than any event of the API.
    #[error("an event of more than {EVENT_MAX} bytes")]
    TooLarge,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Event {
    /// Its type; empty: `message`.
    pub(crate) kind: String,
    /// Its data, lines joined.
    pub(crate) data: String,
    /// The id that resumes behind it, where it has one.
    pub(crate) id: Option<String>,
}

/// The events of one response.
pub(crate) struct Events {
    body: Incoming,
    parser: Parser,
}

impl Events {
    pub(super) fn new(body: Incoming) -> Self {
        Self {
            body,
            parser: Parser::default(),
        }
    }

    /// The next event; none when the server ended the stream.
    ///
    /// # Errors
    /// The stream broke, fell silent, or is not one of events.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.parser.next()? {
                return Ok(Some(event));
            }
            let frame = tokio::time::timeout(SILENCE_MAX, self.body.frame()).await;
            match frame.map_err(|_| Error::Silent)? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.map_err(Error::Broken)?.into_data() {
                        self.parser.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

#[derive(Default)]
struct Parser {
    buffer: Vec<u8>,
    /// How much of the buffer has been read already.
    read: usize,
    event: Event,
    has_data: bool,
}

impl Parser {
    /// The next event that is complete in the buffer.
    fn next(&mut self) -> Result<Option<Event>, Error> {
        while let Some(length) = self.buffer[self.read..].iter().position(|b| *b == b'\n') {
            let line = &self.buffer[self.read..self.read + length];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = String::from_utf8_lossy(line).into_owned();
            self.read += length + 1;
            if let Some(event) = self.line(&line)? {
                return Ok(Some(event));
            }
        }
        self.buffer.drain(..self.read);
        self.read = 0;
        if self.buffer.len() > EVENT_MAX {
            return Err(Error::TooLarge);
        }
        Ok(None)
    }

    fn line(&mut self, line: &str) -> Result<Option<Event>, Error> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return Ok(std::mem::take(&mut self.has_data).then_some(event));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.kind),
            "id" if !value.contains('\0') => self.event.id = Some(value.to_owned()),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // Comments begin with a colon; other fields mean nothing here.
            _ => {}
        }
        if self.event.data.len() > EVENT_MAX {
            return Err(Error::TooLarge);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(chunks: &[&str]) -> Vec<Event> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for chunk in chunks {
            parser.buffer.extend_from_slice(chunk.as_bytes());
            while let Some(event) = parser.next().expect("small") {
                events.push(event);
            }
        }
        events
    }

    fn event(kind: &str, data: &str, id: Option<&str>) -> Event {
        Event {
            kind: kind.to_owned(),
            data: data.to_owned(),
            id: id.map(str::to_owned),
        }
    }

    #[test]
    fn events_are_whole_however_they_are_cut() {
        let text =
            ": hi\n\nid: 7\nevent: log\ndata: a\ndata:  b\n\nretry: 5\n\ndata\r\n\r\ndata: late";
        let wanted = vec![event("log", "a\n b", Some("7")), event("", "", None)];
        assert_eq!(parse(&[text]), wanted);
        let bytes: Vec<String> = text.chars().map(String::from).collect();
        let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
        assert_eq!(parse(&bytes), wanted);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut parser = Parser {
            buffer: vec![b'x'; EVENT_MAX + 1],
            ..Parser::default()
        };
        assert!(matches!(parser.next(), Err(Error::TooLarge)));
    }
}
