//! Broken configurations: each must be refused, or warned of, with exactly the words that help to mend it.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use knockd_rs::config::{self, Configuration, DEFAULT_GRACE, Device, Freshness, Mode, SERVER_KEY};
use knockd_rs::crypto::{KeyPair, Psk, PublicKey};
use knockd_rs::files;
use knockd_rs::grant::Uses;
use knockd_rs::profile::{self, NewProfile, Opens};
use knockd_rs::text::Span;

/// A configuration directory with keys; everything else is written by the test.
struct Etc(tempfile::TempDir);

impl Etc {
    fn new() -> Self {
        let etc = Self(tempfile::tempdir().unwrap());
        DirBuilder::new().mode(0o750).create(etc.path().join("profiles.d")).unwrap();
        etc.write("server.key", 0o600, line(&KeyPair::from_seed([1; 32]).secret().to_base64()));
        etc.write("gate.key", 0o600, line(&Psk::new([2; 32]).to_base64()));
        etc
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, file: &str, mode: u32, text: impl AsRef<[u8]>) {
        let path = self.path().join(file);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn settings(self, text: &str) -> Self {
        self.write("knockd-rs.toml", 0o644, text);
        self
    }

    fn profile(self, file: &str, text: &str) -> Self {
        self.write(&format!("profiles.d/{file}"), 0o640, text);
        self
    }

    fn load(&self) -> Result<Configuration, Vec<String>> {
        let strings = |errors: Vec<config::ConfigError>| errors.iter().map(ToString::to_string).collect();
        config::load_from(self.path(), None).map_err(strings)
    }

    fn errors(&self) -> Vec<String> {
        self.load().err().unwrap_or_default()
    }

    fn warnings(&self) -> Vec<String> {
        self.load().unwrap().warnings.iter().map(ToString::to_string).collect()
    }
}

fn line(text: &str) -> String {
    format!("{text}\n")
}

fn key(seed: u8) -> String {
    KeyPair::from_seed([seed; 32]).public().to_string()
}

/// A sound profile, two lines long, with more lines after it.
fn laptop(more: &str) -> String {
    format!("public_key = \"{}\"\nopen = [\"tcp/22\"]\n{more}", key(7))
}

/// Checks that each text of the settings is refused with exactly these words.
fn settings_are_refused(cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(Etc::new().settings(text).errors(), *expected, "{text}");
    }
}

/// Checks that each addition to a sound profile is refused with exactly these words.
fn profiles_are_refused(cases: &[(&str, &[&str])]) {
    for (more, expected) in cases {
        assert_eq!(Etc::new().profile("laptop.toml", &laptop(more)).errors(), *expected, "{more}");
    }
}

#[test]
fn wrong_values_in_the_settings_are_named_with_line_key_and_what_is_accepted() {
    settings_are_refused(&[
        ("[capture]\nport = 0\n", &["knockd-rs.toml:2: capture.port: 0; use 1 to 65535"]),
        (
            "[capture]\nport = 99999999999999999999\n",
            &["knockd-rs.toml:2: capture.port: is a number too large; use a number from 1 to 65535"],
        ),
        (
            "[capture]\nport = \"62201\"\n",
            &["knockd-rs.toml:2: capture.port: is a text; use a number from 1 to 65535"],
        ),
        (
            "[capture]\ndevice = \"a device with blanks\"\n",
            &[
                "knockd-rs.toml:2: capture.device: `a device with blanks` is no interface; use its name, such as eth0: 1 to \
             15 characters, no blanks, / : or *",
            ],
        ),
        (
            "capture.device = \"nflog:x\"",
            &["knockd-rs.toml:1: capture.device: `nflog:x`; use nflog:0 to nflog:65535"],
        ),
        (
            "capture.device = \"file:a.pcap\"",
            &[
                "knockd-rs.toml:1: capture.device: `file:a.pcap`; use a whole path, such as file:/tmp/knocks.pcap",
            ],
        ),
        (
            "[firewall]\n\non_stop = \"open\"\n",
            &["knockd-rs.toml:3: firewall.on_stop: `open`; use \"keep\" or \"remove\""],
        ),
        (
            "[firewall]\nmode = 1\n",
            &["knockd-rs.toml:2: firewall.mode: is a number; use \"table\" or \"sets\""],
        ),
        (
            "[firewall.trusted]\nnetworks = [\n\"10.0.0.0/8\",\n\"10.0.0.1/8\"]\n",
            &[
                "knockd-rs.toml:4: firewall.trusted.networks: `10.0.0.1/8` has bits set after its prefix; write 10.0.0.0/8",
            ],
        ),
        (
            "[guard]\ndrop = \"tcp/22\"\n",
            &["knockd-rs.toml:2: guard.drop: is a text; use a list: [\"tcp/22\"]"],
        ),
        ("[guard]\ndrop = [22]\n", &["knockd-rs.toml:2: guard.drop: is a number; use \"tcp/22\""]),
        (
            "[guard]\nreject = [\"tcp/9-8\"]\n",
            &["knockd-rs.toml:2: guard.reject: the range 9-8 ends before it begins; write 8-9"],
        ),
    ]);
}

#[test]
fn wrong_times_limits_and_words_in_the_settings_are_named_in_the_same_way() {
    settings_are_refused(&[
        ("[freshness]\nmax_age = \"2d\"\n", &["knockd-rs.toml:2: freshness.max_age: 2d; use 1s to 1d"]),
        (
            "[freshness]\nclock = \"sure\"\n",
            &["knockd-rs.toml:2: freshness.clock: `sure`; use \"auto\" or \"trusted\" or \"untrusted\""],
        ),
        ("[limits]\ngrants = 0\n", &["knockd-rs.toml:2: limits.grants: 0; use 1 to 65535"]),
        (
            "[limits]\ngrants = 4.5\n",
            &["knockd-rs.toml:2: limits.grants: is a number with a fraction; use a number from 1 to 65535"],
        ),
        (
            "[control]\ngroup = \"\"\n",
            &["knockd-rs.toml:2: control.group: `` is no group; use its name, such as adm"],
        ),
        (
            "[log]\nlevel = \"all\"\n",
            &["knockd-rs.toml:2: log.level: `all`; use \"error\" or \"warning\" or \"info\" or \"debug\""],
        ),
        ("log = \"json\"\n", &["knockd-rs.toml:1: log: is a text; write it as a table: [log]"]),
    ]);
}

