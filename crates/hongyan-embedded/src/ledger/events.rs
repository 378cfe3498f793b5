//! Events, several to a record.
//!
//! What one batch appends to an app's ledger is written in chunks: consecutive events of one day, one
//! record. An index has one row for each chunk that holds something of its message, device or
//! user: the places in the chunk and, for a message, how often each counter occurs among them. So a
//! message's counters are sums over its rows, and nothing is read to keep them. The first event that comes with a
//! message mostly is its only one in the batch: the message's record names its number then, and there is no row.
//!
//! Chunk: day, then for each event its length and JSON. Index row: number of places, the places, then for each
//! counter how often, its length and JSON.

use std::collections::HashMap;

use hongyan_core::port::{CounterKey, CounterRow, EventFilter};
use hongyan_core::{AppId, Event, MessageId, StoreError};

use crate::cached::{first_event, mark_first_event, message_key};
use crate::store::record::{Damage, Key, Parts, decode, encode, prefix_end};
use crate::store::{Range, Space, Txn, View};

/// The newest event number.
pub(crate) const HEAD: &[u8] = b"events";
/// Events of one chunk: a reader of one of them reads them all.
const CHUNK_LEN: usize = 64;
/// Rows that are looked at in one go.
const PAGE: usize = 256;

/// An event, ready to be written.
#[derive(Debug)]
pub(crate) struct PreparedEvent {
    event: Event,
    json: Vec<u8>,
    counter: Vec<u8>,
    /// Whether it is the first that comes with its message.
    is_first: bool,
}

fn counter_of(event: &Event) -> CounterKey {
    CounterKey {
        day: event.at.day(),
        stage: event.stage,
        reason: event.reason,
        class: event.class,
        channel: event.channel.clone(),
        platform: event.platform,
        ends: event.r#final,
    }
}

impl PreparedEvent {
    pub(crate) fn of(mut event: Event, is_first: bool) -> Result<Self, StoreError> {
        event.seq = 0;
        Ok(Self {
            json: encode("event", &event)?,
            counter: encode("counter", &counter_of(&event))?,
            event,
            is_first,
        })
    }

    pub(crate) const fn cost(&self) -> usize {
        self.json.len() + self.counter.len() + 256
    }
}

/// Numbers and writes events and counts them; answers the newest number, if there are any. Runs
/// in the writer, once for each batch.
pub(crate) fn append(
    txn: &mut Txn<'_>,
    events: &[PreparedEvent],
) -> Result<Option<u64>, StoreError> {
    if events.is_empty() {
        return Ok(None);
    }
    let mut seq = txn.number(Space::Meta, HEAD)?.unwrap_or(0);
    let mut counts: HashMap<(&AppId, i64, &[u8]), u64> = HashMap::new();
    for of_app in by_app(events) {
        let same_day =
            |a: &&PreparedEvent, b: &&PreparedEvent| a.event.at.day() == b.event.at.day();
        for chunk in of_app
            .chunk_by(same_day)
            .flat_map(|of_day| of_day.chunks(CHUNK_LEN))
        {
            write_chunk(txn, seq + 1, chunk);
            seq += chunk.len() as u64;
        }
    }
    for prepared in events {
        let event = &prepared.event;
        let counter = (&event.app, event.at.day(), prepared.counter.as_slice());
        *counts.entry(counter).or_default() += 1;
    }
    for ((app, day, counter), more) in counts {
        let key = Key::of(app).signed(day).raw(counter).done();
        match txn.number(Space::Counter, &key) {
            Ok(count) => txn.put_number(Space::Counter, key, count.unwrap_or(0) + more),
            // What shares the batch must not suffer. The record stays as it is, so that nobody reads a wrong count.
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(%error, "a counter is damaged and stands still");
            }
            Err(error) => return Err(error),
        }
    }
    txn.put_number(Space::Meta, HEAD, seq);
    Ok(Some(seq))
}

