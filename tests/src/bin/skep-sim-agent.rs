//! `skep-sim-agent`: thousands of agents without machines against real servers; `--help` tells how.

use anyhow::Result;
use skep_tests::servers::agents::program;

#[tokio::main]
async fn main() -> Result<()> {
    program::main(std::env::args_os()).await
}
