//! The system calls that the two processes may make: a table for each, every row with its reason.
//!
//! The worker, which reads what strangers send, ends at any other call with `SIGSYS`. The monitor, and `nft` and new
//! workers, which begin with the monitor's filter, get `EPERM`, and the kernel logs it: an unexpected call of a library
//! then costs what it was for, and neither ends the daemon nor locks anybody out. `tests/netns/calls.rs` compares the
//! tables with what the daemon does.

mod monitor;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

use crate::sys;

/// A system call, what its arguments have to be, and why it is here.
struct Row {
    number: c_long,
    name: &'static str,
    arguments: Arguments,
    when: When,
    why: &'static str,
}

/// Whether a trace of start, knock, reload and stop on an x86-64 machine with Debian 12 or later shows the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It has to be there.
    Daily,
    /// It need not: the reason says when it is made.
    Seldom,
}

/// What an argument has to be; one row of several is enough. Arguments count from zero.
enum Arguments {
    Any,
    /// The bits of the argument under the mask.
    Bits {
        argument: u8,
        mask: u64,
        value: u64,
    },
    /// One of these values, compared in the low 32 bits as the kernel does for commands.
    OneOf {
        argument: u8,
        values: &'static [u64],
    },
    /// Not on a descriptor of the capture (argument 0): a packet socket sends as well as it receives.
    Elsewhere,
    /// As `Elsewhere`, and the command in argument 1 is this.
    CommandElsewhere(u64),
    /// This process (argument 0) and no other.
    Own,
}

/// The numbers of `libc`, and one that it lacks.
mod numbers {
    pub(super) use libc::*;
    /// `asm-generic/unistd.h`.
    #[cfg(target_arch = "aarch64")]
    #[expect(non_upper_case_globals, reason = "named as the others")]
    pub(super) const SYS_renameat: c_long = 38;
}

/// Rows of a table: the call's constant in `libc`, arguments, when, why.
macro_rules! table {
    ($($call:ident, $arguments:expr, $when:ident, $why:literal;)*) => {
        &[$(Row { number: numbers::$call, name: stringify!($call), arguments: $arguments, when: $when, why: $why }),*]
    };
}
use table;

/// Which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// With all that it starts, until that confines itself further.
    Monitor,
    /// Once it is confined.
    Worker,
}

/// A row of a table, for whoever compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The call, such as `openat`.
    pub name: &'static str,
    /// Whether every day sees it.
    pub when: When,
    /// What it is for.
    pub why: &'static str,
}

/// What a process may call: of the monitor what its own table says, beside which it may do what the worker may.
#[must_use]
pub fn listed(process: Process) -> Vec<Listed> {
    let rows = match process {
        Process::Monitor => monitor::rows().collect::<Vec<_>>(),
        Process::Worker => worker::rows().collect(),
    };
    let listed =
        |row: &Row| Listed { name: row.name.trim_start_matches("SYS_"), when: row.when, why: row.why };
    rows.into_iter().map(listed).collect()
}

/// Puts the worker's filters in force for this thread and all that it starts, for good.
///
/// `receiving` are the capture's descriptors: nothing can be sent on them, nor on a duplicate.
pub(super) fn restrict_worker(receiving: &[BorrowedFd<'_>]) -> io::Result<()> {
    let numbers: Vec<u64> = receiving.iter().map(|fd| u64::from(fd.as_raw_fd().unsigned_abs())).collect();
    let own = u64::from(std::process::id());
    let [refusing, table] = worker::filters(&numbers, own).map_err(io::Error::other)?;
    sys::filter_calls(&instructions(&refusing), sys::Told::Nobody)?;
    sys::filter_calls(&instructions(&table), sys::Told::Nobody)
}

/// Puts the monitor's filters in force for this thread and all that it starts, for good.
pub(super) fn restrict_monitor() -> io::Result<()> {
    let table = monitor::filter().map_err(io::Error::other)?;
    let newer = monitor::newer().map_err(io::Error::other)?;
    sys::filter_calls(&instructions(&table), sys::Told::KernelLog)?;
    // What this one refuses libraries try on purpose.
    sys::filter_calls(&newer, sys::Told::Nobody)
}

fn instructions(program: &[sock_filter]) -> Vec<libc::sock_filter> {
    let same =
        |step: &sock_filter| libc::sock_filter { code: step.code, jt: step.jt, jf: step.jf, k: step.k };
    program.iter().map(same).collect()
}

fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// The rules of a table; what it has several rows for is good by any one of them.
fn rules<'a>(
    rows: impl Iterator<Item = &'a Row>,
    receiving: &[u64],
    own: u64,
) -> Result<Rules, BackendError> {
    let mut rules = Rules::new();
    for row in rows {
        rules.entry(row.number).or_default().extend(row.arguments.rules(receiving, own)?);
    }
    Ok(rules)
}

/// One answer for what is listed, another one for all else. Another architecture's calls end the process.
fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, otherwise, listed, std::env::consts::ARCH.try_into()?)?.try_into()
}

impl Arguments {
    /// The rules of seccompiler, of which one has to hold; none at all is a call whatever its arguments.
    fn rules(&self, receiving: &[u64], own: u64) -> Result<Vec<SeccompRule>, BackendError> {
        let conditions = match self {
            Self::Any => Vec::new(),
            Self::Bits { argument, mask, value } => {
                let compare = SeccompCmpOp::MaskedEq(*mask);
                vec![vec![SeccompCondition::new(*argument, SeccompCmpArgLen::Qword, compare, *value)?]]
            }
            Self::OneOf { argument, values } => {
                values.iter().map(|value| Ok(vec![equals(*argument, *value)?])).collect::<Result<_, _>>()?
            }
            Self::Own => vec![vec![equals(0, own)?]],
            Self::Elsewhere if receiving.is_empty() => Vec::new(),
            Self::Elsewhere => vec![none_of(receiving)?],
            Self::CommandElsewhere(command) => {
                let mut all = none_of(receiving)?;
                all.push(equals(1, *command)?);
                vec![all]
            }
        };
        conditions.into_iter().map(SeccompRule::new).collect()
    }
}

fn equals(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn none_of(descriptors: &[u64]) -> Result<Vec<SeccompCondition>, BackendError> {
    let differs = |fd: &u64| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, *fd);
    descriptors.iter().map(differs).collect()
}

#[cfg(test)]
mod tests;
