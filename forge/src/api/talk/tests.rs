//! A forge of a few lines answers: whatever was there before, there is one comment afterwards.

use serde_json::json;
use skep_model::preview::Why;

use super::super::Life;
use super::*;

/// Our user, and somebody else.
const US: u64 = 1;
const OTHER: u64 = 2;

fn notice() -> Notice {
    Notice {
        mark: "01j".into(),
        repository: "Team/shop".into(),
        number: 12,
        preview: "pr-12".into(),
        project: "shop".into(),
        base: "production".into(),
        life: Life::Ended(0, Why::Closed),
        services: Vec::new(),
    }
}

/// A GitHub with these comments of these users.
#[derive(Default)]
struct Forge {
    comments: Vec<(u64, u64, String)>,
    /// It does not say who the token is.
    is_silent: bool,
    /// Answers this instead, to requests whose method is so.
    instead: Option<(&'static str, u16)>,
    asked: Vec<String>,
}

impl Forge {
    fn with(comments: &[(u64, u64, &str)]) -> Self {
        let own = |(id, user, text): &(u64, u64, &str)| (*id, *user, (*text).to_owned());
        Self {
            comments: comments.iter().map(own).collect(),
            ..Self::default()
        }
    }

    fn answer(&mut self, request: &Request) -> (u16, Value) {
        let path = request.url.replace("https://api.github.com/", "");
        let path = path.replace("repos/Team/shop/issues/", "");
        self.asked.push(format!("{} {path}", request.method));
        if let Some((method, status)) = self.instead
            && request.method.as_str() == method
        {
            return (status, json!({"message": "as the test wants"}));
        }
        let text = request
            .body
            .as_ref()
            .map(|body| body["body"].as_str().expect("text").to_owned());
        let text = text.unwrap_or_default();
        match request.method.as_str() {
            "GET" if path == "user" && self.is_silent => (403, json!({})),
            "GET" if path == "user" => (200, json!({"id": US, "login": "bot"})),
            "GET" => {
                let page: usize = path.rsplit('=').next().expect("a page").parse().expect("n");
                let some = self.comments.iter().skip((page - 1) * 50).take(50);
                let some = some
                    .map(|(id, user, text)| json!({"id": id, "user": {"id": user}, "body": text}));
                (200, some.collect())
            }
            "PATCH" => {
                let id: u64 = path.rsplit('/').next().expect("one").parse().expect("n");
                match self.comments.iter_mut().find(|it| it.0 == id) {
                    Some((_, US, old)) => {
                        *old = text;
                        (200, json!({"id": id}))
                    }
                    Some(_) => (403, json!({})),
                    None => (404, json!({})),
                }
            }
            _ => {
                self.comments.push((900, US, text));
                (201, json!({"id": 900}))
            }
        }
    }

