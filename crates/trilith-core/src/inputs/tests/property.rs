//! Equal keys mean equal inputs.
//!
//! Two values drawn at random hardly ever come near each other. So each case draws a crowd
//! from a small world, whose names and contents are made of the same few awkward pieces, and
//! compares everybody with everybody.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn words() -> impl Strategy<Value = String> {
    proptest::sample::select(vec!["", "a", "b", "ab", "a/b"]).prop_map(str::to_owned)
}

fn some_text() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(words())
}

fn maps() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map(words(), words(), 0..3)
}

fn entries() -> impl Strategy<Value = Vec<EntryInput>> {
    let paths: Vec<&[u8]> = vec![b"", b"b", b"a/b", b"/b", b"#2//b", b"\xff", b"\\xff"];
    let contents = proptest::sample::select(vec!["x", "y"]);
    proptest::collection::btree_map(proptest::sample::select(paths), contents, 0..3).prop_map(
        |entries| {
            entries
                .into_iter()
                .map(|(path, content)| entry(path, content))
                .collect()
        },
    )
}

/// Inputs that differ in their layers.
fn layered() -> impl Strategy<Value = Inputs> {
    let payload = prop_oneof![
        3 => entries().prop_map(Payload::Tree),
        1 => words().prop_map(|image| Payload::Image(Digest::of(image.as_bytes()))),
    ];
    let layer = (
        proptest::sample::select(Level::ALL.to_vec()),
        proptest::sample::select(vec!["/", "/a", "/a#2"]),
        proptest::sample::select(vec!["app", "/app", "/srv"]),
        proptest::sample::select(vec![0, 0, 0, 7]),
        payload,
    )
        .prop_map(|(level, to, copy, uid, payload)| {
            let mut made = layer(level, to, Vec::new());
            made.recipe.copy = copy.to_owned();
            made.recipe.owner.uid = uid;
            made.payload = payload;
            made
        });
    proptest::collection::vec(layer, 0..3).prop_map(|layers| Inputs {
        layers,
        ..Inputs::new("1", debian())
    })
}

/// Inputs that differ in their lock files and source trees.
fn rooted() -> impl Strategy<Value = Inputs> {
    let names = || proptest::sample::select(vec!["a", "b", "a/b", "a#2"]);
    let locks = proptest::collection::btree_map(names(), words(), 0..3);
    let sources = proptest::collection::btree_map(names(), entries(), 0..3);
    (locks, sources).prop_map(|(locks, sources)| Inputs {
        lock_files: locks
            .into_iter()
            .map(|(name, content)| LockFile::of(name, content.as_bytes()))
            .collect(),
        sources: sources
            .into_iter()
            .map(|(name, entries)| SourceTree {
                name: name.to_owned(),
                entries,
            })
            .collect(),
        ..Inputs::new("1", debian())
    })
}

/// Inputs that differ in their configuration.
fn configured() -> impl Strategy<Value = Inputs> {
    let argv = || proptest::option::of(proptest::collection::vec(words(), 0..3));
    let map = || prop_oneof![Just(BTreeMap::new()), maps()];
    let text = || prop_oneof![Just(None), some_text()];
    (argv(), argv(), map(), map(), text(), text(), text()).prop_map(
        |(entrypoint, cmd, env, labels, user, workdir, stop_signal)| Inputs {
            config: ConfigRecipe {
                entrypoint,
                cmd,
                env,
                labels,
                user,
                workdir: workdir.map(|path| format!("/{path}").parse().unwrap()),
                expose: Vec::new(),
                stop_signal,
            },
            ..Inputs::new("1", debian())
        },
    )
}

/// Inputs that differ in version, base, platforms and Dockerfile.
fn based() -> impl Strategy<Value = Inputs> {
    let text =
        (words(), maps(), some_text()).prop_map(|(content, args, target)| DockerfileText::Whole {
            content: Digest::of(content.as_bytes()),
            args,
            target,
        });
    let levels = || proptest::sample::select(Level::ALL.to_vec());
    let context = (levels(), entries()).prop_map(|(level, entries)| {
        let input = |entry| ContextInput { level, entry };
        entries.into_iter().map(input).collect()
    });
    let images = (
        levels(),
        proptest::collection::btree_map(words(), words(), 0..2),
    )
        .prop_map(|(level, images)| {
            let input = |(name, digest): (String, String)| ImageInput {
                level,
                name: format!("dockerfile/image/{name}"),
                digest: Digest::of(digest.as_bytes()),
            };
            images.into_iter().map(input).collect()
        });
    let dockerfile =
        (text, some_text(), images, context).prop_map(|(text, extra_deps, images, context)| {
            DockerfileInput {
                text,
                extra_deps,
                images,
                context,
            }
        });
    let base = prop_oneof![Just(Base::Scratch), Just(debian())];
    let platforms = ["linux/amd64", "linux/arm/v7", "linux/arm"].to_vec();
    let platforms = proptest::sample::subsequence(platforms, 0..3);
    (words(), base, platforms, proptest::option::of(dockerfile)).prop_map(
        |(version, base, platforms, dockerfile)| Inputs {
            platforms: platforms.iter().map(|p| p.parse().unwrap()).collect(),
            dockerfile,
            ..Inputs::new(version, base)
        },
    )
}

