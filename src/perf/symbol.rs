//! The events that the kernel's interface names itself, and perf's names for them. Pure tables: never asks what this machine has.

use super::event::Code;
use crate::sys::perf_event::bindings as abi;

/// An event that the kernel's interface itself names: the names of perf, ours first, and the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    /// Our name, then perf's other names for it.
    pub(crate) names: Vec<String>,
    /// What the kernel is asked for.
    pub(crate) code: Code,
}

/// The event that `word` means.
pub(crate) fn find(word: &str) -> Option<Symbol> {
    let means = |symbol: &Symbol| symbol.names.iter().any(|name| name == word);
    hardware()
        .chain(software())
        .find(means)
        .or_else(|| cache(word))
}

/// The generalised hardware events.
pub(crate) fn hardware() -> impl Iterator<Item = Symbol> {
    const NAMES: &[(u32, &[&str])] = &[
        (abi::PERF_COUNT_HW_CPU_CYCLES, &["cycles", "cpu-cycles"]),
        (abi::PERF_COUNT_HW_INSTRUCTIONS, &["instructions"]),
        (abi::PERF_COUNT_HW_CACHE_REFERENCES, &["cache-references"]),
        (abi::PERF_COUNT_HW_CACHE_MISSES, &["cache-misses"]),
        (
            abi::PERF_COUNT_HW_BRANCH_INSTRUCTIONS,
            &["branches", "branch-instructions"],
        ),
        (abi::PERF_COUNT_HW_BRANCH_MISSES, &["branch-misses"]),
        (abi::PERF_COUNT_HW_BUS_CYCLES, &["bus-cycles"]),
        (
            abi::PERF_COUNT_HW_STALLED_CYCLES_FRONTEND,
            &["stalled-cycles-frontend", "idle-cycles-frontend"],
        ),
        (
            abi::PERF_COUNT_HW_STALLED_CYCLES_BACKEND,
            &["stalled-cycles-backend", "idle-cycles-backend"],
        ),
        (abi::PERF_COUNT_HW_REF_CPU_CYCLES, &["ref-cycles"]),
    ];
    NAMES
        .iter()
        .map(|&(id, names)| symbol(abi::PERF_TYPE_HARDWARE, id, names))
}

/// The events that the kernel counts itself.
pub(crate) fn software() -> impl Iterator<Item = Symbol> {
    const NAMES: &[(u32, &[&str])] = &[
        (abi::PERF_COUNT_SW_TASK_CLOCK, &["task-clock"]),
        (abi::PERF_COUNT_SW_CPU_CLOCK, &["cpu-clock"]),
        (abi::PERF_COUNT_SW_PAGE_FAULTS, &["page-faults", "faults"]),
        (abi::PERF_COUNT_SW_PAGE_FAULTS_MIN, &["minor-faults"]),
        (abi::PERF_COUNT_SW_PAGE_FAULTS_MAJ, &["major-faults"]),
        (
            abi::PERF_COUNT_SW_CONTEXT_SWITCHES,
            &["context-switches", "cs"],
        ),
        (
            abi::PERF_COUNT_SW_CPU_MIGRATIONS,
            &["cpu-migrations", "migrations"],
        ),
        (abi::PERF_COUNT_SW_CGROUP_SWITCHES, &["cgroup-switches"]),
        (abi::PERF_COUNT_SW_ALIGNMENT_FAULTS, &["alignment-faults"]),
        (abi::PERF_COUNT_SW_EMULATION_FAULTS, &["emulation-faults"]),
        (abi::PERF_COUNT_SW_BPF_OUTPUT, &["bpf-output"]),
        (abi::PERF_COUNT_SW_DUMMY, &["dummy"]),
    ];
    NAMES
        .iter()
        .map(|&(id, names)| symbol(abi::PERF_TYPE_SOFTWARE, id, names))
}

fn symbol(kind: u32, id: u32, names: &[&str]) -> Symbol {
    let names = names.iter().map(|&name| name.to_owned()).collect();
    Symbol {
        names,
        code: Code {
            kind,
            config: id.into(),
            ..Code::default()
        },
    }
}

const LOAD: u32 = abi::PERF_COUNT_HW_CACHE_OP_READ;
const STORE: u32 = abi::PERF_COUNT_HW_CACHE_OP_WRITE;
const PREFETCH: u32 = abi::PERF_COUNT_HW_CACHE_OP_PREFETCH;

/// The names of one part of a cache event, and its number.
type Names = (u32, &'static [&'static str]);

/// Caches, the operations that exist on each, and perf's names for them.
const CACHES: &[(Names, &[u32])] = &[
    (
        (
            abi::PERF_COUNT_HW_CACHE_L1D,
            &["L1-dcache", "L1-d", "L1d", "L1-data"],
        ),
        &[LOAD, STORE, PREFETCH],
    ),
    (
        (
            abi::PERF_COUNT_HW_CACHE_L1I,
            &["L1-icache", "L1-i", "L1i", "L1-instruction"],
        ),
        &[LOAD, PREFETCH],
    ),
    (
        (abi::PERF_COUNT_HW_CACHE_LL, &["LLC", "L2"]),
        &[LOAD, STORE, PREFETCH],
    ),
    (
        (
            abi::PERF_COUNT_HW_CACHE_DTLB,
            &["dTLB", "d-TLB", "Data-TLB"],
        ),
        &[LOAD, STORE, PREFETCH],
    ),
    (
        (
            abi::PERF_COUNT_HW_CACHE_ITLB,
            &["iTLB", "i-TLB", "Instruction-TLB"],
        ),
        &[LOAD],
    ),
    (
        (
            abi::PERF_COUNT_HW_CACHE_BPU,
            &["branch", "branches", "bpu", "btb", "bpc"],
        ),
        &[LOAD],
    ),
    (
        (abi::PERF_COUNT_HW_CACHE_NODE, &["node"]),
        &[LOAD, STORE, PREFETCH],
    ),
];

