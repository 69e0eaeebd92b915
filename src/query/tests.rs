use proptest::prelude::*;

use super::*;

type Pairs<'a> = std::iter::Copied<std::slice::Iter<'a, (&'a str, &'a str)>>;

fn view<'a>(name: &'a str, config: &'a [(&'a str, &'a str)]) -> View<'a, Pairs<'a>> {
    View {
        name,
        gomaxprocs: true,
        file: "new.txt",
        config: config.iter().copied(),
        context: None,
    }
}

fn query(table: &str, row: &str, col: &str, ignore: &str) -> Query {
    let typed = Expressions {
        filter: "*",
        table,
        row,
        col,
        ignore,
    };
    Query::new(&typed).unwrap()
}

/// `key:value` of every field that is not empty.
fn written(projection: &Projection, key: Key) -> String {
    let values = projection
        .values(key)
        .filter(|(_, value)| !value.is_empty());
    let words: Vec<String> = values
        .map(|(name, value)| format!("{name}:{value}"))
        .collect();
    words.join(" ")
}

/// The values of one row field as they sort, when observed in the given order.
fn sorted(row: &str, observed: &[&str]) -> Vec<String> {
    let mut row = query("", row, "", "").row;
    let mut keys: Vec<Key> = observed
        .iter()
        .map(|&value| row.project(&view("", &[("k", value)])))
        .collect();
    row.sort(&mut keys);
    keys.iter().map(|&key| row.label(key)).collect()
}

#[test]
fn filters_choose_results_and_values() {
    const UNITS: [UnitNames<'_>; 3] = [
        UnitNames {
            unit: "sec/op",
            original: Some("ns/op"),
        },
        UnitNames {
            unit: "B/op",
            original: None,
        },
        UnitNames {
            unit: "cycles:u/op",
            original: None,
        },
    ];
    let config = [("goos", "linux"), ("note", "a b"), ("goos", "plan9")];
    let result = view("Encode/format=json/deep-48", &config);
    // One digit a unit.
    let check = |text: &str, want: &str| {
        let mut filter = Filter::new(text).unwrap();
        let kept = filter.keeps(&result);
        let each: String = UNITS
            .iter()
            .map(|&unit| match filter.keeps_unit(&result, unit) {
                true => '1',
                false => '0',
            })
            .collect();
        assert_eq!(each, want, "{text}");
        match kept {
            Some(true) => assert_eq!(each, "111", "{text}"),
            Some(false) => assert_eq!(each, "000", "{text}"),
            None => assert!(text.contains("unit"), "{text}"),
        }
    };
    check("*", "111");
    check("-*", "000");
    check(".name:Encode", "111");
    check(".name:Enc", "000");
    check(".name:/Enc/", "111");
    check(".name:/^(json|Encode)$/", "111");
    check(".fullname:Encode/format=json/deep-48", "111");
    check(".file:new.txt", "111");
    check("/format:json", "111");
    check("/format:(gob OR json)", "111");
    check("/format:(gob OR /^js/)", "111");
    check("/form:json", "000");
    check("/gomaxprocs:48", "111");
    check("goos:plan9", "111");
    check("goos:linux", "000");
    check("note:\"a b\"", "111");
    check("\"no\\u0074e\" : \"a\\x20b\"", "111");
    check("missing:\"\"", "111");
    check("missing:/^$/", "111");
    check("goos:plan9 /format:gob", "000");
    check("goos:plan9 AND /format:json", "111");
    check("goos:linux OR /format:json", "111");
    check("goos:linux OR /format:json goos:linux", "000");
    check("(goos:linux OR /format:json) goos:plan9", "111");
    check("-goos:linux -/format:gob", "111");
    check("--goos:linux", "000");
    check("-(goos:linux OR /format:json)", "000");
    check("-(goos:linux)-/format:gob", "111");
    check(".unit:sec/op", "100");
    check(".unit:ns/op", "100");
    check(".unit:cycles:u/op", "001");
    check(".unit:\"cycles:u/op\"", "001");
    check("-.unit:ns/op", "011");
    check(".unit:(ns/op OR B/op)", "110");
    check("goos:plan9 .unit:/op$/", "111");
    check("goos:linux .unit:ns/op", "000");
    check("goos:linux OR .unit:ns/op", "100");
    check(
        "goos:plan9 AND --(goos:linux OR .unit:(ns/op OR cycles:u/op))",
        "101",
    );
    check(".fullname:/[/](d|/)[[:alpha:]]+-\\d{2}$/", "111");
    check(".fullname:/=json\\/d/", "111");
    check(".name:/(?i)^ENCODE$/", "111");
}

