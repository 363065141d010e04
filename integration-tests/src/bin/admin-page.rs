//! The admin page in a real Chromium, before a router with ten thousand cells on the emulated platform.
//!
//! `cargo run -p integration-tests --bin admin-page -- --pictures docs/pictures`

use std::path::PathBuf;

use clap::Parser;
use integration_tests::browser::Browser;
use integration_tests::client::{self, Error};
use integration_tests::fly::{Fly, MachineSpec};
use integration_tests::{Binaries, Router, RouterOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Cells in the registry.
const CELLS: usize = 10_000;
/// The size of pictures, in pixels.
const SIZE: (u32, u32) = (1180, 760);

/// Uses the admin page as an operator would.
#[derive(Debug, Parser)]
struct Args {
    /// A folder for pictures of the page.
    #[arg(long)]
    pictures: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args = Args::parse();
    let mut scene = Scene::start(args.pictures).await?;
    scene.signs_in().await?;
    scene.finds_one_among_ten_thousand().await?;
    scene.adds_a_cell_and_sees_its_first_request().await?;
    scene.sees_an_upload_come_and_what_went_before().await?;
    scene.is_told_at_the_field_what_is_wrong().await?;
    scene.pauses_it().await?;
    scene.sees_what_an_editor_breaks_and_undoes_it().await?;
    scene.asks_where_a_request_goes().await?;
    scene.renames_a_cell_and_removes_it().await?;
    scene.leaves_sleeping_cells_asleep_until_told().await?;
    scene.is_read_to_those_who_do_not_see().await?;
    scene.signs_out().await?;
    println!("the admin page does what it should, in chromium");
    Ok(())
}

struct Scene {
    fly: Fly,
    router: Router,
    browser: Browser,
    admin: String,
    token: String,
    /// A cell that answers, at an address.
    cell: String,
    pictures: Option<PathBuf>,
    _folder: tempfile::TempDir,
}

/// Answers whatever is asked, once all of it has come.
async fn cell() -> Result<String, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while !is_whole(&asked) {
                    if matches!(socket.read_buf(&mut asked).await, Ok(0) | Err(_)) {
                        return;
                    }
                }
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
                let _ = socket.write_all(answer.as_bytes()).await;
            });
        }
    });
    Ok(address)
}

/// Whether these bytes are a whole request.
fn is_whole(asked: &[u8]) -> bool {
    let text = String::from_utf8_lossy(asked);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let mut fields = head.lines();
    let length = fields.find_map(|field| field.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap_or(0))
}

/// A registry as people write it: a line for each cell.
fn registry(cells: &[(String, Value)]) -> String {
    let lines: Vec<_> = cells
        .iter()
        .map(|(name, entry)| format!("    \"{name}\": {entry}"))
        .collect();
    let lines = lines.join(",\n");
    format!(
        "{{\n  \"version\": 1,\n  \"domain\": \"example.com\",\n  \"defaults\": {{ \"app\": \"cells\" }},\n  \"cells\": {{\n{lines}\n  }}\n}}\n"
    )
}

impl Scene {
    async fn start(pictures: Option<PathBuf>) -> Result<Self, Error> {
        let fly = Fly::start().await?;
        let asleep = fly.machine(MachineSpec::cell("cells", "erin"))?;
        let awake = fly.machine(MachineSpec::cell("cells", "bob"))?;
        fly.wake(&awake).await?;
        let cell = cell().await?;
        let machine = |machine: &integration_tests::fly::Machine| json!({ "machine": machine.id, "port": machine.address().port() });
        let named = [
            (
                "alice",
                json!({ "address": cell, "hosts": ["www.alice.org", "alice.org"], "max_in_flight": 50 }),
            ),
            ("bob", machine(&awake)),
            ("carol", json!({ "address": cell, "state": "maintenance" })),
            ("dave", json!({ "address": "127.0.0.1:9" })),
            ("erin", machine(&asleep)),
            ("frank", json!({ "address": cell, "state": "paused" })),
            ("grace", json!({ "address": cell })),
            ("mallory", json!({ "address": cell, "state": "disabled" })),
        ];
        let named = named.map(|(name, entry)| (name.to_owned(), entry));
        let others = (named.len()..CELLS)
            .map(|number| (format!("tenant-{number:05}"), json!({ "address": cell })));
        let cells: Vec<_> = named.into_iter().chain(others).collect();

        let folder = tempfile::tempdir()?;
        let tokens = folder.path().join("tokens");
        let made = std::process::Command::new(&Binaries::built().cell_router)
            .args(["token", "anna", "--role", "edit"])
            .output()?;
        std::fs::write(&tokens, made.stdout)?;
        let tokens = tokens.to_str().ok_or("a path that is no text")?;
        let options = RouterOptions::new(registry(&cells))
            .on_fly(&fly, "router", "0123456789abcd")
            .args(["--admin-listen", "127.0.0.1:0", "--admin-tokens", tokens]);
        let router = Router::start(options).await;
        let open = router
            .next_event(|event| event["message"] == "admin listener open")
            .await;
        let address = open["address"].as_str().ok_or("no address")?;
        for (host, times) in [
            ("alice", 60),
            ("bob", 25),
            ("dave", 7),
            ("grace", 12),
            ("mallory", 3),
        ] {
            for _ in 0..times {
                client::get(router.addr(), &format!("{host}.example.com"), "/").await?;
            }
        }
        Ok(Self {
            admin: format!("http://{address}/"),
            token: String::from_utf8(made.stderr)?.trim().to_owned(),
            browser: Browser::start().await?,
            fly,
            router,
            cell,
            pictures,
            _folder: folder,
        })
    }

