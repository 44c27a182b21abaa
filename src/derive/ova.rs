//! Images written into one archive: a worker for each disk, one after the other, all into the
//! same file; what stands around the disks is ours.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use formats::HostOffset;
use formats::container::ova::{Assembly, WriteOptions};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::source::{self, ours};
use super::{Error, Order};
use crate::convert;
use crate::service::Service;

/// Bytes read at once to be hashed.
const PIECE: u64 = 1 << 20;

/// Writes the archive into `file`, which is empty; answers its size.
///
/// # Errors
/// Those of the conversions; `Unfit` for more disks than an archive takes.
pub(super) async fn write(
    svc: &Arc<Service>,
    order: &Order,
    options: &WriteOptions,
    file: &File,
) -> Result<u64, Error> {
    let unfit = |e: formats::Error| Error::Unfit(e.to_string());
    // The sizes the catalog has are only those it was told.
    let unknown = vec![u64::MAX; order.images.len()];
    let mut assembly = Assembly::new(&unknown, options).map_err(unfit)?;
    for image in order.images.iter() {
        let at = assembly.next().0;
        let request = order.wish.request(image, &svc.config)?;
        let source = source::open(svc, image).await?;
        // The worker writes where this handle stands: it is the same open file.
        let mut output = file.try_clone().map_err(ours)?;
        output.seek(SeekFrom::Start(at)).map_err(ours)?;
        let worker = convert::start(svc, &request, source, output)?;
        let capacity = worker.finish(|_| {}).await?;
        let end = file.metadata().map_err(ours)?.len();
        let digest = digest(file.try_clone().map_err(ours)?, at, end).await?;
        assembly.add(capacity, end - at, &digest).map_err(unfit)?;
    }
    let (pieces, summary) = assembly.finish().map_err(unfit)?;
    let file = file.try_clone().map_err(ours)?;
    let written = spawn_blocking(move || {
        file.set_len(summary.file_size)?;
        for (HostOffset(at), bytes) in pieces {
            file.write_all_at(&bytes, at)?;
        }
        Ok::<_, std::io::Error>(())
    });
    written.await.map_err(ours)?.map_err(ours)?;
    Ok(summary.file_size)
}

/// SHA-256 of the bytes from `at` to `end`.
async fn digest(file: File, at: u64, end: u64) -> Result<[u8; 32], Error> {
    let hashed = spawn_blocking(move || {
        let mut hash = Sha256::new();
        let mut piece = vec![0; PIECE as usize];
        let mut at = at;
        while at < end {
            let len = PIECE.min(end - at);
            let piece = &mut piece[..len as usize];
            file.read_exact_at(piece, at)?;
            hash.update(&*piece);
            at += len;
        }
        Ok::<_, std::io::Error>(hash.finalize().into())
    });
    hashed.await.map_err(ours)?.map_err(ours)
}
