//! Shared variables of an environment: put as a whole, compared with what was read, kept by snapshots.

use skep_model::variable::{MAX_TOTAL, Sealed, SharedVariables, Variable};

use super::*;

fn shared(generation: u64, names: &[(&str, usize)]) -> Kind {
    let variable = |(name, bytes): &(&str, usize)| {
        let value = Sealed(vec![7; *bytes]);
        let secret = true;
        (name.to_string(), Variable { value, secret })
    };
    let shared = SharedVariables {
        environment: ENVIRONMENT,
        variables: names.iter().map(variable).collect(),
        generation,
    };
    Kind::PutSharedVariables(v1::PutSharedVariables {
        shared: Some((&shared).into()),
    })
}

#[test]
fn shared_variables_are_put_as_a_whole_where_nobody_changed_them_meanwhile() {
    let mut world = World::with_service();
    assert_eq!(world.state.shared_variables(ENVIRONMENT).generation, 0);
    assert_eq!(world.refused(shared(1, &[])), Code::Conflict);
    let applied = world.apply(shared(0, &[("A", 8), ("B", 8)]));
    assert_eq!(applied.changes, [crate::Change::Settings]);
    assert_eq!(world.refused(shared(0, &[("A", 8)])), Code::Conflict);
    world.ok(shared(1, &[("B", 9)]));
    let now = world.state.shared_variables(ENVIRONMENT);
    let names: Vec<_> = now.variables.keys().map(String::as_str).collect();
    assert_eq!((now.generation, names), (2, vec!["B"]));
    assert!(now.variables["B"].secret);
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);
    let large = shared(2, &[("A", MAX_TOTAL)]);
    assert_eq!(world.refused(large), Code::Invalid);
}

#[test]
fn an_environment_that_does_not_exist_shares_nothing() {
    let mut world = World::with_service();
    let gone = SharedVariables {
        environment: EnvironmentId::from_u128(99),
        variables: BTreeMap::new(),
        generation: 0,
    };
    let kind = Kind::PutSharedVariables(v1::PutSharedVariables {
        shared: Some((&gone).into()),
    });
    assert_eq!(world.refused(kind), Code::NotFound);
}
