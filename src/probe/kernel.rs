//! What the running kernel allows and knows of itself: the facts that decide whether programs can be loaded, and the description of its types. Never loads anything.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use aya::{Btf, Endianness};
use caps::{CapSet, Capability};

use super::Error;
use super::btf::{self, Description, Kind};
use crate::sample::Cause;

/// Where the kernel describes its types, under the root of sysfs.
const BTF: &str = "kernel/btf/vmlinux";

/// What decides whether programs can be loaded, as far as files and capabilities tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether the kernel describes its types.
    pub has_btf: bool,
    /// The capabilities that we lack, by name.
    pub lacking: Vec<&'static str>,
    /// The mode of lockdown, if there is such a module: `none`, `integrity`, `confidentiality`.
    pub lockdown: Option<String>,
}

impl Facts {
    /// Looks under `sys` (`/sys` of the machine, or a test's tree) and at our capabilities. Whether
    /// the kernel lets ordinary users load programs (`kernel.unprivileged_bpf_disabled`) does not
    /// matter: never those that trace.
    pub fn look(sys: &Path) -> Facts {
        let has = |capability| caps::has_cap(None, CapSet::Permitted, capability).unwrap_or(false);
        let wanted = [
            (Capability::CAP_BPF, "CAP_BPF"),
            (Capability::CAP_PERFMON, "CAP_PERFMON"),
        ];
        let lacking = wanted
            .into_iter()
            .filter(|(capability, _)| !has(*capability));
        let lockdown = fs::read_to_string(sys.join("kernel/security/lockdown")).ok();
        Facts {
            has_btf: sys.join(BTF).is_file(),
            lacking: lacking.map(|(_, name)| name).collect(),
            // none [integrity] confidentiality
            lockdown: lockdown.and_then(|text| {
                let (_, rest) = text.split_once('[')?;
                Some(rest.split_once(']')?.0.to_owned())
            }),
        }
    }

    /// Why tracing programs cannot be loaded here, and what would lift it.
    pub fn obstacle(&self) -> Option<Cause> {
        if !self.has_btf {
            return Some(
                Cause::new("this kernel does not describe its types (no /sys/kernel/btf/vmlinux)")
                    .cure("a kernel with CONFIG_DEBUG_INFO_BTF=y has it"),
            );
        }
        if !self.lacking.is_empty() {
            let lacking = self.lacking.join(" and ");
            return Some(
                Cause::new(format!("tracing in the kernel takes {lacking}")).cure(
                    "sudo poise …, or sudo setcap cap_bpf,cap_perfmon=ep $(command -v poise)",
                ),
            );
        }
        match self.lockdown.as_deref() {
            Some("confidentiality") => Some(
                Cause::new(
                    "the kernel is locked down (confidentiality), which closes tracing by BPF",
                )
                .cure("boot without lockdown=confidentiality"),
            ),
            _ => None,
        }
    }
}

/// The running kernel's description of its types, as far as an object needs it.
pub struct Types(pub(super) Btf);

impl Types {
    /// Reads it under the root of sysfs: the structures that the object in `bytes` names, and
    /// whatever a program can be attached to.
    pub fn read(sys: &Path, bytes: &[u8]) -> Result<Types, Error> {
        let path = sys.join(BTF);
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Error::new("read", path.display().to_string(), error)
        };
        let kernel = fs::read(&path).map_err(|error| failed(&error))?;
        let named: HashSet<&str> = btf::section(bytes, ".BTF")
            .and_then(Description::new)
            .map(|own| own.types().filter(|own| own.kind == Kind::Composite))
            .map(|own| own.map(|own| own.name).collect())
            .unwrap_or_default();
        let reduced = btf::reduce(&kernel, |kind, name| match kind {
            Kind::Composite => !name.is_empty() && named.contains(name),
            Kind::Typedef => name.starts_with("btf_trace_"),
            Kind::Function => name.starts_with("bpf_iter_"),
            _ => false,
        });
        let btf = Btf::parse(&reduced.unwrap_or(kernel), Endianness::default());
        Ok(Types(btf.map_err(|error| failed(&error))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obstacles_are_named_with_what_lifts_them() {
        let able = Facts {
            has_btf: true,
            lacking: Vec::new(),
            lockdown: Some("integrity".to_owned()),
        };
        let check = |facts: &Facts, want: Option<&str>| {
            let why = facts.obstacle().map(|cause| cause.to_string());
            match (why, want) {
                (None, None) => {}
                (Some(why), Some(want)) => assert!(why.contains(want), "{why}"),
                other => panic!("{other:?}"),
            }
        };
        check(&able, None);
        let no_btf = Facts {
            has_btf: false,
            ..able.clone()
        };
        check(&no_btf, Some("CONFIG_DEBUG_INFO_BTF"));
        let ordinary = Facts {
            lacking: vec!["CAP_BPF", "CAP_PERFMON"],
            ..able.clone()
        };
        check(&ordinary, Some("takes CAP_BPF and CAP_PERFMON; sudo poise"));
        let locked = Facts {
            lockdown: Some("confidentiality".to_owned()),
            ..able
        };
        check(&locked, Some("lockdown=confidentiality"));
    }

    #[test]
    fn facts_are_read_from_files() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let facts = Facts::look(root.path());
        assert!(!facts.has_btf && facts.lockdown.is_none());
        write(
            "kernel/security/lockdown",
            "none [integrity] confidentiality\n",
        );
        write(BTF, "");
        let facts = Facts::look(root.path());
        assert!(facts.has_btf);
        assert_eq!(facts.lockdown.as_deref(), Some("integrity"));
        let error = Types::read(&root.path().join("nowhere"), &[])
            .err()
            .unwrap();
        assert_eq!(error.errno, nix::errno::Errno::ENOENT);
    }
}
