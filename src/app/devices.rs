//! The devices on the bus, the selected drone, and the result of its background identify.

use crate::crazyflie::console::RadioChip;
use crate::crazyflie::{self, Board};
use crate::flash::map::SECTORS_KIB;
use crate::job::{Device, DeviceInfo, Other, SectorState};
use crate::supervise::RunningInstance;
use crate::usb::Location;

/// The number of flash sectors of an STM32F405, used only for the map on the screen. The plan uses the sectors that the
/// device itself reports. A device that reports different sectors is not a Crazyflie.
pub const SECTORS: usize = SECTORS_KIB.len();

/// The state of each sector, if known.
pub type SectorMap = [Option<SectorState>; SECTORS];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    pub bus: BusState,
    /// An index into the list, possibly past the end; see [`Devices::position`].
    selected: usize,
    /// The last selected drone, which is selected again when the bus changes.
    remembered: Option<Device>,
    pub identified: Option<BackgroundIdentify>,
    chip_facts: Option<ChipFacts>,
    /// The number of log lines when the background identify started. Later console lines come from the identified
    /// device.
    pub(crate) console_start: usize,
    /// Other running instances on this computer.
    pub other_instances: Vec<RunningInstance>,
    /// The sectors of the selected drone. [`super::App::map`] also considers the opened row of a batch.
    pub map: SectorMap,
}

/// The properties of a drone that an identify reads and a flash does not change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ChipFacts {
    device: Device,
    board: Option<Board>,
    /// The write-protected sectors.
    protected: Vec<usize>,
    radio_chip: RadioChip,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BusState {
    /// The first scan has not finished.
    #[default]
    Scanning,
    /// USB is not available. The string is the reason.
    Unavailable(String),
    Devices(Vec<Device>),
    /// No Crazyflie is on the bus, only these related devices.
    Others(Vec<Other>),
}

/// A background identify of a device, and its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackgroundIdentify {
    pub device: Device,
    pub known: Option<Box<DeviceInfo>>,
    /// Whether the identify is still running. If so, the worker's events belong to the identify.
    pub is_under_way: bool,
}

impl ChipFacts {
    fn belongs_to(&self, device: &Device) -> bool {
        self.device.location == device.location
            && crazyflie::is_same_serial(&self.device.strings.serial, &device.strings.serial)
    }
}

impl Devices {
    pub(crate) fn list(&self) -> &[Device] {
        match &self.bus {
            BusState::Devices(devices) => devices,
            BusState::Scanning | BusState::Unavailable(_) | BusState::Others(_) => &[],
        }
    }

    pub(crate) fn selected(&self) -> Option<&Device> {
        self.list().get(self.position())
    }

    /// Returns the index of the selected device.
    pub fn position(&self) -> usize {
        self.selected.min(self.list().len().saturating_sub(1))
    }

    pub(crate) fn select(&mut self, index: usize) {
        if index != self.selected {
            self.map = [None; SECTORS];
        }
        self.selected = index;
        self.remember();
    }

    pub(crate) fn select_next(&mut self) {
        self.select((self.selected + 1) % self.list().len().max(1));
    }

    /// Selects this drone, now or when the scanner lists it again. The scanner skips the ports on which a batch is
    /// running jobs.
    pub(crate) fn select_drone(&mut self, device: &Device) {
        if let Some(index) = self.list().iter().position(|it| it.location == device.location) {
            self.select(index);
        }
        self.remembered = Some(device.clone());
    }

    /// Remembers the selected drone, so that it is selected again when the bus changes.
    pub(crate) fn remember(&mut self) {
        self.remembered = self.selected().cloned();
    }

    /// Replaces the list. Returns whether the remembered drone seems to be present, or `None` if no drone is
    /// remembered. Any device on the remembered port counts as that drone and is selected. If this port is empty, the
    /// device with the remembered serial number is selected, unless several devices have this number.
    pub(crate) fn set_bus(&mut self, bus: BusState) -> Option<bool> {
        self.bus = bus;
        self.selected = self.position();
        let found = self.remembered.as_ref().map(|drone| {
            let serial = &drone.strings.serial;
            let same = |device: &&Device| crazyflie::is_same_serial(serial, &device.strings.serial);
            let list = self.list();
            let on_port = list.iter().position(|device| device.location == drone.location);
            let is_only = list.iter().filter(same).count() == 1;
            on_port.or_else(|| list.iter().position(|device| is_only && same(&device)))
        });
        if let Some(Some(index)) = found {
            self.selected = index;
        }
        // A drone that was unplugged may return with different firmware.
        let is_present = |it: &BackgroundIdentify| self.list().contains(&it.device);
        if !self.is_identifying() && !self.identified.as_ref().is_some_and(is_present) {
            self.identified = None;
        }
        found.map(|index| index.is_some())
    }

