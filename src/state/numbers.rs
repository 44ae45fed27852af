//! The numbers of the revocation lists that were in force, so that an older list is not taken for the newest after a
//! restart. One line for each authority in `crl.numbers`: its id and the number, hexadecimal. The edge.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use crate::x509::chain::Numbers;

const FILE: &str = "crl.numbers";
/// How many authorities are remembered; those that are configured come first.
const MAX_LINES: usize = 1024;

/// What is remembered, and what is wrong with it. A file that is not there remembers nothing.
pub fn read(dir: &Path) -> (Numbers, Option<String>) {
    let path = dir.join(FILE);
    let complain = |what: &str| {
        let sentence =
            format!("{}: {what}; an older revocation list than the last would be taken", path.display());
        (Numbers::new(), Some(sentence))
    };
    match fs::read_to_string(&path) {
        Ok(text) => match parse(&text) {
            Some(numbers) => (numbers, None),
            None => complain("is damaged"),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Numbers::new(), None),
        Err(error) => complain(&error.to_string()),
    }
}

fn parse(text: &str) -> Option<Numbers> {
    text.lines().take(MAX_LINES).map(line).collect()
}

fn line(line: &str) -> Option<([u8; 8], Vec<u8>)> {
    let (id, number) = line.split_once(' ')?;
    Some((bytes(id)?.try_into().ok()?, bytes(number)?))
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?, 16).ok()
        })
        .collect()
}

/// Writes a new file and puts it in place of the old one, on the disk before this returns.
///
/// # Errors
/// Whatever the disk says; the old file is there then.
pub fn write(dir: &Path, numbers: &Numbers) -> io::Result<()> {
    let (new, path) = (dir.join("crl.numbers.new"), dir.join(FILE));
    let mut file = fs::File::create(&new)?;
    file.write_all(print(numbers).as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    fs::File::open(dir)?.sync_all()
}

fn print(numbers: &Numbers) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut lines: Vec<String> =
        numbers.iter().take(MAX_LINES).map(|(id, number)| format!("{} {}\n", hex(id), hex(number))).collect();
    lines.sort();
    lines.concat()
}

/// For the fuzzer: what is read is what would be written.
#[cfg(feature = "fuzzing")]
pub(crate) fn check(text: &str) {
    if let Some(numbers) = parse(text) {
        assert_eq!(parse(&print(&numbers)), Some(numbers));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), (Numbers::new(), None));
        let numbers: Numbers = [([1; 8], vec![2, 0]), ([3; 8], vec![])].into();
        write(dir.path(), &numbers).unwrap();
        assert_eq!(read(dir.path()), (numbers, None));
    }

    #[test]
    fn a_damaged_file_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["01 02\n", "0101010101010101\n", "0101010101010101 0g\n", "0101010101010101 123\n"] {
            fs::write(dir.path().join(FILE), text).unwrap();
            let (numbers, complaint) = read(dir.path());
            assert!(numbers.is_empty() && complaint.unwrap().contains("is damaged"), "{text}");
        }
    }
}
