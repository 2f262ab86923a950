//! What the gate remembers of a document's accepted changes: their graph, who wrote what, which objects there
//! are and which values stand under each key. The gate judges a change by this and never asks Automerge, so a
//! batch can be judged before any of it is applied, and the answer depends on the change's causal past alone.

use std::collections::{BTreeMap, BTreeSet};

use automerge::legacy::OpId;
use automerge::{ActorId, Change, ChangeHash};

use crate::engine::documents::schema::{DocumentKind, Role};
use crate::engine::ids::MemberId;

/// An object: the operation that made it, or the root.
pub(crate) type Object = Option<OpId>;

/// Known changes that are not in the causal past of some other change.
pub(crate) type Outside = BTreeSet<ChangeHash>;

/// What an accepted change does to a document.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Values under keys.
    pub(crate) writes: Vec<Write>,
    /// New objects.
    pub(crate) made: Vec<(OpId, Role)>,
    /// Objects that are gone.
    pub(crate) removed: Vec<OpId>,
    /// The new last element of the list.
    pub(crate) appended: Option<OpId>,
}

/// One operation on a key of a map.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) object: Object,
    pub(crate) key: String,
    /// The operation whose value now stands there; `None` for a deletion.
    pub(crate) value: Option<OpId>,
    /// The operations whose values it replaces.
    pub(crate) replaces: Vec<OpId>,
}

/// See the file's description.
#[derive(Debug)]
pub(crate) struct Past {
    /// Whether changes stand in one line, so that replaced values need not be remembered.
    linear: bool,
    changes: BTreeMap<ChangeHash, Node>,
    /// The highest number of each actor's changes.
    actors: BTreeMap<ActorId, u64>,
    latest: BTreeMap<MemberId, ChangeHash>,
    heads: BTreeSet<ChangeHash>,
    objects: BTreeMap<Object, Known>,
    /// The last element of the list, and how many there are.
    list: (Option<OpId>, usize),
}

#[derive(Debug)]
struct Node {
    start_op: u64,
    max_op: u64,
    deps: Vec<ChangeHash>,
}

#[derive(Debug)]
struct Known {
    role: Role,
    made_by: ChangeHash,
    keys: BTreeMap<String, Vec<Standing>>,
}

/// A value under a key.
#[derive(Debug)]
struct Standing {
    id: OpId,
    written_by: ChangeHash,
    replaced_by: Vec<ChangeHash>,
}

impl Past {
    /// The past of an empty document: its first change, and the object which that makes.
    pub(crate) fn new(kind: DocumentKind, genesis: &Change, container: Option<OpId>) -> Self {
        let hash = genesis.hash();
        let (root, contained) = Role::of(kind);
        let known = |role| Known {
            role,
            made_by: hash,
            keys: BTreeMap::new(),
        };
        let mut objects = BTreeMap::from([(None, known(root))]);
        if let (Some(id), Some(role)) = (container, contained) {
            objects.insert(Some(id), known(role));
        }
        let mut past = Self {
            linear: kind != DocumentKind::Session,
            changes: BTreeMap::new(),
            actors: BTreeMap::new(),
            latest: BTreeMap::new(),
            heads: BTreeSet::new(),
            objects,
            list: (None, 0),
        };
        past.link(genesis);
        past
    }

    /// Whether the change is accepted.
    pub(crate) fn knows(&self, change: &ChangeHash) -> bool {
        self.changes.contains_key(change)
    }

    /// How many changes are accepted, the first included.
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Accepted changes on which no other is built.
    pub(crate) fn heads(&self) -> &BTreeSet<ChangeHash> {
        &self.heads
    }

    /// The last accepted change of a member.
    pub(crate) fn latest(&self, author: &MemberId) -> Option<&ChangeHash> {
        self.latest.get(author)
    }

    /// How many changes of this actor are accepted.
    pub(crate) fn last_seq(&self, actor: &ActorId) -> u64 {
        self.actors.get(actor).copied().unwrap_or(0)
    }

    /// The first operation number after these known changes.
    pub(crate) fn next_op(&self, deps: &[ChangeHash]) -> u64 {
        let nodes = deps.iter().filter_map(|dep| self.changes.get(dep));
        nodes.map(|node| node.max_op).max().unwrap_or(0) + 1
    }

    /// The last element of the list, and the number of elements.
    pub(crate) fn list(&self) -> (Option<&OpId>, usize) {
        (self.list.0.as_ref(), self.list.1)
    }

    /// How many objects have this role.
    pub(crate) fn count(&self, role: Role) -> usize {
        self.objects
            .values()
            .filter(|known| known.role == role)
            .count()
    }