#[test]
fn filters_that_are_refused_say_where() {
    let check = |text: &str, column: usize, want: &str| {
        let error = Filter::new(text).unwrap_err();
        assert_eq!(
            (error.column(), error.message.as_str()),
            (column, want),
            "{text}"
        );
        assert!(!error.to_string().contains('\n'), "{text}");
    };
    check("", 1, "expected a term such as key:value");
    check("()", 2, "expected a term such as key:value, not `)`");
    check("a", 2, "expected `:` and a value behind the key \"a\"");
    check(
        "a b:c",
        3,
        "expected `:` and a value behind the key \"a\", not \"b\"",
    );
    check("a:", 3, "expected a value");
    check(
        "a:*",
        3,
        "expected a value, not `*` (a word with it goes in double quotes)",
    );
    check(
        "a:-1",
        3,
        "expected a value, not `-` (a word with it goes in double quotes)",
    );
    check("a:b AND", 8, "expected a term such as key:value");
    check("OR", 1, "expected a term such as key:value, not OR");
    check("(a:b", 5, "expected `)`");
    check("a:b)", 4, "expected the end or another term, not `)`");
    check(
        "a:(b c)",
        6,
        "expected OR or `)` in a list of values, not \"c\"",
    );
    check("a:()", 4, "expected a value, not `)`");
    check("a:(b OR OR)", 9, "expected a value, not OR");
    check("µ:\"b", 3, "a quote that is not closed");
    check("µ:\"\\q\"", 4, "unknown escape");
    check("a:\"\\xff\"", 3, "the escapes are not UTF-8");
    check("a:/b", 3, "a regular expression without its closing `/`");
    check("a:/(/", 3, "a regular expression without its closing `/`");
    check(
        "a:/b/c",
        6,
        "the regular expression ended before this: a `/` inside it is spelled `\\/`",
    );
    check(
        "a:/b{2,1}/",
        3,
        "regular expression: found counted repetition with a min bigger than its max",
    );
    check(
        "a:/((x{999}){999}){999}/",
        3,
        "regular expression: compiled regex exceeded size limit",
    );
    check("\"\":b", 1, "a key must not be empty");
    check(
        "a:b .config:c",
        5,
        "`.config` is for projections: name one key of the configuration",
    );
    check(
        ".nme:b",
        1,
        "unknown key `.nme`: those with a dot are .name, .fullname, .file, .unit and, in \
         projections, .config",
    );
    check(&"-".repeat(100_000), 201, "nested too deeply");
    check(&"(".repeat(100_000), 201, "nested too deeply");
}

#[test]
fn an_error_points_at_its_place() {
    let error = Filter::new("goos:linux\t(a:b").unwrap_err();
    assert_eq!(error.to_string(), "filter: expected `)`, at character 16");
    assert_eq!(error.pointer(), "goos:linux (a:b\n               ^");
}

