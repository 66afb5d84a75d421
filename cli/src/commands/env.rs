//! `skep env`: the variables of a service.

use std::io::Read as _;

use http::Method;
use skep_control_plane::api::types::{PatchVariables, VariablesView};
use skep_model::problem::Problem;
use skep_model::variable::{self, MAX_VALUE, VariableInput};

use crate::client::Client;
use crate::failure::Failure;
use crate::follow;
use crate::output::view;
use crate::session::Session;
use crate::target::{self, Scope, Target};

/// Show and change variables
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// List them; secrets stay hidden
    #[command(visible_alias = "ls")]
    List {
        /// The service [default: the one of this folder]
        #[arg(value_name = "SERVICE")]
        service: Option<String>,
        #[command(flatten)]
        scope: Scope,
    },
    /// Set some, and deploy with them
    #[command(after_help = "\
Examples:
  skep env set GREETING=hello MODE=a=b --service web
  skep env set --secret --stdin API_KEY --service web < key.txt

The name ends at the first `=`. With --stdin the value is read from stdin, so that no other program
on this machine sees it; a line break at its end is left out.")]
    Set {
        /// Variables as NAME=VALUE
        #[arg(value_name = "NAME=VALUE", required = true)]
        variables: Vec<String>,
        /// Never show the values again
        #[arg(long)]
        secret: bool,
        /// Read the value of the one variable that is named from stdin
        #[arg(long)]
        stdin: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Forget some, and deploy without them
    Unset {
        /// Names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        #[command(flatten)]
        change: Change,
    },
}

/// Where, and what happens then.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Change {
    /// The service [default: the one of this folder]
    #[arg(long, value_name = "SERVICE", env = "SKEP_SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
    /// Take effect with the next deployment, whenever that is
    #[arg(long)]
    no_redeploy: bool,
    /// Do not stay until it is live
    #[arg(long)]
    no_wait: bool,
}

/// Runs the command.
///
/// # Errors
/// Bad input, refused, or the deployment failed.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::List { service, scope } => {
            let client = session.client()?;
            let target = target::find(&client, service.as_deref(), &scope).await?;
            let found: VariablesView = client.get(&path(&target)).await?;
            session
                .out
                .result(&found.variables, || view::variables(&found.variables));
            Ok(())
        }
        Command::Set {
            variables,
            secret,
            stdin,
            change,
        } => {
            let set = if stdin {
                vec![from_stdin(&variables, secret)?]
            } else {
                variables
                    .iter()
                    .map(|text| parse(text, secret))
                    .collect::<Result<_, _>>()?
            };
            patch(
                session,
                &change,
                PatchVariables {
                    set,
                    ..PatchVariables::default()
                },
            )
            .await
        }
        Command::Unset { names, change } => {
            names
                .iter()
                .try_for_each(|name| variable::check_name(name))?;
            patch(
                session,
                &change,
                PatchVariables {
                    unset: names,
                    ..PatchVariables::default()
                },
            )
            .await
        }
    }
}

fn path(target: &Target) -> String {
    format!("{}/variables", target.path())
}

/// `NAME=VALUE`; the value may hold further `=`.
fn parse(text: &str, secret: bool) -> Result<VariableInput, Problem> {
    let Some((name, value)) = text.split_once('=') else {
        let shown: String = text.chars().take(60).collect();
        let message = format!("`{}` has no `=`", shown.escape_debug());
        return Err(Problem::invalid("name", message)
            .hint("NAME=VALUE; an empty value is NAME=; --stdin reads the value from stdin"));
    };
    let input = VariableInput {
        name: name.to_owned(),
        value: value.to_owned(),
        secret,
    };
    variable::check(&input)?;
    Ok(input)
}

fn from_stdin(names: &[String], secret: bool) -> Result<VariableInput, Failure> {
    let [name] = names else {
        return Err(Failure::usage("--stdin gives a value to one variable"));
    };
    variable::check_name(name)?;
    let mut value = String::new();
    let limit = MAX_VALUE as u64 + 2;
    std::io::stdin()
        .take(limit)
        .read_to_string(&mut value)
        .map_err(|error| Failure::usage(format!("the value cannot be read from stdin: {error}")))?;
    let value = value.strip_suffix('\n').unwrap_or(&value);
    let value = value.strip_suffix('\r').unwrap_or(value);
    let input = VariableInput {
        name: name.clone(),
        value: value.to_owned(),
        secret,
    };
    variable::check(&input)?;
    Ok(input)
}

async fn patch(session: &Session, change: &Change, body: PatchVariables) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, change.service.as_deref(), &change.scope).await?;
    let body = PatchVariables {
        redeploy: !change.no_redeploy,
        ..body
    };
    let view: VariablesView = client.send(Method::PATCH, &path(&target), &body).await?;
    finish(session, &client, &view, change.no_wait).await
}

async fn finish(
    session: &Session,
    client: &Client,
    view: &VariablesView,
    no_wait: bool,
) -> Result<(), Failure> {
    match &view.deployment {
        Some(made) if !no_wait => follow::attach(session, client, made, None).await,
        Some(made) => {
            session
                .out
                .result(view, || format!("set; deployment {} brings it", made.id));
            Ok(())
        }
        None => {
            session.out.result(view, || {
                "set; it takes effect with the next deployment".to_owned()
            });
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_at_the_first_equals_sign() {
        for (text, name, value) in [("A=B", "A", "B"), ("A=B=c", "A", "B=c"), ("A=", "A", "")] {
            let input = parse(text, true).expect(text);
            assert_eq!((input.name.as_str(), input.value.as_str()), (name, value));
            assert!(input.secret);
        }
    }

    #[test]
    fn names_that_are_not_accepted_say_what_is() {
        for bad in [
            "=x", "1A=2", "A B=c", "A-B=c", "PORT=1", "SKEP_X=1", "A", "",
        ] {
            let problem = parse(bad, false).expect_err(bad);
            assert_eq!(problem.field.as_deref(), Some("name"), "{bad}");
            assert!(problem.hint.is_some(), "{bad}");
        }
        let names = ["A".to_owned(), "B".to_owned()];
        assert!(from_stdin(&names, false).is_err());
    }
}
