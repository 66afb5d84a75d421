//! Git's credential protocol, as far as a helper that only knows answers needs it. Source: git-credential(1).

use std::io::{Read as _, Write as _};

use crate::context::{Context, Contexts};
use crate::failure::Failure;

/// Most that git says.
const MAX_BYTES: u64 = 64 << 10;
/// Whoever has the token is meant; git wants a name.
const USER: &str = "skep";

/// Tell git the token of a remote; git runs this by itself
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  printf 'protocol=https\\nhost=server.example:7070\\n\\n' | skep git credential get

`skep git remote add` sets git up to ask here. Nothing is ever stored or forgotten for git: `skep login` and
`skep context` do that.")]
pub(crate) struct Args {
    /// get; git's `store` and `erase` do nothing
    #[arg(value_name = "OPERATION")]
    operation: String,
}

/// Runs the command. What it does not know it says nothing of: git then asks others.
///
/// # Errors
/// Input or output, or the contexts cannot be read.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if args.operation != "get" {
        return Ok(());
    }
    let mut asked = String::new();
    let broken =
        |error: std::io::Error| Failure::failed(format!("git cannot be understood: {error}"));
    std::io::stdin()
        .take(MAX_BYTES)
        .read_to_string(&mut asked)
        .map_err(broken)?;
    let contexts = Contexts::load()?;
    let current = contexts
        .current
        .as_ref()
        .and_then(|name| contexts.contexts.get(name));
    let all = current.into_iter().chain(contexts.contexts.values());
    match answer(&asked, all) {
        Some(answer) => std::io::stdout()
            .write_all(answer.as_bytes())
            .map_err(broken),
        None => Ok(()),
    }
}

/// What git is told of the server that it asks about.
fn answer<'a>(asked: &str, contexts: impl Iterator<Item = &'a Context>) -> Option<String> {
    let said = |key: &str| {
        let mut lines = asked.lines().filter_map(|line| line.split_once('='));
        lines.find(|(name, _)| *name == key).map(|(_, value)| value)
    };
    let (protocol, host) = (said("protocol")?, said("host")?);
    if protocol != "https" {
        return None;
    }
    let found = contexts
        .filter(|context| {
            let bases = std::iter::once(&context.server).chain(&context.servers);
            let mut hosts = bases.filter_map(|base| base.strip_prefix("https://"));
            hosts.any(|it| it.trim_end_matches('/').eq_ignore_ascii_case(host))
        })
        .find(|context| !context.token.is_empty())?;
    Some(format!("username={USER}\npassword={}\n", found.token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(server: &str, token: &str) -> Context {
        Context {
            server: server.to_owned(),
            fingerprint: "ab".repeat(32),
            token: token.to_owned(),
            hooks: None,
            servers: vec!["https://second:7643".to_owned()],
        }
    }

    #[test]
    fn the_token_goes_to_the_cluster_s_own_servers_alone() {
        let known = [
            context("https://first:7643/", "one"),
            context("https://First:7643", "two"),
        ];
        let asked = |protocol: &str, host: &str| {
            let text =
                format!("protocol={protocol}\nhost={host}\nwwwauth[]=Basic realm=\"skep\"\n\n");
            answer(&text, known.iter())
        };
        let one = Some("username=skep\npassword=one\n".to_owned());
        assert_eq!(asked("https", "first:7643"), one);
        assert_eq!(asked("https", "second:7643"), one);
        for (protocol, host) in [
            ("http", "first:7643"),
            ("https", "first"),
            ("https", "first:7643.evil.example"),
            ("https", "evil.example"),
        ] {
            assert_eq!(asked(protocol, host), None, "{protocol} {host}");
        }
        assert_eq!(answer("", known.iter()), None);
    }
}
