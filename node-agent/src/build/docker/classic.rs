//! The classic builder, through bollard: every daemon has it. One text in which it names its steps.

use std::time::Duration;

use bollard::models::BuildInfo;
use bollard::query_parameters::BuildImageOptions;
use futures_util::StreamExt;
use skep_model::problem::Problem;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::super::progress::Progress;
use super::super::{image, say};
use super::explain::explain;
use super::{Build, Context};

/// The daemon begins its answer when it has the context: the deadline of a build is the order's,
/// which is set around all of it. This is only above every such deadline.
const ANSWER_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Builds; gives the image's id.
pub(super) async fn build(
    (build, parent): (&Build<'_>, Option<&str>),
    context: Context,
    lines: &mpsc::Sender<String>,
) -> Result<String, Problem> {
    let options = BuildImageOptions {
        dockerfile: build.recipe.dockerfile.clone(),
        t: Some(build.job.name.full()),
        target: build.recipe.target.clone().unwrap_or_default(),
        buildargs: Some(build.recipe.args.clone().into_iter().collect()),
        nocache: build.job.order.no_cache,
        rm: true,
        forcerm: true,
        labels: Some(build.labels()),
        ..Default::default()
    };
    let socket = &build.job.env.socket;
    let docker = socket
        .docker_asking("/build", build.limits().query(parent))
        .await
        .map_err(|error| image::unreachable(&error))?
        .with_timeout(ANSWER_LIMIT);
    let body = bollard::body_try_stream(ReceiverStream::new(context));
    let mut answers = std::pin::pin!(docker.build_image(
        options,
        Some(build.job.env.logins.all(build.job.order.workspace)),
        Some(body)
    ));
    let mut progress = Progress::default();
    let mut id = None;
    let mut failed = None;
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(info) => id = tell(info, &mut progress, lines).await.or(id),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    if let Some(line) = progress.finish() {
        say(lines, line).await;
    }
    match failed {
        Some(error) => Err(explain(&error, progress.failed())),
        None => Ok(id.unwrap_or_else(|| build.job.name.full())),
    }
}

/// Passes one message on; gives the image's id where it says one.
async fn tell(
    info: BuildInfo,
    progress: &mut Progress,
    lines: &mpsc::Sender<String>,
) -> Option<String> {
    if let Some(text) = &info.stream {
        for line in progress.text(text) {
            say(lines, line).await;
        }
    }
    if let Some(status) = &info.status
        && let Some(line) = progress.status(info.id.as_deref(), status)
    {
        say(lines, line).await;
    }
    info.aux.and_then(|image| image.id)
}
