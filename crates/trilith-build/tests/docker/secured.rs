//! Engines by TCP, with TLS on both sides.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use trilith_build::engine::{
    BuildkitAddress, BuildkitEngine, DockerEngine, Engine, EngineAddress, EngineAddresses,
    EngineError, EngineKind, Export, TlsFiles, open_engine,
};
use trilith_testkit::assert_success;

use crate::build::{Build, Told, registry_client};
use crate::parts::parts;
use crate::relay::{Passes, pass, socket_of};

/// Makes an authority, and certificates for a server and a client.
fn make_certificates(directory: &Path) {
    let script = r"
        set -e
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca-key.pem -out ca.pem -days 2 \
            -subj /CN=authority
        for name in server client; do
            openssl req -newkey rsa:2048 -nodes -keyout $name-key.pem -subj /CN=$name -out $name.csr
            printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' > $name.ext
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial \
                -extfile $name.ext -days 2 -out $name.pem
        done
        mv client.pem cert.pem
        mv client-key.pem key.pem
    ";
    assert_success(
        Command::new("sh")
            .args(["-c", script])
            .current_dir(directory),
    );
}

/// Passes on what is sent to a new port, by TLS with a client that has a certificate.
async fn serve(directory: &Path, host: &str, passes: Passes) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let read = |name: &str| {
        let certificates = CertificateDer::pem_file_iter(directory.join(name)).unwrap();
        certificates.map(Result::unwrap)
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(read("ca.pem"));
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let key = PrivateKeyDer::from_pem_file(directory.join("server-key.pem")).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(read("server.pem").collect(), key)
        .unwrap();
    if let Passes::BuildKit = passes {
        // As gRPC's servers do, it insists.
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let engine = socket_of(host);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, engine) = (acceptor.clone(), engine.clone());
            tokio::spawn(async move {
                // A client without a certificate gets no further.
                if let Ok(client) = acceptor.accept(client).await {
                    pass(client, &engine, passes).await;
                }
            });
        }
    });
    format!("tcp://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_prove_who_they_are() {
    let parts = parts();
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    make_certificates(directory);
    let files = TlsFiles::in_directory(directory);
    assert!(files.ca.is_some() && files.identity.is_some());
    let anonymous = TlsFiles {
        identity: None,
        ..files.clone()
    };
    let trusting_the_system = TlsFiles {
        ca: None,
        ..files.clone()
    };
    let host = parts.docker.host();
    let build = Build::new(&format!("FROM {}\nRUN echo by TLS\n", parts.base));

    let address = serve(directory, &host, Passes::All).await;
    let docker = |files: &TlsFiles| {
        let address = EngineAddress::parse(&address, Some(files.clone())).unwrap();
        DockerEngine::try_new(address, registry_client(&[])).unwrap()
    };
    let told = Told::default();
    build.run(&docker(&files), &told).await.unwrap();
    assert!(docker(&anonymous).info().await.is_err());
    let error = docker(&trusting_the_system).info().await.unwrap_err();
    assert!(
        matches!(error, EngineError::Unreachable { .. }),
        "{error:?}"
    );

    let address = serve(directory, &host, Passes::BuildKit).await;
    let buildkit = |files: &TlsFiles| {
        let docker = EngineAddress::default();
        let address = BuildkitAddress::parse(&address, Some(files.clone()), &docker).unwrap();
        BuildkitEngine::try_new(address, registry_client(&[])).unwrap()
    };
    buildkit(&files).info().await.unwrap();
    let addresses = EngineAddresses {
        buildkit_host: Some(address.clone()),
        buildkit_certificates: Some(directory.to_owned()),
        ..EngineAddresses::default()
    };
    let found = open_engine(EngineKind::Buildkit, &addresses, &registry_client(&[])).unwrap();
    found.info().await.unwrap();
    assert!(buildkit(&anonymous).info().await.is_err());
    let error = buildkit(&trusting_the_system).info().await.unwrap_err();
    assert!(
        matches!(error, EngineError::Unreachable { .. }),
        "{error:?}"
    );
    let archive = directory.join("image.tar");
    let export = Export::Archive(&archive);
    // This engine's BuildKit has no exporter for that, and says so.
    let error = build
        .export(&buildkit(&files), export, &told)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("exporter"), "{error}");
    assert!(!archive.exists());
}
