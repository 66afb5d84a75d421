//! Laws over broken deliveries: whatever is done to a recording, nothing panics, and an error names a field.

use proptest::prelude::*;
use serde_json::Value;

use super::samples;
use crate::{Event, Forge, parse};

/// What a value is replaced by.
fn replacements() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(Value::Bool(true)),
        Just(Value::from(-1)),
        Just(Value::from(u64::MAX)),
        Just(Value::from(1.5)),
        Just(Value::from("")),
        Just(Value::from("0000000000000000000000000000000000000000")),
        Just(Value::from("abcdef123456")),
        Just(Value::from("refs/heads/")),
        Just(Value::from("--upload-pack=x\u{0}\n")),
        Just(Value::from("x".repeat(5_000))),
        Just(Value::Array(Vec::new())),
        Just(Value::Array(vec![Value::Null; 300])),
        Just(Value::Object(serde_json::Map::new())),
    ]
}

/// Every place in a value, itself first.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(all) => all.iter().map(count).sum(),
        Value::Object(all) => all.values().map(count).sum(),
        _ => 0,
    }
}

/// Puts `with` at the place of this number; false: there are fewer.
fn replace(value: &mut Value, at: &mut usize, with: &Value) -> bool {
    if *at == 0 {
        *value = with.clone();
        return true;
    }
    *at -= 1;
    match value {
        Value::Array(all) => all.iter_mut().any(|one| replace(one, at, with)),
        Value::Object(all) => all.values_mut().any(|one| replace(one, at, with)),
        _ => false,
    }
}

/// What is acted upon has to be sound however it was said.
fn sound(forge: Forge, event: &str, body: &[u8]) {
    match parse(forge, event, body) {
        Err(error) => {
            assert!(
                !error.field.is_empty() && !error.message.is_empty(),
                "{error:?}"
            );
        }
        Ok(events) => {
            for event in &events {
                assert!(!event.shown().is_empty());
                match event {
                    Event::Push(push) => {
                        assert!(push.after.is_whole() && !push.branch.is_empty());
                    }
                    Event::Tag(tag) => assert!(tag.commit.is_whole() && !tag.name.is_empty()),
                    Event::BranchDeleted(gone) | Event::TagDeleted(gone) => {
                        assert!(!gone.name.is_empty());
                    }
                    Event::Change(change) => assert!(!change.head_branch.is_empty()),
                    _ => {}
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_and_cut_bytes(
        which in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let samples = samples();
        let sample = which.get(&samples);
        let mut body = sample.body.clone();
        for (at, byte) in flips {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        sound(sample.forge, sample.event, &body);
    }

    #[test]
    fn values_of_other_types(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), replacements()), 1..4),
    ) {
        let samples = samples();
        let sample = which.get(&samples);
        let mut body: Value = serde_json::from_slice(&sample.body).expect("recorded");
        for (at, with) in changes {
            let mut at = at.index(count(&body));
            replace(&mut body, &mut at, &with);
        }
        sound(sample.forge, sample.event, body.to_string().as_bytes());
    }

    #[test]
    fn deliveries_of_another_forge(
        which in any::<prop::sample::Index>(),
        forge in prop::sample::select(Forge::ALL.to_vec()),
        other in any::<prop::sample::Index>(),
    ) {
        let samples = samples();
        let event = other.get(&samples).event;
        sound(forge, event, &which.get(&samples).body);
    }
}

#[test]
fn every_single_value_may_be_missing_or_null() {
    // What the large ones have more of is not read.
    for sample in samples().iter().filter(|it| it.body.len() < 6_000) {
        let body: Value = serde_json::from_slice(&sample.body).expect("recorded");
        for at in 0..count(&body) {
            for with in [
                Value::Null,
                Value::from(7),
                Value::from("abcdef123456"),
                Value::from("refs/heads/"),
                Value::Array(vec![]),
            ] {
                let (mut at, mut broken) = (at, body.clone());
                assert!(replace(&mut broken, &mut at, &with));
                sound(sample.forge, sample.event, broken.to_string().as_bytes());
            }
        }
    }
}
