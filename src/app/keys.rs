//! The keys of `session_key_file`: read at the start, and again when the file changes.
//!
//! Never gives up keys that work for a file that does not, and never logs a word of it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::sleep;
use tracing::{info, warn};

use crate::{
    config::Settings,
    sessions::{Sessions, keys::Keys},
};

/// How often the file is looked at: a mounted Secret follows within a minute or so anyway.
const EVERY: Duration = Duration::from_secs(2);

/// The table of sessions, and the file of its keys where there is one.
///
/// # Errors
/// What is wrong with the file, for the operator.
pub fn sessions(settings: &Settings, pod: &str) -> Result<(Sessions, Option<KeyFile>), String> {
    let sessions = Sessions::new(settings.sessions, pod);
    let Some(path) = settings.session_key_file.clone() else { return Ok((sessions, None)) };
    let file = KeyFile::open(path, sessions.clone())
        .map_err(|problem| format!("the keys of session_key_file cannot be used: {problem}"))?;
    Ok((sessions, Some(file)))
}

/// The file, and what it last held.
pub struct KeyFile {
    path: PathBuf,
    held: Result<String, String>,
    sessions: Sessions,
}

impl KeyFile {
    /// Gives the sessions their keys.
    fn open(path: PathBuf, sessions: Sessions) -> Result<Self, String> {
        let text = text(&path)?;
        sessions.set_keys(Keys::parse(&text)?);
        Ok(Self { path, held: Ok(text), sessions })
    }

    /// Looks again and again, for ever.
    pub async fn follow(mut self) {
        loop {
            sleep(EVERY).await;
            match self.look() {
                None => {}
                Some(Ok(())) => info!(
                    path = %self.path.display(),
                    "the session keys have changed and hold from now on"
                ),
                Some(Err(problem)) => warn!(
                    path = %self.path.display(),
                    problem,
                    "the session keys have changed and cannot be used, so that the old ones go on; \
                     look at the Secret that is mounted there"
                ),
            }
        }
    }

    /// What came of a file that is not as it was.
    fn look(&mut self) -> Option<Result<(), String>> {
        let read = text(&self.path);
        if self.held == read {
            return None;
        }
        self.held.clone_from(&read);
        let keys = read.and_then(|text| Keys::parse(&text));
        Some(keys.map(|keys| self.sessions.set_keys(keys)))
    }
}

/// Whether the file can be used.
///
/// # Errors
/// What is wrong with it, for the operator.
pub fn check(path: &Path) -> Result<(), String> {
    Keys::parse(&text(path)?).map(drop)
}

fn text(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("it cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Roaming;

    const ONE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n";
    const OTHER: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\n";

    /// The token of a session that is opened now.
    fn opened(sessions: &Sessions) -> String {
        let id = http::HeaderName::from_static("mcp-session-id");
        let mut answer = http::HeaderMap::from_iter([(id.clone(), "abc".parse().unwrap())]);
        drop(sessions.opened(&mut answer, None, None));
        answer[id].to_str().unwrap().to_owned()
    }

    #[test]
    fn keys_change_with_their_file_and_stay_where_it_cannot_be_used() {
        let path = std::env::temp_dir().join(format!("ebbtide-keys-{}", std::process::id()));
        let sessions = Sessions::new(Roaming::Reopen, "u-1");
        let in_clear = opened(&sessions);
        drop(fs::remove_file(&path));
        assert!(
            KeyFile::open(path.clone(), sessions.clone()).is_err_and(|text| text.contains("read"))
        );
        fs::write(&path, "").unwrap();
        assert!(
            KeyFile::open(path.clone(), sessions.clone()).is_err_and(|text| text.contains("empty"))
        );
        assert_eq!(opened(&sessions), in_clear);
        fs::write(&path, ONE).unwrap();
        let mut file = KeyFile::open(path.clone(), sessions.clone()).ok().unwrap();
        let sealed = opened(&sessions);
        assert!(sealed.starts_with("e2.") && sessions.token(&in_clear).is_none());
        for bad in ["", "AQEB", &ONE.repeat(3)] {
            fs::write(&path, bad).unwrap();
            assert!(file.look().is_some_and(|news| news.is_err()));
            // It is told once.
            assert_eq!(file.look(), None);
            assert_eq!(opened(&sessions), sealed);
        }
        fs::remove_file(&path).unwrap();
        assert!(file.look().is_some_and(|news| news.is_err()));
        assert_eq!(opened(&sessions), sealed);
        fs::write(&path, format!("{OTHER}{ONE}")).unwrap();
        assert_eq!(file.look(), Some(Ok(())));
        let newer = opened(&sessions);
        assert!(newer != sealed && sessions.token(&sealed) == sessions.token(&newer));
        fs::write(&path, OTHER).unwrap();
        assert_eq!(file.look(), Some(Ok(())));
        assert!(sessions.token(&sealed).is_none() && sessions.token(&newer).is_some());
        fs::remove_file(path).unwrap();
    }
}
