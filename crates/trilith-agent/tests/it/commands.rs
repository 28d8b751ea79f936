//! What commands are told and what they answer.

use std::io::{BufRead as _, BufReader};

use serde_json::{Value, json};

use crate::agent;
use crate::support::{detail_of, document_of, wait_until};

#[test]
fn streams_exit_code_directory_and_environment_are_what_was_asked_for() {
    let agent = agent(&[]);
    let output = agent.execute(&json!({"command": "echo out; echo err >&2; exit 7"}));
    assert_eq!(output["stdout"], "out\n");
    assert_eq!(output["stderr"], "err\n");
    assert_eq!(output["exit_code"], 7);
    assert_eq!(output["kind"], "BashOutput");
    let request = json!({
        "command": "pwd; echo $ADDED $HOME; cat; kill -9 $$",
        "cwd": "/usr",
        "env": {"ADDED": "a b", "HOME": null},
    });
    let output = agent.execute(&request);
    assert_eq!(output["stdout"], "/usr\na b\n");
    assert_eq!(output["stderr"], Value::Null);
    assert_eq!(output["exit_code"], -9);
}

#[test]
fn programs_run_without_a_shell() {
    let agent = agent(&[]);
    let output = agent.execute(&json!({"argv": ["printf", "%s|", "a b", "$HOME", ""]}));
    assert_eq!(output["stdout"], "a b|$HOME||");
    for (request, code, reason) in [
        (
            json!({"argv": ["/no/such"]}),
            127,
            "cannot start `/no/such`: No such file",
        ),
        (
            json!({"argv": ["/etc/passwd"]}),
            126,
            "cannot start `/etc/passwd`: Permission",
        ),
        (
            json!({"argv": ["true"], "cwd": "/no"}),
            126,
            "cannot start in directory `/no`",
        ),
        (json!({"argv": ["a\0b"]}), 126, "cannot start `a\0b`"),
    ] {
        let output = agent.execute(&request);
        assert_eq!(output["exit_code"], code, "{output}");
        assert!(
            output["stderr"].as_str().unwrap().starts_with(reason),
            "{output}"
        );
    }
}

#[test]
fn two_hundred_commands_at_once_do_not_mix() {
    let agent = agent(&[]);
    std::thread::scope(|scope| {
        for number in 0..200 {
            let agent = &agent;
            scope.spawn(move || {
                let command = format!(
                    "for i in 1 2 3; do echo {number}; echo e{number} >&2; done; exit {number}"
                );
                let output = agent.execute(&json!({"command": command}));
                assert_eq!(output["stdout"], format!("{number}\n").repeat(3));
                assert_eq!(output["stderr"], format!("e{number}\n").repeat(3));
                assert_eq!(output["exit_code"], number);
            });
        }
    });
}

#[test]
fn long_output_comes_whole_and_in_order() {
    let agent = agent(&[]);
    let script = "seq 1 1500000; echo é >&2";
    let expected: String = (1..=1_500_000)
        .flat_map(|number: u32| {
            [
                number.to_string(),
                "
"
                .to_owned(),
            ]
        })
        .collect();
    let command = agent.start(&json!({"command": script}));
    assert_eq!(agent.end_of(&command)["exit_code"], 0);
    // As the SDK's client reads it, page by page.
    let (mut stdout, mut last, mut pages) = (String::new(), -1, 0);
    loop {
        let query = format!("kind__eq=BashOutput&command_id__eq={command}&order__gt={last}");
        let page = agent.search(&query);
        let items = page["items"].as_array().unwrap();
        for item in items {
            assert_eq!(item["order"], last + 1);
            last += 1;
            stdout.push_str(item["stdout"].as_str().unwrap_or_default());
        }
        pages += 1;
        if items.iter().any(|item| !item["exit_code"].is_null()) {
            break;
        }
    }
    assert!(pages > 1);
    assert!(stdout == expected);
    let output = agent.execute(&json!({"command": script}));
    assert!(output["stdout"] == expected);
    assert_eq!(output["stderr"], "é\n");
}

