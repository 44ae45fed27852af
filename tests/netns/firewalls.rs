//! Beside other people's firewalls: firewalld, ufw, `nftables.service` and a container engine's published ports come, go
//! and are reloaded around a guard; and nothing of theirs is ever changed by us.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::{
    Answer, Assault, Daemon, Echo, GUARDED, SERVER4, SERVER6, SOON, World, ip, succeed, wait_for, within,
};
use crate::corner::Corner;
use crate::rules::WATCHED;

impl Corner {
    /// Starts firewalld with a bus of its own. Its public zone lets `ssh` in.
    fn start_firewalld(&self) {
        self.run("dbus-daemon --config-file=/etc/bus.conf --fork --nopidfile");
        self.run("firewalld --nofork >/run/firewalld.log 2>&1 & echo $! >/run/firewalld.pid");
        assert!(
            wait_for(SOON, || self.tell("firewall-cmd --state").status.success()),
            "firewalld does not start"
        );
        assert!(self.run("firewall-cmd --list-services").contains("ssh"));
    }

    /// Starts ufw with tcp/22 open.
    fn start_ufw(&self) {
        self.run("ufw allow 22/tcp && ufw --force enable");
        assert!(self.run("ufw status").contains("22/tcp"));
    }
}

/// Strangers at tcp/22 for as long as `events` take: none may get in, on either family.
#[track_caller]
fn besieged(world: &World, port: u16, events: impl FnOnce()) {
    let sieges = [world.siege(SERVER4, port), world.siege(SERVER6, port)];
    events();
    for siege in sieges {
        let assault: Assault = siege.end();
        assert!(assault.attempts > 20 && assault.connected == 0, "{assault:?}");
    }
}

/// What has to hold after each event: the grant lives, strangers stay out.
#[track_caller]
fn holds(world: &World, daemon: &Daemon<'_>, event: &str) {
    assert_eq!(daemon.grants().len(), 1, "{event}");
    assert!(world.can_connect(SERVER4, 22), "{event}: the grant is gone\n{}", daemon.log());
    assert!(!world.can_stranger_connect(SERVER4, 22), "{event}");
}

/// Each of these, with an owned table and with one that is only watched.
fn each_event(world: &World, events: &[(&str, &dyn Fn())]) {
    world.enrol("laptop", &["--open", "tcp/22", "--many"]);
    let _ssh = world.listener(22);
    assert!(world.can_stranger_connect(SERVER4, 22), "the other firewall lets everybody in");
    for config in [GUARDED, WATCHED] {
        let mut daemon = world.daemon(config);
        world.knock(&["--many", "--for", "10m"]);
        besieged(world, 22, || {
            for (name, event) in events {
                event();
                holds(world, &daemon, name);
            }
        });
        assert_eq!(daemon.logged("healed"), 0, "{}", daemon.log());
        daemon.command(&["revoke", "all"]);
        daemon.stop();
        world.nft(&["delete", "table", "inet", "knockd-rs"]);
    }
}

#[test]
fn firewalld_is_reloaded_stopped_and_started_around_a_guard_and_nothing_opens() {
    let world = World::new();
    let corner = Corner::new(&world);
    corner.start_firewalld();
    let stop = || {
        corner.run("kill $(cat /run/firewalld.pid)");
        let has_gone = || !world.nft(&["list", "tables"]).contains("table inet firewalld");
        assert!(wait_for(SOON, has_gone), "firewalld takes its table away when it ends");
        corner.run(
            "while kill -0 $(cat /run/firewalld.pid) 2>/dev/null; do sleep 0.05; done; rm -f /run/dbus/*",
        );
    };
    each_event(
        &world,
        &[
            ("reload", &|| drop(corner.run("firewall-cmd --reload"))),
            ("complete reload", &|| drop(corner.run("firewall-cmd --complete-reload"))),
            ("a port opened", &|| drop(corner.run("firewall-cmd --add-port=22/tcp"))),
            ("stop", &stop),
            ("start", &|| corner.start_firewalld()),
        ],
    );
}

