//! The ports that sequences are played on, whatever their kind.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The symbols of one voice of an encoded sequence: 32 lanes of one byte.
pub const VOICE: u32 = 8192;
/// How many ports may be left out.
pub const MAX_EXCLUDED: usize = 64;

/// The ports that sequences are played on: the same at both ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ground {
    /// The first port.
    pub base: u16,
    /// How many ports.
    pub span: u16,
    /// Ports of real services among them, which are never knocked at.
    pub excluded: Vec<u16>,
}

impl Default for Ground {
    fn default() -> Self {
        Self { base: 16_384, span: 32_768, excluded: Vec::new() }
    }
}

impl Ground {
    /// The ports, if sequences can be played on them.
    ///
    /// # Errors
    /// [`GroundError`] says what is possible.
    pub fn check(self) -> Result<Self, GroundError> {
        let (base, span) = (u32::from(self.base), u32::from(self.span));
        match self {
            _ if span < VOICE => Err(GroundError::Span(self.span)),
            _ if base == 0 || base + span > 65_536 => {
                Err(GroundError::End { base: self.base, span: self.span })
            }
            _ if self.excluded.len() > MAX_EXCLUDED => Err(GroundError::Excluded),
            good => Ok(good),
        }
    }

    /// The last port.
    #[must_use]
    pub fn last(&self) -> u16 {
        self.base.saturating_add(self.span - 1)
    }

    /// The ports that can be knocked at, as ranges: the span without what is left out.
    #[must_use]
    pub fn ranges(&self) -> Vec<(u16, u16)> {
        let mut holes: Vec<u16> =
            self.excluded.iter().copied().filter(|port| (self.base..=self.last()).contains(port)).collect();
        holes.sort_unstable();
        let (mut ranges, mut first) = (Vec::new(), Some(self.base));
        for hole in holes {
            if let Some(first) = first.filter(|first| *first < hole) {
                ranges.push((first, hole - 1));
            }
            first = hole.checked_add(1).filter(|next| *next <= self.last());
        }
        ranges.extend(first.map(|first| (first, self.last())));
        ranges
    }

    /// The place of a port in the span; `None` outside of it, and for what is left out.
    pub(in crate::knock) fn place(&self, port: u16) -> Option<u16> {
        let place = port.checked_sub(self.base).filter(|place| *place < self.span)?;
        (!self.excluded.contains(&port)).then_some(place)
    }

    /// The port at this place, counted round.
    pub(in crate::knock) fn port(&self, place: u32) -> u16 {
        let place = place % u32::from(self.span.max(1));
        u16::try_from(u32::from(self.base) + place).unwrap_or(self.base)
    }

    /// The same without one port more: the knock port, which has its own formats.
    #[must_use]
    pub fn without(mut self, port: u16) -> Self {
        self.excluded.push(port);
        self
    }

    /// How many voices there is room for.
    pub(in crate::knock) fn voices(&self) -> u8 {
        u8::try_from(u32::from(self.span) / VOICE).unwrap_or(u8::MAX)
    }
}

/// Why sequences cannot be played on these ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroundError {
    /// Too few.
    Span(u16),
    /// They end after port 65535, or begin with port 0.
    End {
        /// The first port.
        base: u16,
        /// How many.
        span: u16,
    },
    /// Too many of them are left out.
    Excluded,
}

impl fmt::Display for GroundError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Span(span) => write!(
                f,
                "a span of {span} ports is too small, 32 knocks of 8 bits need {VOICE}; use {VOICE} to 65535"
            ),
            Self::End { base, span } => write!(
                f,
                "{span} ports from {base} on do not lie between 1 and 65535; use a lower base or a smaller span"
            ),
            Self::Excluded => {
                write!(f, "more than {MAX_EXCLUDED} ports are left out; name fewer, or choose another base")
            }
        }
    }
}

impl std::error::Error for GroundError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_in_no_range() {
        let ground = |excluded: &[u16]| Ground { base: 100, span: 10, excluded: excluded.to_vec() }.ranges();
        assert_eq!(ground(&[]), [(100, 109)]);
        assert_eq!(ground(&[104, 99, 110]), [(100, 103), (105, 109)]);
        assert_eq!(ground(&[109, 100, 101, 101]), [(102, 108)]);
        assert_eq!(Ground { base: 65_535, span: 1, excluded: vec![65_535] }.ranges(), []);
    }
}
