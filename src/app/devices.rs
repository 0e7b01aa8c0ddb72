//! What is plugged in, which drone is selected, and what a background identify has found out about it.

use crate::crazyflie;
use crate::flash::map::SECTORS_KIB;
use crate::job::{Device, DeviceInfo, Other, SectorState};
use crate::supervise::RunningInstance;

/// Sectors of an STM32F405's flash, for the map on the screen. Nothing is erased by this number: the plan
/// takes the sectors that the device itself describes, and a device with others is not a Crazyflie.
pub const SECTORS: usize = SECTORS_KIB.len();

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    pub bus: BusState,
    /// Counted from 0.
    selected: usize,
    /// The drone that was selected last, to be found again when the bus changes.
    remembered: Option<Device>,
    pub identified: Option<BackgroundIdentify>,
    /// What other runs on this computer are at.
    pub others_at_work: Vec<RunningInstance>,
    /// What is known of each sector of the selected drone.
    pub map: [Option<SectorState>; SECTORS],
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BusState {
    /// Not asked yet.
    #[default]
    Asking,
    /// There is no USB here, for this reason.
    None(String),
    Devices(Vec<Device>),
    /// No Crazyflie, but these, which are taken for one or belong to one.
    Others(Vec<Other>),
}

/// A look at a device, while nothing else is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackgroundIdentify {
    pub device: Device,
    pub known: Option<Box<DeviceInfo>>,
    /// The worker is at it: all its events up to the last are about this.
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

    /// Counted from 0.
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

    /// The drone that is selected now is to be found again.
    pub(crate) fn remember(&mut self) {
        self.remembered = self.selected().cloned();
    }

    /// Replaces the list. Returns whether the remembered drone is present, or `None` if none is remembered. The device at its
    /// port stays selected in either mode; one at another port only if it alone has that serial number.
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
        // A drone that was unplugged may come back with something else on it.
        let is_there = |it: &BackgroundIdentify| self.list().contains(&it.device);
        if !self.is_identifying() && !self.identified.as_ref().is_some_and(is_there) {
            self.identified = None;
        }
        found.map(|at| at.is_some())
    }

    /// A background identify is under way: the worker's events are about that.
    pub fn is_identifying(&self) -> bool {
        self.identified.as_ref().is_some_and(|it| it.is_under_way)
    }

    /// What is known of the selected device.
    pub(crate) fn known(&self) -> Option<&DeviceInfo> {
        let identified = self.identified.as_ref().filter(|it| Some(&it.device) == self.selected())?;
        identified.known.as_deref()
    }

    /// The other run that has the selected device.
    pub(crate) fn held_by(&self) -> Option<&RunningInstance> {
        let place = self.selected()?.location.to_string();
        self.others_at_work.iter().find(|work| work.place == place)
    }
}
