//! Roles, ranks, capabilities and the one question `may`.
//!
//! Authority is ranked: a member acts only on those with a greater rank number. A role is a preset of rank and
//! capabilities, written once in [`Role::rank`] and [`Role::capabilities`]. Whatever is done in a session is an
//! [`Action`]; [`may`] denies what it does not allow by name, and is asked where an action originates, where it
//! is forwarded and where it is applied.

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::engine::bounded;
use crate::engine::ids::{Hash, MemberId};
use crate::engine::limits::{SCOPE_PATTERN_BYTES_MAX, SCOPE_PATTERNS_MAX};
use crate::engine::time::Wall;

/// Seniority: the smaller the number, the more senior. 0 is the session's root key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rank(pub u8);

impl Rank {
    /// The session's root key, which signs genesis and the owner's grants.
    pub const ROOT: Self = Self(0);
    /// The owner's devices.
    pub const OWNER: Self = Self(1);

    /// Whether this one may act on `other`: strictly smaller.
    pub fn is_above(self, other: Self) -> bool {
        self < other
    }
}

/// A preset of rank and capabilities. The order of the variants is part of the wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A device of the owner: everything.
    Owner,
    /// All but ending the session.
    Admin,
    /// Reads, talks, edits, hosts terminals, invites.
    Editor,
    /// Reads and talks.
    Viewer,
    /// A program: reads and talks, and what its grant adds.
    Agent,
}

impl Role {
    /// Every role, most senior first.
    pub const ALL: [Self; 5] = [
        Self::Owner,
        Self::Admin,
        Self::Editor,
        Self::Viewer,
        Self::Agent,
    ];

    /// The most senior rank that a grant of this role may name.
    pub fn rank(self) -> Rank {
        match self {
            Self::Owner => Rank::OWNER,
            Self::Admin => Rank(2),
            Self::Editor => Rank(3),
            Self::Viewer => Rank(4),
            Self::Agent => Rank(5),
        }
    }

    /// What the role may do unless its grant says otherwise.
    pub fn capabilities(self) -> Capabilities {
        use Capability as C;
        match self {
            Self::Owner | Self::Admin => Capabilities::ALL,
            Self::Editor => Capabilities::of(&[
                C::Read,
                C::Chat,
                C::Edit,
                C::Admit,
                C::Invite,
                C::HostTerminal,
            ]),
            Self::Viewer => Capabilities::of(&[C::Read, C::Chat, C::Admit]),
            Self::Agent => Capabilities::of(&[C::Read, C::Chat]),
        }
    }

    /// The name on the command line and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Editor => "editor",
            Self::Viewer => "viewer",
            Self::Agent => "agent",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| CapabilityError::UnknownRole(text.chars().take(80).collect()))
    }
}

/// What is no role, capability or scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// The text names no role.
    #[error("{0:?} is no role; there are owner, admin, editor, viewer and agent")]
    UnknownRole(String),
    /// The number has bits that mean nothing in this version.
    #[error("the set of capabilities {0:#06x} has unknown members")]
    UnknownCapabilities(u16),
    /// The scope has too many patterns, or one that is empty or too long.
    #[error(
        "a scope has at most {SCOPE_PATTERNS_MAX} patterns of 1 to {SCOPE_PATTERN_BYTES_MAX} bytes"
    )]
    ScopeTooLarge,
}

/// One thing that a standing may allow. The discriminant is its bit in [`Capabilities`] on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u16)]
pub enum Capability {
    /// See the session's documents and screens.
    Read = 1,
    /// Write to the chat.
    Chat = 1 << 1,
    /// Change files.
    Edit = 1 << 2,
    /// Decide who has control of a terminal. Typing needs none, only a lease.
    Control = 1 << 3,
    /// Sponsor the holder of a valid ticket.
    Admit = 1 << 4,
    /// Make tickets.
    Invite = 1 << 5,
    /// Approve, remove, change roles and session settings.
    Moderate = 1 << 6,
    /// Begin a new epoch.
    Rekey = 1 << 7,
    /// Share a terminal of one's own.
    HostTerminal = 1 << 8,
    /// See usage and audit.
    Stats = 1 << 9,
}

