//! One of our BPF objects: loaded with its parameters, its programs attached and detached one by one, its maps shared. Knows no profiler and no record.

use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::path::Path;

use aya::maps::{Map, MapData, RingBuf};
use aya::programs::perf_event::PerfEventLink;
use aya::programs::perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy};
use aya::programs::tp_btf::BtfTracePointLink;
use aya::programs::{BtfTracePoint, Iter, PerfEvent, Program};
use aya::{Ebpf, EbpfLoader};

use super::Error;
use super::kernel::Types;
use crate::sys::bpf;
use crate::sys::shared::SharedWords;

/// Bytes of an object file, aligned as its parser wants them.
#[repr(C, align(8))]
pub struct Aligned<Bytes: ?Sized>(pub Bytes);

/// Embeds `bpf/NAME` of the source tree.
macro_rules! embedded {
    ($name:literal) => {{
        static OBJECT: &$crate::probe::object::Aligned<[u8]> = &$crate::probe::object::Aligned(
            *include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/", $name)),
        );
        &OBJECT.0
    }};
}
pub(crate) use embedded;

/// What an object is loaded with.
#[derive(Clone, Debug, Default)]
pub struct Parameters<'a> {
    /// Its constants (`const volatile`) by name, as bytes.
    pub constants: Vec<(&'a str, Vec<u8>)>,
    /// How many entries a map has, by its name, where that is not as the object has it.
    pub entries: Vec<(&'a str, u32)>,
}

/// A loaded object. Its programs detach when it is dropped or we die: nothing is pinned.
pub struct Object {
    // Dropped first: what is detached first disturbs nobody any longer.
    links: Vec<Link>,
    ebpf: Ebpf,
    types: Types,
}

/// What keeps a program attached until it is dropped.
#[expect(dead_code, reason = "held for its drop")]
enum Link {
    Tracepoint(BtfTracePointLink),
    PerfEvent(PerfEventLink),
}

impl Object {
    /// Makes the maps of the object in `bytes`; programs are loaded as they are attached.
    pub fn load(bytes: &[u8], types: Types, parameters: &Parameters<'_>) -> Result<Object, Error> {
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&types.0));
        for (name, value) in &parameters.constants {
            loader.override_global(name, value.as_slice(), true);
        }
        for (name, entries) in &parameters.entries {
            loader.map_max_entries(name, *entries);
        }
        let loaded = loader.load(bytes);
        let ebpf =
            loaded.map_err(|error| Error::new("load", "the maps of its programs", &error))?;
        Ok(Object {
            links: Vec::new(),
            ebpf,
            types,
        })
    }

    /// Loads `program` for the tracepoint of this name, so that attaching takes no time.
    pub fn prepare(&mut self, program: &str, tracepoint: &str) -> Result<(), Error> {
        let types = &self.types.0;
        let tracing: &mut BtfTracePoint = typed(&mut self.ebpf, program)?;
        tracing
            .load(tracepoint, types)
            .map_err(|error| Error::new("load", format!("tracepoint {tracepoint}"), &error))
    }

    /// Attaches a program that is prepared.
    pub fn attach(&mut self, program: &str) -> Result<(), Error> {
        let tracing: &mut BtfTracePoint = typed(&mut self.ebpf, program)?;
        let link = tracing.attach().and_then(|id| tracing.take_link(id));
        let link = link.map_err(|error| Error::new("attach", program, &error))?;
        self.links.push(Link::Tracepoint(link));
        Ok(())
    }

    /// Attaches `program` to a perf event of its own on `scope`, and, with `inherit`, on all that
    /// is created there.
    pub fn attach_perf_event(
        &mut self,
        program: &str,
        event: PerfEventConfig,
        scope: PerfEventScope,
        policy: SamplePolicy,
        inherit: bool,
    ) -> Result<(), Error> {
        let on_event: &mut PerfEvent = typed(&mut self.ebpf, program)?;
        let loaded = match on_event.fd() {
            Ok(_) => Ok(()),
            Err(_) => on_event.load(),
        };
        loaded.map_err(|error| Error::new("load", program, &error))?;
        let attached = on_event.attach(event, scope, policy, inherit);
        let link = attached.and_then(|id| on_event.take_link(id));
        let link = link.map_err(|error| Error::new("attach", program, &error))?;
        self.links.push(Link::PerfEvent(link));
        Ok(())
    }

    /// Detaches all programs, the last one first; they can be attached again, and maps stay as
    /// they are.
    pub fn detach(&mut self) {
        self.detach_to(0);
    }

    /// Detaches the last ones, so that the first `kept` stay attached.
    pub fn detach_to(&mut self, kept: usize) {
        while self.links.len() > kept {
            self.links.pop();
        }
    }

    /// Runs an iterator over all tasks that we see to its end.
    pub fn iterate_tasks(&mut self, program: &str) -> Result<(), Error> {
        let types = &self.types.0;
        let iterator: &mut Iter = typed(&mut self.ebpf, program)?;
        if iterator.fd().is_err() {
            let loaded = iterator.load("task", types);
            loaded.map_err(|error| Error::new("load", "an iterator over tasks", &error))?;
        }
        let mut run = || -> Result<(), Box<dyn std::error::Error>> {
            let id = iterator.attach()?;
            let mut file = iterator.take_link(id)?.into_file()?;
            let mut nothing = Vec::new();
            file.read_to_end(&mut nothing)?;
            Ok(())
        };
        run().map_err(|error| Error::new("read", "an iterator over tasks", error.as_ref()))
    }

    /// The words of a map, `words` in number.
    pub fn words(&self, map: &str, words: usize) -> Result<SharedWords, Error> {
        let failed =
            |error: &(dyn std::error::Error + 'static)| Error::new("map", map.to_owned(), error);
        match self.ebpf.map(map) {
            Some(Map::Array(data)) => {
                SharedWords::map(data.fd(), words).map_err(|error| failed(&error))
            }
            _ => Err(failed(&io::Error::from_raw_os_error(libc::ENOENT))),
        }
    }

    /// Has the element `key` of a map of perf events hold this one.
    pub fn hold(&self, map: &str, key: u32, event: BorrowedFd<'_>) -> Result<(), Error> {
        let held = match self.ebpf.map(map) {
            Some(Map::PerfEventArray(data)) => bpf::hold(data.fd(), key, event),
            _ => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        };
        held.map_err(|error| Error::new("map", map, &error))
    }

    /// A ring buffer, which is taken out of the object.
    pub fn ring(&mut self, map: &str) -> Result<RingBuf<MapData>, Error> {
        let absent = || io::Error::from_raw_os_error(libc::ENOENT);
        let taken = self.ebpf.take_map(map);
        let taken = taken.ok_or_else(|| Error::new("map", map, &absent()))?;
        RingBuf::try_from(taken).map_err(|error| Error::new("map", map, &error))
    }

    /// A map of any other kind.
    pub fn map_mut(&mut self, map: &str) -> Option<&mut Map> {
        self.ebpf.map_mut(map)
    }
}

