//! No two files of a crate need each other: a test that walks what each file imports.
//!
//! An import is a path in a `use`, or in the code, that begins at `crate`, `super`, `self` or a child. It leads to the file
//! that defines what it names, through re-exports. A file may use its own parent, and `pub use` is no import.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// A file by its place in the tree of modules; the root is empty.
type Module = Vec<String>;

/// The files of one crate, without tests and comments.
struct Crate {
    files: BTreeMap<Module, String>,
    /// What each file hands on, by name: the path in its `pub use`.
    handed_on: BTreeMap<Module, BTreeMap<String, Vec<String>>>,
}

impl Crate {
    fn read(source: &Path) -> Self {
        let mut files = BTreeMap::new();
        read_folder(source, &mut Module::new(), &mut files);
        let handed_on = files
            .iter()
            .map(|(module, text)| {
                let paths = uses(text).into_iter().filter(|(is_public, _)| *is_public);
                let named = paths.filter_map(|(_, path)| Some((path.last()?.clone(), path)));
                (module.clone(), named.collect())
            })
            .collect();
        Crate { files, handed_on }
    }

    /// The file that defines what a path names, as it is written in `module`.
    fn file_of(&self, module: &Module, path: &[String], depth: usize) -> Option<Module> {
        let mut at = module.clone();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => {
                at.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|name| name == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            child => {
                let child = [module.as_slice(), &[child.to_owned()]].concat();
                self.files.get(&child)?;
            }
        }
        while let Some(name) = rest.first() {
            let child = [at.as_slice(), std::slice::from_ref(name)].concat();
            if !self.files.contains_key(&child) {
                break;
            }
            at = child;
            rest = &rest[1..];
        }
        let further = rest
            .first()
            .and_then(|name| self.handed_on.get(&at)?.get(name));
        match further {
            Some(path) if depth < 8 => {
                let path = [path.as_slice(), &rest[1..]].concat();
                self.file_of(&at, &path, depth + 1).or(Some(at))
            }
            _ => Some(at),
        }
    }

    fn imports(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let of_file = |(module, text): (&Module, &String)| {
            let used = uses(text).into_iter().filter(|(is_public, _)| !*is_public);
            let code = without_uses(text);
            let paths = used.map(|(_, path)| path).chain(paths_in(&code));
            let parent = &module[..module.len().saturating_sub(1)];
            let files = paths.filter_map(|path| self.file_of(module, &path, 0));
            let others = files.filter(|file| file != module && file != parent && !file.is_empty());
            (module.clone(), others.collect())
        };
        self.files.iter().map(of_file).collect()
    }
}

fn read_folder(folder: &Path, module: &mut Module, files: &mut BTreeMap<Module, String>) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name == "tests" || name == "main" {
            continue;
        }
        module.push(name.clone());
        if path.is_dir() {
            read_folder(&path, module, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let place = if name == "lib" {
                Module::new()
            } else {
                module.clone()
            };
            files.insert(place, without_tests(&fs::read_to_string(&path).unwrap()));
        }
        module.pop();
    }
}

