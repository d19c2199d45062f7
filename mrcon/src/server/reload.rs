//! Another configuration for connectors that run.
//!
//! Connectors that are to go on as they are do not notice. One with other settings finishes what is in
//! flight, saves its position and makes room for its successor, which begins there. What one process
//! cannot change while it runs is refused as a whole, before anything is touched.

#[cfg(doc)]
use super::Server;
use super::entry::{About, Ended};
use super::roster::Number;
use super::{Home, Slot, Supervisor, journal};
use crate::checkpoint::document_id;
use crate::config::{CollectionConfig, Extent, Scope, ValidConfig, Watched};
use crate::error::Error;
use crate::mask;
use crate::pace::Place;
use crate::status::State;
use std::fmt;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Asks a running [`Server`] for another configuration. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reloader {
    pub(super) asks: mpsc::Sender<Ask>,
}

/// A configuration, and who waits for what comes of it.
#[derive(Debug)]
pub(super) struct Ask {
    config: ValidConfig,
    answer: oneshot::Sender<Result<Reloaded, NotReloaded>>,
}

/// What a reload did, in connectors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// That were not touched.
    pub unchanged: usize,
    /// That were stopped in order and started with other settings, or had been halted.
    pub changed: usize,
    /// That are new.
    pub added: usize,
    /// That are no more.
    pub removed: usize,
}

/// Why nothing was changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum NotReloaded {
    /// These settings can only be changed by a restart of the process.
    NeedsRestart(Vec<&'static str>),
    /// The configuration cannot be used.
    Unusable(Error),
    /// The server is about to stop, or has stopped.
    Stopping,
}

impl fmt::Display for NotReloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotReloaded::NeedsRestart(keys) => {
                let keys = keys.join(", ");
                write!(f, "{keys}: cannot be changed while mrcond runs; restart it")
            }
            NotReloaded::Unusable(error) => f.write_str(&error.chain()),
            NotReloaded::Stopping => f.write_str("mrcond is stopping"),
        }
    }
}

impl std::error::Error for NotReloaded {}

impl Reloader {
    /// Has the server go on with `config`; ready when every connector does, which may take as long as an
    /// orderly stop. One after the other: whoever comes in between waits.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub async fn reload(&self, config: ValidConfig) -> Result<Reloaded, NotReloaded> {
        let (answer, answered) = oneshot::channel();
        let asked = self.asks.send(Ask { config, answer }).await;
        asked.map_err(|_| NotReloaded::Stopping)?;
        answered.await.unwrap_or(Err(NotReloaded::Stopping))
    }
}

/// A reload that goes on until the last connector has made room.
pub(super) struct Pending {
    answer: oneshot::Sender<Result<Reloaded, NotReloaded>>,
    done: Reloaded,
}

/// What is needed to make an entry.
pub(super) struct Recipe {
    pub(super) place: Place,
    pub(super) config: CollectionConfig,
    pub(super) about: About,
    pub(super) home: Arc<Home>,
}

/// What is to become of a connector of the new configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is this one of the old configuration, and stays as it is.
    Keep(usize),
    /// It takes the place of this one of the old configuration.
    Change(usize),
    Add,
}

