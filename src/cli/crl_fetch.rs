//! `crl-fetch`: brings an authority's revocation list, for a timer.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use super::exit::print;
use crate::ca::{FetchError, Fetched, fetch};
use crate::clock;
use crate::files::FileFault;
use crate::text::Span;

/// Fetch an authority's revocation list, verify it, and put it where the daemon reads it.
///
/// What is there stays unless the new list is signed by the authority, of today, and not older. For
/// knockd-rs-crl.timer, which runs it under a user of its own.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  knockd-rs crl-fetch --url https://ca.example.org/crl --ca ca.pem --out /var/lib/knockd-rs-crl/crl.pem
  knockd-rs crl-fetch --url file:///mnt/ca/crl.pem --ca ca.pem --out crl.pem")]
pub(super) struct CrlFetch {
    /// Where the list is: http, https or file. The list is signed, so that http will do.
    #[arg(long)]
    url: String,
    /// The certificate of the authority that signs it, PEM or DER; several as PEM.
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// The file to replace.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How long it may take.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    timeout: Span,
}

impl CrlFetch {
    pub(super) fn run(self) -> Result<(), Failure> {
        let fetched = fetch(&self.url, &self.ca, &self.out, self.timeout.duration(), clock::wall());
        match fetched {
            Ok(Fetched::Replaced) => print(&format!("{} is new", self.out.display())),
            Ok(Fetched::Same) => print(&format!("{} is what it was", self.out.display())),
            Err(FetchError::Scheme(url)) => Err(Failure::Usage(FetchError::Scheme(url).to_string())),
            Err(FetchError::File(error)) if matches!(error.fault, FileFault::Denied) => {
                Err(Failure::NotPermitted(error.to_string()))
            }
            Err(error) => Err(Failure::Failed(error.to_string())),
        }
    }
}
