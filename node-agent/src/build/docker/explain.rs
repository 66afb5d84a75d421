//! What the daemon's error means for whoever wrote the Dockerfile. Pure.

use bollard::errors::Error;
use skep_model::problem::{Code, Problem};

use super::super::image;
use super::super::progress::Tail;
use crate::images::says_full;

/// How BuildKit calls looking up the image that FROM names.
const BASE: &str = "load metadata for ";

/// ENOSPC, as every libc words it.
const NO_SPACE: &str = "no space left on device";

/// What Docker's error means for whoever wrote the Dockerfile.
pub(super) fn explain(error: &Error, failed: (Option<&str>, &Tail)) -> Problem {
    let said = match error {
        Error::DockerStreamError { error } => error,
        Error::DockerResponseServerError { message, .. } => message,
        other => return image::unreachable(other),
    };
    let said = said.trim();
    let mut message = match (failed.0, exit_code(said)) {
        (Some(step), Some(code)) => format!("{step} failed with exit code {code}"),
        (Some(step), None) => format!("{step} failed: {}", bare(said)),
        (None, _) => format!("Docker refused the build: {}", bare(said)),
    };
    for line in failed.1.lines() {
        message.push_str("\n  ");
        message.push_str(line);
    }
    // A step that found no room says so in its own words.
    let is_full = says_full(said) || message.to_ascii_lowercase().contains(NO_SPACE);
    let problem = Problem::new(Code::BuildFailed, message);
    let has = |parts: &[&str]| parts.iter().any(|part| said.contains(part));
    if has(&["requires BuildKit", "--mount option", "--chmod option"]) {
        return problem
            .hint("this Dockerfile needs BuildKit, which the node's daemon does not offer: upgrade Docker, or remove `buildkit: false` from its daemon.json");
    }
    if is_full {
        return problem.hint(
            "the building node's disk is full; what runs there runs on: free space on it (docker \
             system df), then deploy again",
        );
    }
    if let Some(hint) = hint(&message_of(&problem)) {
        return problem.hint(hint);
    }
    let is_base = failed.0.is_some_and(|step| step.starts_with(BASE));
    if has(&[
        "pull access denied",
        "manifest for",
        "repository does not exist",
    ]) || (is_base && said.ends_with("not found"))
    {
        return problem.hint("check the image that FROM names: its registry says that it does not exist or needs a login");
    }
    if has(&[
        "dial tcp",
        "Client.Timeout",
        "no such host",
        "TLS handshake",
    ]) {
        return problem
            .hint("the registry of the image that FROM names cannot be reached from this node");
    }
    if has(&[
        "COPY failed",
        "ADD failed",
        "failed to calculate checksum",
        "failed to compute cache key",
    ]) {
        return problem.hint("is the file in the app's folder, and not left out by .dockerignore?");
    }
    problem.hint("the step's last lines tell why: correct it, then deploy again")
}

fn message_of(problem: &Problem) -> String {
    problem.message.to_ascii_lowercase()
}

