//! Whose certificate a grant is for: what the worker tells of it, and the label that its elements carry in the kernel.

/// The certificate that a knock was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The first 8 bytes of SHA-256 over the issuer's name and the serial number.
    pub id: [u8; 8],
    /// The subject, cut to [`Holder::MAX_SUBJECT`] bytes, for people; without control characters.
    pub subject: String,
}

impl Holder {
    /// The bytes of a subject that are told.
    pub const MAX_SUBJECT: usize = 96;

    /// A holder with as much of the subject as fits.
    #[must_use]
    pub fn new(id: [u8; 8], subject: &str) -> Self {
        let plain: String = subject.chars().filter(|character| !character.is_control()).collect();
        let fits = |end: &usize| plain.is_char_boundary(*end);
        let end = (0..=Self::MAX_SUBJECT.min(plain.len())).rev().find(fits).unwrap_or(0);
        Self { id, subject: plain.get(..end).unwrap_or_default().to_owned() }
    }
}

/// The label of a certificate's grants: the name of its rule, a dot, and its id as 16 digits.
#[must_use]
pub fn label(rule: &str, id: [u8; 8]) -> String {
    format!("{rule}.{:016x}", u64::from_be_bytes(id))
}

/// The rule and the id in a label that [`label`] made; `None` for a profile's name.
#[must_use]
pub fn rule_of(label: &str) -> Option<(&str, [u8; 8])> {
    let (rule, digits) = label.rsplit_once('.')?;
    let plain = digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let id = plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()?;
    (!rule.is_empty()).then_some((rule, id.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_tells_rule_and_certificate() {
        let id = [0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0xff];
        assert_eq!(label("staff", id), "staff.00112233445566ff");
        assert_eq!(rule_of("staff.00112233445566ff"), Some(("staff", id)));
        for name in ["staff", "staff.00112233445566FF", ".00112233445566ff", "a.b", "staff.+0112233445566ff"]
        {
            assert_eq!(rule_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_long_subject_is_cut_between_characters_and_says_nothing_to_a_terminal() {
        assert_eq!(Holder::new([0; 8], &"\u{fc}".repeat(90)).subject.len(), 96);
        assert_eq!(Holder::new([0; 8], &format!("a{}", "\u{fc}".repeat(90))).subject.len(), 95);
        assert_eq!(Holder::new([0; 8], "CN=a\x1b[2J").subject, "CN=a[2J");
    }
}
