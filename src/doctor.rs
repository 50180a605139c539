//! What this machine can do for each kind of cluster, and how to get the rest.
//!
//! ```text
//!                                        process  netns  docker  ssh
//! kill, pause, restart                   yes      yes    yes     yes
//! delay, jitter                          yes      no 1   no 1    the host's
//! ```
//! The same answers, in the same words, refuse a plan that asks for more.

use crate::{
    cluster::docker::compose::DATA_IS_ITS_OWN,
    machine,
    scenario::{ClusterSpec, On},
};
use nemesis::Capability;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// Whether something can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It can.
    Yes,
    /// It can, with something else in place of what this machine lacks, if the test file says `stand-ins: true`.
    StandIn(String),
    /// Nobody has tried, and why: a run finds out.
    Untried(String),
    /// It cannot, and why, and what to do.
    No(String),
    /// That depends on hosts that this machine does not know.
    Theirs,
}

impl From<Result<(), String>> for Answer {
    fn from(tried: Result<(), String>) -> Self {
        tried.map_or_else(Answer::No, |()| Answer::Yes)
    }
}

/// One kind of cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// As for `--on`.
    pub name: String,
    /// In the order of [`Capability::ALL`].
    pub answers: Vec<Answer>,
}

/// Looks at this machine, trying what has to be tried.
pub fn examine() -> Vec<Kind> {
    let here = Here::default();
    let kind = |on: On| Kind {
        name: on.to_string(),
        answers: Capability::ALL.iter().map(|(capability, _)| here.answer(on, *capability)).collect(),
    };
    [On::Process, On::Netns, On::Docker, On::Ssh].map(kind).into()
}

/// Why this machine cannot carry out a test, if that is known before anything is made.
pub fn refusal(cluster: &ClusterSpec, needs: &BTreeSet<Capability>) -> Option<String> {
    let (here, on) = (Here::default(), cluster.on);
    if let Answer::No(why) = here.answer(on, Capability::Processes) {
        return Some(format!("`--on {on}` cannot be used here: {why}"));
    }
    needs.iter().find_map(|need| {
        let data = matches!(need, Capability::Disk | Capability::PowerFailure | Capability::Damage);
        let why = match here.answer(on, *need) {
            _ if data && cluster.compose.is_some() => DATA_IS_ITS_OWN.to_owned(),
            Answer::No(why) => why,
            Answer::StandIn(why) if !cluster.stand_ins => why,
            _ => return None,
        };
        let what = Capability::ALL.iter().find(|(c, _)| c == need).map_or("?", |(_, what)| what);
        Some(format!(
            "the plan needs `{what}`, which a cluster `--on {on}` cannot do here: {why}; `tribunal doctor` shows what \
             can be done"
        ))
    })
}

