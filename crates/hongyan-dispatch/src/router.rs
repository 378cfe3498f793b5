//! Leases due work, plans its deliveries and hands them to sessions and lanes.
//!
//! One batched read opens a leg, one write closes it. What a lane gets stays leased, so that a crash brings it
//! back; what a session gets waits with its ack timeout as the job's due time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hongyan_core::delivery::{Delivery, Input, Next};
use hongyan_core::limits::{BROADCAST_PAGE_LEN, IN_FLIGHT_MAX, LEASE, LEASE_LEN_MAX};
use hongyan_core::message::{Audience, DeliveryMode, DeviceChoice};
use hongyan_core::port::{CommitError, Hint, Job, JobId, JobKind, Owner, WriteSet};
use hongyan_core::{
    AppId, Device, DeviceId, Event, Message, Reason, Stage, StoreError, Timestamp, UserId,
};

use crate::choice::Learned;
use crate::credentials::Credentials;
use crate::intake;
use crate::lane::Lanes;
use crate::plan::plan;
use crate::service::Ports;
use crate::shipment::Shipment;
use crate::situation::{self, Read};
use crate::unreadable::{self, Lost};

/// How long the router waits at most before it looks again by itself: a lost wake-up costs this much.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long it waits after the store failed it.
const AFTER_TROUBLE: Duration = Duration::from_millis(250);
/// When jobs that could not be planned come again.
const HAND_BACK: Duration = Duration::from_secs(1);

/// Deliveries that this process has handed to a lane and not yet settled, each with the version that was handed over:
/// what has moved on since is not with a lane any more, whoever has not noticed yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<HashMap<JobId, u32>>>);

impl InFlight {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The delivery is past this version.
    pub(crate) fn settled(&self, id: &JobId, version: u32) {
        let mut all = self.lock();
        if all.get(id).is_some_and(|known| *known <= version) {
            all.remove(id);
        }
    }
    fn add(&self, id: JobId, version: u32) {
        self.lock().insert(id, version);
    }
    fn has(&self, id: &JobId, version: u32) -> bool {
        self.lock().get(id) == Some(&version)
    }
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}

/// Plans what is due.
#[derive(Debug, Clone)]
pub(crate) struct Router {
    pub(crate) learned: Learned,
    pub(crate) ports: Ports,
    pub(crate) credentials: Credentials,
    pub(crate) lanes: Lanes,
    pub(crate) in_flight: InFlight,
    /// Leased jobs that could not be planned and not be given back: at most one batch.
    pub(crate) owed: Arc<Mutex<Vec<Job>>>,
}

/// What a planned job leads to once it is committed.
#[derive(Debug, Default)]
struct Leg {
    set: WriteSet,
    hints: Vec<Hint>,
    shipments: Vec<Shipment>,
}

impl Router {
    /// Runs until told to stop; work that was leased and not begun comes back when its lease ends or the store opens.
    pub(crate) async fn run(self, mut stop: tokio::sync::watch::Receiver<bool>) {
        while !*stop.borrow() {
            // Registered before the look, so that a commit in between is not missed.
            let changed = self.ports.work.changed();
            tokio::pin!(changed);
            let wait = match self.turn().await {
                Ok(taken) if taken > 0 => continue,
                Ok(_) => self.until_next_due().await,
                Err(error) => {
                    tracing::warn!(error = %error, "the router could not read or write its work");
                    AFTER_TROUBLE
                }
            };
            tokio::select! {
                () = &mut changed => {}
                () = tokio::time::sleep(wait) => {}
                told = stop.changed() => if told.is_err() { return },
            }
        }
    }

    async fn until_next_due(&self) -> Duration {
        match self.ports.work.next_due().await {
            Ok(Some(due)) => due
                .since(self.ports.clock.now())
                .clamp(Duration::from_millis(1), LOOK_AGAIN),
            _ => LOOK_AGAIN,
        }
    }

    /// Leases and plans one batch; answers how many jobs it took. One app's trouble does not keep the others waiting.
    async fn turn(&self) -> Result<usize, StoreError> {
        self.pay_back().await?;
        let now = self.ports.clock.now();
        let jobs = self
            .ports
            .work
            .lease(now, now.plus(LEASE), LEASE_LEN_MAX)
            .await?;
        let taken = jobs.len();
        let mut by_app: HashMap<AppId, Vec<Job>> = HashMap::new();
        for job in jobs {
            by_app.entry(job.app.clone()).or_default().push(job);
        }
        let mut trouble = None;
        for (app, jobs) in by_app {
            if let Err(error) = self.plan_jobs(&app, jobs).await {
                tracing::warn!(%app, %error, "jobs could not be planned; they come again");
                trouble = Some(error);
            }
        }
        trouble.map_or(Ok(taken), Err)
    }

