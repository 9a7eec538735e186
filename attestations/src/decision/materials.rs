//! Whether what entered a build is what the rule wants.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use url::Url;

use super::{Few, Unmet};
use crate::policy::{Allowed, Gaps, Materials as Wanted, Pattern};
use crate::provenance::{BuildDefinition, Inventory, Materials, ResourceDescriptor as Resource, Responses};
use crate::purl;

/// What one build lacks of what is wanted of its materials.
pub(super) fn lacking(wanted: &Wanted, build: &BuildDefinition) -> Vec<Unmet> {
    let mut unmet = Vec::new();
    let mut add = |found: BTreeSet<String>, kind: fn(Few) -> Unmet| {
        if !found.is_empty() {
            unmet.push(kind(Few::of(&found)));
        }
    };
    if wanted.gaps == Gaps::Refused {
        add(gaps(&build.internal_parameters.materials), |reasons| Unmet::IncompleteMaterials { reasons });
    }
    let of = |kind| build.resolved_dependencies.iter().filter(move |it| it.is(kind));
    if let Allowed::Only(hosts) = &wanted.hosts {
        add(strangers(hosts, of(Resource::EXCHANGE)), |found| Unmet::Hosts { found });
    }
    if !wanted.forbid.is_empty() {
        add(unread(build.internal_parameters.inventory.as_ref()), |reasons| Unmet::IncompletePackages {
            reasons,
        });
    }
    if !wanted.require.is_empty() || !wanted.forbid.is_empty() || !wanted.forbid_fetched.is_empty() {
        let packages = Packages::held(wanted, of(Resource::PACKAGE), of(Resource::FETCHED));
        add(packages.missing, |wanted| Unmet::MissingPackages { wanted });
        add(packages.forbidden, |found| Unmet::ForbiddenPackages { found });
        add(packages.forbidden_fetched, |found| Unmet::FetchedPackages { found });
        add(packages.unreadable, |found| Unmet::PackageNames { found });
    }
    unmet
}

/// Whether the builder saw for itself what entered over the network: nothing did, or it fetched it, or it asked the servers
/// afterwards and they gave all of it.
pub(super) fn are_seen(build: &BuildDefinition) -> bool {
    match &build.internal_parameters.responses {
        Responses::Fetched => true,
        Responses::Confirmed(found) => found.is_complete(),
        Responses::Replayed => {
            let entered = [Resource::EXCHANGE, Resource::FETCHED, Resource::GIT];
            build.internal_parameters.materials == Materials::Complete
                && !build
                    .resolved_dependencies
                    .iter()
                    .any(|it| is_fetched(it) || entered.iter().any(|kind| it.is(kind)))
        }
    }
}

/// Why the materials are not complete; never empty when they are not.
fn gaps(materials: &Materials) -> BTreeSet<String> {
    match materials {
        Materials::Complete => BTreeSet::new(),
        Materials::Incomplete { reasons } if reasons.is_empty() => {
            BTreeSet::from(["the builder gives no reason".to_owned()])
        }
        Materials::Incomplete { reasons } => reasons.iter().cloned().collect(),
    }
}

/// Why not every package of the image is known; never empty when some are not.
fn unread(inventory: Option<&Inventory>) -> BTreeSet<String> {
    match inventory {
        Some(Inventory::Complete) => BTreeSet::new(),
        Some(Inventory::Incomplete { reasons }) if !reasons.is_empty() => reasons.iter().cloned().collect(),
        Some(Inventory::Incomplete { .. }) => BTreeSet::from(["the builder gives no reason".to_owned()]),
        None => BTreeSet::from(["the builder did not look for packages in the image".to_owned()]),
    }
}

/// Whether it is a package of the image whose file came over the network.
fn is_fetched(resource: &Resource) -> bool {
    resource.is(Resource::PACKAGE) && !resource.digest.is_empty()
}

