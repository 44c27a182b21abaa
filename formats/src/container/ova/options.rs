//! Options of the writer, and the descriptor that follows from them.

use quick_xml::escape::escape;

use super::write::Member;
use crate::codec::deflate;
use crate::{Error, Result, vmdk};

/// Bytes of a name.
const MAX_NAME: usize = 80;
/// Bytes of the names of files, so that they fit a tar header.
const MAX_STEM: usize = 64;

/// How to write an OVA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WriteOptions {
    /// The machine's name; files are named for it.
    pub name: String,
    /// The guest, in VMware's words: `otherGuest64`, `debian12_64Guest`.
    pub os: String,
    /// Processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory: u64,
    /// Generation of the virtual hardware: the number in `vmx-10`.
    pub hardware_version: u32,
    /// zlib level of the disks, 1 (fastest) to 12 (densest).
    pub compression_level: u8,
    /// When the members were made, in seconds since 1970.
    pub mtime: u64,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            name: "disk".into(),
            os: "otherGuest64".into(),
            vcpus: 1,
            memory: 1024,
            hardware_version: 10,
            compression_level: 6,
            mtime: 0,
        }
    }
}

impl WriteOptions {
    /// From `key=value` pairs: `name`, `os`, `vcpus`, `memory` (MiB, or with a suffix as in
    /// `2G`), `hwversion`, `compression_level`, `mtime`.
    ///
    /// # Errors
    /// `Usage` for an unknown key, one given twice or a bad value.
    pub fn parse(pairs: &[(String, String)]) -> Result<Self> {
        let mut options = Self::default();
        for (n, (key, value)) in pairs.iter().enumerate() {
            let bad = |allowed: &str| {
                Error::usage(format!("ova option {key} is {value:?}, allowed {allowed}"))
            };
            if pairs[..n].iter().any(|(earlier, _)| earlier == key) {
                return Err(Error::usage(format!("option {key:?} is given twice")));
            }
            match key.as_str() {
                "name" => {
                    let fits = (1..=MAX_NAME).contains(&value.len());
                    if !fits || value.chars().any(char::is_control) {
                        return Err(bad("1 to 80 bytes without control characters"));
                    }
                    options.name.clone_from(value);
                }
                "os" => {
                    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
                    if !(1..=64).contains(&value.len()) || !value.bytes().all(is_word) {
                        return Err(bad("a guest id of VMware, as otherGuest64"));
                    }
                    options.os.clone_from(value);
                }
                "vcpus" => {
                    options.vcpus = number(value, 1, 1024).ok_or_else(|| bad("1 to 1024"))?;
                }
                "memory" => {
                    options.memory = mebibytes(value).ok_or_else(|| bad("4 MiB to 64 TiB"))?;
                }
                "hwversion" => {
                    options.hardware_version =
                        number(value, 4, 99).ok_or_else(|| bad("4 to 99"))?;
                }
                "compression_level" => {
                    let level = value.parse().ok();
                    options.compression_level = level
                        .filter(|level| deflate::LEVELS.contains(level))
                        .ok_or_else(|| bad("1 to 12"))?;
                }
                "mtime" => {
                    // What the octal digits of a tar header hold.
                    let time = value.parse().ok().filter(|&time| time < 1 << 33);
                    options.mtime = time.ok_or_else(|| bad("seconds since 1970, below 2^33"))?;
                }
                _ => return Err(Error::usage(format!("ova has no option {key:?}"))),
            }
        }
        Ok(options)
    }

    /// The name as far as names of files go.
    pub(super) fn stem(&self) -> String {
        let plain = |c: char| match c {
            c if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') => c,
            _ => '-',
        };
        let stem: String = self.name.chars().map(plain).take(MAX_STEM).collect();
        let stem = stem.trim_matches(['-', '.']);
        if stem.is_empty() { "disk" } else { stem }.to_owned()
    }

    pub(super) fn vmdk(&self) -> vmdk::WriteOptions {
        vmdk::WriteOptions {
            subformat: vmdk::Subformat::StreamOptimized,
            adapter_type: vmdk::AdapterType::LsiLogic,
            hardware_version: self.hardware_version,
            compression_level: self.compression_level,
            ..vmdk::WriteOptions::default()
        }
    }

    /// The number CIM has for the guest (`CIM_OperatingSystem.OsType`): the family's, where it
    /// knows no better.
    fn cim(&self) -> u32 {
        let id = self.os.to_ascii_lowercase();
        let is_64 = id.contains("64");
        let families = [
            ("debian", 95, 96),
            ("ubuntu", 93, 94),
            ("rhel", 79, 80),
            ("centos", 106, 107),
            ("freebsd", 42, 78),
            ("otherguest", 1, 102),
            ("windows", 1, 1),
            ("win", 1, 1),
            ("darwin", 1, 1),
            ("solaris", 29, 29),
            ("linux", 36, 101),
        ];
        families
            .into_iter()
            .find(|(family, ..)| id.contains(family))
            .map_or(1, |(_, short, long)| if is_64 { long } else { short })
    }