impl Supervisor<'_> {
    /// Begins a reload, or answers why not.
    pub(super) async fn reload(&mut self, ask: Ask) {
        let Ask { config, answer } = ask;
        match self.prepare(&config).await {
            Ok((fates, recipes)) => {
                let done = self.begin(&fates, recipes);
                self.config = config;
                self.pending = Some(Pending { answer, done });
                self.finish_reload();
            }
            Err(refused) => {
                let _ = answer.send(Err(refused));
            }
        }
    }

    /// Everything that can go wrong, before anything is touched.
    /// By `&mut`, since others may not look on while it waits: the run is to be `Send`.
    async fn prepare(
        &mut self,
        config: &ValidConfig,
    ) -> Result<(Vec<Fate>, Vec<Recipe>), NotReloaded> {
        let keys = fixed(&self.config, config);
        if !keys.is_empty() {
            return Err(NotReloaded::NeedsRestart(keys));
        }
        let unusable = |what: String| {
            let text = format!("use the configuration: {what}");
            NotReloaded::Unusable(Error::new(crate::ErrorKind::Encode, text))
        };
        let checked = self.server.logins.check(config).await;
        checked.map_err(NotReloaded::Unusable)?;
        if let Some(fault) = mask::key_file_faults(config).into_iter().next() {
            return Err(unusable(fault));
        }
        let before: Vec<_> = self.server.roster.all();
        let prints: Vec<Vec<String>> = before.iter().map(|(_, one)| one.keys.clone()).collect();
        let fates = fates(&self.config, config, &prints).into_iter();
        // One that waits for the operator has nothing to lose, and the operator is there.
        let is_halted = |old: usize| before[old].1.status.state() == State::Halted;
        let fates = fates.map(|fate| match fate {
            Fate::Keep(old) if is_halted(old) => Fate::Change(old),
            Fate::Keep(_) | Fate::Change(_) | Fate::Add => fate,
        });
        let fates: Vec<Fate> = fates.collect();
        let abouts = super::abouts(config, &self.server.metrics).map_err(NotReloaded::Unusable)?;
        let count = config.collections().len();
        let all = config.collections().iter().zip(abouts).enumerate();
        let wanted: Vec<_> = all
            .filter(|(index, _)| !matches!(fates[*index], Fate::Keep(_)))
            .map(|(index, (entry, about))| (Place { index, count }, entry.clone(), about))
            .collect();
        let entries: Vec<&CollectionConfig> = wanted.iter().map(|(_, entry, _)| entry).collect();
        let home = timeout(
            crate::client::SERVER_SELECTION_TIMEOUT,
            self.server.home(config, &entries),
        );
        let home = home
            .await
            .map_err(|_| unusable("MongoDB's name is not resolved".to_owned()))?;
        let home = home.map_err(NotReloaded::Unusable)?;
        let recipes = wanted.into_iter().enumerate();
        let recipes = recipes.map(|(seat, (place, config, about))| Recipe {
            place,
            config,
            about: About { seat, ..about },
            home: Arc::clone(&home),
        });
        Ok((fates, recipes.collect()))
    }

    /// Starts what is new and asks to leave what is not to stay.
    fn begin(&mut self, fates: &[Fate], recipes: Vec<Recipe>) -> Reloaded {
        let before: Vec<Number> = self
            .server
            .roster
            .all()
            .into_iter()
            .map(|(one, _)| one)
            .collect();
        let mut recipes = recipes.into_iter();
        let mut done = Reloaded::default();
        let mut order = Vec::with_capacity(fates.len());
        let mut leaving: Vec<(Number, Option<Recipe>)> = Vec::new();
        for fate in fates {
            match *fate {
                Fate::Keep(old) => {
                    done.unchanged += 1;
                    order.push(before[old]);
                }
                Fate::Change(old) => {
                    done.changed += 1;
                    order.push(before[old]);
                    leaving.push((before[old], recipes.next()));
                }
                Fate::Add => {
                    done.added += 1;
                    order.extend(recipes.next().map(|recipe| self.admit(recipe, None)));
                }
            }
        }
        let removed = before.iter().filter(|number| !order.contains(number));
        leaving.extend(removed.map(|number| (*number, None)));
        done.removed = before.len() - done.unchanged - done.changed;
        self.server.roster.arrange(&order);
        for (number, next) in leaving {
            self.ask_to_leave(number, next);
        }
        done
    }

    fn ask_to_leave(&mut self, number: Number, next: Option<Recipe>) {
        let Some(slot) = self.slots.get_mut(&number) else {
            return;
        };
        slot.leaving = Some(next);
        slot.stop.cancel();
        match slot.task {
            Some(_) => {
                let patience = self.server.shutdown_timeout;
                self.overdue.push(Box::pin(async move {
                    tokio::time::sleep(patience).await;
                    number
                }));
            }
            None => self.make_room(number),
        }
    }

    /// It has had as long as an orderly stop may take.
    pub(super) fn lose_patience(&mut self, number: Number) {
        let task = self.slots.get(&number).and_then(|slot| slot.task.as_ref());
        if let Some(task) = task {
            task.abort();
        }
    }

    /// The last run of a connector that is to leave has ended.
    pub(super) fn on_left(&mut self, number: Number, ended: &Ended) {
        if let Some(entry) = self.server.roster.get(number) {
            let status = &entry.status;
            let in_order = match &ended.outcome {
                Ok(()) => true,
                Err(error) => error.policy().error_type.is_none(),
            };
            match &ended.outcome {
                Err(error) if !in_order => journal::left_unfinished(status, error),
                Ok(()) | Err(_) => {
                    status.enter(State::Stopped, None);
                    journal::stopped(status);
                }
            }
        }
        self.make_room(number);
    }

    /// A connector without a task goes, and its successor comes.
    fn make_room(&mut self, number: Number) {
        let Some(slot) = self.slots.remove(&number) else {
            return;
        };
        self.journal.forget(number);
        match slot.leaving.flatten() {
            Some(next) => {
                self.admit(next, Some(number));
            }
            None => {
                if let Some(entry) = self.server.roster.get(number) {
                    self.server.history.dismiss(&entry.status);
                    self.server.roster.remove(number);
                    self.server.metrics.forget(&entry.status, &entry.metrics);
                }
            }
        }
        self.finish_reload();
    }

    /// A connector begins, maybe in the place of another one.
    fn admit(&mut self, mut recipe: Recipe, predecessor: Option<Number>) -> Number {
        let server = self.server;
        let home = Arc::clone(&recipe.home);
        let old = predecessor.and_then(|number| Some((number, server.roster.get(number)?)));
        recipe.about.memory = old.as_ref().map(|(_, old)| Arc::clone(&old.status.memory));
        let entry = server.make(recipe);
        let status = old.as_ref().map(|(_, old)| &*old.status);
        server.history.admit(status, &entry.status, &entry.metrics);
        let number = match old {
            Some((number, old)) => {
                entry.metrics.go_on_from(&old.metrics);
                let new = server.roster.replace(number, Arc::clone(&entry));
                server.metrics.forget(&old.status, &old.metrics);
                new
            }
            None => server.roster.add(Arc::clone(&entry)),
        };
        self.slots.insert(number, Slot::new(home, &self.stop));
        self.start(number);
        number
    }

    /// Answers once nobody is on the way out any more.
    fn finish_reload(&mut self) {
        if self.slots.values().any(|slot| slot.leaving.is_some()) {
            return;
        }
        if let Some(Pending { answer, done }) = self.pending.take() {
            let _ = answer.send(Ok(done));
        }
    }
}

