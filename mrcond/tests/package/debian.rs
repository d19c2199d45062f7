//! The Debian package: its content, lintian's opinion, and what is left when it goes.

use crate::tools::{Folder, MRCOND, everything, fetch, repository, run, succeeds};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Put together from a small static program in place of the daemon, whose release takes minutes to build.
fn package(folder: &Folder) -> PathBuf {
    let source = folder.file("stand-in.c", "int main(void) { return 0; }\n");
    let program = folder.path().join("stand-in");
    succeeds(
        Command::new("cc")
            .args(["-static", "-s", "-O2", "-o"])
            .arg(&program)
            .arg(source),
    );
    let mut command = Command::new("python3");
    command
        .arg(repository("dev/release.py"))
        .arg("deb")
        .arg(&program);
    command
        .arg("--documented-by")
        .arg(MRCOND)
        .arg("--output")
        .arg(folder.path());
    succeeds(&mut command);
    let files = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().path());
    let mut packages = files.filter(|file| file.extension().is_some_and(|end| end == "deb"));
    packages.next().unwrap()
}

fn dpkg_deb(what: &str, package: &Path) -> String {
    succeeds(Command::new("dpkg-deb").arg(what).arg(package))
}

#[test]
fn package_lacks_a_file_or_anybody_may_read_its_secrets() {
    let folder = Folder::new();
    let package = package(&folder);
    let content = dpkg_deb("-c", &package);
    for (mode, path) in [
        ("-rwxr-xr-x", "./usr/bin/mrcond"),
        ("-rw-r--r--", "./usr/lib/systemd/system/mrcond.service"),
        ("-rw-r--r--", "./usr/lib/sysusers.d/mrcond.conf"),
        ("-rw-r--r--", "./etc/mrcond/config.yaml"),
        ("drwx------", "./etc/mrcond/credentials/"),
        ("-rw-r--r--", "./etc/default/mrcond"),
        ("-rw-r--r--", "./usr/share/man/man1/mrcond.1.gz"),
        (
            "-rw-r--r--",
            "./usr/share/man/man1/mrcond-position-set.1.gz",
        ),
        (
            "-rw-r--r--",
            "./usr/share/bash-completion/completions/mrcond",
        ),
        ("-rw-r--r--", "./usr/share/zsh/vendor-completions/_mrcond"),
        (
            "-rw-r--r--",
            "./usr/share/fish/vendor_completions.d/mrcond.fish",
        ),
        ("-rw-r--r--", "./usr/share/doc/mrcond/copyright"),
        ("-rw-r--r--", "./usr/share/doc/mrcond/changelog.gz"),
        ("-rw-r--r--", "./usr/share/doc/mrcond/sbom.cdx.json.gz"),
        (
            "-rw-r--r--",
            "./usr/share/doc/mrcond/THIRD-PARTY-NOTICES.txt.gz",
        ),
    ] {
        let line = content
            .lines()
            .find(|line| line.ends_with(&format!(" {path}")));
        let line = line.unwrap_or_else(|| panic!("no {path}: {content}"));
        assert!(
            line.starts_with(mode) && line.contains(" root/root "),
            "{line}"
        );
    }
    let about = dpkg_deb("-I", &package);
    let version = format!(" Version: {}-1\n", env!("CARGO_PKG_VERSION"));
    assert!(
        about.contains(&version) && about.contains(" Package: mrcond\n"),
        "{about}"
    );
    let conffiles = succeeds(
        Command::new("dpkg-deb")
            .arg("--info")
            .arg(&package)
            .arg("conffiles"),
    );
    let in_etc = content
        .lines()
        .filter_map(|line| line.split_once(" ./etc/"));
    let in_etc = in_etc.map(|(_, path)| format!("/etc/{path}"));
    let in_etc: Vec<String> = in_etc.filter(|path| !path.ends_with('/')).collect();
    let mut declared: Vec<&str> = conffiles.lines().collect();
    declared.sort_unstable();
    assert_eq!(
        declared, in_etc,
        "an upgrade would overwrite what the user changed"
    );
}

#[test]
fn lintian_finds_fault_with_the_package() {
    let folder = Folder::new();
    let package = package(&folder);
    let mut lintian = Command::new(fetch("lintian").join("lintian"));
    lintian
        .args(["--allow-root", "--fail-on", "error,warning"])
        .arg(package);
    let told = succeeds(&mut lintian);
    assert!(!told.contains("E: ") && !told.contains("W: "), "{told}");
}

#[test]
fn same_sources_make_another_package() {
    let (one, other) = (Folder::new(), Folder::new());
    let [one, other] = [&one, &other].map(|folder| std::fs::read(package(folder)).unwrap());
    assert!(one == other);
}

/// dpkg, by root or by whom the kernel lets play root; `None` for others.
fn dpkg_as_root() -> Option<Command> {
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        return Some(Command::new("dpkg"));
    }
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]);
    let allowed = command.arg("true").status();
    allowed.is_ok_and(|status| status.success()).then(|| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "dpkg"]);
        command
    })
}

/// dpkg changes owners, which only root may. Where nobody may play root, what goes into the package is tested,
/// and not that it goes in.
#[test]
fn package_leaves_something_behind_or_forgets_the_user() {
    let folder = Folder::new();
    let package = package(&folder);
    if dpkg_as_root().is_none() {
        eprintln!("not installed: this user may neither run dpkg as root nor unshare");
        return;
    }
    let root = folder.path().join("root");
    for path in [
        "var/lib/dpkg/info",
        "var/lib/dpkg/updates",
        "etc",
        "var/log",
    ] {
        std::fs::create_dir_all(root.join(path)).unwrap();
    }
    std::fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    let dpkg = |arguments: &[&str]| {
        let mut command = dpkg_as_root().unwrap();
        command.arg(format!("--root={}", root.display()));
        // In place of its own scripts' chroot: there is no shell in there.
        command.args([
            "--force-script-chrootless",
            "--force-depends",
            "--log=/dev/null",
        ]);
        command.args(arguments);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let output = run(&mut command);
        assert!(output.status.success(), "{}", everything(&output));
    };
    dpkg(&["--install", package.to_str().unwrap()]);
    let accounts = || std::fs::read_to_string(root.join("etc/passwd")).unwrap_or_default();
    assert!(accounts().contains("mrcond:"), "{}", accounts());
    assert!(root.join("usr/bin/mrcond").exists());
    std::fs::write(root.join("etc/mrcond/credentials/mongo_uri"), "secret").unwrap();
    // Removed, the configuration stays; purged, nothing does.
    dpkg(&["--remove", "mrcond"]);
    assert!(!root.join("usr/bin/mrcond").exists());
    assert!(root.join("etc/mrcond/config.yaml").exists());
    dpkg(&["--purge", "mrcond"]);
    assert!(!accounts().contains("mrcond:"), "{}", accounts());
    let left = succeeds(Command::new("find").arg(&root).args(["-iname", "*mrcon*"]));
    assert_eq!(left, "");
}