    async fn plan_jobs(&self, app: &AppId, jobs: Vec<Job>) -> Result<(), StoreError> {
        let mut again = jobs;
        // A stale set means that an ack or a logout came in between: read again and decide again.
        for _ in 0..hongyan_core::limits::CONFLICT_RETRIES_MAX {
            let legs = match self.read_and_plan(app, &again).await {
                Ok(legs) => legs,
                // Which record it is shows when each is read alone; the others go on.
                Err(StoreError::Corrupt { .. }) if again.len() > 1 => {
                    let mut trouble = None;
                    for job in again {
                        let alone = Box::pin(self.plan_jobs(app, vec![job]));
                        trouble = alone.await.err().or(trouble);
                    }
                    return trouble.map_or(Ok(()), Err);
                }
                Err(error @ StoreError::Corrupt { .. }) => {
                    return match again.first() {
                        Some(job) => self.unreadable(job, error).await,
                        None => Ok(()),
                    };
                }
                Err(error) => {
                    self.hand_back(again, &error).await;
                    return Err(error);
                }
            };
            let (jobs, mut legs): (Vec<Job>, Vec<Leg>) = legs
                .into_iter()
                .filter(|(_, leg)| leg.set != WriteSet::default())
                .unzip();
            let sets = legs
                .iter_mut()
                .map(|leg| std::mem::take(&mut leg.set))
                .collect();
            let results = self.ports.commit.commit(sets).await;
            again = Vec::new();
            let mut failed = Vec::new();
            let mut trouble = None;
            for ((job, leg), result) in jobs.into_iter().zip(legs).zip(results) {
                match result {
                    Ok(_) => self.hand_over(leg).await,
                    Err(CommitError::Stale) => again.push(job),
                    Err(CommitError::Store(error @ StoreError::Corrupt { .. })) => {
                        if let Err(error) = self.unreadable(&job, error).await {
                            trouble = Some(error);
                        }
                    }
                    Err(CommitError::Store(error)) => {
                        failed.push(job);
                        trouble = Some(error);
                    }
                    Err(CommitError::Known { .. }) => {}
                }
            }
            if let Some(error) = trouble {
                failed.append(&mut again);
                self.hand_back(failed, &error).await;
                return Err(error);
            }
            if again.is_empty() {
                return Ok(());
            }
        }
        let error = StoreError::Conflict { entity: "delivery" };
        self.hand_back(again, &error).await;
        Err(error)
    }

    /// A job that meets a damaged record: it ends, or comes again with the end of its lease while the damage may still be
    /// repaired.
    async fn unreadable(&self, job: &Job, why: StoreError) -> Result<(), StoreError> {
        let lost = Lost::of(job);
        let device = match &job.kind {
            JobKind::Deliver { device } => Some(device),
            JobKind::Route { .. } | JobKind::Broadcast { .. } => None,
        };
        if unreadable::is_lost(&self.ports, &job.app, job.message, device).await {
            return lost.bury(&self.ports, job.id(), &why).await;
        }
        tracing::error!(app = %job.app, message = %job.message, error = %why, "a damaged record holds a message up; it is tried again until the message expires");
        Ok(())
    }

    /// Gives leases back, so that the jobs need not wait for their end. While the store does not even take that, they are
    /// owed, and nothing more is leased.
    async fn hand_back(&self, jobs: Vec<Job>, why: &StoreError) {
        tracing::debug!(jobs = jobs.len(), error = %why, "jobs are given back");
        self.owed().extend(jobs);
        if let Err(error) = self.pay_back().await {
            tracing::debug!(%error, "leases could not be given back yet");
        }
    }

    async fn pay_back(&self) -> Result<(), StoreError> {
        let jobs = self.owed().clone();
        if jobs.is_empty() {
            return Ok(());
        }
        let due = self.ports.clock.now().plus(HAND_BACK);
        let back = |job| Job {
            due,
            leased: false,
            ..job
        };
        let set = WriteSet {
            jobs: jobs.into_iter().map(back).collect(),
            ..WriteSet::default()
        };
        match self.ports.commit.commit(vec![set]).await.pop() {
            // A damaged record among them: their leases end by themselves.
            Some(Ok(_) | Err(CommitError::Store(StoreError::Corrupt { .. }))) => {
                self.owed().clear();
                Ok(())
            }
            Some(Err(CommitError::Store(error))) => Err(error),
            _ => Err(StoreError::Conflict { entity: "job" }),
        }
    }

