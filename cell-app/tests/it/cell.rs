//! A cell as a process of its own, and what the tests need to talk to it: one connection, byte by byte.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

/// After so long a test has hung; nothing is measured with it.
const HUNG: Duration = Duration::from_secs(60);

/// A running `cell-app`; killed on drop.
pub(crate) struct Cell {
    child: Child,
    log: Receiver<Value>,
    pub(crate) address: SocketAddr,
}

impl Cell {
    /// Starts the cell `alice` on `data` with these settings, and waits until it listens.
    pub(crate) fn start(data: &Path, settings: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cell-app"))
            .env_clear()
            .env("CELL_NAME", "alice")
            .env("CELL_LISTEN", "127.0.0.1:0")
            .env("CELL_DATA", data)
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, log) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // The test may have ended before its cell.
                let _ = sender.send(serde_json::from_str(&line).expect("each line is JSON"));
            }
        });
        let mut cell = Self {
            child,
            log,
            address: ([0, 0, 0, 0], 0).into(),
        };
        let listening = cell.logged("listening");
        assert_eq!(listening["cell"], "alice");
        cell.address = listening["address"].as_str().unwrap().parse().unwrap();
        cell
    }

    /// Waits for the log line with this message.
    pub(crate) fn logged(&self, message: &str) -> Value {
        loop {
            let line = self.log.recv_timeout(HUNG).expect(message);
            if line["message"] == message {
                return line;
            }
        }
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-s", name, &id])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits until the process has ended.
    pub(crate) fn exit(&mut self) -> ExitStatus {
        // The log ends with the process.
        while self.log.recv_timeout(HUNG).is_ok() {}
        self.child.wait().unwrap()
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(HUNG)).unwrap();
        Connection(BufReader::new(stream))
    }

    /// One request on a connection of its own; `head` is the request line and headers, without `host`.
    pub(crate) fn ask(&self, head: &str, body: impl AsRef<[u8]>) -> Answer {
        let mut connection = self.connect();
        connection.head(&format!(
            "{head}\r\nconnection: close\r\ncontent-length: {}",
            body.as_ref().len()
        ));
        connection.send(body.as_ref());
        connection.answer()
    }

    /// `GET` of a path, signed in no way.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1"), "")
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection to a cell.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Sends a request's head, with `host: alice.example.com`.
    pub(crate) fn head(&mut self, head: &str) {
        self.send(format!("{head}\r\nhost: alice.example.com\r\n\r\n").as_bytes());
    }

    /// Begins an upload of `bytes` and returns once the cell reads it.
    pub(crate) fn begin_upload(&mut self, name: &str, bytes: usize) {
        self.head(&format!(
            "PUT /files/{name} HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: {bytes}"
        ));
        assert_eq!(self.answer_head().status, 100);
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    /// Reads exactly `N` bytes.
    pub(crate) fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads one line, without its end; `None` at the end of the connection.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).unwrap();
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// Whether the cell has closed the connection and said nothing more.
    pub(crate) fn is_at_end(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
    }

    /// Reads an answer's head.
    pub(crate) fn answer_head(&mut self) -> Answer {
        let status = self.line().expect("an answer");
        let mut answer = Answer {
            status: status.split(' ').nth(1).unwrap().parse().unwrap(),
            headers: HashMap::new(),
            body: Vec::new(),
        };
        while let Some(line) = self.line().filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap();
            answer
                .headers
                .insert(name.to_owned(), value.trim().to_owned());
        }
        answer
    }

    /// Reads an answer with the length that it says.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = self.answer_head();
        if let Some(length) = answer.headers.get("content-length") {
            answer.body = vec![0; length.parse().unwrap()];
            self.0.read_exact(&mut answer.body).unwrap();
        }
        answer
    }

    /// Reads a WebSocket frame that is short and unmasked, as a server sends it: opcode and payload.
    pub(crate) fn frame(&mut self) -> (u8, Vec<u8>) {
        let [first, length] = self.read();
        let length = match length {
            126 => u16::from_be_bytes(self.read()).into(),
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).unwrap();
        (first & 0x0f, payload)
    }

    /// Sends a short text as a WebSocket frame, masked with zeros.
    pub(crate) fn say(&mut self, text: &str) {
        let length = u8::try_from(text.len()).unwrap();
        self.send(&[&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat());
    }
}

/// What a cell answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// A header, empty if absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Names of everything in the folder of uploads, hidden or not.
pub(crate) fn stored(data: &Path) -> Vec<String> {
    std::fs::read_dir(data.join("files"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}
