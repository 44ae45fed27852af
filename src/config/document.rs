//! Text → a tree of values that know their lines, the same for TOML and JSON.
//!
//! Why not serde's derive: it stops at the first wrong value, and JSON's errors have no key. Here a file is read
//! once, and the readers of `fields` find everything that is wrong with it.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::error::Report;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// TOML 1.0, for people.
    Toml,
    /// JSON (RFC 8259), for provisioning tools.
    Json,
}

/// A value and the line it stands on; for an entry of a table the line of its key.
pub(crate) struct Node {
    pub(crate) line: u32,
    pub(crate) value: Value,
}

/// A value as written. Text is wiped on drop, since some of it is keys.
pub(crate) enum Value {
    Text(Zeroizing<String>),
    Number(i64),
    Boolean(bool),
    List(Vec<Node>),
    Table(Vec<(String, Node)>),
    /// What no key here takes, by its name.
    Other(&'static str),
}

impl Value {
    /// What this is, for a message.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Number(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(name) => name,
        }
    }
}

/// Parses a whole document; `None` after reporting why it is none.
pub(crate) fn parse(text: &str, syntax: Syntax, report: &Report) -> Option<Node> {
    // Some editors begin a file with a byte order mark (U+FEFF).
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match syntax {
        Syntax::Toml => toml(text, report),
        Syntax::Json => json(text, report),
    }
}

fn toml(text: &str, report: &Report) -> Option<Node> {
    let lines = Lines::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut errors: Vec<_> = errors.iter().map(|e| (e.span().map_or(0, |span| span.start), e)).collect();
    errors.sort_by_key(|(start, _)| *start);
    // After a slip of the pen the parser guesses, and what it then says is noise; a key given twice is no slip.
    let syntax = errors.iter().find(|(_, error)| error.message() != "duplicate key");
    if let Some((start, error)) = syntax {
        report.error(lines.line(*start), "", error.message());
    } else {
        for (start, error) in &errors {
            let key = error.span().and_then(|span| text.get(span)).unwrap_or_default();
            report.error(lines.line(*start), key, "is given twice; remove one of them");
        }
    }
    errors.is_empty().then(|| Node { line: 1, value: toml_table(table.get_ref(), &lines) })
}

fn toml_table(table: &DeTable<'_>, lines: &Lines<'_>) -> Value {
    let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<_>)| {
        let key: &toml::Spanned<toml::de::DeString<'_>> = key;
        let line = lines.line(key.span().start);
        (key.get_ref().to_string(), Node { line, value: toml_value(value.get_ref(), lines) })
    };
    Value::Table(table.iter().map(entry).collect())
}

fn toml_value(value: &DeValue<'_>, lines: &Lines<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(Zeroizing::new(text.to_string())),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("a number too large"), Value::Number),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Array(list) => Value::List(
            list.iter()
                .map(|item| Node {
                    line: lines.line(item.span().start),
                    value: toml_value(item.get_ref(), lines),
                })
                .collect(),
        ),
        DeValue::Table(table) => toml_table(table, lines),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
    }
}

fn json(text: &str, report: &Report) -> Option<Node> {
    let lines = Lines::new(text);
    let mut reader = serde_json::Deserializer::from_str(text);
    let root = JsonNode { lines: &lines, line: 1 }.deserialize(&mut reader);
    match root.and_then(|node| reader.end().map(|()| node)) {
        Ok(node @ Node { value: Value::Table(_), .. }) => Some(node),
        Ok(node) => {
            report.error(
                node.line,
                "",
                format!("is {}; a profile in JSON is an object: {{ ... }}", node.value.kind()),
            );
            None
        }
        Err(error) => {
            let message = error.to_string();
            let what = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what);
            report.error(u32::try_from(error.line()).unwrap_or(u32::MAX).max(1), "", what);
            None
        }
    }
}

/// Deserializes one JSON value. `line` is that of its key, or of the list it is in: serde_json does not say where
/// it is, but a string without escapes is borrowed from the text and so knows its place.
#[derive(Clone, Copy)]
struct JsonNode<'a> {
    lines: &'a Lines<'a>,
    line: u32,
}

impl JsonNode<'_> {
    fn node<E>(self, value: Value) -> Result<Node, E> {
        Ok(Node { line: self.line, value })
    }
}

