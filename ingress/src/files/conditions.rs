//! What a request says of what its client has already, and of which part it wants (RFC 9110, 13 and 14). Pure.

use std::ops::Range;

use headers::{ETag, HeaderMapExt as _, IfNoneMatch, IfRange};
use http::header::{IF_RANGE, RANGE};
use http::{HeaderMap, Method};
use http_range_header::{EndPosition, RangeUnsatisfiableError, StartPosition, parse_range_header};

/// Which part of a file is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it: nothing is said, or nothing that is understood, or more than one part.
    Whole,
    /// These bytes.
    Of(Range<u64>),
    /// None that it has.
    Beyond,
}

/// Whether the client has the file with this tag.
pub(super) fn is_known(headers: &HeaderMap, tag: &ETag) -> bool {
    let known: Option<IfNoneMatch> = headers.typed_get();
    known.is_some_and(|known| !known.precondition_passes(tag))
}

/// The part that is wanted of a file with this tag and size.
pub(super) fn part(method: &Method, headers: &HeaderMap, tag: &ETag, size: u64) -> Part {
    let Some(said) = headers.get(RANGE).filter(|_| *method == Method::GET) else {
        return Part::Whole;
    };
    let is_of_it = |it: IfRange| !it.is_modified(Some(tag), None);
    // A condition that cannot be read may be of another file, too.
    if headers.contains_key(IF_RANGE) && !headers.typed_get().is_some_and(is_of_it) {
        return Part::Whole;
    }
    match parse_range_header(said.to_str().unwrap_or_default()) {
        Ok(parsed) => match parsed.ranges[..] {
            [one] => of(one.start, one.end, size),
            _ => Part::Whole,
        },
        Err(RangeUnsatisfiableError::ZeroSuffix) => Part::Beyond,
        Err(_) => Part::Whole,
    }
}

fn of(start: StartPosition, end: EndPosition, size: u64) -> Part {
    let first = match start {
        StartPosition::Index(first) => first,
        StartPosition::FromLast(count) => size.saturating_sub(count),
    };
    let end = match end {
        EndPosition::Index(last) if last < first => return Part::Whole,
        EndPosition::Index(last) => last.saturating_add(1).min(size),
        EndPosition::LastByte => size,
    };
    match first < end {
        true => Part::Of(first..end),
        false => Part::Beyond,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn head(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| {
            (
                HeaderName::from_static(name),
                value.parse().expect("a value"),
            )
        };
        lines.iter().map(line).collect()
    }

    fn tag() -> ETag {
        "\"a-1\"".parse().expect("a tag")
    }

    #[test]
    fn what_the_client_has() {
        for (said, expected) in [
            ("\"a-1\"", true),
            ("W/\"a-1\"", true),
            ("\"x\", W/\"a-1\"", true),
            ("\"x,y\",\"a-1\"", true),
            ("*", true),
            ("\"a-1-gz\"", false),
            ("\"x\"", false),
            ("a-1", false),
            ("", false),
        ] {
            assert_eq!(
                is_known(&head(&[("if-none-match", said)]), &tag()),
                expected,
                "{said}"
            );
        }
        assert!(!is_known(&HeaderMap::new(), &tag()));
    }

    #[test]
    fn which_part_is_wanted() {
        for (said, expected) in [
            ("bytes=0-0", Part::Of(0..1)),
            ("bytes=2-", Part::Of(2..10)),
            ("bytes=2-99", Part::Of(2..10)),
            ("bytes=9-18446744073709551615", Part::Of(9..10)),
            ("bytes=-3", Part::Of(7..10)),
            ("bytes=-99", Part::Of(0..10)),
            ("bytes=10-", Part::Beyond),
            ("bytes=10-12", Part::Beyond),
            ("bytes=-0", Part::Beyond),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=5-2", Part::Whole),
            ("bytes=", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes=99999999999999999999-", Part::Whole),
        ] {
            let headers = head(&[("range", said)]);
            assert_eq!(part(&Method::GET, &headers, &tag(), 10), expected, "{said}");
            assert_eq!(part(&Method::HEAD, &headers, &tag(), 10), Part::Whole);
        }
        assert_eq!(
            part(&Method::GET, &head(&[("range", "bytes=0-")]), &tag(), 0),
            Part::Beyond
        );
        assert_eq!(
            part(&Method::GET, &HeaderMap::new(), &tag(), 10),
            Part::Whole
        );
    }

    #[test]
    fn a_part_of_another_file_is_of_no_use() {
        for (said, expected) in [
            ("\"a-1\"", Part::Of(0..1)),
            ("W/\"a-1\"", Part::Whole),
            ("\"x\"", Part::Whole),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Part::Whole),
            ("nonsense", Part::Whole),
        ] {
            let headers = head(&[("range", "bytes=0-0"), ("if-range", said)]);
            assert_eq!(part(&Method::GET, &headers, &tag(), 10), expected, "{said}");
        }
    }
}
