//! BuildKit's progress as lines for a person, in the form that `docker build --progress=plain` made
//! known: every step has a number, since several run at a time. Pure.

use std::collections::HashMap;

use super::super::progress::{Lines, Tail, cut};

/// Steps of one build that are told; more than fit are built in silence.
const STEPS_MAX: usize = 4_096;
/// Parts of one step (layers, mostly) of which the end is told.
const PARTS_MAX: usize = 1_024;
/// How a step ends that another one's failure ended.
const CANCELED: &str = "context canceled";

// The part that is used of `moby.buildkit.v1.StatusResponse` (api/services/control/control.proto
// of BuildKit): its numbers are a wire format and do not change.

/// What has changed.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StatusResponse {
    #[prost(message, repeated, tag = "1")]
    vertexes: Vec<Vertex>,
    #[prost(message, repeated, tag = "2")]
    statuses: Vec<VertexStatus>,
    #[prost(message, repeated, tag = "3")]
    logs: Vec<VertexLog>,
    #[prost(message, repeated, tag = "4")]
    warnings: Vec<VertexWarning>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// A step.
#[derive(Clone, PartialEq, prost::Message)]
struct Vertex {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(bool, tag = "4")]
    cached: bool,
    #[prost(message, optional, tag = "5")]
    started: Option<Timestamp>,
    #[prost(message, optional, tag = "6")]
    completed: Option<Timestamp>,
    #[prost(string, tag = "7")]
    error: String,
}

/// How far a part of a step is.
#[derive(Clone, PartialEq, prost::Message)]
struct VertexStatus {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    vertex: String,
    #[prost(message, optional, tag = "8")]
    completed: Option<Timestamp>,
}

/// What a step wrote.
#[derive(Clone, PartialEq, prost::Message)]
struct VertexLog {
    #[prost(string, tag = "1")]
    vertex: String,
    #[prost(bytes = "vec", tag = "4")]
    message: Vec<u8>,
}

/// What BuildKit finds questionable in a Dockerfile.
#[derive(Clone, PartialEq, prost::Message)]
struct VertexWarning {
    #[prost(string, tag = "1")]
    vertex: String,
    #[prost(bytes = "vec", tag = "3")]
    short: Vec<u8>,
}

/// A step that has been named.
#[derive(Debug, Default)]
struct Step {
    number: usize,
    name: String,
    lines: Lines,
    /// Bytes of a character that is not complete.
    rest: Vec<u8>,
    tail: Tail,
    parts: Vec<String>,
    is_over: bool,
}

impl Step {
    fn line(&self, text: &str) -> String {
        format!("#{} {text}", self.number)
    }

    fn write(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.rest) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.rest.len(),
        };
        let text: Vec<u8> = self.rest.drain(..whole).collect();
        let lines = self.lines.text(&String::from_utf8_lossy(&text));
        self.tell(lines)
    }

    fn finish(&mut self) -> Vec<String> {
        let line = self.lines.finish();
        self.tell(line)
    }

    fn tell(&mut self, lines: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut told = Vec::new();
        for line in lines {
            self.tail.push(&line);
            told.push(self.line(&line));
        }
        told
    }
}

/// A build's progress.
#[derive(Debug, Default)]
pub(super) struct Trace {
    steps: HashMap<String, Step>,
    /// The step that failed first, as people call it, and its last lines.
    failed: Option<(String, Tail)>,
    nothing: Tail,
}

impl Trace {
    /// The lines that `status` brings.
    pub(super) fn take(&mut self, status: StatusResponse) -> Vec<String> {
        let mut told = Vec::new();
        for vertex in &status.vertexes {
            told.extend(self.begin(vertex));
        }
        for warning in &status.warnings {
            let short = String::from_utf8_lossy(&warning.short);
            match self.steps.get(&warning.vertex) {
                Some(step) => told.push(step.line(&format!("warning: {short}"))),
                None => told.push(format!("warning: {short}")),
            }
        }
        for part in status.statuses.iter().filter(|it| it.completed.is_some()) {
            told.extend(self.part(part));
        }
        for log in &status.logs {
            if let Some(step) = self.steps.get_mut(&log.vertex) {
                told.extend(step.write(&log.message));
            }
        }
        // Last: a message may bring a step's last lines and its end.
        for vertex in &status.vertexes {
            told.extend(self.end(vertex));
        }
        told
    }

