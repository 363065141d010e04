//! The tenant's posts in SQLite. The only place that speaks SQL.
//!
//! One connection, so one writer; every call runs on a blocking thread and never on the event loop.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

/// How long SQLite waits for another process (a backup, a shell) that holds the lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The newest posts that a listing shows.
const LISTED: u32 = 200;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS posts (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        title TEXT NOT NULL,
        body TEXT NOT NULL,
        created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
    ) STRICT;
    PRAGMA user_version = 1;";

/// A post as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Post {
    pub(crate) id: i64,
    pub(crate) title: String,
    pub(crate) body: String,
    /// UTC, as in RFC 3339 with whole seconds.
    pub(crate) created_at: String,
}

/// Title and body that have passed validation.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) title: String,
    pub(crate) body: String,
}

/// What SQLite says when it does not do as told.
pub(crate) type Problem = rusqlite::Error;

/// Handle to the database. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Store(Arc<Mutex<Connection>>);

impl Store {
    /// Opens the database at `path`, and makes it if it is absent.
    ///
    /// # Errors
    /// What SQLite says: no such folder, no space, not a database.
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    /// Touches the database.
    pub(crate) async fn ping(&self) -> rusqlite::Result<()> {
        self.run(|connection| {
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
        })
        .await
    }

    /// The newest posts, newest first.
    pub(crate) async fn posts(&self) -> rusqlite::Result<Vec<Post>> {
        self.run(|connection| {
            connection
                .prepare_cached(
                    "SELECT id, title, body, created_at FROM posts ORDER BY id DESC LIMIT ?1",
                )?
                .query_map([LISTED], post)?
                .collect()
        })
        .await
    }

    /// The post with this id, if there is one.
    pub(crate) async fn post(&self, id: i64) -> rusqlite::Result<Option<Post>> {
        self.run(move |connection| {
            connection
                .prepare_cached("SELECT id, title, body, created_at FROM posts WHERE id = ?1")?
                .query_row([id], post)
                .optional()
        })
        .await
    }

    /// Adds a post, and returns it with its id.
    pub(crate) async fn add(&self, text: Text) -> rusqlite::Result<Post> {
        self.run(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO posts (title, body) VALUES (?1, ?2) RETURNING id, title, body, created_at",
                )?
                .query_row(params![text.title, text.body], post)
        })
        .await
    }

    /// Replaces title and body of a post; `None` if there is no such post.
    pub(crate) async fn replace(&self, id: i64, text: Text) -> rusqlite::Result<Option<Post>> {
        self.run(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE posts SET title = ?2, body = ?3 WHERE id = ?1 RETURNING id, title, body, created_at",
                )?
                .query_row(params![id, text.title, text.body], post)
                .optional()
        })
        .await
    }

    /// Removes a post; says whether there was one.
    pub(crate) async fn remove(&self, id: i64) -> rusqlite::Result<bool> {
        self.run(move |connection| {
            let removed = connection
                .prepare_cached("DELETE FROM posts WHERE id = ?1")?
                .execute([id])?;
            Ok(removed > 0)
        })
        .await
    }

    /// Runs `query` on a blocking thread. A query that has begun runs to its end even if the caller is cancelled.
    async fn run<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> rusqlite::Result<T> {
        let connection = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || {
            query(&connection.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match done.await {
            Ok(result) => result,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going down, and the caller with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

fn post(row: &Row<'_>) -> rusqlite::Result<Post> {
    Ok(Post {
        id: row.get(0)?,
        title: row.get(1)?,
        body: row.get(2)?,
        created_at: row.get(3)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(title: &str) -> Text {
        Text {
            title: title.to_owned(),
            body: "body".to_owned(),
        }
    }

    #[tokio::test]
    async fn a_post_is_added_changed_listed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("cell.sqlite3")).unwrap();
        let first = store.add(text("first")).await.unwrap();
        let second = store.add(text("second")).await.unwrap();
        assert_eq!(
            store.posts().await.unwrap(),
            [second.clone(), first.clone()]
        );
        let changed = store
            .replace(first.id, text("changed"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(store.post(first.id).await.unwrap(), Some(changed));
        assert!(store.remove(second.id).await.unwrap());
        assert!(!store.remove(second.id).await.unwrap());
        assert_eq!(store.replace(second.id, text("gone")).await.unwrap(), None);
        let third = store.add(text("third")).await.unwrap();
        assert!(
            third.id > second.id,
            "the id of a removed post is not given again"
        );
    }

    #[tokio::test]
    async fn posts_outlive_the_process_and_the_journal_is_wal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cell.sqlite3");
        let added = Store::open(&path).unwrap().add(text("kept")).await.unwrap();
        let again = Store::open(&path).unwrap();
        assert_eq!(again.posts().await.unwrap(), [added]);
        let mode: String = again
            .run(|connection| connection.pragma_query_value(None, "journal_mode", |row| row.get(0)))
            .await
            .unwrap();
        assert_eq!(mode, "wal");
    }
}
