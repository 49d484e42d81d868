//! The configuration file: any bytes are a configuration or one sentence, and a configuration that is shown and read
//! again is the same.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use golden_sidecar::config::{self, Config, Invocation};

/// A file that vanishes with its input.
struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        // What is left is in a folder for temporary files.
        let _ = fs::remove_file(&self.0);
    }
}

fn loaded(path: &Path, content: &[u8]) -> Result<(Config, String), String> {
    fs::write(path, content).expect("the folder for temporary files takes one");
    let arguments = ["golden-sidecar", "check", "--config"].map(OsString::from).into_iter().chain([path.into()]);
    match config::load(arguments.collect(), Vec::new()) {
        Ok(Invocation::Check(loaded)) => {
            let shown: serde_json::Value = serde_json::from_str(&loaded.to_json()).expect("what is shown is JSON");
            assert!(shown.is_object());
            Ok((loaded.config.clone(), loaded.to_yaml()))
        }
        Ok(_) => panic!("another command"),
        Err(failure) => {
            assert_eq!(failure.code, 2, "{}", failure.text);
            Err(failure.text)
        }
    }
}

/// One input: the content of the file.
///
/// # Panics
/// When a promise is broken.
pub fn run(input: &[u8]) {
    let thread = std::thread::current().id();
    let file = File(std::env::temp_dir().join(format!("golden-fuzz-{}-{thread:?}.yaml", std::process::id())));
    let (config, yaml) = match loaded(&file.0, input) {
        Ok(loaded) => loaded,
        Err(why) => {
            assert!(why.trim_end().chars().all(|c| !c.is_control() || c == '\n'), "{why:?}");
            return;
        }
    };
    let again = loaded(&file.0, yaml.as_bytes());
    let (same, shown) = again.unwrap_or_else(|why| panic!("what is shown is refused: {why}\n{yaml}"));
    // A secret is not shown, so it cannot come back.
    if !yaml.contains("***") {
        assert_eq!(same, config, "what is shown means something else:\n{yaml}");
    }
    let (_, fixed) = loaded(&file.0, shown.as_bytes()).expect("it was read just now");
    assert_eq!(fixed, shown, "shown a third time, it still changes");
}
