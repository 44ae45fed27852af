use super::*;

/// Of the form of the file that Debian's knockd installs, with sequences of our own.
const KNOCKD: &str = include_str!("../../tests/data/migrate/knockd.conf");
/// Of the form of the file that Debian's fwknop-server installs.
const FWKNOP: &str = include_str!("../../tests/data/migrate/access.conf");

fn read(text: &str) -> Import {
    Kind::of(text).unwrap().read(text)
}

/// `name: ports for duration/max, sequence in total`.
fn told(client: &Client) -> String {
    let join = |ports: &[PortRange]| ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let Client { name, open, duration, max_duration, expires, sequence, .. } = client;
    let expires = expires.map_or_else(String::new, |expires| format!(" until {expires}"));
    let sequence =
        sequence.as_ref().map(|sequence| format!(", {} in {}", join(&sequence.ports), sequence.total));
    format!("{name}: {} for {duration}/{max_duration}{expires}{}", join(open), sequence.unwrap_or_default())
}

fn clients(text: &str) -> Vec<String> {
    read(text).clients.iter().map(told).collect()
}

fn left(text: &str) -> Vec<String> {
    read(text).left.iter().map(ToString::to_string).collect()
}

#[test]
fn sections_become_clients_and_a_pair_of_them_one() {
    assert_eq!(
        clients(KNOCKD),
        [
            "openssh: tcp/22 for 1h/1h, tcp/7000 tcp/9000 tcp/8000 in 5s",
            "openhttps: tcp/80 tcp/443 for 10s/10s, tcp/2222 udp/3333 tcp/1111 in 15s",
        ]
    );
    let left = left(KNOCKD);
    let about = |line: &str, words: &str| {
        assert!(left.iter().any(|left| left.starts_with(line) && left.contains(words)), "{words}: {left:#?}");
    };
    about("3: ", "[options] interface: knocks are awaited on all interfaces");
    about("5: ", "[openSSH] opens until another sequence closes it; here a grant ends by itself, after 1h");
    about("26: ", "[doorbell] command: `/usr/local/bin/ring %IP%` does not say plainly which ports it opens");
    about("30: ", "[once] one_time_sequences");
    about("37: ", "[fin] tcpflags: a knock by TCP is a SYN, and these are `fin,!ack`");
    assert_eq!(left.len(), 5, "{left:#?}");
}

#[test]
fn stanzas_become_clients_with_keys_of_their_own() {
    assert_eq!(
        clients(FWKNOP),
        [
            "fwknop: tcp/22 udp/1194 for 30s/30s",
            "alice: tcp/443 for 1m/5m until 2027-12-31T00:00:00Z",
            "alice-2: tcp/8080 for 2m/2m until 2027-01-15T08:00:00Z",
        ]
    );
    let left = left(FWKNOP);
    let about = |line: &str, words: &str| {
        assert!(left.iter().any(|left| left.starts_with(line) && left.contains(words)), "{words}: {left:#?}");
    };
    about("6: ", "KEY_BASE64: keys of fwknop are for another protocol; the client gets new ones");
    about("9: ", "SOURCE: a knock counts wherever it comes from, not from 192.0.2.0/24 alone");
    about("13: ", "REQUIRE_SOURCE_ADDRESS: is the client's choice here");
    about("17: ", "GPG_DECRYPT_ID: keys of fwknop");
    about("25: ", "without OPEN_PORTS it lets its client ask for every port");
    about("29: ", "FORCE_NAT: leads its client to another host");
    about("32: ", "is not followed; import that file as well");
    assert_eq!(left.len(), 7, "{left:#?}");
}

#[test]
fn a_date_that_cannot_be_read_leaves_the_client_out() {
    for date in ["31/12/2027", "soon", "12/31/2027/1", "12/31"] {
        let import = read(&format!("SOURCE ANY\nOPEN_PORTS tcp/22\nACCESS_EXPIRE {date}\n"));
        assert!(import.clients.is_empty() && import.left.len() == 1, "{date}: {import:?}");
    }
}

