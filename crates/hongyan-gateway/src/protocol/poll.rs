//! Short and long polls: `GET /v1/poll`. A device's polls share one session, which lives on for a moment between them, so
//! that presence does not flicker and a message that comes in between waits for the next one.

use hongyan_core::session::AppState;
use hongyan_core::{Cursor, MessageId};
use tokio::sync::oneshot;

use super::hongyan::Encoding;
use super::hongyan::outgoing::{self, ServerMessage};
use super::sse::{Caller, Turned, turned};
use super::websocket::close;
use super::{
    Desk, Farewell, Hello, Input, Kind, Outgoing, Proof, Protocol, Silence, Speaker, Taken, Welcome,
};
use crate::gate::{Busy, Permit};
use crate::gateway::GatewayHandle;
use crate::options::{Options, TICK_MS, ticks};
use crate::wheel::Tick;

/// Bytes of messages in one answer; no further message is added beyond them.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Most messages in one answer.
pub const LIMIT_MAX: u16 = 500;
/// How long a poll that does not wait for messages waits for the store to say whether there are any.
const READ_MS_MAX: u64 = 5_000;
/// Polls of one device that wait for its session to be made; others make one of their own.
const FIRST_LEN_MAX: usize = 8;
/// How long the session waits for the next poll.
const LINGER_MS: u64 = 15_000;

/// What a poll asks.
#[derive(Debug)]
pub struct Request {
    /// The last place that the client has processed: everything up to it is acknowledged. Without one the answer begins at
    /// the device's own place.
    pub cursor: Option<Cursor>,
    /// How long to wait for a first message, milliseconds.
    pub wait_ms: u64,
    /// Most messages, 1 to [`LIMIT_MAX`].
    pub limit: u16,
}

/// What a poll is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// To be given with the next poll.
    pub cursor: Cursor,
    /// The newest place.
    pub head: Cursor,
    /// Whether there is more to fetch at once.
    pub more: bool,
    /// The client's cursor was of another inbox or epoch: these begin at what the device acknowledged.
    pub reset: bool,
    /// A newer poll of the device took over.
    pub superseded: bool,
    /// Messages as JSON objects, in order, as they stand in a `msg`.
    pub messages: Vec<Vec<u8>>,
    /// Marks of recalls as JSON objects, in order, as they stand in a `recall`: each is of a message that came before it.
    pub recalled: Vec<Vec<u8>>,
}

/// A poll that waits for its answer.
#[derive(Debug)]
struct Waiting {
    request: Request,
    answer: oneshot::Sender<Result<Answer, Turned>>,
    messages: Vec<Vec<u8>>,
    recalled: Vec<Vec<u8>>,
    bytes: usize,
    last: Option<Cursor>,
    reset: bool,
    ends: Tick,
}

impl Waiting {
    fn is_full(&self) -> bool {
        self.len() >= usize::from(self.request.limit)
    }

    fn len(&self) -> usize {
        self.messages.len() + self.recalled.len()
    }

    /// Nothing of what was collected is handed out.
    fn forget(&mut self) {
        self.messages.clear();
        self.recalled.clear();
        self.last = None;
    }
}

/// The session of a device's polls.
#[derive(Debug)]
struct Poll {
    proof: Option<Proof>,
    /// Polls that came before the session was there, in order.
    first: Vec<Ask>,
    waiting: Option<Box<Waiting>>,
    /// When it ends if nobody polls.
    lingers: Tick,
}

impl GatewayHandle {
    /// Polls for a device. `admit` is asked for a place when the device has no session of polls yet.
    ///
    /// # Errors
    /// [`Turned`] when the device is unknown or the gateway busy.
    pub async fn poll(
        &self,
        caller: Caller,
        request: Request,
        admit: impl FnOnce() -> Result<Permit, Busy>,
    ) -> Result<Answer, Turned> {
        let (answer, mut answered) = oneshot::channel();
        let known = match &caller {
            Caller::Device { app, device, .. } => self.session(app, device, Kind::Poll),
            Caller::Ticket(_) => None,
        };
        let mut ask = (request, answer);
        if let Some(session) = known {
            let (back, returned) = oneshot::channel();
            self.tell(session, Box::new(Next(Some(ask), Some(back))));
            match returned.await {
                // The session ended before it heard of this poll.
                Ok(unheard) => ask = unheard,
                Err(_) => return answered.await.unwrap_or(Err(Turned::AWAY)),
            }
        }
        let permit = admit().map_err(|_| Turned::AWAY)?;
        let protocol = Poll {
            proof: Some(caller.into()),
            first: vec![ask],
            waiting: None,
            lingers: Tick::MAX,
        };
        self.inner(Speaker::Other(Box::new(protocol)), permit);
        (&mut answered).await.unwrap_or(Err(Turned::AWAY))
    }
}

