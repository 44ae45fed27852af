//! What each kind of packet costs in instructions, compared with what it cost when somebody last looked.
//!
//! Unlike times, instructions are the same on a busy machine, so that a check can judge them. Counted is what the worker
//! and `explain` have in common: a frame's way to the policy's decision. What comes before, the kernel's filter, and
//! after it, the journal and the monitor, is not; neither is reading the files. `kinds` makes the traffic, `judge` has
//! it judged, `callgrind` counts, `expected` is the file. `tests/instructions` builds this and runs it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "traffic that cannot be made is not counted"
)]
#![allow(unreachable_pub, reason = "a program of its own, in several files")]

mod callgrind;
mod expected;
mod judge;
mod kinds;

#[allow(dead_code, reason = "shared with the tests of `explain`")]
#[path = "../../explain/certificates.rs"]
mod certificates;
#[path = "../../packets/mod.rs"]
mod packets;
#[allow(dead_code, reason = "shared with the tests of `explain`")]
#[path = "../../explain/recordings.rs"]
mod recordings;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use expected::Counts;

/// What may go wrong is said and ends the run.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The word that callgrind starts this program with.
pub const COUNT: &str = "--count";

/// How far a count may be from what is expected, in percent. With the same tools it moves by 0.7 at most, for tables of
/// the standard library are in another order each time; other compilers make other instructions.
const CLOSE: u64 = 3;
const LOOSE: u64 = 30;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is as it should be.
fn run(words: &[&str]) -> Outcome<bool> {
    match *words {
        [COUNT, folder] => {
            println!("{}", processor());
            judge::count(Path::new(folder))?;
        }
        [folder, file] => {
            let expected = Counts::parse(&fs::read_to_string(file)?)?;
            return compare(&expected, &counted(folder)?);
        }
        [folder, file, "--write"] => {
            let found = counted(folder)?;
            fs::write(file, found.to_string())?;
            print!("{found}");
        }
        [] => println!("instructions: left out: callgrind has to count them; tests/instructions runs it"),
        _ => return Err("usage: instructions FOLDER FILE [--write]".into()),
    }
    Ok(true)
}

fn counted(folder: &str) -> Outcome<Counts> {
    judge::make_files(Path::new(folder))?;
    callgrind::count(Path::new(folder))
}

/// Prints both, and whether no packet has become dearer.
fn compare(expected: &Counts, found: &Counts) -> Outcome<bool> {
    let names = |counts: &Counts| counts.kinds.iter().map(|(kind, _)| kind.clone()).collect::<Vec<_>>();
    if names(expected) != names(found) {
        return Err(
            "the kinds of traffic are others than those of the file; tests/instructions --write".into()
        );
    }
    let tolerance = if expected.tools == found.tools { CLOSE } else { LOOSE };
    println!("  {:<42} {:>9} {:>9} {:>7}", "instructions a packet", "expected", "found", "ratio");
    let (mut dearer, mut cheaper) = (0, 0);
    for (kind, found) in &found.kinds {
        let before = expected.of(kind).unwrap_or_default();
        let word = match found * 100 {
            hundredfold if hundredfold > before * (100 + tolerance) => {
                dearer += 1;
                "  dearer"
            }
            hundredfold if hundredfold < before * (100 - tolerance) => {
                cheaper += 1;
                "  cheaper"
            }
            _ => "",
        };
        let thousandths = (found * 1000 + before / 2) / before.max(1);
        let (whole, rest) = (thousandths / 1000, thousandths % 1000);
        println!("  {kind:<42} {before:>9} {found:>9} {whole:>3}.{rest:03}{word}");
    }
    if expected.tools != found.tools {
        println!("Expected by {}.\nFound by {}: {LOOSE} % more is tolerated.", expected.tools, found.tools);
    }
    if expected.processor != found.processor {
        println!(
            "Expected of {}.\nFound on {}, which computes in other ways: nothing is judged.",
            expected.processor, found.processor
        );
        return Ok(true);
    }
    if cheaper > 0 {
        println!("Cheaper by more than {tolerance} %: {cheaper}. Keep it so: tests/instructions --write");
    }
    if dearer > 0 {
        println!(
            "Dearer by more than {tolerance} %: {dearer}. What the packet in line N of the table costs: \
             callgrind_annotate --threshold=100 target/instructions/callgrind.N. If it has to be: tests/instructions --write"
        );
    }
    Ok(dearer == 0)
}

/// What the processor can do, as far as any crate here asks. Valgrind shows its own processor, not the machine's.
fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    let features = [
        ("aes", std::arch::is_x86_feature_detected!("aes")),
        ("pclmulqdq", std::arch::is_x86_feature_detected!("pclmulqdq")),
        ("sha", std::arch::is_x86_feature_detected!("sha")),
        ("ssse3", std::arch::is_x86_feature_detected!("ssse3")),
        ("sse4.1", std::arch::is_x86_feature_detected!("sse4.1")),
        ("sse4.2", std::arch::is_x86_feature_detected!("sse4.2")),
        ("avx", std::arch::is_x86_feature_detected!("avx")),
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("bmi1", std::arch::is_x86_feature_detected!("bmi1")),
        ("bmi2", std::arch::is_x86_feature_detected!("bmi2")),
        ("adx", std::arch::is_x86_feature_detected!("adx")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let features: [(&str, bool); 0] = [];
    let present = features.iter().filter(|(_, present)| *present).map(|(name, _)| *name);
    [std::env::consts::ARCH].into_iter().chain(present).collect::<Vec<_>>().join(" ")
}
