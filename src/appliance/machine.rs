//! The virtual hardware of a descriptor in Nova's words: what has to be told of an image so that
//! its guest finds the devices it knows.
//!
//! Only what the descriptor says is told; where its dialect has no word of Nova's behind it
//! nothing is. Models are matched whatever their case: `E1000`, `e1000`.

use std::collections::BTreeMap;

use formats::container::ovf::{
    Board, Chipset, Disk, Envelope, Firmware, Hardware, System, resource_type,
};

/// Properties of an image, by name.
pub type Properties = BTreeMap<String, String>;

/// Bytes of a text kept as a property.
const MAX_TEXT: usize = 2000;
/// Bytes of a name or version kept as a property.
const MAX_WORD: usize = 255;

/// What a descriptor says of its machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Machine {
    /// The machine's name.
    pub name: Option<String>,
    /// Memory in MiB; 0 where it is not told.
    pub min_ram: i64,
    /// What goes for every disk of it.
    pub properties: Properties,
}

/// What the first machine of `envelope` is; it is the only one that is looked at.
#[must_use]
pub fn machine(envelope: &Envelope) -> Machine {
    let Some(system) = envelope.systems.first() else {
        return Machine::default();
    };
    let mut properties = Properties::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            properties.insert(name.to_owned(), value);
        }
    };
    let word = |text: &'static str| Some(text.to_owned());
    let Board {
        firmware,
        is_secure_boot,
        chipset,
    } = system.board;
    put(
        "hw_firmware_type",
        firmware.and_then(|firmware| {
            word(match firmware {
                Firmware::Bios => "bios",
                Firmware::Efi => "uefi",
            })
        }),
    );
    put("os_secure_boot", is_secure_boot.then(|| "required".into()));
    put(
        "hw_machine_type",
        chipset.and_then(|chipset| {
            word(match chipset {
                Chipset::I440fx => "pc",
                Chipset::Q35 => "q35",
            })
        }),
    );
    put(
        "hw_vif_model",
        first(system, resource_type::ETHERNET).find_map(vif_model),
    );
    put(
        "os_type",
        system.operating_system.as_deref().and_then(os_type),
    );
    put(
        "vmware_ostype",
        system.vmware_os.as_deref().map(|text| cut(text, MAX_WORD)),
    );
    for (name, count) in processors(system) {
        put(name, Some(count.to_string()));
    }
    if let Some(product) = system.products.iter().find(|p| p.product.is_some()) {
        let of = |text: &Option<String>| text.as_deref().map(|text| cut(text, MAX_WORD));
        put("os_glint_product", of(&product.product));
        put("os_glint_vendor", of(&product.vendor));
        put("os_glint_version", of(&product.version));
    }
    put(
        "os_glint_eula",
        system.eulas.first().map(|text| cut(text, MAX_TEXT)),
    );
    let memory = system.quantity(resource_type::MEMORY).unwrap_or(0);
    Machine {
        name: system.name.clone().map(|name| cut(&name, MAX_WORD)),
        min_ram: i64::from(u32::try_from(memory.div_ceil(1 << 20)).unwrap_or(0)),
        properties,
    }
}

/// What a disk hangs on: `hw_disk_bus`, and of SCSI `hw_scsi_model`.
#[must_use]
pub fn disk(envelope: &Envelope, disk: &Disk) -> Properties {
    let parent = envelope.parent_of(disk);
    let model = match parent {
        Some(parent) => parent.resource_sub_type.as_deref(),
        // oVirt says it of the disk.
        None => disk.interface.as_deref(),
    };
    let model = model.unwrap_or_default().to_ascii_lowercase();
    let is_virtio_scsi = model.contains("virtio") && model.contains("scsi");
    let bus = match (parent.and_then(Hardware::bus), model.as_str()) {
        _ if is_virtio_scsi => "scsi",
        // Nova has no bus of this name.
        (Some("nvme"), _) => return Properties::new(),
        (Some(bus), _) => bus,
        (None, "ide" | "sata" | "virtio") => &model,
        (None, _) => return Properties::new(),
    };
    let mut properties = Properties::from([("hw_disk_bus".to_owned(), bus.to_owned())]);
    if bus == "scsi"
        && let Some(model) = scsi_model(&model)
    {
        properties.insert("hw_scsi_model".into(), model.into());
    }
    properties
}

