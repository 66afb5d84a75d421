//! Answers to a template's questions: what was said, what is usual, and what a person says on a terminal.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use skep_model::problem::Problem;
use skep_model::template::Question;

use crate::failure::Failure;

/// Longest answer on stdin, in bytes; longer ones are refused as answers.
const MAX_STDIN: u64 = 8 << 10;

/// Where answers come from.
pub(super) struct Answers<'a> {
    questions: &'a [Question],
    given: BTreeMap<String, String>,
    /// A person may be asked.
    asks: bool,
}

/// What was said by options, checked.
///
/// # Errors
/// No such question, or no answer to it.
pub(super) fn given(
    said: &[String],
    stdin: Option<&str>,
    questions: &[Question],
) -> Result<BTreeMap<String, String>, Failure> {
    let mut given = BTreeMap::new();
    for text in said {
        let Some((name, answer)) = text.split_once('=') else {
            // Not shown: it may be a secret without its name.
            let problem = Problem::invalid("--set", "an answer has no `=`");
            return Err(problem.hint("--set QUESTION=ANSWER").into());
        };
        question(name, questions)?.check(answer)?;
        given.insert(name.to_owned(), answer.to_owned());
    }
    if let Some(name) = stdin {
        let question = question(name, questions)?;
        let mut text = String::new();
        let read = io::stdin().take(MAX_STDIN).read_to_string(&mut text);
        read.map_err(|error| Failure::usage(format!("stdin cannot be read: {error}")))?;
        let answer = text.strip_suffix('\n').unwrap_or(&text);
        question.check(answer)?;
        given.insert(name.to_owned(), answer.to_owned());
    }
    Ok(given)
}

fn question<'a>(name: &str, questions: &'a [Question]) -> Result<&'a Question, Problem> {
    let found = questions.iter().find(|it| it.name == name);
    found.ok_or_else(|| {
        let told = format!("the template has no question `{}`", name.escape_debug());
        let names: Vec<&str> = questions.iter().map(|it| &*it.name).collect();
        let hint = match names.is_empty() {
            true => "it asks nothing".to_owned(),
            false => format!("there are: {}", names.join(", ")),
        };
        Problem::invalid("--set", told).hint(hint)
    })
}

impl<'a> Answers<'a> {
    /// Those that were given; `asks`: whether a person may be asked for others.
    pub(super) fn new(
        questions: &'a [Question],
        given: BTreeMap<String, String>,
        asks: bool,
    ) -> Self {
        let asks = asks && io::stdin().is_terminal() && io::stderr().is_terminal();
        Self {
            questions,
            given,
            asks,
        }
    }

    /// An answer to each question that is no secret.
    ///
    /// # Errors
    /// There is none to one of them.
    pub(super) fn open(&self) -> Result<BTreeMap<String, String>, Failure> {
        let open = self.questions.iter().filter(|it| !it.secret);
        let mut answers = BTreeMap::new();
        for question in open {
            let answer = match (self.given.get(&question.name), &question.default) {
                (Some(answer), _) => answer.clone(),
                (None, Some(default)) => default.clone(),
                (None, None) => self.ask(question)?,
            };
            answers.insert(question.name.clone(), answer);
        }
        Ok(answers)
    }

    /// The answer to a question that is a secret; asked once.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn secret(&mut self, name: &str) -> Result<String, Failure> {
        if let Some(answer) = self.given.get(name) {
            return Ok(answer.clone());
        }
        let answer = self.ask(question(name, self.questions)?)?;
        self.given.insert(name.to_owned(), answer.clone());
        Ok(answer)
    }

    fn ask(&self, question: &Question) -> Result<String, Failure> {
        if !self.asks {
            let mut problem = question.unanswered();
            if question.secret {
                let name = &question.name;
                problem = problem.hint(format!("--stdin {name}, and the answer on stdin"));
            }
            return Err(problem.into());
        }
        loop {
            let mut stderr = io::stderr();
            let asked = format!("{} ({}): ", question.text, question.accepted());
            let _ = write!(stderr, "{asked}").and_then(|()| stderr.flush());
            let line = match question.secret {
                true => hidden(),
                false => line(),
            };
            let Some(answer) = line.map_err(|error| Failure::failed(error.to_string()))? else {
                return Err(question.unanswered().into());
            };
            match question.check(&answer) {
                Ok(()) => return Ok(answer),
                Err(problem) => {
                    let _ = writeln!(stderr, "{problem}");
                }
            }
        }
    }
}

/// A line of stdin; none: it has ended.
fn line() -> io::Result<Option<String>> {
    let mut line = String::new();
    Ok(match io::stdin().read_line(&mut line)? {
        0 => None,
        _ => Some(line.trim_end_matches(['\r', '\n']).to_owned()),
    })
}

/// The same, not shown while it is typed.
fn hidden() -> io::Result<Option<String>> {
    let usual = tcgetattr(io::stdin())?;
    let mut quiet = usual.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
    let line = line();
    tcsetattr(io::stdin(), OptionalActions::Flush, &usual)?;
    let _ = writeln!(io::stderr());
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_model::template::Template;

    const TEXT: &str = r#"
name = "t"
version = "1.0.0"
description = "one"
[questions.size]
text = "How large?"
choices = ["small", "large"]
[questions.key]
text = "The key?"
secret = true
[secrets.a]
KEY = { question = "key" }
[services.a]
[services.a.variables]
KEY = { secret = true }
SIZE = "{{ size }}"
"#;

    fn said(words: &[&str]) -> Result<BTreeMap<String, String>, Failure> {
        let template = Template::parse(TEXT).expect("good");
        let words: Vec<String> = words.iter().map(|it| (*it).to_owned()).collect();
        given(&words, None, &template.questions)
    }

    #[test]
    fn what_is_said_is_an_answer_to_a_question_that_there_is() {
        assert_eq!(
            said(&["size=small", "key=a=b"]).expect("good")["key"],
            "a=b"
        );
        for (bad, hint) in [
            ("size", "QUESTION=ANSWER"),
            ("siz=small", "there are: size, key"),
            ("size=huge", "one of: small, large"),
        ] {
            let failure = said(&[bad]).expect_err(bad);
            let told = failure.problem.hint.unwrap_or_default();
            assert!(told.contains(hint), "{bad}: {told}");
        }
        let told = said(&["key="]).expect_err("empty").problem.to_string();
        assert!(told.starts_with("key: the answer is empty"), "{told}");
    }

    #[test]
    fn without_a_person_what_is_missing_is_named() {
        let template = Template::parse(TEXT).expect("good");
        let mut answers = Answers::new(&template.questions, BTreeMap::new(), false);
        let open = answers.open().expect_err("no size").problem.to_string();
        assert!(open.contains("--set size=ANSWER"), "{open}");
        let secret = answers
            .secret("key")
            .expect_err("no key")
            .problem
            .to_string();
        assert!(secret.contains("--stdin key"), "{secret}");
    }
}