#[test]
fn projections_that_are_refused_say_where() {
    let check = |text: &str, column: usize, want: &str| {
        let typed = Expressions {
            row: text,
            ..Expressions::default()
        };
        let error = Query::new(&typed).unwrap_err();
        assert_eq!(error.expression, "row");
        assert_eq!(
            (error.column(), error.message.as_str()),
            (column, want),
            "{text}"
        );
    };
    check(
        "a,,b",
        3,
        "expected a key, not `,` (a word with it goes in double quotes)",
    );
    check(
        ",a",
        1,
        "expected a key, not `,` (a word with it goes in double quotes)",
    );
    check("a,", 3, "expected a key");
    check(
        "a@",
        3,
        "expected an order (alpha, num or a list of values in parentheses)",
    );
    check("a@(", 4, "expected a value");
    check("a@()", 4, "expected a value, not `)`");
    check("a@(b", 5, "expected a value or `)`");
    check(
        "a b@size",
        5,
        "unknown order \"size\": the orders are alpha, num, first and a list of values in \
         parentheses",
    );
    check(
        ".config@(a b)",
        1,
        "`.config` is many keys: list the values of one of them",
    );
    check(
        "a .unit",
        3,
        "`.unit` can stand in `table` alone, and there once: a table always has one unit",
    );
    check("/", 1, "expected a parameter's name after `/`");
}

#[test]
fn the_defaults_are_benchstats() {
    let mut query = Query::new(&Expressions::default()).unwrap();
    let config = [("goos", "linux"), ("pkg", "x/y")];
    let result = view("Encode/format=json-48", &config);
    assert_eq!(query.filter.keeps(&result), Some(true));
    let key = query.table.project(&result);
    assert_eq!(written(&query.table, key), "goos:linux pkg:x/y");
    let of_unit = query.table.with_unit(key, "sec/op");
    assert_eq!(
        written(&query.table, of_unit),
        "goos:linux pkg:x/y .unit:sec/op"
    );
    assert_eq!(query.table.value(of_unit, ".unit"), "sec/op");
    let key = query.row.project(&result);
    assert_eq!(query.row.label(key), "Encode/format=json-48");
    assert_eq!(query.row.with_unit(key, "sec/op"), key);
    let key = query.col.project(&result);
    assert_eq!(query.col.label(key), "new.txt");
    let key = query.residue.project(&result);
    assert_eq!(written(&query.residue, key), "");
}

#[test]
fn a_projection_takes_its_part_of_a_result() {
    let config = [("goos", "linux"), ("pkg", "x/y")];
    let check = |row: &str, col: &str, name: &str, want: &str| {
        let mut row = query("", row, col, "").row;
        let key = row.project(&view(name, &config));
        assert_eq!(written(&row, key), want, "{row:?} {name}");
    };
    check("", "", "A", "");
    check(".name", "", "A/a=1", ".name:A");
    check(".name", "", "A-4", ".name:A");
    check(".name", "", "A/a-4", ".name:A");
    check(".name", "", "A-4x", ".name:A-4x");
    check(".name", "", "A-", ".name:A-");
    check(".name", "", "A-4/b", ".name:A-4");
    check("/a", "", "A", "");
    check("/a", "", "A/a=1/b=2-4", "/a:1");
    check("/a", "", "A/a=1/a=2", "/a:1");
    check("/a", "", "A/aa=1", "");
    check("/gomaxprocs", "", "A/b-4", "/gomaxprocs:4");
    check("/gomaxprocs", "", "A/gomaxprocs=4/c", "/gomaxprocs:4");
    check("pkg, .name /a", "", "A/a=1", "pkg:x/y .name:A /a:1");
    check(".config", "", "A", "goos:linux pkg:x/y");
    check(".config", "goos", "A", "pkg:x/y");
    check("pkg .config", "", "A", "pkg:x/y goos:linux");
    check(".fullname", "", "A/a=1-4", ".fullname:A/a=1-4");
    check(".fullname", "/a", "A/a=1-4", ".fullname:A-4");
    check(".fullname", "/a", "A/a=1/a=2", ".fullname:A");
    check(".fullname", "/a", "A/b=1/a=1/c", ".fullname:A/b=1/c");
    check(".fullname", ".name", "A/a=1", ".fullname:*/a=1");
    check(".fullname", "/gomaxprocs", "A/a=1-4", ".fullname:A/a=1");
    check(".fullname", "/gomaxprocs", "A/gomaxprocs=4", ".fullname:A");
    check(".fullname", "a", "A/a=1", ".fullname:A/a=1");
}