/// What a step said, in lower case, and what to do about it: the first row of which all parts are there.
const HINTS: [(&[&str], &str); 14] = [
    (
        &["exit code 137"],
        "the step was killed: it needed more memory than it may have (`build.memory`) or than the node has",
    ),
    (
        &["javascript heap out of memory"],
        "Node.js ran out of its own heap: set NODE_OPTIONS=--max-old-space-size=4096 for the build, and look \
         at `build.memory`",
    ),
    (
        &["cannot allocate memory"],
        "the node has no memory left for the step: raise `build.memory`, or build on a larger node",
    ),
    (
        &["resource temporarily unavailable"],
        "the step wanted more processes than a build may have: raise `build.pids`, or find what begins so many",
    ),
    (
        &["can't fork"],
        "the step wanted more processes than a build may have: raise `build.pids`, or find what begins so many",
    ),
    (
        &["npm ci", "can only install packages when your package.json"],
        "package-lock.json is not what package.json says: run `npm install` and commit the lock file",
    ),
    (
        &["the `npm ci` command can only install with an existing package-lock.json"],
        "there is no package-lock.json: run `npm install` and commit it, or install by `npm install`",
    ),
    (
        &["err_pnpm_outdated_lockfile"],
        "pnpm-lock.yaml is not what package.json says: run `pnpm install` and commit the lock file",
    ),
    (
        &["err_pnpm_no_lockfile"],
        "there is no pnpm-lock.yaml: run `pnpm install` and commit it",
    ),
    (
        &["lockfile needs to be updated"],
        "yarn.lock is not what package.json says: run `yarn install` and commit the lock file",
    ),
    (
        &[
            "the lock file",
            "needs to be updated but --locked was passed",
        ],
        "Cargo.lock is not what Cargo.toml says: run `cargo check` and commit the lock file",
    ),
    (
        &["exec format error"],
        "the program is for another processor than the node's, or a script without `#!` in its first line",
    ),
    (
        &["eaddrinuse"],
        "a build starts no server: leave the start command to CMD, and say its `port` in skep.toml",
    ),
    (
        &["permission denied"],
        "is the script executable in the repository? git update-index --chmod=+x FILE, or RUN sh FILE",
    ),
];

fn hint(said: &str) -> Option<&'static str> {
    let fits = |parts: &&[&str]| parts.iter().all(|part| said.contains(part));
    let row = HINTS.iter().find(|(parts, _)| fits(parts));
    row.map(|(_, hint)| *hint)
}

/// Something that the classic builder cannot do.
pub(super) fn needs_buildkit(what: &str) -> Problem {
    Problem::new(
        Code::BuildFailed,
        format!("{what} need BuildKit, which the node's daemon does not offer"),
    )
    .hint("upgrade Docker, or remove `buildkit: false` from its daemon.json")
}

/// Without what BuildKit puts before every error: by which of its parts it went.
fn bare(said: &str) -> &str {
    const PARTS: [&str; 5] = [
        "failed to solve with frontend dockerfile.v0: ",
        "failed to solve: ",
        "failed to create LLB definition: ",
        "failed to build LLB: ",
        "rpc error: code = Unknown desc = ",
    ];
    let mut rest = said;
    while let Some(after) = PARTS.iter().find_map(|part| rest.strip_prefix(part)) {
        rest = after;
    }
    rest
}

