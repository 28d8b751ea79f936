//! What the format says, case by case; its injectivity is in `property.rs`.

mod property;

use super::*;
use crate::input_hash::FieldHasher;
use crate::level::Level;
use crate::recipe::Owner;

fn entry(path: &[u8], content: &str) -> EntryInput {
    EntryInput {
        path: path.to_vec(),
        hash: hash(content),
        size: content.len() as u64,
    }
}

fn hash(content: &str) -> InputHash {
    let mut hasher = FieldHasher::new("entry");
    hasher.field("content", content);
    hasher.finish()
}

fn layer(level: Level, to: &str, entries: Vec<EntryInput>) -> LayerInput {
    LayerInput {
        recipe: LayerRecipe {
            level,
            copy: "app".to_owned(),
            from: None,
            to: to.parse().unwrap(),
            owner: Owner::default(),
        },
        payload: Payload::Tree(entries),
    }
}

fn debian() -> Base {
    Base::Image {
        name: BaseName::Reference("debian:bookworm".parse().unwrap()),
        digest: Digest::of(b"debian"),
    }
}

/// Inputs that use every field but the user, which came when the keys of these were out.
fn full() -> Inputs {
    let mut from_image = layer(Level::Lock, "/agent-server", Vec::new());
    from_image.recipe.from = Some("ghcr.io/acme/builder:abc".parse().unwrap());
    from_image.recipe.copy = "/agent-server".to_owned();
    from_image.payload = Payload::Image(Digest::of(b"builder"));
    Inputs {
        platforms: ["linux/amd64", "linux/arm64"]
            .map(|p| p.parse().unwrap())
            .into(),
        dockerfile: Some(DockerfileInput {
            text: DockerfileText::Whole {
                content: Digest::of(b"FROM x"),
                args: [("PYTHON".to_owned(), "3.12".to_owned())].into(),
                target: Some("runtime".to_owned()),
            },
            extra_deps: Some("git".to_owned()),
            images: vec![ImageInput {
                level: Level::Versioned,
                name: "dockerfile/image/uv:1".to_owned(),
                digest: Digest::of(b"uv"),
            }],
            context: vec![ContextInput {
                level: Level::Source,
                entry: entry(b"main.py", "print"),
            }],
        }),
        layers: vec![
            from_image,
            layer(
                Level::Lock,
                "/opt/app/vendor",
                vec![entry(b"greeting.py", "hi")],
            ),
            layer(
                Level::Source,
                "/opt/app",
                vec![entry(b"", ""), entry(b"main.py", "print")],
            ),
            layer(
                Level::Source,
                "/opt/app",
                vec![entry(b"main.py", "other"), entry(b"\xff", "")],
            ),
            layer(Level::Source, "/a#2", vec![entry(b"x", "x")]),
            layer(Level::Source, "/", vec![entry(b"etc/motd", "hello")]),
        ],
        lock_files: vec![LockFile::of("uv.lock", b"version = 1\n")],
        sources: vec![SourceTree {
            name: "app".to_owned(),
            entries: vec![entry(b"main.py", "print")],
        }],
        config: ConfigRecipe {
            entrypoint: Some(vec!["/opt/app/run".to_owned()]),
            cmd: Some(Vec::new()),
            env: [("LANG".to_owned(), "C.UTF-8".to_owned())].into(),
            labels: [("org.example/x".to_owned(), "y".to_owned())].into(),
            user: Some("10001:10001".to_owned()),
            workdir: Some("/workspace".parse().unwrap()),
            expose: vec![
                "8000".to_owned(),
                "53/udp".to_owned(),
                "8000/tcp".to_owned(),
            ],
            stop_signal: Some("SIGINT".to_owned()),
        },
        ..Inputs::new("1.0.0", debian())
    }
}

fn user() -> UserRecipe {
    UserRecipe {
        name: "agent".to_owned(),
        owner: "10001:10002".parse().unwrap(),
        home: "/home/agent".parse().unwrap(),
        shell: "/bin/sh".parse().unwrap(),
    }
}

fn dockerfile_text(inputs: &mut Inputs) -> &mut DockerfileText {
    &mut inputs.dockerfile.as_mut().unwrap().text
}