#[test]
fn unknown_keys_are_refused_with_the_accepted_ones_and_the_one_that_was_meant() {
    settings_are_refused(&[
        (
            "[capture]\ndevices = \"any\"\n",
            &["knockd-rs.toml:2: capture.devices: unknown key; did you mean device? use device, port"],
        ),
        (
            "[gaurds]\n",
            &[
                "knockd-rs.toml:1: gaurds: unknown key; use capture, firewall, guard, services, sequence, freshness, limits, \
             control, log, forward, certificate_authority, certificates",
            ],
        ),
    ]);
    profiles_are_refused(&[(
        "max-duration = \"1h\"\n",
        &[
            "profiles.d/laptop.toml:3: max-duration: unknown key; did you mean max_duration? use public_key, psk, open, \
         duration, max_duration, connections, session, lockout, other_addresses, wide, max_grants, enabled, methods, max_age, max_ahead, insecure, plain, totp, expires, previous",
        ],
    )]);
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    settings_are_refused(&[
        (
            "[guard]\ndrop = [\"tcp/20-30\"]\nreject = [\"tcp/22\", \"tcp/30-40\"]\n",
            &[
                "knockd-rs.toml:3: guard.reject: tcp/22 is in guard.drop too; keep it in one of them",
                "knockd-rs.toml:3: guard.reject: tcp/30 is in guard.drop too; keep it in one of them",
            ],
        ),
        (
            "[limits]\nhandshakes_per_source = 6000\n",
            &[
                "knockd-rs.toml:2: limits.handshakes_per_source: one source's share of 6000 is more than the 5000 for all; \
             use handshakes_per_source <= handshakes_per_second",
            ],
        ),
        (
            "firewall.mode = \"sets\"\n",
            &[
                "knockd-rs.toml:1: firewall.mode: \"sets\" needs [firewall.sets] with the sets to fill; name at least one \
             of timed_v4, timed_v6, once_v4, once_v6",
            ],
        ),
        (
            "[firewall]\nmode = \"sets\"\nsets.timed_v4 = \"inet filter a\"\n[guard]\ndrop = [\"tcp/22\"]\n",
            &[
                "knockd-rs.toml:5: guard.drop: nothing is guarded in firewall.mode \"sets\", where your own rules close the \
             ports; remove it, or use firewall.mode = \"table\"",
            ],
        ),
        (
            "[firewall]\nmode = \"sets\"\nsets.timed_v4 = \"ip6 filter a\"\nsets.once_v4 = \"filter a\"\n",
            &[
                "knockd-rs.toml:3: firewall.sets.timed_v4: the family ip6 does not see these addresses; use inet",
                "knockd-rs.toml:4: firewall.sets.once_v4: `filter a` is no set; use \"family table set\" with the family \
             inet, ip or ip6, such as \"inet filter knock4\"",
            ],
        ),
        (
            "[firewall]\nmode = \"sets\"\n[firewall.sets]\ntimed_v4 = \"inet f a\"\nonce_v4 = \"inet f a\"\n",
            &["knockd-rs.toml:5: firewall.sets.once_v4: is the set of timed_v4 too; each needs its own"],
        ),
        (
            "[firewall]\nmode = \"sets\"\n[firewall.sets]\ntimed_v4 = \"inet knockd-rs a\"\n",
            &[
                "knockd-rs.toml:2: firewall.mode: \"sets\" needs [firewall.sets] with the sets to fill; name at least one \
             of timed_v4, timed_v6, once_v4, once_v6",
                "knockd-rs.toml:4: firewall.sets.timed_v4: the table knockd-rs is the daemon's own; name a table of yours",
            ],
        ),
    ]);
}

#[test]
fn ports_that_sequences_cannot_be_played_on_are_refused() {
    settings_are_refused(&[
        (
            "[sequence]\nspan = 8191\n",
            &[
                "knockd-rs.toml:2: sequence.span: a span of 8191 ports is too small, 32 knocks of 8 bits need 8192; use 8192 to 65535",
            ],
        ),
        (
            "[sequence]\nbase = 40000\n",
            &[
                "knockd-rs.toml:2: sequence.base: 32768 ports from 40000 on do not lie between 1 and 65535; use a lower base or a smaller span",
            ],
        ),
        (
            "[sequence]\nexcluded = [\"tcp/20000-20064\"]\n",
            &[
                "knockd-rs.toml:2: sequence.excluded: more than 64 ports are left out; name fewer, or choose another base",
            ],
        ),
        ("[sequence]\nbase = 0\n", &["knockd-rs.toml:2: sequence.base: 0; use 1 to 65535"]),
    ]);
}

#[test]
fn services_that_cannot_be_told_apart_or_have_no_ports_are_refused() {
    settings_are_refused(&[
        (
            "[services]\nssh = []\n",
            &["knockd-rs.toml:2: services.ssh: has no ports; name at least one, such as \"tcp/22\""],
        ),
        (
            "[services]\n22 = [\"tcp/22\"]\n",
            &["knockd-rs.toml:2: services.22: the name `22` has no letter; choose another"],
        ),
        (
            "[services]\nSSH = [\"tcp/22\"]\n",
            &[
                "knockd-rs.toml:2: services.SSH: `SSH` is no name; use 1 to 32 characters of a-z 0-9 . _ -, beginning with a \
             letter or digit",
            ],
        ),
        // Two names whose SHA-256 begins alike, found by trying.
        (
            "[services]\nservice-13212 = [\"tcp/1\"]\nservice-100810 = [\"tcp/2\"]\n",
            &[
                "knockd-rs.toml:3: services.service-100810: has the same tag as the service `service-13212`, so that a knock cannot tell them apart; rename one",
            ],
        ),
    ]);
}

#[test]
fn a_service_may_say_which_unit_it_is_and_nothing_else_besides_its_ports() {
    let settings = "[services]\nssh = [\"tcp/22\"]\ndb = { ports = [\"tcp/5432\"], unit = \"postgresql.service\" }\n\
                    [services.web]\nports = [\"tcp/80\"]\nunit = \"web.target\"\n\
                    [services.dns]\nports = [\"udp/53\"]\n";
    let loaded = Etc::new().settings(settings).load().unwrap().settings;
    let doors: Vec<(&str, &str)> =
        loaded.doors.iter().map(|(name, unit)| (name.as_str(), unit.as_str())).collect();
    assert_eq!(doors, [("db", "postgresql.service"), ("web", "web.target")]);
    let services: Vec<String> =
        loaded.services.iter().map(|(name, ports)| format!("{name} {ports:?}")).collect();
    assert_eq!(services.len(), 4, "{services:?}");
    settings_are_refused(&[
        (
            "[services]\ndb = { unit = \"postgresql.service\" }\n",
            &["knockd-rs.toml: services.db.ports: is missing; name at least one, such as [\"tcp/22\"]"],
        ),
        (
            "[services]\ndb = { ports = [] }\n",
            &["knockd-rs.toml:2: services.db.ports: has no ports; name at least one, such as \"tcp/22\""],
        ),
        (
            "[services.db]\nports = [\"tcp/1\"]\nunits = \"a.service\"\n",
            &["knockd-rs.toml:3: services.db.units: unknown key; did you mean unit? use ports, unit"],
        ),
        (
            "[services.db]\nports = [\"tcp/1\"]\nunit = \"postgresql\"\n",
            &[
                "knockd-rs.toml:3: services.db.unit: `postgresql` is no unit that can be started; use its whole name, such as postgresql.service: a service, socket or target",
            ],
        ),
    ]);
}

