//! Edits as tables: what is put where, and that nothing else moves.

use super::*;

fn name(text: &str) -> CellName {
    CellName::parse(text).unwrap()
}

fn add(cell: &str, entry: &str) -> Operation {
    Operation::Add {
        cell: name(cell),
        entry: entry.to_owned(),
    }
}

fn keys(path: &str) -> Vec<String> {
    path.split('.').map(str::to_owned).collect()
}

fn put(cell: &str, path: &str, value: &str) -> Operation {
    Operation::Set {
        cell: name(cell),
        keys: keys(path),
        value: value.to_owned(),
    }
}

fn unset(cell: &str, path: &str) -> Operation {
    Operation::Unset {
        cell: name(cell),
        keys: keys(path),
    }
}

fn state(cell: &str, state: Admission) -> Operation {
    Operation::State {
        cell: name(cell),
        state,
    }
}

fn gone(cell: &str) -> Operation {
    Operation::Remove { cell: name(cell) }
}

fn renamed(from: &str, to: &str) -> Operation {
    Operation::Rename {
        from: name(from),
        to: name(to),
    }
}

fn edited(text: &str, operation: Operation) -> String {
    let edited = apply(text.as_bytes(), &[operation]).unwrap_or_else(|error| panic!("{error}"));
    String::from_utf8(edited).unwrap()
}

macro_rules! edits {
    ($($name:ident: $operation:expr, $before:expr => $after:expr;)+) => {$(
        #[test]
        fn $name() {
            assert_eq!(edited($before, $operation), $after);
        }
    )+};
}

const HAND: &str = "{\n  \"version\": 1,\n  \"cells\": {\n    \"a\":  { \"address\": \"h:1\", \"state\": \"active\" },\n    \"bb\": { \"address\":\"h:2\" }\n  }\n}\n";
const ONE_LINE: &str = r#"{"version":1,"cells":{"a":{"address":"h:1"}}}"#;
const TABS: &str = "{\r\n\t\"version\": 1,\r\n\t\"cells\": {\r\n\t\t\"a\": {\r\n\t\t\t\"address\": \"h:1\"\r\n\t\t}\r\n\t}\r\n}";
const EMPTY: &str = "{\n    \"version\": 1,\n    \"cells\": {}\n}\n";

