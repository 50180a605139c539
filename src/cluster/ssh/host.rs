//! One host behind ssh: a login, one multiplexed connection, a folder, an agent.

use crate::{cluster::agents::Agent, scenario::ClusterSpec};
use anyhow::{Context, Result, bail};
use nemesis::NodeName;
use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, ToSocketAddrs},
    path::{Path, PathBuf},
    process::Stdio,
    str::FromStr,
};

/// `user@host:port`, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// As ssh takes it: `user@host`, or `host`.
    pub destination: String,
    /// The port of sshd.
    pub port: u16,
    /// The address by which clients and peers reach the host.
    pub address: Ipv4Addr,
}

impl FromStr for Login {
    type Err = anyhow::Error;
    fn from_str(s: &str) -> Result<Self> {
        let (destination, port) = match s.rsplit_once(':') {
            Some((left, port)) => {
                (left, port.parse().with_context(|| format!("in `{s}`: `{port}` is no port"))?)
            }
            None => (s, 22),
        };
        let name = destination.rsplit_once('@').map_or(destination, |(_, host)| host);
        if name.is_empty() || destination.starts_with('-') {
            bail!("`{s}` names no host; write user@host:port");
        }
        let all =
            (name, port).to_socket_addrs().with_context(|| format!("cannot resolve the host of `{s}`"))?;
        let mut v4 = all.filter_map(|a| if let IpAddr::V4(v4) = a.ip() { Some(v4) } else { None });
        let address = v4.next().with_context(|| format!("the host of `{s}` has no IPv4 address"))?;
        Ok(Login { destination: destination.to_owned(), port, address })
    }
}

/// A host.
pub struct Host {
    /// The node on it.
    pub name: NodeName,
    /// How it is reached.
    pub login: Login,
    /// Everything of the run on that host; empty until [`Host::settle`] has found a place for it.
    pub folder: PathBuf,
    run: String,
    options: Vec<OsString>,
}

impl Host {
    /// Nothing is done yet. `sockets` is a folder for the connection's socket.
    pub fn new(login: Login, name: &NodeName, run: &str, sockets: &Path, spec: &ClusterSpec) -> Self {
        let mut options: Vec<OsString> = Vec::new();
        let mut option = |text: String| options.extend(["-o".into(), text.into()]);
        option("BatchMode=yes".to_owned());
        option("ConnectTimeout=10".to_owned());
        // A host that is gone is noticed.
        option("ServerAliveInterval=5".to_owned());
        option("ControlMaster=auto".to_owned());
        option(format!("ControlPath={}/%C", sockets.display()));
        option("ControlPersist=60".to_owned());
        for given in &spec.ssh_options {
            option(given.clone());
        }
        options.extend(["-p".into(), login.port.to_string().into()]);
        if let Some(key) = &spec.ssh_key {
            options.extend(["-i".into(), key.into()]);
        }
        Host { name: name.clone(), login, folder: PathBuf::new(), run: run.to_owned(), options }
    }

    /// Logs in and makes the run's folder, in the first place where programs may be run.
    ///
    /// # Errors
    /// If the login fails, or there is no such place.
    pub async fn settle(&mut self) -> Result<()> {
        let name = format!("tribunal-{}-{}", self.run, self.name);
        let (code, out, err) = self.say(&settle_script(&name), Stdio::null()).await?;
        let at = format!("{} (port {})", self.login.destination, self.login.port);
        match code {
            Some(0) if out.trim().starts_with('/') => {
                self.folder = PathBuf::from(out.trim());
                Ok(())
            }
            Some(NOWHERE) => bail!(
                "no program can be run from {} on {at}: they are full, not writable or mounted `noexec`; remount one of \
                 them without that, for example `mount -o remount,exec /tmp` ({})",
                PLACES.join(", "),
                err.trim()
            ),
            _ => bail!("cannot log in to {at}: {}", err.trim()),
        }
    }

    /// Runs a script and returns its exit code and what it said on both of its outputs.
    async fn say(&self, script: &str, stdin: Stdio) -> Result<(Option<i32>, String, String)> {
        let mut command = tokio::process::Command::from(self.ssh(script));
        command.stdin(stdin).process_group(0).kill_on_drop(true);
        // Into files: the connection that stays in the background would keep pipes open.
        let (out, err) = (tempfile()?, tempfile()?);
        command.stdout(Stdio::from(out.1)).stderr(Stdio::from(err.1));
        let status = command.status().await.context("cannot run `ssh`");
        let words = [out.0, err.0].map(|path| {
            let words = std::fs::read_to_string(&path).unwrap_or_default();
            let _ = std::fs::remove_file(&path);
            words
        });
        let [out, err] = words;
        Ok((status?.code(), out, err))
    }

    fn ssh(&self, remote: &str) -> std::process::Command {
        let mut command = std::process::Command::new("ssh");
        command.args(&self.options).arg(&self.login.destination).arg(remote);
        // Marks the connection that stays in the background, so that it can be found if the tester is gone.
        command.env("TRIBUNAL_RUN", &self.run);
        command
    }

