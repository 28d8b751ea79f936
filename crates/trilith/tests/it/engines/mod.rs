//! Dockerfiles on real engines: three levels, what is built from what, and what is left behind.

mod ends;
mod flags;
mod injected;
mod levels;
mod outages;
mod parts;
mod places;
mod presets;
mod pull;
mod relay;
mod together;

/// The same tests for an engine.
macro_rules! engines {
    ($($name:ident: $start:ident,)+) => {
        $(mod $name {
            use super::parts::Engine;
            use super::{ends, injected, levels, places};

            #[test]
            fn three_levels() {
                levels::three_levels(Engine::$start);
            }

            #[test]
            fn the_agent_on_top() {
                injected::the_agent_on_top(Engine::$start);
            }

            #[test]
            fn the_agent_into_the_engine() {
                injected::the_agent_into_the_engine(Engine::$start);
            }

            #[test]
            fn a_dockerfile_without_levels_has_all_tags() {
                levels::a_dockerfile_without_levels_has_all_tags(Engine::$start);
            }

            #[test]
            fn templates_are_told_what_they_start_from() {
                levels::templates_are_told_what_they_start_from(Engine::$start);
            }

            #[test]
            fn several_platforms_are_one_index() {
                levels::several_platforms_are_one_index(Engine::$start);
            }

            #[test]
            fn into_the_store_and_into_the_engine() {
                places::into_the_store_and_into_the_engine(Engine::$start);
            }

            #[test]
            fn a_dry_run_writes_what_would_be_sent() {
                places::a_dry_run_writes_what_would_be_sent(Engine::$start);
            }

            #[test]
            fn a_failing_step_moves_no_tag() {
                ends::a_failing_step_moves_no_tag(Engine::$start);
            }

            #[test]
            fn secrets_stay_secret() {
                ends::secrets_stay_secret(Engine::$start);
            }

            #[test]
            fn an_interrupted_build_leaves_nothing() {
                ends::an_interrupted_build_leaves_nothing(Engine::$start);
            }
        })+
    };
}

engines! {
    docker_20_10: docker_20,
    docker_26_1: docker_26,
    docker_26_1_with_containerd: docker_with_containerd,
    podman_4_3: podman_4,
    podman_5_4: podman_5,
}

/// On engines that push over plain HTTP at once: containerd tries TLS first, and takes the proxy
/// that refuses for one that is broken.
mod a_refused_push_moves_no_tag {
    use super::ends::a_refused_push_moves_no_tag;
    use super::parts::Engine;

    #[test]
    fn docker_20_10() {
        a_refused_push_moves_no_tag(Engine::docker_20);
    }

    #[test]
    fn docker_26_1() {
        a_refused_push_moves_no_tag(Engine::docker_26);
    }

    #[test]
    fn podman_4_3() {
        a_refused_push_moves_no_tag(Engine::podman_4);
    }

    #[test]
    fn podman_5_4() {
        a_refused_push_moves_no_tag(Engine::podman_5);
    }
}

/// The engine is not asked: one of each kind stands for all.
mod an_unreadable_context_moves_no_tag {
    use super::ends::an_unreadable_context_moves_no_tag;
    use super::parts::Engine;

    #[test]
    fn docker_20_10() {
        an_unreadable_context_moves_no_tag(Engine::docker_20);
    }

    #[test]
    fn podman_4_3() {
        an_unreadable_context_moves_no_tag(Engine::podman_4);
    }

    #[test]
    fn buildkit() {
        an_unreadable_context_moves_no_tag(Engine::buildkit);
    }
}

/// The lock knows nothing of engines: two stand for all.
mod at_once {
    use super::parts::Engine;
    use super::together::{
        an_image_of_steps_is_not_rebased, the_first_keeps_the_tags, two_at_once_build_once,
    };

    #[test]
    fn docker_20_10_builds_once() {
        two_at_once_build_once(Engine::docker_20);
    }

    #[test]
    fn podman_4_3_builds_once() {
        two_at_once_build_once(Engine::podman_4);
    }

    #[test]
    fn docker_20_10_keeps_the_first() {
        the_first_keeps_the_tags(Engine::docker_20);
    }

    #[test]
    fn docker_20_10_is_not_rebased() {
        an_image_of_steps_is_not_rebased(Engine::docker_20);
    }

    #[test]
    fn podman_4_3_keeps_the_first() {
        the_first_keeps_the_tags(Engine::podman_4);
    }
}

#[test]
fn a_named_frontend_reads_of_levels() {
    places::a_named_frontend_reads_of_levels(parts::Engine::docker_26);
}

#[test]
fn layers_into_the_engine() {
    places::layers_into_the_engine(parts::Engine::docker_20);
}

/// BuildKit keeps no images, so there is nothing to load.
mod buildkit {
    use super::parts::Engine;
    use super::{ends, injected, levels, places};

    #[test]
    fn three_levels() {
        levels::three_levels(Engine::buildkit);
    }

    #[test]
    fn the_agent_on_top() {
        injected::the_agent_on_top(Engine::buildkit);
    }

    #[test]
    fn the_agent_into_the_store() {
        injected::the_agent_into_the_store(Engine::buildkit);
    }

    #[test]
    fn a_dockerfile_without_levels_has_all_tags() {
        levels::a_dockerfile_without_levels_has_all_tags(Engine::buildkit);
    }

    #[test]
    fn templates_are_told_what_they_start_from() {
        levels::templates_are_told_what_they_start_from(Engine::buildkit);
    }

    #[test]
    fn several_platforms_are_one_index() {
        levels::several_platforms_are_one_index(Engine::buildkit);
    }

    #[test]
    fn into_the_store() {
        places::into_the_store(Engine::buildkit);
    }

    #[test]
    fn a_failing_step_moves_no_tag() {
        ends::a_failing_step_moves_no_tag(Engine::buildkit);
    }

    #[test]
    fn secrets_stay_secret() {
        ends::secrets_stay_secret(Engine::buildkit);
    }

    #[test]
    fn an_interrupted_build_leaves_nothing() {
        ends::an_interrupted_build_leaves_nothing(Engine::buildkit);
    }
}
