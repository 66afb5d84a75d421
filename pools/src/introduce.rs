//! How a guest learns how to join: what it is told is the environment of its agent, a line for each variable, with a join token
//! that is made for it alone. Pure; [`crate::Driver::introduce`] puts it there.
//!
//! A VM gets it as a file, by its own agent (qemu-guest-agent). A container has no such agent, and no file can be put into it by
//! the API: it gets the variables from its configuration (`env`, since Proxmox VE 9.1), which its first process is started
//! with, and is restarted for that. The token is taken out again once the guest has joined; the rest stays, as the guest has it
//! from nowhere else when it starts the next time.

use crate::seen::Facts;

/// Where a VM's agent looks for its environment. Its folder must be root's alone: whoever writes a file through the guest's
/// agent says nothing about who may read it.
pub const ENV_FILE: &str = "/etc/skep/agent.env";
/// The version from which on containers have an `env`.
pub(crate) const LXC_ENV_SINCE: (u32, u32) = (9, 1);
/// What a variable of ours begins with: others in a container's `env` are its template's.
const PREFIX: &str = "SKEP_";
/// The variable that is a secret.
const TOKEN: &str = "SKEP_JOIN_TOKEN=";
/// Proxmox writes it between two variables.
const BETWEEN: char = '\0';

/// Refuses a text that would not arrive as it is.
///
/// # Errors
/// Which line is none; never what is in it.
pub(crate) fn check(text: &str) -> Result<(), String> {
    for (number, line) in (1..).zip(text.lines()) {
        let name = line.split_once('=').map(|(name, _)| name);
        let is_name = |name: &str| {
            name.starts_with(PREFIX)
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
        };
        // Proxmox's own encoder fails at anything else.
        let is_plain = line.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        if !name.is_some_and(is_name) || !is_plain {
            return Err(format!("line {number} is not {PREFIX}NAME=value in ASCII"));
        }
    }
    match text.is_empty() {
        true => Err("there is nothing to tell".to_owned()),
        false => Ok(()),
    }
}

/// The `env` of a container that is told these lines; what its template has there stays.
pub(crate) fn remember(old: Option<&str>, text: &str) -> String {
    let kept = without(old.unwrap_or_default(), PREFIX);
    let all: Vec<&str> = kept.chain(text.lines()).collect();
    all.join(&BETWEEN.to_string())
}

/// The `env` without the token; none: the entry goes.
pub(crate) fn forget(old: Option<&str>) -> Option<String> {
    let kept: Vec<&str> = without(old.unwrap_or_default(), TOKEN).collect();
    (!kept.is_empty()).then(|| kept.join(&BETWEEN.to_string()))
}

/// Whether its configuration still has the token.
pub(crate) fn is_remembered(facts: &Facts) -> bool {
    let env = facts.config.get("env").unwrap_or_default();
    env.split(BETWEEN).any(|it| it.starts_with(TOKEN))
}

fn without<'a>(env: &'a str, what: &'a str) -> impl Iterator<Item = &'a str> {
    let all = env.split(BETWEEN);
    all.filter(move |it| !it.is_empty() && !it.starts_with(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "SKEP_SERVER=10.0.0.1:7072\nSKEP_JOIN_TOKEN=skp_1";

    #[test]
    fn only_lines_that_arrive_as_they_are() {
        check(TEXT).expect("fine");
        check(&format!("{TEXT}\n")).expect("fine");
        for (text, line) in [
            ("", "nothing"),
            ("SKEP_A=1\n\nSKEP_B=2", "line 2"),
            ("PATH=/bin", "line 1"),
            ("SKEP_A=sécret", "line 1"),
            ("SKEP_A=a\0PATH=b", "line 1"),
            ("SKEP_A B=1", "line 1"),
            ("SKEP_A", "line 1"),
        ] {
            let why = check(text).expect_err(text);
            assert!(why.contains(line), "{why}");
            assert!(!why.contains("cret"), "{why}");
        }
    }

    #[test]
    fn a_templates_own_variables_stay() {
        let env = remember(Some("TZ=UTC\0SKEP_JOIN_TOKEN=old"), TEXT);
        assert_eq!(
            env,
            "TZ=UTC\0SKEP_SERVER=10.0.0.1:7072\0SKEP_JOIN_TOKEN=skp_1"
        );
        let kept = "TZ=UTC\0SKEP_SERVER=10.0.0.1:7072";
        assert_eq!(
            forget(Some(&env)).as_deref(),
            Some(kept),
            "it starts again with it"
        );
        assert_eq!(forget(Some("SKEP_JOIN_TOKEN=skp_1")), None);
    }
}
