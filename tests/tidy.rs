//! The house rules that no compiler checks, read from the sources: who may import whom, what the engine may not
//! name, that every error is explained, that nothing is left for later.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::harness::files_below;

/// Which part may import which (DESIGN §2): imports point right, never left. A part may always import itself.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("net", &["engine"]),
    ("store", &["engine"]),
    ("pty", &["engine"]),
    ("node", &["net", "store", "pty", "engine"]),
    ("sim", &["store", "pty", "engine"]),
    ("gateway", &["node", "engine"]),
    ("ui", &["node", "engine"]),
    ("cli", &["ui", "gateway", "node", "engine"]),
];

/// What the engine's code never names: it is driven, and drives nothing.
const IMPURE: [&str; 12] = [
    "tokio",
    "libp2p",
    "std::net",
    "std::fs",
    "std::env",
    "std::thread",
    "std::process",
    "Instant::now",
    "SystemTime::now",
    "getrandom",
    "thread_rng",
    "HashMap",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The Rust sources of a part: `src/<part>.rs` and everything below `src/<part>/`.
fn sources(part: &str) -> Vec<PathBuf> {
    let mut files = files_below(&root().join("src").join(part));
    files.push(root().join(format!("src/{part}.rs")));
    files.retain(|file| file.extension().is_some_and(|kind| kind == "rs"));
    files.sort();
    files
}

/// Lines of code with their numbers, without comments and without the file's tests.
fn code_of(text: &str) -> Vec<(usize, String)> {
    let mut code = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line == "#[cfg(test)]"
            && text
                .lines()
                .nth(number + 1)
                .is_some_and(|next| next.starts_with("mod tests {"))
        {
            break;
        }
        let line = line.split_once("//").map_or(line, |(before, _)| before);
        code.push((number + 1, line.to_owned()));
    }
    code
}

fn place(file: &Path, line: usize) -> String {
    format!("{}:{line}", file.strip_prefix(root()).unwrap().display())
}

/// Parts named after `crate::` in a line, in groups too: `crate::{node, ui::x}`.
fn imported(line: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect()
    };
    let mut parts = Vec::new();
    for after in line.split("crate::").skip(1) {
        if let Some(group) = after.strip_prefix('{') {
            let mut depth = 0;
            let mut begin = true;
            for (at, character) in group.char_indices() {
                if begin && !character.is_whitespace() {
                    parts.push(word(&group[at..]));
                    begin = false;
                }
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => begin = true,
                    _ => {}
                }
            }
        } else {
            parts.push(word(after));
        }
    }
    parts
}

