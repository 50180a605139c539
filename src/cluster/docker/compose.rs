//! A stranger's compose project on trial: its services are the nodes, and a side container joins the network of each.
//!
//! ```text
//! compose up (project tribunal-<run>, labels added) ─ container of service kv1 ◀─joined by─ tribunal-<run>-n1-net
//! ```
//! A container that starts again has a new network namespace: the old side container is left with a dead one, so a new one
//! is made and the faults in force are put back, a moment after the start. The data of the services is their own: faults
//! of the disk are refused.

use super::{
    Ground, OWNER, RUN, clocks,
    containers::{Container, Containers},
    engine::{BUILDING, docker, output},
    enter, hold,
};
use crate::{
    cluster::{
        Surroundings,
        agents::Agent,
        assembly::{Assembly, Parts},
        disks::{Disks, Folder},
        firewall::{Doors, Firewall, Spot, Wanted},
    },
    owner::Owner,
};
use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use nemesis::NodeName;
use serde_yaml::{Mapping, Value};
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::Mutex;

/// Why no fault of the disk is injected.
pub const DATA_IS_ITS_OWN: &str =
    "the data of a compose project is its own; put the image on trial with `cluster: {image: …}` instead";
/// Subnets that are tried.
const ATTEMPTS: u8 = 16;

/// Starts the project and joins its services.
pub(super) async fn build(around: &Arc<Surroundings>, ground: &Arc<Ground>, side: &str) -> Result<Assembly> {
    let Some(file) = &around.spec.compose else { bail!("no compose file was given") };
    let project = format!("tribunal-{}", around.run);
    let override_file = around.store.file("compose-labels.yaml");
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let compose = Compose { project, files: [file.clone(), override_file.clone()] };
    let first = around.run.bytes().fold(0u8, u8::wrapping_add);
    for attempt in 0..ATTEMPTS {
        let subnet = first.wrapping_add(attempt * 16);
        let added = override_for(&text, &around.run, &around.spec.services, subnet);
        std::fs::write(&override_file, added.with_context(|| file.display().to_string())?)?;
        match compose.run(&["up", "-d"]).await {
            Ok(_) => break,
            // Somebody else has that subnet.
            Err(why) if why.to_string().contains("overlap") && attempt + 1 < ATTEMPTS => {}
            Err(why) => return Err(why),
        }
    }
    let ids = compose.containers(&around.spec.services, around.names.len()).await?;
    // An engine that starts what has ended would hide deaths, and put nodes into networks without their faults.
    let update = ["update", "--restart=no"].into_iter().chain(ids.iter().map(String::as_str));
    docker(&update.collect::<Vec<_>>()).await.map_err(anyhow::Error::msg)?;
    let mut addresses = Vec::new();
    for (id, name) in ids.iter().zip(&around.names) {
        addresses.push(address_of(id).await.with_context(|| format!("{name} is in no network"))?);
    }
    let doors = Side {
        around: around.clone(),
        ground: ground.clone(),
        image: side.to_owned(),
        ids: ids.clone(),
        seen: Mutex::default(),
    };
    let mut spots = Vec::new();
    for (i, name) in around.names.iter().enumerate() {
        let agent = doors.open(i).await.map_err(anyhow::Error::msg)?.context("a service does not run")?;
        spots.push(Spot { name: name.clone(), address: addresses[i], agent });
    }
    let container = |(i, name): (usize, &NodeName)| Container {
        name: name.clone(),
        container: ids[i].clone(),
        create: None,
        log: around.store.node_log(name),
        agent: spots[i].agent.clone(),
    };
    let containers = around.names.iter().enumerate().map(container).collect();
    let firewall =
        Firewall::open(&around.run, spots, Wanted::by(around)).await.map_err(anyhow::Error::msg)?;
    let members = around.members(&addresses, |_| PathBuf::new())?;
    let folder = |_: &NodeName| Folder { backing: PathBuf::new(), mount: None, agent: None };
    Ok(Assembly::new(Parts {
        adapter: around.adapter.clone(),
        members,
        logs: around.names.iter().map(|n| around.store.node_log(n)).collect(),
        processes: Box::new(Containers::running(containers)),
        network: Box::new(firewall.with_doors(Box::new(doors))),
        disks: Disks::new(around.names.iter().map(folder).collect(), Some(DATA_IS_ITS_OWN.to_owned())),
        clocks: clocks(around, ground, side).await?,
        ground: Box::new(ground.clone()),
    }))
}

async fn address_of(id: &str) -> Result<Ipv4Addr> {
    const FORMAT: &str = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}} {{end}}";
    let text = docker(&["inspect", "--format", FORMAT, id]).await.map_err(anyhow::Error::msg)?;
    let [first] = text.split_whitespace().collect::<Vec<_>>()[..] else {
        // A cut by one address would leave the others.
        bail!("it must have exactly one address, in one network and of IPv4, and it has: {text}");
    };
    first.parse().with_context(|| format!("`{first}` is no IPv4 address"))
}

