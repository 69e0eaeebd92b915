//! Work on several threads at once, each piece after those that it waits for. Knows nothing of the work.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Who waits for whom, and what can begin.
struct State<T> {
    ready: VecDeque<usize>,
    /// What each piece still waits for.
    missing: Vec<usize>,
    done: Vec<Option<T>>,
    left: usize,
}

/// The CPUs that we may run on.
pub fn cpus() -> NonZero<usize> {
    thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN)
}

/// Does `work` for each of the pieces, `jobs` at once, a piece after all those that it waits for;
/// `waits_for[i]` has numbers below `i` only. Gives what came of each, in order.
pub fn in_order<T: Send>(
    waits_for: &[Vec<usize>],
    jobs: NonZero<usize>,
    work: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    let mut followers = vec![Vec::new(); waits_for.len()];
    for (piece, earlier) in waits_for.iter().enumerate() {
        for &one in earlier.iter().filter(|&&one| one < piece) {
            followers[one].push(piece);
        }
    }
    let missing: Vec<usize> = waits_for
        .iter()
        .enumerate()
        .map(|(piece, earlier)| earlier.iter().filter(|&&one| one < piece).count())
        .collect();
    let state = Mutex::new(State {
        ready: (0..missing.len()).filter(|&i| missing[i] == 0).collect(),
        left: missing.len(),
        done: missing.iter().map(|_| None).collect(),
        missing,
    });
    let changed = Condvar::new();
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    thread::scope(|scope| {
        for _ in 0..jobs.get().min(waits_for.len()) {
            scope.spawn(|| {
                while let Some(piece) = take(lock(), &changed) {
                    let result = work(piece);
                    let mut state = lock();
                    state.done[piece] = Some(result);
                    state.left -= 1;
                    for &next in &followers[piece] {
                        state.missing[next] -= 1;
                        if state.missing[next] == 0 {
                            state.ready.push_back(next);
                        }
                    }
                    changed.notify_all();
                }
            });
        }
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.done.into_iter().flatten().collect()
}

/// The next piece that can begin; `None` when all have.
fn take<T>(mut state: MutexGuard<'_, State<T>>, changed: &Condvar) -> Option<usize> {
    loop {
        if let Some(piece) = state.ready.pop_front() {
            return Some(piece);
        }
        if state.left == 0 {
            return None;
        }
        state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_comes_after_those_it_waits_for() {
        let waits_for = [vec![], vec![0], vec![0], vec![1, 2], vec![], vec![4, 3, 3]];
        for jobs in 1..4 {
            let finished = Mutex::new(Vec::new());
            let results = in_order(&waits_for, NonZero::new(jobs).unwrap(), |piece| {
                let done = finished.lock().unwrap().clone();
                assert!(waits_for[piece].iter().all(|one| done.contains(one)));
                finished.lock().unwrap().push(piece);
                piece * 10
            });
            assert_eq!(results, [0, 10, 20, 30, 40, 50]);
        }
        assert_eq!(in_order(&[], NonZero::<usize>::MIN, |_| 0), [0; 0]);
    }
}
