//! The registry and the proxy in front of it do what they say.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use trilith_testkit::http::{self, Request};
use trilith_testkit::{
    Fault, FaultProxy, Format, ImageOptions, Registry, RegistryOptions, Rule, assert_failure,
    assert_success, busybox_image, skopeo, stdout_of,
};

fn lines(requests: &[Request]) -> Vec<String> {
    let line = |r: &Request| format!("{} {} {:?}", r.method, r.path, r.status);
    requests.iter().map(line).collect()
}

#[test]
fn a_registry_answers_counts_requests_and_ends() {
    let registry = Registry::start(RegistryOptions::default());
    assert_eq!(registry.get("GET", "/v2/", &[]).status, 200);
    assert_eq!(registry.manifest("absent", "1"), None);
    registry.forget_requests();
    assert_eq!(registry.requests(), []);
    assert_eq!(registry.get("HEAD", "/v2/a/b/manifests/1", &[]).status, 404);
    assert_eq!(
        lines(&registry.requests()),
        ["HEAD /v2/a/b/manifests/1 Some(404)"]
    );
    let host = registry.host().to_owned();
    drop(registry);
    assert!(std::net::TcpStream::connect(host).is_err());
}

#[test]
fn a_registry_keeps_what_is_pushed() {
    let registry = Registry::start(RegistryOptions::default());
    let image = busybox_image(&registry, "acme/base:1", &ImageOptions::default());
    assert_eq!(registry.tags("acme/base"), ["1"]);
    let manifest = registry.manifest("acme/base", "1").expect("it was pushed");
    assert_eq!(manifest.digest, image.digest);
    let layer = manifest.json()["layers"][0].clone();
    let digest = layer["digest"].as_str().expect("a layer has a digest");
    assert!(registry.has_blob("acme/base", digest));
    assert!(!registry.has_blob("acme/base", &format!("sha256:{:064}", 0)));
    let size = registry.blob_path(digest).metadata().unwrap().len();
    assert_eq!(layer["size"], size);
    // Nothing may be deleted unless the test asks for it.
    let path = format!("/v2/acme/base/manifests/{}", image.digest);
    assert_eq!(registry.get("DELETE", &path, &[]).status, 405);
}

#[test]
fn a_registry_deletes_where_it_may() {
    let registry = Registry::start(RegistryOptions {
        delete: true,
        ..RegistryOptions::default()
    });
    let image = busybox_image(&registry, "acme/base:1", &ImageOptions::default());
    let path = format!("/v2/acme/base/manifests/{}", image.digest);
    assert_eq!(registry.get("DELETE", &path, &[]).status, 202);
    assert_eq!(registry.manifest("acme/base", "1"), None);
}

#[test]
fn a_registry_asks_for_credentials() {
    let registry = Registry::start(RegistryOptions {
        auth: Some(("ann".to_owned(), "pass word".to_owned())),
        ..RegistryOptions::default()
    });
    let response = http::request(registry.host(), "GET", "/v2/", &[]);
    assert_eq!(response.status, 401);
    assert_eq!(
        response.header("www-authenticate"),
        Some("Basic realm=\"testkit\"")
    );
    let image = busybox_image(&registry, "a:1", &ImageOptions::default());
    let reference = format!("docker://{}", image.reference);
    assert_failure(skopeo("inspect").arg(&reference));
    assert_success(skopeo("inspect").args(["--creds", "ann:pass word", &reference]));
    assert_failure(skopeo("inspect").args(["--creds", "ann:other", &reference]));
}

#[test]
fn a_proxy_passes_on_pushes_and_pulls_and_counts_bytes() {
    let registry = Registry::start(RegistryOptions::default());
    let image = busybox_image(&registry, "a:1", &ImageOptions::multi_platform(Format::Oci));
    let proxy = FaultProxy::start(registry.host());
    let from = format!("docker://{}", proxy.reference("a:1"));
    let to = format!("docker://{}", proxy.reference("b/c:2"));
    assert_success(skopeo("copy").args(["--all", "--preserve-digests", &from, &to]));
    assert_eq!(
        registry.manifest("b/c", "2").map(|m| m.digest),
        Some(image.digest)
    );
    let requests = proxy.requests();
    assert!(requests.iter().all(|r| r.status.is_some()), "{requests:?}");
    let put = requests
        .iter()
        .find(|r| r.method == "PUT" && r.path == "/v2/b/c/manifests/2")
        .expect("the index was pushed");
    assert_eq!(put.status, Some(201));
    assert_eq!(put.header("host"), Some(proxy.host()));
    assert_eq!(
        put.header("content-length"),
        Some(put.sent.to_string()).as_deref()
    );
    proxy.forget_requests();
    let all = registry.manifest("b/c", "2").unwrap();
    let body = http::request(
        proxy.host(),
        "GET",
        "/v2/b/c/manifests/2",
        &[("Accept", &all.media_type)],
    )
    .body;
    assert_eq!(body, all.bytes);
    assert_eq!(proxy.requests()[0].received, all.bytes.len() as u64);
}

