//! The lab itself: its hosts reach each other until they are cut off, and nothing of it stays.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use skep_tests::lab::{Clock, Host, Lab, run};
use skep_tests::process::Process;
use skep_tests::wait;

const PORT: &str = "8000";
const UP: Duration = Duration::from_secs(60);

/// A TCP connection from a host to another, made within a second or not at all.
async fn reaches(from: &Host, to: &Host) -> bool {
    let probe = format!("exec 3<>/dev/tcp/{}/{PORT}", to.address());
    from.run("timeout", &["1", "bash", "-c", &probe])
        .await
        .is_ok()
}

async fn listener(host: &Host) -> Result<Process> {
    let process = host.process("listener", Path::new("python3")).args([
        "-m",
        "http.server",
        PORT,
        "--directory",
        "/var/empty",
    ]);
    process.start().await?;
    Ok(process)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_reach_each_other_until_they_are_cut_off() -> Result<()> {
    let mut lab = Lab::new().await?;
    for _ in 0..3 {
        lab.add_host().await?;
    }
    let (one, two, three) = (lab.host(0), lab.host(1), lab.host(2));
    let _listeners = [
        listener(one).await?,
        listener(two).await?,
        listener(three).await?,
    ];
    for (from, to) in [(one, two), (two, one), (three, one), (one, three)] {
        wait::until_ok("hosts that reach each other", UP, async || {
            ensure!(reaches(from, to).await, "{} {}", from.name(), to.name());
            Ok(())
        })
        .await?;
    }
    // The machine reaches its hosts, too: that is how tests are clients.
    tokio::net::TcpStream::connect((two.address(), 8000)).await?;

    one.cut_from(two.address()).await?;
    ensure!(!reaches(one, two).await && !reaches(two, one).await);
    ensure!(reaches(one, three).await && reaches(three, two).await);
    one.mend().await?;
    ensure!(reaches(one, two).await);

    three.cut().await?;
    ensure!(!reaches(one, three).await && reaches(one, two).await);
    three.mend().await?;
    ensure!(reaches(one, three).await);

    // One way: packets of `one` come as far as the rule that drops them, and no further.
    two.deafen(one.address()).await?;
    ensure!(!reaches(one, two).await, "a connection needs both ways");
    let rules = two
        .run("iptables", &["-w", "-L", "INPUT", "-v", "-x", "-n"])
        .await?;
    let rule = rules
        .lines()
        .find(|line| line.contains("DROP") && line.contains("10.214"));
    let dropped: u64 = rule
        .and_then(|rule| rule.split_whitespace().next())
        .unwrap_or("0")
        .parse()?;
    ensure!(dropped > 0, "{rules}");
    two.mend().await?;
    ensure!(reaches(two, one).await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_disk_is_full_and_then_has_room_again() -> Result<()> {
    let mut lab = Lab::new().await?;
    let place = lab.add_host().await?;
    let host = lab.host(place);
    let disk = host.small_disk("disk", 4).await?;
    let filled = Host::fill_disk(&disk)?;
    ensure!(filled >= 3 << 20, "{filled} bytes");
    let refused = std::fs::write(disk.join("more"), [0u8; 8192]).unwrap_err();
    ensure!(
        refused.kind() == std::io::ErrorKind::StorageFull,
        "{refused}"
    );
    Host::empty_disk(&disk)?;
    std::fs::write(disk.join("more"), [0u8; 8192])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_is_moved_under_a_running_process() -> Result<()> {
    let mut lab = Lab::new().await?;
    let place = lab.add_host().await?;
    let host = lab.host(place);
    let clock = Clock::new(host.path("clock"))?;
    let watch = "import select, time\nwhile True: print(int(time.time()), int(time.monotonic()), flush=True); select.select([], [], [], 0.05)";
    let process = host
        .process("watch", Path::new("python3"))
        .args(["-c", watch]);
    let variables = clock.environment()?;
    let process = variables
        .into_iter()
        .fold(process, |process, (name, value)| process.env(name, value));
    process.start().await?;
    let now = || {
        std::time::UNIX_EPOCH
            .elapsed()
            .map(|since| since.as_secs() as i64)
    };
    for step in [0, 3_600, -172_800, 0] {
        clock.step(step)?;
        wait::until_ok("a moved clock", UP, async || {
            let log = process.log();
            let last = log.lines().rev().nth(1).context(log.clone())?;
            let (wall, steady) = last.split_once(' ').context("two clocks")?;
            let off = wall.parse::<i64>()? - now()?;
            ensure!((off - step).abs() <= 2, "off by {off}, not {step}");
            // The other clock is the machine's own.
            let uptime = std::fs::read_to_string("/proc/uptime")?;
            let uptime: f64 = uptime.split(' ').next().context("uptime")?.parse()?;
            ensure!(
                (steady.parse::<f64>()? - uptime).abs() <= 3.0,
                "{steady} {uptime}"
            );
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stays_behind() -> Result<()> {
    let mut lab = Lab::new().await?;
    let place = lab.add_host().await?;
    let host = lab.host(place);
    let disk = host.small_disk("disk", 4).await?;
    let process = host.process("sleep", Path::new("sleep")).args(["1000"]);
    process.start().await?;
    let [_, network] = host.entry();
    let network = network.to_string_lossy().replace("--net=", "");
    ensure!(Path::new(&network).exists(), "{network}");
    // A process is started before it has entered its host.
    let name = Path::new(&network).file_name().context("a name")?;
    let name = name.to_str().context("text")?;
    wait::until_ok("its process to be there", UP, async || {
        let there = run("ip", &["netns", "pids", name]).await?;
        ensure!(!there.trim().is_empty(), "{name} has no process");
        Ok(())
    })
    .await?;
    drop(lab);
    ensure!(!Path::new(&network).exists(), "{network} stays");
    ensure!(!disk.exists(), "{} stays", disk.display());
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    ensure!(!mounts.contains(&*disk.to_string_lossy()), "{mounts}");
    wait::until_ok("its process to end", UP, async || {
        ensure!(!process.is_running().await?);
        Ok(())
    })
    .await?;
    run("ip", &["netns", "list"]).await.map(drop)
}
