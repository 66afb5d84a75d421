//! A Dockerfile of the app's own: nothing is to be made ready.

use futures_util::future::BoxFuture;
use skep_model::problem::Problem;

use super::{Builder, Job, Made, Recipe};

/// `docker build`.
pub(super) struct Dockerfile;

impl Builder for Dockerfile {
    fn make<'a>(&'a self, job: &'a Job<'a>) -> BoxFuture<'a, Result<Made, Problem>> {
        Box::pin(async move {
            let build = &job.spec.build;
            Ok(Made::Recipe(Recipe {
                dockerfile: job.choice.dockerfile.clone(),
                target: build.target.clone(),
                args: build.args.clone(),
                secrets: job.secrets()?,
                ..Recipe::default()
            }))
        })
    }
}
