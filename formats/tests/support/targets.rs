//! The targets: what each makes of any bytes, and does with the file. The fuzzer calls them, and
//! the mutations.

use std::sync::Arc;

use super::sparse::Sparse;
use super::{build, exercise, mend};
use formats::{Format, Source};

/// A target and its name.
pub(crate) type Target = (&'static str, fn(&[u8]));

pub(crate) const ALL: [Target; 19] = [
    ("qcow2", qcow2),
    ("qcow1", qcow1),
    ("qed", qed),
    ("vhd", vhd),
    ("vhdx", vhdx),
    ("vdi", vdi),
    ("vmdk", vmdk),
    ("parallels", parallels),
    ("bundle", bundle),
    ("bochs", bochs),
    ("dmg", dmg),
    ("luks", luks),
    ("iso", iso),
    ("gpt", gpt),
    ("content", content),
    ("archive", archive),
    ("package", package),
    ("wrap", wrap),
    ("drivers", drivers),
];

/// A file as it is, which is known to be of that format.
pub(crate) fn known(format: Format, bytes: &[u8]) {
    let source: Arc<dyn Source> = Arc::new(bytes.to_vec());
    match format {
        Format::Ova | Format::Ovf | Format::Vagrant | Format::Docker | Format::Tar => {}
        Format::Luks => exercise::luks(&source),
        format => exercise::disk(&source, format),
    }
    if format == Format::Qcow2 {
        exercise::mended(bytes);
    }
    exercise::package(&source);
}

/// Whether checksums are made right: not always, so that wrong ones are met as well.
fn is_mended(data: &[u8]) -> bool {
    data.len().is_multiple_of(2)
}

/// A file, whole behind four zeros, else with sectors left out (see [`sparse`]).
fn file(data: &[u8]) -> Arc<dyn Source> {
    match data.strip_prefix(&[0; 4]) {
        Some(whole) => Arc::new(whole.to_vec()),
        None => Arc::new(Sparse::unpack(data)),
    }
}

/// The parts between lines of `%%`, as many as there are names.
fn parts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut rest = data;
    std::array::from_fn(|n| {
        let end = rest.windows(4).position(|w| w == b"\n%%\n");
        let (part, behind) = match end {
            Some(end) if n + 1 < N => (&rest[..end], &rest[end + 4..]),
            _ => (rest, &[][..]),
        };
        rest = behind;
        part
    })
}

/// A backing file.
fn beneath() -> Arc<dyn Source> {
    Arc::new(vec![7; 33_000])
}

/// An image of `format` as it is.
fn image(data: &[u8], format: Format) {
    exercise::disk(&(Arc::new(data.to_vec()) as _), format);
}

/// qcow2 versions 2 and 3: judged, read, checked, repaired, grown; a snapshot; something beneath.
pub(crate) fn qcow2(data: &[u8]) {
    image(data, Format::Qcow2);
    exercise::overlay(&(Arc::new(data.to_vec()) as _), Format::Qcow2, &beneath());
    exercise::snapshot(&(Arc::new(data.to_vec()) as _), Format::Qcow2);
    exercise::mended(data);
}

/// qcow version 1.
pub(crate) fn qcow1(data: &[u8]) {
    image(data, Format::Qcow1);
}

/// qed; something beneath.
pub(crate) fn qed(data: &[u8]) {
    image(data, Format::Qed);
    exercise::overlay(&(Arc::new(data.to_vec()) as _), Format::Qed, &beneath());
}

/// vhd, mostly with right checksums.
pub(crate) fn vhd(data: &[u8]) {
    let mut bytes = data.to_vec();
    if is_mended(data) {
        mend::vhd(&mut bytes);
    }
    image(&bytes, Format::Vhd);
}

/// vhdx, mostly with right checksums, in its log too; see [`file`].
pub(crate) fn vhdx(data: &[u8]) {
    let mut file = Sparse::unpack(data);
    if is_mended(data) {
        mend::vhdx(&mut file);
    }
    exercise::disk(&(Arc::new(file) as _), Format::Vhdx);
}

/// vdi.
pub(crate) fn vdi(data: &[u8]) {
    image(data, Format::Vdi);
}