    /// Presses the button that says so.
    async fn press(&mut self, text: &str) -> Result<(), Error> {
        let find = format!(
            "[...document.querySelectorAll('button, a.button')].find((one) => one.textContent === '{text}' && !one.disabled)"
        );
        self.browser.until(&find).await?;
        self.browser.run(&format!("{find}.click()")).await?;
        Ok(())
    }

    /// Puts a text into a field as if it were typed there.
    async fn fill(&mut self, id: &str, text: &str) -> Result<(), Error> {
        let field = format!("document.getElementById('{id}')");
        self.browser.until(&field).await?;
        self.browser
            .run(&format!("{field}.focus(); {field}.select()"))
            .await?;
        self.browser.typed(text).await
    }

    async fn picture(&mut self, name: &str, dark: bool) -> Result<(), Error> {
        let png = self.browser.picture(SIZE, dark).await?;
        if let Some(folder) = &self.pictures {
            std::fs::create_dir_all(folder)?;
            std::fs::write(folder.join(name), png)?;
        }
        Ok(())
    }

    /// Waits until the page's content has this text.
    async fn reads(&mut self, text: &str) -> Result<(), Error> {
        let script = format!("document.body.innerText.includes({})", Value::from(text));
        self.browser.until(&script).await
    }

    async fn signs_in(&mut self) -> Result<(), Error> {
        let admin = self.admin.clone();
        self.browser.open(&admin).await?;
        self.browser
            .until("document.activeElement?.id === 'token'")
            .await?;
        self.browser.typed("guess").await?;
        self.browser.key("Enter").await?;
        self.reads("Send a token that the router knows").await?;
        self.browser
            .until("document.activeElement?.id === 'token' && document.activeElement.value === ''")
            .await?;
        let token = self.token.clone();
        self.browser.typed(&token).await?;
        self.browser.key("Enter").await?;
        self.reads("of 10,000").await?;
        self.browser
            .until("document.getElementById('pulse').textContent === 'live'")
            .await?;
        // Refused tokens are told of by the browser; nothing else may be.
        self.browser.complaints.retain(|one| !one.contains("401"));
        self.browser.until("[...document.querySelectorAll('tbody tr')].some((row) => row.innerText.includes('erin') && row.innerText.includes('asleep'))").await?;
        self.browser.until("[...document.querySelectorAll('tbody tr')].some((row) => row.innerText.includes('dave') && row.innerText.includes('breaker open'))").await?;
        self.picture("admin-cells.png", false).await
    }

    async fn finds_one_among_ten_thousand(&mut self) -> Result<(), Error> {
        self.browser.run("document.activeElement.blur()").await?;
        self.browser.key("/").await?;
        self.browser
            .until("document.activeElement?.id === 'search'")
            .await?;
        self.browser.typed("alice.org").await?;
        self.browser
            .until("document.querySelectorAll('tbody tr').length === 1")
            .await?;
        self.reads("alice").await?;
        self.browser
            .run("document.getElementById('search').select()")
            .await?;
        self.browser.typed("tenant-09999").await?;
        self.reads("1–1 of 1").await?;
        self.browser.key("Enter").await?;
        self.browser
            .until("location.hash === '#/cells/tenant-09999'")
            .await
    }

