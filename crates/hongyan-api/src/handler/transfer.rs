//! Many devices at once, as lines of JSON: import and export.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::header::{CONTENT_TYPE, HeaderValue};
use tokio::sync::mpsc;

use hongyan_core::{AppId, Device, DeviceId, StoreError, UserId};

use super::numbers::Countries;
use super::unknown_channels;
use crate::api::Api;
use crate::body::{Ndjson, parse};
use crate::options::{EXPORT_PAGE_LEN, IMPORT_ERRORS_MAX, IMPORT_LEN, LINE_BYTES_MAX};
use crate::problem::{Code, Problem};
use crate::reply::{Raw, Reply};
use crate::route::Call;
use crate::wire::device::{
    ExportQuery, ImportLine, ImportQuery, Imported, LineError, check, lower_brand,
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
        // The last of several lines about one device wins.
        let by_device: BTreeMap<DeviceId, (u64, ImportLine)> = lines
            .into_iter()
            .map(|(n, line)| (line.device_id.clone(), (n, line)))
            .collect();
        let ids: Vec<DeviceId> = by_device.keys().cloned().collect();
        if ids.is_empty() {
            return Ok(());
        }
        let old = self.api.registry().devices(&self.app, &ids).await?;
        let tokens = by_device.values().flat_map(|(_, line)| &line.tokens);
        let countries = Countries::read(&self.api, &self.app, tokens).await?;
        let (mut devices, mut moved): (Vec<Device>, Vec<(DeviceId, Option<UserId>)>) =
            (Vec::new(), Vec::new());
        for ((number, mut line), old) in by_device.into_values().zip(old) {
            let user = line.user.clone();
            let tokens = line.tokens.iter().enumerate();
            let channels = tokens.map(|(i, t)| (format!("tokens[{i}].channel"), &t.channel));
            let mut faults = unknown_channels(&self.api, channels);
            faults.extend(countries.normalise_all(&mut line.tokens));
            if !faults.is_empty() {
                self.refuse(number, Problem::faults(Code::Invalid, faults));
                continue;
            }
            let device = self.device(line, old.as_ref());
            let faults = check(&device);
            if !faults.is_empty() {
                self.refuse(number, Problem::faults(Code::Invalid, faults));
                continue;
            }
            if old.is_some_and(|old| old.user != user) {
                moved.push((device.id.clone(), user));
            }
            devices.push(device);
        }
        let written = devices.len() as u64;
        self.api.registry().import_devices(devices).await?;
        for (device, user) in moved {
            // A device that changes hands does so through the one way that also ends what was under way to it.
            let services = self.api.services();
            let done = match &user {
                Some(user) => services.login(&self.app, &device, user).await,
                None => services.logout(&self.app, &device).await,
            };
            match done {
                Ok(()) | Err(crate::services::ServiceError::NotFound { .. }) => {}
                Err(crate::services::ServiceError::Store(error)) => return Err(error),
                Err(_) => return Err(StoreError::Conflict { entity: "device" }),
            }
        }
        self.answer.imported += written;
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
            let mut text = Vec::new();
            for device in page {
                if serde_json::to_writer(&mut text, &ImportLine::from(device)).is_ok() {
                    text.push(b'\n');
                }
            }
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