    fn owed(&self) -> std::sync::MutexGuard<'_, Vec<Job>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn hand_over(&self, leg: Leg) {
        self.ports.presence.notify(leg.hints);
        for shipment in leg.shipments {
            self.in_flight.add(shipment.job_id(), shipment.version());
            let shipment = shipment.held_in(&self.in_flight);
            self.lanes
                .push(shipment, self.in_flight.len() > IN_FLIGHT_MAX)
                .await;
        }
    }

    /// The batched reads of one app's jobs, then one leg for each.
    async fn read_and_plan(
        &self,
        app: &AppId,
        jobs: &[Job],
    ) -> Result<Vec<(Job, Leg)>, StoreError> {
        let ports = &self.ports;
        let now = ports.clock.now();
        let facts = situation::app_facts(ports, &self.learned, app).await?;
        let messages =
            situation::messages(ports, app, jobs.iter().map(|j| j.message).collect()).await?;
        let mut candidates = self.candidates(app, jobs, &messages).await?;
        let keys: Vec<_> = jobs
            .iter()
            .zip(&candidates)
            .flat_map(|(job, c)| c.ids.iter().map(|id| (job.message, id.clone())))
            .collect();
        let mut known: HashMap<_, Delivery> = HashMap::new();
        for (key, delivery) in keys.iter().zip(ports.ledger.deliveries(app, &keys).await?) {
            if let Some(delivery) = delivery {
                known.insert(key.clone(), delivery);
            }
        }
        let read = Read {
            facts: &facts,
            users: situation::users_of(
                ports,
                app,
                candidates.iter().flat_map(|c| c.devices.values()),
            )
            .await?,
            sessions: situation::sessions_of(
                ports,
                app,
                candidates
                    .iter()
                    .flat_map(|c| c.ids.iter().cloned())
                    .collect(),
            ),
            built_in_order: self.credentials.built_in_order(),
            now,
        };
        for (job, found) in jobs.iter().zip(&mut candidates) {
            if let Some((message, _)) = messages.get(&job.message)
                && message.options.devices == DeviceChoice::Latest
                && job.is_to_user()
            {
                found.keep_latest(&read);
            }
        }
        let newest = Newest::of(jobs, &messages, &candidates);
        let mut legs = Vec::with_capacity(jobs.len());
        for (job, found) in jobs.iter().zip(candidates) {
            let mut leg = Leg::default();
            match messages.get(&job.message) {
                Some((message, recalled)) => {
                    let plan = self.plan_job(
                        job, message, *recalled, found, &mut known, &newest, &read, &mut leg,
                    );
                    plan.await?;
                }
                // The body has left the store: its time is over.
                None => forgotten(job, &mut known, now, &mut leg),
            }
            legs.push((job.clone(), leg));
        }
        Ok(legs)
    }

    /// The devices that each job is about.
    async fn candidates(
        &self,
        app: &AppId,
        jobs: &[Job],
        messages: &situation::Known,
    ) -> Result<Vec<Found>, StoreError> {
        let registry = &self.ports.registry;
        let users: Vec<_> = jobs
            .iter()
            .filter_map(|j| match &j.kind {
                JobKind::Route {
                    owner: Owner::User(user),
                } => Some(user.clone()),
                _ => None,
            })
            .collect();
        let mut of_users = registry.devices_of(app, &users).await?.into_iter();
        let single: Vec<_> = jobs
            .iter()
            .filter_map(|j| match &j.kind {
                JobKind::Route {
                    owner: Owner::Device(device),
                }
                | JobKind::Deliver { device } => Some(device.clone()),
                _ => None,
            })
            .collect();
        let mut singles = registry.devices(app, &single).await?.into_iter();
        let mut all = Vec::with_capacity(jobs.len());
        for job in jobs {
            all.push(match &job.kind {
                JobKind::Route {
                    owner: Owner::User(_),
                } => Found::many(of_users.next().unwrap_or_default()),
                JobKind::Route {
                    owner: Owner::Device(id),
                }
                | JobKind::Deliver { device: id } => {
                    let device = singles.next().flatten();
                    Found {
                        ids: vec![id.clone()],
                        devices: device.into_iter().map(|d| (d.id.clone(), d)).collect(),
                    }
                }
                JobKind::Route {
                    owner: Owner::Audience(_),
                } => Found::default(),
                JobKind::Broadcast { after } => match messages.get(&job.message) {
                    Some((message, _)) => self.broadcast_page(message, after.as_ref()).await?,
                    None => Found::default(),
                },
            });
        }
        Ok(all)
    }

    async fn broadcast_page(
        &self,
        message: &Message,
        after: Option<&DeviceId>,
    ) -> Result<Found, StoreError> {
        let registry = &self.ports.registry;
        match message.to.audience() {
            Some(Audience::Topic(topic)) => {
                let ids = registry
                    .subscribers(&message.app, &topic, after, BROADCAST_PAGE_LEN)
                    .await?;
                let devices = self.sound_devices(&message.app, &ids).await?;
                Ok(Found {
                    devices: devices
                        .into_iter()
                        .flatten()
                        .map(|d| (d.id.clone(), d))
                        .collect(),
                    ids,
                })
            }
            Some(Audience::All) => Ok(Found::many(
                registry
                    .device_page(&message.app, after, BROADCAST_PAGE_LEN)
                    .await?,
            )),
            None => Ok(Found::default()),
        }
    }

    /// Devices in the order of the ids; one whose record is damaged counts as none, so that the rest of a page is served.
    async fn sound_devices(
        &self,
        app: &AppId,
        ids: &[DeviceId],
    ) -> Result<Vec<Option<Device>>, StoreError> {
        let registry = &self.ports.registry;
        match registry.devices(app, ids).await {
            Err(StoreError::Corrupt { .. }) => {}
            read => return read,
        }
        let mut sound = Vec::with_capacity(ids.len());
        for id in ids {
            match registry.devices(app, std::slice::from_ref(id)).await {
                Ok(mut one) => sound.push(one.pop().flatten()),
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::error!(%app, device = %id, %error, "a subscriber's record is damaged; it gets nothing");
                    metrics::counter!("hongyan_dispatch_unreadable_total").increment(1);
                    sound.push(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(sound)
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the rows of one read, used in one place"
    )]
    async fn plan_job(
        &self,
        job: &Job,
        message: &Arc<Message>,
        recalled: Option<Timestamp>,
        found: Found,
        known: &mut HashMap<(hongyan_core::MessageId, DeviceId), Delivery>,
        newest: &Newest,
        read: &Read<'_>,
        leg: &mut Leg,
    ) -> Result<(), StoreError> {
        let to_user = job.is_to_user();
        match &job.kind {
            JobKind::Deliver { .. } => {}
            JobKind::Route { owner } => {
                leg.set.jobs_done.push(job.id());
                if intake::appended_by_router(message) && recalled.is_none() {
                    append(message, owner, &found, leg);
                }
                if found.devices.is_empty() && to_user {
                    let mut event = intake::about(message, Stage::Dropped, read.now);
                    event.reason = Some(Reason::NoDevice);
                    event.r#final = true;
                    if let Owner::User(user) = owner {
                        event.user = Some(user.clone());
                    }
                    leg.set.events.push(event);
                }
            }
            JobKind::Broadcast { after } => {
                if after.is_none()
                    && intake::appended_by_router(message)
                    && recalled.is_none()
                    && let Some(audience) = message.to.audience()
                {
                    append(message, &Owner::Audience(audience), &found, leg);
                }
                match found.ids.last() {
                    Some(last) if found.ids.len() == BROADCAST_PAGE_LEN => leg.set.jobs.push(Job {
                        kind: JobKind::Broadcast {
                            after: Some(last.clone()),
                        },
                        due: read.now,
                        leased: false,
                        ..job.clone()
                    }),
                    _ => leg.set.jobs_done.push(job.id()),
                }
            }
        }
        let is_deliver = matches!(job.kind, JobKind::Deliver { .. });
        // An ack may be faster than the router: then it has ended the deliveries that are planned only now.
        let won = to_user
            && message.options.devices == DeviceChoice::FirstAck
            && found.ids.iter().any(|id| {
                known
                    .get(&(job.message, id.clone()))
                    .is_some_and(|d| d.seen.has(Stage::Delivered))
            });
        for id in &found.ids {
            let device = found.devices.get(id);
            let existing = known.get(&(job.message, id.clone()));
            match (existing, device) {
                // Routed before, or acked before it was routed: its own job or end takes care of it.
                (Some(_), _) if !is_deliver => {}
                // A lane has it: the lease only had to be made longer.
                (Some(delivery), _) if self.in_flight.has(&job.id(), delivery.version) => {}
                (Some(delivery), device) => {
                    let mut delivery = delivery.clone();
                    let expected = Some(delivery.version);
                    self.plan_delivery(
                        &mut delivery,
                        expected,
                        message,
                        recalled,
                        device,
                        read,
                        leg,
                    );
                }
                (None, Some(device)) if !is_deliver => {
                    let mut delivery = Delivery::new(message, device, to_user);
                    leg.set.events.push(delivery.event(
                        hongyan_core::delivery::Happened::new(Stage::Targeted, None),
                        read.now,
                    ));
                    if won {
                        let step = delivery.apply(Input::End(Reason::Cancelled), read.now);
                        situation::write(&mut leg.set, &delivery, None, vec![step], read.now);
                        continue;
                    }
                    let newer = newest.is_after(&delivery, message)
                        || self.collapse(&delivery, message, read.now, leg).await?;
                    if newer {
                        let step = delivery.apply(Input::End(Reason::Collapsed), read.now);
                        situation::write(&mut leg.set, &delivery, None, vec![step], read.now);
                        continue;
                    }
                    self.plan_delivery(
                        &mut delivery,
                        None,
                        message,
                        recalled,
                        Some(device),
                        read,
                        leg,
                    );
                }
                (None, None) if !is_deliver => {
                    let mut event = intake::about(message, Stage::Dropped, read.now);
                    event.reason = Some(Reason::NoDevice);
                    event.device = Some(id.clone());
                    event.r#final = true;
                    leg.set.events.push(event);
                }
                // A job without its delivery: nothing is left to do.
                (None, _) => leg.set.jobs_done.push(job.id()),
            }
        }
        Ok(())
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the rows of one read, used in one place"
    )]
    fn plan_delivery(
        &self,
        delivery: &mut Delivery,
        expected: Option<u32>,
        message: &Arc<Message>,
        recalled: Option<Timestamp>,
        device: Option<&Device>,
        read: &Read<'_>,
        leg: &mut Leg,
    ) {
        let mut steps = Vec::with_capacity(2);
        if expected.is_some() {
            steps.push(delivery.apply(Input::Due, read.now));
            if delivery.outcome().is_some() {
                // Settled while its job was on the way: the job only has to go.
                leg.set.jobs_done.push(Job::deliver_id(
                    &delivery.app,
                    delivery.message,
                    &delivery.device,
                ));
                return;
            }
        }
        let decision = plan(&read.situation(message, delivery, device, recalled));
        let step = delivery.apply(Input::Plan(decision), read.now);
        if step.next == Next::Push
            && let Some(device) = device
            && let Some(shipment) = Shipment::of(delivery, message, device, &read.facts.policy)
        {
            leg.shipments.push(shipment);
        }
        steps.push(step);
        situation::write(&mut leg.set, delivery, expected, steps, read.now);
    }

    /// Ends the undelivered older deliveries to this device with the same collapse key. Answers whether there is a newer
    /// one already, to which this delivery has to give way.
    async fn collapse(
        &self,
        planned: &Delivery,
        message: &Message,
        now: Timestamp,
        leg: &mut Leg,
    ) -> Result<bool, StoreError> {
        let Some(key) = &planned.collapse_key else {
            return Ok(false);
        };
        let ledger = &self.ports.ledger;
        let mut others = ledger
            .open_with_collapse_key(&planned.app, &planned.device, key)
            .await?;
        others.retain(|id| *id != planned.message);
        if others.is_empty() {
            return Ok(false);
        }
        let bodies: Vec<_> = others.iter().map(|m| (planned.app.clone(), *m)).collect();
        let bodies = self.ports.inbox.messages(&bodies).await?;
        let keys: Vec<_> = others
            .into_iter()
            .map(|m| (m, planned.device.clone()))
            .collect();
        let deliveries = ledger.deliveries(&planned.app, &keys).await?;
        for (delivery, body) in deliveries.into_iter().zip(bodies) {
            // Only what is meant for the same person is replaced.
            let Some(mut delivery) = delivery.filter(|d| d.user == planned.user) else {
                continue;
            };
            // What has no body any more is older than anything.
            if body.is_some_and(|body| body.rank() > message.rank()) {
                return Ok(true);
            }
            let expected = Some(delivery.version);
            let step = delivery.apply(Input::End(Reason::Collapsed), now);
            situation::write(&mut leg.set, &delivery, expected, vec![step], now);
        }
        Ok(false)
    }
}

