//! A tree of topic levels, for filters that are asked by names and for names that are asked by filters.

use std::collections::HashMap;

/// Values by their topic, one level of it a node. Its memory is what was put in: nodes go with their last
/// value. A topic of n levels makes at most n nodes, so bound the levels ([`super::LEVELS_MAX`]).
#[derive(Debug, Clone)]
pub struct Trie<T> {
    root: Node<T>,
    len: usize,
}

#[derive(Debug, Clone)]
struct Node<T> {
    value: Option<T>,
    children: HashMap<Box<str>, Node<T>>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            value: None,
            children: HashMap::new(),
        }
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.value.is_none() && self.children.is_empty()
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self {
            root: Node::default(),
            len: 0,
        }
    }
}

impl<T> Trie<T> {
    /// How many topics have a value.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none has one.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of exactly this topic.
    pub fn get(&self, topic: &str) -> Option<&T> {
        let mut node = &self.root;
        for level in topic.split('/') {
            node = node.children.get(level)?;
        }
        node.value.as_ref()
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, topic: &str) -> Option<&mut T> {
        let mut node = &mut self.root;
        for level in topic.split('/') {
            node = node.children.get_mut(level)?;
        }
        node.value.as_mut()
    }

    /// Sets the value of exactly this topic and answers the one before.
    pub fn insert(&mut self, topic: &str, value: T) -> Option<T> {
        let before = self.place(topic).replace(value);
        self.len += usize::from(before.is_none());
        before
    }

    /// The value of exactly this topic, made when there is none.
    pub fn get_or_default(&mut self, topic: &str) -> &mut T
    where
        T: Default,
    {
        if self.get(topic).is_none() {
            self.len += 1;
        }
        self.place(topic).get_or_insert_with(T::default)
    }

    fn place(&mut self, topic: &str) -> &mut Option<T> {
        let mut node = &mut self.root;
        for level in topic.split('/') {
            node = node.children.entry(level.into()).or_default();
        }
        &mut node.value
    }

    /// Takes the value of exactly this topic out.
    pub fn remove(&mut self, topic: &str) -> Option<T> {
        let removed = remove(&mut self.root, &mut topic.split('/'))?;
        self.len -= 1;
        Some(removed)
    }

    /// Takes the topics for filters: calls `found` with the value of each that matches the name
    /// ([`super::matches`]).
    pub fn match_name<'t>(&'t self, name: &str, found: &mut dyn FnMut(&'t T)) {
        let wildcards = !name.starts_with('$');
        match_name(&self.root, Some(name), wildcards, found);
    }

    /// Takes the topics for names: calls `found` with the value of each that the filter matches.
    pub fn match_filter<'t>(&'t self, filter: &str, found: &mut dyn FnMut(&'t T)) {
        match_filter(&self.root, Some(filter), true, found);
    }

    /// Calls `found` with every value.
    pub fn for_each<'t>(&'t self, found: &mut dyn FnMut(&'t T)) {
        every(&self.root, found);
    }
}

fn split(topic: &str) -> (&str, Option<&str>) {
    match topic.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (topic, None),
    }
}

fn remove<T>(node: &mut Node<T>, levels: &mut dyn Iterator<Item = &str>) -> Option<T> {
    let Some(level) = levels.next() else {
        return node.value.take();
    };
    let child = node.children.get_mut(level)?;
    let removed = remove(child, levels);
    if child.is_empty() {
        node.children.remove(level);
    }
    removed
}

fn match_name<'t, T>(
    node: &'t Node<T>,
    name: Option<&str>,
    wildcards: bool,
    found: &mut dyn FnMut(&'t T),
) {
    // `#` stands for the level above, too.
    if wildcards && let Some(value) = node.children.get("#").and_then(|node| node.value.as_ref()) {
        found(value);
    }
    let Some(name) = name else {
        if let Some(value) = &node.value {
            found(value);
        }
        return;
    };
    let (level, rest) = split(name);
    // A name holds no wildcards, so that its own levels never are those of the tree.
    if let Some(child) = node.children.get(level) {
        match_name(child, rest, true, found);
    }
    if wildcards && let Some(child) = node.children.get("+") {
        match_name(child, rest, true, found);
    }
}

