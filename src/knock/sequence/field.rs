//! Arithmetic with bytes as the elements of GF(2^8), modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11d), and with polynomials
//! over them. A polynomial is its coefficients, the constant first, without zeros at the end; none at all is zero.
//!
//! Look-ups by value take time that depends on the values: what is coded here was encrypted before.

/// Powers of 2, which generates all elements but zero; twice in a row, so that a sum of two logarithms is a place.
const POWERS: [u8; 510] = powers();
/// The place of each element in [`POWERS`]; zero has none.
const LOGARITHMS: [u8; 256] = logarithms();

/// Addition, and subtraction: each element is its own opposite.
pub(super) const fn add(a: u8, b: u8) -> u8 {
    a ^ b
}

pub(super) fn multiply(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 { 0 } else { power(logarithm(a) + logarithm(b)) }
}

/// `b` is not zero.
pub(super) fn divide(a: u8, b: u8) -> u8 {
    if a == 0 { 0 } else { power(logarithm(a) + 255 - logarithm(b)) }
}

/// The value of the polynomial at `x`, by Horner's rule.
pub(super) fn evaluate(polynomial: &[u8], x: u8) -> u8 {
    polynomial.iter().rev().fold(0, |value, coefficient| add(multiply(value, x), *coefficient))
}

/// `to` + `factor` * x^`shift` * `from`.
pub(super) fn add_multiple(to: &mut Vec<u8>, factor: u8, shift: usize, from: &[u8]) {
    if to.len() < from.len() + shift {
        to.resize(from.len() + shift, 0);
    }
    for (to, from) in to.iter_mut().skip(shift).zip(from) {
        *to = add(*to, multiply(factor, *from));
    }
    trim(to);
}

/// Quotient and remainder; `None` for a division by zero.
pub(super) fn divide_with_rest(mut rest: Vec<u8>, by: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let leading = *by.last()?;
    let mut quotient = vec![0; (rest.len() + 1).saturating_sub(by.len())];
    while let (Some(shift), Some(top)) = (rest.len().checked_sub(by.len()), rest.last()) {
        let factor = divide(*top, leading);
        if let Some(place) = quotient.get_mut(shift) {
            *place = factor;
        }
        add_multiple(&mut rest, factor, shift, by);
    }
    trim(&mut quotient);
    Some((quotient, rest))
}

fn trim(polynomial: &mut Vec<u8>) {
    let len = polynomial.iter().rposition(|coefficient| *coefficient != 0).map_or(0, |last| last + 1);
    polynomial.truncate(len);
}

fn power(exponent: usize) -> u8 {
    POWERS.get(exponent).copied().unwrap_or_default()
}

fn logarithm(element: u8) -> usize {
    LOGARITHMS.get(usize::from(element)).copied().map_or(0, usize::from)
}

#[expect(clippy::indexing_slicing, reason = "computed by the compiler, which checks the places")]
const fn powers() -> [u8; 510] {
    let mut table = [1; 510];
    let mut place = 1;
    while place < table.len() {
        let before = table[place - 1];
        table[place] = (before << 1) ^ if before & 0x80 == 0 { 0 } else { 0x1d };
        place += 1;
    }
    table
}

#[expect(clippy::indexing_slicing, reason = "computed by the compiler, which checks the places")]
const fn logarithms() -> [u8; 256] {
    let mut table = [0; 256];
    let mut exponent = 0;
    while exponent < 255 {
        table[POWERS[exponent as usize] as usize] = exponent;
        exponent += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiplication as it is defined: shift and add, and reduce.
    fn by_definition(mut a: u8, mut b: u8) -> u8 {
        let mut product = 0;
        while b != 0 {
            product ^= if b & 1 == 1 { a } else { 0 };
            a = (a << 1) ^ if a & 0x80 == 0 { 0 } else { 0x1d };
            b >>= 1;
        }
        product
    }

    #[test]
    fn every_product_is_that_of_the_definition_and_division_undoes_it() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(multiply(a, b), by_definition(a, b));
                assert!(b == 0 || divide(multiply(a, b), b) == a);
            }
        }
    }

    #[test]
    fn a_division_of_polynomials_leaves_what_is_over() {
        // (x^2 + 3) * (x + 2) + 7
        let mut product = vec![7];
        add_multiple(&mut product, 2, 0, &[3, 0, 1]);
        add_multiple(&mut product, 1, 1, &[3, 0, 1]);
        assert_eq!(divide_with_rest(product, &[2, 1]), Some((vec![3, 0, 1], vec![7])));
        assert_eq!(divide_with_rest(vec![1, 2], &[]), None);
    }
}