/// Settings that differ, and that a process keeps for as long as it runs.
fn fixed(old: &ValidConfig, new: &ValidConfig) -> Vec<&'static str> {
    let (was, is) = (old.server(), new.server());
    let (metrics_were, metrics_are) = (old.metrics(), new.metrics());
    let all = [
        ("server.listen", was.listen != is.listen),
        (
            "server.shutdown_timeout",
            was.shutdown_timeout != is.shutdown_timeout,
        ),
        (
            "server.connectors_per_connection",
            was.connectors_per_connection != is.connectors_per_connection,
        ),
        (
            "server.memory_budget",
            was.memory_budget != is.memory_budget,
        ),
        ("metrics.custom", metrics_were.custom != metrics_are.custom),
        (
            "metrics.history",
            metrics_were.history != metrics_are.history,
        ),
    ];
    let differing = all.into_iter().filter(|(_, differs)| *differs);
    differing.map(|(key, _)| key).collect()
}

/// What is to become of each entry of `new`; `prints` are of the keys that the entries of `old` have.
///
/// An entry is the same as before if it reads and publishes under the same names.
fn fates(old: &ValidConfig, new: &ValidConfig, prints: &[Vec<String>]) -> Vec<Fate> {
    let ids: Vec<_> = old.collections().iter().map(document_id).collect();
    // Every connector declares what the topology says when it connects again.
    let topology_differs = old.topology() != new.topology();
    let entries = new.collections().iter().enumerate();
    let fates = entries.map(|(index, entry)| {
        let id = document_id(entry);
        let Some(before) = ids.iter().position(|one| *one == id) else {
            return Fate::Add;
        };
        let is_same = !topology_differs
            && old.collections()[before] == *entry
            && own_names(old, before) == own_names(new, index)
            && counted_elsewhere(old, before) == counted_elsewhere(new, index)
            && prints.get(before) == Some(&mask::key_prints(entry));
        match is_same {
            true => Fate::Keep(before),
            false => Fate::Change(before),
        }
    });
    fates.collect()
}

/// What is left out of the events because mrcon writes it.
fn own_names(config: &ValidConfig, index: usize) -> Vec<String> {
    Scope::of_entry(config, index).own_names()
}

