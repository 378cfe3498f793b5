//! Many devices at once, as lines of JSON: import and export.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::header::{CONTENT_TYPE, HeaderValue};
use tokio::sync::mpsc;

use hongyan_core::limits::TOPICS_PER_DEVICE_MAX;
use hongyan_core::{AppId, Device, DeviceId, StoreError, Topic, UserId};

use super::devices::plan_again;
use super::numbers::Countries;
use super::{fault, no_faults, unknown_channels};
use crate::api::Api;
use crate::body::{Ndjson, parse};
use crate::options::{EXPORT_PAGE_LEN, IMPORT_ERRORS_MAX, IMPORT_LEN, LINE_BYTES_MAX};
use crate::problem::{Code, Problem};
use crate::reply::{Raw, Reply};
use crate::route::Call;
use crate::wire::device::{
    CarriedToken, ExportQuery, ImportLine, ImportQuery, Imported, LineError, check, lower_brand,
};

/// Pages on their way to a slow reader.
const EXPORT_QUEUE_LEN: usize = 2;

/// Reads lines as they come; what was read is written every few hundred lines, so an interrupted import can be
/// continued (or simply repeated: lines are states, not changes).
pub(crate) async fn import(call: Call<ImportQuery, Ndjson>) -> Result<Reply<Imported>, Problem> {
    let app = call.app()?;
    let mut import = Import {
        time: call.api.options().body_timeout,
        api: call.api,
        app,
        from_line: call.query.from_line,
        waiting: Vec::with_capacity(IMPORT_LEN),
        answer: Imported::default(),
    };
    if let Err(stop) = import.read(call.body.0).await {
        import.answer.stopped = Some(stop);
    }
    Ok(Reply::new(import.answer))
}

/// What a good line asks for.
struct Wanted {
    device: Device,
    /// Who is to hold it.
    user: Option<UserId>,
    /// All its topics, when the line says.
    topics: Option<BTreeSet<Topic>>,
}

impl Wanted {
    /// With the topics of an earlier line, when it says nothing of them itself.
    fn after(self, before: Option<Self>) -> Self {
        Self {
            topics: self.topics.or_else(|| before.and_then(|b| b.topics)),
            ..self
        }
    }
}

struct Import {
    api: Api,
    app: AppId,
    time: Duration,
    from_line: u64,
    waiting: Vec<(u64, ImportLine)>,
    answer: Imported,
}

