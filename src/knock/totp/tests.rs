use super::*;
use crate::time::ClockTrust;

/// A moment in the middle of its step.
const NOW: u64 = 1_767_225_615;
const ALICE: ClientId = ClientId([1; 32]);

fn client(number: u8) -> ClientKeys {
    ClientKeys { client: ClientId([number; 32]), key: Secret::new([number; 32]), ports: DEFAULT_PORTS }
}

fn decoder(clients: impl IntoIterator<Item = ClientKeys>) -> Decoder {
    Decoder::new(Ground::default(), clients, Seeded::new([1; 16]))
}

fn at(wall: u64) -> Now {
    Now {
        wall: Timestamp::from_secs(wall),
        uptime: Duration::from_secs(wall - NOW + 1000),
        trust: ClockTrust::Synchronised,
    }
}

/// Who knocked, and with which counter in steps.
fn play(decoder: &mut Decoder, source: &str, ports: &[u16], wall: u64) -> Option<(ClientId, u64)> {
    let source = source.parse().unwrap();
    let mut heard = Vec::new();
    for port in ports {
        heard.extend(decoder.receive(*port, source, at(wall)));
    }
    let heard = heard.pop()?;
    let (_, counter) = heard.request.unwrap();
    Some((heard.client, step(counter)))
}

fn sequence(number: u8, step: u64) -> Vec<u16> {
    ports(&Secret::new([number; 32]), step, DEFAULT_PORTS, &Ground::default())
}

const PRESENT: u64 = NOW / STEP;

#[test]
fn a_sequence_of_the_present_step_or_of_a_neighbour_is_a_knock_with_that_step_as_its_counter() {
    for step in PRESENT - 2..=PRESENT + 2 {
        let mut decoder = decoder([client(1), client(2)]);
        let expected = (step.abs_diff(PRESENT) < 2).then_some((ALICE, step));
        assert_eq!(play(&mut decoder, "192.0.2.7", &sequence(1, step), NOW), expected, "{step}");
    }
}

#[test]
fn sequences_go_with_the_time() {
    let mut decoder = decoder([client(1)]);
    for step in [PRESENT, PRESENT + 1, PRESENT + 2, PRESENT + 90] {
        let now = NOW + (step - PRESENT) * STEP;
        assert_eq!(play(&mut decoder, "2001:db8::7", &sequence(1, step), now), Some((ALICE, step)));
        assert_eq!(decoder.steps.len(), 3);
    }
}

#[test]
fn out_of_order_or_with_one_left_out_it_is_none() {
    let good = sequence(1, PRESENT);
    let mut swapped = good.clone();
    swapped.swap(2, 3);
    for (number, wrong) in [swapped, good[1..].to_vec(), good[..5].to_vec()].iter().enumerate() {
        assert_eq!(play(&mut decoder([client(1)]), "192.0.2.7", wrong, NOW), None, "{number}");
    }
}

#[test]
fn ports_that_are_not_in_the_span_are_not_looked_at() {
    let mut decoder = decoder([client(1)]);
    let source = "192.0.2.7".parse().unwrap();
    for (port, drop) in
        [(16_383, Drop::Method), (16_384, Drop::Partial), (49_151, Drop::Partial), (49_152, Drop::Method)]
    {
        assert_eq!(decoder.receive(port, source, at(NOW)).err(), Some(drop), "{port}");
    }
}

#[test]
fn twenty_strange_hits_in_the_clients_name_do_no_harm() {
    let mut decoder = decoder([client(1)]);
    let noisy: Vec<u16> = sequence(1, PRESENT)
        .into_iter()
        .flat_map(|port| (0..20).map(|n| 17_000 + n * 7).chain([port]))
        .collect();
    assert_eq!(play(&mut decoder, "192.0.2.7", &noisy, NOW), Some((ALICE, PRESENT)));
}