#[test]
fn ufw_is_reloaded_disabled_and_enabled_around_a_guard_and_nothing_opens() {
    let world = World::new();
    let corner = Corner::new(&world);
    corner.start_ufw();
    each_event(
        &world,
        &[
            ("reload", &|| drop(corner.run("ufw reload"))),
            ("disable", &|| drop(corner.run("ufw disable"))),
            ("enable", &|| drop(corner.run("ufw --force enable"))),
        ],
    );
}

#[test]
fn the_service_of_nftables_flushes_and_loads_its_file_around_a_guard_and_nothing_opens() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many"]);
    let file = world.path("nftables.conf").display().to_string();
    // As Debian's /etc/nftables.conf, with what an admin adds to it.
    let text = "#!/usr/sbin/nft -f\n\nflush ruleset\n\ntable inet filter {\n\tchain input {\n\
                \t\ttype filter hook input priority filter; policy drop;\n\
                \t\tct state established,related accept\n\t\ticmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n\
                \t\ttcp dport 22 accept\n\t}\n\tchain forward {\n\t\ttype filter hook forward priority filter;\n\t}\n\
                \tchain output {\n\t\ttype filter hook output priority filter;\n\t}\n}\n";
    std::fs::write(&file, text).unwrap();
    world.nft(&["-f", &file]);
    let _ssh = world.listener(22);
    assert!(world.can_stranger_connect(SERVER4, 22));
    let daemon = world.daemon(GUARDED);
    world.knock(&["--many", "--for", "10m"]);
    besieged(&world, 22, || {
        for _ in 0..20 {
            world.nft(&["-f", &file]);
        }
        holds(&world, &daemon, "reload");
        world.nft(&["flush", "ruleset"]);
        holds(&world, &daemon, "stop");
    });
    assert_eq!(daemon.logged("healed"), 0);
}

#[test]
fn a_firewall_that_rejects_the_knock_with_whatever_icmp_error_does_not_keep_the_client_from_knocking() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    for (number, (to, error)) in (1..).zip([
        (SERVER4, "icmp type admin-prohibited"),
        (SERVER4, "icmp type host-unreachable"),
        (SERVER4, "icmp type port-unreachable"),
        (SERVER6, "icmpv6 type admin-prohibited"),
        (SERVER6, "icmpv6 type no-route"),
    ]) {
        let family = if to == SERVER4 { "ip" } else { "ip6" };
        world.nft(&[&format!(
            "table {family} strict {{ chain input {{ type filter hook input priority 0; udp dport 62201 reject \
             with {error}; }}; }}"
        )]);
        world.retarget(&to.to_string());
        world.knock(&[]);
        assert_eq!(daemon.logged("granted"), number, "{error}");
        world.nft(&["delete", "table", family, "strict"]);
    }
}

/// A container with a service, behind a bridge's address as container engines have it.
struct Container {
    name: String,
    _service: Echo,
}