impl Import {
    async fn read(&mut self, body: Body) -> Result<(), String> {
        let mut stream = body.into_data_stream();
        let mut rest = BytesMut::new();
        while let Some(piece) = self.piece(&mut stream).await? {
            rest.extend_from_slice(&piece);
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line = rest.split_to(end + 1);
                self.line(&line[..end]);
                if self.waiting.len() >= IMPORT_LEN {
                    self.write().await?;
                }
            }
            if rest.len() > LINE_BYTES_MAX {
                self.write().await?;
                return Err(format!(
                    "line {} has more than {LINE_BYTES_MAX} bytes",
                    self.answer.lines + 1
                ));
            }
        }
        if !rest.is_empty() {
            self.line(&rest);
        }
        self.write().await
    }

    async fn piece(&mut self, stream: &mut BodyDataStream) -> Result<Option<Bytes>, String> {
        let problem = match tokio::time::timeout(self.time, stream.next()).await {
            Ok(Some(Ok(piece))) => return Ok(Some(piece)),
            Ok(None) => return Ok(None),
            Ok(Some(Err(_))) => "the body ended early".to_owned(),
            Err(_) => format!("nothing came for {} s", self.time.as_secs()),
        };
        self.write().await?;
        Err(problem)
    }

    fn line(&mut self, line: &[u8]) {
        self.answer.lines += 1;
        let number = self.answer.lines;
        if number < self.from_line || line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        match parse::<ImportLine>(line) {
            Ok(read) => self.waiting.push((number, read)),
            Err(problem) => self.refuse(number, problem),
        }
    }

    fn refuse(&mut self, line: u64, problem: Problem) {
        self.answer.failed += 1;
        for (path, problem) in problem.into_faults() {
            if self.answer.errors.len() < IMPORT_ERRORS_MAX {
                self.answer.errors.push(LineError {
                    line,
                    path,
                    problem,
                });
            }
        }
    }

    async fn write(&mut self) -> Result<(), String> {
        let lines = std::mem::take(&mut self.waiting);
        match self.try_write(lines).await {
            Ok(()) => {
                self.answer.stored_up_to_line = self.answer.lines;
                Ok(())
            }
            Err(error) => Err(Problem::from(error).detail().to_owned()),
        }
    }

    async fn try_write(&mut self, lines: Vec<(u64, ImportLine)>) -> Result<(), StoreError> {
        let ids: BTreeSet<DeviceId> = lines.iter().map(|(_, l)| l.device_id.clone()).collect();
        let ids = Vec::from_iter(ids);
        if ids.is_empty() {
            return Ok(());
        }
        let found = self.api.registry().devices(&self.app, &ids).await?;
        let known: HashMap<DeviceId, Device> = found
            .into_iter()
            .flatten()
            .map(|device| (device.id.clone(), device))
            .collect();
        let tokens = lines.iter().flat_map(|(_, line)| &line.tokens);
        let tokens: Vec<_> = tokens.map(CarriedToken::named).collect();
        let countries = Countries::read(&self.api, &self.app, &tokens).await?;
        let mut taken = 0;
        // The last of several good lines about one device wins.
        let mut wanted: BTreeMap<DeviceId, Wanted> = BTreeMap::new();
        for (number, line) in lines {
            match self.judge(line, &known, &countries) {
                Ok(one) => {
                    taken += 1;
                    let before = wanted.remove(&one.device.id);
                    wanted.insert(one.device.id.clone(), one.after(before));
                }
                Err(problem) => self.refuse(number, problem),
            }
        }
        let devices = wanted.values().map(|one| one.device.clone()).collect();
        self.api.registry().import_devices(devices).await?;
        let (mut created, mut updated) = (0, 0);
        for (id, one) in &wanted {
            match known.get(id) {
                None => created += 1,
                Some(old) => {
                    updated += 1;
                    if old.timezone != one.device.timezone {
                        plan_again(&self.api, &self.app, id).await;
                    }
                    if old.user != one.user {
                        self.rebind(id, one.user.as_ref()).await?;
                    }
                }
            }
        }
        self.subscribe(wanted).await?;
        self.answer.imported += taken;
        self.answer.created += created;
        self.answer.updated += updated;
        Ok(())
    }

    /// What a line asks for, if it may.
    fn judge(
        &self,
        mut line: ImportLine,
        known: &HashMap<DeviceId, Device>,
        countries: &Countries,
    ) -> Result<Wanted, Problem> {
        let (user, topics) = (line.user.clone(), line.topics.take());
        let tokens = line.tokens.iter().enumerate();
        let channels = tokens.map(|(i, t)| (format!("tokens[{i}].channel"), &t.channel));
        let mut faults = unknown_channels(&self.api, channels);
        let mut named: Vec<_> = line.tokens.iter().map(CarriedToken::named).collect();
        faults.extend(countries.normalise_all(&mut named));
        for (token, named) in line.tokens.iter_mut().zip(named) {
            token.token = named.token;
        }
        if topics
            .as_ref()
            .is_some_and(|t| t.len() > TOPICS_PER_DEVICE_MAX)
        {
            let words = format!("a device has at most {TOPICS_PER_DEVICE_MAX} topics");
            faults.push(fault("topics", words));
        }
        let old = known.get(&line.device_id);
        let device = self.device(line, old);
        faults.extend(check(&device));
        no_faults(faults)?;
        Ok(Wanted {
            device,
            user,
            topics,
        })
    }

    /// A device that changes hands does so through the one way that also ends what was under way to it.
    async fn rebind(&self, device: &DeviceId, user: Option<&UserId>) -> Result<(), StoreError> {
        let services = self.api.services();
        let done = match user {
            Some(user) => services.login(&self.app, device, user).await,
            None => services.logout(&self.app, device).await,
        };
        match done {
            Ok(()) | Err(crate::services::ServiceError::NotFound { .. }) => Ok(()),
            Err(crate::services::ServiceError::Store(error)) => Err(error),
            Err(_) => Err(StoreError::Conflict { entity: "device" }),
        }
    }

    /// Gives each device whose line names topics exactly these.
    async fn subscribe(&self, wanted: BTreeMap<DeviceId, Wanted>) -> Result<(), StoreError> {
        let registry = self.api.registry();
        let mut changes: BTreeMap<Topic, (Vec<DeviceId>, Vec<DeviceId>)> = BTreeMap::new();
        let mut changed = BTreeSet::new();
        for (id, one) in wanted {
            let Some(topics) = one.topics else { continue };
            let has = registry.topics_of(&self.app, &id).await?.into_iter();
            let has: BTreeSet<Topic> = has.map(|subscription| subscription.topic).collect();
            for topic in topics.difference(&has) {
                changes.entry(topic.clone()).or_default().0.push(id.clone());
            }
            for topic in has.difference(&topics) {
                changes.entry(topic.clone()).or_default().1.push(id.clone());
            }
            if topics != has {
                changed.insert(id);
            }
        }
        for (topic, (joins, leaves)) in changes {
            if !joins.is_empty() {
                registry.subscribe(&self.app, &topic, &joins).await?;
            }
            if !leaves.is_empty() {
                registry.unsubscribe(&self.app, &topic, &leaves).await?;
            }
        }
        for device in changed {
            self.api.ports().presence.resubscribe(&self.app, &device);
        }
        Ok(())
    }

    /// The record after an import. A device that exists keeps its secret and, for now, its user.
    fn device(&self, line: ImportLine, old: Option<&Device>) -> Device {
        let now = self.api.now();
        let mut unknown = [0u8; 32];
        // Nobody knows a text with this hash: the device gets its token when it registers.
        self.api.ports().dice.fill(&mut unknown);
        let mut device = Device {
            app: self.app.clone(),
            id: line.device_id,
            package: line.package,
            platform: line.platform,
            brand: line.brand,
            model: line.model,
            locale: line.locale,
            timezone: line.timezone,
            app_version: line.app_version,
            permission: line.permission,
            tags: line.tags,
            tokens: line.tokens.into_iter().map(|t| t.into_core(now)).collect(),
            binding: old.map_or(u64::from(line.user.is_some()), |old| old.binding),
            user: old.map_or(line.user, |old| old.user.clone()),
            secret_hash: old.map_or(unknown, |old| old.secret_hash),
            scram: old.and_then(|old| old.scram.clone()),
            created_at: old.map_or(now, |old| old.created_at),
            last_seen: old.map_or(now, |old| old.last_seen),
            version: old.map_or(1, |old| old.version + 1),
        };
        lower_brand(&mut device);
        device
    }
}

