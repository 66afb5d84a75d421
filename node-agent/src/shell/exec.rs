//! A command in a running container.

use std::time::Duration;

use bollard::errors::Error;
use bollard::exec::ResizeExecOptions;
use bollard::models::ExecConfig;
use serde_json::json;
use skep_model::problem::{Code, Problem};
use skep_model::shell::{Exec, Size, Terminal};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{sleep, timeout};

use super::end::Ender;
use super::wire::{Inbox, Input, Wire};
use super::{begun, hijack, refused};
use crate::runtime::{self, Runtime};

/// Docker's calls around a command.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// For a command to run, so that its terminal can have a size.
const SIZE_TRIES: u32 = 20;
const SIZE_PAUSE: Duration = Duration::from_millis(25);
/// A command's output may end a moment before Docker knows its exit code, and nothing tells when.
const CODE_TRIES: u32 = 100;
const CODE_PAUSE: Duration = Duration::from_millis(50);

/// Runs a command to its end and answers its exit code. Dropped, it ends the command.
pub(super) async fn run(
    runtime: &Runtime,
    (container, wanted): (&str, &Exec),
    mut ender: Ender,
    (wire, inbox): (&Wire, Inbox),
) -> Result<i32, Problem> {
    let asked = runtime.docker().create_exec(container, config(wanted));
    let made = call("run a command", asked).await?;
    ender.arm(made.id.clone());
    let mut start = json!({ "Detach": false, "Tty": wanted.terminal.is_some() });
    if let Some(Terminal { size, .. }) = &wanted.terminal {
        // Docker before 23 does not know it, and lets it be.
        start["ConsoleSize"] = json!([size.rows, size.columns]);
    }
    let path = format!("/exec/{}/start", made.id);
    let asked = hijack::open(
        runtime.socket(),
        (&path, start.to_string().into_bytes()),
        wanted.terminal.is_some(),
    );
    let (mut output, input) = call("start the command", asked).await?;
    begun(wire, None).await?;
    let write = async {
        if let Some(terminal) = &wanted.terminal {
            begin_with(runtime, &made.id, terminal.size).await;
        }
        feed(
            (runtime, &made.id),
            wanted.stdin.then_some(input),
            (wire, inbox),
        )
        .await;
        // The command goes on without input.
        std::future::pending::<()>().await;
    };
    let read = async {
        while let Some((data, is_stderr)) = output.next().await.map_err(broken)? {
            wire.data(data, is_stderr).await?;
        }
        Ok::<(), Problem>(())
    };
    tokio::select! {
        read = read => read?,
        () = write => {}
    }
    let code = exit_code(runtime, &made.id).await?;
    ender.disarm();
    Ok(code)
}

fn config(wanted: &Exec) -> ExecConfig {
    let terminal = wanted.terminal.as_ref();
    let named = terminal.filter(|terminal| !terminal.name.is_empty());
    ExecConfig {
        attach_stdin: Some(wanted.stdin),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(terminal.is_some()),
        env: named.map(|terminal| vec![format!("TERM={}", terminal.name)]),
        cmd: Some(wanted.command.clone()),
        ..Default::default()
    }
}

/// Hands input on until there is no more. A command that reads none of it any more must not hold up
/// the asker: the rest is let go.
async fn feed(
    (runtime, id): (&Runtime, &str),
    mut input: Option<hijack::Input>,
    (wire, mut inbox): (&Wire, Inbox),
) {
    while let Some(next) = inbox.next().await {
        match next {
            Input::Data(data) => {
                if let Some(open) = &mut input
                    && open.write_all(&data).await.is_err()
                {
                    input = None;
                }
                if wire.release(data.len()).await.is_err() {
                    return;
                }
            }
            Input::Eof => {
                if let Some(mut open) = input.take() {
                    // A command that has ended needs no end of its input.
                    let _ = open.shutdown().await;
                }
            }
            Input::Resize(size) => drop(resize(runtime, id, size).await),
        }
    }
}

/// The first size: an older Docker refuses it until the command runs, and nothing tells when.
async fn begin_with(runtime: &Runtime, id: &str, size: Size) {
    for _ in 0..SIZE_TRIES {
        if resize(runtime, id, size).await {
            return;
        }
        sleep(SIZE_PAUSE).await;
    }
}

/// Whether Docker took it. A terminal without its size is still one: what fails here is not told.
async fn resize(runtime: &Runtime, id: &str, size: Size) -> bool {
    let size = ResizeExecOptions {
        height: size.rows,
        width: size.columns,
    };
    let asked = runtime.docker().resize_exec(id, size);
    match timeout(CALL_TIMEOUT, asked).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a terminal could not be resized");
            false
        }
        Err(_) => false,
    }
}

async fn exit_code(runtime: &Runtime, id: &str) -> Result<i32, Problem> {
    for _ in 0..CODE_TRIES {
        let asked = runtime.docker().inspect_exec(id);
        let seen = match timeout(CALL_TIMEOUT, asked).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(Error::DockerResponseServerError {
                status_code: 404, ..
            })) => return Err(ended()),
            Ok(Err(source)) => return Err(lost(source)),
            Err(_) => break,
        };
        if let (Some(false), Some(code)) = (seen.running, seen.exit_code) {
            return Ok(i32::try_from(code).unwrap_or(-1));
        }
        sleep(CODE_PAUSE).await;
    }
    Err(Problem::new(
        Code::Runtime,
        "the command's output has ended, but docker does not say how the command did",
    ))
}

fn ended() -> Problem {
    Problem::new(
        Code::Conflict,
        "the container ended, and the command with it",
    )
    .hint("`skep ps` shows what became of the allocation")
}

async fn call<T>(
    what: &'static str,
    asked: impl Future<Output = Result<T, Error>>,
) -> Result<T, Problem> {
    match timeout(CALL_TIMEOUT, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(refused(
            what,
            &runtime::Error::Docker {
                action: what,
                source,
            },
        )),
        Err(_) => {
            let limit = CALL_TIMEOUT;
            Err(refused(
                what,
                &runtime::Error::Timeout {
                    action: what,
                    limit,
                },
            ))
        }
    }
}

fn lost(source: Error) -> Problem {
    let action = "say how the command did";
    refused(action, &runtime::Error::Docker { action, source })
}

fn broken(error: std::io::Error) -> Problem {
    Problem::new(
        Code::Runtime,
        format!("the connection to the command broke: {error}"),
    )
}
