//! The status page: its files, its event stream, and what a person sees in a real browser.
//!
//! Where no browser can be had, the tests that need one fail and say why. With
//! `MRCON_WITHOUT_BROWSER=1` they are not run, and the summary counts them as ignored.

use crate::common::browser::Browser;
use crate::common::config::{Config, Entry};
use crate::common::daemon::Daemon;
use crate::common::http;
use crate::common::load::{self, Load};
use crate::common::mongo::Mongo;
use crate::common::rabbit::Broker;
use crate::common::rig::Rig;
use crate::common::wait::{SOON, eventually};
use bson::{DateTime, Document, doc};
use serde_json::{Value, json};
use std::slice::from_ref;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const POLICY: &str = "content-security-policy: default-src 'none'; script-src 'self'; \
    style-src 'self'; connect-src 'self'; img-src 'self' data:";
/// All files of the page together.
const MOST_BYTES: usize = 60 << 10;
/// Pages that are open at once.
const MOST_CLIENTS: usize = 16;
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

/// A daemon whose servers are not there; its connectors fail, and the page has something to show.
fn lonely(entries: usize) -> Daemon {
    let entries: Vec<Entry> = (0..entries)
        .map(|number| {
            Entry::new(
                "shop",
                &format!("orders_{number}"),
                &format!("queue_{number}"),
            )
        })
        .collect();
    let variables = [
        ("MRCON_MONGO_URI", "mongodb://127.0.0.1:1/"),
        ("MRCON_RABBITMQ_URI", "amqp://127.0.0.1:1"),
    ];
    Daemon::spawn_with(&Config::new(entries), &variables, &[])
}