/// Makes side containers.
struct Side {
    around: Arc<Surroundings>,
    ground: Arc<Ground>,
    image: String,
    ids: Vec<String>,
    /// The process and the address of each service when its side container was made.
    seen: Mutex<BTreeMap<usize, (String, Ipv4Addr)>>,
}

#[async_trait]
impl Doors for Side {
    async fn open(&self, i: usize) -> Result<Option<Arc<Agent>>, String> {
        let (id, name) = (&self.ids[i], &self.around.names[i]);
        let pid = docker(&["inspect", "--format", "{{.State.Pid}}", id]).await?;
        let words = |e: anyhow::Error| format!("{e:#}");
        let mut seen = self.seen.lock().await;
        let before = seen.get(&i).cloned();
        if pid == "0" || before.as_ref().is_some_and(|(known, _)| *known == pid) {
            return Ok(None);
        }
        let address = address_of(id).await.map_err(words)?;
        if let Some((_, was)) = before.as_ref().filter(|(_, was)| *was != address) {
            return Err(format!(
                "it came back with the address {address} instead of {was}; give the services fixed addresses \
                 (`ipv4_address` in the compose file)"
            ));
        }
        let side = format!("tribunal-{}-{name}-net", self.around.run);
        if before.is_some() {
            docker(&["rm", "--force", &side]).await?;
        }
        hold(&self.around, &self.image, &side, &["--network", &format!("container:{id}")])
            .await
            .map_err(words)?;
        let agent = enter(&self.around, name, &side).await.map_err(words)?;
        seen.insert(i, (pid, address));
        Ok(Some(self.ground.keep(agent)))
    }
}

/// The compose command with its project.
struct Compose {
    project: String,
    files: [PathBuf; 2],
}

impl Compose {
    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let [program, first @ ..] = &command().await?[..] else { bail!("no compose command") };
        let mut command = tokio::process::Command::new(program);
        command.args(first).args(["--project-name", &self.project]);
        for file in &self.files {
            command.arg("--file").arg(file);
        }
        command.args(arguments);
        let shown = format!("{program} {}", arguments.join(" "));
        let out = output(command, &shown, BUILDING).await.map_err(anyhow::Error::msg)?;
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr);
            bail!("`{shown}` of {} failed: {}", self.files[0].display(), said.trim());
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// The containers of the services, in their order; those of a scaled service by their numbers.
    async fn containers(&self, services: &[String], wanted: usize) -> Result<Vec<String>> {
        const NUMBER: &str = "{{index .Config.Labels \"com.docker.compose.container-number\"}}";
        let mut all = Vec::new();
        for service in services {
            let listed = self.run(&["ps", "-q", service]).await?;
            let mut numbered = Vec::new();
            for id in listed.split_whitespace() {
                let number =
                    docker(&["inspect", "--format", NUMBER, id]).await.map_err(anyhow::Error::msg)?;
                numbered.push((number.parse::<u32>().unwrap_or(0), id.to_owned()));
            }
            numbered.sort();
            all.extend(numbered.into_iter().map(|(_, id)| id));
        }
        if all.len() != wanted {
            bail!(
                "the services {} have {} containers, but the test is for {wanted} nodes: name other services, scale \
                 them, or set `nodes`",
                services.join(", "),
                all.len()
            );
        }
        Ok(all)
    }
}

/// `docker compose`, or `docker-compose` where that is older.
async fn command() -> Result<Vec<String>> {
    if docker(&["compose", "version"]).await.is_ok() {
        return Ok(vec!["docker".to_owned(), "compose".to_owned()]);
    }
    match crate::machine::program("docker-compose") {
        Some(path) => Ok(vec![path.to_string_lossy().into_owned()]),
        None => {
            bail!("neither `docker compose` nor `docker-compose` is there (Debian's package docker-compose)")
        }
    }
}

/// A compose file that adds our labels to everything that another one makes, and gives the services on trial fixed
/// addresses where that file has none: otherwise containers that are started again may swap theirs.
fn override_for(text: &str, run: &str, services: &[String], subnet: u8) -> Result<String> {
    let mut project: Value = serde_yaml::from_str(text).context("it is no YAML")?;
    // Like the programs that will read the file.
    project.apply_merge().context("a merge key (`<<`) in it leads nowhere")?;
    let mut out = Mapping::new();
    // Older programs want the same version everywhere.
    if let Some(version) = project.get("version") {
        out.insert("version".into(), version.clone());
    }
    for section in ["services", "networks", "volumes"] {
        let mut all = Mapping::new();
        if let Some(Value::Mapping(given)) = project.get(section) {
            let ours =
                given.iter().filter(|(_, v)| v.get("external").is_none_or(|e| e.as_bool() == Some(false)));
            all.extend(ours.map(|(name, made)| {
                let mut one = labelled(run);
                // An image with a name of its own is its owner's, and stays.
                if made.get("build").is_some() && made.get("image").is_none() {
                    one.insert("build".into(), Value::Mapping(labelled(run)));
                }
                (name.clone(), Value::Mapping(one))
            }));
        }
        if section == "networks" && !all.contains_key("default") {
            all.insert("default".into(), Value::Mapping(labelled(run)));
        }
        if !all.is_empty() {
            out.insert(section.into(), Value::Mapping(all));
        }
    }
    if !out.contains_key("services") {
        bail!("it has no services");
    }
    let mut subnets: Vec<String> = Vec::new();
    for (i, service) in services.iter().enumerate() {
        let Some(network) = network_of(&project, service) else { continue };
        let known = subnets.iter().position(|n| *n == network).unwrap_or_else(|| {
            subnets.push(network.clone());
            subnets.len() - 1
        });
        let subnet = subnet.wrapping_add(known as u8);
        let address = format!("10.216.{subnet}.{}", 11 + i);
        set(&mut out, &["services", service, "networks", &network, "ipv4_address"], address.into());
        let mut pool = Mapping::new();
        pool.insert("subnet".into(), format!("10.216.{subnet}.0/24").into());
        set(&mut out, &["networks", &network, "ipam", "config"], Value::Sequence(vec![Value::Mapping(pool)]));
    }
    Ok(serde_yaml::to_string(&Value::Mapping(out))?)
}

