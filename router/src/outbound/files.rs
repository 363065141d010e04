//! Files of a cell, served by the router itself: the cell may sleep.
//!
//! The bytes, their kinds and ranges are `tower-http`'s. Here it is judged which file a path names, and whether a client
//! has it already. Nothing outside the folder is served, nothing whose name begins with a dot, and no list of what there is.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use tower_http::services::ServeFile;

use crate::account::file::Bytestream;

/// The file of a folder.
const INDEX: &str = "index.html";
/// Each coding in which a file may lie beside itself, with the end of its name.
const CODINGS: [(&str, &str); 3] = [("br", ".br"), ("gzip", ".gz"), ("zstd", ".zst")];

/// How often a file is looked for that is not to be had as it was seen.
const LOOKS: usize = 3;

/// What a path names.
#[derive(Debug)]
pub enum Found {
    /// A file, or a part of it, or that the client has it already.
    File(Box<Response<Bytestream>>),
    /// A folder that has an index, without a slash at its end: where it is.
    Folder(HeaderValue),
    /// Nothing that is served.
    Nothing,
}

/// How clients may keep files.
#[derive(Debug, Clone, Copy)]
pub struct Keeping {
    /// For how long without asking again.
    pub max_age: Duration,
    /// Whether for themselves only.
    pub private: bool,
}

/// Looks for the file at `rest`, a path below `folder`, and answers the request for it. Cancel safe.
///
/// # Errors
/// What the file system says, but that there is no such file.
pub async fn find(head: &Parts, folder: &Path, rest: &str, keeping: Keeping) -> io::Result<Found> {
    let Some(relative) = relative(rest) else {
        return Ok(Found::Nothing);
    };
    let slash = head.uri.path().ends_with('/');
    // What is put in its place between look and opening is looked at again.
    for _ in 0..LOOKS {
        let (folder, relative) = (folder.to_owned(), relative.clone());
        let looked = tokio::task::spawn_blocking(move || Place::look(&folder, &relative, slash));
        match looked.await.map_err(io::Error::other)?? {
            Looked::File(place) => {
                if let Some(answer) = place.answer(head, keeping).await? {
                    return Ok(Found::File(Box::new(answer)));
                }
            }
            Looked::Folder => return Ok(with_slash(head).map_or(Found::Nothing, Found::Folder)),
            Looked::Nothing => return Ok(Found::Nothing),
        }
    }
    Err(io::Error::other(
        "it is there, and cannot be opened as what it is seen to be",
    ))
}

/// The same address with a slash at the end of its path; none where that would be another host's.
fn with_slash(head: &Parts) -> Option<HeaderValue> {
    let path = head.uri.path();
    let query = head
        .uri
        .query()
        .map_or_else(String::new, |query| format!("?{query}"));
    let location = HeaderValue::try_from(format!("{path}/{query}"));
    location.ok().filter(|_| !path.starts_with("//"))
}

/// The path of a file below its folder; none for a path that is none of a file's, could be read in two ways, or has a name
/// that begins with a dot.
fn relative(rest: &str) -> Option<PathBuf> {
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let mut path = PathBuf::new();
    if rest.is_empty() {
        return Some(path);
    }
    for segment in rest.split('/') {
        let name = percent_encoding::percent_decode_str(segment)
            .decode_utf8()
            .ok()?;
        let bad = |character: char| character.is_control() || matches!(character, '/' | '\\');
        if name.is_empty() || name.starts_with('.') || name.contains(bad) {
            return None;
        }
        path.push(&*name);
    }
    Some(path)
}

enum Looked {
    File(Box<Place>),
    Folder,
    Nothing,
}

