//! `glint auth`: tokens for those without Keystone.

use anyhow::Context as _;
use clap::Subcommand;

use super::{Exit, output};
use crate::auth::{Digits, Entry, Moment, TokenFile};
use crate::domain::Timestamp;

/// Make tokens for the authentication mode "static"
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Make a token: itself goes to standard error, its entry for the file to standard output
    Token(Token),
}

#[derive(clap::Args, Debug)]
struct Token {
    /// Whose it is
    #[arg(long, value_name = "USER")]
    user: String,

    /// The project they act for
    #[arg(long, value_name = "PROJECT")]
    project: String,

    /// Their role in it; may be given several times. admin is member too, member is reader
    #[arg(long = "role", value_name = "ROLE", default_value = "member")]
    roles: Vec<String>,

    /// Days until it ends; for ever where absent
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..))]
    days: Option<u16>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let Command::Token(wanted) = &args.command;
    // Two random UUIDs: 244 bits from the system's generator.
    let random = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
    let token = random.map(|r| r.simple().to_string()).concat();
    let end = |days: u16| Timestamp::now().plus_seconds(i64::from(days) * 86_400);
    let entry = Entry {
        sha256: Digits::of(&token),
        user: wanted.user.clone(),
        project: wanted.project.clone(),
        roles: wanted.roles.clone(),
        expires: wanted.days.map(|days| Moment(end(days))),
    };
    let file = TokenFile {
        tokens: vec![entry],
    };
    let text = toml::to_string(&file).context("writing the entry")?;
    output::data(text.as_bytes())?;
    output::talk(format_args!("the token is {token}"));
    Ok(Exit::Fine)
}
