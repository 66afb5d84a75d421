//! Text forms come back as they were, rules judge values, and mistakes name the field.

use proptest::prelude::*;

use super::*;

fn rule(text: &str) -> Constraint {
    text.parse()
        .unwrap_or_else(|problem| panic!("{text}: {problem}"))
}

/// Text, printed, values that fulfil it, values that do not.
type Row<'a> = (
    &'a str,
    &'a str,
    &'a [Option<&'a str>],
    &'a [Option<&'a str>],
);

#[test]
fn constraints_read_print_and_judge() {
    let missing = None;
    let table: &[Row<'_>] = &[
        (
            "tier=pro",
            "tier = pro",
            &[Some("pro")],
            &[Some("free"), missing],
        ),
        (
            "tier != pro",
            "tier != pro",
            &[Some("free"), missing],
            &[Some("pro")],
        ),
        (
            "zone in a, b",
            "zone in a,b",
            &[Some("a"), Some("b")],
            &[Some("c"), missing],
        ),
        (
            "zone not in a,b",
            "zone not in a,b",
            &[Some("c"), missing],
            &[Some("a")],
        ),
        (
            "cores < 8",
            "cores < 8",
            &[Some("7.5")],
            &[Some("8"), Some("x"), missing],
        ),
        (
            "cores > 8",
            "cores > 8",
            &[Some("16")],
            &[Some("8"), missing],
        ),
        (
            "node.kernel version >=5.10",
            "node.kernel version >=5.10",
            &[Some("5.10.0-28-amd64"), Some("6.1")],
            &[Some("5.9.99"), Some("x"), missing],
        ),
        (
            "v version >=1.8.0, <2",
            "v version >=1.8.0, <2",
            &[Some("v1.9")],
            &[Some("2.0.0")],
        ),
        (
            "name regex ^web-[0-9]+$",
            "name regex ^web-[0-9]+$",
            &[Some("web-1")],
            &[Some("web")],
        ),
        (
            "tags set a,b",
            "tags set a,b",
            &[Some("c, b,a")],
            &[Some("a"), missing],
        ),
        ("gpu exists", "gpu exists", &[Some("")], &[missing]),
        ("gpu not exists", "gpu not exists", &[missing], &[Some("x")]),
    ];
    for (text, printed, good, bad) in table {
        let constraint = rule(text);
        assert_eq!(constraint.to_string(), *printed);
        assert_eq!(rule(printed), constraint, "{text}");
        let judge = constraint.judge();
        for value in *good {
            assert!(judge.holds(*value), "{text}: {value:?}");
        }
        for value in *bad {
            assert!(!judge.holds(*value), "{text}: {value:?}");
        }
    }
}

#[test]
fn what_is_no_rule_is_refused_with_what_is_accepted() {
    for text in [
        "",
        "tier",
        "tier ~ pro",
        "tier =",
        "tier in a,,b",
        "T = a",
        "cores < many",
        "k version x.y",
        "n regex (",
        "gpu exists now",
        "inside a",
        "zone ina",
    ] {
        let problem = text.parse::<Constraint>().expect_err(text);
        assert!(problem.hint.is_some(), "{text}: {problem}");
    }
    for text in [
        "",
        "zone a=x",
        "zone a=60,b=60",
        "zone max-skew 0",
        "zone a=1,a=2",
        "zone b",
    ] {
        assert!(text.parse::<Spread>().is_err(), "{text}");
    }
    for text in ["", "0 per host", "1 per", "one per host"] {
        assert!(text.parse::<MaxPer>().is_err(), "{text}");
    }
    for text in [
        "",
        "ssd = true",
        "ssd = true weight 0",
        "with A weight 1",
        "with a on weight 1",
    ] {
        assert!(text.parse::<Affinity>().is_err(), "{text}");
    }
}

