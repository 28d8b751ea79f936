//! Files up and down.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use serde_json::{Value, json};

use crate::agent;
use crate::support::{Agent, KEY, detail_of, document_of, wait_until};

/// Bytes that do not repeat soon.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

fn upload(agent: &Agent, path: &str, fields: &[(&str, &str)], body: &[u8]) -> (u16, Value) {
    let answer = agent
        .open(
            "PUT",
            &format!("/api/file/upload?path={path}"),
            fields,
            body,
        )
        .read_all();
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

#[test]
fn what_goes_up_comes_down() {
    let agent = agent(&[]);
    let content = noise(5 << 20);
    let path = agent.path("new/dir/a file");
    let query = path.replace(' ', "%20");
    let mut form =
        b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n".to_vec();
    form.extend_from_slice(&content);
    form.extend_from_slice(b"\r\n--b--\r\n");
    let kind = [("Content-Type", "multipart/form-data; boundary=b")];
    let route = format!("/api/file/upload?path={query}");
    let answer = agent.open("POST", &route, &kind, &form).read_all();
    assert_eq!(
        document_of(&answer),
        json!({"success": true, "file_size": content.len()})
    );
    assert!(fs::read(&path).unwrap() == content);
    let answer = agent.get(&format!("/api/file/download?path={query}"));
    assert!(answer.body == content);
    assert_eq!(answer.header("content-length"), Some("5242880"));
    assert_eq!(
        answer.header("content-disposition"),
        Some("attachment; filename*=utf-8''a%20file")
    );
    detail_of(
        &agent.open("POST", &route, &kind, &form[..100]).read_all(),
        422,
    );
    detail_of(&agent.open("POST", &route, &[], &form).read_all(), 422);
    assert!(fs::read(&path).unwrap() == content);
}

#[test]
fn what_is_there_keeps_its_mode_and_links_are_followed() {
    let agent = agent(&[]);
    let (file, link) = (agent.path("file"), agent.path("link"));
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o751)).unwrap();
    std::os::unix::fs::chown(&file, Some(1234), Some(1235)).unwrap();
    symlink("file", &link).unwrap();
    assert_eq!(upload(&agent, &link, &[], b"new").0, 200);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let found = fs::metadata(&file).unwrap();
    assert_eq!(
        (found.mode() & 0o7777, found.uid(), found.gid()),
        (0o751, 1234, 1235)
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    for (path, status) in [("relative", 400), ("/dev/null", 400), ("/proc/x/y", 404)] {
        assert_eq!(upload(&agent, path, &[], b"").0, status, "{path}");
    }
    let dir = agent.path("");
    assert_eq!(upload(&agent, &dir, &[], b"").0, 400);
    assert_eq!(upload(&agent, &format!("{file}/x"), &[], b"").0, 400);
    for (path, status) in [
        ("/no", 404),
        ("/etc", 400),
        ("etc", 400),
        ("/dev/null", 400),
    ] {
        detail_of(
            &agent.get(&format!("/api/file/download?path={path}")),
            status,
        );
    }
}

#[test]
fn an_upload_that_is_cut_off_leaves_what_was_there() {
    let agent = agent(&[]);
    let file = agent.path("file");
    fs::write(&file, "old").unwrap();
    let mut stream = TcpStream::connect(&agent.host).unwrap();
    let head = format!(
        "PUT /api/file/upload?path={file} HTTP/1.1\r\nHost: a\r\nX-Session-API-Key: {KEY}\r\nContent-Length: 9999999\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&noise(1 << 20)).unwrap();
    let names = || fs::read_dir(agent.dir.path()).unwrap().count();
    wait_until("the upload is under way", || names() == 2);
    drop(stream);
    wait_until("the upload is gone", || names() == 1);
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
}

#[test]
fn a_long_upload_goes_on_where_it_was_cut_off() {
    let agent = agent(&[]);
    let file = agent.path("file");
    let content = noise(3_000_000);
    let piece = |from: usize, to: usize| {
        let range = format!("bytes {from}-{}/{}", to - 1, content.len());
        upload(
            &agent,
            &file,
            &[("Content-Range", &range)],
            &content[from..to],
        )
    };
    let received =
        || document_of(&agent.get(&format!("/api/file/upload?path={file}")))["received"].clone();
    assert_eq!(received(), 0);
    assert_eq!(piece(0, 1_000_000), (202, json!({"received": 1_000_000})));
    let (status, reason) = piece(0, 1_000_000);
    assert_eq!(
        (status, &reason["detail"]),
        (409, &json!("1000000 bytes have been received"))
    );
    let mut stream = TcpStream::connect(&agent.host).unwrap();
    let head = format!(
        "PUT /api/file/upload?path={file} HTTP/1.1\r\nHost: a\r\nX-Session-API-Key: {KEY}\r\nContent-Length: 1000000\r\nContent-Range: bytes 1000000-1999999/3000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&content[1_000_000..1_600_000]).unwrap();
    drop(stream);
    wait_until("what came is kept", || received() == 1_600_000);
    let (status, _) = wait_for(|| piece(1_600_000, 3_000_000), |answer| answer.0 != 409);
    assert_eq!(status, 200);
    assert!(fs::read(&file).unwrap() == content);
    assert_eq!(received(), 0);
    assert_eq!(piece(0, 10).0, 202);
    document_of(&agent.send("DELETE", &format!("/api/file/upload?path={file}"), b""));
    assert_eq!(received(), 0);
    for range in ["bytes 0-9", "bytes 5-3/10", "x"] {
        assert_eq!(
            upload(&agent, &file, &[("Content-Range", range)], b"").0,
            422
        );
    }
    let range = [("Content-Range", "bytes 0-1/10")];
    assert_eq!(upload(&agent, &file, &range, b"longer").0, 422);
}

/// Repeats `run` until `is_good` with what it returns.
fn wait_for<T>(mut run: impl FnMut() -> T, is_good: impl Fn(&T) -> bool) -> T {
    let mut last = None;
    wait_until("a result is good", || {
        let result = run();
        let good = is_good(&result);
        last = Some(result);
        good
    });
    last.unwrap()
}

#[test]
fn parts_of_a_file_come_down() {
    let agent = agent(&[]);
    let file = agent.path("file");
    let content = noise(1_500_000);
    fs::write(&file, &content).unwrap();
    let path = format!("/api/file/download?path={file}");
    let get = |fields: &[(&str, &str)]| agent.open("GET", &path, fields, b"").read_all();
    let part = get(&[("Range", "bytes=1000000-")]);
    assert_eq!(part.status, 206);
    assert_eq!(
        part.header("content-range"),
        Some("bytes 1000000-1499999/1500000")
    );
    assert!(part.body == content[1_000_000..]);
    let tag = part.header("etag").unwrap().to_owned();
    let part = get(&[("Range", "bytes=5-9"), ("If-Range", &tag)]);
    assert_eq!((part.status, part.body.as_slice()), (206, &content[5..10]));
    let beyond = get(&[("Range", "bytes=1500000-")]);
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, Some("bytes */1500000"))
    );
    fs::write(&file, "changed").unwrap();
    let whole = get(&[("Range", "bytes=5-9"), ("If-Range", &tag)]);
    assert_eq!(
        (whole.status, whole.body.as_slice()),
        (200, &b"changed"[..])
    );
}

