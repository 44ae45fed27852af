//! What our table is made of, so that it can be told whether it is still what was loaded.

use std::io;

use super::link::{Link, Queue};
use super::table::{FAMILY, NAME};
use super::wire::{Attributes, find, find_text, find_u32, find_u64, kind};

/// The table itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// `NFT_TABLE_F_*`.
    pub(super) flags: u32,
    /// The netlink port of the socket that owns it, if any.
    pub(super) owner: Option<u32>,
    handle: u64,
}

impl Header {
    pub(super) const DORMANT: u32 = 0x1;
    pub(super) const OWNER: u32 = 0x2;
    pub(super) const PERSIST: u32 = 0x4;

    /// Looks for our table.
    pub(super) fn read(link: &mut Link) -> io::Result<Option<Self>> {
        let found = link.get(kind::GETTABLE, FAMILY, Attributes::default().text(1, NAME))?;
        Ok(found.map(|table| Self {
            flags: find_u32(&table, 2).unwrap_or(0),
            handle: find_u64(&table, 4).unwrap_or(0),
            owner: find_u32(&table, 7),
        }))
    }
}

/// The identity of every part. The kernel gives each object a handle and never uses one twice in a table, so
/// equal handles mean that nothing was removed, replaced, or put there by somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Whether the table is switched off (`flags dormant`), and its handle.
    table: (bool, u64),
    chains: Vec<Chain>,
    /// Name, handle, flags.
    sets: Vec<(String, u64, u32)>,
    /// Chain and handle, in the order of evaluation.
    rules: Vec<(String, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Chain {
    name: String,
    handle: u64,
    /// Hook and priority; those of a base chain only.
    hook: Option<(u32, u32)>,
    policy: Option<u32>,
}

impl Snapshot {
    /// Reads the table; `None` when there is none.
    pub(super) fn read(link: &mut Link) -> io::Result<Option<Self>> {
        let Some(header) = Header::read(link)? else { return Ok(None) };
        let ours = |object: &Vec<u8>| find_text(object, 1) == Some(NAME);
        let name = |object: &[u8], attribute| find_text(object, attribute).unwrap_or_default().to_owned();
        let filter = Attributes::default().text(1, NAME);

        let mut chains = link.dump(kind::GETCHAIN, FAMILY, &filter)?;
        chains.retain(ours);
        let chain = |chain: &Vec<u8>| Chain {
            name: name(chain, 3),
            handle: find_u64(chain, 2).unwrap_or(0),
            hook: find(chain, 4).map(|hook| (find_u32(hook, 1).unwrap_or(0), find_u32(hook, 2).unwrap_or(0))),
            policy: find_u32(chain, 5),
        };
        let mut sets = link.dump(kind::GETSET, FAMILY, &filter)?;
        sets.retain(ours);
        let set =
            |set: &Vec<u8>| (name(set, 2), find_u64(set, 16).unwrap_or(0), find_u32(set, 3).unwrap_or(0));
        let mut rules = link.dump(kind::GETRULE, FAMILY, &filter)?;
        rules.retain(ours);
        let rule = |rule: &Vec<u8>| (name(rule, 2), find_u64(rule, 3).unwrap_or(0));
        Ok(Some(Self {
            table: (header.flags & Header::DORMANT != 0, header.handle),
            chains: chains.iter().map(chain).collect(),
            sets: sets.iter().map(set).collect(),
            rules: rules.iter().map(rule).collect(),
        }))
    }

    /// Whether this can be what the ruleset makes: switched on, the one base chain at its hook, all rules there.
    pub(super) fn is_complete(&self, ruleset: &str) -> bool {
        const NF_INET_PRE_ROUTING: u32 = 0;
        // -150, and one before NF_IP_PRI_NAT_DST.
        const NF_IP_PRI_MANGLE: u32 = 0xffff_ff6a;
        const BEFORE_DNAT: u32 = 0xffff_ff9b;
        let base: Vec<_> = self.chains.iter().filter(|chain| chain.hook.is_some()).collect();
        let count = |verb: &str| ruleset.lines().filter(|line| line.starts_with(verb)).count();
        let has = |name: &str, priority: u32| {
            let right =
                |chain: &&Chain| chain.name == name && chain.hook == Some((NF_INET_PRE_ROUTING, priority));
            base.iter().copied().any(|chain| right(&chain))
        };
        !self.table.0
            && base.len() == 2
            && has("guard", NF_IP_PRI_MANGLE)
            && has("publish", BEFORE_DNAT)
            && self.rules.len() == count("add rule ")
            && self.sets.len() >= count("add set ") + count("add map ")
    }
}

/// Socket that hears of every change of the firewall's rules.
pub(super) struct Watch(Link);

impl Watch {
    /// Starts to listen.
    pub(super) fn open() -> io::Result<Self> {
        const NFNLGRP_NFTABLES: u32 = 7;
        Ok(Self(Link::open(1 << (NFNLGRP_NFTABLES - 1))?))
    }

    pub(super) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.fd()
    }

    /// Forgets what has been heard so far.
    pub(super) fn forget(&mut self) {
        let _ = self.0.drain(|_| ());
    }

    /// Whether anybody but `port` has touched our table since last asked. Where the kernel had to drop events
    /// (ENOBUFS) the answer is yes.
    pub(super) fn heard(&mut self, port: u32) -> bool {
        let mut touched = false;
        let queue = self.0.drain(|message| touched |= is_foreign(message, port));
        touched || !matches!(queue, Ok(Queue::Whole))
    }
}

fn is_foreign(message: &super::wire::Received<'_>, port: u32) -> bool {
    // The name of the table is the first attribute of all these.
    let about_tables = matches!(
        message.kind & 0xff,
        kind::NEWTABLE
            | kind::DELTABLE
            | kind::NEWCHAIN
            | kind::DELCHAIN
            | kind::NEWRULE
            | kind::DELRULE
            | kind::NEWSET
            | kind::DELSET
            | kind::NEWSETELEM
            | kind::DELSETELEM
    );
    about_tables && message.sender != port && find_text(message.body(), 1) == Some(NAME)
}
