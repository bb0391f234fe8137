//! What the sidecar asks of its node, and what it may take of it at most. Pure.
//!
//! Never lets through what the API server would refuse: the pod would not start for its sidecar.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// What a pod gets that says nothing else.
pub const REQUESTS: &str = "cpu=10m,memory=16Mi";
pub const LIMITS: &str = "memory=128Mi";
/// What a container without devices can have.
const NAMES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// How many of the smallest unit a suffix means: a thousandth of a thousandth.
const UNITS: [(&str, u128); 10] = [
    ("", 1_000_000),
    ("m", 1_000),
    ("k", 1_000_000_000),
    ("M", 1_000_000_000_000),
    ("G", 1_000_000_000_000_000),
    ("T", 1_000_000_000_000_000_000),
    ("Ki", 1_000_000 << 10),
    ("Mi", 1_000_000 << 20),
    ("Gi", 1_000_000 << 30),
    ("Ti", 1_000_000 << 40),
];

/// Quantities by the name of what they are of.
pub type Quantities = BTreeMap<String, String>;

/// Both halves of a container's `resources`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    requests: Quantities,
    limits: Quantities,
}

/// As `kubectl set resources` takes them: `cpu=100m,memory=128Mi`. An error says what was expected.
pub fn quantities(text: &str) -> Result<Quantities, String> {
    let expected = || {
        format!(
            "expected quantities of {} as in `cpu=100m,memory=128Mi`, each of them once",
            NAMES.join(", ")
        )
    };
    let mut found = Quantities::new();
    for entry in text.split(',') {
        let (name, quantity) = entry.split_once('=').ok_or_else(expected)?;
        let fits = NAMES.contains(&name) && units(quantity).is_some();
        if !fits || found.insert(name.to_owned(), quantity.to_owned()).is_some() {
            return Err(expected());
        }
    }
    Ok(found)
}

impl Resources {
    /// An error names what does not go together.
    pub fn new(requests: Quantities, limits: Quantities) -> Result<Self, String> {
        for (name, limit) in &limits {
            if let Some(request) = requests.get(name)
                && units(limit) < units(request)
            {
                return Err(format!(
                    "the limit of {name}, {limit}, is below what is requested of it, {request}"
                ));
            }
        }
        Ok(Self { requests, limits })
    }

    /// With what a pod says instead of some of it.
    pub fn with(&self, requests: Quantities, limits: Quantities) -> Result<Self, String> {
        let over = |base: &Quantities, own| base.clone().into_iter().chain(own).collect();
        Self::new(over(&self.requests, requests), over(&self.limits, limits))
    }

    /// The container's field.
    pub fn value(&self) -> Value {
        let halves = [("requests", &self.requests), ("limits", &self.limits)];
        let mut value = Map::new();
        for (name, half) in halves.into_iter().filter(|(_, half)| !half.is_empty()) {
            let half = half.iter().map(|(name, quantity)| (name.clone(), quantity.clone().into()));
            value.insert(name.to_owned(), Value::Object(half.collect()));
        }
        value.into()
    }
}

impl Default for Resources {
    fn default() -> Self {
        let of = |text| quantities(text).unwrap_or_default();
        Self { requests: of(REQUESTS), limits: of(LIMITS) }
    }
}

/// A quantity in the smallest unit; `None` where it is none, or has more digits than anybody needs.
fn units(quantity: &str) -> Option<u128> {
    let end = quantity.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(end);
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == suffix)?;
    let (whole, part) = number.split_once('.').map_or((number, None), |(a, b)| (a, Some(b)));
    let is_number = |digits: &str, most: usize| {
        (1..=most).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit())
    };
    if !is_number(whole, 9) || !part.is_none_or(|part| is_number(part, 3)) {
        return None;
    }
    let thousandths: u128 = format!("{whole}{:0<3}", part.unwrap_or_default()).parse().ok()?;
    Some(thousandths * unit / 1000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_default_is_what_it_says() {
        let value =
            json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "128Mi"}});
        assert_eq!(Resources::default().value(), value);
        let none = Resources::new(Quantities::new(), Quantities::new()).unwrap();
        assert_eq!(none.value(), json!({}));
    }

    #[test]
    fn what_is_a_list_of_quantities() {
        for (text, fits) in [
            ("cpu=1", true),
            ("cpu=0.25,memory=1.5Gi,ephemeral-storage=10M", true),
            ("memory=128974848", true),
            ("cpu=100m,cpu=200m", false),
            ("", false),
            ("cpu", false),
            ("cpu=", false),
            ("cpu=,memory=1Mi", false),
            ("cpu=100m,", false),
            ("cpu=100m, memory=1Mi", false),
            ("cpus=1", false),
            ("nvidia.com/gpu=1", false),
            ("cpu=-1", false),
            ("cpu=.5", false),
            ("cpu=1.", false),
            ("cpu=lots", false),
            ("memory=128MB", false),
            ("memory=128mi", false),
            ("memory=1e6", false),
            ("memory=1234567890", false),
        ] {
            let found = quantities(text);
            assert_eq!(found.is_ok(), fits, "{text}: {found:?}");
            if let Err(error) = found {
                assert!(error.contains("cpu=100m,memory=128Mi"), "{error}");
            }
        }
    }

    #[test]
    fn a_limit_is_not_below_the_request() {
        for (requests, limits, fits) in [
            ("cpu=10m", "cpu=0.01", true),
            ("cpu=10m", "cpu=9m", false),
            ("cpu=1", "cpu=999m", false),
            ("memory=16Mi", "memory=16384Ki", true),
            ("memory=1G", "memory=1000M", true),
            ("memory=1Gi", "memory=1G", false),
            ("memory=16Mi", "memory=128m", false),
            ("memory=16Mi", "cpu=1m", true),
        ] {
            let made = Resources::new(quantities(requests).unwrap(), quantities(limits).unwrap());
            assert_eq!(made.is_ok(), fits, "{requests} {limits}: {made:?}");
        }
        let base = Resources::default();
        let with = base.with(Quantities::new(), quantities("cpu=100m,memory=1Gi").unwrap());
        let limits = &with.unwrap().value()["limits"];
        assert_eq!(*limits, json!({"cpu": "100m", "memory": "1Gi"}));
        let error = base.with(Quantities::new(), quantities("cpu=5m").unwrap()).unwrap_err();
        assert!(error.contains("cpu, 5m") && error.contains("10m"), "{error}");
    }
}
