//! `/etc/knockd-rs`: the daemon's settings, its keys and its profiles, from text to values that need no more
//! checking.
//!
//! `document` and `fields` turn text into values and complaints, `settings` (and [`crate::profile`]) say which
//! keys there are: pure. `load` and `keys` read and write the files: the edge. Everything wrong is reported at
//! once, each with its file, line and key, because people mend a file in one go.
#![forbid(unsafe_code)]

mod certificates;
mod document;
mod error;
mod fields;
mod forwards;
mod keys;
pub(crate) mod limits;
mod load;
pub(crate) mod ports;
mod settings;
mod together;
mod trust;

pub use certificates::{CertificateAuthority, CertificateRule, Certificates, DEFAULT_GRACE, MAX_RULE_NAME};
pub use error::{ConfigError, ConfigWarning, Place};
pub use keys::{GATE_KEY, MadeKeys, SERVER_KEY, make_keys_if_missing, server_identity};
pub use limits::Bounds;
#[cfg(feature = "fuzzing")]
pub(crate) use load::check as check_settings;
pub use load::{
    AUTHORITIES, CONFIG_DIR, Configuration, PROFILES_DIR, SETTINGS_FILE, keep_good, load, load_from,
    load_sound,
};
pub use ports::merged;
pub use settings::{
    Capture, Clock, Control, Device, Doors, Firewall, Forward, Freshness, GroupName, Guard, Interface,
    Limits, Log, LogFormat, LogLevel, Mode, OnStop, Owner, Services, SetName, Sets, Settings, Trusted,
    UnitName,
};

pub use trust::{Trust, read_trust};

pub(crate) use document::{Syntax, parse};
pub(crate) use error::Report;
pub(crate) use fields::{Table, key_hint};
pub(crate) use settings::{GROUND_KEYS, freshness, ground, value};
