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
    let (folder, slash) = (folder.to_owned(), rest.ends_with('/') || rest.is_empty());
    let looked = tokio::task::spawn_blocking(move || Place::look(&folder, &relative, slash));
    match looked.await.map_err(io::Error::other)?? {
        Looked::File(place) => Ok(Found::File(Box::new(place.answer(head, keeping).await?))),
        Looked::Folder => {
            let path = head.uri.path();
            let query = head
                .uri
                .query()
                .map_or_else(String::new, |query| format!("?{query}"));
            let location = HeaderValue::try_from(format!("{path}/{query}"));
            // A path with a double slash before it would be another host's.
            let safe = !path.starts_with("//");
            Ok(location
                .ok()
                .filter(|_| safe)
                .map_or(Found::Nothing, Found::Folder))
        }
        Looked::Nothing => Ok(Found::Nothing),
    }
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
            there(fs::metadata(&real))
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

    /// Answers a GET or a HEAD (RFC 9110 section 13.2.2 for what goes before what).
    async fn answer(&self, head: &Parts, keeping: Keeping) -> io::Result<Response<Bytestream>> {
        let mut served = self.serve(&Method::HEAD, &head.headers, None).await?;
        let tag = self.tag(served.headers());
        let modified = self.plain.modified().ok().map(whole_second);
        let headers = served.headers_mut();
        self.describe(headers, &tag, keeping);
        match judge(head, &tag, modified) {
            Judged::Send(range) => {
                if range.is_none() && head.method == Method::HEAD {
                    return Ok(served);
                }
                let mut whole = self.serve(&head.method, &head.headers, range).await?;
                self.describe(whole.headers_mut(), &tag, keeping);
                Ok(whole)
            }
            Judged::Has => {
                for name in [
                    header::CONTENT_LENGTH,
                    header::CONTENT_TYPE,
                    header::CONTENT_ENCODING,
                ] {
                    headers.remove(name);
                }
                Ok(bare(
                    StatusCode::NOT_MODIFIED,
                    served.into_parts().0.headers,
                ))
            }
            Judged::Changed => Ok(bare(StatusCode::PRECONDITION_FAILED, HeaderMap::new())),
        }
    }

    /// The file as `tower-http` serves it, in the coding that the client likes best.
    async fn serve(
        &self,
        method: &Method,
        asked: &HeaderMap,
        range: Option<&HeaderValue>,
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
        *request.method_mut() = method.clone();
        for coding in asked.get_all(header::ACCEPT_ENCODING) {
            request
                .headers_mut()
                .append(header::ACCEPT_ENCODING, coding.clone());
        }
        if let Some(range) = range {
            request.headers_mut().insert(header::RANGE, range.clone());
        }
        let served = file.try_call(request).await?;
        Ok(served.map(|body| body.map_err(io::Error::other).boxed_unsync()))
    }

    /// What stands for the bytes of a file in one coding (RFC 9110 section 8.8.3): when they changed, and how many they are.
    fn tag(&self, served: &HeaderMap) -> String {
        let coding = served.get(header::CONTENT_ENCODING);
        let coded = self
            .coded
            .iter()
            .find(|(name, _)| coding.is_some_and(|coding| coding == *name));
        let (name, file) = coded.map_or(("", &self.plain), |(name, file)| (*name, file));
        let modified = file.modified().unwrap_or(UNIX_EPOCH);
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("\"{:x}-{:x}{name}\"", since.as_nanos(), file.len())
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

fn bare(status: StatusCode, headers: HeaderMap) -> Response<Bytestream> {
    let nothing = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(nothing);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if status == StatusCode::PRECONDITION_FAILED {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    }
    response
}

/// What becomes of a request for a file.
#[derive(Debug, PartialEq, Eq)]
enum Judged<'h> {
    /// It is sent, or the part of it.
    Send(Option<&'h HeaderValue>),
    /// The client has it.
    Has,
    /// It is not the one that the client means.
    Changed,
}

/// By the fields of a request, in the order of RFC 9110 section 13.2.2.
fn judge<'h>(head: &'h Parts, tag: &str, modified: Option<SystemTime>) -> Judged<'h> {
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
    let range = headers.get(header::RANGE).filter(|range| {
        head.method == Method::GET
            && is_one_range(range)
            && headers.get_all(header::RANGE).iter().count() == 1
    });
    Judged::Send(range.filter(|_| match headers.get(header::IF_RANGE) {
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

/// Whether it is one range of bytes; another, or several, are passed over (RFC 9110 section 14.2).
fn is_one_range(value: &HeaderValue) -> bool {
    let range = value
        .to_str()
        .ok()
        .and_then(|value| value.strip_prefix("bytes="));
    range
        .and_then(|range| range.split_once('-'))
        .is_some_and(|(from, to)| {
            let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            digits(from) && digits(to) && !(from.is_empty() && to.is_empty())
        })
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
            Judged::Send(Some(range)) => range.to_str().unwrap().to_owned(),
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
