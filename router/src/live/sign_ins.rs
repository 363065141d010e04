//! Who has signed in with a password just now, and who tries too many.
//!
//! A check is dear on purpose. So few run at once, on threads of their own; one that fitted is remembered for a while; and
//! each client may fail so often only.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ring::hmac;
use tokio::sync::{OwnedMutexGuard, Semaphore};
use tokio::time::{Instant, timeout};

use super::clients::client;
use super::lock;
use super::passwords::Passwords;

/// How long a check that fitted is good for.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How many are remembered, at most.
const REMEMBERED_MOST: usize = 10_000;
/// How many checks of one client may fail at once, and how long until it may have one more.
const FAILURES: u32 = 10;
const FAILURE_FORGOTTEN: Duration = Duration::from_secs(6);
/// Of how many clients failures are kept, at most; nobody else gets a check then.
const CLIENTS_MOST: usize = 100_000;
/// How many take turns at once; those who sign in with the same take the same turns.
const TURNS: usize = 64;
/// How many checks wait for others, at most, and for how long.
const WAITING_MOST: usize = 64;
const WAITING: Duration = Duration::from_secs(5);

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The password is the name's.
    Fits,
    /// It is not, or there is no such name.
    Wrong,
    /// The client has failed too often; how long until it may try again.
    TooOften(Duration),
    /// Too many checks are under way.
    Busy,
}

/// What was signed in with, as nobody can undo it: a MAC of hash, name and password.
type Seal = [u8; 32];

/// The checks of all workers.
#[derive(Debug)]
pub struct SignIns {
    key: hmac::Key,
    known: Mutex<HashMap<Seal, Instant>>,
    failures: Mutex<HashMap<IpAddr, Instant>>,
    turns: [Arc<tokio::sync::Mutex<()>>; TURNS],
    places: Arc<Semaphore>,
    queue: Arc<Semaphore>,
}

impl SignIns {
    /// With `places` checks at once. `key` is fresh random bytes.
    pub fn new(places: usize, key: &[u8; 32]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            known: Mutex::default(),
            failures: Mutex::default(),
            turns: std::array::from_fn(|_| Arc::default()),
            places: Arc::new(Semaphore::new(places)),
            queue: Arc::new(Semaphore::new(places + WAITING_MOST)),
        }
    }

    /// Whether `password` is that of `name`. Cancelling it leaves a check that has begun to its end.
    pub async fn check(
        self: &Arc<Self>,
        ip: IpAddr,
        passwords: &Passwords,
        name: &str,
        password: &[u8],
    ) -> Verdict {
        let (hash, there) = passwords.find(name);
        let seal = self.seal(hash.as_str(), name, password);
        if there && self.is_known(&seal) {
            return Verdict::Fits;
        }
        let client = client(ip);
        if let Err(wait) = self.may_spend(client) {
            return Verdict::TooOften(wait);
        }
        // A browser asks for a whole page at once: one of its requests is checked, and the others know what it came to.
        let Some(turn) = self.turn(&seal).await else {
            return Verdict::Busy;
        };
        if there && self.is_known(&seal) {
            return Verdict::Fits;
        }
        let Ok(queued) = Arc::clone(&self.queue).try_acquire_owned() else {
            return Verdict::Busy;
        };
        let Ok(Ok(place)) = timeout(WAITING, Arc::clone(&self.places).acquire_owned()).await else {
            return Verdict::Busy;
        };
        // Counted before it is known to fail, so that many at once are no more than one after the other; and not while it
        // waits, so that many who share an address do not use up what it has.
        if let Err(wait) = self.spend(client) {
            return Verdict::TooOften(wait);
        }
        let (this, hash, password) = (Arc::clone(self), Arc::clone(hash), password.to_vec());
        let checked = tokio::task::spawn_blocking(move || {
            let _places = (turn, place, queued);
            let fits = hash.fits(&password) && there;
            if fits {
                this.remember(seal);
                this.earn(client);
            }
            fits
        });
        match checked.await {
            Ok(true) => Verdict::Fits,
            Ok(false) | Err(_) => Verdict::Wrong,
        }
    }

    /// Waits for whoever signs in with the same; `None` if that takes too long. Cancel safe.
    async fn turn(&self, seal: &Seal) -> Option<OwnedMutexGuard<()>> {
        let turn = Arc::clone(&self.turns[usize::from(seal[0]) % TURNS]);
        timeout(WAITING, turn.lock_owned()).await.ok()
    }

    fn seal(&self, hash: &str, name: &str, password: &[u8]) -> Seal {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [hash.as_bytes(), name.as_bytes(), password] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut seal = [0; 32];
        seal.copy_from_slice(context.sign().as_ref());
        seal
    }

    fn is_known(&self, seal: &Seal) -> bool {
        let known = lock(&self.known);
        known.get(seal).is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    fn remember(&self, seal: Seal) {
        let mut known = lock(&self.known);
        if known.len() >= REMEMBERED_MOST {
            known.retain(|_, at| at.elapsed() < REMEMBERED);
        }
        if known.len() < REMEMBERED_MOST {
            known.insert(seal, Instant::now());
        }
    }

    /// Counts a failure of a client, or says how long it has to wait.
    fn spend(&self, client: IpAddr) -> Result<(), Duration> {
        let mut failures = lock(&self.failures);
        let until = one_more(&mut failures, client)?;
        failures.insert(client, until);
        Ok(())
    }

    /// As [`Self::spend`], without counting.
    fn may_spend(&self, client: IpAddr) -> Result<(), Duration> {
        one_more(&mut lock(&self.failures), client).map(drop)
    }

    fn earn(&self, client: IpAddr) {
        let mut failures = lock(&self.failures);
        if let Some(until) = failures.get_mut(&client) {
            *until -= FAILURE_FORGOTTEN;
            if *until <= Instant::now() {
                failures.remove(&client);
            }
        }
    }
}

