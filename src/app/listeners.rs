//! Which sockets listen at a port, as the kernel tells of this network namespace, which is the
//! pod's: a process that is started anew listens with another one, however quick it was.
//!
//! Never asks the server anything.

use std::fs;

/// The numbers of the sockets (their inodes); none where nobody listens, or the kernel does not tell.
#[must_use]
pub fn listeners(port: u16) -> Vec<u64> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).ok());
    tables.iter().flatten().flat_map(|table| of_table(table, port)).collect()
}

/// Of a table as proc(5) describes it: the local address in the second column, the state in the
/// fourth, the inode in the tenth.
fn of_table(table: &str, port: u16) -> impl Iterator<Item = u64> {
    table.lines().skip(1).filter_map(move |line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let (_, local) = columns.next()?.rsplit_once(':')?;
        let listens = columns.nth(1)? == "0A" && u16::from_str_radix(local, 16) == Ok(port);
        listens.then(|| columns.nth(5)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn another_listener_is_another_socket() {
        let bound = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = bound.local_addr().unwrap();
        let first = listeners(address.port());
        assert_eq!(first.len(), 1);
        drop(bound);
        assert!(listeners(address.port()).is_empty());
        let _bound = TcpListener::bind(address).unwrap();
        let second = listeners(address.port());
        assert_eq!(second.len(), 1);
        assert_ne!(first, second);
    }

    #[test]
    fn only_those_count_that_listen_at_the_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n   \
             1: 0100007F:0BB9 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n   \
             2: 0100007F:0BB8 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n";
        assert_eq!(of_table(table, 3000).collect::<Vec<_>>(), [4711]);
    }
}
