//! How a client says who it is, and how a server is asked about it.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

use super::identity::{self, Introduction, Peer};
use super::lines::Lines;
use super::{CELL_USER, forward, hop_by_hop};
use crate::registry::{SignIn, SignInBy};

/// The longest name or password that is looked at, in bytes.
const CREDENTIALS_MAX: usize = 1024;
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// What some frameworks take for the path instead of the path.
const OTHER_PATHS: [&str; 2] = ["x-original-url", "x-rewrite-url"];

/// A name and a password (RFC 7617).
#[derive(PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub name: String,
    /// The password, in whatever coding.
    pub password: Vec<u8>,
}

/// Without the password.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({:?})", self.name)
    }
}

impl Credentials {
    /// Those of a request; none where there are none that can be read in one way only.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return None;
        };
        let (scheme, token) = line.to_str().ok()?.split_once(' ')?;
        let token = token.trim_matches(' ');
        if !scheme.eq_ignore_ascii_case("basic") || token.len() > CREDENTIALS_MAX * 3 {
            return None;
        }
        let read = data_encoding::BASE64.decode(token.as_bytes()).ok()?;
        let colon = read.iter().position(|byte| *byte == b':')?;
        let (name, password) = (&read[..colon], &read[colon + 1..]);
        let name = std::str::from_utf8(name).ok()?;
        let fits = name.len() <= CREDENTIALS_MAX && password.len() <= CREDENTIALS_MAX;
        // A name goes into a field of the request to the cell.
        (fits && !name.is_empty() && HeaderValue::from_str(name).is_ok()).then(|| Self {
            name: name.to_owned(),
            password: password.to_vec(),
        })
    }
}

/// What the client is to answer to be let in (RFC 7617 section 2).
pub fn challenge(realm: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("Basic realm=\"{realm}\", charset=\"UTF-8\"")).ok()
}

/// Whether a request names another path beside its own, which a cell might take for it.
pub fn names_another_path(headers: &HeaderMap) -> bool {
    headers.keys().any(is_another_path)
}

fn is_another_path(name: &HeaderName) -> bool {
    OTHER_PATHS.iter().any(|other| spells(name, other))
}

/// What is known of a client that has signed in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignedIn {
    /// Who it is.
    pub user: Option<HeaderValue>,
    /// What else the server says of it.
    pub fields: HeaderMap,
}

/// The head with which a server is asked about a request: a GET without a body that says what the request is. `authority`
/// is the request's.
pub fn question(
    head: &Parts,
    peer: Peer,
    introduction: &Introduction<'_>,
    sign_in: &SignIn,
    pseudonym: &str,
) -> HeaderMap {
    /// What would make the server's answer another than yes or no.
    const NOT_ASKED: [HeaderName; 10] = [
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::EXPECT,
        header::RANGE,
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
        header::IF_RANGE,
    ];
    let mut headers = head.headers.clone();
    hop_by_hop::strip(&mut headers);
    for name in NOT_ASKED.iter().chain(&[header::HOST, header::TE]) {
        headers.remove(name);
    }
    // The server judges by the client's credentials, also where it sets others for the cell.
    let credential = |name: &HeaderName| name == header::AUTHORIZATION || name == header::COOKIE;
    remove_fields(&mut headers, |name| {
        says_what_is_asked(name) || (is_the_servers(name, sign_in) && !credential(name))
    });
    let mut lines = Lines::default();
    identity::introduce(&mut headers, peer, introduction, &mut lines);
    forward::enter_via(&mut lines, head.version, pseudonym);
    lines.append_to(&mut headers);
    forward::join_cookies(&mut headers);
    let target = head.uri.path_and_query();
    let target = target.map_or("/", http::uri::PathAndQuery::as_str);
    for (name, value) in [
        (
            X_FORWARDED_METHOD,
            HeaderValue::from_str(head.method.as_str()),
        ),
        (X_FORWARDED_URI, HeaderValue::from_str(target)),
    ] {
        if let Ok(value) = value {
            headers.insert(name, value);
        }
    }
    // Who is let in depends on it: what a proxy was told by the client does not count.
    headers.insert(X_FORWARDED_HOST, introduction.authority.clone());
    headers
}

