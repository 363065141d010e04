//! Who may ask a cell for what: signing in before it, and the paths that are for everybody.
//!
//! A path is for everybody only where no reader could take it for another one: on any doubt it is not.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};

use super::problem::{Refusal, quoted};

/// The longest public path, in bytes.
pub(super) const PUBLIC_MAX: usize = 256;
/// The pattern of a path that [`PlainPath::parse`] accepts.
pub(super) const PUBLIC_PATTERN: &str = r"^/$|^(/(?!\.+(/|$))[A-Za-z0-9._~!$&'()*+,=:@-]+)+$";
/// The pattern of a name that [`copied_header`] accepts.
pub(super) const HEADER_PATTERN: &str = "^[a-z0-9-]+$";

/// How clients sign in before they reach a cell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SignIn {
    /// Who knows them.
    pub by: SignInBy,
    /// What is for everybody.
    pub public: Box<[PlainPath]>,
}

/// Who knows the clients of a cell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SignInBy {
    /// A file of names and hashed passwords (RFC 7617).
    Basic {
        /// The file, `{cell}` already replaced.
        file: Arc<str>,
        /// What the client is told that the password is for.
        realm: Box<str>,
        /// Whether the cell sees the password, too.
        keep_authorization: bool,
    },
    /// A server that is asked about each request.
    Forward {
        /// Where it is asked, `{cell}` already replaced.
        url: Uri,
        /// How long it may take.
        timeout: Duration,
        /// The field of its answer that says who the client is.
        user_from: HeaderName,
        /// The fields of its answer that the cell gets.
        copy: Box<[HeaderName]>,
    },
}

impl SignIn {
    /// Whether a path is for everybody: it lies at or below a public one, and can be read in one way only.
    pub fn is_public(&self, path: &str) -> bool {
        is_plain(path) && self.public.iter().any(|public| public.covers(path))
    }

    /// Whether everything is for everybody, so that there is no path to doubt.
    pub fn is_open(&self) -> bool {
        self.public.iter().any(PlainPath::is_all)
    }

    /// The file of passwords, where there is one.
    pub fn file(&self) -> Option<&Arc<str>> {
        match &self.by {
            SignInBy::Basic { file, .. } => Some(file),
            SignInBy::Forward { .. } => None,
        }
    }

    /// The fields that only the server may set, besides those that every cell gets from the router only.
    pub fn fields(&self) -> &[HeaderName] {
        match &self.by {
            SignInBy::Basic { .. } => &[],
            SignInBy::Forward { copy, .. } => copy,
        }
    }
}

/// A path, with all below it, that nobody reads in another way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PlainPath(Box<str>);

impl PlainPath {
    /// Reads one; `/` is every path.
    ///
    /// # Errors
    /// If it has no leading slash, ends in one, or holds anything that two readers could read in two ways.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let good = text == "/" || (is_plain(text) && !text.ends_with('/'));
        if good && text.len() <= PUBLIC_MAX {
            return Ok(Self(text.into()));
        }
        Err(Refusal::new(
            format!("{} is no plain path", quoted(text)),
            "write whole segments of letters, digits and -._~!$&'()*+,=:@, as in \"/assets\"; what is below it counts, too",
        ))
    }

    fn is_all(&self) -> bool {
        &*self.0 == "/"
    }

    fn covers(&self, path: &str) -> bool {
        self.rest(path).is_some()
    }

    /// What is left of a path that lies at or below this one: nothing, or what begins with a slash.
    pub fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        if self.is_all() {
            return path.starts_with('/').then_some(path);
        }
        let rest = path.strip_prefix(&*self.0)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }
}

/// Whether nobody reads a path in another way: segments that are none of dots or nothing, of characters that mean themselves.
/// An escape, a parameter (`;`), a backslash or a byte beyond ASCII is a doubt.
fn is_plain(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else {
        return false;
    };
    let character = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte);
    let segment = |segment: &str| {
        !segment.is_empty()
            && segment.bytes().any(|byte| byte != b'.')
            && segment.bytes().all(character)
    };
    let inner = rest.strip_suffix('/').unwrap_or(rest);
    rest.is_empty() || (inner.split('/').all(segment))
}

