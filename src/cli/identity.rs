//! As whom poise and what it measures run: the user we are, or the one who called sudo. Decides from ids and environment; never touches a credential but through [`privilege`].

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::Path;

use nix::unistd::getppid;

use super::Usage;
use crate::sys::privilege::{self, User};

/// Who runs poise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// A user who is not root.
    Ordinary {
        /// The user's id.
        uid: u32,
    },
    /// Root.
    Root,
    /// Root, on behalf of the user who called sudo.
    Sudo(Invoker),
}

/// The user who called sudo, as sudo tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Invoker {
    uid: u32,
    gid: u32,
    name: Option<String>,
    home: Option<OsString>,
}

/// We could not become the user whom the command should run as.
#[derive(Debug, thiserror::Error)]
#[error("cannot become {name}: {error}")]
pub(super) struct Stuck {
    name: String,
    error: io::Error,
}

impl Stuck {
    pub(super) const HINT: &str = "--as-root stays root";
}

impl Identity {
    /// Who runs this process.
    pub(super) fn look(as_root: bool) -> anyhow::Result<Identity> {
        let users = privilege::users()?;
        Ok(Identity::decide(users, as_root, |key| {
            std::env::var_os(key)
        })?)
    }

    /// `users` are the real and the effective one.
    fn decide(
        users: (u32, u32),
        as_root: bool,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Identity, Usage> {
        match users {
            (0, 0) if as_root => return Ok(Identity::Root),
            (0, 0) => {}
            _ if as_root => {
                return Err(Usage {
                    message: "--as-root is for root".to_owned(),
                    hint: Some("sudo poise …".to_owned()),
                });
            }
            (_, uid) => return Ok(Identity::Ordinary { uid }),
        }
        let Some(uid) = variable("SUDO_UID") else {
            return Ok(Identity::Root);
        };
        let id = |text: &OsStr| text.to_str()?.parse().ok().filter(|id| *id != u32::MAX);
        let gid = variable("SUDO_GID").unwrap_or_default();
        match (id(&uid), id(&gid)) {
            (Some(0), _) => Ok(Identity::Root),
            (Some(uid), Some(gid)) => Ok(Identity::Sudo(Invoker {
                uid,
                gid,
                name: variable("SUDO_USER").and_then(|name| name.into_string().ok()),
                home: variable("SUDO_HOME").filter(|home| Path::new(home).is_absolute()),
            })),
            _ => Err(Usage {
                message: format!(
                    "SUDO_UID={} and SUDO_GID={} name no user",
                    uid.display(),
                    gid.display()
                ),
                hint: Some("unset them, or use --as-root".to_owned()),
            }),
        }
    }

    /// From here on the process is whom the command shall run as; what only root may do comes
    /// before it.
    pub(super) fn settle(&self) -> Result<(), Stuck> {
        match self {
            // Settled since the start.
            Identity::Ordinary { .. } => Ok(()),
            Identity::Root => privilege::stay_root().map_err(|error| Stuck {
                name: "a root of few capabilities".to_owned(),
                error,
            }),
            Identity::Sudo(invoker) => {
                let (proc, etc) = (Path::new("/proc"), Path::new("/etc"));
                let user = User {
                    uid: invoker.uid,
                    gid: invoker.gid,
                    groups: invoker.groups(proc, getppid().as_raw(), etc),
                    environment: invoker.environment(etc),
                };
                privilege::become_user(&user).map_err(|error| Stuck {
                    name: invoker.name(),
                    error,
                })
            }
        }
    }

    /// Says as whom is measured, where a user may not expect it.
    pub(super) fn remark(&self) {
        if let Identity::Sudo(invoker) = self {
            let name = invoker.name();
            super::remark(&format!(
                "commands run as {name}, who called sudo; with --as-root as root"
            ));
        }
    }

    /// As whom commands run, for `poise doctor`.
    pub(super) fn about(&self) -> String {
        match self {
            Identity::Ordinary { uid } if privilege::is_raised() => {
                format!("commands run as user {uid}, without the capabilities of poise")
            }
            Identity::Ordinary { uid } => format!("commands run as user {uid}, as poise does"),
            Identity::Root => "commands run as root".to_owned(),
            Identity::Sudo(invoker) => {
                let name = invoker.name();
                format!("commands run as {name}, who called sudo; with --as-root as root")
            }
        }
    }

    /// For the header of the records: `1000`, `0`, or `1000 of root`.
    pub(super) fn word(&self) -> String {
        match self {
            Identity::Ordinary { uid } => uid.to_string(),
            Identity::Root => "0".to_owned(),
            Identity::Sudo(invoker) => format!("{} of root", invoker.uid),
        }
    }
}

impl Invoker {
    fn name(&self) -> String {
        let name = self.name.clone();
        name.unwrap_or_else(|| format!("user {}", self.uid))
    }