    async fn adds_a_cell_and_sees_its_first_request(&mut self) -> Result<(), Error> {
        self.browser.run("location.hash = '#/cells/new'").await?;
        self.fill("name", "zoe").await?;
        self.fill("place", "no-machine").await?;
        self.fill("hosts", "zoe.example.org").await?;
        self.press("Add").await?;
        self.browser
            .until("document.querySelector('ul.wrong')?.innerText.includes('no machine id')")
            .await?;
        let cell = self.cell.clone();
        self.fill("place", &cell).await?;
        self.press("Add").await?;
        self.browser
            .until("location.hash === '#/cells/zoe'")
            .await?;
        self.reads("None since the router's start.").await?;
        let answer = client::get(self.router.addr(), "zoe.example.org", "/").await?;
        assert_eq!(answer.text(), "ok");
        self.reads("1 · 100 %").await?;
        self.browser
            .until(
                "document.querySelector('td.path')?.parentElement.innerText.includes('GET /\t200')",
            )
            .await?;
        self.reads("just now").await
    }

    async fn sees_an_upload_come_and_what_went_before(&mut self) -> Result<(), Error> {
        let host = "zoe.example.org";
        let mut film = client::Raw::connect(self.router.addr()).await?;
        film.write(format!(
            "PUT /films/holiday.mp4?token=hidden HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1000\r\n\r\n"
        ))
        .await?;
        film.write([b'x'; 250]).await?;
        self.reads("250 B of 1.0 kB · 25 %").await?;
        self.browser
            .until("document.querySelector('ul.uploads progress')?.value === 250")
            .await?;
        let mut left = client::Raw::connect(self.router.addr()).await?;
        left.write(format!(
            "POST /notes HTTP/1.1\r\nhost: {host}\r\ncontent-length: 9\r\n\r\n1"
        ))
        .await?;
        self.reads("1 B of 9 B").await?;
        left.reset()?;
        self.reads("client_cut").await?;
        for path in ["/posts", "/posts/7", "/style.css", "/posts/7/comments"] {
            client::get(self.router.addr(), host, path).await?;
        }
        self.reads("/posts/7/comments").await?;
        self.browser
            .until("document.getElementById('toast').textContent === ''")
            .await?;
        self.browser
            .run("document.querySelector('ul.uploads').parentElement.scrollIntoView()")
            .await?;
        self.picture("admin-requests.png", false).await?;
        let nameless = self.browser.nameless().await?;
        assert!(nameless.is_empty(), "{nameless:#?}");
        film.write([b'x'; 750]).await?;
        assert_eq!(film.answer().await?.text(), "ok");
        self.browser
            .until("!document.body.innerText.includes('Uploads under way')")
            .await?;
        self.reads("PUT /films/holiday.mp4").await?;
        let told = "!document.body.innerText.includes('hidden')";
        self.browser.until(told).await
    }

    async fn is_told_at_the_field_what_is_wrong(&mut self) -> Result<(), Error> {
        let choose = "(() => { const more = document.querySelector('[aria-label=\"Add a key\"]'); more.value = 'max_in_flight'; more.dispatchEvent(new Event('change')); })()";
        self.browser
            .until("document.querySelector('[aria-label=\"Add a key\"]')")
            .await?;
        self.browser.run(choose).await?;
        self.fill("key-max_in_flight", "plenty").await?;
        self.browser
            .until("document.getElementById('key-max_in_flight-wrong').innerText.includes('1 to')")
            .await?;
        self.browser.until("document.getElementById('key-max_in_flight').getAttribute('aria-invalid') === 'true'").await?;
        self.fill("key-max_in_flight", "20").await?;
        self.reads("cells.zoe.max_in_flight: 20").await?;
        self.press("Save").await?;
        self.reads("zoe is saved.").await?;
        self.browser.run("scrollTo(0, 0)").await?;
        self.picture("admin-cell-dark.png", true).await
    }

    async fn pauses_it(&mut self) -> Result<(), Error> {
        self.press("Pause").await?;
        self.browser
            .until("document.querySelector('h1').parentElement.innerText.includes('paused')")
            .await?;
        let held = tokio::spawn(client::get(self.router.addr(), "zoe.example.org", "/"));
        self.press("Resume").await?;
        self.browser
            .until("document.querySelector('h1').parentElement.innerText.includes('active')")
            .await?;
        assert_eq!(held.await??.text(), "ok");
        Ok(())
    }

