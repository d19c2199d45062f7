//! Programs that a shell finds, on machines that have more of them or fewer.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Whether this machine has a program.
pub(crate) fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Makes a program of a script.
pub(crate) fn script(folder: &Path, name: &str, text: &str) {
    let program = folder.join(name);
    let written = std::fs::write(&program, text)
        .and_then(|()| std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)));
    written.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
}

/// Makes a `curl` where there is none, as on a bare Debian.
pub(crate) fn curl(folder: &Path) {
    if !is_there("curl") {
        script(folder, "curl", include_str!("curl.py"));
    }
}

/// `PATH` with a folder that is looked into first.
pub(crate) fn path_with(folder: &Path) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{}:{path}", folder.display())
}
