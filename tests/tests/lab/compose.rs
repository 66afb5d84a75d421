//! Services of a Compose file reach each other by the names that they have in it.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::Result;
use skep_tests::lab::nodes::{self, Wanted};
use skep_tests::place;
use skep_tests::skep::Skep;

use super::private::{PRIVATE, inside, service};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_of_a_compose_file_reach_each_other_by_name() {
    let wanted = Wanted {
        arguments: PRIVATE,
        ..Wanted::nodes(1)
    };
    nodes::with_nodes("compose", wanted, async |cluster, nodes| -> Result<()> {
        let node = &nodes[0];
        let private = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().permissions(private).tempdir()?;
        let skep = Skep::new(&place::skep_binary()?, folder.path());
        let url = format!("https://{}", cluster.servers.server(0).site.api);
        let bootstrap = cluster.servers.bootstrap();
        let fingerprint = &bootstrap.ca_fingerprint;
        let login = ["login", "--server", &url, "--fingerprint", fingerprint];
        skep.run_with_token(&bootstrap.token, &login).await?.ok()?;

        let (caller, database) = (node.image("1").await?, node.image("2").await?);
        let file = format!(
            "name: shop\nservices:\n  worker: {{image: \"{caller}\", mem_limit: 32m, depends_on: [the_db]}}\n  \
             the_db: {{image: \"{database}\", mem_limit: 32m, expose: [8080]}}\n"
        );
        let path = folder.path().join("compose.yaml");
        std::fs::write(&path, file)?;
        let path = path.to_string_lossy();
        let done = skep.run(&["import", &*path, "--yes"]).await?.ok()?;
        done.says(&["the service is named `the-db`", "say `the-db` wherever `the_db` is said"])?;
        let caller = inside(node, &service("shop", "worker")).await?;
        caller.sees("the-db", "2").await
    })
    .await;
}
