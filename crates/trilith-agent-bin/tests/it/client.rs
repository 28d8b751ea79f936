//! The Python client of `OpenHands`, unchanged, in one Debian, and the agent in another.

use trilith_testkit::{assert_success, inside, trixie_client};

use crate::support::{Agent, KEY};
use crate::write_agent;

#[test]
fn the_remote_workspace_of_openhands_works_unchanged() {
    let root = trixie_client();
    let dirs = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let [programs, scripts, below, beside] = dirs.each_ref().map(tempfile::TempDir::path);
    write_agent(&programs.join("trilith-agent"));
    let mut command = inside(&root, programs, below);
    let agent = Agent::launch({
        command.arg("/added/trilith-agent");
        command
    });
    std::fs::write(scripts.join("story.py"), include_str!("story.py")).unwrap();
    let mut client = inside(&root, scripts, beside);
    client
        .args([
            "python3",
            "/added/story.py",
            &format!("http://{}", agent.host),
            KEY,
        ])
        .env("PYTHONPATH", "/opt/client")
        .env("HOME", "/tmp")
        // It would look for prices on the network, and advertise.
        .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        .env("OPENHANDS_SUPPRESS_BANNER", "1");
    let output = assert_success(&mut client);
    assert!(output.stdout.ends_with(b"the story is over\n"));
}
