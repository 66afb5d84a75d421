//! `skep template`: services that somebody has written down. What a template means is the model's; here it is
//! found, its questions are asked, and what comes of it goes the way of `skep apply`.

mod ask;
mod fetch;
mod shipped;
mod source;

use serde::Serialize;
use skep_control_plane::api::types::ServicesView;
use skep_model::problem::Problem;
use skep_model::project::{Change, Place, Plan, Project};
use skep_model::template::{Made, Question, Setting, Template};
use skep_model::tenancy::DEFAULT_ENVIRONMENT;

use super::project::{self, How, Secrets};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::table;
use crate::session::Session;
use crate::target::Scope;
use ask::Answers;

/// Services that somebody has written down, with questions
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// List the templates that come with skep
    #[command(visible_alias = "list")]
    Ls,
    /// Show what a template makes, and what it asks
    Show {
        #[command(flatten)]
        from: From,
    },
    /// Make the services of a template, or bring them to its newer version
    #[command(after_help = "\
Examples:
  skep template add postgres --project shop
  skep template add umami --project stats --set domain=stats.example.com --yes
  skep template add ./our-stack --project shop --environment staging --name blue
  skep template add https://example.com/skep.template.toml --sha256 9f86d0... --project shop

Questions without an answer are asked on a terminal. What would change is shown as by
`skep apply`, and done once you have said yes. Secrets are made here and never shown; those that
there are stay. The same command again changes nothing, with a newer template what is new in it.")]
    Add(Add),
}

/// Which template.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct From {
    /// A name that `skep template ls` shows, a folder or file, or a URL
    #[arg(value_name = "NAME|FOLDER|URL")]
    template: String,
    /// Refuse a file that has another SHA-256
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
}

/// What `skep template add` is told.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Add {
    #[command(flatten)]
    from: From,
    #[command(flatten)]
    scope: Scope,
    /// Answer a question; can be said several times
    #[arg(long = "set", value_name = "QUESTION=ANSWER")]
    answers: Vec<String>,
    /// Read the answer to this question from stdin
    #[arg(long, value_name = "QUESTION")]
    stdin: Option<String>,
    /// What the names of its services begin with, before a `-`
    #[arg(long, value_name = "PREFIX")]
    name: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Do not stay until services are live
    #[arg(long)]
    no_wait: bool,
}

/// A template as programs get it.
#[derive(Debug, Serialize)]
struct View<'a> {
    name: &'a str,
    version: &'a str,
    description: &'a str,
    questions: &'a [Question],
    services: Vec<ServiceLine>,
    secrets: Vec<String>,
}

/// A service of a template.
#[derive(Debug, Serialize)]
struct ServiceLine {
    name: String,
    image: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// No such template, one that is not good, an answer that is none, or what `skep apply` says.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::Ls => list(session),
        Command::Show { from } => {
            let template = source::read(&from).await?;
            let view = view(&template)?;
            session.out.result(&view, || text(&view));
            Ok(())
        }
        Command::Add(args) => add(args, session).await,
    }
}

fn list(session: &Session) -> Result<(), Failure> {
    let all = shipped::all()?;
    let views = all.iter().map(view).collect::<Result<Vec<_>, _>>()?;
    session.out.result(&views, || {
        let row = |it: &View<'_>| {
            [it.name, it.version, it.description]
                .map(str::to_owned)
                .into()
        };
        let rows = views.iter().map(row).collect();
        table::render(&["NAME", "VERSION", "WHAT"], rows, "none")
    });
    Ok(())
}

async fn add(args: Add, session: &Session) -> Result<(), Failure> {
    let template = source::read(&args.from).await?;
    let Some(project) = args.scope.project.as_deref() else {
        let problem = Problem::invalid("--project", "nothing says of which project");
        return Err(problem.hint("--project NAME; a new one is made").into());
    };
    let given = ask::given(&args.answers, args.stdin.as_deref(), &template.questions)?;
    let mut answers = Answers::new(&template.questions, given, !args.yes);
    let open = answers.open()?;
    let setting = Setting {
        project,
        environment: (args.scope.environment.as_deref()).unwrap_or(DEFAULT_ENVIRONMENT),
        prefix: args.name.as_deref().unwrap_or_default(),
        answers: &open,
    };
    let file = template.project(setting)?;
    let client = session.client()?;
    let compared = project::compare(&client, file.clone(), false).await?;
    let secrets = make(&template, &setting, &compared.plan, &mut answers)?;
    let how = How {
        yes: args.yes,
        wait: !args.no_wait,
        secrets: &secrets,
    };
    let did = project::carry_out(session, &client, (&compared, how)).await?;
    let urls = urls(&client, &file).await?;
    session
        .out
        .result(&compared.plan, || told(&template, &setting, (did, &urls)));
    Ok(())
}

