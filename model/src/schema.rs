//! JSON Schema (draft 2020-12) of the files that people write, made of the types that read them: what editors complete
//! and check with. It knows keys and types; amounts, names and what goes together only the readers judge.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use crate::manifest::Manifest;
use crate::project::{self, Origin};

/// Where OpenAPI has its types.
const COMPONENTS: &str = "#/components/schemas/";
/// Where JSON Schema has them.
const DEFINITIONS: &str = "#/$defs/";

/// A number, or text that says one in other words.
pub(crate) struct Amount;

impl PartialSchema for Amount {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(0_u64));
        let text = ObjectBuilder::new().schema_type(Type::String);
        OneOfBuilder::new().item(text).item(number).into()
    }
}

impl ToSchema for Amount {}

/// Of `skep.toml`.
pub fn app() -> Value {
    let mut schema = tidy(value(&Manifest::schema()));
    schema["$defs"] = definitions(found::<Manifest>());
    headed("skep.toml: an app's own file", schema)
}

/// Of `skep.project.toml`: services in the words of `skep.toml`, but for what is said elsewhere.
pub fn project() -> Value {
    let app = tidy(value(&Manifest::schema()));
    let mut types = found::<Manifest>();
    types.push((Origin::name().into_owned(), Origin::schema()));
    types.extend(found::<Origin>());
    let mut definitions = definitions(types);
    definitions["Variables"] = variables();
    definitions["Service"] = service(&app, true);
    definitions["Different"] = service(&app, false);
    definitions["Environment"] = object(json!({
        "variables": said("Variables", "What its services share, beside or in place of the project's."),
        "services": many("Different", "What is different there, by service."),
    }));
    let mut schema = object(json!({
        "project": { "type": "string", "description": "Name of the project." },
        "variables": said("Variables", "What services of every environment share."),
        "services": many("Service", "Services by name."),
        "environments": many("Environment", "Environments by name; none: `production` alone."),
    }));
    schema["required"] = json!(["project"]);
    schema["$defs"] = definitions;
    headed("skep.project.toml: a whole project", schema)
}

/// What a project's file says of a service; `is_general`: in all environments.
fn service(app: &Value, is_general: bool) -> Value {
    let mut service = app.clone();
    if let Some(keys) = service["properties"].as_object_mut() {
        for (elsewhere, _) in project::ELSEWHERE {
            keys.remove(elsewhere);
        }
        keys.insert(
            "from".to_owned(),
            said("Origin", "Where it comes from; none: folders are uploaded."),
        );
        keys.insert("variables".to_owned(), said("Variables", "Its variables."));
        if is_general {
            let only = json!({
                "type": "array",
                "items": { "type": "string" },
                "description": "The only environments that have it; none: all of the file.",
            });
            keys.insert("environments".to_owned(), only);
        }
    }
    service["description"] = "What skep.toml could say as well, and where it comes from.".into();
    service
}

/// Variables of a project's file: text, or that there is such a secret.
fn variables() -> Value {
    let mut secret = object(json!({ "secret": { "const": true } }));
    secret["required"] = json!(["secret"]);
    json!({
        "type": "object",
        "additionalProperties": { "oneOf": [{ "type": "string" }, secret] },
    })
}

fn object(properties: Value) -> Value {
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn said(definition: &str, description: &str) -> Value {
    json!({ "$ref": format!("{DEFINITIONS}{definition}"), "description": description })
}

fn many(definition: &str, description: &str) -> Value {
    json!({
        "type": "object",
        "additionalProperties": { "$ref": format!("{DEFINITIONS}{definition}") },
        "description": description,
    })
}

fn headed(title: &str, schema: Value) -> Value {
    let mut headed = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
    });
    if let (Value::Object(all), Value::Object(rest)) = (&mut headed, schema) {
        all.extend(rest);
    }
    headed
}

type Types = Vec<(String, RefOr<Schema>)>;

/// The types that a type is made of.
fn found<T: ToSchema>() -> Types {
    let mut types = Vec::new();
    T::schemas(&mut types);
    types
}

