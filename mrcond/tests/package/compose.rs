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
fn compose_file_opens_a_port_to_everybody_or_a_node_forgets_its_name() {
    let text = read(&repository("docker-compose.yaml"));
    let lines = text.lines().map(str::trim);
    let ports = lines
        .clone()
        .filter_map(|line| line.strip_prefix("ports: "));
    let ports: Vec<Vec<String>> = ports
        .map(|list| serde_json::from_str(list).unwrap())
        .collect();
    assert!(ports.len() >= 6, "{ports:?}");
    for port in ports.iter().flatten() {
        assert!(port.starts_with("127.0.0.1:"), "{port}");
    }
    assert!(lines.clone().any(|line| line == "hostname: rabbitmq"));
    let images = lines
        .clone()
        .filter(|line| line.starts_with("image: "))
        .count();
    let restarts = lines
        .filter(|line| *line == "restart: unless-stopped")
        .count();
    // All, and the daemon, which is built.
    assert_eq!(restarts, images + 1);
}

#[test]
fn image_is_of_another_version_or_forgets_its_commit_or_a_licence() {
    let image = read(&repository("deploy/Dockerfile"));
    let version = format!("image.version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(image.contains(&version), "{version}");
    assert!(image.contains("MRCON_REVISION=\"$REVISION\" make static"));
    assert!(image.contains("dev/release.py notices --output /root-of-image/"));
    let base = image
        .lines()
        .find_map(|line| line.strip_prefix("FROM rust:"));
    let base = base.and_then(|line| line.split('-').next()).unwrap();
    let numbers: Vec<u32> = base.split('.').map(|part| part.parse().unwrap()).collect();
    let oldest: Vec<u32> = env!("CARGO_PKG_RUST_VERSION")
        .split('.')
        .map(|part| part.parse().unwrap())
        .collect();
    assert!(numbers.len() == 3 && numbers >= oldest, "{base}");
    let build = read(&repository("mrcond/build.rs"));
    assert!(build.contains("\"MRCON_REVISION\""));
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
