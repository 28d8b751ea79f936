//! Lists of referrers, kept by registries or under tags.

use trilith_oci::media_type::{OCI_INDEX, OCI_MANIFEST};
use trilith_oci::{Descriptor, ImageStore, Kind, RawManifest};

use super::server::{Reply, Seen, Server};
use super::{config, digest, manifest, repository};

fn entry(name: &str, artifact_type: &str) -> Descriptor {
    Descriptor {
        artifact_type: Some(artifact_type.to_owned()),
        ..Descriptor::of(OCI_MANIFEST, name.as_bytes())
    }
}

fn list(entries: &[Descriptor]) -> String {
    let entries = serde_json::to_string(entries).unwrap();
    format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":{entries}}}"#)
}

fn index(body: String) -> Reply {
    Reply::new(200).header("Content-Type", OCI_INDEX).body(body)
}

#[tokio::test]
async fn pages_are_followed_and_filtered() {
    let server = Server::start(|seen| {
        if seen.target.contains("page=2") {
            return index(list(&[entry("3", "a/b")]));
        }
        index(list(&[entry("1", "a/b"), entry("2", "c/d")]))
            .header("Link", r#"</v2/a/b/referrers/x?page=2>; rel="next""#)
    })
    .await;
    let found = repository(&server, config())
        .referrers(&digest("s"), "a/b")
        .await;
    assert_eq!(found.unwrap(), [entry("1", "a/b"), entry("3", "a/b")]);
    let target = &server.seen()[0].target;
    assert!(target.ends_with("?artifactType=a%2Fb"), "{target}");

    let server = Server::start(|_| {
        index(list(&[])).header("Link", r#"</v2/a/b/referrers/x?n=1>; rel="next""#)
    })
    .await;
    let error = repository(&server, config())
        .referrers(&digest("s"), "a/b")
        .await;
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("more than 100 pages")
    );
}

#[tokio::test]
async fn registries_without_the_api_are_asked_for_the_tag() {
    let tag = format!("/v2/a/b/manifests/sha256-{}", digest("s").hex());
    for none in [
        Reply::new(404).body("404 page not found\n"),
        Reply::new(400),
        Reply::new(405),
        Reply::new(406),
        // A page for people.
        Reply::new(200)
            .header("Content-Type", "text/html")
            .body("<html>"),
    ] {
        let tag = tag.clone();
        let server = Server::start(move |seen| {
            if seen.target.starts_with(&tag) {
                return index(list(&[entry("1", "a/b"), entry("2", "c/d")]));
            }
            none.clone()
        })
        .await;
        let found = repository(&server, config())
            .referrers(&digest("s"), "a/b")
            .await;
        assert_eq!(found.unwrap(), [entry("1", "a/b")]);
    }
    let server = Server::start(|_| Reply::new(404)).await;
    let found = repository(&server, config())
        .referrers(&digest("s"), "a/b")
        .await;
    assert_eq!(found.unwrap(), []);
}

#[tokio::test]
async fn what_is_no_list_is_not_taken_for_one() {
    for (status, kind) in [(401, Kind::Denied), (500, Kind::Unavailable)] {
        let server = Server::start(move |_| Reply::new(status)).await;
        let found = repository(&server, config())
            .referrers(&digest("s"), "a/b")
            .await;
        assert_eq!(found.unwrap_err().kind(), kind);
    }
    for (body, kind) in [
        ("[1]".to_owned(), Kind::Corrupt),
        (
            r#"{"manifests":[{"digest":"x"}]}"#.to_owned(),
            Kind::Corrupt,
        ),
        (" ".repeat(5 << 20), Kind::Corrupt),
    ] {
        let server = Server::start(move |_| index(body.clone())).await;
        let found = repository(&server, config())
            .referrers(&digest("s"), "a/b")
            .await;
        assert_eq!(found.unwrap_err().kind(), kind);
    }
    // An image under the tag.
    let server = Server::start(|seen| {
        if seen.target.contains("/manifests/") {
            return Reply::new(200).body(super::MANIFEST);
        }
        Reply::new(404)
    })
    .await;
    let found = repository(&server, config())
        .referrers(&digest("s"), "a/b")
        .await;
    assert!(
        found
            .unwrap_err()
            .to_string()
            .contains("instead of an index")
    );
    // The subject itself, an index of images: some registries read the tag as its digest.
    let subject = list(&[entry("child", "a/b")]);
    let stored = subject.clone();
    let server = Server::start(move |seen| {
        if seen.target.contains("/manifests/") {
            return index(stored.clone());
        }
        Reply::new(404)
    })
    .await;
    let found = repository(&server, config())
        .referrers(&digest(&subject), "a/b")
        .await;
    assert_eq!(found.unwrap(), []);
}

fn about(subject: &str, number: u32) -> RawManifest {
    let subject = serde_json::to_string(&Descriptor::of(OCI_MANIFEST, subject.as_bytes()));
    manifest(&format!(
        r#"{{"schemaVersion":2,"artifactType":"a/b","config":{{"mediaType":"x/y"}},"layers":[],"subject":{},"annotations":{{"n":"{number}"}}}}"#,
        subject.unwrap()
    ))
}

#[tokio::test]
async fn a_registry_that_keeps_referrers_gets_no_tag() {
    let server =
        Server::start(|_| Reply::new(201).header("OCI-Subject", digest("s").as_str())).await;
    let repository = repository(&server, config());
    repository.push_manifest(&about("s", 1)).await.unwrap();
    assert_eq!(server.seen().len(), 1);
    // Nor does a manifest without a subject.
    let server = Server::start(|_| Reply::new(201)).await;
    let repository = super::repository(&server, config());
    repository
        .push_manifest(&manifest(super::MANIFEST))
        .await
        .unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_list_that_is_overwritten_all_the_time() {
    let server = Server::start(|seen: &Seen| match seen.method.as_str() {
        "GET" => index(list(&[entry("other", "a/b")])),
        _ => Reply::new(201),
    })
    .await;
    let pushed = repository(&server, config())
        .push_manifest(&about("s", 1))
        .await;
    assert!(pushed.unwrap_err().to_string().contains("again and again"));
}