    /// The descriptor of a machine with `disks`.
    pub(super) fn descriptor(&self, disks: &[Member]) -> String {
        let name = escape(self.name.as_str());
        let (mut files, mut drives, mut items) = (String::new(), String::new(), String::new());
        for (n, disk) in disks.iter().enumerate() {
            let Member {
                name,
                capacity,
                len,
            } = disk;
            let number = n + 1;
            files += &format!(
                "    <File ovf:href=\"{name}\" ovf:id=\"file{number}\" ovf:size=\"{len}\"/>\n"
            );
            drives += &format!(
                "    <Disk ovf:capacity=\"{capacity}\" ovf:capacityAllocationUnits=\"byte\" \
                 ovf:diskId=\"disk{number}\" ovf:fileRef=\"file{number}\" \
                 ovf:format=\"http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized\"/>\n"
            );
            // Unit 7 is the controller itself.
            let address = if n < 7 { n } else { n + 1 };
            let instance = 10 + n;
            items += &format!(
                "      <Item>
        <rasd:AddressOnParent>{address}</rasd:AddressOnParent>
        <rasd:ElementName>Hard disk {number}</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/disk{number}</rasd:HostResource>
        <rasd:InstanceID>{instance}</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>\n"
            );
        }
        let Self {
            os,
            vcpus,
            memory,
            hardware_version,
            ..
        } = self;
        let cim = self.cim();
        format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
  <References>
{files}  </References>
  <DiskSection>
    <Info>Disks of the machine</Info>
{drives}  </DiskSection>
  <NetworkSection>
    <Info>Networks of the machine</Info>
    <Network ovf:name="VM Network">
      <Description>The network of the first adapter</Description>
    </Network>
  </NetworkSection>
  <VirtualSystem ovf:id="{name}">
    <Info>A virtual machine</Info>
    <Name>{name}</Name>
    <OperatingSystemSection ovf:id="{cim}" vmw:osType="{os}">
      <Info>The guest</Info>
      <Description>{os}</Description>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Hardware of the machine</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{name}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-{hardware_version:02}</vssd:VirtualSystemType>
      </System>
      <Item>
        <rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits>
        <rasd:Description>Number of virtual processors</rasd:Description>
        <rasd:ElementName>{vcpus} virtual processors</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>{vcpus}</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:Description>Memory</rasd:Description>
        <rasd:ElementName>{memory} MiB of memory</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>{memory}</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:Description>SCSI controller</rasd:Description>
        <rasd:ElementName>SCSI controller 0</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>lsilogic</rasd:ResourceSubType>
        <rasd:ResourceType>6</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AutomaticAllocation>true</rasd:AutomaticAllocation>
        <rasd:Connection>VM Network</rasd:Connection>
        <rasd:ElementName>Ethernet adapter on VM Network</rasd:ElementName>
        <rasd:InstanceID>4</rasd:InstanceID>
        <rasd:ResourceSubType>E1000</rasd:ResourceSubType>
        <rasd:ResourceType>10</rasd:ResourceType>
      </Item>
{items}    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"#
        )
    }
}

fn number(text: &str, least: u32, most: u32) -> Option<u32> {
    let number = text.parse().ok()?;
    (least..=most).contains(&number).then_some(number)
}

/// `512`, `512M`, `2G`, in MiB.
fn mebibytes(text: &str) -> Option<u64> {
    let (digits, factor) = match text.strip_suffix(['G', 'g']) {
        Some(digits) => (digits, 1024),
        None => (text.strip_suffix(['M', 'm']).unwrap_or(text), 1),
    };
    let mebibytes = digits.parse::<u64>().ok()?.checked_mul(factor)?;
    (4..=64 << 20).contains(&mebibytes).then_some(mebibytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::ovf::{Envelope, resource_type};

    fn parse(pairs: &[(&str, &str)]) -> Result<WriteOptions> {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        WriteOptions::parse(&pairs)
    }

    #[test]
    fn options_are_bounded() {
        let options = parse(&[("memory", "2G"), ("vcpus", "4"), ("os", "ubuntu64Guest")]).unwrap();
        assert_eq!((options.memory, options.vcpus), (2048, 4));
        assert_eq!(options.cim(), 94);
        for bad in [
            ("memory", "3"),
            ("memory", "99999999999999G"),
            ("vcpus", "0"),
            ("name", ""),
            ("name", "a\nb"),
            ("os", "a\"b"),
            ("mtime", "-1"),
            ("hwversion", "3"),
            ("compression_level", "13"),
            ("colour", "red"),
        ] {
            assert!(parse(&[bad]).is_err(), "{bad:?}");
        }
        assert!(parse(&[("vcpus", "1"), ("vcpus", "1")]).is_err());
    }

    #[test]
    fn names_of_files_are_plain() {
        for (name, stem) in [
            ("web server", "web-server"),
            ("../../etc", "etc"),
            ("büro", "b-ro"),
            ("...", "disk"),
        ] {
            assert_eq!(parse(&[("name", name)]).unwrap().stem(), stem);
        }
        let long = "a".repeat(80);
        assert_eq!(parse(&[("name", &long)]).unwrap().stem().len(), MAX_STEM);
    }

    #[test]
    fn the_descriptor_says_what_was_asked_for() {
        let options = parse(&[("name", "<R&D> \"1\""), ("memory", "512"), ("vcpus", "2")]).unwrap();
        let disks: Vec<_> = (1..=15)
            .map(|n| Member {
                name: format!("d{n}.vmdk"),
                capacity: n << 30,
                len: 7,
            })
            .collect();
        let envelope = Envelope::parse(options.descriptor(&disks).as_bytes()).unwrap();
        assert!(envelope.findings.is_empty(), "{:?}", envelope.findings);
        let system = &envelope.systems[0];
        assert_eq!(system.name.as_deref(), Some("<R&D> \"1\""));
        assert_eq!(system.quantity(resource_type::MEMORY), Some(512 << 20));
        assert_eq!(system.quantity(resource_type::PROCESSOR), Some(2));
        let sizes: Vec<_> = envelope.disks_in_order().map(|d| d.capacity).collect();
        assert_eq!(sizes, (1..=15).map(|n| Some(n << 30)).collect::<Vec<_>>());
    }
}
