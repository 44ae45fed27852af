use super::*;

/// Plays a whole conversation; gives what was said, and how it ended.
fn play(password: Option<&Password>, mut heard: &[u8]) -> (Vec<u8>, Step) {
    let (mut handshake, mut said) = (Handshake::new(password), Vec::new());
    loop {
        match handshake.next(heard) {
            Step::Say { taken, answer } => {
                said.extend(answer);
                heard = &heard[taken..];
            }
            end => return (said, end),
        }
    }
}

fn bytes(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn to(host: &str, port: u16) -> Destination {
    Destination { host: Host::named(host.as_bytes()).unwrap(), port }
}

fn password() -> Password {
    Password::new(b"user", b"pass").unwrap()
}

// Sent by curl 7.88.1, with `-x socks5://`, `socks5h://`, `socks4://` and `socks4a://`, for http://10.77.0.1:8080,
// http://[fd77::1]:8080 and http://myserver:8080.
const CURL5: &str = "05 02 00 01  05 01 00 01 0a 4d 00 01 1f 90";
const CURL5_V6: &str = "05 02 00 01  05 01 00 04 fd 77 00 00 00 00 00 00 00 00 00 00 00 00 00 01 1f 90";
const CURL5H: &str = "05 02 00 01  05 01 00 03 08 6d 79 73 65 72 76 65 72 1f 90";
const CURL5_PASSWORD: &str =
    "05 03 00 01 02  01 04 75 73 65 72 04 70 61 73 73  05 01 00 01 0a 4d 00 01 1f 90";
const CURL4: &str = "04 01 1f 90 0a 4d 00 01 00";
const CURL4A: &str = "04 01 1f 90 00 00 00 01 00 6d 79 73 65 72 76 65 72 00";

#[test]
fn what_curl_says_is_understood() {
    for (said, host, answer) in [
        (CURL5, "10.77.0.1", "05 00"),
        (CURL5_V6, "fd77::1", "05 00"),
        (CURL5H, "myserver", "05 00"),
        (CURL4, "10.77.0.1", ""),
        (CURL4A, "myserver", ""),
    ] {
        let heard = bytes(said);
        let (answered, end) = play(None, &heard);
        assert_eq!(answered, bytes(answer), "{said}");
        assert!(
            matches!(&end, Step::Connect { destination, .. } if *destination == to(host, 8080)),
            "{end:?}"
        );
    }
}

#[test]
fn a_password_is_asked_for_and_has_to_be_right() {
    let right = password();
    let heard = bytes(CURL5_PASSWORD);
    let (said, end) = play(Some(&right), &heard);
    assert_eq!(said, bytes("05 02 01 00"));
    assert!(matches!(end, Step::Connect { .. }));
    for (name, secret) in [("user", "Pass"), ("userp", "ass"), ("", "pass"), ("user", "")] {
        let heard = [
            &[5, 1, 2, 1, u8::try_from(name.len()).unwrap()][..],
            name.as_bytes(),
            &[u8::try_from(secret.len()).unwrap()],
            secret.as_bytes(),
        ];
        let end = play(Some(&right), &heard.concat()).1;
        assert_eq!(end, Step::End { answer: vec![1, 1], why: Fault::WrongPassword }, "{name} {secret}");
    }
}

#[test]
fn without_the_password_no_version_gets_anywhere() {
    let right = password();
    assert_eq!(
        play(Some(&right), &bytes(CURL5)).1,
        Step::End { answer: vec![5, 0xff], why: Fault::NoPassword }
    );
    let rejected = Step::End { answer: bytes("00 5b 00 00 00 00 00 00"), why: Fault::NoPassword };
    assert_eq!(play(Some(&right), &bytes(CURL4)).1, rejected);
}

#[test]
fn a_client_that_only_knows_passwords_may_say_any_where_none_is_needed() {
    let (said, end) = play(None, &bytes("05 01 02  01 01 78 01 79  05 01 00 01 7f 00 00 01 00 50"));
    assert_eq!(said, bytes("05 02 01 00"));
    assert!(matches!(end, Step::Connect { .. }));
}

#[test]
fn what_is_not_done_is_refused_in_the_words_of_its_version() {
    for (heard, answer, why) in [
        ("05 01 00 05 02 00 01 7f 00 00 01 00 50", "05 07 00 01 00 00 00 00 00 00", Fault::Command),
        ("05 01 00 05 03 00 01 7f 00 00 01 00 50", "05 07 00 01 00 00 00 00 00 00", Fault::Command),
        ("05 01 00 05 01 00 02 7f 00 00 01 00 50", "05 08 00 01 00 00 00 00 00 00", Fault::Address),
        ("05 01 00 05 01 00 03 00 00 50", "05 04 00 01 00 00 00 00 00 00", Fault::Address),
        ("05 01 00 05 01 00 03 03 61 00 62 00 50", "05 04 00 01 00 00 00 00 00 00", Fault::Address),
        ("05 01 00 04 01 00 01", "05 01 00 01 00 00 00 00 00 00", Fault::NotSocks),
        ("05 01 01", "05 ff", Fault::NotSocks),
        ("04 02 00 50 7f 00 00 01 00", "00 5b 00 00 00 00 00 00", Fault::Command),
        ("04 01 00 50 00 00 00 01 00 00", "00 5b 00 00 00 00 00 00", Fault::Address),
        ("47 45 54 20 2f", "", Fault::NotSocks),
        ("16 03 01", "", Fault::NotSocks),
    ] {
        assert_eq!(play(None, &bytes(heard)).1, Step::End { answer: bytes(answer), why }, "{heard}");
    }
}

#[test]
fn a_user_or_a_host_without_an_end_is_not_waited_for() {
    let long = |head: &[u8], count| [head, &vec![b'x'; count]].concat();
    for head in ["04 01 00 50 7f 00 00 01", "04 01 00 50 00 00 00 01 00"] {
        assert_eq!(play(None, &long(&bytes(head), 255)).1, Step::Wait);
        assert!(matches!(play(None, &long(&bytes(head), 256)).1, Step::End { why: Fault::NotSocks, .. }));
    }
}

#[test]
fn it_does_not_matter_in_how_many_pieces_something_arrives() {
    let right = password();
    for (said, password) in [
        (CURL5, None),
        (CURL5_V6, None),
        (CURL5H, None),
        (CURL4, None),
        (CURL4A, None),
        (CURL5_PASSWORD, Some(&right)),
    ] {
        let whole = bytes(said);
        for end in 0..whole.len() {
            assert_eq!(play(password, &whole[..end]).1, Step::Wait, "{said} up to {end}");
        }
    }
}

#[test]
fn what_comes_early_is_left_for_the_destination() {
    let heard = [bytes(CURL4A), b"GET / HTTP/1.0".to_vec()].concat();
    let Step::Connect { taken, .. } = play(None, &heard).1 else { panic!("it asked") };
    assert_eq!(&heard[taken..], b"GET / HTTP/1.0");
}

#[test]
fn outcomes_have_the_words_of_the_version_that_asked() {
    let asked = |text: &str| {
        let mut handshake = Handshake::new(None);
        let mut heard = &bytes(text)[..];
        while let Step::Say { taken, .. } = handshake.next(heard) {
            heard = &heard[taken..];
        }
        handshake
    };
    let (four, five) = (asked(CURL4), asked(CURL5));
    let v4 = Outcome::Connected("10.77.0.2:258".parse().unwrap());
    let v6 = Outcome::Connected("[fd77::2]:258".parse().unwrap());
    assert_eq!(five.answer(v4), bytes("05 00 00 01 0a 4d 00 02 01 02"));
    assert_eq!(five.answer(v6), bytes("05 00 00 04 fd 77 00 00 00 00 00 00 00 00 00 00 00 00 00 02 01 02"));
    assert_eq!(four.answer(v4), bytes("00 5a 01 02 0a 4d 00 02"));
    assert_eq!(four.answer(v6), bytes("00 5a 01 02 00 00 00 00"));
    for (outcome, reply) in [
        (Outcome::Failed, 1),
        (Outcome::NetworkUnreachable, 3),
        (Outcome::HostUnreachable, 4),
        (Outcome::Refused, 5),
        (Outcome::TimedOut, 6),
    ] {
        assert_eq!(five.answer(outcome), [5, reply, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(four.answer(outcome), bytes("00 5b 00 00 00 00 00 00"));
    }
}

#[test]
fn an_address_in_the_place_of_a_name_is_an_address() {
    assert_eq!(Host::named(b"127.0.0.1"), Some(Host::Address("127.0.0.1".parse().unwrap())));
    assert_eq!(Host::named(b"::1"), Some(Host::Address("::1".parse().unwrap())));
    for odd in [&b"a b"[..], b"-x", b"", b"a\0b", b"a\nb", b"\xff", b"a/b", b"[::1]"] {
        assert_eq!(Host::named(odd), None, "{odd:?}");
    }
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_waited_for_fits_into_the_room_that_there_is(
            version in 4..=5_u8,
            mut heard in prop::collection::vec(any::<u8>(), MAX_HEARD),
        ) {
            heard[0] = version;
            let mut handshake = Handshake::new(None);
            let mut rest = &heard[..];
            loop {
                match handshake.next(rest) {
                    Step::Say { taken, .. } => rest = &rest[taken..],
                    Step::Wait => {
                        prop_assert!(rest.len() < MAX_HEARD);
                        break;
                    }
                    Step::Connect { .. } | Step::End { .. } => break,
                }
            }
        }
    }
}
