//! Which view an answer is made from: live values of a running shard, or the newest that is committed; and up to where it is
//! true.

use super::{problem::Problem, rendering::unwritten};
use crate::{
    catalog::Catalog,
    clock::{Clock, SystemClock},
    commit::Position,
    config::Settings,
    error::Result,
    keys::hex,
    live::Live,
    view::View,
};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Response, header},
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tokio::sync::{Mutex, OnceCell};
use tollgate_connectors::lake::Lake;

/// The lake, opened when it is first needed: the shard may still have to make it.
#[derive(Debug)]
pub(super) struct Lakes {
    settings: Settings,
    readable: OnceCell<Lake>,
    writable: OnceCell<Lake>,
}

impl Lakes {
    pub(super) fn new(settings: &Settings) -> Self {
        Lakes {
            settings: settings.clone(),
            readable: OnceCell::new(),
            writable: OnceCell::new(),
        }
    }

    /// The lake to read.
    pub(super) async fn to_read(&self) -> Result<&Lake> {
        let open = || Lake::open_to_read(&self.settings.lake.url, &self.settings.base);
        Ok(self.readable.get_or_try_init(open).await?)
    }

    /// The lake to write to.
    pub(super) async fn to_write(&self) -> Result<&Lake> {
        let open = || Lake::open(&self.settings.lake.url, &self.settings.base);
        Ok(self.writable.get_or_try_init(open).await?)
    }
}

/// Views for answers, by the same definitions.
#[derive(Debug)]
pub(super) struct Views {
    catalog: Arc<Catalog>,
    live: Option<Live>,
    lakes: Arc<Lakes>,
    /// The newest view of the lake that was opened.
    committed: Mutex<Option<Arc<View>>>,
}

impl Views {
    /// Views of the lake alone, or with `live` also of a running shard.
    pub(super) fn new(lakes: &Arc<Lakes>, catalog: &Arc<Catalog>, live: Option<&Live>) -> Self {
        Views {
            catalog: Arc::clone(catalog),
            live: live.map(|live| live.with(Arc::clone(catalog))),
            lakes: Arc::clone(lakes),
            committed: Mutex::default(),
        }
    }

    /// Usage as it is known now: of the running shard, or else what is committed.
    ///
    /// # Errors
    /// [`crate::Error::Redefined`] when the shard runs with other definitions.
    pub(super) async fn usage(&self) -> Result<Arc<View>> {
        match &self.live {
            Some(live) => Ok(Arc::new(live.view().await?)),
            None => self.committed().await,
        }
    }

    /// The newest that is committed. It is opened again after a commit to `events`.
    pub(super) async fn committed(&self) -> Result<Arc<View>> {
        let mut committed = self.committed.lock().await;
        if let Some(view) = &*committed
            && view.is_newest().await?
        {
            return Ok(Arc::clone(view));
        }
        let view = self.documents().await?;
        Ok(Arc::clone(committed.insert(Arc::new(view))))
    }

    /// The newest documents: they are issued without a commit to `events`, so the lake is opened anew.
    pub(super) async fn documents(&self) -> Result<View> {
        View::open(Arc::clone(&self.catalog), self.lakes.to_read().await?).await
    }
}

/// Up to where an answer is true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Truth {
    /// Each shard and its last message that is included.
    pub(super) cut: Vec<ShardAt>,
    /// How long ago the newest message was stored that is included, or the shards had read all there was; of several shards
    /// the longest. In milliseconds.
    pub(super) age_ms: Option<i64>,
}

/// One shard in a cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ShardAt {
    pub(super) shard: String,
    pub(super) sequence: u64,
}

impl Truth {
    /// That of a view.
    pub(super) async fn of(view: &View) -> Result<Self> {
        Ok(Truth::at(&view.cuts().await?, SystemClock.now_us()))
    }

