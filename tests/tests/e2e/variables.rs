//! Variables and names: what is accepted, what is shown, what reaches the app.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::{wait, with_cluster};

const SECRET: &str = "s3cret-that-nobody-may-see";
/// A deployment of a ready image.
const SOON: Duration = Duration::from_secs(60);

/// Whether a file below `dir` holds these bytes.
pub(crate) fn found_in(dir: &Path, bytes: &[u8]) -> Result<Option<String>> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let kind = std::fs::symlink_metadata(&path)?;
        if kind.is_dir() {
            if let Some(found) = found_in(&path, bytes)? {
                return Ok(Some(found));
            }
        } else if kind.is_file()
            && std::fs::read(&path)?
                .windows(bytes.len())
                .any(|part| part == bytes)
        {
            return Ok(Some(path.display().to_string()));
        }
    }
    Ok(None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_reach_the_app_and_secrets_nobody_else() {
    with_cluster("env", async |cluster| {
        let (name, first) = cluster.service("conf", "1", json!({})).await?;
        let skep = &cluster.skep;
        // The name ends at the first `=`.
        skep.run(&["env", "set", "--service", "conf", "COLOUR=blue", "A=B=C"])
            .await?
            .ok()?;
        skep.run(&[
            "env",
            "set",
            "--service",
            "conf",
            "--secret",
            &format!("TOKEN={SECRET}"),
        ])
        .await?
        .ok()?;
        let environment = cluster.environment(&name).await?;
        let shown = ["COLOUR", "A", "TOKEN"].map(|key| environment[key].as_str());
        assert_eq!(shown, ["blue", "B=C", SECRET]);
        let reserved = ["PORT", "SKEP_ALLOCATION_ID"].map(|key| environment.contains_key(key));
        assert_eq!(reserved, [true, true], "{environment:?}");

        let list = skep.run(&["env", "list", "conf"]).await?.ok()?;
        assert!(
            list.stdout.contains("blue") && list.stdout.contains("TOKEN"),
            "{list}"
        );
        let json = skep.run(&["env", "list", "conf", "--json"]).await?.json()?;
        let api = cluster.api.get(&name.path("/variables")).await?;
        for text in [list.stdout, json.to_string(), api.to_string()] {
            assert!(!text.contains(SECRET), "{text}");
        }

        skep.run(&["env", "unset", "--service", "conf", "COLOUR"])
            .await?
            .ok()?;
        assert!(!cluster.environment(&name).await?.contains_key("COLOUR"));

        // Old releases keep their own: going back shows the environment of then.
        let release = first.release.context("a release")?;
        cluster
            .api
            .live(&name, &json!({ "type": "rollback", "release": release }))
            .await?;
        assert!(!cluster.environment(&name).await?.contains_key("TOKEN"));

        // Rule: log, snapshot, history, ledger and route table never hold plaintext.
        for part in [&cluster.agent, &cluster.server, &cluster.net] {
            assert!(
                !part.log().contains(SECRET),
                "{} logged a secret",
                part.name()
            );
        }
        for folder in ["server", "node"] {
            assert_eq!(found_in(&cluster.path(folder), SECRET.as_bytes())?, None);
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_variables_goes_in_and_comes_out_without_its_secrets() {
    with_cluster("dotenv", async |cluster| {
        let (name, _) = cluster.service("conf", "1", json!({})).await?;
        let (other, _) = cluster.service("copy", "1", json!({})).await?;
        let lines = "it's \\ \"quoted\" #1\n".repeat(2_000);
        let escaped = lines.replace('\\', r"\\").replace('"', r#"\""#);
        let text = format!(
            "# ours\nexport COLOUR='light blue'\nTOKEN={SECRET}\nGREETING=${{{{COLOUR}}}}!\nLINES=\"{escaped}\"\n"
        );
        let file = cluster.path("given.env");
        std::fs::write(&file, text)?;
        let file = file.to_str().context("a path of text")?;
        let skep = &cluster.skep;
        let import = ["env", "import", file, "--service", "conf"];
        skep.run(&[&import[..], &["--secret", "TOKEN"]].concat()).await?.ok()?;
        let environment = cluster.environment(&name).await?;
        let shown = ["COLOUR", "TOKEN", "GREETING", "LINES"].map(|key| environment[key].as_str());
        assert_eq!(shown, ["light blue", SECRET, "light blue!", &lines]);

        let said = skep.run(&["env", "export", "--service", "conf"]).await?.ok()?;
        assert!(said.stdout.contains("# TOKEN is a secret") && !said.stdout.contains(SECRET));
        let copied = cluster.path("copied.env");
        std::fs::write(&copied, &said.stdout)?;
        let copied = copied.to_str().context("a path of text")?;
        skep.run(&["env", "import", copied, "--service", "copy"]).await?.ok()?;
        let copy = cluster.environment(&other).await?;
        assert!(!copy.contains_key("TOKEN"));
        for key in ["COLOUR", "GREETING", "LINES"] {
            assert_eq!(copy[key], environment[key], "{key}");
        }

        // What is wrong is told without what may be a secret, and changes nothing.
        for text in [format!("A=1\nB={SECRET} {SECRET}\n"), format!("PORT={SECRET}\n")] {
            std::fs::write(file, text)?;
            let refused = skep.run(&import).await?.code(2)?.says(&["hint:"])?;
            assert!(!refused.to_string().contains(SECRET), "{refused}");
        }
        assert_eq!(cluster.environment(&name).await?, environment);
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_rotated_for_all_who_have_it_and_the_old_value_is_kept() {
    with_cluster("rotate", async |cluster| {
        let (name, _) = cluster.service("conf", "1", json!({})).await?;
        let skep = &cluster.skep;
        let token = format!("TOKEN={SECRET}");
        let set = ["env", "set", "--service", "conf", "--secret", &token];
        skep.run(&set).await?.ok()?;
        // In the same project, and so with another name than its own.
        let friend = Name {
            project: name.project.clone(),
            service: "friend".into(),
        };
        cluster.api.put_service(&friend, json!({})).await?;
        let image = cluster.image("2", &[]).await?;
        let image = json!({ "type": "image", "reference": image });
        cluster.api.live(&friend, &image).await?;
        let refers = [
            "env",
            "set",
            "--service",
            "conf/friend",
            "ITS=${{conf.TOKEN}}",
        ];
        skep.run(&refers).await?.ok()?;
        assert_eq!(cluster.environment(&friend).await?["ITS"], SECRET);

        let rotate = [
            "env",
            "rotate",
            "TOKEN",
            "--service",
            "conf/conf",
            "--length",
            "40",
        ];
        let said = skep
            .run(&[&rotate[..], &["--keep-old", "TOKEN_OLD"]].concat())
            .await?
            .ok()?;
        let environment = cluster.environment(&name).await?;
        let new = &environment["TOKEN"];
        assert!(new.len() == 40 && new != SECRET, "{new}");
        assert_eq!(environment["TOKEN_OLD"], SECRET);
        assert!(!said.to_string().contains(new.as_str()), "{said}");
        wait::until_ok("whoever refers to it", SOON, async || {
            let its = &cluster.environment(&friend).await?["ITS"];
            ensure!(its == new, "{its}");
            Ok(())
        })
        .await?;
        let list = skep.run(&["env", "list", "conf/conf"]).await?.ok()?;
        assert!(
            !list.stdout.contains(SECRET),
            "the old one is a secret, too"
        );

        // One of the environment: all that refer to it get the new one, and the old one has another name.
        let shared = ["--shared", "--project", "conf"];
        let root = format!("ROOT={SECRET}");
        let set = ["env", "set", "--secret", &root];
        skep.run(&[&set[..], &shared].concat()).await?.ok()?;
        let refers = ["env", "set", "--service", "conf/friend"];
        let both = ["ROOT=${{shared.ROOT}}", "OLD=${{shared.ROOT_OLD}}"];
        skep.run(&[&refers[..], &both[..1]].concat()).await?.ok()?;
        let rotate_root = ["env", "rotate", "ROOT", "--keep-old", "ROOT_OLD"];
        let rotate_root = [&rotate_root[..], &shared].concat();
        skep.run(&rotate_root).await?.ok()?.says(&["friend"])?;
        wait::until_ok("who refers to the shared one", SOON, async || {
            let its = &cluster.environment(&friend).await?["ROOT"];
            ensure!(its.len() == 32 && its != SECRET, "{its}");
            Ok(())
        })
        .await?;
        skep.run(&[&refers[..], &both[1..]].concat()).await?.ok()?;
        assert_eq!(cluster.environment(&friend).await?["OLD"], SECRET);
        let missing = ["env", "rotate", "ROOTS", "--shared", "--project", "conf"];
        skep.run(&missing).await?.code(1)?.says(&["--shared"])?;

        let missing = ["env", "rotate", "TOKENS", "--service", "conf/conf"];
        skep.run(&missing).await?.code(1)?.says(&["hint:"])?;
        let under_itself = [&rotate[..], &["--keep-old", "TOKEN"]].concat();
        skep.run(&under_itself).await?.code(2)?;
        assert_eq!(cluster.environment(&name).await?["TOKEN"], *new);
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_names_and_fields_are_refused_with_advice() {
    with_cluster("names", async |cluster| {
        let name = Name::of("plain");
        cluster.api.put_service(&name, json!({})).await?;
        let path = name.path("/variables");
        for bad in ["A=B", "", "1A", "A B", "PORT", "SKEP_X", "ä", "A\u{0}"] {
            let body = json!({ "set": [{ "name": bad, "value": "x" }] });
            let problem = cluster
                .api
                .refused(Method::PATCH, &path, Some(&body), 400)
                .await?;
            assert_eq!(problem.code, "invalid");
            let field = problem.field.clone().unwrap_or_default();
            assert!(field.contains("name"), "{bad:?}: {problem:?}");
            problem.with_hint()?;
        }
        cluster
            .skep
            .run(&["env", "set", "--service", "plain", "=x"])
            .await?
            .code(2)?
            .says(&["hint:"])?;

        for bad in [
            "Web",
            "1st",
            "a_b",
            "a-",
            "%2e%2e",
            "a%20b",
            "%C3%BCn",
            "%00",
            &"x".repeat(41),
        ] {
            let odd = Name {
                project: "plain".into(),
                service: bad.to_owned(),
            };
            let problem = cluster
                .api
                .refused(Method::PUT, &odd.path(""), Some(&json!({})), 400)
                .await?;
            assert_eq!(problem.code, "invalid", "{bad}");
            problem.with_hint()?;
        }
        let image = [
            "deploy",
            "--image",
            "x",
            "--project",
            "plain",
            "--service",
            "Odd Name",
        ];
        cluster
            .skep
            .run(&image)
            .await?
            .code(2)?
            .says(&["odd-name", "hint:"])?;

        // Fields: the error names the one that is wrong, and what is accepted.
        let wrong: [(Value, &str); 5] = [
            (json!({ "replicas": 1001 }), "replicas"),
            (
                json!({ "resources": { "memory_bytes": 1 } }),
                "resources.memory_bytes",
            ),
            (json!({ "health": { "path": "healthz" } }), "health.path"),
            (json!({ "domains": ["x`.com"] }), "domains"),
            (
                json!({ "source": { "type": "git", "repository": "-x", "branch": "main" } }),
                "source.repository",
            ),
        ];
        for (spec, field) in wrong {
            let body = json!({ "spec": spec });
            let problem = cluster
                .api
                .refused(Method::PUT, &name.path(""), Some(&body), 400)
                .await?;
            assert!(
                problem
                    .field
                    .as_deref()
                    .is_some_and(|at| at.ends_with(field)),
                "{field}: {problem:?}"
            );
            problem.with_hint()?;
        }

        // Bodies: not JSON, an unknown field, too large.
        let api = &cluster.api;
        for (body, status) in [("{", 400), ("{\"specs\":{}}", 400)] {
            let answer = api.send_bytes(Method::PUT, &name.path(""), body).await?;
            assert_eq!(answer.status, status, "{}", answer.text());
            assert_eq!(answer.json::<Value>()?["code"], "invalid");
        }
        let large = format!("{{\"variables\":\"{}\"}}", "x".repeat(2 << 20));
        let answer = api.send_bytes(Method::PUT, &name.path(""), large).await?;
        assert_eq!(answer.status, 413, "{}", answer.text());
        assert_eq!(answer.json::<Value>()?["code"], "too_large");
        Ok(())
    })
    .await;
}