#[test]
fn names_of_our_own_do_not_end_in_gomaxprocs() {
    let mut query = query("", ".name,/gomaxprocs", "", "");
    let own = View {
        gomaxprocs: false,
        ..view("gcc-12", &[])
    };
    let key = query.row.project(&own);
    assert_eq!(written(&query.row, key), ".name:gcc-12");
}

#[test]
fn equal_values_make_equal_keys() {
    let mut row = query("", ".config", "ignored", "").row;
    let mut key = |config: &[(&str, &str)]| row.project(&view("A", config));
    let nothing = key(&[]);
    let one = key(&[("a", "1")]);
    assert_ne!(nothing, one);
    assert_eq!(key(&[("a", "1"), ("b", "")]), one);
    let both = key(&[("a", "1"), ("b", "2")]);
    assert_ne!(both, one);
    // In any order; with a key that is mentioned elsewhere; after fields were added.
    assert_eq!(key(&[("ignored", "7"), ("b", "2"), ("a", "1")]), both);
    assert_eq!(key(&[("a", "1")]), one);
    assert_eq!(key(&[("a", "0"), ("a", "1")]), one);
    assert_eq!(key(&[("c", "")]), nothing);
}

#[test]
fn a_context_is_looked_at_once() {
    let mut query = query(".config", ".name", ".name,goos", "");
    let mut keys = |name: &str, os: &str, context: Option<u64>| {
        let config = [("os", os), ("goos", os)];
        let view = View {
            context,
            ..view(name, &config)
        };
        let table = query.table.project(&view);
        let unit = query.table.with_unit(table, "sec/op");
        let keys = [query.row.project(&view), query.col.project(&view)];
        let label = query.table.label(unit);
        (label, query.row.label(keys[0]), query.col.label(keys[1]))
    };
    let mut check = |name: &str, os: &str, context: Option<u64>| {
        let want = (
            format!("{os} sec/op"),
            name.to_owned(),
            format!("{name} {os}"),
        );
        assert_eq!(keys(name, os, context), want);
    };
    check("A", "linux", Some(1));
    check("B", "linux", Some(1));
    check("B", "plan9", Some(2));
    check("B", "linux", Some(1));
    check("A", "plan9", None);
}

#[test]
fn keys_sort_as_asked() {
    let check = |row: &str, observed: &[&str], want: &[&str]| {
        assert_eq!(sorted(row, observed), want, "{row}");
    };
    check("k", &["b", "c", "a", "c"], &["b", "c", "c", "a"]);
    check("k@first", &["b", "a"], &["b", "a"]);
    check("k@alpha", &["b", "", "a", "B"], &["", "B", "a", "b"]);
    check(
        "k@num",
        &[
            "x", "1Mi", "2k", "", "a", "1.5", "1M", "3", "-1", "20", "100",
        ],
        &[
            "-1", "1.5", "3", "20", "100", "2k", "1M", "1Mi", "", "a", "x",
        ],
    );
    check(
        "k@num",
        &["nan", "1.0", "inf", "NaN", "1", "-inf", "pipe"],
        &["-inf", "1", "1.0", "inf", "NaN", "nan", "pipe"],
    );
    check("k@(c \"\" a)", &["a", "c", ""], &["c", "", "a"]);
    check(".config@alpha", &["b", "a"], &["a", "b"]);
    check(".config", &["b", "", "a"], &["b", "", "a"]);
}

