//! The last lines of a container's log, for whoever has to explain its end.

use bollard::query_parameters::LogsOptions;
use futures_util::StreamExt;
use skep_model::allocation::MAX_LOG_TAIL;

use super::{READ_TIMEOUT, Runtime};

/// Lines asked for.
const LINES: usize = 20;

impl Runtime {
    /// At most 20 lines and 4 KiB; what cannot be read is left out: a tail is a courtesy.
    pub(crate) async fn tail(&self, container: &str) -> String {
        let options = LogsOptions {
            stdout: true,
            stderr: true,
            tail: LINES.to_string(),
            ..Default::default()
        };
        let read = async {
            let mut text = String::new();
            let mut frames = std::pin::pin!(self.docker.logs(container, Some(options)));
            while let Some(Ok(frame)) = frames.next().await {
                text.push_str(&String::from_utf8_lossy(&frame.into_bytes()));
                text = newest(text, 4 * MAX_LOG_TAIL);
            }
            text
        };
        let text = tokio::time::timeout(READ_TIMEOUT, read)
            .await
            .unwrap_or_default();
        newest(text.trim_end().to_owned(), MAX_LOG_TAIL)
    }
}

/// The end of `text`: at most `max` bytes, from the beginning of a line where there is one.
fn newest(text: String, max: usize) -> String {
    if text.len() <= max {
        return text;
    }
    let from = (text.len() - max..text.len()).find(|at| text.is_char_boundary(*at));
    let cut = &text[from.unwrap_or(text.len())..];
    match cut.find('\n') {
        Some(end) if end + 1 < cut.len() => cut[end + 1..].to_owned(),
        _ => cut.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::newest;

    #[test]
    fn cuts_at_lines_and_never_inside_a_character() {
        assert_eq!(newest("ab\ncd\nef".into(), 6), "cd\nef");
        assert_eq!(newest("ab\ncd\nef".into(), 4), "ef");
        assert_eq!(newest("short".into(), 6), "short");
        let umlauts = "ä".repeat(9);
        assert!(newest(umlauts, 5).chars().all(|c| c == 'ä'));
    }
}
