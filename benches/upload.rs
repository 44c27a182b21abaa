//! An upload over loopback beside the slower of its two hashes alone on one core:
//! `cargo bench --bench upload`. Needs curl.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[expect(dead_code, reason = "shared with other benchmarks")]
mod peer;

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use md5::Digest;
use peer::{scratch, sh};

const GIB: usize = 1;
const RUNS: usize = 5;

fn main() {
    let dir = scratch();
    let image = dir.join("random.raw");
    sh(&format!(
        "[ -e {0} ] || head -c {1}G /dev/urandom > {0}",
        image.display(),
        GIB
    ));
    let data = dir.join("data");
    sh(&format!("rm -rf {}", data.display()));
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut server = Command::new(env!("CARGO_BIN_EXE_glint"))
        .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--data"])
        .arg(&data)
        .stderr(Stdio::null())
        .spawn()
        .expect("the server starts");
    let base = format!("http://127.0.0.1:{port}");
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }

    let (mut uploads, mut hashes) = (Vec::new(), Vec::new());
    for _ in 0..=RUNS {
        hashes.push(slower_hash(&image));
        let created = curl(&[
            "-d",
            r#"{"disk_format":"raw","container_format":"bare"}"#,
            "-H",
            "Content-Type: application/json",
            &format!("{base}/v2/images"),
        ]);
        let id = created
            .split("\"id\": \"")
            .nth(1)
            .and_then(|s| s.get(..36))
            .expect("an id");
        let url = format!("{base}/v2/images/{id}");
        let start = Instant::now();
        curl(&[
            "-T",
            &image.display().to_string(),
            "-H",
            "Content-Type: application/octet-stream",
            &format!("{url}/file"),
        ]);
        uploads.push(start.elapsed().as_secs_f64());
        assert!(
            curl(&[&url]).contains("\"status\": \"active\""),
            "the upload failed"
        );
        curl(&["-X", "DELETE", &url]);
    }
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap_or_default();
    let peak = status
        .lines()
        .find(|l| l.starts_with("VmHWM"))
        .unwrap_or("VmHWM unknown");
    let _ = server.kill();
    let _ = server.wait();
    sh(&format!("rm -rf {}", data.display()));

    let rate = |mut seconds: Vec<f64>| {
        seconds.remove(0);
        seconds.sort_by(f64::total_cmp);
        GIB as f64 * 1024.0 / seconds[seconds.len() / 2]
    };
    let (upload, hash) = (rate(uploads), rate(hashes));
    println!("upload of {GIB} GiB raw, durable: {upload:.0} MiB/s");
    println!("the slower hash alone on one core: {hash:.0} MiB/s");
    println!(
        "ratio {:.2}; the server's peak memory: {}",
        upload / hash,
        peak.trim()
    );
}

fn curl(args: &[&str]) -> String {
    let output = Command::new("curl")
        .args(["-sS", "--fail-with-body"])
        .args(args)
        .output();
    let output = output.expect("curl runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn slower_hash(image: &std::path::Path) -> f64 {
    fn time<D: Digest>(image: &std::path::Path) -> f64 {
        let mut file = std::fs::File::open(image).expect("the image is there");
        let mut buffer = vec![0; 512 << 10];
        let mut hash = D::new();
        let start = Instant::now();
        loop {
            match file.read(&mut buffer).expect("reading works") {
                0 => break,
                n => hash.update(&buffer[..n]),
            }
        }
        std::hint::black_box(hash.finalize());
        start.elapsed().as_secs_f64()
    }
    time::<md5::Md5>(image).max(time::<sha2::Sha512>(image))
}