/// A file, with what lies beside it in other codings.
struct Place {
    path: PathBuf,
    plain: Metadata,
    coded: Vec<(&'static str, Metadata)>,
}

impl Place {
    fn look(folder: &Path, relative: &Path, slash: bool) -> io::Result<Looked> {
        let Some(root) = there(fs::canonicalize(folder))? else {
            return Ok(Looked::Nothing);
        };
        // Links lead where they like within the folder, and nowhere else.
        let within = |path: &Path| -> io::Result<Option<Metadata>> {
            let Some(real) = there(fs::canonicalize(path))? else {
                return Ok(None);
            };
            let hidden = real.strip_prefix(&root).map_or(true, |inner| {
                inner
                    .iter()
                    .any(|name| name.as_encoded_bytes().starts_with(b"."))
            });
            if hidden {
                return Ok(None);
            }
            there(fs::metadata(&real))?.map(dated).transpose()
        };
        let mut path = folder.join(relative);
        let Some(mut plain) = within(&path)? else {
            return Ok(Looked::Nothing);
        };
        if plain.is_dir() {
            path.push(INDEX);
            match within(&path)? {
                Some(index) if index.is_file() && slash => plain = index,
                Some(index) if index.is_file() => return Ok(Looked::Folder),
                Some(_) | None => return Ok(Looked::Nothing),
            }
        } else if !plain.is_file() || slash {
            return Ok(Looked::Nothing);
        }
        let mut coded = Vec::new();
        for (coding, end) in CODINGS {
            let mut beside = path.clone().into_os_string();
            beside.push(end);
            if let Some(there) = within(Path::new(&beside))?.filter(Metadata::is_file) {
                coded.push((coding, there));
            }
        }
        Ok(Looked::File(Box::new(Self { path, plain, coded })))
    }

    /// Answers a GET or a HEAD (RFC 9110 section 13.2.2 for what goes before what); `None` where the file cannot be opened,
    /// or is no longer the one that was looked at.
    async fn answer(
        &self,
        head: &Parts,
        keeping: Keeping,
    ) -> io::Result<Option<Response<Bytestream>>> {
        let mut whole = self.serve(&head.headers, None).await?;
        let (coding, file) = self.chosen(whole.headers());
        let length = Some(file.len()).filter(|_| whole.status() == StatusCode::OK);
        if number(whole.headers(), header::CONTENT_LENGTH) != length || !is_of(&whole, file) {
            return Ok(None);
        }
        let tag = tag(coding, file);
        self.describe(whole.headers_mut(), &tag, keeping);
        match judge(head, &tag, file.modified().ok().map(whole_second)) {
            // Nothing has no parts (RFC 9110 section 14.1.2).
            Judged::Send(Some(range)) if file.len() > 0 => {
                let range = range.of(file.len());
                let mut part = self.serve(&head.headers, Some(range)).await?;
                // Of another file it would not fit to what the client has.
                if !is_of(&part, file) || total(part.headers()) != Some(file.len()) {
                    return Ok(None);
                }
                if part.status() == StatusCode::RANGE_NOT_SATISFIABLE {
                    return Ok(Some(unsatisfiable(part.headers())));
                }
                self.describe(part.headers_mut(), &tag, keeping);
                Ok(Some(part))
            }
            Judged::Send(_) if head.method == Method::HEAD => {
                Ok(Some(bare(StatusCode::OK, whole.into_parts().0.headers)))
            }
            Judged::Send(_) => Ok(Some(whole)),
            Judged::Has => {
                let mut headers = whole.into_parts().0.headers;
                for name in [
                    header::CONTENT_LENGTH,
                    header::CONTENT_TYPE,
                    header::CONTENT_ENCODING,
                ] {
                    headers.remove(name);
                }
                Ok(Some(bare(StatusCode::NOT_MODIFIED, headers)))
            }
            Judged::Changed => Ok(Some(nothing(
                StatusCode::PRECONDITION_FAILED,
                HeaderMap::new(),
            ))),
        }
    }

    /// The file as `tower-http` serves it, in the coding that the client likes best.
    async fn serve(
        &self,
        asked: &HeaderMap,
        range: Option<HeaderValue>,
    ) -> io::Result<Response<Bytestream>> {
        let mut file = ServeFile::new(&self.path);
        for (coding, _) in &self.coded {
            file = match *coding {
                "br" => file.precompressed_br(),
                "gzip" => file.precompressed_gzip(),
                _ => file.precompressed_zstd(),
            };
        }
        let mut request = Request::new(Empty::<Bytes>::new());
        for coding in asked.get_all(header::ACCEPT_ENCODING) {
            request
                .headers_mut()
                .append(header::ACCEPT_ENCODING, coding.clone());
        }
        if let Some(range) = range {
            request.headers_mut().insert(header::RANGE, range);
        }
        let served = file.try_call(request).await?;
        Ok(served.map(|body| body.map_err(io::Error::other).boxed_unsync()))
    }

