//! Frames of a shell as WebSocket messages: a byte that tells the kind, then what it holds. Binary
//! messages only. See `skep_model::shell` for what they mean and how much may be sent.

use skep_model::shell::{DATA_MAX_BYTES, Frame, Size};

/// Largest message: the data of one frame, or a problem with all its words.
pub const MESSAGE_MAX_BYTES: usize = DATA_MAX_BYTES + (32 << 10);

const DATA: u8 = 0;
const STDERR: u8 = 1;
const EOF: u8 = 2;
const RESIZE: u8 = 3;
const GRANT: u8 = 4;
const OPENED: u8 = 5;
const EXIT: u8 = 6;
const PROBLEM: u8 = 7;

/// A message that is no frame.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// Nothing in it.
    #[error("the message is empty")]
    Empty,
    /// The first byte is none of those that are known.
    #[error("there is no frame of the kind {0}")]
    Kind(u8),
    /// Too short or too long for its kind.
    #[error("a frame of the kind {0} has another length")]
    Length(u8),
    /// Not the JSON that belongs there.
    #[error("a frame of the kind {kind} holds no such JSON")]
    Json {
        /// Which.
        kind: u8,
        /// Why.
        source: serde_json::Error,
    },
}

/// A frame as a message.
pub fn encode(frame: &Frame) -> Vec<u8> {
    match frame {
        Frame::Data(data) => tagged(DATA, data),
        Frame::Stderr(data) => tagged(STDERR, data),
        Frame::Eof => vec![EOF],
        Frame::Resize(size) => {
            let [a, b] = size.columns.to_be_bytes();
            let [c, d] = size.rows.to_be_bytes();
            vec![RESIZE, a, b, c, d]
        }
        Frame::Grant(bytes) => tagged(GRANT, &bytes.to_be_bytes()),
        Frame::Opened(opened) => json(OPENED, opened),
        Frame::Exit(code) => tagged(EXIT, &code.to_be_bytes()),
        Frame::Problem(problem) => json(PROBLEM, problem),
    }
}

fn tagged(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(1 + rest.len());
    message.push(kind);
    message.extend_from_slice(rest);
    message
}

fn json(kind: u8, value: &impl serde::Serialize) -> Vec<u8> {
    let text = serde_json::to_vec(value).expect("plain data with text keys");
    tagged(kind, &text)
}

/// A message as a frame.
///
/// # Errors
/// It is none.
pub fn decode(message: &[u8]) -> Result<Frame, Malformed> {
    let (&kind, rest) = message.split_first().ok_or(Malformed::Empty)?;
    let wrong = |_| Malformed::Length(kind);
    let odd = |source| Malformed::Json { kind, source };
    Ok(match kind {
        DATA | STDERR if rest.len() > DATA_MAX_BYTES => return Err(Malformed::Length(kind)),
        DATA => Frame::Data(rest.to_vec()),
        STDERR => Frame::Stderr(rest.to_vec()),
        EOF if rest.is_empty() => Frame::Eof,
        RESIZE => {
            let [a, b, c, d] = <[u8; 4]>::try_from(rest).map_err(wrong)?;
            Frame::Resize(Size {
                columns: u16::from_be_bytes([a, b]),
                rows: u16::from_be_bytes([c, d]),
            })
        }
        GRANT => Frame::Grant(u32::from_be_bytes(rest.try_into().map_err(wrong)?)),
        OPENED => Frame::Opened(serde_json::from_slice(rest).map_err(odd)?),
        EXIT => Frame::Exit(i32::from_be_bytes(rest.try_into().map_err(wrong)?)),
        PROBLEM => Frame::Problem(serde_json::from_slice(rest).map_err(odd)?),
        EOF => return Err(Malformed::Length(kind)),
        kind => return Err(Malformed::Kind(kind)),
    })
}

#[cfg(test)]
mod tests {
    use skep_model::id::AllocationId;
    use skep_model::problem::{Code, Problem};
    use skep_model::shell::Opened;

    use super::*;

    /// Clients in other languages rely on every byte of these.
    #[test]
    fn the_messages_are_the_documented_ones() {
        let size = Size {
            columns: 258,
            rows: 3,
        };
        for (frame, message) in [
            (Frame::Data(vec![7, 0, 255]), &[0, 7, 0, 255][..]),
            (Frame::Stderr(b"x".to_vec()), b"\x01x"),
            (Frame::Eof, &[2]),
            (Frame::Resize(size), &[3, 1, 2, 0, 3]),
            (Frame::Grant(65_536), &[4, 0, 1, 0, 0]),
            (Frame::Exit(-1), &[6, 255, 255, 255, 255]),
        ] {
            assert_eq!(encode(&frame), message);
            assert_eq!(decode(message).expect("one"), frame);
        }
        let opened = Opened {
            allocation: AllocationId::from_u128(7),
            node: "n1".into(),
            name: Some("etc".into()),
        };
        let problem = Problem::new(Code::Busy, "full").hint("wait");
        for frame in [Frame::Opened(opened), Frame::Problem(problem)] {
            assert_eq!(decode(&encode(&frame)).expect("one"), frame);
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let long = vec![0; DATA_MAX_BYTES + 2];
        for message in [
            &[][..],
            &[2, 0],
            &[3, 1, 2, 0],
            &[4, 0, 1, 0, 0, 0],
            &[5, b'{'],
            &[6],
            &[7],
            &[8, 1],
            &long,
        ] {
            assert!(
                decode(message).is_err(),
                "{:?}",
                &message[..message.len().min(9)]
            );
        }
    }
}
