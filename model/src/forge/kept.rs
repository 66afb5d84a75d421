//! What is made once at a forge and changed from then on: the comment of a preview at its pull request, what GitHub calls
//! a deployment. It has a number there.

use super::Connection;
use crate::notify::Standing;

/// Such a thing, as it was left last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The forge's number for it; none: nobody took it down, it is looked for.
    pub id: Option<u64>,
    /// Of what it was told last.
    pub digest: u64,
    /// What came of it.
    pub standing: Standing,
    /// How often that was told.
    pub attempts: u32,
    /// When it was told first, at the leader's clock, ms since the epoch.
    pub since_ms: u64,
    /// When it was told last.
    pub at_ms: u64,
    /// Why it was not taken; none: it was.
    pub problem: Option<String>,
}

impl Connection {
    /// When it is told this; none: it has been, or is not told anything.
    pub fn kept_due_ms(&self, kept: Option<&Kept>, digest: u64) -> Option<u64> {
        let same = kept.filter(|kept| kept.digest == digest);
        self.next_ms(same.map(|kept| (kept.standing, kept.at_ms)))
    }

    /// Its number, as far as it can be believed: whoever has changed the connection may mean another forge,
    /// where somebody else's has this number, or another user, to whom this one is not open.
    pub fn kept_id(&self, kept: Option<&Kept>) -> Option<u64> {
        let ours = kept.filter(|kept| kept.at_ms >= self.changed_ms);
        ours.and_then(|kept| kept.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::Access;
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
            access: Access::Token(Sealed(vec![1])),
            ca_pem: None,
            made_ms: 500,
            changed_ms: 500,
            is_refused: false,
            resume_ms: 0,
            problem: None,
            asked_ms: 0,
        };
        let comment = |standing| Kept {
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
        assert_eq!(connection.kept_due_ms(None, 1), Some(0));
        assert_eq!(connection.kept_due_ms(Some(&told), 1), None);
        assert_eq!(connection.kept_due_ms(Some(&told), 2), Some(0));
        assert_eq!(connection.kept_due_ms(Some(&later), 1), Some(9_000));
        assert_eq!(connection.kept_due_ms(Some(&given_up), 1), None);
        assert_eq!(connection.kept_id(Some(&told)), Some(7));
        connection.changed_ms = 3_000;
        assert_eq!(connection.kept_due_ms(Some(&given_up), 1), Some(0));
        assert_eq!(connection.kept_due_ms(Some(&told), 1), None);
        assert_eq!(connection.kept_id(Some(&told)), None);
        connection.is_refused = true;
        assert_eq!(connection.kept_due_ms(None, 1), None);
    }
}
