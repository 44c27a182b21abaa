//! Threads, window and order.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::plan::{Job, Planner};
use super::{Encode, Payload, Progress, Shape, Summary, Tables, Target};
use crate::{Disk, Error, GuestOffset, HostOffset, Result, Sink, UnitIndex};

/// How to copy.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// Threads to work with at most: fewer do where more would take too much memory. The output
    /// does not depend on it.
    pub threads: NonZero<usize>,
}

impl Default for CopyOptions {
    /// As many threads as there are cores.
    fn default() -> Self {
        let one = NonZero::<usize>::MIN;
        Self {
            threads: std::thread::available_parallelism().unwrap_or(one),
        }
    }
}

/// Bytes a job covers, unless a unit is larger: fits the second-level cache beside its output.
const SEGMENT: u64 = 1 << 20;
/// Jobs a thread may be ahead of what is written: the fewer, the more of them are still in some
/// cache when their turn comes.
const AHEAD: u64 = 2;
/// Bytes of memory for all threads: a job is to take less than 256 MiB with what a disk and a
/// target hold. One thread works in any case.
const MEMORY: u64 = 200 << 20;

/// Copies all of `disk` into `target`, whose bytes go to `sink`. The output is complete but not
/// yet durable: sync the sink and rename the file into place.
///
/// # Errors
/// The first error of any thread; `Cancelled` when `progress` was told so. The sink then holds
/// no image.
pub fn copy(
    disk: &dyn Disk,
    target: Box<dyn Target>,
    sink: &dyn Sink,
    options: &CopyOptions,
    progress: &Progress,
) -> Result<Summary> {
    progress.start(disk.virtual_size());
    let is_sequential = sink.is_sequential();
    if is_sequential {
        let first = target
            .preamble()
            .ok_or_else(|| Error::usage("this format cannot be written in one go"))?;
        sink.write_all_at(&first, HostOffset::ZERO)?;
    }
    let unit = target.unit();
    let mut encoders = vec![target.encoder()?];
    let threads = affordable(options.threads.get(), encoders[0].memory(), unit);
    for _ in 1..threads {
        encoders.push(target.encoder()?);
    }
    let run = Run {
        disk,
        sink,
        is_sequential,
        progress,
        unit,
        ahead: threads as u64 * AHEAD,
        planner: Mutex::new(Planner::new(disk, unit, SEGMENT)),
        order: Mutex::new(Order {
            target,
            next: 0,
            waiting: BTreeMap::new(),
            written: 0,
            placed: BTreeMap::new(),
            is_writing: false,
            failed: None,
        }),
        turn: Condvar::new(),
        spare: Mutex::new(Vec::new()),
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|n| format!("copy-{n}"))
        .build()
        .map_err(|e| Error::io("starting threads", std::io::Error::other(e)))?;
    pool.scope(|scope| {
        for mut encoder in encoders {
            let run = &run;
            scope.spawn(move |_| run.work(encoder.as_mut()));
        }
    });
    let order = run
        .order
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = order.failed {
        return Err(error);
    }
    let summary = order.target.finish(sink)?;
    progress.reached(disk.virtual_size());
    Ok(summary)
}

/// As many of `threads` as there is memory for: each has an encoder, and jobs that wait to be
/// written, whose packed bytes may lie in a buffer of twice their length.
fn affordable(threads: usize, encoder: u64, unit: u64) -> usize {
    let each = encoder + AHEAD * 3 * unit.max(SEGMENT);
    let most = usize::try_from(MEMORY / each).unwrap_or(usize::MAX);
    threads.min(most).max(1)
}

struct Run<'a> {
    disk: &'a dyn Disk,
    sink: &'a dyn Sink,
    is_sequential: bool,
    progress: &'a Progress,
    unit: u64,
    ahead: u64,
    planner: Mutex<Planner<'a>>,
    order: Mutex<Order>,
    turn: Condvar,
    /// Buffers to use again, by whichever thread: as many as the window is wide at most.
    spare: Mutex<Vec<Done>>,
}

