//! From the tree to the [`Envelope`].

use std::collections::HashSet;

use super::board::board;
use super::{Disk, Envelope, File, Hardware, Product, Property, System, resource_type, units};
use crate::container::push_finding;
use crate::inspect::{Finding, Severity};
use crate::xml::Element;
use crate::{Error, Format, Result};

/// Disks of a descriptor; each may cost an inspection.
const MAX_DISKS: usize = 256;

/// The name of a section: in version 0.9 they are all `Section` and `Content`, of a type.
fn section_name(element: &Element) -> &str {
    match element.name.as_str() {
        "Section" | "Content" => {
            let kind = element.attribute("type").unwrap_or_default();
            let kind = kind.rsplit_once(':').map_or(kind, |(_, kind)| kind);
            kind.strip_suffix("_Type").unwrap_or(kind)
        }
        name => name,
    }
}

fn sections<'a>(parent: &'a Element, name: &'a str) -> impl Iterator<Item = &'a Element> + 'a {
    parent
        .children
        .iter()
        .filter(move |e| section_name(e) == name)
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(ToOwned::to_owned)
}

pub(super) fn envelope(root: &Element) -> Result<Envelope> {
    if root.name != "Envelope" {
        return Err(Error::malformed(
            Format::Ovf,
            "xml",
            format!("the root element is {:?}, not an Envelope", root.name),
        ));
    }
    let mut envelope = Envelope {
        version: owned(root.attribute("version")).filter(|v| !v.is_empty()),
        ..Envelope::default()
    };
    for references in root.all("References") {
        for file in references.all("File") {
            envelope.take_file(file);
        }
    }
    for section in sections(root, "DiskSection") {
        for disk in section.all("Disk") {
            envelope.take_disk(disk);
        }
    }
    envelope.take_systems(root);
    if envelope.disks.len() > MAX_DISKS {
        let message = format!("{} disks, allowed {MAX_DISKS}", envelope.disks.len());
        envelope.find("ovf_too_many_disks", Severity::Unsafe, message);
        envelope.disks.truncate(MAX_DISKS);
    }
    envelope.find_duplicates();
    Ok(envelope)
}

impl Envelope {
    fn find(&mut self, rule: &'static str, severity: Severity, message: String) {
        let finding = Finding {
            rule,
            severity,
            place: "descriptor".into(),
            message,
        };
        push_finding(&mut self.findings, finding);
    }

    /// A number that matters little: what is none is noted and left out.
    fn number(&mut self, element: &Element, name: &str) -> Option<u64> {
        let text = element.attribute(name)?;
        let number = text.trim().parse().ok();
        if number.is_none() && !text.is_empty() {
            self.find(
                "ovf_number",
                Severity::Warning,
                format!("{name} of a {} is {text:?}, which is no size", element.name),
            );
        }
        number
    }

    fn take_file(&mut self, element: &Element) {
        let id = element.attribute("id").unwrap_or_default().to_owned();
        let Some(href) = element.attribute("href").filter(|href| !href.is_empty()) else {
            self.find(
                "ovf_reference",
                Severity::Unsafe,
                format!("the file {id:?} has no href"),
            );
            return;
        };
        let file = File {
            href: href.to_owned(),
            size: self.number(element, "size"),
            chunk_size: self.number(element, "chunkSize"),
            compression: owned(element.attribute("compression"))
                .filter(|c| !matches!(c.as_str(), "" | "identity")),
            id,
        };
        self.files.push(file);
    }

    fn take_disk(&mut self, element: &Element) {
        let id = element.attribute("diskId").unwrap_or_default().to_owned();
        if id.is_empty() {
            let message = "a disk has no diskId".into();
            self.find("ovf_disk_id", Severity::Warning, message);
        }
        let text = |name| owned(element.attribute(name)).filter(|text| !text.is_empty());
        let disk = Disk {
            capacity: self.capacity(element, &id),
            populated_size: self.number(element, "populatedSize"),
            file_ref: text("fileRef"),
            format: text("format"),
            parent_ref: text("parentRef"),
            interface: text("disk-interface"),
            id,
        };
        self.disks.push(disk);
    }

