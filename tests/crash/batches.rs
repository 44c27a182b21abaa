//! Kill -9 in the middle of a batch.

use std::time::{Duration, Instant};

use crate::server::Server;
use crate::{data, folder};

const IMAGES: usize = 12;

#[test]
fn a_batch_killed_at_any_moment_makes_each_image_once() {
    let (dir, path) = folder();
    let sources = dir.path().join("sources");
    std::fs::create_dir(&sources).unwrap();
    let bytes = data(2_000_000);
    let files: Vec<_> = (0..IMAGES)
        .map(|n| {
            let file = sources.join(format!("{n}.raw"));
            std::fs::write(&file, &bytes).unwrap();
            serde_json::json!({"file": file})
        })
        .collect();
    let body = serde_json::json!({"sources": files, "convert": {"disk_format": "qcow2"}});
    let config = format!(
        "[batches]\nsource_dirs = ['{}']\n[import]\nworkers = 2\n",
        sources.display()
    );
    let mut server = Server::start(&path, &config);
    let batch = server.json("POST", "/v2/batches", &body.to_string());
    let target = batch["self"].as_str().unwrap().to_owned();
    // A job that took five of its workers down is given up.
    for kill_after in [0, 40, 110, 210] {
        std::thread::sleep(Duration::from_millis(kill_after));
        server.kill();
        server = Server::start(&path, &config);
    }
    let start = Instant::now();
    let ended = loop {
        let found = server.json("GET", &target, "");
        if found["status"] != "running" && found["status"] != "waiting" {
            break found;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "{found:#}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(ended["counts"]["done"], IMAGES, "{ended:#}");
    let images = server.json("GET", "/v2/images", "")["images"].clone();
    let images = images.as_array().unwrap();
    assert_eq!(images.len(), IMAGES);
    assert!(
        images
            .iter()
            .all(|i| i["status"] == "active" && i["disk_format"] == "qcow2")
    );
    assert_eq!(server.files("images").len(), IMAGES);
    while server.files("staging") != [""; 0] {
        assert!(start.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(20));
    }
}
