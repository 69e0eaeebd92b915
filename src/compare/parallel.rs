//! Many things of one kind, made block by block by several threads and handed over in their order. Never knows what they are.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// Has the things 0, 1, … up to `count` made in blocks of `size`, and gives the blocks to `sink`
/// in this order.
pub(crate) fn in_order<T: Send>(
    count: usize,
    size: usize,
    make: impl Fn(Range<usize>) -> T + Sync,
    mut sink: impl FnMut(T),
) {
    let blocks = count.div_ceil(size);
    let block = |at| make(at * size..count.min((at + 1) * size));
    let threads = match thread::available_parallelism() {
        Ok(threads) if blocks > 1 => threads.get().min(blocks),
        _ => 0,
    };
    let next = AtomicUsize::new(0);
    let work = |sender: mpsc::Sender<(usize, T)>| {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= blocks || sender.send((at, block(at))).is_err() {
                break;
            }
        }
    };
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let started = (0..threads).filter(|_| {
            let (work, sender) = (&work, sender.clone());
            let begun = thread::Builder::new().spawn_scoped(scope, move || work(sender));
            begun.is_ok()
        });
        // No thread is needed, or none is to be had.
        if started.count() == 0 {
            return (0..blocks).for_each(|at| sink(block(at)));
        }
        drop(sender);
        let (mut early, mut due) = (BTreeMap::new(), 0);
        for (at, made) in receiver {
            early.insert(at, made);
            while let Some(made) = early.remove(&due) {
                sink(made);
                due += 1;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_come_in_their_order() {
        for (count, size) in [(0, 1), (1, 7), (7, 7), (8, 7), (699, 7), (100, 1)] {
            let mut got = Vec::new();
            in_order(
                count,
                size,
                |range| range.collect(),
                |block: Vec<usize>| got.extend(block),
            );
            assert!(got.into_iter().eq(0..count), "{count} {size}");
        }
    }
}