#[test]
fn bytes_that_are_no_text_are_replaced_in_events_and_kept_in_streams() {
    let agent = agent(&[]);
    let script = r"printf 'a\377b\303'; sleep 0.2; printf '\251\0'";
    let command = agent.start(&json!({"command": script}));
    agent.end_of(&command);
    let events = agent.search(&format!("command_id__eq={command}"));
    let text: String = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|event| event["stdout"].as_str())
        .collect();
    assert_eq!(text, "a\u{fffd}bé\0");
    let path = format!("/api/bash/bash_commands/{command}/output");
    let bytes = agent.get(&format!("{path}?stream=stdout")).body;
    assert_eq!(bytes, b"a\xffb\xc3\xa9\0");
    assert_eq!(
        agent.get(&format!("{path}?stream=stdout&offset=3")).body,
        b"\xc3\xa9\0"
    );
    assert_eq!(
        agent.get(&format!("{path}?stream=stdout&offset=99")).body,
        b""
    );
    assert_eq!(agent.get(&format!("{path}?stream=stderr")).body, b"");
    detail_of(&agent.get(&format!("{path}?stream=x")), 422);
}

#[test]
fn output_is_followed_while_it_comes_and_after_a_break() {
    let agent = agent(&[]);
    let command = agent.start(&json!({"command": "echo one; cat; exit 3", "stdin": true}));
    let path = format!("/api/bash/bash_commands/{command}");
    let mut lines = BufReader::new(agent.open("GET", &format!("{path}/events"), &[], b""));
    let mut next = || -> Vec<String> {
        let mut event = Vec::new();
        loop {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            match line.trim_end() {
                "" => return event,
                line => event.push(line.to_owned()),
            }
        }
    };
    let data = |event: &[String]| -> Value {
        let data = event.iter().find_map(|line| line.strip_prefix("data: "));
        serde_json::from_str(data.unwrap()).unwrap()
    };
    let first = next();
    assert_eq!(first[..2], ["id: 0", "event: BashOutput"]);
    assert_eq!(data(&first)["stdout"], "one\n");
    agent.send("POST", &format!("{path}/stdin"), b"two\n");
    assert_eq!(data(&next())["stdout"], "two\n");
    agent.send("POST", &format!("{path}/stdin?close=true"), b"three\n");
    let rest = agent.open(
        "GET",
        &format!("{path}/events"),
        &[("Last-Event-ID", "1")],
        b"",
    );
    let rest = String::from_utf8(rest.read_all().body).unwrap();
    assert!(rest.contains("three") && !rest.contains("two"), "{rest}");
    assert!(rest.contains("\"exit_code\":3"), "{rest}");
    detail_of(&agent.send("POST", &format!("{path}/stdin"), b"x"), 404);
}