#[test]
fn fields_sort_one_after_the_other() {
    let mut row = query("", "a@num,b", "", "").row;
    let mut keys: Vec<Key> = [("10", "y"), ("9", "x"), ("10", "x"), ("9", "y")]
        .iter()
        .map(|(a, b)| row.project(&view("", &[("a", a), ("b", b)])))
        .collect();
    row.sort(&mut keys);
    let labels: Vec<String> = keys.iter().map(|&key| row.label(key)).collect();
    assert_eq!(labels, ["9 y", "9 x", "10 y", "10 x"]);
}

#[test]
fn units_sort_where_the_table_says() {
    let check = |table: &str, want: &[&str]| {
        let mut table = query(table, "", "", "").table;
        let mut keys = Vec::new();
        for os in ["linux", "plan9"] {
            let key = table.project(&view("A", &[("goos", os)]));
            keys.extend(["sec/op", "B/op"].map(|unit| table.with_unit(key, unit)));
        }
        table.sort(&mut keys);
        let labels: Vec<String> = keys.iter().map(|&key| table.label(key)).collect();
        assert_eq!(labels, want, "{table:?}");
    };
    check(
        ".config",
        &["linux sec/op", "linux B/op", "plan9 sec/op", "plan9 B/op"],
    );
    check(
        ".unit@alpha .config",
        &["B/op linux", "B/op plan9", "sec/op linux", "sec/op plan9"],
    );
}

#[test]
fn listed_values_filter() {
    let check = |row: &str, col: &str, name: &str, want: Option<bool>| {
        let mut query = query(".unit@(sec/op),.config", row, col, "");
        let result = view(name, &[("goos", "linux")]);
        assert_eq!(query.filter.keeps(&result), want, "{row} {col} {name}");
        let names = |unit| UnitNames {
            unit,
            original: None,
        };
        assert_eq!(
            query.filter.keeps_unit(&result, names("sec/op")),
            want.is_none()
        );
        assert!(!query.filter.keeps_unit(&result, names("B/op")));
    };
    check("goos@(linux plan9)", "", "A", None);
    check("goos@(plan9)", "", "A", Some(false));
    check(".fullname@(A/a=1)", "", "A/a=1", None);
    check(".fullname@(A)", "/a", "A/a=1", None);
    check(".fullname@(A)", "", "A/a=1", Some(false));
}

#[test]
fn the_residue_tells_what_is_hidden() {
    let check = |row: &str, ignore: &str, names: [&str; 2], want: &[&str]| {
        let mut residue = query("goos", row, "", ignore).residue;
        let mut keys = Vec::new();
        for (name, (file, cpu)) in names.iter().zip([("a", "1"), ("b", "2")]) {
            let config = [("cpu", cpu), ("goos", cpu), ("pkg", "x")];
            keys.push(residue.project(&View {
                file,
                ..view(name, &config)
            }));
        }
        assert_eq!(residue.varying(&keys), want, "{row} {ignore} {names:?}");
        assert!(residue.varying(&keys[..1]).is_empty());
    };
    check(".fullname", "", ["A", "A"], &["cpu", ".file"]);
    check(".fullname", ".file", ["A", "A"], &["cpu"]);
    check(".fullname", ".file cpu", ["A", "A"], &[]);
    check(".fullname", ".file .config", ["A", "A"], &[]);
    let names = |row: &str, a: &str, b: &str, want: &[&str]| {
        check(row, ".config,.file", [a, b], want);
    };
    names(".name", "A/f=j-4", "A/f=g-4", &["/f"]);
    names(".name", "A/f=j-4", "A/f=j-8", &["/gomaxprocs"]);
    names(".name,/f", "A/f=j", "A/f=g", &[]);
    names(".name", "A/f=j", "A", &["/f"]);
    names("/f", "A/f=j", "B/f=g", &[".name"]);
    names(".name", "A/x/f=1", "A/y/f=1", &["part 1 of .fullname"]);
    names(".name", "A/f=1/f=1", "A/f=1/f=2", &["part 2 of .fullname"]);
}

