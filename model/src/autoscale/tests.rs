use proptest::prelude::*;

use super::*;
use crate::problem::Code;

fn ms(text: &str) -> u64 {
    let at: jiff::Timestamp = text.parse().unwrap();
    u64::try_from(at.as_millisecond()).unwrap()
}

#[test]
fn targets_are_typed_and_printed() {
    for (text, metric, value_milli) in [
        ("cpu=70%", Metric::Cpu, 70_000),
        ("memory=80.5%", Metric::Memory, 80_500),
        ("request_rate=100", Metric::RequestRate, 100_000),
        ("in_flight=0.5", Metric::InFlight, 500),
        ("latency_p95=200ms", Metric::LatencyP95, 200_000),
        ("queue_length=50", Metric::QueueLength, 50_000),
        (
            "custom:jobs.waiting=3",
            Metric::Custom("jobs.waiting".into()),
            3_000,
        ),
    ] {
        let target: Target = text.parse().unwrap();
        assert_eq!((&target.metric, target.value_milli), (&metric, value_milli));
        assert_eq!(target.to_string(), text);
    }
    for (text, same) in [
        ("request_rate=100/s", "request_rate=100"),
        ("latency_p95=1.5s", "latency_p95=1500ms"),
        (" cpu = 70%", "cpu=70%"),
    ] {
        assert_eq!(text.parse::<Target>().unwrap().to_string(), same);
    }
}

#[test]
fn what_is_not_a_target_is_told_what_is() {
    for text in [
        "",
        "cpu",
        "cpu=",
        "cpu=70",
        "cpu=0%",
        "cpu=-1%",
        "cpu=1e3%",
        "memory=101%",
        "request-rate=100",
        "request_rate=0",
        "request_rate=1.2345",
        "latency_p95=200",
        "latency_p95=0ms",
        "queue_length=.5",
        "queue_length=1.",
        "custom:=1",
        "custom:a b=1",
        "jobs=1",
        "in_flight=99999999999999999999",
    ] {
        let problem = text.parse::<Target>().expect_err(text);
        assert_eq!(problem.code, Code::Invalid, "{text}");
        assert!(
            problem.hint.is_some() && problem.field.is_some(),
            "{text}: {problem}"
        );
    }
}

