//! Where traces go, as flags say and as the variables do that OpenTelemetry gives every program.
//!
//! Source: OpenTelemetry specification, Environment Variable Specification and OTLP Exporter Configuration. Headers and
//! resource (`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`) are read by its libraries.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

/// Spans that wait to be exported, at most.
const QUEUE: usize = 8192;
/// Spans that are exported together, at most.
const BATCH: usize = 512;
/// How long a span waits for others, in milliseconds.
const DELAY_MS: usize = 1000;
/// How long the export of a batch may take, in milliseconds.
const TIMEOUT_MS: usize = 10_000;
/// The longest that any of these may be, in milliseconds: a day.
const MOST_MS: usize = 86_400_000;
/// The only protocol that is spoken.
const PROTOCOL: &str = "http/protobuf";

/// What the flags say.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--otlp-endpoint`.
    pub endpoint: Option<String>,
    /// `--otlp-ca`.
    pub ca: Option<PathBuf>,
    /// `--trace-ratio`.
    pub ratio: Option<f64>,
}

/// Of which requests spans are exported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Whether the word of who asks counts, where it says one.
    pub parent_based: bool,
    /// The share of the others, from 0 to 1.
    pub ratio: f64,
}

/// How traces are exported.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// The URL that they are posted to.
    pub url: Uri,
    /// The file of authorities that it is believed by; `None` for the usual public ones.
    pub ca: Option<PathBuf>,
    /// Of which requests.
    pub sampling: Sampling,
    /// Spans that wait, at most.
    pub queue: usize,
    /// Spans that are exported together, at most.
    pub batch: usize,
    /// How long a span waits for others.
    pub delay: Duration,
    /// How long the export of a batch may take.
    pub timeout: Duration,
    /// What variables say that is not heeded, and what is done instead.
    pub ignored: Vec<String>,
}

impl Traces {
    /// Reads how traces are exported from flags and environment, the latter given as a function so that a map serves in
    /// tests; `None` where nothing says where to.
    ///
    /// # Errors
    /// What is wrong with where they are to go.
    pub fn read(
        flags: &Flags,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, String> {
        // An empty variable is none.
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let Some(url) = url(flags, variable)? else {
            return Ok(None);
        };
        let mut ignored = Vec::new();
        let one_of = |names: [&'static str; 2]| {
            let found = names.map(|name| variable(name).map(|value| (name, value)));
            found.into_iter().flatten().next()
        };
        let protocol = [
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ];
        if let Some((name, value)) = one_of(protocol).filter(|(_, value)| value != PROTOCOL) {
            ignored.push(format!("{name}={value}: {PROTOCOL} is spoken"));
        }
        let compression = [
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
            "OTEL_EXPORTER_OTLP_COMPRESSION",
        ];
        if let Some((name, value)) = one_of(compression).filter(|(_, value)| value != "none") {
            ignored.push(format!("{name}={value}: nothing is compressed"));
        }
        let headers = [
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
            "OTEL_EXPORTER_OTLP_HEADERS",
        ];
        // They are secrets, so that no word of them is said.
        let whole = |list: &str| list.split(',').all(|header| header.contains('='));
        if let Some((name, _)) = one_of(headers).filter(|(_, list)| !whole(list)) {
            ignored.push(format!("{name}: what is not NAME=VALUE is left out"));
        }
        let ca = [
            "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
        ];
        let ca = flags.ca.clone().or(one_of(ca).map(|(_, file)| file.into()));
        let sampling = sampling(flags, variable, &mut ignored);
        let mut number = |name, default| {
            let Some(text) = variable(name) else {
                return default;
            };
            match text.parse() {
                Ok(number) if number > 0 => number,
                _ => {
                    ignored.push(format!("{name}={text}: {default} is used"));
                    default
                }
            }
        };
        let queue = number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE);
        let batch = number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH.min(queue)).min(queue);
        let delay = number("OTEL_BSP_SCHEDULE_DELAY", DELAY_MS).min(MOST_MS);
        let timeout = number("OTEL_EXPORTER_OTLP_TIMEOUT", TIMEOUT_MS);
        let timeout = number("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", timeout).min(MOST_MS);
        let millis = |number| Duration::from_millis(u64::try_from(number).unwrap_or(u64::MAX));
        Ok(Some(Self {
            url,
            ca,
            sampling,
            queue,
            batch,
            delay: millis(delay),
            timeout: millis(timeout),
            ignored,
        }))
    }
}