/// The events of each app, in their order.
fn by_app(events: &[PreparedEvent]) -> Vec<Vec<&PreparedEvent>> {
    let mut places: HashMap<&AppId, usize> = HashMap::new();
    let mut apps: Vec<Vec<&PreparedEvent>> = Vec::new();
    for event in events {
        let at = *places.entry(&event.event.app).or_insert(apps.len());
        if at == apps.len() {
            apps.push(Vec::new());
        }
        apps[at].push(event);
    }
    apps
}

fn write_chunk(txn: &mut Txn<'_>, first: u64, chunk: &[&PreparedEvent]) {
    let Some(app) = chunk.first().map(|p| &p.event.app) else {
        return;
    };
    let bytes: usize = chunk.iter().map(|p| p.json.len() + 4).sum();
    let day = chunk[0].event.at.day();
    let mut payload = Key::sized(8 + bytes).signed(day).done();
    for prepared in chunk {
        let length = u32::try_from(prepared.json.len()).unwrap_or(u32::MAX);
        payload.extend_from_slice(&length.to_be_bytes());
        payload.extend_from_slice(&prepared.json);
    }
    txn.put(Space::Event, Key::of(app).number(first), payload);
    for (message, places) in places_by(chunk, |e| e.message.as_ref()) {
        if let [place] = places[..]
            && chunk[usize::from(place)].is_first
        {
            let seq = first + u64::from(place);
            let key = message_key(app, *message);
            if txn.amend(Space::Message, &key, |payload| {
                mark_first_event(payload, seq);
            }) {
                continue;
            }
        }
        let mut row = places_row(&places, 160);
        for (counter, count) in counts(chunk, &places) {
            put_count(&mut row, counter, count);
        }
        let key = Key::of(app).raw(message.0.as_bytes()).number(first);
        txn.put(Space::EventByMessage, key, row);
    }
    for (device, places) in places_by(chunk, |e| e.device.as_ref()) {
        let key = Key::of(app).text(device).number(first);
        txn.put(Space::EventByDevice, key, places_row(&places, 0));
    }
    for (user, places) in places_by(chunk, |e| e.user.as_ref()) {
        let key = Key::of(app).text(user).number(first);
        txn.put(Space::EventByUser, key, places_row(&places, 0));
    }
}

/// Where in a chunk the events of each owner are.
fn places_by<'a, T: PartialEq>(
    chunk: &[&'a PreparedEvent],
    owner: impl Fn(&'a Event) -> Option<&'a T>,
) -> Vec<(&'a T, Vec<u8>)> {
    let mut found: Vec<(&T, Vec<u8>)> = Vec::new();
    for (place, prepared) in (0u8..).zip(chunk) {
        let Some(owner) = owner(&prepared.event) else {
            continue;
        };
        // Those of one owner mostly follow one another.
        match found.iter_mut().rev().find(|(known, _)| *known == owner) {
            Some((_, places)) => places.push(place),
            None => found.push((owner, vec![place])),
        }
    }
    found
}

/// A row with room for more.
fn places_row(places: &[u8], more: usize) -> Vec<u8> {
    let mut row = Vec::with_capacity(1 + places.len() + more);
    row.push(u8::try_from(places.len()).unwrap_or(u8::MAX));
    row.extend_from_slice(places);
    row
}

/// Adds how often a counter occurs to a row.
fn put_count(row: &mut Vec<u8>, counter: &[u8], count: u8) {
    let length = u16::try_from(counter.len()).unwrap_or(u16::MAX);
    row.push(count);
    row.extend_from_slice(&length.to_be_bytes());
    row.extend_from_slice(counter);
}

/// How often each counter occurs at some places of a chunk.
fn counts<'a>(chunk: &[&'a PreparedEvent], places: &[u8]) -> Vec<(&'a [u8], u8)> {
    let mut counts: Vec<(&[u8], u8)> = Vec::new();
    for place in places {
        let counter = chunk[usize::from(*place)].counter.as_slice();
        match counts.iter_mut().find(|(known, _)| *known == counter) {
            Some((_, count)) => *count += 1,
            None => counts.push((counter, 1)),
        }
    }
    counts
}

