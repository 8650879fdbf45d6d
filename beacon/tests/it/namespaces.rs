//! Several machines, as network namespaces, with the RFC's constructor on every interface. Needs root on Linux;
//! elsewhere each test says that it did not run.
//!
//! The agents' period is an hour unless a test says otherwise, so what is found is found at once or not at all. Waits
//! end with what is expected; how long that took is printed, and bounded only by far more than a busy machine needs.

use std::time::{Duration, Instant};

use crate::agent::{Agent, Settings};
use crate::lab::{Lab, not_run};

#[test]
fn ten_processes_on_one_of_three_machines_all_see_all() {
    let Some(lab) = three_hosts("ten processes on one of three machines", &["10.1.0.{}/24", "fe80::{}/64"])
    else {
        return;
    };
    let hosts = ["a"; 10].into_iter().chain(["b", "c"]);

    let mut agents: Vec<_> = hosts
        .enumerate()
        .map(|(number, host)| lab.start(host, &Settings::new(&format!("agent{number}."))))
        .collect();

    all_see_all(&mut agents);
}

#[test]
fn machines_without_ipv4_find_each_other() {
    let Some(lab) = three_hosts("machines without IPv4", &["fe80::{}/64"]) else { return };

    let mut agents = ["a", "b", "c"].map(|host| lab.start(host, &Settings::new(host)));

    all_see_all(&mut agents);
    let (_, line) = agents[0].wait_for("appeared b eth0 ");
    assert!(line.ends_with(']') || line.contains("[fe80::2%"), "{line}");
}

