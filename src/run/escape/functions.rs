//! Which function of a Go file a line is in, by the file's text alone. Knows brackets, words and comments of the language; never parses it.

/// The functions of a file, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Functions(Vec<Function>);

/// A function that is declared at the top of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Function {
    /// As the linker names it in its package: `(*Point).Copy`.
    name: String,
    /// Its first line and its last.
    lines: [u32; 2],
}

impl Functions {
    /// Those of a file with this text.
    pub fn of(text: &str) -> Functions {
        let mut functions: Vec<Function> = Vec::new();
        // A function whose end is not yet seen.
        let mut open: Option<Function> = None;
        let (mut line, mut depth) = (1, 0_usize);
        let mut is_first = true;
        let mut last = b'\n';
        let mut rest = text;
        while let Some(&byte) = rest.as_bytes().first() {
            let token = token(rest);
            match byte {
                b'\n' => {
                    if depth == 0
                        && let Some(function) = open.take()
                    {
                        functions.push(Function {
                            lines: [function.lines[0], line],
                            ..function
                        });
                    }
                }
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                // A literal is declared as something.
                b'f' if token == "func" && is_first && depth == 0 && last != b'=' => {
                    open = name(&rest[token.len()..]).map(|name| Function {
                        name,
                        lines: [line, line],
                    });
                }
                _ => {}
            }
            line += token.bytes().filter(|&byte| byte == b'\n').count() as u32;
            let is_comment = token.starts_with("//") || token.starts_with("/*");
            if byte == b'\n' {
                is_first = true;
            } else if !byte.is_ascii_whitespace() && !is_comment {
                is_first = false;
                last = byte;
            }
            rest = &rest[token.len()..];
        }
        functions.extend(open.map(|function| Function {
            lines: [function.lines[0], line],
            ..function
        }));
        Functions(functions)
    }

    /// The function that this line is in, literals counted as part of who declares them.
    pub fn at(&self, line: u32) -> Option<&str> {
        let behind = self.0.partition_point(|function| function.lines[0] <= line);
        let function = self.0.get(behind.checked_sub(1)?)?;
        (line <= function.lines[1]).then_some(&*function.name)
    }
}

/// The first comment, literal, word or character of a text that is not empty.
fn token(text: &str) -> &str {
    let through = |mark: &str| {
        let found = text[mark.len()..].find(mark);
        found.map_or(text.len(), |at| at + 2 * mark.len())
    };
    let quoted = |quote: u8| {
        let mut bytes = text.bytes().enumerate().skip(1);
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'\\' => drop(bytes.next()),
                // One that is not closed ends with its line.
                b'\n' => return at,
                byte if byte == quote => return at + 1,
                _ => {}
            }
        }
        text.len()
    };
    let end = match text.as_bytes() {
        [b'/', b'/', ..] => text.find('\n').unwrap_or(text.len()),
        [b'/', b'*', ..] => text[2..].find("*/").map_or(text.len(), |at| at + 4),
        [b'`', ..] => through("`"),
        [quote @ (b'"' | b'\''), ..] => quoted(*quote),
        _ => match text.find(|one: char| !one.is_alphanumeric() && one != '_') {
            Some(0) => text.chars().next().map_or(0, char::len_utf8),
            Some(end) => end,
            None => text.len(),
        },
    };
    &text[..end]
}

/// The name of a function, from what stands behind `func`; none for a literal.
fn name(declared: &str) -> Option<String> {
    let declared = declared.trim_start();
    let (receiver, declared) = match declared.strip_prefix('(') {
        None => (None, declared),
        Some(inside) => {
            let (receiver, behind) = inside.split_once(')')?;
            // Without the types of its parameters.
            let receiver = receiver.split('[').next()?;
            (receiver.split_whitespace().last(), behind.trim_start())
        }
    };
    let end = declared.find(|one: char| !one.is_alphanumeric() && one != '_');
    let name = &declared[..end.unwrap_or(declared.len())];
    if name.is_empty() {
        return None;
    }
    Some(match receiver {
        None => name.to_owned(),
        Some(pointer) if pointer.starts_with('*') => format!("({pointer}).{name}"),
        Some(receiver) => format!("{receiver}.{name}"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_belong_to_the_functions_they_are_in() {
        let text = "package p // func no() {\n\
            var f = func() int { return 1 }\n\
            func One(a []int) struct{ x int } {\n\
            \tg := func() { println(\"}\", '}', `}\n}`) }\n\
            \t/* } */ g()\n\
            }\n\
            var between = &T{}\n\
            func (t *Tree[K, V]) Put(k K) {}; var same = 1\n\
            func assembly(x int) int\n\
            func (Plain) m() {\n\
            \tx := 'ä'\n\
            }\n\
            var (\n\
            \th =\n\
            func() {}\n\
            )\n\
            func last() {";
        let functions = Functions::of(text);
        let check = |line, want: Option<&str>| assert_eq!(functions.at(line), want, "{line}");
        check(1, None);
        check(2, None);
        for line in 3..=7 {
            check(line, Some("One"));
        }
        check(8, None);
        check(9, Some("(*Tree).Put"));
        check(10, Some("assembly"));
        check(12, Some("Plain.m"));
        check(14, None);
        check(16, None);
        check(18, Some("last"));
        check(99, None);
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "([a-z(){}\\[\\]\"'`\\\\\n/*=ä ]|func )*") {
            let functions = Functions::of(&text);
            let lines = text.matches('\n').count() as u32 + 1;
            prop_assert!(functions.0.iter().all(|one| one.lines[0] <= one.lines[1] && one.lines[1] <= lines));
        }
    }
}