    /// The lines that had no end when the build ended.
    pub(super) fn finish(&mut self) -> Vec<String> {
        let mut steps: Vec<&mut Step> = self.steps.values_mut().collect();
        steps.sort_by_key(|step| step.number);
        steps.into_iter().flat_map(Step::finish).collect()
    }

    /// The step that failed: `step 2/3 (RUN make)`, and its last lines.
    pub(super) fn failed(&self) -> (Option<&str>, &Tail) {
        match &self.failed {
            Some((step, tail)) => (Some(step), tail),
            None => (None, &self.nothing),
        }
    }

    fn begin(&mut self, vertex: &Vertex) -> Option<String> {
        let is_known = self.steps.contains_key(&vertex.digest);
        if vertex.started.is_none() || is_known || self.steps.len() >= STEPS_MAX {
            return None;
        }
        let step = Step {
            number: self.steps.len() + 1,
            name: vertex.name.clone(),
            ..Step::default()
        };
        let line = step.line(&vertex.name);
        self.steps.insert(vertex.digest.clone(), step);
        Some(line)
    }

    fn part(&mut self, part: &VertexStatus) -> Option<String> {
        let step = self.steps.get_mut(&part.vertex)?;
        if step.parts.len() >= PARTS_MAX || step.parts.contains(&part.id) {
            return None;
        }
        step.parts.push(part.id.clone());
        Some(step.line(&format!("{} done", part.id)))
    }

    fn end(&mut self, vertex: &Vertex) -> Vec<String> {
        let Some(completed) = &vertex.completed else {
            return Vec::new();
        };
        let Some(step) = self.steps.get_mut(&vertex.digest) else {
            return Vec::new();
        };
        if std::mem::replace(&mut step.is_over, true) {
            return Vec::new();
        }
        let mut told = step.finish();
        let word = if vertex.error.ends_with(CANCELED) {
            "CANCELED".to_owned()
        } else if !vertex.error.is_empty() {
            if self.failed.is_none() {
                self.failed = Some((called(&step.name), std::mem::take(&mut step.tail)));
            }
            format!("ERROR: {}", vertex.error)
        } else if vertex.cached {
            "CACHED".to_owned()
        } else {
            format!(
                "DONE {:.1}s",
                seconds_between(vertex.started.as_ref(), completed)
            )
        };
        told.push(step.line(&word));
        told
    }
}

/// `[2/3] RUN make` as failures name a step: `step 2/3 (RUN make)`. What is in no Dockerfile has no
/// place in it.
fn called(name: &str) -> String {
    let parts = name
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "));
    match parts {
        Some(("internal", what)) => cut(what),
        Some((place, command)) => format!("step {place} ({})", cut(command)),
        None => format!("step `{}`", cut(name)),
    }
}

