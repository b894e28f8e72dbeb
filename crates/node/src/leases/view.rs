//! What the API tells of instances and lcores.

use super::counter::Counter;
use pointsman_imtl::Dialect;
use pointsman_lease::{Client, Lease};
use pointsman_model::cpu::CpuSet;
use pointsman_model::lease::{
    Claimed, Held, Instance, Instances, InterfaceLease, LcoreLease, Lcores, Liveness, Mapping,
    PeerView,
};

pub(super) fn instances(counter: &Counter) -> Instances {
    let all = counter.desk.clients().keys();
    Instances {
        instances: all.filter_map(|id| shown(counter, *id, None)).collect(),
        refusing: counter.refusing(),
    }
}

/// One instance, with the CPUs that its process has at this moment. Those of all of them would keep
/// clients waiting.
pub(super) fn instance(counter: &Counter, id: u64) -> Option<Instance> {
    let person = counter.people.get(&id);
    shown(counter, id, person.and_then(|person| person.cpus(&counter.roots)))
}

fn shown(counter: &Counter, id: u64, now: Option<CpuSet>) -> Option<Instance> {
    let client = counter.desk.clients().get(&id)?;
    let person = counter.people.get(&id);
    let idle = person.map(|person| person.asked.elapsed().as_millis()).unwrap_or_default();
    let dialect = counter.desk.learned(id).map(|learned| learned.dialect);
    Some(Instance {
        id,
        protocol: client.protocol,
        dialect: dialect.as_ref().map(Dialect::to_string),
        peer: peer(client),
        claimed: claimed(client),
        liveness: person.map_or(Liveness::Unknown, |person| person.liveness(&counter.roots)),
        since_unix_ms: client.since_unix_ms,
        idle_ms: u64::try_from(idle).unwrap_or(u64::MAX),
        requests: person.map_or(0, |person| person.requests),
        refused: person.map_or(0, |person| person.refused),
        cpuset: client.cpus().cloned(),
        mapping: client.mapping,
        lcores: leases(counter, id, now.as_ref()),
        interfaces: interfaces(client),
        cpuset_now: now.filter(|now| client.cpuset.is_some() && client.cpus() != Some(now)),
    })
}

fn peer(client: &Client) -> PeerView {
    let peer = client.peer.clone();
    PeerView {
        pid: peer.pid,
        uid: peer.uid,
        gid: peer.gid,
        command: peer.command,
        network_namespace: peer.network_namespace,
    }
}

fn claimed(client: &Client) -> Option<Claimed> {
    let claim = client.claim.clone()?;
    let differs = |pid: u32| i64::from(pid) != i64::from(claim.pid);
    Some(Claimed {
        hostname: claim.hostname,
        pid: claim.pid,
        uid: claim.uid,
        interfaces: claim.interfaces,
        pid_differs: client.peer.pid.is_some_and(differs),
    })
}

fn interfaces(client: &Client) -> Vec<InterfaceLease> {
    let all = client.interfaces.iter();
    let told = all.map(|(index, held)| InterfaceLease {
        place: client.place(*index),
        queues: held.queues.iter().copied().collect(),
        ports: held.ports.keys().copied().collect(),
        flows: held.flows.iter().map(|(location, rule)| format!("{location}: {rule}")).collect(),
    });
    told.collect()
}

/// What a client holds, with what is odd about it. `now`: the CPUs of its process, where they were
/// looked up.
pub(super) fn leases(counter: &Counter, id: u64, now: Option<&CpuSet>) -> Vec<LcoreLease> {
    let Some(client) = counter.desk.clients().get(&id) else { return Vec::new() };
    client.leases.values().map(|lease| told(counter, client, now, lease)).collect()
}

fn told(counter: &Counter, client: &Client, now: Option<&CpuSet>, lease: &Lease) -> LcoreLease {
    let mut notes = Vec::new();
    match lease.cpu {
        None => notes.push("unmapped: no CPU has this number".to_owned()),
        Some(cpu) => {
            match counter.desk.topology().cpu(cpu) {
                None => notes.push("the CPU is gone".to_owned()),
                Some(cpu) if !cpu.online => notes.push("the CPU is offline".to_owned()),
                Some(_) => {}
            }
            if counter.desk.policy().lcores.reserve.contains(cpu) {
                notes.push("reserved since".to_owned());
            }
            if now.is_some_and(|now| !now.contains(cpu)) {
                notes.push("outside the cpuset that its process has now".to_owned());
            }
            if client.mapping == Some(Mapping::PhysicalAssumed) {
                notes.push("taken for the number of a CPU: the cpuset cannot be read".to_owned());
            }
        }
    }
    LcoreLease { id: lease.id, cpu: lease.cpu, idle: lease.idle, notes }
}

pub(super) fn lcores(counter: &Counter) -> Lcores {
    let desk = &counter.desk;
    let mut held = Vec::new();
    for (id, client) in desk.clients() {
        let owner = client.name();
        let hold = |lcore| Held { instance: *id, owner: owner.clone(), lcore };
        held.extend(leases(counter, *id, None).into_iter().map(hold));
    }
    held.sort_by_key(|held| (held.lcore.cpu.is_none(), held.lcore.cpu, held.lcore.id));
    let policy = &desk.policy().lcores;
    Lcores {
        topology: desk.topology().clone(),
        reserved: policy.reserve.clone(),
        limit: policy.limit,
        lcore_ids: policy.lcore_ids,
        held,
        refusing: counter.refusing(),
    }
}
