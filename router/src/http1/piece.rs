//! Some of a body on its way from one connection to another: in memory, or in a pipe of the kernel.

use std::cell::OnceCell;
use std::fmt;
use std::rc::Rc;

use bytes::{Buf, Bytes};

use super::pipe::{Piped, Source};

/// Some of a body.
pub struct Piece(Kind);

enum Kind {
    Memory(Bytes),
    /// With what was read of it, once somebody has looked at its bytes.
    Kernel(Piped, OnceCell<Bytes>),
}

impl Piece {
    /// How many bytes.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::Memory(bytes) => bytes.len(),
            Kind::Kernel(piped, lifted) => lifted.get().map_or(piped.len(), Bytes::len),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, read from the kernel if that is where they are.
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Kind::Memory(bytes) => bytes,
            Kind::Kernel(piped, lifted) => lifted.into_inner().unwrap_or_else(|| piped.lift()),
        }
    }

    /// Says where they came from, if they are in a pipe.
    pub fn came_from(&mut self, source: &Rc<impl Source + 'static>) {
        if let Kind::Kernel(piped, _) = &mut self.0 {
            piped.came_from(source);
        }
    }

    /// The pipe that they are in, if nobody has looked at them.
    pub fn piped(&mut self) -> Option<&mut Piped> {
        match &mut self.0 {
            Kind::Kernel(piped, lifted) if lifted.get().is_none() => Some(piped),
            Kind::Kernel(..) | Kind::Memory(_) => None,
        }
    }
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Memory(bytes))
    }
}

impl From<Piped> for Piece {
    fn from(piped: Piped) -> Self {
        Self(Kind::Kernel(piped, OnceCell::new()))
    }
}

impl Default for Piece {
    fn default() -> Self {
        Self::from(Bytes::new())
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.0 {
            Kind::Memory(_) => "memory",
            Kind::Kernel(..) => "kernel",
        };
        write!(f, "Piece({} bytes in {place})", self.len())
    }
}

/// For whoever has to see the bytes, they are read from the kernel.
impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        match &self.0 {
            Kind::Memory(bytes) => bytes,
            Kind::Kernel(piped, lifted) => lifted.get_or_init(|| piped.lift()),
        }
    }

    fn advance(&mut self, count: usize) {
        if let Kind::Kernel(..) = self.0 {
            *self = Self::from(std::mem::take(self).into_bytes());
        }
        if let Kind::Memory(bytes) = &mut self.0 {
            bytes.advance(count);
        }
    }
}
