//! The Compose file, against the specification's own schema.

use crate::tools::{Folder, fails, read, repository, schema_check, succeeds};

#[test]
fn compose_file_has_a_key_that_compose_does_not_know() {
    let file = repository("docker-compose.yaml");
    succeeds(schema_check().arg("compose").arg(&file));
    // The check itself finds one.
    let folder = Folder::new();
    let bad = read(&file).replace("read_only: true", "read_onli: true");
    let told = fails(
        schema_check()
            .arg("compose")
            .arg(folder.file("bad.yaml", &bad)),
    );
    assert!(told.contains("read_onli"), "{told}");
}

#[test]
fn compose_file_mounts_a_file_that_does_not_exist() {
    let text = read(&repository("docker-compose.yaml"));
    let paths = text.split("./").skip(1);
    let paths: Vec<&str> = paths.filter_map(|rest| rest.split(':').next()).collect();
    assert!(paths.len() >= 5, "{paths:?}");
    for path in paths {
        assert!(repository(path).exists(), "{path}");
    }
}

#[test]
fn health_check_of_the_image_needs_a_program_that_it_lacks() {
    // Both name the daemon itself, by a path: an image from scratch has no shell to look for it.
    let image = read(&repository("deploy/Dockerfile"));
    assert!(image.contains(r#"CMD ["/usr/bin/mrcond", "health"]"#));
    assert!(image.contains("cp target/*/dist/mrcond /root-of-image/usr/bin/mrcond"));
    let compose = read(&repository("docker-compose.yaml"));
    assert!(compose.contains("test: [CMD, /usr/bin/mrcond, health]"));
}
