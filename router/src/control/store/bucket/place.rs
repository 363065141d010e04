//! Which object a registry's name means, and where its store is. Without I/O.
//!
//! `s3://BUCKET/KEY`, or `s3:///KEY` with the bucket's name in `BUCKET_NAME`, as Fly.io sets it for Tigris. The rest is in
//! the variables that every S3 program reads: `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` (AWS itself unless set),
//! `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_CA_BUNDLE`, and what else `object_store` knows.

use http::Uri;

/// What a registry's name begins with when it lies in a bucket.
pub(super) const SCHEME: &str = "s3://";

/// An object, and where to ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The bucket.
    pub(super) bucket: String,
    /// The object's key.
    pub(super) key: String,
    /// The bucket's URL, without a slash at its end; none for AWS itself.
    pub(super) url: Option<String>,
    /// The region that requests are signed for.
    pub(super) region: String,
}

impl Place {
    /// What a name and the environment mean.
    ///
    /// # Errors
    /// What is missing or wrong, and what to do, as text.
    pub(super) fn read(
        name: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let rest = name.strip_prefix(SCHEME).unwrap_or(name);
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let bucket = match bucket {
            "" => {
                variable("BUCKET_NAME").ok_or("it names no bucket, and BUCKET_NAME is not set")?
            }
            bucket => bucket.to_owned(),
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if !bucket.bytes().all(is_name) {
            return Err(format!("{bucket:?} is no name of a bucket"));
        }
        if key.is_empty() || key.ends_with('/') {
            return Err("it names no object; write s3://BUCKET/registry.json".to_owned());
        }
        let endpoint = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
        let ways = [
            "AWS_ACCESS_KEY_ID",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ];
        // Only on AWS itself may a machine's role stand for keys.
        if endpoint.is_some() && !ways.iter().any(|way| variable(way).is_some()) {
            return Err("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned());
        }
        let in_path = variable("AWS_VIRTUAL_HOSTED_STYLE_REQUEST").is_some_and(|it| it == "false");
        let url = endpoint.map(|endpoint| url(&endpoint, &bucket, in_path));
        Ok(Self {
            url: url.transpose()?,
            region: variable("AWS_REGION")
                .or_else(|| variable("AWS_DEFAULT_REGION"))
                .unwrap_or_else(|| "us-east-1".to_owned()),
            key: key.to_owned(),
            bucket,
        })
    }
}

/// Whether a variable is one that `object_store` may read by itself: not those that [`Place::read`] has understood, nor
/// `AWS_ENDPOINT`, which means the same to it.
pub(super) fn is_setting(name: &str) -> bool {
    let says_where = name.starts_with("AWS_ENDPOINT") && name != "AWS_ENDPOINT_URL_STS";
    name.starts_with("AWS_") && !says_where
}

/// A bucket's URL: its name stands before the store's, unless that is an address, or `in_path` is wanted.
fn url(endpoint: &str, bucket: &str, in_path: bool) -> Result<String, String> {
    // What it says instead may be a secret.
    let wrong = || {
        "AWS_ENDPOINT_URL_S3 is no URL such as https://fly.storage.tigris.dev, without a user or a password in it"
            .to_owned()
    };
    let uri: Uri = endpoint.parse().map_err(|_| wrong())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(wrong());
    };
    if !["http", "https"].contains(&scheme) || authority.as_str().contains('@') {
        return Err(wrong());
    }
    let path = uri.path().trim_end_matches('/');
    let host = authority.host();
    let is_name = host.contains('.') && host.bytes().any(|byte| byte.is_ascii_alphabetic());
    Ok(if is_name && path.is_empty() && !in_path {
        format!("{scheme}://{bucket}.{authority}")
    } else {
        format!("{scheme}://{authority}{path}/{bucket}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: (&str, &str) = ("AWS_ACCESS_KEY_ID", "k");

    fn read(name: &str, variables: &[(&str, &str)]) -> Result<Place, String> {
        Place::read(name, |wanted| {
            let found = variables.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn url_at(endpoint: &str) -> Option<String> {
        let variables = [KEYS, ("AWS_ENDPOINT_URL_S3", endpoint)];
        read("s3://cells/registry.json", &variables).unwrap().url
    }

    #[test]
    fn a_bucket_goes_before_a_name_and_behind_an_address() {
        for (endpoint, url) in [
            (
                "https://fly.storage.tigris.dev",
                "https://cells.fly.storage.tigris.dev",
            ),
            (
                "https://fly.storage.tigris.dev/",
                "https://cells.fly.storage.tigris.dev",
            ),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000/cells"),
            ("http://[::1]:9000", "http://[::1]:9000/cells"),
            ("http://localhost:9000/", "http://localhost:9000/cells"),
            ("https://example.com/s3", "https://example.com/s3/cells"),
        ] {
            assert_eq!(url_at(endpoint).as_deref(), Some(url), "{endpoint}");
        }
        let in_path = ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "false");
        let variables = [
            KEYS,
            ("AWS_ENDPOINT_URL", "https://s3.example.com"),
            in_path,
        ];
        let place = read("s3://cells/registry.json", &variables).unwrap();
        assert_eq!(place.url.as_deref(), Some("https://s3.example.com/cells"));
    }

    #[test]
    fn a_bucket_may_be_named_by_the_platform() {
        let place = read("s3:///a/registry.json", &[("BUCKET_NAME", "cells")]).unwrap();
        assert_eq!((&*place.bucket, &*place.key), ("cells", "a/registry.json"));
        assert_eq!((place.url, &*place.region), (None, "us-east-1"));
        let place = read("s3://b/k", &[("AWS_REGION", "auto")]).unwrap();
        assert_eq!(
            (&*place.bucket, &*place.key, &*place.region),
            ("b", "k", "auto")
        );
    }

    #[test]
    fn what_is_missing_is_said() {
        let at = |endpoint| [KEYS, ("AWS_ENDPOINT_URL", endpoint)];
        for (name, variables, said) in [
            ("s3://", &[][..], "BUCKET_NAME"),
            ("s3:///registry.json", &[], "BUCKET_NAME"),
            ("s3://cells", &[], "names no object"),
            ("s3://cells/", &[], "names no object"),
            ("s3://cells/a/", &[], "names no object"),
            ("s3://a b/r.json", &[], "no name of a bucket"),
            (
                "s3://c/r",
                &[("AWS_ENDPOINT_URL", "http://h.x")],
                "AWS_ACCESS_KEY_ID",
            ),
            ("s3://c/r", &at("fly.storage.tigris.dev"), "no URL"),
            ("s3://c/r", &at("ftp://h.x"), "no URL"),
            ("s3://c/r", &at("https://user@h.x"), "no URL"),
            ("s3://c/r", &at("https://user:pass word@h.x"), "no URL"),
            ("s3://c/r", &at("https://user:password@h.x"), "a password"),
        ] {
            let why = read(name, variables).unwrap_err();
            assert!(why.contains(said), "{name}: {why}");
            assert!(!why.contains("user:") && !why.contains("h.x"), "{why}");
        }
    }

    #[test]
    fn only_one_variable_says_where_the_store_is() {
        for (name, counts) in [
            ("AWS_ENDPOINT", false),
            ("AWS_ENDPOINT_URL", false),
            ("AWS_ENDPOINT_URL_S3", false),
            ("AWS_ENDPOINT_URL_STS", true),
            ("AWS_ACCESS_KEY_ID", true),
            ("AWS_REGION", true),
            ("HOME", false),
        ] {
            assert_eq!(is_setting(name), counts, "{name}");
        }
    }
}
