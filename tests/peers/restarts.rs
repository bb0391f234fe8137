//! Servers that are killed and started again under real clients, each with a session: whatever the
//! next server says to a session that it does not know, the client goes on.

use std::time::Duration;

use crate::{
    driven::{Driven, Kind},
    harness::{Client, Ebbtide, HANG, Server},
};

const CLIENTS: [Client; 5] =
    [Client::TypeScript1, Client::TypeScript2, Client::Python1, Client::Python2, Client::Rmcp];

/// What a call of each client comes to before its server is killed, after that, and once more.
fn outlived(server: Server, flags: &[&str]) -> Vec<(Client, [String; 3])> {
    let (mut running, port) = server.start();
    let ebbtide = Ebbtide::launch(0, port, flags, None);
    let mut clients: Vec<(Client, Driven)> = CLIENTS
        .map(|client| (client, Driven::connected(client, Kind::Legacy, ebbtide.data)))
        .into();
    let call_all = |clients: &mut Vec<(Client, Driven)>, within: Duration| -> Vec<String> {
        let given: Vec<_> = clients.iter_mut().map(|(_, client)| client.echo()).collect();
        let saw = clients.iter().zip(given).map(|((_, client), given)| client.saw(given, within));
        saw.map(|saw| saw.what).collect()
    };
    let before = call_all(&mut clients, HANG);
    // With SIGKILL.
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    let _running = server.start_on(port);
    let after = call_all(&mut clients, HANG);
    let later = call_all(&mut clients, HANG);
    let saw = before.into_iter().zip(after).zip(later);
    clients.iter().zip(saw).map(|((client, _), ((a, b), c))| (*client, [a, b, c])).collect()
}

fn every_client_goes_on(server: Server) {
    for (client, saw) in outlived(server, &[]) {
        assert_eq!(saw, ["the result"; 3], "{client:?}");
    }
}

#[test]
fn everything() {
    every_client_goes_on(Server::Everything);
}

#[test]
fn fastmcp() {
    every_client_goes_on(Server::FastMcp);
}

#[test]
fn python() {
    every_client_goes_on(Server::Python("http"));
}

#[test]
fn rmcp() {
    every_client_goes_on(Server::Rmcp);
}

/// As it was: the SDKs of TypeScript and Python never recover.
#[test]
fn without_it_they_do_not() {
    let saw = outlived(Server::Python("http"), &["--sessions", "off"]);
    for client in [Client::TypeScript1, Client::TypeScript2, Client::Python1, Client::Python2] {
        let (_, [before, after, later]) = saw.iter().find(|(known, _)| *known == client).unwrap();
        assert_eq!(before, "the result", "{client:?}");
        assert!(after != "the result" && later != "the result", "{client:?}: {after}, {later}");
    }
}
