//! The descriptors of a device in DFU mode: its alternate settings with their memory maps, and the DFU functional
//! descriptor, which the STM32's ROM provides only for its last alternate setting.

use thiserror::Error;

use crate::flash::Address;
use crate::flash::map::{MapError, MemoryMap};
use crate::usb::descriptor::{self, Interface};
use crate::usb::{TransferError, Transport};

/// Class, subclass and protocol: application-specific, device firmware upgrade, DFU mode.
const DFU_MODE: (u8, u8, u8) = (0xFE, 0x01, 0x02);
const FUNCTIONAL: u8 = 0x21;
/// bcdDFUVersion of DfuSe. Plain DFU uses 0x0100 or 0x0110.
const DFUSE_VERSION: u16 = 0x011A;
/// libusb's limit for one control transfer on Linux. The boot ROM uses 2048.
const TRANSFER_SIZE_MAX: u16 = 4096;
/// Enough for a Set Address Pointer command, or for two words of data.
const TRANSFER_SIZE_MIN: u16 = 8;

/// An alternate setting and its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternate {
    /// bAlternateSetting.
    pub number: u8,
    pub map: MemoryMap,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DfuDevice {
    /// bInterfaceNumber.
    pub interface: u8,
    /// wTransferSize in bytes, 8 to 4096.
    pub transfer_size: u16,
    /// The settings that describe a memory, in descriptor order.
    pub alternates: Vec<Alternate>,
    /// The settings whose names could not be read. Their memories are unknown.
    pub unnamed: Vec<u8>,
}

/// Why a device cannot be flashed with DfuSe.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeviceError {
    #[error("cannot read its descriptors: {0}")]
    Transfer(#[from] TransferError),
    /// No interface has the DFU class and the DFU-mode protocol.
    #[error("it has no DFU interface")]
    NoInterface,
    #[error("it has no DFU functional descriptor")]
    NoFunctional,
    /// Plain DFU, which has no addresses.
    #[error("it uses DFU version {0:04x}, not ST's DfuSe (011a)")]
    NotDfuSe(u16),
    /// wTransferSize is outside the range 8 to 4096.
    #[error("its transfer size of {0} bytes is invalid")]
    TransferSize(u16),
    /// The device does not describe a memory that can be erased.
    #[error("it does not describe any flash memory: {0}")]
    NoFlash(MapError),
}

/// No known device has more than five alternate settings, but a descriptor may claim hundreds.
const ALTERNATES_MAX: usize = 16;

impl DfuDevice {
    /// Reads the descriptors of an open device. Once `in_time` returns `false`, the remaining names are skipped.
    pub fn read(
        transport: &mut dyn Transport,
        mut in_time: impl FnMut() -> bool,
    ) -> Result<DfuDevice, DeviceError> {
        let interfaces = descriptor::interfaces(transport)?;
        let dfu: Vec<&Interface> = interfaces.iter().filter(|i| i.class == DFU_MODE).collect();
        let interface = dfu.first().ok_or(DeviceError::NoInterface)?.number;
        let settings = || dfu.iter().filter(|i| i.number == interface);
        let functional =
            settings().find_map(|i| Functional::find(&i.extra)).ok_or(DeviceError::NoFunctional)?;
        if functional.version != DFUSE_VERSION {
            return Err(DeviceError::NotDfuSe(functional.version));
        }
        if !(TRANSFER_SIZE_MIN..=TRANSFER_SIZE_MAX).contains(&functional.transfer_size) {
            return Err(DeviceError::TransferSize(functional.transfer_size));
        }
        let (mut alternates, mut unnamed) = (Vec::new(), Vec::new());
        let mut problem = DeviceError::NoFlash(MapError::NotAMap);
        for setting in settings().take(ALTERNATES_MAX) {
            let name = if in_time() {
                descriptor::string(transport, setting.name)
            } else {
                Err(TransferError::Timeout)
            };
            match name {
                Ok(name) => match MemoryMap::parse(&name) {
                    Ok(map) => alternates.push(Alternate { number: setting.alternate, map }),
                    Err(error) => problem = DeviceError::NoFlash(error),
                },
                Err(error) if error.is_transient() => {
                    unnamed.push(setting.alternate);
                    problem = error.into();
                }
                Err(error) => return Err(error.into()),
            }
        }
        let device = DfuDevice { interface, transfer_size: functional.transfer_size, alternates, unnamed };
        if device.flash().is_none() {
            return Err(problem);
        }
        Ok(device)
    }

    /// Returns the flash, which is the first memory that can be erased.
    pub fn flash(&self) -> Option<&Alternate> {
        let erasable = |alternate: &&Alternate| alternate.map.sectors().iter().any(|s| s.access.erasable);
        // An old ROM (V3.0) also reports its option bytes and OTP as erasable, so only the first erasable memory is the
        // flash. If the name of an earlier setting is missing, that setting could be the flash, and the result is
        // `None`.
        let flash = self.alternates.iter().find(erasable)?;
        self.unnamed.iter().all(|lost| *lost > flash.number).then_some(flash)
    }

    /// Returns the memory that contains `address`.
    pub(crate) fn alternate_at(&self, address: Address) -> Option<&Alternate> {
        self.alternates.iter().find(|a| a.map.sectors().iter().any(|s| s.span.contains(address)))
    }
}

/// The fields of the DFU functional descriptor that cfdfu uses (DFU 1.1 §4.1.3).
struct Functional {
    transfer_size: u16,
    version: u16,
}

impl Functional {
    /// Finds the DFU functional descriptor among the descriptors that follow an interface descriptor.
    fn find(mut extra: &[u8]) -> Option<Functional> {
        while let [len, kind, ..] = *extra {
            let len = usize::from(len).max(2);
            let (descriptor, rest) = extra.split_at_checked(len)?;
            if let (FUNCTIONAL, &[_, _, _, _, _, size_low, size_high, version_low, version_high, ..]) =
                (kind, descriptor)
            {
                return Some(Functional {
                    transfer_size: u16::from_le_bytes([size_low, size_high]),
                    version: u16::from_le_bytes([version_low, version_high]),
                });
            }
            extra = rest;
        }
        None
    }
}
