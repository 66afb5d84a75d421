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
