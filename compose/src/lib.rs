//! A Compose file as services of Skep: text in, services and reports out. No key is passed over: each is taken over,
//! or a report says what becomes of it. Pure: files beside and variables are asked of whoever calls.

mod draft;
mod env_file;
mod fill;
mod interpolate;
mod order;
mod renamed;
mod report;
mod service;
mod top;
mod units;
mod value;
mod world;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use skep_model::name;
use skep_model::problem::Problem;
use skep_model::run::Mode;
use skep_model::spec::{ServiceSpec, check_image};
use skep_model::variable::VariableInput;

use draft::{Condition, Draft};
use report::{At, Book};
use value::Value;
use world::World;

pub use report::{Outcome, Report};
pub use value::MAX_BYTES;

/// The file with variables beside a Compose file.
pub const ENV_FILE: &str = ".env";
/// Most services of one file.
pub const MAX_SERVICES: usize = 100;

/// What an import is made from.
pub struct Input<'a> {
    /// The Compose file.
    pub text: &'a str,
    /// Variables of the shell: they win over those of `.env`.
    pub variables: &'a BTreeMap<String, String>,
    /// Profiles that are wanted: a service that names some is left out without one of them.
    pub profiles: &'a BTreeSet<String>,
    /// What is beside it, by its path relative to the file's folder; an error where it may not be read.
    pub read: &'a Reader<'a>,
}

/// Looks at what is beside a Compose file.
pub type Reader<'a> = dyn Fn(&str) -> Result<Beside, String> + 'a;

/// What is beside a Compose file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beside {
    /// Nothing of that name.
    Nothing,
    /// A file with this text.
    File(String),
    /// A folder.
    Folder,
}

/// What a Compose file says, in Skep's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The project's name, where the file says one.
    pub project: Option<String>,
    /// Those that others depend on before those.
    pub services: Vec<Service>,
    /// What was left out, and what works otherwise.
    pub reports: Vec<Report>,
    /// How many settings were taken over.
    pub taken: usize,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Where its image comes from.
    pub origin: Origin,
    /// What it is.
    pub spec: ServiceSpec,
    /// Its variables, by name.
    pub variables: Vec<VariableInput>,
    /// Names of those that it depends on.
    pub depends_on: BTreeSet<String>,
}

/// Where a service's image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A ready image.
    Image(String),
    /// A folder, relative to the file's.
    Folder(String),
}

/// Reads a Compose file.
///
/// # Errors
/// It is none; a variable that it requires has no value; a service has no image and no folder; or services depend
/// on each other in a circle.
pub fn import(input: &Input<'_>) -> Result<Import, Problem> {
    let book = Book::default();
    let read = read_into(input, &book)?;
    let services = order::sorted(read.services)?;
    let (reports, taken) = book.close();
    let left = |path: &String| {
        reports
            .iter()
            .any(|it| it.outcome == Outcome::Left && it.path == **path)
    };
    Ok(Import {
        project: read.project,
        services,
        taken: taken.iter().filter(|path| !left(path)).count(),
        reports,
    })
}

/// Reads the file; what becomes of each key is in the book then.
fn read_into(input: &Input<'_>, book: &Book) -> Result<Read, Problem> {
    let value = value::read(input.text)?;
    let shell = |name: &str| input.variables.get(name).cloned();
    let beside = match (input.read)(ENV_FILE) {
        Ok(Beside::File(text)) => text,
        Ok(Beside::Nothing | Beside::Folder) => String::new(),
        Err(why) => {
            let problem = Problem::invalid(ENV_FILE, why);
            return Err(problem.hint("a file of KEY=value lines in the folder of the Compose file"));
        }
    };
    let beside = env_file::read(&beside, &shell);
    let beside = beside.map_err(|why| Problem::invalid(ENV_FILE, why).hint("KEY=value by line"))?;
    let lookup = |name: &str| shell(name).or_else(|| beside.values.get(name).cloned());
    let value = fill::all(value, &lookup, book)?;
    read_file(&value, input, &lookup, book)
}

struct Read {
    project: Option<String>,
    services: Vec<Service>,
}

fn read_file(
    value: &Value,
    input: &Input<'_>,
    lookup: &dyn Fn(&str) -> Option<String>,
    book: &Book,
) -> Result<Read, Problem> {
    let top = At::top(value, book);
    let mut world = World {
        lookup,
        read: input.read,
        secrets: BTreeMap::new(),
        configs: BTreeMap::new(),
        volumes: BTreeSet::new(),
        owners: RefCell::new(BTreeMap::new()),
    };
    let (mut services, mut project) = (None, None);
    for (key, at) in top.entries() {
        match key {
            "services" => services = Some(at),
            "name" => project = at.text(),
            // Of no meaning since Compose has a specification.
            "version" => at.take(),
            "volumes" => top::volumes(&mut world, &at),
            "networks" => top::networks(&at),
            "secrets" | "configs" => top::materials(&mut world, key, &at),
            "include" => at.left(
                "other files are not read",
                "`docker compose config` writes one file with all of it in it: import that",
            ),
            _ if key.starts_with("x-") => at.take(),
            _ => at.unknown(),
        }
    }
    let services = services.map(|at| at.entries()).unwrap_or_default();
    if services.is_empty() {
        let problem = Problem::invalid("services", "the file has no services");
        return Err(problem.hint("is it a Compose file? `services:` is its first level"));
    }
    if services.len() > MAX_SERVICES {
        let text = format!("more than {MAX_SERVICES} services");
        return Err(Problem::invalid("services", text));
    }
    let services = read_services(&services, input.profiles, &world)?;
    Ok(Read { project, services })
}