/// CPUs that the kernel may ever number, which is how many entries a table has that is one a CPU.
pub fn possible_cpus(sys: &Path) -> usize {
    // 0-3,8-11: the last number is the highest.
    let text = std::fs::read_to_string(sys.join("devices/system/cpu/possible"));
    let text = text.unwrap_or_default();
    let last = text.trim().rsplit([',', '-']).next();
    let highest: Option<usize> = last.and_then(|number| number.parse().ok());
    highest.map_or(1, |highest| highest + 1)
}

/// The program of this name and kind.
fn typed<'a, Kind>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Kind, Error>
where
    &'a mut Kind: TryFrom<&'a mut Program>,
{
    let found = ebpf.program_mut(name);
    let typed = found.and_then(|program| program.try_into().ok());
    typed.ok_or_else(|| {
        let absent = io::Error::from_raw_os_error(libc::ENOENT);
        Error::new("load", name, &absent)
    })
}

#[cfg(test)]
#[allow(clippy::print_stderr, reason = "what is not run is said")]
mod tests {
    use super::*;
    use crate::probe::kernel::Facts;
    use crate::probe::record::{CONTROL_WORDS, Control, load, store};

    #[test]
    fn an_object_is_loaded_attached_and_detached() {
        let sys = Path::new("/sys");
        if let Some(obstacle) = Facts::look(sys).obstacle() {
            eprintln!("not run: an_object_is_loaded_attached_and_detached: {obstacle}");
            return;
        }
        let bytes = embedded!("syscalls.bpf.o");
        let types = Types::read(sys, bytes).unwrap();
        let mut object = Object::load(bytes, types, &Parameters::default()).unwrap();
        object.prepare("on_fork", "sched_process_fork").unwrap();
        object.attach("on_fork").unwrap();
        let control = object.words("control", CONTROL_WORDS).unwrap();
        store(
            &control,
            Control::Wanted as usize,
            std::process::id().into(),
        );
        object.iterate_tasks("on_task").unwrap();
        let before = load(&control, Control::Followed as usize);
        assert!(before >= 2, "the test's and the main thread: {before}");
        std::thread::spawn(|| {}).join().unwrap();
        let after = load(&control, Control::Followed as usize);
        assert!(after > before);
        object.detach();
        std::thread::spawn(|| {}).join().unwrap();
        // Other tests have threads, too, but not without end.
        let absent = object.prepare("on_fork", "no_such").unwrap_err();
        assert_eq!(absent.action, "load");
        assert!(object.words("nothing", 1).is_err());
    }
}
