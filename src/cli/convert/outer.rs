//! The outer process of a conversion: it looks at no byte of an image. It makes the folder that
//! the inner one writes in, and gives what is complete there its name.

use anyhow::Context;

use super::place::Place;
use super::stdout::Stdout;
use super::write::What;
use super::{Args, DASH, Done};
use crate::cli::apart::{self, Inner};
use crate::cli::output::{self, Output};
use crate::cli::{Exit, Told};

/// Converts by an inner process; `None` when that has said all that there is to say.
pub(super) fn run(args: &Args) -> anyhow::Result<Option<Done>> {
    // Usage first: it costs no process.
    let mut what = What::parse(args)?;
    if args.to.as_os_str() == DASH {
        Stdout::new(args, &what)?;
        return match Inner::new(&apart::temp_dir())?.run(false)?.exit {
            Exit::Fine => Ok(None),
            exit => Err(Told(exit).into()),
        };
    }
    let place = Place::new(&args.to, None)?;
    what.named(&place.name());
    let outcome = Inner::new(place.dir())?.run(true)?;
    if outcome.exit != Exit::Fine {
        if args.output == Output::Json {
            output::data(outcome.said.as_bytes())?;
        }
        return Err(Told(outcome.exit).into());
    }
    let done: Done = serde_json::from_str(&outcome.said).context("hearing the inner process")?;
    // The names are worked out here: what an inner process says is believed for nothing else.
    place.take_over(outcome.folder, what.parts(done.virtual_size)?)?;
    Ok(Some(done))
}
