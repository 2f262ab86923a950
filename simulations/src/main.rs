//! Runs seeded scenarios of the engine in a virtual world and says which rule broke, if one did.
//!
//! `cargo run --release -p simulations -- SCENARIO --seeds N [--seed S] [--plant BUG] [--trace]`
//!
//! A scenario is a file of data (`simulations/scenarios/`); what must hold in it is a list of checkers, one per
//! property (`checks/`), beside a naive reference model (`reference.rs`). Any event at level ERROR fails the run,
//! so `error!` means a bug of ours and nothing else.

mod checks;
mod errors;
mod operator;
mod play;
mod reference;
mod scenario;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::play::{Failure, Report, play};
use crate::scenario::Scenario;

/// Runs a scenario with many seeds; each failure prints the line that plays it again.
#[derive(Debug, Parser)]
#[command(name = "simulations")]
struct Args {
    /// A scenario's name, a TOML file, or `all`.
    scenario: String,
    /// How many seeds, beginning with the first.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first seed; alone, the only one.
    #[arg(long)]
    seed: Option<u64>,
    /// Break a rule on purpose, to see the checkers find it.
    #[arg(long)]
    plant: Option<Plant>,
    /// Only this checker looks.
    #[arg(long)]
    check: Option<String>,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
}

/// A rule that can be broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Plant {
    /// Keys that come twice are written twice.
    DropDedup,
    /// Whoever sends keys is obeyed.
    IgnoreLeaseNumber,
    /// A new lease does not end the one before.
    TwoControllers,
    /// What should be on disk first never gets there.
    SkipPersist,
    /// Entries are taken whoever signed them.
    AcceptUnsigned,
}

fn main() -> ExitCode {
    let args = Args::parse();
    errors::listen(args.trace);
    let scenarios = match Scenario::find(&args.scenario) {
        Ok(scenarios) => only(scenarios, args.check.as_ref()),
        Err(error) => {
            say(&format!(
                "error[usage]: {error}\nhelp: one of {}",
                Scenario::names().join(", ")
            ));
            return ExitCode::from(2);
        }
    };
    let good = scenarios
        .iter()
        .filter(|scenario| run(scenario, &args))
        .count();
    ExitCode::from(u8::from(good < scenarios.len()))
}

fn only(mut scenarios: Vec<Scenario>, check: Option<&String>) -> Vec<Scenario> {
    if let Some(check) = check {
        scenarios
            .iter_mut()
            .for_each(|scenario| scenario.checks = vec![check.clone()]);
    }
    scenarios
}

/// Plays a scenario with all its seeds; whether all went well.
fn run(scenario: &Scenario, args: &Args) -> bool {
    let first = args.seed.unwrap_or(0);
    let count = if args.seed.is_some() && args.seeds == 20 {
        1
    } else {
        args.seeds
    };
    let mut total = Report::default();
    let mut failures = 0;
    for seed in first..first + count {
        match play_twice_at_times(scenario, seed, args, seed == first) {
            Ok(report) => total.add(&report),
            Err(failure) => {
                failures += 1;
                say(&told(scenario, seed, args.plant, &failure));
            }
        }
    }
    say(&format!(
        "{}: {count} seeds, {failures} failures; {total}",
        scenario.name
    ));
    failures == 0
}

/// Plays a seed, the first one twice: equal seeds must give equal traces.
fn play_twice_at_times(
    scenario: &Scenario,
    seed: u64,
    args: &Args,
    twice: bool,
) -> Result<Report, Failure> {
    let report = play(scenario, seed, args.plant, args.trace)?;
    if twice {
        let again = play(scenario, seed, args.plant, false)?;
        if again.trace != report.trace {
            return Err(Failure::new(
                "equal_seeds_give_equal_traces",
                "the second run differs",
            ));
        }
    }
    Ok(report)
}

