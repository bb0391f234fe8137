//! The checks of the fuzz targets on stable Rust: each of their seeds, and what becomes of it by a
//! few edits; and the reader of event streams beside another one.

use std::{fs, path::Path};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use proptest::{collection::vec, prelude::*, sample::Index};
use sse_stream::SseStream;

#[path = "../../fuzz/checks.rs"]
mod checks;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let files = fs::read_dir(folder).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap());
    let seeds: Vec<_> = files.collect();
    assert!(seeds.len() >= 5, "the seeds are there");
    seeds
}

#[derive(Debug, Clone)]
enum Edit {
    Put(Index, u8),
    Set(Index, u8),
    Drop(Index),
    End(Index),
    /// The rest of another seed, from a place in it on.
    Splice(Index, Index, Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    // Those that mean something, and the rest.
    let byte = || prop_oneof![3 => prop::sample::select(b"{}[]\",:\\ \r\n\0ui".to_vec()), 1 => any::<u8>()];
    let place = any::<Index>;
    prop_oneof![
        (place(), byte()).prop_map(|(at, byte)| Edit::Put(at, byte)),
        (place(), byte()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        place().prop_map(Edit::Drop),
        place().prop_map(Edit::End),
        (place(), place(), place()).prop_map(|(at, other, from)| Edit::Splice(at, other, from)),
    ]
}

fn edited(seeds: &[Vec<u8>], seed: Index, edits: &[Edit]) -> Vec<u8> {
    let mut bytes = seed.get(seeds).clone();
    for edit in edits {
        let place = |at: &Index| at.index(bytes.len() + 1);
        match edit {
            Edit::Put(at, byte) => bytes.insert(place(at), *byte),
            Edit::End(at) => bytes.truncate(place(at)),
            Edit::Splice(at, other, from) => {
                let other = other.get(seeds);
                bytes.truncate(place(at));
                bytes.extend(&other[from.index(other.len() + 1)..]);
            }
            _ if bytes.is_empty() => {}
            Edit::Set(at, byte) => *at.get_mut(&mut bytes) = *byte,
            Edit::Drop(at) => drop(bytes.remove(at.index(bytes.len()))),
        }
    }
    bytes
}

#[test]
fn every_seed_holds() {
    for body in seeds("scanner") {
        checks::scanner(&body);
    }
    for stream in seeds("events") {
        checks::events(&stream);
    }
    for text in seeds("token") {
        checks::token(&text);
    }
}

#[test]
fn every_seed_holds_however_it_is_edited() {
    let (bodies, streams, tokens) = (seeds("scanner"), seeds("events"), seeds("token"));
    // A regression is a seed of its own, and no file of proptest's.
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(seed in any::<Index>(), edits in vec(edit(), 1..6))| {
        checks::scanner(&edited(&bodies, seed, &edits));
        checks::events(&edited(&streams, seed, &edits));
        checks::token(&edited(&tokens, seed, &edits));
    });
}

/// Fields that both readers allow: each at most once, `data` as often as it likes.
fn block() -> impl Strategy<Value = Vec<String>> {
    let value = |name: &'static str, value: &'static str| {
        prop::option::of(value.prop_map(move |value| format!("{name}:{value}")))
    };
    let fields = (
        value("event", " ?[a-zü/]{0,8}"),
        value("id", " ?[a-z0-9-]{0,8}"),
        value("retry", " ?[0-9]{1,9}"),
        value("", "[a-z: ]{0,8}"),
        vec(" {0,2}[a-z{}\":ü€]{0,12}".prop_map(|value| format!("data:{value}")), 0..4),
    );
    let lines = fields.prop_map(|(event, id, retry, comment, mut lines)| {
        lines.extend([event, id, retry, comment].into_iter().flatten());
        lines
    });
    lines.prop_shuffle()
}

/// What another reader makes of the stream, without the blocks that say nothing.
fn by_another(parts: Vec<Bytes>) -> Vec<(String, String, Option<String>, Option<u64>)> {
    let parts = stream::iter(parts.into_iter().map(Ok::<_, std::io::Error>));
    let read = SseStream::from_bytes_stream(parts).map(Result::unwrap).collect::<Vec<_>>();
    let read = futures_util::FutureExt::now_or_never(read).unwrap();
    let says = read
        .into_iter()
        .filter(|sse| sse.data.is_some() || sse.id.is_some() || sse.retry.is_some());
    says.map(|sse| (sse.event.unwrap_or_default(), sse.data.unwrap_or_default(), sse.id, sse.retry))
        .collect()
}

proptest! {
    #[test]
    fn events_are_those_that_another_reader_finds(
        blocks in vec(block(), 0..6),
        mark in any::<bool>(),
        end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        size in 1usize..40,
    ) {
        let mut text = if mark { "\u{feff}".to_owned() } else { String::new() };
        for line in blocks.iter().flat_map(|block| block.iter().map(String::as_str).chain([""])) {
            text.push_str(line);
            text.push_str(end);
        }
        let parts: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        let ours = checks::read(parts.iter().copied()).into_iter();
        let ours: Vec<_> = ours.map(|event| (event.name, event.data, event.id, event.retry_milliseconds)).collect();
        prop_assert_eq!(ours, by_another(parts.into_iter().map(Bytes::copy_from_slice).collect()));
    }
}
