//! What a client says to the proxy: however it is cut into pieces, the same comes of it, and it is never waited for more
//! than there is room for.
#![no_main]

use knockd_rs::socks::{Handshake, MAX_HEARD, Outcome, Password, Step};
use libfuzzer_sys::fuzz_target;

/// Plays a conversation of which so many bytes arrive at a time: what was said, and how it ended.
fn play(password: Option<&Password>, bytes: &[u8], piece: usize) -> (Vec<u8>, Step) {
    let (mut handshake, mut said, mut heard) = (Handshake::new(password), Vec::new(), Vec::new());
    let mut pieces = bytes.chunks(piece);
    let end = loop {
        match handshake.next(&heard) {
            Step::Say { taken, answer } => {
                heard.drain(..taken);
                said.extend(answer);
            }
            Step::Wait => {
                assert!(heard.len() < MAX_HEARD, "more is waited for than there is room for");
                match pieces.next() {
                    Some(piece) => heard.extend(piece),
                    None => break Step::Wait,
                }
            }
            end => break end,
        }
    };
    if let Step::Connect { taken, .. } = &end {
        assert!(*taken <= heard.len(), "more was taken than was heard");
        said.extend(handshake.answer(Outcome::Refused));
    }
    (said, end)
}

fuzz_target!(|bytes: &[u8]| {
    let password = Password::new(b"user", b"pass").expect("it has a form");
    for password in [None, Some(&password)] {
        // What is waited for has an end when enough arrives at once.
        let whole = play(password, bytes, MAX_HEARD.max(bytes.len()));
        for piece in [1, 3] {
            assert_eq!(play(password, bytes, piece), whole);
        }
    }
});