/// GiB that hold `bytes`.
#[must_use]
pub fn min_disk(bytes: u64) -> i64 {
    i64::try_from(bytes.div_ceil(1 << 30)).unwrap_or(i64::MAX)
}

fn first(system: &System, kind: u32) -> impl Iterator<Item = &Hardware> {
    let is_kind = move |item: &&Hardware| item.resource_type == Some(kind);
    system.hardware.iter().filter(is_kind)
}

/// The model of a SCSI controller. Where several are offered, the first that is known.
fn scsi_model(offered: &str) -> Option<&'static str> {
    words(offered).find_map(|word| {
        Some(match word {
            "lsilogic" => "lsilogic",
            "lsilogicsas" | "lsisas1068" => "lsisas1068",
            "buslogic" => "buslogic",
            "virtualscsi" | "pvscsi" | "vmpvscsi" => "vmpvscsi",
            _ if word.contains("virtio") => "virtio-scsi",
            _ => return None,
        })
    })
}

/// The model of a network adapter. oVirt counts them.
fn vif_model(item: &Hardware) -> Option<String> {
    let offered = item.resource_sub_type.as_deref()?.to_ascii_lowercase();
    let known = words(&offered).find_map(|word| {
        Some(match word {
            "e1000" | "2" => "e1000",
            "e1000e" => "e1000e",
            "vmxnet3" => "vmxnet3",
            "pcnet32" => "pcnet",
            "rtl8139" | "1" => "rtl8139",
            "virtio" | "3" => "virtio",
            _ => return None,
        })
    });
    known.map(str::to_owned)
}

fn words(offered: &str) -> impl Iterator<Item = &str> {
    offered.split([',', ' ']).filter(|word| !word.is_empty())
}

/// `linux` or `windows`, from a guest's name in any program's words.
fn os_type(name: &str) -> Option<String> {
    const LINUX: [&str; 17] = [
        "linux", "debian", "ubuntu", "rhel", "red hat", "centos", "fedora", "suse", "sles",
        "photon", "coreos", "oracle", "alma", "rocky", "gentoo", "mint", "amazon",
    ];
    let name = name.to_ascii_lowercase();
    if LINUX.iter().any(|word| name.contains(word)) {
        return Some("linux".into());
    }
    // `darwin` is none of them.
    let is_windows = name.starts_with("win") || name.contains("windows");
    is_windows.then(|| "windows".into())
}

/// Sockets and cores, where processors are counted.
fn processors(system: &System) -> Vec<(&'static str, u64)> {
    let Some(count) = system.quantity(resource_type::PROCESSOR).filter(|n| *n > 0) else {
        return Vec::new();
    };
    let cores = first(system, resource_type::PROCESSOR).find_map(|item| item.cores_per_socket);
    match cores {
        Some(cores) if cores > 0 && count.is_multiple_of(cores) => {
            vec![("hw_cpu_sockets", count / cores), ("hw_cpu_cores", cores)]
        }
        _ => vec![("hw_cpu_sockets", count)],
    }
}