    /// The file that is served in the coding of an answer.
    fn chosen(&self, served: &HeaderMap) -> (&'static str, &Metadata) {
        let coding = served.get(header::CONTENT_ENCODING);
        let coded = self
            .coded
            .iter()
            .find(|(name, _)| coding.is_some_and(|coding| coding == *name));
        coded.map_or(("", &self.plain), |(name, file)| (*name, file))
    }

    fn describe(&self, headers: &mut HeaderMap, tag: &str, keeping: Keeping) {
        const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
        let private = if keeping.private { "private, " } else { "" };
        let keep = match keeping.max_age.as_secs() {
            0 => format!("{private}no-cache"),
            seconds => format!("{private}max-age={seconds}"),
        };
        let texts: [(HeaderName, String); 2] = [
            (header::ETAG, tag.to_owned()),
            (header::CACHE_CONTROL, keep),
        ];
        for (name, value) in texts {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        if !self.coded.is_empty() {
            headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        let kind = headers
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        if let Some(kind) = kind.filter(|kind| kind.starts_with("text/") && !kind.contains(';')) {
            let kind = HeaderValue::try_from(format!("{kind}; charset=utf-8"));
            kind.into_iter().for_each(|kind| {
                headers.insert(header::CONTENT_TYPE, kind);
            });
        }
    }
}

/// A file of a time that HTTP can tell: of the years 1970 to 9999 (RFC 9110 section 5.6.7).
fn dated(file: Metadata) -> io::Result<Metadata> {
    const END: u64 = 253_402_300_800;
    let since = file.modified()?.duration_since(UNIX_EPOCH);
    match since {
        Ok(since) if since.as_secs() < END => Ok(file),
        Ok(_) | Err(_) => {
            let why = "it was changed before 1970 or after 9999, as its time says";
            Err(io::Error::new(io::ErrorKind::InvalidData, why))
        }
    }
}

/// What is there; nothing where there is nothing to be seen.
fn there<T>(looked: io::Result<T>) -> io::Result<Option<T>> {
    match looked {
        Ok(there) => Ok(Some(there)),
        Err(error) => match error.kind() {
            // A name that is too long names nothing either.
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::InvalidFilename
            | io::ErrorKind::PermissionDenied => Ok(None),
            _ => Err(error),
        },
    }
}

/// What stands for the bytes of a file in one coding (RFC 9110 section 8.8.3): when they changed, and how many they are.
fn tag(coding: &str, file: &Metadata) -> String {
    let modified = file.modified().unwrap_or(UNIX_EPOCH);
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("\"{:x}-{:x}{coding}\"", since.as_nanos(), file.len())
}

/// Whether an answer is of the file that was looked at, as far as it says when that changed.
fn is_of(served: &Response<Bytestream>, file: &Metadata) -> bool {
    let said = served.headers().get(header::LAST_MODIFIED);
    let said = said.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    said == file.modified().ok().map(whole_second)
}

fn number(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// How long the whole is of which an answer has a part, or none (RFC 9110 section 14.4).
fn total(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.rsplit_once('/')?.1.parse().ok()
}

/// There is no such part; of what there is another time this says nothing, so no cache keeps it.
fn unsatisfiable(part: &HeaderMap) -> Response<Bytestream> {
    let mut headers = HeaderMap::new();
    for name in [header::CONTENT_RANGE, header::ACCEPT_RANGES] {
        headers.extend(part.get(&name).map(|value| (name, value.clone())));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    nothing(StatusCode::RANGE_NOT_SATISFIABLE, headers)
}

fn nothing(status: StatusCode, mut headers: HeaderMap) -> Response<Bytestream> {
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    bare(status, headers)
}

fn bare(status: StatusCode, headers: HeaderMap) -> Response<Bytestream> {
    let nothing = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(nothing);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// What becomes of a request for a file.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    /// It is sent, or the part of it.
    Send(Option<Part>),
    /// The client has it.
    Has,
    /// It is not the one that the client means.
    Changed,
}

/// By the fields of a request, in the order of RFC 9110 section 13.2.2.
fn judge(head: &Parts, tag: &str, modified: Option<SystemTime>) -> Judged {
    let headers = &head.headers;
    let date = |name: HeaderName| {
        let date = headers.get(name)?.to_str().ok()?;
        httpdate::parse_http_date(date).ok()
    };
    if headers.contains_key(header::IF_MATCH) {
        if !lists(headers, header::IF_MATCH, tag, false) {
            return Judged::Changed;
        }
    } else if let (Some(since), Some(modified)) = (date(header::IF_UNMODIFIED_SINCE), modified)
        && modified > since
    {
        return Judged::Changed;
    }
    if headers.contains_key(header::IF_NONE_MATCH) {
        if lists(headers, header::IF_NONE_MATCH, tag, true) {
            return Judged::Has;
        }
    } else if let (Some(since), Some(modified)) = (date(header::IF_MODIFIED_SINCE), modified)
        && modified <= since
    {
        return Judged::Has;
    }
    let mut ranges = headers.get_all(header::RANGE).iter();
    let part = match (ranges.next(), ranges.next()) {
        (Some(range), None) if head.method == Method::GET => Part::read(range),
        _ => None,
    };
    Judged::Send(part.filter(|_| match headers.get(header::IF_RANGE) {
        None => true,
        // A date is as good only if it is the very one (RFC 9110 section 13.1.5).
        Some(value) => {
            value.as_bytes() == tag.as_bytes()
                || date(header::IF_RANGE) == modified && modified.is_some()
        }
    }))
}

/// Whether a list of tags has this one, or is `*`.
fn lists(headers: &HeaderMap, name: HeaderName, tag: &str, weakly: bool) -> bool {
    let lines = headers.get_all(name).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .any(|listed| {
            let listed = if weakly {
                listed.strip_prefix("W/").unwrap_or(listed)
            } else {
                listed
            };
            listed == "*" || listed == tag
        })
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// From a byte on, to another or to the end.
    From(u64, Option<u64>),
    /// So many bytes at the end, or all where there are fewer.
    Last(u64),
}

impl Part {
    /// One range of bytes; another, or several, are passed over (RFC 9110 section 14.2), and so is one with a number that
    /// none here can hold.
    fn read(range: &HeaderValue) -> Option<Self> {
        let (from, to) = range
            .to_str()
            .ok()?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| digits)
        };
        match (from, to) {
            ("", to) => number(to).map(Self::Last),
            (from, "") => Some(Self::From(number(from)?, None)),
            (from, to) => Some(Self::From(number(from)?, Some(number(to)?))),
        }
    }

    /// As it is asked for of a file of `length` bytes: without what `tower-http` would not take, zeros in front and more
    /// bytes at the end than there are.
    fn of(self, length: u64) -> HeaderValue {
        let range = match self {
            Self::From(from, Some(to)) => format!("bytes={from}-{to}"),
            Self::From(from, None) => format!("bytes={from}-"),
            Self::Last(count) => format!("bytes=-{}", count.min(length)),
        };
        HeaderValue::try_from(range).expect("digits and hyphens are a header value")
    }
}

/// As a field of HTTP has it.
fn whole_second(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_file_in_one_way_or_none() {
        for (rest, path) in [
            ("", ""),
            ("/", ""),
            ("/a.css", "a.css"),
            ("/a/b c", "a/b c"),
            ("/a%20b/c%2dd", "a b/c-d"),
            ("/a/", "a"),
            ("/\u{e4}", "\u{e4}"),
            ("/a..b/c.", "a..b/c."),
        ] {
            assert_eq!(relative(rest), Some(PathBuf::from(path)), "{rest}");
        }
        for rest in [
            "/.env",
            "/a/.git/config",
            "/..",
            "/../x",
            "/a/../b",
            "/%2e%2e/x",
            "/.%2e/x",
            "/%2eenv",
            "//x",
            "/a//b",
            "/a//",
            "/a%2fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%0ab",
            "/%ff",
        ] {
            assert_eq!(relative(rest), None, "{rest}");
        }
    }

    const KEEPING: Keeping = Keeping {
        max_age: Duration::from_secs(60),
        private: false,
    };

    async fn found(folder: &Path, rest: &str, lines: &[(&str, &str)]) -> io::Result<Found> {
        let mut request = Request::get(rest);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        find(&head, folder, rest, KEEPING).await
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_opened_is_an_error() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "a").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
        // Root may read it all the same.
        let readable = fs::File::open(&path).is_ok();
        let found = found(folder.path(), "/a", &[]).await;
        match found {
            Ok(Found::File(file)) => assert!(readable && file.status() == StatusCode::OK),
            Ok(other) => panic!("{other:?}"),
            Err(_) => assert!(!readable),
        }
    }

    #[tokio::test]
    async fn what_is_no_longer_what_was_looked_at_is_not_served() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let (head, ()) = Request::get("/a").body(()).unwrap().into_parts();
        for replace in [
            |path: &Path| fs::remove_file(path).unwrap(),
            |path: &Path| fs::write(path, "another").unwrap(),
            |path: &Path| {
                let file = fs::File::options().write(true).open(path).unwrap();
                file.set_modified(UNIX_EPOCH).unwrap();
            },
        ] {
            fs::write(&path, "a").unwrap();
            let Looked::File(place) = Place::look(folder.path(), Path::new("a"), false).unwrap()
            else {
                panic!("no file");
            };
            replace(&path);
            let answer = place.answer(&head, KEEPING).await.unwrap();
            assert!(answer.is_none(), "{answer:?}");
        }
        fs::remove_file(&path).unwrap();
        let gone = found(folder.path(), "/a", &[]).await;
        assert!(matches!(gone, Ok(Found::Nothing)));
    }