#[test]
fn events_are_searched_by_kind_command_time_and_order_in_pages() {
    let agent = agent(&[]);
    let mut commands: Vec<String> = Vec::new();
    for number in 0..5 {
        let command = agent.start(&json!({"command": format!("echo {number}"), "timeout": 9}));
        agent.end_of(&command);
        commands.push(command);
    }
    let ids = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        items
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&agent.search("kind__eq=BashCommand")), commands);
    let all = agent.search("");
    assert_eq!(all["items"].as_array().unwrap().len(), 10);
    assert_eq!(all["next_page_id"], Value::Null);
    let reversed: Vec<String> = ids(&all).into_iter().rev().collect();
    assert_eq!(ids(&agent.search("sort_order=TIMESTAMP_DESC")), reversed);
    for (order, expected) in [("TIMESTAMP", ids(&all)), ("TIMESTAMP_DESC", reversed)] {
        let (mut seen, mut page) = (Vec::new(), String::new());
        loop {
            let found = agent.search(&format!("sort_order={order}&limit=3&page_id={page}"));
            seen.extend(ids(&found));
            match found["next_page_id"].as_str() {
                Some(next) => page = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(seen, expected);
    }
    let third = &all["items"][4];
    let time = third["timestamp"].as_str().unwrap();
    assert_eq!(
        ids(&agent.search(&format!("timestamp__gte={time}")))[0],
        third["id"]
    );
    assert_eq!(
        ids(&agent.search(&format!("timestamp__lt={time}"))).len(),
        4
    );
    let query = format!("command_id__eq={}&order__gt=-1", commands[2]);
    assert_eq!(
        ids(&agent.search(&query)),
        [all["items"][5]["id"].as_str().unwrap()]
    );
    assert_eq!(
        ids(&agent.search("order__gt=0&kind__eq=BashOutput")),
        Vec::<String>::new()
    );
    for query in [
        "limit=0",
        "limit=101",
        "kind__eq=x",
        "sort_order=x",
        "timestamp__lt=x",
        "order__gt=x",
        "command_id__eq=x",
        "page_id=x",
    ] {
        detail_of(
            &agent.get(&format!("/api/bash/bash_events/search?{query}")),
            422,
        );
    }
}

#[test]
fn events_are_got_one_by_one_and_cleared() {
    let agent = agent(&[]);
    let request = json!({"command": "echo 1", "cwd": "/", "timeout": 9});
    let command = agent.start(&request);
    let output = agent.end_of(&command);
    let event = document_of(&agent.get(&format!("/api/bash/bash_events/{command}")));
    assert_eq!(event["kind"], "BashCommand");
    for (name, value) in request.as_object().unwrap() {
        assert_eq!(event[name], *value);
    }
    let ids = json!([output["id"], "0".repeat(32), command]).to_string();
    let batch = document_of(&agent.send("GET", "/api/bash/bash_events/", ids.as_bytes()));
    assert_eq!(batch[0], output);
    assert_eq!(
        (&batch[1], &batch[2]["id"]),
        (&Value::Null, &json!(command))
    );
    let running = agent.start(&json!({"command": "sleep 1000"}));
    let cleared = document_of(&agent.send("DELETE", "/api/bash/bash_events", b""));
    assert_eq!(cleared["cleared_count"], 2);
    detail_of(&agent.get(&format!("/api/bash/bash_events/{command}")), 404);
    assert_eq!(agent.search("")["items"][0]["id"], running.as_str());
}

#[test]
fn a_command_is_stopped_by_its_identifier_and_no_other() {
    let agent = agent(&[]);
    let kept = agent.start(&json!({"command": "cat; echo kept", "stdin": true}));
    let stopped = agent.start(&json!({"command": "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done"}));
    let query = format!("kind__eq=BashOutput&command_id__eq={stopped}");
    wait_until("a command is ready", || {
        agent.search(&query)["items"][0]["stdout"] == "ready\n"
    });
    let stop = |id: &str| agent.send("POST", &format!("/api/bash/bash_commands/{id}/stop"), b"");
    assert_eq!(document_of(&stop(&stopped))["success"], true);
    let end = agent.end_of(&stopped);
    assert_eq!(
        (&end["stdout"], &end["exit_code"]),
        (&json!("bye\n"), &json!(5))
    );
    assert_eq!(document_of(&stop(&stopped))["success"], true);
    detail_of(&stop(&"0".repeat(32)), 404);
    detail_of(&stop("x"), 422);
    agent.send(
        "POST",
        &format!("/api/bash/bash_commands/{kept}/stdin?close=true"),
        b"",
    );
    assert_eq!(agent.end_of(&kept)["stdout"], "kept\n");
}

#[test]
fn what_runs_in_the_background_is_not_waited_for_and_goes_on() {
    let agent = agent(&[]);
    let file = agent.path("later");
    let script = format!("(sleep 0.3; yes | head -c 300000; echo done > {file}) & echo started");
    let output = agent.execute(&json!({"command": script}));
    assert_eq!(output["stdout"], "started\n");
    wait_until("the background is done", || {
        std::path::Path::new(&file).exists()
    });
}