    fn capacity(&mut self, element: &Element, id: &str) -> Option<u64> {
        let Some(text) = element.attribute("capacity").map(str::trim) else {
            // oVirt's export domains have this instead, in GiB.
            if element.attribute("size").is_some() {
                return self.number(element, "size")?.checked_mul(1 << 30);
            }
            let message = format!("the disk {id:?} has no capacity");
            self.find("ovf_capacity", Severity::Warning, message);
            return None;
        };
        if text.starts_with("${") && text.ends_with('}') {
            let message = format!("a property decides the capacity of disk {id:?}: {text}");
            self.find("ovf_capacity", Severity::Note, message);
            return None;
        }
        let unit = element
            .attribute("capacityAllocationUnits")
            .unwrap_or("byte");
        let capacity = text.parse().ok().and_then(|n| units::bytes(n, unit));
        if capacity.is_none_or(|bytes| bytes == 0) {
            let message = format!(
                "the capacity of disk {id:?} is {text:?} in units of {unit:?}, allowed 1 to {} bytes",
                u64::MAX
            );
            self.find("ovf_capacity", Severity::Unsafe, message);
            return None;
        }
        capacity
    }

    /// Takes the systems inside `parent`, depth first; collections nest.
    fn take_systems(&mut self, parent: &Element) {
        for element in &parent.children {
            match section_name(element) {
                "VirtualSystem" => self.systems.push(system(element)),
                "VirtualSystemCollection" => self.take_systems(element),
                _ => {}
            }
        }
    }

    fn find_duplicates(&mut self) {
        let mut seen = HashSet::new();
        let disk = self.disks.iter().find(|d| !seen.insert(d.id.as_str()));
        let disk = disk.map(|d| format!("two disks have the diskId {:?}", d.id));
        let mut seen = HashSet::new();
        let file = self.files.iter().find(|f| !seen.insert(f.id.as_str()));
        let file = file.map(|f| format!("two files have the id {:?}", f.id));
        for message in disk.into_iter().chain(file) {
            self.find("ovf_duplicate_id", Severity::Unsafe, message);
        }
    }
}

fn system(element: &Element) -> System {
    let hardware = sections(element, "VirtualHardwareSection").next();
    System {
        id: element.attribute("id").unwrap_or_default().to_owned(),
        name: owned(element.text_of("Name")),
        operating_system: sections(element, "OperatingSystemSection").find_map(operating_system),
        vmware_os: sections(element, "OperatingSystemSection")
            .find_map(|section| owned(section.attribute("osType"))),
        board: board(element, hardware),
        products: sections(element, "ProductSection").map(product).collect(),
        hardware: hardware.map_or_else(Vec::new, |section| {
            let is_item = |e: &&Element| {
                matches!(e.name.as_str(), "Item" | "StorageItem" | "EthernetPortItem")
            };
            section.children.iter().filter(is_item).map(item).collect()
        }),
        eulas: sections(element, "EulaSection")
            .filter_map(|section| section.text_of("License"))
            .map(|text| text[..text.floor_char_boundary(System::MAX_EULA)].to_owned())
            .collect(),
    }
}

fn operating_system(section: &Element) -> Option<String> {
    let text = section
        .text_of("Description")
        .or_else(|| section.attribute("osType"))
        .or_else(|| section.text_of("OSType"));
    owned(text)
}

fn product(section: &Element) -> Product {
    let properties = section.all("Property").chain(
        section
            .all("Category")
            .flat_map(|category| category.all("Property")),
    );
    Product {
        class: owned(section.attribute("class")),
        product: owned(section.text_of("Product")),
        vendor: owned(section.text_of("Vendor")),
        version: owned(section.text_of("Version")),
        full_version: owned(section.text_of("FullVersion")),
        properties: properties
            .filter_map(|property| {
                Some(Property {
                    key: property.attribute("key")?.to_owned(),
                    kind: owned(property.attribute("type")),
                    value: owned(property.attribute("value")),
                    label: owned(property.text_of("Label")),
                    is_user_configurable: property
                        .attribute("userConfigurable")
                        .is_some_and(|text| matches!(text, "true" | "1")),
                })
            })
            .collect(),
    }
}

