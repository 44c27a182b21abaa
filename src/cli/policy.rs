//! `glint policy`: which rules hold, and what they say.

use std::path::PathBuf;

use anyhow::bail;
use clap::Subcommand;
use serde::Serialize;

use super::{Exit, output};
use crate::auth::policy::{self, Target};
use crate::auth::protections::Protections;
use crate::auth::{Context, Scope};
use crate::config::{Config, Faults};
use crate::server::Place;

/// Show and try the access rules
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// What to do.
    #[command(subcommand)]
    command: Command,

    /// Configuration file, which names the policy file
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// Policy file, instead of the one that the configuration names
    #[arg(long, value_name = "FILE", global = true)]
    policy: Option<PathBuf>,

    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List all rules that hold; those of the policy file are marked
    List,
    /// Tell whether a rule lets somebody: exit code 0 when it does, 1 when not
    Check(Check),
}

#[derive(clap::Args, Debug)]
struct Check {
    /// The rule, for instance get_image
    #[arg(long, value_name = "NAME")]
    rule: String,

    /// The caller's roles, with commas between; none is implied
    #[arg(long, value_name = "ROLES", value_delimiter = ',')]
    roles: Vec<String>,

    /// The project that the caller acts for
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,

    /// The caller
    #[arg(long, value_name = "USER")]
    user: Option<String>,

    /// Whether the caller's token is scoped to the system
    #[arg(long)]
    system: bool,

    /// An attribute of what is acted on; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    target: Vec<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut config = match &args.config {
        Some(_) => {
            let place = Place {
                data: Some(".".into()),
                config: args.config.clone(),
            };
            place.config()?
        }
        None => Config::default(),
    };
    let auth = &mut config.auth;
    auth.policy_file = args.policy.clone().or(auth.policy_file.take());
    let protections = Protections::load(&config.api).map_err(Faults)?;
    let (rules, warnings) = policy::load(&config.auth, &protections.rules()).map_err(Faults)?;
    for warning in warnings {
        output::talk(format_args!("{warning}"));
    }
    match &args.command {
        Command::List => {
            let list = rules.list();
            if args.json {
                output::json(&list)?;
            } else {
                let mut text = String::new();
                for rule in list {
                    let mark = if rule.overridden { "*" } else { " " };
                    let name = rule.rule;
                    text.push_str(&format!("{mark} {name:<42} {:?}\n", rule.check));
                }
                output::data(text.as_bytes())?;
            }
            Ok(Exit::Fine)
        }
        Command::Check(check) => {
            if !rules.knows(&check.rule) {
                bail!("there is no rule {:?}", check.rule);
            }
            let caller = Context {
                user: check.user.clone(),
                project: check.project.clone(),
                roles: check.roles.iter().map(|r| r.to_lowercase()).collect(),
                scope: if check.system {
                    Scope::System
                } else {
                    Scope::Project
                },
                ..Context::default()
            };
            let target = Attributes::parse(&check.target)?;
            let caller = caller.under(rules.clone());
            let allowed = rules.allows(&check.rule, &caller, &target);
            if args.json {
                output::json(&Answer {
                    rule: &check.rule,
                    allowed,
                })?;
            } else {
                let word = if allowed { "allowed\n" } else { "denied\n" };
                output::data(word.as_bytes())?;
            }
            Ok(if allowed { Exit::Fine } else { Exit::Image })
        }
    }
}

/// What `glint policy check` prints.
#[derive(Serialize)]
struct Answer<'a> {
    rule: &'a str,
    allowed: bool,
}

/// A target told on the command line.
struct Attributes<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Attributes<'a> {
    fn parse(given: &'a [String]) -> anyhow::Result<Self> {
        let pairs = given.iter().map(|pair| match pair.split_once('=') {
            Some(pair) => Ok(pair),
            None => bail!("--target {pair} is no NAME=VALUE"),
        });
        Ok(Self(pairs.collect::<anyhow::Result<_>>()?))
    }
}

impl Target for Attributes<'_> {
    /// `owner` and `project_id` are two names of one attribute.
    fn attribute(&self, name: &str) -> Option<std::borrow::Cow<'_, str>> {
        let same = |given: &str| {
            let owner = |name| matches!(name, "owner" | "project_id" | "tenant");
            given == name || (owner(given) && owner(name))
        };
        let found = self.0.iter().find(|(given, _)| same(given));
        found.map(|(_, value)| (*value).into())
    }
}