fn read_services<'a>(
    all: &[(&'a str, At<'a>)],
    profiles: &BTreeSet<String>,
    world: &World<'_>,
) -> Result<Vec<Service>, Problem> {
    let mut drafts: Vec<(&str, Draft<'_>)> = Vec::new();
    for (said, at) in all {
        let at = at.clone().of_service(said);
        if !is_wanted(&at, profiles) {
            at.left(
                "a service of a profile that is not asked for",
                "--profile NAME",
            );
            continue;
        }
        let name = named(said, &at)?;
        if let Some((other, _)) = drafts.iter().find(|(_, draft)| draft.name == name) {
            let text = format!("`{other}` and `{said}` would both be named `{name}`");
            return Err(Problem::invalid("services", text).hint("other names"));
        }
        let mut draft = Draft::new(name);
        service::read(&mut draft, &at, world);
        service::settle(&mut draft, &at);
        drafts.push((said, draft));
    }
    run_once(&mut drafts, all);
    check_dependencies(&drafts, all);
    renamed::tell(&drafts, all);
    let names: BTreeMap<_, _> = drafts
        .iter()
        .map(|(said, draft)| ((*said).to_owned(), draft.name.clone()))
        .collect();
    let finish = |(said, draft)| finish(said, draft, &names);
    drafts.into_iter().map(finish).collect()
}

fn is_wanted(at: &At<'_>, wanted: &BTreeSet<String>) -> bool {
    let Value::Map(entries) = at.value else {
        return true;
    };
    let profiles = entries.iter().find(|(key, _)| key == "profiles");
    match profiles {
        Some((_, Value::List(profiles))) => profiles.iter().any(|profile| match profile {
            Value::Text(profile) => wanted.contains(profile),
            _ => false,
        }),
        _ => true,
    }
}

/// The service's name here.
fn named(said: &str, at: &At<'_>) -> Result<String, Problem> {
    if name::check("service", said).is_ok() {
        return Ok(said.to_owned());
    }
    let name = name::suggest(said).ok_or_else(|| {
        let text = format!("no name can be made of `{}`", said.escape_debug());
        Problem::invalid("services", text).hint("a name with letters in it")
    })?;
    at.note(
        format!("the service is named `{name}`, and reached by that name"),
        format!("say `{name}` wherever `{}` is said", said.escape_debug()),
    );
    Ok(name)
}

/// What others wait for the end of is a job.
fn run_once<'a>(drafts: &mut [(&'a str, Draft<'a>)], all: &[(&'a str, At<'a>)]) {
    let ended = drafts.iter().flat_map(|(_, draft)| {
        let all = draft.depends_on.iter();
        all.filter(|(_, (condition, _))| *condition == Condition::Completed)
            .map(|(name, _)| name.clone())
    });
    let ended: BTreeSet<_> = ended.collect();
    for (said, draft) in drafts.iter_mut().filter(|(said, _)| ended.contains(*said)) {
        let Some((_, at)) = all.iter().find(|(name, _)| name == said) else {
            continue;
        };
        let at = at.clone().of_service(said);
        draft.change(&at, |spec| spec.run.mode = Mode::Batch);
        at.note(
            "others wait for its end: it is a job, and they are deployed once it is made, not once it has ended",
            "[hooks] release in skep.toml runs a command of a service's own before each of its releases",
        );
    }
}

/// What a service depends on is one of the file's that is wanted.
fn check_dependencies(drafts: &[(&str, Draft<'_>)], all: &[(&str, At<'_>)]) {
    for (_, draft) in drafts {
        for (name, (_, at)) in &draft.depends_on {
            if drafts.iter().any(|(said, _)| said == name) {
                continue;
            }
            match all.iter().any(|(said, _)| said == name) {
                true => at.note(
                    format!("`{name}` is of a profile that is not asked for: nothing waits for it"),
                    "--profile NAME",
                ),
                false => at.left(
                    format!("the file has no service `{}`", name.escape_debug()),
                    "a name under `services`",
                ),
            }
        }
    }
}

fn finish(
    said: &str,
    draft: Draft<'_>,
    names: &BTreeMap<String, String>,
) -> Result<Service, Problem> {
    let field = format!("services.{said}");
    let origin = match (draft.context, draft.image) {
        (Some(folder), _) => Origin::Folder(folder),
        (None, Some(image)) => {
            check_image(&format!("{field}.image"), &image)?;
            Origin::Image(image)
        }
        (None, None) => {
            let text = "the service has neither an image nor a folder to build it from";
            let hint = "`image: NAME`, or `build: FOLDER` inside the folder of the file; \
                        `docker compose config` fills in what comes from other files";
            return Err(Problem::invalid(field, text).hint(hint));
        }
    };
    // A name that is none here has been told.
    let depends_on = draft
        .depends_on
        .keys()
        .filter_map(|name| names.get(name).cloned())
        .collect();
    Ok(Service {
        name: draft.name,
        origin,
        spec: draft.spec,
        variables: draft.variables.into_values().collect(),
        depends_on,
    })
}

#[cfg(test)]
mod tests;