async fn listening(daemon: &Daemon) {
    eventually(SOON, "mrcond listens", async || {
        http::get(daemon.address, "/livez").await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn page_is_large_or_may_load_from_elsewhere() {
    let daemon = lonely(1);
    listening(&daemon).await;
    let page = daemon.get("/").await;
    let paths = page
        .body
        .split('"')
        .filter(|text| text.starts_with("/page/"));
    let mut paths: Vec<String> = paths.map(str::to_owned).collect();
    let mut total = page.body.len();
    // Scripts name further ones.
    let mut next = 0;
    while let Some(path) = paths.get(next).cloned() {
        next += 1;
        let file = daemon.get(&path).await;
        assert_eq!(file.code, 200, "{path}");
        assert!(file.head.contains(POLICY), "{path}: {}", file.head);
        assert!(!file.body.contains("https://"), "{path} names another host");
        assert!(
            !file.body.contains("innerHTML"),
            "{path} makes HTML of text"
        );
        total += file.body.len();
        for name in file
            .body
            .split('"')
            .filter_map(|text| text.strip_prefix("./"))
        {
            let path = format!("/page/{name}");
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    assert!(page.head.contains(POLICY), "{}", page.head);
    assert!(page.head.contains("text/html"), "{}", page.head);
    assert!(!page.body.contains("://"), "the page names another host");
    assert!(paths.len() > 5, "{paths:?}");
    assert!(total < MOST_BYTES, "{total} bytes");
    assert_eq!(daemon.get("/page/nothing.js").await.code, 404);
    let ask = async |method| http::send(daemon.address, method, "/", None).await.unwrap();
    assert_eq!(ask("POST").await.code, 405);
    let head = ask("GET").await.head;
    assert!(head.contains("connection: close"), "{head}");
}

/// A client of `/events` that has sent its request.
async fn client(daemon: &Daemon) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    let request = "GET /events HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads until `text` has come `times` times; returns all.
async fn read_until(stream: &mut TcpStream, text: &str, times: usize) -> String {
    let mut read = Vec::new();
    let reading = async {
        while String::from_utf8_lossy(&read).matches(text).count() < times {
            let length = stream.read_buf(&mut read).await.unwrap();
            assert!(length > 0, "the end: {}", String::from_utf8_lossy(&read));
        }
    };
    timeout(SOON, reading)
        .await
        .unwrap_or_else(|_| panic!("no {text:?} within {SOON:?}"));
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test]
async fn event_stream_is_silent_or_starves_health() {
    let daemon = lonely(2);
    listening(&daemon).await;
    let mut clients = Vec::new();
    for _ in 0..MOST_CLIENTS {
        let mut client = client(&daemon).await;
        read_until(&mut client, "retry: 2000\n\n", 1).await;
        clients.push(client);
    }
    // At once, and then every second; the same as `/status`.
    let text = read_until(&mut clients[0], "\n\n", 3).await;
    let event = text
        .lines()
        .find_map(|line| line.strip_prefix("data: "))
        .unwrap_or_else(|| panic!("no event: {text}"));
    let status: Value = serde_json::from_str(event).unwrap();
    assert_eq!(
        status["connectors"][1]["name"], "shop.orders_1 -> queue_1",
        "{status}"
    );
    // The others wait for nobody, and the next is told so.
    let mut refused = client(&daemon).await;
    let answer = read_until(&mut refused, "pages are connected already", 1).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert_eq!(daemon.get("/health").await.code, 503);
    assert_eq!(daemon.get("/metrics").await.code, 200);
    // A place that is left is free again.
    clients.pop();
    eventually(SOON, "a place is free", async || {
        let mut client = client(&daemon).await;
        let answer = read_until(&mut client, "\r\n", 1).await;
        match answer.starts_with("HTTP/1.1 200") {
            true => Ok(()),
            false => Err(answer),
        }
    })
    .await;
}

/// The page's complaints about itself. Answers that are missing on purpose are none.
async fn faults(browser: &Browser) -> Vec<Value> {
    let mut entries = browser.log("browser").await;
    entries.retain(|entry| entry["source"] != "network");
    entries
}

/// Everything that the page at `home` has asked for.
async fn requests(browser: &Browser, home: &str) -> Vec<String> {
    let mut urls = Vec::new();
    for entry in browser.log("performance").await {
        let text = entry["message"].as_str().unwrap_or_default();
        let event: Value = serde_json::from_str(text).unwrap_or_default();
        let (method, sent) = (&event["message"]["method"], &event["message"]["params"]);
        let url = |of: &Value| of.as_str().unwrap_or_default().to_owned();
        // The browser's own pages are another matter.
        if method == "Network.requestWillBeSent" && url(&sent["documentURL"]).starts_with(home) {
            urls.push(url(&sent["request"]["url"]));
        }
    }
    urls
}

#[tokio::test]
#[cfg_attr(
    without_browser,
    ignore = "MRCON_WITHOUT_BROWSER is set: there is no browser"
)]
async fn page_shows_a_failure_or_its_end_only_after_a_reload() {
    let (mongo, mut broker) = tokio::join!(Mongo::shared(), Broker::private());
    let rig = Rig::on(&mongo, &broker, "page").await;
    let entry = rig.entry();
    let daemon = rig.start(from_ref(&entry)).await;
    let browser = Browser::start().await;
    // The charts have to do without a history.
    browser
        .devtools("Network.setBlockedURLs", json!({"urls": ["*/history*"]}))
        .await;
    let home = format!("http://{}/", daemon.address);
    browser.open(&home).await;
    browser.value("window.opened = 'once'").await;
    let headline =
        |text: &str| format!("document.getElementById('headline').innerText.trim() === '{text}'");
    browser
        .until("it runs", &headline("The connector runs"))
        .await;

    let collections = "document.querySelector('.collections').hidden";
    assert_eq!(browser.value(collections).await, true);

    let load = Load::start(&rig.collection(), 0, Duration::from_millis(50));
    browser
        .until(
            "events flow",
            "parseFloat(document.querySelector('.number').textContent) > 0",
        )
        .await;
    let position = "Number(document.querySelectorAll('.way b')[2].textContent.replaceAll(',', ''))";
    let before = browser.value(position).await;
    browser
        .until("positions move", &format!("{position} > {before}"))
        .await;
    browser
        .until(
            "a chart is drawn",
            "document.querySelector('.line').getAttribute('d').length > 0",
        )
        .await;
    assert_eq!(
        browser
            .text("document.querySelector('.sign').textContent")
            .await,
        "running"
    );
    assert_eq!(
        browser
            .text("document.getElementById('live-text').textContent")
            .await,
        "live"
    );

    broker.kill().await;
    browser
        .until("it fails", &headline("The connector does not deliver"))
        .await;
    browser
        .until(
            "its state, cause and remedy are there",
            "document.querySelector('.sign').textContent === 'restarting' \
            && document.querySelector('.trouble .cause').textContent !== '' \
            && document.querySelector('.trouble .remedy').textContent !== ''",
        )
        .await;
    let news = browser
        .text("document.getElementById('news').textContent")
        .await;
    assert!(news.contains("is restarting: "), "{news}");
    broker.restart().await;
    browser
        .until("it runs again", &headline("The connector runs"))
        .await;
    browser
        .until(
            "the error is over",
            "document.querySelector('.trouble').hidden \
            && document.querySelector('.error h4').textContent.startsWith('Last error, over now')",
        )
        .await;
    let confirmed = browser.value(position).await;
    browser
        .until("it goes on", &format!("{position} > {confirmed}"))
        .await;

    load.finish().await;
    assert_eq!(
        browser.text("window.opened").await,
        "once",
        "it was loaded again"
    );
    assert_eq!(faults(&browser).await, Vec::<Value>::new());
    let requests = requests(&browser, &home).await;
    assert!(requests.len() > 5, "{requests:?}");
    for url in &requests {
        let own = url.starts_with(&home) || url.starts_with("data:");
        assert!(own, "a request to elsewhere: {url}");
    }
    browser.close().await;
    rig.clean().await;
}

#[tokio::test]
#[cfg_attr(
    without_browser,
    ignore = "MRCON_WITHOUT_BROWSER is set: there is no browser"
)]
async fn collection_of_a_database_is_not_on_the_page_or_becomes_markup() {
    const MARKUP: &str = r#"<img src=x onerror="window.harmed = true">"#;
    let rig = Rig::new("page-database").await;
    let entry = rig.entry_for("*", &rig.name);
    let daemon = rig.start(from_ref(&entry)).await;
    load::insert(&rig.collection_named(MARKUP), 0, 1300).await;
    load::insert(&rig.collection_named("people"), 0, 20).await;
    for number in 0..22 {
        load::insert(&rig.collection_named(&format!("c{number}")), 0, 1).await;
    }
    daemon.confirmed(&entry.name(), 1300 + 20 + 22).await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{}/", daemon.address)).await;
    browser
        .until(
            "their number is there, and no more",
            "document.querySelector('.collections').innerText.trim().replace(/\\s+/g, ' ') \
            === 'Collections 24 with events since the start'",
        )
        .await;
    let click = "document.querySelector('.collections summary').click()";
    browser.value(click).await;
    let shown = |row: usize| {
        format!(
            "[...document.querySelectorAll('.collections tbody tr')[{row}].cells].map((cell) => cell.innerText)"
        )
    };
    browser
        .until(
            "the busiest are listed",
            &format!("{}.length === 3", shown(19)),
        )
        .await;
    let rows = "document.querySelectorAll('.collections tbody tr').length";
    assert_eq!(browser.value(rows).await, 20);
    for (row, name, confirmed) in [(0, MARKUP, "1,300"), (1, "people", "20"), (19, "c17", "1")] {
        let cells = browser.value(&shown(row)).await;
        assert_eq!((&cells[0], &cells[1]), (&json!(name), &json!(confirmed)));
        let last = cells[2].as_str().unwrap_or_default();
        assert!(last.ends_with(" s ago"), "{cells}");
    }
    let more = "document.querySelector('.collections p').innerText";
    assert_eq!(browser.text(more).await, "and 4 more in /status");
    let images = "document.images.length + ('harmed' in window ? 1 : 0)";
    assert_eq!(browser.value(images).await, 0, "a name became markup");
    // It stays open when news come.
    load::insert(&rig.collection_named("people"), 100, 1300).await;
    browser
        .until("news are shown", &format!("{}[1] === '1,320'", shown(0)))
        .await;
    assert_eq!(faults(&browser).await, Vec::<Value>::new());
    browser.close().await;
    rig.clean().await;
}

#[tokio::test]
#[cfg_attr(
    without_browser,
    ignore = "MRCON_WITHOUT_BROWSER is set: there is no browser"
)]
async fn curves_begin_anew_with_the_daemon() {
    let rig = Rig::new("curves").await;
    let entry = rig.entry();
    let config = Config::new(from_ref(&entry)).with_metrics("history.resolution", "1s");
    let mut daemon = Daemon::spawn(&config, &rig.uris());
    daemon.ready().await;
    load::insert(&rig.collection(), 0, 100).await;
    daemon.confirmed(&entry.name(), 100).await;
    assert_eq!(daemon.terminate().await.code, Some(0));
    // What an earlier run has left in the store, half an hour ago.
    let store = rig.client.database(&rig.tokens_database());
    let store = store.collection::<Document>("metrics_history");
    let newest = store.find_one(doc! {}).sort(doc! {"t": -1}).await.unwrap();
    let mut old = newest.unwrap_or_else(|| panic!("the store is empty"));
    let then = old.get_datetime("t").unwrap().timestamp_millis() - 30 * 60 * 1000;
    old.remove("_id");
    old.insert("t", DateTime::from_millis(then));
    old.insert("lag_seconds", 42.0);
    store.insert_one(old).await.unwrap();

    let mut daemon = Daemon::spawn(&config, &rig.uris());
    daemon.ready().await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{}/", daemon.address)).await;
    let lag = "document.querySelectorAll('.spark')[1].getAttribute('aria-label')";
    browser
        .until(
            "the curve reaches back",
            &format!("/^Lag, last (29|3[01]) min: .* highest 42 s$/.test({lag})"),
        )
        .await;
    browser
        .until(
            "totals go on",
            "document.body.innerText.includes('100 received')",
        )
        .await;
    assert_eq!(faults(&browser).await, Vec::<Value>::new());
    browser.close().await;
    rig.clean().await;
}