#[test]
fn the_other_text_forms_round_trip() {
    for text in [
        "zone",
        "host max-skew 1",
        "zone a=60%,b=40%",
        "zone a=60% max-skew 2",
    ] {
        assert_eq!(text.parse::<Spread>().expect(text).to_string(), text);
    }
    assert_eq!(
        "1 per node".parse::<MaxPer>().expect("a limit").to_string(),
        "1 per node.name"
    );
    for text in [
        "ssd = true weight 50",
        "with cache weight -20",
        "with db on host weight 1000",
    ] {
        assert_eq!(text.parse::<Affinity>().expect(text).to_string(), text);
    }
}

#[test]
fn a_placement_in_toml_and_its_mistakes_by_field() {
    let good: Placement = toml::from_str(
        "pool = \"web\"\nconstraints = [\"tier = pro\"]\nspread = [\"zone max-skew 1\"]\n\
         max_per = [\"1 per host\"]\naffinities = [\"with cache weight 20\"]\nstrategy = \"spread\"\n\
         ports = [8080]\npriority = 10\ncut_off = { do = \"stop\", after_ms = 30000 }\n[devices]\ngpu = 2\n",
    )
    .expect("it reads");
    assert_eq!(good.check("placement"), Ok(()));
    let json = serde_json::to_string(&good).expect("it prints");
    assert_eq!(
        serde_json::from_str::<Placement>(&json).expect("it reads"),
        good
    );
    assert!(toml::from_str::<Placement>("constraint = []").is_err());
    assert!(toml::from_str::<Placement>("constraints = [\"tier\"]").is_err());
    let bad = [
        (
            "placement.ports",
            Placement {
                ports: vec![80, 80],
                ..Default::default()
            },
        ),
        (
            "placement.priority",
            Placement {
                priority: 1_001,
                ..Default::default()
            },
        ),
        (
            "placement.devices",
            Placement {
                devices: [("gpu".into(), 0)].into(),
                ..Default::default()
            },
        ),
        (
            "placement.cut_off.after_ms",
            Placement {
                cut_off: CutOff::Stop { after_ms: 1 },
                ..Default::default()
            },
        ),
        (
            "placement.spread",
            Placement {
                spread: vec!["a".parse().expect("a key"); 5],
                ..Default::default()
            },
        ),
        (
            "placement.max_per[0]",
            Placement {
                max_per: vec![MaxPer {
                    key: "host".into(),
                    count: 0,
                }],
                ..Default::default()
            },
        ),
    ];
    for (field, placement) in bad {
        let problem = placement.check("placement").expect_err(field);
        assert_eq!(problem.field.as_deref(), Some(field));
    }
    assert!(
        PoolPolicy {
            cpu_percent: 5,
            ..PoolPolicy::default()
        }
        .check()
        .is_err()
    );
}

proptest! {
    #[test]
    fn any_text_reads_or_is_refused_and_what_reads_prints_and_reads_again(text in "[ a-c=!<>,%0-9]{0,12}(in|set|version|per|weight)?[ a-c0-9,=]{0,8}") {
        if let Ok(value) = text.parse::<Constraint>() {
            prop_assert_eq!(value.to_string().parse::<Constraint>(), Ok(value));
        }
        if let Ok(value) = text.parse::<Spread>() {
            prop_assert_eq!(value.to_string().parse::<Spread>(), Ok(value));
        }
        if let Ok(value) = text.parse::<Affinity>() {
            prop_assert_eq!(value.to_string().parse::<Affinity>(), Ok(value));
        }
    }
}

/// Sound in itself, and refused where a user asks for it.
#[test]
fn what_no_agent_carries_out_is_refused_in_a_specification() {
    let placement = Placement {
        private_network: true,
        ..Placement::default()
    };
    assert_eq!(placement.check("placement"), Ok(()));
    let problem = placement
        .check_carried_out("placement")
        .expect_err("not yet");
    assert_eq!(problem.field.as_deref(), Some("placement.private_network"));
    let carried_out = Placement {
        cut_off: CutOff::Stop { after_ms: 30_000 },
        ports: vec![8443],
        dynamic_ports: 1,
        devices: [("gpu".to_owned(), 1)].into(),
        ..Placement::default()
    };
    assert_eq!(carried_out.check_carried_out("placement"), Ok(()));
}
