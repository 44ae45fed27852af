//! A bundle's line as a QR code (ISO/IEC 18004): for a terminal, and as a picture.

use std::fmt;

use qrcode::{Color, EcLevel, QrCode};
use zeroize::Zeroizing;

use super::png;

/// The points of a QR code. Wiped on drop; what the encoder held on its way is not.
pub struct Picture {
    side: usize,
    dark: Zeroizing<Vec<bool>>,
}

impl Picture {
    /// The code of a line, which scans as the line in capitals: those take 5.5 bits of a code, others 8. As much
    /// correction of errors as there is room for in the smallest code.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn of(line: &str) -> Result<Self, TooLong> {
        let capitals = Zeroizing::new(line.to_ascii_uppercase());
        let code =
            |level| QrCode::with_error_correction_level(capitals.as_bytes(), level).map_err(|_| TooLong);
        let smallest = code(EcLevel::L)?;
        let better = [EcLevel::H, EcLevel::Q, EcLevel::M].into_iter().filter_map(|level| code(level).ok());
        let same = better.into_iter().find(|better| better.width() == smallest.width());
        let code = same.unwrap_or(smallest);
        let side = code.width();
        let dark = code.into_colors().into_iter().map(|color| color == Color::Dark).collect();
        Ok(Self { side, dark: Zeroizing::new(dark) })
    }

    /// Columns and rows of the code as text.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let side = self.side + 2 * MARGIN;
        (side, side.div_ceil(2))
    }

    /// The code in half blocks, two points above one another in each character. What is light is drawn, so that it is
    /// light on a dark terminal; with `colours` it is so on every terminal.
    #[must_use]
    pub fn text(&self, colours: bool) -> Zeroizing<String> {
        let (columns, rows) = self.size();
        // Room for all of it: growing would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(rows * (3 * columns + 16)));
        for row in 0..rows {
            text.push_str(if colours { "\x1b[40;97m" } else { "" });
            for column in 0..columns {
                let light =
                    [2 * row, 2 * row + 1].map(|row| row < columns && !self.is_dark(column, row, MARGIN));
                text.push(match light {
                    [true, true] => '\u{2588}',
                    [true, false] => '\u{2580}',
                    [false, true] => '\u{2584}',
                    [false, false] => ' ',
                });
            }
            text.push_str(if colours { "\x1b[0m\n" } else { "\n" });
        }
        text
    }

    /// The code as PNG.
    #[must_use]
    pub fn png(&self) -> Zeroizing<Vec<u8>> {
        let side = u32::try_from(self.side + 2 * QUIET).unwrap_or(0) * POINT;
        let place = |at: u32| usize::try_from(at / POINT).unwrap_or(0);
        png::encode(side, |column, row| self.is_dark(place(column), place(row), QUIET))
    }

    /// With a light margin around the code.
    fn is_dark(&self, column: usize, row: usize, margin: usize) -> bool {
        let (Some(column), Some(row)) = (column.checked_sub(margin), row.checked_sub(margin)) else {
            return false;
        };
        column < self.side && self.dark.get(row * self.side + column).is_some_and(|dark| *dark)
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({} points)", self.side)
    }
}

/// More than a QR code holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the bundle is too long for a QR code, as its ports and services are many; carry it as a file",
        )
    }
}

impl std::error::Error for TooLong {}

/// The light margin that the standard asks for, in points.
const QUIET: usize = 4;
/// Half of it on terminals, where rows are dear and scanners do with less.
const MARGIN: usize = 2;
/// The side of one point in the picture.
const POINT: u32 = 8;
