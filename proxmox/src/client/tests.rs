//! Against a transport that answers from a script.

use std::collections::VecDeque;
use std::sync::Mutex as Held;

use bytes::Bytes;

use super::*;
use crate::calls;
use crate::ids::{At, GuestKind, Vmid};

const UPID: &str = "UPID:pve:1:2:3:qmstart:101:root@pam:";

/// Answers, and what was asked.
#[derive(Debug, Default)]
struct Script {
    answers: Held<VecDeque<Result<Reply, Failure>>>,
    asked: Held<Vec<String>>,
}

impl Transport for &Script {
    async fn send(&self, request: http::Request<Bytes>) -> Result<Reply, Failure> {
        let who = request.headers().get(AUTHORIZATION).is_some();
        let cookie = request.headers().get(COOKIE).map(|it| it.to_str());
        let cookie = cookie.transpose().expect("text").unwrap_or_default();
        let csrf = request.headers().contains_key("CSRFPreventionToken");
        let line = format!(
            "{} {} token:{who} {cookie} csrf:{csrf}",
            request.method(),
            request.uri().path().trim_start_matches("/api2/json"),
        );
        self.asked.lock().expect("sound").push(line);
        let next = self.answers.lock().expect("sound").pop_front();
        next.expect("the script is long enough")
    }
}

fn script(answers: Vec<Result<Reply, Failure>>) -> Script {
    Script {
        answers: Held::new(answers.into()),
        asked: Held::default(),
    }
}

fn says(status: u16, data: &str) -> Result<Reply, Failure> {
    Ok(Reply {
        status,
        reason: "x".to_owned(),
        body: format!(r#"{{"data":{data}}}"#).into(),
    })
}

fn broke() -> Result<Reply, Failure> {
    Err(Failure::Unknown("connection closed".to_owned()))
}

fn with_token(script: &Script) -> Client<&Script> {
    Client::new(script, Credentials::token("a@pve!b=c").expect("one"))
}

fn vm() -> At<'static> {
    At {
        host: "pve",
        kind: GuestKind::Qemu,
        vmid: Vmid::new(101).expect("in range"),
    }
}

#[tokio::test]
async fn a_read_is_repeated_once_and_nothing_else_ever() {
    let asked = script(vec![broke(), says(200, r#""101""#)]);
    let next = with_token(&asked).send(&calls::cluster::next_id()).await;
    assert_eq!(next.expect("the second time").get(), 101);
    let twice = script(vec![broke(), broke()]);
    let next = with_token(&twice).send(&calls::cluster::next_id()).await;
    assert_eq!(next.expect_err("twice").kind, Kind::NotAnswered);
    let changing = script(vec![broke()]);
    let error = with_token(&changing)
        .send(&calls::guests::start(vm()))
        .await;
    let error = error.expect_err("nobody knows");
    assert_eq!(error.kind, Kind::OutcomeUnknown);
    assert!(
        error
            .to_string()
            .starts_with("POST /nodes/pve/qemu/101/status/start: "),
        "{error}"
    );
    let unsent = script(vec![Err(Failure::NotSent("refused".to_owned()))]);
    let error = with_token(&unsent).send(&calls::guests::start(vm())).await;
    assert_eq!(error.expect_err("not there").kind, Kind::NotAnswered);
}

#[tokio::test]
async fn a_ticket_is_got_once_sent_with_and_got_again_when_it_is_over() {
    let ticket = |name: &str| {
        says(
            200,
            &format!(r#"{{"ticket":"{name}","CSRFPreventionToken":"t"}}"#),
        )
    };
    let asked = script(vec![
        ticket("one"),
        says(200, r#""101""#),
        says(200, &format!(r#""{UPID}""#)),
        // It is over before its time.
        says(401, "null"),
        ticket("two"),
        says(200, r#""102""#),
    ]);
    let credentials = Credentials::Password {
        user: "root@pam".to_owned(),
        password: Secret::new("hunter2"),
    };
    let client = Client::new(&asked, credentials);
    client.send(&calls::cluster::next_id()).await.expect("one");
    client.send(&calls::guests::start(vm())).await.expect("two");
    client
        .send(&calls::cluster::next_id())
        .await
        .expect("three");
    let asked: Vec<String> = asked.asked.lock().expect("sound").clone();
    assert_eq!(
        asked,
        [
            "POST /access/ticket token:false  csrf:false",
            "GET /cluster/nextid token:false PVEAuthCookie=one csrf:false",
            "POST /nodes/pve/qemu/101/status/start token:false PVEAuthCookie=one csrf:true",
            "GET /cluster/nextid token:false PVEAuthCookie=one csrf:false",
            "POST /access/ticket token:false  csrf:false",
            "GET /cluster/nextid token:false PVEAuthCookie=two csrf:false",
        ]
    );
    assert!(!format!("{client:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_token_that_is_not_known_is_said_once() {
    let asked = script(vec![says(401, "null")]);
    let error = with_token(&asked).send(&calls::cluster::next_id()).await;
    assert_eq!(error.expect_err("not known").kind, Kind::Unauthenticated);
}

#[tokio::test(start_paused = true)]
async fn a_task_is_waited_for_to_its_end_and_not_for_ever() {
    let running = || says(200, r#"{"status":"running"}"#);
    let patience = Patience::of(Duration::from_secs(5));
    let start = calls::guests::start(vm());
    let begun = || says(200, &format!(r#""{UPID}""#));
    // A host that is away for a moment says nothing about the task.
    let well = script(vec![
        begun(),
        running(),
        says(595, "null"),
        says(200, r#"{"status":"stopped","exitstatus":"WARNINGS: 1"}"#),
    ]);
    let outcome = with_token(&well).run(&start, patience).await;
    assert_eq!(outcome.expect("done").warnings, 1);
    let ill = script(vec![
        begun(),
        says(
            200,
            r#"{"status":"stopped","exitstatus":"VM 101 already running"}"#,
        ),
    ]);
    let error = with_token(&ill)
        .run(&start, patience)
        .await
        .expect_err("failed");
    assert_eq!(error.kind, Kind::Running);
    assert!(
        error.to_string().starts_with("task qmstart 101 on pve: "),
        "{error}"
    );
    let long = script(
        std::iter::once(begun())
            .chain((0..20).map(|_| running()))
            .collect(),
    );
    let error = with_token(&long)
        .run(&start, patience)
        .await
        .expect_err("too long");
    assert_eq!(error.kind, Kind::TimedOut);
}