/// Where a builder's error only says that the command failed, which the step has named: `The
/// command '...' returned a non-zero code: 2` by the classic one, `...: exit code: 2` by BuildKit.
fn exit_code(said: &str) -> Option<&str> {
    let is_classic = said.starts_with("The command '");
    let mark = if is_classic {
        "returned a non-zero code: "
    } else {
        "exit code: "
    };
    let (_, code) = said.rsplit_once(mark)?;
    code.bytes().all(|b| b.is_ascii_digit()).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::super::super::progress::Progress;
    use super::*;

    fn stream_error(text: &str) -> Error {
        Error::DockerStreamError {
            error: text.to_owned(),
        }
    }

    #[test]
    fn a_failed_step_is_named_with_its_last_lines() {
        let mut progress = Progress::default();
        progress
            .text("Step 2/3 : RUN make\n ---> Running in 1\ncc: no such file\nmake: *** [all] 1\n");
        let error = stream_error("The command '/bin/sh -c make' returned a non-zero code: 2");
        let problem = explain(&error, progress.failed());
        assert_eq!(problem.code, Code::BuildFailed);
        assert_eq!(
            problem.message,
            "step 2/3 (RUN make) failed with exit code 2\n  \
             cc: no such file\n  make: *** [all] 1"
        );
    }

    #[test]
    fn buildkit_says_the_same_in_its_own_words() {
        let with =
            |said: &str, step: Option<&str>| explain(&stream_error(said), (step, &Tail::default()));
        let make = "failed to solve with frontend dockerfile.v0: failed to build LLB: executor \
                    failed running [/bin/sh -c make]: exit code: 3";
        assert_eq!(
            with(make, Some("step 2/2 (RUN make)")).message,
            "step 2/2 (RUN make) failed with exit code 3"
        );
        let parse = "failed to solve with frontend dockerfile.v0: failed to create LLB \
                     definition: dockerfile parse error line 1: unknown instruction: FORM";
        assert_eq!(
            with(parse, None).message,
            "Docker refused the build: dockerfile parse error line 1: unknown instruction: FORM"
        );
        let cases = [
            (
                "failed to solve: localhost:5000/a:1: not found",
                "load metadata for localhost:5000/a:1",
                "FROM",
            ),
            (
                "failed to compute cache key: \"/x\" not found: not found",
                "step 1/1 (COPY x /x)",
                ".dockerignore",
            ),
        ];
        for (said, step, hint) in cases {
            let problem = with(said, Some(step));
            let told = problem.hint.as_deref().unwrap_or_default();
            assert!(told.contains(hint), "{problem}");
        }
    }

    #[test]
    fn known_failures_say_what_to_do() {
        let cases = [
            ("the --mount option requires BuildKit. Refer to", "BuildKit"),
            (
                "pull access denied for x, repository does not exist or may require 'docker login'",
                "FROM",
            ),
            (
                "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io",
                "reached",
            ),
            (
                "COPY failed: file not found in build context or excluded by .dockerignore: stat x",
                ".dockerignore",
            ),
        ];
        for (said, hint) in cases {
            let problem = explain(&stream_error(said), Progress::default().failed());
            assert!(
                problem
                    .hint
                    .as_deref()
                    .is_some_and(|text| text.contains(hint)),
                "{problem}"
            );
        }
    }

    #[test]
    fn what_steps_say_is_understood() {
        let code =
            |code: u32| format!("The command '/bin/sh -c x' returned a non-zero code: {code}");
        let cases = [
            ("", 137, "build.memory"),
            (
                "FATAL ERROR: JavaScript heap out of memory",
                134,
                "NODE_OPTIONS",
            ),
            (
                "sh: can't fork: Resource temporarily unavailable",
                2,
                "build.pids",
            ),
            (
                "npm ERR! `npm ci` can only install packages when your package.json and package-lock.json are in sync",
                1,
                "commit the lock file",
            ),
            (
                "npm ERR! The `npm ci` command can only install with an existing package-lock.json",
                1,
                "no package-lock.json",
            ),
            (
                "ERR_PNPM_OUTDATED_LOCKFILE  Cannot install",
                1,
                "pnpm-lock.yaml",
            ),
            ("/bin/sh: ./build.sh: Permission denied", 126, "chmod=+x"),
            ("exec /app: exec format error", 255, "another processor"),
            (
                "Error: listen EADDRINUSE: address already in use :::3000",
                1,
                "port",
            ),
            ("write: No space left on device", 1, "disk is full"),
            ("make: *** [all] Error 1", 1, "last lines"),
        ];
        for (line, exit, hint) in cases {
            let mut progress = Progress::default();
            progress.text(&format!("Step 2/2 : RUN x\n{line}\n"));
            let problem = explain(&stream_error(&code(exit)), progress.failed());
            let told = problem.hint.as_deref().unwrap_or_default();
            assert!(told.contains(hint), "{line}: {problem}");
        }
        let denied = "pull access denied for x, repository does not exist";
        let problem = explain(&stream_error(denied), Progress::default().failed());
        assert!(problem.hint.is_some_and(|hint| hint.contains("FROM")));
    }

    #[test]
    fn a_refused_dockerfile_and_a_missing_daemon_are_told_apart() {
        let refused = Error::DockerResponseServerError {
            status_code: 400,
            message: "dockerfile parse error line 3: unknown instruction: FORM".to_owned(),
        };
        let problem = explain(&refused, Progress::default().failed());
        assert_eq!(problem.code, Code::BuildFailed);
        assert!(problem.message.contains("line 3"), "{problem}");
        let problem = explain(&Error::RequestTimeoutError, Progress::default().failed());
        assert_eq!(problem.code, Code::Runtime);
    }
}
