//! What a pull request was told of its preview: one comment, which is changed from then on.

use super::Connection;
use crate::notify::Standing;

/// The comment at a pull request, as it was left last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// The forge's number for it; none: nobody took it down, it is looked for.
    pub id: Option<u64>,
    /// Of the text that was told last.
    pub digest: u64,
    /// What came of it.
    pub standing: Standing,
    /// How often this text was told.
    pub attempts: u32,
    /// When it was told first, at the leader's clock, ms since the epoch.
    pub since_ms: u64,
    /// When it was told last.
    pub at_ms: u64,
    /// Why it was not taken; none: it was.
    pub problem: Option<String>,
}

impl Connection {
    /// When a pull request is told this text; none: it has been, or is not told anything.
    pub fn comment_due_ms(&self, comment: Option<&Comment>, digest: u64) -> Option<u64> {
        let same = comment.filter(|comment| comment.digest == digest);
        self.next_ms(same.map(|comment| (comment.standing, comment.at_ms)))
    }

    /// The number of a comment, as far as it can be believed: whoever has changed the connection may mean another forge,
    /// where somebody else's comment has this number, or another user, to whom this one is not open.
    pub fn comment_id(&self, comment: Option<&Comment>) -> Option<u64> {
        let ours = comment.filter(|comment| comment.at_ms >= self.changed_ms);
        ours.and_then(|comment| comment.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::Kind;
    use crate::id::WorkspaceId;
    use crate::variable::Sealed;

    #[test]
    fn a_text_is_told_until_it_was_taken_and_a_number_is_believed_until_the_connection_changes() {
        let mut connection = Connection {
            workspace: WorkspaceId::from_u128(1),
            host: "git.example.com".into(),
            kind: Kind::Gitea,
            api_url: "https://git.example.com/api/v1".into(),
            token: Sealed(vec![1]),
            ca_pem: None,
            made_ms: 500,
            changed_ms: 500,
            is_refused: false,
            resume_ms: 0,
            problem: None,
            asked_ms: 0,
        };
        let comment = |standing| Comment {
            id: Some(7),
            digest: 1,
            standing,
            attempts: 1,
            since_ms: 2_000,
            at_ms: 2_000,
            problem: None,
        };
        let later = comment(Standing::Pending { next_ms: 9_000 });
        let (told, given_up) = (comment(Standing::Delivered), comment(Standing::GivenUp));
        assert_eq!(connection.comment_due_ms(None, 1), Some(0));
        assert_eq!(connection.comment_due_ms(Some(&told), 1), None);
        assert_eq!(connection.comment_due_ms(Some(&told), 2), Some(0));
        assert_eq!(connection.comment_due_ms(Some(&later), 1), Some(9_000));
        assert_eq!(connection.comment_due_ms(Some(&given_up), 1), None);
        assert_eq!(connection.comment_id(Some(&told)), Some(7));
        connection.changed_ms = 3_000;
        assert_eq!(connection.comment_due_ms(Some(&given_up), 1), Some(0));
        assert_eq!(connection.comment_due_ms(Some(&told), 1), None);
        assert_eq!(connection.comment_id(Some(&told)), None);
        connection.is_refused = true;
        assert_eq!(connection.comment_due_ms(None, 1), None);
    }
}