/// The newest message of each device and collapse key among those that are planned together: the others give way to it
/// without ever having been with anybody.
#[derive(Debug, Default)]
struct Newest(HashMap<(DeviceId, Option<UserId>, String), (Timestamp, hongyan_core::MessageId)>);

impl Newest {
    fn of(jobs: &[Job], messages: &situation::Known, candidates: &[Found]) -> Self {
        let mut newest = HashMap::new();
        for (job, found) in jobs.iter().zip(candidates) {
            let Some((message, _)) = messages.get(&job.message) else {
                continue;
            };
            let Some(key) = &message.options.collapse_key else {
                continue;
            };
            if matches!(job.kind, JobKind::Deliver { .. }) {
                continue;
            }
            for device in found.devices.values() {
                let user = device.user.clone().filter(|_| job.is_to_user());
                let rank = message.rank();
                let at = newest
                    .entry((device.id.clone(), user, key.clone()))
                    .or_insert(rank);
                *at = rank.max(*at);
            }
        }
        Self(newest)
    }

    fn is_after(&self, delivery: &Delivery, message: &Message) -> bool {
        let Some(key) = &delivery.collapse_key else {
            return false;
        };
        let of = (delivery.device.clone(), delivery.user.clone(), key.clone());
        self.0.get(&of).is_some_and(|rank| *rank > message.rank())
    }
}

