//! The body of a request: read whole, unpacked, and never larger than it may be.

use super::problem::Problem;
use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use futures::TryStreamExt;
use std::{io::Read, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many bodies of the largest size are held at once, over all requests.
const LARGEST_AT_ONCE: usize = 32;

/// Reads bodies, each of them and all together within bounds.
#[derive(Debug)]
pub(super) struct Bodies {
    bytes_max: usize,
    room: Arc<Semaphore>,
}

/// A body, and the room that it takes for as long as a part of it is kept.
struct Held {
    bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Bodies {
    /// Bodies of at most so many bytes, as they are sent and as they are unpacked.
    pub(super) fn new(bytes_max: usize) -> Self {
        let room = bytes_max.saturating_mul(LARGEST_AT_ONCE);
        Bodies {
            bytes_max,
            room: Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// It is larger, is packed in another way than gzip, or breaks off; or those that are held leave no room for it.
    pub(super) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
        let bytes_max = self.bytes_max;
        let said = headers.get(header::CONTENT_LENGTH);
        let said = said.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if said.is_some_and(|length| length > bytes_max) {
            return Err(too_large(bytes_max));
        }
        let mut room = None;
        let mut bytes = BytesMut::new();
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.try_next().await.map_err(broken)? {
            if piece.len() > bytes_max - bytes.len() {
                return Err(too_large(bytes_max));
            }
            self.take(piece.len(), &mut room)?;
            bytes.extend_from_slice(&piece);
        }
        let sent = bytes.len();
        let bytes = unpacked(headers, bytes.freeze(), bytes_max)?;
        self.take(bytes.len().saturating_sub(sent), &mut room)?;
        Ok(Bytes::from_owner(Held { bytes, _room: room }))
    }

    /// Takes room for so many bytes more.
    fn take(&self, bytes: usize, room: &mut Option<OwnedSemaphorePermit>) -> Result<(), Problem> {
        let full = || {
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "bodies_too_many",
                "the bodies of other requests take all room that there is for them; send this one again",
            )
        };
        let bytes = u32::try_from(bytes).map_err(|_| full())?;
        let taken = Arc::clone(&self.room).try_acquire_many_owned(bytes);
        let taken = taken.map_err(|_| full())?;
        match room {
            Some(room) => room.merge(taken),
            None => *room = Some(taken),
        }
        Ok(())
    }
}

fn broken(error: axum::Error) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "body_broken",
        format!("the body could not be read: {error}"),
    )
}

fn unpacked(headers: &HeaderMap, bytes: Bytes, bytes_max: usize) -> Result<Bytes, Problem> {
    let encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let encodings: Vec<&str> = encodings.map(|e| e.to_str().unwrap_or("?")).collect();
    match encodings.as_slice() {
        [] => Ok(bytes),
        [encoding] if encoding.eq_ignore_ascii_case("identity") => Ok(bytes),
        [encoding] if encoding.eq_ignore_ascii_case("gzip") => gunzip(&bytes, bytes_max),
        _ => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "encoding_unsupported",
            "a body is sent as it is, or with Content-Encoding: gzip",
        )),
    }
}

fn gunzip(bytes: &[u8], bytes_max: usize) -> Result<Bytes, Problem> {
    let most = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let mut unpacked = Vec::new();
    let read = MultiGzDecoder::new(bytes)
        .take(most.saturating_add(1))
        .read_to_end(&mut unpacked);
    match read {
        Ok(_) if unpacked.len() > bytes_max => Err(too_large(bytes_max)),
        Ok(_) => Ok(unpacked.into()),
        Err(error) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "body_broken",
            format!("the body is not gzip: {error}"),
        )),
    }
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        format!(
            "the body is larger than {bytes_max} bytes (http.body_bytes_max); send fewer events to a request"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(text).unwrap();
        packed.finish().unwrap()
    }

    async fn outcome(headers: &[(&str, &str)], body: Vec<u8>, max: usize) -> Result<Bytes, u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: header::HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        let read = Bodies::new(max).read(&map, Body::from(body)).await;
        read.map_err(|problem| problem.into_response().status().as_u16())
    }

    #[tokio::test]
    async fn a_body_is_bounded_as_it_is_sent_and_as_it_is_unpacked() {
        let gzip = [("content-encoding", "GZIP")];
        let zeros = packed(&[0; 100_000]);
        assert!(zeros.len() < 1_000);
        assert_eq!(outcome(&[], b"12345".to_vec(), 5).await, Ok("12345".into()));
        assert_eq!(outcome(&[], b"123456".to_vec(), 5).await, Err(413));
        let promised = [("content-length", "6")];
        assert_eq!(outcome(&promised, b"".to_vec(), 5).await, Err(413));
        assert_eq!(outcome(&gzip, packed(b"[]"), 100).await, Ok("[]".into()));
        assert_eq!(outcome(&gzip, zeros.clone(), 99_999).await, Err(413));
        assert_eq!(
            outcome(&gzip, zeros, 100_000).await.map(|b| b.len()),
            Ok(100_000)
        );
    }

    #[tokio::test]
    async fn what_is_no_gzip_or_packed_otherwise_is_refused() {
        let gzip = [("content-encoding", "gzip")];
        let mut half = packed(b"a text that goes on for some time");
        half.truncate(15);
        assert_eq!(outcome(&gzip, half, 1_000).await, Err(400));
        assert_eq!(outcome(&gzip, b"{}".to_vec(), 1_000).await, Err(400));
        let brotli = [("content-encoding", "br")];
        assert_eq!(outcome(&brotli, b"{}".to_vec(), 1_000).await, Err(415));
        let twice = [("content-encoding", "gzip"), ("content-encoding", "gzip")];
        assert_eq!(outcome(&twice, b"{}".to_vec(), 1_000).await, Err(415));
    }

    #[tokio::test]
    async fn bodies_together_take_no_more_room_than_there_is() {
        let bodies = Bodies::new(10);
        let of = |length: usize| Body::from(vec![b'1'; length]);
        let mut held = Vec::new();
        for _ in 0..LARGEST_AT_ONCE {
            held.push(bodies.read(&HeaderMap::new(), of(10)).await.unwrap());
        }
        let refused = bodies.read(&HeaderMap::new(), of(1)).await;
        let refused = refused.unwrap_err().into_response();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        // A part that is kept keeps the room of the whole.
        let part = held.pop().map(|body| body.slice(..1));
        assert!(bodies.read(&HeaderMap::new(), of(1)).await.is_err());
        drop(part);
        assert!(bodies.read(&HeaderMap::new(), of(10)).await.is_ok());
        // What is unpacked takes room too.
        let mut gzip = HeaderMap::new();
        gzip.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        let most = Bodies::new(1_000);
        let zeros = || Body::from(packed(&[0; 1_000]));
        held.clear();
        for _ in 0..LARGEST_AT_ONCE {
            held.push(most.read(&gzip, zeros()).await.unwrap());
        }
        assert!(most.read(&gzip, zeros()).await.is_err());
    }
}
