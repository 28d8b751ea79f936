//! Workspaces on real engines: started, driven, stopped, and nothing left.

mod parts;
mod ports;
mod sessions;
mod terminal;

/// The same tests for an engine.
macro_rules! engines {
    ($($name:ident: $start:ident,)+) => {
        $(mod $name {
            use super::parts::Engine;
            use super::{sessions, terminal};

            #[test]
            fn a_session_from_start_to_stop() {
                sessions::from_start_to_stop(&Engine::$start());
            }

            #[test]
            fn scratch_needs_nothing_but_the_agent() {
                sessions::scratch(&Engine::$start());
            }

            #[test]
            fn a_real_debian_is_worked_in() {
                sessions::debian(&Engine::$start());
            }

            #[test]
            fn an_image_with_the_agent_in_it_is_as_good() {
                sessions::injected(&Engine::$start());
            }

            #[test]
            fn a_program_has_this_terminal() {
                terminal::given(&Engine::$start());
            }

            #[test]
            fn logs_are_followed_to_the_end() {
                terminal::followed(&Engine::$start());
            }

            #[test]
            fn what_goes_wrong_is_said_and_nothing_stays() {
                sessions::failures(&Engine::$start());
            }

            #[test]
            fn an_image_goes_with_its_workspace_if_it_came_with_it() {
                sessions::images(&Engine::$start());
            }

            #[test]
            fn an_interrupted_start_leaves_nothing() {
                sessions::interrupted(&Engine::$start());
            }
        })+
    };
}

engines! {
    docker_20_10: docker_20,
    podman_4_3: podman_4,
    podman_5_4: podman_5,
}

/// On networks of the engine's own, which it has by default.
macro_rules! bridged {
    ($($name:ident: $start:ident,)+) => {
        $(mod $name {
            use super::parts::Engine;
            use super::{ports, sessions};

            #[test]
            fn a_session_from_start_to_stop() {
                sessions::from_start_to_stop(&Engine::$start());
            }

            #[test]
            fn ports_are_published() {
                ports::published(&Engine::$start());
            }

            #[test]
            fn an_internal_network_will_do() {
                ports::internal(&Engine::$start());
            }
        })+
    };
}

bridged! {
    docker_20_10_on_its_bridge: bridged_docker_20,
    docker_26_1_on_its_bridge: bridged_docker_26,
    podman_5_4_on_its_bridge: bridged_podman_5,
}

#[test]
fn podman_4_3_publishes_ports() {
    ports::published(&parts::Engine::podman_4());
}
