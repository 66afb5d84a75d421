//! `skep autoscale`: who says how many allocations a service has, and why so many.

use std::time::Duration;

use http::Method;
use skep_control_plane::api::types::AutoscaleView;
use skep_model::autoscale::{Autoscale, Mode, Policy, ScaleToZero, Sizing, Target, Window};
use skep_model::problem::Problem;

use crate::failure::Failure;
use crate::output::{table, time};
use crate::session::Session;
use crate::target::{self, Scope};

/// Let load say how many allocations a service has
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// Give a service an autoscaler, or change what is named of it
    #[command(after_help = "\
Examples:
  skep autoscale set web --min 1 --max 10 --target cpu=70%
  skep autoscale set web --target request_rate=100 --target latency_p95=200ms
  skep autoscale set web --scale-to-zero 5m
  skep autoscale set web --schedule 'from=0 8 * * 1-5;to=0 18 * * 1-5;zone=Europe/Berlin;min=4'
  skep autoscale set web --sizing advise

Targets say what each allocation should have to do: cpu=70%, memory=80% (of the request),
request_rate=100 (a second), in_flight=20, latency_p95=200ms, queue_length=10 or custom:NAME=5
(pushed to POST /v1/.../services/SERVICE/metrics). With several, the one that wants most wins.
What is given replaces what was said of the same thing; all of it is in skep.toml's [autoscale].")]
    Set(Box<Set>),
    /// Take the autoscaler away; as many allocations stay as there are
    Off(Which),
    /// Show what it is to do, what it sees, and what it thinks
    Show(Which),
    /// Show how many there were to be when, and why
    History(Which),
}

/// Which service.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Which {
    /// The service [default: the one of this folder]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    scope: Scope,
}

/// What to say of it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Set {
    #[command(flatten)]
    which: Which,
    /// Fewest allocations while it runs
    #[arg(long, value_name = "N")]
    min: Option<u32>,
    /// Most allocations
    #[arg(long, value_name = "N")]
    max: Option<u32>,
    /// What each should have to do, such as cpu=70%; once for each
    #[arg(long = "target", value_name = "METRIC=VALUE", value_parser = target_of)]
    targets: Vec<Target>,
    /// Bounds by the time of the day; once for each, or `none`
    #[arg(long = "schedule", value_name = "WINDOW")]
    schedules: Vec<String>,
    /// Take the last one away when nothing was asked for so long, such as 5m; or `never`
    #[arg(long, value_name = "TIME")]
    scale_to_zero: Option<String>,
    /// How fast it may grow, such as `100% or 4/15s`
    #[arg(long, value_name = "RATE", value_parser = policy)]
    up: Option<Policy>,
    /// How fast it may shrink, such as 50%/min, or `never`
    #[arg(long, value_name = "RATE", value_parser = policy)]
    down: Option<Policy>,
    /// What the load is averaged over, such as 60s
    #[arg(long, value_name = "TIME", value_parser = time::parse_span)]
    stable_window: Option<Duration>,
    /// A clear rise is seen within this, such as 6s
    #[arg(long, value_name = "TIME", value_parser = time::parse_span)]
    burst_window: Option<Duration>,
    /// What was wanted within this stays, such as 150s
    #[arg(long, value_name = "TIME", value_parser = time::parse_span)]
    down_window: Option<Duration>,
    /// Recommend requests by what is used: advise, apply (to the next release), or off
    #[arg(long, value_name = "MODE", value_parser = ["advise", "apply", "off"])]
    sizing: Option<String>,
}

fn target_of(text: &str) -> Result<Target, String> {
    text.parse().map_err(|problem: Problem| words(&problem))
}

fn policy(text: &str) -> Result<Policy, String> {
    text.parse().map_err(|problem: Problem| words(&problem))
}

fn words(problem: &Problem) -> String {
    match &problem.hint {
        Some(hint) => format!("{} ({hint})", problem.message),
        None => problem.message.clone(),
    }
}

/// Runs the command.
///
/// # Errors
/// Bad input, not reachable, or refused.
pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::Set(set) => change(*set, session).await,
        Command::Off(which) => off(&which, session).await,
        Command::Show(which) => show(&which, session).await,
        Command::History(which) => history(&which, session).await,
    }
}

