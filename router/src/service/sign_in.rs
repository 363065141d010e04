//! Who the client is, for cells before which clients sign in.

use std::sync::Arc;

use http::request::Parts;

use super::{Service, authority_of};
use crate::account::record::Record;
use crate::live::passwords::Passwords;
use crate::outbound::sign_in::{Refused, Unavailable};
use crate::registry::{Cell, CellName, SignIn, SignInBy};
use crate::respond::{self, Audience, Failure, Sheet};
use crate::wire::identity::{self, Introduction, Peer};
use crate::wire::sieve::Fields;
use crate::wire::sign_in::{SignedIn, question};

/// What a request has to pass.
pub(super) struct Check {
    pub(super) cell: Arc<Cell>,
    pub(super) sign_in: Arc<SignIn>,
    pub(super) passwords: Option<Arc<Passwords>>,
}

/// That a request has passed it.
pub(super) struct Pass {
    cell: CellName,
    sign_in: Arc<SignIn>,
    passwords: Option<Arc<Passwords>>,
    pub(super) signed_in: SignedIn,
}

impl Pass {
    /// Whether it is for the cell as it is now: of another version of its entry or its passwords it is none.
    pub(super) fn is_for(&self, cell: &Cell, passwords: Option<&Arc<Passwords>>) -> bool {
        self.cell == cell.name
            && cell.policy.sign_in.as_ref() == Some(&self.sign_in)
            && self.passwords.as_deref() == passwords.map(|passwords| &**passwords)
    }
}

impl Service {
    /// Finds out who the client is; how it is told that it may not go on.
    pub(super) async fn sign_in(
        &self,
        head: &Parts,
        peer: Peer,
        audience: Audience,
        record: &Record,
        check: Check,
    ) -> Result<Pass, Failure> {
        let Check {
            cell,
            sign_in,
            passwords,
        } = check;
        let passed = match &sign_in.by {
            SignInBy::Basic { .. } => {
                let client = identity::client_ip(Fields::of(&head.headers), peer);
                let headers = &head.headers;
                self.gate
                    .by_password(headers, client, passwords.as_ref())
                    .await
            }
            SignInBy::Forward { .. } => {
                let introduction = Introduction {
                    cell: cell.name.as_str(),
                    authority: &authority_of(head),
                    request_id: &record.id,
                    stripped_prefix: None,
                };
                let pseudonym = &self.config.pseudonym;
                let question = question(head, peer, &introduction, &sign_in, pseudonym);
                // While it waits, it is one of those that wait.
                match self.cells.hold(&cell, self.config.max_held) {
                    Ok(_held) => self.gate.by_asking(question, &sign_in).await,
                    Err(_) => Err(Refused::Busy),
                }
            }
        };
        match passed {
            Ok(signed_in) => {
                record.user.replace(signed_in.user.clone());
                Ok(Pass {
                    cell: cell.name.clone(),
                    sign_in,
                    passwords,
                    signed_in,
                })
            }
            Err(refused) => {
                if let Refused::Unavailable(why) = &refused {
                    record.error.replace(Some(Unavailable::to_string(why)));
                }
                let pages = self.pages(record);
                let sheet = Sheet {
                    audience,
                    request_id: &record.id,
                    pages: pages.as_deref(),
                };
                let realm = match &sign_in.by {
                    SignInBy::Basic { realm, .. } => Some(&**realm),
                    SignInBy::Forward { .. } => None,
                };
                let retry_after = cell.policy.limits.retry_after;
                Err(respond::not_signed_in(refused, realm, retry_after, sheet))
            }
        }
    }
}
