//! `skep env`: the variables of a service, or those that an environment's services share.

mod file;
mod rotate;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use http::Method;
use skep_control_plane::api::types::{
    EffectsView, PatchSharedVariables, PatchVariables, PutService, ServiceView,
    SharedVariablesView, VariableView, VariablesView,
};
use skep_model::problem::Problem;
use skep_model::variable::{self, MAX_VALUE, VariableInput};

use super::up::existing;
use crate::client::Client;
use crate::failure::Failure;
use crate::folder::{App, complete};
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
        /// Those of the environment, to which its services may refer
        #[arg(long, conflicts_with = "service")]
        shared: bool,
        #[command(flatten)]
        scope: Scope,
    },
    /// Set some, and deploy with them
    #[command(after_help = "\
Examples:
  skep env set GREETING=hello MODE=a=b --service web
  skep env set --secret --stdin API_KEY --service web < key.txt
  skep env set --service web 'DATABASE_URL=postgres://app:${{db.PASSWORD}}@${{db.SKEP_PRIVATE_HOST}}/shop'
  skep env set --shared REGION=eu --project shop --redeploy

A value may refer to others of its environment: ${{NAME}} is the service's own, ${{db.NAME}} the
service db's, ${{shared.NAME}} the environment's; ${{db.SKEP_PRIVATE_HOST}}, ${{db.PORT}} and
${{db.SKEP_PUBLIC_URL}} are where db answers. In a shell use single quotes. $${{ is the text
${{.

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
        /// Make the service where there is none yet, so that what deploys it finds them
        #[arg(long, requires_all = ["service", "project"], conflicts_with = "shared")]
        create: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Set those of a .env file, and deploy with them
    #[command(after_help = "\
Examples:
  skep env import .env --service web --secret API_KEY --secret DB_PASSWORD
  skep env export --service web --project shop | skep env import - --service web --project shop2

A line is NAME=VALUE; `export` before it, comments and quotes are understood. Between single quotes all is meant as it
is; else $NAME and ${NAME} are variables of this shell, or earlier ones of the file, and \\ escapes. ${{...}} is
Skep's everywhere. Of a name that comes twice the last value counts. What the file does not name stays.")]
    Import {
        /// The file; `-`: stdin
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
        /// One whose value is never shown again; may be repeated
        #[arg(long, value_name = "NAME")]
        secret: Vec<String>,
        /// All of them are secrets
        #[arg(long, conflicts_with = "secret")]
        all_secret: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Print them as a .env file; secrets are named in comments, without their values
    Export {
        /// The service [default: the one of this folder]
        #[arg(long, value_name = "SERVICE", env = "SKEP_SERVICE")]
        service: Option<String>,
        /// Those of the environment, to which its services may refer
        #[arg(long, conflicts_with = "service")]
        shared: bool,
        /// How it is written
        #[arg(long, value_enum, default_value_t = file::Format::Dotenv)]
        format: file::Format,
        #[command(flatten)]
        scope: Scope,
    },
    /// Give a secret another value, and deploy whoever has it
    #[command(after_help = "\
Examples:
  skep env rotate SESSION_KEY --service web --keep-old SESSION_KEY_OLD
  skep env rotate API_KEY --service web --stdin < new-key.txt
  skep env rotate ROOT_KEY --shared --project shop --keep-old ROOT_KEY_OLD
  skep env unset SESSION_KEY_OLD --service web     once nobody has the old one

The new value is drawn at random here, and never shown. The service and all that refer to the secret are deployed
again, as their rollouts say: until then each has the value that it was started with. Of a shared secret these are the
services of the environment that refer to it.")]
    Rotate {
        /// The secret
        #[arg(value_name = "NAME")]
        name: String,
        /// Letters of the new value
        #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(8..=4096))]
        length: u16,
        /// Of which it is: letters and digits, hexadecimal digits, or base64 as URLs have it
        #[arg(long, value_enum, default_value_t = rotate::Alphabet::Alnum)]
        alphabet: rotate::Alphabet,
        /// Read the new value from stdin instead
        #[arg(long, conflicts_with_all = ["length", "alphabet"])]
        stdin: bool,
        /// Keep the old value as this variable, for what has to accept both for a while
        #[arg(long, value_name = "NAME")]
        keep_old: Option<String>,
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
    /// Variables of the environment instead, to which its services may refer
    #[arg(long)]
    shared: bool,
    /// Deploy the other services again, too, that refer to them
    #[arg(long, conflicts_with = "no_redeploy")]
    redeploy: bool,
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
        Command::List {
            service,
            shared,
            scope,
        } => {
            let found = list(session, (service.as_deref(), shared), &scope).await?;
            session.out.result(&found, || view::variables(&found));
            Ok(())
        }
        Command::Export {
            service,
            shared,
            format,
            scope,
        } => {
            let found = list(session, (service.as_deref(), shared), &scope).await?;
            match session.out.is_json() {
                true => session.out.result(&found, String::new),
                false => session.out.document(&file::written(&found, format)?),
            }
            Ok(())
        }
        Command::Import {
            file,
            secret,
            all_secret,
            change,
        } => {
            let set = file::read(&file, &secret, all_secret)?;
            let body = PatchVariables {
                set,
                ..PatchVariables::default()
            };
            patch(session, &change, body).await
        }
        Command::Set {
            variables,
            secret,
            stdin,
            create,
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
            if create {
                ensure(session, &change).await?;
            }
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
        Command::Rotate {
            name,
            length,
            alphabet,
            stdin,
            keep_old,
            change,
        } => {
            let input = match stdin {
                true => from_stdin(std::slice::from_ref(&name), true)?,
                false => rotate::drawn(&name, usize::from(length), alphabet)?,
            };
            rotate::run(session, change, input, keep_old).await
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

/// Those of a service, or of its environment.
async fn list(
    session: &Session,
    (service, shared): (Option<&str>, bool),
    scope: &Scope,
) -> Result<Vec<VariableView>, Failure> {
    let client = session.client()?;
    if shared {
        let path = shared_path(scope).await?;
        let found: SharedVariablesView = client.get(&path).await?;
        return Ok(found.variables);
    }
    let target = target::find(&client, service, scope).await?;
    let found: VariablesView = client.get(&path(&target)).await?;
    Ok(found.variables)
}

fn path(target: &Target) -> String {
    format!("{}/variables", target.path())
}

/// The variables of the environment that options or the folder's `skep.toml` name; no folder's name alone
/// makes a project.
async fn shared_path(scope: &Scope) -> Result<String, Failure> {
    let app = App::read(Path::new(".")).await?;
    if scope.project.is_none() && app.manifest.is_none() {
        let problem = Problem::invalid("project", "nothing says of which project");
        return Err(Failure::of(problem.hint("--project NAME")));
    }
    let Target {
        project,
        environment,
        ..
    } = app.target(scope, None)?;
    Ok(format!(
        "/v1/projects/{project}/environments/{environment}/variables"
    ))
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

/// Makes the service that is named in full where there is none.
async fn ensure(session: &Session, change: &Change) -> Result<(), Failure> {
    let (Some(service), Some(project)) = (&change.service, &change.scope.project) else {
        return Err(Failure::usage("--create wants --service and --project"));
    };
    let target = complete(&change.scope, service.clone(), project.clone())?;
    let client = session.client()?;
    if existing(&client, &target).await?.is_some() {
        return Ok(());
    }
    let body = PutService {
        if_generation: Some(0),
        ..PutService::default()
    };
    let _: ServiceView = client.send(Method::PUT, &target.path(), &body).await?;
    session.out.progress(&format!("{target} is made"));
    Ok(())
}

async fn patch(session: &Session, change: &Change, body: PatchVariables) -> Result<(), Failure> {
    let client = session.client()?;
    if change.shared {
        return patch_shared(session, &client, change, body).await;
    }
    let target = target::find(&client, change.service.as_deref(), &change.scope).await?;
    let body = PatchVariables {
        redeploy: !change.no_redeploy,
        redeploy_dependents: change.redeploy,
        ..body
    };
    let view: VariablesView = client.send(Method::PATCH, &path(&target), &body).await?;
    if let Some(text) = effects(&view.effects) {
        session.out.progress(&text);
    }
    finish(session, &client, &view, change.no_wait).await
}

async fn patch_shared(
    session: &Session,
    client: &Client,
    change: &Change,
    body: PatchVariables,
) -> Result<(), Failure> {
    let body = PatchSharedVariables {
        set: body.set,
        unset: body.unset,
        keep: body.keep,
        redeploy: change.redeploy,
    };
    let path = shared_path(&change.scope).await?;
    let view: SharedVariablesView = client.send(Method::PATCH, &path, &body).await?;
    session.out.result(&view, || {
        let said = effects(&view.effects);
        said.unwrap_or_else(|| "done; no running service refers to it".to_owned())
    });
    Ok(())
}

/// What a change means for other services, and what it lacks; none: nothing.
fn effects(view: &EffectsView) -> Option<String> {
    let mut lines = Vec::new();
    let names = view.dependents.join(", ");
    match (view.dependents.is_empty(), view.dependent_deployments.len()) {
        (true, _) => {}
        (false, 0) => lines.push(format!(
            "refer to it and have the old value until they are deployed: {names} (--redeploy does it)"
        )),
        (false, _) => lines.push(format!("refer to it and are deployed again: {names}")),
    }
    let warning = |problem: &Problem| format!("warning: {problem}; deployments fail until then");
    lines.extend(view.warnings.iter().map(warning));
    (!lines.is_empty()).then(|| lines.join("\n"))
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
    fn what_a_change_means_for_others_is_told() {
        assert_eq!(effects(&EffectsView::default()), None);
        let missing = Problem::new(skep_model::problem::Code::NotFound, "no `db`");
        let view = EffectsView {
            dependents: vec!["api".into(), "web".into()],
            warnings: vec![missing],
            ..EffectsView::default()
        };
        let text = effects(&view).expect("something");
        assert!(text.contains("api, web (--redeploy"), "{text}");
        assert!(text.contains("warning: no `db`"), "{text}");
    }

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
