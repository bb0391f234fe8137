//! Texts → the warnings that kubectl shows, within the API server's bounds. Pure.

/// What the API server promises to pass on of one warning, and of all of a request.
const LONGEST: usize = 256;
const ALL: usize = 4096;
const NAME: &str = "ebbtide: ";
const MORE: &str = "… (the rest is in the log of the webhook)";

/// A text that is too long for one warning goes on in the next, since what to do stands at its end.
pub fn of(texts: &[String]) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut left = ALL - count(MORE);
    for piece in texts.iter().flat_map(|text| pieces(text)) {
        let warning = format!("{NAME}{piece}");
        if count(&warning) > left {
            warnings.push(MORE.into());
            break;
        }
        left -= count(&warning);
        warnings.push(warning);
    }
    warnings
}

/// Parts that are short enough, cut between words where there are any.
fn pieces(text: &str) -> Vec<String> {
    let most = LONGEST - count(NAME);
    let mut pieces = Vec::new();
    let mut piece = String::new();
    let between = |letter: char| letter.is_whitespace() || letter.is_control();
    for word in text.split(between).filter(|word| !word.is_empty()) {
        if count(&piece) + 1 + count(word) > most && !piece.is_empty() {
            pieces.push(std::mem::take(&mut piece));
        }
        if !piece.is_empty() {
            piece.push(' ');
        }
        piece.push_str(word);
        while count(&piece) > most {
            let end = piece.char_indices().nth(most).map_or(piece.len(), |(at, _)| at);
            let rest = piece.split_off(end);
            pieces.push(std::mem::replace(&mut piece, rest));
        }
    }
    pieces.extend(Some(piece).filter(|piece| !piece.is_empty()));
    pieces
}

fn count(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_to_do_is_not_cut_off() {
        let long = format!("{}and then do this", "word ".repeat(60));
        let warnings = of(&["short".into(), "two\nlines\u{7}".into(), long]);
        assert_eq!(warnings[0], "ebbtide: short");
        assert_eq!(warnings[1], "ebbtide: two lines");
        assert_eq!(warnings.len(), 4);
        assert!(warnings[3].ends_with("and then do this"), "{warnings:?}");
        let endless = of(&["x".repeat(100_000)]);
        assert_eq!(endless.last().unwrap(), MORE);
    }

    proptest! {
        #[test]
        fn they_stay_within_the_bounds(texts in proptest::collection::vec("(\\PC|[ \n]){0,700}", 0..12)) {
            let warnings = of(&texts);
            prop_assert!(warnings.iter().map(|it| count(it)).sum::<usize>() <= 4096);
            for warning in &warnings {
                prop_assert!(count(warning) <= 256, "{warning}");
                prop_assert!(!warning.contains(char::is_control), "{warning:?}");
            }
        }
    }
}
