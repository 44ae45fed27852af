//! The ports that a firewall command opens for the address `%IP%`, where the command says so without a doubt: every word of
//! it must be known.

use crate::text::{PortRange, Protocol};

/// What a command does for the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Lets it in at these ports.
    Opens(Vec<PortRange>),
    /// Takes that back.
    Closes(Vec<PortRange>),
}

/// What the command does; `None` where that is not plain.
pub(super) fn effect(command: &str) -> Option<Effect> {
    // A shell's word: there may be more than one command.
    if command.contains([';', '&', '|', '`', '$', '<', '>', '(', ')', '\\', '"', '\'', '#']) {
        return None;
    }
    let mut words = command.split_ascii_whitespace();
    let program = words.next()?.rsplit('/').next()?;
    let words: Vec<&str> = words.collect();
    match program {
        "iptables" | "ip6tables" | "iptables-nft" | "ip6tables-nft" | "iptables-legacy"
        | "ip6tables-legacy" => iptables(&words),
        "nft" => nft(&words),
        "ufw" => ufw(&words),
        _ => None,
    }
}

fn effect_of(opens: bool, ports: Vec<PortRange>) -> Option<Effect> {
    let effect = if opens { Effect::Opens } else { Effect::Closes };
    (!ports.is_empty()).then(|| effect(ports))
}

/// `-A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT`, in any order.
fn iptables(words: &[&str]) -> Option<Effect> {
    let (mut opens, mut protocol, mut ports, mut source, mut accepted) = (None, None, None, false, false);
    let mut rest = words.iter().copied().peekable();
    while let Some(word) = rest.next() {
        match word {
            "-A" | "--append" | "-I" | "--insert" | "-D" | "--delete" => {
                if rest.next()? != "INPUT" || opens.is_some() {
                    return None;
                }
                // A place in the chain.
                if rest.peek().is_some_and(|next| next.parse::<u16>().is_ok()) {
                    rest.next();
                }
                opens = Some(!matches!(word, "-D" | "--delete"));
            }
            "-t" | "--table" if rest.next()? == "filter" => {}
            "-w" | "--wait" => {}
            "-s" | "--source" | "--src" if rest.next()? == "%IP%" => source = true,
            "-p" | "--protocol" => protocol = Some(protocol_of(rest.next()?)?),
            "--dport" | "--destination-port" | "--dports" | "--destination-ports" => {
                ports = Some(rest.next()?)
            }
            "-m" | "--match" => match rest.next()? {
                "tcp" | "udp" | "multiport" | "state" | "conntrack" | "comment" => {}
                _ => return None,
            },
            // New connections are what a grant is about.
            "--state" | "--ctstate" if rest.next()?.split(',').any(|state| state == "NEW") => {}
            "--comment" => drop(rest.next()?),
            "-j" | "--jump" if rest.next()? == "ACCEPT" => accepted = true,
            _ => return None,
        }
    }
    let ports = ports_of(protocol?, ports?.split(','), ':')?;
    effect_of(opens.filter(|_| source && accepted)?, ports)
}

/// `add rule inet filter input ip saddr %IP% tcp dport 22 accept`.
fn nft(words: &[&str]) -> Option<Effect> {
    let ["add" | "insert", "rule", rest @ ..] = words else { return None };
    let rest = match rest {
        ["ip" | "ip6" | "inet", rest @ ..] => rest,
        rest => rest,
    };
    let [_, chain, "ip" | "ip6", "saddr", "%IP%", protocol, "dport", ports @ .., "accept"] = rest else {
        return None;
    };
    let all = ports.join(" ");
    let all = all.strip_prefix('{').and_then(|all| all.strip_suffix('}')).unwrap_or(&all);
    let ports = ports_of(protocol_of(protocol)?, all.split(',').map(str::trim), '-')?;
    effect_of(true, ports).filter(|_| chain.eq_ignore_ascii_case("input"))
}

/// `allow from %IP% to any port 22 proto tcp`; without a protocol both are meant.
fn ufw(words: &[&str]) -> Option<Effect> {
    let words = match words {
        ["insert", _, rest @ ..] | ["prepend", rest @ ..] => rest,
        words => words,
    };
    let (opens, words) = match words {
        ["delete", "allow", rest @ ..] => (false, rest),
        ["allow", rest @ ..] => (true, rest),
        _ => return None,
    };
    let (protocol, words) = match words {
        ["proto", protocol, rest @ ..] => (Some(*protocol), rest),
        words => (None, words),
    };
    let ["from", "%IP%", "to", "any", "port", ports, rest @ ..] = words else { return None };
    let protocol = match (rest, protocol) {
        ([], protocol) => protocol,
        (["proto", protocol], None) => Some(*protocol),
        _ => return None,
    };
    let protocols: &[&str] = match &protocol {
        Some(protocol) => std::slice::from_ref(protocol),
        None => &["tcp", "udp"],
    };
    let mut open = Vec::new();
    for protocol in protocols {
        open.extend(ports_of(protocol_of(protocol)?, ports.split(','), ':')?);
    }
    effect_of(opens, open)
}