/// A client's failures with one more of them, or how long it has to wait for it. They are one time: when the last of them is
/// forgotten.
fn one_more(failures: &mut HashMap<IpAddr, Instant>, client: IpAddr) -> Result<Instant, Duration> {
    let now = Instant::now();
    if failures.len() >= CLIENTS_MOST {
        failures.retain(|_, until| *until > now);
    }
    if failures.len() >= CLIENTS_MOST && !failures.contains_key(&client) {
        return Err(FAILURE_FORGOTTEN);
    }
    let until = failures.get(&client).map_or(now, |until| (*until).max(now));
    let next = until + FAILURE_FORGOTTEN;
    let most = now + FAILURE_FORGOTTEN * FAILURES;
    if next > most {
        return Err(next - most);
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn sign_ins(places: usize) -> Arc<SignIns> {
        Arc::new(SignIns::new(places, &[7; 32]))
    }

    fn alice() -> Passwords {
        let hash = bcrypt::hash("secret", 4).unwrap();
        Passwords::parse(&format!("alice:{hash}")).unwrap()
    }

    #[tokio::test]
    async fn a_password_fits_its_name_in_its_file_only() {
        let (sign_ins, passwords) = (sign_ins(1), alice());
        for (name, password, verdict) in [
            ("alice", "secret", Verdict::Fits),
            ("alice", "secret", Verdict::Fits),
            ("alice", "Secret", Verdict::Wrong),
            ("bob", "secret", Verdict::Wrong),
            ("", "secret", Verdict::Wrong),
        ] {
            let got = sign_ins.check(HOME, &passwords, name, password.as_bytes());
            assert_eq!(got.await, verdict, "{name} {password}");
        }
        // The same password under another salt is not known.
        assert_eq!(lock(&sign_ins.known).len(), 1);
        let got = sign_ins.check(HOME, &alice(), "alice", b"secret").await;
        assert_eq!((got, lock(&sign_ins.known).len()), (Verdict::Fits, 2));
    }

    #[tokio::test]
    async fn who_has_signed_in_is_known_for_a_while_and_pays_nothing() {
        let (sign_ins, passwords) = (sign_ins(1), alice());
        let check = || sign_ins.check(HOME, &passwords, "alice", b"secret");
        assert_eq!(check().await, Verdict::Fits);
        // Nobody gets a place any more: only what is known passes.
        sign_ins.places.close();
        assert_eq!(check().await, Verdict::Fits);
        tokio::time::pause();
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(check().await, Verdict::Busy);
    }

    #[tokio::test]
    async fn a_client_that_fails_too_often_waits_and_nobody_else_does() {
        let (sign_ins, passwords) = (sign_ins(2), alice());
        let wrong = (0..FAILURES * 2).map(|number| {
            let (sign_ins, passwords) = (Arc::clone(&sign_ins), &passwords);
            async move {
                let guess = number.to_string();
                let check = sign_ins.check(HOME, passwords, "alice", guess.as_bytes());
                check.await
            }
        });
        let verdicts = futures_util::future::join_all(wrong).await;
        let tried = verdicts
            .iter()
            .filter(|verdict| **verdict == Verdict::Wrong);
        assert_eq!(tried.count(), FAILURES as usize);
        let right = |ip| sign_ins.check(ip, &passwords, "alice", b"secret");
        assert!(matches!(right(HOME).await, Verdict::TooOften(wait) if wait <= FAILURE_FORGOTTEN));
        assert_eq!(right(ELSEWHERE).await, Verdict::Fits);
        // Now it is known, whoever asks.
        assert_eq!(right(HOME).await, Verdict::Fits);
    }

    #[tokio::test]
    async fn failures_are_forgotten_one_by_one() {
        let sign_ins = sign_ins(1);
        tokio::time::pause();
        for _ in 0..FAILURES {
            assert_eq!(sign_ins.spend(HOME), Ok(()));
        }
        assert_eq!(sign_ins.spend(HOME), Err(FAILURE_FORGOTTEN));
        tokio::time::advance(FAILURE_FORGOTTEN).await;
        assert_eq!(sign_ins.spend(HOME), Ok(()));
        assert_eq!(sign_ins.spend(HOME), Err(FAILURE_FORGOTTEN));
        sign_ins.earn(HOME);
        assert_eq!(sign_ins.spend(HOME), Ok(()));
        assert_eq!(sign_ins.spend(ELSEWHERE), Ok(()));
        sign_ins.earn(ELSEWHERE);
        assert_eq!(lock(&sign_ins.failures).len(), 1);
    }

    #[tokio::test]
    async fn a_right_password_fits_however_often_it_is_asked_for_at_once() {
        let (sign_ins, passwords) = (sign_ins(2), alice());
        let checks =
            || (0..FAILURES * 3).map(|_| sign_ins.check(HOME, &passwords, "alice", b"secret"));
        let verdicts = futures_util::future::join_all(checks()).await;
        assert!(
            verdicts.iter().all(|verdict| *verdict == Verdict::Fits),
            "{verdicts:?}"
        );
        assert_eq!(sign_ins.spend(HOME), Ok(()));
    }

    #[tokio::test]
    async fn many_behind_one_address_sign_in_at_once() {
        let hash = bcrypt::hash("secret", 4).unwrap();
        let names: Vec<_> = (0..FAILURES * 3).map(|n| format!("user-{n}")).collect();
        let lines: Vec<_> = names.iter().map(|name| format!("{name}:{hash}")).collect();
        let (sign_ins, passwords) = (sign_ins(2), Passwords::parse(&lines.join("\n")).unwrap());
        let checks = names
            .iter()
            .map(|name| sign_ins.check(HOME, &passwords, name, b"secret"));
        let verdicts = futures_util::future::join_all(checks).await;
        assert!(
            verdicts.iter().all(|verdict| *verdict == Verdict::Fits),
            "{verdicts:?}"
        );
    }

    #[tokio::test]
    async fn a_wrong_password_is_counted_each_time_it_is_tried() {
        let (sign_ins, passwords) = (sign_ins(2), alice());
        let checks =
            || (0..FAILURES * 2).map(|_| sign_ins.check(HOME, &passwords, "alice", b"wrong"));
        let verdicts = futures_util::future::join_all(checks()).await;
        let tried = verdicts
            .iter()
            .filter(|verdict| **verdict == Verdict::Wrong);
        assert_eq!(tried.count(), FAILURES as usize);
    }

    #[tokio::test]
    async fn who_waits_for_another_with_the_same_password_waits_so_long_only() {
        let (sign_ins, passwords) = (sign_ins(1), alice());
        let seal = sign_ins.seal(passwords.find("alice").0.as_str(), "alice", b"secret");
        let _turn = sign_ins.turn(&seal).await.unwrap();
        tokio::time::pause();
        let got = sign_ins.check(HOME, &passwords, "alice", b"secret").await;
        assert_eq!((got, lock(&sign_ins.failures).len()), (Verdict::Busy, 0));
    }

    #[tokio::test]
    async fn who_leaves_before_the_check_has_not_failed() {
        let (sign_ins, passwords) = (sign_ins(1), alice());
        let place = sign_ins.places.try_acquire().unwrap();
        let mut check = Box::pin(sign_ins.check(HOME, &passwords, "alice", b"wrong"));
        let waits = futures_util::FutureExt::now_or_never(&mut check);
        assert_eq!((waits, lock(&sign_ins.failures).len()), (None, 0));
        drop(check);
        assert!(lock(&sign_ins.failures).is_empty());
        drop(place);
    }

    #[tokio::test]
    async fn a_crowd_is_told_to_come_again() {
        let (sign_ins, passwords) = (sign_ins(1), alice());
        let _all = Arc::clone(&sign_ins.queue).try_acquire_many_owned(1 + WAITING_MOST as u32);
        let got = sign_ins.check(HOME, &passwords, "alice", b"secret").await;
        assert_eq!(got, Verdict::Busy);
        assert!(lock(&sign_ins.failures).is_empty());
    }
}