fn match_filter<'t, T>(
    node: &'t Node<T>,
    filter: Option<&str>,
    first: bool,
    found: &mut dyn FnMut(&'t T),
) {
    let Some(filter) = filter else {
        if let Some(value) = &node.value {
            found(value);
        }
        return;
    };
    let (level, rest) = split(filter);
    let hidden = |name: &str| first && name.starts_with('$');
    match level {
        "#" => {
            if let Some(value) = &node.value {
                found(value);
            }
            for (name, child) in &node.children {
                if !hidden(name) {
                    every(child, found);
                }
            }
        }
        "+" => {
            for (name, child) in &node.children {
                if !hidden(name) {
                    match_filter(child, rest, false, found);
                }
            }
        }
        level => {
            if let Some(child) = node.children.get(level) {
                match_filter(child, rest, false, found);
            }
        }
    }
}

fn every<'t, T>(node: &'t Node<T>, found: &mut dyn FnMut(&'t T)) {
    if let Some(value) = &node.value {
        found(value);
    }
    for child in node.children.values() {
        every(child, found);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topic::{is_valid_filter, is_valid_name, matches};

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "", "$x", "+", "#"])
    }

    fn topic() -> impl Strategy<Value = String> {
        prop::collection::vec(level(), 1..5).prop_map(|levels| levels.join("/"))
    }

    proptest! {
        #[test]
        fn the_tree_says_what_matching_says(topics in prop::collection::vec(topic(), 0..40)) {
            let (names, rest): (Vec<_>, Vec<_>) =
                topics.into_iter().partition(|topic| is_valid_name(topic));
            let filters: Vec<_> = rest.into_iter().filter(|topic| is_valid_filter(topic)).collect();
            let (mut of_filters, mut of_names) = (Trie::default(), Trie::default());
            for filter in filters.iter().chain(&names) {
                if !filter.is_empty() {
                    of_filters.insert(filter, filter.clone());
                }
            }
            for name in &names {
                of_names.insert(name, name.clone());
            }
            for name in &names {
                let mut found = Vec::new();
                of_filters.match_name(name, &mut |filter| found.push(filter.clone()));
                let mut expected: Vec<_> = filters.iter().chain(&names)
                    .filter(|filter| matches(filter, name)).cloned().collect();
                found.sort();
                expected.sort();
                expected.dedup();
                prop_assert_eq!(found, expected);
            }
            for filter in &filters {
                let mut found = Vec::new();
                of_names.match_filter(filter, &mut |name| found.push(name.clone()));
                let mut expected: Vec<_> =
                    names.iter().filter(|name| matches(filter, name)).cloned().collect();
                found.sort();
                expected.sort();
                expected.dedup();
                prop_assert_eq!(found, expected);
            }
            for filter in filters.iter().chain(&names) {
                of_filters.remove(filter);
            }
            prop_assert!(of_filters.is_empty());
            prop_assert!(of_filters.root.is_empty(), "no node is left");
        }
    }

    #[test]
    fn values_are_set_replaced_and_taken() {
        let mut trie = Trie::default();
        assert_eq!(trie.insert("a/b", 1), None);
        assert_eq!(trie.insert("a/b", 2), Some(1));
        assert_eq!(trie.insert("a", 3), None);
        assert_eq!(
            (trie.len(), trie.get("a/b"), trie.get("b")),
            (2, Some(&2), None)
        );
        assert_eq!(trie.remove("a/c"), None);
        assert_eq!(trie.remove("a"), Some(3));
        assert_eq!(trie.remove("a"), None);
        assert_eq!(trie.get("a/b"), Some(&2));
        *trie.get_or_default("a/b") += 1;
        assert_eq!(trie.get_mut("a/b"), Some(&mut 3));
    }
}
