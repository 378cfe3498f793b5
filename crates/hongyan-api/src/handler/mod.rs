//! One file for each resource: what its addresses do. Start reading at `messages`.

pub(crate) mod apps;
pub(crate) mod broadcasts;
pub(crate) mod callbacks;
pub(crate) mod client;
pub(crate) mod credentials;
pub(crate) mod devices;
pub(crate) mod events;
pub(crate) mod live;
pub(crate) mod messages;
mod numbers;
pub(crate) mod ops;
pub(crate) mod push;
pub(crate) mod reports;
mod revival;
pub(crate) mod topics;
pub(crate) mod transfer;
pub(crate) mod users;
mod uses;
pub(crate) mod xmpp;

use hongyan_core::ChannelId;
use hongyan_core::draft::Fault;

use crate::api::Api;
use crate::problem::{Code, Problem};
use crate::wire::user::QuietHours;

/// Whether the time zone database knows the name.
pub(crate) fn is_timezone(name: &str) -> bool {
    jiff::tz::TimeZone::get(name).is_ok()
}

fn no_faults(faults: Vec<Fault>) -> Result<(), Problem> {
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Problem::faults(Code::Invalid, faults))
    }
}

fn fault(path: impl Into<String>, problem: impl Into<String>) -> Fault {
    Fault {
        path: path.into(),
        problem: problem.into(),
    }
}

/// A fault for each channel that is not built in: nothing would ever be sent through it.
fn unknown_channels<'a>(
    api: &Api,
    given: impl IntoIterator<Item = (String, &'a ChannelId)>,
) -> Vec<Fault> {
    let known = &api.ports().channels;
    given
        .into_iter()
        .filter(|(_, channel)| !known.contains(channel))
        .map(|(path, channel)| {
            let names: Vec<_> = known.iter().map(ChannelId::as_str).collect();
            fault(
                path,
                format!(
                    "there is no channel {channel}; there are {}",
                    names.join(", ")
                ),
            )
        })
        .collect()
}

fn check_quiet_hours(path: &str, quiet: Option<&QuietHours>, faults: &mut Vec<Fault>) {
    let Some(quiet) = quiet.cloned() else { return };
    if hongyan_core::user::QuietHours::from(quiet)
        .minutes()
        .is_none()
    {
        faults.push(fault(
            path,
            "start and end must be times of day, HH:MM, from 00:00 to 23:59; the end may be 24:00",
        ));
    }
}
