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
    /// The number of log lines when the background identify started. Later console lines are from that device.
    pub(crate) console_start: usize,
    /// Other running instances on this computer.
    pub other_instances: Vec<RunningInstance>,
    /// The sectors of the selected drone. [`super::App::map`] also considers the opened row of a batch.
    pub map: SectorMap,
}

/// Identified properties that a flash does not change.
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
    /// USB is not available, for this reason.
    Unavailable(String),
    Devices(Vec<Device>),
    /// No Crazyflie, only these related devices.
    Others(Vec<Other>),
}

/// A background identify of a device, and its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackgroundIdentify {
    pub device: Device,
    pub known: Option<Box<DeviceInfo>>,
    /// The identify is still running, so the worker's events belong to it.
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

    /// The index of the selected device.
    pub fn position(&self) -> usize {
        self.selected.min(self.list().len().saturating_sub(1))
    }

    pub(crate) fn select(&mut self, at: usize) {
        if at != self.selected {
            self.map = [None; SECTORS];
        }
        self.selected = at;
        self.remember();
    }

    pub(crate) fn select_next(&mut self) {
        self.select((self.selected + 1) % self.list().len().max(1));
    }

    /// Selects this drone, now or when the scanner lists it again. The scanner skips the ports of running jobs.
    pub(crate) fn select_drone(&mut self, device: &Device) {
        if let Some(at) = self.list().iter().position(|it| it.location == device.location) {
            self.select(at);
        }
        self.remembered = Some(device.clone());
    }

    /// Remembers the selected drone, so that it is selected again when the bus changes.
    pub(crate) fn remember(&mut self) {
        self.remembered = self.selected().cloned();
    }

    /// Replaces the list. Returns whether the remembered drone is present, or `None` if no drone is remembered. The
    /// device on the remembered port stays selected, in either mode. A device on another port is selected only if it is
    /// the only one with the remembered serial number.
    pub(crate) fn set_bus(&mut self, bus: BusState) -> Option<bool> {
        self.bus = bus;
        self.selected = self.position();
        let found = self.remembered.as_ref().map(|drone| {
            let serial = &drone.strings.serial;
            let same = |device: &&Device| crazyflie::is_same_serial(serial, &device.strings.serial);
            let list = self.list();
            let here = list.iter().position(|device| device.location == drone.location);
            let only = list.iter().filter(same).count() == 1;
            here.or_else(|| list.iter().position(|device| only && same(&device)))
        });
        if let Some(Some(at)) = found {
            self.selected = at;
        }
        // A drone that was unplugged may return with different firmware.
        let is_there = |it: &BackgroundIdentify| self.list().contains(&it.device);
        if !self.is_identifying() && !self.identified.as_ref().is_some_and(is_there) {
            self.identified = None;
        }
        found.map(|at| at.is_some())
    }

    /// Whether a background identify is running. If so, the worker's events belong to it.
    pub fn is_identifying(&self) -> bool {
        self.identified.as_ref().is_some_and(|it| it.is_under_way)
    }

    /// The board of the selected drone, if it was identified in either mode.
    pub(crate) fn board(&self) -> Option<&Board> {
        self.chip_facts()?.board.as_ref()
    }

    /// The code of the selected drone's board, if known, for example `CF21`.
    pub(crate) fn board_code(&self) -> Option<&str> {
        self.board().map(|board| board.code.as_str())
    }

    /// The sectors of the selected drone that are known to be write-protected.
    pub(crate) fn protected(&self) -> &[usize] {
        self.chip_facts().map_or(&[], |chip_facts| &chip_facts.protected)
    }

    /// What the selected drone has reported about its radio chip.
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

    /// The result of the background identify of the selected device.
    pub(crate) fn known(&self) -> Option<&DeviceInfo> {
        let identified = self.identified.as_ref().filter(|it| Some(&it.device) == self.selected())?;
        identified.known.as_deref()
    }

    /// The version of the firmware on the selected drone, if known.
    pub(crate) fn version(&self) -> Option<&str> {
        match self.known()? {
            DeviceInfo::Running(running) => running.version.as_deref(),
            DeviceInfo::InDfu(identity) => identity.firmware.as_ref()?.firmware()?.version.as_deref(),
        }
    }

    /// The other running instance that uses the selected device.
    pub(crate) fn instance_using_selected(&self) -> Option<&RunningInstance> {
        self.instance_using(&self.selected()?.location)
    }

    /// The other running instance that uses the device on this port.
    pub(crate) fn instance_using(&self, port: &Location) -> Option<&RunningInstance> {
        let port = port.to_string();
        self.other_instances.iter().find(|other| other.port == port)
    }
}
