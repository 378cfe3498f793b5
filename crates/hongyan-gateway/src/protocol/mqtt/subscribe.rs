//! SUBSCRIBE and UNSUBSCRIBE: their answers wait for the registry where a topic of the app is meant.

use hongyan_core::{Cursor, Topic};
use hongyan_mqtt::packet::{Packet, QoS, ReasonCode, SubAck, Subscribe, UnsubAck, Unsubscribe};

use super::subscriptions::{self, Wish};
use super::{Client, Stage};
use crate::protocol::Desk;

/// A SUBSCRIBE or UNSUBSCRIBE that waits for the registry.
#[derive(Debug)]
pub(super) struct Waiting {
    packet_id: u16,
    unsubscribe: bool,
    codes: Vec<u8>,
    /// Topics that are not answered yet, with their places in `codes`.
    open: Vec<(Topic, usize, Wish)>,
}

/// A place to read from, as the store knows it.
#[derive(Debug)]
pub(super) struct ReadFrom(Cursor);

impl Client {
    pub(super) fn subscribe(&mut self, subscribe: &Subscribe<'_>, desk: &mut Desk<'_>) {
        self.heard(desk);
        let id = subscribe.properties.subscription_ids().next();
        let mut waiting = Waiting {
            packet_id: subscribe.packet_id,
            unsubscribe: false,
            codes: Vec::new(),
            open: Vec::new(),
        };
        let mut read_again = false;
        for filter in subscribe.filters.iter() {
            let wish = Wish {
                qos: filter.options.qos.min(QoS::AtLeastOnce),
                id,
            };
            let place = waiting.codes.len();
            let code = match subscriptions::place(filter.filter) {
                _ if self.stage == Stage::Server => ReasonCode::NOT_AUTHORIZED.0,
                Err(reason) => reason.0,
                Ok(_) if self.subscriptions.is_full() => ReasonCode::QUOTA_EXCEEDED.0,
                Ok(subscriptions::Place::Topic(topic)) => {
                    if desk.follow(&topic, true) {
                        waiting.open.push((topic, place, wish));
                        wish.qos as u8
                    } else {
                        ReasonCode::SERVER_BUSY.0
                    }
                }
                Ok(subscriptions::Place::Inbox) => {
                    self.subscriptions.add(filter.filter, wish);
                    read_again = true;
                    wish.qos as u8
                }
            };
            waiting.codes.push(code);
        }
        self.answer_or_wait(waiting, desk);
        if read_again {
            self.read_again(desk);
        }
    }

    pub(super) fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>, desk: &mut Desk<'_>) {
        self.heard(desk);
        let mut waiting = Waiting {
            packet_id: unsubscribe.packet_id,
            unsubscribe: true,
            codes: Vec::new(),
            open: Vec::new(),
        };
        for filter in unsubscribe.filters.iter() {
            let known = self.subscriptions.remove(filter);
            let place = waiting.codes.len();
            if known && let Ok(subscriptions::Place::Topic(topic)) = subscriptions::place(filter) {
                let wish = Wish {
                    qos: QoS::AtMostOnce,
                    id: None,
                };
                if desk.follow(&topic, false) {
                    waiting.open.push((topic, place, wish));
                }
            }
            waiting.codes.push(if known {
                ReasonCode::SUCCESS.0
            } else {
                ReasonCode::NO_SUBSCRIPTION_EXISTED.0
            });
        }
        self.answer_or_wait(waiting, desk);
    }

    pub(super) fn answer_or_wait(&mut self, waiting: Waiting, desk: &mut Desk<'_>) {
        if waiting.open.is_empty() {
            self.answer_wish(&waiting, desk);
        } else {
            self.rare.get_or_insert_default().waiting.push(waiting);
        }
    }

    pub(super) fn answer_wish(&self, waiting: &Waiting, desk: &mut Desk<'_>) {
        let (packet_id, codes) = (waiting.packet_id, waiting.codes.as_slice());
        let properties = Default::default();
        let packet = if waiting.unsubscribe {
            Packet::UnsubAck(UnsubAck {
                packet_id,
                properties,
                codes,
            })
        } else {
            Packet::SubAck(SubAck {
                packet_id,
                properties,
                codes,
            })
        };
        self.say(&packet, desk);
    }

    /// What was passed over may be wanted now. It is read from what the device acknowledged, and from where the session began
    /// if that is later: what waited before a clean one is none of its own.
    pub(super) fn read_again(&mut self, desk: &mut Desk<'_>) {
        if !std::mem::take(&mut self.passed_over) {
            desk.want();
            return;
        }
        let (Some(begins), Some(seat)) = (self.begins, desk.seat()) else {
            desk.reread(None);
            return;
        };
        let asked = desk.ask(move |ports| async move {
            let (reader, now) = (seat.reader(), ports.clock.now());
            // Of nothing: where it would begin.
            let page = ports.inbox.read(&reader, None, 0, now).await;
            ReadFrom(match page {
                Ok(page)
                    if page.next.reader == begins.reader && page.next.epoch == begins.epoch =>
                {
                    Cursor {
                        user: begins.user.max(page.next.user),
                        device: begins.device.max(page.next.device),
                        broadcast: begins.broadcast.max(page.next.broadcast),
                        ..begins
                    }
                }
                _ => begins,
            })
        });
        if !asked {
            desk.reread(Some(begins));
        }
    }

    /// Where to read again from.
    pub(super) fn reads_from(&self, from: &ReadFrom, desk: &mut Desk<'_>) {
        // Of a user that has left meanwhile: their place is none here, and everything is read anew.
        if self.begins.is_some() {
            desk.reread(Some(from.0));
        }
    }

    /// The registry has carried a wish out, or not.
    pub(super) fn followed_topic(
        &mut self,
        topic: &Topic,
        result: Result<(), (&'static str, &'static str)>,
        desk: &mut Desk<'_>,
    ) {
        let Some(rare) = &mut self.rare else { return };
        let all = &mut rare.waiting;
        let found = all.iter_mut().enumerate().find_map(|(at, waiting)| {
            let open = waiting.open.iter().position(|(one, ..)| one == topic)?;
            Some((at, waiting.open.remove(open)))
        });
        let Some((at, (topic, place, wish))) = found else {
            return;
        };
        let waiting = &mut all[at];
        match result {
            Ok(()) if !waiting.unsubscribe => {
                self.subscriptions.add(&format!("hy/t/{topic}"), wish);
            }
            Ok(()) => {}
            Err((word, _)) => {
                waiting.codes[place] = match word {
                    "too_many_topics" => ReasonCode::QUOTA_EXCEEDED.0,
                    _ => ReasonCode::UNSPECIFIED.0,
                };
            }
        }
        if waiting.open.is_empty() {
            let done = all.remove(at);
            if rare.is_empty() {
                self.rare = None;
            }
            self.answer_wish(&done, desk);
            if !done.unsubscribe {
                self.read_again(desk);
            }
        }
    }
}
