//! Handing the listening sockets of a running router to the one that replaces it, through a Unix socket.
//!
//! For a while both hold the same sockets, and with them the same queues in the kernel: whoever accepts a connection
//! serves it, and no connection is lost when either lets go.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};

/// What the old router says first; the count of sockets follows, in four bytes, and then each with one byte.
const GREETING: &[u8] = b"cell-router takeover 1\n";
/// The byte that each socket comes with.
const SOCKET: u8 = b's';
/// What the new router says once it serves.
const SERVING: u8 = b'!';
/// How long either waits for the other to take or to say anything, except for the new one's word that it serves.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after an error, or before another look at who answers.
const PAUSE: Duration = Duration::from_millis(100);
/// Looks at who answers, where the one who did is just leaving.
const LOOKS: usize = 50;

/// Why listening sockets could not be taken over, or not be offered.
#[derive(Debug)]
pub enum TakeoverError {
    /// The path leads to something else than a socket.
    NotASocket,
    /// The system refused.
    Io(&'static str, io::Error),
    /// A process of this other user answers.
    OtherUser(u32),
    /// What answers is no router, or one of a version that hands over in another way.
    Foreign,
    /// Whoever holds the socket says nothing.
    Silent,
}

impl fmt::Display for TakeoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASocket => {
                f.write_str("there is a file that is no socket; choose another path")
            }
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::OtherUser(user) => write!(
                f,
                "the router that answers belongs to user {user}; run both as the same user"
            ),
            Self::Foreign => {
                f.write_str("what answers there is no router that this one can follow")
            }
            Self::Silent => write!(
                f,
                "whoever listens there has said nothing for {} s; is another takeover under way?",
                PATIENCE.as_secs()
            ),
        }
    }
}

impl std::error::Error for TakeoverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::NotASocket | Self::OtherUser(_) | Self::Foreign | Self::Silent => None,
        }
    }
}

/// What was taken from an old router, which serves on until it is told.
#[derive(Debug, Default)]
pub struct Taken {
    /// Its listening sockets; it holds them, too.
    pub sockets: Vec<TcpListener>,
    old: Option<UnixStream>,
}

/// Asks the router that answers at `path` for its listening sockets. Nothing is taken where nobody answers. What a router
/// that dies meanwhile had handed out counts.
///
/// # Errors
/// `TakeoverError`; the old router, if there is one, serves on.
pub fn take(path: &Path) -> Result<Taken, TakeoverError> {
    must_be_socket(path)?;
    for _ in 0..LOOKS {
        let mut old = match UnixStream::connect(path) {
            Ok(old) => old,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(Taken::default());
            }
            Err(error) => return Err(TakeoverError::Io("connect", error)),
        };
        let user = rustix::net::sockopt::socket_peercred(&old)
            .map_err(|error| TakeoverError::Io("credentials", error.into()))?
            .uid;
        if user != rustix::process::geteuid() {
            return Err(TakeoverError::OtherUser(user.as_raw()));
        }
        let patience = old.set_read_timeout(Some(PATIENCE));
        patience.map_err(|error| TakeoverError::Io("time-out", error))?;
        if let Some(count) = greeting(&mut old)? {
            let sockets = receive(&old, count)?;
            let old = Some(old);
            return Ok(Taken { sockets, old });
        }
        // It has just been replaced, or told to stop: another may answer now, or nobody.
        std::thread::sleep(PAUSE);
    }
    Err(TakeoverError::Silent)
}

/// Reads how many sockets will come; `None` where the old router leaves without a word.
fn greeting(old: &mut UnixStream) -> Result<Option<u32>, TakeoverError> {
    let mut said = [0; GREETING.len() + 4];
    match old.read_exact(&mut said) {
        Ok(()) => {}
        Err(error) if gone(&error) => return Ok(None),
        Err(error) if silent(&error) => return Err(TakeoverError::Silent),
        Err(error) => return Err(TakeoverError::Io("read", error)),
    }
    let (greeting, count) = said.split_at(GREETING.len());
    match <[u8; 4]>::try_from(count) {
        Ok(count) if greeting == GREETING => Ok(Some(u32::from_be_bytes(count))),
        Ok(_) | Err(_) => Err(TakeoverError::Foreign),
    }
}

