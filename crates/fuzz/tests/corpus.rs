//! The corpus of cargo-fuzz, without cargo-fuzz.

use std::fs;
use std::path::{Path, PathBuf};

use fuzz::TARGETS;

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(path)
}

#[test]
fn every_input_of_the_corpus_holds() {
    for (name, target) in TARGETS {
        let mut count = 0;
        for file in fs::read_dir(folder("corpus").join(name)).unwrap() {
            let path = file.unwrap().path();
            let input = fs::read(&path).unwrap();
            let outcome = std::panic::catch_unwind(|| target(&input));
            assert!(outcome.is_ok(), "{}", path.display());
            count += 1;
        }
        assert!(count > 3, "{name} has {count} inputs");
    }
}

#[test]
fn every_function_is_a_target_of_cargo_fuzz() {
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    let listed = manifest.matches("[[bin]]").count();
    assert_eq!(listed, TARGETS.len());
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        let target = folder("fuzz_targets").join(name).with_extension("rs");
        let code = fs::read_to_string(target).unwrap();
        assert!(code.contains(&format!("fuzz::{name}(data)")), "{name}");
    }
}
