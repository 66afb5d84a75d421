//! `skep env rotate`: another value for a secret, in one request with keeping the old one.

use skep_control_plane::api::types::{
    KeepVariable, PatchVariables, SharedVariablesView, VariablesView,
};
use skep_identity::random;
use skep_model::problem::{Code, Problem};
use skep_model::template;
use skep_model::variable::{self, VariableInput};

use super::{Change, patch, path, shared_path};
use crate::failure::Failure;
use crate::session::Session;
use crate::target;

/// Of which letters a value is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Alphabet {
    /// Letters and digits.
    Alnum,
    /// 0-9a-f.
    Hex,
    /// Base64 as URLs have it.
    Base64,
}

impl Alphabet {
    fn letters(self) -> &'static [u8] {
        match self {
            Self::Alnum => template::Alphabet::Alnum,
            Self::Hex => template::Alphabet::Hex,
            Self::Base64 => template::Alphabet::Base64,
        }
        .letters()
    }
}

/// A new value, drawn at random.
///
/// # Errors
/// The name is none.
pub(super) fn drawn(
    name: &str,
    length: usize,
    alphabet: Alphabet,
) -> Result<VariableInput, Problem> {
    variable::check_name(name)?;
    Ok(VariableInput {
        name: name.to_owned(),
        value: random::text(alphabet.letters(), length).to_string(),
        secret: true,
    })
}

/// Gives the secret its new value and deploys whoever has it.
///
/// # Errors
/// There is no such secret, or what [`patch`] says.
pub(super) async fn run(
    session: &Session,
    change: Change,
    input: VariableInput,
    keep_old: Option<String>,
) -> Result<(), Failure> {
    let client = session.client()?;
    let (whose, known) = match change.shared {
        true => {
            let found: SharedVariablesView = client.get(&shared_path(&change.scope).await?).await?;
            ("the environment".to_owned(), found.variables)
        }
        false => {
            let target = target::find(&client, change.service.as_deref(), &change.scope).await?;
            let found: VariablesView = client.get(&path(&target)).await?;
            (target.to_string(), found.variables)
        }
    };
    if !known.iter().any(|it| it.name == input.name && it.secret) {
        let text = format!("{whose} has no secret `{}`", input.name);
        let shared = if change.shared { " --shared" } else { "" };
        let problem = Problem::new(Code::NotFound, text).at("name");
        return Err(problem
            .hint(format!(
                "`skep env list{shared}` shows them; `skep env set{shared} --secret` makes one"
            ))
            .into());
    }
    let keep = keep_old.map(|under| KeepVariable {
        name: input.name.clone(),
        under,
    });
    let body = PatchVariables {
        set: vec![input],
        keep: keep.into_iter().collect(),
        ..PatchVariables::default()
    };
    // Whoever refers to it would go on with what is not accepted any more.
    let change = Change {
        redeploy: !change.no_redeploy,
        ..change
    };
    patch(session, &change, body).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_of_its_letters_and_another_each_time() {
        for (alphabet, letters) in [
            (Alphabet::Hex, 16),
            (Alphabet::Alnum, 62),
            (Alphabet::Base64, 64),
        ] {
            assert_eq!(alphabet.letters().len(), letters);
            let [one, other] = [(), ()].map(|()| drawn("KEY", 40, alphabet).expect("drawn"));
            assert!(one.secret && one.value.len() == 40 && one.value != other.value);
            assert!(one.value.bytes().all(|it| alphabet.letters().contains(&it)));
        }
        assert!(drawn("1X", 40, Alphabet::Hex).is_err());
    }
}
