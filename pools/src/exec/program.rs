//! Runs a program for one answer: JSON in, JSON out, with a deadline, and no more of its output than is of use. Cut off, it ends
//! with whatever it has started. Nothing of the server's environment is its business.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::Exec;
use super::file::find;
use crate::provider::Trouble;

/// Largest answer.
const ANSWER_MAX_BYTES: u64 = 64 << 10;
/// Of what it says of errors, the end of which is shown.
const ERRORS_MAX_BYTES: u64 = 16 << 10;
/// What is shown of that.
const SHOWN_MAX_CHARS: usize = 400;
/// Where it finds other programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// It says that it cannot just now (EX_TEMPFAIL of sysexits.h).
const LATER: i32 = 75;

/// Asks; what it says of errors is told.
pub(super) async fn ask(exec: &Exec<'_>, verb: &str, told: &[u8]) -> Result<Vec<u8>, Trouble> {
    let ended = run(exec, verb, told).await?;
    let why = shown(&ended.errors);
    judge(verb, ended, &why)
}

/// The same where a secret is told, which it may repeat in what it says of errors.
pub(super) async fn ask_secretly(
    exec: &Exec<'_>,
    verb: &str,
    told: &[u8],
) -> Result<Vec<u8>, Trouble> {
    let ended = run(exec, verb, told).await?;
    judge(
        verb,
        ended,
        "what it said is not shown, as it may repeat the secret",
    )
}

struct Ended {
    status: ExitStatus,
    answer: Vec<u8>,
    errors: Vec<u8>,
}

fn judge(verb: &str, ended: Ended, why: &str) -> Result<Vec<u8>, Trouble> {
    let text = |how: String| format!("`{verb}` of the program {how}: {why}");
    match ended.status.code() {
        Some(0) if ended.answer.len() as u64 > ANSWER_MAX_BYTES => Err(Trouble::Refused(format!(
            "`{verb}` of the program answered more than {ANSWER_MAX_BYTES} bytes"
        ))),
        Some(0) => Ok(ended.answer),
        Some(LATER) => Err(Trouble::Passing(text("asks for patience".to_owned()))),
        Some(code) => Err(Trouble::Refused(text(format!("ended with {code}")))),
        // Somebody has ended it in the middle.
        None => Err(Trouble::Unknown(text(format!(
            "broke off ({})",
            ended.status
        )))),
    }
}

async fn run(exec: &Exec<'_>, verb: &str, told: &[u8]) -> Result<Ended, Trouble> {
    // Looked at each time: it may have been replaced since.
    let path = find(exec.folder, &exec.program.file).await;
    let path = path.map_err(|misplaced| Trouble::Refused(misplaced.to_string()))?;
    let deadline_s = exec.program.deadline_s;
    let child = start(&path, verb).map_err(|error| {
        let path = path.display();
        Trouble::Refused(format!("the program {path} cannot be started: {error}"))
    })?;
    let mut group = Group::of(child);
    let deadline = Duration::from_secs(u64::from(deadline_s));
    let ended = tokio::time::timeout(deadline, converse(&mut group.child, told)).await;
    match ended {
        Ok(Ok(ended)) => {
            group.has_ended = true;
            Ok(ended)
        }
        Ok(Err(error)) => Err(Trouble::Unknown(format!(
            "`{verb}` of the program: {error}"
        ))),
        Err(_) => Err(Trouble::Unknown(format!(
            "`{verb}` of the program took longer than {deadline_s} s, and was ended"
        ))),
    }
}

fn start(path: &Path, verb: &str) -> std::io::Result<Child> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    Command::new(path)
        .arg(verb)
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

async fn converse(child: &mut Child, told: &[u8]) -> std::io::Result<Ended> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let tell = async {
        if let Some(mut stdin) = stdin {
            // It need not listen: what it says counts.
            let _ = stdin.write_all(told).await;
        }
    };
    let ((), answer, errors) = tokio::join!(
        tell,
        read(stdout, ANSWER_MAX_BYTES + 1),
        read(stderr, ERRORS_MAX_BYTES)
    );
    Ok(Ended {
        answer: answer?,
        errors: errors?,
        status: child.wait().await?,
    })
}

/// So much of it; the rest is read, so that nobody waits for that, and dropped.
async fn read(from: Option<impl AsyncRead + Unpin>, most: u64) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut from) = from else {
        return Ok(kept);
    };
    (&mut from).take(most).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(kept)
}

/// A program and what it has started; dropped before it has ended, all of it is ended.
struct Group {
    child: Child,
    id: Option<Pid>,
    has_ended: bool,
}

impl Group {
    fn of(child: Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self {
            child,
            id: id.and_then(Pid::from_raw),
            has_ended: false,
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let (Some(id), false) = (self.id, self.has_ended) {
            // Nobody may be left.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

/// The end of what it says of errors, on one line.
fn shown(errors: &[u8]) -> String {
    let text = String::from_utf8_lossy(errors);
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().rev().nth(SHOWN_MAX_CHARS) {
        _ if line.is_empty() => "it says not why".to_owned(),
        Some((at, _)) => format!("...{}", &line[at..]),
        None => line,
    }
}
