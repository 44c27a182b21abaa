//! Descriptors of the Open Virtualization Format, and which disks they name.
//!
//! ```text
//!  Envelope
//!  ├─ References          File (id, href, size, compression, chunkSize)
//!  ├─ DiskSection         Disk (diskId, fileRef, capacity, format, parentRef)
//!  └─ VirtualSystem(s)    Name, ProductSection, OperatingSystemSection, EulaSection
//!                         VirtualHardwareSection: Item (ResourceType, HostResource ovf:/disk/…)
//! ```
//! DSP0243 1.1.1 and 2.1.1; version 0.9, where sections carry their name as `xsi:type`; what
//! VirtualBox, VMware, oVirt and Xen make of it. The schema is not validated: what is not about
//! disks is taken as far as it is understood.

mod board;
mod parse;
mod units;

use serde_json::{Map, Value, json};

use crate::inspect::Finding;
use crate::{Format, Result, xml};

/// The largest descriptor read, in bytes.
pub const MAX_LEN: u64 = 4 << 20;

/// CIM resource types of a [`Hardware`] item.
pub mod resource_type {
    /// A processor; `virtual_quantity` counts them.
    pub const PROCESSOR: u32 = 3;
    /// Memory; `virtual_quantity` in bytes.
    pub const MEMORY: u32 = 4;
    /// An IDE controller.
    pub const IDE: u32 = 5;
    /// A SCSI controller.
    pub const SCSI: u32 = 6;
    /// An ethernet adapter.
    pub const ETHERNET: u32 = 10;
    /// A CD-ROM drive.
    pub const CD: u32 = 15;
    /// A disk.
    pub const DISK: u32 = 17;
    /// A SATA (or other) controller.
    pub const OTHER_STORAGE: u32 = 20;
}

/// A whole descriptor.
#[derive(Clone, Debug, Default)]
pub struct Envelope {
    /// Its version, where it names one.
    pub version: Option<String>,
    /// The files it refers to.
    pub files: Vec<File>,
    /// The disks, in the order of the disk section.
    pub disks: Vec<Disk>,
    /// The virtual systems, those of collections among them.
    pub systems: Vec<System>,
    /// What is noteworthy or wrong.
    pub findings: Vec<Finding>,
}

/// A referenced file.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// What disks refer to it by.
    pub id: String,
    /// Its name or address, not to be trusted.
    pub href: String,
    /// Its length in bytes.
    pub size: Option<u64>,
    /// `gzip`, or what else it says.
    pub compression: Option<String>,
    /// Bytes of each of its parts, where it is cut in parts.
    pub chunk_size: Option<u64>,
}

/// A virtual disk.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// What hardware items refer to it by.
    pub id: String,
    /// The id of its [`File`]; `None`: the disk is created empty.
    pub file_ref: Option<String>,
    /// Bytes the guest sees; `None` where it is wrong, or a property decides.
    pub capacity: Option<u64>,
    /// Bytes in use.
    pub populated_size: Option<u64>,
    /// The address of its format's specification.
    pub format: Option<String>,
    /// The disk it is a difference to.
    pub parent_ref: Option<String>,
    /// The kind of its controller, where oVirt says it here.
    pub interface: Option<String>,
}

/// A virtual system.
#[derive(Clone, Debug, Default)]
pub struct System {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// The guest: a description, or VMware's or CIM's name for it.
    pub operating_system: Option<String>,
    /// VMware's name for the guest: `debian12_64Guest`.
    pub vmware_os: Option<String>,
    /// How it starts, and what it is built around.
    pub board: Board,
    /// What is or will be installed.
    pub products: Vec<Product>,
    /// Hardware, in the order of its first hardware section.
    pub hardware: Vec<Hardware>,
    /// Licence texts, cut to [`MAX_EULA`](Self::MAX_EULA) bytes each.
    pub eulas: Vec<String>,
}

impl System {
    /// Bytes kept of a licence text.
    pub const MAX_EULA: usize = 64 << 10;

    /// The sum over the hardware items of `resource_type`; `None` where there are none.
    #[must_use]
    pub fn quantity(&self, resource_type: u32) -> Option<u64> {
        self.hardware
            .iter()
            .filter(|item| item.resource_type == Some(resource_type))
            .filter_map(|item| item.virtual_quantity)
            .reduce(u64::saturating_add)
    }
}

