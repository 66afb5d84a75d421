//! `skep logs`: what an app writes, from every allocation.

use std::time::Duration;

use skep_control_plane::api::types::AppLine;
use skep_model::problem::{Code, Problem};

use crate::client::{self, Client};
use crate::failure::{Failure, chain};
use crate::output::{Output, Style};
use crate::session::Session;
use crate::target::{self, Scope};

/// Streams in a row that bring nothing before following is given up.
const ATTEMPTS: u32 = 60;
/// Pauses between them.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Show what an app writes
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep logs web
  skep logs web -f --tail 20
  skep logs web --since 1763667000000000000 --json

--since takes the `at_ns` of a line (as --json prints it): only later lines are shown.")]
pub(crate) struct Args {
    /// The service [default: the one of this folder]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
    /// Go on as lines come
    #[arg(long, short)]
    follow: bool,
    /// Newest lines of each allocation to begin with; 0: all
    #[arg(long, value_name = "N", default_value_t = 100)]
    tail: u32,
    /// Only lines after this cursor, in ns since the epoch
    #[arg(long, value_name = "CURSOR")]
    since: Option<u64>,
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, args.service.as_deref(), &args.scope).await?;
    // All lines after a cursor: cutting them to the newest would leave a gap.
    let (tail, after) = match args.since {
        Some(cursor) => (0, cursor),
        None => (args.tail, 0),
    };
    let path = format!("{}/logs?follow={}", target.path(), args.follow);
    let begin = format!("&tail={tail}&after={after}");
    let reader = Reader {
        client,
        out: session.out,
        path,
        begin,
        last: None,
        follow: args.follow,
    };
    reader.run().await
}

struct Reader {
    client: Client,
    out: Output,
    path: String,
    /// Where the first stream begins.
    begin: String,
    follow: bool,
    /// Resumes behind what has been printed.
    last: Option<String>,
}

impl Reader {
    async fn run(mut self) -> Result<(), Failure> {
        let (mut pause, mut attempts) = (PAUSE_MIN, 0);
        loop {
            let before = self.last.clone();
            if self.read(attempts > 0).await? {
                return Ok(());
            }
            if self.last != before {
                (pause, attempts) = (PAUSE_MIN, 0);
            }
            attempts += 1;
            if attempts == ATTEMPTS {
                return Err(Problem::new(Code::Unavailable, "the log cannot be followed").into());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Prints one stream; whether there will be no more.
    async fn read(&mut self, is_again: bool) -> Result<bool, Failure> {
        // All lines behind the last one: cutting them to the newest would leave a gap.
        let begin = if self.last.is_some() { "" } else { &self.begin };
        let path = format!("{}{begin}", self.path);
        let mut events = match self.client.events(&path, self.last.as_deref()).await {
            Ok(events) => events,
            Err(error) if is_again && error.is_passing() => return Ok(false),
            // Removed while it was followed.
            Err(client::Error::Refused(problem)) if is_again && problem.code == Code::NotFound => {
                return Ok(true);
            }
            Err(error) => return Err(error.into()),
        };
        loop {
            match events.next().await {
                Ok(Some(event)) => {
                    if let Ok(line) = serde_json::from_str::<AppLine>(&event.data) {
                        self.show(&line);
                    }
                    self.last = event.id.or(self.last.take());
                }
                Ok(None) => return Ok(!self.follow),
                Err(_) if self.follow => return Ok(false),
                Err(error) => {
                    let problem = Problem::new(
                        Code::Unavailable,
                        format!("the log is cut: {}", chain(&error)),
                    );
                    return Err(problem.into());
                }
            }
        }
    }

    fn show(&self, line: &AppLine) {
        let who = self.out.styled(Style::Faint, &line.allocation.short());
        if let (Some(problem), false) = (&line.problem, self.out.is_json()) {
            self.out
                .warning(&format!("{}: {problem}", line.allocation.short()));
            return;
        }
        self.out.item(line, || format!("{who} {}", line.text));
    }
}
