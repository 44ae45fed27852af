//! The file of expected counts: what they were counted with, and a number for each kind.

use std::fmt;

use crate::Outcome;

/// Counts, and what they depend on besides the source.
#[derive(PartialEq)]
pub struct Counts {
    /// Compiler, C library and valgrind: the same source can become other instructions with others.
    pub tools: String,
    /// What the program sees of the processor: cryptography chooses its instructions by that.
    pub processor: String,
    /// Instructions a packet, by kind.
    pub kinds: Vec<(String, u64)>,
}

const ABOUT: &str = "\
# Instructions a packet, from the frame in memory to the decision: what tests/instructions compares with.
# After a change that is meant: tests/instructions --write
";

impl Counts {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Outcome<Self> {
        let mut counts = Self { tools: String::new(), processor: String::new(), kinds: Vec::new() };
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            match line.trim_start().split_once("  ") {
                Some(("tools", tools)) => tools.clone_into(&mut counts.tools),
                Some(("processor", processor)) => processor.clone_into(&mut counts.processor),
                Some((number, kind)) => counts.kinds.push((kind.to_owned(), number.parse()?)),
                None => return Err(format!("no line of expected counts: {line}").into()),
            }
        }
        Ok(counts)
    }

    /// The count of a kind.
    pub fn of(&self, kind: &str) -> Option<u64> {
        self.kinds.iter().find(|(name, _)| name == kind).map(|(_, count)| *count)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ABOUT}\ntools  {}\nprocessor  {}\n\n", self.tools, self.processor)?;
        self.kinds.iter().try_for_each(|(kind, count)| writeln!(f, "{count:>9}  {kind}"))
    }
}