/// A share, from 0 to 1.
///
/// # Errors
/// It is none.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let share: Option<f64> = text.parse().ok();
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "write a number from 0 to 1, such as 0.05".to_owned())
}

/// The flag's word comes first, then that on traces, then that on all signals.
fn url(flags: &Flags, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Uri>, String> {
    if let Some(base) = &flags.endpoint {
        return parse("--otlp-endpoint", base, true).map(Some);
    }
    let off = variable("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"));
    let elsewhere = variable("OTEL_TRACES_EXPORTER")
        .is_some_and(|exporters| !exporters.split(',').any(|one| one.trim() == "otlp"));
    if off || elsewhere {
        return Ok(None);
    }
    for (name, base) in [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", false),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", true),
    ] {
        if let Some(url) = variable(name) {
            return parse(name, &url, base).map(Some);
        }
    }
    Ok(None)
}

/// Reads a URL; where it is that of all signals, what is for traces lies below it.
fn parse(name: &str, text: &str, base: bool) -> Result<Uri, String> {
    let whole = match base {
        true => format!("{}/v1/traces", text.trim_end_matches('/')),
        false => text.to_owned(),
    };
    let asked = |url: &Uri| {
        let plain = url
            .authority()
            .is_some_and(|host| !host.as_str().contains('@'));
        plain && matches!(url.scheme_str(), Some("http" | "https")) && !(base && text.contains('?'))
    };
    let url: Option<Uri> = whole.parse().ok();
    url.filter(asked).ok_or_else(|| {
        format!("{name} {text}: write the URL of a collector, such as http://127.0.0.1:4318")
    })
}