fn cut_short(space: Space, key: &[u8]) -> StoreError {
    Damage::of(space, key, "it is cut short").into_store_error()
}

/// Splits an index row into its places and its counters.
fn split_row<'a>(
    space: Space,
    key: &[u8],
    row: &'a [u8],
) -> Result<(&'a [u8], &'a [u8]), StoreError> {
    row.split_first()
        .and_then(|(len, rest)| rest.split_at_checked(usize::from(*len)))
        .ok_or_else(|| cut_short(space, key))
}

/// The event that a message names as its first, if it still stands, with the number of its chunk's first.
fn named(
    view: &impl View,
    app: &AppId,
    message: MessageId,
) -> Result<Option<(u64, Event)>, StoreError> {
    let payload = view.get(Space::Message, &message_key(app, message))?;
    let Some(seq) = payload.as_deref().and_then(first_event) else {
        return Ok(None);
    };
    // The chunk that holds it begins so far before it, or later.
    let from = Key::of(app).number(seq.saturating_sub(CHUNK_LEN as u64 - 1));
    let (from, to) = (
        from.done(),
        Key::of(app).number(seq.saturating_add(1)).done(),
    );
    let rows = view.range(Space::Event, Range::reverse(&from, Some(&to), 1))?;
    let Some((key, chunk)) = rows.first() else {
        return Ok(None);
    };
    let place = usize::try_from(seq.saturating_sub(number_at_end(key))).unwrap_or(usize::MAX);
    let all = jsons(key, chunk)?;
    let Some(json) = all.get(place) else {
        return Ok(None);
    };
    let mut event: Event = decode(Space::Event, key, json)?;
    event.seq = seq;
    Ok(Some((number_at_end(key), event)))
}

/// The number of the first event of each app that still stands, as far as somebody asked.
pub(crate) type OldestEvents = HashMap<AppId, u64>;

/// The record of a message is about to go: the event that it names gets a row of its own, if it still stands. Runs in
/// the writer.
pub(crate) fn keep_first(
    txn: &mut Txn<'_>,
    (app, message): (&AppId, MessageId),
    stored: &[u8],
    oldest: &mut OldestEvents,
) -> Result<(), StoreError> {
    let Some(seq) = first_event(stored) else {
        return Ok(());
    };
    let oldest = match oldest.get(app) {
        Some(oldest) => *oldest,
        None => {
            let first = match txn.prefix(Space::Event, Key::of(app).as_ref(), 1) {
                Ok(rows) => rows.first().map_or(u64::MAX, |(key, _)| number_at_end(key)),
                Err(StoreError::Corrupt { .. }) => 0,
                Err(error) => return Err(error),
            };
            *oldest.entry(app.clone()).or_insert(first)
        }
    };
    if seq < oldest {
        return Ok(());
    }
    let event = match named(txn, app, message) {
        Ok(event) => event,
        // Its time is over, damaged or not.
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::error!(%error, "the first event of a message that goes cannot be read");
            None
        }
        Err(error) => return Err(error),
    };
    let Some((first, event)) = event else {
        return Ok(());
    };
    let place = u8::try_from(event.seq.saturating_sub(first)).unwrap_or(u8::MAX);
    let mut row = places_row(&[place], 160);
    put_count(&mut row, &encode("counter", &counter_of(&event))?, 1);
    let key = Key::of(app).raw(message.0.as_bytes()).number(first);
    txn.put(Space::EventByMessage, key, row);
    Ok(())
}

