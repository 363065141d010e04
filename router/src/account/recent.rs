//! The last requests of each cell, as one worker has seen them end.
//!
//! A request of a cell that was seen before costs one look-up and takes the place of the oldest: nothing is allocated for it,
//! since its record's path moves here.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use foldhash::HashMap;
use http::Method;

use super::record::Blame;
use crate::registry::CellName;
use crate::steps::AT_ONCE;

/// How many of a cell's last requests are kept.
pub const KEPT: usize = 16;
/// Of how many cells each worker keeps some. About 30 MB, where all of them are busy.
const MOST_CELLS: usize = 10_000;
/// How much of a path is kept, in bytes.
const LONGEST_PATH: usize = 256;
/// How much of a method is kept, in bytes.
const LONGEST_METHOD: usize = 32;

/// A request that is over. It has no header and no query, so that there is nothing in it to hide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: SystemTime,
    /// Its method, or the first 32 bytes of it.
    pub method: Method,
    /// Its path without the query, or the beginning of one that is longer than 256 bytes, and an ellipsis.
    pub path: Box<str>,
    /// The status of its answer; 499 where the client left before.
    pub status: u16,
    /// The lane that it took.
    pub lane: &'static str,
    /// The condition that decided, or what went wrong on the way.
    pub reason: &'static str,
    /// Who made the error, if it is one.
    pub blame: Option<Blame>,
    /// Bytes of body from the client.
    pub bytes_in: u64,
    /// Bytes of body to the client.
    pub bytes_out: u64,
    /// From its head to the end of its answer.
    pub duration: Duration,
}

/// The last requests of cells. Of more cells than fit, those are forgotten that had none for long.
#[derive(Debug)]
pub struct Recent {
    places: HashMap<CellName, usize>,
    rings: Vec<Ring>,
    /// Where the next place for another cell is looked for.
    hand: usize,
    most_cells: usize,
}

#[derive(Debug)]
struct Ring {
    cell: CellName,
    /// It had a request since the hand last passed.
    used: bool,
    ended: VecDeque<Ended>,
}

impl Default for Recent {
    fn default() -> Self {
        Self::of(MOST_CELLS)
    }
}

impl Recent {
    fn of(most_cells: usize) -> Self {
        Self {
            places: HashMap::default(),
            rings: Vec::new(),
            hand: 0,
            most_cells,
        }
    }

    /// A request of a cell is over.
    pub fn push(&mut self, cell: &CellName, mut ended: Ended) {
        ended.method = short_method(ended.method);
        ended.path = short_path(ended.path);
        let ring = &mut self.ring(cell).ended;
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(ended);
    }

    /// The last requests of a cell, the newest first.
    pub fn of_cell(&self, cell: &CellName) -> Vec<Ended> {
        let ring = self.places.get(cell).map(|place| &self.rings[*place]);
        let ended = ring.iter().flat_map(|ring| ring.ended.iter().rev());
        ended.cloned().collect()
    }

    /// Forgets the requests of cells that `keep` does not name, of a few cells from a place on; where to go on, if there are more.
    pub fn retain(&mut self, from: usize, keep: impl Fn(&CellName) -> bool) -> Option<usize> {
        let to = self.rings.len().min(from + AT_ONCE);
        for ring in &mut self.rings[from..to] {
            if !keep(&ring.cell) {
                ring.used = false;
                ring.ended = VecDeque::new();
            }
        }
        (to < self.rings.len()).then_some(to)
    }

    fn ring(&mut self, cell: &CellName) -> &mut Ring {
        let place = match self.places.get(cell) {
            Some(place) => *place,
            None => self.place(cell),
        };
        let ring = &mut self.rings[place];
        ring.used = true;
        ring
    }

    /// Makes a place for a cell: a new one, or that of a cell that had no request since the hand came by (CLOCK).
    fn place(&mut self, cell: &CellName) -> usize {
        let place = if self.rings.len() < self.most_cells {
            self.rings.push(Ring {
                cell: cell.clone(),
                used: false,
                ended: VecDeque::new(),
            });
            self.rings.len() - 1
        } else {
            while std::mem::take(&mut self.rings[self.hand].used) {
                self.advance();
            }
            let place = self.hand;
            self.advance();
            let ring = &mut self.rings[place];
            self.places.remove(&ring.cell);
            ring.cell = cell.clone();
            ring.ended.clear();
            place
        };
        self.places.insert(cell.clone(), place);
        place
    }

    fn advance(&mut self) {
        self.hand = (self.hand + 1) % self.rings.len();
    }
}

/// Puts what several workers have seen of one cell together, the newest first.
pub fn merged(seen: impl IntoIterator<Item = Vec<Ended>>) -> Vec<Ended> {
    let mut all: Vec<_> = seen.into_iter().flatten().collect();
    all.sort_by_key(|ended| std::cmp::Reverse(ended.at));
    all.truncate(KEPT);
    all
}

