//! Whose turn it is, and with how many threads: the cores are shared between the images that run
//! and within each.
//!
//! The largest come first. One gets as many threads as make it a fourth of what each core has still
//! to do: many images run side by side with a thread each, which is the cheapest way; few, or one
//! much larger than the rest, take several, so that no core is idle while the last one ends.

use std::cmp::Reverse;
use std::sync::{Condvar, Mutex, PoisonError};

use super::lock;

/// Into how many pieces for each core the work that is left is to be divided.
const ROUNDS: u128 = 4;

/// The turns of all images.
pub(super) struct Turns {
    cores: usize,
    state: Mutex<State>,
    freed: Condvar,
}

/// What an image may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Turn {
    /// Which image.
    pub(super) index: usize,
    /// Its threads.
    pub(super) threads: usize,
    weight: u64,
}

struct State {
    /// Those whose turn has not come, the largest last: number and weight.
    waiting: Vec<(usize, u64)>,
    free: usize,
    /// Weight of those waiting.
    left: u64,
    /// Weight of those that are done.
    done: u64,
    /// The share done of those that run, in bytes: number, bytes.
    running: Vec<(usize, u64)>,
    total: u64,
}

impl Turns {
    /// For images of these weights, in bytes.
    pub(super) fn new(cores: usize, weights: &[u64]) -> Self {
        let mut waiting: Vec<_> = weights.iter().copied().enumerate().collect();
        waiting.sort_unstable_by_key(|&(index, weight)| (weight, Reverse(index)));
        let total = weights.iter().fold(0, |sum: u64, w| sum.saturating_add(*w));
        Self {
            cores,
            state: Mutex::new(State {
                waiting,
                free: cores,
                left: total,
                done: 0,
                running: Vec::new(),
                total,
            }),
            freed: Condvar::new(),
        }
    }

    /// The next turn, once there is a core for it; none when all have had theirs.
    pub(super) fn next(&self) -> Option<Turn> {
        let mut state = lock(&self.state);
        while state.free == 0 && !state.waiting.is_empty() {
            state = self
                .freed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let (index, weight) = state.waiting.pop()?;
        let wanted = (ROUNDS * self.cores as u128 * u128::from(weight))
            .div_ceil(u128::from(state.left.max(1)));
        let threads = usize::try_from(wanted).map_or(state.free, |n| n.clamp(1, state.free));
        state.free -= threads;
        state.left -= weight.min(state.left);
        state.running.push((index, 0));
        Some(Turn {
            index,
            threads,
            weight,
        })
    }

    /// Notes how much of an image is done.
    pub(super) fn reached(&self, turn: &Turn, percent: u64) {
        let bytes = u128::from(turn.weight) * u128::from(percent.min(100)) / 100;
        let mut state = lock(&self.state);
        if let Some(running) = state.running.iter_mut().find(|r| r.0 == turn.index) {
            running.1 = u64::try_from(bytes).unwrap_or(turn.weight);
        }
    }

    /// Gives back what the image used.
    pub(super) fn finish(&self, turn: &Turn) {
        let mut state = lock(&self.state);
        state.free += turn.threads;
        state.done = state.done.saturating_add(turn.weight);
        state.running.retain(|running| running.0 != turn.index);
        self.freed.notify_all();
    }

    /// Lets nobody begin any more.
    pub(super) fn stop(&self) {
        lock(&self.state).waiting.clear();
        self.freed.notify_all();
    }

    /// Bytes done and bytes in all.
    pub(super) fn progress(&self) -> (u64, u64) {
        let state = lock(&self.state);
        let running: u64 = state.running.iter().map(|running| running.1).sum();
        (state.done.saturating_add(running), state.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The threads that each image gets, in the order of their turns, with `ends` telling after
    /// how many turns the first of the running ones ends.
    fn shares(cores: usize, weights: &[u64]) -> Vec<(usize, usize)> {
        let turns = Turns::new(cores, weights);
        let (mut shares, mut running): (Vec<_>, Vec<Turn>) = (Vec::new(), Vec::new());
        loop {
            let busy: usize = running.iter().map(|turn| turn.threads).sum();
            assert!(busy <= cores, "{busy} threads on {cores} cores");
            if busy == cores {
                turns.finish(&running.remove(0));
            }
            let Some(turn) = turns.next() else {
                return shares;
            };
            shares.push((turn.index, turn.threads));
            running.push(turn);
        }
    }

    #[test]
    fn many_take_one_core_each_and_few_share_them_all() {
        assert!(shares(2, &[200; 64]).iter().all(|share| share.1 == 1));
        assert_eq!(shares(8, &[5]), [(0, 8)]);
        assert_eq!(shares(2, &[7, 7, 7]), [(0, 2), (1, 2), (2, 2)]);
        assert_eq!(shares(4, &[1, 0, 9])[0], (2, 4));
    }

    #[test]
    fn progress_counts_what_is_done_of_those_that_run() {
        let turns = Turns::new(2, &[100, 300]);
        let large = turns.next().unwrap();
        assert_eq!((large.index, large.threads), (1, 2));
        turns.reached(&large, 50);
        assert_eq!(turns.progress(), (150, 400));
        turns.finish(&large);
        assert_eq!(turns.progress(), (300, 400));
        turns.stop();
        assert_eq!(turns.next(), None);
    }
}
