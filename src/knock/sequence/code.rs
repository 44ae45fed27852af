//! The erasure code: systematic Reed-Solomon over GF(2^8), by Lagrange.
//!
//! The k bytes of a message are the values at 0, 1 .. k-1 of a polynomial of degree below k; the lanes k .. n-1 carry
//! its values there. Any k of the n give the polynomial back, and of more than k some may be wrong: m bytes with e
//! wrong ones among them are put right while 2e <= m - k.

use super::field::{add, add_multiple, divide, divide_with_rest, evaluate, multiply};

/// A byte, and the lane in which it came.
pub(super) type Point = (u8, u8);

/// The n bytes that stand for `message`, one for each lane; the first k are the message itself.
pub(super) fn encode(message: &[u8], n: usize) -> Vec<u8> {
    let points: Vec<Point> = (0u8..).zip(message.iter().copied()).collect();
    let (polynomial, _) = interpolate(&points);
    (0u8..=u8::MAX).take(n).map(|lane| evaluate(&polynomial, lane)).collect()
}

/// The message of k bytes that most of the points are of: those of different lanes, in any order, at least k. `None`
/// when there is none that all but (m - k) / 2 of m points agree with; there is never more than one.
///
/// S. Gao, "A New Algorithm for Decoding Reed-Solomon Codes" (2003), algorithm 1a. The steps are his.
pub(super) fn decode(points: &[Point], k: usize) -> Option<Vec<u8>> {
    if points.len() < k {
        return None;
    }
    // Step 1: g1 through all points, and g0, which is zero at all of them.
    let (mut rest, mut before) = interpolate(points);
    // Step 2: Euclid's algorithm on g0 and g1 until the degree of the rest is below (m + k) / 2. v is the factor of
    // g1 in it, and has its zeros where the wrong points are.
    let (mut v, mut v_before) = (vec![1], Vec::new());
    while 2 * rest.len() >= points.len() + k + 2 {
        let (quotient, next) = divide_with_rest(before, &rest)?;
        let mut v_next = v_before;
        for (shift, factor) in quotient.iter().enumerate() {
            add_multiple(&mut v_next, *factor, shift, &v);
        }
        (before, rest) = (rest, next);
        (v_before, v) = (v, v_next);
    }
    // Step 3: the rest divided by v is the message, if it goes in evenly and is of a message's degree.
    let (polynomial, over) = divide_with_rest(rest, &v)?;
    (over.is_empty() && polynomial.len() <= k)
        .then(|| (0u8..=u8::MAX).take(k).map(|lane| evaluate(&polynomial, lane)).collect())
}

/// Newton's form of Lagrange's polynomial through the points, and the product of all (x - lane).
fn interpolate(points: &[Point]) -> (Vec<u8>, Vec<u8>) {
    let (mut polynomial, mut zeros) = (Vec::with_capacity(points.len()), vec![1]);
    for (lane, byte) in points {
        let missing = add(*byte, evaluate(&polynomial, *lane));
        let factor = divide(missing, evaluate(&zeros, *lane));
        add_multiple(&mut polynomial, factor, 0, &zeros);
        let mut next: Vec<u8> = zeros.iter().map(|zero| multiply(*zero, *lane)).collect();
        add_multiple(&mut next, 1, 1, &zeros);
        zeros = next;
    }
    (polynomial, zeros)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reed_solomon_erasure::galois_8::ReedSolomon;

    use super::*;

    /// The shapes of the three kinds of messages, and others.
    fn shapes() -> impl Strategy<Value = (usize, usize)> {
        prop_oneof![
            Just((18, 28)),
            Just((22, 32)),
            Just((34, 54)),
            (1usize..40, 1usize..20).prop_map(|(k, more)| (k, k + more))
        ]
    }

    /// A message, its length and the number of lanes, and the lanes in some order.
    fn cases() -> impl Strategy<Value = (Vec<u8>, usize, Vec<usize>)> {
        shapes().prop_flat_map(|(k, n)| {
            let order = Just((0..n).collect::<Vec<_>>()).prop_shuffle();
            (prop::collection::vec(any::<u8>(), k), Just(n), order)
        })
    }

    proptest! {
        #[test]
        fn every_lane_is_that_of_another_program((message, n, _) in cases()) {
            let mut lanes: Vec<[u8; 1]> = message.iter().map(|byte| [*byte]).collect();
            lanes.resize(n, [0]);
            ReedSolomon::new(message.len(), n - message.len()).unwrap().encode(&mut lanes).unwrap();
            prop_assert_eq!(encode(&message, n), lanes.concat());
        }

        #[test]
        fn any_k_lanes_in_any_order_give_the_message((message, n, order) in cases()) {
            let lanes = encode(&message, n);
            let points: Vec<Point> =
                order.iter().take(message.len()).map(|lane| (u8::try_from(*lane).unwrap(), lanes[*lane])).collect();
            prop_assert_eq!(decode(&points, message.len()), Some(message));
        }

        #[test]
        fn half_as_many_wrong_bytes_as_spare_lanes_are_put_right(
            (message, n, order) in cases(), lost in 0usize..20, errors in prop::collection::vec(1u8.., 10)
        ) {
            let k = message.len();
            let lanes = encode(&message, n);
            let received = (n - lost.min(n - k)).max(k);
            let wrong = (received - k) / 2;
            let points: Vec<Point> = order.iter().take(received).enumerate()
                .map(|(place, lane)| {
                    let error = if place < wrong { *errors.get(place % 10).unwrap() } else { 0 };
                    (u8::try_from(*lane).unwrap(), lanes[*lane] ^ error)
                })
                .collect();
            prop_assert_eq!(decode(&points, k), Some(message));
        }

        #[test]
        fn whatever_comes_out_agrees_with_most_of_what_came_in(
            bytes in prop::collection::vec(any::<u8>(), 18..54), k in 1usize..34
        ) {
            let points: Vec<Point> = (0u8..).zip(bytes).collect();
            if let Some(message) = decode(&points, k) {
                let lanes = encode(&message, points.len());
                let wrong = points.iter().zip(&lanes).filter(|((_, byte), lane)| byte != *lane).count();
                prop_assert!(2 * wrong <= points.len() - k);
            }
        }
    }

    #[test]
    fn fewer_than_k_lanes_give_nothing() {
        assert_eq!(decode(&[(0, 1), (1, 2)], 3), None);
    }

    #[test]
    fn a_message_of_zeros_is_a_message() {
        let points: Vec<Point> = (0u8..28).map(|lane| (lane, 0)).collect();
        assert_eq!(decode(&points, 18), Some(vec![0; 18]));
    }
}
