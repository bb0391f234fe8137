//! A peer that forwards TCP and changes some bytes of the answers: what a proxy does that breaks
//! something. Changes only what one read brings whole, which is enough for heads on loopback.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
};

/// Listens for the rest of the test; the port.
pub fn start(to: u16, from: &'static str, with: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
            let (Ok(to_server), Ok(to_client)) = (server.try_clone(), client.try_clone()) else {
                continue;
            };
            thread::spawn(move || forward(client, to_server, "", ""));
            thread::spawn(move || forward(server, to_client, from, with));
        }
    });
    port
}

fn forward(mut source: TcpStream, mut sink: TcpStream, from: &str, with: &str) {
    let mut buffer = [0; 8192];
    while let Ok(length @ 1..) = source.read(&mut buffer) {
        let bytes = &buffer[..length];
        let changed = (!from.is_empty()).then(|| replaced(bytes, from, with));
        if sink.write_all(changed.as_deref().unwrap_or(bytes)).is_err() {
            break;
        }
    }
    // Either side may be gone already.
    let _ = sink.shutdown(Shutdown::Write);
    let _ = source.shutdown(Shutdown::Read);
}

fn replaced(bytes: &[u8], from: &str, with: &str) -> Vec<u8> {
    let Some(at) = bytes.windows(from.len()).position(|window| window == from.as_bytes()) else {
        return bytes.to_vec();
    };
    [&bytes[..at], with.as_bytes(), &bytes[at + from.len()..]].concat()
}