impl Capability {
    /// Every capability.
    pub const ALL: [Self; 10] = [
        Self::Read,
        Self::Chat,
        Self::Edit,
        Self::Control,
        Self::Admit,
        Self::Invite,
        Self::Moderate,
        Self::Rekey,
        Self::HostTerminal,
        Self::Stats,
    ];

    fn bit(self) -> u16 {
        self as u16
    }

    /// The name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Chat => "chat",
            Self::Edit => "edit",
            Self::Control => "control",
            Self::Admit => "admit",
            Self::Invite => "invite",
            Self::Moderate => "moderate",
            Self::Rekey => "rekey",
            Self::HostTerminal => "host-terminal",
            Self::Stats => "stats",
        }
    }
}

/// A set of capabilities: a 16-bit number on the wire, a list of names in JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Capabilities(u16);

impl Capabilities {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Everything that this version knows.
    pub const ALL: Self = Self((1 << 10) - 1);

    /// The set of these.
    pub fn of(capabilities: &[Capability]) -> Self {
        Self(
            capabilities
                .iter()
                .fold(0, |bits, capability| bits | capability.bit()),
        )
    }

    /// Whether one is in the set.
    pub fn has(self, capability: Capability) -> bool {
        self.0 & capability.bit() != 0
    }

    /// Whether `other` asks for nothing beyond this set.
    pub fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Those in the set, in the order of [`Capability::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL
            .into_iter()
            .filter(move |capability| self.has(*capability))
    }
}

impl BitOr for Capabilities {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl TryFrom<u16> for Capabilities {
    type Error = CapabilityError;

    fn try_from(bits: u16) -> Result<Self, CapabilityError> {
        if Self::ALL.covers(Self(bits)) {
            Ok(Self(bits))
        } else {
            Err(CapabilityError::UnknownCapabilities(bits))
        }
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.iter().map(Capability::name))
            .finish()
    }
}

impl Serialize for Capabilities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_seq(self.iter().map(Capability::name))
        } else {
            serializer.serialize_u16(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Capabilities {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        if !deserializer.is_human_readable() {
            return Self::try_from(u16::deserialize(deserializer)?).map_err(Error::custom);
        }
        let names = Vec::<String>::deserialize(deserializer)?;
        names.iter().try_fold(Self::NONE, |set, name| {
            let found = Capability::ALL
                .into_iter()
                .find(|capability| capability.name() == name);
            let found = found.ok_or_else(|| Error::custom(format!("no capability {name:?}")))?;
            Ok(set | Self::of(&[found]))
        })
    }
}

/// Which paths a capability reaches. The order of the variants is part of the wire format.
///
/// A pattern that ends in `/` covers all beneath it; any other covers the one path that it spells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Paths {
    /// The whole session.
    #[default]
    All,
    /// What these patterns cover; none covers nothing.
    Only(#[serde(deserialize_with = "bounded::list::<_, _, SCOPE_PATTERNS_MAX>")] Vec<String>),
}

impl Paths {
    /// Whether a path lies within.
    pub fn contain(&self, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(patterns) => patterns.iter().any(|pattern| pattern_covers(pattern, path)),
        }
    }

    /// Whether `other` reaches nothing beyond these.
    pub fn cover(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, Self::All | Self::Only(_)) => true,
            (Self::Only(_), Self::All) => false,
            (Self::Only(_), Self::Only(narrower)) => {
                narrower.iter().all(|pattern| self.contain(pattern))
            }
        }
    }

    /// Refuses more or longer patterns than a statement may carry.
    pub fn check(&self) -> Result<(), CapabilityError> {
        let Self::Only(patterns) = self else {
            return Ok(());
        };
        let sizes_fit = patterns
            .iter()
            .all(|p| (1..=SCOPE_PATTERN_BYTES_MAX).contains(&p.len()));
        if sizes_fit && patterns.len() <= SCOPE_PATTERNS_MAX {
            Ok(())
        } else {
            Err(CapabilityError::ScopeTooLarge)
        }
    }
}

/// A path with `.` or `..` or empty parts is covered by no folder: it might lead out of it.
fn pattern_covers(pattern: &str, path: &str) -> bool {
    if pattern == path {
        return true;
    }
    pattern.ends_with('/')
        && path.strip_prefix(pattern).is_some_and(|rest| {
            let rest = rest.strip_suffix('/').unwrap_or(rest);
            rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
        })
}

/// How far `read` and `edit` reach.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Scope {
    /// Paths that may be read.
    pub read: Paths,
    /// Paths that may be changed.
    pub edit: Paths,
}

impl Scope {
    /// Whether `other` reaches nothing beyond this scope.
    pub fn covers(&self, other: &Self) -> bool {
        self.read.cover(&other.read) && self.edit.cover(&other.edit)
    }

    /// Refuses what a statement may not carry.
    pub fn check(&self) -> Result<(), CapabilityError> {
        self.read.check().and_then(|()| self.edit.check())
    }
}

/// Who sits at a member's node. The order of the variants is part of the wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A person.
    Human,
    /// A program.
    Agent,
}

/// What one admission entitles its member to. A standing never changes; members gain others and lose them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The statement that gave it, to be named by statements made under it.
    pub source: Hash,
    /// Seniority.
    pub rank: Rank,
    /// The preset it was made from, for people to read.
    pub role: Role,
    /// What it allows.
    pub capabilities: Capabilities,
    /// How far `read` and `edit` reach.
    pub scope: Scope,
    /// Person or program.
    pub kind: Kind,
    /// The human member for whom an agent stands.
    pub principal: Option<MemberId>,
    /// When others stop talking to the member; no acceptance depends on it.
    pub until: Option<Wall>,
}

/// Everything that can be done in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// See session state, chat, presence, members and screens.
    ReadSession,
    /// See one file.
    ReadFile {
        /// Path in the shared folder.
        path: String,
    },
    /// Write a chat message.
    PostChat,
    /// Say where one is and what one does.
    PublishPresence,
    /// Change the document that holds what one says of oneself.
    WriteOwnDocument,
    /// Change one file.
    EditFile {
        /// Path in the shared folder.
        path: String,
    },
    /// Change title, settings or expiry of the session.
    SetSession,
    /// Sponsor the holder of a ticket.
    Admit {
        /// The rank that the ticket's grant gives.
        rank: Rank,
    },
    /// Make a ticket.
    CreateInvite {
        /// The rank it gives.
        rank: Rank,
        /// What it allows.
        capabilities: Capabilities,
    },
    /// Decide about somebody who waits to be let in.
    Approve,
    /// Give another member a role.
    SetRole {
        /// The member's rank as it is.
        from: Rank,
        /// The rank it is to have.
        to: Rank,
        /// What it is to allow.
        capabilities: Capabilities,
    },
    /// End another member's standing.
    Remove {
        /// The member's rank.
        rank: Rank,
    },
    /// Let a member's log grow past its quota.
    RaiseQuota,
    /// Run a shared shell on one's own machine.
    HostTerminal,
    /// Say that one's machine has a terminal to watch.
    AnnounceTerminal,
    /// Ask a terminal's host for control.
    RequestControl,
    /// Take a free lease by the first key, where the host allows that.
    TakeFreeControl,
    /// Tell a terminal's host to grant, revoke, take or lock control.
    OrderControl,
    /// Send keys; the host besides requires the present lease.
    TypeInput,
    /// Begin a new epoch.
    Rekey,
    /// Vouch for a document's whole history.
    SealDocument,
    /// End one's own membership.
    Leave,
    /// End the session for all.
    EndSession,
    /// See usage, statistics and audit.
    SeeStats,
}

/// Whether this standing allows the action. Denies by default: each action says what it needs.
pub fn may(standing: &Standing, action: &Action) -> bool {
    use Capability as C;
    let has = |capability| standing.capabilities.has(capability);
    match action {
        Action::ReadSession
        | Action::PublishPresence
        | Action::WriteOwnDocument
        | Action::RequestControl
        | Action::TypeInput => has(C::Read),
        Action::ReadFile { path } => has(C::Read) && standing.scope.read.contain(path),
        Action::PostChat => has(C::Chat),
        Action::EditFile { path } => has(C::Edit) && standing.scope.edit.contain(path),
        Action::TakeFreeControl => has(C::Read) && has(C::Edit),
        Action::SetSession | Action::Approve | Action::RaiseQuota => has(C::Moderate),
        Action::Admit { rank } => has(C::Admit) && standing.rank <= *rank,
        Action::CreateInvite { rank, capabilities } => {
            has(C::Invite) && gives_less(standing, *rank, *capabilities)
        }
        Action::SetRole {
            from,
            to,
            capabilities,
        } => {
            has(C::Moderate)
                && standing.rank.is_above(*from)
                && gives_less(standing, *to, *capabilities)
        }
        Action::Remove { rank } => has(C::Moderate) && standing.rank.is_above(*rank),
        Action::HostTerminal | Action::AnnounceTerminal => has(C::HostTerminal),
        Action::OrderControl => has(C::Control),
        Action::Rekey => has(C::Rekey),
        Action::SealDocument | Action::EndSession => standing.rank == Rank::OWNER,
        Action::Leave => true,
        Action::SeeStats => has(C::Stats),
    }
}

/// Nobody gives away his own rank, nor what he does not have.
fn gives_less(standing: &Standing, rank: Rank, capabilities: Capabilities) -> bool {
    standing.rank.is_above(rank) && standing.capabilities.covers(capabilities)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line an action: who may, by the table of roles.
    fn table() -> Vec<(Action, &'static [Role])> {
        use Role::{Admin, Agent, Editor, Owner, Viewer};
        const EVERYBODY: &[Role] = &[Owner, Admin, Editor, Viewer, Agent];
        const PEOPLE: &[Role] = &[Owner, Admin, Editor, Viewer];
        const WRITERS: &[Role] = &[Owner, Admin, Editor];
        const MODERATORS: &[Role] = &[Owner, Admin];
        let viewing = Viewer.capabilities();
        let all = Capabilities::ALL;
        let path = || "src/main.rs".to_owned();
        let invite = |rank, capabilities| Action::CreateInvite {
            rank: Rank(rank),
            capabilities,
        };
        let role = |from, to| Action::SetRole {
            from: Rank(from),
            to: Rank(to),
            capabilities: viewing,
        };
        vec![
            (Action::ReadSession, EVERYBODY),
            (Action::ReadFile { path: path() }, EVERYBODY),
            (Action::PostChat, EVERYBODY),
            (Action::PublishPresence, EVERYBODY),
            (Action::WriteOwnDocument, EVERYBODY),
            (Action::RequestControl, EVERYBODY),
            (Action::TypeInput, EVERYBODY),
            (Action::Leave, EVERYBODY),
            (Action::EditFile { path: path() }, WRITERS),
            (Action::TakeFreeControl, WRITERS),
            (Action::HostTerminal, WRITERS),
            (Action::AnnounceTerminal, WRITERS),
            (Action::Admit { rank: Rank(5) }, PEOPLE),
            (Action::Admit { rank: Rank(4) }, PEOPLE),
            (Action::Admit { rank: Rank(3) }, WRITERS),
            (Action::Admit { rank: Rank(2) }, MODERATORS),
            (Action::Admit { rank: Rank(1) }, &[Owner]),
            (invite(4, viewing), WRITERS),
            (invite(3, viewing), MODERATORS),
            (invite(2, viewing), &[Owner]),
            (invite(1, viewing), &[]),
            (invite(9, Capabilities::of(&[Capability::Read])), WRITERS),
            (invite(5, all), MODERATORS),
            (Action::Approve, MODERATORS),
            (Action::SetSession, MODERATORS),
            (Action::RaiseQuota, MODERATORS),
            (Action::OrderControl, MODERATORS),
            (Action::Rekey, MODERATORS),
            (Action::SeeStats, MODERATORS),
            (Action::Remove { rank: Rank(4) }, MODERATORS),
            (Action::Remove { rank: Rank(2) }, &[Owner]),
            (Action::Remove { rank: Rank(1) }, &[]),
            (role(4, 3), MODERATORS),
            (role(2, 4), &[Owner]),
            (role(4, 2), &[Owner]),
            (Action::SealDocument, &[Owner]),
            (Action::EndSession, &[Owner]),
        ]
    }

    #[test]
    fn every_role_may_do_what_the_table_says_and_nothing_else() {
        for (action, allowed) in table() {
            for role in Role::ALL {
                let verdict = may(&standing(role), &action);
                assert_eq!(verdict, allowed.contains(&role), "{role} {action:?}");
            }
        }
    }

    #[test]
    fn a_standing_without_capabilities_may_only_leave() {
        let mut nothing = standing(Role::Agent);
        nothing.capabilities = Capabilities::NONE;

        for (action, _) in table() {
            assert_eq!(
                may(&nothing, &action),
                action == Action::Leave,
                "{action:?}"
            );
        }
    }

    #[test]
    fn no_role_has_more_than_a_more_senior_one() {
        for pair in Role::ALL.windows(2) {
            assert!(pair[0].capabilities().covers(pair[1].capabilities()));
            assert!(pair[0].rank().is_above(pair[1].rank()));
        }
    }

    #[test]
    fn a_set_covers_its_subsets_only() {
        let viewing = Role::Viewer.capabilities();

        assert!(Capabilities::ALL.covers(viewing) && viewing.covers(Capabilities::NONE));
        assert!(!viewing.covers(Capabilities::of(&[Capability::Read, Capability::Edit])));
        assert_eq!(viewing.iter().count(), 3);
    }

    #[test]
    fn capabilities_travel_as_a_number_and_show_as_names() {
        let set = Capabilities::of(&[Capability::Read, Capability::HostTerminal]);

        let bytes = postcard::to_stdvec(&set).unwrap();
        let json = serde_json::to_string(&set).unwrap();

        assert_eq!(postcard::from_bytes::<Capabilities>(&bytes).unwrap(), set);
        assert_eq!(json, r#"["read","host-terminal"]"#);
        assert_eq!(serde_json::from_str::<Capabilities>(&json).unwrap(), set);
    }

    #[test]
    fn an_unknown_capability_is_refused() {
        let unknown = postcard::to_stdvec(&(1_u16 << 10)).unwrap();

        assert!(postcard::from_bytes::<Capabilities>(&unknown).is_err());
        assert!(serde_json::from_str::<Capabilities>(r#"["fly"]"#).is_err());
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn a_scope_reaches_what_its_patterns_cover() {
        let mut narrow = standing(Role::Editor);
        narrow.scope.edit = Paths::Only(vec!["docs/".to_owned(), "README.md".to_owned()]);
        let edits = |path: &str| {
            may(
                &narrow,
                &Action::EditFile {
                    path: path.to_owned(),
                },
            )
        };

        assert!(edits("docs/guide/a.md") && edits("README.md"));
        for path in [
            "src/a.rs",
            "docs",
            "docs/../src/a.rs",
            "docs//a",
            "README.md.bak",
        ] {
            assert!(!edits(path), "{path}");
        }
    }

    #[test]
    fn a_scope_covers_narrower_ones_only() {
        let only =
            |patterns: &[&str]| Paths::Only(patterns.iter().map(ToString::to_string).collect());

        assert!(Paths::All.cover(&only(&["a/"])) && only(&["a/"]).cover(&only(&["a/b/", "a/c"])));
        assert!(only(&["a/"]).cover(&only(&["a/"])) && only(&["a/"]).cover(&only(&[])));
        assert!(!only(&["a/"]).cover(&Paths::All) && !only(&["a/"]).cover(&only(&["b"])));
        assert!(!only(&["a/"]).cover(&only(&["a/../"])));
        assert!(only(&["a"; 33]).check().is_err() && only(&[""]).check().is_err());
    }

    fn standing(role: Role) -> Standing {
        Standing {
            source: Hash([1; 32]),
            rank: role.rank(),
            role,
            capabilities: role.capabilities(),
            scope: Scope::default(),
            kind: Kind::Human,
            principal: None,
            until: None,
        }
    }
}
