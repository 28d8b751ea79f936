//! Engines older than any that Debian has: what they would leave out in silence is refused.

use trilith_build::engine::{ContainerRequest, Containers, Engine, EngineError, Feature, Gpus};
use trilith_oci::Kind;

use crate::hostile::serve;
use crate::parts::docker_at;

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nApi-Version: 1.39\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_of_containers() {
    let image = "{\"Id\": \"sha256:0\", \"Os\": \"linux\", \"Architecture\": \"amd64\"}";
    let (_directory, address) = serve(&[
        ("/_ping", answer("200 OK", "OK")),
        ("/v1.39/images/base:1/json", answer("200 OK", image)),
        (
            "/v1.39/containers/create",
            answer("201 Created", "{\"Id\": \"made\", \"Warnings\": null}"),
        ),
    ]);
    let engine = docker_at(&address, &[]);
    let request = ContainerRequest {
        name: "box".to_owned(),
        image: "base:1".to_owned(),
        ..ContainerRequest::default()
    };
    assert_eq!(engine.create(&request).await.unwrap(), "made");
    let on = |platform: &str| ContainerRequest {
        platform: Some(platform.parse().unwrap()),
        ..request.clone()
    };
    assert_eq!(engine.create(&on("linux/amd64")).await.unwrap(), "made");
    let error = engine.create(&on("linux/arm64")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let said = "the image is for `linux/amd64`, not for `linux/arm64`";
    assert!(error.to_string().ends_with(said), "{error}");
    let gpus = ContainerRequest {
        gpus: Some(Gpus::All),
        ..request.clone()
    };
    let error = engine.create(&gpus).await.unwrap_err();
    assert!(
        matches!(error, EngineError::Unsupported { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("give GPUs"), "{error}");
}

/// The BuildKit of 19.03 cannot be spoken with, so it is not asked for.
#[tokio::test(flavor = "multi_thread")]
async fn builds_are_classic() {
    let version = "{\"Version\": \"19.03.15\", \"Os\": \"linux\", \"Arch\": \"amd64\"}";
    let newer = |answer: String| answer.replace("Api-Version: 1.39", "Api-Version: 1.40");
    let (_directory, address) = serve(&[
        ("/_ping", newer(answer("200 OK", "OK"))),
        ("/v1.40/version", newer(answer("200 OK", version))),
        (
            "/grpc",
            "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n".to_owned(),
        ),
    ]);
    let info = docker_at(&address, &[]).info().await.unwrap();
    assert_eq!(info.version, "19.03.15");
    let expected = [Feature::CacheImport, Feature::Load, Feature::Push];
    assert_eq!(info.capabilities.features, expected.into());
}
