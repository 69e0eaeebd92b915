//! What the kernel does about the hardware's vulnerabilities, which every system call pays for. Never judges whether that is safe.

use super::Facts;
use super::file::{entries, text, word};

/// Mitigations of hardware vulnerabilities.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Mitigations {
    /// The value of `mitigations=` on the kernel command line.
    pub boot: Option<String>,
    /// Every vulnerability that the kernel knows, by name.
    pub vulnerabilities: Vec<Vulnerability>,
}

/// What the kernel says of one hardware vulnerability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vulnerability {
    /// `spectre_v2`, `meltdown`, …
    pub name: String,
    /// Whether it is dealt with.
    pub state: VulnerabilityState,
    /// The kernel's own words.
    pub text: String,
}

/// Whether a vulnerability is dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VulnerabilityState {
    /// This CPU does not have it.
    NotAffected,
    /// The kernel works round it, which costs time.
    Mitigated,
    /// It has it and nothing is done.
    Vulnerable,
    /// The kernel does not know.
    Unknown,
}

impl Facts<'_> {
    /// Every vulnerability that the kernel knows, and what it does about it.
    pub fn mitigations(&self) -> Mitigations {
        let dir = self.cpus_dir().join("vulnerabilities");
        let vulnerability = |name: String| {
            let text = word(&dir.join(&name))?;
            let verdict = text.strip_prefix("KVM: ").unwrap_or(&text);
            let starts = |start| verdict.starts_with(start);
            let state = match () {
                () if starts("Not affected") => VulnerabilityState::NotAffected,
                () if starts("Mitigation") => VulnerabilityState::Mitigated,
                () if starts("Vulnerable") || starts("Processor vulnerable") => {
                    VulnerabilityState::Vulnerable
                }
                () => VulnerabilityState::Unknown,
            };
            Some(Vulnerability { name, state, text })
        };
        Mitigations {
            boot: self.boot_parameter("mitigations"),
            vulnerabilities: entries(&dir)
                .into_iter()
                .filter_map(vulnerability)
                .collect(),
        }
    }

    /// The value of a parameter on the kernel command line, the last one given. What stands
    /// after `--` is for init, not for the kernel.
    fn boot_parameter(&self, key: &str) -> Option<String> {
        let line = text(&self.proc("cmdline"))?;
        let kernel = line.split_whitespace().take_while(|&word| word != "--");
        let values = kernel.filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        values.last().map(str::to_owned)
    }
}

impl Mitigations {
    /// The names of the vulnerabilities in this state.
    pub fn names(&self, state: VulnerabilityState) -> Vec<&str> {
        let in_state = self.vulnerabilities.iter().filter(|v| v.state == state);
        in_state.map(|v| v.name.as_str()).collect()
    }

    /// One line: the boot parameter if given, what is mitigated, what is left open.
    pub fn summary(&self) -> Option<String> {
        let mut parts: Vec<String> = self.boot.iter().cloned().collect();
        let labels = [
            ("mitigated", VulnerabilityState::Mitigated),
            ("vulnerable", VulnerabilityState::Vulnerable),
            ("unknown", VulnerabilityState::Unknown),
        ];
        for (label, state) in labels {
            let names = self.names(state);
            if !names.is_empty() {
                parts.push(format!("{label}: {}", names.join(" ")));
            }
        }
        if parts.is_empty() && !self.vulnerabilities.is_empty() {
            parts.push("none needed".to_owned());
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}
