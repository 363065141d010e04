//! What the cell is told at start: settings as written, and the configuration that follows from them.
//!
//! Owns every default and its unit. Never reads the environment after start, and never shows a secret.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::beat::Beat;
use crate::front_door::FrontDoor;
use crate::identity::Identity;

/// One tenant's cell: posts, files and live updates, on a machine and a volume of its own.
#[derive(clap::Parser)]
#[command(version)]
pub(crate) struct Settings {
    /// Name of this cell in the registry: one DNS label
    #[arg(long, env = "CELL_NAME")]
    name: String,

    /// Secret shared with the router; `new,old` while one is rotated. Without one, every request is served
    #[arg(long, env = "CELL_SECRET", hide_env_values = true)]
    secret: Option<String>,

    /// Address to listen on; `[::]` takes IPv4 too; port 0 lets the system choose
    #[arg(long, env = "CELL_LISTEN", default_value = "[::]:8080")]
    listen: SocketAddr,

    /// Folder of the volume; made if it is absent
    #[arg(long, env = "CELL_DATA", default_value = "./data")]
    data: PathBuf,

    /// Path under which the cell is reached as well, such as `/alice`; links then carry it
    #[arg(long, env = "CELL_BASE_PATH")]
    base_path: Option<String>,

    /// Seconds without work after which the cell stops itself; 0 is never
    #[arg(long, env = "CELL_IDLE_STOP_S", default_value_t = 0)]
    idle_stop_s: u32,

    /// Seconds that running work gets to end after SIGTERM or SIGINT
    #[arg(long, env = "CELL_DRAIN_S", default_value_t = 25)]
    drain_s: u32,

    /// Largest upload in bytes; 0 is no limit
    #[arg(long, env = "CELL_MAX_UPLOAD_BYTES", default_value_t = 0)]
    max_upload_bytes: u64,

    /// Where beats are posted while the cell is awake: `host:port` of each router's listener for beats, with commas between.
    /// A name stands for all of its addresses. None unless given
    #[arg(long, env = "CELL_BEAT_TO")]
    beat_to: Option<String>,

    /// Seconds between two beats; no more than `beat_every_s` of the cell's entry
    #[arg(long, env = "CELL_BEAT_EVERY_S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    beat_every_s: u32,

    /// What is logged: a level, or filters as in `info,cell_app=debug` (`debug` adds a line for each request)
    #[arg(long, env = "CELL_LOG", default_value = "info")]
    pub(crate) log: String,

    /// Id of this machine; set by Fly.io
    #[arg(long, env = "FLY_MACHINE_ID")]
    machine: Option<String>,

    /// Name of the app this machine belongs to; set by Fly.io
    #[arg(long, env = "FLY_APP_NAME")]
    app: Option<String>,

    /// Region this machine runs in; set by Fly.io
    #[arg(long, env = "FLY_REGION")]
    region: Option<String>,

    /// Address of this machine on the private network, to which challenges must be addressed; set by Fly.io
    #[arg(long, env = "FLY_PRIVATE_IP")]
    private_ip: Option<String>,
}

/// The settings, checked and in the types that the cell works with.
pub(crate) struct Config {
    pub(crate) identity: Identity,
    pub(crate) front_door: FrontDoor,
    pub(crate) listen: SocketAddr,
    pub(crate) data: PathBuf,
    pub(crate) base_path: Option<BasePath>,
    /// `None`: never stops by itself.
    pub(crate) idle_stop: Option<Duration>,
    pub(crate) drain: Duration,
    /// `None`: no limit.
    pub(crate) max_upload_bytes: Option<u64>,
    /// `None`: no beats.
    pub(crate) beat: Option<Beat>,
}

/// A setting that cannot be used. Names the setting and the rule, never a secret's value.
#[derive(Debug)]
pub(crate) struct Refused {
    setting: &'static str,
    rule: &'static str,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.setting, self.rule)
    }
}

impl std::error::Error for Refused {}

