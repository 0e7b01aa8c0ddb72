//! Compares the lock file of the fuzz targets, which are a separate package, with that of the program. A version that
//! only the fuzz targets use is not the version that users run, and if a dependency is missing, `cargo --locked` fails.

use std::fs;
use std::path::Path;

use toml::Table;

fn read(file: &str) -> Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(path).expect(file).parse().expect(file)
}

fn packages(file: &str) -> Vec<Table> {
    let packages = read(file).remove("package").expect(file);
    packages.try_into().expect(file)
}

fn text<'a>(package: &'a Table, key: &str) -> &'a str {
    package[key].as_str().unwrap()
}

#[test]
fn the_fuzz_targets_lock_the_same_versions_as_the_program() {
    let shipped = packages("Cargo.lock");
    let fuzzed = packages("tests/fuzz/Cargo.lock");
    for package in &fuzzed {
        let (name, version) = (text(package, "name"), text(package, "version"));
        let versions: Vec<&str> =
            shipped.iter().filter(|p| text(p, "name") == name).map(|p| text(p, "version")).collect();
        assert!(
            versions.is_empty() || versions.contains(&version),
            "{name} {version}, but the program uses {versions:?}: copy Cargo.lock to tests/fuzz and run `cargo metadata` there"
        );
    }

    let cfdfu = fuzzed.iter().find(|package| text(package, "name") == "cfdfu").unwrap();
    let locked = cfdfu["dependencies"].as_array().unwrap();
    for (name, dependency) in read("Cargo.toml")["dependencies"].as_table().unwrap() {
        let optional = dependency.get("optional").is_some_and(|optional| optional.as_bool() == Some(true));
        // If two versions of a package are locked, its name is followed by the version.
        let is_locked = locked.iter().any(|entry| entry.as_str().unwrap().split(' ').next() == Some(name));
        assert!(optional || is_locked, "tests/fuzz/Cargo.lock does not contain {name}");
    }
}
