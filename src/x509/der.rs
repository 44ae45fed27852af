//! Distinguished encoding rules (ITU-T X.690, section 10), as far as certificates and key files need them: a cursor
//! that hands out one element after the other, to the last byte.
//!
//! Strict: lengths are definite and as short as they can be, tags are single bytes. What does not fit is `None`, and
//! the caller refuses the whole; nothing is skipped or guessed.

/// Universal tags, and the constructed ones as they stand in the encoding.
pub mod tag {
    /// BOOLEAN.
    pub const BOOLEAN: u8 = 0x01;
    /// INTEGER.
    pub const INTEGER: u8 = 0x02;
    /// BIT STRING.
    pub const BIT_STRING: u8 = 0x03;
    /// OCTET STRING.
    pub const OCTET_STRING: u8 = 0x04;
    /// OBJECT IDENTIFIER.
    pub const OID: u8 = 0x06;
    /// UTF8String.
    pub const UTF8: u8 = 0x0c;
    /// PrintableString.
    pub const PRINTABLE: u8 = 0x13;
    /// IA5String.
    pub const IA5: u8 = 0x16;
    /// UTCTime.
    pub const UTC_TIME: u8 = 0x17;
    /// GeneralizedTime.
    pub const GENERALIZED_TIME: u8 = 0x18;
    /// SEQUENCE.
    pub const SEQUENCE: u8 = 0x30;
    /// SET.
    pub const SET: u8 = 0x31;

    /// `[number]`, constructed.
    #[must_use]
    pub const fn context(number: u8) -> u8 {
        0xa0 | number
    }
}

/// One element: its tag, its content, and all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// The tag byte.
    pub tag: u8,
    /// What is in it.
    pub content: &'a [u8],
    /// Tag, length and content.
    pub whole: &'a [u8],
}

/// What is still to be read of an encoding.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// At the beginning of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether everything was read.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    /// `Some` when everything was read.
    #[must_use]
    pub fn done(&self) -> Option<()> {
        self.is_done().then_some(())
    }

    /// The next element, whatever it is.
    pub fn any(&mut self) -> Option<Element<'a>> {
        let all = self.0;
        let (&[tag, first], rest) = all.split_first_chunk()?;
        // The low five bits all set announce a tag of several bytes, which no format here has.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81 => long::<1>(rest, 0x80)?,
            0x82 => long::<2>(rest, 0x100)?,
            0x83 => long::<3>(rest, 0x1_0000)?,
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        let whole = all.get(..all.len() - rest.len())?;
        self.0 = rest;
        Some(Element { tag, content, whole })
    }

    /// The next element, which has to have this tag.
    pub fn expect(&mut self, tag: u8) -> Option<Element<'a>> {
        self.any().filter(|element| element.tag == tag)
    }

    /// The next element if it has this tag; else it stays where it is.
    pub fn optional(&mut self, tag: u8) -> Option<Element<'a>> {
        if self.0.first() == Some(&tag) { self.any() } else { None }
    }

    /// The inside of the next element, which has to have this tag.
    pub fn enter(&mut self, tag: u8) -> Option<Self> {
        self.expect(tag).map(|element| Self(element.content))
    }

    /// The inside of the only element of `bytes`.
    pub fn only(bytes: &'a [u8], tag: u8) -> Option<Self> {
        let mut cursor = Self(bytes);
        let inside = cursor.enter(tag)?;
        cursor.done()?;
        Some(inside)
    }

    /// The bytes of a BIT STRING of whole bytes.
    pub fn bits(&mut self) -> Option<&'a [u8]> {
        match self.expect(tag::BIT_STRING)?.content {
            [0, bytes @ ..] => Some(bytes),
            _ => None,
        }
    }

    /// A number that fits 32 bits and is not negative.
    pub fn number(&mut self) -> Option<u32> {
        let content = self.expect(tag::INTEGER)?.content;
        let digits = content.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(content);
        let negative = content.first().is_none_or(|first| first & 0x80 != 0);
        if negative || digits.len() > 4 {
            return None;
        }
        Some(digits.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }
}

/// A length in `N` bytes, which has to be at least `least`: less would have a shorter form.
fn long<const N: usize>(bytes: &[u8], least: usize) -> Option<(usize, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<N>()?;
    let length = length.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
    (length >= least).then_some((length, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_element_is_taken_apart_and_the_rest_stays() {
        let mut cursor = Cursor::new(&[0x30, 3, 2, 1, 5, 4, 0]);
        let mut inside = cursor.enter(tag::SEQUENCE).unwrap();
        assert_eq!(inside.number(), Some(5));
        assert!(inside.is_done() && !cursor.is_done());
        assert_eq!(cursor.any().map(|e| (e.tag, e.content.len(), e.whole.len())), Some((4, 0, 2)));
        assert_eq!(cursor.done(), Some(()));
    }

    #[test]
    fn a_length_has_one_form_only() {
        let long = |head: &[u8], len: usize| {
            let mut bytes = head.to_vec();
            bytes.resize(head.len() + len, 0);
            Cursor::new(&bytes).any().map(|element| element.content.len())
        };
        assert_eq!(long(&[4, 0x7f], 127), Some(127));
        assert_eq!(long(&[4, 0x81, 0x80], 128), Some(128));
        assert_eq!(long(&[4, 0x81, 0x7f], 127), None);
        assert_eq!(long(&[4, 0x82, 0, 0xff], 255), None);
        assert_eq!(long(&[4, 0x82, 1, 0], 256), Some(256));
        assert_eq!(long(&[4, 0x83, 0, 1, 0], 256), None);
        assert_eq!(long(&[4, 0x80], 10), None, "indefinite");
        assert_eq!(long(&[4, 0x84, 0, 0, 0, 1], 1), None);
        assert_eq!(long(&[0x1f, 1], 1), None, "a tag of several bytes");
    }

    #[test]
    fn negative_and_large_numbers_are_none() {
        let number = |bytes: &[u8]| Cursor::new(bytes).number();
        assert_eq!(number(&[2, 1, 0x7f]), Some(127));
        assert_eq!(number(&[2, 2, 0, 0x80]), Some(128));
        assert_eq!(number(&[2, 1, 0x80]), None);
        assert_eq!(number(&[2, 0]), None);
        assert_eq!(number(&[2, 5, 1, 0, 0, 0, 0]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut cursor = Cursor::new(&bytes);
            while let Some(element) = cursor.any() {
                prop_assert!(element.whole.ends_with(element.content));
            }
        }
    }
}