    /// Tells it all of it.
    fn tell(&mut self, id: Option<u64>, makes: bool) -> Left {
        let notice = notice();
        let mut talk = Talk::new(Kind::GitHub, &notice, (id, makes));
        let site = Site {
            kind: Kind::GitHub,
            api_url: "https://api.github.com",
            token: "t",
        };
        loop {
            assert!(self.asked.len() < 30, "it ends: {:?}", self.asked);
            let request = talk.request(&site).expect("made");
            let (status, body) = self.answer(&request);
            let status = StatusCode::from_u16(status).expect("a status");
            let body = body.to_string();
            let answered = crate::api::Answered {
                about: crate::api::About::Comment,
                status,
                headers: &http::HeaderMap::new(),
                body: body.as_bytes(),
                retry_after_ms: None,
                now_s: 0,
            };
            let verdict = crate::api::judge(Kind::GitHub, &answered);
            if let Some(left) = talk.heard(Some(status), verdict, body.as_bytes()) {
                return left;
            }
        }
    }
}

fn taken(id: Option<u64>) -> Left {
    Left {
        id,
        verdict: Verdict::Taken,
    }
}

#[test]
fn what_is_known_is_changed_and_what_is_nowhere_is_made() {
    let ours = notice().text(Kind::GitHub);
    let quoted = format!("> {ours}");
    let mark = "<!-- skep:preview:01j -->";
    type Case<'a> = (
        &'a str,
        &'a [(u64, u64, &'a str)],
        Option<u64>,
        u64,
        &'a str,
    );
    let cases: &[Case<'_>] = &[
        (
            "first",
            &[(3, OTHER, "hello")],
            None,
            900,
            "GET 12/comments, POST 12/comments",
        ),
        ("known", &[(7, US, "old")], Some(7), 7, "PATCH comments/7"),
        (
            "known, and gone",
            &[],
            Some(7),
            900,
            "PATCH comments/7, GET 12/comments, POST 12/comments",
        ),
        (
            "made, and not taken down",
            &[(3, OTHER, "x"), (7, US, mark)],
            None,
            7,
            "GET 12/comments, GET user, PATCH comments/7",
        ),
        (
            "line ends of another system",
            &[(7, US, "<!-- skep:preview:01j -->\r\n\r\nold")],
            None,
            7,
            "GET 12/comments, GET user, PATCH comments/7",
        ),
        (
            "somebody else's with our mark",
            &[(5, OTHER, mark)],
            None,
            900,
            "GET 12/comments, GET user, POST 12/comments",
        ),
        (
            "ours behind somebody else's",
            &[(5, OTHER, mark), (7, US, mark)],
            None,
            7,
            "GET 12/comments, GET user, PATCH comments/7",
        ),
        (
            "another preview's",
            &[(5, US, "<!-- skep:preview:01k -->")],
            None,
            900,
            "GET 12/comments, POST 12/comments",
        ),
        (
            "quoted",
            &[(5, US, &quoted)],
            None,
            900,
            "GET 12/comments, POST 12/comments",
        ),
    ];
    for (name, comments, id, wanted, asked) in cases {
        let mut forge = Forge::with(comments);
        assert_eq!(forge.tell(*id, true), taken(Some(*wanted)), "{name}");
        let requests = forge.asked.join(", ").replace("?per_page=50&page=1", "");
        assert_eq!(requests, *asked, "{name}");
        let told = forge
            .comments
            .iter()
            .filter(|it| it.1 == US && it.2 == ours);
        assert_eq!(told.count(), 1, "{name}");
    }
}

#[test]
fn where_nobody_says_who_the_token_is_the_mark_has_to_do() {
    let mark = "<!-- skep:preview:01j -->";
    let mut forge = Forge::with(&[(5, OTHER, mark), (7, US, mark)]);
    forge.is_silent = true;
    assert_eq!(forge.tell(None, true), taken(Some(7)));
    let mut forge = Forge::with(&[(5, OTHER, mark)]);
    forge.is_silent = true;
    assert_eq!(forge.tell(None, true), taken(Some(900)));
}

#[test]
fn pages_are_looked_through_as_far_as_that_is_bounded() {
    let many = |place: u64| {
        let of = |id: u64| match id == place {
            true => (id, US, "<!-- skep:preview:01j -->"),
            false => (id, OTHER, "hello"),
        };
        Forge::with(&(1..=600).map(of).collect::<Vec<_>>())
    };
    assert_eq!(many(420).tell(None, true), taken(Some(420)));
    let mut forge = many(510);
    assert_eq!(forge.tell(None, true), taken(Some(900)));
    assert_eq!(forge.asked.len(), 11, "{:?}", forge.asked);
}

#[test]
fn the_end_of_what_nobody_was_told_of_is_told_only_where_there_is_a_comment() {
    let mut forge = Forge::with(&[(3, OTHER, "hello")]);
    assert_eq!(forge.tell(None, false), taken(None));
    assert_eq!(forge.comments.len(), 1);
    let mut forge = Forge::with(&[(7, US, "<!-- skep:preview:01j -->")]);
    assert_eq!(forge.tell(None, false), taken(Some(7)));
}

#[test]
fn a_forge_that_is_away_leads_to_no_second_comment() {
    let again = |left: &Left| matches!(left.verdict, Verdict::Again(_));
    for (method, id) in [("GET", None), ("PATCH", Some(7)), ("POST", None)] {
        let mut forge = Forge::with(&[(7, US, "old")]);
        forge.instead = Some((method, 502));
        let left = forge.tell(id, true);
        assert!(again(&left) && left.id == id, "{method}: {left:?}");
        assert_eq!(forge.comments, Forge::with(&[(7, US, "old")]).comments);
    }
    // Forbidden is forbidden: no other comment is tried, and none made.
    let mut forge = Forge::with(&[(7, US, "old")]);
    forge.instead = Some(("PATCH", 403));
    let left = forge.tell(Some(7), true);
    assert!(
        matches!(&left.verdict, Verdict::Never(why) if why.contains("comments at pull requests"))
    );
    assert_eq!((left.id, forge.asked.len()), (Some(7), 1));
}
