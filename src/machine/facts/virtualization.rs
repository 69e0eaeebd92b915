//! Whether this is a real machine, a virtual one, or a container in either. Only looks at what `/proc` and `/sys` show to everybody; never asks the CPU itself.

use super::Facts;
use super::file::{read, text, word, words};

/// What the kernel runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Virtualization {
    /// Real hardware.
    None,
    /// A virtual machine.
    Machine {
        /// `kvm`, `qemu-tcg`, `vmware`, `xen`, `hyper-v`, …; `unknown` when nothing names it.
        hypervisor: &'static str,
        /// The product round the hypervisor (`Firecracker`, `Amazon EC2`, `QEMU`). What ordinary
        /// users cannot see is only told to root.
        product: Option<String>,
    },
}

impl Virtualization {
    /// One word: `none`, or the hypervisor. The same for every user of the machine.
    pub fn name(&self) -> &'static str {
        match self {
            Virtualization::None => "none",
            Virtualization::Machine { hypervisor, .. } => hypervisor,
        }
    }
}

/// What speaks for and against a hypervisor, gathered before anything is decided.
struct Evidence {
    /// The CPU's `hypervisor` flag; `None` where CPUs have no flags.
    flag: Option<bool>,
    model: String,
    clocksources: Vec<String>,
    /// Vendor and product, as the firmware (DMI) names them.
    firmware: Vec<String>,
    /// `/sys/hypervisor/type`
    xen: bool,
    /// `hypervisor/compatible` and `compatible` of the device tree.
    device_tree: String,
}

impl Facts<'_> {
    /// Whether this is a virtual machine. Unknown when nothing speaks for or against it.
    pub fn virtualization(&self) -> Option<Virtualization> {
        self.virtualization_from(self.cpuinfo().as_ref())
    }

    pub(super) fn virtualization_from(
        &self,
        info: Option<&procfs::CpuInfo>,
    ) -> Option<Virtualization> {
        let field = |name| info.and_then(|info| info.get_field(0, name));
        let dmi = self.sys("class/dmi/id");
        let dmi_files = ["product_name", "sys_vendor", "board_vendor", "bios_vendor"];
        let clock = "devices/system/clocksource/clocksource0/available_clocksource";
        let tree = |file: &str| text(&self.proc("device-tree").join(file)).unwrap_or_default();
        let evidence = Evidence {
            flag: field("flags").map(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            model: field("model name").unwrap_or_default().to_owned(),
            clocksources: words(&self.sys(clock)),
            firmware: dmi_files
                .iter()
                .filter_map(|file| word(&dmi.join(file)))
                .collect(),
            xen: word(&self.sys("hypervisor/type")).as_deref() == Some("xen"),
            device_tree: tree("hypervisor/compatible") + "\0" + &tree("compatible"),
        };
        let product = || self.product(&evidence);
        match decide(&evidence)? {
            "none" => Some(Virtualization::None),
            hypervisor => Some(Virtualization::Machine {
                hypervisor,
                product: product(),
            }),
        }
    }

    /// The product round the hypervisor: the firmware's name, or who wrote the ACPI tables
    /// (root alone may read those).
    fn product(&self, evidence: &Evidence) -> Option<String> {
        let dsdt = self.sys("firmware/acpi/tables/DSDT");
        // ACPI 6.5, 5.2.6: a table's header has its maker in bytes 10–15.
        let maker = std::fs::read(dsdt)
            .ok()
            .and_then(|table| Some(table.get(10..16)?.to_vec()));
        match maker.as_deref() {
            Some(b"FIRECK") => Some("Firecracker".to_owned()),
            Some(b"CLOUDH") => Some("Cloud Hypervisor".to_owned()),
            _ => {
                let known = ["Amazon EC2", "Google Compute Engine", "QEMU", "OpenStack"];
                let named =
                    |name: &&&str| evidence.firmware.iter().any(|text| text.contains(**name));
                known.iter().find(named).map(|name| (*name).to_owned())
            }
        }
    }

    /// The container we are in: `docker`, `podman`, `lxc`, …, by the marks that it leaves.
    pub fn container(&self) -> Option<String> {
        // An image that was made for containers keeps their marks when it is booted as a
        // machine; but then nothing is hidden from it.
        if self.in_initial_namespaces() {
            return None;
        }
        // Our own root directory, as seen from /proc.
        let root = self.proc("self/root");
        if root.join("run/.containerenv").exists() {
            return Some("podman".to_owned());
        }
        if root.join(".dockerenv").exists() {
            return Some("docker".to_owned());
        }
        // container-interface of systemd: the manager writes its name there, or sets it for the
        // first process.
        let named = ["run/host/container-manager", "run/systemd/container"];
        if let Some(name) = named.iter().find_map(|file| word(&root.join(file))) {
            return Some(name);
        }
        let environment = read(&self.proc("1/environ"), 1 << 16).unwrap_or_default();
        let variable = environment
            .split('\0')
            .find_map(|entry| entry.strip_prefix("container="));
        if let Some(name) = variable.filter(|name| !name.is_empty()) {
            return Some(name.to_owned());
        }
        let cgroups = read(&self.proc("self/cgroup"), 1 << 16).unwrap_or_default();
        let signs = [
            ("/docker/", "docker"),
            ("/docker-", "docker"),
            ("/libpod", "podman"),
            ("kubepods", "kubernetes"),
            ("/lxc/", "lxc"),
            ("/lxc.payload", "lxc"),
            ("cri-containerd", "containerd"),
        ];
        let sign = signs.iter().find(|(sign, _)| cgroups.contains(sign));
        let openvz = || {
            // OpenVZ shows /proc/vz in the container and /proc/bc on the host alone.
            let in_vz = self.proc("vz").exists() && !self.proc("bc").exists();
            in_vz.then(|| "openvz".to_owned())
        };
        sign.map(|(_, name)| (*name).to_owned()).or_else(openvz)
    }

    /// Whether we see the machine's own processes, users and names. Their numbers are fixed in
    /// the kernel (`PROC_PID_INIT_INO` and its neighbours in `linux/proc_ns.h`).
    fn in_initial_namespaces(&self) -> bool {
        const INITIAL: [(&str, u32); 4] = [
            ("ipc", 0xefff_ffff),
            ("uts", 0xefff_fffe),
            ("user", 0xefff_fffd),
            ("pid", 0xefff_fffc),
        ];
        INITIAL.iter().all(|(name, number)| {
            let link = std::fs::read_link(self.proc("self/ns").join(name));
            link.is_ok_and(|link| link.as_os_str() == format!("{name}:[{number}]").as_str())
        })
    }
}

