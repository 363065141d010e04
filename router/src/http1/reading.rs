//! A body as it is read from a connection, whichever side sends it.

use std::fmt;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::HeaderMap;

use super::buffered::Buffered;
use super::chunked::{Decoder, Step};
use super::head::{Fault, Framing};
use super::piece::Piece;
use super::{pipe, scratch};

/// Bytes that are read at once where a chunk's size comes next, and its data is to stay in the kernel.
const PEEK: usize = 2 * 1024;

/// What comes next of a body.
#[derive(Debug)]
pub enum Next {
    /// Some of it.
    Data(Piece),
    /// What follows it; it is over.
    Trailers(HeaderMap),
    /// It is over.
    End,
}

/// Why a body could not be read to its end.
#[derive(Debug)]
pub enum BodyError {
    /// The connection broke.
    Io(io::Error),
    /// The sender closed the connection in the middle of it.
    Ended,
    /// Its framing is malformed.
    Malformed(Fault),
    /// It broke off before.
    Over,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Ended => f.write_str("the connection ended before the body"),
            Self::Malformed(fault) => write!(f, "{fault}"),
            Self::Over => f.write_str("it broke off before"),
        }
    }
}

impl std::error::Error for BodyError {}

/// What is left of the body that is being read.
#[derive(Debug)]
pub enum Reading {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Decoder),
    /// Whatever comes until the connection ends.
    ToEnd,
    /// Nothing: it is whole.
    Done,
    /// Nothing: it broke off.
    Failed,
}

impl Reading {
    /// All of a body that is framed like this.
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Decoder::default()),
            Framing::ToEnd => Self::ToEnd,
        }
    }

    /// Whether all of it has been read.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Whether more of it is to come.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Length(_) | Self::Chunked(_) | Self::ToEnd)
    }

    /// How many bytes are to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Done => Some(0),
            Self::Chunked(_) | Self::ToEnd | Self::Failed => None,
        }
    }

    /// Reads what comes next of it from `from`: into memory, or, where enough is to come that is nothing but body (see
    /// [`Buffered::pipe`]), into a pipe. Cancel safe.
    ///
    /// # Errors
    /// `BodyError`, of which `Over` stands for every look after the first.
    pub fn poll(
        &mut self,
        from: &mut Buffered,
        context: &mut Context<'_>,
    ) -> Poll<Result<Next, BodyError>> {
        let read = loop {
            match self.step(from) {
                Ok(Step::More) => {}
                Ok(Step::Data(data)) => break Ok(Next::Data(data.into())),
                Ok(Step::Trailers(trailers)) => break Ok(Next::Trailers(trailers)),
                Ok(Step::End) => break Ok(Next::End),
                Err(error) => break Err(error),
            }
            let (plain, run) = (self.plain(), self.run());
            let large = from.piped(run);
            let came = if large && plain > 0 && from.read.is_empty() && pipe::spare() {
                let most = usize::try_from(plain).unwrap_or(usize::MAX);
                match ready!(from.poll_pipe(context, most)) {
                    Ok(Some(data)) => {
                        self.pass(data.len() as u64);
                        break Ok(Next::Data(data));
                    }
                    ended => ended.map(|_| false),
                }
            } else {
                let size_only = large && plain == 0;
                let most = if size_only { PEEK } else { scratch::SIZE };
                ready!(from.poll_fill(context, most))
            };
            match came {
                Ok(true) => {}
                Ok(false) if matches!(self, Self::ToEnd) => {
                    *self = Self::Done;
                    break Ok(Next::End);
                }
                Ok(false) => break Err(BodyError::Ended),
                Err(error) => break Err(BodyError::Io(error)),
            }
        };
        if read.is_err() {
            *self = Self::Failed;
        }
        Poll::Ready(read)
    }

    /// Forgets what `from` has of it already, if it is not at its end.
    pub fn forget(&mut self, from: &mut Buffered) {
        while self.is_open() {
            match self.step(from) {
                Ok(Step::Data(_)) => {}
                Ok(Step::More | Step::Trailers(_) | Step::End) => return,
                Err(_) => *self = Self::Failed,
            }
        }
    }

    /// How many bytes come next that are nothing but body, where that is known.
    fn plain(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(decoder) => decoder.plain(),
            Self::ToEnd | Self::Done | Self::Failed => 0,
        }
    }

    /// How long the run of body is that they belong to; between two chunks, how long the one before was.
    fn run(&self) -> u64 {
        match self {
            Self::Chunked(decoder) => decoder.chunk(),
            _ => self.plain(),
        }
    }

    /// So many of them came.
    fn pass(&mut self, bytes: u64) {
        match self {
            Self::Length(left) => {
                *left = left.saturating_sub(bytes);
                if *left == 0 {
                    *self = Self::Done;
                }
            }
            Self::Chunked(decoder) => decoder.pass(bytes),
            Self::ToEnd | Self::Done | Self::Failed => {}
        }
    }

    fn step(&mut self, from: &mut Buffered) -> Result<Step, BodyError> {
        match self {
            Self::Done => Ok(Step::End),
            Self::Failed => Err(BodyError::Over),
            Self::Length(_) | Self::ToEnd if from.read.is_empty() => Ok(Step::More),
            Self::ToEnd => Ok(Step::Data(from.read.split().freeze())),
            Self::Length(left) => {
                let data = take(from, *left);
                *left -= data.len() as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Step::Data(data))
            }
            Self::Chunked(decoder) => {
                let step = decoder.step(&mut from.read).map_err(BodyError::Malformed)?;
                if decoder.ended() {
                    *self = Self::Done;
                }
                Ok(step)
            }
        }
    }
}

fn take(from: &mut Buffered, most: u64) -> Bytes {
    let there = from.read.len();
    let take = usize::try_from(most).map_or(there, |most| most.min(there));
    from.read.split_to(take).freeze()
}