#[test]
fn wrong_values_in_a_profile_are_named_with_line_key_and_what_is_accepted() {
    profiles_are_refused(&[
        ("max_duration = \"0s\"\n", &["profiles.d/laptop.toml:3: max_duration: 0s; use 1s to 30d"]),
        ("duration = \"31d\"\n", &["profiles.d/laptop.toml:3: duration: 31d; use 1s to 30d"]),
        (
            "duration = \"15\"\n",
            &[
                "profiles.d/laptop.toml:3: duration: `15` is no duration; write a number with its unit, such as 15s, 5m, 2h \
             or 1d",
            ],
        ),
        ("duration = 15\n", &["profiles.d/laptop.toml:3: duration: is a number; use \"1s\" to \"30d\""]),
        (
            "duration = \"2m\"\nmax_duration = \"1m\"\n",
            &["profiles.d/laptop.toml:3: duration: 2m is more than max_duration, 1m; use at most that"],
        ),
        (
            "connections = \"two\"\n",
            &[
                "profiles.d/laptop.toml:3: connections: `two`; use \"single\", \"many\", or a number from 1 to 250",
            ],
        ),
        (
            "enabled = \"yes\"\n",
            &["profiles.d/laptop.toml:3: enabled: is a text; use true or false, without quotes"],
        ),
        (
            "methods = []\n",
            &[
                "profiles.d/laptop.toml:3: methods: is empty, so that no knock is heard; use [\"spa\"], or enabled = false",
            ],
        ),
        (
            "methods = [\"sms\"]\n",
            &[
                "profiles.d/laptop.toml:3: methods: `sms` is no method; use \"spa\", \"syn\", \"sequence\", \"totp\", \"plain\", \"cert\"",
            ],
        ),
    ]);
}

#[test]
fn wrong_numbers_networks_and_secrets_in_a_profile_are_named_in_the_same_way() {
    profiles_are_refused(&[
        ("max_grants = -1\n", &["profiles.d/laptop.toml:3: max_grants: -1; use 1 to 65535"]),
        ("max_ahead = \"0s\"\n", &["profiles.d/laptop.toml:3: max_ahead: 0s; use 1s to 1d"]),
        (
            "other_addresses = [\"host\"]\n",
            &[
                "profiles.d/laptop.toml:3: other_addresses: `host` is no address or network; write 192.0.2.7, 10.0.0.0/8 or \
             2001:db8::/32",
            ],
        ),
        (
            "psk = \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"\n",
            &[
                "profiles.d/laptop.toml:3: psk: is all zero, which is no secret; use 32 random bytes in base64, or leave it \
             out",
            ],
        ),
        (
            "psk = \"c2VjcmV0\"\n",
            &[
                "profiles.d/laptop.toml:3: psk: 8 characters that are no key; use 32 bytes in base64: 44 characters, the last \
             of them =",
            ],
        ),
        (
            "psk = 5\n",
            &["profiles.d/laptop.toml:3: psk: is a number; use 32 random bytes in base64, or leave it out"],
        ),
        (
            "duration = \"1m\"\nduration = \"2m\"\n",
            &["profiles.d/laptop.toml:4: duration: is given twice; remove one of them"],
        ),
        (
            "duration = 1m\n",
            &["profiles.d/laptop.toml:3: string values must be quoted, expected literal string"],
        ),
    ]);
}