    #[tokio::test]
    async fn a_file_of_a_time_that_http_cannot_tell_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = fs::File::create(folder.path().join("a")).unwrap();
        let before = UNIX_EPOCH - Duration::from_secs(1);
        file.set_modified(before).unwrap();
        assert!(found(folder.path(), "/a", &[]).await.is_err());
    }

    #[tokio::test]
    async fn conditions_are_judged_by_the_file_that_is_served() {
        let folder = tempfile::tempdir().unwrap();
        for (name, seconds) in [("a.js", 1000), ("a.js.br", 2000)] {
            let file = fs::File::create(folder.path().join(name)).unwrap();
            let at = UNIX_EPOCH + Duration::from_secs(seconds);
            file.set_modified(at).unwrap();
        }
        let date = |seconds| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
        for (coding, since, status) in [
            ("br", 2000, 304),
            ("br", 1000, 200),
            ("identity", 1000, 304),
            ("identity", 999, 200),
        ] {
            let since = date(since);
            let lines = [("accept-encoding", coding), ("if-modified-since", &since)];
            let found = found(folder.path(), "/a.js", &lines).await;
            let Ok(Found::File(answer)) = found else {
                panic!("no file");
            };
            assert_eq!(answer.status().as_u16(), status, "{coding} {since}");
        }
    }

