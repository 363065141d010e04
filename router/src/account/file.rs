//! A file on its way to a client: counted, and watched for how fast it is taken.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use super::body::Cut;
use super::pace::Taking;
use super::record::{Ending, Record};
use crate::http1::Piece;

/// The bytes of a file, or of a part of it.
pub type Bytestream = UnsyncBoxBody<Bytes, io::Error>;

/// A file that is sent.
#[derive(Debug)]
pub struct Sent {
    body: Bytestream,
    record: Rc<Record>,
    taking: Taking,
    /// What has been promised and not been read yet.
    left: u64,
}

impl Sent {
    /// Promises `length` bytes of `body`, which are to be taken as `taking` says.
    pub fn new(body: Bytestream, length: u64, record: Rc<Record>, taking: Taking) -> Self {
        let ending = if length == 0 {
            Ending::None
        } else {
            Ending::Running
        };
        record.response_ended.set(ending);
        Self {
            body,
            record,
            taking,
            left: length,
        }
    }

    /// The record of the request.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    fn fail(&self, cut: Cut, ending: Ending) -> Cut {
        self.record.error.replace(Some(cut.to_string()));
        self.record.response_ended.set(ending);
        cut
    }

    /// The next piece, or that the file has become shorter than it was.
    fn next(
        &mut self,
        frame: Option<Result<Frame<Bytes>, io::Error>>,
    ) -> Option<Result<Frame<Piece>, Cut>> {
        let mut data = match frame {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => return Some(Err(self.fail(Cut::File(error), Ending::Unreadable))),
            None if self.left == 0 => return None,
            None => {
                let error = io::ErrorKind::UnexpectedEof.into();
                return Some(Err(self.fail(Cut::File(error), Ending::Unreadable)));
            }
        };
        // One that has grown is sent as long as it was.
        data.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        let bytes = data.len() as u64;
        if bytes == 0 {
            return None;
        }
        self.left -= bytes;
        self.record
            .bytes_out
            .set(self.record.bytes_out.get() + bytes);
        self.record.progress();
        self.taking.hand(bytes, self.record.last_progress());
        if self.left == 0 {
            self.record.response_ended.set(Ending::Complete);
        }
        Some(Ok(Frame::data(data.into())))
    }
}

impl Body for Sent {
    type Data = Piece;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Cut>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        if let Some(rate) = this.taking.asked() {
            let cut = this.fail(Cut::Untaken(rate), Ending::ClientStalled);
            return Poll::Ready(Some(Err(cut)));
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        Poll::Ready(this.next(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