/// The hypervisor, `none`, or nothing when the evidence is empty.
fn decide(evidence: &Evidence) -> Option<&'static str> {
    let Evidence {
        flag,
        model,
        clocksources,
        firmware,
        xen,
        device_tree,
    } = evidence;
    let clock = |name: &str| clocksources.iter().any(|source| source.starts_with(name));
    let firm = |name: &str| firmware.iter().any(|text| text.contains(name));
    let tree = |name: &str| device_tree.contains(name);
    // Emulation first: it may imitate anything that follows. Then what names the hypervisor
    // itself, and only then the firmware, which clouds relabel.
    let named = match () {
        () if model.contains("QEMU TCG") => Some("qemu-tcg"),
        () if *xen || tree("xen,xen") => Some("xen"),
        () if firm("innotek GmbH") || firm("VirtualBox") => Some("virtualbox"),
        () if clock("kvm-clock") || tree("linux,kvm") => Some("kvm"),
        () if clock("hyperv_clocksource") => Some("hyper-v"),
        () if clock("xen") => Some("xen"),
        () if firm("VMware") || tree("vmware") => Some("vmware"),
        () if firm("Microsoft Corporation") && firm("Virtual Machine") => Some("hyper-v"),
        () if firm("Parallels") => Some("parallels"),
        () if firm("BHYVE") => Some("bhyve"),
        () if firm("Apple Virtualization") => Some("apple"),
        () if firm("KVM") || firm("OpenStack") => Some("kvm"),
        () if firm("QEMU") || firm("Bochs") || tree("linux,dummy-virt") => Some("qemu"),
        () => None,
    };
    // Clouds rent out whole machines too, under the same vendor: the flag tells, or where CPUs
    // have none, the product.
    let cloud = firm("Amazon EC2") || firm("Google Compute Engine");
    let rented_whole = firm(".metal") || firm("-metal");
    match (named, flag) {
        (Some(name), _) => Some(name),
        (None, Some(true)) if cloud => Some("kvm"),
        (None, None) if cloud && !rented_whole => Some("kvm"),
        (None, Some(true)) => Some("unknown"),
        (None, Some(false)) => Some("none"),
        (None, None) if !firmware.is_empty() || device_tree.len() > 1 => Some("none"),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fake::{self, Fake};

    #[test]
    fn machines_are_told_apart() {
        let vm = |hypervisor, product: Option<&str>| {
            let product = product.map(str::to_owned);
            Some(Virtualization::Machine {
                hypervisor,
                product,
            })
        };
        let check = |fake: Fake, want: Option<Virtualization>| {
            assert_eq!(Facts::new(&fake.roots).virtualization(), want);
        };
        check(fake::laptop(), Some(Virtualization::None));
        check(fake::arm_board(), Some(Virtualization::None));
        check(fake::bare_vm(), vm("kvm", Some("Firecracker")));
        check(fake::docker(), vm("kvm", Some("Amazon EC2")));
        check(Fake::new(), None);
    }

    #[test]
    fn evidence_is_weighed() {
        let check = |flag: Option<bool>, firmware: &[&str], clock: &str, want: Option<&str>| {
            let evidence = Evidence {
                flag,
                model: String::new(),
                clocksources: clock.split(' ').map(str::to_owned).collect(),
                firmware: firmware.iter().map(|text| (*text).to_owned()).collect(),
                xen: false,
                device_tree: "\0".to_owned(),
            };
            assert_eq!(decide(&evidence), want, "{flag:?} {firmware:?} {clock}");
        };
        check(Some(true), &["VMware, Inc."], "tsc acpi_pm", Some("vmware"));
        check(
            Some(true),
            &["Virtual Machine", "Microsoft Corporation"],
            "tsc",
            Some("hyper-v"),
        );
        check(
            Some(false),
            &["Surface Laptop", "Microsoft Corporation"],
            "tsc",
            Some("none"),
        );
        check(
            Some(true),
            &[],
            "hyperv_clocksource_tsc_page acpi_pm",
            Some("hyper-v"),
        );
        check(
            Some(true),
            &["Google Compute Engine", "Google"],
            "kvm-clock tsc",
            Some("kvm"),
        );
        check(
            Some(false),
            &["Google Compute Engine", "Google"],
            "tsc",
            Some("none"),
        );
        check(
            None,
            &["m6g.large", "Amazon EC2"],
            "arch_sys_counter",
            Some("kvm"),
        );
        check(
            None,
            &["m6g.metal", "Amazon EC2"],
            "arch_sys_counter",
            Some("none"),
        );
        check(
            Some(true),
            &["Standard PC", "QEMU"],
            "tsc kvm-clock",
            Some("kvm"),
        );
        check(
            Some(true),
            &["Standard PC", "QEMU"],
            "tsc hpet",
            Some("qemu"),
        );
        check(
            Some(true),
            &["VirtualBox", "innotek GmbH"],
            "kvm-clock",
            Some("virtualbox"),
        );
        check(Some(true), &[], "tsc", Some("unknown"));
        check(None, &[], "", None);
    }

    #[test]
    fn emulation_xen_and_device_trees_are_seen() {
        let fake = Fake::new();
        fake.proc(
            "cpuinfo",
            "processor: 0\nmodel name: QEMU TCG CPU version 2.5+\nflags: hypervisor\n",
        );
        assert_eq!(
            Facts::new(&fake.roots).virtualization().unwrap().name(),
            "qemu-tcg"
        );
        let fake = Fake::new();
        fake.sys("hypervisor/type", "xen\n");
        assert_eq!(
            Facts::new(&fake.roots).virtualization().unwrap().name(),
            "xen"
        );
        let fake = Fake::new();
        fake.proc("device-tree/compatible", "linux,dummy-virt\0");
        assert_eq!(
            Facts::new(&fake.roots).virtualization().unwrap().name(),
            "qemu"
        );
        fake.proc("device-tree/hypervisor/compatible", "linux,kvm\0");
        assert_eq!(
            Facts::new(&fake.roots).virtualization().unwrap().name(),
            "kvm"
        );
    }

    #[test]
    fn containers_are_named() {
        let check = |path: &str, content: &str, want: Option<&str>| {
            let fake = Fake::new();
            fake.proc(path, content);
            assert_eq!(
                Facts::new(&fake.roots).container().as_deref(),
                want,
                "{path}"
            );
        };
        check("self/root/.dockerenv", "", Some("docker"));
        check("self/root/run/.containerenv", "", Some("podman"));
        check(
            "self/root/run/systemd/container",
            "systemd-nspawn\n",
            Some("systemd-nspawn"),
        );
        check("1/environ", "PATH=/bin\0container=lxc\0", Some("lxc"));
        check("1/environ", "container=\0", None);
        check(
            "self/cgroup",
            "0::/kubepods.slice/pod1\n",
            Some("kubernetes"),
        );
        check("self/cgroup", "9:cpu:/docker/abc\n", Some("docker"));
        check("self/cgroup", "0::/user.slice\n", None);
        check("vz/version", "1", Some("openvz"));
    }

    #[test]
    fn a_container_image_booted_as_a_machine_is_no_container() {
        let fake = fake::docker();
        for (name, number) in [("ipc", "39"), ("uts", "38"), ("user", "37"), ("pid", "36")] {
            assert!(Facts::new(&fake.roots).container().is_some());
            fake.proc_link(
                &format!("self/ns/{name}"),
                &format!("{name}:[40265318{number}]"),
            );
        }
        assert_eq!(Facts::new(&fake.roots).container(), None);
    }
}
