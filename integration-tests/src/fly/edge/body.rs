//! Owns the request body while it passes the edge: what was read is kept, so that it can be sent again.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::process::lock;

/// The largest body that can be replayed, in bytes (fly-platform 1.7: "anything above 1MB is not replayable").
pub(super) const REPLAY_MAX_BYTES: u64 = 1_000_000;

type Error = Box<dyn std::error::Error + Send + Sync>;

struct Tape<B> {
    source: B,
    kept: Vec<Frame<Bytes>>,
    bytes: u64,
    ended: bool,
    failed: bool,
    /// The reader that may read now; older ones are void.
    reader: usize,
}

impl<B> Tape<B> {
    fn outgrown(&self) -> bool {
        self.bytes > REPLAY_MAX_BYTES
    }
}

/// A request body that can be sent more than once while it is small.
pub(super) struct Recorded<B> {
    tape: Arc<Mutex<Tape<B>>>,
    length: Option<u64>,
}

impl<B: Body<Data = Bytes> + Unpin> Recorded<B> {
    /// Records `source` as it is read.
    pub(super) fn new(source: B) -> Self {
        let length = source.size_hint().exact();
        let ended = source.is_end_stream();
        Self {
            tape: Arc::new(Mutex::new(Tape {
                source,
                kept: Vec::new(),
                bytes: 0,
                ended,
                failed: false,
                reader: 0,
            })),
            length,
        }
    }

    /// True while all that was read is kept and the declared length is within the limit.
    pub(super) fn replayable(&self) -> bool {
        let tape = lock(&self.tape);
        self.length.unwrap_or(0) <= REPLAY_MAX_BYTES && !tape.outgrown() && !tape.failed
    }

    /// A reader from the first byte; readers made before it become void. A `replayed` reader fails when a body of
    /// unknown length outgrows the limit after all.
    pub(super) fn reader(&self, replayed: bool) -> Reader<B> {
        let mut tape = lock(&self.tape);
        tape.reader += 1;
        Reader {
            tape: Arc::clone(&self.tape),
            number: tape.reader,
            next: 0,
            sent: 0,
            length: self.length,
            replayed,
        }
    }
}

/// Sends a recorded body from its first byte.
pub(super) struct Reader<B> {
    tape: Arc<Mutex<Tape<B>>>,
    number: usize,
    next: usize,
    sent: u64,
    length: Option<u64>,
    replayed: bool,
}

fn again(frame: &Frame<Bytes>) -> Frame<Bytes> {
    match (frame.data_ref(), frame.trailers_ref()) {
        (Some(data), _) => Frame::data(data.clone()),
        (None, Some(trailers)) => Frame::trailers(trailers.clone()),
        (None, None) => Frame::data(Bytes::new()),
    }
}

impl<B> Body for Reader<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Error>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let mut tape = lock(&this.tape);
        if tape.reader != this.number {
            return Poll::Ready(Some(Err("the request is being sent elsewhere".into())));
        }
        let frame = if let Some(kept) = tape.kept.get(this.next) {
            this.next += 1;
            again(kept)
        } else if tape.ended {
            return Poll::Ready(None);
        } else {
            match ready!(Pin::new(&mut tape.source).poll_frame(cx)) {
                None => {
                    tape.ended = true;
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    tape.failed = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
                Some(Ok(frame)) => {
                    tape.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                    if tape.outgrown() {
                        tape.kept = Vec::new();
                    } else {
                        tape.kept.push(again(&frame));
                        this.next += 1;
                    }
                    frame
                }
            }
        };
        if this.replayed && tape.outgrown() {
            return Poll::Ready(Some(Err("PA01: a replayed body outgrew the limit".into())));
        }
        this.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        let tape = lock(&self.tape);
        tape.ended && self.next >= tape.kept.len()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, |length| {
            SizeHint::with_exact(length.saturating_sub(self.sent))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};

    type Frames = futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Error>>>;

    fn chunked(sizes: &[usize]) -> Recorded<StreamBody<Frames>> {
        let frames: Vec<_> = sizes
            .iter()
            .map(|size| Ok(Frame::data(Bytes::from(vec![7; *size]))))
            .collect();
        Recorded::new(StreamBody::new(futures_util::stream::iter(frames)))
    }

    async fn length(reader: Reader<StreamBody<Frames>>) -> Result<usize, Error> {
        Ok(reader.collect().await?.to_bytes().len())
    }

    #[tokio::test]
    async fn a_small_body_is_sent_again_whole() {
        let body = chunked(&[3, 4]);
        let mut first = body.reader(false);
        assert_eq!(
            first
                .frame()
                .await
                .unwrap()
                .unwrap()
                .into_data()
                .unwrap()
                .len(),
            3
        );
        assert!(body.replayable());
        assert_eq!(length(body.reader(true)).await.unwrap(), 7);
        assert_eq!(length(body.reader(true)).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn an_older_reader_is_void() {
        let body = chunked(&[3]);
        let first = body.reader(false);
        let _second = body.reader(true);
        assert!(length(first).await.is_err());
    }

    #[tokio::test]
    async fn exactly_the_limit_is_replayable_and_one_byte_more_is_not() {
        for (sizes, replayable) in [([999_999, 1], true), ([1_000_000, 1], false)] {
            let body = chunked(&sizes);
            length(body.reader(false)).await.unwrap();
            assert_eq!(body.replayable(), replayable, "{sizes:?}");
        }
    }

    #[tokio::test]
    async fn a_replayed_body_that_outgrows_the_limit_fails() {
        let body = chunked(&[1_000_000, 1]);
        assert!(body.replayable());
        assert!(length(body.reader(true)).await.is_err());
    }

    #[tokio::test]
    async fn a_declared_length_over_the_limit_is_never_replayable() {
        let full = |bytes| Recorded::new(http_body_util::Full::new(Bytes::from(vec![0; bytes])));
        assert!(full(1_000_000).replayable());
        assert!(!full(1_000_001).replayable());
    }
}