type Ask = (Request, oneshot::Sender<Result<Answer, Turned>>);

/// A further poll; dropped unheard it goes back to who asked.
struct Next(Option<Ask>, Option<oneshot::Sender<Ask>>);

impl Drop for Next {
    fn drop(&mut self) {
        if let (Some(ask), Some(back)) = (self.0.take(), self.1.take()) {
            let _ = back.send(ask);
        }
    }
}

impl Poll {
    fn begin_poll(&mut self, (request, answer): Ask, desk: &mut Desk<'_>) {
        self.supersede(desk);
        let ours = |cursor: &Cursor| {
            desk.head()
                .is_some_and(|head| head.epoch == cursor.epoch && head.reader == cursor.reader)
        };
        let place = request.cursor.filter(ours);
        let reset = request.cursor.is_some() && place.is_none();
        if let Some(place) = place {
            desk.ack_upto(place);
        }
        desk.restart(place);
        // One that does not wait for messages waits for the store: `sent` answers it.
        let wait_ms = match request.wait_ms {
            0 => READ_MS_MAX,
            wait_ms => wait_ms,
        };
        let wait = Tick::try_from(wait_ms.div_ceil(TICK_MS)).unwrap_or(0);
        self.waiting = Some(Box::new(Waiting {
            ends: desk.now() + wait,
            answer,
            messages: Vec::new(),
            recalled: Vec::new(),
            bytes: 0,
            last: place,
            reset,
            request,
        }));
        desk.rearm();
    }

    /// Answers the poll that waits, if one does.
    fn answer(&mut self, more: bool, superseded: bool, desk: &mut Desk<'_>) {
        self.lingers = desk.now() + ticks(LINGER_MS);
        desk.rearm();
        let Some(waiting) = self.waiting.take() else {
            return;
        };
        let Waiting {
            request,
            answer,
            messages,
            recalled,
            last,
            reset,
            ..
        } = *waiting;
        let Some(head) = desk.head() else { return };
        let unmoved = request.cursor.filter(|_| !reset);
        let _ = answer.send(Ok(Answer {
            cursor: last.or(unmoved).or(desk.sent()).unwrap_or(head),
            head,
            more,
            reset,
            superseded,
            messages,
            recalled,
        }));
    }

    /// The older of two polls gets nothing: nothing is handed out twice in parallel.
    fn supersede(&mut self, desk: &mut Desk<'_>) {
        if let Some(waiting) = &mut self.waiting {
            waiting.forget();
            self.answer(true, true, desk);
        }
    }
}

impl Protocol for Poll {
    fn kind(&self) -> Kind {
        Kind::Poll
    }

    fn begin(&mut self, desk: &mut Desk<'_>) {
        let Some(proof) = self.proof.take() else {
            return;
        };
        desk.hello(Hello {
            proof,
            cursor: self.first.first().and_then(|(request, _)| request.cursor),
            inflight: Some(LIMIT_MAX),
            state: AppState::Foreground,
        });
    }

    fn hear(&mut self, _input: Input<'_>, _desk: &mut Desk<'_>) {}

    fn welcome(&mut self, _welcome: &Welcome<'_>, desk: &mut Desk<'_>) {
        // The last of them is answered, and the others are told that it took over.
        for ask in std::mem::take(&mut self.first) {
            self.begin_poll(ask, desk);
        }
    }

    fn told(&mut self, what: Box<dyn std::any::Any + Send>, desk: &mut Desk<'_>) {
        let Ok(mut next) = what.downcast::<Next>() else {
            return;
        };
        let is_greeted = (1..FIRST_LEN_MAX).contains(&self.first.len());
        if !desk.is_live() && !is_greeted {
            return;
        }
        next.1 = None;
        match next.0.take() {
            Some(ask) if desk.is_live() => self.begin_poll(ask, desk),
            Some(ask) => self.first.push(ask),
            None => {}
        }
    }