edits! {
    a_value_is_replaced_alone: put("a", "state", "\"paused\""), HAND => HAND.replace("\"active\"", "\"paused\"");
    a_key_is_put_at_the_end: put("bb", "port", "5") , &HAND.replace("\"address\":\"h:2\"", "\"machine\": \"aaaaaa1\", \"app\": \"x\"") => HAND.replace("\"address\":\"h:2\"", "\"machine\": \"aaaaaa1\", \"app\": \"x\", \"port\": 5");
    a_list_takes_the_style: put("a", "hosts", "[\"x.org\",\"y.org\"]"), HAND => HAND.replace("\"active\" }", "\"active\", \"hosts\": [\"x.org\", \"y.org\"] }");
    an_object_on_the_way_is_made: put("a", "secret.env", "\"S\""), HAND => HAND.replace("\"active\" }", "\"active\", \"secret\": { \"env\": \"S\" } }");
    one_line_stays_one_line: put("a", "hosts", "[\"x.org\", \"y.org\"]"), ONE_LINE => r#"{"version":1,"cells":{"a":{"address":"h:1","hosts":["x.org","y.org"]}}}"#;
    a_cell_is_added_in_one_line: add("c", "{\"address\": \"h:3\"}"), ONE_LINE => r#"{"version":1,"cells":{"a":{"address":"h:1"},"c":{"address":"h:3"}}}"#;
    a_cell_is_added_as_its_neighbour_stands: add("c", "{\"address\":\"h:3\"}"), HAND => HAND.replace("\"h:2\" }\n", "\"h:2\" },\n    \"c\": { \"address\": \"h:3\" }\n");
    tabs_and_line_ends_are_kept: add("b", "{\"address\":\"h:2\",\"hosts\":[]}"), TABS => TABS.replace("\r\n\t\t}\r\n", "\r\n\t\t},\r\n\t\t\"b\": {\r\n\t\t\t\"address\": \"h:2\",\r\n\t\t\t\"hosts\": []\r\n\t\t}\r\n");
    the_first_cell_gets_a_line: add("a", "{\"address\":\"h:1\"}"), EMPTY => EMPTY.replace("{}", "{\n        \"a\": {\"address\": \"h:1\"}\n    }");
    the_first_of_two_is_removed: gone("a"), HAND => HAND.replace("\"a\":  { \"address\": \"h:1\", \"state\": \"active\" },\n    ", "");
    the_last_of_two_is_removed: gone("bb"), HAND => HAND.replace(",\n    \"bb\": { \"address\":\"h:2\" }", "");
    the_only_one_is_removed: gone("a"), ONE_LINE => r#"{"version":1,"cells":{}}"#;
    a_key_is_taken_out: unset("a", "state"), HAND => HAND.replace(", \"state\": \"active\"", "");
    a_cell_is_renamed_where_it_stands: renamed("a", "z"), HAND => HAND.replace("\"a\":", "\"z\":");
    the_default_cell_follows_its_name: renamed("a", "z"), r#"{"version":1,"default_cell":"a","cells":{"a":{"address":"h:1"}}}"# => r#"{"version":1,"default_cell":"z","cells":{"z":{"address":"h:1"}}}"#;
    the_state_of_the_defaults_is_not_written: state("a", Admission::Active), HAND => HAND.replace(", \"state\": \"active\"", "");
    a_state_is_written: state("bb", Admission::Maintenance), HAND => HAND.replace("\"h:2\" }", "\"h:2\", \"state\": \"maintenance\" }");
    a_state_that_holds_already_changes_nothing: state("bb", Admission::Active), HAND => HAND;
    a_state_that_the_defaults_have_not_is_written: state("a", Admission::Active), r#"{"version":1,"defaults":{"state":"paused"},"cells":{"a":{"address":"h:1"}}}"# => r#"{"version":1,"defaults":{"state":"paused"},"cells":{"a":{"address":"h:1","state":"active"}}}"#;
    formatting_keeps_order_and_values: Operation::Format, "{\"cells\":{\"b\":{\"address\":\"h:1\"},\"a\":{\"address\" : \"h:2\",\"hosts\":[ \"x.org\" ]}},\"version\":1}" =>
        "{\n  \"cells\": {\n    \"b\": { \"address\": \"h:1\" },\n    \"a\": { \"address\": \"h:2\", \"hosts\": [\"x.org\"] }\n  },\n  \"version\": 1\n}\n";
    the_whole_is_replaced: Operation::Replace { text: ONE_LINE.into() }, HAND => ONE_LINE;
}