    /// The groups that the user has: those of the nearest ancestor of `pid` that is the user's
    /// own, such as the shell in which sudo was called; else those in `/etc/group`. The C library
    /// would ask services that a program without dynamic loader cannot ask.
    fn groups(&self, proc: &Path, mut pid: i32, etc: &Path) -> Vec<u32> {
        /// No line of ancestors is longer.
        const ANCESTORS: usize = 1000;
        let own = [self.uid; 4].map(|uid| uid.to_string());
        for _ in 0..ANCESTORS {
            let Ok(status) = fs::read_to_string(proc.join(pid.to_string()).join("status")) else {
                break;
            };
            let field = |key: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(key));
                line.unwrap_or_default().split_whitespace()
            };
            if field("Uid:").eq(&own) {
                return field("Groups:").flat_map(str::parse).collect();
            }
            match field("PPid:").next().map(str::parse) {
                Some(Ok(parent @ 1..)) => pid = parent,
                _ => break,
            }
        }
        let name = self.name.as_deref().unwrap_or_default();
        let member = |line: &str| {
            // name:password:gid:member,member
            let mut fields = line.split(':').skip(2);
            let (gid, members) = (fields.next()?, fields.next()?);
            let is_member = members.split(',').any(|member| member == name);
            gid.parse().ok().filter(|_| is_member && !name.is_empty())
        };
        let list = fs::read_to_string(etc.join("group")).unwrap_or_default();
        [self.gid]
            .into_iter()
            .chain(list.lines().filter_map(member))
            .collect()
    }

    /// The variables that sudo sets to root's.
    fn environment(&self, etc: &Path) -> Vec<(&'static str, Option<OsString>)> {
        let accounts = fs::read_to_string(etc.join("passwd")).unwrap_or_default();
        let uid = self.uid.to_string();
        // name:password:uid:gid:about:home:shell
        let account = accounts
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.get(2) == Some(&uid.as_str()));
        let field = |n: usize| {
            let field = account.as_ref()?.get(n).filter(|text| !text.is_empty());
            field.map(OsString::from)
        };
        let name = self.name.clone().map(OsString::from).or_else(|| field(0));
        vec![
            ("HOME", self.home.clone().or_else(|| field(5))),
            ("SHELL", field(6)),
            ("USER", name.clone()),
            ("LOGNAME", name),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invoker() -> Invoker {
        Invoker {
            uid: 1000,
            gid: 100,
            name: Some("alice".to_owned()),
            home: None,
        }
    }

    #[test]
    fn who_runs_poise() {
        let check = |users, as_root, variables: &[(&str, &str)], want: Option<&str>| {
            let variable = |key: &str| {
                let found = variables.iter().find(|(known, _)| *known == key);
                found.map(|(_, value)| OsString::from(value))
            };
            let got = Identity::decide(users, as_root, variable).map(|identity| identity.word());
            assert_eq!(got.ok().as_deref(), want, "{users:?} {variables:?}");
        };
        let sudo = |uid, gid| [("SUDO_UID", uid), ("SUDO_GID", gid), ("SUDO_USER", "alice")];
        check((1000, 1000), false, &[], Some("1000"));
        check((0, 0), false, &[], Some("0"));
        check((0, 0), true, &[], Some("0"));
        check((0, 0), false, &sudo("1000", "100"), Some("1000 of root"));
        check((0, 0), true, &sudo("1000", "100"), Some("0"));
        // Root called sudo.
        check((0, 0), false, &sudo("0", "0"), Some("0"));
        // Sudo to another user than root, and somebody's forgery.
        check((1000, 1000), false, &sudo("1001", "100"), Some("1000"));
        check((0, 1000), false, &sudo("1001", "100"), Some("1000"));
        check((1000, 1000), true, &[], None);
        check((1000, 1000), true, &sudo("1000", "100"), None);
        // −1 means no change to the kernel: we would stay root.
        for (uid, gid) in [
            ("4294967295", "100"),
            ("1000", "4294967295"),
            ("-1", "100"),
            ("alice", "100"),
            ("1000", ""),
            ("", "100"),
            ("1000 ", "100"),
        ] {
            check((0, 0), false, &sudo(uid, gid), None);
            check((0, 0), true, &sudo(uid, gid), Some("0"));
        }
        check((0, 0), false, &[("SUDO_UID", "1000")], None);
    }

    #[test]
    fn groups_are_those_of_the_callers_shell() {
        let root = tempfile::tempdir().unwrap();
        let status = |pid: i32, ppid: i32, uids: &str, groups: &str| {
            let dir = root.path().join(pid.to_string());
            fs::create_dir_all(&dir).unwrap();
            let text = format!(
                "Name:\tx\nPid:\t{pid}\nPPid:\t{ppid}\nUid:\t{uids}\nGid:\t9\t9\t9\t9\nGroups:\t{groups} \n"
            );
            fs::write(dir.join("status"), text).unwrap();
        };
        let passed = "root:x:0:\nadm:x:4:bob,alice\nusers:x:100:\nbroken\ndocker:x:998:alice\nx:x:5:alicent\n";
        fs::write(root.path().join("group"), passed).unwrap();
        let groups = |pid| invoker().groups(root.path(), pid, root.path());
        status(1, 0, "0\t0\t0\t0", "");
        status(10, 1, "1000\t1000\t1000\t1000", "4 24 100");
        // A set-user-ID program's groups may be its own.
        status(11, 10, "1000\t0\t0\t0", "0");
        status(12, 11, "0\t0\t0\t0", "0");
        assert_eq!(groups(12), [4, 24, 100]);
        status(10, 1, "1001\t1001\t1001\t1001", "27");
        assert_eq!(groups(12), [100, 4, 998]);
        assert_eq!(groups(99), [100, 4, 998]);
        // No end of ancestors.
        status(1, 12, "0\t0\t0\t0", "");
        assert_eq!(groups(12), [100, 4, 998]);
    }

    #[test]
    fn variables_are_the_callers_own() {
        let etc = tempfile::tempdir().unwrap();
        let check = |invoker: &Invoker, want: [Option<&str>; 4]| {
            let variables = invoker.environment(etc.path());
            let got: Vec<Option<&str>> = variables
                .iter()
                .map(|(_, value)| value.as_deref().and_then(OsStr::to_str))
                .collect();
            assert_eq!(got, want);
        };
        check(&invoker(), [None, None, Some("alice"), Some("alice")]);
        let accounts = "root:x:0:0::/root:/bin/sh\nshort:x\nalice:x:1000:100:Alice:/home/alice:\n";
        fs::write(etc.path().join("passwd"), accounts).unwrap();
        let (home, name) = (Some("/home/alice"), Some("alice"));
        check(&invoker(), [home, None, name, name]);
        let nameless = Invoker {
            name: None,
            home: Some("/away".into()),
            ..invoker()
        };
        check(&nameless, [Some("/away"), None, name, name]);
    }
}
