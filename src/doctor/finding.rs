//! What a check finds, and how the checks of a table are put to the facts. Pure.

use serde::ser::{Serialize, SerializeStruct, Serializer};

/// A question to the facts.
pub struct Check<F> {
    /// Its name, as the manual lists it.
    pub name: &'static str,
    /// What the facts answer: nothing where the check does not apply, or could not be made.
    pub judge: fn(&F) -> Vec<Finding>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub state: State,
    /// What is so, as a sentence.
    pub found: String,
}

/// How bad something is, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, or may work; carries the advice.
    Warning(String),
    /// It does not work; carries the advice.
    Problem(String),
}

impl State {
    /// The word for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning(_) => "warning",
            Self::Problem(_) => "problem",
        }
    }

    /// What to do, where there is something to do.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        match self {
            Self::Ok => None,
            Self::Warning(advice) | Self::Problem(advice) => Some(advice),
        }
    }

    /// Whether it does not work.
    #[must_use]
    pub fn is_problem(&self) -> bool {
        matches!(self, Self::Problem(_))
    }
}

impl Finding {
    pub(super) fn ok(found: impl Into<String>) -> Self {
        Self { state: State::Ok, found: found.into() }
    }

    pub(super) fn warning(found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Warning(advice.into()), found: found.into() }
    }

    pub(super) fn problem(found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Problem(advice.into()), found: found.into() }
    }

    /// A problem in the words of an error, whose sentences end in what to do: `FILE: what is wrong; what to do`.
    pub(super) fn from_error(error: &str, otherwise: &str) -> Self {
        match error.split_once("; ") {
            Some((found, advice)) => Self::problem(found, advice),
            None => Self::problem(error, otherwise),
        }
    }
}

/// A finding with the name of its check: one line of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The check.
    pub check: &'static str,
    /// What it found.
    pub finding: Finding,
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_struct("Line", 4)?;
        line.serialize_field("check", self.check)?;
        line.serialize_field("state", self.finding.state.name())?;
        line.serialize_field("found", &self.finding.found)?;
        line.serialize_field("advice", &self.finding.state.advice())?;
        line.end()
    }
}

/// Puts every check of a table to the facts, in its order.
#[must_use]
pub fn examine<F>(checks: &[Check<F>], facts: &F) -> Vec<Line> {
    let lines = |check: &Check<F>| {
        let name = check.name;
        (check.judge)(facts).into_iter().map(move |finding| Line { check: name, finding }).collect::<Vec<_>>()
    };
    checks.iter().flat_map(lines).collect()
}

/// `tcp/22, tcp/80 and udp/53`.
pub(super) fn listed(items: &[String]) -> String {
    match items {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_taken_apart_where_its_advice_begins() {
        let error = "a.toml: mode 0644 lets other users read it; run: chmod 0600 a.toml";
        assert_eq!(
            Finding::from_error(error, "mend it"),
            Finding::problem("a.toml: mode 0644 lets other users read it", "run: chmod 0600 a.toml")
        );
        assert_eq!(
            Finding::from_error("a.toml: broken", "mend it"),
            Finding::problem("a.toml: broken", "mend it")
        );
    }

    #[test]
    fn a_line_for_machines_says_check_state_finding_and_advice() {
        let checks: [Check<bool>; 2] = [
            Check {
                name: "one",
                judge: |fact| if *fact { vec![Finding::ok("so it is")] } else { Vec::new() },
            },
            Check { name: "two", judge: |_| vec![Finding::warning("hm", "do something")] },
        ];
        let json = serde_json::to_string(&examine(&checks, &true)).unwrap();
        let one = r#"{"check":"one","state":"ok","found":"so it is","advice":null}"#;
        let two = r#"{"check":"two","state":"warning","found":"hm","advice":"do something"}"#;
        assert_eq!(json, format!("[{one},{two}]"));
        assert_eq!(serde_json::to_string(&examine(&checks, &false)).unwrap(), format!("[{two}]"));
    }

    #[test]
    fn lists_read_as_sentences_do() {
        let words = |words: &[&str]| listed(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        assert_eq!(
            [words(&[]), words(&["a"]), words(&["a", "b"]), words(&["a", "b", "c"])],
            ["none", "a", "a and b", "a, b and c"]
        );
    }
}
