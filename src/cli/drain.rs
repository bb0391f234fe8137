//! `ebbtide drain`: begins the drain of the sidecar in this pod; with `--wait`, the preStop hook
//! of images without a shell.

use clap::ArgMatches;
use http::Method;

use super::{Outcome, block_on, client, say};

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
                say(std::io::stdout(), &"drained\n");
                Outcome::Done
            }
            Ok(_) => {
                say(std::io::stdout(), &"drain begun; `ebbtide status` shows how far it is\n");
                Outcome::Done
            }
            Err(text) => Outcome::Failed(text),
        }
    })
}