    fn takes(&self) -> bool {
        self.waiting
            .as_ref()
            .is_some_and(|waiting| !waiting.answer.is_closed())
    }

    fn send(&mut self, one: &Outgoing<'_>, desk: &mut Desk<'_>) -> Taken {
        let shared = desk.encoded(Encoding::Json, one.message);
        let Some(waiting) = &mut self.waiting else {
            return Taken::Full;
        };
        let full = waiting.is_full()
            || (waiting.bytes > 0 && waiting.bytes + shared.len() > ANSWER_BYTES_MAX);
        if full {
            return Taken::Full;
        }
        let mut message = outgoing::msg_begin(Encoding::Json, &shared, one.place, one.dup);
        message.extend_from_slice(&shared[1.min(shared.len())..]);
        waiting.bytes += message.len();
        waiting.last = Some(one.place);
        waiting.messages.push(message);
        Taken::Sent
    }

    fn mark(&mut self, recalled: MessageId, one: &Outgoing<'_>, _desk: &mut Desk<'_>) -> Taken {
        let Some(waiting) = &mut self.waiting else {
            return Taken::Full;
        };
        if waiting.is_full() {
            return Taken::Full;
        }
        let mark = ServerMessage::mark(recalled, one.place, one.message.id);
        let mark = outgoing::json(&mark);
        waiting.bytes += mark.len();
        waiting.last = Some(one.place);
        waiting.recalled.push(mark);
        Taken::Sent
    }

    fn sent(&mut self, count: usize, more: bool, desk: &mut Desk<'_>) {
        let Some(waiting) = &self.waiting else {
            return;
        };
        // Fewer went out than were read: this answer takes no more.
        let left = more || desk.wants_read();
        let is_empty = waiting.len() == 0;
        if !is_empty && (waiting.is_full() || !more || count == 0) {
            self.answer(left, false, desk);
        } else if is_empty && !left && waiting.request.wait_ms == 0 {
            self.answer(false, false, desk);
        }
    }

    /// A poll says that something is missing, as it does when it does not know the cursor.
    fn gap(&mut self, _lost: u64, _desk: &mut Desk<'_>) {
        if let Some(waiting) = &mut self.waiting {
            waiting.reset = true;
        }
    }

    fn rebound(
        &mut self,
        _reader: &std::sync::Arc<hongyan_core::port::Reader>,
        desk: &mut Desk<'_>,
    ) {
        // What was collected is the former user's.
        if let Some(waiting) = &mut self.waiting {
            waiting.forget();
            waiting.reset = true;
            self.answer(true, false, desk);
        }
    }

    fn close(&mut self, farewell: &Farewell<'_>, desk: &mut Desk<'_>) -> u16 {
        if farewell.code == close::TAKEN_OVER && self.waiting.is_some() {
            self.supersede(desk);
        }
        let first = std::mem::take(&mut self.first);
        let first = first.into_iter().map(|(_, answer)| answer);
        let waiting = self.waiting.take().map(|waiting| waiting.answer);
        for answer in first.chain(waiting) {
            let _ = answer.send(Err(turned(farewell)));
        }
        farewell.code
    }

    fn due(&self) -> Option<Tick> {
        Some(match &self.waiting {
            Some(waiting) => waiting.ends,
            None => self.lingers,
        })
    }

    fn fire(&mut self, desk: &mut Desk<'_>) {
        match &self.waiting {
            Some(waiting) if waiting.ends <= desk.now() => self.answer(false, false, desk),
            None if self.lingers <= desk.now() => {
                desk.close(close::NORMAL, "idle", "nobody polls any more");
            }
            _ => {}
        }
        desk.rearm();
    }

    fn silence(&self, _spread: u64, _options: &Options) -> Silence {
        Silence {
            ping_after: None,
            dead_after: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lp_8_a_waiting_poll_is_small() {
        // What it owns while nothing has come: no list of messages has a buffer then. Its connection is counted beside the
        // reactor's type.
        let answer = std::mem::size_of::<Result<Answer, Turned>>() + 64;
        let owned = std::mem::size_of::<Poll>() + std::mem::size_of::<Waiting>() + answer;
        assert!(owned <= 1024, "{owned}");
    }
}