fn keys(inputs: &Inputs) -> Keys {
    inputs.list().unwrap().keys()
}

#[test]
fn names() {
    let list = full().list().unwrap();
    let names: Vec<String> = list
        .as_slice()
        .iter()
        .map(|input| format!("{} {} {}", input.level, input.name, input.size))
        .collect();
    let expected = [
        "versioned base 0",
        "versioned dockerfile 0",
        "versioned dockerfile/arg/PYTHON 0",
        "versioned dockerfile/image/uv:1 0",
        "versioned dockerfile/target 0",
        "versioned platform/linux/amd64 0",
        "versioned platform/linux/arm64 0",
        "versioned version 0",
        "lock dockerfile/extra-deps 0",
        "lock file/opt/app/vendor//greeting.py 2",
        "lock layer-order 0",
        "lock layer/agent-server 0",
        "lock layer/opt/app/vendor 0",
        "lock lock/uv.lock 12",
        "source config/cmd 0",
        "source config/entrypoint 0",
        "source config/env/LANG 0",
        "source config/expose/53/udp 0",
        "source config/expose/8000/tcp 0",
        "source config/label/org.example/x 0",
        "source config/stop-signal 0",
        "source config/user 0",
        "source config/workdir 0",
        "source context//main.py 5",
        "source file///etc/motd 5",
        "source file/a\\x232//x 1",
        "source file/opt/app#2//\\xff 0",
        "source file/opt/app#2//main.py 5",
        "source file/opt/app// 0",
        "source file/opt/app//main.py 5",
        "source layer-order 0",
        "source layer/ 0",
        "source layer/a\\x232 0",
        "source layer/opt/app 0",
        "source layer/opt/app#2 0",
        "source source/app 0",
        "source source/app//main.py 5",
    ];
    assert_eq!(names, expected);
    assert_eq!(list.payload_size(Level::Source), 16);
}

/// Computed from the format's description by a program of its own. Changing these is a new
/// version of the scheme.
#[test]
fn golden_keys() {
    let full = keys(&full());
    let smallest = keys(&Inputs::new("1.0.0", Base::Scratch));
    let golden = [
        full.versioned,
        full.lock,
        full.source,
        smallest.versioned,
        smallest.lock,
        smallest.source,
    ];
    let expected = [
        "f861cb2839e2ecb0bd215dd7990f42027793c520c10bd22a5c713a28658f5d4d",
        "e4293b4338e8e032ed95e198ba6cc4c1a315268af4ae114861a8dda56c13b460",
        "0169ba7fdd4defbd87afca820e564ba02dc847bf1b75047de7a3e6b22f0074e4",
        "4eb7281d3fc6ff41f2b2e3e41979088825bccd138771a8809b386d3ba8ec24b3",
        "ba67b8fe4ff860f478c59c62480b93dfb9eea3aaf7c5459f6da1d9cb7220a9b1",
        "14c3017c967a646e848183f49a3db8d964953e535131379eff7cf3952c6bba6a",
    ];
    assert_eq!(golden.map(InputHash::to_hex), expected);
}

/// As above, of the smallest inputs with a user.
#[test]
fn golden_keys_of_a_user() {
    let inputs = Inputs {
        user: Some(user()),
        ..Inputs::new("1.0.0", Base::Scratch)
    };
    let keys = keys(&inputs);
    let expected = [
        "0fdd25a2e6ca264c5fddf9a9dcc8d6753f08366434bf77a6e13ebfd325b069d6",
        "3b0ad3f1023c5111d4b29620e77e380fcfba63c0c3a2ede62ce91e7278ceec1f",
        "724fa07103f2bd2f783008398de8a29c2a0ce3479eefbe171d97ad8e2a19b798",
    ];
    let keys = [keys.versioned, keys.lock, keys.source];
    assert_eq!(keys.map(InputHash::to_hex), expected);
    assert!(
        inputs
            .list()
            .unwrap()
            .as_slice()
            .contains(&Input::of_user(&user()))
    );
}

