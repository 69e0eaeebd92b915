//! Records as the kernel writes them, whole, cut off and out of order.

use super::*;
use proptest::prelude::*;

const PLAIN: Layout = Layout {
    address: false,
    callchain: false,
};
const FULL: Layout = Layout {
    address: true,
    callchain: true,
};
const STAMP: Stamp = Stamp {
    id: 77,
    pid: 12,
    tid: 13,
    time_ns: 1_000_000_007,
    cpu: 3,
};

/// A record of these words behind its header.
fn record(kind: u32, misc: u32, words: &[u64]) -> Vec<u8> {
    let body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let size = (HEADER_BYTES + body.len()) as u16;
    let mut bytes = kind.to_ne_bytes().to_vec();
    bytes.extend((misc as u16).to_ne_bytes());
    bytes.extend(size.to_ne_bytes());
    bytes.extend(body);
    bytes
}

/// Two fields of 32 bits as one word.
fn pair(first: u32, second: u32) -> u64 {
    let [a, b] = [first, second].map(u32::to_ne_bytes);
    u64::from_ne_bytes([a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]])
}

/// NUL-padded text as words.
fn text(text: &str) -> Vec<u64> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize((text.len() + 1).next_multiple_of(8), 0);
    let words = bytes.as_chunks::<8>().0;
    words.iter().map(|word| u64::from_ne_bytes(*word)).collect()
}

fn stamp_words() -> [u64; 4] {
    [pair(12, 13), 1_000_000_007, pair(3, 0), 77]
}

fn decode(layout: Layout, bytes: &[u8]) -> Vec<Result<PerfRecord, Malformed>> {
    layout.decode(bytes).collect()
}

#[test]
fn overflows_have_what_was_asked_for() {
    let check = |layout: Layout, misc, words: &[u64], want: Overflow| {
        let bytes = record(abi::PERF_RECORD_SAMPLE, misc, words);
        let body = Body::Overflow(want);
        let stamp = STAMP;
        assert_eq!(decode(layout, &bytes), [Ok(PerfRecord { stamp, body })]);
    };
    let plain = Overflow {
        mode: Mode::User,
        ip: 0x4000,
        address: None,
        period: 5,
        callchain: Vec::new(),
    };
    let (who, when) = (pair(12, 13), 1_000_000_007);
    check(
        PLAIN,
        abi::PERF_RECORD_MISC_USER | abi::PERF_RECORD_MISC_EXACT_IP,
        &[77, 0x4000, who, when, pair(3, 0), 5],
        plain.clone(),
    );
    let frame = |mode, ip| Frame { mode, ip };
    check(
        FULL,
        abi::PERF_RECORD_MISC_KERNEL,
        &[
            77,
            0x4000,
            who,
            when,
            0xbeef,
            pair(3, 0),
            5,
            5,
            abi::PERF_CONTEXT_KERNEL,
            0xffff_8000_0000_0000,
            abi::PERF_CONTEXT_USER,
            0x4000,
            0x5000,
        ],
        Overflow {
            mode: Mode::Kernel,
            address: Some(0xbeef),
            callchain: vec![
                frame(Mode::Kernel, 0xffff_8000_0000_0000),
                frame(Mode::User, 0x4000),
                frame(Mode::User, 0x5000),
            ],
            ..plain
        },
    );
}

