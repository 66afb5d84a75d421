//! How a pull request gets its one comment, whatever was taken down of the last one: the comment that is known is
//! changed; else it is looked for, among those of the token's own user where the forge says who that is; and only what is
//! nowhere is made. One request after the other, each a value: whoever sends them may die between any two.

use http::StatusCode;
use serde_json::Value;
use skep_model::forge::Kind;

use super::comments::{Found, identity, listed, made};
use super::{Notice, Request, Site, Verdict};

/// Most pages of comments that are looked through.
const MAX_PAGES: u32 = 10;

/// One pull request being told.
#[derive(Debug)]
pub struct Talk<'a> {
    kind: Kind,
    notice: &'a Notice,
    /// A comment that is nowhere is made.
    makes: bool,
    next: Step,
    /// Comments with the mark that are still to be tried.
    marked: Vec<Found>,
    /// The page that was read last, and whether there are more behind it.
    page: u32,
    is_last: bool,
    me: Me,
}

/// What is asked next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// That the comment that was taken down is changed.
    Known(u64),
    List(u32),
    Who,
    /// That a comment that was found is changed.
    Marked(u64),
    Make,
}

/// Whose the token is.
#[derive(Debug)]
enum Me {
    NotAsked,
    /// The forge does not say.
    Nobody,
    User(String),
}

/// What came of all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The comment's number, as far as it is known.
    pub id: Option<u64>,
    /// What came of telling it.
    pub verdict: Verdict,
}

impl<'a> Talk<'a> {
    /// Begins. `makes`: where there is no comment, one is made.
    pub fn new(kind: Kind, notice: &'a Notice, (id, makes): (Option<u64>, bool)) -> Self {
        Self {
            kind,
            notice,
            makes,
            next: id.map_or(Step::List(1), Step::Known),
            marked: Vec::new(),
            page: 0,
            is_last: false,
            me: Me::NotAsked,
        }
    }

    /// What is asked now. None: the API's address is none.
    pub fn request(&self, site: &Site<'_>) -> Option<Request> {
        match self.next {
            Step::Known(id) | Step::Marked(id) => site.edit(self.notice, id),
            Step::List(page) => site.comments(self.notice, page),
            Step::Who => site.who(),
            Step::Make => site.comment(self.notice),
        }
    }

    /// Takes the answer to that: its status, if there was an answer, what it means, and what it says. None: there is more
    /// to ask.
    pub fn heard(
        &mut self,
        status: Option<StatusCode>,
        verdict: Verdict,
        body: &[u8],
    ) -> Option<Left> {
        let is_gone = matches!(status, Some(StatusCode::NOT_FOUND | StatusCode::GONE));
        let is_taken = verdict == Verdict::Taken;
        let later = matches!(verdict, Verdict::Again(_) | Verdict::Later { .. });
        let left = |id| Some(Left { id, verdict });
        match self.next {
            Step::Known(_) if is_gone => self.go(Step::List(1)),
            Step::Known(id) => left(Some(id)),
            Step::Marked(id) if is_taken => left(Some(id)),
            Step::Make if is_taken => left(made(body)),
            Step::List(page) if is_taken => self.listed(page, body),
            // Nobody's who it is: then the mark alone has to do.
            Step::Who if !later => {
                self.me = me(self.kind, is_taken, body);
                self.choose()
            }
            // It is somebody else's with our mark, or went just now.
            Step::Marked(_) if is_gone || status == Some(StatusCode::FORBIDDEN) => self.choose(),
            Step::Marked(_) | Step::Make | Step::List(_) | Step::Who => left(None),
        }
    }

    fn listed(&mut self, page: u32, body: &[u8]) -> Option<Left> {
        let Some(read) = listed(self.kind, body) else {
            let why = "the list of comments is too long, or none";
            let verdict = Verdict::Again(why.to_owned());
            return Some(Left { id: None, verdict });
        };
        let marker = self.notice.marker(self.kind);
        let has_mark = |found: &Found| found.text.lines().any(|line| line.trim() == marker);
        self.marked = read.found.into_iter().filter(has_mark).collect();
        self.marked.reverse();
        (self.page, self.is_last) = (page, read.is_last);
        self.choose()
    }

    /// The next comment that may be ours; where there is none the next page; at the end a new one.
    fn choose(&mut self) -> Option<Left> {
        if !self.marked.is_empty() && matches!(self.me, Me::NotAsked) {
            return self.go(Step::Who);
        }
        while let Some(found) = self.marked.pop() {
            let is_others = match (&self.me, &found.author) {
                (Me::User(me), Some(author)) => me != author,
                _ => false,
            };
            if !is_others {
                return self.go(Step::Marked(found.id));
            }
        }
        match (self.is_last || self.page >= MAX_PAGES, self.makes) {
            (false, _) => self.go(Step::List(self.page + 1)),
            (true, true) => self.go(Step::Make),
            (true, false) => Some(Left {
                id: None,
                verdict: Verdict::Taken,
            }),
        }
    }

    fn go(&mut self, next: Step) -> Option<Left> {
        self.next = next;
        None
    }
}

fn me(kind: Kind, is_taken: bool, body: &[u8]) -> Me {
    let user: Value = serde_json::from_slice(body).unwrap_or_default();
    match identity(kind, &user).filter(|_| is_taken) {
        Some(user) => Me::User(user),
        None => Me::Nobody,
    }
}

#[cfg(test)]
mod tests;
