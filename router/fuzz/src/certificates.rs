//! The folder of certificates: whatever a file holds, what was good serves on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use cell_router::control::certificates::Folder;

/// A certificate for `good.example` with its key.
const GOOD: &str = include_str!("good.pem");

thread_local! {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let shared = PathBuf::from("/dev/shm");
        let base = if shared.is_dir() { shared } else { std::env::temp_dir() };
        let own = format!("cell-router-fuzz-{}-{:?}", std::process::id(), std::thread::current().id());
        let folder = base.join(own);
        fs::create_dir_all(&folder).expect("a folder");
        folder
    });
}

/// What must hold for a file of certificates and one of a key, which are the parts of the input around `=====`.
pub fn holds(data: &[u8]) {
    FOLDER.with(|folder| read(folder, data));
}

fn read(path: &Path, data: &[u8]) {
    let cut = data.windows(5).position(|part| part == b"=====");
    let (chain, key) = cut.map_or((data, &[][..]), |cut| (&data[..cut], &data[cut + 5..]));
    let write = |name: &str, bytes: &[u8]| fs::write(path.join(name), bytes).expect("a file");
    let mut folder = Folder::new(path.to_path_buf());
    write("a.pem", GOOD.as_bytes());
    write("a.key", key);
    write("b.pem", GOOD.as_bytes());
    let (certificates, problems) = folder.read().expect("the folder is there");
    assert!(
        problems.is_empty() && certificates.names() == 1,
        "{problems:?}"
    );

    write("a.pem", chain);
    let (certificates, problems) = folder.read().expect("the folder is there");
    assert!(
        problems.len() <= 1 && certificates.names() >= 1,
        "{problems:?}"
    );
    for name in ["good.example", "GOOD.example"] {
        assert!(certificates.find(name).is_some(), "what was good serves on");
    }
    assert!(certificates.find("").is_none() && certificates.find("bad.test").is_none());
    for problem in problems {
        assert!(
            problem.contains("a.pem") && !problem.contains(char::is_control),
            "{problem:?}"
        );
    }
    fs::remove_file(path.join("b.pem")).expect("a file");
    let (certificates, problems) = folder.read().expect("the folder is there");
    let kept = certificates.find("good.example").is_some();
    assert!(
        kept || problems.is_empty(),
        "a bad file keeps its last good certificate"
    );
}
