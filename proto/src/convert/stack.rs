//! Stacks: Compose files in repositories that environments follow.

use skep_model::id::{DeploymentId, EnvironmentId, ServiceId};
use skep_model::stack::{
    Change, End, Member, Planned, Prune, Reading, Report, Settings, Stack, Trouble,
};

use super::build::{fetch_in, fetch_out};
use super::{
    Error, enum_number, enum_value, id, id_bytes, need, optional_id_bits, optional_id_bytes,
    problem,
};
use crate::v1;

impl From<&Stack> for v1::Stack {
    fn from(stack: &Stack) -> Self {
        let members = stack.members.iter();
        Self {
            environment: id_bytes(stack.environment.as_u128()),
            settings: Some((&stack.settings).into()),
            generation: stack.generation,
            created_ms: stack.created_ms,
            asked: stack.asked,
            answered: stack.answered,
            seen: stack.seen.clone(),
            reading: stack.reading.as_ref().map(Into::into),
            trouble: stack.trouble.as_ref().map(Into::into),
            members: members
                .map(|(name, member)| (name.clone(), member.into()))
                .collect(),
        }
    }
}

impl TryFrom<v1::Stack> for Stack {
    type Error = Error;

    fn try_from(message: v1::Stack) -> Result<Self, Error> {
        let members = message.members.into_iter();
        Ok(Self {
            environment: id!(EnvironmentId, message.environment),
            settings: need!(message.settings),
            generation: message.generation,
            created_ms: message.created_ms,
            asked: message.asked,
            answered: message.answered,
            seen: message.seen,
            reading: message.reading.map(TryInto::try_into).transpose()?,
            trouble: message.trouble.map(TryInto::try_into).transpose()?,
            members: members
                .map(|(name, member)| Ok((name, member.try_into()?)))
                .collect::<Result<_, Error>>()?,
        })
    }
}

impl From<&Settings> for v1::StackSettings {
    fn from(settings: &Settings) -> Self {
        Self {
            repository: settings.repository.clone(),
            branch: settings.branch.clone(),
            path: settings.path.clone(),
            profiles: settings.profiles.iter().cloned().collect(),
            fetch: fetch_out(&settings.fetch),
            prune: enum_number(&Prune::ALL, &settings.prune),
            adopt: settings.adopt,
            poll_ms: settings.poll_ms,
        }
    }
}

impl TryFrom<v1::StackSettings> for Settings {
    type Error = Error;

    fn try_from(message: v1::StackSettings) -> Result<Self, Error> {
        Ok(Self {
            repository: message.repository,
            branch: message.branch,
            path: message.path,
            profiles: message.profiles.into_iter().collect(),
            fetch: fetch_in(message.fetch),
            prune: enum_value("prune", &Prune::ALL, message.prune)?,
            adopt: message.adopt,
            poll_ms: message.poll_ms,
        })
    }
}

impl From<&Member> for v1::StackMember {
    fn from(member: &Member) -> Self {
        let deployment = member.deployment.map_or(0, DeploymentId::as_u128);
        Self {
            service: id_bytes(member.service.as_u128()),
            built: member.built.clone(),
            said: member.said.iter().cloned().collect(),
            deployment: optional_id_bytes(deployment),
            reading: member.reading,
        }
    }
}

impl TryFrom<v1::StackMember> for Member {
    type Error = Error;

    fn try_from(message: v1::StackMember) -> Result<Self, Error> {
        let deployment = optional_id_bits("deployment", &message.deployment)?;
        Ok(Self {
            service: id!(ServiceId, message.service),
            built: message.built,
            said: message.said.into_iter().collect(),
            deployment: (deployment != 0).then(|| DeploymentId::from_u128(deployment)),
            reading: message.reading,
        })
    }
}