/// The JSON of a chunk's events.
fn jsons<'a>(key: &[u8], chunk: &'a [u8]) -> Result<Vec<&'a [u8]>, StoreError> {
    let mut parts = Parts(chunk);
    let mut found = Vec::new();
    let mut read = || -> Option<()> {
        parts.signed()?;
        while !parts.rest().is_empty() {
            let length = u32::from_be_bytes(parts.raw()?);
            found.push(parts.take(usize::try_from(length).ok()?)?);
        }
        Some(())
    };
    read().ok_or_else(|| cut_short(Space::Event, key))?;
    Ok(found)
}

/// The number at the end of a key.
fn number_at_end(key: &[u8]) -> u64 {
    key.last_chunk::<8>().map_or(0, |n| u64::from_be_bytes(*n))
}

fn matches(event: &Event, filter: &EventFilter) -> bool {
    let of = |id: &MessageId| event.message.as_ref() == Some(id);
    match filter {
        EventFilter::App => true,
        EventFilter::Message(id) => of(id),
        EventFilter::MessageUser(id, user) => of(id) && event.user.as_ref() == Some(user),
        EventFilter::MessageDevice(id, device) => of(id) && event.device.as_ref() == Some(device),
        EventFilter::User(user) => event.user.as_ref() == Some(user),
        EventFilter::Device(device) => event.device.as_ref() == Some(device),
    }
}

/// The index of a filter and what its keys begin with.
fn index(app: &AppId, filter: &EventFilter) -> (Space, Key) {
    match filter {
        EventFilter::App => (Space::Event, Key::of(app)),
        EventFilter::Message(id) => (Space::EventByMessage, Key::of(app).raw(id.0.as_bytes())),
        EventFilter::MessageUser(_, user) | EventFilter::User(user) => {
            (Space::EventByUser, Key::of(app).text(user))
        }
        EventFilter::MessageDevice(_, device) | EventFilter::Device(device) => {
            (Space::EventByDevice, Key::of(app).text(device))
        }
    }
}

/// Events of a filter with a number above `after`, at most `limit`, in order.
pub(super) fn find(
    view: &impl View,
    app: &AppId,
    filter: &EventFilter,
    after: u64,
    limit: usize,
) -> Result<Vec<Event>, StoreError> {
    let (space, prefix) = index(app, filter);
    let end = prefix_end(prefix.as_ref());
    // The chunk that holds the next number begins so far before it, or later.
    let mut first = after.saturating_sub(CHUNK_LEN as u64 - 2);
    let mut found = Vec::new();
    if let EventFilter::Message(id) = filter {
        // It came with the message, before all others.
        let first = named(view, app, *id)?.map(|(_, event)| event);
        found.extend(first.filter(|event| event.seq > after));
        if found.len() >= limit {
            return Ok(found);
        }
    }
    loop {
        let from = prefix.clone().number(first).done();
        let rows = view.range(space, Range::forward(&from, end.as_deref(), PAGE))?;
        for (key, row) in &rows {
            first = number_at_end(key);
            let chunk_key = Key::of(app).number(first).done();
            let chunk = if space == Space::Event {
                Some(row.clone())
            } else {
                view.get(Space::Event, &chunk_key)?
            };
            // Index and chunk are read one after the other: it may have been dropped in between.
            let Some(chunk) = chunk else { continue };
            let all = jsons(&chunk_key, &chunk)?;
            let every: Vec<u8> = (0u8..).take(all.len()).collect();
            let places = if space == Space::Event {
                every.as_slice()
            } else {
                split_row(space, key, row)?.0
            };
            for place in places {
                let seq = first + u64::from(*place);
                if seq <= after {
                    continue;
                }
                let json = all.get(usize::from(*place));
                let json = json.ok_or_else(|| cut_short(Space::Event, &chunk_key))?;
                let mut event: Event = decode(Space::Event, &chunk_key, json)?;
                event.seq = seq;
                if matches(&event, filter) {
                    found.push(event);
                }
                if found.len() == limit {
                    return Ok(found);
                }
            }
        }
        if rows.len() < PAGE {
            return Ok(found);
        }
        first += 1;
    }
}

