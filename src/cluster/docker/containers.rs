//! The nodes' containers: started, killed, paused, stopped and limited through the engine.

use super::engine::docker;
use crate::cluster::{
    Part,
    processes::{NO_COMMAND, Processes},
};
use async_trait::async_trait;
use nemesis::{Capability, Limits, NodeName, NodeState, Usage};
use std::{
    fs::File,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Where holders see the host's control groups.
pub(super) const GROUPS: &str = "/host-cgroup";

/// What a node is left above what it uses, in bytes, if it uses more than its limit was to be.
const SLACK: u64 = 64 << 10;
/// How long the engine may take to hand out a log.
const LOG: Duration = Duration::from_secs(60);
/// How often that is tried, with twice as much each time.
const ATTEMPTS: u32 = 6;

/// One node's container.
pub struct Container {
    /// The node.
    pub name: NodeName,
    /// The container's name or id.
    pub container: String,
    /// What `docker create` is given before the node's command, if the container is ours to make: options and image.
    pub create: Option<Vec<String>>,
    /// Where its output is collected.
    pub log: PathBuf,
    /// Whose agent can read the host's control groups.
    pub agent: Arc<crate::cluster::agents::Agent>,
}

/// All of them.
pub struct Containers {
    all: Vec<Container>,
    states: Vec<Seen>,
    deaths: Mutex<Vec<String>>,
}

/// What we know of a container.
#[derive(Default)]
struct Seen {
    made: AtomicBool,
    /// It was started, and nobody has ended it since.
    should_run: AtomicBool,
    /// When the engine began what runs since then, once we have looked: another time is another process.
    begun: Mutex<Option<String>>,
    excused: AtomicBool,
    cpu_limited: AtomicBool,
    memory_limited: AtomicBool,
    /// What a lifted memory limit was set to, in bytes: there is no more.
    lifted_to: AtomicU64,
}

/// What the engine says of a container.
struct Inspected {
    status: String,
    code: String,
    out_of_memory: bool,
    pid: i32,
    id: String,
    begun: String,
}

impl Containers {
    /// None of them is started yet.
    pub fn new(all: Vec<Container>) -> Self {
        let states = all.iter().map(|_| Seen::default()).collect();
        Containers { all, states, deaths: Mutex::default() }
    }

    /// Containers that run already.
    pub fn running(all: Vec<Container>) -> Self {
        let containers = Containers::new(all);
        for seen in &containers.states {
            seen.made.store(true, Relaxed);
            seen.should_run.store(true, Relaxed);
        }
        containers
    }

    async fn inspect(&self, i: usize) -> Result<Inspected, String> {
        const FORMAT: &str = "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Pid}} {{.Id}} {{.State.StartedAt}}";
        let text = docker(&["inspect", "--format", FORMAT, &self.all[i].container]).await?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let [status, code, oom, pid, id, begun] = words[..] else {
            return Err(format!("the engine says strange things of {}: {text}", self.all[i].container));
        };
        Ok(Inspected {
            status: status.to_owned(),
            code: code.to_owned(),
            out_of_memory: oom == "true",
            pid: pid.parse().unwrap_or(0),
            id: id.to_owned(),
            begun: begun.to_owned(),
        })
    }

    /// Looks whether a container that should run has ended, and if so remembers it.
    async fn look(&self, i: usize) -> Result<Inspected, String> {
        let seen = &self.states[i];
        let should_run = seen.should_run.load(Relaxed);
        let now = self.inspect(i).await?;
        if matches!(now.status.as_str(), "exited" | "dead")
            && should_run
            && seen.should_run.swap(false, Relaxed)
        {
            let c = &self.all[i];
            if !seen.excused.load(Relaxed) {
                let death = format!("{} ended by itself ({}); see {}", c.name, now.how(), c.log.display());
                self.lock_deaths().push(death);
            }
            self.collect_log(i).await;
        }
        if should_run && now.status == "running" && seen.is_another(&now.begun) && !seen.excused.load(Relaxed)
        {
            let c = &self.all[i];
            let death = format!(
                "{} ended and was started again by somebody else, at {}; see {}",
                c.name,
                now.begun,
                c.log.display()
            );
            self.lock_deaths().push(death);
        }
        Ok(now)
    }

    /// Limits a container's memory, or, with 0, lifts the limit.
    async fn limit_memory(&self, i: usize, mb: u64) -> Result<(), String> {
        let container = &self.all[i].container;
        let update = async |memory: u64, swap: u64| {
            let (memory, swap) = (format!("{memory}b"), format!("{swap}b"));
            docker(&["update", "--memory", &memory, "--memory-swap", &swap, container]).await
        };
        if mb == 0 {
            // The engine knows no way to lift a limit; as much as there is does the same.
            let all = docker(&["info", "--format", "{{.MemTotal}}"]).await?;
            let all: u64 = all.parse().map_err(|_| format!("the engine has `{all}` bytes of memory"))?;
            update(all, all * 2).await?;
            self.states[i].lifted_to.store(all, Relaxed);
            return Ok(());
        }
        let mut limit = mb << 20;
        for attempt in 0..ATTEMPTS {
            match update(limit, limit).await {
                Ok(_) => return Ok(()),
                // The engine sets no limit below what is in use: then it is a little above that, and a little more if
                // the node has grown meanwhile.
                Err(why) => limit = used_bytes(&why).ok_or(why)? + (SLACK << attempt),
            }
        }
        Err(format!("its memory grows faster than it can be limited, beyond {limit} bytes"))
    }

    /// Copies what the container has said so far into the node's log.
    async fn collect_log(&self, i: usize) {
        let c = &self.all[i];
        let Ok(out) = File::create(&c.log) else { return };
        let Ok(err) = out.try_clone() else { return };
        let mut command = tokio::process::Command::new("docker");
        command.args(["logs", &c.container]).stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        // A log that the engine does not hand out in time is cut short.
        let _ = tokio::time::timeout(LOG, command.kill_on_drop(true).status()).await;
    }

    fn lock_deaths(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.deaths.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Seen {
    /// Whether a start is another than that which was seen before, which it replaces.
    fn is_another(&self, begun: &str) -> bool {
        let before = self.begun.lock().unwrap_or_else(|e| e.into_inner()).replace(begun.to_owned());
        before.is_some_and(|before| before != begun)
    }

    /// We start it: whatever runs from now on is what we wanted.
    fn forget_start(&self) {
        *self.begun.lock().unwrap_or_else(|e| e.into_inner()) = None;
    }
}

impl Inspected {
    fn how(&self) -> String {
        if self.out_of_memory {
            return format!("out of memory, exit code {}", self.code);
        }
        match self.code.as_str() {
            // What a shell and the engine make of a death by SIGKILL.
            "137" => "killed by signal 9".to_owned(),
            code => format!("exit code {code}"),
        }
    }
}

#[async_trait]
impl Part for Containers {
    fn supports(&self, capability: Capability) -> Option<Result<(), String>> {
        matches!(capability, Capability::Cpu | Capability::Memory).then_some(Ok(()))
    }

    async fn tear_down(&self) -> Vec<String> {
        let mut errors = Vec::new();
        for i in 0..self.all.len() {
            if !self.states[i].made.load(Relaxed) {
                continue;
            }
            // A death that nobody has looked at yet is noticed here, before everyone is ended.
            let _ = self.look(i).await;
            self.states[i].should_run.store(false, Relaxed);
            self.collect_log(i).await;
            if self.all[i].create.is_some() {
                errors.extend(docker(&["rm", "--force", "--volumes", &self.all[i].container]).await.err());
            }
        }
        errors
    }
}

#[async_trait]
impl Processes for Containers {
    async fn start(&self, i: usize, command: Option<Command>) -> Result<(), String> {
        let c = &self.all[i];
        if let (Some(create), false) = (&c.create, self.states[i].made.load(Relaxed)) {
            let command = command.ok_or(NO_COMMAND)?;
            let mut arguments: Vec<String> =
                ["create", "--name", &c.container].iter().map(|a| (*a).to_owned()).collect();
            for (name, value) in command.get_envs() {
                if let Some(value) = value {
                    arguments.push("--env".to_owned());
                    arguments.push(format!("{}={}", name.to_string_lossy(), value.to_string_lossy()));
                }
            }
            arguments.push("--entrypoint".to_owned());
            arguments.push(command.get_program().to_string_lossy().into_owned());
            arguments.extend(create.iter().cloned());
            arguments.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
            docker(&arguments).await?;
            self.states[i].made.store(true, Relaxed);
        }
        self.states[i].forget_start();
        docker(&["start", &c.container]).await?;
        self.states[i].should_run.store(true, Relaxed);
        // Learns when the engine began it. What it may find out is remembered there.
        let _ = self.look(i).await;
        Ok(())
    }

    async fn strike(&self, i: usize) -> Result<(), String> {
        if !self.states[i].made.load(Relaxed) {
            return Ok(());
        }
        let now = self.look(i).await?;
        self.states[i].should_run.store(false, Relaxed);
        if now.status == "paused" {
            // The engine kills nobody who is frozen.
            docker(&["unpause", &self.all[i].container]).await?;
        }
        if matches!(now.status.as_str(), "running" | "paused") {
            let killed = docker(&["kill", "--signal", "KILL", &self.all[i].container]).await;
            // It may have ended in this moment.
            if let Err(why) = killed
                && !why.contains("is not running")
            {
                return Err(why);
            }
        }
        Ok(())
    }

    async fn reap(&self, i: usize) -> Result<(), String> {
        if !self.states[i].made.load(Relaxed) {
            return Ok(());
        }
        // Returns at once if it has ended already.
        let wait = ["wait", &self.all[i].container];
        let waited = tokio::time::timeout(Duration::from_secs(30), docker(&wait)).await;
        waited.map_err(|_| "it was killed and is still there after 30 s".to_owned())?.map(|_| ())
    }

    async fn stop(&self, i: usize) -> Result<(), String> {
        self.states[i].should_run.store(false, Relaxed);
        docker(&["stop", "--time", "5", &self.all[i].container]).await?;
        Ok(())
    }

    async fn pause(&self, i: usize) -> Result<(), String> {
        docker(&["pause", &self.all[i].container]).await.map(|_| ())
    }

    async fn resume(&self, i: usize) -> Result<(), String> {
        docker(&["unpause", &self.all[i].container]).await.map(|_| ())
    }

    async fn state(&self, i: usize) -> NodeState {
        if !self.states[i].made.load(Relaxed) {
            return NodeState::Dead("never started".to_owned());
        }
        match self.look(i).await {
            Ok(now) => match now.status.as_str() {
                "running" | "restarting" => NodeState::Running,
                "paused" => NodeState::Paused,
                "created" => NodeState::Dead("never started".to_owned()),
                _ => NodeState::Dead(now.how()),
            },
            Err(why) => NodeState::Unknown(why),
        }
    }

    fn excuse(&self, i: usize, excused: bool) {
        self.states[i].excused.store(excused, Relaxed);
    }

    async fn deaths(&self) -> Vec<String> {
        for i in 0..self.all.len() {
            if self.states[i].should_run.load(Relaxed) {
                let _ = self.look(i).await;
            }
        }
        self.lock_deaths().clone()
    }

    async fn pid(&self, i: usize) -> Option<i32> {
        self.inspect(i).await.ok().map(|now| now.pid).filter(|pid| *pid > 0)
    }

    async fn limit(&self, i: usize, limits: Limits) -> Result<(), String> {
        let (seen, container) = (&self.states[i], &self.all[i].container);
        if !seen.made.load(Relaxed) {
            return Ok(());
        }
        if limits.cpus > 0.0 || seen.cpu_limited.load(Relaxed) {
            let quota = if limits.cpus > 0.0 { (limits.cpus * 100_000.0) as i64 } else { -1 };
            docker(&["update", "--cpu-period", "100000", "--cpu-quota", &quota.to_string(), container])
                .await?;
            seen.cpu_limited.store(limits.cpus > 0.0, Relaxed);
        }
        if limits.memory_mb > 0 || seen.memory_limited.load(Relaxed) {
            self.limit_memory(i, limits.memory_mb).await?;
            seen.memory_limited.store(limits.memory_mb > 0, Relaxed);
        }
        Ok(())
    }

    async fn usage(&self, i: usize) -> Usage {
        let Ok(now) = self.inspect(i).await else { return Usage::default() };
        let agent = &self.all[i].agent;
        let read = async |path: String| {
            let read = crate::agent::Request::Read { path: PathBuf::from(format!("{GROUPS}/{path}")) };
            agent.ask::<String>(read).await.unwrap_or_default()
        };
        // Version 1 with cgroupfs or systemd as the driver, then version 2.
        let mut usage = Usage::default();
        for group in [format!("docker/{}", now.id), format!("system.slice/docker-{}.scope", now.id)] {
            for file in [format!("cpu/{group}/cpu.stat"), format!("{group}/cpu.stat")] {
                usage.throttled = usage.throttled.max(field(&read(file).await, "nr_throttled"));
            }
            let hits = read(format!("memory/{group}/memory.failcnt")).await.trim().parse().unwrap_or(0);
            let events = read(format!("{group}/memory.events")).await;
            usage.memory_hits = usage.memory_hits.max(hits).max(field(&events, "max"));
            for file in [format!("memory/{group}/memory.stat"), format!("{group}/memory.stat")] {
                usage.pages_read = usage.pages_read.max(field(&read(file).await, "pgmajfault"));
            }
            let quota = read(format!("cpu/{group}/cpu.cfs_quota_us")).await;
            let period = read(format!("cpu/{group}/cpu.cfs_period_us")).await;
            let both = read(format!("{group}/cpu.max")).await;
            usage.cpus = usage.cpus.or(share(&format!("{quota} {period}"))).or(share(&both));
            let all = self.states[i].lifted_to.load(Relaxed);
            for file in [format!("memory/{group}/memory.limit_in_bytes"), format!("{group}/memory.max")] {
                usage.memory_limit = usage.memory_limit.or(memory_limit(&read(file).await, all));
            }
        }
        usage
    }
}

/// What the engine says is in use when it refuses a limit for that reason.
fn used_bytes(said: &str) -> Option<u64> {
    let rest = said.split("current usage: ").nth(1)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The processors that a quota and a period allow, 0 if all of them.
fn share(quota_and_period: &str) -> Option<f64> {
    let mut words = quota_and_period.split_whitespace();
    let (quota, period) = (words.next()?, words.next()?.parse::<f64>().ok()?);
    match quota {
        "-1" | "max" => Some(0.0),
        quota => Some(quota.parse::<f64>().ok()? / period),
    }
}

/// A memory limit in bytes, 0 if it is none: the kernel's largest number, or all that the machine has.
fn memory_limit(text: &str, all: u64) -> Option<u64> {
    const NONE: u64 = 1 << 60;
    match text.trim() {
        "max" => Some(0),
        bytes => {
            bytes.parse().ok().map(|b: u64| if b >= NONE || (all > 0 && b >= page(all)) { 0 } else { b })
        }
    }
}

/// Whole pages, as the kernel keeps limits.
fn page(bytes: u64) -> u64 {
    bytes & !0xffff
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix(name).filter(|rest| rest.starts_with(' ')));
    line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Seen, field, memory_limit, share, used_bytes};

    #[test]
    fn a_start_that_nobody_asked_for_is_noticed_once() {
        let seen = Seen::default();
        assert!(!seen.is_another("10:00") && !seen.is_another("10:00"));
        assert!(seen.is_another("10:01") && !seen.is_another("10:01"));
        seen.forget_start();
        assert!(!seen.is_another("10:02"));
    }

    #[test]
    fn a_refusal_says_how_much_is_in_use() {
        let said = "unable to set memory limit to 6291456 (current usage: 6414336, peak usage: 16224256)";
        assert_eq!(used_bytes(said), Some(6_414_336));
        assert_eq!(used_bytes("no such container"), None);
    }

    #[test]
    fn limits_are_read_from_both_versions_of_control_groups() {
        assert_eq!((share("-1\n 100000\n"), share("max 100000\n")), (Some(0.0), Some(0.0)));
        assert_eq!((share("5000\n 100000"), share(" "), share("")), (Some(0.05), None, None));
        let all = 8_000_000_001;
        assert_eq!((memory_limit("max\n", 0), memory_limit("9223372036854771712", 0)), (Some(0), Some(0)));
        assert_eq!((memory_limit("8000000000\n", all), memory_limit("", all)), (Some(0), None));
        assert_eq!(memory_limit("6291456\n", all), Some(6_291_456));
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "nr_periods 12\nnr_throttled 7\nthrottled_time 99\n";
        assert_eq!((field(text, "nr_throttled"), field(text, "throttled"), field(text, "max")), (7, 0, 0));
    }
}
