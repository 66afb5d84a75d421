//! The same commit with the same configuration is built once: its image is found again by a label. What
//! makes two builds the same is pure; Docker is asked who has the label.

use std::collections::HashMap;

use bollard::query_parameters::{ListImagesOptions, TagImageOptions};
use serde::Serialize;
use skep_model::assignment::BuildOrder;
use skep_model::build::{Build, Fetch, Nixpacks, StaticSite};
use skep_model::deployment::Origin;
use skep_model::problem::Problem;
use skep_model::spec::ServiceSpec;
use tokio::time::timeout;

use super::image::{self, INSPECT_LIMIT};
use super::{Env, LABEL_CLUSTER, LABEL_SERVICE};
use crate::images::Digest;

/// Label on an image: what it was made of.
pub(super) const LABEL_SOURCE: &str = "sh.skep.source";
/// Label on an image: by which deployment.
pub(super) const LABEL_DEPLOYMENT: &str = "sh.skep.deployment";

/// All that an image depends on, as far as it is known. Of secrets the names alone, as for BuildKit's own
/// cache: their values must not be found out from a label.
#[derive(Serialize)]
struct Source<'a> {
    repository: &'a str,
    directory: &'a str,
    commit: &'a str,
    builder: Option<String>,
    dockerfile: Option<&'a str>,
    build: Build,
    nixpacks: &'a Nixpacks,
    site: &'a StaticSite,
    fetch: (bool, bool),
}

/// The name of a source; none: an upload, which has no name.
pub(super) fn key(order: &BuildOrder, spec: &ServiceSpec, commit: Option<&str>) -> Option<String> {
    let (repository, directory) = match &order.origin {
        Origin::Git {
            repository,
            directory,
            ..
        } => (repository.as_str(), directory),
        // Its commits are the service's own, as the images are that are looked among.
        Origin::Pushed { directory, .. } => ("", directory),
        _ => return None,
    };
    let Fetch {
        submodules, lfs, ..
    } = spec.fetch;
    let source = Source {
        repository,
        directory,
        commit: commit?,
        builder: spec.builder.as_ref().map(ToString::to_string),
        dockerfile: spec.dockerfile.as_deref(),
        // Limits change nothing of an image that came of it.
        build: Build {
            target: spec.build.target.clone(),
            args: spec.build.args.clone(),
            secrets: spec.build.secrets.clone(),
            ..Build::default()
        },
        nixpacks: &spec.nixpacks,
        site: &spec.site,
        fetch: (submodules, lfs),
    };
    let text = serde_json::to_vec(&source).expect("plain data");
    Some(Digest::of(&text).hex())
}

/// An image of this source that an earlier deployment of the service made, and which one.
pub(super) async fn find(
    env: &Env,
    order: &BuildOrder,
    key: &str,
) -> Result<Option<(String, String)>, Problem> {
    let labels = vec![
        format!("{LABEL_SOURCE}={key}"),
        format!("{LABEL_SERVICE}={}", order.service),
        format!("{LABEL_CLUSTER}={}", env.cluster),
    ];
    let options = ListImagesOptions {
        filters: Some(HashMap::from([("label".to_owned(), labels)])),
        ..Default::default()
    };
    let asked = timeout(INSPECT_LIMIT, env.docker.list_images(Some(options)));
    let Ok(Ok(found)) = asked.await else {
        // Then it is built: whoever does that says what is wrong with Docker.
        return Ok(None);
    };
    let newest = found.into_iter().max_by_key(|image| image.created);
    Ok(newest.map(|image| {
        let deployment = image.labels.get(LABEL_DEPLOYMENT).cloned();
        (image.id, deployment.unwrap_or_default())
    }))
}

/// Gives an image the name of this deployment's too.
pub(super) async fn name(env: &Env, id: &str, name: &image::Name) -> Result<(), Problem> {
    let options = TagImageOptions {
        repo: Some(name.repository.clone()),
        tag: Some(name.tag.clone()),
    };
    let tagged = timeout(INSPECT_LIMIT, env.docker.tag_image(id, Some(options))).await;
    match tagged {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(image::unreachable(&error)),
        Err(_) => Err(image::unreachable(
            &bollard::errors::Error::RequestTimeoutError,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::order;
    use super::*;

    #[test]
    fn what_makes_two_builds_the_same() {
        let git = |repository: &str| {
            order(Origin::Git {
                repository: repository.into(),
                branch: "main".into(),
                commit: None,
                directory: String::new(),
            })
        };
        let spec = |change: fn(&mut ServiceSpec)| {
            let mut spec = ServiceSpec::default();
            change(&mut spec);
            spec
        };
        let plain = key(&git("r"), &spec(|_| {}), Some("c"));
        assert!(plain.is_some());
        let same: [fn(&mut ServiceSpec); 3] = [
            |it| it.replicas = 5,
            |it| it.build.timeout_ms = 5_000,
            |it| it.build.memory_bytes = 1 << 30,
        ];
        for change in same {
            assert_eq!(key(&git("r"), &spec(change), Some("c")), plain);
        }
        let other: [fn(&mut ServiceSpec); 6] = [
            |it| it.dockerfile = Some("x".into()),
            |it| it.build.target = Some("x".into()),
            |it| drop(it.build.args.insert("A".into(), "1".into())),
            |it| it.build.secrets = ["A".to_owned()].into(),
            |it| it.nixpacks.start = Some("x".into()),
            |it| it.fetch.submodules = true,
        ];
        for change in other {
            assert_ne!(key(&git("r"), &spec(change), Some("c")), plain);
        }
        assert_ne!(key(&git("r"), &spec(|_| {}), Some("d")), plain);
        assert_ne!(key(&git("s"), &spec(|_| {}), Some("c")), plain);
        let upload = order(Origin::Upload {
            upload: skep_model::id::UploadId::from_u128(1),
        });
        assert_eq!(key(&upload, &spec(|_| {}), Some("c")), None);
    }
}