/// What only one thread at a time may touch: places are given in guest order, and so is written.
struct Order {
    target: Box<dyn Target>,
    /// The job to place next.
    next: u64,
    /// Encoded jobs.
    waiting: BTreeMap<u64, Done>,
    /// The job to write next.
    written: u64,
    /// Placed jobs.
    placed: BTreeMap<u64, Placed>,
    /// A thread is writing. The others go on to their next jobs.
    is_writing: bool,
    failed: Option<Error>,
}

/// An encoded job.
#[derive(Default)]
struct Done {
    start: GuestOffset,
    data: Vec<u8>,
    packed: Vec<u8>,
    units: Vec<Shape>,
}

/// A job whose pieces have their places.
struct Placed {
    done: Done,
    writes: Vec<Write>,
    tables: Tables,
}

/// A piece of an encoded job and its place.
struct Write {
    at: HostOffset,
    is_packed: bool,
    start: usize,
    end: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run<'_> {
    fn work(&self, encoder: &mut dyn Encode) {
        if let Err(e) = self.work_until_done(encoder) {
            self.fail(e);
        }
    }

    fn fail(&self, error: Error) {
        lock(&self.order).failed.get_or_insert(error);
        self.turn.notify_all();
    }

    fn work_until_done(&self, encoder: &mut dyn Encode) -> Result<()> {
        loop {
            let Some(job) = lock(&self.planner).next()? else {
                return Ok(());
            };
            if !self.wait_for_window(&job) {
                return Ok(());
            }
            if self.progress.is_cancelled() {
                return Err(Error::cancelled());
            }
            let seq = job.seq;
            let spare = lock(&self.spare).pop().unwrap_or_default();
            let done = self.encode(&job, encoder, spare)?;
            self.submit(seq, done, encoder)?;
        }
    }

    /// Waits until the job is near the front; false when another thread failed.
    fn wait_for_window(&self, job: &Job) -> bool {
        let mut order = lock(&self.order);
        while order.failed.is_none() && job.seq >= order.written + self.ahead {
            order = self
                .turn
                .wait(order)
                .unwrap_or_else(PoisonError::into_inner);
        }
        order.failed.is_none()
    }

    fn encode(&self, job: &Job, encoder: &mut dyn Encode, mut done: Done) -> Result<Done> {
        let len = job.range.end.since(job.range.start);
        let len = usize::try_from(len).map_err(|_| Error::usage("a unit beyond memory"))?;
        done.start = job.range.start;
        done.data.resize(len, 0);
        done.packed.clear();
        done.units.clear();
        self.disk.read_at(&mut done.data, job.range.start)?;
        let first = job.range.start.0 / self.unit;
        for (n, data) in (first..).zip(done.data.chunks(self.unit as usize)) {
            done.units.push(encoder.encode(n, data, &mut done.packed)?);
        }
        Ok(done)
    }

    /// Queues an encoded job, then places and writes whatever has become next in order.
    fn submit(&self, seq: u64, done: Done, encoder: &mut dyn Encode) -> Result<()> {
        let mut order = lock(&self.order);
        order.waiting.insert(seq, done);
        loop {
            let next = order.next;
            let Some(done) = order.waiting.remove(&next) else {
                return Ok(());
            };
            let mut tables = Tables::new();
            let writes = place(order.target.as_mut(), self.unit, &done, &mut tables)?;
            order.next += 1;
            drop(order);
            let mut placed = Placed {
                done,
                writes,
                tables,
            };
            for write in &placed.writes {
                encoder.seal(write.at, write.bytes_mut(&mut placed.done));
            }
            order = lock(&self.order);
            order.placed.insert(next, placed);
            order = self.write_placed(order)?;
        }
    }

