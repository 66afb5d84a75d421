//! A server's word of readiness: said once, when it is true, whether or not a bootstrap file is
//! asked for.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use skep_tests::process::Process;
use skep_tests::{http, place, wait};

/// Longer than any start takes.
const READY: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_says_that_it_is_ready_and_is() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name).display().to_string();
    let http_addr = place::free_address()?;
    for bootstrap in [None, Some(path("bootstrap.json"))] {
        let mut arguments = vec![
            "--data-dir".to_owned(),
            path("server"),
            "--key-file".to_owned(),
            path("operator.key"),
            "--http-addr".to_owned(),
            http_addr.to_string(),
            "--api-addr".to_owned(),
            place::free_address()?.to_string(),
            "--agent-addr".to_owned(),
            place::free_address()?.to_string(),
            "--ready-file".to_owned(),
            path("ready"),
        ];
        if let Some(bootstrap) = &bootstrap {
            arguments.extend(["--bootstrap".to_owned(), bootstrap.clone()]);
        }
        let server = Process::new("server", &place::skep_binary()?, dir.path().join("log"))
            .args(["server".to_owned(), "--exit-with-parent".to_owned()])
            .args(arguments);
        server.start().await?;
        let words = wait::until(
            "the word of readiness",
            READY,
            async || match std::fs::read(path("ready")) {
                Ok(bytes) => Ok(Some(serde_json::from_slice::<Value>(&bytes)?)),
                Err(_) if server.is_running().await? => Ok(None),
                Err(_) => bail!("the server has ended: {}", server.log()),
            },
        )
        .await?;
        assert_eq!(words["ready"], true);
        assert_eq!(words["bootstrap"], json!(bootstrap));
        assert_eq!(words["http"], format!("http://{http_addr}"));
        // At the first try.
        assert_eq!(
            http::get(http_addr, "localhost", "/readyz").await?.status,
            200
        );
        if let Some(bootstrap) = &bootstrap {
            assert!(std::fs::exists(bootstrap)?);
        }
        assert!(server.terminate(READY).await?.success());
        std::fs::remove_file(path("ready"))?;
    }
    Ok(())
}