/// The counters of one message: sums over its rows.
pub(super) fn counters_of(
    view: &impl View,
    app: &AppId,
    message: MessageId,
) -> Result<Vec<CounterRow>, StoreError> {
    let space = Space::EventByMessage;
    let prefix = Key::of(app).raw(message.0.as_bytes());
    let end = prefix_end(prefix.as_ref());
    let mut first = 0;
    let mut sums: HashMap<Vec<u8>, u64> = HashMap::new();
    loop {
        let from = prefix.clone().number(first).done();
        let rows = view.range(space, Range::forward(&from, end.as_deref(), PAGE))?;
        for (key, row) in &rows {
            first = number_at_end(key) + 1;
            let mut parts = Parts(split_row(space, key, row)?.1);
            while !parts.rest().is_empty() {
                let mut read = || {
                    let [count] = parts.raw()?;
                    let length = u16::from_be_bytes(parts.raw()?);
                    Some((parts.take(usize::from(length))?, count))
                };
                let (counter, count) = read().ok_or_else(|| cut_short(space, key))?;
                match sums.get_mut(counter) {
                    Some(sum) => *sum += u64::from(count),
                    None => drop(sums.insert(counter.to_vec(), u64::from(count))),
                }
            }
        }
        if rows.len() < PAGE {
            break;
        }
    }
    let mut counters = Vec::with_capacity(sums.len());
    for (counter, count) in sums {
        counters.push(CounterRow {
            key: decode(space, prefix.as_ref(), &counter)?,
            count,
        });
    }
    // It has no row.
    if let Some((_, event)) = named(view, app, message)? {
        let key = counter_of(&event);
        match counters.iter_mut().find(|c| c.key == key) {
            Some(counter) => counter.count += 1,
            None => counters.push(CounterRow { key, count: 1 }),
        }
    }
    counters.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok(counters)
}