#[test]
fn a_profile_needs_a_key_of_its_own_and_something_to_open() {
    let errors = |text: &str| Etc::new().profile("laptop.toml", text).errors();
    assert_eq!(
        errors(""),
        [
            "profiles.d/laptop.toml: open: is missing; name at least one service or port, such as open = [\"tcp/22\"]",
            "profiles.d/laptop.toml: public_key: is missing; use the client's public key in base64, as `knockd-rs \
             keygen` prints it",
        ]
    );
    assert_eq!(
        errors("public_key = \"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"\nopen = []\n"),
        [
            "profiles.d/laptop.toml:1: public_key: a weak key: every secret made with it is known to all; make another \
             with `knockd-rs keygen`",
            "profiles.d/laptop.toml:2: open: is empty; name at least one service or port, such as \"tcp/22\"",
        ]
    );
    assert_eq!(
        errors(&format!("open = [\"tcp/22\"]\npublic_key = \"{}\"\n", key(1))),
        ["profiles.d/laptop.toml:2: public_key: is this server's own key; use the client's"]
    );
}

#[test]
fn settings_that_are_empty_are_cut_off_and_those_that_are_not_there_are_none() {
    let with = |text: &str| Etc::new().settings(text).profile("laptop.toml", &laptop("")).errors();
    let empty = "knockd-rs.toml: the file is empty, as if cut off; write it again, or for no settings at all remove it or put a comment in it";
    assert_eq!(with(""), [empty]);
    assert_eq!(with("# none\n"), [""; 0]);
    assert_eq!(with("\n"), [""; 0]);
}

#[test]
fn what_is_opened_must_be_ports_or_a_service_that_exists() {
    let errors = |settings: &str, open: &str| {
        let text = format!("public_key = \"{}\"\nopen = [\n\"tcp/1\",\n\"{open}\",\n]\n", key(7));
        Etc::new().settings(settings).profile("laptop.toml", &text).errors()
    };
    assert_eq!(
        errors("# none\n", "ssh"),
        [
            "profiles.d/laptop.toml:4: open: no service `ssh`; add it to [services] in knockd-rs.toml, or write ports: \
             tcp/22",
        ]
    );
    let services = "[services]\nssh = [\"tcp/22\"]\nweb = [\"tcp/80\"]\n";
    assert_eq!(
        errors(services, "shh"),
        ["profiles.d/laptop.toml:4: open: no service `shh`; use ssh, web, or ports: tcp/22"]
    );
    assert_eq!(
        errors("# none\n", "22"),
        ["profiles.d/laptop.toml:4: open: `22` is no port; write tcp/22, udp/53 or tcp/8000-8100"]
    );
    assert_eq!(
        errors("# none\n", "SSH"),
        ["profiles.d/laptop.toml:4: open: `SSH` is neither ports nor a service; write tcp/22, or ssh"]
    );
    assert_eq!(
        errors("# none\n", "tcp/0"),
        ["profiles.d/laptop.toml:4: open: port 0 cannot be opened; use 1 to 65535"]
    );
}

#[test]
fn a_mistake_in_a_service_is_not_laid_at_the_door_of_the_profiles_that_use_it() {
    let text = format!("public_key = \"{}\"\nopen = [\"ssh\"]\n", key(7));
    let etc = Etc::new().settings("[services]\nssh = [\"22\"]\n").profile("laptop.toml", &text);
    assert_eq!(
        etc.errors(),
        ["knockd-rs.toml:2: services.ssh: `22` is no port; write tcp/22, udp/53 or tcp/8000-8100"]
    );
    let etc = Etc::new().settings("[services\n").profile("laptop.toml", &text);
    assert_eq!(etc.errors(), ["knockd-rs.toml:1: unclosed table, expected `]`"]);
}

#[test]
fn two_profiles_never_share_a_key_or_a_name() {
    let etc = Etc::new().profile("laptop.toml", &laptop("")).profile("phone.toml", &laptop(""));
    assert_eq!(
        etc.errors(),
        [
            "profiles.d/phone.toml:1: public_key: is the key of the profile `laptop` too; each client needs its own"
        ]
    );
    let json = format!("{{ \"public_key\": \"{}\",\n \"open\": [\"tcp/22\"] }}", key(8));
    let etc = Etc::new().profile("laptop.toml", &laptop("")).profile("laptop.json", &json);
    assert_eq!(
        etc.errors(),
        ["profiles.d/laptop.toml: is the profile `laptop` again, after profiles.d/laptop.json; remove one"]
    );
}

#[test]
fn a_key_in_other_bytes_is_no_other_clients_unless_a_psk_tells_them_apart() {
    let laptop_key = KeyPair::from_seed([7; 32]).public();
    let mut with_bit = laptop_key;
    with_bit.0[31] |= 0x80;
    // The sum with the point of order two: on Curve25519 the inverse of the number, python3: pow(u, -1, 2**255 - 19).
    let inverse: PublicKey = "kMNKgxwQcAs1JcZqL64ewgUeBrpohknSHx9+mWymR1s=".parse().unwrap();
    let server = KeyPair::from_seed([9; 32]);
    for twin in [with_bit, inverse] {
        assert_ne!(twin, laptop_key);
        assert_eq!(server.agree(&twin), server.agree(&laptop_key));
        let by_syn = "methods = [\"spa\", \"syn\"]\n";
        let phone = |more: &str| format!("public_key = \"{twin}\"\nopen = [\"tcp/443\"]\n{more}");
        let both = |more: &str| {
            let (one, other) = (laptop(by_syn), phone(&format!("{by_syn}{more}")));
            Etc::new().profile("laptop.toml", &one).profile("phone.toml", &other).errors()
        };
        assert_eq!(
            both(""),
            [
                "profiles.d/phone.toml:1: public_key: is the key of the profile `laptop` in other bytes, and neither has a \
              psk; each client needs its own"
            ]
        );
        assert_eq!(both("psk = \"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\"\n"), [""; 0]);
    }
}

#[test]
fn no_two_fixed_sequences_are_knocked_by_one() {
    let plain = |ports: &str| {
        format!("open = [\"tcp/22\"]\nmethods = [\"plain\"]\ninsecure = true\n[plain]\nports = [{ports}]\n")
    };
    let errors = |alice: &str, bob: &str| {
        Etc::new().profile("alice.toml", &plain(alice)).profile("bob.toml", &plain(bob)).errors()
    };
    let short = "\"tcp/7000\", \"udp/8000\", \"tcp/6000\"";
    let long = "\"tcp/7000\", \"tcp/9\", \"udp/8000\", \"tcp/6000\"";
    let holds = |file: &str, other: &str| {
        format!(
            "profiles.d/{file}.toml:4: plain.ports: has all knocks of the profile `{other}` in its order, so that it \
             knocks for both; change one"
        )
    };
    assert_eq!(errors(short, short), [holds("alice", "bob"), holds("bob", "alice")]);
    assert_eq!(errors(long, short)[0], holds("alice", "bob"));
    assert_eq!(
        errors(short, "\"tcp/9\", \"udp/8\", \"tcp/6000\""),
        [
            "profiles.d/bob.toml:4: plain.ports: ends with the same knock as that of the profile `alice`, so that one \
          packet would be both; change one"
        ]
    );
    assert_eq!(errors(short, "\"tcp/7000\", \"udp/8000\", \"tcp/6001\""), [""; 0]);
}

#[test]
fn a_profiles_name_must_be_usable_everywhere() {
    let error = |file: &str| Etc::new().profile(file, &laptop("")).errors();
    assert_eq!(
        error("Laptop.toml"),
        [
            "profiles.d/Laptop.toml: `Laptop` is no name; use 1 to 32 characters of a-z 0-9 . _ -, beginning with a \
             letter or digit",
        ]
    );
    assert_eq!(
        error("all.toml"),
        ["profiles.d/all.toml: the name `all` means every profile; choose another"]
    );
    assert_eq!(
        error("10.0.0.1.toml"),
        ["profiles.d/10.0.0.1.toml: the name `10.0.0.1` is an IP address; choose another"]
    );
}

#[test]
fn ports_that_lead_to_other_hosts_are_services_and_guarded() {
    let forward = |lines: &str| format!("[[forward]]\nname = \"nas\"\nlisten = \"tcp/2222\"\n{lines}");
    let good = forward("to = [\"10.0.0.5:22\", \"[fd00::5]:22\"]\n");
    let nas = format!("public_key = \"{}\"\nopen = [\"nas\"]\n", key(7));
    let loaded = Etc::new().settings(&good).profile("laptop.toml", &nas).load().unwrap();
    assert_eq!(loaded.profiles[0].open, ["tcp/2222".parse().unwrap()]);
    assert_eq!(loaded.settings.guard.drop, ["tcp/2222".parse().unwrap()]);
    assert_eq!(loaded.settings.forwards[0].to.len(), 2);
    settings_are_refused(&[
        (
            &forward("to = \"10.0.0.5\"\n"),
            &[
                "knockd-rs.toml:4: forward[0].to: `10.0.0.5` is no address with a port; use \"10.0.0.5:22\", \"[fd00::5]:22\", or a list of both",
            ],
        ),
        (
            &forward("to = [\"10.0.0.5:22\", \"10.0.0.6:22\"]\n"),
            &["knockd-rs.toml:4: forward[0].to: has two addresses of one family; use one of each at most"],
        ),
        (
            &format!("{good}[[forward]]\nname = \"other\"\nlisten = \"tcp/2222\"\nto = \"10.0.0.5:22\"\n"),
            &["knockd-rs.toml:7: forward[1].listen: tcp/2222 leads to nas already; use another port"],
        ),
        (
            &format!("{good}[services]\nnas = [\"tcp/22\"]\n"),
            &["knockd-rs.toml:2: forward[0].name: nas is a service already; choose another name"],
        ),
        (
            &format!("{good}[firewall]\nmode = \"sets\"\nsets.timed_v4 = \"inet filter knock\"\n"),
            &[
                "knockd-rs.toml:1: forward: needs the daemon's own table; do it by rules of your own, or use firewall.mode = \"table\"",
            ],
        ),
    ]);
}

#[test]
fn sequences_by_the_time_that_could_be_guessed_are_refused() {
    let totp = |seed: u8, ports: u8| {
        let client = key(seed);
        format!(
            "public_key = \"{client}\"\nopen = [\"tcp/22\"]\nmethods = [\"totp\"]\ntotp.ports = {ports}\n"
        )
    };
    let few = "[sequence]\nspan = 8192\n";
    let with = |ports| Etc::new().settings("# none\n").profile("a.toml", &totp(11, ports)).errors();
    assert_eq!([with(6), with(4)], [[""; 0]; 2]);
    assert_eq!(
        Etc::new().settings(few).profile("a.toml", &totp(11, 4)).errors(),
        [
            "profiles.d/a.toml:4: totp: 4 ports on a span of 8192 can be guessed where 1 client knocks by them; use at least \
          5 in all such profiles, or a larger span in [sequence]"
        ]
    );
    let two = Etc::new().settings("# none\n").profile("a.toml", &totp(11, 4)).profile("b.toml", &totp(12, 6));
    let sentence = "4 ports on a span of 32768 can be guessed where 2 clients knock by them; use at least 5 in all such \
                    profiles, or a larger span in [sequence]";
    assert_eq!(two.errors(), [format!("profiles.d/a.toml:4: totp: {sentence}")]);
}

#[test]
fn a_fixed_sequence_keeps_off_the_knock_port_and_what_a_service_opens() {
    let plain = |open: &str, ports: &str| {
        format!("open = [\"{open}\"]\nmethods = [\"plain\"]\ninsecure = true\n[plain]\nports = [{ports}]\n")
    };
    assert_eq!(
        Etc::new().profile("a.toml", &plain("tcp/22", "\"tcp/7000\", \"udp/62201\", \"tcp/6000\"")).errors(),
        [
            "profiles.d/a.toml:4: plain.ports: holds 62201, the knock port, so that one packet could be two knocks; use \
          another port"
        ]
    );
    let etc = Etc::new().settings("[services]\nweb = [\"tcp/7000\"]\n");
    assert_eq!(
        etc.profile("a.toml", &plain("web", "\"tcp/7000\", \"udp/8000\", \"tcp/6000\"")).errors(),
        [
            "profiles.d/a.toml:5: plain.ports: tcp/7000 is what this profile opens, so that connecting to it would be a \
          knock; use another port"
        ]
    );
}

#[test]
fn sets_mode_has_no_session_flags_and_counts_no_connections() {
    let sets = "[firewall]\nmode = \"sets\"\nsets.timed_v4 = \"inet filter knock\"\n";
    let refused = |lines: &str| Etc::new().settings(sets).profile("laptop.toml", &laptop(lines)).errors();
    assert!(refused("connections = 3\n")[0].contains("a number of connections needs the daemon's own table"));
    let flags = "connections = \"many\"\nsession = [\"end-with-grant\"]\n";
    assert!(refused(flags)[0].contains("session flags need the daemon's own table"));
    profiles_are_refused(&[
        (
            "session = [\"forever\"]\n",
            &[
                "profiles.d/laptop.toml:3: session: `forever` is no session flag; use one-at-a-time, last-knock, lock-out, end-with-grant",
            ],
        ),
        ("connections = 251\n", &["profiles.d/laptop.toml:3: connections: 251; use 1 to 250"]),
        ("lockout = \"0s\"\n", &["profiles.d/laptop.toml:3: lockout: 0s; use 1s to 30d"]),
    ]);
}

#[test]
fn sets_mode_needs_the_sets_that_its_profiles_use() {
    let sets = |set: &str| format!("[firewall]\nmode = \"sets\"\nsets.{set} = \"inet filter knock\"\n");
    let etc =
        Etc::new().settings(&sets("timed_v4")).profile("laptop.toml", &laptop("connections = \"single\"\n"));
    let single = "connections: \"single\" (the default) needs a set for single connections; name once_v4 or once_v6 in \
                  [firewall.sets], or use \"many\"";
    assert_eq!(etc.errors(), [format!("profiles.d/laptop.toml:3: {single}")]);
    let etc = Etc::new().settings(&sets("timed_v4")).profile("laptop.toml", &laptop(""));
    assert_eq!(etc.errors(), [format!("profiles.d/laptop.toml:1: {single}")]);
    let etc =
        Etc::new().settings(&sets("once_v6")).profile("laptop.toml", &laptop("connections = \"many\"\n"));
    assert_eq!(
        etc.errors(),
        [
            "profiles.d/laptop.toml:3: connections: \"many\" needs a set for any number of connections; name timed_v4 or \
             timed_v6 in [firewall.sets], or use \"single\"",
        ]
    );
    assert!(Etc::new().settings(&sets("once_v4")).profile("laptop.toml", &laptop("")).load().is_ok());
}

#[test]
fn json_profiles_have_the_same_keys_and_the_same_errors() {
    let json = format!(
        "{{\n  \"public_key\": \"{}\",\n  \"open\": [\n    \"tcp/22\",\n    \"udp\"\n  ],\n  \"duration\": 15,\n  \"timeout\": null\n}}\n",
        key(7)
    );
    assert_eq!(
        Etc::new().profile("laptop.json", &json).errors(),
        [
            "profiles.d/laptop.json:5: open: no service `udp`; add it to [services] in knockd-rs.toml, or write ports: \
             tcp/22",
            "profiles.d/laptop.json:7: duration: is a number; use \"1s\" to \"30d\"",
            "profiles.d/laptop.json:8: timeout: unknown key; use public_key, psk, open, duration, max_duration, \
             connections, session, lockout, other_addresses, wide, max_grants, enabled, methods, max_age, max_ahead, insecure, plain, totp, expires, previous",
        ]
    );
    assert_eq!(
        Etc::new().profile("laptop.json", "{\n\"open\": [\"tcp/22\"],\n}").errors(),
        ["profiles.d/laptop.json:3: trailing comma"]
    );
}

#[test]
fn everything_wrong_in_all_files_is_reported_at_once() {
    let etc = Etc::new()
        .settings("[log]\nlevel = 1\nformat = 2\n")
        .profile("a.toml", &laptop("duration = 1\nmax_grants = 0\n"))
        .profile("b.toml", "open = [");
    fs::remove_file(etc.path().join("gate.key")).unwrap();
    let errors = etc.errors();
    let places: Vec<&str> = errors.iter().map(|error| error.split(": ").next().unwrap()).collect();
    assert_eq!(
        places,
        [
            "gate.key",
            "knockd-rs.toml:2",
            "knockd-rs.toml:3",
            "profiles.d/a.toml:3",
            "profiles.d/a.toml:4",
            "profiles.d/b.toml:1"
        ]
    );
}

#[test]
fn files_that_others_can_read_or_change_are_refused_with_the_command_that_cures_it() {
    let etc = Etc::new().profile("laptop.toml", &laptop("")).settings("# none\n");
    let root = etc.path().display().to_string();
    for (file, mode) in [
        ("server.key", 0o640),
        ("gate.key", 0o604),
        ("knockd-rs.toml", 0o664),
        ("profiles.d/laptop.toml", 0o644),
    ] {
        fs::set_permissions(etc.path().join(file), Permissions::from_mode(mode)).unwrap();
    }
    assert_eq!(
        etc.errors(),
        [
            format!("gate.key: mode 0604 lets other users read it; run: chmod 0600 {root}/gate.key"),
            format!(
                "knockd-rs.toml: mode 0664 lets other users change it; run: chmod 0644 {root}/knockd-rs.toml"
            ),
            format!(
                "profiles.d/laptop.toml: mode 0644 lets other users read it; run: chmod 0640 {root}/profiles.d/laptop.toml"
            ),
            format!("server.key: mode 0640 lets other users read it; run: chmod 0600 {root}/server.key"),
        ]
    );
    let etc = Etc::new();
    fs::set_permissions(etc.path().join("profiles.d"), Permissions::from_mode(0o770)).unwrap();
    let path = etc.path().join("profiles.d").display().to_string();
    assert_eq!(
        etc.errors(),
        [format!("profiles.d: mode 0770 lets other users change it; run: chmod 0750 {path}")]
    );
}

#[test]
fn what_is_no_text_file_is_refused_without_waiting() {
    let etc = Etc::new().profile("laptop.toml", "");
    etc.write("profiles.d/laptop.toml", 0o640, b"# caf\xe9\nopen = 1\n");
    etc.write("profiles.d/large.toml", 0o640, vec![b'#'; (1 << 20) + 1]);
    fs::create_dir(etc.path().join("profiles.d/dir.toml")).unwrap();
    let fifo = etc.path().join("profiles.d/fifo.toml");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    symlink("/dev/zero", etc.path().join("profiles.d/zero.toml")).unwrap();
    symlink("nowhere", etc.path().join("profiles.d/gone.toml")).unwrap();
    symlink("nowhere", etc.path().join("knockd-rs.toml")).unwrap();
    assert_eq!(
        etc.errors(),
        [
            "knockd-rs.toml: there is no such file",
            "profiles.d/dir.toml: is a directory, and should be a file",
            "profiles.d/fifo.toml: is a FIFO, and should be a file",
            "profiles.d/gone.toml: there is no such file",
            "profiles.d/laptop.toml:1: is not UTF-8 text",
            "profiles.d/large.toml: is larger than 1024 KiB",
            "profiles.d/zero.toml: is a device, and should be a file",
        ]
    );
}

#[test]
fn keys_that_are_missing_or_damaged_are_refused_and_never_shown() {
    let etc = Etc::new();
    fs::remove_file(etc.path().join("server.key")).unwrap();
    etc.write("gate.key", 0o400, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n");
    assert_eq!(
        etc.errors(),
        [
            "gate.key:1: is all zero, which is no secret; remove it and run: knockd-rs init",
            "server.key: there is no such key; make it with: knockd-rs init",
        ]
    );
    let etc = Etc::new();
    etc.write("server.key", 0o600, "hunter2\n");
    etc.write("gate.key", 0o600, vec![b'A'; 2000]);
    assert_eq!(
        etc.errors(),
        [
            "gate.key: is larger than 1 KiB",
            "server.key:1: 7 characters that are no key; use 32 bytes in base64: 44 characters, the last of them =",
        ]
    );
}

#[test]
fn what_works_and_may_not_be_meant_is_a_warning() {
    assert_eq!(
        Etc::new().warnings(),
        ["profiles.d: there is no profile, so nobody can knock; see: knockd-rs profile add --help"]
    );
    let more = "other_addresses = [\"0.0.0.0/0\"]\nmax_duration = \"2d\"\nenabled = false\n";
    let etc = Etc::new()
        .settings("[firewall.sets]\nonce_v4 = \"inet filter a\"\n")
        .profile("laptop.toml", &laptop(more))
        .profile("phone.tml", "")
        .profile("laptop.toml~", "")
        .profile(".laptop.toml.swp", "")
        .profile("laptop.toml.dpkg-old", "");
    assert_eq!(
        etc.warnings(),
        [
            "knockd-rs.toml:1: firewall.sets: has no effect in firewall.mode \"table\"",
            "profiles.d/laptop.toml:3: other_addresses: 0.0.0.0/0 lets this client open ports to every address",
            "profiles.d/laptop.toml:4: max_duration: 2d is long for an open port; a knock can renew a shorter grant",
            "profiles.d/laptop.toml:5: enabled: this profile is switched off: its knocks count as a stranger's",
            "profiles.d/phone.tml: is not read; profiles are named NAME.toml or NAME.json",
        ]
    );
}

#[test]
fn a_file_that_this_user_may_not_read_is_an_error_and_not_an_absence() {
    let me = rustix::process::geteuid();
    if me.is_root() {
        eprintln!("skipped: root may read everything");
        return;
    }
    let etc = Etc::new().profile("laptop.toml", &laptop("")).settings("# none\n");
    fs::set_permissions(etc.path().join("knockd-rs.toml"), Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(etc.path().join("profiles.d"), Permissions::from_mode(0o000)).unwrap();
    let denied = format!("user {} has no right to it; run this as root", me.as_raw());
    assert_eq!(etc.errors(), [format!("knockd-rs.toml: {denied}"), format!("profiles.d: {denied}")]);
    fs::set_permissions(etc.path().join("profiles.d"), Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn nothing_of_a_strangers_choosing_reaches_the_terminal_as_it_is() {
    let etc = Etc::new().settings("\"\\u001b[2J\" = 1\n");
    assert!(
        etc.errors().first().unwrap().starts_with("knockd-rs.toml:1: \\u{1b}[2J: unknown key; "),
        "{:?}",
        etc.errors()
    );
}

#[test]
fn a_sound_configuration_loads_with_services_resolved_and_ports_merged() {
    let settings = "[services]\nweb = [\"tcp/80\", \"tcp/443\"]\n[freshness]\nmax_age = \"1m\"\n";
    let text = format!(
        "public_key = \"{}\"\npsk = \"{}\"\nopen = [\"web\", \"tcp/81-90\", \"tcp/85-100\"]\nduration = \"2h\"\nmax_ahead = \"5s\"\n",
        key(7),
        Psk::new([9; 32]).to_base64().as_str()
    );
    let etc = Etc::new().settings(settings).profile("laptop.toml", &text);
    let loaded = etc.load().unwrap();
    let profile = loaded.profiles.first().unwrap();
    let open: Vec<String> = profile.open.iter().map(ToString::to_string).collect();
    assert_eq!(open, ["tcp/80-100", "tcp/443"]);
    assert_eq!(profile.services.get(&knockd_rs::knock::service_tag("web")).unwrap().name.as_str(), "web");
    assert_eq!((profile.duration, profile.max_duration), (Span::from_secs(7200), Span::from_secs(7200)));
    assert_eq!(profile.freshness, Freshness { max_age: Span::from_secs(60), max_ahead: Span::from_secs(5) });
    assert_eq!((profile.connections, profile.max_grants, profile.enabled), (Uses::Once, 16, true));
    assert!(profile.has_psk());
    assert_eq!(loaded.server.public().to_string(), key(1));
    assert_eq!(loaded.warnings, []);
}

#[test]
fn credentials_of_the_service_manager_come_before_the_files() {
    let (etc, credentials) = (Etc::new(), tempfile::tempdir().unwrap());
    fs::write(credentials.path().join(SERVER_KEY), line(&KeyPair::from_seed([3; 32]).secret().to_base64()))
        .unwrap();
    fs::set_permissions(credentials.path().join(SERVER_KEY), Permissions::from_mode(0o440)).unwrap();
    let loaded = config::load_from(etc.path(), Some(credentials.path())).unwrap();
    assert_eq!(loaded.server.public().to_string(), key(3));
    assert_eq!(loaded.gate, Psk::new([2; 32]));
}

#[test]
fn missing_keys_are_made_once_and_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let made = config::make_keys_if_missing(dir.path()).unwrap();
    assert_eq!((made.made.len(), made.kept.len()), (2, 0));
    for path in &made.made {
        let found = fs::metadata(path).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, 0o600);
        // The daemon's user owns them where there is one and this runs as root.
        let user = files::user(files::SYSTEM_USER).map(|account| account.user);
        let me = rustix::process::geteuid().as_raw();
        assert_eq!(found.uid(), user.filter(|_| me == 0).unwrap_or(me));
    }
    let first = config::load_from(dir.path(), None).unwrap();
    let again = config::make_keys_if_missing(dir.path()).unwrap();
    assert_eq!((again.made.len(), again.kept.len()), (0, 2));
    let second = config::load_from(dir.path(), None).unwrap();
    assert_eq!((first.server.public(), first.gate), (second.server.public(), second.gate));
}

#[test]
fn an_added_profile_loads_as_it_was_meant_and_can_be_removed() {
    let etc = Etc::new().settings("[services]\nssh = [\"tcp/22\"]\n");
    let settings = etc.load().unwrap().settings;
    let name = "laptop".parse().unwrap();
    let new = NewProfile {
        public_key: KeyPair::from_seed([7; 32]).public(),
        psk: Some(Psk::new([9; 32])),
        open: vec![Opens::Service("ssh".parse().unwrap()), Opens::Ports("udp/53".parse().unwrap())],
        duration: None,
        max_duration: Some(Span::from_secs(600)),
        connections: Uses::Many,
        other_addresses: vec!["10.0.0.0/8".parse().unwrap()],
        methods: Vec::new(),
        expires: None,
    };
    let path = profile::write_profile(etc.path(), &name, &new, &settings).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    let loaded = etc.load().unwrap();
    let profile = loaded.profiles.first().unwrap();
    assert_eq!(
        (&profile.opens, profile.public_key, &profile.psk),
        (&new.open, Some(new.public_key), &Psk::new([9; 32]))
    );
    assert_eq!((profile.duration, profile.max_duration), (Span::from_secs(15), Span::from_secs(600)));
    assert_eq!((profile.connections, &profile.other_addresses), (Uses::Many, &new.other_addresses));
    let again = profile::write_profile(etc.path(), &name, &new, &settings).unwrap_err();
    assert_eq!(
        again.to_string(),
        "there is a profile `laptop`; remove it first (knockd-rs profile remove laptop) or choose another name"
    );
    profile::remove_profile(etc.path(), &name).unwrap();
    assert!(etc.load().unwrap().profiles.is_empty());
    let gone = profile::remove_profile(etc.path(), &name).unwrap_err();
    assert_eq!(gone.to_string(), "there is no profile `laptop`; see: knockd-rs profile list");
}

#[test]
fn a_profile_that_would_be_refused_is_not_written() {
    let etc = Etc::new();
    let new = NewProfile {
        public_key: KeyPair::from_seed([7; 32]).public(),
        psk: None,
        open: vec![Opens::Service("ssh".parse().unwrap())],
        duration: None,
        max_duration: None,
        connections: Uses::Once,
        other_addresses: Vec::new(),
        methods: Vec::new(),
        expires: None,
    };
    let settings = etc.load().unwrap().settings;
    let error = profile::write_profile(etc.path(), &"laptop".parse().unwrap(), &new, &settings).unwrap_err();
    assert!(error.to_string().contains("open: no service `ssh`; add it to [services]"), "{error}");
    assert_eq!(fs::read_dir(etc.path().join("profiles.d")).unwrap().count(), 0);
}

/// The file that the package installs says of every key what holds without it.
#[test]
fn the_installed_settings_file_is_the_defaults_with_and_without_its_comments() {
    let installed = include_str!("../profiles/knockd-rs.toml");
    let defaults = Etc::new().load().unwrap().settings;
    assert_eq!(Etc::new().settings(installed).load().unwrap().settings, defaults);
    // Lines that hold a key or a table have no blank after the hash; prose has one.
    let bare = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => rest.to_owned(),
        _ => line.to_owned(),
    };
    let all: Vec<String> = installed.lines().map(bare).collect();
    let etc = Etc::new().settings(&all.join("\n"));
    etc.write("ca.pem", 0o644, "");
    let loaded = etc.load().unwrap();
    let authority = loaded.certificates.authority.unwrap();
    assert_eq!((authority.crl_grace, authority.end_grants_on_revocation), (DEFAULT_GRACE, false));
    let rule = &loaded.certificates.rules[0].profile;
    assert_eq!((rule.duration, rule.max_duration), (profile::DEFAULT_DURATION, profile::DEFAULT_MAX));
    assert_eq!((rule.max_grants, rule.enabled), (profile::DEFAULT_GRANTS, true));
    let loaded = loaded.settings;
    assert_eq!((loaded.capture.device, loaded.capture.port), (Device::Any, defaults.capture.port));
    assert!(matches!(loaded.firewall.mode, Mode::Table { .. }));
    assert_eq!(
        (loaded.freshness, loaded.limits, loaded.log),
        (defaults.freshness, defaults.limits, defaults.log)
    );
    assert_eq!((loaded.control, loaded.clock), (defaults.control, defaults.clock));
}

const AUTHORITY: &str = "[certificate_authority]\nca = \"ca.pem\"\ncrl = \"crl.pem\"\n";

#[test]
fn what_is_wrong_with_certificates_is_told_with_its_table() {
    let cases = [
        (
            "[[certificates]]\nname = \"staff\"\nopen = [\"tcp/22\"]\n",
            "knockd-rs.toml:1: certificates: needs [certificate_authority] with the key ca: whose certificates are meant",
        ),
        (
            "[certificate_authority]\ncrl = \"crl.pem\"\n",
            "knockd-rs.toml: certificate_authority.ca: is missing; name the file with the authorities' certificates, \
             such as ca = \"ca.pem\"",
        ),
        (
            "certificates = \"all\"\n",
            "knockd-rs.toml:1: certificates: is a text; write each one as a table: [[certificates]]",
        ),
    ];
    for (text, expected) in cases {
        let errors = Etc::new().settings(text).errors();
        assert!(errors.iter().any(|error| error == expected), "{errors:#?}");
    }
    let tables = [
        (
            "name = \"a\"\nopen = [\"tcp/22\"]\nurl = \"x\"",
            "certificates[0].url: unknown key; did you mean uri?",
        ),
        ("name = \"a\"", "certificates[0].open: is missing"),
        ("open = [\"tcp/22\"]", "certificates[0].name: is missing"),
        (
            "name = \"a-very-long-name\"\nopen = [\"tcp/22\"]",
            "certificates[0].name: a-very-long-name is too long",
        ),
        ("name = \"laptop\"\nopen = [\"tcp/22\"]", "certificates: laptop is a profile's name too"),
        (
            "name = \"a\"\nopen = [\"tcp/22\"]\nuri = \"knock:tcp/22\"",
            "certificates[0].uri: `knock:` URIs say what",
        ),
        (
            "name = \"a\"\nopen = [\"tcp/22\"]\nsubject = \"alice\"",
            "certificates[0].subject: `alice` is no name",
        ),
        (
            "name = \"a\"\nopen = [\"tcp/22\"]\nkey_sha256 = \"00\"",
            "certificates[0].key_sha256: `00` is no SHA-256",
        ),
        ("name = \"a\"\nopen = [\"ssh\"]", "certificates[0].open: no service `ssh`"),
    ];
    for (table, expected) in tables {
        let etc = Etc::new().settings(&format!("{AUTHORITY}[[certificates]]\n{table}\n"));
        let etc = etc.profile("laptop.toml", &laptop(""));
        etc.write("ca.pem", 0o644, "");
        let errors = etc.errors();
        assert!(errors.len() == 1 && errors[0].contains(expected), "{expected}: {errors:#?}");
    }
}

#[test]
fn without_its_authorities_file_a_reload_is_refused_and_a_start_goes_on() {
    let etc =
        Etc::new().settings(&format!("{AUTHORITY}[[certificates]]\nname = \"a\"\nopen = [\"tcp/22\"]\n"));
    let expected = format!("[certificate_authority]: {}/ca.pem: there is no such file", etc.path().display());
    assert_eq!(etc.errors(), [expected.as_str()]);
    let (loaded, errors) = config::load_sound(etc.path(), Path::new("/nonexistent")).unwrap();
    assert_eq!((loaded.certificates.rules.len(), errors.len()), (1, 1));
    etc.write("ca.pem", 0o666, "");
    assert!(etc.errors()[0].contains("mode 0666 lets other users change it"), "{:?}", etc.errors());
    etc.write("ca.pem", 0o644, "");
    let warning = format!("[certificate_authority]: {}/crl.pem: there is no such file", etc.path().display());
    assert_eq!(etc.warnings(), [warning.as_str()]);
}

#[test]
fn a_profile_does_not_list_the_method_of_certificates() {
    let etc = Etc::new().profile("laptop.toml", &laptop("methods = [\"spa\", \"cert\"]\n"));
    assert!(etc.errors()[0].contains("which have no profile"), "{:?}", etc.errors());
}

/// Every example is a profile that loads once its key is filled in.
#[test]
fn the_example_profiles_load() {
    let settings = "[services]\nssh = [\"tcp/22\"]\nweb = [\"tcp/80\", \"tcp/443\"]\n";
    let examples = [
        include_str!("../profiles/laptop.toml.example"),
        include_str!("../profiles/phone.toml.example"),
        include_str!("../profiles/gateway.toml.example"),
        include_str!("../profiles/app.toml.example"),
    ];
    for example in examples {
        let etc = Etc::new()
            .settings(settings)
            .profile("x.toml", &example.replace("PUT-THE-CLIENTS-PUBLIC-KEY-HERE", &key(7)));
        assert_eq!(etc.errors(), [""; 0]);
    }
}

#[test]
fn at_a_start_a_broken_profile_keeps_nobody_else_out() {
    let good = format!("public_key = \"{}\"\nopen = [\"tcp/22\"]\n", key(3));
    let etc = Etc::new().profile("good.toml", &good).profile("slip.toml", "open = [\"tcp/0\"]\n");
    assert!(etc.load().is_err(), "a reload keeps what it has");
    let (loaded, errors) = config::load_sound(etc.path(), Path::new("/nonexistent")).unwrap();
    assert_eq!(loaded.profiles.iter().map(|profile| profile.name.as_str()).collect::<Vec<_>>(), ["good"]);
    assert!(errors.iter().all(|error| error.to_string().starts_with("profiles.d/slip.toml")), "{errors:?}");
}

#[test]
fn at_a_start_with_broken_settings_the_last_good_ones_are_in_force() {
    let etc = Etc::new().settings("[guard]\ndrop = [\"tcp/22\"]\n");
    let copy = etc.path().join("last-good.toml");
    config::keep_good(etc.path(), &copy).unwrap();
    let etc = etc.settings("[guard]\ndrop = [\"tcp/0\"]\n");
    assert!(config::load_sound(etc.path(), Path::new("/nonexistent")).is_err(), "no copy, no start");
    let (loaded, errors) = config::load_sound(etc.path(), &copy).unwrap();
    assert_eq!(loaded.settings.guard.drop.iter().map(ToString::to_string).collect::<Vec<_>>(), ["tcp/22"]);
    assert_eq!(
        errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["knockd-rs.toml:2: guard.drop: port 0 cannot be opened; use 1 to 65535"]
    );
    fs::write(&copy, "nonsense = 1\n").unwrap();
    assert!(config::load_sound(etc.path(), &copy).is_err(), "a copy that is broken itself is none");
}