fn sampling(
    flags: &Flags,
    variable: impl Fn(&str) -> Option<String>,
    ignored: &mut Vec<String>,
) -> Sampling {
    const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    let name = variable(SAMPLER).unwrap_or_else(|| "parentbased_always_on".to_owned());
    let (parent_based, sampler) = match name.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, &*name),
    };
    let ratio = match sampler {
        "always_on" => Some(1.0),
        "always_off" => Some(0.0),
        "traceidratio" => Some(variable(ARGUMENT).map_or(1.0, |text| {
            share(&text).unwrap_or_else(|why| {
                ignored.push(format!("{ARGUMENT}={text}: {why}; 1 is used"));
                1.0
            })
        })),
        _ => None,
    };
    if ratio.is_none() {
        ignored.push(format!(
            "{SAMPLER}={name}: always_on, always_off and traceidratio are known, with parentbased_ before them or not; \
             parentbased_always_on is used"
        ));
    }
    Sampling {
        parent_based: parent_based || ratio.is_none(),
        ratio: flags.ratio.or(ratio).unwrap_or(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flags: &Flags, variables: &[(&str, &str)]) -> Result<Option<Traces>, String> {
        Traces::read(flags, |name| {
            let mut variables = variables.iter();
            let found = variables.find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn flag(endpoint: &str) -> Flags {
        Flags {
            endpoint: Some(endpoint.to_owned()),
            ..Flags::default()
        }
    }

    #[test]
    fn traces_go_where_the_flag_says_else_where_the_variables_do() {
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318");
        let traces = (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "https://traces/in?a=b",
        );
        let off = ("OTEL_SDK_DISABLED", "TRUE");
        let none = Flags::default();
        for (flags, variables, url) in [
            (&none, &[][..], None),
            (&none, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")], None),
            (&none, &[all], Some("http://all:4318/v1/traces")),
            (
                &none,
                &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all/otlp/")],
                Some("http://all/otlp/v1/traces"),
            ),
            (&none, &[all, traces], Some("https://traces/in?a=b")),
            (
                &none,
                &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces")],
                Some("http://traces/"),
            ),
            (&none, &[all, off], None),
            (&none, &[all, ("OTEL_TRACES_EXPORTER", "none")], None),
            (
                &none,
                &[all, ("OTEL_TRACES_EXPORTER", "console,otlp")],
                Some("http://all:4318/v1/traces"),
            ),
            (
                &flag("http://flag:1"),
                &[all, traces, off],
                Some("http://flag:1/v1/traces"),
            ),
        ] {
            let read = read(flags, variables).unwrap();
            let read = read.map(|traces| traces.url.to_string());
            assert_eq!(read.as_deref(), url, "{flags:?} {variables:?}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_by_its_name() {
        for url in [
            "collector:4318",
            "grpc://collector:4317",
            "http://me:hush@collector",
            "http://collector?a",
            "/v1/traces",
            "",
        ] {
            let error = read(&flag(url), &[]).unwrap_err();
            assert!(error.starts_with("--otlp-endpoint"), "{error}");
        }
        let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let error = read(&Flags::default(), &[(name, "localhost")]).unwrap_err();
        assert!(error.starts_with(name), "{error}");
    }

    #[test]
    fn samplers_are_those_of_the_specification() {
        let arg = ("OTEL_TRACES_SAMPLER_ARG", "0.25");
        let sampling = |parent_based, ratio| Sampling {
            parent_based,
            ratio,
        };
        for (sampler, arg, expected, ignored) in [
            (None, None, sampling(true, 1.0), 0),
            // Without a sampler its argument means nothing.
            (None, Some(arg), sampling(true, 1.0), 0),
            (Some("always_on"), Some(arg), sampling(false, 1.0), 0),
            (Some("always_off"), None, sampling(false, 0.0), 0),
            (Some("traceidratio"), Some(arg), sampling(false, 0.25), 0),
            (Some("traceidratio"), None, sampling(false, 1.0), 0),
            (Some("parentbased_always_on"), None, sampling(true, 1.0), 0),
            (Some("parentbased_always_off"), None, sampling(true, 0.0), 0),
            (
                Some("parentbased_traceidratio"),
                Some(arg),
                sampling(true, 0.25),
                0,
            ),
            (
                Some("traceidratio"),
                Some(("OTEL_TRACES_SAMPLER_ARG", "2")),
                sampling(false, 1.0),
                1,
            ),
            (Some("xray"), Some(arg), sampling(true, 1.0), 1),
        ] {
            let sampler = sampler.map(|name| ("OTEL_TRACES_SAMPLER", name));
            let variables: Vec<_> = sampler.into_iter().chain(arg).collect();
            let traces = read(&flag("http://c"), &variables).unwrap().unwrap();
            assert_eq!(traces.sampling, expected, "{variables:?}");
            assert_eq!(traces.ignored.len(), ignored, "{:?}", traces.ignored);
            let flags = Flags {
                ratio: Some(0.5),
                ..flag("http://c")
            };
            let traces = read(&flags, &variables).unwrap().unwrap();
            assert_eq!(traces.sampling, sampling(expected.parent_based, 0.5));
        }
    }

    #[test]
    fn what_is_not_heeded_is_said() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,hush"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "7"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
            ("OTEL_BSP_SCHEDULE_DELAY", "5"),
        ];
        let traces = read(&flag("http://c"), &variables).unwrap().unwrap();
        assert_eq!(
            traces.ignored,
            [
                "OTEL_EXPORTER_OTLP_PROTOCOL=grpc: http/protobuf is spoken",
                "OTEL_EXPORTER_OTLP_COMPRESSION=gzip: nothing is compressed",
                "OTEL_EXPORTER_OTLP_HEADERS: what is not NAME=VALUE is left out",
                "OTEL_BSP_MAX_QUEUE_SIZE=many: 8192 is used",
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=0: 512 is used",
            ]
        );
        assert_eq!(traces.delay, Duration::from_millis(5));
        assert_eq!(traces.timeout, Duration::from_millis(7));
        let most = usize::MAX.to_string();
        let odd = [
            ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
            ("OTEL_BSP_SCHEDULE_DELAY", &most),
        ];
        let traces = read(&flag("http://c"), &odd).unwrap().unwrap();
        assert_eq!(traces.delay, Duration::from_hours(24));
        assert_eq!((traces.queue, traces.batch), (8, 8));
    }

    #[test]
    fn a_share_is_between_nothing_and_all() {
        for good in ["0", "1", "0.05", "1.0"] {
            assert!(share(good).is_ok(), "{good}");
        }
        for bad in ["", "-0.1", "1.01", "NaN", "5%"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
