//! `/live` and `/events`: what is new, pushed as it happens.
//!
//! Owns the open sockets' life: kept alive, counted as work, told to go when the cell drains.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::http::header;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{MissedTickBehavior, interval};

use crate::app::App;
use crate::store::Post;

/// Between two pings; the platform's advice is at most 30 s (fly-platform 10).
const PING: Duration = Duration::from_secs(25);
/// How long a peer that was told to go may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);
/// Pushes that a slow listener may be behind; then it misses the oldest.
const BACKLOG: usize = 64;
/// Largest message that is echoed, in bytes.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// Everyone who listens. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pushes(broadcast::Sender<Utf8Bytes>);

impl Pushes {
    /// Nobody listens.
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }

    /// Tells everyone that a post was added.
    pub(crate) fn added(&self, post: &Post) {
        // An error means that nobody listens.
        let _ = self.0.send(json!({ "post": post }).to_string().into());
    }
}

fn hello(app: &App) -> Utf8Bytes {
    json!({ "cell": app.identity.cell, "machine": app.identity.machine })
        .to_string()
        .into()
}

/// `GET /events`: the pushes as server-sent events; the first says which cell this is.
pub(crate) async fn events(State(app): State<App>) -> Response {
    let pushes = stream::unfold(app.pushes.0.subscribe(), async |mut pushes| {
        loop {
            match pushes.recv().await {
                Ok(push) => return Some((push, pushes)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    let first = hello(&app);
    let draining = async move { app.work.draining().await };
    let events = stream::once(async { first })
        .chain(pushes)
        .map(|push| Ok::<_, Infallible>(Event::default().data(push.as_str())))
        .take_until(draining);
    // Fly's edge gathers what it may compress (fly-platform 7); "none" lets events pass as they happen.
    let unbuffered = [
        (header::CONTENT_ENCODING, "none"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let events = Sse::new(events).keep_alive(KeepAlive::new().interval(PING));
    (unbuffered, events).into_response()
}

/// `GET /live`: a WebSocket that says hello, echoes what it gets, and pushes what is new.
pub(crate) async fn socket(State(app): State<App>, upgrade: WebSocketUpgrade) -> Response {
    let running = app.work.begin();
    upgrade
        .max_message_size(MAX_MESSAGE_BYTES)
        .on_upgrade(async move |socket| {
            let _running = running;
            converse(app, socket).await;
        })
}

async fn converse(app: App, mut socket: WebSocket) {
    let mut pushes = app.pushes.0.subscribe();
    if socket.send(Message::Text(hello(&app))).await.is_err() {
        return;
    }
    let mut ping = interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.tick().await;
    let mut heard = true;
    loop {
        let say = tokio::select! {
            () = app.work.draining() => return goodbye(socket).await,
            message = socket.recv() => {
                heard = true;
                match message {
                    Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => message,
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => continue,
                    Some(Err(_)) | None => return,
                }
            }
            push = pushes.recv() => match push {
                Ok(push) => Message::Text(push),
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            },
            _ = ping.tick() => {
                // A peer that is gone without a word must not keep the cell awake.
                if !std::mem::take(&mut heard) {
                    return;
                }
                Message::Ping(Default::default())
            }
        };
        tokio::select! {
            sent = socket.send(say) => if sent.is_err() { return },
            () = tokio::time::sleep(PING) => return,
        }
    }
}

async fn goodbye(mut socket: WebSocket) {
    let close = Message::Close(Some(CloseFrame {
        code: close_code::AWAY,
        reason: "the cell is stopping".into(),
    }));
    let leave = async {
        if socket.send(close).await.is_ok() {
            while let Some(Ok(_)) = socket.recv().await {}
        }
    };
    let _ = tokio::time::timeout(GOODBYE, leave).await;
}