    #[tokio::test]
    async fn an_empty_file_has_no_parts_and_is_sent_whole() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "").unwrap();
        for range in ["bytes=0-", "bytes=-5", "bytes=0-0"] {
            let found = found(folder.path(), "/a", &[("range", range)]).await;
            let Ok(Found::File(answer)) = found else {
                panic!("no file");
            };
            assert_eq!(answer.status(), StatusCode::OK, "{range}");
        }
    }

    #[tokio::test]
    async fn a_part_is_sent_as_far_as_there_is_one_however_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "0123456789").unwrap();
        for (range, part) in [
            ("bytes=0-1", Some("0-1")),
            ("bytes=00-01", Some("0-1")),
            ("bytes=0-01", Some("0-1")),
            ("bytes=09-", Some("9-9")),
            ("bytes=8-99", Some("8-9")),
            ("bytes=8-18446744073709551615", Some("8-9")),
            ("bytes=-1", Some("9-9")),
            ("bytes=-05", Some("5-9")),
            ("bytes=-10", Some("0-9")),
            ("bytes=-11", Some("0-9")),
            ("bytes=-999999", Some("0-9")),
            ("bytes=-18446744073709551615", Some("0-9")),
            ("bytes=10-", None),
            ("bytes=010-011", None),
            ("bytes=5-4", None),
            ("bytes=-0", None),
            ("bytes=-00", None),
        ] {
            let found = found(folder.path(), "/a", &[("range", range)]).await;
            let Ok(Found::File(answer)) = found else {
                panic!("no file");
            };
            let (status, said) = match part {
                Some(part) => (StatusCode::PARTIAL_CONTENT, format!("bytes {part}/10")),
                None => (StatusCode::RANGE_NOT_SATISFIABLE, "bytes */10".to_owned()),
            };
            assert_eq!(answer.status(), status, "{range}");
            assert_eq!(answer.headers()["content-range"], said, "{range}");
        }
    }

    #[tokio::test]
    async fn that_there_is_no_such_part_is_kept_by_no_cache() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.txt"), "hello").unwrap();
        let found = found(folder.path(), "/a.txt", &[("range", "bytes=5-")]).await;
        let Ok(Found::File(answer)) = found else {
            panic!("no file");
        };
        assert_eq!(answer.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        let headers = answer.headers();
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["content-range"], "bytes */5");
        assert!(!headers.contains_key("etag") && !headers.contains_key("content-type"));
    }

    const TAG: &str = "\"1-2br\"";
    const AT: &str = "Tue, 24 Nov 2026 10:00:00 GMT";
    const BEFORE: &str = "Tue, 24 Nov 2026 09:59:59 GMT";

    fn judged(method: &str, lines: &[(&str, &str)]) -> String {
        let mut request = Request::builder().method(method);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let modified = httpdate::parse_http_date(AT).ok();
        match judge(&head, TAG, modified) {
            Judged::Send(None) => "send".to_owned(),
            Judged::Send(Some(part)) => part.of(100).to_str().unwrap().to_owned(),
            Judged::Has => "has".to_owned(),
            Judged::Changed => "changed".to_owned(),
        }
    }

    #[test]
    fn conditions_are_judged_in_their_order() {
        for (lines, outcome) in [
            (&[][..], "send"),
            (&[("if-none-match", TAG)], "has"),
            (&[("if-none-match", "W/\"1-2br\"")], "has"),
            (&[("if-none-match", "\"x\", \"1-2br\"")], "has"),
            (&[("if-none-match", "*")], "has"),
            (&[("if-none-match", "\"x\"")], "send"),
            (
                &[("if-none-match", "\"x\""), ("if-modified-since", AT)],
                "send",
            ),
            (&[("if-modified-since", AT)], "has"),
            (&[("if-modified-since", BEFORE)], "send"),
            (&[("if-modified-since", "yesterday")], "send"),
            (&[("if-match", TAG)], "send"),
            (&[("if-match", "*")], "send"),
            (&[("if-match", "W/\"1-2br\"")], "changed"),
            (&[("if-match", "\"x\""), ("if-none-match", TAG)], "changed"),
            (&[("if-unmodified-since", BEFORE)], "changed"),
            (&[("if-unmodified-since", AT)], "send"),
            (&[("range", "bytes=0-1")], "bytes=0-1"),
            (&[("range", "bytes=-5")], "bytes=-5"),
            (&[("range", "bytes=0-1,3-4")], "send"),
            (&[("range", "lines=0-1")], "send"),
            (&[("range", "bytes=-")], "send"),
            (&[("range", "bytes=0-18446744073709551616")], "send"),
            (&[("range", "bytes=0-1"), ("range", "bytes=2-3")], "send"),
            (&[("range", "bytes=0-1"), ("if-range", TAG)], "bytes=0-1"),
            (&[("range", "bytes=0-1"), ("if-range", "\"x\"")], "send"),
            (
                &[("range", "bytes=0-1"), ("if-range", "W/\"1-2br\"")],
                "send",
            ),
            (&[("range", "bytes=0-1"), ("if-range", AT)], "bytes=0-1"),
            (&[("range", "bytes=0-1"), ("if-range", BEFORE)], "send"),
            (&[("range", "bytes=0-1"), ("if-none-match", TAG)], "has"),
        ] {
            assert_eq!(judged("GET", lines), outcome, "{lines:?}");
        }
        assert_eq!(judged("HEAD", &[("range", "bytes=0-1")]), "send");
    }
}
