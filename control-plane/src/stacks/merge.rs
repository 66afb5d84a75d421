//! What a file says of a service, on top of what people changed by hand: what it says is in force again, what it does
//! not say stays. Compares the specification as JSON, field by field.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use skep_model::spec::{ServiceSpec, ServiceType};

/// A specification as it is to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Merged {
    pub(super) spec: ServiceSpec,
    /// Paths that the file says.
    pub(super) said: BTreeSet<String>,
    /// Paths that are otherwise than before.
    pub(super) changed: Vec<String>,
}

/// What comes of `wanted` where a service is `current` by now, and the file said `before` of it at the last time.
pub(super) fn merged(
    current: Option<&ServiceSpec>,
    wanted: &ServiceSpec,
    before: &BTreeSet<String>,
) -> Merged {
    let usual = ServiceSpec {
        // As a file says it that opens no port.
        kind: ServiceType::Worker,
        ..ServiceSpec::default()
    };
    let (usual, want) = (json(&usual), json(wanted));
    let mut merge = Merge {
        before,
        said: BTreeSet::new(),
        changed: Vec::new(),
    };
    let has = current.map_or_else(|| usual.clone(), json);
    let found = merge.at("", (Some(&has), Some(&want), Some(&usual)), false);
    let spec = found.and_then(|it| serde_json::from_value::<ServiceSpec>(it).ok());
    Merged {
        // Two halves of what is one thing: then the file has the word.
        spec: match current {
            Some(_) => spec
                .filter(|spec| spec.check().is_ok())
                .unwrap_or_else(|| wanted.clone()),
            None => wanted.clone(),
        },
        said: merge.said,
        changed: merge.changed,
    }
}

fn json(spec: &ServiceSpec) -> Value {
    serde_json::to_value(spec).expect("a specification is JSON")
}

struct Merge<'a> {
    before: &'a BTreeSet<String>,
    said: BTreeSet<String>,
    changed: Vec<String>,
}

type Three<'a> = (Option<&'a Value>, Option<&'a Value>, Option<&'a Value>);

impl Merge<'_> {
    /// The value of a place; `was_said`: the file had said something of all that is around it.
    fn at(&mut self, path: &str, (has, want, usual): Three<'_>, was_said: bool) -> Option<Value> {
        let was_said = was_said || self.before.contains(path);
        if let (Some(has), Some(want), Some(usual)) = (fields(has), fields(want), fields(usual)) {
            let names: BTreeSet<&String> = has.keys().chain(want.keys()).collect();
            let mut out = Map::new();
            for name in names {
                let below = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                let three = (has.get(name), want.get(name), usual.get(name));
                out.extend(
                    self.at(&below, three, was_said)
                        .map(|it| (name.clone(), it)),
                );
            }
            return Some(Value::Object(out));
        }
        let is_said = want != usual;
        if is_said {
            self.said.insert(path.to_owned());
        }
        let below = format!("{path}.");
        let is_ours = is_said || was_said || self.before.iter().any(|it| it.starts_with(&below));
        if !is_ours {
            return has.cloned();
        }
        if want != has {
            self.changed.push(path.to_owned());
        }
        want.cloned()
    }
}

/// The fields of what always has the same ones. What is of one kind or another is one thing.
fn fields(value: Option<&Value>) -> Option<&Map<String, Value>> {
    let fields = value?.as_object()?;
    let is_one_thing = fields.contains_key("type") && fields.len() < TOP_LEVEL;
    (!is_one_thing).then_some(fields)
}

/// A whole specification has a `type`, too, and more fields than any of its parts.
const TOP_LEVEL: usize = 10;
