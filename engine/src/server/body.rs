//! The body of a request: read whole, unpacked, and never larger than it may be.

use super::problem::Problem;
use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, StatusCode, header},
};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use std::io::Read;

/// Reads a body that has at most so many bytes, as it is sent and as it is unpacked.
///
/// # Errors
/// It is larger, is packed in another way than gzip, or breaks off.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
) -> Result<Bytes, Problem> {
    let said = headers.get(header::CONTENT_LENGTH);
    let said = said.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if said.is_some_and(|length| length > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let bytes = to_bytes(body, bytes_max).await.map_err(|error| {
        let is_length = std::error::Error::source(&error)
            .is_some_and(|cause| cause.to_string().contains("length limit"));
        match is_length {
            true => too_large(bytes_max),
            false => Problem::new(
                StatusCode::BAD_REQUEST,
                "body_broken",
                format!("the body could not be read: {error}"),
            ),
        }
    })?;
    unpacked(headers, bytes, bytes_max)
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
        let read = read(&map, Body::from(body), max).await;
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
}