#[test]
fn tags_carry_the_keys() {
    let inputs = full();
    let keys = keys(&inputs);
    let tags = inputs.tags(&keys, "-dev").unwrap();
    let (versioned, lock, source) = (
        keys.versioned.short(),
        keys.lock.short(),
        keys.source.short(),
    );
    assert_eq!(
        tags.versioned.as_str(),
        format!("v1.0.0_debian_tag_bookworm_{versioned}-dev")
    );
    assert_eq!(tags.lock.as_str(), format!("v1.0.0_{lock}-dev"));
    assert_eq!(tags.source.as_str(), format!("v1.0.0_{lock}_{source}-dev"));
}

/// A change with the lowest level whose key it moves, `None` where it moves none.
type Edit = (&'static str, Option<Level>, fn(&mut Inputs));

fn check(changes: &[Edit]) {
    let before = keys(&full());
    for (what, lowest, change) in changes {
        let mut inputs = full();
        change(&mut inputs);
        let after = keys(&inputs);
        for (level, key) in after.iter() {
            let moves = lowest.is_some_and(|lowest| lowest <= level);
            assert_eq!(key != before.get(level), moves, "{what}: {level}");
        }
    }
}

#[test]
fn a_change_of_a_dockerfile_moves_its_level_and_all_above() {
    let changes: &[Edit] = &[
        ("build argument", Some(Level::Versioned), |i| {
            if let DockerfileText::Whole { args, .. } = dockerfile_text(i) {
                args.clear();
            }
        }),
        ("empty target", Some(Level::Versioned), |i| {
            if let DockerfileText::Whole { target, .. } = dockerfile_text(i) {
                *target = Some(String::new());
            }
        }),
        ("stages", Some(Level::Versioned), |i| {
            *dockerfile_text(i) = DockerfileText::Stages(vec![Input {
                level: Level::Lock,
                name: "dockerfile/stage/deps".to_owned(),
                digest: Digest::of(b"deps"),
                size: 0,
            }]);
        }),
        ("image of a Dockerfile", Some(Level::Versioned), |i| {
            i.dockerfile.as_mut().unwrap().images[0].digest = Digest::of(b"other");
        }),
        ("extra dependencies", Some(Level::Lock), |i| {
            i.dockerfile.as_mut().unwrap().extra_deps = None;
        }),
        ("context", Some(Level::Source), |i| {
            i.dockerfile.as_mut().unwrap().context.clear();
        }),
        ("level of a context file", Some(Level::Lock), |i| {
            i.dockerfile.as_mut().unwrap().context[0].level = Level::Lock;
        }),
    ];
    check(changes);
}

#[test]
fn a_change_moves_its_level_and_all_above() {
    let changes: &[Edit] = &[
        ("version", Some(Level::Versioned), |i| i.version.push('1')),
        ("scratch", Some(Level::Versioned), |i| {
            i.base = Base::Scratch;
        }),
        ("base digest", Some(Level::Versioned), |i| {
            i.base = Base::Image {
                name: BaseName::Kind(BaseKind::Directory),
                digest: Digest::of(b"other"),
            };
        }),
        ("base name", None, |i| {
            i.base = Base::Image {
                name: BaseName::Kind(BaseKind::Oci),
                digest: Digest::of(b"debian"),
            };
        }),
        ("platform", Some(Level::Versioned), |i| {
            i.platforms.pop_first();
        }),
        ("user", Some(Level::Versioned), |i| i.user = Some(user())),
        ("lock file", Some(Level::Lock), |i| {
            i.lock_files[0].content = Digest::of(b"");
        }),
        ("lock file gone", Some(Level::Lock), |i| {
            i.lock_files.clear();
        }),
        ("image of a layer", Some(Level::Lock), |i| {
            i.layers[0].payload = Payload::Image(Digest::of(b"other"));
        }),
        ("name of that image", None, |i| {
            i.layers[0].recipe.from = None;
        }),
        ("path in that image", Some(Level::Lock), |i| {
            i.layers[0].recipe.copy.push('x');
        }),
        ("owner", Some(Level::Lock), |i| {
            i.layers[1].recipe.owner.uid = 7;
        }),
        ("level of a layer", Some(Level::Lock), |i| {
            i.layers[1].recipe.level = Level::Source;
        }),
        ("destination", Some(Level::Source), |i| {
            i.layers[2].recipe.to = "/opt".parse().unwrap();
        }),
        ("copy", Some(Level::Source), |i| {
            i.layers[2].recipe.copy = "src".to_owned();
        }),
        ("empty layer", Some(Level::Source), |i| {
            i.layers.push(layer(Level::Source, "/tmp", Vec::new()));
        }),
        ("order in a level", Some(Level::Source), |i| {
            i.layers.swap(4, 5);
        }),
        ("order across levels", None, |i| i.layers.swap(1, 2)),
        ("order of files", None, |i| {
            if let Payload::Tree(entries) = &mut i.layers[3].payload {
                entries.reverse();
            }
        }),
        ("size", None, |i| i.lock_files[0].size = 0),
        ("empty source", Some(Level::Source), |i| {
            i.sources.push(SourceTree {
                name: "docs".to_owned(),
                entries: Vec::new(),
            });
        }),
        ("no command", Some(Level::Source), |i| i.config.cmd = None),
        ("order of ports", None, |i| i.config.expose.reverse()),
        ("same port", None, |i| {
            i.config.expose.push("8000".to_owned());
        }),
        ("environment", Some(Level::Source), |i| {
            i.config.env.insert("LANG".to_owned(), "C".to_owned());
        }),
    ];
    check(changes);
}

#[test]
fn absolute_paths_never_count() {
    let with_copy = |copy: &str| {
        let mut inputs = full();
        inputs.layers[2].recipe.copy = copy.to_owned();
        keys(&inputs)
    };
    assert_eq!(with_copy("/home/a/project/app"), with_copy("/srv/app"));
    for name in ["/home/a/app", "", "a//b", "a/"] {
        let mut inputs = full();
        inputs.sources[0].name = name.to_owned();
        assert!(
            matches!(inputs.list(), Err(InputsError::Name { .. })),
            "{name}"
        );
        let mut inputs = full();
        inputs.lock_files[0].name = name.to_owned();
        let error = inputs.list().unwrap_err();
        assert!(error.to_string().starts_with("lock file `"), "{error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn twice_the_same_is_refused() {
    let mut inputs = full();
    inputs.lock_files.push(LockFile::of("uv.lock", b""));
    assert!(matches!(
        inputs.list(),
        Err(InputsError::Duplicate {
            level: Level::Lock,
            ..
        })
    ));
    let mut inputs = full();
    inputs.layers[4].payload = Payload::Tree(vec![entry(b"x", "1"), entry(b"x", "2")]);
    assert!(matches!(
        inputs.list(),
        Err(InputsError::Duplicate {
            level: Level::Source,
            ..
        })
    ));
}

mod diffs {
    use super::*;

    fn told(change: fn(&mut Inputs)) -> Vec<String> {
        let mut inputs = full();
        change(&mut inputs);
        let old = full().list().unwrap();
        diff(&old, &inputs.list().unwrap())
            .into_iter()
            .map(
                |Change {
                     level,
                     name,
                     kind,
                     size,
                 }| format!("{level} {kind:?} {name} {size}"),
            )
            .collect()
    }

    #[test]
    fn nothing() {
        assert!(told(|_| {}).is_empty());
        assert!(told(|i| i.lock_files[0].size = 0).is_empty());
    }

    #[test]
    fn by_level_and_name() {
        let told = told(|i| {
            i.version = "2".to_owned();
            i.lock_files[0].name = "poetry.lock".to_owned();
            i.layers[2].payload = Payload::Tree(vec![entry(b"", ""), entry(b"main.py", "longer")]);
        });
        assert_eq!(
            told,
            [
                "versioned Changed version 0",
                "lock Added lock/poetry.lock 12",
                "lock Removed lock/uv.lock 12",
                "source Changed file/opt/app//main.py 6",
            ]
        );
    }

    #[test]
    fn a_layer_in_the_middle_is_one_layer() {
        let told = told(|i| {
            i.layers.insert(
                3,
                layer(Level::Source, "/opt/new", vec![entry(b"n", "new")]),
            );
        });
        assert_eq!(
            told,
            [
                "source Added file/opt/new//n 3",
                "source Added layer/opt/new 0"
            ]
        );
    }

    #[test]
    fn order_alone_is_told() {
        assert_eq!(
            told(|i| i.layers.swap(4, 5)),
            ["source Changed layer-order 0"]
        );
    }
}

mod documents {
    use super::*;

    #[test]
    fn round_trip_at_every_level() {
        let list = full().list().unwrap();
        for level in Level::ALL {
            let document = InputsDocument::new(&list, level);
            let json = document.to_json();
            let parsed = InputsDocument::parse(json.as_bytes()).unwrap();
            assert_eq!(parsed, document);
            assert_eq!(parsed.to_json(), json);
            assert_eq!(parsed.key(), list.keys().get(level));
            assert_eq!(parsed.inputs(), &list.up_to(level));
        }
    }

    #[test]
    fn shape() {
        let list = Inputs::new("1", Base::Scratch).list().unwrap();
        let key = list.keys().versioned;
        let (base, version) = (Digest::of(b"scratch"), Digest::of(b"1"));
        let expected = format!(
            concat!(
                r#"{{"schema":1,"scheme":"trilith/v1","level":"versioned","keys":{{"versioned":"{}"}},"#,
                r#""inputs":[{{"level":"versioned","name":"base","digest":"{}","size":0}},"#,
                r#"{{"level":"versioned","name":"version","digest":"{}","size":0}}]}}"#
            ),
            key, base, version
        );
        assert_eq!(
            InputsDocument::new(&list, Level::Versioned).to_json(),
            expected
        );
    }

    /// Replaces `from` by `to` in the document of a lock image and returns the refusal.
    fn refusal(from: &str, to: &str) -> String {
        let list = full().list().unwrap();
        let json = InputsDocument::new(&list, Level::Lock).to_json();
        assert!(json.contains(from), "{from}");
        let json = json.replacen(from, to, 1);
        InputsDocument::parse(json.as_bytes())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn lies_are_refused() {
        let keys = keys(&full());
        let lock_key = format!(r#","lock":"{}""#, keys.lock);
        let too_many = format!(r#"{lock_key},"source":"{}""#, keys.source);
        let malformed = "the list of inputs is malformed";
        for (from, to, message) in [
            (
                r#""schema":1"#,
                r#""schema":2"#,
                "the list of inputs has schema `2`, only `1` is known",
            ),
            (
                "trilith/v1",
                "openhands-v1",
                "the list of inputs is of scheme `openhands-v1`, not `trilith/v1`",
            ),
            (
                "lock/uv.lock",
                "lock/uv.lick",
                "the list of inputs contradicts its own lock key",
            ),
            (
                Digest::of(b"debian").hex(),
                Digest::of(b"ubuntu").hex(),
                "the list of inputs contradicts its own versioned key",
            ),
            (
                lock_key.as_str(),
                "",
                "the list of inputs contradicts its own lock key",
            ),
            (
                &lock_key,
                &too_many,
                "the list of inputs contradicts its own source key",
            ),
            (
                r#""level":"lock","name":"lock/"#,
                r#""level":"source","name":"lock/"#,
                "the list of inputs of a lock image names `lock/uv.lock` of level source",
            ),
            (
                r#""level":"lock","keys""#,
                r#""level":"source","keys""#,
                "the list of inputs contradicts its own source key",
            ),
            ("platform/linux/arm64", "platform/linux/amd64", malformed),
            (r#""size":0"#, r#""size":-1"#, malformed),
            (r#""size":0"#, r#""size":0,"more":1"#, malformed),
            ("sha256:", "md5:", malformed),
            ("{", "[", malformed),
        ] {
            assert_eq!(refusal(from, to), message, "{from} -> {to}");
        }
    }

    #[test]
    fn another_schema_may_have_another_shape() {
        let error = InputsDocument::parse(br#"{"schema":7,"facts":[]}"#).unwrap_err();
        assert!(matches!(error, InputsDocumentError::Schema(7)));
        assert!(error.hint().is_some());
        assert!(InputsDocument::parse(b"").is_err());
    }
}
