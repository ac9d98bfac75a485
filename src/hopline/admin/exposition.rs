//! A process's metrics in the text format that Prometheus reads.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use hopline_proto::Time;
use hopline_proto::admission::Counters;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};
use std::sync::atomic::AtomicU64;
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

/// As [OpenMetrics](https://prometheus.io/docs/specs/om/open_metrics_spec/) wants it said.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One answer in the making: it is put together anew for each reader.
pub(super) struct Exposition(Registry);

impl Exposition {
    /// With what every process of this `role` tells of itself.
    pub(super) fn new(role: &'static str) -> Self {
        let mut exposition = Self(Registry::default());
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION")), ("role", role)]);
        exposition.metric("hopline_build", "Which Hopline this is", build);
        exposition.process();
        exposition
    }

    fn process(&mut self) {
        let Ok(id) = sysinfo::get_current_pid() else { return };
        let mut system = System::new();
        let what = ProcessRefreshKind::nothing().with_memory().with_cpu().without_tasks();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[id]), false, what);
        let Some(process) = system.process(id) else { return };
        self.gauge("process_resident_memory_bytes", "Memory in use", process.memory() as f64);
        let cpu = Counter::<f64, AtomicU64>::default();
        cpu.inc_by(process.accumulated_cpu_time() as f64 / 1e3);
        self.metric("process_cpu_seconds", "Processor time used", cpu);
    }

    /// What goes up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        self.metric(name, help, gauge);
    }

    /// What only grows. The text adds `_total` to the name.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        self.metric(name, help, counter);
    }

    /// The same thing several times, told apart by `label`.
    pub(super) fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'static str, f64)>,
    ) {
        let family = Family::<[(&'static str, &'static str); 1], Gauge<f64, AtomicU64>>::default();
        for (value_of_label, value) in values {
            family.get_or_create(&[(label, value_of_label)]).set(value);
        }
        self.metric(name, help, family);
    }

    /// As [`Exposition::gauges`], for what only grows.
    pub(super) fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'static str, u64)>,
    ) {
        let family = Family::<[(&'static str, &'static str); 1], Counter>::default();
        for (value_of_label, value) in values {
            family.get_or_create(&[(label, value_of_label)]).inc_by(value);
        }
        self.metric(name, help, family);
    }

    /// What became of those who wanted to shake hands with it.
    pub(super) fn admission(&mut self, role: &str, counters: &Counters) {
        let verdicts = [
            ("unproven", counters.unproven),
            ("proven", counters.proven),
            ("known", counters.known),
            ("to_prove", counters.to_prove),
            ("crowded", counters.crowded),
            ("over_allowance", counters.over_allowance),
        ];
        let help = "Connection attempts: let in (unproven, proven, known), told to prove their address, or not answered";
        self.counters(&format!("hopline_{role}_attempts"), help, "verdict", verdicts);
        let endings = [
            ("displaced", counters.displaced),
            ("timed_out", counters.timed_out),
            ("failed", counters.failed),
        ];
        let help =
            "Those let in that did not get far: others waited, they took too long, or their handshake failed";
        self.counters(&format!("hopline_{role}_attempts_lost"), help, "cause", endings);
    }

    /// What counts by itself.
    pub(super) fn metric(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.0.register(name, help, metric);
    }
}

impl IntoResponse for Exposition {
    fn into_response(self) -> Response {
        let mut text = String::new();
        // A string takes everything.
        let _ = encode(&mut text, &self.0);
        ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response()
    }
}

/// A point in time as JSON says it: in seconds since the Unix epoch.
pub(super) fn seconds(time: Time) -> f64 {
    time.as_micros() as f64 / 1e6
}