impl From<&Reading> for v1::StackReading {
    fn from(reading: &Reading) -> Self {
        let planned = |one: &Planned| v1::StackPlanned {
            name: one.name.clone(),
            change: enum_number(&Change::ALL, &one.change),
            fields: one.fields.clone(),
        };
        let report = |one: &Report| v1::StackReport {
            path: one.path.clone(),
            kind: one.kind.clone(),
            left: one.left,
            message: one.message.clone(),
            hint: one.hint.clone(),
        };
        Self {
            number: reading.number,
            commit: reading.commit.clone(),
            file: reading.file.clone(),
            read_ms: reading.read_ms,
            services: reading.services.iter().map(planned).collect(),
            reports: reading.reports.iter().map(report).collect(),
            more_reports: reading.more_reports,
            end: reading.end.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<v1::StackReading> for Reading {
    type Error = Error;

    fn try_from(message: v1::StackReading) -> Result<Self, Error> {
        let planned = |one: v1::StackPlanned| {
            Ok(Planned {
                name: one.name,
                change: enum_value("change", &Change::ALL, one.change)?,
                fields: one.fields,
            })
        };
        let report = |one: v1::StackReport| Report {
            path: one.path,
            kind: one.kind,
            left: one.left,
            message: one.message,
            hint: one.hint,
        };
        let services = message.services.into_iter().map(planned);
        Ok(Self {
            number: message.number,
            commit: message.commit,
            file: message.file,
            read_ms: message.read_ms,
            services: services.collect::<Result<_, Error>>()?,
            reports: message.reports.into_iter().map(report).collect(),
            more_reports: message.more_reports,
            end: message.end.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&End> for v1::StackEnd {
    fn from(end: &End) -> Self {
        Self {
            at_ms: end.at_ms,
            problem: end.problem.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<v1::StackEnd> for End {
    type Error = Error;

    fn try_from(message: v1::StackEnd) -> Result<Self, Error> {
        Ok(Self {
            at_ms: message.at_ms,
            problem: problem(message.problem)?,
        })
    }
}

impl From<&Trouble> for v1::StackTrouble {
    fn from(trouble: &Trouble) -> Self {
        Self {
            commit: trouble.commit.clone(),
            problem: Some((&trouble.problem).into()),
            at_ms: trouble.at_ms,
        }
    }
}

impl TryFrom<v1::StackTrouble> for Trouble {
    type Error = Error;

    fn try_from(message: v1::StackTrouble) -> Result<Self, Error> {
        Ok(Self {
            commit: message.commit,
            problem: need!(message.problem),
            at_ms: message.at_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use skep_model::problem::Problem;

    use super::*;

    #[test]
    fn a_stack_survives_the_way() {
        let stack = Stack {
            environment: EnvironmentId::from_u128(1),
            settings: Settings {
                repository: "https://forge.test/shop.git".into(),
                branch: "main".into(),
                path: "deploy".into(),
                profiles: ["debug".to_owned()].into(),
                fetch: skep_model::build::Fetch {
                    token: Some("TOKEN".into()),
                    ..Default::default()
                },
                prune: Prune::Auto,
                adopt: true,
                poll_ms: Some(0),
            },
            generation: 2,
            created_ms: 3,
            asked: 5,
            answered: 4,
            seen: Some("b".repeat(40)),
            reading: Some(Reading {
                number: 7,
                commit: "a".repeat(40),
                file: "deploy/compose.yaml".into(),
                read_ms: 8,
                services: vec![Planned {
                    name: "web".into(),
                    change: Change::Build,
                    fields: vec!["replicas".into()],
                }],
                reports: vec![Report {
                    path: "services.web.typo".into(),
                    kind: "number".into(),
                    left: true,
                    message: "not understood".into(),
                    hint: "write it right".into(),
                }],
                more_reports: 1,
                end: Some(End {
                    at_ms: 9,
                    problem: Some(Problem::invalid("web", "failed")),
                }),
            }),
            trouble: Some(Trouble {
                commit: None,
                problem: Problem::invalid("repository", "away"),
                at_ms: 10,
            }),
            members: [(
                "web".to_owned(),
                Member {
                    service: ServiceId::from_u128(11),
                    built: Some("c".repeat(40)),
                    said: ["replicas".to_owned()].into(),
                    deployment: Some(DeploymentId::from_u128(12)),
                    reading: 7,
                },
            )]
            .into(),
        };
        assert_eq!(Stack::try_from(v1::Stack::from(&stack)), Ok(stack));
    }
}