#[allow(clippy::cast_precision_loss, reason = "tenths of a second are told")]
fn seconds_between(from: Option<&Timestamp>, to: &Timestamp) -> f64 {
    let from = from.unwrap_or(to);
    let whole = to.seconds.saturating_sub(from.seconds) as f64;
    whole + f64::from(to.nanos - from.nanos) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(tenths: i64) -> Option<Timestamp> {
        Some(Timestamp {
            seconds: tenths / 10,
            nanos: i32::try_from(tenths % 10).expect("small") * 100_000_000,
        })
    }

    fn vertex(digest: &str, name: &str) -> Vertex {
        Vertex {
            digest: digest.to_owned(),
            name: name.to_owned(),
            started: at(5),
            ..Vertex::default()
        }
    }

    fn log(vertex: &str, message: &[u8]) -> VertexLog {
        VertexLog {
            vertex: vertex.to_owned(),
            message: message.to_vec(),
        }
    }

    fn told(trace: &mut Trace, vertexes: &[Vertex], logs: &[VertexLog]) -> Vec<String> {
        trace.take(StatusResponse {
            vertexes: vertexes.to_vec(),
            logs: logs.to_vec(),
            ..StatusResponse::default()
        })
    }

    #[test]
    fn steps_at_a_time_keep_their_lines_apart() {
        let mut trace = Trace::default();
        let waiting = Vertex {
            started: None,
            ..vertex("c", "[3/3] RUN later")
        };
        let both = [
            vertex("a", "[1/3] FROM x"),
            vertex("b", "[2/3] RUN y"),
            waiting,
        ];
        assert_eq!(
            told(&mut trace, &both, &[]),
            ["#1 [1/3] FROM x", "#2 [2/3] RUN y"]
        );
        let logs = [
            log("b", b"one\ntw"),
            log("a", b"pull\n"),
            log("b", b"o\n"),
            log("?", b"x\n"),
        ];
        assert_eq!(
            told(&mut trace, &[], &logs),
            ["#2 one", "#1 pull", "#2 two"]
        );
        // Half a character, and a line without an end, which the end of its step completes.
        assert_eq!(told(&mut trace, &[], &[log("b", b"\xc3")]), [""; 0]);
        let over = Vertex {
            completed: at(17),
            ..vertex("b", "[2/3] RUN y")
        };
        assert_eq!(
            told(
                &mut trace,
                std::slice::from_ref(&over),
                &[log("b", b"\xa4")]
            ),
            ["#2 ä", "#2 DONE 1.2s"]
        );
        assert_eq!(told(&mut trace, &[over], &[]), [""; 0], "said once");
        let cached = Vertex {
            completed: at(5),
            cached: true,
            ..vertex("c", "[3/3] RUN later")
        };
        assert_eq!(
            told(&mut trace, &[cached], &[]),
            ["#3 [3/3] RUN later", "#3 CACHED"]
        );
        told(&mut trace, &[], &[log("a", b"cut off")]);
        assert_eq!(trace.finish(), ["#1 cut off"]);
        assert_eq!(trace.failed().0, None);
    }

    #[test]
    fn the_failed_step_is_known_not_those_that_it_ended() {
        let mut trace = Trace::default();
        let ended = |digest: &str, name: &str, error: &str| Vertex {
            completed: at(9),
            error: error.to_owned(),
            ..vertex(digest, name)
        };
        let vertexes = [
            ended("a", "[web 2/3] RUN npm ci", "context canceled"),
            ended(
                "b",
                "[api 2/2] RUN make",
                "process \"make\" did not complete: exit code: 2",
            ),
            ended("c", "[internal] load x", "failed"),
        ];
        let lines = told(
            &mut trace,
            &vertexes,
            &[log("b", b"\x1b[31mcc: no\x1b[0m\n\n")],
        );
        assert!(lines.contains(&"#1 CANCELED".to_owned()), "{lines:?}");
        let (step, tail) = trace.failed();
        assert_eq!(step, Some("step api 2/2 (RUN make)"));
        assert_eq!(tail.lines().collect::<Vec<_>>(), ["cc: no"]);
    }

    #[test]
    fn parts_are_told_when_they_are_done_and_warnings_where_they_belong() {
        let mut trace = Trace::default();
        told(&mut trace, &[vertex("a", "FROM x")], &[]);
        let part = |completed| VertexStatus {
            id: "sha256:1".to_owned(),
            vertex: "a".to_owned(),
            completed,
        };
        let warning = |vertex: &str| VertexWarning {
            vertex: vertex.to_owned(),
            short: b"odd".to_vec(),
        };
        let lines = trace.take(StatusResponse {
            statuses: vec![part(None), part(at(1)), part(at(1))],
            warnings: vec![warning("a"), warning("b")],
            ..StatusResponse::default()
        });
        assert_eq!(
            lines,
            ["#1 warning: odd", "warning: odd", "#1 sha256:1 done"]
        );
    }
}