/// The first two are those of our own names: `…-load-misses`, `…-loads`.
const OPERATIONS: &[Names] = &[
    (LOAD, &["load", "loads", "read"]),
    (STORE, &["store", "stores", "write"]),
    (
        PREFETCH,
        &[
            "prefetch",
            "prefetches",
            "speculative-read",
            "speculative-load",
        ],
    ),
];

const RESULTS: &[Names] = &[
    (
        abi::PERF_COUNT_HW_CACHE_RESULT_ACCESS,
        &["refs", "reference", "ops", "access"],
    ),
    (abi::PERF_COUNT_HW_CACHE_RESULT_MISS, &["misses", "miss"]),
];

/// The generalised cache events, each under our name.
pub(crate) fn caches() -> impl Iterator<Item = Symbol> {
    let operations = |ops: &'static [u32]| OPERATIONS.iter().filter(|op| ops.contains(&op.0));
    CACHES.iter().flat_map(move |&(cache, ops)| {
        operations(ops).flat_map(move |&operation| {
            RESULTS
                .iter()
                .map(move |&result| cache_symbol(cache, operation, result))
        })
    })
}

/// The cache event that `word` means in any of perf's ways to say it, in any case of letters:
/// a cache, then optionally an operation (else loads) and a result (else accesses) in any order.
fn cache(word: &str) -> Option<Symbol> {
    let (&(cache, operations), mut rest) = CACHES
        .iter()
        .filter_map(|entry| Some((entry, strip(word, entry.0.1)?)))
        .min_by_key(|(_, rest)| rest.len())?;
    let (mut operation, mut result) = (None, None);
    while !rest.is_empty() {
        let take = |names: &'static [Names]| {
            names
                .iter()
                .find_map(|&names| Some((names, strip(rest, names.1)?)))
        };
        (operation, result, rest) = match (take(OPERATIONS), take(RESULTS)) {
            (Some((found, rest)), _) if operation.is_none() => (Some(found), result, rest),
            (_, Some((found, rest))) if result.is_none() => (operation, Some(found), rest),
            _ => return None,
        };
    }
    let operation = operation.unwrap_or(OPERATIONS[0]);
    operations
        .contains(&operation.0)
        .then(|| cache_symbol(cache, operation, result.unwrap_or(RESULTS[0])))
}

fn cache_symbol(cache: Names, operation: Names, result: Names) -> Symbol {
    let name = if result.0 == abi::PERF_COUNT_HW_CACHE_RESULT_MISS {
        format!("{}-{}-{}", cache.1[0], operation.1[0], result.1[0])
    } else {
        format!("{}-{}", cache.1[0], operation.1[1])
    };
    symbol(
        abi::PERF_TYPE_HW_CACHE,
        cache.0 | operation.0 << 8 | result.0 << 16,
        &[&name],
    )
}

/// What is left of `text` after the longest of `names` and the hyphen that ends it.
fn strip<'a>(text: &'a str, names: &[&str]) -> Option<&'a str> {
    let after = |name: &&str| {
        let head = text.get(..name.len())?;
        let rest = &text[name.len()..];
        let whole = rest.is_empty() || (rest.len() > 1 && rest.starts_with('-'));
        (head.eq_ignore_ascii_case(name) && whole).then(|| rest.trim_start_matches('-'))
    };
    names.iter().filter_map(after).min_by_key(|rest| rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_events_are_understood_in_all_of_perfs_ways() {
        let check = |word, want: Option<(&str, u64)>| {
            let got = cache(word);
            let got = got.as_ref().map(|s| (s.names[0].as_str(), s.code.config));
            assert_eq!(got, want, "{word}");
        };
        check("L1-dcache-loads", Some(("L1-dcache-loads", 0)));
        check("L1-dcache", Some(("L1-dcache-loads", 0)));
        check("l1-d-loads", Some(("L1-dcache-loads", 0)));
        check("l1d-read-access", Some(("L1-dcache-loads", 0)));
        check(
            "L1-dcache-load-misses",
            Some(("L1-dcache-load-misses", 0x10000)),
        );
        check(
            "L1-dcache-loads-misses",
            Some(("L1-dcache-load-misses", 0x10000)),
        );
        check(
            "L1-dcache-misses-loads",
            Some(("L1-dcache-load-misses", 0x10000)),
        );
        check("LLC-misses", Some(("LLC-load-misses", 0x10002)));
        check("LLC-store-misses", Some(("LLC-store-misses", 0x10102)));
        check("L2-prefetches", Some(("LLC-prefetches", 0x202)));
        check("dTLB-load-misses", Some(("dTLB-load-misses", 0x10003)));
        check("iTLB-loads", Some(("iTLB-loads", 4)));
        check("branch-load-misses", Some(("branch-load-misses", 0x10005)));
        check("branches-loads", Some(("branch-loads", 5)));
        check(
            "node-prefetch-misses",
            Some(("node-prefetch-misses", 0x10206)),
        );
        check(
            "node-speculative-read-miss",
            Some(("node-prefetch-misses", 0x10206)),
        );
        check("iTLB-stores", None);
        check("L1-icache-stores", None);
        check("L1-dcache-", None);
        check("L1-dcache-loads-loads", None);
        check("L1-dcache-foo", None);
        check("L1", None);
        check("ünode", None);
        for symbol in caches() {
            assert_eq!(cache(&symbol.names[0]), Some(symbol));
        }
    }
}
