//! Static sites: where they run when nobody says so, and what cannot go with files alone.

use super::*;

/// A build of a site whose own file says this.
fn made_of(text: &str, bundle: bool) -> Next {
    let plain = built(&[80]);
    let outcome = BuildOutcome::Built(Built {
        image: Image {
            bundle,
            shared: true,
            ..plain.image
        },
        manifest: Some(text.into()),
        ..plain
    });
    World::building(image()).built(&outcome).decide()
}

#[test]
fn files_are_on_every_node_unless_a_number_is_said() {
    let cases = [
        ("", true, Mode::System),
        ("", false, Mode::Service),
        ("replicas = 2", true, Mode::Service),
        ("[run]\nmode = \"service\"", true, Mode::Service),
        ("[run]\nmode = \"system\"", false, Mode::System),
    ];
    for (text, bundle, mode) in cases {
        let Next::Release(resolved) = made_of(text, bundle) else {
            panic!("a release of `{text}`")
        };
        assert_eq!(resolved.spec.run.mode, mode, "{text} {bundle}");
        let is_told = resolved.step.contains("files on every node");
        assert_eq!(is_told, bundle && text.is_empty(), "{}", resolved.step);
        let needs = resolved.release.requests();
        assert_eq!(
            (needs.cpu_millis == 0, needs.memory_bytes == 0),
            (bundle, bundle)
        );
    }
}

#[test]
fn what_needs_a_container_is_refused() {
    let cases = [
        ("command = [\"x\"]", "command"),
        ("type = \"worker\"", "type"),
        ("[[volumes]]\nname = \"data\"\npath = \"/data\"", "volumes"),
        ("[[tcp]]\nport = 1\nsni = \"db.example.com\"", "tcp"),
        ("[autoscale]\nmax = 3\ntargets = [\"cpu=70%\"]", "autoscale"),
    ];
    for (text, field) in cases {
        assert!(matches!(made_of(text, false), Next::Release(_)), "{text}");
        let Next::Fail(problem, _) = made_of(text, true) else {
            panic!("`{text}` was accepted")
        };
        assert_eq!(problem.field.as_deref(), Some(field), "{problem}");
    }
}