/// Drops those of an app's first `rows` chunks that are of a day before `first_day`, with their
/// index rows; answers how many events went.
pub(crate) fn drop_slice(
    txn: &mut Txn<'_>,
    app: &str,
    first_day: i64,
    rows: usize,
) -> Result<u64, StoreError> {
    let mut removed = 0;
    for (key, chunk) in txn.prefix(Space::Event, Key::of(app).as_ref(), rows)? {
        let day = Parts(&chunk).signed();
        if day.ok_or_else(|| cut_short(Space::Event, &key))? >= first_day {
            continue;
        }
        let first = number_at_end(&key);
        for json in jsons(&key, &chunk)? {
            let event: Event = decode(Space::Event, &key, json)?;
            if let Some(message) = &event.message {
                let index = Key::of(app).raw(message.0.as_bytes()).number(first);
                txn.remove(Space::EventByMessage, index);
            }
            if let Some(device) = &event.device {
                let index = Key::of(app).text(device).number(first);
                txn.remove(Space::EventByDevice, index);
            }
            if let Some(user) = &event.user {
                let index = Key::of(app).text(user).number(first);
                txn.remove(Space::EventByUser, index);
            }
            removed += 1;
        }
        txn.remove(Space::Event, key);
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use hongyan_core::{DeviceId, Stage, Timestamp};
    use uuid::Uuid;

    use super::*;
    use crate::cached::message_head;
    use crate::store::{Backend, Durability, FjallBackend, Read};

    const DAY: i64 = 86_400_000;

    fn event(n: u64) -> Event {
        Event {
            seq: 0,
            at: Timestamp(if n < 100 { 0 } else { DAY }),
            app: AppId::parse(if n % 10 == 3 { "b" } else { "a" }).unwrap(),
            stage: if n.is_multiple_of(2) {
                Stage::Targeted
            } else {
                Stage::Delivered
            },
            reason: None,
            message: Some(MessageId(Uuid::from_u128(u128::from(n % 7)))),
            class: None,
            user: None,
            device: Some(DeviceId::parse(format!("d{}", n % 5).as_str()).unwrap()),
            platform: None,
            channel: None,
            attempt: 0,
            until: None,
            took_ms: None,
            detail: None,
            r#final: false,
        }
    }

    /// Batches of several sizes: chunks that are full, cut by a day, cut by an app.
    #[test]
    fn every_filter_and_page_finds_what_was_appended() {
        let dir = tempfile::tempdir().unwrap();
        let backend = FjallBackend::open(dir.path()).unwrap();
        let mut next = 0;
        for (number, len) in (1u64..).zip([1u64, 63, 64, 65, 7]) {
            let events: Vec<_> = (next..next + len)
                .map(|n| PreparedEvent::of(event(n), false).unwrap())
                .collect();
            next += len;
            let mut txn = Txn::new(&backend, number);
            let newest = append(&mut txn, &events).unwrap();
            assert_eq!(newest, Some(next));
            txn.keep();
            backend
                .write(&txn.into_changes().changes, Durability::Buffered)
                .unwrap();
        }
        let chunks = Read::range(&backend, Space::Event, Range::forward(b"", None, 99)).unwrap();
        assert!(chunks.len() < 20, "{}", chunks.len());
        let view = Txn::new(&backend, 9);
        for app in ["a", "b"] {
            let app = AppId::parse(app).unwrap();
            let of_app: Vec<Event> = (0..next).map(event).filter(|e| e.app == app).collect();
            for filter in filters() {
                let mut want: Vec<Event> = of_app
                    .iter()
                    .filter(|e| matches(e, &filter))
                    .cloned()
                    .collect();
                for limit in [1, 3, 1_000] {
                    let mut found: Vec<Event> = Vec::new();
                    loop {
                        let after = found.last().map_or(0, |e| e.seq);
                        let page = find(&view, &app, &filter, after, limit).unwrap();
                        if page.is_empty() {
                            break;
                        }
                        found.extend(page);
                    }
                    assert!(found.windows(2).all(|w| w[0].seq < w[1].seq));
                    let seqs = found.iter().map(|e| e.seq).collect::<Vec<_>>();
                    found.iter_mut().for_each(|e| e.seq = 0);
                    assert_eq!(found, want, "{filter:?} by {limit}: {seqs:?}");
                }
                if let EventFilter::Message(id) = filter {
                    let counters = counters_of(&view, &app, id).unwrap();
                    let sum: u64 = counters.iter().map(|c| c.count).sum();
                    assert_eq!(sum, want.len() as u64);
                    want.retain(|e| e.stage == Stage::Targeted && e.at.day() == 0);
                    let one = counters
                        .iter()
                        .find(|c| c.key.stage == Stage::Targeted && c.key.day == 0);
                    assert_eq!(one.map_or(0, |c| c.count), want.len() as u64);
                }
            }
        }
    }

    fn filters() -> Vec<EventFilter> {
        let message = MessageId(Uuid::from_u128(3));
        let device = DeviceId::parse("d2").unwrap();
        vec![
            EventFilter::App,
            EventFilter::Message(message),
            EventFilter::Device(device.clone()),
            EventFilter::MessageDevice(message, device),
        ]
    }

    /// Messages with one event, with two in a batch, and with another in a later batch.
    #[test]
    fn a_message_names_its_first_event() {
        let dir = tempfile::tempdir().unwrap();
        let backend = FjallBackend::open(dir.path()).unwrap();
        let app = AppId::parse("a").unwrap();
        let about = |message: u128, stage| Event {
            stage,
            message: Some(MessageId(Uuid::from_u128(message))),
            app: app.clone(),
            ..event(0)
        };
        let batches: [&[(u128, Stage, bool)]; 2] = [
            &[
                (1, Stage::Accepted, true),
                (2, Stage::Accepted, true),
                (2, Stage::Targeted, false),
                (3, Stage::Accepted, true),
            ],
            &[(1, Stage::Delivered, false), (3, Stage::Accepted, false)],
        ];
        for (number, batch) in (1u64..).zip(batches) {
            let mut txn = Txn::new(&backend, number);
            let events: Vec<_> = batch
                .iter()
                .map(|(message, stage, is_first)| {
                    if *is_first {
                        let key = message_key(&app, MessageId(Uuid::from_u128(*message)));
                        txn.put(Space::Message, key, [&message_head()[..], b"{}"].concat());
                    }
                    PreparedEvent::of(about(*message, *stage), *is_first).unwrap()
                })
                .collect();
            append(&mut txn, &events).unwrap();
            txn.keep();
            backend
                .write(&txn.into_changes().changes, Durability::Buffered)
                .unwrap();
        }
        let rows = Range::forward(b"", None, 99);
        let rows = Read::range(&backend, Space::EventByMessage, rows).unwrap();
        assert_eq!(rows.len(), 3, "one for 2, and one for each that came later");
        let view = Txn::new(&backend, 9);
        for (message, want) in [
            (1, [(1, Stage::Accepted), (5, Stage::Delivered)]),
            (2, [(2, Stage::Accepted), (3, Stage::Targeted)]),
            (3, [(4, Stage::Accepted), (6, Stage::Accepted)]),
        ] {
            let id = MessageId(Uuid::from_u128(message));
            let find = |after, limit| {
                let filter = EventFilter::Message(id);
                let found = find(&view, &app, &filter, after, limit).unwrap();
                found.iter().map(|e| (e.seq, e.stage)).collect::<Vec<_>>()
            };
            assert_eq!(find(0, 9), want);
            assert_eq!(find(0, 1), want[..1]);
            assert_eq!(find(want[0].0, 9), want[1..]);
            assert!(find(want[1].0, 9).is_empty());
            let counters = counters_of(&view, &app, id).unwrap();
            let counts: Vec<_> = counters.iter().map(|c| c.count).collect();
            assert_eq!(counts, if message == 3 { vec![2] } else { vec![1, 1] });
        }
        // Its chunk goes before the message does.
        let mut txn = Txn::new(&backend, 9);
        drop_slice(&mut txn, "a", 1, 32).unwrap();
        let id = MessageId(Uuid::from_u128(1));
        assert!(named(&txn, &app, id).unwrap().is_none());
        assert!(counters_of(&txn, &app, id).unwrap().is_empty());
    }

    #[test]
    fn a_slice_drops_old_days_with_their_rows() {
        let dir = tempfile::tempdir().unwrap();
        let backend = FjallBackend::open(dir.path()).unwrap();
        let events: Vec<_> = (0..200)
            .map(|n| PreparedEvent::of(event(n), false).unwrap())
            .collect();
        let mut txn = Txn::new(&backend, 1);
        append(&mut txn, &events).unwrap();
        txn.keep();
        backend
            .write(&txn.into_changes().changes, Durability::Buffered)
            .unwrap();
        let mut txn = Txn::new(&backend, 2);
        assert_eq!(drop_slice(&mut txn, "a", 1, 32).unwrap(), 90);
        assert_eq!(drop_slice(&mut txn, "a", 1, 32).unwrap(), 0);
        assert_eq!(drop_slice(&mut txn, "b", 2, 32).unwrap(), 20);
        let left = |space| txn.range(space, Range::forward(b"", None, 999)).unwrap();
        for space in [Space::EventByMessage, Space::EventByDevice, Space::Event] {
            for (key, _) in left(space) {
                assert_eq!(Parts(&key).text(), Some("a"));
                // Nothing before the second day's first event is left.
                assert!(number_at_end(&key) > 90, "{space:?}");
            }
        }
        assert!(!left(Space::Event).is_empty());
    }
}