#[tokio::test]
#[cfg_attr(
    without_browser,
    ignore = "MRCON_WITHOUT_BROWSER is set: there is no browser"
)]
async fn page_shuts_out_a_phone_a_keyboard_or_the_night() {
    let daemon = lonely(12);
    listening(&daemon).await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{}/", daemon.address)).await;
    browser
        .until(
            "all connectors are there",
            "document.querySelectorAll('.card').length === 12",
        )
        .await;

    let colour_by = async |system: &str, theme: &str| {
        let features = json!([{"name": "prefers-color-scheme", "value": system}]);
        browser
            .devtools("Emulation.setEmulatedMedia", json!({"features": features}))
            .await;
        let has = format!("document.documentElement.dataset.theme === '{theme}'");
        browser.until(&format!("{theme} by {system}"), &has).await;
        browser
            .text("getComputedStyle(document.body).backgroundColor")
            .await
    };
    let dark = colour_by("dark", "dark").await;
    assert_ne!(dark, colour_by("light", "light").await);

    // Everything that can be used is reached, in the order in which it is read.
    let focused = "document.activeElement.id || document.activeElement.className";
    let mut reached = Vec::new();
    for _ in 0..30 {
        browser.press(TAB).await;
        reached.push(browser.text(focused).await);
    }
    let expected = ["skip", "theme", "expand", "search", "filter", "name"];
    let mut order = reached.clone();
    order.dedup();
    assert_eq!(order[..expected.len()], expected, "{reached:?}");
    let seen = "getComputedStyle(document.activeElement, '::after').outlineStyle";
    browser
        .value("document.querySelector('.name').focus()")
        .await;
    assert_eq!(
        browser.text(seen).await,
        "solid",
        "the focus cannot be seen"
    );
    browser.press(ENTER).await;
    let open = "document.querySelector('.name').getAttribute('aria-expanded') === 'true' \
        && ['saved', 'Gaps', 'Dead letters'].every((word) => document.querySelector('.details').innerText.includes(word))";
    browser.until("details open", open).await;

    // The choice of colours outlives the page.
    browser
        .value("document.getElementById('theme').focus()")
        .await;
    browser.press(&ENTER.repeat(2)).await;
    assert_eq!(colour_by("light", "dark").await, dark);
    browser.devtools("Page.reload", json!({})).await;
    browser.until("dark again", "document.documentElement.dataset.theme === 'dark' && document.querySelectorAll('.card').length === 12").await;

    browser.press("/orders_7").await;
    browser
        .until(
            "the search finds one",
            "[...document.querySelectorAll('.card')].filter((card) => !card.hidden).length === 1",
        )
        .await;

    let phone = json!({"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": true});
    browser
        .devtools("Emulation.setDeviceMetricsOverride", phone)
        .await;
    browser
        .value("document.getElementById('expand').click()")
        .await;
    browser
        .until(
            "it fits a phone",
            "innerWidth === 360 && document.documentElement.scrollWidth <= 360",
        )
        .await;

    daemon.kill().await;
    browser
        .until(
            "old news are called old",
            "document.getElementById('headline').innerText.includes('No answer from mrcond since')",
        )
        .await;
    assert_eq!(faults(&browser).await, Vec::<Value>::new());
    browser.close().await;
}
