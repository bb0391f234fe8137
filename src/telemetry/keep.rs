//! How metrics are made: with their prefix, in a registry, and in the reference.
//!
//! Never counts anything.

use std::cell::RefCell;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

pub(super) fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("ebbtide_{name}"), help)
}

/// A metric as the reference shows it.
#[derive(Debug)]
pub struct Described {
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    pub labels: Vec<String>,
    pub help: String,
}

/// Makes metrics and keeps them in a registry.
pub(super) struct Keep<'a> {
    registry: &'a Registry,
    described: RefCell<Vec<Described>>,
}

impl<'a> Keep<'a> {
    pub(super) fn new(registry: &'a Registry) -> Self {
        Self { registry, described: RefCell::default() }
    }

    /// All that was made so far.
    pub(super) fn described(&self) -> Vec<Described> {
        self.described.take()
    }

    pub(super) fn put<M: prometheus::core::Collector + Clone + 'static>(
        &self,
        metric: prometheus::Result<M>,
    ) -> M {
        let metric = metric.expect("a metric's name and labels are well-formed");
        let registered = self.registry.register(Box::new(metric.clone()));
        registered.expect("each metric has a name of its own");
        for (family, desc) in metric.collect().iter().zip(metric.desc()) {
            self.described.borrow_mut().push(Described {
                name: desc.fq_name.clone(),
                kind: format!("{:?}", family.get_field_type()).to_lowercase(),
                labels: desc.variable_labels.clone(),
                help: desc.help.clone(),
            });
        }
        metric
    }

    pub(super) fn build_info(&self) {
        self.gauges("build_info", "Always 1; the label tells the version.", &["version"])
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.put(IntGauge::with_opts(opts(name, help)))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.put(IntGaugeVec::new(opts(name, help), labels))
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.put(IntCounterVec::new(opts(name, help), labels))
    }

    pub(super) fn histogram(&self, name: &str, help: &str) -> Histogram {
        let options = HistogramOpts::from(opts(name, help)).buckets(BUCKETS.to_vec());
        self.put(Histogram::with_opts(options))
    }

    pub(super) fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let options = HistogramOpts::from(opts(name, help)).buckets(BUCKETS.to_vec());
        self.put(HistogramVec::new(options, labels))
    }
}

/// Seconds: tools take from a millisecond to minutes.
const BUCKETS: &[f64] =
    &[0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