/// How a machine starts, and what it is built around, as far as its descriptor says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Board {
    /// What starts it.
    pub firmware: Option<Firmware>,
    /// Whether that starts signed programs only.
    pub is_secure_boot: bool,
    /// What the processor hangs on.
    pub chipset: Option<Chipset>,
}

/// What starts a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Firmware {
    /// A BIOS.
    Bios,
    /// EFI.
    Efi,
}

/// What a machine's processor hangs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chipset {
    /// PCI, of 1996.
    I440fx,
    /// PCI Express, of 2007.
    Q35,
}

/// A product section.
#[derive(Clone, Debug, Default)]
pub struct Product {
    /// Distinguishes properties of several products.
    pub class: Option<String>,
    /// Its name.
    pub product: Option<String>,
    /// Who made it.
    pub vendor: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Its version with build numbers and the like.
    pub full_version: Option<String>,
    /// What can be set.
    pub properties: Vec<Property>,
}

/// A property of a product.
#[derive(Clone, Debug, Default)]
pub struct Property {
    /// Its name within the product's class.
    pub key: String,
    /// Its CIM type.
    pub kind: Option<String>,
    /// The default value.
    pub value: Option<String>,
    /// A short text for people.
    pub label: Option<String>,
    /// Whether whoever deploys may change it.
    pub is_user_configurable: bool,
}

/// A hardware item.
#[derive(Clone, Debug, Default)]
pub struct Hardware {
    /// Its id, which others name as parent.
    pub instance_id: Option<String>,
    /// See [`resource_type`].
    pub resource_type: Option<u32>,
    /// The model: `lsilogic`, `E1000`.
    pub resource_sub_type: Option<String>,
    /// A text for people.
    pub element_name: Option<String>,
    /// The controller it hangs on.
    pub parent: Option<String>,
    /// How many; memory in bytes.
    pub virtual_quantity: Option<u64>,
    /// Of a processor: how many cores one socket holds.
    pub cores_per_socket: Option<u64>,
    /// Its place on the controller.
    pub address_on_parent: Option<String>,
    /// Its number among controllers of its kind.
    pub address: Option<String>,
    /// What it is backed by: `ovf:/disk/…`, `ovf:/file/…`.
    pub host_resources: Vec<String>,
}

impl Hardware {
    /// The id of the disk a host resource names, in any spelling: `ovf:/disk/a`, `/disk/a`,
    /// `disk/a`.
    pub fn disk_ids(&self) -> impl Iterator<Item = &str> {
        self.host_resources.iter().filter_map(|resource| {
            let path = resource.strip_prefix("ovf:").unwrap_or(resource);
            path.trim_start_matches('/').strip_prefix("disk/")
        })
    }

    /// Everything it may name a disk by: ids; the ids of files; oVirt's bare names of files; the
    /// item's own id, which is the disk's where Xen wrote it.
    fn disk_names(&self) -> impl Iterator<Item = &str> {
        let files = self.host_resources.iter().map(|resource| {
            let path = resource.strip_prefix("ovf:").unwrap_or(resource);
            let path = path.trim_start_matches('/');
            path.strip_prefix("file/").unwrap_or(path)
        });
        let own = self.instance_id.as_deref();
        let own = own.filter(|_| self.resource_type == Some(resource_type::DISK));
        self.disk_ids().chain(files).chain(own)
    }

    /// The bus of a controller, in the word of its trade.
    #[must_use]
    pub fn bus(&self) -> Option<&'static str> {
        let model = self.resource_sub_type.as_deref().unwrap_or_default();
        let model = model.to_ascii_lowercase();
        let is = |word| model.contains(word);
        match self.resource_type? {
            resource_type::IDE => Some("ide"),
            resource_type::SCSI => Some("scsi"),
            _ if is("nvme") => Some("nvme"),
            _ if is("ahci") || is("sata") => Some("sata"),
            _ if is("virtio") => Some("virtio"),
            resource_type::OTHER_STORAGE => Some("sata"),
            _ => None,
        }
    }
}