impl TryFrom<Settings> for Config {
    type Error = Refused;

    fn try_from(settings: Settings) -> Result<Self, Refused> {
        if !is_dns_label(&settings.name) {
            return Err(Refused {
                setting: "CELL_NAME",
                rule: "must be one DNS label: a-z, 0-9 and inner hyphens, at most 63 bytes",
            });
        }
        let secrets = secrets(settings.secret.as_deref().unwrap_or_default())?;
        let every = Duration::from_secs(settings.beat_every_s.into());
        let beat = present(settings.beat_to)
            .map(|to| beats(&to, every, &secrets))
            .transpose()?;
        Ok(Self {
            front_door: FrontDoor::new(&settings.name, &secrets),
            identity: Identity {
                cell: settings.name,
                machine: present(settings.machine),
                app: present(settings.app),
                region: present(settings.region),
                address: present(settings.private_ip)
                    .map(|address| address_of(&address))
                    .transpose()?,
            },
            listen: settings.listen,
            data: settings.data,
            base_path: present(settings.base_path)
                .map(|path| BasePath::parse(&path))
                .transpose()?,
            idle_stop: (settings.idle_stop_s > 0)
                .then(|| Duration::from_secs(settings.idle_stop_s.into())),
            drain: Duration::from_secs(settings.drain_s.into()),
            max_upload_bytes: (settings.max_upload_bytes > 0).then_some(settings.max_upload_bytes),
            beat,
        })
    }
}

/// A variable that is set but empty counts as absent.
fn present(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.is_empty())
}

fn address_of(text: &str) -> Result<IpAddr, Refused> {
    text.parse().map_err(|_| Refused {
        setting: "FLY_PRIVATE_IP",
        rule: "must be an IP address",
    })
}

fn secrets(written: &str) -> Result<Vec<&str>, Refused> {
    if written.trim().is_empty() {
        return Ok(Vec::new());
    }
    let secrets: Vec<&str> = written.split(',').map(str::trim).collect();
    if secrets.len() > 2 || secrets.iter().any(|secret| secret.is_empty()) {
        return Err(Refused {
            setting: "CELL_SECRET",
            rule: "must be one secret, or two separated by a comma, none of them empty",
        });
    }
    Ok(secrets)
}