/// A failure with the line that plays it again.
fn told(scenario: &Scenario, seed: u64, plant: Option<Plant>, failure: &Failure) -> String {
    let plant = plant.and_then(|plant| plant.to_possible_value());
    let mut how = plant
        .map(|plant| format!(" --plant {}", plant.get_name()))
        .unwrap_or_default();
    if let [only] = scenario.checks.as_slice() {
        how.push_str(&format!(" --check {only}"));
    }
    format!(
        "FAILED {} at seed {seed}, {}\n  replay: cargo run --release -p simulations -- {} --seed {seed}{how} \
         --trace",
        scenario.name, failure, scenario.name
    )
}

#[expect(clippy::print_stdout, reason = "this program's answer is its output")]
fn say(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plays(name: &str, seeds: std::ops::Range<u64>) {
        errors::listen(false);
        let scenario = Scenario::find(name).unwrap().remove(0);
        for seed in seeds {
            if let Err(failure) = play(&scenario, seed, None, false) {
                panic!("{}", told(&scenario, seed, None, &failure));
            }
        }
    }

    /// Whether this checker alone finds the planted bug in one of the first seeds.
    fn finds(name: &str, plant: Plant, check: &str) {
        errors::listen(false);
        let scenarios = Scenario::find(name).unwrap();
        let scenario = only(scenarios, Some(&check.to_owned())).remove(0);
        let failures = (0..20).filter_map(|seed| play(&scenario, seed, Some(plant), false).err());
        let found = failures
            .map(|failure| failure.check)
            .find(|found| found == check);
        assert!(found.is_some(), "{check} finds {plant:?}");
    }

    #[test]
    fn members_converge_after_partitions_crashes_and_loss() {
        plays("convergence", 0..2);
    }

    #[test]
    fn members_converge_without_gossip() {
        plays("convergence_without_gossip", 0..2);
    }

    #[test]
    fn gossip_alone_delivers_on_good_links() {
        plays("gossip_alone", 0..2);
    }

    #[test]
    fn old_folders_that_are_put_back_lose_nothing_that_anybody_has_and_fork_no_key() {
        plays("old_folders", 0..2);
    }

    #[test]
    fn control_is_one_at_a_time_and_exact_on_bad_links() {
        plays("control", 0..2);
    }

    #[test]
    fn equal_seeds_give_equal_traces() {
        errors::listen(false);
        let scenario = Scenario::find("control").unwrap().remove(0);
        let trace = |seed| play(&scenario, seed, None, false).unwrap().trace;

        assert_eq!(trace(7), trace(7));
        assert_ne!(trace(7), trace(8));
    }

    #[test]
    fn late_comers_join_by_whoever_is_there() {
        plays("arrivals", 0..2);
    }

    #[test]
    fn a_free_lease_on_the_first_key_is_exact_too() {
        plays("control_auto", 0..2);
    }

    #[test]
    fn a_host_that_writes_repeated_keys_is_found() {
        finds(
            "control",
            Plant::DropDedup,
            "pty_bytes_are_what_leases_allowed",
        );
    }

    #[test]
    fn a_host_that_ignores_lease_numbers_is_found() {
        finds(
            "control",
            Plant::IgnoreLeaseNumber,
            "pty_bytes_are_what_leases_allowed",
        );
    }

    #[test]
    fn a_host_with_two_controllers_is_found() {
        finds("control", Plant::TwoControllers, "one_controller_at_a_time");
    }

    #[test]
    fn a_node_that_forgets_what_it_acknowledged_is_found() {
        finds(
            "convergence",
            Plant::SkipPersist,
            "acknowledged_survives_crashes",
        );
        finds("convergence", Plant::SkipPersist, "numbers_are_used_once");
    }

    #[test]
    fn a_node_that_takes_unsigned_entries_is_found() {
        for check in [
            "nobody_speaks_for_another",
            "documents_converge",
            "numbers_are_used_once",
        ] {
            finds("convergence", Plant::AcceptUnsigned, check);
        }
    }

    #[test]
    fn a_failure_names_the_line_that_plays_it_again() {
        let scenario = Scenario::find("control").unwrap().remove(0);
        let failure = Failure::new("one_controller_at_a_time", "two have it");

        let told = told(&scenario, 7, Some(Plant::DropDedup), &failure);

        assert!(
            told.contains("-- control --seed 7 --plant drop-dedup --trace"),
            "{told}"
        );
    }
}
