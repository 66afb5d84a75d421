//! What follows from what witnesses say of a machine.

use skep_model::id::NodeId;
use skep_model::probe::Reach;

/// What one witness found, in one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Testimony {
    /// Who says so; it has reached the suspect before.
    pub witness: NodeId,
    /// At the suspect.
    pub suspect: Reach,
    /// At somebody who is there.
    pub control: Reach,
}

/// What becomes of a suspect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its machine is gone, say these.
    Gone(Vec<NodeId>),
    /// Its machine lives, whatever became of its agent.
    Lives,
    /// Nobody can tell.
    Unknown,
}

/// One sign of life outweighs everything. Silence counts from those alone who were heard by somebody else
/// in the same moment, and so many of them are needed.
pub fn verdict(needed: usize, testimonies: &[Testimony]) -> Verdict {
    if testimonies.iter().any(|one| one.suspect.is_heard()) {
        return Verdict::Lives;
    }
    let agree = testimonies
        .iter()
        .filter(|one| one.suspect == Reach::Silent && one.control.is_heard());
    let agree: Vec<NodeId> = agree.map(|one| one.witness).collect();
    match agree.len() >= needed.max(1) {
        true => Verdict::Gone(agree),
        false => Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A witness a column: what it found at the suspect and, after a stroke, at its control. `+` itself,
    /// `r` answered or refused, `.` silence, `?` could not tell.
    const CASES: &str = "
        needed | said      | verdict
        2      | ./r ./r   | gone
        2      | ./+ ./r   | gone
        2      | ./r ./r ./r | gone
        2      | ./r ./r ?/r | gone
        2      | ./r       | unknown
        2      | ./r ?/r   | unknown
        2      | ./r ./.   | unknown
        2      | ./r ./?   | unknown
        2      | ./. ./. ./. | unknown
        2      | ?/r ?/r ?/r | unknown
        2      | ./r ./r r/r | lives
        2      | ./r ./r r/. | lives
        2      | ./. ./. +/? | lives
        1      | ./r       | gone
        1      | ./.       | unknown
        1      | r/r       | lives
        1      |           | unknown
        0      |           | unknown
    ";

    fn reach(letter: char) -> Reach {
        match letter {
            '+' => Reach::Itself,
            'r' => Reach::Answered,
            '.' => Reach::Silent,
            '?' => Reach::Unknown,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_table() {
        let rows = CASES.lines().map(str::trim).filter(|row| !row.is_empty());
        for row in rows.skip(1) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let said = cells[1].split_whitespace().zip(1..).map(|(word, number)| {
                let letters: Vec<char> = word.chars().collect();
                Testimony {
                    witness: NodeId::from_u128(number),
                    suspect: reach(letters[0]),
                    control: reach(letters[2]),
                }
            });
            let said: Vec<_> = said.collect();
            let found = verdict(cells[0].parse().expect("a number"), &said);
            let word = match &found {
                Verdict::Gone(witnesses) => {
                    assert!(!witnesses.is_empty(), "{row}");
                    "gone"
                }
                Verdict::Lives => "lives",
                Verdict::Unknown => "unknown",
            };
            assert_eq!(word, cells[2], "{row}");
        }
    }
}
