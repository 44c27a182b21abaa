//! Options of what is written, as they are typed.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use formats::container::Wrap;
use formats::qcow2::Encryption;
use formats::{CreateOptions, Format, Passphrase};

use super::permit;

/// The option that asks for encryption, in qemu-img's words.
const ENCRYPT: &str = "encrypt.format";

/// What keys are drawn from.
pub(super) const CHANCE: &str = "/dev/urandom";

/// How outputs are written.
#[derive(clap::Args)]
pub(super) struct Written {
    /// Options of the output's format; may be repeated
    #[arg(short, value_name = "KEY=VALUE,…", value_delimiter = ',', value_parser = pair)]
    pub(super) options: Vec<(String, String)>,

    /// Passphrase of an image written with -o encrypt.format=luks: all bytes of this file
    #[arg(long, value_name = "FILE")]
    pub(super) output_passphrase_file: Option<PathBuf>,

    /// Compress the output
    #[arg(short)]
    pub(super) compress: bool,

    /// Compress the whole output file: gz or zst, with a level if wanted, as in zst:19
    #[arg(long, value_name = "gz|zst[:LEVEL]")]
    pub(super) wrap: Option<Wrap>,
}

/// An option as it is typed.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("expected key=value".into()),
    }
}

/// What `-O`, `-o`, `-c` and `--output-passphrase-file` ask for.
pub(super) fn options(
    format: Format,
    pairs: &[(String, String)],
    compress: bool,
    passphrase_file: Option<&Path>,
) -> anyhow::Result<CreateOptions> {
    let (options, is_encrypted) = parse(format, pairs, compress)?;
    match (is_encrypted, passphrase_file) {
        (false, None) => Ok(options),
        (false, Some(_)) => bail!("--output-passphrase-file wants -o {ENCRYPT}=luks"),
        (true, None) => bail!("{ENCRYPT} wants --output-passphrase-file"),
        (true, Some(path)) => {
            let mut seed = [0; 32];
            File::open(CHANCE)
                .and_then(|mut source| source.read_exact(&mut seed))
                .context("asking the system for randomness")?;
            Ok(encrypted(
                options,
                Encryption {
                    passphrase: permit::passphrase(path)?,
                    seed,
                    iterations: Encryption::ITERATIONS,
                },
            ))
        }
    }
}

/// The same for an image that is never written: how large it is depends on no passphrase.
pub(super) fn options_to_measure(
    format: Format,
    pairs: &[(String, String)],
    compress: bool,
) -> anyhow::Result<CreateOptions> {
    let (options, is_encrypted) = parse(format, pairs, compress)?;
    if !is_encrypted {
        return Ok(options);
    }
    let any = Encryption {
        passphrase: Passphrase::new(b"any")?,
        seed: [0; 32],
        iterations: 1000,
    };
    Ok(encrypted(options, any))
}

/// The options of the format, and whether it is to be encrypted, too.
fn parse(
    format: Format,
    pairs: &[(String, String)],
    compress: bool,
) -> anyhow::Result<(CreateOptions, bool)> {
    let (encrypt, others): (Vec<_>, Vec<_>) =
        pairs.iter().cloned().partition(|(key, _)| key == ENCRYPT);
    let options = CreateOptions::parse(format, &others, compress)?;
    match encrypt.as_slice() {
        [] => Ok((options, false)),
        _ if format != Format::Qcow2 => bail!("{format} is not written encrypted: qcow2 is"),
        [(_, method)] if method == "luks" => Ok((options, true)),
        [(_, method)] => bail!("{ENCRYPT} is {method:?}, allowed luks"),
        _ => bail!("option {ENCRYPT:?} is given twice"),
    }
}

fn encrypted(mut options: CreateOptions, encryption: Encryption) -> CreateOptions {
    if let CreateOptions::Qcow2(options) = &mut options {
        options.encryption = Some(encryption);
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryption_and_its_passphrase_come_together() {
        let pair = |text: &str| pair(text).unwrap();
        let luks = [pair("encrypt.format=luks"), pair("compat=1.1")];
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "open sesame").unwrap();
        let given = Some(file.path());
        let parsed = options(Format::Qcow2, &luks, false, given).unwrap();
        let CreateOptions::Qcow2(parsed) = parsed else {
            panic!("not qcow2");
        };
        let encryption = parsed.encryption.unwrap();
        assert_eq!(encryption.passphrase.bytes(), b"open sesame");
        assert_ne!(encryption.seed, [0; 32]);

        assert!(options(Format::Qcow2, &luks, false, None).is_err());
        assert!(options(Format::Qcow2, &[], false, given).is_err());
        assert!(options(Format::Raw, &luks[..1], false, given).is_err());
        let aes = [pair("encrypt.format=aes")];
        assert!(options(Format::Qcow2, &aes, false, given).is_err());
        let twice = [luks[0].clone(), luks[0].clone()];
        assert!(options(Format::Qcow2, &twice, false, given).is_err());
        assert!(options_to_measure(Format::Qcow2, &luks, false).is_ok());
    }
}
