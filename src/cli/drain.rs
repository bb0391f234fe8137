//! `ebbtide drain`: begins the drain of the sidecar in this pod; with `--wait`, the preStop hook
//! of images without a shell.

use clap::ArgMatches;
use http::Method;

use super::{Outcome, block_on, client};

pub fn main(matches: &ArgMatches) -> Outcome {
    let address = match client::address(matches) {
        Ok(address) => address,
        Err(text) => return Outcome::Usage(text),
    };
    let wait = matches.get_flag("wait");
    let path = if wait { "/drain?wait" } else { "/drain" };
    block_on(async {
        match client::ask(address, Method::POST, path).await {
            Ok(_) if wait => {
                println!("drained");
                Outcome::Done
            }
            Ok(_) => {
                println!("drain begun; `ebbtide status` shows how far it is");
                Outcome::Done
            }
            Err(text) => Outcome::Failed(text),
        }
    })
}
