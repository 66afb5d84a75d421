//! Variables in a file's values, by Compose's rules: `$NAME`, `${NAME}`, `${NAME:-word}`, `${NAME-word}`,
//! `${NAME:?text}`, `${NAME?text}`, `${NAME:+word}`, `${NAME+word}`, words with variables in them, `$$` for
//! a dollar sign. Anything else behind a dollar sign is an error, as it is for Compose. Looks nothing up itself.

/// Most words within words.
const MAX_DEPTH: usize = 16;

/// Where values come from, and what had none.
pub(crate) struct Variables<'a> {
    /// Who knows them.
    pub(crate) lookup: &'a dyn Fn(&str) -> Option<String>,
    /// Names without a value and without a word for that: they became empty.
    pub(crate) unset: Vec<String>,
}

impl Variables<'_> {
    /// The text with its variables filled in.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence; or what `:?` says.
    pub(crate) fn fill(&mut self, text: &str) -> Result<String, String> {
        self.fill_within(text, 0)
    }

    fn fill_within(&mut self, text: &str, depth: usize) -> Result<String, String> {
        if depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} variables within each other"));
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some(after) = rest.strip_prefix('{') {
                let end = end_of(after).ok_or("a `${` without its `}`")?;
                out.push_str(&self.braced(&after[..end], depth)?);
                rest = &after[end + 1..];
            } else {
                let end = name_end(rest);
                if end == 0 {
                    return Err("a `$` that begins no variable: `$$` is a dollar sign".to_owned());
                }
                out.push_str(&self.plain(&rest[..end]));
                rest = &rest[end..];
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn plain(&mut self, name: &str) -> String {
        (self.lookup)(name).unwrap_or_else(|| {
            self.unset.push(name.to_owned());
            String::new()
        })
    }

    fn braced(&mut self, inside: &str, depth: usize) -> Result<String, String> {
        let (name, rest) = inside.split_at(name_end(inside));
        let shown = || inside.escape_debug().to_string();
        if name.is_empty() {
            return Err(format!("`${{{}}}` names no variable", shown()));
        }
        if rest.is_empty() {
            return Ok(self.plain(name));
        }
        let value = (self.lookup)(name);
        // With a colon an empty value is as good as none.
        let (value, operator) = match rest.strip_prefix(':') {
            Some(operator) => (value.filter(|it| !it.is_empty()), operator),
            None => (value, rest),
        };
        let mut chars = operator.chars();
        let kind = chars.next();
        let word = chars.as_str();
        match (kind, value) {
            (Some('-'), Some(value)) | (Some('?'), Some(value)) => Ok(value),
            (Some('-'), None) | (Some('+'), Some(_)) => self.fill_within(word, depth + 1),
            (Some('+'), None) => Ok(String::new()),
            (Some('?'), None) => {
                let text = self.fill_within(word, depth + 1)?;
                let text = if text.is_empty() {
                    "it has no value".to_owned()
                } else {
                    text
                };
                Err(format!("the variable {name} is required: {text}"))
            }
            _ => Err(format!(
                "`${{{}}}` is none of ${{A}} ${{A:-b}} ${{A:?b}} ${{A:+b}}",
                shown()
            )),
        }
    }
}

/// Length of the name at the beginning.
fn name_end(text: &str) -> usize {
    let is_first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    if !text.bytes().next().is_some_and(is_first) {
        return 0;
    }
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.bytes().position(|b| !is_name(b)).unwrap_or(text.len())
}

/// Where the brace that was opened before `text` is closed.
fn end_of(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut open) = (0, 0_usize);
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'$', Some(b'$')) => at += 1,
            (b'$', Some(b'{')) => {
                open += 1;
                at += 1;
            }
            (b'}', _) if open == 0 => return Some(at),
            (b'}', _) => open -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fill(text: &str) -> Result<(String, Vec<String>), String> {
        let lookup = |name: &str| match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            "DOLLAR" => Some("$A".to_owned()),
            _ => None,
        };
        let mut variables = Variables {
            lookup: &lookup,
            unset: Vec::new(),
        };
        let text = variables.fill(text)?;
        Ok((text, variables.unset))
    }

    #[test]
    fn the_rules_are_those_of_compose() {
        for (text, result) in [
            ("", ""),
            ("plain {} }", "plain {} }"),
            ("$A-${A}", "a-a"),
            ("$$A ${A}$$", "$A a$"),
            ("${A:-x} ${EMPTY:-x} ${NO:-x}", "a x x"),
            ("${A-x} ${EMPTY-x} ${NO-x}", "a  x"),
            ("${A:+x} ${EMPTY:+x} ${NO:+x}", "x  "),
            ("${A+x} ${EMPTY+x} ${NO+x}", "x x "),
            ("${A:?no} ${EMPTY?no}", "a "),
            ("${NO:-${NO2:-${A}}}", "a"),
            ("${NO:-a}}", "a}"),
            ("${NO:-$$}", "$"),
            // What a variable holds is not looked at again.
            ("$DOLLAR", "$A"),
            ("${NO:-http://x:80/?q}", "http://x:80/?q"),
        ] {
            assert_eq!(fill(text), Ok((result.to_owned(), vec![])), "{text}");
        }
        assert_eq!(
            fill("$NO${NO}"),
            Ok((String::new(), vec!["NO".into(), "NO".into()]))
        );
    }

    #[test]
    fn what_means_nothing_is_an_error() {
        for (text, part) in [
            ("$", "`$$`"),
            ("a$ b", "`$$`"),
            ("$1", "`$$`"),
            ("${A", "without its"),
            ("${}", "names no"),
            ("${1}", "names no"),
            ("${A.b}", "none of"),
            ("${A:b}", "none of"),
            ("${NO:?set it}", "NO is required: set it"),
            ("${NO?}", "NO is required"),
            ("${EMPTY:?give ${A}}", "give a"),
        ] {
            let told = fill(text).expect_err(text);
            assert!(told.contains(part), "{text}: {told}");
        }
        let deep = format!("{}x{}", "${NO:-".repeat(10_000), "}".repeat(10_000));
        assert!(fill(&deep).expect_err("deep").contains("within each other"));
    }

    proptest! {
        #[test]
        fn nothing_panics_and_without_dollars_nothing_changes(text in "[ -~ä${}:?+-]{0,60}") {
            let filled = fill(&text);
            if !text.contains('$') {
                prop_assert_eq!(filled, Ok((text, vec![])));
            }
        }

        #[test]
        fn what_is_escaped_comes_out_as_it_went_in(text in "\\PC{0,40}") {
            prop_assert_eq!(fill(&text.replace('$', "$$")), Ok((text, vec![])));
        }
    }
}
