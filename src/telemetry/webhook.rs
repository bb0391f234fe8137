//! What the admission webhook counts, in a registry of its own: none of the sidecar's metrics means
//! anything there.

use prometheus::{Encoder, IntCounter, IntGauge, Registry, TextEncoder};

use super::keep::{Described, Keep};

/// What became of a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The pod gets its sidecar.
    Injected,
    /// The pod gets its sidecar, and has a preStop hook that does not wait for the drain.
    Unprotected,
    /// The pod is not meant, or has its sidecar already.
    Left,
    /// The pod was let through without the sidecar that it should have got.
    Failed,
    /// It was no review that could be answered.
    Refused,
}

impl Verdict {
    pub const ALL: [Verdict; 5] =
        [Verdict::Injected, Verdict::Unprotected, Verdict::Left, Verdict::Failed, Verdict::Refused];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Injected => "injected",
            Verdict::Unprotected => "unprotected",
            Verdict::Left => "left",
            Verdict::Failed => "failed",
            Verdict::Refused => "refused",
        }
    }
}

#[derive(Debug)]
pub struct Reviews {
    registry: Registry,
    counts: [IntCounter; 5],
    pub certificate: Certificate,
}

/// What is told of the webhook's certificate.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// 0 when what the files hold cannot be served.
    pub fits: IntGauge,
    /// Of the one that is served; 0 until there is one.
    pub not_before: IntGauge,
    pub not_after: IntGauge,
}

impl Reviews {
    #[must_use]
    pub fn new() -> Self {
        Self::described().0
    }

    /// The metrics, and what docs/metrics.md tells of them.
    #[must_use]
    pub fn described() -> (Self, Vec<Described>) {
        let registry = Registry::new();
        let keep = Keep::new(&registry);
        keep.build_info();
        let reviews = keep.counters(
            "webhook_reviews_total",
            "Admission reviews by result: injected, unprotected (its own preStop hook does not wait for the drain), left, failed or refused.",
            &["result"],
        );
        let certificate = Certificate {
            fits: keep.gauge(
                "webhook_certificate_fits",
                "1 while the certificate of the files is the one that is served, else 0.",
            ),
            not_before: keep.gauge(
                "webhook_certificate_not_before_timestamp_seconds",
                "From when the certificate that is served is valid; 0 until there is one.",
            ),
            not_after: keep.gauge(
                "webhook_certificate_not_after_timestamp_seconds",
                "Until when the certificate that is served is valid; 0 until there is one.",
            ),
        };
        let described = keep.described();
        let metrics = Self {
            counts: Verdict::ALL.map(|verdict| reviews.with_label_values(&[verdict.name()])),
            certificate,
            registry,
        };
        (metrics, described)
    }

    pub fn count(&self, verdict: Verdict) {
        self.counts[verdict as usize].inc();
    }

    /// The text that `GET /metrics` answers.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // Writing to memory fails only for a family without metrics, which is then left out.
        drop(TextEncoder::new().encode(&self.registry.gather(), &mut text));
        text
    }
}

impl Default for Reviews {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_is_there_from_the_start() {
        let reviews = Reviews::new();
        reviews.count(Verdict::Failed);
        let text = String::from_utf8(reviews.text()).unwrap();
        for verdict in Verdict::ALL {
            let count = u8::from(verdict == Verdict::Failed);
            let name = verdict.name();
            let line = format!("ebbtide_webhook_reviews_total{{result=\"{name}\"}} {count}\n");
            assert!(text.contains(&line), "{text} lacks {line}");
        }
    }
}
