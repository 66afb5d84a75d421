//! What nothing leads to any more goes from a store: commits that were pushed over, and branches that were removed.
//! What is needed comes with each push from the server, which has the references.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use skep_model::problem::{Code, Problem};

use super::super::super::folder::blocking;
use super::super::command::{Output, last_words};
use super::{ask, bytes_of, disk, repack, settled};

/// Below, looking through a store costs more than it brings.
const WORTHWHILE_BYTES: u64 = 256 << 20;
/// A store is looked through when it has grown so many times since: each byte is written a bounded number of times.
const GROWTH: u64 = 2;
/// What is needed, while git looks through a store. Left behind it does no harm: the next time begins with it.
const NEEDED: &str = "refs/needed/";
/// Holds how large the store was afterwards.
const PRUNED: &str = "pruned";

/// Whether it has grown enough since the last time. Blocks on the disk.
pub(super) fn is_due(store: &Path) -> bool {
    let last = fs::read_to_string(store.join(PRUNED)).ok();
    let last = last.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    has_grown(bytes_of(&store.join("objects/pack")), last)
}

fn has_grown(held_bytes: u64, last_bytes: u64) -> bool {
    held_bytes >= WORTHWHILE_BYTES && held_bytes / GROWTH >= last_bytes
}

/// Keeps these commits with all that they need, and nothing else, unless it is `wanted` that nothing is done. One that is not
/// here is not missed.
///
/// # Errors
/// Git could not: then everything stays.
pub(super) async fn prune(
    store: &Path,
    needed: &[String],
    wanted: impl Future<Output = ()>,
) -> Result<(), Problem> {
    mark(store, needed).await?;
    // Of a store that nobody clones, a map of what leads where is of no use.
    let options = ["-a", "--no-write-bitmap-index"];
    let Some(output) = repack(store, &options, wanted).await? else {
        return Ok(());
    };
    done(output, "drop what is not needed")?;
    let store = store.to_owned();
    blocking(move || {
        let held = bytes_of(&store.join("objects/pack"));
        fs::write(store.join(PRUNED), held.to_string())
            .map_err(|error| disk("note what a store takes", &error))
    })
    .await
}

/// References are how git is told what to keep.
async fn mark(store: &Path, needed: &[String]) -> Result<(), Problem> {
    let mut command = settled(store);
    command.args(["cat-file", "--batch-check=%(objectname)"]);
    let asked = needed.iter().map(|commit| format!("{commit}\n")).collect();
    let here = done(ask(command, asked).await?, "look for commits")?;
    // What is missing has that word behind its name.
    let here: BTreeSet<&str> = here.lines().filter(|line| !line.contains(' ')).collect();
    let mut command = settled(store);
    command.args(["for-each-ref", "--format=%(refname)", NEEDED]);
    let marked = done(ask(command, String::new()).await?, "list references")?;
    let is_over = |name: &&str| {
        name.strip_prefix(NEEDED)
            .is_some_and(|commit| !here.contains(commit))
    };
    let gone = marked.lines().filter(is_over);
    let mut changes: String = gone.map(|name| format!("delete {name}\n")).collect();
    changes.extend(here.iter().map(|it| format!("update {NEEDED}{it} {it}\n")));
    let mut command = settled(store);
    command.args(["update-ref", "--stdin"]);
    done(ask(command, changes).await?, "set references")?;
    Ok(())
}

fn done(output: Output, what: &str) -> Result<String, Problem> {
    match output.is_success {
        true => Ok(output.stdout),
        false => {
            let text = format!("git cannot {what}: {}", last_words(&output.stderr));
            Err(Problem::new(Code::Runtime, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_looked_through_when_it_has_doubled() {
        let mib = |count: u64| count << 20;
        for (held, last, is) in [
            (0, 0, false),
            (mib(255), 0, false),
            (mib(256), 0, true),
            (mib(300), mib(200), false),
            (mib(400), mib(200), true),
            (mib(5_000), mib(4_000), false),
        ] {
            assert_eq!(has_grown(held, last), is, "{held} {last}");
        }
    }
}
