//! The simulators. Each is one pure-looking function from a request to a reply, written from the
//! vendor's documents; what they share is only the routing and the faults.

pub(crate) mod apns;
pub(crate) mod fcm;
pub(crate) mod harmony;
pub(crate) mod huawei;
pub(crate) mod oauth;
pub(crate) mod xiaomi;

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::channel::Channel;
use crate::exchange::{Act, Call, Connection, Reply};
use crate::faults::{Endpoint, Fault, FaultKind};
use crate::limits;
use crate::world::World;

/// Answers one request as the vendor whose path it uses would.
pub(crate) async fn serve(world: &World, connection: &Connection, call: &Call) -> Act {
    let arrived_ms = world.clock.now_ms();
    let Some((channel, endpoint)) = owner(&call.path) else {
        let body = json!({"error": "no simulated vendor has this path", "path": call.path});
        return Act::Answer(Reply::json(404, &body, "refused no such path"));
    };
    let fault = world
        .faults
        .strike(channel, endpoint, &world.dice, |token| {
            names_token(call, token)
        });
    if let Some(fault) = &fault
        && fault.kind == FaultKind::Slow
    {
        let delay = fault
            .delay_ms
            .unwrap_or(limits::SLOW_MS_DEFAULT)
            .min(limits::SLOW_MS_MAX);
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let (act, verdict, status) = act(world, connection, call, channel, fault.as_ref());
    world
        .requests
        .add(channel, arrived_ms, call, &verdict, status);
    act
}

fn act(
    world: &World,
    connection: &Connection,
    call: &Call,
    channel: Channel,
    fault: Option<&Fault>,
) -> (Act, String, u16) {
    let answer = |reply: Reply| {
        let verdict = reply.verdict.clone();
        let status = reply.status;
        (Act::Answer(reply), verdict, status)
    };
    let Some(fault) = fault else {
        if channel == Channel::Apns && !connection.http2 {
            return (
                Act::Reset,
                "refused HTTP/1.1; APNs speaks HTTP/2 only".to_owned(),
                0,
            );
        }
        return answer(judge(world, connection, call, channel));
    };
    match fault.kind {
        FaultKind::Goaway => (Act::GoAway, "fault goaway".to_owned(), 0),
        FaultKind::Slow => {
            let mut reply = judge(world, connection, call, channel);
            reply.verdict = format!("fault slow, then {}", reply.verdict);
            answer(reply)
        }
        FaultKind::Reset => {
            let reply = judge(world, connection, call, channel);
            (
                Act::Reset,
                format!("fault reset, after {}", reply.verdict),
                0,
            )
        }
        FaultKind::Malformed => {
            let mut reply = judge(world, connection, call, channel);
            reply.body = Bytes::from_static(b"<html><body>upstream {\"res");
            reply.verdict = format!("fault malformed, after {}", reply.verdict);
            answer(reply)
        }
        FaultKind::Unavailable
        | FaultKind::RateLimited
        | FaultKind::QuotaExhausted
        | FaultKind::TokenInvalid
        | FaultKind::AuthExpired => {
            let mut reply = match channel {
                Channel::Apns => apns::fault(world, call, fault.kind),
                Channel::Fcm => fcm::fault(world, call, fault.kind),
                Channel::Huawei => huawei::fault(world, call, fault.kind),
                Channel::Harmony => harmony::fault(world, call, fault.kind),
                Channel::Xiaomi => xiaomi::fault(world, call, fault.kind),
            };
            reply.verdict = format!("fault {}", reply.verdict);
            answer(reply)
        }
    }
}

fn judge(world: &World, connection: &Connection, call: &Call, channel: Channel) -> Reply {
    match channel {
        Channel::Apns => apns::handle(world, connection, call),
        Channel::Fcm => fcm::handle(world, call),
        Channel::Huawei => huawei::handle(world, call),
        Channel::Harmony => harmony::handle(world, call),
        Channel::Xiaomi => xiaomi::handle(world, call),
    }
}

/// Which vendor a path belongs to; the vendors' paths do not collide.
fn owner(path: &str) -> Option<(Channel, Endpoint)> {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let send = |channel| Some((channel, Endpoint::Send));
    match segments.as_slice() {
        ["3", "device", ..] | ["4", "broadcasts", ..] | ["1", "apps", ..] => send(Channel::Apns),
        ["token"] => Some((Channel::Fcm, Endpoint::Auth)),
        ["v1", "projects", ..] | ["iid", ..] => send(Channel::Fcm),
        ["oauth2", "v3", "token"] => Some((Channel::Huawei, Endpoint::Auth)),
        ["v3", _, "messages:send"] | ["v1", _, "messages:revoke"] => send(Channel::Harmony),
        ["v1" | "v2", _, "messages:send"] => send(Channel::Huawei),
        ["v1", _, verb] if verb.starts_with("topic:") => send(Channel::Huawei),
        [
            "v2" | "v3",
            "message" | "multi_messages" | "schedule_job" | "topic" | "regid",
            ..,
        ]
        | [
            "v1",
            "trace" | "stats" | "feedback" | "validation" | "alias" | "topic" | "account" | "regid",
            ..,
        ]
        | ["revoke", "message"] => send(Channel::Xiaomi),
        _ => None,
    }
}

fn names_token(call: &Call, token: &str) -> bool {
    call.path.ends_with(token)
        || String::from_utf8_lossy(&call.body).contains(token)
        || call.form().iter().any(|(_, value)| value.contains(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_belong_to_one_vendor() {
        let check = |path: &str, want: Option<Channel>| {
            assert_eq!(owner(path).map(|(channel, _)| channel), want, "{path}");
        };
        check("/3/device/abcd", Some(Channel::Apns));
        check("/4/broadcasts/apps/com.example", Some(Channel::Apns));
        check("/1/apps/com.example/channels", Some(Channel::Apns));
        check("/token", Some(Channel::Fcm));
        check("/v1/projects/p/messages:send", Some(Channel::Fcm));
        check("/oauth2/v3/token", Some(Channel::Huawei));
        check("/v1/10001/messages:send", Some(Channel::Huawei));
        check("/v2/10001/messages:send", Some(Channel::Huawei));
        check("/v1/10001/topic:list", Some(Channel::Huawei));
        check("/v3/10001/messages:send", Some(Channel::Harmony));
        check("/v1/10001/messages:revoke", Some(Channel::Harmony));
        check("/v3/message/regid", Some(Channel::Xiaomi));
        check("/v2/multi_messages/regids", Some(Channel::Xiaomi));
        check("/v1/feedback/fetch_invalid_regids", Some(Channel::Xiaomi));
        check("/", None);
        check("/v1/nothing", None);
    }
}