/// Something with our labels.
fn labelled(run: &str) -> Mapping {
    let mut labels = Mapping::new();
    labels.insert(RUN.into(), run.into());
    labels.insert(OWNER.into(), Owner::this().to_string().into());
    let mut one = Mapping::new();
    one.insert("labels".into(), Value::Mapping(labels));
    one
}

/// The network in which a service can be given a fixed address: its first, if neither has said anything about addresses
/// and there is one container of the service.
fn network_of(project: &Value, service: &str) -> Option<String> {
    let service = project.get("services")?.get(service)?;
    let scaled =
        service.get("scale").is_some() || service.get("deploy").is_some_and(|d| d.get("replicas").is_some());
    if scaled || service.get("network_mode").is_some() {
        return None;
    }
    let network = match service.get("networks") {
        None => "default".to_owned(),
        Some(Value::Sequence(names)) => names.first()?.as_str()?.to_owned(),
        Some(Value::Mapping(names)) => {
            let (name, settings) = names.iter().next()?;
            if settings.get("ipv4_address").is_some() {
                return None;
            }
            name.as_str()?.to_owned()
        }
        Some(_) => return None,
    };
    let declared = project.get("networks").and_then(|n| n.get(&network));
    let taken = declared.is_some_and(|n| n.get("external").is_some() || n.get("ipam").is_some());
    (!taken).then_some(network)
}

/// Sets a value deep inside, making what is missing on the way.
fn set(root: &mut Mapping, path: &[&str], value: Value) {
    let [first, rest @ ..] = path else { return };
    if rest.is_empty() {
        root.insert((*first).into(), value);
        return;
    }
    let next = root.entry((*first).into()).or_insert_with(|| Value::Mapping(Mapping::new()));
    if let Value::Mapping(next) = next {
        set(next, rest, value);
    }
}

/// What is wrong with the part of a test file that is about compose, if anything.
pub fn mistake(compose: Option<&Path>, services: &[String]) -> Option<String> {
    match (compose, services.is_empty()) {
        (Some(_), true) => Some("`compose` needs `services`: which of them are the nodes".to_owned()),
        (None, false) => Some("`services` are those of a `compose` file".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_a_project_makes_is_labelled() {
        let text = "version: '3.4'\nservices: {a: {image: x}, b: {image: y, networks: [net]}, c: {network_mode: host}}\n\
            networks: {net: {}, old: {external: true}}\nvolumes: {data: null}\n";
        let services = ["a", "b", "c"].map(str::to_owned);
        let labels = override_for(text, "t0123abcd", &services, 9).unwrap();
        insta::assert_snapshot!(labels.replace(&Owner::this().to_string(), "[owner]"));
        assert!(override_for("services: {a: {image: x}}", "t1", &[], 1).unwrap().contains("default"));
        assert!(override_for("networks: {}", "t1", &[], 1).unwrap_err().to_string().contains("no services"));
    }

    /// Whatever stands at `<<` belongs to the service like what stands below it.
    #[test]
    fn merge_keys_are_applied() {
        let text = "x-node: &node {networks: {net: {ipv4_address: 10.1.0.5}}, build: .}\n\
            services: {a: {<<: *node}}\nnetworks: {net: {}}\n";
        let added = override_for(text, "t0123abcd", &["a".to_owned()], 9).unwrap();
        assert!(!added.contains("10.216."), "{added}");
        assert!(added.contains("build:"), "{added}");
    }

    #[test]
    fn addresses_that_are_given_are_left_alone() {
        let text = "services: {a: {networks: {net: {ipv4_address: 10.1.0.5}}}, b: {networks: [own]}, c: {scale: 3}}\n\
            networks: {net: {}, own: {ipam: {config: [{subnet: 10.1.0.0/24}]}}}\n";
        let project: Value = serde_yaml::from_str(text).unwrap();
        for service in ["a", "b", "c", "nobody"] {
            assert_eq!(network_of(&project, service), None, "{service}");
        }
    }
}
