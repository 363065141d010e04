//! A request's body while an HTTP/2 connection has it.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::Reason;
use http_body::{Body, Frame, SizeHint};

use crate::account::body::{Cut, Relayed};
use crate::http1::Piece;

struct Lent {
    body: Option<Relayed>,
    /// Something of it was read, or its end.
    read: bool,
    /// Nobody wants the rest.
    cut: bool,
    reader: Option<Waker>,
}

/// A body that can be had back while nothing of it was read, and that can be cut while the connection goes on.
#[derive(Clone)]
pub struct Loan(Rc<RefCell<Lent>>);

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loan")
    }
}

impl Loan {
    /// Lends a body.
    pub fn new(body: Option<Relayed>) -> Self {
        Self(Rc::new(RefCell::new(Lent {
            body,
            read: false,
            cut: false,
            reader: None,
        })))
    }

    /// The body, if nothing of it was read.
    pub fn take_back(&self) -> Option<Relayed> {
        let mut lent = self.0.borrow_mut();
        if lent.read || lent.cut {
            return None;
        }
        lent.body.take()
    }

    /// Whether who sends it still has it.
    pub fn is_lent(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }

    /// Ends it where it is: a stream that still sends it is reset. `false` if who sends it may not look before the cell has
    /// taken what was read of it.
    pub fn cut(&self) -> bool {
        // Who has sent all of it has let go of it.
        let over = !self.is_lent();
        let (body, reader) = {
            let mut lent = self.0.borrow_mut();
            lent.cut = true;
            (lent.body.take(), lent.reader.take())
        };
        drop(body);
        let looks = reader.is_some();
        if let Some(reader) = reader {
            reader.wake();
        }
        over || looks
    }
}

impl Body for Loan {
    type Data = Bytes;
    type Error = Severed;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Severed>>> {
        let lent = &mut *self.0.borrow_mut();
        if lent.cut {
            return Poll::Ready(Some(Err(Severed::from(None))));
        }
        let Some(body) = &mut lent.body else {
            return Poll::Ready(None);
        };
        match Pin::new(body).poll_frame(context) {
            Poll::Ready(frame) => {
                lent.read = true;
                lent.reader = None;
                Poll::Ready(frame.map(|frame| {
                    let frame = frame.map_err(|cut| Severed::from(Some(cut)))?;
                    Ok(frame.map_data(Piece::into_bytes))
                }))
            }
            Poll::Pending => {
                lent.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let lent = self.0.borrow();
        !lent.cut && lent.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let lent = self.0.borrow();
        lent.body
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}

/// Why the rest of a body does not come. The cell is told that the request was taken back (RFC 9113 section 7: CANCEL).
#[derive(Debug)]
pub struct Severed {
    cut: Option<Cut>,
    reset: h2::Error,
}

impl From<Option<Cut>> for Severed {
    fn from(cut: Option<Cut>) -> Self {
        Self {
            cut,
            reset: Reason::CANCEL.into(),
        }
    }
}

impl fmt::Display for Severed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cut {
            Some(cut) => cut.fmt(f),
            None => f.write_str("nobody wants the rest of the body"),
        }
    }
}

impl std::error::Error for Severed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reset)
    }
}
