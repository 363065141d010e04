//! What a client hears that has not signed in.

use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderValue};

use super::{Failure, Notice, Sheet};
use crate::account::record::Blame;
use crate::decision::Page;
use crate::outbound::sign_in::Refused;
use crate::wire::sign_in::challenge;

/// How soon somebody may come again who found too many others.
const SOON: Duration = Duration::from_secs(1);

/// Why a request does not go on. `realm` is what a password would be for; `retry_after` how long the cell's entry asks
/// clients to wait after a failure.
pub fn not_signed_in(
    refused: Refused,
    realm: Option<&str>,
    retry_after: Duration,
    sheet: Sheet<'_>,
) -> Failure {
    let (status, reason, title, text, retry_after, blame) = match refused {
        Refused::Unnamed => (
            StatusCode::UNAUTHORIZED,
            "sign_in_required",
            "Please sign in",
            "This address is for those who sign in.",
            None,
            None,
        ),
        Refused::Wrong => (
            StatusCode::UNAUTHORIZED,
            "sign_in_wrong",
            "Please sign in",
            "Name and password do not fit.",
            None,
            Some(Blame::Client),
        ),
        Refused::TooOften(wait) => (
            StatusCode::TOO_MANY_REQUESTS,
            "sign_in_too_often",
            "Too many tries",
            "Too many tries to sign in. Please try again soon.",
            Some(wait),
            Some(Blame::Client),
        ),
        Refused::Busy => (
            StatusCode::SERVICE_UNAVAILABLE,
            "sign_in_busy",
            "Busy right now",
            "Too many are signing in at once. Please try again soon.",
            Some(SOON),
            Some(Blame::Router),
        ),
        Refused::Unavailable(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "sign_in_unavailable",
            "Nobody can sign in right now",
            "Who you are cannot be found out right now. Please try again later.",
            Some(retry_after),
            Some(Blame::Router),
        ),
        Refused::Answered(answer) => {
            let mut words = *answer;
            let length = HeaderValue::from(words.body().len());
            words.headers_mut().insert(header::CONTENT_LENGTH, length);
            if sheet.audience.head_only {
                words.body_mut().clear();
            }
            return Failure {
                words,
                reason: "sign_in_elsewhere",
                blame: None,
            };
        }
    };
    let notice = Notice {
        status,
        reason,
        title,
        text: text.into(),
        page: Some(Page::Error),
        blame,
        retry_after,
    };
    let mut words = notice.written(sheet);
    if let Some(challenge) = realm
        .filter(|_| status == StatusCode::UNAUTHORIZED)
        .and_then(challenge)
    {
        words
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
    }
    Failure {
        words,
        reason,
        blame,
    }
}