#[test]
fn whoever_hits_every_port_of_the_span_again_and_again_opens_nothing() {
    let mut decoder = decoder([client(1), client(2), client(3)]);
    let all: Vec<u16> = (0..8).flat_map(|_| 16_384..49_152).collect();
    assert_eq!(play(&mut decoder, "192.0.2.7", &all, NOW), None);
}

#[test]
fn every_port_of_a_sequence_is_another_and_none_is_left_out() {
    for (number, base, span) in [(1, 16_384, 32_768), (2, 1, 65_535), (3, 50_000, 13)] {
        let ground = Ground { base, span, excluded: vec![base + 1] };
        for step in 0..200 {
            let ports = ports(&Secret::new([number; 32]), step, MAX_PORTS, &ground);
            let mut sorted = ports.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), usize::from(MAX_PORTS), "{ports:?}");
            assert!(ports.iter().all(|port| ground.place(*port).is_some()));
        }
    }
}

#[test]
fn many_clients_are_told_apart() {
    let clients = (0..2000u16).map(|number| ClientKeys {
        client: ClientId([u8::try_from(number % 251).unwrap(); 32]),
        key: {
            let mut key = [0; 32];
            key[..2].copy_from_slice(&number.to_be_bytes());
            Secret::new(key)
        },
        ports: MIN_PORTS + u8::try_from(number % 9).unwrap(),
    });
    let clients: Vec<ClientKeys> = clients.collect();
    let mut decoder = decoder(clients.clone());
    for client in clients.iter().step_by(97) {
        let sequence = ports(&client.key, PRESENT, client.ports, &Ground::default());
        let source = format!("192.0.2.{}", client.ports);
        assert_eq!(play(&mut decoder, &source, &sequence, NOW), Some((client.client, PRESENT)));
    }
}

#[test]
fn a_client_knocks_in_the_present_step_then_in_the_next_and_then_waits() {
    let now = Timestamp::from_secs(NOW);
    assert_eq!(next_step(now, None), Ok(PRESENT));
    assert_eq!(next_step(now, Some(PRESENT - 1)), Ok(PRESENT));
    assert_eq!(next_step(now, Some(PRESENT)), Ok(PRESENT + 1));
    assert_eq!(next_step(now, Some(PRESENT + 1)), Err(Duration::from_secs(15)));
    // The clock had been wrong.
    assert_eq!(next_step(now, Some(PRESENT + 2)), Ok(PRESENT));
}

#[test]
fn the_ports_are_those_of_another_program() {
    let text = include_str!("../../../tests/data/totp-vector.json");
    let vector: std::collections::BTreeMap<String, String> = serde_json::from_str(text).unwrap();
    let seed = |first: u8| -> [u8; 32] { std::array::from_fn(|i| first + u8::try_from(i).unwrap()) };
    let (server, own) = (KeyPair::from_seed(seed(0)), KeyPair::from_seed(seed(0x40)));
    let psk = Secret::new(seed(0x60));
    let ours = key(&own, &server.public(), &psk).unwrap();
    assert_eq!(Some(&ours), key(&server, &own.public(), &psk).as_ref(), "both sides agree");
    let hex: String = ours.expose().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, vector["key"]);
    let now = step(Timestamp::from_secs(vector["time"].parse().unwrap()));
    assert_eq!(now.to_string(), vector["step"]);
    let text = |step, count, ground: &Ground| {
        let ports = ports(&ours, step, count, ground);
        ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let ground = Ground::default();
    assert_eq!(text(now, 6, &ground), vector["ports"]);
    assert_eq!(text(now + 1, 6, &ground), vector["next_ports"]);
    let first = vector["ports"].split(' ').next().unwrap().parse().unwrap();
    assert_eq!(text(now, 6, &Ground { excluded: vec![first], ..ground }), vector["without_the_first"]);
    let small = Ground { base: 20_000, span: 12, excluded: vec![] };
    assert_eq!(text(now, 12, &small), vector["twelve_of_twelve"]);
}