    /// How many keys of this object have ever been written.
    pub(crate) fn keys(&self, object: &Object) -> impl Iterator<Item = &str> {
        self.objects
            .get(object)
            .into_iter()
            .flat_map(|known| known.keys.keys().map(String::as_str))
    }

    /// What an object is for, if it is in the causal past.
    pub(crate) fn role(&self, object: &Object, outside: &Outside) -> Option<Role> {
        let known = self.objects.get(object)?;
        (!outside.contains(&known.made_by)).then_some(known.role)
    }

    /// The operations whose values stand under a key in the causal past, in Automerge's order.
    pub(crate) fn visible(&self, object: &Object, key: &str, outside: &Outside) -> Vec<OpId> {
        let standing = self
            .objects
            .get(object)
            .and_then(|known| known.keys.get(key));
        let mut visible: Vec<OpId> = standing
            .into_iter()
            .flatten()
            .filter(|value| !outside.contains(&value.written_by))
            .filter(|value| {
                value
                    .replaced_by
                    .iter()
                    .all(|change| outside.contains(change))
            })
            .map(|value| value.id.clone())
            .collect();
        visible.sort_unstable();
        visible
    }

    /// The known changes that are not in the causal past of a change with these known dependencies.
    ///
    /// Usually the dependencies cover the heads and there are none. Else the graph is walked down from both,
    /// changes with later operations first, so that a change is met after all that build on it; the walk ends
    /// where everything left is in the causal past.
    pub(crate) fn outside(&self, deps: &[ChangeHash]) -> Outside {
        let mut outside = Outside::new();
        if self.heads.iter().all(|head| deps.contains(head)) {
            return outside;
        }
        let mut walk = Walk::default();
        for head in &self.heads {
            walk.meet(self, *head, false);
        }
        for dep in deps {
            walk.meet(self, *dep, true);
        }
        while walk.open > 0 {
            let Some(((_, change), within)) = walk.queue.pop_last() else {
                break;
            };
            if !within {
                walk.open -= 1;
                outside.insert(change);
            }
            for dep in self.changes.get(&change).map_or(&[][..], |node| &node.deps) {
                walk.meet(self, *dep, within);
            }
        }
        outside
    }

    /// Takes in an accepted change of a member.
    pub(crate) fn record(&mut self, author: MemberId, change: &Change, effects: Effects) {
        self.link(change);
        self.latest.insert(author, change.hash());
        let hash = change.hash();
        for (id, role) in effects.made {
            let known = Known {
                role,
                made_by: hash,
                keys: BTreeMap::new(),
            };
            // Nothing is ever written into a message once its change is over.
            if role != Role::Message {
                self.objects.insert(Some(id), known);
            }
        }
        for write in effects.writes {
            self.write(hash, write);
        }
        for id in effects.removed {
            self.objects.remove(&Some(id));
        }
        if let Some(id) = effects.appended {
            self.list = (Some(id), self.list.1 + 1);
        }
    }

    fn write(&mut self, change: ChangeHash, write: Write) {
        let Some(known) = self.objects.get_mut(&write.object) else {
            return;
        };
        let standing = known.keys.entry(write.key).or_default();
        if self.linear {
            standing.retain(|value| !write.replaces.contains(&value.id));
        }
        for value in standing
            .iter_mut()
            .filter(|value| write.replaces.contains(&value.id))
        {
            value.replaced_by.push(change);
        }
        let value = write.value.map(|id| Standing {
            id,
            written_by: change,
            replaced_by: vec![],
        });
        standing.extend(value);
    }

    fn link(&mut self, change: &Change) {
        for dep in change.deps() {
            self.heads.remove(dep);
        }
        self.heads.insert(change.hash());
        self.actors.insert(change.actor_id().clone(), change.seq());
        let node = Node {
            start_op: change.start_op().get(),
            max_op: change.max_op(),
            deps: change.deps().to_vec(),
        };
        self.changes.insert(change.hash(), node);
    }
}

/// Changes still to be visited, by their first operation; the flag says "in the causal past".
#[derive(Default)]
struct Walk {
    queue: BTreeMap<(u64, ChangeHash), bool>,
    /// How many of them are not known to be in the causal past.
    open: usize,
}

impl Walk {
    fn meet(&mut self, past: &Past, change: ChangeHash, within: bool) {
        let start = past.changes.get(&change).map_or(0, |node| node.start_op);
        match self.queue.get_mut(&(start, change)) {
            Some(known) if within && !*known => {
                *known = true;
                self.open -= 1;
            }
            Some(_) => {}
            None => {
                self.queue.insert((start, change), within);
                self.open += usize::from(!within);
            }
        }
    }
}
