use proptest::prelude::*;

use super::*;

#[test]
fn a_body_is_taken_apart_to_its_last_byte() {
    let mut body = vec![0; 36];
    body[0] = 1;
    body.extend([0, 9, 9, 9, 9, CERTIFICATE, 1, 0, 2, 7, 7, 0, 1, 8]);
    body.resize(112, 0);
    let split = Body::split(&body).unwrap();
    assert_eq!((split.head.len(), split.server, split.shown), (37, [9; 4], &[7, 7][..]));
    assert_eq!((split.signed, split.signature), (&body[..47], &[8][..]));
    for (at, wrong) in [(36, 6), (41, 0), (41, 3), (42, 0), (42, 5), (43, 1), (47, 1), (111, 1)] {
        let mut body = body.clone();
        body[at] = wrong;
        assert!(Body::split(&body).is_none(), "byte {at} = {wrong}");
    }
}

proptest! {
    #[test]
    fn no_body_and_no_certificate_makes_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..1200)) {
        let _ = Body::split(&bytes);
        if let Some(certificate) = Certificate::parse(&bytes) {
            let _ = Leaf::read(&certificate);
        }
    }
}
