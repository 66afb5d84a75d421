//! What a build has put into a bundle, looked at before anybody can fetch it.

use skep_model::assignment::BuildOrder;
use skep_model::problem::{Code, Problem};
use skep_model::service::Image;
use tokio::sync::mpsc;

use super::folder::WorkFolder;
use super::{Env, folder, say};
use crate::bundles::{self, Unpacked};
use crate::images::full;

/// Where it is unpacked, in the build's folder.
const FOLDER: &str = "bundle";
/// How many of the names that are left out are told.
const TOLD_MAX: usize = 5;

/// Looks through a bundle's files, and tells how many there are.
///
/// # Errors
/// There are none, or there is a secret in one of them: says which and where, and never its value.
pub(super) async fn check(
    (order, env): (&BuildOrder, &Env),
    image: &Image,
    work: &WorkFolder,
    lines: &mpsc::Sender<String>,
) -> Result<(), Problem> {
    let images = env.images.as_ref().ok_or_else(|| {
        let text = "a bundle was made where no images are kept";
        Problem::new(Code::Internal, text)
    })?;
    let taken = images.take(image, (&[], None)).await?;
    let (into, hold) = (work.path().join(FOLDER), work.hold());
    let secrets = order.variables.iter().filter(|variable| variable.secret);
    let secrets: Vec<(String, String)> = secrets
        .map(|secret| (secret.name.clone(), secret.value.clone()))
        .collect();
    let reference = image.reference.clone();
    let (unpacked, hit) = folder::blocking(move || {
        let _hold = hold;
        let unpacked = bundles::unpack_taken(taken, &into);
        let unpacked = unpacked.map_err(|error| match error.is_full() {
            true => full(&reference),
            false => bundles::broken(&reference, &error),
        })?;
        let secrets: Vec<(&str, &str)> = secrets
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let hit = bundles::scan(&into, &unpacked.index, &secrets).map_err(|error| {
            let text = format!("the site's files cannot be looked through: {error}");
            Problem::new(Code::Runtime, text)
        })?;
        Ok((unpacked, hit))
    })
    .await?;
    for line in told(&unpacked) {
        say(lines, line).await;
    }
    if let Some(hit) = hit {
        let text = format!(
            "`{}` has {} in it, and everybody could fetch it",
            hit.path, hit.what
        );
        return Err(Problem::new(Code::BuildFailed, text).hint(
            "browsers cannot keep secrets: leave it to a service of your own, and replace what was in the file",
        ));
    }
    let files = &unpacked.index.files;
    if files.is_empty() {
        return Err(no_files());
    }
    let page = unpacked.index.site.not_found.as_ref();
    match page.filter(|page| !files.contains_key(*page)) {
        Some(page) => Err(no_page(page)),
        None => Ok(()),
    }
}

fn told(unpacked: &Unpacked) -> Vec<String> {
    let files = unpacked.index.files.values();
    let (mut bytes, mut packed) = (0, 0);
    for file in files {
        bytes += file.size;
        packed += file.gzip.unwrap_or(file.size);
    }
    let count = unpacked.index.files.len();
    let mut lines = vec![format!(
        "static: {count} files, {} KiB ({} KiB compressed)",
        bytes.div_ceil(1 << 10),
        packed.div_ceil(1 << 10)
    )];
    if !unpacked.index.files.contains_key("index.html") {
        lines.push("static: there is no index.html: `/` answers 404".to_owned());
    }
    let left_out = &unpacked.left_out;
    for (name, why) in left_out.iter().take(TOLD_MAX) {
        lines.push(format!("static: left out: `{}` {why}", name.escape_debug()));
    }
    if left_out.len() > TOLD_MAX {
        let more = left_out.len() - TOLD_MAX;
        lines.push(format!("static: and {more} more left out"));
    }
    lines
}

fn no_page(page: &str) -> Problem {
    let text = format!("`{page}` is none of the site's files");
    Problem::new(Code::BuildFailed, text)
        .at("static.not_found")
        .hint("name a file below the output, or leave it out")
}

fn no_files() -> Problem {
    Problem::new(Code::BuildFailed, "the build has left no files to hand out")
        .at("static.output")
        .hint("say in [static] `output` in which folder it leaves them")
}
