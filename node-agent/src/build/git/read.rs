//! What is at some places of a commit: texts of files, git's names of folders. Read out of git's own objects, nothing
//! is checked out; so a path or a link that leads out of the repository leads nowhere on this node.

use std::io;
use std::process::Stdio;

use skep_model::polling::{MAX_READ, MAX_READ_TOTAL, Seen};
use skep_model::problem::{Code, Problem};
use skep_model::spec::inside;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::super::program::Group;
use super::WANTED_REF;
use super::command::{Git, LOCAL_LIMIT, cannot_run, read_some};

/// What is at each of the paths, at the commit that was fetched to [`WANTED_REF`].
pub(super) async fn read(git: &Git, paths: &[String]) -> Result<Vec<Seen>, Problem> {
    let mut seen = Vec::with_capacity(paths.len());
    let mut bytes_left = MAX_READ_TOTAL;
    for path in paths {
        let one = at(git, path, bytes_left).await?;
        if let Seen::File(text) = &one {
            bytes_left = bytes_left.saturating_sub(text.len());
        }
        seen.push(one);
    }
    Ok(seen)
}

async fn at(git: &Git, path: &str, bytes_left: usize) -> Result<Seen, Problem> {
    if inside("path", path).is_err() {
        return Ok(Seen::Refused("it leads out of the repository".to_owned()));
    }
    let asked = ["cat-file", "--batch-check", "--follow-symlinks"];
    let name = format!("{WANTED_REF}:{path}\n");
    let answer = bytes(git, &asked, name.as_bytes()).await?;
    let (id, size) = match found(&String::from_utf8_lossy(&answer)) {
        Object::File { id, size } => (id, size),
        Object::Folder { id } => return Ok(Seen::Folder(id)),
        Object::Nothing => return Ok(Seen::Nothing),
        Object::Other(why) => return Ok(Seen::Refused(why.to_owned())),
    };
    if size > MAX_READ {
        return Ok(Seen::Refused(format!("it is larger than {MAX_READ} bytes")));
    }
    if size > bytes_left {
        let text = format!("all files of the stack together have more than {MAX_READ_TOTAL} bytes");
        return Ok(Seen::Refused(text));
    }
    let content = bytes(git, &["cat-file", "blob", &id], b"").await?;
    Ok(match String::from_utf8(content) {
        Ok(text) => Seen::File(text),
        Err(_) => Seen::Refused("it is not text".to_owned()),
    })
}

/// What git says of a name.
#[derive(Debug, PartialEq, Eq)]
enum Object {
    File { id: String, size: usize },
    Folder { id: String },
    Nothing,
    Other(&'static str),
}

/// Reads the line of `--batch-check`. Source: git-cat-file(1), BATCH OUTPUT.
fn found(line: &str) -> Object {
    let first = line.lines().next().unwrap_or_default();
    let words: Vec<&str> = first.split(' ').collect();
    match words[..] {
        [id, "blob", size] => Object::File {
            id: id.to_owned(),
            size: size.parse().unwrap_or(usize::MAX),
        },
        [id, "tree", _] => Object::Folder { id: id.to_owned() },
        [_, "commit", _] => Object::Other("it is a submodule, which is another repository"),
        ["symlink", _] => Object::Other("the link leads out of the repository"),
        ["loop", _] => Object::Other("the link leads back to itself"),
        ["dangling" | "notdir", _] => Object::Nothing,
        // The name may have spaces in it.
        [.., "missing"] => Object::Nothing,
        _ => Object::Other("git says nothing of it that is understood"),
    }
}

/// What git writes, as it is.
async fn bytes(git: &Git, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut command = git.command_in_copy();
    command.args(arguments).stdin(Stdio::piped());
    let work = async {
        let mut child = command.spawn()?;
        // With it the fetch of what a copy without files has not got yet.
        let _group = Group::of(&child);
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input).await?;
        }
        let stdout = whole(child.stdout.take());
        let stderr = read_some(child.stderr.take());
        let (kept, said, status) = tokio::join!(stdout, stderr, child.wait());
        Ok((kept?, said?, status?.success()))
    };
    match timeout(LOCAL_LIMIT, work).await {
        Ok(Ok((kept, _, true))) => Ok(kept),
        // What the copy has not got is fetched then: the other side may be gone, or say no.
        Ok(Ok((_, said, false))) => Err(git.remote.explain(&said)),
        Ok(Err(error)) => Err(cannot_run(&error)),
        Err(_) => {
            let text = format!("files of {} could not be read in time", git.remote.shown);
            Err(Problem::new(Code::Timeout, text).hint("can this node reach it?"))
        }
    }
}

/// All of a pipe: whoever asked knows that it is not large.
async fn whole(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(pipe) = pipe {
        let most = MAX_READ as u64 + 1;
        pipe.take(most).read_to_end(&mut kept).await?;
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_says_of_a_name_is_understood() {
        let id = "a".repeat(40);
        for (line, wanted) in [
            (
                format!("{id} blob 12\n"),
                Object::File {
                    id: id.clone(),
                    size: 12,
                },
            ),
            (format!("{id} tree 33\n"), Object::Folder { id: id.clone() }),
            ("refs/skep/wanted:a b missing\n".to_owned(), Object::Nothing),
            ("dangling 5\nHEAD:\n".to_owned(), Object::Nothing),
            (
                "symlink 11\n/etc/passwd\n".to_owned(),
                Object::Other("the link leads out of the repository"),
            ),
        ] {
            assert_eq!(found(&line), wanted, "{line}");
        }
    }
}
