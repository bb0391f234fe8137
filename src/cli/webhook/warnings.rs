//! Texts → the warnings that kubectl shows, within the API server's bounds. Pure.

/// What the API server promises to pass on of one warning, and of all of a request.
const LONGEST: usize = 256;
const ALL: usize = 4096;
const NAME: &str = "ebbtide: ";
const MOST: usize = LONGEST - NAME.len();
const MORE: &str = "… (the rest is in the log of the webhook)";

/// A text that is too long for one warning goes on in the next, since what to do stands at its end;
/// each of them is read alone, and so is of whole sentences.
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

/// Parts that are short enough: as many sentences as fit.
fn pieces(text: &str) -> Vec<String> {
    let between = |letter: char| letter.is_whitespace() || letter.is_control();
    let words: Vec<&str> = text.split(between).filter(|word| !word.is_empty()).collect();
    let ends = |word: &&str| word.ends_with(['.', ';']);
    let sentences = words.split_inclusive(ends).map(|sentence| sentence.join(" "));
    let mut pieces = gathered(sentences.flat_map(|sentence| cut(&sentence)));
    let all = pieces.len();
    for piece in pieces.iter_mut().take(all.saturating_sub(1)) {
        if let Some(sentence) = piece.strip_suffix(';') {
            *piece = format!("{sentence}.");
        }
    }
    pieces
}

/// A sentence that is too long alone is cut between words, where there are any.
fn cut(sentence: &str) -> Vec<String> {
    if count(sentence) <= MOST {
        return vec![sentence.to_owned()];
    }
    let letters = |word: &str| word.chars().collect::<Vec<_>>();
    let parts = |word: &str| -> Vec<String> {
        letters(word).chunks(MOST).map(|part| part.iter().collect()).collect()
    };
    gathered(sentence.split(' ').flat_map(parts))
}

/// What fits into one goes into one.
fn gathered(parts: impl Iterator<Item = String>) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for part in parts {
        match pieces.last_mut() {
            Some(piece) if count(piece) + 1 + count(&part) <= MOST => {
                piece.push(' ');
                piece.push_str(&part);
            }
            _ => pieces.push(part),
        }
    }
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
        let sentences =
            of(&[format!("{}; do this. {}. Or that", "x".repeat(200), "y".repeat(150))]);
        let (x, y) = ("x".repeat(200), "y".repeat(150));
        assert_eq!(sentences[0], format!("ebbtide: {x}; do this."));
        assert_eq!(sentences[1], format!("ebbtide: {y}. Or that"));
        // What goes on elsewhere is a sentence.
        let halves = of(&[format!("{x}; {y}")]);
        assert_eq!(halves, [format!("ebbtide: {x}."), format!("ebbtide: {y}")]);
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