    async fn sees_what_an_editor_breaks_and_undoes_it(&mut self) -> Result<(), Error> {
        let text = std::fs::read_to_string(self.router.registry())?;
        self.router
            .save(&text.replace("\"max_in_flight\": 20", "\"max_in_flight\": \"twenty\""));
        self.reads("The entry is broken; the last good version serves on")
            .await?;
        self.browser
            .until("document.querySelector('h1').parentElement.innerText.includes('flagged')")
            .await?;
        self.picture("admin-flagged-dark.png", true).await?;
        assert_eq!(
            client::get(self.router.addr(), "zoe.example.org", "/")
                .await?
                .text(),
            "ok"
        );
        self.browser.run("location.hash = '#/history'").await?;
        self.reads("by hand").await?;
        self.picture("admin-history.png", false).await?;
        self.press("Undo").await?;
        self.press("Bring it back").await?;
        self.browser
            .until("document.getElementById('alarm').innerText === ''")
            .await?;
        self.browser.run("location.hash = '#/cells/zoe'").await?;
        self.browser
            .until("document.getElementById('key-max_in_flight')?.value === '20'")
            .await?;
        assert_eq!(std::fs::read_to_string(self.router.registry())?, text);
        Ok(())
    }

    async fn asks_where_a_request_goes(&mut self) -> Result<(), Error> {
        self.browser.run("location.hash = '#/explain'").await?;
        self.fill("url", "http://zoe.example.org/x").await?;
        self.press("Explain").await?;
        self.reads("host zoe.example.org").await
    }

    async fn renames_a_cell_and_removes_it(&mut self) -> Result<(), Error> {
        self.browser.run("location.hash = '#/cells/zoe'").await?;
        self.press("Rename").await?;
        self.fill("answer", "zora").await?;
        self.browser
            .run("document.querySelector('dialog button.main').click()")
            .await?;
        self.reads("zoe is zora now.").await?;
        self.browser
            .until("document.querySelector('h1')?.textContent === 'zora'")
            .await?;
        let answer = client::get(self.router.addr(), "zora.example.com", "/").await?;
        assert_eq!(answer.text(), "ok");
        self.press("Remove").await?;
        self.browser
            .until("document.querySelector('dialog button.danger')")
            .await?;
        self.browser
            .run("document.querySelector('dialog button.danger').click()")
            .await?;
        self.reads("zora is removed.").await?;
        self.browser.until("location.hash === '#/'").await?;
        self.reads("of 10,000").await?;
        let text = std::fs::read_to_string(self.router.registry())?;
        assert!(!text.contains("zoe") && !text.contains("zora"));
        Ok(())
    }

    /// What is heard of ends with the session, and is heard once after the next one begins.
    async fn signs_out(&mut self) -> Result<(), Error> {
        self.browser
            .run("window.asked = []; { const before = fetch; window.fetch = (to, how) => { if (to === '/v1/events') asked.push(how.signal); return before(to, how); }; }")
            .await?;
        for times in [0, 1] {
            self.browser
                .run("document.getElementById('leave').click()")
                .await?;
            self.browser
                .until("document.activeElement?.id === 'token'")
                .await?;
            let over =
                format!("asked.length === {times} && asked.every((signal) => signal.aborted)");
            self.browser.until(&over).await?;
            let token = self.token.clone();
            self.browser.typed(&token).await?;
            self.browser.key("Enter").await?;
            self.browser
                .until("document.getElementById('pulse').textContent === 'live'")
                .await?;
        }
        self.browser
            .until("asked.length === 2 && asked.filter((signal) => !signal.aborted).length === 1")
            .await
    }

    async fn leaves_sleeping_cells_asleep_until_told(&mut self) -> Result<(), Error> {
        self.browser.run("location.hash = '#/cells/erin'").await?;
        self.browser
            .until("document.querySelector('h1')?.parentElement.innerText.includes('asleep')")
            .await?;
        assert_eq!(
            self.fly.starts(),
            Vec::<String>::new(),
            "the page has woken what it shows"
        );
        self.press("Wake").await?;
        self.browser.until("[...document.querySelectorAll('button')].some((one) => one.textContent === 'Put to sleep')").await?;
        assert_eq!(self.fly.starts().len(), 1);
        self.press("Put to sleep").await?;
        self.browser
            .until("document.querySelector('h1')?.parentElement.innerText.includes('asleep')")
            .await
    }

    async fn is_read_to_those_who_do_not_see(&mut self) -> Result<(), Error> {
        for view in [
            "#/",
            "#/cells/alice",
            "#/cells/new",
            "#/history",
            "#/explain",
        ] {
            self.browser
                .run(&format!("location.hash = '{view}'"))
                .await?;
            self.browser
                .until("document.querySelector('main h1')")
                .await?;
            let nameless = self.browser.nameless().await?;
            assert!(nameless.is_empty(), "{view}: {nameless:#?}");
        }
        let complaints = &self.browser.complaints;
        // Fields that are wrong, and what somebody has taken away, are told of by the browser, too.
        let others: Vec<_> = complaints
            .iter()
            .filter(|one| !one.contains("422") && !one.contains("404"))
            .collect();
        assert!(others.is_empty(), "{others:#?}");
        Ok(())
    }
}