async fn change(set: Set, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let which = &set.which;
    let target = target::find(&client, which.service.as_deref(), &which.scope).await?;
    let path = format!("{}/autoscale", target.path());
    let before: AutoscaleView = client.get(&path).await?;
    let wanted = set.onto(before.autoscale.unwrap_or_default())?;
    let view: AutoscaleView = client.send(Method::PUT, &path, &wanted).await?;
    session.out.result(&view, || {
        let mut text = format!("{target}: {} to {} allocations", wanted.min, wanted.max);
        let targets: Vec<String> = wanted.targets.iter().map(Target::to_string).collect();
        match targets.is_empty() {
            true => text.push_str("; no target: only bounds and schedules act"),
            false => text.push_str(&format!(", {}", targets.join(", "))),
        }
        text
    });
    Ok(())
}

impl Set {
    /// What is said, on top of what was.
    fn onto(&self, mut base: Autoscale) -> Result<Autoscale, Failure> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        put(&mut base.min, self.min);
        put(&mut base.max, self.max);
        put(&mut base.up, self.up);
        put(&mut base.down, self.down);
        put(&mut base.stable_window_ms, self.stable_window.map(millis));
        put(&mut base.burst_window_ms, self.burst_window.map(millis));
        put(&mut base.down_window_ms, self.down_window.map(millis));
        if !self.targets.is_empty() {
            base.targets.clone_from(&self.targets);
        }
        match self.scale_to_zero.as_deref() {
            None => {}
            Some("never") => base.scale_to_zero = None,
            Some(text) => {
                let idle = time::parse_span(text).map_err(|error| {
                    Failure::usage(format!("`{text}` is not a time: {error}"))
                        .hint("for example 5m, or `never`")
                })?;
                base.scale_to_zero = Some(ScaleToZero {
                    idle_ms: millis(idle),
                });
            }
        }
        match self.schedules.as_slice() {
            [] => {}
            [none] if none == "none" => base.schedules.clear(),
            windows => {
                let windows = windows.iter().map(|text| window(text));
                base.schedules = windows.collect::<Result<_, _>>()?;
            }
        }
        base.sizing = match self.sizing.as_deref() {
            None => base.sizing,
            Some("off") => None,
            Some(mode) => Some(Sizing {
                mode: if mode == "apply" {
                    Mode::Apply
                } else {
                    Mode::Advise
                },
                ..base.sizing.unwrap_or_default()
            }),
        };
        Ok(base)
    }
}

fn put<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

/// `from=CRON;to=CRON[;zone=NAME][;min=N][;max=N]`.
fn window(text: &str) -> Result<Window, Failure> {
    let bad = |what: &str| {
        Failure::usage(format!("`{text}` is not a window: {what}"))
            .hint("for example 'from=0 8 * * 1-5;to=0 18 * * 1-5;zone=Europe/Berlin;min=4'")
    };
    let mut made = Window {
        from: String::new(),
        to: String::new(),
        time_zone: "UTC".to_owned(),
        min: None,
        max: None,
    };
    for part in text.split(';').map(str::trim).filter(|it| !it.is_empty()) {
        let (key, value) = part.split_once('=').ok_or_else(|| bad(part))?;
        let number = || value.parse().map(Some).map_err(|_| bad(part));
        match key.trim() {
            "from" => made.from = value.trim().to_owned(),
            "to" => made.to = value.trim().to_owned(),
            "zone" => made.time_zone = value.trim().to_owned(),
            "min" => made.min = number()?,
            "max" => made.max = number()?,
            _ => return Err(bad(part)),
        }
    }
    Ok(made)
}

async fn off(which: &Which, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, which.service.as_deref(), &which.scope).await?;
    let path = format!("{}/autoscale", target.path());
    let view: AutoscaleView = client
        .send(Method::DELETE, &path, &serde_json::json!({}))
        .await?;
    session.out.result(&view, || {
        format!(
            "{target} has no autoscaler, and shall have {} (`skep scale`)",
            view.wanted
        )
    });
    Ok(())
}

async fn show(which: &Which, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, which.service.as_deref(), &which.scope).await?;
    let view: AutoscaleView = client.get(&format!("{}/autoscale", target.path())).await?;
    session.out.result(&view, || {
        let Some(autoscale) = &view.autoscale else {
            return format!(
                "{target} has no autoscaler, and shall have {} (`skep autoscale set`)",
                view.wanted
            );
        };
        described(&target.to_string(), autoscale, &view)
    });
    Ok(())
}

