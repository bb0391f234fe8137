//! Settings from three places, and what happens to bad ones.

use std::net::TcpListener;

use crate::harness::command;

fn failed(arguments: &[&str]) -> (i32, String) {
    let output = command(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_bad_setting_ends_with_64_and_says_what_was_expected() {
    let folder = std::env::temp_dir().join(format!("ebbtide-settings-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("bad.yaml");
    std::fs::write(&file, "setle: 5s\n").unwrap();
    let file = file.to_str().unwrap();
    let key = folder.join("key");
    // 32 bytes, and 16.
    std::fs::write(&key, format!("{}AA=\n{}AA==\n", "A".repeat(41), "A".repeat(20))).unwrap();
    let key = key.to_str().unwrap();
    let upstream = ["run", "--upstream", "http://127.0.0.1:1"];
    for (more, parts) in [
        (&["--settle", "5x"][..], &["settle", "5x", "500ms"][..]),
        (&["--max-connections", "0"], &["max_connections", "0", "at least 1"]),
        (&["--listen", "nowhere"], &["listen", "nowhere", "0.0.0.0:7070"]),
        (&["--config", file], &["setle", "5s", "settle", file]),
        (&["--config", "/does/not/exist"], &["config", "/does/not/exist"]),
        (&["--no-such-flag", "1"], &["--no-such-flag"]),
        (&["--drain-token-file", "/not/there"], &["drain_token_file", "/not/there"]),
        (&["--session-key-file", "/not/there"], &["session_key_file", "/not/there", "read"]),
        (
            &["--session-key-file", key],
            &["session_key_file", key, "line 2", "but of 16", "openssl"],
        ),
        (&["--admin", "0.0.0.0:7070"], &["admin", "listen", "7070"]),
        (&["--"], &["COMMAND", "`--`"]),
    ] {
        let (code, text) = failed(&[&upstream[..], more].concat());
        assert_eq!(code, 64, "{text}");
        for part in parts {
            assert!(text.contains(part), "{text} lacks {part}");
        }
    }
    let (code, text) = failed(&["run"]);
    assert!(code == 64 && text.contains("--upstream"), "{text}");
    let variable = command(&upstream).env("EBBTIDE_QUIET", "soon").output().unwrap();
    assert_eq!(variable.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&variable.stderr).contains("EBBTIDE_QUIET"));
    // One that is none is told of, also where nothing is run.
    let print = [&upstream[..], &["--print-config"]].concat();
    let output = command(&print).env("EBBTIDE_SETLE", "9s").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("EBBTIDE_SETLE"));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_flag_wins_over_the_environment() {
    let output =
        command(&["run", "--upstream", "http://127.0.0.1:1", "--quiet", "1s", "--print-config"])
            .env("EBBTIDE_QUIET", "2s")
            .env("EBBTIDE_SETTLE", "3s")
            .output()
            .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("quiet: 1s") && text.contains("settle: 3s"), "{text}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let upstream = "http://127.0.0.1:1";
    for (flag, other) in [("--listen", "--admin"), ("--admin", "--listen")] {
        let arguments = ["run", "--upstream", upstream, flag, &address, other, "127.0.0.1:0"];
        let (code, text) = failed(&arguments);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(&taken.local_addr().unwrap().port().to_string()), "{text}");
        assert!(text.contains(flag), "{text}");
    }
}
