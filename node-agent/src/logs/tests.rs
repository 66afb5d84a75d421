use super::lines::Stamps;

const LOG: [&str; 4] = [
    "2026-01-02T03:04:05.000000001Z one\n",
    "2026-01-02T03:04:05.000000001Z two\r\n",
    "2026-01-02T03:04:05.000000002Z three\n",
    "2026-01-02T03:04:06Z \n",
];

fn read(frames: &[&str]) -> Vec<(u64, String)> {
    let mut stamps = Stamps::default();
    frames
        .iter()
        .filter_map(|frame| stamps.line(frame.as_bytes(), false))
        .map(|line| (line.at_ns, line.text))
        .collect()
}

#[test]
fn stamps_rise_strictly_and_alike_each_time() {
    let first = read(&LOG);
    assert_eq!(first, read(&LOG));
    let texts: Vec<&str> = first.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["one", "two", "three", ""]);
    assert!(
        first.windows(2).all(|pair| pair[0].0 < pair[1].0),
        "{first:?}"
    );
    assert_eq!(first[2].0 - first[0].0, 2);
}

#[test]
fn what_has_no_stamp_is_no_line() {
    assert_eq!(read(&["no stamp here\n", LOG[3]]).len(), 1);
}

mod filter {
    use skep_model::id::AllocationId;
    use skep_proto::v1;

    use super::super::Request;
    use super::super::filter::{Filter, Verdict};

    fn request(grep: &str, until_ns: u64) -> Request {
        Request {
            request: 1,
            allocation: AllocationId::from_u128(1),
            follow: false,
            tail: 0,
            after_ns: 0,
            until_ns,
            grep: grep.into(),
        }
    }

    #[test]
    fn lines_are_chosen_by_text_and_time_and_gaps_are_always_shown() {
        let filter = Filter::new(&request("(?i)ERR", 100)).expect("a filter");
        let line = |at_ns, text: &str| v1::LogLine {
            at_ns,
            text: text.into(),
            ..Default::default()
        };
        assert_eq!(filter.judge(&line(1, "an error")), Verdict::Take);
        assert_eq!(filter.judge(&line(1, "fine")), Verdict::Pass);
        assert_eq!(filter.judge(&line(100, "an error")), Verdict::Over);
        let gap = v1::LogLine {
            lost: Some(v1::LogLost::default()),
            ..line(1, "fine")
        };
        assert_eq!(filter.judge(&gap), Verdict::Take);
    }

    #[test]
    fn an_expression_that_is_none_or_too_large_is_refused_with_a_word_on_it() {
        for grep in ["(", &"a".repeat(2_000), r"\w{900}{900}"] {
            let problem = Filter::new(&request(grep, 0)).expect_err("refused");
            assert!(problem.message.contains("grep"), "{problem:?}");
            assert!(problem.hint.is_some());
        }
    }
}