impl Container {
    fn new(world: &World) -> Self {
        let (s, name) = (&world.server, format!("{}d", world.server));
        ip(&format!("netns add {name}"));
        ip(&format!("-n {s} link add docker0 type veth peer name eth0 netns {name}"));
        ip(&format!("-n {s} address add 172.30.0.1/24 dev docker0"));
        ip(&format!("-n {s} link set docker0 up"));
        ip(&format!("-n {name} address add 172.30.0.2/24 dev eth0"));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("-n {name} route add default via 172.30.0.1"));
        let forward = ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"];
        succeed(&world.inside(s).args(forward).output().unwrap());
        let service = within(&name, || Echo::start(80));
        Self { name, _service: service }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

#[test]
fn a_port_that_a_container_engine_publishes_is_guarded_whenever_its_rules_come_and_go() {
    const PUBLISH: &str = "iptables -t nat -N DOCKER
        iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
        iptables -t nat -A DOCKER ! -i docker0 -p tcp --dport 8080 -j DNAT --to-destination 172.30.0.2:80
        iptables -P FORWARD DROP
        iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
        iptables -A FORWARD ! -i docker0 -o docker0 -d 172.30.0.2 -p tcp --dport 80 -j ACCEPT";
    const WITHDRAW: &str =
        "iptables -t nat -F; iptables -t nat -X; iptables -F FORWARD; iptables -P FORWARD ACCEPT";
    let world = World::new();
    let corner = Corner::new(&world);
    let _container = Container::new(&world);
    corner.run(PUBLISH);
    assert!(world.can_stranger_connect(SERVER4, 8080), "published and not guarded");
    world.enrol("laptop", &["--open", "tcp/8080", "--many"]);
    for owner in ["", "[firewall]\nowner = \"never\"\n"] {
        let mut daemon = world.daemon(&format!("{}{owner}", GUARDED.replace("tcp/22", "tcp/8080")));
        besieged(&world, 8080, || {
            assert_eq!(world.try_tcp(None, SERVER4, 8080), Answer::Silence);
            world.knock(&["--many", "--for", "10m"]);
            assert!(world.can_connect(SERVER4, 8080), "a grant reaches the container");
            corner.run(WITHDRAW);
            assert!(!world.can_connect(SERVER4, 8080), "nothing is published");
            corner.run(PUBLISH);
            assert!(world.can_connect(SERVER4, 8080), "the grant survives");
        });
        assert_eq!(daemon.logged("healed"), 0, "{}", daemon.log());
        daemon.command(&["revoke", "all"]);
        daemon.stop();
        world.nft(&["delete", "table", "inet", "knockd-rs"]);
    }
}

/// All rules but ours, with their handles and without what packets count.
fn everybody_elses(world: &World, corner: &Corner) -> String {
    let text = world.nft(&["--stateless", "--handle", "list", "ruleset"]);
    let mut is_ours = false;
    let mut rules = String::new();
    for line in text.lines() {
        if line.starts_with("table ") {
            is_ours = line.starts_with("table inet knockd-rs ");
        }
        if !is_ours {
            rules += &format!("{line}\n");
        }
    }
    for save in ["iptables-save", "ip6tables-save"] {
        let saved = corner.run(save);
        // A chain's packets and bytes stand in brackets behind it, the time in comments.
        let kept = saved.lines().filter(|line| !line.starts_with('#'));
        rules.extend(kept.map(|line| line.split(" [").next().unwrap().to_owned() + "\n"));
    }
    rules
}

#[test]
fn a_whole_life_changes_nothing_of_firewallds_ufws_and_an_admins_own_rules() {
    let world = World::new();
    let corner = Corner::new(&world);
    corner.start_firewalld();
    corner.start_ufw();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("nft/examples/sets.nft");
    world.nft(&["-f", &example.display().to_string()]);
    let before = everybody_elses(&world, &corner);
    for words in ["table inet firewalld", "ufw-user-input", "set knock_once4", "-A INPUT -j ufw"] {
        assert!(before.contains(words), "no {words} in {before}");
    }
    let untouched = |event: &str| assert_eq!(everybody_elses(&world, &corner), before, "{event}");
    world.enrol("laptop", &["--open", "tcp/22", "--many"]);
    let _ssh = world.listener(22);
    for config in [GUARDED, WATCHED] {
        let mut daemon = world.daemon(config);
        untouched("start");
        daemon.command(&["guard", "tcp/80"]);
        world.knock(&["--many"]);
        untouched("guard and knock");
        if config == WATCHED {
            world.nft(&["delete", "table", "inet", "knockd-rs"]);
            daemon.await_log("healed: ");
            untouched("heal");
        }
        daemon.reload();
        daemon.command(&["unguard", "tcp/80"]);
        daemon.command(&["revoke", "all"]);
        untouched("reload, unguard and revoke");
        assert!(daemon.stop().success());
        assert!(world.nft(&["list", "tables"]).contains("knockd-rs"));
        untouched("a stop that keeps the table");
        daemon.start_again();
        daemon.kill9_both();
        untouched("a kill");
    }
    // The table that was left is purged when the daemon is to use the admin's own sets.
    let sets = "[freshness]\nclock = \"trusted\"\n[firewall]\nmode = \"sets\"\n[firewall.sets]\n\
                timed_v4 = \"inet filter knock4\"\n";
    drop(world.daemon(sets));
    assert!(!world.nft(&["list", "tables"]).contains("knockd-rs"));
    untouched("purge");
    let mut daemon = world.daemon(&format!("{GUARDED}[firewall]\non_stop = \"remove\"\n"));
    std::thread::sleep(Duration::from_millis(50));
    assert!(daemon.stop().success());
    assert!(!world.nft(&["list", "tables"]).contains("knockd-rs"));
    untouched("a stop that removes the table");
}
