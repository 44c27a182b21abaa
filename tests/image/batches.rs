//! `glint batch submit` and its kin.

use serde_json::Value;

use crate::Room;

#[test]
fn a_plan_is_submitted_followed_and_retried() {
    let dir = tempfile::tempdir().unwrap();
    let sources = std::fs::canonicalize(dir.path()).unwrap();
    let config = format!("[batches]\nsource_dirs = ['{}']\n", sources.display());
    let room = Room::new(&config);
    let disk = crate::disk();
    for name in ["a.raw", "b.vdi"] {
        std::fs::write(sources.join(name), &disk).unwrap();
    }
    let plan = format!(
        "name = '{{n}}-{{stem}}'\nconcurrency = 2\n\
         [properties]\nos_distro = 'debian'\n\
         [convert]\ndisk_format = 'qcow2'\noptions = {{ compression_type = 'zstd' }}\n\
         [[sources]]\nfile = '{0}/a.raw'\n[[sources]]\nfile = '{0}/b.vdi'\n",
        sources.display()
    );
    std::fs::write(room.path("plan.toml"), plan).unwrap();

    // What is called a vdi is none.
    let out = room.batch("submit plan.toml --wait --output json");
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let batch: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(batch["status"], "failed", "{batch:#}");
    let [first, second] = [&batch["items"][0], &batch["items"][1]];
    assert_eq!(
        (&first["state"], &second["state"]),
        (&"done".into(), &"failed".into())
    );
    let image = room.show(first["image_id"].as_str().unwrap());
    assert_eq!(
        (&image["name"], &image["disk_format"]),
        (&"1-a".into(), &"qcow2".into())
    );

    let id = batch["id"].as_str().unwrap();
    let news = String::from_utf8(out.stderr).unwrap();
    assert_eq!(news, format!("batch {id}\n"));
    let out = room.batch(&format!("retry {id} --wait"));
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(
        text.contains(&format!("{id}  failed, 1 done, 1 failed")),
        "{text}"
    );
    let out = room.batch(&format!("status {id}"));
    assert!(out.status.success() && out.stdout == text.as_bytes());
    let list = String::from_utf8(room.batch("status").stdout).unwrap();
    assert_eq!(list, format!("{id}  failed, 1 done, 1 failed\n"));
    for (words, says) in [
        (format!("cancel {id}"), "has ended already"),
        ("status ../images".into(), "no id of a batch"),
        ("submit none.toml".into(), "none.toml"),
    ] {
        let out = room.batch(&words);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{words}: {said}");
        assert!(said.contains(says), "{words}: {said}");
    }
}