#[test]
fn machines_without_ipv6_find_each_other() {
    let Some(lab) = three_hosts("machines without IPv6", &["10.1.0.{}/24"]) else { return };
    for host in ["a", "b", "c"] {
        lab.run(host, &["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]).expect("root may");
    }

    let mut agents = ["a", "b", "c"].map(|host| lab.start(host, &Settings::new(host)));

    all_see_all(&mut agents);
}

#[test]
fn machines_joined_by_three_networks_find_each_other_on_each() {
    let Some(mut lab) = Lab::new("three interfaces") else { return };
    lab.add_host("a");
    lab.add_host("b");
    for number in 1..=3 {
        let (bridge, interface) = (format!("bridge{number}"), format!("eth{number}"));
        lab.add_bridge(&bridge);
        lab.plug("a", &interface, &bridge, &[&format!("10.{number}.0.1/24"), "fe80::1/64"]);
        lab.plug("b", &interface, &bridge, &[&format!("10.{number}.0.2/24"), "fe80::2/64"]);
    }

    let mut a = lab.start("a", &Settings::new("a"));
    let mut b = lab.start("b", &Settings::new("b"));

    for interface in ["eth1", "eth2", "eth3"] {
        a.wait_for(&format!("appeared b {interface} "));
        b.wait_for(&format!("appeared a {interface} "));
    }
}

#[test]
fn machines_find_each_other_although_a_third_of_all_datagrams_is_lost() {
    let what = "a third of all datagrams lost";
    let Some(lab) = three_hosts(what, &["10.1.0.{}/24", "fe80::{}/64"]) else { return };
    for host in ["a", "b", "c"] {
        let rules = "table inet loss { chain input { type filter hook input priority 0; \
                     meta l4proto udp numgen random mod 100 < 33 drop; }; }";
        if let Err(reason) = lab.run(host, &["nft", rules]) {
            return not_run(what, &reason);
        }
    }

    let settings = |name: &str| Settings { period: Duration::from_millis(500), ..Settings::new(name) };
    let mut agents = ["a", "b", "c"].map(|host| lab.start(host, &settings(host)));

    all_see_all(&mut agents);
}

#[test]
fn a_machine_whose_interface_goes_down_and_up_is_found_again() {
    let Some(lab) = three_hosts("interface down and up", &["10.1.0.{}/24", "fe80::{}/64"]) else { return };
    let mut a = lab.start("a", &Settings::new("a"));
    let mut b = lab.start("b", &Settings::new("b"));
    a.wait_for("appeared b eth0 ");

    lab.ip("a", "link set eth0 down");
    a.wait_for("linkdown b eth0 ");
    let (skip_a, skip_b) = (a.request("stats"), b.request("stats"));
    lab.ip("a", "link set eth0 up");

    let up = Instant::now();
    let (found, _) = a.wait_after(skip_a, "appeared b eth0 ");
    println!("found again {:?} after the interface came up", found.saturating_duration_since(up));
    b.wait_after(skip_b, "repeated a eth0 ");
}

#[test]
fn an_address_that_changes_is_noticed_by_both_sides() {
    let Some(lab) = three_hosts("a change of address", &["10.1.0.{}/24"]) else { return };
    let mut a = lab.start("a", &Settings::new("a"));
    let mut b = lab.start("b", &Settings::new("b"));
    b.wait_for("appeared a eth0 10.1.0.1:");
    a.wait_for("appeared b eth0 ");

    let changed = Instant::now();
    lab.ip("a", "-4 addr del 10.1.0.1/24 dev eth0");
    lab.add_address("a", "eth0", "10.1.0.101/24");

    let (found, _) = b.wait_for("repeated a eth0 10.1.0.101:");
    println!("the new address was heard after {:?}", found.saturating_duration_since(changed));
    let skip = a.request("stats");
    b.request("data b again");
    a.wait_after(skip, " b again eth0 ");
}

#[test]
fn an_interface_that_is_plugged_in_later_is_used() {
    let Some(lab) = three_hosts("an interface plugged in later", &["10.1.0.{}/24"]) else { return };
    lab.add_bridge("bridge2");
    lab.plug("b", "eth1", "bridge2", &["10.2.0.2/24"]);
    let mut a = lab.start("a", &Settings::new("a"));
    let mut b = lab.start("b", &Settings::new("b"));
    a.wait_for("appeared b eth0 ");

    let plugged = Instant::now();
    lab.plug("a", "eth1", "bridge2", &["10.2.0.1/24"]);

    let (found, _) = a.wait_for("appeared b eth1 ");
    println!("found on the new interface after {:?}", found.saturating_duration_since(plugged));
    b.wait_for("appeared a eth1 ");
}

#[test]
fn a_beacon_started_before_there_is_a_network_leaves_loopback_for_it() {
    let Some(mut lab) = Lab::new("started before there is a network") else { return };
    lab.add_bridge("bridge1");
    lab.add_host("a");
    lab.add_host("b");
    let mut a = lab.start("a", &Settings::new("a"));
    let mut neighbour = lab.start("a", &Settings::new("neighbour"));
    a.wait_for("appeared neighbour lo ");

    lab.plug("a", "eth0", "bridge1", &["10.1.0.1/24"]);
    lab.plug("b", "eth0", "bridge1", &["10.1.0.2/24"]);
    let mut b = lab.start("b", &Settings::new("b"));

    a.wait_for("appeared b eth0 ");
    b.wait_for("appeared a eth0 ");
    neighbour.wait_for("appeared a eth0 ");
}

#[test]
fn where_multicast_is_refused_there_is_a_warning_and_broadcast_serves() {
    let what = "multicast refused";
    let Some(lab) = three_hosts(what, &["10.1.0.{}/24"]) else { return };
    for host in ["a", "b", "c"] {
        if let Err(reason) = lab.run(host, &["sysctl", "-qw", "net.ipv4.igmp_max_memberships=0"]) {
            return not_run(what, &reason);
        }
    }

    let mut agents = ["a", "b", "c"].map(|host| lab.start(host, &Settings::new(host)));

    all_see_all(&mut agents);
    let warnings = agents[0].ask("warnings");
    assert!(warnings.contains("GroupRefused") && warnings.contains("eth0"), "{warnings}");
}

#[test]
fn a_machine_that_vanishes_is_missed_after_a_few_periods() {
    let Some(lab) = three_hosts("a machine that vanishes", &["10.1.0.{}/24"]) else { return };
    let settings = |name: &str| Settings { period: Duration::from_millis(100), ..Settings::new(name) };
    let mut a = lab.start("a", &settings("a"));
    let mut b = lab.start("b", &settings("b"));
    a.wait_for("appeared b eth0 ");
    b.wait_for("appeared a eth0 ");

    lab.ip("switch", "link set b-eth0 down");

    a.wait_for("silent b eth0 ");
}

/// Machines a, b and c on one bridge; in the addresses, `{}` becomes the machine's number.
fn three_hosts(test: &str, addresses: &[&str]) -> Option<Lab> {
    let mut lab = Lab::new(test)?;
    lab.add_bridge("bridge1");
    for (number, host) in ["a", "b", "c"].into_iter().enumerate() {
        let number = (number + 1).to_string();
        let addresses: Vec<_> = addresses.iter().map(|address| address.replace("{}", &number)).collect();
        let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
        lab.add_host(host);
        lab.plug(host, "eth0", "bridge1", &addresses);
    }
    Some(lab)
}

/// Waits until each agent has heard of each other, and prints how long that took from the start of the last.
fn all_see_all(agents: &mut [Agent]) {
    let names: Vec<_> = agents.iter().map(|agent| agent.name.clone()).collect();
    let started = agents.iter_mut().map(|agent| agent.wait_for("started").0).max().expect("there are agents");
    let mut seen = started;
    for agent in agents.iter_mut() {
        let own = agent.name.clone();
        for name in names.iter().filter(|name| **name != own) {
            seen = seen.max(agent.wait_for(&format!("appeared {name} ")).0);
        }
    }
    println!("all see all after {:?}", seen.saturating_duration_since(started));
}
