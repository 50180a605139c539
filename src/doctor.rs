//! What this machine can do for each kind of cluster, and how to get the rest.
//!
//! ```text
//!                                        process  netns  docker  ssh
//! kill, pause, restart                   yes      yes    yes     yes
//! delay, jitter                          yes      no 1   no 1    the host's
//! ```
//! The same answers, in the same words, refuse a plan that asks for more.

use crate::machine;
use nemesis::Capability;
use std::fmt::Write;

/// Whether something can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It can.
    Yes,
    /// It can, with something else in place of what this machine lacks, if the test file says `stand-ins: true`.
    StandIn(String),
    /// It cannot, and why, and what to do.
    No(String),
    /// That depends on hosts that this machine does not know.
    Theirs,
}

/// One kind of cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// As for `--on`.
    pub name: &'static str,
    /// In the order of [`Capability::ALL`].
    pub answers: Vec<Answer>,
}

/// Looks at this machine, trying what has to be tried.
pub fn examine() -> Vec<Kind> {
    let namespaces = machine::namespaces();
    let docker = machine::docker();
    let ssh = machine::ssh();
    let fuse = machine::fuse();
    let clocks = machine::clocks();
    // Trying needs root; without it only the run that needs it will find out.
    let (netem, htb, copying) = match machine::root() {
        Ok(()) => (machine::scheduler("netem"), machine::scheduler("htb"), machine::copying()),
        Err(_) => {
            let why = || Err("not tried, which needs root; a run that needs it finds out".to_owned());
            (why(), why(), why())
        }
    };
    let shaped = |capability: Capability| match capability {
        Capability::Delay => htb.clone().and(netem.clone()),
        Capability::Scramble => htb.clone().and(netem.clone()).and(copying.clone()),
        Capability::Rate => htb.clone(),
        _ => Ok(()),
    };
    let disks = |capability: Capability| match capability {
        Capability::Disk | Capability::PowerFailure => fuse.clone(),
        Capability::Clock => clocks.clone(),
        _ => Ok(()),
    };
    let proxies = |capability: Capability| match capability {
        Capability::Loss | Capability::Scramble => {
            Err("the links of `process` are TCP proxies, which lose, duplicate, \
            reorder and corrupt no packets: use netns, docker or ssh"
                .to_owned())
        }
        _ => Ok(()),
    };
    let limits = |capability: Capability| match capability {
        Capability::Cpu | Capability::Memory => {
            Err("CPU and memory limits are the Docker engine's: use docker".to_owned())
        }
        _ => Ok(()),
    };
    let all = |of: &dyn Fn(Capability) -> Answer| Capability::ALL.iter().map(|(c, _)| of(*c)).collect();
    let answer = |result: Result<(), String>| result.map_or_else(Answer::No, |()| Answer::Yes);
    vec![
        Kind { name: "process", answers: all(&|c| answer(proxies(c).and(limits(c)).and(disks(c)))) },
        Kind {
            name: "netns",
            answers: all(&|c| answer(namespaces.clone().and(limits(c)).and(shaped(c)).and(disks(c)))),
        },
        Kind {
            name: "docker",
            // Clocks are set from a container that may trace, so that nobody need be root here.
            answers: all(&|c| {
                let disks = if c == Capability::Clock { Ok(()) } else { disks(c) };
                answer(docker.clone().and(shaped(c)).and(disks))
            }),
        },
        Kind {
            name: "ssh",
            answers: all(&|c| match ssh.clone().and(limits(c)) {
                Err(why) => Answer::No(why),
                Ok(()) if c == Capability::Processes => Answer::Yes,
                Ok(()) => Answer::Theirs,
            }),
        },
    ]
}

/// The table, and below it the reasons and what to do.
pub fn table(kinds: &[Kind]) -> String {
    let mut out = String::new();
    let mut reasons: Vec<String> = Vec::new();
    let width = Capability::ALL.iter().map(|(_, what)| what.len()).max().unwrap_or(0) + 2;
    let mut line = format!("{:width$}", "");
    for kind in kinds {
        let _ = write!(line, "{:12}", kind.name);
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
                Answer::No(why) => numbered("no", why),
            };
            let _ = write!(line, "{cell:12}");
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
            Kind { name: "netns", answers: answers(&Answer::No(kernel.clone())) },
            Kind { name: "ssh", answers: answers(&Answer::StandIn(kernel)) },
        ];
        insta::assert_snapshot!(table(&kinds));
    }

    #[test]
    fn every_kind_answers_for_everything() {
        for kind in examine() {
            assert_eq!(kind.answers.len(), Capability::ALL.len(), "{}", kind.name);
        }
    }
}