/// The text up to the tests at its end, without comments.
fn without_tests(text: &str) -> String {
    let code = text
        .split("\n#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    let lines = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// Where a statement's `use` begins, if it is one, and what stands before it on its line.
fn use_in(statement: &str) -> Option<(usize, &str)> {
    let at = statement.rfind("use ")?;
    let before = statement[..at].lines().last().unwrap_or_default().trim();
    (before.is_empty() || before.starts_with("pub")).then_some((at, before))
}

/// The code beside `use`.
fn without_uses(text: &str) -> String {
    let code = |statement: &str| match use_in(statement) {
        Some((at, _)) => statement[..at].to_owned(),
        None => statement.to_owned(),
    };
    let statements: Vec<String> = text.split(';').map(code).collect();
    statements.join(";")
}

/// The paths of every `use`, and whether it is public.
fn uses(text: &str) -> Vec<(bool, Vec<String>)> {
    let mut found = Vec::new();
    for statement in text.split(';') {
        let Some((at, before)) = use_in(statement) else {
            continue;
        };
        let mut paths = Vec::new();
        expand(&statement[at + 4..], &[], &mut paths);
        found.extend(
            paths
                .into_iter()
                .map(|path| (before.starts_with("pub"), path)),
        );
    }
    found
}

/// The paths of one tree, such as `a::{b, c::{self, d}}`.
fn expand(tree: &str, before: &[String], paths: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let (path, inner) = match tree.split_once('{') {
        Some((path, inner)) => (path, inner.trim_end().strip_suffix('}')),
        None => (tree.split(" as ").next().unwrap_or_default(), None),
    };
    let names = path
        .split("::")
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let mut whole = before.to_vec();
    whole.extend(names.map(str::to_owned));
    let Some(inner) = inner else {
        if whole.last().is_some_and(|name| name == "self") && whole.len() > 1 {
            whole.pop();
        }
        paths.push(whole);
        return;
    };
    let (mut depth, mut from) = (0, 0);
    for (at, character) in inner.char_indices().chain([(inner.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[from..at].trim().is_empty() {
                    expand(&inner[from..at], &whole, paths);
                }
                from = (at + 1).min(inner.len());
            }
            _ => {}
        }
    }
}

/// Paths that the code writes out, such as `crate::window::start_of` or `child::Thing`.
fn paths_in(text: &str) -> impl Iterator<Item = Vec<String>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = text.split(move |c| !is_word(c));
    let paths = words.filter(|word| word.contains("::") && !word.starts_with("::"));
    paths.map(|word| {
        let names = word.split("::").filter(|name| !name.is_empty());
        names.map(str::to_owned).collect()
    })
}

/// The files that can be reached from a file and reach it again.
fn circle(imports: &BTreeMap<Module, BTreeSet<Module>>, from: &Module) -> BTreeSet<Module> {
    let reached = |start: &Module| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![start.clone()]);
        while let Some(module) = open.pop() {
            for next in imports.get(&module).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        seen
    };
    let forward = reached(from);
    forward
        .into_iter()
        .filter(|module| reached(module).contains(from))
        .collect()
}

#[test]
fn no_two_files_of_a_crate_need_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut circles = BTreeSet::new();
    for name in ["connectors", "engine", "sql"] {
        let imports = Crate::read(&root.join(name).join("src")).imports();
        assert!(imports.len() > 30, "{name}");
        for module in imports.keys() {
            let circle = circle(&imports, module);
            if !circle.is_empty() {
                let files: Vec<String> = circle.iter().map(|file| file.join("::")).collect();
                circles.insert(format!("{name}: {}", files.join(" ⇄ ")));
            }
        }
    }
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn a_circle_is_found_through_a_re_export_and_a_path_in_the_code() {
    let file = |module: &str, text: &str| {
        let module = module.split("::").filter(|name| !name.is_empty());
        (
            module.map(str::to_owned).collect::<Module>(),
            text.to_owned(),
        )
    };
    let files = BTreeMap::from([
        file("", "mod a; mod b; mod c; pub use a::Thing;"),
        file("a", "use crate::{c::deep, b::{self, Other}};"),
        file("b", "fn f() -> crate::Thing { todo }"),
        file("c", "mod deep; use std::fmt;"),
        file("c::deep", "use super::Parent;"),
    ]);
    let handed_on = BTreeMap::from([(
        Module::new(),
        BTreeMap::from([("Thing".to_owned(), vec!["a".to_owned(), "Thing".to_owned()])]),
    )]);
    let imports = Crate { files, handed_on }.imports();
    let named = |names: &[&str]| -> BTreeSet<Module> {
        names.iter().map(|name| vec![(*name).to_owned()]).collect()
    };
    assert_eq!(circle(&imports, &vec!["a".to_owned()]), named(&["a", "b"]));
    assert_eq!(circle(&imports, &vec!["c".to_owned()]), named(&[]));
}
