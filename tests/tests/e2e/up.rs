//! `skep up`: a folder becomes a service that answers; what fails leaves it as it was.

use anyhow::Result;
use skep_tests::api::Name;
use skep_tests::{Cluster, with_cluster};

async fn up(cluster: &Cluster, folder: &str, wanted: i32) -> Result<skep_tests::skep::Ended> {
    let arguments = ["up", folder, "--project", "shop", "--service", "web"];
    cluster.skep.run(&arguments).await?.code(wanted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_built_served_and_replaced() {
    with_cluster("up", async |cluster| {
        let name = Name {
            project: "shop".into(),
            service: "web".into(),
        };
        let app = cluster.app("app", "1")?;
        // Only what .dockerignore lets through can be copied: this build needs keep.txt.
        app.write(".dockerignore", "*.txt\n!keep.txt\n")?;
        app.write("keep.txt", "kept")?;
        app.write("left-out.txt", "left out")?;
        app.set_lines("ENV VERSION=1\nCOPY keep.txt /keep.txt\nEXPOSE 8080\n")?;

        let first = up(cluster, app.path()?, 0).await?;
        let url = format!("http://{}:{}", cluster.host(&name), cluster.ingress.port());
        first.says(&["builder: Dockerfile (found ./Dockerfile)", &url])?;
        cluster.answers(&name, "1").await?;

        app.set("2", &[])?;
        up(cluster, app.path()?, 0).await?;
        cluster.answers(&name, "2").await?;

        // A file that .dockerignore holds back is not there for the build.
        app.set_lines("ENV VERSION=3\nCOPY left-out.txt /x\n")?;
        up(cluster, app.path()?, 1)
            .await?
            .says(&["left-out.txt", "hint:"])?;
        cluster.answers(&name, "2").await?;

        // A step of the build that fails: the step and its code are told.
        app.set_lines("ENV VERSION=3 EXIT_AT_ONCE=7\nRUN [\"/skep-test-app\"]\n")?;
        let broken = up(cluster, app.path()?, 1).await?;
        broken.says(&["told to exit at once with 7", "exit code 7", "hint:"])?;
        cluster.answers(&name, "2").await?;

        // No builder fits.
        std::fs::remove_file(app.dir().join("Dockerfile"))?;
        up(cluster, app.path()?, 1).await?.says(&[
            "no ./Dockerfile",
            "Nixpacks makes no plan",
            "hint:",
        ])?;
        cluster.answers(&name, "2").await?;
        cluster.converged(&[(&name, 1)]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_apps_own_file_configures_it() {
    with_cluster("manifest", async |cluster| {
        let app = cluster.app("app", "1")?;
        app.write(
            "skep.toml",
            "name = \"api\"\nproject = \"shop\"\nreplicas = 2\n[health]\npath = \"/healthz\"\n[env]\nGREETING = \"hello\"\n",
        )?;
        cluster.skep.run(&["up", app.path()?]).await?.ok()?;
        let name = Name { project: "shop".into(), service: "api".into() };
        assert_eq!(cluster.environment(&name).await?["GREETING"], "hello");
        cluster.converged(&[(&name, 2)]).await?;

        // An unknown key is refused before anything is sent.
        app.write("skep.toml", "name = \"api\"\nreplica = 2\n")?;
        cluster.skep.run(&["up", app.path()?]).await?.code(2)?.says(&["replica", "hint:"])?;
        Ok(())
    })
    .await;
}