/// What earlier entries watch that may be the same, and so is counted there by business metrics.
fn counted_elsewhere(config: &ValidConfig, index: usize) -> Vec<&Watched> {
    if config.metrics().custom.is_empty() {
        return Vec::new();
    }
    let own = &config.collections()[index].watched;
    let earlier = config.collections()[..index].iter().map(|one| &one.watched);
    let may_be_same = |other: &&Watched| {
        let is_wide = |one: &Watched| one.extent() == Extent::Deployment;
        let has_many = other.extent().has_many() || own.extent().has_many();
        is_wide(own)
            || is_wide(other)
            || other.db_name == own.db_name && (has_many || other.coll_name == own.coll_name)
    };
    earlier.filter(may_be_same).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, CustomMetric, TopologyQueue};
    use std::time::Duration;

    fn entries(names: &[&str]) -> Config {
        let entry = |name: &&str| CollectionConfig::new("shop", *name, *name);
        Config::new(names.iter().map(entry))
    }

    fn judge(old: Config, new: Config) -> Vec<Fate> {
        let (old, new) = (old.validate().unwrap(), new.validate().unwrap());
        let prints = vec![Vec::new(); old.collections().len()];
        fates(&old, &new, &prints)
    }

    #[test]
    fn connector_that_did_not_change_is_touched_or_one_that_did_is_not() {
        use Fate::{Add, Change, Keep};
        let old = || entries(&["a", "b", "c"]);
        assert_eq!(judge(old(), old()), [Keep(0), Keep(1), Keep(2)]);
        assert_eq!(
            judge(old(), entries(&["c", "d", "a"])),
            [Keep(2), Add, Keep(0)]
        );
        let mut other = old();
        other.collections[1].rabbitmq.max_unconfirmed = 7;
        // Another position: whoever leaves has to be gone before it is looked for elsewhere.
        other.collections[2].resume_tokens.tokens_coll_name = "elsewhere".into();
        assert_eq!(judge(old(), other), [Keep(0), Change(1), Change(2)]);
        let mut other = old();
        other.topology.queues = vec![TopologyQueue {
            name: "q".into(),
            ..TopologyQueue::default()
        }];
        assert_eq!(judge(old(), other), [Change(0), Change(1), Change(2)]);
    }

    #[test]
    fn connector_reads_what_another_one_writes_from_now_on() {
        use Fate::{Add, Change, Keep};
        let mut other = entries(&["*", "a"]);
        other.collections[1].resume_tokens.tokens_db_name = "shop".into();
        assert_eq!(judge(entries(&["*"]), other.clone()), [Change(0), Add]);
        assert_eq!(judge(other, entries(&["a", "*"]))[1], Change(0));
        assert_eq!(judge(entries(&["*"]), entries(&["a", "*"])), [Add, Keep(0)]);
    }

    #[test]
    fn event_is_counted_twice_or_by_nobody_after_a_reload() {
        use Fate::{Change, Keep};
        let with_metric = |names: &[&str]| {
            let mut config = entries(names);
            config.metrics.custom = vec![CustomMetric {
                name: "shop_events_total".into(),
                help: "x".into(),
                collection: "shop.*".into(),
                ..CustomMetric::default()
            }];
            config
        };
        let (old, new) = (with_metric(&["a", "*"]), with_metric(&["*"]));
        assert_eq!(judge(old, new), [Change(1)]);
        let (old, new) = (with_metric(&["a", "b"]), with_metric(&["b"]));
        assert_eq!(judge(old, new), [Keep(1)]);
    }

    #[test]
    fn setting_of_the_process_is_ignored_in_silence() {
        let config = |change: fn(&mut Config)| {
            let mut config = entries(&["a"]);
            change(&mut config);
            config.validate().unwrap()
        };
        let old = config(|_| {});
        assert!(fixed(&old, &old).is_empty());
        let new = config(|config| {
            config.server.listen = ([127, 0, 0, 1], 1).into();
            config.server.shutdown_timeout = Duration::from_secs(9);
            config.server.connectors_per_connection = Some(3);
            config.server.memory_budget += 1 << 20;
            config.metrics.history.resolution *= 2;
        });
        assert_eq!(fixed(&old, &new).len(), 5, "{:?}", fixed(&old, &new));
    }
}
