//! Runs every entry on its seeds and on a bounded number of seeded mutations of them.

use hongyan_fuzz::ENTRIES;
use hongyan_fuzz::mutate::Mutator;

/// Mutations of each entry's seeds; fewer where one costs a file.
const ROUNDS: usize = 3_000;
const ROUNDS_WITH_FILES: usize = 300;

#[test]
fn no_door_falls_to_mutated_bytes() {
    for entry in ENTRIES {
        let seeds = (entry.seeds)();
        assert!(!seeds.is_empty(), "{} has seeds", entry.name);
        for seed in &seeds {
            (entry.run)(seed);
        }
        (entry.run)(b"");
        let mut mutator = Mutator::new(entry.name.bytes().map(u64::from).sum());
        let rounds = if entry.name == "backups" {
            ROUNDS_WITH_FILES
        } else {
            ROUNDS
        };
        for round in 0..rounds {
            let bytes = mutator.mutate(&seeds);
            let ran = std::panic::catch_unwind(|| (entry.run)(&bytes));
            assert!(
                ran.is_ok(),
                "{} fell in round {round} to {bytes:?}",
                entry.name
            );
        }
    }
}

#[test]
fn every_entry_has_a_fuzz_target() {
    let targets = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz_targets");
    let mut files: Vec<String> = std::fs::read_dir(targets)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let mut names: Vec<String> = ENTRIES
        .iter()
        .map(|entry| format!("{}.rs", entry.name))
        .collect();
    names.sort();
    assert_eq!(files, names);
}