impl Envelope {
    /// Parses a descriptor.
    ///
    /// # Errors
    /// `Malformed` when it is no well-formed XML within bounds, or no envelope.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        parse::envelope(&xml::parse(bytes, Format::Ovf)?)
    }

    /// The disks in the order the hardware lists them, then those it does not list.
    pub fn disks_in_order(&self) -> impl Iterator<Item = &Disk> {
        let mut order: Vec<usize> = Vec::with_capacity(self.disks.len());
        let mut taken = vec![false; self.disks.len()];
        // The first of several wins, and an id before a file.
        let numbered = || self.disks.iter().enumerate().rev();
        let files = numbered().filter_map(|(n, disk)| Some((disk.file_ref.as_deref()?, n)));
        let ids = numbered().map(|(n, disk)| (disk.id.as_str(), n));
        let index: std::collections::HashMap<&str, usize> = files.chain(ids).collect();
        let listed = self
            .systems
            .iter()
            .flat_map(|system| &system.hardware)
            .flat_map(Hardware::disk_names)
            .filter_map(|id| index.get(id).copied());
        for n in listed.chain(0..self.disks.len()) {
            if !std::mem::replace(&mut taken[n], true) {
                order.push(n);
            }
        }
        order.into_iter().map(|n| &self.disks[n])
    }

    /// The controller a disk hangs on.
    #[must_use]
    pub fn parent_of(&self, disk: &Disk) -> Option<&Hardware> {
        self.place_of(disk).map(|(_, parent)| parent)
    }

    /// The item of a disk, and that of its controller.
    fn place_of(&self, disk: &Disk) -> Option<(&Hardware, &Hardware)> {
        let is_named = |name: &str| name == disk.id || disk.file_ref.as_deref() == Some(name);
        self.systems.iter().find_map(|system| {
            let mut items = system.hardware.iter();
            let item = items.find(|item| item.disk_names().any(is_named))?;
            let id = item.parent.as_deref()?;
            let mut items = system.hardware.iter();
            let parent = items.find(|item| item.instance_id.as_deref() == Some(id))?;
            Some((item, parent))
        })
    }

    /// What a disk hangs on: `scsi (lsilogic) 0:1`, which is bus, model, number of the
    /// controller and place on it, as far as they are told.
    pub(super) fn controller_of(&self, disk: &Disk) -> Option<String> {
        let found = self.place_of(disk).and_then(|(item, parent)| {
            let mut text = parent.bus()?.to_owned();
            if let Some(model) = &parent.resource_sub_type {
                text += &format!(" ({model})");
            }
            if let Some(unit) = &item.address_on_parent {
                text += &format!(" {}:{unit}", parent.address.as_deref().unwrap_or("0"));
            }
            Some(text)
        });
        found.or_else(|| disk.interface.as_deref().map(str::to_ascii_lowercase))
    }

    /// What is worth telling of the first system, for people and scripts.
    pub(super) fn details(&self) -> Map<String, Value> {
        let mut details = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                details.insert(key.to_owned(), value);
            }
        };
        put("ovf_version", self.version.as_deref().map(Value::from));
        if let Some(system) = self.systems.first() {
            let product = system.products.iter().find(|p| p.product.is_some());
            let of_product = |field: fn(&Product) -> &Option<String>| {
                product.and_then(|p| field(p).as_deref()).map(Value::from)
            };
            let name = system.name.as_deref().unwrap_or(&system.id);
            put("name", Some(name.into()));
            put("product", of_product(|p| &p.product));
            put("vendor", of_product(|p| &p.vendor));
            put("version", of_product(|p| &p.version));
            put("os", system.operating_system.as_deref().map(Value::from));
            let quantity = |kind| system.quantity(kind).map(Value::from);
            put("vcpus", quantity(resource_type::PROCESSOR));
            put("memory", quantity(resource_type::MEMORY));
        }
        if self.systems.len() > 1 {
            put("virtual_systems", Some(self.systems.len().into()));
        }
        details
    }

    /// The disks as the descriptor tells of them.
    pub(super) fn disk_details(&self) -> Vec<Value> {
        let disk = |disk: &Disk| {
            json!({
                "id": disk.id,
                "file": self.file_of(disk).map(|file| &file.href),
                "capacity": disk.capacity,
                "format": disk.format,
                "controller": self.controller_of(disk),
            })
        };
        self.disks_in_order().map(disk).collect()
    }

    /// The file a disk refers to, by id or, as oVirt does, by name.
    #[must_use]
    pub fn file_of(&self, disk: &Disk) -> Option<&File> {
        let wanted = disk.file_ref.as_deref()?;
        let mut files = self.files.iter();
        files
            .clone()
            .find(|file| file.id == wanted)
            .or_else(|| files.find(|file| file.href == wanted))
    }
}

/// Whether a file that begins with `head` is a descriptor: XML that speaks of an envelope.
pub(super) fn is_ovf(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let contains = |word: &[u8]| head.windows(word.len()).any(|part| part == word);
    head.trim_ascii_start().starts_with(b"<") && contains(b"Envelope") && contains(b"ovf")
}
