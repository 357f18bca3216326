//! Every order of the requests of a small scenario.
//!
//! Orders that differ only in neighbours that cannot tell are tried once: the method of sleep sets (Godefroid, 1996).
//! Requests cannot tell when neither changes what the other reads or changes.

use crate::plan::{Decision, Plan, View};
use crate::world::{Glimpse, Objects, Request};

/// One place where there was a choice.
struct Node {
    waiting: Vec<Glimpse>,
    chosen: usize,
    tried: Vec<usize>,
    /// The one request that is worth trying, where its order makes no difference.
    alone: Option<usize>,
    /// What was tried before this place, and whose order does not matter with what came since.
    sleeping: Vec<(usize, String)>,
}

impl Node {
    fn sleeps(&self, at: usize) -> bool {
        let Glimpse { client, label, .. } = &self.waiting[at];
        self.sleeping.iter().any(|(other, other_label)| other == client && other_label == label)
    }

    fn next(&self) -> Option<usize> {
        let worth = |at: &usize| self.alone.is_none_or(|alone| alone == *at);
        (0..self.waiting.len()).find(|at| worth(at) && !self.tried.contains(at) && !self.sleeps(*at))
    }

    /// What sleeps after the choice was made.
    fn sleeping_below(&self) -> Vec<(usize, String)> {
        let chosen = &self.waiting[self.chosen];
        // A client that reads several things at once does not care in which order they come.
        let reads = |glimpse: &Glimpse| !glimpse.request.is_write();
        let apart = |other: &Glimpse| {
            !other.request.meets(&chosen.request) && (other.client != chosen.client || reads(other) && reads(chosen))
        };
        (0..self.waiting.len())
            .filter(|at| self.tried.contains(at) || self.sleeps(*at))
            .map(|at| &self.waiting[at])
            .filter(|other| apart(other))
            .map(|other| (other.client, other.label.clone()))
            .collect()
    }
}

/// Goes through all orders, one run after the other.
pub struct Explorer {
    path: Vec<Node>,
    /// What was there before and nobody changes: when it is read makes no difference to anybody.
    lasting: &'static Objects,
    begun: bool,
}

impl Explorer {
    /// `lasting` is what was there before, in a scenario that changes none of it.
    pub fn new(lasting: &'static Objects) -> Self {
        Self { path: Vec::new(), lasting, begun: false }
    }

    /// The next run's plan; nothing once all were tried.
    pub fn next_walk(&mut self) -> Option<Walk<'_>> {
        if !std::mem::replace(&mut self.begun, true) {
            return Some(Walk { explorer: self, depth: 0 });
        }
        loop {
            let node = self.path.last_mut()?;
            node.tried.push(node.chosen);
            match node.next() {
                Some(at) => {
                    node.chosen = at;
                    break;
                }
                None => drop(self.path.pop()),
            }
        }
        Some(Walk { explorer: self, depth: 0 })
    }

    /// The choices of the last run.
    pub fn choices(&self) -> Vec<usize> {
        self.path.iter().map(|node| node.chosen).collect()
    }
}

/// One run.
pub struct Walk<'a> {
    explorer: &'a mut Explorer,
    depth: usize,
}

impl Plan for Walk<'_> {
    fn next(&mut self, view: &View<'_>) -> Decision {
        let path = &mut self.explorer.path;
        if self.depth == path.len() {
            let sleeping = path.last().map(Node::sleeping_below).unwrap_or_default();
            let mut node = Node { waiting: view.waiting.to_vec(), chosen: 0, tried: Vec::new(), sleeping, alone: None };
            let lasting = self.explorer.lasting;
            let is_apart =
                |glimpse: &Glimpse| matches!(&glimpse.request, Request::Get { key } if lasting.contains_key(key));
            node.alone = node.waiting.iter().position(is_apart);
            let Some(chosen) = node.next() else { return Decision::Abandon };
            node.chosen = chosen;
            path.push(node);
        }
        let node = &mut path[self.depth];
        // Keys differ from run to run, labels do not.
        node.waiting = view.waiting.to_vec();
        self.depth += 1;
        Decision::run(node.chosen)
    }
}

/// Given choices, then always the first.
pub struct Choices(pub std::collections::VecDeque<usize>);

impl Plan for Choices {
    fn next(&mut self, view: &View<'_>) -> Decision {
        Decision::run(self.0.pop_front().unwrap_or(0).min(view.waiting.len() - 1))
    }
}