#[test]
fn a_client_has_no_more_time_than_it_had() {
    let stanza = |rest: &str| clients(&format!("SOURCE ANY\nOPEN_PORTS tcp/22\n{rest}\n"));
    // Midnight, with which the day begins; and the earlier of two ends.
    assert_eq!(stanza("ACCESS_EXPIRE 12/31/2027"), ["fwknop: tcp/22 for 30s/30s until 2027-12-31T00:00:00Z"]);
    assert_eq!(
        stanza("ACCESS_EXPIRE 01/02/2027\nACCESS_EXPIRE_EPOCH 4000000000"),
        ["fwknop: tcp/22 for 30s/30s until 2027-01-02T00:00:00Z"]
    );
    assert_eq!(stanza("FW_ACCESS_TIMEOUT 300\nMAX_FW_TIMEOUT 60"), ["fwknop: tcp/22 for 1m/1m"]);
    for unreadable in ["FW_ACCESS_TIMEOUT 5 # s", "FW_ACCESS_TIMEOUT 60\nMAX_FW_TIMEOUT soon"] {
        assert_eq!(stanza(unreadable), [""; 0], "{unreadable}");
    }
    let section = |rest: &str| {
        clients(&format!(
            "[a]\nsequence = 1,3,2\ncommand = iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n\
             stop_command = x\n{rest}\n"
        ))
    };
    assert_eq!(section("seq_timeout = 0\ncmd_timeout = 5"), ["a: tcp/22 for 5s/5s, tcp/1 tcp/3 tcp/2 in 1s"]);
    for unreadable in ["cmd_timeout = 5s", "seq_timeout = 5 seconds"] {
        assert_eq!(section(unreadable), [""; 0], "{unreadable}");
    }
}

#[test]
fn what_is_not_read_to_its_end_is_left_out() {
    let many = |text: &str| text.repeat(200);
    let closed = (1..=200).map(|port| format!("tcp/{port}")).collect::<Vec<_>>().join(",");
    for text in [
        format!("SOURCE ANY\nOPEN_PORTS tcp/22\n{}ACCESS_EXPIRE 01/01/2027\n", many("X y\n")),
        format!("SOURCE ANY\nOPEN_PORTS tcp/22,tcp/180\nRESTRICT_PORTS {closed}\n"),
        format!(
            "[a]\nsequence = 1,3,2\ncommand = iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n{}tcpflags = fin\n",
            many("x = y\n")
        ),
        format!(
            "[a]\nsequence = {}\ncommand = iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n",
            closed.replace("tcp/", "")
        ),
    ] {
        let import = read(&text);
        assert!(import.clients.is_empty() && import.left.len() == 1, "{import:?}");
    }
}

#[test]
fn what_is_restricted_is_not_opened() {
    assert_eq!(
        clients("SOURCE ANY;\nOPEN_PORTS tcp/22, tcp/80;\nRESTRICT_PORTS tcp/22;\n"),
        ["fwknop: tcp/80 for 30s/30s"]
    );
    let import = read("SOURCE ANY\nOPEN_PORTS tcp/20-30\nRESTRICT_PORTS tcp/22\n");
    assert!(import.clients.is_empty() && import.left[0].what.contains("opens no port"), "{import:?}");
}

#[test]
fn what_is_neither_is_nobodys() {
    for text in ["", "hello", "OPEN_PORTS tcp/22", "# SOURCE ANY", "a = [1, 2]"] {
        assert_eq!(Kind::of(text), None, "{text}");
    }
}

#[test]
fn a_long_text_comes_to_a_bounded_import_without_control_characters() {
    let sections = "[a]\nsequence = 1,3,2\ncommand = \x1b[2J\n".repeat(1000);
    let import = read(&sections);
    assert!(import.clients.is_empty() && import.left.len() == MAX_CLIENTS + 1);
    assert!(import.left.iter().all(|left| !left.what.chars().any(char::is_control)));
    let section =
        "sequence = 1,3,2\ncommand = iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\nstop_command=x\n";
    let names: Vec<String> = read(&format!("[!!]\n{section}[Ä b]\n{section}[ä B]\n{section}"))
        .clients
        .iter()
        .map(|client| client.name.to_string())
        .collect();
    assert_eq!(names, ["b", "b-2"], "a name without a letter is none");
}
