use super::*;

fn header(text: &str) -> Result<Instruction, Bad> {
    Instruction::from_header(text)
}

#[test]
fn header_form_reads_every_field() {
    let read = header(
        "region=\"iad,us\";app=cell-acme;state=b3f1;elsewhere=true;timeout=800ms;fallback=prefer_self",
    )
    .unwrap();
    assert_eq!(
        read,
        Instruction {
            regions: vec!["iad".into(), "us".into()],
            app: Some("cell-acme".into()),
            state: Some("b3f1".into()),
            elsewhere: true,
            timeout: Some(Duration::from_millis(800)),
            fallback: Some(Fallback::PreferSelf),
            ..Instruction::default()
        }
    );
}

#[test]
fn semicolon_inside_quotes_separates_nothing() {
    assert_eq!(header("state=\"a;b\"").unwrap().state.unwrap(), "a;b");
}

#[test]
fn value_is_cut_at_the_first_equals_sign() {
    assert_eq!(header("state=a=b").unwrap().state.unwrap(), "a=b");
}

#[test]
fn comma_needs_quotes() {
    assert!(header("region=iad,us").is_err());
    assert!(header("app=cell-acme,state=1").is_err());
}

#[test]
fn what_nobody_documents_is_refused() {
    for text in [
        "",
        "app",
        "app=",
        "app=a;app=b",
        "app=a; state=b",
        "colour=red",
        "timeout=8",
        "timeout=s",
        "fallback=self",
        "state=\"a",
        "app=a;",
        "instance=1;region=iad",
        "elsewhere=1",
    ] {
        assert!(header(text).is_err(), "{text}");
    }
}

#[test]
fn json_form_reads_transform_and_cache() {
    let read = Instruction::from_json(
        br#"{"app":"cell-acme","instance":"7811ab2c9d04e5","timeout":"8s","fallback":"force_self",
            "transform":{"path":"/inbox?page=2","delete_headers":["cookie"],
            "set_headers":[{"name":"x-cell","value":"acme"}]},"cache":{"prefix":"/p/*","ttl":60}}"#,
    )
    .unwrap();
    assert_eq!(read.timeout, Some(Duration::from_secs(8)));
    let transform = read.transform.unwrap();
    assert_eq!(transform.path.unwrap(), "/inbox?page=2");
    assert_eq!(transform.delete_headers, ["cookie"]);
    assert_eq!(transform.set_headers[0].1, "acme");
    let stored = CacheOrder::Store {
        pattern: "/p/*".into(),
        ttl_secs: 60,
        allow_bypass: false,
    };
    assert_eq!(read.cache, Some(stored));
}

#[test]
fn json_null_and_unknown_fields_are_refused() {
    assert!(Instruction::from_json(b"null").is_err());
    assert!(Instruction::from_json(br#"{"machine":"1"}"#).is_err());
    assert!(Instruction::from_json(br#"{"app":"a","cache":{"prefix":"/"}}"#).is_err());
}

#[test]
fn both_forms_at_once_are_refused() {
    let mut headers = HeaderMap::new();
    headers.insert("fly-replay", "app=a".parse().unwrap());
    assert!(Instruction::read(&headers, b"").is_ok());
    headers.insert("content-type", REPLAY_JSON.parse().unwrap());
    assert!(Instruction::read(&headers, br#"{"app":"a"}"#).is_err());
}

#[test]
fn two_instruction_headers_are_refused() {
    let mut headers = HeaderMap::new();
    headers.append("fly-replay", "app=a".parse().unwrap());
    headers.append("fly-replay", "app=b".parse().unwrap());
    assert!(Instruction::read(&headers, b"").is_err());
}

#[test]
fn cache_headers_need_a_ttl() {
    let mut headers = HeaderMap::new();
    headers.insert("fly-replay", "app=a".parse().unwrap());
    headers.insert("fly-replay-cache", "/acme/*".parse().unwrap());
    assert!(Instruction::read(&headers, b"").is_err());
    headers.insert("fly-replay-cache-ttl-secs", "60".parse().unwrap());
    headers.insert("fly-replay-cache-allow-bypass", "yes".parse().unwrap());
    let read = Instruction::read(&headers, b"").unwrap();
    let stored = CacheOrder::Store {
        pattern: "/acme/*".into(),
        ttl_secs: 60,
        allow_bypass: true,
    };
    assert_eq!(read.cache, Some(stored));
}
