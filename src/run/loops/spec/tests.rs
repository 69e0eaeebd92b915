use super::*;
use proptest::prelude::*;

fn names(text: &str) -> Vec<String> {
    parse(text)
        .unwrap_or_else(|e| panic!("{text}: {e}"))
        .iter()
        .map(|spec| spec.name().to_string())
        .collect()
}

#[test]
fn every_loop_has_a_name_and_is_read_back() {
    for info in catalog() {
        let specs = parse(info.name).unwrap();
        assert_eq!(specs.len(), 1);
        assert_eq!(
            parse(&specs[0].to_string()).unwrap(),
            specs,
            "{}",
            info.name
        );
        assert_eq!(parse(&info.benchmark()).unwrap(), specs, "{}", info.name);
        // A path takes the rest of the text, so nothing can stand after one.
        let paths = info
            .parameters
            .iter()
            .filter(|p| p.values == Values::Path)
            .count();
        assert!(paths == 0 || info.parameters.len() == 1, "{}", info.name);
    }
}

#[test]
fn names_say_what_the_work_is() {
    let check = |text, want: &[&str]| assert_eq!(names(text), want, "{text}");
    check("write", &["Write/size=512"]);
    check("Write/size=512/to=null", &["Write/size=512"]);
    check("write/to=pipe/size=4k", &["Write/size=4096/to=pipe"]);
    check(
        "write/size=512,4KiB,4096",
        &["Write/size=512", "Write/size=4096"],
    );
    check(
        "write/size=1,2/to=null,file",
        &[
            "Write/size=1",
            "Write/size=1/to=file",
            "Write/size=2",
            "Write/size=2/to=file",
        ],
    );
    check("read/size=1M", &["Read/size=1048576"]);
    check("getppid", &["Getppid"]);
    check("clock-gettime", &["ClockGettime/via=vdso"]);
    check("ClockGettime/via=SYSCALL", &["ClockGettime/via=syscall"]);
    check("open-close", &["OpenClose"]);
    check("stat/file=/etc/a=b/c", &["Stat/file=_etc_a=b_c"]);
    check("vfork_exec", &["VforkExec/program=_bin_true"]);
    check(
        "vfork-exec/program=/a/b,/c",
        &["VforkExec/program=_a_b", "VforkExec/program=_c"],
    );
    check("mmap-munmap/size=1G", &["MmapMunmap/size=1073741824"]);
    check("heap", &["Heap/MiB=16/pages=4k"]);
    check(
        "heap/mib=64/pass=2/pages=THP",
        &["Heap/MiB=64/pages=thp/pass=2"],
    );
    check("spin", &["Spin"]);
}

#[test]
fn mistakes_are_explained() {
    let check =
        |text: &str, want: &str| assert_eq!(parse(text).unwrap_err().to_string(), want, "{text}");
    check("wirte", "no loop is called `wirte`; nearest: write");
    check(
        "mmap/size=1",
        "no loop is called `mmap`; nearest: mmap-munmap",
    );
    check(
        "write/sise=1",
        "`write` has no parameter `sise`; it has size, to",
    );
    check(
        "getppid/size=1",
        "`getppid` has no parameter `size`; it has none",
    );
    check("write/4096", "`4096` in `write`: not `key=value`");
    check("write/", "`` in `write`: not `key=value`");
    check(
        "write/size=1/size=2",
        "`size=2` in `write`: given twice; a list is `key=1,2`",
    );
    let size = |value| {
        format!(
            "`size={value}` in `write`: `size` is a number from 1 to 67108864 (K, M, G are powers of 1024)"
        )
    };
    for value in [
        "0",
        "",
        "-1",
        "1.5",
        "12B",
        "KiB",
        "65M",
        "99999999999999999999",
        "18446744073709551615G",
    ] {
        check(&format!("write/size={value}"), &size(value));
    }
    check("write/size=1,,2", &size(""));
    check(
        "write/to=stdout",
        "`to=stdout` in `write`: `to` is one of null, file, pipe",
    );
    check(
        "stat/file=passwd",
        "`file=passwd` in `stat`: `file` is an absolute path",
    );
    check(
        "write/size=1M/to=null,pipe",
        "`size=1048576` in `write`: `size` is at most 65536 with to=pipe: what a pipe holds",
    );
    if huge_page_bytes() as u64 == 2 * MIB {
        check(
            "heap/MiB=3/pages=thp",
            "`MiB=3` in `heap`: `MiB` is a multiple of 2 with pages=thp: the size of a huge page",
        );
    }
    assert!(parse("").is_err());
}

#[test]
fn what_a_run_must_know_of_a_loop() {
    let check = |text, bytes, expected, children| {
        let spec = &parse(text).unwrap()[0];
        assert_eq!(
            (spec.bytes_per_op(), spec.expected(), spec.counts_children()),
            (bytes, expected, children),
            "{text}"
        );
    };
    check("write/to=pipe", Some(512), None, false);
    check("read/size=1K", Some(1024), None, false);
    check("mmap-munmap", None, None, false);
    check("pipe", None, None, true);
    check("fork-wait", None, None, true);
    check("vfork-exec", None, None, true);
    check("spin", None, Some(("instructions:u", 2.0)), false);
    check("heap", None, Some(("page-faults", 1.0)), false);
    check("heap/pass=2", None, Some(("page-faults", 0.0)), false);
    check(
        "heap/pages=populate",
        None,
        Some(("page-faults", 0.0)),
        false,
    );
    assert_eq!(
        parse("heap/MiB=2").unwrap()[0].granularity(),
        2 * MIB / page_bytes() as u64
    );
    assert_eq!(parse("write").unwrap()[0].granularity(), 1);
}

/// Texts that are nearly right more often than chance would have it.
fn nearly_right() -> impl Strategy<Value = String> {
    let name = prop::sample::select(CATALOG.iter().map(|info| info.name).collect::<Vec<_>>());
    let key = prop::sample::select(vec![
        "size", "to", "MiB", "pages", "pass", "via", "file", "program", "x",
    ]);
    let value = prop_oneof![
        "[0-9]{1,8}(K|MiB|g|)",
        "(null|file|pipe|4k|thp|populate|vdso|syscall|1|2)(,[a-z0-9]{1,4})?",
        "/[a-zé=/, ]{0,12}",
        any::<String>(),
    ];
    let part = (key, value).prop_map(|(key, value)| format!("/{key}={value}"));
    (name, prop::collection::vec(part, 0..4))
        .prop_map(|(name, parts)| name.to_owned() + &parts.concat())
}

proptest! {
    #[test]
    fn parse_never_panics_and_specs_are_read_back(text in prop_oneof![nearly_right(), any::<String>()]) {
        for spec in parse(&text).unwrap_or_default() {
            prop_assert_eq!(parse(&spec.to_string()).unwrap(), vec![spec.clone()]);
            let name = spec.name().to_string();
            prop_assert!(!name.contains(char::is_whitespace));
            prop_assert!(spec.granularity() > 0);
        }
    }
}