/// Whether a field is one by which servers judge what a request is: only the router says that.
fn says_what_is_asked(name: &HeaderName) -> bool {
    let forwarded = begins(name, "x-forwarded-") && !identity::is_forwarding(name.as_str());
    forwarded || begins(name, "x-original-") || is_another_path(name)
}

/// What a server that lets a request pass says of its client.
pub fn granted(answer: &HeaderMap, sign_in: &SignIn) -> SignedIn {
    let SignInBy::Forward {
        user_from, copy, ..
    } = &sign_in.by
    else {
        return SignedIn::default();
    };
    let mut fields = HeaderMap::new();
    for name in copy {
        for value in answer.get_all(name) {
            fields.append(name, value.clone());
        }
    }
    let mut users = answer.get_all(user_from).iter();
    let user = match (users.next(), users.next()) {
        (Some(user), None) if !user.is_empty() => Some(user.clone()),
        _ => None,
    };
    SignedIn { user, fields }
}

/// Says to the cell who the client is, and removes what the client may not say or the cell need not see. For public paths,
/// too, where nobody has signed in.
pub fn tell(headers: &mut HeaderMap, sign_in: &SignIn, signed_in: Option<&SignedIn>) {
    silence(headers, sign_in);
    match &sign_in.by {
        SignInBy::Basic {
            keep_authorization: true,
            ..
        } => {}
        SignInBy::Basic { .. } => _ = headers.remove(header::AUTHORIZATION),
        // The server has judged by the path, and by no other.
        SignInBy::Forward { .. } => remove_fields(headers, is_another_path),
    }
    let Some(signed_in) = signed_in else { return };
    if let Some(user) = &signed_in.user {
        headers.insert(CELL_USER, user.clone());
    }
    for (name, value) in &signed_in.fields {
        headers.append(name, value.clone());
    }
}

/// Removes from trailers what only the server may set, and what would name another path behind the back of whoever looked
/// at the head: however they are spelled.
pub fn silence_trailers(trailers: &mut HeaderMap, sign_in: &SignIn) {
    silence(trailers, sign_in);
    remove_fields(trailers, is_another_path);
}

/// Removes the fields that only the server may set, however they are spelled.
fn silence(headers: &mut HeaderMap, sign_in: &SignIn) {
    remove_fields(headers, |name| is_the_servers(name, sign_in));
}

/// Whether only the server may set a field.
fn is_the_servers(name: &HeaderName, sign_in: &SignIn) -> bool {
    let user_from = match &sign_in.by {
        SignInBy::Forward { user_from, .. } => Some(user_from),
        SignInBy::Basic { .. } => None,
    };
    let mut fields = user_from.into_iter().chain(sign_in.fields());
    spells(name, CELL_USER.as_str()) || fields.any(|field| spells(name, field.as_str()))
}

/// Whether a name begins with `prefix` (in hyphens), if its underscores are read as hyphens.
fn begins(name: &HeaderName, prefix: &str) -> bool {
    let hyphen = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let bytes = name.as_str().bytes().map(hyphen);
    name.as_str().len() >= prefix.len() && bytes.zip(prefix.bytes()).all(|(a, b)| a == b)
}

/// Whether a name is `other` (in hyphens) to a reader that cannot tell underscores from hyphens.
fn spells(name: &HeaderName, other: &str) -> bool {
    name.as_str().len() == other.len() && begins(name, other)
}