fn beats(to: &str, every: Duration, secrets: &[&str]) -> Result<Beat, Refused> {
    let refused = |rule| Refused {
        setting: "CELL_BEAT_TO",
        rule,
    };
    if secrets.is_empty() {
        return Err(refused("needs CELL_SECRET: a beat is signed"));
    }
    let is_place = |place: &str| {
        place.rsplit_once(':').is_some_and(|(host, port)| {
            let bare = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
            !host.is_empty() && bare && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    };
    let to: Vec<String> = to.split(',').map(|place| place.trim().to_owned()).collect();
    if !to.iter().all(|place| is_place(place)) {
        return Err(refused(
            "must be host:port, such as router.internal:9091, or several with commas between",
        ));
    }
    Ok(Beat { to, every })
}

fn is_dns_label(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// A path prefix of whole segments, `/alice` or `/a/b`: no slash at the end, no character that needs escaping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BasePath(String);

impl BasePath {
    /// Reads a prefix.
    ///
    /// # Errors
    /// [`Refused`] if a segment is empty, is `.` or `..`, or holds a character other than letters, digits and `-._~`.
    pub(crate) fn parse(path: &str) -> Result<Self, Refused> {
        let fits = path.strip_prefix('/').is_some_and(|rest| {
            rest.split('/').all(|segment| {
                !matches!(segment, "" | "." | "..")
                    && segment
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
            })
        });
        if !fits || path.len() > 200 {
            return Err(Refused {
                setting: "CELL_BASE_PATH",
                rule: "must be like /alice: whole segments of letters, digits and -._~, no slash at the end",
            });
        }
        Ok(Self(path.to_owned()))
    }

    /// The prefix as written.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// `target` (path and query) without this prefix, if it starts with it on a segment boundary.
    pub(crate) fn strip(&self, target: &str) -> Option<String> {
        let rest = target.strip_prefix(&self.0)?;
        match rest.bytes().next() {
            None => Some("/".to_owned()),
            Some(b'/') => Some(rest.to_owned()),
            Some(b'?') => Some(format!("/{rest}")),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    fn settings(arguments: &[&str]) -> Settings {
        Settings::parse_from([&["cell-app"], arguments].concat())
    }

    #[test]
    fn flags_are_consistent() {
        Settings::command().debug_assert();
    }

    #[test]
    fn every_flag_has_a_variable_and_a_description() {
        for argument in Settings::command().get_arguments() {
            if !matches!(argument.get_id().as_str(), "help" | "version") {
                assert!(argument.get_env().is_some(), "{argument}");
                assert!(argument.get_help().is_some(), "{argument}");
            }
        }
    }

    #[test]
    fn zero_means_never_and_no_limit() {
        let config = Config::try_from(settings(&["--name", "alice"])).unwrap();
        assert_eq!(
            (config.idle_stop, config.max_upload_bytes, config.drain),
            (None, None, Duration::from_secs(25))
        );
    }

    #[test]
    fn names_that_are_no_label_are_refused() {
        for name in [
            "",
            "-a",
            "a-",
            "a.b",
            "Alice",
            "a/b",
            "a\nb",
            &"a".repeat(64),
        ] {
            assert!(!is_dns_label(name), "{name:?}");
        }
        assert!(is_dns_label(&"a".repeat(63)));
    }

    #[test]
    fn secrets_are_one_or_two() {
        assert_eq!(secrets(" ").unwrap(), [""; 0]);
        assert_eq!(secrets(" a b ").unwrap(), ["a b"]);
        assert_eq!(secrets("new, old").unwrap(), ["new", "old"]);
        for written in ["a,", ",a", "a,b,c", ","] {
            assert!(secrets(written).is_err(), "{written}");
        }
    }

    #[test]
    fn beats_need_a_secret_and_a_place() {
        let config = |to: &str, more: &[&str]| {
            let settings = settings(&[&["--name", "alice", "--beat-to", to], more].concat());
            Config::try_from(settings).map(|config| config.beat)
        };
        let secret = ["--secret", "s"];
        assert!(config("router:9091", &[]).is_err());
        for to in [
            "router",
            "router:",
            "router:0",
            ":9091",
            "::1:9091",
            "a:1,",
            "http://a:1",
        ] {
            assert!(config(to, &secret).is_err(), "{to}");
        }
        let beat = config("router.internal:9091, [fdaa::3]:9091", &secret).unwrap();
        let expected = Beat {
            to: vec![
                "router.internal:9091".to_owned(),
                "[fdaa::3]:9091".to_owned(),
            ],
            every: Duration::from_secs(10),
        };
        assert_eq!(beat, Some(expected));
        assert_eq!(config("", &[]).unwrap(), None);
    }

    #[test]
    fn base_path_is_stripped_on_segment_boundaries_only() {
        let base = BasePath::parse("/alice").unwrap();
        for (target, rest) in [
            ("/alice", Some("/")),
            ("/alice/", Some("/")),
            ("/alice?a=1", Some("/?a=1")),
            ("/alice/posts?a=1", Some("/posts?a=1")),
            ("/alicia", None),
            ("/alice-b/posts", None),
            ("/posts", None),
            ("/", None),
        ] {
            assert_eq!(base.strip(target).as_deref(), rest, "{target}");
        }
    }

    #[test]
    fn base_paths_that_could_mislead_are_refused() {
        for path in [
            "", "/", "alice", "/alice/", "//evil", "/a//b", "/a/../b", "/a b", "/a?b", "/a\"",
        ] {
            assert!(BasePath::parse(path).is_err(), "{path:?}");
        }
    }
}
