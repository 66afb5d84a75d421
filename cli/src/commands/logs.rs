//! `skep logs`: what an app writes, from every allocation.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// Newest lines of each allocation where nothing else is said.
const TAIL: u32 = 100;
/// Smaller numbers are no line's time: this one is of 1973.
const CURSOR_MIN: u64 = 100_000_000_000_000_000;

/// Show what an app writes
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  skep logs web
  skep logs web -f --tail 20
  skep logs web --since 10m --grep '(?i)error'
  skep logs web --since 2026-01-02T03:00:00Z --until 2026-01-02T04:00:00Z --tail 0
  skep logs web --since 1763667000000000000 --json

Lines of all replicas on all nodes are shown in the order of time. --since and --until take how long ago
(`90s`, `10m`, `2h`, `1d`), a time (RFC 3339), or the `at_ns` of a line as --json prints it: then only
later lines are shown. Where Docker turned lines over before they were read, a line says how much is
missing; --json has it as `lost`.")]
pub(crate) struct Args {
    /// The service [default: the one of this folder]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
    /// Go on as lines come
    #[arg(long, short)]
    follow: bool,
    /// Newest lines of each allocation to begin with; 0: all [default: 100, with --since: all]
    #[arg(long, value_name = "N")]
    tail: Option<u32>,
    /// Only lines after this time, or this line
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    since: Option<u64>,
    /// Only lines before this time
    #[arg(long, value_name = "WHEN", value_parser = moment, conflicts_with = "follow")]
    until: Option<u64>,
    /// Only lines in which this regular expression is found; `(?i)` before it ignores case
    #[arg(long, value_name = "REGEX")]
    grep: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// Not reachable, or refused.
pub(crate) async fn run(args: Args, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, args.service.as_deref(), &args.scope).await?;
    let after = args.since.unwrap_or(0);
    // All lines after a cursor: cutting them to the newest would leave a gap.
    let tail = args.tail.unwrap_or(if after > 0 { 0 } else { TAIL });
    let mut path = format!("{}/logs?follow={}", target.path(), args.follow);
    if let Some(until) = args.until {
        let _ = write!(path, "&until={until}");
    }
    if let Some(grep) = &args.grep {
        let _ = write!(path, "&grep={}", escaped(grep));
    }
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
        if line.lost.is_some() && !self.out.is_json() {
            self.out
                .warning(&format!("{}: {}", line.allocation.short(), line.text));
            return;
        }
        self.out.item(line, || format!("{who} {}", line.text));
    }
}

/// A moment in ns since the epoch: how long ago, a time, or a line's own number.
fn moment(text: &str) -> Result<u64, String> {
    if let Ok(number) = text.parse::<u64>() {
        return match number >= CURSOR_MIN {
            true => Ok(number),
            false => Err(format!(
                "`{number}` of what? `{number}s`, `{number}m`, `{number}h`"
            )),
        };
    }
    if let Ok(ago) = humantime::parse_duration(text) {
        let at = SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH);
        return Ok(since_epoch(at));
    }
    humantime::parse_rfc3339_weak(text)
        .map(since_epoch)
        .map_err(|_| {
            "how long ago (`10m`), a time (`2026-01-02T03:04:05Z`) or the `at_ns` of a line"
                .to_owned()
        })
}

fn since_epoch(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// For a query: everything but letters and digits as %XX.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() {
            true => escaped.push(char::from(byte)),
            false => {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_durations_times_and_cursors() {
        assert_eq!(moment("1763667000000000000"), Ok(1_763_667_000_000_000_000));
        assert_eq!(
            moment("1970-01-01T00:00:01.5Z"),
            Ok(1_500_000_000),
            "a time"
        );
        let ago = moment("1h").expect("a duration");
        let now = since_epoch(SystemTime::now());
        assert!(now - ago >= 3_600_000_000_000 && now - ago < 3_700_000_000_000);
        assert!(moment("90").is_err_and(|why| why.contains("90s")));
        assert!(moment("yesterday").is_err());
    }

    #[test]
    fn an_expression_survives_its_way_through_a_query() {
        assert_eq!(escaped("a+b &c"), "a%2Bb%20%26c");
    }
}
