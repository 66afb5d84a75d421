//! `skep restore`: the data folder of a new server out of a backup. Needs no server, and stops none.

use std::path::PathBuf;

use serde_json::json;
use skep_control_plane::backup;

use super::backup::{describe, refused};
use crate::failure::Failure;
use crate::session::Session;

/// What to restore, and where to.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Stop every server of the old cluster for good first: this makes a new one of the same name. Then:

  skep restore skep-2026-01-31.tar --data-dir /var/lib/skep-new --key-file /etc/skep/operator.key
  skep server --data-dir /var/lib/skep-new --key-file /etc/skep/operator.key ...

Started on the old addresses, the nodes come back by themselves. What they run and the backup knows goes
on without a break. What they run and the backup does not know is kept running, out of the routes:
`skep alloc ls --quarantine` lists it, `skep alloc adopt` and `skep alloc dismiss` decide. Tokens, CA and
nodes are those of the backup; other servers join anew, and so do nodes that came after the backup.")]
pub(crate) struct Args {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Folder of the new server: empty, or not there yet
    #[arg(long, value_name = "DIR", env = "SKEP_SERVER_DATA_DIR")]
    data_dir: PathBuf,
    /// The operator's key of the server that made the backup, or that founded the cluster
    #[arg(long, value_name = "FILE", env = "SKEP_KEY_FILE")]
    key_file: PathBuf,
}

/// Runs the command. Blocks on the disk.
///
/// # Errors
/// The backup, the key or the folder is not accepted.
pub(crate) fn run(args: &Args, session: &Session) -> Result<(), Failure> {
    let restored = backup::restore(&args.file, &args.data_dir, &args.key_file).map_err(refused)?;
    let answer = json!({
        "server": restored.server,
        "member": restored.member,
        "data_dir": args.data_dir,
        "manifest": restored.manifest,
    });
    session.out.result(&answer, || {
        format!(
            "{}\nrestored to {}; start it: skep server --data-dir {} --key-file {}",
            describe(&restored.manifest),
            args.data_dir.display(),
            args.data_dir.display(),
            args.key_file.display()
        )
    });
    session.out.warning(
        "no server of the old cluster may run again: stop them all, and let further ones join anew",
    );
    Ok(())
}