/// Removes fields by their names.
fn remove_fields(headers: &mut HeaderMap, which: impl Fn(&HeaderName) -> bool) {
    let names = headers.keys().filter(|name| which(name));
    for name in names.cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Option<(String, String)> {
        let lines = lines
            .iter()
            .map(|line| (header::AUTHORIZATION, HeaderValue::from_str(line).unwrap()));
        let credentials = Credentials::read(&lines.collect())?;
        let password = String::from_utf8(credentials.password).unwrap();
        Some((credentials.name, password))
    }

    #[test]
    fn credentials_are_read_in_one_way_only() {
        let pair = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(read(&["Basic YWxpY2U6c2VjcmV0"]), pair("alice", "secret"));
        assert_eq!(
            read(&["bAsIc   YWxpY2U6c2VjcmV0 "]),
            pair("alice", "secret")
        );
        assert_eq!(read(&["Basic YTpiOmM="]), pair("a", "b:c"));
        assert_eq!(read(&["Basic YTo="]), pair("a", ""));
        for none in [
            &[][..],
            &["Basic YWxpY2U6c2VjcmV0", "Basic YWxpY2U6c2VjcmV0"],
            &["Basic YWxpY2U6c2VjcmV0, Basic YTo="],
            &["Bearer YWxpY2U6c2VjcmV0"],
            &["Basic"],
            &["Basic "],
            &["Basic YTpiOmM"],
            &["Basic !!!!"],
            &["Basic YWxpY2U="],
            // No name; a line feed in one; a name that is no UTF-8.
            &["Basic OnNlY3JldA=="],
            &["Basic YQpiOmM="],
            &["Basic /zpi"],
        ] {
            assert_eq!(read(none), None, "{none:?}");
        }
        let long = data_encoding::BASE64.encode(&[b'a'; 5000]);
        assert_eq!(read(&[&format!("Basic {long}")]), None);
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    fn basic(keep_authorization: bool) -> SignIn {
        let by = SignInBy::Basic {
            file: "f".into(),
            realm: "r".into(),
            keep_authorization,
        };
        let public = Box::default();
        SignIn { by, public }
    }

    fn forward() -> SignIn {
        let by = SignInBy::Forward {
            url: "http://auth/verify".parse().unwrap(),
            timeout: std::time::Duration::from_secs(1),
            user_from: HeaderName::from_static("remote-user"),
            copy: [HeaderName::from_static("remote-groups")].into(),
        };
        let public = Box::default();
        SignIn { by, public }
    }

    const FORGED: [(&str, &str); 6] = [
        ("cell-user", "admin"),
        ("cell_user", "admin"),
        ("remote-user", "admin"),
        ("remote_groups", "admins"),
        ("remote-groups", "admins"),
        ("x-mine", "1"),
    ];

    #[test]
    fn what_only_the_server_says_no_client_says() {
        for signed_in in [None, Some(SignedIn::default())] {
            let mut got = headers(&FORGED);
            // It has judged by the path.
            for other in ["x-original-url", "x_rewrite-url"] {
                got.insert(other, HeaderValue::from_static("/admin"));
            }
            tell(&mut got, &forward(), signed_in.as_ref());
            assert_eq!(got.keys().collect::<Vec<_>>(), ["x-mine"]);
        }
        let answer = headers(&[
            ("remote-user", "alice"),
            ("remote-groups", "a"),
            ("remote-groups", "b"),
            ("remote-email", "x"),
        ]);
        let mut got = headers(&FORGED);
        tell(&mut got, &forward(), Some(&granted(&answer, &forward())));
        assert_eq!(got["cell-user"], "alice");
        assert_eq!(
            got.get_all("remote-groups").iter().collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert!(!got.contains_key("remote-email") && !got.contains_key("remote-user"));
    }

    #[test]
    fn two_users_are_nobody() {
        for lines in [
            &[("remote-user", "alice"), ("remote-user", "admin")][..],
            &[("remote-user", "")],
            &[],
        ] {
            assert_eq!(granted(&headers(lines), &forward()).user, None);
        }
    }

    #[test]
    fn the_password_stays_here_unless_it_is_asked_for() {
        let user = Some(HeaderValue::from_static("alice"));
        let fields = HeaderMap::new();
        let signed_in = SignedIn { user, fields };
        for (keep, there) in [(false, false), (true, true)] {
            let mut got = headers(&[("authorization", "Basic x"), ("cell-user", "admin")]);
            tell(&mut got, &basic(keep), Some(&signed_in));
            assert_eq!(got.contains_key("authorization"), there);
            assert_eq!(got["cell-user"], "alice");
        }
        let mut public = headers(&[("authorization", "Basic x")]);
        tell(&mut public, &basic(false), None);
        assert!(public.is_empty());
    }

    fn asked(head: &Parts, sign_in: &SignIn) -> HeaderMap {
        let (authority, id) = (
            HeaderValue::from_static("alice.example.com"),
            HeaderValue::from_static("1"),
        );
        let introduction = Introduction {
            cell: "alice",
            authority: &authority,
            request_id: &id,
            stripped_prefix: None,
        };
        let peer = Peer {
            ip: "192.0.2.7".parse().unwrap(),
            trusted: false,
            edge: false,
            tls: true,
        };
        question(head, peer, &introduction, sign_in, "cell-router-1")
    }

    #[test]
    fn a_server_is_asked_what_the_request_is_and_by_whom() {
        let request = http::Request::post("/a/b?c=d")
            .header("host", "alice.example.com")
            .header("cookie", "session=1")
            .header("authorization", "Bearer x")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("content-length", "5")
            .header("if-none-match", "x")
            .header("range", "bytes=0-1")
            .header("x-forwarded-uri", "/public")
            .header("x_forwarded_method", "GET")
            .header("x-forwarded-host", "evil")
            .header("x-original-url", "https://alice.example.com/public")
            .header("x_original_uri", "/public")
            .header("x-original_method", "GET")
            .header("x-rewrite-url", "/public")
            .header("x_rewrite_url", "/public")
            .header("x-forwarded-path", "/public")
            .header("x_forwarded_user", "admin")
            .header("remote-user", "admin")
            .header("x-forwarded-for", "1.1.1.1");
        let (head, ()) = request.body(()).unwrap().into_parts();
        let mut got = asked(&head, &forward());
        let mut expect = |name: &str, value: &str| {
            assert_eq!(got.remove(name).unwrap(), value, "{name}");
        };
        for (name, value) in [
            ("x-forwarded-method", "POST"),
            ("x-forwarded-uri", "/a/b?c=d"),
            ("x-forwarded-host", "alice.example.com"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-for", "192.0.2.7"),
            ("cookie", "session=1"),
            ("authorization", "Bearer x"),
            ("cell-name", "alice"),
            ("x-request-id", "1"),
            ("via", "1.1 cell-router-1"),
        ] {
            expect(name, value);
        }
        assert!(got.is_empty(), "{got:?}");
    }

    #[test]
    fn a_server_that_sets_a_credential_is_shown_the_clients() {
        let mut sign_in = forward();
        if let SignInBy::Forward {
            user_from, copy, ..
        } = &mut sign_in.by
        {
            *user_from = HeaderName::from_static("authorization");
            *copy = [header::AUTHORIZATION, header::COOKIE, CELL_USER].into();
        }
        let request = http::Request::get("/")
            .header("authorization", "Bearer x")
            .header("cookie", "a=1")
            .header("cell_user", "admin");
        let (head, ()) = request.body(()).unwrap().into_parts();
        let got = asked(&head, &sign_in);
        assert_eq!(got["authorization"], "Bearer x");
        assert_eq!(got["cookie"], "a=1");
        assert!(!got.contains_key("cell_user"));
        // The cell gets the server's, or none.
        let mut got = head.headers;
        tell(&mut got, &sign_in, Some(&SignedIn::default()));
        assert!(got.is_empty(), "{got:?}");
    }

    #[test]
    fn another_path_is_seen_however_it_is_spelled() {
        for name in ["x-original-url", "x_original_url", "x-rewrite-url"] {
            assert!(names_another_path(&headers(&[(name, "/")])), "{name}");
        }
        for name in ["x-original-host", "x-original-ur", "x-original-urls"] {
            assert!(!names_another_path(&headers(&[(name, "/")])), "{name}");
        }
    }
}
