//! `docs/supervisor.md` says which test shows which rule of OTP; here it is held to that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Rules of the manual page, of the design principles, of the code; differences; additions.
const LETTERS: [char; 5] = ['S', 'P', 'C', 'D', 'A'];

/// Backticked words of the prose with so many underscores are names of tests: no name of OTP's has more than three.
const UNDERSCORES_OF_A_TEST: usize = 4;

#[test]
fn the_page_names_tests_that_exist_and_leaves_no_rule_unshown() {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(crate_root.join("docs/supervisor.md")).expect("the page is there");
    let mut tests = BTreeSet::new();
    collect_tests(&crate_root.join("src"), &mut tests);
    collect_tests(&crate_root.join("tests"), &mut tests);
    let faults = faults(&page, &tests);
    assert!(faults.is_empty(), "docs/supervisor.md:\n{}", faults.join("\n"));
}

#[test]
fn a_page_that_lies_is_found_out() {
    let tests = BTreeSet::from(["shown".to_owned()]);
    let sound = "| S1 | a rule | same | `shown` |\n| P1 | advice | not applicable: advice | |\n\
                 | C1 | a rule | differs: D1, D2 | |\n| D1 | a way | why | `shown` |\n| D2 | a lack | why | absent |\n\
                 | A1 | more | why | `shown` |\n";
    assert_eq!(faults(sound, &tests), Vec::<String>::new());
    for (truth, lie, fault) in [
        ("same | `shown`", "same | `invented`", "S1: no test `invented`"),
        ("same | `shown`", "same | ", "S1: nothing shows it"),
        ("same |", "roughly |", "S1: `roughly` is no verdict"),
        ("not applicable: advice", "not applicable: ", "P1: `not applicable:` is no verdict"),
        ("D1, D2", "D1, D3", "C1: no difference D3"),
        ("D1, D2", "D1", "D2: no rule differs so"),
        ("why | `shown` |\n| D2", "why | |\n| D2", "D1: nothing shows it"),
        ("| A1 | more | why | `shown` |", "", "A: no rows"),
        ("| D2 |", "| D3 |", "D3: out of order"),
        ("| a rule | same", "| `a_rule_that_has_a_test` | same", "no test `a_rule_that_has_a_test`"),
        ("| S1 | a rule |", "| S1 |", "S1: 3 cells"),
    ] {
        let page = sound.replacen(truth, lie, 1);
        assert_ne!(page, sound, "{lie}");
        let found = faults(&page, &tests);
        assert!(found.contains(&fault.to_owned()), "{fault}: {found:?}");
    }
}

#[test]
fn only_functions_that_are_tests_count_as_tests() {
    let source = "#[test]\nfn a() {}\nfn b() {}\n#[tokio::test(start_paused = true)]\n/// Said.\nasync fn c() {}\n\
                  #[cfg(test)]\nfn d() {}\n    #[test]\n    fn e(tape in any()) {}\n#[test]\n// fn f() {}\n";
    let mut tests = BTreeSet::new();
    collect_tests_of(source, &mut tests);
    assert_eq!(tests.into_iter().collect::<Vec<_>>(), ["a", "c", "e"]);
}

fn faults(page: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut counts: BTreeMap<char, usize> = BTreeMap::new();
    let (mut differences, mut differing) = (BTreeSet::new(), BTreeMap::new());
    for (id, cells) in page.lines().filter_map(row) {
        let letter = id.chars().next().expect("a row has an id");
        let count = counts.entry(letter).or_default();
        *count += 1;
        if id != format!("{letter}{count}") {
            faults.push(format!("{id}: out of order"));
        }
        let [_, _, verdict, shown] = cells[..] else {
            faults.push(format!("{id}: {} cells", cells.len()));
            continue;
        };
        let names = backticked(shown);
        faults
            .extend(names.iter().filter(|name| !tests.contains(**name)).map(|name| format!("{id}: no test `{name}`")));
        let needs_test = match (letter, verdict.split_once(": ")) {
            ('D', _) => {
                differences.insert(id.to_owned());
                shown != "absent"
            }
            ('A', _) => true,
            (_, Some(("not applicable", _))) => false,
            (_, Some(("differs", which))) => {
                differing.extend(which.split(", ").map(|difference| (difference.to_owned(), id.to_owned())));
                false
            }
            _ => {
                if verdict != "same" {
                    faults.push(format!("{id}: `{verdict}` is no verdict"));
                }
                true
            }
        };
        if needs_test && names.is_empty() {
            faults.push(format!("{id}: nothing shows it"));
        }
    }
    let empty = LETTERS.iter().filter(|letter| !counts.contains_key(letter));
    faults.extend(empty.map(|letter| format!("{letter}: no rows")));
    let unknown = differing.iter().filter(|(difference, _)| !differences.contains(*difference));
    faults.extend(unknown.map(|(difference, id)| format!("{id}: no difference {difference}")));
    let unused = differences.iter().filter(|difference| !differing.contains_key(*difference));
    faults.extend(unused.map(|difference| format!("{difference}: no rule differs so")));
    let is_test_name = |word: &&str| word.matches('_').count() >= UNDERSCORES_OF_A_TEST && !word.contains(' ');
    let named = backticked(page).into_iter().filter(is_test_name).filter(|word| !tests.contains(*word));
    faults.extend(named.map(|word| format!("no test `{word}`")));
    faults
}

/// A line of a table that begins with an id, as `D12`, and its cells.
fn row(line: &str) -> Option<(&str, Vec<&str>)> {
    let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
    let id = *cells.first()?;
    let number = id.strip_prefix(LETTERS)?;
    number.parse::<usize>().ok()?;
    Some((id, cells))
}

fn backticked(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn collect_tests(folder: &Path, tests: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("can be listed").path();
        if path.is_dir() {
            collect_tests(&path, tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            collect_tests_of(&fs::read_to_string(&path).expect("can be read"), tests);
        }
    }
}

fn collect_tests_of(source: &str, tests: &mut BTreeSet<String>) {
    let mut is_test = false;
    for line in source.lines().map(str::trim_start) {
        if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else if !line.starts_with("///") {
            let name = line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.split_once('('));
            if let (true, Some((name, _))) = (is_test, name) {
                tests.insert(name.to_owned());
            }
            is_test = false;
        }
    }
}
