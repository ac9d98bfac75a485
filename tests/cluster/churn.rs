//! `hopline bench churn`: real relays come and go, and what it reports adds up.

use crate::fixture::run;
use serde_json::Value;

#[test]
fn nothing_is_lost_while_relays_come_and_go() {
    let home = tempfile::tempdir().unwrap();
    let plot = home.path().join("churn.svg");
    let args = "bench churn --relays 7 --hops 2 --flows 2 --bulk 1 --rate 128KiB --messages 50 --pairs 1 --seconds 4 \
                --sessions weibull:0.6:84s --speedup 42 --graceful 0.3 --seed 7 --json --plot";
    let mut args: Vec<&str> = args.split_whitespace().collect();
    args.push(plot.to_str().unwrap());
    let ended = run(home.path(), "", &args, b"");
    assert!(ended.status.success(), "{:?}\n{}", ended.stdout, ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout[0]).unwrap();
    let count = |path: &str| report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path}"));
    for fault in ["/lost", "/duplicated", "/reordered", "/lost_flows"] {
        assert_eq!(count(fault), 0, "{fault}");
    }
    for phase in ["baseline", "churn"] {
        let of = |name: &str| count(&format!("/{phase}/{name}"));
        assert_eq!(of("bytes_sent"), of("bytes_received"));
        // Two paced flows, both ways, for four seconds.
        assert!(of("bytes_sent") > 2 * 2 * 4 * (128 << 10) * 9 / 10);
        assert_eq!(of("messages_sent"), of("messages_delivered"));
        assert!(of("messages_sent") >= 190);
        assert!(report.pointer(&format!("/{phase}/message_latency_ms/p50")).unwrap().as_f64() > Some(0.0));
    }
    let departures = count("/killed") + count("/left");
    assert!(departures >= 3, "the schedule of this seed has departures: {departures}");
    assert_eq!(count("/joined"), departures, "each that went is replaced");
    assert!(std::fs::read_to_string(plot).unwrap().contains("</svg>"));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let trace = home.path().join("trace.csv");
    std::fs::write(&trace, "join,leave\n0,10\n0,x\n").unwrap();
    let trace = format!("trace:{}", trace.display());
    for (arguments, saying) in [
        (["--relays", "3"], "at least 4 are needed"),
        (["--sessions", "weibull:0.6"], "weibull:SHAPE:MEDIAN"),
        (["--sessions", &trace], "trace.csv, line 3: the time of leaving is not a number of seconds"),
        (["--speedup", "1e4"], "use a smaller --speedup"),
    ] {
        let ended = run(home.path(), "", &[&["bench", "churn"], &arguments[..]].concat(), b"");
        assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(saying), "{saying:?} is not in {}", ended.stderr);
    }
}