/// Writes all devices in id order; the reader's speed sets the pace.
pub(crate) async fn export(call: Call<ExportQuery>) -> Result<Raw, Problem> {
    let app = call.app()?;
    let after = call
        .query
        .after
        .as_deref()
        .map(str::parse::<DeviceId>)
        .transpose();
    let mut after =
        after.map_err(|e| Problem::at(Code::InvalidRequest, "query.after", e.to_string()))?;
    let api = call.api;
    let (sender, receiver) = mpsc::channel::<Result<Bytes, StoreError>>(EXPORT_QUEUE_LEN);
    tokio::spawn(async move {
        loop {
            let page = match api
                .registry()
                .device_page(&app, after.as_ref(), EXPORT_PAGE_LEN)
                .await
            {
                Ok(page) => page,
                Err(error) => {
                    // The reader sees a body that breaks off, never one that looks complete.
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            };
            let full = page.len() >= EXPORT_PAGE_LEN;
            after = page.last().map(|device| device.id.clone());
            let text = match lines(&api, &app, page).await {
                Ok(text) => text,
                Err(error) => {
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            };
            if sender.send(Ok(Bytes::from(text))).await.is_err() || !full {
                return;
            }
        }
    });
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-ndjson"),
    );
    Ok(Raw(response))
}

/// Devices as lines, each with its topics.
async fn lines(api: &Api, app: &AppId, devices: Vec<Device>) -> Result<Vec<u8>, StoreError> {
    let mut text = Vec::new();
    for device in devices {
        let topics = api.registry().topics_of(app, &device.id).await?.into_iter();
        let line = ImportLine {
            topics: Some(topics.map(|subscription| subscription.topic).collect()),
            ..ImportLine::from(device)
        };
        if serde_json::to_writer(&mut text, &line).is_ok() {
            text.push(b'\n');
        }
    }
    Ok(text)
}