#[test]
fn rules_answer_in_order_and_run_out() {
    let registry = Registry::start(RegistryOptions::default());
    let proxy = FaultProxy::start(registry.host());
    let retry = vec![("Retry-After".to_owned(), "0".to_owned())];
    proxy.add(
        Rule::new("GET", "/v2/", Fault::Answer(429, retry))
            .after(1)
            .times(1),
    );
    proxy.add(Rule::new("*", "/v2/", Fault::status(500)).times(1));
    let status = |method| http::request(proxy.host(), method, "/v2/", &[]).status;
    // The first rule lets one request pass; a method it does not name meets the second.
    assert_eq!(status("GET"), 200);
    assert_eq!(status("HEAD"), 500);
    let response = http::request(proxy.host(), "GET", "/v2/", &[]);
    assert_eq!(response.status, 429);
    assert_eq!(response.header("retry-after"), Some("0"));
    assert!(String::from_utf8_lossy(&response.body).contains("injected"));
    assert_eq!(status("GET"), 200);
    proxy.add(Rule::new("*", "", Fault::status(401)));
    assert_eq!((status("GET"), status("GET")), (401, 401));
    proxy.clear();
    assert_eq!(status("GET"), 200);
    let statuses: Vec<_> = proxy.requests().iter().filter_map(|r| r.status).collect();
    assert_eq!(statuses, [200, 500, 429, 200, 401, 401, 200]);
}

#[test]
fn answers_are_cut_and_delayed() {
    let registry = Registry::start(RegistryOptions::default());
    busybox_image(&registry, "a:1", &ImageOptions::default());
    let manifest = registry.manifest("a", "1").unwrap();
    let proxy = FaultProxy::start(registry.host());
    let path = "/v2/a/manifests/1";
    let get = || {
        let accept = ("Accept", manifest.media_type.as_str());
        http::request(proxy.host(), "GET", path, &[accept])
    };
    proxy.add(Rule::new("GET", path, Fault::CutResponse(10)).times(1));
    let cut = get();
    assert_eq!(cut.body, manifest.bytes[..10]);
    let length = manifest.bytes.len().to_string();
    assert_eq!(cut.header("content-length"), Some(length.as_str()));

    proxy.add(Rule::new(
        "GET",
        path,
        Fault::Delay(Duration::from_millis(300)),
    ));
    let begin = Instant::now();
    assert_eq!(get().body, manifest.bytes);
    assert!(begin.elapsed() >= Duration::from_millis(300));
}

#[test]
fn requests_are_cut() {
    let registry = Registry::start(RegistryOptions::default());
    let image = busybox_image(&registry, "a:1", &ImageOptions::default());
    let proxy = FaultProxy::start(registry.host());
    proxy.add(Rule::new(
        "PATCH",
        "/blobs/uploads/",
        Fault::CutRequest(1000),
    ));
    let from = format!("docker://{}", image.reference);
    let to = format!("docker://{}", proxy.reference("b:1"));
    assert_failure(skopeo("copy").args([&from, &to]));
    assert_eq!(registry.manifest("b", "1"), None);
    let requests = proxy.requests();
    let mut patches = requests.iter().filter(|r| r.method == "PATCH");
    assert!(patches.any(|r| (r.status, r.sent) == (None, 1000)));
}

#[test]
fn silence_lasts_until_the_client_or_the_proxy_ends() {
    let registry = Registry::start(RegistryOptions::default());
    let proxy = FaultProxy::start(registry.host());
    proxy.add(Rule::new("*", "", Fault::Silence));
    let url = format!("http://{}/v2/", proxy.host());
    let get = |limit: &str| {
        let script = "import sys, urllib.request\n\
            try: urllib.request.urlopen(sys.argv[1], timeout=float(sys.argv[2]))\n\
            except Exception as error: print(type(error).__name__)";
        stdout_of(Command::new("python3").args(["-c", script, &url, limit]))
    };
    assert_eq!(get("0.2"), "TimeoutError");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| get("60"));
        while proxy.requests().len() < 2 {
            thread::sleep(Duration::from_millis(5));
        }
        drop(proxy);
        assert_eq!(waiting.join().unwrap(), "RemoteDisconnected");
    });
}
