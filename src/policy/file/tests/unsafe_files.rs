//! Reading in earnest: what someone else could have written is refused, and so is what is too large or no text.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A folder of its own below the temporary one, which is sticky and therefore safe above it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vouchsafe-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &[u8], mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

const CHILD: &str = "version = 1\nenvironment = \"prod\"\nextends = \"base.toml\"\n";

fn said(path: &Path) -> String {
    load(path, &LoadOptions::default()).unwrap_err().to_string()
}

#[test]
fn a_chain_is_read_from_files_and_each_of_them_is_checked() {
    let folder = Folder::new("chain");
    let policy = folder.file("prod.toml", CHILD.as_bytes(), 0o644);
    let missing = load(&policy, &LoadOptions::default()).unwrap_err();
    assert!(!missing.is_absent() && missing.to_string().contains("prod.toml:3:11: "), "{missing}");
    let base = folder.file("base.toml", BASE.as_bytes(), 0o644);
    let loaded = load(&policy, &LoadOptions::default()).unwrap();
    assert_eq!(loaded.files, [policy.clone(), base]);
    folder.file("base.toml", BASE.as_bytes(), 0o666);
    let unsafe_base = said(&policy);
    assert!(
        unsafe_base.contains("prod.toml:3:11: ") && unsafe_base.contains("can be written by others"),
        "{unsafe_base}"
    );
}

#[test]
fn what_is_unsafe_too_large_or_no_text_is_refused() {
    let folder = Folder::new("refused");
    let text = b"version = 1\nenvironment = \"prod\"\n";
    assert!(said(&folder.file("writable.toml", text, 0o666)).contains("can be written by others"));
    assert!(said(&folder.file("bytes.toml", b"version = 1 # \xff\n", 0o644)).contains("is not UTF-8 text"));
    let large = [text.as_slice(), &vec![b'#'; 1 << 20]].concat();
    assert!(said(&folder.file("large.toml", &large, 0o644)).contains("is larger than"));
    assert!(said(&folder.0).contains("is not a regular file"));
    assert!(load(&folder.0.join("absent.toml"), &LoadOptions::default()).unwrap_err().is_absent());
}

#[test]
fn a_host_file_is_read_as_carefully() {
    let folder = Folder::new("host");
    assert_eq!(load_host(&folder.file("host.toml", HOST.as_bytes(), 0o644), false).unwrap().sinks.len(), 1);
    assert!(load_host(&folder.file("open.toml", HOST.as_bytes(), 0o666), false).is_err());
    let large = [HOST.as_bytes(), &vec![b'#'; 1 << 20]].concat();
    assert!(load_host(&folder.file("large.toml", &large, 0o644), false).is_err());
}