/// The transports that both a firewall and a knock may name.
pub(super) fn protocol_of(name: &str) -> Option<Protocol> {
    match name {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    }
}

/// Single ports and ranges; at most as many as a firewall's own rule can name.
fn ports_of<'a>(
    protocol: Protocol,
    ports: impl Iterator<Item = &'a str>,
    between: char,
) -> Option<Vec<PortRange>> {
    let range = |text: &str| {
        let (first, last) = text.split_once(between).unwrap_or((text, text));
        PortRange::new(protocol, first.parse().ok()?, last.parse().ok()?).ok()
    };
    let ports: Option<Vec<PortRange>> = ports.take(MAX_PORTS + 1).map(range).collect();
    ports.filter(|ports| ports.len() <= MAX_PORTS)
}

const MAX_PORTS: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(command: &str) -> Option<String> {
        let join =
            |ports: Vec<PortRange>| ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        Some(match effect(command)? {
            Effect::Opens(ports) => join(ports),
            Effect::Closes(ports) => format!("closes {}", join(ports)),
        })
    }

    #[test]
    fn a_command_of_known_words_says_what_it_opens() {
        for (command, expected) in [
            ("/sbin/iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT", "tcp/22"),
            ("/usr/sbin/iptables -I INPUT 1 -p udp -s %IP% --dport 60000:60010 -j ACCEPT", "udp/60000-60010"),
            (
                "iptables -w -I INPUT -p tcp -m tcp -s %IP% -m multiport --dports 80,443 -j ACCEPT",
                "tcp/80 tcp/443",
            ),
            ("iptables -A INPUT -s %IP% -p tcp -m state --state NEW --dport 22 -j ACCEPT", "tcp/22"),
            ("/sbin/iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT", "closes tcp/22"),
            ("nft add rule inet filter input ip saddr %IP% tcp dport 22 accept", "tcp/22"),
            (
                "nft insert rule filter INPUT ip saddr %IP% udp dport { 53, 5000-5010 } accept",
                "udp/53 udp/5000-5010",
            ),
            ("/usr/sbin/ufw allow from %IP% to any port 22", "tcp/22 udp/22"),
            ("ufw allow proto tcp from %IP% to any port 22", "tcp/22"),
            ("ufw insert 1 allow from %IP% to any port 80,443 proto tcp", "tcp/80 tcp/443"),
            ("ufw delete allow from %IP% to any port 22 proto tcp", "closes tcp/22"),
        ] {
            assert_eq!(opened(command).as_deref(), Some(expected), "{command}");
        }
    }

    #[test]
    fn a_command_with_a_word_that_is_not_known_opens_nothing_here() {
        for command in [
            "",
            "/usr/local/sbin/knock_add -i -c INPUT -p tcp -d 443 -f %IP%",
            "iptables -A INPUT -p tcp --dport 22 -j ACCEPT",
            "iptables -A INPUT -s 10.0.0.1 -p tcp --dport 22 -j ACCEPT",
            "iptables -A FORWARD -s %IP% -p tcp --dport 22 -j ACCEPT",
            "iptables -t nat -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT",
            "iptables -A INPUT -s %IP% -p tcp ! --dport 22 -j ACCEPT",
            "iptables -A INPUT -s %IP% -i eth0 -p tcp --dport 22 -j ACCEPT",
            "iptables -A INPUT -s %IP% -p tcp --dport 22 -j LOG",
            "iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT; reboot",
            "iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT && logger hello",
            "iptables -A INPUT -s %IP% -p icmp --dport 22 -j ACCEPT",
            "iptables -A INPUT -s %IP% -p tcp --dport 0 -j ACCEPT",
            "iptables -A INPUT -s %IP% -p tcp --dport",
            "iptables -A INPUT -s %IP% -p tcp -j ACCEPT",
            "nft add element inet filter allowed { %IP% }",
            "nft add rule inet filter input ip saddr %IP% tcp dport { 22 80 } accept",
            "nft add rule inet filter output ip saddr %IP% tcp dport 22 accept",
            "ufw deny from %IP% to any port 22",
            "ufw allow from %IP%",
            "systemctl start ssh",
        ] {
            assert_eq!(opened(command), None, "{command}");
        }
    }
}
