//! Faults that run by themselves: crash, leak, burning, talking. Started once, never stopped.

use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::settings::Settings;

const MIB: usize = 1024 * 1024;
/// Memory is taken in steps small enough that a memory graph shows a slope.
const LEAK_STEPS_PER_S: u32 = 10;

/// Starts what the settings ask for, each on a thread of its own: a fault must not depend on
/// the runtime that serves requests.
pub(crate) fn start(settings: &Arc<Settings>) {
    if let Some(after) = settings.crash_after {
        let code = settings.crash_code;
        thread::spawn(move || {
            thread::sleep(after);
            crash(code);
        });
    }
    if settings.leak_mib_per_s > 0 {
        let rate = settings.leak_mib_per_s;
        thread::spawn(move || leak(rate));
    }
    for _ in 0..settings.burn_threads {
        thread::spawn(burn);
    }
    if settings.fork_bomb {
        thread::spawn(bomb);
    }
    if settings.log_lines_per_s > 0 {
        let rate = settings.log_lines_per_s;
        thread::spawn(move || talk(rate));
    }
    if settings.log_flood_lines > 0 {
        let lines = settings.log_flood_lines;
        thread::spawn(move || flood(lines));
    }
}

fn flood(lines: u64) {
    let mut out = std::io::BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    for line in 1..=lines {
        if writeln!(out, "flood {line} {:.<980}", "").is_err() {
            return;
        }
    }
    let _ = writeln!(out, "flood over");
    let _ = out.flush();
}

/// Ends the process at once, in the middle of whatever it was doing.
pub(crate) fn crash(code: u8) -> ! {
    eprintln!("test app: crashing with code {code}, as told");
    std::process::exit(i32::from(code))
}

fn leak(mib_per_s: u32) {
    let step = mib_per_s as usize * MIB / LEAK_STEPS_PER_S as usize;
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        // Written, not just reserved: only touched pages count against a memory limit.
        kept.push(vec![1; step]);
        std::hint::black_box(&kept);
        thread::sleep(Duration::from_secs(1) / LEAK_STEPS_PER_S);
    }
}

/// Threads count against a limit of processes as processes do.
fn bomb() {
    const TRY_AGAIN: Duration = Duration::from_millis(100);
    const STACK_BYTES: usize = 16 * 1024;
    let (mut made, mut is_told) = (0_u32, false);
    loop {
        let one = thread::Builder::new().stack_size(STACK_BYTES);
        let sleeps = || loop {
            thread::park();
        };
        if one.spawn(sleeps).is_ok() {
            made += 1;
            continue;
        }
        if !is_told {
            is_told = true;
            // Nobody reading is no reason to stop.
            let _ = writeln!(std::io::stdout().lock(), "no more threads after {made}");
        }
        thread::sleep(TRY_AGAIN);
    }
}

fn burn() {
    let mut number: u64 = 1;
    loop {
        number = std::hint::black_box(
            number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1),
        );
    }
}

fn talk(lines_per_s: u32) {
    let mut line: u64 = 0;
    loop {
        line += 1;
        // Nobody reading is no reason to panic: the app goes on without talking.
        if writeln!(std::io::stdout().lock(), "line {line}").is_err() {
            return;
        }
        thread::sleep(Duration::from_secs(1) / lines_per_s);
    }
}