    /// Returns whether a background identify is running. If so, the worker's events belong to the identify.
    pub fn is_identifying(&self) -> bool {
        self.identified.as_ref().is_some_and(|it| it.is_under_way)
    }

    /// Returns the board of the selected drone, if an identify has read it in either mode.
    pub(crate) fn board(&self) -> Option<&Board> {
        self.chip_facts()?.board.as_ref()
    }

    /// Returns the code of the selected drone's board, if known, for example `CF21`.
    pub(crate) fn board_code(&self) -> Option<&str> {
        self.board().map(|board| board.code.as_str())
    }

    /// Returns the sectors of the selected drone that are known to be write-protected.
    pub(crate) fn protected(&self) -> &[usize] {
        self.chip_facts().map_or(&[], |chip_facts| &chip_facts.protected)
    }

    /// Returns what the selected drone has reported about its radio chip.
    pub(crate) fn radio_chip(&self) -> &RadioChip {
        self.chip_facts().map_or(&RadioChip::Unknown, |chip_facts| &chip_facts.radio_chip)
    }

    /// Records what the selected drone has reported about its radio chip during a job.
    pub(crate) fn record_radio_chip(&mut self, chip: &RadioChip) {
        let device = self.selected().cloned();
        let chip_facts =
            self.chip_facts.as_mut().filter(|chip_facts| device.is_some_and(|it| chip_facts.belongs_to(&it)));
        if let Some(chip_facts) = chip_facts.filter(|_| *chip != RadioChip::Unknown) {
            chip_facts.radio_chip = chip.clone();
        }
    }

    fn chip_facts(&self) -> Option<&ChipFacts> {
        let device = self.selected()?;
        self.chip_facts.as_ref().filter(|chip_facts| chip_facts.belongs_to(device))
    }

    /// Records the result of a background identify.
    pub(crate) fn record_identity(&mut self, known: Box<DeviceInfo>) {
        let Some(identified) = &mut self.identified else { return };
        let before = self.chip_facts.take().filter(|chip_facts| chip_facts.belongs_to(&identified.device));
        let earlier_chip = before.map(|chip_facts| chip_facts.radio_chip).unwrap_or_default();
        let (board, protected, radio_chip) = match &*known {
            DeviceInfo::InDfu(identity) => {
                (identity.board.clone(), identity.protected_sectors().to_vec(), earlier_chip)
            }
            DeviceInfo::Running(running) => {
                let code = running.board.as_deref().and_then(crazyflie::code_of);
                let chip = match &running.health.radio_chip {
                    RadioChip::Unknown => earlier_chip,
                    chip => chip.clone(),
                };
                (code.map(Board::named), Vec::new(), chip)
            }
        };
        let device = identified.device.clone();
        self.chip_facts = Some(ChipFacts { device, board, protected, radio_chip });
        identified.known = Some(known);
    }

    /// Returns the result of the background identify of the selected device.
    pub(crate) fn known(&self) -> Option<&DeviceInfo> {
        let identified = self.identified.as_ref().filter(|it| Some(&it.device) == self.selected())?;
        identified.known.as_deref()
    }

    /// Returns the version of the firmware on the selected drone, if known.
    pub(crate) fn version(&self) -> Option<&str> {
        match self.known()? {
            DeviceInfo::Running(running) => running.version.as_deref(),
            DeviceInfo::InDfu(identity) => identity.firmware.as_ref()?.firmware()?.version.as_deref(),
        }
    }

    /// Returns the other running instance that uses the selected device, if any.
    pub(crate) fn instance_using_selected(&self) -> Option<&RunningInstance> {
        self.instance_using(&self.selected()?.location)
    }

    /// Returns the other running instance that uses the device on this port, if any.
    pub(crate) fn instance_using(&self, port: &Location) -> Option<&RunningInstance> {
        let port = port.to_string();
        self.other_instances.iter().find(|other| other.port == port)
    }
}