#[test]
fn imports_point_towards_the_engine() {
    let known: BTreeSet<&str> = MAY_IMPORT.iter().map(|(part, _)| *part).collect();
    let mut wrong = Vec::new();
    for (part, may) in MAY_IMPORT {
        for file in sources(part) {
            for (number, line) in code_of(&read(&file)) {
                for import in imported(&line) {
                    let fine = import == *part || may.contains(&import.as_str());
                    if known.contains(import.as_str()) && !fine {
                        wrong.push(format!("{}: {part} imports {import}", place(&file, number)));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_part_of_the_house_stands_in_the_table() {
    let mut parts: BTreeSet<String> = std::fs::read_dir(root().join("src"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    parts.retain(|part| part != "main" && part != "lib");

    let known: BTreeSet<String> = MAY_IMPORT
        .iter()
        .map(|(part, _)| (*part).to_owned())
        .collect();
    assert_eq!(parts, known);
}

#[test]
fn the_search_for_imports_finds_them_in_every_form() {
    assert_eq!(imported("use crate::node::Handle;"), ["node"]);
    assert_eq!(
        imported("use crate::{node, ui::{a, b}, engine};"),
        ["node", "ui", "engine"]
    );
    assert_eq!(
        imported("let x = crate::net::X(crate::ui::y);"),
        ["net", "ui"]
    );
    assert_eq!(imported("use super::x;"), [""; 0]);
    let text = "a\n// crate::net\n#[cfg(test)]\nmod tests {\nuse crate::net;";
    assert!(
        code_of(text)
            .iter()
            .all(|(_, line)| imported(line).is_empty())
    );
}

#[test]
fn the_engine_is_pure() {
    let mut wrong = Vec::new();
    for file in sources("engine") {
        // Tests too: the engine is tested without the world.
        for (number, line) in read(&file).lines().enumerate() {
            let code = line.split_once("//").map_or(line, |(before, _)| before);
            for word in IMPURE {
                if code.contains(word) {
                    wrong.push(format!("{}: {word}", place(&file, number + 1)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_clock_of_the_node_and_the_settings_touch_the_world_directly() {
    // The lint bans these everywhere; whoever lifts the ban says why, and there are few.
    let mut lifted = BTreeSet::new();
    for (part, _) in MAY_IMPORT {
        for file in sources(part) {
            let text = read(&file);
            let begins = text.find("clippy::disallowed_methods");
            if begins.is_some_and(|at| !text[..at].contains("#[cfg(test)]")) {
                lifted.insert(place(&file, 0).trim_end_matches(":0").to_owned());
            }
        }
    }
    for file in ["src/node/clock.rs", "src/cli/config.rs"] {
        assert!(lifted.contains(file), "{file} is the one place that may");
    }
    assert!(
        lifted.iter().all(|file| !file.starts_with("src/engine")),
        "{lifted:?}"
    );
}

#[test]
fn every_error_code_is_explained() {
    let errors = read("src/engine/error.rs");
    let codes: Vec<&str> = errors
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Self::")?.split_once("=> \""))
        .filter_map(|(_, code)| code.split('"').next())
        .collect();
    assert!(codes.len() > 30, "{codes:?}");

    let explained = read("docs/ERRORS.md");
    let missing: Vec<&&str> = codes
        .iter()
        .filter(|code| !explained.contains(&format!("`{code}`")))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/ERRORS.md says nothing about {missing:?}"
    );
}

#[test]
fn every_test_file_is_run() {
    let main = read("tests/main.rs");
    let lab = read("tests/lab.rs");
    for file in files_below(&root().join("tests")) {
        let name = file
            .strip_prefix(root().join("tests"))
            .unwrap()
            .display()
            .to_string();
        let module = file.file_stem().unwrap().to_str().unwrap();
        let listed = match name.as_str() {
            // No programs, but what programs printed and the script that wrote it down.
            recorded if recorded.starts_with("recordings/") => true,
            "harness/recording.rs" => lab.contains("\"harness/recording.rs\""),
            "main.rs" | "lab.rs" | "harness/mod.rs" | "harness/window.rs" | "harness/wire.rs" => {
                true
            }
            lab_file if lab_file.starts_with("lab/") => lab.contains(&format!("\"{lab_file}\"")),
            _ => main.contains(&format!("mod {module};")),
        };
        assert!(
            listed,
            "tests/{name} is in neither tests/main.rs nor tests/lab.rs"
        );
    }
}

/// Names in backticks that are sentences: of tests, and of nothing else that has so many words.
fn tests_named_in(text: &str) -> BTreeSet<&str> {
    let is_sentence = |name: &&str| {
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        name.chars().all(letters) && name.matches('_').count() > 2
    };
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(is_sentence)
        .collect()
}

#[test]
fn every_test_that_the_page_on_terminals_names_exists() {
    let page = read("docs/TERMINAL.md");
    let named = tests_named_in(&page);
    assert!(named.len() > 80, "{}", named.len());
    let mut sources = String::new();
    for folder in ["src", "tests"] {
        for file in files_below(&root().join(folder)) {
            sources.push_str(&std::fs::read_to_string(file).unwrap_or_default());
        }
    }

    let missing: Vec<&&str> = named
        .iter()
        .filter(|name| !sources.contains(&format!("fn {name}(")))
        .collect();

    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn nothing_is_left_for_later() {
    let left = [
        ["to", "do!("].concat(),
        ["unimplement", "ed!("].concat(),
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X"].concat(),
    ];
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "examples", "benches", "simulations", "docs"] {
        for file in files_below(&root().join(folder)) {
            let Ok(text) = std::fs::read_to_string(&file) else {
                continue;
            };
            for (number, line) in text.lines().enumerate() {
                if left.iter().any(|word| line.contains(word.as_str())) {
                    wrong.push(format!("{}: {line}", place(&file, number + 1)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_dependency_has_its_reason() {
    for manifest in ["Cargo.toml", "simulations/Cargo.toml"] {
        let text = read(manifest);
        let lines: Vec<&str> = text.lines().collect();
        let mut inside = false;
        for (number, line) in lines.iter().enumerate() {
            if line.starts_with('[') {
                inside = line.ends_with("dependencies]");
            }
            let begins = line.split_once(" = ").is_some_and(|(name, _)| {
                name.chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            });
            if inside && begins {
                // A group of lines may share the reason above it.
                let above = lines[..number]
                    .iter()
                    .rev()
                    .take_while(|above| !above.is_empty());
                let explained = above
                    .take(4)
                    .any(|above| above.trim_start().starts_with("# - "));
                assert!(explained, "{manifest}:{}: {line}", number + 1);
            }
        }
    }
}

#[test]
fn the_readme_begins_with_the_two_commands() {
    let readme = read("README.md");
    let first: String = readme.lines().take(40).collect::<Vec<_>>().join("\n");
    for command in [
        "cargo run --release -- share",
        "cargo run --release -- join <ticket>",
        "cargo test --workspace",
    ] {
        assert!(first.contains(command), "{command}");
    }
}

#[test]
fn limits_that_the_protocol_names_stand_in_the_file_of_limits() {
    let limits = read("src/engine/limits.rs");
    let protocol = read("docs/PROTOCOL.md");
    let (_, table) = protocol.split_once("\n## Limits\n").unwrap();
    let named: Vec<&str> = table
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect();

    assert!(named.len() > 60, "{named:?}");
    for name in named {
        let constant = format!("pub const {name}:");
        assert!(limits.contains(&constant), "{name} is no limit");
    }
}
