//! A Compose file out of what a node has seen of its commit. What it names beside itself is asked for until nothing is
//! missing: so no node has to know what a Compose file is.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use skep_compose::{Beside, ENV_FILE, Import, Input, Origin, Service, import};
use skep_model::polling::Seen;
use skep_model::problem::{Code, Problem};
use skep_model::spec::Source;
use skep_model::stack::Settings;
use skep_model::variable::VariableInput;
use skep_model::variable::reference::is_plain;

use super::{File, Wanted};

/// Stands for what nobody may see: a word that an image, a command and a path may have in them.
const MASK: &str = "hidden-by-skep";

/// What is known of a file by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Understood {
    /// Not enough: these places have to be looked at, too.
    More(BTreeSet<String>),
    /// All of it.
    File(Box<File>),
}

/// What a stack's file says, as far as `seen` has of the commit.
///
/// # Errors
/// There is no such file, it is none of Compose's, or it names what is not there.
pub(crate) fn understand(
    settings: &Settings,
    shared: &BTreeMap<String, VariableInput>,
    (commit, seen): (&str, &BTreeMap<String, Seen>),
) -> Result<Understood, Problem> {
    let candidates = settings.candidates();
    let unseen: BTreeSet<String> = candidates
        .iter()
        .filter(|path| !seen.contains_key(*path))
        .cloned()
        .collect();
    if !unseen.is_empty() {
        let beside = |path: &String| join(folder_of(path), ENV_FILE).ok();
        let beside: Vec<String> = candidates.iter().filter_map(beside).collect();
        return Ok(Understood::More(unseen.into_iter().chain(beside).collect()));
    }
    let (path, text) = chosen(&candidates, seen)?;
    let desk = Desk {
        settings,
        seen,
        folder: folder_of(path),
        missing: RefCell::default(),
    };
    let read = desk.read(text, shared);
    let missing = desk.missing.take();
    if !missing.is_empty() {
        return Ok(Understood::More(missing));
    }
    let read = read.map_err(|problem| of_file(path, problem))?;
    let services = read.services.into_iter().map(|it| desk.wanted(it));
    let services: Result<Vec<Wanted>, Problem> = services.collect();
    let missing = desk.missing.take();
    if !missing.is_empty() {
        return Ok(Understood::More(missing));
    }
    Ok(Understood::File(Box::new(File {
        path: path.to_owned(),
        commit: commit.to_owned(),
        services: services.map_err(|problem| of_file(path, problem))?,
        reports: read.reports,
    })))
}

/// The first of the candidates that is there.
fn chosen<'a>(
    candidates: &'a [String],
    seen: &'a BTreeMap<String, Seen>,
) -> Result<(&'a str, &'a str), Problem> {
    for path in candidates {
        let why = match seen.get(path) {
            None | Some(Seen::Nothing) => continue,
            Some(Seen::File(text)) => return Ok((path, text)),
            Some(Seen::Folder(_)) => "it is a folder",
            Some(Seen::Refused(why)) => why,
        };
        return Err(Problem::invalid("path", format!("{path}: {why}")));
    }
    let text = format!("the repository has none of {}", candidates.join(", "));
    Err(Problem::new(Code::SourceFailed, text)
        .at("path")
        .hint("push it, or say where it is: skep stack connect --file PATH"))
}

/// The same, with the file's name in front.
fn of_file(path: &str, mut problem: Problem) -> Problem {
    problem.message = match problem.field.take() {
        Some(field) if field != "file" => format!("{path}: {field}: {}", problem.message),
        _ => format!("{path}: {}", problem.message),
    };
    problem
}

struct Desk<'a> {
    settings: &'a Settings,
    seen: &'a BTreeMap<String, Seen>,
    /// The file's.
    folder: &'a str,
    /// Places that somebody asked for and that nobody has looked at.
    missing: RefCell<BTreeSet<String>>,
}

