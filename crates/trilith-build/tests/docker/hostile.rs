//! Engines that answer nonsense, or not at all.

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use trilith_build::engine::{BuildkitAddress, BuildkitEngine, Engine, EngineAddress, EngineError};
use trilith_oci::Kind;

use crate::build::{Build, Told, registry_client};
use crate::parts::docker_at;

/// What a good engine answers to the first two questions.
const PING: &str = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\nOK";
const VERSION: &str = "HTTP/1.1 200 OK\r\nContent-Length: 54\r\n\r\n\
    {\"Version\": \"20.10.0\", \"Os\": \"linux\", \"Arch\": \"amd64\"} ";
const UPGRADED: &str = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";

/// Serves `answers` at a new socket: the first whose path is in the request.
pub(crate) fn serve(answers: &[(&'static str, String)]) -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let answers = answers.to_vec();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let answers = answers.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 64 * 1024];
                while let Ok(read @ 1..) = client.read(&mut request).await {
                    let line = String::from_utf8_lossy(&request[..read]);
                    let line = line.lines().next().unwrap_or_default();
                    let answer = answers.iter().find(|(path, _)| line.contains(path));
                    let Some((_, answer)) = answer else {
                        // Silence.
                        continue;
                    };
                    client.write_all(answer.as_bytes()).await.unwrap();
                    if answer.starts_with("HTTP/1.1 101 ") {
                        return;
                    }
                }
            });
        }
    });
    (directory, format!("unix://{}", socket.display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_an_error() {
    let ok = |body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let failed = |body: &str| {
        let length = body.len();
        format!("HTTP/1.1 500 Oops\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let (ping, version) = (
        ("/_ping", PING.to_owned()),
        ("/version", VERSION.to_owned()),
    );
    let good = [ping.clone(), version];
    let with = |path, answer: String| [&good[..], &[(path, answer)]].concat();
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(5 << 20));
    for (answers, kind, said) in [
        (
            vec![("/_ping", ok("OK"))],
            Kind::Unavailable,
            "no version of its API",
        ),
        (
            vec![("/_ping", "SSH-2.0-x\r\n\r\n".to_owned())],
            Kind::Unavailable,
            "broke off",
        ),
        (
            vec![
                ping.clone(),
                ("/version", failed("{\"message\": \"out of cheese\"}")),
            ],
            Kind::Unavailable,
            "out of cheese",
        ),
        (
            vec![ping.clone(), ("/version", failed("x"))],
            Kind::Unavailable,
            "500",
        ),
        (
            vec![ping.clone(), ("/version", ok("{\"Version\""))],
            Kind::Corrupt,
            "malformed",
        ),
        (
            vec![ping.clone(), ("/version", endless)],
            Kind::Corrupt,
            "longer than",
        ),
        (
            with("/grpc", ok("")),
            Kind::Unavailable,
            "change the protocol",
        ),
        (
            with(
                "/grpc",
                format!("{UPGRADED}garbage, but long enough to be a frame"),
            ),
            Kind::Unavailable,
            "broke off",
        ),
        (
            with("/grpc", UPGRADED.to_owned()),
            Kind::Unavailable,
            "broke off",
        ),
    ] {
        let (_directory, address) = serve(&answers);
        let engine = docker_at(&address, &[]);
        let build = Build::new("FROM scratch\nCOPY Dockerfile /\n");
        let error = build.run(&engine, &Told::default()).await.unwrap_err();
        assert!(error.to_string().contains(said), "{said}: {error:?}");
        assert_eq!(error.kind(), kind, "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_no_answer() {
    let (_directory, address) = serve(&[]);
    let error = docker_at(&address, &[]).info().await.unwrap_err();
    assert!(
        matches!(error, EngineError::Unreachable { .. }),
        "{error:?}"
    );
    let docker = EngineAddress::default();
    let address = BuildkitAddress::parse(&address, None, &docker).unwrap();
    let engine = BuildkitEngine::try_new(address, registry_client(&[])).unwrap();
    let error = engine.info().await.unwrap_err();
    assert!(matches!(error, EngineError::Lost { .. }), "{error:?}");
}