#[test]
fn items_are_put_into_lists_and_taken_out_again() {
    let list = |append: bool, items: &str| {
        let (cell, keys, items) = (name("a"), keys("hosts"), items.to_owned());
        if append {
            Operation::Append { cell, keys, items }
        } else {
            Operation::Discard { cell, keys, items }
        }
    };
    let one = edited(HAND, list(true, r#"["x.org"]"#));
    assert_eq!(
        one,
        HAND.replace("\"active\" }", "\"active\", \"hosts\": [\"x.org\"] }")
    );
    let three = edited(&one, list(true, r#"["y.org","z.org"]"#));
    assert_eq!(
        three,
        one.replace("[\"x.org\"]", "[\"x.org\", \"y.org\", \"z.org\"]")
    );
    assert_eq!(edited(&three, list(false, r#"["z.org", "y.org"]"#)), one);
    assert_eq!(edited(&one, list(false, r#"["x.org"]"#)), HAND);
    let missing = apply(one.as_bytes(), &[list(false, r#"["y.org"]"#)]);
    assert_eq!(missing, Err(EditError::NoSuchItem("\"y.org\"".to_owned())));
}

#[test]
fn formatting_twice_is_formatting_once() {
    let long = format!(
        r#"{{"version":1,"cells":{{"a":{{"address":"h:1","ready_path":"/{}"}}}}}}"#,
        "x".repeat(120)
    );
    let once = edited(&long, Operation::Format);
    assert!(
        once.contains("\"a\": {\n      \"address\": \"h:1\",\n"),
        "{once}"
    );
    assert_eq!(edited(&once, Operation::Format), once);
}

#[test]
fn what_cannot_be_done_is_refused() {
    let refused = |text: &str, operation| apply(text.as_bytes(), &[operation]).unwrap_err();
    assert_eq!(refused(HAND, gone("x")), EditError::NoSuchCell(name("x")));
    assert_eq!(
        refused(HAND, put("x", "port", "1")),
        EditError::NoSuchCell(name("x"))
    );
    assert_eq!(
        refused(HAND, add("a", "{}")),
        EditError::CellExists(name("a"))
    );
    assert_eq!(
        refused(HAND, renamed("a", "bb")),
        EditError::CellExists(name("bb"))
    );
    assert_eq!(
        refused(HAND, unset("a", "hosts")),
        EditError::NoSuchKey("hosts".to_owned())
    );
    assert_eq!(
        refused(HAND, put("a", "state.x", "1")),
        EditError::NoObject("state.x".to_owned())
    );
    assert_eq!(
        refused(HAND, put("a", "port", "[1")),
        EditError::BadValue("[1".to_owned())
    );
    assert!(
        matches!(refused("{", gone("a")), EditError::Unreadable(problems) if problems.len() == 1)
    );
    let EditError::Invalid(problems) = refused(HAND, put("bb", "hosts", "[\"X.org\"]")) else {
        panic!("a bad host is accepted");
    };
    assert_eq!(problems[0].path, "$.cells.bb.hosts[0]");
}

#[test]
fn a_broken_entry_keeps_nobody_from_editing_another() {
    let broken = HAND.replace("\"h:2\"", "5");
    assert_eq!(
        edited(&broken, state("a", Admission::Paused)),
        broken.replace("active", "paused")
    );
    assert_eq!(edited(&broken, put("bb", "address", "\"h:2\"")), HAND);
    let refused = apply(broken.as_bytes(), &[put("bb", "max_in_flight", "0")]);
    assert!(matches!(refused, Err(EditError::Invalid(problems)) if problems.len() == 1));
}

#[test]
fn changes_are_told_by_key() {
    let said = |before: &str, after: &str| -> Vec<String> {
        let changes = changes(before.as_bytes(), after.as_bytes());
        changes.iter().map(Change::to_string).collect()
    };
    assert_eq!(said(HAND, &edited(HAND, Operation::Format)), [""; 0]);
    assert_eq!(
        said(HAND, &edited(HAND, state("a", Admission::Paused))),
        ["~ cells.a.state: \"active\" -> \"paused\""]
    );
    assert_eq!(
        said(HAND, &edited(HAND, gone("bb"))),
        ["- cells.bb: {\"address\":\"h:2\"}"]
    );
    assert_eq!(
        said("", ONE_LINE),
        ["+ cells.a: {\"address\":\"h:1\"}", "+ version: 1"]
    );
    assert_eq!(said(HAND, "{"), ["~ the text, which is no registry here"]);
}

/// Numbers that look random and are the same in each run (Knuth, The Art of Computer Programming, volume 2, section 3.3.4).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn blank(&mut self) -> &'static str {
        ["", " ", "\n", "\n  ", "\t", "\r\n    ", "  "][self.below(7)]
    }
}

/// A text laid out as nobody would, with each cell's entry as it is written.
fn scattered(numbers: &mut Numbers) -> (String, Vec<(String, String)>) {
    let mut entries = Vec::new();
    for index in 0..numbers.below(5) {
        let mut blank = || numbers.blank();
        let entry = format!(
            "{{{}\"address\"{}:{}\"h:{}\"{},{}\"hosts\":{}[{}\"{index}.org\"]{}}}",
            blank(),
            blank(),
            blank(),
            index + 1,
            blank(),
            blank(),
            blank(),
            blank(),
            blank()
        );
        entries.push((format!("c{index}"), entry));
    }
    let mut text = format!(
        "{}{{{}\"version\":{}1,{}\"cells\"{}:{}{{",
        numbers.blank(),
        numbers.blank(),
        numbers.blank(),
        numbers.blank(),
        numbers.blank(),
        numbers.blank()
    );
    for (index, (name, entry)) in entries.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        text.push_str(&format!(
            "{comma}{}\"{name}\"{}:{}{entry}{}",
            numbers.blank(),
            numbers.blank(),
            numbers.blank(),
            numbers.blank()
        ));
    }
    text.push_str(&format!(
        "{}}}{}}}{}",
        numbers.blank(),
        numbers.blank(),
        numbers.blank()
    ));
    (text, entries)
}

#[test]
fn an_edit_leaves_all_other_entries_alone_however_they_are_laid_out() {
    let mut numbers = Numbers(11);
    for _ in 0..2000 {
        let (text, entries) = scattered(&mut numbers);
        let target = format!("c{}", numbers.below(entries.len() + 1));
        let is_there = entries.iter().any(|(name, _)| *name == target);
        let operation = match numbers.below(5) {
            _ if !is_there => add(&target, r#"{"address": "new:1"}"#),
            0 => gone(&target),
            1 => renamed(&target, "other"),
            2 => unset(&target, "hosts"),
            3 => put(&target, "address", "\"new:1\""),
            _ => state(&target, Admission::Disabled),
        };
        let after = edited(&text, operation.clone());
        for (name, entry) in entries.iter().filter(|(name, _)| *name != target) {
            assert!(
                after.contains(&format!("\"{name}\"")) && after.contains(entry),
                "{operation}\n{text}\n{after}"
            );
        }
        let registry = Registry::parse(after.as_bytes()).unwrap();
        let cell = registry.cell(&target);
        match operation {
            Operation::Remove { .. } => assert!(cell.is_none()),
            Operation::Rename { .. } => assert!(cell.is_none() && registry.cell("other").is_some()),
            Operation::Unset { .. } => assert!(cell.unwrap().hosts.is_empty()),
            Operation::State { .. } => assert_eq!(cell.unwrap().policy.state, Admission::Disabled),
            _ => assert_eq!(cell.unwrap().placement.to_string(), "new:1"),
        }
        // What stands around the one place of the edit is the same.
        let same = std::iter::zip(text.bytes(), after.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        let tail = std::iter::zip(text.bytes().rev(), after.bytes().rev())
            .take_while(|(a, b)| a == b)
            .count();
        let moved = text.len().saturating_sub(same + tail);
        let longest = entries
            .iter()
            .map(|(_, entry)| entry.len() + 40)
            .max()
            .unwrap_or(40);
        assert!(
            moved <= longest,
            "{operation} moved {moved} bytes\n{text}\n{after}"
        );
    }
}

/// A value that is nested so deep.
fn nested(depth: usize) -> String {
    format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth))
}

#[test]
fn a_value_that_is_nested_too_deep_is_refused() {
    let deep = nested(100_000);
    let bad = |refused| assert!(matches!(refused, EditError::BadValue(_)), "{refused}");
    let list = || format!("[{deep}]");
    let operations = [
        add("c", &deep),
        put("a", "secret", &deep),
        Operation::Append {
            cell: name("a"),
            keys: keys("hosts"),
            items: list(),
        },
        Operation::Discard {
            cell: name("a"),
            keys: keys("hosts"),
            items: list(),
        },
    ];
    for operation in operations {
        bad(apply(HAND.as_bytes(), &[operation]).unwrap_err());
    }
    bad(merge(HAND.as_bytes(), &name("a"), &deep).unwrap_err());
    // As deep as may be, it is refused for what it is.
    for depth in [1, 127] {
        let refused = apply(HAND.as_bytes(), &[put("a", "secret", &nested(depth))]);
        assert!(matches!(refused, Err(EditError::Invalid(_))), "{depth}");
    }
}

#[test]
fn a_way_to_a_key_has_an_end() {
    let long = vec!["a".to_owned(); 100_000];
    let operation = |keys: &[String]| Operation::Set {
        cell: name("a"),
        keys: keys.to_owned(),
        value: "1".to_owned(),
    };
    let refused = |keys: &[String]| apply(HAND.as_bytes(), &[operation(keys)]).unwrap_err();
    assert_eq!(refused(&long), EditError::TooDeep(100_000));
    assert_eq!(refused(&long[..17]), EditError::TooDeep(17));
    assert!(matches!(refused(&long[..16]), EditError::Invalid(_)));
}

#[test]
fn what_is_nested_too_deep_already_is_formatted_around() {
    let deep = nested(100_000);
    let text = format!(r#"{{"version":1,"cells":{{"a":{{"address":"h:1","x":{deep}}}}}}}"#);
    let formatted = edited(&text, Operation::Format);
    assert_eq!(formatted.matches('{').count(), 100_003);
    assert_eq!(edited(&formatted, Operation::Format), formatted);
}