/// Inputs that differ in their user.
fn with_user() -> impl Strategy<Value = Inputs> {
    let paths = || words().prop_map(|path| format!("/{path}").parse().unwrap());
    let ids = (0..3_u32, 0..3_u32).prop_map(|(uid, gid)| Owner { uid, gid });
    let user = (words(), ids, paths(), paths());
    let user = user.prop_map(|(name, owner, home, shell)| UserRecipe {
        name,
        owner,
        home,
        shell,
    });
    proptest::option::of(user).prop_map(|user| Inputs {
        user,
        ..Inputs::new("1", debian())
    })
}

/// Returns the inputs as text, without what no key covers.
fn canonical(inputs: &Inputs) -> String {
    let mut inputs = inputs.clone();
    inputs.layers.sort_by_key(|layer| layer.recipe.level);
    for layer in &mut inputs.layers {
        let is_tree = matches!(layer.payload, Payload::Tree(_));
        if is_tree && layer.recipe.copy.starts_with('/') {
            layer.recipe.copy.clear();
        }
    }
    format!("{inputs:?}")
}

fn all_differ(crowd: &[Inputs]) -> Result<(), TestCaseError> {
    let mut by_key: HashMap<Keys, (String, InputList)> = HashMap::new();
    let mut by_text: HashMap<String, Keys> = HashMap::new();
    for inputs in crowd {
        let list = inputs.list().unwrap();
        let (keys, text) = (list.keys(), canonical(inputs));
        prop_assert_eq!(by_text.entry(text.clone()).or_insert(keys), &keys);
        let (known, known_list) = by_key.entry(keys).or_insert((text.clone(), list.clone()));
        prop_assert_eq!(&*known, &text);
        prop_assert_eq!(&*known_list, &list);
    }
    Ok(())
}

/// Returns the same layers in another order, and the same payloads in other layers.
fn rearranged(inputs: &Inputs) -> [Inputs; 2] {
    let mut reversed = inputs.clone();
    reversed.layers.reverse();
    let mut exchanged = reversed.clone();
    for (layer, other) in exchanged.layers.iter_mut().zip(&inputs.layers) {
        layer.payload = other.payload.clone();
    }
    [reversed, exchanged]
}

fn crowd(world: impl Strategy<Value = Inputs>) -> impl Strategy<Value = Vec<Inputs>> {
    proptest::collection::vec(world, 150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn layers(mut crowd in crowd(layered())) {
        let neighbours: Vec<Inputs> = crowd.iter().flat_map(rearranged).collect();
        crowd.extend(neighbours);
        all_differ(&crowd)?;
    }

    #[test]
    fn lock_files_and_sources(crowd in crowd(rooted())) {
        all_differ(&crowd)?;
    }

    #[test]
    fn configurations(crowd in crowd(configured())) {
        all_differ(&crowd)?;
    }

    #[test]
    fn users(crowd in crowd(with_user())) {
        all_differ(&crowd)?;
    }

    #[test]
    fn version_base_platforms_and_dockerfile(crowd in crowd(based())) {
        all_differ(&crowd)?;
    }
}

proptest! {
    #[test]
    fn a_key_is_free_of_what_lies_above(a in layered(), b in layered()) {
        let (one, two) = (a.list().unwrap(), b.list().unwrap());
        for level in Level::ALL {
            let same = one.up_to(level) == two.up_to(level);
            prop_assert_eq!(one.keys().get(level) == two.keys().get(level), same);
        }
    }

    #[test]
    fn a_difference_is_told_if_there_is_one(a in layered(), b in layered()) {
        let (one, two) = (a.list().unwrap(), b.list().unwrap());
        let changes = diff(&one, &two);
        let lowest = changes.first().map(|change| change.level);
        for level in Level::ALL {
            let moves = lowest.is_some_and(|lowest| lowest <= level);
            prop_assert_eq!(one.keys().get(level) != two.keys().get(level), moves);
        }
    }

    #[test]
    fn documents_round_trip(
        inputs in prop_oneof![layered(), rooted(), configured(), based()],
        level in proptest::sample::select(Level::ALL.to_vec()),
    ) {
        let document = InputsDocument::new(&inputs.list().unwrap(), level);
        let json = document.to_json();
        prop_assert_eq!(InputsDocument::parse(json.as_bytes()).unwrap(), document);
    }
}
