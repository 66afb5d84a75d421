//! A registry on this machine's loopback: Debian's `docker-registry`, for whoever logs in. It can be ended and started
//! again where it was, with what it has.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use bollard::query_parameters::{PushImageOptions, TagImageOptions};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::Request;
use http::header::{ACCEPT, AUTHORIZATION, HOST};
use http_body_util::Full;
use serde_json::Value;

use crate::containers::Containers;
use crate::http as requests;
use crate::http::Answer;
use crate::place::free_address;
use crate::process::Process;
use crate::wait;

const START: Duration = Duration::from_secs(30);
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json, \
                        application/vnd.oci.image.manifest.v1+json";

/// Who may log in.
pub const USER: &str = "lab-user";
/// With this.
pub const PASSWORD: &str = "lab-password";
/// Both, as the registry wants them: bcrypt at its lowest cost.
const HTPASSWD: &str = "lab-user:$2y$04$evHUv.BG/dTnVO2RrWPhbuyLTACYI8mFAMXM3myscuMehyYW47N8u\n";

/// A running registry; ends with its process.
pub struct LocalRegistry {
    address: SocketAddr,
    process: Process,
}

impl LocalRegistry {
    /// Starts one with its files in `dir`.
    ///
    /// # Errors
    /// It does not start; tells what it said.
    pub async fn start(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let address = free_address()?;
        let users = dir.join("htpasswd");
        std::fs::write(&users, HTPASSWD)?;
        let text = format!(
            "version: 0.1\nlog: {{ level: warn }}\n\
             storage: {{ filesystem: {{ rootdirectory: \"{}\" }} }}\n\
             http: {{ addr: \"{address}\" }}\n\
             auth: {{ htpasswd: {{ realm: lab, path: \"{}\" }} }}\n",
            dir.join("data").display(),
            users.display()
        );
        let config = dir.join("registry.yml");
        std::fs::write(&config, text)?;
        let process = Process::new("registry", Path::new("docker-registry"), dir.join("log"))
            .args(["serve".into(), config.into_os_string()]);
        let registry = Self { address, process };
        registry.start_again().await?;
        Ok(registry)
    }

    /// Starts it where it was before, with what it has.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_again(&self) -> Result<()> {
        self.process.start().await?;
        wait::until_ok("the registry to answer", START, async || {
            let answer = self.ask("").await?;
            ensure!(answer.status == 200, "{}", answer.text());
            Ok(())
        })
        .await
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// It does not end.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill().await
    }

    /// As references begin.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// A path under `/v2/`, as who may log in.
    async fn ask(&self, path: &str) -> Result<Answer> {
        let login = STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let request = Request::get(format!("/v2/{path}"))
            .header(HOST, self.host())
            .header(ACCEPT, MANIFEST)
            .header(AUTHORIZATION, format!("Basic {login}"))
            .body(Full::<Bytes>::default())?;
        requests::send(self.address, request).await
    }

    /// The digest of a tag, and the labels of its image.
    ///
    /// # Errors
    /// It is not there.
    pub async fn image(&self, repository: &str, tag: &str) -> Result<(String, Value)> {
        let answer = self.ask(&format!("{repository}/manifests/{tag}")).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        let manifest: Value = answer.json()?;
        let config = manifest["config"]["digest"].as_str().context("a config")?;
        let config = self.ask(&format!("{repository}/blobs/{config}")).await?;
        let config: Value = config.json()?;
        let digest = answer.header("docker-content-digest").to_owned();
        Ok((digest, config["config"]["Labels"].clone()))
    }

    /// Pushes an image that Docker has as `repository:tag`; answers its reference.
    ///
    /// # Errors
    /// Docker or the registry does not do it.
    pub async fn push(
        &self,
        containers: &Containers,
        image: &str,
        to: (&str, &str),
    ) -> Result<String> {
        let repository = format!("{}/{}", self.host(), to.0);
        let docker = containers.docker();
        let name = TagImageOptions {
            repo: Some(repository.clone()),
            tag: Some(to.1.to_owned()),
        };
        docker.tag_image(image, Some(name)).await?;
        let login = DockerCredentials {
            username: Some(USER.to_owned()),
            password: Some(PASSWORD.to_owned()),
            serveraddress: Some(self.host()),
            ..DockerCredentials::default()
        };
        let options = PushImageOptions {
            tag: Some(to.1.to_owned()),
            ..Default::default()
        };
        let mut said = std::pin::pin!(docker.push_image(&repository, Some(options), Some(login)));
        while let Some(line) = said.next().await {
            let error = line?.error_detail.and_then(|detail| detail.message);
            ensure!(error.is_none(), "{error:?}");
        }
        Ok(format!("{repository}:{}", to.1))
    }
}
