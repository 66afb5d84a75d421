//! What apps and builds wrote, as it may reach a terminal: letters, lines and, where they are wanted,
//! colours. Whatever else a terminal obeys (moving the cursor, its title, the clipboard) is left
//! out, since it is not the user who wrote it. Pure.

use std::borrow::Cow;

use anstyle_parse::{DefaultCharAccumulator, Params, Parser, Perform};

/// The end of all colours and weights.
const RESET: &str = "\x1b[0m";
/// The final letter of a sequence that only changes colour or weight.
const COLOUR: u8 = b'm';

/// `text` without control sequences; with `colours`, those that colour stay and end with the text.
pub(super) fn safe(text: &str, colours: bool) -> Cow<'_, str> {
    let is_obeyed = |c: char| c.is_control() && !is_kept(c);
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut parser = Parser::<DefaultCharAccumulator>::new();
    let mut written = Written {
        text: String::with_capacity(text.len()),
        colours,
        is_coloured: false,
    };
    for byte in text.bytes() {
        parser.advance(&mut written, byte);
    }
    if written.is_coloured {
        written.text.push_str(RESET);
    }
    Cow::Owned(written.text)
}

const fn is_kept(c: char) -> bool {
    matches!(c, '\n' | '\t')
}

struct Written {
    text: String,
    colours: bool,
    is_coloured: bool,
}

impl Perform for Written {
    fn print(&mut self, c: char) {
        // Some terminals obey the second set of controls, U+0080 to U+009F, too.
        if !c.is_control() {
            self.text.push(c);
        }
    }

    fn execute(&mut self, byte: u8) {
        let c = char::from(byte);
        if is_kept(c) {
            self.text.push(c);
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: u8) {
        if !self.colours || action != COLOUR || ignore || !intermediates.is_empty() {
            return;
        }
        let codes: Vec<String> = params
            .iter()
            .map(|param| {
                let parts: Vec<String> = param.iter().map(u16::to_string).collect();
                parts.join(":")
            })
            .collect();
        self.is_coloured = codes.last().is_some_and(|code| code != "0");
        self.text.push_str(&format!("\x1b[{}m", codes.join(";")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_stay_where_they_are_wanted_and_end_with_the_text() {
        let red = "a \x1b[1;31mred\x1b[0m b\tc\n\x1b[38;2;1;2;3md\x1b[m";
        assert_eq!(safe(red, false), "a red b\tc\nd");
        assert_eq!(
            safe(red, true),
            "a \x1b[1;31mred\x1b[0m b\tc\n\x1b[38;2;1;2;3md\x1b[0m"
        );
        assert_eq!(safe("\x1b[31mopen", true), "\x1b[31mopen\x1b[0m");
        assert_eq!(safe("\x1b[38:5:9mx", true), "\x1b[38:5:9mx\x1b[0m");
    }

    #[test]
    fn nothing_else_that_a_terminal_obeys_gets_through() {
        for obeyed in [
            "\x1b[2J",
            "\x1b[1A\x1b[2K",
            "\x1b[>4;2m",
            "\x1b]0;title\x07",
            "\x1b]52;c;cGFzdGU=\x1b\\",
            "\x1bP1$r\x1b\\",
            "\x1bc",
            "\u{9b}2J",
            "\r\x08\x07\x7f\0",
        ] {
            for colours in [false, true] {
                let text = format!("a{obeyed}ü");
                let left = safe(&text, colours);
                let expected = if obeyed.starts_with('\u{9b}') {
                    "a2Jü"
                } else {
                    "aü"
                };
                assert_eq!(left, expected, "{obeyed:?}");
            }
        }
        assert!(matches!(safe("plain ü\n\tx", false), Cow::Borrowed(_)));
        assert_eq!(safe("cut \x1b[3", true), "cut ");
    }
}
