//! Sample projects are what the tests expect.

use std::process::Command;

use trilith_testkit::{Project, pypi_sdist, stdout_of};

#[test]
fn a_sample_project_runs_and_may_be_changed() {
    let project = Project::python();
    let run = |project: &Project| stdout_of(&mut Command::new(project.path().join("app/run")));
    assert_eq!(run(&project), "hello from app");
    let copy = Project::copy_of(project.path());
    copy.write("app/run", "#!/bin/sh\necho changed\n");
    copy.remove("app/data");
    assert_eq!(run(&copy), "changed");
    assert!(!copy.path().join("app/data").exists());
    assert_eq!(run(&project), "hello from app");
    assert!(project.read("uv.lock").contains("sample"));
}

#[test]
fn a_real_project_comes_from_the_package_index() {
    let flask = pypi_sdist("flask", "3.1.2");
    for file in ["pyproject.toml", "uv.lock", "src/flask/app.py"] {
        assert!(flask.join(file).is_file(), "{file}");
    }
    assert_eq!(pypi_sdist("flask", "3.1.2"), flask);
}