/// A field of a server's answer that a cell may get.
pub(super) fn copied_header(text: &str) -> Result<HeaderName, Refusal> {
    /// What frames a message, says where it goes, or is the router's own to say.
    const NEVER: [&str; 15] = [
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "forwarded",
        "x-real-ip",
        "x-request-id",
    ];
    const NEVER_BEGINS: [&str; 3] = ["cell-", "fly-", "x-forwarded-"];
    let lower = text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let name = HeaderName::try_from(text).ok().filter(|_| lower);
    let refused = NEVER.contains(&text) || NEVER_BEGINS.iter().any(|begin| text.starts_with(begin));
    name.filter(|_| !refused).ok_or_else(|| {
        Refusal::new(
            format!("{} is no field that a cell may get from such a server", quoted(text)),
            "write a name in lower case, with hyphens, as in \"remote-groups\"; none that frames, routes or signs a request",
        )
    })
}

/// Where a server is asked.
pub(super) fn forward_url(text: &str) -> Result<Uri, Refusal> {
    let uri = text.parse::<Uri>().ok().filter(|uri| {
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let host = uri.authority().is_some_and(|authority| {
            !authority.host().is_empty() && !authority.as_str().contains('@')
        });
        scheme && host && !text.contains('#')
    });
    uri.ok_or_else(|| {
        Refusal::new(
            "this is no URL that can be asked",
            "write http:// (on a private network) or https://, a host and a path, as in \"http://auth.internal:9091/verify\"",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(paths: &[&str], path: &str) -> bool {
        let public = paths.iter().map(|path| PlainPath::parse(path).unwrap());
        let sign_in = SignIn {
            by: SignInBy::Basic {
                file: "f".into(),
                realm: "r".into(),
                keep_authorization: false,
            },
            public: public.collect(),
        };
        sign_in.is_public(path)
    }

    #[test]
    fn public_is_what_lies_at_or_below_a_public_path() {
        for path in [
            "/assets",
            "/assets/",
            "/assets/a.css",
            "/assets/a/b-c_d~e",
            "/up",
        ] {
            assert!(public(&["/assets", "/up"], path), "{path}");
        }
        for path in ["/", "/assetsx", "/asset", "/x/assets", "/upper"] {
            assert!(!public(&["/assets", "/up"], path), "{path}");
        }
        for path in ["/", "/x", "/x/y/"] {
            assert!(public(&["/"], path), "{path}");
        }
    }

    #[test]
    fn a_path_that_could_be_another_is_not_public() {
        for path in [
            "/assets/../admin",
            "/assets/..",
            "/assets/./x",
            "/assets/.../x",
            "/assets//admin",
            "//assets/x",
            "/assets//",
            "/assets/%2e%2e/admin",
            "/assets%2fadmin",
            "/assets/%61",
            "/%61ssets/x",
            "/assets;x=1",
            "/assets/;/../admin",
            "/assets/..;/admin",
            "/assets\\..\\admin",
            "/Assets/x",
            "/ASSETS",
            "/assets/\u{fc}",
            "/assets/x\u{0}",
            "/assets/x y",
            "/assets#",
            "assets",
            "*",
            "",
        ] {
            assert!(!public(&["/assets"], path), "{path}");
            assert!(
                !public(&["/"], path)
                    || path.eq_ignore_ascii_case("/assets")
                    || path == "/Assets/x",
                "{path}"
            );
        }
    }

    #[test]
    fn public_paths_are_written_plainly() {
        for text in [
            "", "x", "/x/", "//", "/x//y", "/%41", "/..", "/x/.", "/a;b", "/a?b", "/ä",
        ] {
            assert!(PlainPath::parse(text).is_err(), "{text}");
        }
        assert!(PlainPath::parse(&format!("/{}", "x".repeat(PUBLIC_MAX))).is_err());
    }

    #[test]
    fn a_server_is_asked_at_a_plain_url() {
        for good in [
            "http://auth.internal/verify",
            "http://[fdaa::3]:9091/x?cell=a",
            "https://auth.example.com/verify",
            "http://a:1",
        ] {
            assert!(forward_url(good).is_ok(), "{good}");
        }
        for bad in [
            "ftp://a/",
            "https://",
            "a/verify",
            "/verify",
            "http://",
            "http://u:p@a/",
            "http://a/#x",
            "",
        ] {
            assert!(forward_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_server_sets_no_field_that_routes_or_signs() {
        for good in [
            "remote-user",
            "authorization",
            "cookie",
            "x-auth-request-email",
        ] {
            assert!(copied_header(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "host",
            "cell-user",
            "cell-signature",
            "fly-replay-src",
            "x-forwarded-for",
            "Remote-User",
            "remote_user",
            "te",
            "a b",
        ] {
            assert!(copied_header(bad).is_err(), "{bad}");
        }
    }
}