fn described(target: &str, autoscale: &Autoscale, view: &AutoscaleView) -> String {
    let mut lines = vec![format!(
        "{target}: {} wanted, {} healthy; {} to {}, up {}, down {}",
        view.wanted, view.healthy, autoscale.min, autoscale.max, autoscale.up, autoscale.down
    )];
    if let Some(zero) = autoscale.scale_to_zero {
        let idle = time::span(Duration::from_millis(zero.idle_ms));
        lines.push(format!("to zero when nothing was asked for {idle}"));
    }
    for window in &autoscale.schedules {
        let bound = |name: &str, number: Option<u32>| {
            number.map_or(String::new(), |number| format!(", {name} {number}"))
        };
        lines.push(format!(
            "from `{}` to `{}` ({}){}{}",
            window.from,
            window.to,
            window.time_zone,
            bound("min", window.min),
            bound("max", window.max)
        ));
    }
    if let Some(decision) = &view.decision {
        lines.push(format!("now: {decision}"));
    }
    if let Some(advice) = &view.advice {
        let what = match advice.applied {
            true => "the next release gets",
            false => "advice",
        };
        lines.push(format!("{what}: {}", advice.reason));
    }
    if !view.measured.is_empty() {
        let row = |one: &skep_control_plane::api::types::MeasuredTarget| {
            let measured = one.measured.clone();
            vec![
                one.target.clone(),
                measured.unwrap_or_else(|| "not known".to_owned()),
            ]
        };
        let rows = view.measured.iter().map(row).collect();
        lines.push(String::new());
        lines.push(table::render(&["EACH SHOULD HAVE", "ALL HAVE"], rows, ""));
    }
    lines.join("\n")
}

async fn history(which: &Which, session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let target = target::find(&client, which.service.as_deref(), &which.scope).await?;
    let view: AutoscaleView = client.get(&format!("{}/autoscale", target.path())).await?;
    session.out.result(&view.changes, || {
        let now_ms = time::now_ms();
        let rows = view.changes.iter().map(|change| {
            vec![
                time::age(now_ms, change.at_ms),
                format!("{} -> {}", change.from, change.to),
                change.reason.clone(),
            ]
        });
        table::render(
            &["AGO", "CHANGE", "WHY"],
            rows.collect(),
            "its autoscaler has changed nothing yet",
        )
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Typed {
        #[command(flatten)]
        set: Set,
    }

    fn typed(words: &[&str]) -> Result<Autoscale, String> {
        let all = std::iter::once("set").chain(words.iter().copied());
        let typed = Typed::try_parse_from(all).map_err(|error| error.to_string())?;
        let base = Autoscale {
            min: 3,
            scale_to_zero: Some(ScaleToZero::default()),
            ..Autoscale::default()
        };
        typed
            .set
            .onto(base)
            .map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn what_is_not_named_stays() {
        let made = typed(&["web", "--max", "20", "--target", "cpu=70%"]).expect("sound");
        assert_eq!((made.min, made.max, made.targets.len()), (3, 20, 1));
        assert!(made.scale_to_zero.is_some());
        let made = typed(&["web", "--scale-to-zero", "never", "--sizing", "apply"]).expect("sound");
        assert!(made.scale_to_zero.is_none());
        assert_eq!(made.sizing.map(|sizing| sizing.mode), Some(Mode::Apply));
        let text = "from=0 8 * * 1-5;to=0 18 * * 1-5;zone=Europe/Berlin;min=4";
        let made = typed(&["web", "--schedule", text]).expect("sound");
        assert_eq!(made.schedules[0].time_zone, "Europe/Berlin");
        assert_eq!(made.check_given(), Ok(()));
    }

    #[test]
    fn what_cannot_be_read_says_what_can() {
        let wrong = typed(&["web", "--target", "cpu=fast"]).expect_err("no amount");
        assert!(wrong.contains("cpu=70%"), "{wrong}");
        let wrong = typed(&["web", "--schedule", "8 to 18"]).expect_err("no window");
        assert!(wrong.contains("Europe/Berlin"), "{wrong}");
        assert!(typed(&["web", "--scale-to-zero", "soon"]).is_err());
    }
}
