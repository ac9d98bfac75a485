//! A relay dies under a flow, and `hopline explain` tells which, who noticed and why.

use crate::fixture::{Cluster, Ended, run};
use serde_json::Value;
use std::io::Write;

/// What `--events` told, the oldest first.
fn events(stderr: &str) -> Vec<Value> {
    stderr
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

fn said(ended: &Ended) -> String {
    assert!(ended.status.success(), "{}", ended.stderr);
    ended.stdout.join("\n")
}

/// Pipes lines to an echo over two hops and back, and kills the second relay between them. Its events.
fn pipe_through_a_kill(cluster: &mut Cluster) -> (String, String) {
    let mut pipe = cluster.start_process(&["pipe", "echo", "--hops", "2", "--events"]);
    let mut stdin = pipe.stdin();
    writeln!(stdin, "before").unwrap();
    assert_eq!(pipe.line(), "before");
    // The journal names the chain as soon as the flow is open.
    let told = cluster.run(&["explain", "--json"], b"");
    let story: Value = serde_json::from_str(&said(&told)).unwrap();
    assert_eq!((&story["name"], &story["complete"]), (&Value::from("echo"), &Value::Null));
    let victim = story["hops"][1]["primary"].as_str().unwrap().to_owned();
    cluster.kill(&victim);
    for n in 0..50 {
        writeln!(stdin, "after {n}").unwrap();
        assert_eq!(pipe.line(), format!("after {n}"));
    }
    drop(stdin);
    let ended = pipe.finish();
    assert!(ended.status.success(), "{}", ended.stderr);
    (victim, ended.stderr)
}

#[test]
fn a_kill_is_explained() {
    let mut cluster = Cluster::start(6);
    let _echo = cluster.serve(&["listen", "echo", "--echo", "--keep"]);
    let (victim, stderr) = pipe_through_a_kill(&mut cluster);
    let events = events(&stderr);
    let flow = events[0]["flow"].as_str().unwrap();
    let prev = events[0]["hops"][0]["primary"].as_str().unwrap();
    let [rerouted] = named(&events, "rerouted")[..] else { panic!("one failure: {events:?}") };
    assert_eq!((&rerouted["hop"], &rerouted["from"]), (&Value::from(2), &Value::from(victim.as_str())));
    assert_eq!(rerouted["by"], prev, "the relay before it noticed");
    let evidence = rerouted["evidence"].as_str().unwrap();
    assert!(["icmp refusal", "silence", "transport"].contains(&evidence), "{evidence}");
    let number = |name: &str| rerouted[name].as_f64().unwrap();
    assert!(number("detected_ms") <= number("gap_ms") && number("replayed_bytes") >= 0.0);
    assert!(events.iter().all(|event| event["at_ms"].as_f64().unwrap() > 1e12));

    let file = cluster.home.path().join("events");
    std::fs::write(&file, &stderr).unwrap();
    let by_journal = said(&cluster.run(&["explain", &flow[..6]], b""));
    let by_events = said(&cluster.run(&["explain", "--from", file.to_str().unwrap()], b""));
    for story in [&by_journal, &by_events] {
        let expected = [
            format!("flow {flow} to echo"),
            format!("hop 2: {victim} failed"),
            format!("noticed by {prev}: {evidence}"),
            "bytes sent again".to_owned(),
            "closed: everything arrived, both ways".to_owned(),
        ];
        for words in expected {
            assert!(story.contains(&words), "{words:?} is not in\n{story}");
        }
    }
    let list = said(&cluster.run(&["explain", "--list"], b""));
    assert!(list.contains(flow) && list.contains("complete"), "{list}");
}

#[test]
fn what_can_not_be_explained_says_why() {
    let home = tempfile::tempdir().unwrap();
    let flows = home.path().join("hopline/flows");
    let explain = |args: &[&str]| {
        let ended = run(home.path(), "", &[&["explain"], args].concat(), b"");
        (ended.status.code().unwrap(), ended.stderr.lines().last().unwrap_or_default().to_owned())
    };
    let assert_says = |(code, last): (i32, String), expected: i32, words: &str| {
        assert_eq!(code, expected, "{last}");
        assert!(last.contains(words), "{words:?} is not in {last:?}");
    };
    assert_says(explain(&[]), 1, "no flow is known");
    assert_says(explain(&["--list"]), 1, "no flow is known");
    std::fs::create_dir_all(&flows).unwrap();
    let chain = |id: &str| format!("{{\"event\":\"chain\",\"flow\":\"{id}\",\"name\":\"x\",\"hops\":[]}}\n");
    for id in ["aa11", "aa22"] {
        std::fs::write(flows.join(id).with_extension("jsonl"), chain(id)).unwrap();
    }
    std::fs::write(flows.join("bb.jsonl"), chain("bb") + "{\"event\":\n").unwrap();
    assert_says(explain(&["cc"]), 1, "hopline explain --list");
    assert_says(explain(&["aa"]), 2, "write more of it");
    assert_says(explain(&["no-id"]), 2, "hexadecimal");
    assert_says(explain(&["bb"]), 1, "is damaged: line 2 is no event");
    assert_says(explain(&["--from", "/nowhere/at/all"]), 1, "can't read /nowhere/at/all");
    assert_says(explain(&["aa11", "--list"]), 2, "--help");
    assert_eq!(explain(&["aa1"]).0, 0);
    assert_eq!(explain(&["--list"]).0, 0, "one damaged journal does not hide the others");
}

#[test]
fn a_journal_that_can_not_be_kept_does_not_hurt_a_flow() {
    let cluster = Cluster::start(3);
    let _echo = cluster.serve(&["listen", "echo", "--echo", "--keep"]);
    let flows = cluster.home.path().join("hopline/flows");
    let pipe = |args: &[&str]| {
        let ended = cluster.run(&[&["pipe", "echo", "--hops", "1"], args].concat(), b"hello\n");
        assert!(ended.status.success(), "{}", ended.stderr);
        assert_eq!(ended.stdout, ["hello"]);
        ended.stderr
    };
    pipe(&["--no-journal"]);
    assert!(!flows.exists());
    // Somebody's file is where the directory should be.
    std::fs::write(&flows, "").unwrap();
    let stderr = pipe(&[]);
    assert_eq!(stderr.matches("can't keep the flows' journal").count(), 1, "{stderr}");
    std::fs::remove_file(&flows).unwrap();
    pipe(&[]);
    assert_eq!(std::fs::read_dir(&flows).unwrap().count(), 1);
}

#[test]
fn watching_neighbours_in_no_known_way_is_refused() {
    let home = tempfile::tempdir().unwrap();
    for (args, words) in [
        (["--liveness", "slow"], "possible values: auto, lan, wan, satellite, off"),
        (["--heartbeat", "1ms"], "not between 10ms and 60s"),
        (["--heartbeat", "often"], "write a duration such as"),
    ] {
        for command in [&["relay"][..], &["pipe", "x"]] {
            let ended = run(home.path(), "", &[command, &args[..]].concat(), b"");
            assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
            assert!(ended.stderr.contains(words), "{words:?} is not in {}", ended.stderr);
        }
    }
}