/// This machine. What it can do is tried when it is first asked for.
#[derive(Default)]
struct Here(RefCell<BTreeMap<&'static str, Result<(), String>>>);

impl Here {
    fn tried(&self, what: &'static str, attempt: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        let known = self.0.borrow().get(what).cloned();
        known.unwrap_or_else(|| {
            let tried = attempt();
            self.0.borrow_mut().insert(what, tried.clone());
            tried
        })
    }

    fn answer(&self, on: On, capability: Capability) -> Answer {
        let limits = || Answer::No("CPU and memory limits are the Docker engine's: use docker".to_owned());
        match on {
            On::Process => match capability {
                Capability::Loss | Capability::Scramble => Answer::No(
                    "the links of `process` are TCP proxies, which lose, duplicate, reorder and corrupt no packets: use \
                     netns, docker or ssh"
                        .to_owned(),
                ),
                Capability::Cpu | Capability::Memory => limits(),
                _ => self.data(capability).into(),
            },
            On::Netns => match (self.tried("netns", machine::namespaces), capability) {
                (Err(why), _) => Answer::No(why),
                (Ok(()), Capability::Cpu | Capability::Memory) => limits(),
                (Ok(()), _) => self.packets_or_data(capability),
            },
            On::Docker => match (self.tried("docker", machine::docker), capability) {
                (Err(why), _) => Answer::No(why),
                // Clocks are set from a container that may trace, so that nobody need be root here.
                (Ok(()), Capability::Clock) => machine::clocks_are_known().into(),
                (Ok(()), _) => self.packets_or_data(capability),
            },
            On::Ssh => match machine::ssh() {
                Err(why) => Answer::No(why),
                Ok(()) => match capability {
                    Capability::Processes => Answer::Yes,
                    Capability::Cpu | Capability::Memory => limits(),
                    _ => Answer::Theirs,
                },
            },
        }
    }

    /// What is done to data folders and clocks on this machine.
    fn data(&self, capability: Capability) -> Result<(), String> {
        match capability {
            Capability::Disk | Capability::PowerFailure => self.tried("fuse", machine::fuse),
            Capability::Clock => self.tried("clocks", machine::clocks),
            _ => Ok(()),
        }
    }

    fn packets_or_data(&self, capability: Capability) -> Answer {
        let packets = match capability {
            Capability::Loss => machine::losing,
            Capability::Reset => machine::resetting,
            Capability::Rate => || machine::scheduler("htb"),
            Capability::Delay => || machine::scheduler("htb").and_then(|()| machine::scheduler("netem")),
            Capability::Scramble => || {
                let delayed = machine::scheduler("htb").and_then(|()| machine::scheduler("netem"));
                delayed.and_then(|()| machine::copying())
            },
            _ => return self.data(capability).into(),
        };
        // Without a namespace of our own to try it in, only the run that needs it will find out.
        if let Err(why) = self.tried("netns", machine::namespaces) {
            return Answer::Untried(format!("not tried ({why}); a run that needs it finds out"));
        }
        let stood_in = matches!(capability, Capability::Delay | Capability::Scramble);
        match packets() {
            Ok(()) => Answer::Yes,
            Err(why) if stood_in && self.tried("queue", machine::queueing).is_ok() => {
                Answer::StandIn(format!(
                    "{why}; or allow a stand-in, a packet queue in user space: `--stand-ins`, or `stand-ins: true` below \
                 `cluster` in the test file"
                ))
            }
            Err(why) => Answer::No(why),
        }
    }
}

/// The table, and below it the reasons and what to do.
pub fn table(kinds: &[Kind]) -> String {
    let mut out = String::new();
    let mut reasons: Vec<String> = Vec::new();
    let width = Capability::ALL.iter().map(|(_, what)| what.len()).max().unwrap_or(0) + 2;
    let mut line = format!("{:width$}", "");
    for kind in kinds {
        let _ = write!(line, "{:14}", kind.name);
    }
    let _ = writeln!(out, "{}", line.trim_end());
    for (row, (_, what)) in Capability::ALL.iter().enumerate() {
        let mut line = format!("{what:width$}");
        for kind in kinds {
            let mut numbered = |word: &str, why: &String| {
                let at = reasons.iter().position(|r| r == why).unwrap_or_else(|| {
                    reasons.push(why.clone());
                    reasons.len() - 1
                });
                format!("{word} ({})", at + 1)
            };
            let cell = match &kind.answers[row] {
                Answer::Yes => "yes".to_owned(),
                Answer::Theirs => "the host's".to_owned(),
                Answer::StandIn(why) => numbered("stand-in", why),
                Answer::Untried(why) => numbered("perhaps", why),
                Answer::No(why) => numbered("no", why),
            };
            let _ = write!(line, "{cell:14}");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    if !reasons.is_empty() {
        out.push('\n');
    }
    for (i, why) in reasons.iter().enumerate() {
        let _ = writeln!(out, "({}) {why}", i + 1);
    }
    if kinds.iter().any(|k| k.answers.contains(&Answer::Theirs)) {
        out.push_str("the host's: what the hosts behind ssh can do, `tribunal doctor` says there\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_said_once_and_numbered() {
        let kernel = "this kernel has no `sch_netem`: load the module".to_owned();
        let answers = |delay: &Answer| {
            let of = |c: Capability| match c {
                Capability::Delay | Capability::Scramble => delay.clone(),
                Capability::Cpu => Answer::No("CPU limits are the engine's".to_owned()),
                Capability::Disk => Answer::Theirs,
                _ => Answer::Yes,
            };
            Capability::ALL.iter().map(|(c, _)| of(*c)).collect()
        };
        let kinds = [
            Kind { name: "netns".to_owned(), answers: answers(&Answer::No(kernel.clone())) },
            Kind { name: "ssh".to_owned(), answers: answers(&Answer::StandIn(kernel)) },
        ];
        insta::assert_snapshot!(table(&kinds));
    }

    #[test]
    fn what_a_kind_never_can_is_refused_with_a_reason() {
        let cluster = ClusterSpec::default();
        assert_eq!(refusal(&cluster, &[Capability::Cut].into()), None);
        let why = refusal(&cluster, &[Capability::Cut, Capability::Loss].into()).unwrap();
        assert!(why.contains("packet loss") && why.contains("TCP proxies"), "{why}");
    }

    #[test]
    fn every_kind_answers_for_everything() {
        for kind in examine() {
            assert_eq!(kind.answers.len(), Capability::ALL.len(), "{}", kind.name);
        }
    }
}
