//! What differs between the normal terms of two jobs, for people whose parties refuse to start
//! together.

use std::collections::BTreeMap;
use std::fmt::Display;

use crate::keys::in_words;

use super::terms::{Parties, Party, Service, Terms};

pub(super) fn differences(here: &Terms, there: &Terms) -> Vec<String> {
    let mut lines = Lines(Vec::new());
    lines.compare("version", &here.version, &there.version);
    lines.compare("name", &here.name, &there.name);
    lines.compare("mode", &text(&here.mode), &text(&there.mode));
    lines.compare(
        "deadline",
        &format!("{} s", here.deadline_seconds),
        &format!("{} s", there.deadline_seconds),
    );
    lines.compare("maximum_keys", &here.maximum_keys, &there.maximum_keys);
    let (ours, theirs) = (here.pad_keys_to, there.pad_keys_to);
    lines.compare_optional("pad_keys_to", ours.as_ref(), theirs.as_ref());
    lines.compare_optional("canaries", here.canaries.as_ref(), there.canaries.as_ref());
    let default = Service::default();
    let [ours, theirs] = [here, there].map(|job| job.service.as_ref().unwrap_or(&default));
    lines.compare_optional("service.address", ours.address.as_ref(), theirs.address.as_ref());
    lines.compare("service.addresses", &ours.addresses.join(", "), &theirs.addresses.join(", "));
    lines.compare("service.verify", &text(&ours.verify), &text(&theirs.verify));
    lines.compare_optional("service.key", ours.key.as_ref(), theirs.key.as_ref());
    let exchange = |service: &Service| service.key_exchange.as_ref().map(text);
    let (our_exchange, their_exchange) = (exchange(ours), exchange(theirs));
    lines.compare_optional("service.key_exchange", our_exchange.as_ref(), their_exchange.as_ref());
    if ours.policy != theirs.policy {
        lines.0.push("service.policy differs".to_owned());
    }
    if here.provider_policy != there.provider_policy {
        lines.0.push("provider.policy differs".to_owned());
    }
    keys(here, there, &mut lines);
    lines.compare("recipe", &in_words(here.recipe.as_ref()), &in_words(there.recipe.as_ref()));
    lines.compare("reveal.what", &text(&here.reveal.what), &text(&there.reveal.what));
    lines.compare("reveal.to", &recipients(here), &recipients(there));
    lines.compare("reveal.minimum", &here.reveal.minimum, &there.reveal.minimum);
    parties(here, there, &mut lines);
    let number = |job: &Terms| job.shard.map(|shard| shard.number);
    lines.compare_optional("shard", number(here).as_ref(), number(there).as_ref());
    lines.0
}

struct Lines(Vec<String>);

impl Lines {
    fn compare<T: PartialEq + Display>(&mut self, field: &str, here: &T, there: &T) {
        if here != there {
            self.0.push(format!("{field}: {here} here, {there} there"));
        }
    }

    fn compare_optional<T: Display>(&mut self, field: &str, here: Option<&T>, there: Option<&T>) {
        let shown = |value: Option<&T>| value.map_or_else(|| "none".to_owned(), T::to_string);
        self.compare(field, &shown(here), &shown(there));
    }
}

/// The text of a value that serialises as a string.
fn text<T: serde::Serialize>(value: &T) -> String {
    let value = serde_json::to_value(value).expect("a plain enum");
    value.as_str().unwrap_or_default().to_owned()
}

fn keys(here: &Terms, there: &Terms, lines: &mut Lines) {
    let names =
        |job: &Terms| -> Vec<String> { job.keys.iter().map(|part| part.name.clone()).collect() };
    let (ours, theirs) = (names(here), names(there));
    if ours != theirs {
        lines.compare("key parts", &ours.join(", "), &theirs.join(", "));
    }
    for part in &here.keys {
        let Some(other) = there.keys.iter().find(|other| other.name == part.name) else { continue };
        let steps = |steps: &[crate::keys::Step]| {
            let steps: Vec<_> = steps.iter().map(ToString::to_string).collect();
            format!("[{}]", steps.join(", "))
        };
        lines.compare(
            &format!("key {}.normalise", part.name),
            &steps(&part.normalise),
            &steps(&other.normalise),
        );
        if part.ignore != other.ignore {
            lines.0.push(format!("key {}.ignore differs", part.name));
        }
    }
}

fn recipients(job: &Terms) -> String {
    match job.reveal.to.as_slice() {
        [] => "everybody".to_owned(),
        names => names.join(", "),
    }
}

fn parties(here: &Terms, there: &Terms, lines: &mut Lines) {
    let (Parties::Named(ours), Parties::Named(theirs)) = (&here.parties, &there.parties) else {
        let shown = |job: &Terms| match &job.parties {
            Parties::Named(parties) => format!("{} named", parties.len()),
            Parties::Unpinned { count } => format!("{count} unpinned"),
        };
        return lines.compare("parties", &shown(here), &shown(there));
    };
    let (ours, theirs) = (by_name(ours), by_name(theirs));
    for (name, party) in &ours {
        match theirs.get(name) {
            None => lines.0.push(format!("party {name}: here, not there")),
            Some(other) => {
                lines.compare(&format!("party {name}.key"), &party.key, &other.key);
                lines.compare_optional(
                    &format!("party {name}.maximum_keys"),
                    party.maximum_keys.as_ref(),
                    other.maximum_keys.as_ref(),
                );
                lines.compare_optional(
                    &format!("party {name}.address"),
                    party.address.as_ref(),
                    other.address.as_ref(),
                );
            }
        }
    }
    for name in theirs.keys().filter(|name| !ours.contains_key(*name)) {
        lines.0.push(format!("party {name}: there, not here"));
    }
}

fn by_name(parties: &[Party]) -> BTreeMap<&str, &Party> {
    parties.iter().map(|party| (party.name.as_str(), party)).collect()
}
