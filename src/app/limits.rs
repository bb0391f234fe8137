//! What the settings mean to each part.
//!
//! Never reads a setting that `config` has not made a valid value of.

use std::time::Duration;

use crate::{
    config::Settings,
    drain::{driver::Rules, timeline::Timings},
    pool, serve,
};

/// Probes, hooks, scrapes and people; anybody in the cluster may connect.
const ADMIN_CONNECTIONS: usize = 1024;
const ADMIN_CONNECTIONS_PER_ADDRESS: usize = 32;

/// What `settle` is where it was not set and there are endpoints to leave.
const SETTLE_IN_KUBERNETES: Duration = Duration::from_secs(2);

pub fn rules(settings: &Settings, in_kubernetes: bool) -> Rules {
    let settle = if in_kubernetes { SETTLE_IN_KUBERNETES } else { Duration::ZERO };
    Rules {
        timings: Timings {
            withdraw_timeout: settings.withdraw_timeout,
            settle: settings.settle.unwrap_or(settle),
            quiet: settings.quiet,
            drain_timeout: settings.drain_timeout,
            stop_reserve: settings.stop_reserve,
            grace: settings.grace,
        },
        has_endpoints: in_kubernetes,
        response_timeout: settings.response_timeout,
    }
}

pub fn pool_limits(settings: &Settings) -> pool::Limits {
    pool::Limits {
        max_connections: settings.max_connections,
        max_streams: settings.max_streams,
        acquire_timeout: settings.acquire_timeout,
        idle_timeout: settings.idle_timeout,
        tries_again: true,
    }
}

pub fn port_limits(settings: &Settings) -> serve::Limits {
    serve::Limits {
        max_inbound: settings.max_inbound,
        max_header_bytes: settings.max_header_bytes,
        max_headers: settings.max_headers,
        header_timeout: settings.header_timeout,
        max_per_address: settings.max_inbound,
        keep_alive: true,
    }
}

/// Any pod of the cluster can reach the admin port, and none of them may keep the kubelet out.
pub fn admin_limits(settings: &Settings) -> serve::Limits {
    serve::Limits {
        max_inbound: ADMIN_CONNECTIONS,
        max_per_address: ADMIN_CONNECTIONS_PER_ADDRESS,
        keep_alive: false,
        ..port_limits(settings)
    }
}
