//! `skep cp`: files into and out of a running container.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::json;
use skep_model::problem::{Code, Problem};
use skep_model::shell::Frame;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::exec::{ended_by_signal, outcome};
use crate::client::Client;
use crate::failure::{Failure, chain};
use crate::session::Session;
use crate::shell::line::{self, Shell};
use crate::shell::{self, pack, stdio, unpack};
use crate::target::{self, Scope, Target};

/// Copy files into and out of a running container
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep cp web:/var/log/app.log .
  skep cp seed.sql web:/tmp/
  skep cp conf web:/etc/app        the folder, under /etc/app or into it where that is one
  skep cp web:/data - | tar tv
  tar c . | skep cp - web:/srv

A side with a colon is SERVICE:/PATH; one that begins with / or . is always here. `-` is a tar on stdin
or stdout. Into a folder that exists things are copied under their own name; else under the new one.
Links are copied as links. What comes out of a container never leaves the place that was named, whatever
its tar says. What goes in belongs to root, and is gone with the container.")]
pub(crate) struct Args {
    /// What to copy: PATH, SERVICE:/PATH or -
    #[arg(value_name = "FROM")]
    from: String,
    /// Where to: PATH, SERVICE:/PATH or -
    #[arg(value_name = "TO")]
    to: String,
    #[command(flatten)]
    scope: Scope,
    /// In this allocation
    #[arg(long, value_name = "ID")]
    alloc: Option<String>,
}

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    /// A tar on stdin or stdout.
    Stream,
    /// A path here.
    Here(&'a str),
    /// A path in a container of a service.
    There(&'a str, &'a str),
}

fn side(text: &str) -> Side<'_> {
    if text == "-" {
        return Side::Stream;
    }
    match text.split_once(':') {
        Some((service, path)) if !text.starts_with(['/', '.']) && !service.is_empty() => {
            Side::There(service, path)
        }
        _ => Side::Here(text),
    }
}

/// Runs the command.
///
/// # Errors
/// Refused, broken off, or something cannot be read or written.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let (service, path, is_out) = match (side(&args.from), side(&args.to)) {
        (Side::There(service, path), Side::Here(_) | Side::Stream) => (service, path, true),
        (Side::Here(_) | Side::Stream, Side::There(service, path)) => (service, path, false),
        _ => {
            return Err(
                Failure::usage("one side is to be in a container, the other here")
                    .hint("skep cp FILE SERVICE:/PATH, or skep cp SERVICE:/PATH FILE"),
            );
        }
    };
    if !path.starts_with('/') {
        return Err(Failure::usage("a path in a container begins with /")
            .hint(format!("{service}:/{path}")));
    }
    let client = session.client()?;
    let target = target::find(&client, Some(service), &args.scope).await?;
    let chosen = shell::allocation(&client, &target, args.alloc.as_deref()).await?;
    let copy = Copy {
        session,
        client,
        target,
        query: (path, chosen),
        is_named: args.alloc.is_some(),
    };
    tokio::select! {
        done = copy.run((&args.from, &args.to), is_out) => done,
        failure = ended_by_signal() => Err(failure),
    }
}

struct Copy<'a> {
    session: &'a Session,
    client: Client,
    target: Target,
    /// The path there, and the rest of the query.
    query: (&'a str, String),
    is_named: bool,
}

