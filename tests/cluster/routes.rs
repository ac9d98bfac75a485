//! Routes that an endpoint keeps on disk, for when no bootstrap answers.

use crate::fixture::{Cluster, Ended};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn pipe(cluster: &Cluster, data: &Path) -> Ended {
    cluster.run(&["pipe", "echo", "--hops", "2", "--data", data.to_str().unwrap()], b"hello")
}

fn assert_echoed(ended: &Ended) {
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(ended.stdout, ["hello"]);
}

fn assert_fails(ended: &Ended, code: i32, saying: &str) {
    assert_eq!(ended.status.code(), Some(code), "{}", ended.stderr);
    assert!(ended.stderr.contains(saying), "{saying:?} is not in {}", ended.stderr);
}

/// A network in which an endpoint has reached a target before, and the file that it left.
fn reached_before() -> (Cluster, crate::fixture::Process, PathBuf, PathBuf) {
    let cluster = Cluster::start(6);
    let echo = cluster.serve(&["listen", "echo", "--echo", "--keep"]);
    let data = cluster.home.path().join("origin");
    let first = pipe(&cluster, &data);
    assert_echoed(&first);
    assert!(!first.stderr.contains("kept from before"), "{}", first.stderr);
    let file = data.join("routes");
    (cluster, echo, data, file)
}

#[test]
fn a_name_reached_before_is_reached_without_a_bootstrap() {
    let (mut cluster, _echo, data, file) = reached_before();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    cluster.bootstrap.kill();
    for _ in 0..2 {
        let again = pipe(&cluster, &data);
        assert_echoed(&again);
        assert!(again.stderr.contains("taking a route that was kept from before"), "{}", again.stderr);
    }
    let data = data.to_str().unwrap();
    let other = cluster.run(&["pipe", "another", "--hops", "2", "--data", data], b"hello");
    assert_fails(&other, 3, "no bootstrap answered");
    let stranger = cluster.run(&["pipe", "echo", "--hops", "2"], b"hello");
    assert_fails(&stranger, 3, "no bootstrap");
}

#[test]
fn a_relay_of_the_kept_route_may_have_died() {
    let (mut cluster, _echo, data, _) = reached_before();
    cluster.bootstrap.kill();
    // Whoever serves the first hop of the kept route: the next to carry it is its backup.
    let mut events =
        cluster.run(&["pipe", "echo", "--hops", "2", "--events", "--data", data.to_str().unwrap()], b"hello");
    let line = events.stderr.lines().find(|line| line.contains("\"event\":\"chain\"")).unwrap().to_owned();
    let chain: serde_json::Value = serde_json::from_str(&line).unwrap();
    cluster.kill(chain["hops"][0]["primary"].as_str().unwrap());
    events = pipe(&cluster, &data);
    assert_echoed(&events);
}

#[test]
fn a_damaged_file_is_replaced_and_a_later_one_left_alone() {
    let (mut cluster, _echo, data, file) = reached_before();
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, good.replace("route = echo 2", "route = echo 3")).unwrap();
    let warned = pipe(&cluster, &data);
    assert_echoed(&warned);
    assert!(warned.stderr.contains("damaged"), "{}", warned.stderr);
    assert!(!pipe(&cluster, &data).stderr.contains("damaged"), "it was replaced");
    let later = good.replace("version = 1", "version = 2");
    std::fs::write(&file, &later).unwrap();
    let warned = pipe(&cluster, &data);
    assert_echoed(&warned);
    assert!(warned.stderr.contains("later version"), "{}", warned.stderr);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), later);
    cluster.bootstrap.kill();
    assert_fails(&pipe(&cluster, &data), 3, "no bootstrap answered");
}

#[test]
fn a_target_that_has_restarted_is_not_taken_for_the_one_before() {
    let (mut cluster, mut echo, data, _) = reached_before();
    cluster.bootstrap.kill();
    echo.kill();
    // With the bootstrap away another process can't even serve the name: nobody does.
    assert_fails(&pipe(&cluster, &data), 3, "the target has restarted, or its relays are gone");
}
