//! Leases due work, plans its deliveries and hands them to sessions and lanes.
//!
//! One batched read opens a leg, one write closes it. What a lane gets stays leased, so that a crash brings it
//! back; what a session gets waits with its ack timeout as the job's due time.

mod candidates;
mod collapse;
mod in_flight;
mod leg;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hongyan_core::delivery::Delivery;
use hongyan_core::limits::{IN_FLIGHT_MAX, LEASE, LEASE_LEN_MAX};
use hongyan_core::message::DeviceChoice;
use hongyan_core::port::{CommitError, Job, JobKind, WriteSet};
use hongyan_core::{AppId, Reason, StoreError, Timestamp};

pub(crate) use self::candidates::latest;
use self::collapse::Newest;
pub(crate) use self::in_flight::InFlight;
use self::leg::{Leg, forgotten};
use crate::choice::Learned;
use crate::credentials::Credentials;
use crate::lane::Lanes;
use crate::service::Ports;
use crate::situation::{self, Read};
use crate::unreadable::{self, Lost};

/// How long the router waits at most before it looks again by itself: a lost wake-up costs this much.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long it waits after the store failed it.
const AFTER_TROUBLE: Duration = Duration::from_millis(250);
/// When jobs that could not be planned come again.
const HAND_BACK: Duration = Duration::from_secs(1);

/// Plans what is due.
#[derive(Debug, Clone)]
pub(crate) struct Router {
    pub(crate) learned: Learned,
    pub(crate) ports: Ports,
    pub(crate) credentials: Credentials,
    pub(crate) lanes: Lanes,
    pub(crate) in_flight: InFlight,
    /// When this process began: what it accepted before is another's.
    pub(crate) began_at: Timestamp,
    /// Leased jobs that could not be planned and not be given back: at most one batch.
    pub(crate) owed: Arc<Mutex<Vec<Job>>>,
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
                // The body has left the store: its time is over, or others took its place.
                None => {
                    let why = ports.inbox.pushed_out(app, job.message).await?;
                    let why = why.unwrap_or(Reason::Expired);
                    forgotten(job, &mut known, why, now, &mut leg);
                }
            }
            legs.push((job.clone(), leg));
        }
        Ok(legs)
    }
}