/// Devices that a job is about: their ids in order, and those that exist.
#[derive(Debug, Default)]
struct Found {
    ids: Vec<DeviceId>,
    devices: HashMap<DeviceId, Device>,
}

impl Found {
    fn many(devices: Vec<Device>) -> Self {
        Self {
            ids: devices.iter().map(|d| d.id.clone()).collect(),
            devices: devices.into_iter().map(|d| (d.id.clone(), d)).collect(),
        }
    }

    /// Keeps the device that is connected, else the one that was seen last.
    fn keep_latest(&mut self, read: &Read<'_>) {
        let latest = latest(self.devices.values(), |id| read.sessions.contains_key(id)).cloned();
        self.ids.retain(|id| Some(id) == latest.as_ref());
        self.devices.retain(|id, _| Some(id) == latest.as_ref());
    }
}

/// The device that is connected, else the one that was seen last.
pub(crate) fn latest<'d>(
    devices: impl Iterator<Item = &'d Device>,
    connected: impl Fn(&DeviceId) -> bool,
) -> Option<&'d DeviceId> {
    devices
        .max_by_key(|d| (connected(&d.id), d.last_seen, d.id.clone()))
        .map(|d| &d.id)
}

/// Puts a message that intake left out into the inboxes it belongs to.
fn append(message: &Message, owner: &Owner, found: &Found, leg: &mut Leg) {
    if message.options.delivery == DeliveryMode::OfflineOnly {
        return;
    }
    let owners = if message.options.devices == DeviceChoice::Latest {
        found.ids.iter().cloned().map(Owner::Device).collect()
    } else {
        vec![owner.clone()]
    };
    for owner in owners {
        leg.set.inbox.push(intake::entry(message, owner.clone()));
        leg.hints.push(Hint {
            app: message.app.clone(),
            owner,
        });
    }
}

