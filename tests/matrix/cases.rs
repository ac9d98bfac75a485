//! The cases, as data.

use std::fmt;

/// What happens, where.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    /// Relays on the chain.
    pub hops: u8,
    /// The hop that it happens at, or the first of several; `None` if it is about no hop.
    pub at: Option<u8>,
    pub script: Vec<Step>,
}

/// Who is meant, by their places when the script begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Primary(u8),
    Backup(u8),
    /// Everyone the target is attached to.
    Attachments,
    /// So many of the pool, those on the chain first.
    Relays(usize),
}

/// What is done next.
#[derive(Clone, Debug)]
pub enum Step {
    /// SIGKILL, to all at once.
    Kill(Vec<Who>),
    /// SIGTERM.
    Drain(Who),
    /// SIGSTOP, to all at once.
    Freeze(Vec<Who>),
    /// SIGCONT, to all that were frozen.
    Thaw,
    /// It carries nothing more, and heartbeats as ever.
    Gray(Who),
    /// What lies between one step and the next is part of the case.
    Pause(u64),
    /// Until data flows again, both ways.
    Flows,
    /// No packet gets over the link before this hop, neither way. (The hop after the last is the target.)
    Cut(u8),
    /// No packet gets over it towards the target, or towards the origin.
    CutForward(u8),
    CutBackward(u8),
    /// No packet gets to this hop's primary, or from it.
    Isolate(u8),
    IsolateBootstrap,
    /// Undoes all cuts.
    Heal,
    KillBootstrap,
    FreezeBootstrap,
    ThawBootstrap,
    /// From its data directory.
    RestartBootstrap,
}

use Step::{
    Cut, CutBackward, CutForward, Drain, Flows, Freeze, FreezeBootstrap, Gray, Heal, Isolate,
    IsolateBootstrap, Kill, KillBootstrap, Pause, RestartBootstrap, Thaw, ThawBootstrap,
};
use Who::{Attachments, Backup, Primary, Relays};

/// Moments from a kill to the next, in milliseconds, that lie before, in and after the repair of the first.
const DURING_REPAIR_MS: [u64; 6] = [1, 3, 5, 8, 13, 30];

impl Case {
    /// After that, names are unknown until their targets' next heartbeats, 10 s at most.
    pub fn restarts_the_bootstrap(&self) -> bool {
        self.script.iter().any(|step| matches!(step, RestartBootstrap))
    }

    /// Only there can ways be cut.
    pub fn needs_a_testbed(&self) -> bool {
        self.script.iter().any(|step| matches!(step, Heal))
    }
}

pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for at in 1..=3 {
        at_hop(at, &mut |name, script| cases.push(Case { name, hops: 3, at: Some(at), script }));
    }
    for at in 1..=2 {
        let mut add = |name, script| cases.push(Case { name, hops: 3, at: Some(at), script });
        let (near, far) = (Primary(at), Primary(at + 1));
        add("two neighbouring hops at once", vec![Kill(vec![near, far])]);
        add(
            "two neighbouring hops at once, with their backups",
            vec![Kill(vec![near, far, Backup(at), Backup(at + 1)])],
        );
        for (drained, killed) in [(near, far), (far, near)] {
            add("a neighbour dies in the middle of a drain", vec![Drain(drained), Kill(vec![killed])]);
        }
    }
    for at in 1..=2 {
        let script = vec![Kill((at..at + 3).map(Primary).collect())];
        cases.push(Case { name: "three neighbouring hops at once", hops: 4, at: Some(at), script });
    }
    let mut add = |name, script| cases.push(Case { name, hops: 3, at: None, script });
    let chain: Vec<_> = (1..=3).map(Primary).collect();
    let everyone = chain.iter().copied().chain((1..=3).map(Backup)).collect();
    add("all relays of the chain at once", vec![Kill(chain.clone())]);
    add("all relays of the chain and their backups at once", vec![Kill(everyone)]);
    add("all relays of the chain frozen, and thawed", vec![Freeze(chain), Flows, Thaw, Flows]);
    add("all attachment relays of the target at once", vec![Kill(vec![Attachments])]);
    add("a third of the pool at once", vec![Kill(vec![Relays(3)])]);
    cuts(&mut cases);
    cases
}

