//! The size and layering check: what rustfmt and clippy do not see. Prints every finding; fails if there is one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::layers;

/// Longest file, tests not counted.
const MAX_FILE_LINES: usize = 600;
/// Longest function.
const MAX_FUNCTION_LINES: usize = 70;
/// Longest line, for what rustfmt leaves alone.
const MAX_LINE: usize = 200;

/// Words that mean unfinished work.
const BANNED: &[&str] = &["todo!(", "unimplemented!(", "dbg!(", "FIXME", "XXX:"];
/// What a pure crate must not name.
const IMPURE: &[&str] =
    &["std::fs", "TcpStream", "UdpSocket", "std::thread", "tokio", "SystemTime", "Instant::now", "HashMap", "HashSet"];

/// Checks the whole workspace.
pub(crate) fn run() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let mut findings = Vec::new();
    let mut crates = vec![root.join("xtask")];
    for entry in fs::read_dir(root.join("crates")).context("crates/")? {
        crates.push(entry?.path());
    }
    for tests in ["tests/conformance", "tests/cluster"] {
        if root.join(tests).join("Cargo.toml").is_file() {
            crates.push(root.join(tests));
        }
    }
    crates.sort();
    for path in &crates {
        check_crate(root, path, &mut findings)?;
    }
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: {} crates are fine", crates.len());
        Ok(())
    } else {
        bail!("{} findings", findings.len())
    }
}

fn check_crate(root: &Path, path: &Path, findings: &mut Vec<String>) -> Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let manifest = fs::read_to_string(path.join("Cargo.toml")).with_context(|| format!("{name}: Cargo.toml"))?;
    findings.extend(layers::check(&name, &dependencies(&manifest)));
    let mut files = Vec::new();
    rust_files(&path.join("src"), &mut files)?;
    files.sort();
    for file in files {
        let text = fs::read_to_string(&file)?;
        let shown = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        let is_root =
            file.parent() == Some(&path.join("src")) && (file.ends_with("lib.rs") || file.ends_with("main.rs"));
        if is_root && !layers::UNSAFE_HOMES.contains(&name.as_str()) && !text.contains("#![forbid(unsafe_code)]") {
            findings.push(format!("{shown}: forbid unsafe code"));
        }
        check_file(&shown, &text, layers::PURE.contains(&name.as_str()), findings);
    }
    Ok(())
}

/// Names in `[dependencies]`; development and build dependencies may point anywhere.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.trim() == "[dependencies]";
        } else if inside && let Some(name) = line.split(['.', '=', ' ']).next().filter(|name| !name.is_empty()) {
            names.push(name.to_owned());
        }
    }
    names
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn check_file(shown: &str, text: &str, pure: bool, findings: &mut Vec<String>) {
    let is_tests = shown.ends_with("tests.rs") || shown.contains("/tests/");
    let lines: Vec<&str> = text.lines().collect();
    let code = lines.iter().position(|line| line.trim() == "#[cfg(test)]").unwrap_or(lines.len());
    if !text.starts_with("//!") {
        findings.push(format!("{shown}: must open with //! and what it owns"));
    }
    if !is_tests && code > MAX_FILE_LINES {
        findings.push(format!("{shown}: {code} lines, at most {MAX_FILE_LINES} without tests"));
    }
    for (number, line) in lines.iter().enumerate() {
        let place = format!("{shown}:{}", number + 1);
        for word in BANNED.iter().filter(|word| line.contains(**word)) {
            if !shown.starts_with("xtask/") {
                findings.push(format!("{place}: {word}"));
            }
        }
        let data = line.contains('"') || line.trim_start().starts_with("//");
        if line.chars().count() > MAX_LINE && !data {
            findings.push(format!("{place}: longer than {MAX_LINE} characters"));
        }
        if pure && number < code && !line.trim_start().starts_with("//") {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                findings.push(format!("{place}: a pure crate names {word}"));
            }
        }
    }
    if !is_tests {
        check_functions(shown, &lines[..code], findings);
    }
}

/// Functions end at a closing brace with the indentation of their `fn`, since the code is formatted.
fn check_functions(shown: &str, lines: &[&str], findings: &mut Vec<String>) {
    for (start, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let is_function = ["fn ", "pub fn ", "pub(crate) fn ", "async fn ", "pub async fn ", "pub(crate) async fn "]
            .iter()
            .any(|opening| trimmed.starts_with(opening));
        let declared_only =
            lines[start..].iter().find(|line| line.ends_with(['{', ';', '}'])).is_some_and(|line| line.ends_with(';'));
        if !is_function || declared_only {
            continue;
        }
        let indent = line.len() - trimmed.len();
        let closing = format!("{}}}", " ".repeat(indent));
        let length = lines[start..].iter().position(|line| *line == closing).map_or(1, |at| at + 1);
        if length > MAX_FUNCTION_LINES {
            findings.push(format!("{shown}:{}: a function of {length} lines, at most {MAX_FUNCTION_LINES}", start + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_functions_and_unfinished_words_are_found() {
        let body = "    let x = 1;\n".repeat(80);
        let text = format!("//! A file.\nfn long() {{\n{body}}}\nfn short() {{\n    todo!()\n}}\n");
        let mut findings = Vec::new();
        check_file("crates/x/src/lib.rs", &text, false, &mut findings);
        assert_eq!(findings.len(), 2, "{findings:?}");
    }

    #[test]
    fn dependencies_are_read_from_their_table_only() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\nb = { path = \"\" }\n[dev-dependencies]\nc = \"1\"\n";
        assert_eq!(dependencies(manifest), ["a", "b"]);
    }
}