impl Desk<'_> {
    /// The file's services and reports. What a secret of the environment reaches is found by reading the file with
    /// another value in its place: a variable that is otherwise then is a secret, and nothing else may be.
    fn read(
        &self,
        text: &str,
        shared: &BTreeMap<String, VariableInput>,
    ) -> Result<Import, Problem> {
        let plain = shared.values().filter(|it| is_plain(&it.value));
        let values = |hide: bool| {
            let value = |it: &VariableInput| match hide && it.secret {
                true => MASK.to_owned(),
                false => it.value.clone(),
            };
            let all = plain.clone();
            all.map(|it| (it.name.clone(), value(it)))
                .collect::<BTreeMap<_, _>>()
        };
        let has_secrets = plain.clone().any(|it| it.secret);
        if !has_secrets {
            return self.import(text, &values(false));
        }
        // Refusals and reports show what stands in the file: from the one that shows nothing.
        let masked = self.import(text, &values(true))?;
        let whole = self
            .import(text, &values(false))
            .map_err(|_| shows("the file can only be read without what is secret"))?;
        if masked.services.len() != whole.services.len() {
            return Err(shows("which services there are depends on a secret"));
        }
        let both = whole.services.into_iter().zip(&masked.services);
        let services = both.map(|(real, masked)| concealed(real, masked));
        Ok(Import {
            services: services.collect::<Result<_, _>>()?,
            ..masked
        })
    }

    fn import(&self, text: &str, variables: &BTreeMap<String, String>) -> Result<Import, Problem> {
        import(&Input {
            text,
            variables,
            profiles: &self.settings.profiles,
            read: &|path| self.look(path),
        })
    }

    fn look(&self, path: &str) -> Result<Beside, String> {
        let place = join(self.folder, path)?;
        Ok(match self.seen.get(&place) {
            None => {
                self.missing.borrow_mut().insert(place);
                Beside::Nothing
            }
            Some(Seen::Nothing) => Beside::Nothing,
            Some(Seen::File(text)) => Beside::File(text.clone()),
            Some(Seen::Folder(_)) => Beside::Folder,
            Some(Seen::Refused(why)) => return Err(format!("{place}: {why}")),
        })
    }

    fn wanted(&self, service: Service) -> Result<Wanted, Problem> {
        let (mut spec, mut tree) = (service.spec, None);
        let mut variables: BTreeMap<String, VariableInput> = service
            .variables
            .into_iter()
            .map(|input| (input.name.clone(), input))
            .collect();
        match service.origin {
            Origin::Image(reference) => spec.source = Some(Source::Image { reference }),
            Origin::Folder(path) => {
                let field = format!("services.{}.build", service.name);
                let place =
                    join(self.folder, &path).map_err(|why| Problem::invalid(&field, why))?;
                tree = match self.seen.get(&place) {
                    Some(Seen::Folder(id)) => Some(id.clone()),
                    None => {
                        self.missing.borrow_mut().insert(place.clone());
                        None
                    }
                    Some(_) => {
                        let text = format!("the repository has no folder `{place}`");
                        return Err(Problem::invalid(field, text));
                    }
                };
                spec.source = Some(Source::Git {
                    repository: self.settings.repository.clone(),
                    branch: self.settings.branch.clone(),
                    directory: place,
                });
                spec.fetch.clone_from(&self.settings.fetch);
                for name in [&spec.fetch.ssh_key, &spec.fetch.token]
                    .into_iter()
                    .flatten()
                {
                    let login = VariableInput {
                        name: name.clone(),
                        value: format!("${{{{shared.{name}}}}}"),
                        secret: true,
                    };
                    variables.insert(name.clone(), login);
                }
            }
        }
        Ok(Wanted {
            name: service.name,
            spec,
            variables,
            tree,
            depends_on: service.depends_on,
        })
    }
}

/// The service as it is, with what a secret reaches kept secret.
fn concealed(mut real: Service, masked: &Service) -> Result<Service, Problem> {
    let is_open = real.name == masked.name
        && real.spec == masked.spec
        && real.origin == masked.origin
        && real.depends_on == masked.depends_on
        && real.variables.len() == masked.variables.len();
    if !is_open {
        let text = format!(
            "services.{}: a secret of the environment reaches more than its variables",
            masked.name
        );
        return Err(shows(&text));
    }
    for (one, other) in real.variables.iter_mut().zip(&masked.variables) {
        one.secret |= one.value != other.value;
    }
    Ok(real)
}

fn shows(text: &str) -> Problem {
    Problem::invalid("services", text.to_owned()).hint(
        "anybody who sees the service would see it: set it without --secret, or use it in `environment` alone",
    )
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// A path as it is written in a file of this folder, from the top of the repository.
///
/// # Errors
/// It leads out, as a sentence.
fn join(folder: &str, path: &str) -> Result<String, String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|it| !it.is_empty()).collect();
    let out = || format!("`{}` leads out of the repository", path.escape_debug());
    if path.starts_with('/') || path.contains(['\0', '\n']) {
        return Err(out());
    }
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop().ok_or_else(out)?),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}