    /// Copies a program into the host's folder. Returns its path there.
    ///
    /// # Errors
    /// If the login or the copy fails.
    pub async fn upload(&self, program: &Path) -> Result<PathBuf> {
        let name = program.file_name().with_context(|| format!("{} is no file", program.display()))?;
        let there = self.folder.join(name);
        let file =
            std::fs::File::open(program).with_context(|| format!("cannot read {}", program.display()))?;
        let (folder, path) = (quoted(&self.folder), quoted(&there));
        let script = format!("umask 077 && cd {folder} && cat > {path} && chmod 700 {path}");
        let (code, _, words) = self.say(&script, Stdio::from(file)).await?;
        if code != Some(0) {
            bail!(
                "cannot copy {} to {} (port {}): {}",
                program.display(),
                self.login.destination,
                self.login.port,
                words.trim()
            );
        }
        Ok(there)
    }

    /// Uploads this program and starts it as an agent, as root.
    ///
    /// # Errors
    /// If the login fails, or is not root's and may not become root.
    pub async fn enter(&self, program: &Path) -> Result<Agent> {
        let there = quoted(&self.upload(program).await?);
        let agent = format!("{there} agent --run {} --folder {}", self.run, quoted(&self.folder));
        let script = format!("if [ \"$(id -u)\" = 0 ]; then exec {agent}; else exec sudo -n {agent}; fi");
        let opened = Agent::open(&format!("the agent of {}", self.name), self.ssh(&script)).await;
        opened.with_context(|| {
            format!(
                "cannot start an agent on {}: the login must be root's, or may use sudo without a password",
                self.login.destination
            )
        })
    }

    /// Removes the folder of a host on which no agent could be started. That may fail like everything before it.
    pub async fn forget(&self) {
        if self.folder.as_os_str().is_empty() {
            return;
        }
        let mut command =
            tokio::process::Command::from(self.ssh(&format!("rm -rf {}", quoted(&self.folder))));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let _ = command.status().await;
    }

    /// Ends the connection. Returns what went wrong.
    pub async fn leave(&self) -> Option<String> {
        let mut command = std::process::Command::new("ssh");
        command.args(&self.options).args(["-O", "exit"]).arg(&self.login.destination);
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        // It has ended by itself if the host went away.
        command.status().await.err().map(|e| format!("ssh to {}: {e}", self.login.destination))
    }
}

/// Where a host may allow programs to be run, in the order in which they are tried, for a shell there.
pub const PLACES: [&str; 4] = ["/tmp", "/var/tmp", "/run", "$HOME/.cache"];
/// The exit code that says that there is no such place.
const NOWHERE: i32 = 77;

/// Makes a folder of this name where a program in it can be run, and says where. A folder that is there already is
/// somebody else's.
fn settle_script(name: &str) -> String {
    let places = PLACES.map(|place| format!("\"{place}\"")).join(" ");
    format!(
        "umask 077; for place in {places}; do d=\"$place/{name}\"; mkdir -p \"$place\" && mkdir \"$d\" || continue; \
         printf '#!/bin/sh\\n' > \"$d/try\" && chmod 700 \"$d/try\" && \"$d/try\" && rm \"$d/try\" && echo \"$d\" && exit 0; \
         rm -rf \"$d\"; done; exit {NOWHERE}"
    )
}

/// For a remote shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

/// A file of our own for what a program says.
fn tempfile() -> Result<(PathBuf, std::fs::File)> {
    let path = std::env::temp_dir().join(format!("tribunal-said-{:016x}", rand::random::<u64>()));
    let file = std::fs::OpenOptions::new().create_new(true).write(true).open(&path);
    Ok((path.clone(), file.with_context(|| format!("cannot write {}", path.display()))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_read() {
        let login: Login = "root@127.0.0.1:2222".parse().unwrap();
        assert_eq!((login.destination.as_str(), login.port), ("root@127.0.0.1", 2222));
        assert_eq!(login.address, Ipv4Addr::LOCALHOST);
        assert_eq!("127.0.0.1".parse::<Login>().unwrap().port, 22);
        for bad in ["root@127.0.0.1:ssh", "root@", "-oProxyCommand=x@127.0.0.1"] {
            assert!(bad.parse::<Login>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_place_where_programs_run_is_found_or_there_is_a_word_for_it() {
        let home = tempfile::tempdir().unwrap();
        let name = format!("tribunal-test-{:08x}", rand::random::<u32>());
        let settle = |script: &str| {
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", script]).env("HOME", home.path()).output().unwrap()
        };
        let found = settle(&settle_script(&name));
        let folder = PathBuf::from(String::from_utf8(found.stdout).unwrap().trim());
        assert!(folder.is_dir() && folder.ends_with(&name), "{}", folder.display());
        std::fs::remove_dir_all(&folder).unwrap();
        // `/dev/null` takes no folders.
        let nowhere = settle(&settle_script("null/x").replace("/run", "/dev").replace("/var/tmp", "/dev"));
        assert_eq!(nowhere.status.code(), Some(NOWHERE));
    }

    #[test]
    fn paths_survive_a_remote_shell() {
        assert_eq!(quoted(Path::new("/tmp/it's")), r"'/tmp/it'\''s'");
    }
}