fn at_hop(at: u8, add: &mut impl FnMut(&'static str, Vec<Step>)) {
    let (primary, backup) = (Primary(at), Backup(at));
    add("a relay dies", vec![Kill(vec![primary])]);
    for pause in [0, 10, 100] {
        let script = vec![Kill(vec![backup]), Pause(pause), Kill(vec![primary])];
        add("the backup dies first, then the primary", script);
    }
    add("primary and backup at once", vec![Kill(vec![primary, backup])]);
    for pause in DURING_REPAIR_MS {
        let script = vec![Kill(vec![primary]), Pause(pause), Kill(vec![backup])];
        add("the replacement dies during its attach", script);
    }
    add("a relay drains", vec![Drain(primary)]);
    for pause in [0, 2] {
        let script = vec![Drain(primary), Pause(pause), Kill(vec![backup])];
        add("the backup dies in the middle of a drain", script);
    }
    add("a relay dies in the middle of its own drain", vec![Drain(primary), Pause(1), Kill(vec![primary])]);
    add("a relay frozen, and thawed later", vec![Freeze(vec![primary]), Flows, Thaw, Flows]);
    for pause in [20, 40] {
        let script = vec![Freeze(vec![primary]), Pause(pause), Thaw];
        add("a relay frozen, and thawed during the repair", script);
    }
    add(
        "primary and backup frozen, and thawed later",
        vec![Freeze(vec![primary, backup]), Flows, Thaw, Flows],
    );
    add("a relay turns gray", vec![Gray(primary), Flows, Kill(vec![primary])]);
    add(
        "a relay turns gray, its backup dies",
        vec![Gray(primary), Kill(vec![backup]), Flows, Kill(vec![primary])],
    );
    bootstrap_at_hop(at, add);
}

fn bootstrap_at_hop(at: u8, add: &mut impl FnMut(&'static str, Vec<Step>)) {
    let (primary, backup) = (Primary(at), Backup(at));
    add("bootstrap dead, a relay dies", vec![KillBootstrap, Kill(vec![primary]), Flows, RestartBootstrap]);
    add("bootstrap frozen, a relay dies", vec![FreezeBootstrap, Kill(vec![primary]), Flows, ThawBootstrap]);
    // An origin asks for its spare when a flow is half a second old; before that it has no chain without the gray relay.
    add(
        "bootstrap dead, a relay turns gray",
        vec![Pause(1500), KillBootstrap, Gray(primary), Flows, Kill(vec![primary]), RestartBootstrap],
    );
    add(
        "bootstrap restarted, a relay dies meanwhile",
        vec![KillBootstrap, Kill(vec![primary]), RestartBootstrap],
    );
    add(
        "bootstrap restarted, primary and backup die meanwhile",
        vec![KillBootstrap, Kill(vec![primary, backup]), RestartBootstrap],
    );
}

/// Those that need a testbed, last, as they have a network of their own.
fn cuts(cases: &mut Vec<Case>) {
    let mut add = |name, at, script| cases.push(Case { name, hops: 3, at: Some(at), script });
    for link in 1..=4 {
        let cut = |step| vec![step, Flows, Heal, Flows];
        add("the link before is cut, and heals later", link, cut(Cut(link)));
        add("the link before loses all one way, forward, and heals later", link, cut(CutForward(link)));
        add("the link before loses all one way, backward, and heals later", link, cut(CutBackward(link)));
        let script = vec![Cut(link), Pause(20), Heal];
        add("the link before is cut, and heals during the repair", link, script);
        let script = vec![IsolateBootstrap, Cut(link), Flows, Heal, Flows];
        add("bootstrap cut off, the link before is cut", link, script);
    }
    for hop in 1..=3 {
        let script = vec![Isolate(hop), Flows, Heal, Flows];
        add("a relay is cut off from all, and comes back", hop, script);
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} hops", self.name, self.hops)?;
        match self.at {
            Some(at) => write!(f, ", at {at}"),
            None => Ok(()),
        }
    }
}