/// The exchanges with hosts that no pattern allows, one for each host and step.
fn strangers<'a>(hosts: &[Pattern], exchanges: impl Iterator<Item = &'a Resource>) -> BTreeSet<String> {
    let mut known: BTreeMap<&str, Option<String>> = BTreeMap::new();
    let mut strangers = BTreeSet::new();
    for exchange in exchanges {
        let url = exchange.uri.as_deref().unwrap_or_default();
        let Some(origin) = origin(url) else {
            strangers.insert(with_step(exchange, &format!("an exchange whose URL has no plain host: {url}")));
            continue;
        };
        // Thousands of exchanges are with a few hosts: each is judged once.
        let stranger = known.entry(origin).or_insert_with(|| match host(origin) {
            Some(host) if hosts.iter().any(|pattern| pattern.matches(&host)) => None,
            Some(host) => Some(host),
            None => Some(origin.to_owned()),
        });
        if let Some(host) = stranger {
            strangers.insert(with_step(exchange, host));
        }
    }
    strangers
}

/// Scheme and authority of a URL that every reader takes apart alike: nothing but host and port stands between `//` and
/// the first of `/`, `?`, `#`. A user's name, a backslash or a line break there is read differently by different programs.
fn origin(url: &str) -> Option<&str> {
    let scheme = ["https://", "http://"].into_iter().find(|scheme| url.starts_with(scheme))?.len();
    let authority = url.get(scheme..)?;
    let end = authority.find(['/', '?', '#']).unwrap_or(authority.len());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    authority.get(..end)?.bytes().all(plain).then(|| url.get(..scheme + end))?
}

/// The host of an origin, if it is written as it is meant: no `0x7f.1` for 127.0.0.1.
fn host(origin: &str) -> Option<String> {
    let (_, authority) = origin.split_once("://")?;
    let url = Url::parse(origin).ok()?;
    let host = url.host_str()?;
    let port = authority.strip_prefix(host)?;
    (port.is_empty() || port.starts_with(':')).then(|| host.to_owned())
}

/// The packages of a build, as a rule sees them.
#[derive(Default)]
struct Packages {
    missing: BTreeSet<String>,
    forbidden: BTreeSet<String>,
    forbidden_fetched: BTreeSet<String>,
    unreadable: BTreeSet<String>,
}

impl Packages {
    fn held<'a>(
        wanted: &Wanted,
        installed: impl Iterator<Item = &'a Resource>,
        fetched: impl Iterator<Item = &'a Resource>,
    ) -> Self {
        let mut missing: Vec<&Pattern> = wanted.require.iter().collect();
        let mut all = Self::default();
        for package in installed {
            let Some(named) = all.named(package) else { continue };
            missing.retain(|pattern| !pattern.matches(&named));
            all.forbidden.extend(forbidden(&wanted.forbid, package, &named));
            if is_fetched(package) {
                all.forbidden_fetched.extend(forbidden(&wanted.forbid_fetched, package, &named));
            }
        }
        for package in fetched {
            let Some(named) = all.named(package) else { continue };
            all.forbidden_fetched.extend(forbidden(&wanted.forbid_fetched, package, &named));
        }
        all.missing = missing.into_iter().map(ToString::to_string).collect();
        all
    }

    /// What patterns are held against; one that cannot be read is kept as such.
    fn named<'p>(&mut self, package: &'p Resource) -> Option<Cow<'p, str>> {
        let purl = package.uri.as_deref().unwrap_or("a package without a name");
        let named = purl::coordinates(purl);
        if named.is_none() {
            self.unreadable.insert(with_step(package, purl));
        }
        named
    }
}

/// A text for each pattern that forbids the package.
fn forbidden<'p>(
    patterns: &'p [Pattern],
    package: &'p Resource,
    named: &'p str,
) -> impl Iterator<Item = String> + 'p {
    let forbids = patterns.iter().filter(|pattern| pattern.matches(named));
    forbids.map(move |pattern| with_step(package, &format!("{named}, which {pattern} forbids")))
}

/// What was found, with the step that took it in where the builder names one.
fn with_step(resource: &Resource, found: &str) -> String {
    match resource.text("step") {
        Some(step) => format!("{found} (step {step})"),
        None => found.to_owned(),
    }
}