/// vmdk of any kind, its extents and parents itself; or a descriptor and the file under all the
/// names in it, see [`parts`]. See [`file`].
pub(crate) fn vmdk(data: &[u8]) {
    if !data.starts_with(b"#") {
        exercise::disk(&file(data), Format::Vmdk);
        return;
    }
    let [descriptor, extent] = parts(data);
    let descriptor: Arc<dyn Source> = Arc::new(descriptor.to_vec());
    exercise::overlay(&descriptor, Format::Vmdk, &file(extent));
}

/// parallels and ploop.
pub(crate) fn parallels(data: &[u8]) {
    image(data, Format::Parallels);
    exercise::snapshot(&(Arc::new(data.to_vec()) as _), Format::Parallels);
}

/// The descriptor of a parallels bundle and the image under all of its names; see [`parts`].
pub(crate) fn bundle(data: &[u8]) {
    let [descriptor, image] = parts(data);
    exercise::parallels_bundle(
        &(Arc::new(descriptor.to_vec()) as _),
        Arc::new(image.to_vec()),
    );
}

/// bochs.
pub(crate) fn bochs(data: &[u8]) {
    image(data, Format::Bochs);
}

/// A chunk of dmg in the coding that the first byte says, of so many sectors as the second; or a
/// whole file.
pub(crate) fn dmg(data: &[u8]) {
    match data {
        [coding @ 1..=8, sectors, chunk @ ..] => {
            let kind = match coding {
                1 | 2 => u32::from(*coding),
                _ => 0x8000_0001 + u32::from(*coding),
            };
            let chunks = [(kind, u64::from(*sectors), chunk), (2, 1, &[][..])];
            image(&build::dmg(&chunks), Format::Dmg);
        }
        _ => image(data, Format::Dmg),
    }
}

/// luks of both versions, with right digests and little work, opened; see [`file`].
pub(crate) fn luks(data: &[u8]) {
    let mut file = Sparse::unpack(data);
    mend::luks(&mut file);
    exercise::luks(&(Arc::new(file) as _));
}

/// iso and udf; see [`file`].
pub(crate) fn iso(data: &[u8]) {
    exercise::disk(&file(data), Format::Iso);
}

/// Partition tables, mostly with right checksums; see [`file`].
pub(crate) fn gpt(data: &[u8]) {
    let mut file = Sparse::unpack(data);
    if is_mended(data) {
        mend::gpt(&mut file);
    }
    exercise::disk(&(Arc::new(file) as _), Format::Raw);
}

/// Kernels, ramdisks, file systems, and whatever else is raw.
pub(crate) fn content(data: &[u8]) {
    image(data, Format::Raw);
}

/// A tar archive, mostly with right checksums: ova, docker, vagrant, others.
pub(crate) fn archive(data: &[u8]) {
    let mut bytes = data.to_vec();
    if is_mended(data) {
        mend::tar(&mut bytes);
    }
    exercise::package(&(Arc::new(bytes) as _));
}

/// The members of an archive that the first byte chooses; see [`parts`].
pub(crate) fn package(data: &[u8]) {
    exercise::package(&(Arc::new(packed(data)) as _));
}

/// The archive, or the bare first part.
pub(crate) fn packed(data: &[u8]) -> Vec<u8> {
    let Some((choice, rest)) = data.split_first() else {
        return Vec::new();
    };
    let [a, b, c, d] = parts(rest);
    match choice {
        b'o' => build::tar(&[("a.ovf", a), ("a.mf", b), ("a.cert", c), ("a.vmdk", d)]),
        b'd' => build::tar(&[
            ("manifest.json", a),
            ("c.json", b),
            ("l", c),
            ("oci-layout", d),
        ]),
        b'i' => build::tar(&[
            ("index.json", a),
            ("blobs/a/1", b),
            ("blobs/a/2", c),
            ("blobs/a/3", d),
        ]),
        b'v' => build::tar(&[
            ("metadata.json", a),
            ("box.img", b),
            ("b.vmdk", c),
            ("b.ovf", d),
        ]),
        _ => a.to_vec(),
    }
}

/// Compressed files: the content of one that is sound behind a `g`, else as it is.
pub(crate) fn wrap(data: &[u8]) {
    let file = match data {
        [b'g', content @ ..] => build::gzip(content),
        _ => data.to_vec(),
    };
    exercise::package(&(Arc::new(file) as _));
}

/// Any file, judged as it passes by and by position; see [`file`].
pub(crate) fn drivers(data: &[u8]) {
    let file = file(data);
    if file.len() <= 4 << 20 {
        exercise::judge_passing(&file);
    }
}