    fn at(cuts: &[(String, Position)], now_us: i64) -> Self {
        let known_until = |position: &Position| {
            let anchor = position.anchor.map(|(_, anchor)| anchor.ingest_time_us);
            anchor.max(position.caught_up.map(|caught_up| caught_up.time.0))
        };
        let oldest = cuts.iter().map(|(_, position)| known_until(position)).min();
        Truth {
            cut: cuts
                .iter()
                .map(|(shard, position)| ShardAt {
                    shard: shard.clone(),
                    sequence: position.sequence.0,
                })
                .collect(),
            age_ms: oldest
                .flatten()
                .map(|until_us| now_us.saturating_sub(until_us).max(0) / 1_000),
        }
    }

    /// The headers of an answer with this content, all but how old it is: see [`Truth::write`], and an `ETag` that an answer at the same cut
    /// with the same content has again.
    pub(super) fn tag(&self, content: &[u8], headers: &mut HeaderMap) {
        self.write(headers);
        let mut hash = Sha256::new();
        for at in &self.cut {
            hash.update((at.shard.len() as u64).to_le_bytes());
            hash.update(at.shard.as_bytes());
            hash.update(at.sequence.to_le_bytes());
        }
        hash.update(content);
        // Weak: two answers of one tag may differ in how old they say they are.
        let tag = format!("W/\"{}\"", &hex(&hash.finalize())[..32]);
        if let Ok(tag) = HeaderValue::try_from(tag) {
            headers.insert(header::ETAG, tag);
        }
    }

    /// An answer in JSON, of which `value` is an object without the truth.
    ///
    /// # Errors
    /// The value cannot be written, which is a bug.
    pub(super) fn answer(&self, value: &impl Serialize) -> Result<Response<Body>, Problem> {
        let failed = |error: serde_json::Error| unwritten(&error);
        let content = serde_json::to_vec(value).map_err(failed)?;
        let mut body = serde_json::to_vec(self).map_err(failed)?;
        // Two objects as one.
        body.pop();
        body.push(b',');
        body.extend_from_slice(&content[1..]);
        let mut response = Response::new(Body::from(body));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        self.tag(&content, response.headers_mut());
        Ok(response)
    }

    /// The headers `Tollgate-Cut: USAGE=123` and `Tollgate-Cut-Age-Ms: 250`.
    fn write(&self, headers: &mut HeaderMap) {
        let cut = self
            .cut
            .iter()
            .map(|at| format!("{}={}", at.shard, at.sequence));
        let cut = cut.collect::<Vec<_>>().join(", ");
        let mut set = |name, text: String| {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        set("tollgate-cut", cut);
        if let Some(age_ms) = self.age_ms {
            set("tollgate-cut-age-ms", age_ms.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::CaughtUp;
    use tollgate_connectors::{Anchor, Sequence};
    use tollgate_sql::window::EventTime;

    #[test]
    fn an_answer_is_as_old_as_the_shard_that_is_furthest_behind() {
        let anchor = |ingest_time_us| Anchor {
            hash: 0,
            ingest_time_us,
        };
        let read = Position {
            sequence: Sequence(7),
            anchor: Some((Sequence(6), anchor(5_000_000))),
            ..Position::START
        };
        let idle = Position {
            caught_up: Some(CaughtUp {
                time: EventTime(8_500_000),
                sequence: None,
            }),
            ..read
        };
        let age = |cuts: &[Position]| {
            let cuts: Vec<_> = cuts.iter().map(|cut| ("S".to_owned(), *cut)).collect();
            Truth::at(&cuts, 9_000_000).age_ms
        };
        assert_eq!(age(&[read]), Some(4_000));
        assert_eq!(age(&[idle]), Some(500));
        assert_eq!(age(&[idle, read]), Some(4_000));
        assert_eq!(age(&[read, Position::START]), None);
        assert_eq!(age(&[]), None);
        let mut headers = HeaderMap::new();
        Truth::at(&[("A".into(), read), ("B".into(), read)], 5_250_999).write(&mut headers);
        assert_eq!(headers["tollgate-cut"], "A=7, B=7");
        assert_eq!(headers["tollgate-cut-age-ms"], "250");
    }
}
