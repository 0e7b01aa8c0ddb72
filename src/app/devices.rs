//! The devices on the bus, the selected drone, and what a background identify has found out about it.

use crate::crazyflie;
use crate::flash::map::SECTORS_KIB;
use crate::job::{Device, DeviceInfo, Other, SectorState};
use crate::supervise::RunningInstance;

/// The number of flash sectors of an STM32F405, only for the map on the screen. The plan uses the sectors that the
/// device itself describes, and a device with other sectors is not a Crazyflie.
pub const SECTORS: usize = SECTORS_KIB.len();

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    pub bus: BusState,
    /// An index into the list.
    selected: usize,
    /// The drone that was selected last. It is selected again when the bus changes.
    remembered: Option<Device>,
    pub identified: Option<BackgroundIdentify>,
    /// Other running instances on this computer.
    pub other_instances: Vec<RunningInstance>,
    /// The state of each sector of the selected drone, where it is known.
    pub map: [Option<SectorState>; SECTORS],
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BusState {
    /// The first scan has not finished.
    #[default]
    Asking,
    /// USB is not available, for this reason.
    None(String),
    Devices(Vec<Device>),
    /// No Crazyflie, but only these related devices.
    Others(Vec<Other>),
}

/// Identifies a device while no job runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackgroundIdentify {
    pub device: Device,
    pub known: Option<Box<DeviceInfo>>,
    /// The worker is busy with it, so all of its events up to the last belong to it.
    pub is_under_way: bool,
}

impl Devices {
    pub(crate) fn list(&self) -> &[Device] {
        match &self.bus {
            BusState::Devices(devices) => devices,
            BusState::Asking | BusState::None(_) | BusState::Others(_) => &[],
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

    /// Remembers the selected drone, so that it is selected again when the bus changes.
    pub(crate) fn remember(&mut self) {
        self.remembered = self.selected().cloned();
    }

    /// Replaces the list. Returns whether the remembered drone is present, or `None` if no drone is remembered. The
    /// device at its port stays selected in either mode. A device at another port is selected only if it is the only
    /// one with the same serial number.
    pub(crate) fn take(&mut self, bus: BusState) -> Option<bool> {
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

    /// A background identify is running, so the worker's events belong to it.
    pub fn is_identifying(&self) -> bool {
        self.identified.as_ref().is_some_and(|it| it.is_under_way)
    }

    /// The result of the background identify of the selected device.
    pub(crate) fn known(&self) -> Option<&DeviceInfo> {
        let identified = self.identified.as_ref().filter(|it| Some(&it.device) == self.selected())?;
        identified.known.as_deref()
    }

    /// The other running instance that uses the selected device.
    pub(crate) fn held_by(&self) -> Option<&RunningInstance> {
        let port = self.selected()?.location.to_string();
        self.other_instances.iter().find(|work| work.port == port)
    }
}