fn definitions(types: Types) -> Value {
    let all = types.iter();
    let all: BTreeMap<_, _> = all
        .map(|(name, schema)| (name.clone(), tidy(value(schema))))
        .collect();
    all.into_iter().collect::<Map<_, _>>().into()
}

fn value(schema: &RefOr<Schema>) -> Value {
    serde_json::to_value(schema).expect("a schema has text for keys alone")
}

/// What OpenAPI says, as JSON Schema of a TOML file: there is no null in it, and no key that is not known.
fn tidy(value: Value) -> Value {
    match value {
        Value::Array(all) => all.into_iter().map(tidy).collect(),
        Value::Object(all) => table(all),
        other => other,
    }
}

fn table(all: Map<String, Value>) -> Value {
    let mut made = Map::new();
    let is_schema_of_keys = |key: &str| key == "properties";
    for (key, value) in all {
        match (&*key, value) {
            // Defaults are told in words: what a file does not say stays as it is.
            ("default" | "format" | "uniqueItems", _) => {}
            ("$ref", Value::String(to)) => {
                let to = to.replace(COMPONENTS, DEFINITIONS);
                made.insert(key, to.into());
            }
            ("type", Value::Array(types)) => {
                let one = types.into_iter().find(|it| it != "null");
                made.insert(key, one.unwrap_or_default());
            }
            ("oneOf", Value::Array(some)) => one_of(&mut made, some),
            (name, Value::Object(keys)) if is_schema_of_keys(name) => {
                let keys = keys.into_iter().map(|(key, value)| (key, tidy(value)));
                made.insert(key, Value::Object(keys.collect()));
            }
            (_, value) => {
                made.insert(key, tidy(value));
            }
        }
    }
    if made.contains_key("properties") {
        made.entry("additionalProperties").or_insert(false.into());
    }
    Value::Object(made)
}

/// Without null; what is alone then needs no choice.
fn one_of(made: &mut Map<String, Value>, some: Vec<Value>) {
    let is_null = |it: &Value| it["type"] == "null";
    let some = some.into_iter().filter(|it| !is_null(it)).map(tidy);
    let mut some: Vec<Value> = some.collect();
    match (some.len(), some.pop()) {
        (1, Some(Value::Object(alone))) => {
            for (key, value) in alone {
                made.entry(key).or_insert(value);
            }
        }
        (_, last) => {
            some.extend(last);
            made.insert("oneOf".to_owned(), some.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two types of one name would be one of them.
    #[test]
    fn each_name_is_one_type() {
        let mut seen = BTreeMap::new();
        for (name, schema) in found::<Manifest>().into_iter().chain(found::<Origin>()) {
            let text = value(&schema).to_string();
            let other = seen.insert(name.clone(), text.clone());
            assert!(
                other.is_none_or(|other| other == text),
                "{name}: say `schema(as = ...)`"
            );
        }
        assert!(seen.len() > 20, "{}", seen.len());
    }

    #[test]
    fn every_reference_leads_somewhere_and_nothing_is_open() {
        fn look(root: &Value, value: &Value) {
            if let Some(to) = value["$ref"].as_str() {
                let to = to.strip_prefix('#').expect("in the same document");
                assert!(root.pointer(to).is_some(), "{to}");
            }
            if value["properties"].is_object() {
                assert_eq!(value["additionalProperties"], false, "{value}");
            }
            assert!(
                value["type"].is_null() || value["type"].is_string(),
                "{value}"
            );
            match value {
                Value::Array(all) => all.iter().for_each(|it| look(root, it)),
                // A key may have any name.
                Value::Object(all) => all.iter().for_each(|(key, it)| match &**key {
                    "properties" | "$defs" => {
                        let all = it.as_object().expect("by name");
                        all.values().for_each(|it| look(root, it));
                    }
                    _ => look(root, it),
                }),
                _ => {}
            }
        }
        for schema in [app(), project()] {
            look(&schema, &schema);
        }
    }
}
