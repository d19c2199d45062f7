//! The connectors that there are now. A reload of the configuration adds, replaces and removes some.

use super::entry::Entry;
use crate::status::ConnectorStatus;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What an entry is known by in this process; never given twice.
pub(super) type Number = usize;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Roster {
    members: RwLock<Members>,
}

#[derive(Debug, Default)]
struct Members {
    entries: BTreeMap<Number, Arc<Entry>>,
    /// As in the configuration; those that are about to be removed come last.
    order: Vec<Number>,
    given: Number,
}

impl Roster {
    /// A further entry, behind all others.
    pub(super) fn add(&self, entry: Arc<Entry>) -> Number {
        let mut members = self.write();
        let number = members.given;
        members.given += 1;
        members.entries.insert(number, entry);
        members.order.push(number);
        number
    }

    /// This entry in the place of another one.
    pub(super) fn replace(&self, old: Number, entry: Arc<Entry>) -> Number {
        let number = self.add(entry);
        let mut members = self.write();
        members.order.pop();
        let place = members.order.iter_mut().find(|one| **one == old);
        match place {
            Some(place) => *place = number,
            None => members.order.push(number),
        }
        members.entries.remove(&old);
        number
    }

    pub(super) fn remove(&self, number: Number) {
        let mut members = self.write();
        members.entries.remove(&number);
        members.order.retain(|one| *one != number);
    }

    /// These first, in this order, and then all others.
    pub(super) fn arrange(&self, first: &[Number]) {
        let mut members = self.write();
        let others = members.order.iter().filter(|one| !first.contains(one));
        members.order = first.iter().chain(others).copied().collect();
    }

    pub(super) fn get(&self, number: Number) -> Option<Arc<Entry>> {
        self.read().entries.get(&number).cloned()
    }

    /// All of them, in order.
    pub(super) fn all(&self) -> Vec<(Number, Arc<Entry>)> {
        let members = self.read();
        let order = members.order.iter();
        let all = order.filter_map(|number| Some((*number, members.entries.get(number)?.clone())));
        all.collect()
    }

    /// Changes entries that no task has yet.
    pub(super) fn change(&self, mut change: impl FnMut(&mut Entry)) {
        for entry in self.write().entries.values_mut() {
            let entry = Arc::get_mut(entry);
            change(entry.unwrap_or_else(|| unreachable!("shared only by running tasks")));
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Members> {
        self.members.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Members> {
        self.members.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The live states of the connectors that a [`Server`](crate::Server) has, also after its configuration
/// was reloaded. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connectors(pub(super) Arc<Roster>);

impl Connectors {
    /// Those that there are now, in the order of the configuration; at their end those that are about
    /// to be removed.
    pub fn now(&self) -> Vec<Arc<ConnectorStatus>> {
        let all = self.0.all().into_iter();
        all.map(|(_, entry)| Arc::clone(&entry.status)).collect()
    }
}