/// Texts made of the language's own pieces: more of them mean something.
fn expression() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-z]{1,3}",
        "\\PC",
        prop::sample::select(vec![
            ":",
            "(",
            ")",
            " ",
            ",",
            "@",
            "-",
            "*",
            "\"",
            "\\",
            "/",
            "AND",
            "OR",
            ".unit",
            ".name",
            ".config",
            ".fullname",
            "/k",
            "@alpha",
            "@num",
            "a:b",
            ":/x/",
            "\n",
            "\\x",
            "[",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_is_taken_or_refused(filter in expression(), table in expression(), row in expression()) {
        for (filter, table, row) in [(filter.as_str(), ".config", "k"), ("*", &table, &row)] {
            let typed = Expressions { filter, table, row, ..Expressions::default() };
            match Query::new(&typed) {
                Ok(mut query) => {
                    let result = view("A/k=b/c-4", &[("a", "b")]);
                    query.filter.keeps(&result);
                    let key = query.table.project(&result);
                    let again = query.table.project(&result);
                    prop_assert_eq!(key, again);
                    let key = query.table.with_unit(key, "b");
                    prop_assert_eq!(query.table.value(key, ".unit"), "b");
                    query.row.project(&result);
                    query.residue.project(&result);
                }
                Err(error) => {
                    prop_assert!(error.text.is_char_boundary(error.offset));
                    prop_assert_eq!(error.pointer().lines().count(), 2);
                }
            }
        }
    }

    #[test]
    fn a_quoted_value_is_taken_as_it_is(value in "[^\n]{0,12}") {
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        let mut filter = Filter::new(&format!("k:\"{quoted}\"")).unwrap();
        prop_assert_eq!(filter.keeps(&view("A", &[("k", &value)])), Some(true));
        prop_assert_eq!(filter.keeps(&view("A", &[("k", &format!("{value}x"))])), Some(false));
    }

    #[test]
    fn sorting_is_a_total_order(
        row in prop::sample::select(vec![
            ".config,k",
            ".config@alpha,k@alpha",
            ".config@num,k@num",
            ".config,k@(a 1 1k)",
        ]),
        values in prop::collection::vec("[-.]?[0-9]{0,2}[kKMiB]{0,2}|nan|inf|[a-c]?", 1..8),
    ) {
        let mut row = query("", row, "", "").row;
        let keys: Vec<Key> = values
            .iter()
            .map(|value| row.project(&view("", &[(value, value), ("k", value)])))
            .collect();
        for &a in &keys {
            for &b in &keys {
                prop_assert_eq!(row.compare(a, b), row.compare(b, a).reverse());
                prop_assert_eq!(row.compare(a, b).is_eq(), a == b);
                for &c in &keys {
                    if row.compare(a, b).is_le() && row.compare(b, c).is_le() {
                        prop_assert!(row.compare(a, c).is_le());
                    }
                }
            }
        }
        let mut sorted = keys.clone();
        row.sort(&mut sorted);
        prop_assert!(sorted.is_sorted_by(|&a, &b| row.compare(a, b).is_le()));
    }

    #[test]
    fn keys_are_equal_exactly_when_their_values_are(
        configs in prop::collection::vec(
            prop::collection::btree_map("[a-c]", "[x-y]?", 0..3), 1..10),
    ) {
        let mut row = query("", ".config", "", "").row;
        let seen: Vec<(Key, Vec<(&str, &str)>)> = configs
            .iter()
            .map(|config| {
                let pairs: Vec<(&str, &str)> = config.iter().map(|(k, v)| (&**k, &**v)).collect();
                let key = row.project(&view("", &pairs));
                (key, pairs.into_iter().filter(|(_, v)| !v.is_empty()).collect())
            })
            .collect();
        for (a, a_pairs) in &seen {
            for (b, b_pairs) in &seen {
                prop_assert_eq!(a == b, a_pairs == b_pairs);
            }
        }
    }
}