impl Copy<'_> {
    async fn run(&self, (from, to): (&str, &str), is_out: bool) -> Result<(), Failure> {
        match (is_out, from, to) {
            (true, _, "-") => self.to_stdout().await,
            (true, _, to) => self.to_files(Path::new(to)).await,
            (false, "-", _) => self.send_stdin().await,
            (false, from, _) => self.send_files(Path::new(from)).await,
        }
    }

    async fn open(&self, verb: &str) -> Result<Shell, Failure> {
        let (path, rest) = &self.query;
        let mut query = rest.clone();
        shell::with(&mut query, "path", path);
        let query = query.trim_start_matches('&');
        let path = format!("{}/{verb}?{query}", self.target.path());
        let opened = line::open(&self.client, &path).await?;
        shell::tell(self.session, &opened.opened, self.is_named);
        Ok(opened)
    }

    async fn to_stdout(&self) -> Result<(), Failure> {
        outcome(self.open("copy-out").await?).await.map(drop)
    }

    async fn send_stdin(&self) -> Result<(), Failure> {
        self.send(self.open("copy-in").await?, stdio::input()).await
    }

    async fn to_files(&self, to: &Path) -> Result<(), Failure> {
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        if !to.exists() && parent.is_some_and(|parent| !parent.is_dir()) {
            let text = format!("there is no folder for `{}`", to.display());
            return Err(Failure::usage(text).hint("copy into a folder that exists"));
        }
        let mut shell = self.open("copy-out").await?;
        let name = shell.opened.name.clone();
        let base = unpack::place(to, name.as_deref());
        let (chunks, from) = mpsc::unbounded_channel();
        let (read, mut released) = mpsc::unbounded_channel();
        let reader = unpack::Chunks {
            from,
            read,
            left: Bytes::new(),
        };
        let mut unpacking = spawn_blocking(move || unpack::unpack(reader, name.as_deref(), &base));
        let pass = async {
            loop {
                tokio::select! {
                    event = shell.events.recv() => match event {
                        Some(Ok(Frame::Data(data))) => {
                            // One that has ended says why.
                            let _ = chunks.send(Some(data.into()));
                        }
                        Some(Ok(Frame::Exit(_))) => {
                            let _ = chunks.send(None);
                            return Ok(chunks);
                        }
                        Some(Ok(_)) => {}
                        Some(Err(problem)) => return Err(Failure::from(problem)),
                        None => return Err(Failure::failed("the copy ended without a word")),
                    },
                    Some(bytes) = released.recv() => {
                        let _ = shell.line.release(bytes).await;
                    }
                }
            }
        };
        let summary = tokio::select! {
            passed = pass => {
                let _chunks = passed?;
                (&mut unpacking).await
            }
            unpacked = &mut unpacking => unpacked,
        };
        let summary = summary.map_err(|error| Failure::failed(chain(&error)))??;
        for name in &summary.skipped {
            let text = format!("`{name}` is neither a file, a folder nor a link: left out");
            self.session.out.warning(&text);
        }
        self.done(summary.entries, summary.bytes);
        Ok(())
    }

    async fn send_files(&self, from: &Path) -> Result<(), Failure> {
        let unreadable = |error: std::io::Error| {
            Failure::usage(format!("`{}` cannot be copied: {error}", from.display()))
        };
        let whole: PathBuf = std::fs::canonicalize(from).map_err(unreadable)?;
        // What was typed names it, not what that may be a link to; `.` and `..` name nothing.
        let own = from.file_name().or(whole.file_name());
        let own = own.map_or_else(|| "root".into(), std::ffi::OsStr::to_owned);
        let shell = self.open("copy-in").await?;
        let name = shell.opened.name.clone().map_or(own, Into::into);
        let (chunks, input) = mpsc::channel(pack::CHUNKS);
        let packing = spawn_blocking(move || pack::pack(&whole, Path::new(&name), chunks));
        let broken = |problem: Option<Problem>| {
            let gone = || Problem::new(Code::Canceled, "the copy was broken off");
            Failure::from(problem.unwrap_or_else(gone))
        };
        let packed = async {
            let packed = packing.await;
            packed
                .map_err(|error| Failure::failed(chain(&error)))?
                .map_err(broken)
        };
        // The end is announced only of what was packed whole.
        let (done, packed) = self.send_while(shell, input, packed).await;
        done?;
        let packed = packed?;
        self.done(packed.entries, packed.bytes);
        Ok(())
    }

    async fn send(&self, shell: Shell, input: mpsc::Receiver<Bytes>) -> Result<(), Failure> {
        let (done, _) = self.send_while(shell, input, async { Ok(()) }).await;
        done
    }

    /// Sends `input`, and its end once `whole` says that it was one. Ends as soon as the node has.
    async fn send_while<T>(
        &self,
        mut shell: Shell,
        mut input: mpsc::Receiver<Bytes>,
        whole: impl Future<Output = Result<T, Failure>>,
    ) -> (Result<(), Failure>, Result<T, Failure>) {
        let line = shell.line.clone();
        let feed = async {
            while let Some(bytes) = input.recv().await {
                if line.data(bytes).await.is_err() {
                    break;
                }
            }
            // A packer that still has something to send finds nobody.
            drop(input);
            let whole = whole.await;
            if whole.is_ok() {
                let _ = line.send(Frame::Eof).await;
            }
            whole
        };
        let events = async {
            loop {
                match shell.events.recv().await {
                    Some(Ok(Frame::Exit(_))) => return Ok(()),
                    Some(Ok(_)) => {}
                    Some(Err(problem)) => return Err(Failure::from(problem)),
                    None => return Err(Failure::failed("the copy ended without a word")),
                }
            }
        };
        let (mut feed, mut events) = (std::pin::pin!(feed), std::pin::pin!(events));
        tokio::select! {
            whole = &mut feed => match whole {
                Ok(whole) => (events.await, Ok(whole)),
                Err(failure) => (Err(failure.clone()), Err(failure)),
            },
            done = &mut events => {
                let over = || Failure::failed("the node took less than all of it");
                (done.and_then(|()| Err(over())), Err(over()))
            }
        }
    }

    fn done(&self, entries: u64, bytes: u64) {
        let result = json!({ "entries": entries, "bytes": bytes });
        self.session.out.result(&result, || {
            let things = if entries == 1 { "entry" } else { "entries" };
            format!("copied {entries} {things}, {bytes} bytes")
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_makes_a_side_a_services_unless_it_is_a_path() {
        for (text, expected) in [
            ("-", Side::Stream),
            ("a.txt", Side::Here("a.txt")),
            ("./a:b", Side::Here("./a:b")),
            ("/a:b", Side::Here("/a:b")),
            (":/b", Side::Here(":/b")),
            ("web:/b:c", Side::There("web", "/b:c")),
            ("shop/staging/web:/", Side::There("shop/staging/web", "/")),
            ("web:", Side::There("web", "")),
        ] {
            assert_eq!(side(text), expected, "{text}");
        }
    }
}