/// A method as it is kept: whole, or its beginning, which is a token as well.
pub fn short_method(method: Method) -> Method {
    let start = method.as_str().get(..LONGEST_METHOD);
    let start = start.and_then(|start| Method::from_bytes(start.as_bytes()).ok());
    start.unwrap_or(method)
}

/// A path as it is kept: whole, or its beginning and an ellipsis.
pub fn short_path(path: Box<str>) -> Box<str> {
    if path.len() <= LONGEST_PATH {
        return path;
    }
    let end = path.floor_char_boundary(LONGEST_PATH);
    format!("{}…", &path[..end]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> CellName {
        CellName::parse(text).unwrap()
    }

    fn ended(path: &str, second: u64) -> Ended {
        Ended {
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
            method: Method::GET,
            path: path.into(),
            status: 200,
            lane: "stream",
            reason: "not_on_fly",
            blame: None,
            bytes_in: 0,
            bytes_out: 2,
            duration: Duration::from_millis(5),
        }
    }

    fn paths(recent: &Recent, cell: &str) -> String {
        let ended = recent.of_cell(&name(cell));
        ended.iter().map(|ended| &*ended.path).collect()
    }

    #[test]
    fn each_cell_has_its_own_the_newest_first() {
        let mut recent = Recent::default();
        recent.push(&name("alice"), ended("/a", 1));
        recent.push(&name("bob"), ended("/b", 2));
        recent.push(&name("alice"), ended("/c", 3));
        assert_eq!(paths(&recent, "alice"), "/c/a");
        assert_eq!(paths(&recent, "bob"), "/b");
        assert_eq!(paths(&recent, "carol"), "");
    }

    #[test]
    fn a_new_one_takes_the_place_of_the_oldest() {
        let (mut recent, alice) = (Recent::default(), name("alice"));
        for second in 0..KEPT as u64 + 3 {
            recent.push(&alice, ended("/", second));
        }
        let kept = recent.of_cell(&alice);
        assert_eq!(kept.len(), KEPT);
        let (newest, oldest) = (&kept[0], &kept[KEPT - 1]);
        assert_eq!(
            (newest, oldest),
            (&ended("/", KEPT as u64 + 2), &ended("/", 3))
        );
    }

    #[test]
    fn the_cell_makes_way_that_had_no_request_for_longest() {
        let mut recent = Recent::of(3);
        for cell in ["a", "b", "c", "d"] {
            recent.push(&name(cell), ended(&format!("/{cell}"), 1));
        }
        // All had some, so the hand has gone round, and taken the first.
        assert_eq!(paths(&recent, "a"), "");
        recent.push(&name("b"), ended("/again", 2));
        recent.push(&name("e"), ended("/e", 3));
        assert_eq!(paths(&recent, "b"), "/again/b", "it had one just now");
        assert_eq!(paths(&recent, "c"), "");
        assert_eq!((&*paths(&recent, "d"), &*paths(&recent, "e")), ("/d", "/e"));
        assert_eq!((recent.places.len(), recent.rings.len()), (3, 3));
    }

    #[test]
    fn who_gets_the_name_of_a_removed_cell_does_not_get_its_requests() {
        let mut recent = Recent::default();
        recent.push(&name("alice"), ended("/hers", 1));
        recent.push(&name("bob"), ended("/b", 1));
        assert_eq!(recent.retain(0, |cell| cell.as_str() == "bob"), None);
        recent.push(&name("alice"), ended("/new", 2));
        assert_eq!(paths(&recent, "alice"), "/new");
        assert_eq!(paths(&recent, "bob"), "/b");
    }

    #[test]
    fn what_a_client_makes_long_is_cut_between_characters() {
        let (mut recent, alice) = (Recent::default(), name("alice"));
        let method = Method::from_bytes(&[b'M'; 1000]).unwrap();
        let path = format!("/{}", "é".repeat(1000));
        recent.push(
            &alice,
            Ended {
                method,
                ..ended(&path, 1)
            },
        );
        let kept = &recent.of_cell(&alice)[0];
        assert_eq!(kept.method.as_str(), "M".repeat(LONGEST_METHOD));
        assert!(kept.path.ends_with("éé…") && kept.path.len() < LONGEST_PATH + 4);
        assert_eq!(&*short_path("/short".into()), "/short");
    }

    #[test]
    fn workers_add_up_in_the_order_of_time() {
        let of = |seconds: &[u64]| seconds.iter().map(|second| ended("/", *second)).collect();
        let all = merged([of(&[5, 3, 1]), of(&[4, 2]), of(&[])]);
        assert_eq!(all, of(&[5, 4, 3, 2, 1]));
        assert_eq!(merged([of(&[7; KEPT]), of(&[8; 2])])[1..3], of(&[8, 7])[..]);
    }
}
