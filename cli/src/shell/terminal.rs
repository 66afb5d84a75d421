//! The user's terminal while something else has it: every key passes as it is typed. It is given back
//! as it was, whatever ends this process short of SIGKILL.

use std::io::{self, IsTerminal as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use skep_model::shell::Size;

/// Where it has no size.
const DEFAULT: Size = Size {
    columns: 80,
    rows: 24,
};

/// The terminal, taken. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Taken {
    before: Termios,
}

/// Whether stdin is a terminal.
pub(crate) fn is_there() -> bool {
    io::stdin().is_terminal()
}

/// The size of the terminal.
pub(crate) fn size() -> Size {
    // Where input is piped, output may still be one.
    let found = tcgetwinsize(io::stdin()).or_else(|_| tcgetwinsize(io::stdout()));
    match found {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => Size {
            columns: size.ws_col,
            rows: size.ws_row,
        },
        _ => DEFAULT,
    }
}

impl Taken {
    /// Takes it for a program at the other end: it alone says what a key means.
    ///
    /// # Errors
    /// stdin is no terminal.
    pub(crate) fn wholly() -> io::Result<Self> {
        Self::with(Termios::make_raw)
    }

    /// Takes it to see each key at once; those that end a program do so, and output is as ever.
    ///
    /// # Errors
    /// stdin is no terminal.
    pub(crate) fn for_keys() -> io::Result<Self> {
        Self::with(|modes| {
            modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::IEXTEN;
            // ctrl-q would let output go on, and not be seen.
            modes.input_modes -= rustix::termios::InputModes::IXON;
        })
    }

    fn with(change: impl FnOnce(&mut Termios)) -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut modes = before.clone();
        change(&mut modes);
        tcsetattr(io::stdin(), OptionalActions::Drain, &modes)?;
        give_back_on_panic(before.clone());
        Ok(Self { before })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        give_back(&self.before);
    }
}

fn give_back(before: &Termios) {
    // One that is gone needs nothing.
    let _ = tcsetattr(io::stdin(), OptionalActions::Drain, before);
}

/// A panic may end the process without dropping anything, and its message should be readable.
fn give_back_on_panic(before: Termios) {
    let next = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        give_back(&before);
        next(panic);
    }));
}