#[test]
fn policies_are_typed_and_printed() {
    for text in [
        "50%/min",
        "4/15s",
        "100% or 4/15s",
        "10%/5m",
        "1/hour",
        "never",
        "3/1500ms",
    ] {
        assert_eq!(text.parse::<Policy>().unwrap().to_string(), text);
    }
    assert_eq!("50%/1m".parse::<Policy>().unwrap().to_string(), "50%/min");
    for text in [
        "",
        "50%",
        "50%/",
        "0/min",
        "x/min",
        "5% or 6%/min",
        "4/100ms",
        "4/48h",
        "-1/min",
    ] {
        assert!(text.parse::<Policy>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn every_value_reads_back(value in 1_000_u64..100_000, period in 1_000_u64..86_400_000, share in 0_u32..1_000, count in 0_u32..1_000) {
        for metric in ["cpu", "memory", "request_rate", "in_flight", "latency_p95", "queue_length", "custom:x"] {
            let target = Target { metric: metric.parse().unwrap(), value_milli: value / 1_000 * 1_000 };
            prop_assert_eq!(&target.to_string().parse::<Target>().unwrap(), &target);
        }
        let policy = Policy { percent: share, count, period_ms: period };
        let back = policy.to_string().parse::<Policy>().unwrap();
        prop_assert!(back == policy || (back.is_never() && policy.is_never()));
    }
}

#[test]
fn a_specification_reads_back_and_unknown_fields_are_refused() {
    let text = r#"{"min": 2, "max": 20, "targets": ["cpu=70%", "request_rate=100"],
        "schedules": [{"from": "0 8 * * 1-5", "to": "0 18 * * 1-5", "time_zone": "Europe/Berlin", "min": 5}],
        "scale_to_zero": {"idle_ms": 600000}, "up": "50%/min", "sizing": {"mode": "apply"}}"#;
    let spec: Autoscale = serde_json::from_str(text).unwrap();
    assert_eq!(spec.check(), Ok(()));
    assert_eq!(spec.up.percent, 50);
    assert_eq!(spec.targets[1].value_milli, 100_000);
    let back: Autoscale = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
    assert_eq!(back, spec);
    for wrong in [
        r#"{"target": []}"#,
        r#"{"targets": ["cpu=70"]}"#,
        r#"{"up": "fast"}"#,
    ] {
        assert!(serde_json::from_str::<Autoscale>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_default_is_valid_and_each_refusal_names_its_field() {
    let good = Autoscale::default;
    assert_eq!(good().check(), Ok(()));
    let window = |from: &str, to: &str, zone: &str, min, max| {
        vec![Window {
            from: from.into(),
            to: to.into(),
            time_zone: zone.into(),
            min,
            max,
        }]
    };
    let (eight, six) = ("0 8 * * *", "0 18 * * *");
    let cpu: Target = "cpu=70%".parse().unwrap();
    let broken = [
        ("autoscale.min", Autoscale { min: 0, ..good() }),
        ("autoscale.min", Autoscale { min: 11, ..good() }),
        (
            "autoscale.max",
            Autoscale {
                max: 1_001,
                ..good()
            },
        ),
        (
            "autoscale.targets[1]",
            Autoscale {
                targets: vec![cpu.clone(), cpu.clone()],
                ..good()
            },
        ),
        (
            "autoscale.targets",
            Autoscale {
                targets: vec![cpu; 9],
                ..good()
            },
        ),
        (
            "autoscale.schedules[0].from",
            Autoscale {
                schedules: window("8", six, "UTC", Some(1), None),
                ..good()
            },
        ),
        (
            "autoscale.schedules[0].to",
            Autoscale {
                schedules: window(eight, "", "UTC", Some(1), None),
                ..good()
            },
        ),
        (
            "autoscale.schedules[0].to",
            Autoscale {
                schedules: window(eight, eight, "UTC", Some(1), None),
                ..good()
            },
        ),
        (
            "autoscale.schedules[0].time_zone",
            Autoscale {
                schedules: window(eight, six, "Mars", Some(1), None),
                ..good()
            },
        ),
        (
            "autoscale.schedules[0].min",
            Autoscale {
                schedules: window(eight, six, "UTC", None, None),
                ..good()
            },
        ),
        (
            "autoscale.schedules[0].min",
            Autoscale {
                schedules: window(eight, six, "UTC", Some(11), None),
                ..good()
            },
        ),
        (
            "autoscale.schedules[0].max",
            Autoscale {
                schedules: window(eight, six, "UTC", Some(3), Some(2)),
                ..good()
            },
        ),
        (
            "autoscale.scale_to_zero.idle_ms",
            Autoscale {
                scale_to_zero: Some(ScaleToZero { idle_ms: 0 }),
                ..good()
            },
        ),
        (
            "autoscale.up",
            Autoscale {
                up: Policy {
                    period_ms: 0,
                    ..Policy::UP
                },
                ..good()
            },
        ),
        (
            "autoscale.down",
            Autoscale {
                down: Policy {
                    count: 1_001,
                    ..Policy::DOWN
                },
                ..good()
            },
        ),
        (
            "autoscale.tolerance_up_percent",
            Autoscale {
                tolerance_up_percent: 51,
                ..good()
            },
        ),
        (
            "autoscale.stable_window_ms",
            Autoscale {
                stable_window_ms: 1,
                ..good()
            },
        ),
        (
            "autoscale.burst_window_ms",
            Autoscale {
                burst_window_ms: 60_001,
                ..good()
            },
        ),
        (
            "autoscale.down_window_ms",
            Autoscale {
                down_window_ms: u64::MAX,
                ..good()
            },
        ),
        (
            "autoscale.sizing.max_cpu_millis",
            Autoscale {
                sizing: Some(Sizing {
                    max_cpu_millis: 1,
                    ..Sizing::default()
                }),
                ..good()
            },
        ),
    ];
    for (field, spec) in broken {
        let problem = spec.check_given().expect_err(field);
        assert_eq!(problem.field.as_deref(), Some(field), "{problem}");
    }
}

#[test]
fn a_window_follows_the_clock_on_the_wall() {
    let window = Window {
        from: "0 8 * * 1-5".into(),
        to: "0 18 * * 1-5".into(),
        time_zone: "Europe/Berlin".into(),
        min: Some(5),
        max: None,
    };
    for (at, open) in [
        // A Friday in winter (UTC+1), then one in summer (UTC+2).
        ("2025-03-28T06:59:59Z", false),
        ("2025-03-28T07:00:00Z", true),
        ("2025-03-28T16:59:59Z", true),
        ("2025-03-28T17:00:00Z", false),
        ("2025-04-04T05:59:59Z", false),
        ("2025-04-04T06:00:00Z", true),
        ("2025-04-04T16:00:00Z", false),
        // A Saturday.
        ("2025-04-05T09:00:00Z", false),
    ] {
        assert_eq!(window.is_open(ms(at)), open, "{at}");
    }
    // Over midnight, through the night in which clocks go forward.
    let night = Window {
        from: "0 22 * * *".into(),
        to: "30 2 * * *".into(),
        ..window
    };
    for (at, open) in [
        ("2025-03-29T20:59:00Z", false),
        ("2025-03-29T21:00:00Z", true),
        ("2025-03-30T00:59:00Z", true),
        // 2:30 does not exist: it closes at the first moment after the gap.
        ("2025-03-30T01:00:00Z", false),
    ] {
        assert_eq!(night.is_open(ms(at)), open, "{at}");
    }
}
