//! Variables filled in all over the file, as Compose does it: in values, after YAML is read, never in keys.

use skep_model::problem::Problem;

use crate::interpolate::Variables;
use crate::report::{Book, Outcome, Report, below, item};
use crate::value::Value;

/// The tree with its variables filled in; names without a value are told.
///
/// # Errors
/// The first value that cannot be read, or a variable that is required.
pub(crate) fn all(
    value: Value,
    lookup: &dyn Fn(&str) -> Option<String>,
    book: &Book,
) -> Result<Value, Problem> {
    Filler { lookup, book }.fill(value, "", None)
}

struct Filler<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    book: &'a Book,
}

impl Filler<'_> {
    fn fill(&self, value: Value, path: &str, service: Option<&str>) -> Result<Value, Problem> {
        Ok(match value {
            Value::Text(text) => Value::Text(self.text(&text, path, service)?),
            Value::List(list) => {
                let items = list.into_iter().enumerate();
                let filled =
                    items.map(|(number, value)| self.fill(value, &item(path, number), service));
                Value::List(filled.collect::<Result<_, _>>()?)
            }
            Value::Map(map) => {
                let mut filled = Vec::with_capacity(map.len());
                for (key, value) in map {
                    // What extends a file by itself means nothing; where it is merged it is filled in.
                    let value = match path.is_empty() && key.starts_with("x-") {
                        true => value,
                        false => {
                            let service = if path == "services" {
                                Some(&*key)
                            } else {
                                service
                            };
                            self.fill(value, &below(path, &key), service)?
                        }
                    };
                    filled.push((key, value));
                }
                Value::Map(filled)
            }
            other => other,
        })
    }

    fn text(&self, text: &str, path: &str, service: Option<&str>) -> Result<String, Problem> {
        let mut variables = Variables {
            lookup: self.lookup,
            unset: Vec::new(),
        };
        let filled = variables.fill(text).map_err(|why| {
            Problem::invalid(path, why).hint("set it in the shell, or in .env beside the file")
        })?;
        for name in variables.unset {
            self.book.tell(Report {
                service: service.map(str::to_owned),
                path: path.to_owned(),
                kind: "variable".to_owned(),
                outcome: Outcome::Left,
                message: format!("{name} has no value, and is empty"),
                hint: format!("set it in the shell or in .env, or say `${{{name}:-}}`"),
            });
        }
        Ok(filled)
    }
}