/// At most `max` bytes of a text, without what no property may hold.
fn cut(text: &str, max: usize) -> String {
    let text: String = text
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect();
    text[..text.floor_char_boundary(max)].trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn corpus(name: &str) -> Option<Envelope> {
        let folder = PathBuf::from(std::env::var_os("GLINT_CORPUS")?);
        let bytes = std::fs::read(folder.join(name)).unwrap();
        Some(Envelope::parse(&bytes).unwrap())
    }

    /// All that is told of the disk at `index`, a line a property.
    fn told(envelope: &Envelope, index: usize) -> String {
        let machine = machine(envelope);
        let found = envelope.disks_in_order().nth(index);
        let mut all = machine.properties;
        all.remove("os_glint_eula");
        all.extend(found.map(|found| disk(envelope, found)).unwrap_or_default());
        let line = |(name, value): (&String, &String)| format!("{name}={value}");
        let lines: Vec<_> = all.iter().map(line).collect();
        format!("{} ram={}", lines.join(" "), machine.min_ram)
    }

    #[test]
    fn the_dialects_of_the_corpus() {
        for (name, index, want) in [
            // VMware.
            (
                "ovf/govmomi/ubuntu24.10.ovf",
                0,
                "hw_cpu_sockets=2 hw_disk_bus=scsi hw_firmware_type=bios hw_scsi_model=vmpvscsi \
                 hw_vif_model=vmxnet3 os_glint_product=Ubuntu 24.10 Server (20241109) \
                 os_type=linux vmware_ostype=ubuntu64Guest ram=1024",
            ),
            (
                "ovf/v2v-test-i-ova-two-disks.ovf",
                1,
                "hw_cpu_sockets=1 hw_disk_bus=scsi hw_firmware_type=bios \
                 hw_scsi_model=lsisas1068 hw_vif_model=e1000 os_type=windows \
                 vmware_ostype=windows7Server64Guest ram=1024",
            ),
            (
                "ovf/govmomi/vmware/esxvmovf-25262174.ovf",
                0,
                "hw_cpu_sockets=2 hw_disk_bus=scsi hw_firmware_type=uefi hw_scsi_model=vmpvscsi \
                 hw_vif_model=vmxnet3 vmware_ostype=vmkernel8Guest ram=8192",
            ),
            // VirtualBox, and of version 0.9.
            (
                "ova/ganeti/virtualbox.ovf",
                0,
                "hw_cpu_sockets=1 hw_disk_bus=ide hw_vif_model=pcnet os_type=linux ram=2048",
            ),
            (
                "ovf/vbox-joomla-0.9.ovf",
                1,
                "hw_cpu_sockets=1 hw_disk_bus=scsi hw_scsi_model=lsilogic hw_vif_model=pcnet \
                 os_type=linux ram=256",
            ),
        ] {
            let Some(envelope) = corpus(name) else { return };
            assert_eq!(told(&envelope, index), want, "{name}");
        }
    }

    fn envelope(disk: &str, system: &str) -> Envelope {
        let text = format!(
            r#"<Envelope><DiskSection><Disk diskId="d" capacity="9" {disk}/></DiskSection>
            <VirtualSystem><Name>m</Name>{system}</VirtualSystem></Envelope>"#
        );
        Envelope::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn controllers_of_every_kind() {
        for (kind, model, want) in [
            (5, "PIIX4", "hw_disk_bus=ide"),
            (
                6,
                "LsiLogicSAS",
                "hw_disk_bus=scsi hw_scsi_model=lsisas1068",
            ),
            (6, "VirtualSCSI", "hw_disk_bus=scsi hw_scsi_model=vmpvscsi"),
            (
                6,
                "someother, lsilogic",
                "hw_disk_bus=scsi hw_scsi_model=lsilogic",
            ),
            (6, "fancy", "hw_disk_bus=scsi"),
            (20, "AHCI", "hw_disk_bus=sata"),
            (20, "vmware.sata.ahci", "hw_disk_bus=sata"),
            (20, "vmware.nvme.controller", ""),
            (
                20,
                "VirtioSCSI",
                "hw_disk_bus=scsi hw_scsi_model=virtio-scsi",
            ),
            (20, "virtio", "hw_disk_bus=virtio"),
        ] {
            let items = format!(
                "<VirtualHardwareSection><Item><InstanceID>3</InstanceID>
                <ResourceType>{kind}</ResourceType><ResourceSubType>{model}</ResourceSubType>
                </Item><Item><InstanceID>4</InstanceID><Parent>3</Parent>
                <ResourceType>17</ResourceType><HostResource>ovf:/disk/d</HostResource></Item>
                </VirtualHardwareSection>"
            );
            assert_eq!(
                told(&envelope("", &items), 0).trim_end_matches(" ram=0"),
                want,
                "{model}"
            );
        }
        for (interface, want) in [
            ("VirtIO_SCSI", "hw_disk_bus=scsi hw_scsi_model=virtio-scsi"),
            ("VirtIO", "hw_disk_bus=virtio"),
            ("IDE", "hw_disk_bus=ide"),
            ("SPAPR_VSCSI", ""),
        ] {
            let of_ovirt = format!(r#"disk-interface="{interface}""#);
            assert_eq!(
                told(&envelope(&of_ovirt, ""), 0).trim_end_matches(" ram=0"),
                want
            );
        }
    }

    #[test]
    fn boards_in_three_dialects() {
        let vmware = |key: &str, value: &str| {
            format!(r#"<vmw:Config vmw:key="{key}" vmw:value="{value}"/>"#)
        };
        let section =
            |inside: &str| format!("<VirtualHardwareSection>{inside}</VirtualHardwareSection>");
        let virtualbox =
            |inside: &str| format!("<vbox:Machine><Hardware>{inside}</Hardware></vbox:Machine>");
        let secure =
            vmware("firmware", "efi") + &vmware("bootOptions.efiSecureBootEnabled", "true");
        for (system, want) in [
            (
                section(&vmware("firmware", "bios")),
                "hw_firmware_type=bios",
            ),
            (
                section(&secure),
                "hw_firmware_type=uefi os_secure_boot=required",
            ),
            (section(&vmware("firmware", "@@FIRMWARE@@")), ""),
            (
                virtualbox(r#"<Firmware type="EFI64"/><Chipset type="ICH9"/>"#),
                "hw_firmware_type=uefi hw_machine_type=q35",
            ),
            (
                virtualbox(r#"<Chipset type="PIIX3"/>"#),
                "hw_machine_type=pc",
            ),
            (
                "<BiosType>1</BiosType>".into(),
                "hw_firmware_type=bios hw_machine_type=pc",
            ),
            (
                "<BiosType>3</BiosType>".into(),
                "hw_firmware_type=uefi hw_machine_type=q35",
            ),
            (
                "<BiosType>4</BiosType>".into(),
                "hw_firmware_type=uefi hw_machine_type=q35 os_secure_boot=required",
            ),
            ("<BiosType>0</BiosType>".into(), ""),
        ] {
            assert_eq!(
                told(&envelope("", &system), 0).trim_end_matches(" ram=0"),
                want
            );
        }
    }

    #[test]
    fn adapters_processors_and_guests() {
        let item = |kind: u32, inside: &str| {
            format!(
                "<VirtualHardwareSection><Item><ResourceType>{kind}</ResourceType>{inside}</Item></VirtualHardwareSection>"
            )
        };
        let model = |name: &str| item(10, &format!("<ResourceSubType>{name}</ResourceSubType>"));
        let guest = |name: &str| {
            format!(
                "<OperatingSystemSection><Description>{name}</Description></OperatingSystemSection>"
            )
        };
        for (system, want) in [
            (model("E1000E"), "hw_vif_model=e1000e"),
            (model("VMXNET3"), "hw_vif_model=vmxnet3"),
            (model("PCNet32"), "hw_vif_model=pcnet"),
            (model("3"), "hw_vif_model=virtio"),
            (model("Vmxnet"), ""),
            (
                item(
                    3,
                    "<VirtualQuantity>6</VirtualQuantity><vmw:CoresPerSocket>3</vmw:CoresPerSocket>",
                ),
                "hw_cpu_cores=3 hw_cpu_sockets=2",
            ),
            (
                item(
                    3,
                    "<VirtualQuantity>5</VirtualQuantity><CoresPerSocket>2</CoresPerSocket>",
                ),
                "hw_cpu_sockets=5",
            ),
            (item(3, "<VirtualQuantity>0</VirtualQuantity>"), ""),
            (guest("Ubuntu_64"), "os_type=linux"),
            (guest("Microsoft Windows Server 2019"), "os_type=windows"),
            (guest("windows9_64Guest"), "os_type=windows"),
            (guest("darwin14_64Guest"), ""),
        ] {
            assert_eq!(
                told(&envelope("", &system), 0).trim_end_matches(" ram=0"),
                want
            );
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let long = format!(
            "<EulaSection><License>{}</License></EulaSection>",
            "ä".repeat(5000)
        );
        let machine = machine(&envelope("", &long));
        assert_eq!(machine.properties["os_glint_eula"].len(), MAX_TEXT);
        assert_eq!(cut("a\u{7}b\nc", 3), "ab");
        assert_eq!(min_disk(1), 1);
        assert_eq!(min_disk(3 << 30), 3);
    }
}