    /// Writes what is placed, in order, unless another thread does.
    fn write_placed<'a>(
        &'a self,
        mut order: MutexGuard<'a, Order>,
    ) -> Result<MutexGuard<'a, Order>> {
        if order.is_writing {
            return Ok(order);
        }
        loop {
            let next = order.written;
            let Some(placed) = order.placed.remove(&next) else {
                order.is_writing = false;
                return Ok(order);
            };
            order.is_writing = true;
            drop(order);
            self.write(&placed)?;
            let done = placed.done;
            self.progress.reached(done.start.0 + done.data.len() as u64);
            lock(&self.spare).push(done);
            order = lock(&self.order);
            order.written += 1;
            // Not for each: to be woken costs more than a job may take. The jobs before that of
            // a thread that waits are all in hand, and their number is passed on the way.
            if order.written.is_multiple_of(self.ahead / 2) {
                self.turn.notify_all();
            }
        }
    }

    fn write(&self, placed: &Placed) -> Result<()> {
        let writes = placed.writes.iter().map(|w| (w.at, w.bytes(&placed.done)));
        let tables = placed
            .tables
            .iter()
            .map(|(at, table)| (*at, table.as_slice()));
        let mut pieces: Vec<_> = writes.chain(tables).collect();
        if self.is_sequential {
            pieces.sort_unstable_by_key(|(at, _)| *at);
        }
        for (at, bytes) in pieces {
            self.sink.write_all_at(bytes, at)?;
            self.progress.wrote(bytes.len() as u64);
        }
        Ok(())
    }
}

impl Write {
    fn bytes<'a>(&self, done: &'a Done) -> &'a [u8] {
        let bytes = if self.is_packed {
            &done.packed
        } else {
            &done.data
        };
        &bytes[self.start..self.end]
    }

    fn bytes_mut<'a>(&self, done: &'a mut Done) -> &'a mut [u8] {
        let bytes = if self.is_packed {
            &mut done.packed
        } else {
            &mut done.data
        };
        &mut bytes[self.start..self.end]
    }
}

/// Places the units of a job, joining neighbours into one write.
fn place(
    target: &mut dyn Target,
    unit: u64,
    done: &Done,
    tables: &mut Tables,
) -> Result<Vec<Write>> {
    let first: UnitIndex = done.start.0 / unit;
    let mut writes: Vec<Write> = Vec::new();
    let (mut data_at, mut packed_at) = (0, 0);
    for (n, shape) in (first..).zip(&done.units) {
        let data_end = done.data.len().min(data_at + unit as usize);
        let (is_packed, start, end) = match *shape {
            Shape::Zero => {
                data_at = data_end;
                continue;
            }
            Shape::Verbatim => (false, data_at, data_end),
            Shape::Packed(len) => (true, packed_at, packed_at + len),
        };
        let len = (end - start) as u64;
        let payload = if is_packed {
            Payload::Packed(len)
        } else {
            Payload::Verbatim(len)
        };
        let at = target.place(n, payload, tables)?;
        data_at = data_end;
        if is_packed {
            packed_at = end;
        }
        match writes.last_mut() {
            Some(last)
                if last.is_packed == is_packed
                    && last.end == start
                    && last.at.0 + (last.end - last.start) as u64 == at.0 =>
            {
                last.end = end;
            }
            _ => writes.push(Write {
                at,
                is_packed,
                start,
                end,
            }),
        }
    }
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_as_many_as_memory_holds() {
        const MIB: u64 = 1 << 20;
        for (threads, encoder, unit, expected) in [
            (2, 0, 4096, 2),
            (64, 0, 4096, 33),
            (64, 64 * MIB, 4 * MIB, 2),
            (8, 1000 * MIB, 4096, 1),
            (8, 0, 1000 * MIB, 1),
        ] {
            assert_eq!(
                affordable(threads, encoder, unit),
                expected,
                "{encoder} {unit}"
            );
        }
    }
}
