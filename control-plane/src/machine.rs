//! The replicated state as the state machine that consensus drives.

use skep_state::{Answer, Applied, Change, State};

use crate::consensus::StateMachine;

/// The state, and nothing else: rules live in `skep-state`.
#[derive(Debug, Default)]
pub struct Machine {
    state: State,
    /// Set by a command that a newer version wrote.
    halted: Option<String>,
}

impl StateMachine for Machine {
    type View = State;
    type Outcome = Answer;
    type Change = Change;

    fn apply(&mut self, index: u64, command: &[u8]) -> (Answer, Vec<Change>) {
        let Applied {
            outcome,
            repeat,
            changes,
            is_newer,
        } = self.state.apply(index, command);
        if is_newer {
            self.halted = outcome.as_ref().err().map(ToString::to_string);
        }
        (Answer { outcome, repeat }, changes)
    }

    fn halted(&self) -> Option<String> {
        self.halted.clone()
    }

    fn view(&self) -> State {
        self.state.clone()
    }

    fn encode(view: &State) -> Vec<u8> {
        view.encode()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        // Others read the old state until the new one is whole: what is equal exists once.
        let state = State::decode_beside(bytes, &self.state);
        self.state = state.map_err(|error| error.to_string())?;
        Ok(())
    }

    fn encode_outcome(outcome: &Answer) -> Vec<u8> {
        outcome.encode()
    }

    fn decode_outcome(bytes: &[u8]) -> Result<Answer, String> {
        Answer::decode(bytes)
    }
}