/// Ends what belongs to a message whose body has left the store.
fn forgotten(
    job: &Job,
    known: &mut HashMap<(hongyan_core::MessageId, DeviceId), Delivery>,
    now: Timestamp,
    leg: &mut Leg,
) {
    leg.set.jobs_done.push(job.id());
    let (user, device) = match &job.kind {
        JobKind::Deliver { device } => {
            if let Some(delivery) = known.get_mut(&(job.message, device.clone())) {
                let expected = Some(delivery.version);
                let step = delivery.apply(Input::End(Reason::Expired), now);
                situation::write(&mut leg.set, delivery, expected, vec![step], now);
            }
            return;
        }
        JobKind::Route {
            owner: Owner::User(user),
        } => (Some(user.clone()), None),
        JobKind::Route {
            owner: Owner::Device(device),
        } => (None, Some(device.clone())),
        JobKind::Route {
            owner: Owner::Audience(_),
        }
        | JobKind::Broadcast { .. } => (None, None),
    };
    // Nobody was routed before it was gone: that is told too.
    leg.set.events.push(Event {
        seq: 0,
        at: now,
        app: job.app.clone(),
        stage: Stage::Dropped,
        reason: Some(Reason::Expired),
        message: Some(job.message),
        class: None,
        user,
        device,
        platform: None,
        channel: None,
        attempt: 0,
        until: None,
        took_ms: None,
        detail: None,
        r#final: true,
    });
}
