//! How a machine starts, and what it is built around: where each program says so in words of its
//! own.
//!
//! | program | where |
//! | --- | --- |
//! | VMware | `vmw:Config` of the hardware section: `firmware`, `bootOptions.efiSecureBootEnabled` |
//! | VirtualBox | `vbox:Machine` / `Hardware` / `Firmware`, `Chipset` |
//! | oVirt | `BiosType` of the system: a number |

use super::{Board, Chipset, Firmware};
use crate::xml::Element;

/// Reads what `system`, whose hardware section is `hardware`, says.
pub(super) fn board(system: &Element, hardware: Option<&Element>) -> Board {
    let mut board = Board::default();
    let configs = hardware
        .into_iter()
        .flat_map(|section| section.all("Config"));
    for config in configs {
        let value = config.attribute("value").unwrap_or_default();
        match config.attribute("key") {
            Some("firmware") => board.firmware = firmware(value),
            Some("bootOptions.efiSecureBootEnabled") => board.is_secure_boot = value == "true",
            _ => {}
        }
    }
    let virtualbox = system
        .all("Machine")
        .flat_map(|machine| machine.all("Hardware"));
    for part in virtualbox.flat_map(|hardware| &hardware.children) {
        let kind = part.attribute("type").unwrap_or_default();
        match (part.name.as_str(), kind) {
            ("Firmware", _) => board.firmware = firmware(kind),
            ("Chipset", "ICH9") => board.chipset = Some(Chipset::Q35),
            ("Chipset", "PIIX3") => board.chipset = Some(Chipset::I440fx),
            _ => {}
        }
    }
    let (firmware, chipset, is_secure) = match system.text_of("BiosType") {
        Some("1") => (Firmware::Bios, Chipset::I440fx, false),
        Some("2") => (Firmware::Bios, Chipset::Q35, false),
        Some("3") => (Firmware::Efi, Chipset::Q35, false),
        Some("4") => (Firmware::Efi, Chipset::Q35, true),
        _ => return board,
    };
    Board {
        firmware: Some(firmware),
        chipset: Some(chipset),
        is_secure_boot: is_secure,
    }
}

fn firmware(word: &str) -> Option<Firmware> {
    let word = word.to_ascii_lowercase();
    match word.as_str() {
        "bios" => Some(Firmware::Bios),
        // VirtualBox knows several.
        _ if word.starts_with("efi") => Some(Firmware::Efi),
        _ => None,
    }
}