impl<'de> DeserializeSeed<'de> for JsonNode<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonNode<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Node, E> {
        let line = self.lines.line_of(text).unwrap_or(self.line);
        Ok(Node { line, value: Value::Text(Zeroizing::new(text.to_owned())) })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        self.node(Value::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Node, E> {
        self.node(Value::Number(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Node, E> {
        self.node(i64::try_from(number).map_or(Value::Other("a number too large"), Value::Number))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Node, E> {
        self.node(Value::Other("a number with a fraction"))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        self.node(Value::Boolean(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        self.node(Value::Other("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let (mut items, mut next) = (Vec::new(), self);
        while let Some(item) = list.next_element_seed(next)? {
            next.line = item.line;
            items.push(item);
        }
        self.node(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let (mut entries, mut names, mut next) = (Vec::new(), HashSet::new(), self);
        while let Some(key) = map.next_key_seed(next)? {
            let Value::Text(name) = key.value else { return Err(A::Error::custom("a key is no text")) };
            next.line = key.line;
            if !names.insert(name.to_string()) {
                return Err(A::Error::custom(format_args!("`{}` is given twice", name.escape_debug())));
            }
            let value = map.next_value_seed(next)?;
            entries.push((name.to_string(), Node { line: key.line, ..value }));
        }
        self.node(Value::Table(entries))
    }
}

/// Where the lines of a text begin.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let starts =
            text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1).collect();
        Self { text, starts }
    }

    /// The line, counted from 1, of the byte at `offset`.
    fn line(&self, offset: usize) -> u32 {
        let before = self.starts.partition_point(|start| *start <= offset);
        u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// The line of a piece of this text. `None` when it lies elsewhere in memory.
    fn line_of(&self, piece: &str) -> Option<u32> {
        let offset = piece.as_ptr().addr().checked_sub(self.text.as_ptr().addr())?;
        (offset <= self.text.len()).then(|| self.line(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `key@line` for every leaf.
    fn leaves(node: &Node, path: &str, out: &mut Vec<String>) {
        match &node.value {
            Value::Table(entries) => {
                entries.iter().for_each(|(key, node)| leaves(node, &format!("{path}.{key}"), out))
            }
            Value::List(items) => items.iter().for_each(|node| leaves(node, path, out)),
            _ => out.push(format!("{path}@{}", node.line)),
        }
    }

    fn read(text: &str, syntax: Syntax) -> Vec<String> {
        let (report, mut out) = (Report::new("f"), Vec::new());
        if let Some(node) = parse(text, syntax, &report) {
            leaves(&node, "", &mut out);
        }
        out.extend(report.into_parts().0.iter().map(ToString::to_string));
        out
    }

    #[test]
    fn every_value_knows_its_line_in_toml_and_json() {
        let toml = "\u{feff}a = 1\nopen = [\n  'x',\n  'y',\n]\n[t]\nu.v = true\n";
        assert_eq!(read(toml, Syntax::Toml), [".a@1", ".open@3", ".open@4", ".t.u.v@7"]);
        let json = "{ \"a\": 1,\n\"open\": [\n\"x\",\n\"y\"],\n\"t\": {\n\"u\": {\n\"v\": true } } }\n";
        assert_eq!(read(json, Syntax::Json), [".a@1", ".open@3", ".open@4", ".t.u.v@7"]);
    }

    #[test]
    fn a_slip_of_the_pen_is_reported_once_with_its_line() {
        let open = "a = 1\nopen = [\"a\"\nduration = \"1s\"\n";
        assert_eq!(read(open, Syntax::Toml), ["f:3: missing comma between array elements, expected `,`"]);
        assert_eq!(read("{\"a\":\n1,}", Syntax::Json), ["f:2: trailing comma"]);
        assert_eq!(read("{} {}", Syntax::Json), ["f:1: trailing characters"]);
        assert_eq!(read("[1]", Syntax::Json), ["f:1: is a list; a profile in JSON is an object: { ... }"]);
        assert_eq!(read("", Syntax::Json), ["f:1: EOF while parsing a value"]);
    }

    #[test]
    fn a_key_given_twice_is_an_error_in_both() {
        let twice = "a = 1\na = 2\n[t]\nb = 1\n[t]\n";
        let expected =
            ["f:2: a: is given twice; remove one of them", "f:5: t: is given twice; remove one of them"];
        assert_eq!(read(twice, Syntax::Toml), expected);
        assert_eq!(read("{\"a\": 1,\n\"a\": 2}", Syntax::Json), ["f:2: `a` is given twice"]);
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_crash() {
        let deep = |open: &str| open.repeat(100_000);
        assert!(read(&format!("a = {}", deep("[")), Syntax::Toml).iter().any(|e| e.starts_with("f:1: ")));
        assert!(read(&format!("{}a = 1", deep("a.")), Syntax::Toml).iter().any(|e| e.starts_with("f:1: ")));
        assert!(read(&format!("[{}a]", deep("a.")), Syntax::Toml).iter().any(|e| e.starts_with("f:1: ")));
        assert!(read(&deep("{\"a\":"), Syntax::Json).iter().any(|e| e.starts_with("f:1: ")));
    }
}