/// What is said at the end.
fn told(template: &Template, setting: &Setting<'_>, (did, urls): (bool, &[String])) -> String {
    let (name, version) = (&template.name, &template.version);
    let done = if did { "done: " } else { "" };
    let project = setting.project;
    let mut text = format!("{done}{project} is as {name} {version} says\n");
    for line in urls {
        text.push_str(&format!("{line}\n"));
    }
    text.push_str(&template.after(setting));
    text.trim_end().to_owned()
}

/// The values of secrets that there are none of yet.
fn make(
    template: &Template,
    setting: &Setting<'_>,
    plan: &Plan,
    answers: &mut Answers<'_>,
) -> Result<Secrets, Failure> {
    let mut secrets = Secrets::new();
    for change in &plan.changes {
        let Change::Service(change) = change else {
            continue;
        };
        for name in &change.make {
            let value = match template.made(setting, &change.place, name) {
                Some(Made::Random { length, alphabet }) => {
                    skep_identity::random::text(alphabet.letters(), *length).to_string()
                }
                Some(Made::Answer(question)) => answers.secret(question)?,
                None => continue,
            };
            secrets.insert((change.place.clone(), name.clone()), value);
        }
    }
    Ok(secrets)
}

/// Where its services answer, a line for each.
async fn urls(client: &Client, file: &Project) -> Result<Vec<String>, Failure> {
    let path = format!("/v1/services?project={}", file.name);
    let found: ServicesView = client.get(&path).await?;
    let places = file.places();
    let own = found.services.iter().filter(|view| {
        let place = Place::new(&view.environment, &view.name);
        places.contains(&place) && !view.urls.is_empty()
    });
    Ok(own
        .map(|view| format!("{}: {}", view.name, view.urls.join(" ")))
        .collect())
}

fn view(template: &Template) -> Result<View<'_>, Problem> {
    let samples = template.samples();
    let file = template.project(Setting {
        project: "sample",
        environment: DEFAULT_ENVIRONMENT,
        prefix: "",
        answers: &samples,
    })?;
    let line = |(name, table): (&String, &skep_model::project::ServiceTable)| ServiceLine {
        name: name.clone(),
        image: table.origin.as_ref().and_then(|it| it.image.clone()),
    };
    Ok(View {
        name: &template.name,
        version: &template.version,
        description: &template.description,
        questions: &template.questions,
        services: file.services.iter().map(line).collect(),
        secrets: (template.secrets())
            .map(|(service, name, _)| format!("{service}.{name}"))
            .collect(),
    })
}

fn text(view: &View<'_>) -> String {
    let mut text = format!("{} {}: {}\n", view.name, view.version, view.description);
    let mut part = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text.push_str(&format!("\n{title}\n"));
        }
        for line in lines {
            text.push_str(&format!("  {line}\n"));
        }
    };
    let service = |it: &ServiceLine| match &it.image {
        Some(image) => format!("{}, of the image {image}", it.name),
        None => it.name.clone(),
    };
    part("makes", view.services.iter().map(service).collect());
    part("makes the secrets", view.secrets.clone());
    let question = |it: &Question| {
        let usual = match (&it.default, it.secret) {
            (Some(default), _) if default.is_empty() => "may be empty".to_owned(),
            (Some(default), _) => format!("default {default}"),
            (None, true) => "secret".to_owned(),
            (None, false) => "has to be answered".to_owned(),
        };
        format!("{}: {} ({usual}; {})", it.name, it.text, it.accepted())
    };
    part("asks", view.questions.iter().map(question).collect());
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_template_shows_what_it_makes_and_asks() {
        let all = shipped::all().expect("good");
        let umami = all.iter().find(|it| it.name == "umami").expect("shipped");
        let text = text(&view(umami).expect("good"));
        for part in [
            "umami 1.0.0: Umami, web",
            "  umami-db, of the image postgres:17\n",
            "  umami.APP_SECRET\n",
            "domain: Host that",
            "may be empty",
            "for example stats.example.com",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn secrets_are_made_where_there_are_none_and_as_the_template_says() {
        let all = shipped::all().expect("good");
        let umami = all.iter().find(|it| it.name == "umami").expect("shipped");
        let samples = umami.samples();
        let setting = Setting {
            project: "stats",
            environment: "production",
            prefix: "our",
            answers: &samples,
        };
        let file = umami.project(setting).expect("good");
        let there = skep_model::project::Current::default();
        let plan = skep_model::project::plan(&file, &there, false).expect("good");
        let given = BTreeMap::new();
        let mut answers = Answers::new(&umami.questions, given, false);
        let secrets = make(umami, &setting, &plan, &mut answers).expect("by chance");
        let length = |service: &str, name: &str| {
            let place = Place::new("production", service);
            secrets.get(&(place, name.to_owned())).map(String::len)
        };
        assert_eq!(length("our-umami", "APP_SECRET"), Some(64));
        assert_eq!(length("our-umami-db", "POSTGRES_PASSWORD"), Some(32));
        assert_eq!(secrets.len(), 2);
    }
}
