//! What an import would do, for people and programs. Values of variables are not shown: some are secret.

use std::collections::BTreeMap;

use serde::Serialize;
use skep_compose::{Import, Origin, Outcome, Report, Service};
use skep_control_plane::api::types::ServiceView;
use skep_model::spec::ServiceSpec;

use crate::output::{Output, Style, table};

/// What becomes of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    /// There is none of that name.
    Make,
    /// There is one that was never live: it becomes what the file says.
    Finish,
    /// There is one, and `--replace` was said: it becomes what the file says.
    Replace,
    /// There is one: it stays as it is.
    Keep,
}

impl Step {
    /// What to do about a service that is there, or is not.
    pub(super) fn of(existing: Option<&ServiceView>, replace: bool) -> Self {
        match existing {
            None => Self::Make,
            Some(_) if replace => Self::Replace,
            // Nothing that serves is overwritten by it, and an import that broke off goes on.
            Some(view) if view.last_release == 0 => Self::Finish,
            Some(_) => Self::Keep,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Make => "make",
            Self::Finish => "finish",
            Self::Replace => "replace",
            Self::Keep => "keep",
        }
    }
}

/// What an import would do.
#[derive(Debug, Serialize)]
pub(super) struct Plan<'a> {
    /// The Compose file's name.
    pub(super) file: &'a str,
    /// The project that the services are of.
    pub(super) project: String,
    /// The environment.
    pub(super) environment: String,
    /// How many settings of the file were taken over.
    pub(super) taken: usize,
    /// In the order in which they are deployed.
    pub(super) services: Vec<Planned<'a>>,
    /// What was left out, and what works otherwise.
    pub(super) reports: &'a [Report],
}

/// One service of it.
#[derive(Debug, Serialize)]
pub(super) struct Planned<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// What becomes of it.
    pub(super) step: Step,
    /// Its image; none: it is built.
    pub(super) image: Option<&'a str>,
    /// The folder that it is built from.
    pub(super) folder: Option<&'a str>,
    /// What it is to be.
    pub(super) spec: &'a ServiceSpec,
    /// Names of its variables; whether each is secret.
    pub(super) variables: BTreeMap<&'a str, bool>,
}

impl<'a> Planned<'a> {
    pub(super) fn new(service: &'a Service, step: Step) -> Self {
        let (image, folder) = match &service.origin {
            Origin::Image(image) => (Some(&**image), None),
            Origin::Folder(folder) => (None, Some(&**folder)),
        };
        let variables = service.variables.iter();
        Self {
            name: &service.name,
            step,
            image,
            folder,
            spec: &service.spec,
            variables: variables.map(|it| (&*it.name, it.secret)).collect(),
        }
    }

    fn row(&self) -> Vec<String> {
        let from = match (self.image, self.folder) {
            (Some(image), _) => format!("image {image}"),
            (None, folder) => format!("folder {}", folder.unwrap_or(".")),
        };
        let reached = match (self.spec.is_routed(), self.spec.run.mode.runs_jobs()) {
            (true, _) => {
                let port = self.spec.port.map(|port| port.to_string());
                format!("web, port {}", port.unwrap_or_default())
            }
            (false, true) => "job".to_owned(),
            (false, false) => "worker".to_owned(),
        };
        let volumes = self.spec.storage.volumes.iter();
        let volumes: Vec<_> = volumes
            .map(|it| format!("{}:{}", it.name, it.path))
            .collect();
        let secret = self.variables.values().filter(|secret| **secret).count();
        vec![
            self.step.as_str().to_owned(),
            self.name.to_owned(),
            from,
            reached,
            format!("{} ({secret} secret)", self.variables.len()),
            volumes.join(", "),
        ]
    }
}

impl Plan<'_> {
    /// Whether anything is changed by it.
    pub(super) fn changes(&self) -> bool {
        self.services.iter().any(|it| it.step != Step::Keep)
    }

    /// For people.
    pub(super) fn text(&self, out: Output) -> String {
        let (file, taken) = (self.file, self.taken);
        let title = format!(
            "{file} into {}/{}: {taken} settings taken over",
            self.project, self.environment
        );
        let columns = [
            "STEP",
            "SERVICE",
            "FROM",
            "REACHED AS",
            "VARIABLES",
            "VOLUMES",
        ];
        let rows = self.services.iter().map(Planned::row).collect();
        let mut parts = vec![
            out.styled(Style::Strong, &title),
            table::render(&columns, rows, ""),
        ];
        if self.services.iter().any(|it| it.step == Step::Keep) {
            parts.push(
                "What is kept stays as it is: --replace makes it what the file says.".to_owned(),
            );
        }
        for (outcome, title) in [
            (Outcome::Left, "Left out, or not understood:"),
            (Outcome::Differs, "Taken over, and works otherwise:"),
        ] {
            let lines = told(self.reports, outcome);
            if !lines.is_empty() {
                parts.push(format!(
                    "{}\n{}",
                    out.styled(Style::Strong, title),
                    lines.join("\n")
                ));
            }
        }
        parts.join("\n\n")
    }
}

/// Reports of a kind, those that say the same as one.
pub(super) fn told(reports: &[Report], outcome: Outcome) -> Vec<String> {
    let mut all: Vec<(&Report, Vec<String>)> = Vec::new();
    for report in reports.iter().filter(|it| it.outcome == outcome) {
        let place = format!("{} ({})", report.path, report.kind);
        let same = all
            .iter_mut()
            .find(|(it, _)| (&it.message, &it.hint) == (&report.message, &report.hint));
        match same {
            Some((_, places)) => places.push(place),
            None => all.push((report, vec![place])),
        }
    }
    let line = |(report, places): (&Report, Vec<String>)| {
        format!(
            "  {}\n    {}\n    {}",
            places.join("\n  "),
            report.message,
            report.hint
        )
    };
    all.into_iter().map(line).collect()
}

/// Whether something of the file is left out.
pub(super) fn is_short(import: &Import) -> bool {
    import.reports.iter().any(|it| it.outcome == Outcome::Left)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use skep_compose::{Beside, Input, import};

    use super::*;

    const FILE: &str = "\
services:
  web:
    build: ./web
    ports: [\"8080:80\"]
    environment: {A: 1, DB_PASSWORD: hunter2}
    privileged: true
  db:
    image: postgres:16
    privileged: true
    volumes: [\"data:/data\"]
volumes:
  data:
";

    #[test]
    fn a_plan_tells_all_but_values() {
        let input = Input {
            text: FILE,
            variables: &BTreeMap::new(),
            profiles: &BTreeSet::new(),
            read: &|_| Ok(Beside::Nothing),
        };
        let import = import(&input).expect("accepted");
        let steps = [Step::Make, Step::Keep];
        let planned = import.services.iter().zip(steps);
        let plan = Plan {
            file: "compose.yaml",
            project: "shop".into(),
            environment: "production".into(),
            taken: import.taken,
            services: planned
                .map(|(service, step)| Planned::new(service, step))
                .collect(),
            reports: &import.reports,
        };
        let text = plan.text(Output::new(false));
        for part in [
            "compose.yaml into shop/production",
            "make  web      folder web         web, port 80  2 (1 secret)",
            "keep  db       image postgres:16  worker        0 (0 secret)  data:/data",
            "--replace",
            "  services.web.privileged (true or false)\n  services.db.privileged (true or false)\n    it has no",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let json = serde_json::to_string(&plan).expect("plain");
        assert!(!json.contains("hunter2") && !text.contains("hunter2"));
        assert!(json.contains("\"DB_PASSWORD\":true"), "{json}");
        assert!(plan.changes() && is_short(&import));
    }
}
