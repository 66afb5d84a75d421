//! `skep template`: a database out of a template becomes live, once, and others refer to it.

use anyhow::{Context as _, Result, ensure};
use skep_tests::api::Name;
use skep_tests::{Cluster, with_cluster};

/// What the test adds: of the shape of the shipped ones, with an image that this machine can make.
fn template(image: &str, version: &str) -> String {
    format!(
        r#"
name = "db"
version = "{version}"
description = "A database, as far as others can see"
after = "Ask {{{{ prefix }}}}db."

[questions.user]
text = "Who?"
pattern = "[a-z]+"
example = "ann"

[secrets.db]
PASSWORD = {{ length = 40, alphabet = "hex" }}

[services.db]
from = {{ image = "{image}" }}
stop_grace = "2s"

[services.db.variables]
USER_NAME = "{{{{ user }}}}"
PASSWORD = {{ secret = true }}
URL = "db://${{{{USER_NAME}}}}:${{{{PASSWORD}}}}@here"
VERSION_OF_IT = "{version}"

[services.app]
from = {{ image = "{image}" }}
stop_grace = "2s"

[services.app.variables]
URL = "${{{{db.URL}}}}"
"#
    )
}

async fn url(cluster: &Cluster, service: &str) -> Result<String> {
    let name = Name {
        project: "shop".to_owned(),
        service: service.to_owned(),
    };
    let environment = cluster.environment(&name).await?;
    environment.get("URL").context("no URL").cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_becomes_live_once_and_a_newer_one_is_shown() {
    with_cluster("templates", async |cluster| {
        let skep = &cluster.skep;
        let image = cluster.image("1", &[]).await?;
        let app = cluster.app("recipe", "1")?;
        app.write("skep.template.toml", &template(&image, "1.0.0"))?;
        let folder = app.path()?;
        let add = |more: &[&'static str]| {
            let mut line = vec![
                "template",
                "add",
                folder,
                "--project",
                "shop",
                "--name",
                "blue",
            ];
            line.extend(more);
            line
        };

        let unanswered = skep.run(&add(&["--yes"])).await?.code(2)?;
        unanswered.says(&["--set user=ANSWER", "for example ann"])?;
        let bad = skep
            .run(&add(&["--yes", "--set", "user=A1"]))
            .await?
            .code(2)?;
        bad.says(&["does not match"])?;
        let shown = skep.run(&add(&["--set", "user=ann"])).await?.code(2)?;
        shown.says(&[
            "+ production/blue-db is made",
            "a secret that is made",
            "not confirmed",
        ])?;

        let user = ["--yes", "--set", "user=ann"];
        let done = skep.run(&add(&user)).await?.ok()?;
        let done = done.says(&["shop is as db 1.0.0 says", "Ask blue-db.", "blue-app: http"])?;
        let first = url(cluster, "blue-app").await?;
        let password = first.strip_prefix("db://ann:").context(first.clone())?;
        let password = password.strip_suffix("@here").context(first.clone())?;
        ensure!(
            password.len() == 40 && password.bytes().all(|it| it.is_ascii_hexdigit()),
            "{password}"
        );
        ensure!(!done.to_string().contains(password), "the secret was shown");

        // The same again does nothing; a newer one says what is new, and keeps the secret.
        let again = skep.run(&add(&["--set", "user=ann"])).await?.ok()?;
        ensure!(!again.to_string().contains("done:"), "{again}");
        app.write("skep.template.toml", &template(&image, "1.1.0"))?;
        let newer = skep.run(&add(&user)).await?.ok()?;
        let newer = newer.says(&["variables.VERSION_OF_IT: \"1.0.0\" -> \"1.1.0\""])?;
        ensure!(!newer.to_string().contains("PASSWORD"), "{newer}");
        assert_eq!(url(cluster, "blue-app").await?, first);
        Ok(())
    })
    .await;
}