fn gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn silent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Receives up to `count` sockets: fewer where the old router dies.
fn receive(old: &UnixStream, count: u32) -> Result<Vec<TcpListener>, TakeoverError> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut byte)];
        let received = rustix::net::recvmsg(old, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC);
        match received.map_err(io::Error::from) {
            Ok(received) if received.bytes == 1 => {}
            Ok(_) => break,
            Err(error) if gone(&error) => break,
            Err(error) if silent(&error) => return Err(TakeoverError::Silent),
            Err(error) => return Err(TakeoverError::Io("receive", error)),
        }
        let descriptors = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let before = sockets.len();
        for descriptor in descriptors.flatten() {
            let socket = socket2::Socket::from(descriptor);
            if !socket.is_listener().unwrap_or(false) {
                return Err(TakeoverError::Foreign);
            }
            sockets.push(socket.into());
        }
        if byte != [SOCKET] || sockets.len() != before + 1 {
            return Err(TakeoverError::Foreign);
        }
    }
    Ok(sockets)
}

impl Taken {
    /// Tells the old router that this one serves, so that it drains. Where it has gone meanwhile, all is well, too.
    pub fn serves(self) {
        if let Some(mut old) = self.old {
            let _ = old.write_all(&[SERVING]);
        }
    }
}

/// Listening sockets that a newer router may take over.
#[derive(Debug)]
pub struct Offer {
    path: PathBuf,
    door: tokio::net::UnixListener,
    sockets: Vec<TcpListener>,
}

impl Offer {
    /// Offers `sockets` at `path`, in place of whoever did before. Needs a runtime around it.
    ///
    /// # Errors
    /// `TakeoverError` where one cannot listen there.
    pub fn open(path: PathBuf, sockets: Vec<TcpListener>) -> Result<Self, TakeoverError> {
        let door = open(&path)?;
        Ok(Self {
            path,
            door,
            sockets,
        })
    }

    /// Waits until another router has taken the sockets and serves on them; its process id, if the system tells. They are
    /// offered no longer once this ends or is cancelled.
    pub async fn taken(mut self) -> Option<i32> {
        loop {
            match self.door.accept().await {
                Ok((heir, _)) => {
                    let process = heir.peer_cred().ok().and_then(|peer| peer.pid());
                    match self.hand_out(heir).await {
                        Ok(()) => return process,
                        Err(error) => {
                            tracing::warn!(%error, process, "takeover failed; this router serves on");
                        }
                    }
                    // The other may have put itself in our place already.
                    match open(&self.path) {
                        Ok(door) => self.door = door,
                        Err(error) => tracing::warn!(%error, "takeover"),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "takeover");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn hand_out(&self, mut heir: tokio::net::UnixStream) -> Result<(), TakeoverError> {
        let io = |error| TakeoverError::Io("hand out", error);
        let user = heir.peer_cred().map_err(io)?.uid();
        if user != rustix::process::geteuid().as_raw() {
            return Err(TakeoverError::OtherUser(user));
        }
        let sending = self.send(&mut heir);
        let sent = tokio::time::timeout(PATIENCE, sending).await;
        sent.map_err(|_| TakeoverError::Silent)?.map_err(io)?;
        // It says so, or its end closes the connection.
        match heir.read_u8().await.map_err(io)? {
            SERVING => Ok(()),
            _ => Err(TakeoverError::Foreign),
        }
    }

    async fn send(&self, heir: &mut tokio::net::UnixStream) -> io::Result<()> {
        let count = u32::try_from(self.sockets.len()).map_err(io::Error::other)?;
        heir.write_all(GREETING).await?;
        heir.write_all(&count.to_be_bytes()).await?;
        for socket in &self.sockets {
            let one = || {
                let descriptors = [socket.as_fd()];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                control.push(SendAncillaryMessage::ScmRights(&descriptors));
                let byte = [IoSlice::new(&[SOCKET])];
                rustix::net::sendmsg(&*heir, &byte, &mut control, SendFlags::NOSIGNAL)
                    .map_err(io::Error::from)
            };
            heir.async_io(Interest::WRITABLE, one).await?;
        }
        Ok(())
    }
}

/// Listens at `path`, for this user only; whoever listened there is asked no more.
fn open(path: &Path) -> Result<tokio::net::UnixListener, TakeoverError> {
    must_be_socket(path)?;
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let opened = (|| {
        // One of a process of this number that died half-way.
        let _ = std::fs::remove_file(&fresh);
        let door = std::os::unix::net::UnixListener::bind(&fresh)?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
        door.set_nonblocking(true)?;
        std::fs::rename(&fresh, path)?;
        tokio::net::UnixListener::from_std(door)
    })();
    opened.map_err(|error| {
        let _ = std::fs::remove_file(&fresh);
        TakeoverError::Io("listen", error)
    })
}

fn must_be_socket(path: &Path) -> Result<(), TakeoverError> {
    match std::fs::metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(TakeoverError::NotASocket),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(TakeoverError::Io("look", error)),
    }
}
