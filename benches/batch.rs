//! `glint batch` beside `xargs -P2 qemu-img convert`: many images of programs into one format.
//! `cargo bench --bench batch`. Needs qemu-img and /usr/bin/time.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[expect(dead_code, reason = "shared with other benchmarks")]
mod peer;

use peer::{HEAD, file_system, is_chosen, pair, scratch, sh};

const IMAGES: usize = 64;
const MIB: usize = 200;
const RUNS: usize = 3;

/// Name, our options, qemu-img's.
const JOBS: [(&str, &str, &str); 2] = [
    ("raw → qcow2", "", ""),
    (
        "raw → qcow2 zstd",
        "-c -o compression_type=zstd",
        "-c -o compression_type=zstd",
    ),
];

fn main() {
    let dir = scratch();
    let source = file_system(&dir, 2048);
    let (images, out) = (dir.join("batch"), dir.join("batch-out"));
    // So many pieces, with other names as often as it takes.
    let pieces = 2048 / MIB;
    sh(&format!(
        "mkdir -p {images}; cd {images}; for n in $(seq 0 {last}); do \
           [ -e $n.raw ] && continue; \
           if [ $n -lt {pieces} ]; then dd if={source} of=$n.raw bs={MIB}M skip=$n count=1 conv=sparse status=none; \
           else ln $((n % {pieces})).raw $n.raw; fi; \
         done",
        images = images.display(),
        source = source.display(),
        last = IMAGES - 1,
    ));
    let clear = || {
        let out = out.display();
        sh(&format!("rm -rf {out} && mkdir {out}"));
    };
    println!("{HEAD}");
    for (name, ours, theirs) in JOBS {
        if !is_chosen(name) {
            continue;
        }
        let script = dir.join("batch.sh");
        let (images, out) = (images.display(), out.display());
        let each = format!("qemu-img convert -f raw {theirs} -O qcow2 {images}/{{}} {out}/{{}}");
        let written = format!("ls {images} | xargs -P2 -I{{}} {each}\n");
        std::fs::write(&script, written).expect("the script can be written");
        pair(
            &format!("{IMAGES} images of {MIB} MiB, {name}"),
            (RUNS, 1),
            [
                &format!(
                    "{} batch -q --to qcow2 {ours} --out {out} {images}",
                    env!("CARGO_BIN_EXE_glint")
                ),
                &format!("bash {}", script.display()),
            ],
            clear,
        );
    }
}