#[test]
fn what_surrounds_overflows_is_decoded() {
    let check = |kind, misc, words: &[u64], want: Body| {
        let bytes = record(kind, misc, &[words, &stamp_words()].concat());
        let want = PerfRecord {
            stamp: STAMP,
            body: want,
        };
        assert_eq!(decode(FULL, &bytes), [Ok(want)]);
    };
    check(
        abi::PERF_RECORD_LOST,
        0,
        &[77, 42],
        Body::Lost { count: 42 },
    );
    check(
        abi::PERF_RECORD_LOST_SAMPLES,
        0,
        &[42],
        Body::Lost { count: 42 },
    );
    check(abi::PERF_RECORD_THROTTLE, 0, &[9, 77, 78], Body::Throttled);
    check(
        abi::PERF_RECORD_UNTHROTTLE,
        0,
        &[9, 77, 78],
        Body::Unthrottled,
    );
    let comm = |name: &str, exec| Body::Comm {
        pid: 20,
        tid: 21,
        name: name.to_owned(),
        exec,
    };
    let named = |name| [vec![pair(20, 21)], text(name)].concat();
    check(
        abi::PERF_RECORD_COMM,
        0,
        &named("make"),
        comm("make", false),
    );
    check(
        abi::PERF_RECORD_COMM,
        abi::PERF_RECORD_MISC_COMM_EXEC,
        &named("kworker/0:1-mm"),
        comm("kworker/0:1-mm", true),
    );
    // Without its NUL.
    let word = u64::from_ne_bytes(*b"abcdefgh");
    check(
        abi::PERF_RECORD_COMM,
        0,
        &[pair(20, 21), word],
        comm("abcdefgh", false),
    );
    check(
        abi::PERF_RECORD_FORK,
        0,
        &[pair(21, 20), pair(22, 20), 9],
        Body::Fork {
            pid: 21,
            parent_pid: 20,
            tid: 22,
            parent_tid: 20,
        },
    );
    check(
        abi::PERF_RECORD_EXIT,
        0,
        &[pair(u32::MAX, 20), pair(22, 20), 9],
        Body::Exit { pid: -1, tid: 22 },
    );
    let mapped = [pair(20, 21), 0x7000, 0x2000, 0x1000, 1, 2, 3, pair(5, 2)];
    check(
        abi::PERF_RECORD_MMAP2,
        0,
        &[&mapped[..], &text("/lib/libc.so.6")].concat(),
        Body::Mapped(Mapped {
            pid: 20,
            tid: 21,
            address: 0x7000,
            bytes: 0x2000,
            offset: 0x1000,
            protection: 5,
            flags: 2,
            path: "/lib/libc.so.6".into(),
        }),
    );
    check(
        abi::PERF_RECORD_SWITCH,
        0,
        &[],
        Body::Other {
            kind: abi::PERF_RECORD_SWITCH,
            bytes: Vec::new(),
        },
    );
    check(
        999,
        0,
        &[1],
        Body::Other {
            kind: 999,
            bytes: 1u64.to_ne_bytes().to_vec(),
        },
    );
}

#[test]
fn what_is_malformed_is_told_and_passed_over() {
    let good = record(
        abi::PERF_RECORD_LOST,
        0,
        &[&[77, 42][..], &stamp_words()].concat(),
    );
    let lost = PerfRecord {
        stamp: STAMP,
        body: Body::Lost { count: 42 },
    };
    let check = |bad: Vec<u8>, kind, bytes, is_last: bool| {
        let mut want = vec![Err(Malformed { kind, bytes })];
        if !is_last {
            want.push(Ok(lost.clone()));
        }
        assert_eq!(decode(FULL, &[bad, good.clone()].concat()), want);
    };
    // Without room for a stamp; with a callchain longer than itself; without its address.
    check(record(abi::PERF_RECORD_LOST, 0, &[1, 2, 3]), 2, 32, false);
    let (sample, who) = (abi::PERF_RECORD_SAMPLE, pair(12, 13));
    let chained = [77, 0x4000, who, 9, 0xbeef, pair(3, 0), 5, u64::MAX, 1];
    check(record(sample, 2, &chained), 9, 80, false);
    check(record(sample, 2, &chained[..3]), 9, 32, false);
    // A length shorter than the header, or longer than all there is.
    check(vec![0; 8], 0, 8 + good.len(), true);
    check(vec![0xff; 8], 0, 8 + good.len(), true);
    assert_eq!(
        decode(FULL, &good[..5]),
        [Err(Malformed { kind: 0, bytes: 5 })]
    );
    assert_eq!(decode(FULL, &[]), []);
}

proptest! {
    #[test]
    fn any_bytes_are_records_or_errors(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        (address, callchain) in any::<(bool, bool)>(),
    ) {
        let layout = Layout { address, callchain };
        let decoded = decode(layout, &bytes);
        prop_assert!(decoded.len() <= bytes.len() / HEADER_BYTES + 1);
    }

    #[test]
    fn any_bodies_are_records_or_errors(
        records in proptest::collection::vec(
            (0u32..25, any::<u16>(), proptest::collection::vec(any::<u64>(), 0..20)), 0..10),
        (address, callchain) in any::<(bool, bool)>(),
    ) {
        let bytes: Vec<u8> = records
            .iter()
            .flat_map(|(kind, misc, words)| record(*kind, (*misc).into(), words))
            .collect();
        let layout = Layout { address, callchain };
        // Each is told, and none makes the next one lost.
        prop_assert_eq!(decode(layout, &bytes).len(), records.len());
    }
}