fn item(element: &Element) -> Hardware {
    let text = |name| owned(element.text_of(name));
    let resource_type = element.text_of("ResourceType").and_then(|t| t.parse().ok());
    let quantity = element
        .text_of("VirtualQuantity")
        .and_then(|t| t.parse().ok());
    Hardware {
        // Version 0.9 spells it differently.
        instance_id: text("InstanceID").or_else(|| text("InstanceId")),
        resource_type,
        resource_sub_type: text("ResourceSubType"),
        element_name: text("ElementName").or_else(|| text("Caption")),
        parent: text("Parent"),
        // VMware's word, and oVirt's.
        cores_per_socket: ["CoresPerSocket", "cpu_per_socket"]
            .into_iter()
            .find_map(|name| element.text_of(name)?.parse().ok()),
        address_on_parent: text("AddressOnParent"),
        address: text("Address"),
        virtual_quantity: match resource_type {
            Some(resource_type::MEMORY) => quantity.and_then(|n| {
                units::bytes(n, element.text_of("AllocationUnits").unwrap_or("byte"))
            }),
            _ => quantity,
        },
        host_resources: element
            .all("HostResource")
            .map(|resource| resource.text.clone())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(inside: &str) -> Envelope {
        let xml = format!(
            r#"<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
            xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">{inside}</Envelope>"#
        );
        Envelope::parse(xml.as_bytes()).unwrap()
    }

    fn rules(envelope: &Envelope) -> Vec<&'static str> {
        envelope.findings.iter().map(|f| f.rule).collect()
    }

    #[test]
    fn reads_sections_of_both_generations() {
        let new = envelope(
            r#"<DiskSection><Disk ovf:diskId="a" ovf:capacity="2" ovf:fileRef="f"
            ovf:capacityAllocationUnits="byte * 2^30"/></DiskSection>
            <VirtualSystem ovf:id="v"><Name>n</Name></VirtualSystem>"#,
        );
        let old = envelope(
            r#"<Section xsi:type="ovf:DiskSection_Type">
            <Disk ovf:diskId="a" ovf:capacity="2147483648" ovf:fileRef="f"/></Section>
            <Content ovf:id="v" xsi:type="ovf:VirtualSystem_Type"><Name>n</Name></Content>"#,
        );
        for envelope in [new, old] {
            assert_eq!(envelope.disks[0].capacity, Some(2 << 30));
            assert_eq!(envelope.systems[0].name.as_deref(), Some("n"));
            assert_eq!(rules(&envelope), [""; 0]);
        }
    }

    #[test]
    fn disks_follow_the_hardware() {
        let disk = |id| format!(r#"<Disk diskId="{id}" capacity="1"/>"#);
        let item = |resource| {
            format!(
                "<Item><HostResource>{resource}</HostResource><ResourceType>17</ResourceType></Item>"
            )
        };
        let envelope = envelope(&format!(
            "<DiskSection>{}{}{}</DiskSection><VirtualSystemCollection><VirtualSystem>
            <VirtualHardwareSection>{}{}{}{}</VirtualHardwareSection>
            </VirtualSystem></VirtualSystemCollection>",
            disk("a"),
            disk("b"),
            disk("c"),
            item("ovf:/disk/c"),
            item("ovf://disk/b"),
            item("/disk/c"),
            item("ovf:/file/a"),
        ));
        let order: Vec<_> = envelope.disks_in_order().map(|d| d.id.as_str()).collect();
        assert_eq!(order, ["c", "b", "a"]);
    }

    #[test]
    fn controllers_are_told_in_all_dialects() {
        let item = |inside: &str| format!("<Item>{inside}</Item>");
        let items = [
            "<InstanceID>3</InstanceID><ResourceType>6</ResourceType><Address>1</Address>
             <ResourceSubType>lsilogic</ResourceSubType>",
            "<InstanceId>5</InstanceId><ResourceType>20</ResourceType>
             <ResourceSubType>AHCI</ResourceSubType>",
            "<InstanceID>8</InstanceID><ResourceType>17</ResourceType><Parent>3</Parent>
             <AddressOnParent>2</AddressOnParent><HostResource>ovf:/disk/a</HostResource>",
            "<InstanceID>x</InstanceID><ResourceType>17</ResourceType><Parent>5</Parent>",
            "<InstanceID>9</InstanceID><ResourceType>17</ResourceType>
             <HostResource>group/image</HostResource>",
        ]
        .map(item)
        .concat();
        let envelope = envelope(&format!(
            r#"<DiskSection><Disk diskId="x" capacity="1"/>
            <Disk diskId="o" size="3" fileRef="group/image" disk-interface="VirtIO_SCSI"/>
            <Disk diskId="a" capacity="1"/></DiskSection><VirtualSystem>
            <VirtualHardwareSection>{items}</VirtualHardwareSection></VirtualSystem>"#
        ));
        let order: Vec<_> = envelope.disks_in_order().map(|d| d.id.as_str()).collect();
        assert_eq!(order, ["a", "x", "o"]);
        let found: Vec<_> = envelope.disks_in_order().collect();
        let found: Vec<_> = found.iter().map(|d| envelope.controller_of(d)).collect();
        let found: Vec<_> = found.iter().map(Option::as_deref).collect();
        assert_eq!(
            found,
            [
                Some("scsi (lsilogic) 1:2"),
                Some("sata (AHCI)"),
                Some("virtio_scsi")
            ]
        );
        assert_eq!(envelope.disks[1].capacity, Some(3 << 30));
        assert_eq!(rules(&envelope), [""; 0]);
    }

    #[test]
    fn wrong_capacities_are_findings() {
        for (capacity, rule) in [
            ("0", Severity::Unsafe),
            ("-1", Severity::Unsafe),
            ("18446744073709551616", Severity::Unsafe),
            ("1e9", Severity::Unsafe),
            ("${size}", Severity::Note),
        ] {
            let envelope = envelope(&format!(
                r#"<DiskSection><Disk diskId="a" capacity="{capacity}"/></DiskSection>"#
            ));
            assert_eq!(envelope.disks[0].capacity, None);
            assert_eq!(envelope.findings[0].severity, rule, "{capacity}");
        }
    }

    #[test]
    fn duplicate_ids_are_findings() {
        let twice = r#"<File id="f" href="a"/><File id="f" href="b"/>"#;
        let envelope = envelope(&format!("<References>{twice}</References>"));
        assert_eq!(rules(&envelope), ["ovf_duplicate_id"]);
    }

    #[test]
    fn counts_processors_and_memory() {
        let envelope = envelope(
            "<VirtualSystem><VirtualHardwareSection>
            <Item><ResourceType>3</ResourceType><VirtualQuantity>2</VirtualQuantity></Item>
            <Item><ResourceType>4</ResourceType><VirtualQuantity>512</VirtualQuantity>
            <AllocationUnits>byte * 2^20</AllocationUnits></Item>
            </VirtualHardwareSection></VirtualSystem>",
        );
        let system = &envelope.systems[0];
        assert_eq!(system.quantity(resource_type::PROCESSOR), Some(2));
        assert_eq!(system.quantity(resource_type::MEMORY), Some(512 << 20));
        assert_eq!(system.quantity(resource_type::DISK), None);
    }

    #[test]
    fn only_envelopes_are_descriptors() {
        assert!(Envelope::parse(b"<Domain/>").is_err());
        assert!(Envelope::parse(b"<ovf:Envelope/>").is_ok());
    }
}