#[test]
fn directories_are_made_and_listed_in_pages() {
    let agent = agent(&[]);
    let dir = agent.path("list/of");
    let create = |path: &str| {
        agent.send(
            "POST",
            &format!("/api/file/create_directory?path={path}"),
            b"",
        )
    };
    document_of(&create(&dir));
    document_of(&create(&dir));
    for number in 0..25 {
        fs::write(format!("{dir}/{number:02}"), "x".repeat(number)).unwrap();
    }
    symlink("nowhere", format!("{dir}/link")).unwrap();
    fs::create_dir(format!("{dir}/sub")).unwrap();
    detail_of(&create(&format!("{dir}/00")), 400);
    let (mut names, mut page) = (Vec::new(), String::new());
    loop {
        let route = format!("/api/file/list?path={dir}&limit=10&page_id={page}");
        let found = document_of(&agent.get(&route));
        let items = found["items"].as_array().unwrap().iter();
        names.extend(items.map(|item| item["name"].as_str().unwrap().to_owned()));
        match found["next_page_id"].as_str() {
            Some(next) => page = next.to_owned(),
            None => break,
        }
    }
    let expected = (0..25)
        .map(|number| format!("{number:02}"))
        .chain(["link".into(), "sub".into()]);
    assert_eq!(names, expected.collect::<Vec<_>>());
    let stat = |name: &str| document_of(&agent.get(&format!("/api/file/stat?path={dir}/{name}")));
    let file = stat("07");
    assert_eq!(
        (&file["kind"], &file["size"], &file["mode"]),
        (&json!("file"), &json!(7), &json!("0644"))
    );
    let link = stat("link");
    assert_eq!(
        (&link["kind"], &link["target"]),
        (&json!("symlink"), &json!("nowhere"))
    );
    assert_eq!(stat("sub")["kind"], "directory");
    detail_of(&agent.get(&format!("/api/file/stat?path={dir}/no")), 404);
    detail_of(&agent.get(&format!("/api/file/list?path={dir}/00")), 400);
    detail_of(
        &agent.get(&format!("/api/file/list?path={dir}&limit=0")),
        422,
    );
}

#[test]
fn a_long_file_takes_no_memory() {
    let agent = agent(&[]);
    let (from, to) = (agent.path("from"), agent.path("to"));
    fs::File::create(&from).unwrap().set_len(300 << 20).unwrap();
    let mut down = agent.open("GET", &format!("/api/file/download?path={from}"), &[], b"");
    let mut up = TcpStream::connect(&agent.host).unwrap();
    let head = format!(
        "PUT /api/file/upload?path={to} HTTP/1.0\r\nHost: a\r\nX-Session-API-Key: {KEY}\r\nContent-Length: {}\r\n\r\n",
        300 << 20
    );
    up.write_all(head.as_bytes()).unwrap();
    std::io::copy(&mut down, &mut up).unwrap();
    wait_until("the upload is done", || {
        fs::metadata(&to).is_ok_and(|file| file.len() == 300 << 20)
    });
    assert!(
        agent.memory("VmHWM") < 32 << 10,
        "{} KiB",
        agent.memory("VmHWM")
    );
}
