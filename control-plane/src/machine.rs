//! The replicated state as the state machine that consensus drives.

use skep_state::{Applied, Change, Outcome, State};

use crate::consensus::StateMachine;

/// The state, and nothing else: rules live in `skep-state`.
#[derive(Debug, Default)]
pub struct Machine {
    state: State,
}

impl StateMachine for Machine {
    type View = State;
    type Outcome = Outcome;
    type Change = Change;

    fn apply(&mut self, index: u64, command: &[u8]) -> (Outcome, Vec<Change>) {
        let Applied { outcome, changes } = self.state.apply(index, command);
        (outcome, changes)
    }

    fn view(&self) -> State {
        self.state.clone()
    }

    fn encode(view: &State) -> Vec<u8> {
        view.encode()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.state = State::decode(bytes).map_err(|error| error.to_string())?;
        Ok(())
    }
}
