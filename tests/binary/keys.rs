//! The keys of sessions, from a file that changes while ebbtide runs.

use std::fs;

use crate::harness::{Ebbtide, post, server};

/// 32 times 1.
const KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n";
const CHANGED: &str = "the session keys have changed and hold from now on";
const KEPT: &str = "the session keys have changed and cannot be used, so that the old ones go on; \
                    look at the Secret that is mounted there";

#[test]
fn session_keys_follow_their_file() {
    let upstream = server(|stream, _| {
        let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMcp-Session-Id: abc\r\n\
                      Content-Length: 2\r\n\r\n{}";
        std::io::Write::write_all(stream, answer.as_bytes()).unwrap();
    });
    let path = std::env::temp_dir().join(format!("ebbtide-session-keys-{}", std::process::id()));
    let next = path.with_extension("next");
    // All at once, as the volume of a Secret changes.
    let hold = |text: &str| {
        fs::write(&next, text).unwrap();
        fs::rename(&next, &path).unwrap();
    };
    hold(KEY);
    let mut ebbtide = Ebbtide::start(upstream, &["--session-key-file", path.to_str().unwrap()]);
    let is_sealed = |ebbtide: &Ebbtide| {
        let initialize = r#"{"jsonrpc":"2.0","method":"initialize","params":{},"id":0}"#;
        let answer = ebbtide.ask(&post(initialize, ""));
        let prefix = answer.split("mcp-session-id: ").nth(1).map(|id| &id[..3]);
        assert!(matches!(prefix, Some("e1." | "e2.")), "{answer}");
        prefix == Some("e2.")
    };
    assert!(is_sealed(&ebbtide));
    hold("none of ours");
    let told = ebbtide.logged(KEPT);
    assert!(told["problem"].as_str().unwrap().contains("line 1"), "{told}");
    assert!(!told.to_string().contains("none of ours"), "{told}");
    assert!(is_sealed(&ebbtide));
    hold(&format!("unsealed\n{KEY}"));
    ebbtide.logged(CHANGED);
    assert!(!is_sealed(&ebbtide));
    fs::remove_file(path).unwrap();
}
